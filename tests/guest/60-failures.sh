# When a load fails, the reason is said and the old policy stays in force.

# hash_of PROFILE: what the kernel publishes of it, by which one policy is told from another.
hash_of() {
    local dir
    for dir in /sys/kernel/security/apparmor/policy/profiles/*/; do
        if [ "$(cat "$dir/name")" = "$1" ]; then cat "$dir"/sha[0-9]*; fi
    done
}

case_a_missing_parser_is_3() {
    make_guest noparser
    local before
    before=$(hash_of "$PROFILE")
    [ -n "$before" ]
    truncate -s 64k "$IMAGES/noparser-second.img"
    domain_xml noparser "$UUID" "$DISK" "$IMAGES/noparser-second.img" >noparser.xml
    aa-derive noparser.xml | aa-render >rendered.json
    expect 3 aa-load --parser /nonexistent/apparmor_parser rendered.json
    says "$stderr" '/nonexistent/apparmor_parser'
    [ -z "$stdout" ]
    [ "$(hash_of "$PROFILE")" = "$before" ]
    # The twin: with the parser the new policy is loaded.
    expect 0 aa-load rendered.json
    [ "$(hash_of "$PROFILE")" != "$before" ]
}

case_a_syntax_error_is_1_and_names_its_line() {
    make_guest syntax
    local before line
    before=$(hash_of "$PROFILE")
    printf '%s\n' '# of the user' >>"$PROFILES/$PROFILE"
    sed -i '/^profile/a\  /of/the/user rwq,' "$PROFILES/$PROFILE"
    line=$(grep -n '/of/the/user' "$PROFILES/$PROFILE" | cut -d: -f1)
    expect 1 aa-load "$PROFILE"
    says "$stderr" "$PROFILES/$PROFILE"
    says "$stderr" "[: ]${line}[: ]"
    [ "$(hash_of "$PROFILE")" = "$before" ]
    [ "$(mode_of "$PROFILE")" = enforce ]
    expect 1 qemu_given "$UUID" -blockdev driver=file,node-name=secret,read-only=on,filename=/etc/shadow
    sed -i '/of.the.user/d' "$PROFILES/$PROFILE"
    expect 0 aa-load "$PROFILE"
}

case_a_syntax_error_in_the_users_template_is_1() {
    # For templates elsewhere its own profile would need a rule.
    uncaged aa-render
    make_guest template
    local before line
    before=$(hash_of "$PROFILE")
    mkdir templates
    sed '/^profile LIBVIRT_TEMPLATE/a\  /of/the/user rwq,' "$PROFILES/TEMPLATE.qemu" >templates/TEMPLATE.qemu
    expect 0 aa-render --renew --template-dir "$PWD/templates" derived.json
    cp stdout rendered.json
    line=$(grep -n '/of/the/user' "$PROFILES/$PROFILE" | cut -d: -f1)
    expect 1 aa-load rendered.json
    says "$stderr" "$PROFILES/$PROFILE"
    says "$stderr" "[: ]${line}[: ]"
    [ "$(hash_of "$PROFILE")" = "$before" ]
    expect 1 qemu_given "$UUID" -blockdev driver=file,node-name=secret,read-only=on,filename=/etc/shadow
    # The twin: the host's own template again.
    expect 0 aa-render --renew derived.json
    cp stdout rendered.json
    expect 0 aa-load rendered.json
}

case_a_template_without_its_marker_writes_nothing() {
    # For templates elsewhere its own profile would need a rule.
    uncaged aa-render
    UUID=$(new_uuid)
    domain_xml marker "$UUID" >marker.xml
    mkdir templates
    printf 'profile something {\n}\n' >templates/TEMPLATE.qemu
    aa-derive marker.xml >derived.json
    expect 1 aa-render --template-dir "$PWD/templates" derived.json
    says "$stderr" "$PWD/templates/TEMPLATE.qemu"
    [ -z "$stdout" ]
    [ ! -e "$PROFILES/libvirt-$UUID" ]
}

case_an_ordinary_user_may_not_load() {
    make_guest user
    chmod 755 . "$PWD/.."
    chmod 644 rendered.json
    truncate -s 64k "$IMAGES/user-second.img"
    domain_xml user "$UUID" "$DISK" "$IMAGES/user-second.img" >user.xml
    aa-derive user.xml | aa-render >rendered.json
    local before
    before=$(hash_of "$PROFILE")
    expect 3 setpriv --reuid=1000 --regid=1000 --clear-groups aa-load rendered.json
    [ "$(hash_of "$PROFILE")" = "$before" ]
    [ "$(wc -l <stderr)" -ge 1 ]
}
