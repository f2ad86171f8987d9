# A kernel that has AppArmor switched off (apparmor=0).

case_it_is_off() {
    [ "$(cat /sys/module/apparmor/parameters/enabled)" = N ]
}

case_confine_starts_nothing() {
    expect 125 aa-confine --profile anything -- /usr/bin/touch "$PWD/ran"
    says "$stderr" 'AppArmor'
    [ ! -e ran ]
    # The twin: the command itself works.
    /usr/bin/touch "$PWD/ran"
    [ -e ran ]
}

case_load_is_3() {
    UUID=$(new_uuid)
    truncate -s 64k "$IMAGES/off.img"
    domain_xml off "$UUID" "$IMAGES/off.img" >off.xml
    # Deriving and rendering need no kernel support.
    aa-derive off.xml | aa-render >rendered.json
    [ -s "$PROFILES/libvirt-$UUID" ]
    expect 3 aa-load rendered.json
    says "$stderr" 'AppArmor'
    [ -z "$stdout" ]
}
