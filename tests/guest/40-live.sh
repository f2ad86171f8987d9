# Changing and removing the profile of a guest that runs.

case_replace_grants_a_second_disk() {
    make_guest hotplug
    start_qemu hotplug "$UUID"
    local second=$IMAGES/hotplug-second.img
    truncate -s 1M "$second"
    cannot_open hotplug "$second"
    domain_xml hotplug "$UUID" "$DISK" "$second" >hotplug.xml
    confine_guest hotplug.xml
    [ "$(jq -r .action loaded.json)" = replaced ]
    opens hotplug "$second"
    opens hotplug "$DISK"
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    # And taken away again.
    domain_xml hotplug "$UUID" "$DISK" >hotplug.xml
    confine_guest hotplug.xml
    cannot_open hotplug "$second"
    opens hotplug "$DISK"
}

case_the_same_again_is_unchanged() {
    make_guest again
    confine_guest again.xml
    [ "$(jq -r .action loaded.json)" = unchanged ]
}

case_remove_waits_for_the_last_process() {
    make_guest remove
    start_qemu remove "$UUID"
    expect 1 aa-load remove "$PROFILE"
    says "$stderr" "$QEMU_PID"
    [ "$(mode_of "$PROFILE")" = enforce ]
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    cannot_open remove /etc/shadow true
    quit_qemu remove
    expect 0 aa-load remove "$PROFILE"
    [ "$(jq -r .action <<<"$stdout")" = removed ]
    [ -z "$(mode_of "$PROFILE")" ]
    # The kernel records it as a denial of the tool.
    expect_denial 'info="label not found".* profile="aa-confine"'
    expect 125 aa-confine --uuid "$UUID" -- /usr/bin/true
}

case_many_profiles_in_one_run() {
    local n xml=()
    for n in 1 2 3; do
        domain_xml "many$n" "$(new_uuid)" "$IMAGES/many$n.img" >"many$n.xml"
        truncate -s 64k "$IMAGES/many$n.img"
        xml+=("many$n.xml")
    done
    aa-derive "${xml[@]}" | aa-render >rendered.json
    # The second one is broken by its user; the others are loaded all the same.
    local broken file
    broken=$(sed -n 2p rendered.json | jq -r .profile)
    file=$(sed -n 2p rendered.json | jq -r .file)
    sed -i '/^profile/a\  /not/a/rule rwq,' "$file"
    expect 1 aa-load rendered.json
    says "$stderr" "$broken"
    [ "$(wc -l <stdout)" = 2 ]
    [ -z "$(mode_of "$broken")" ]
    for profile in $(jq -r .profile rendered.json); do
        [ "$profile" = "$broken" ] || [ "$(mode_of "$profile")" = enforce ]
    done
}
