# What changes between the tools, or is not what it says.

case_a_link_that_is_swapped_after_the_start_leads_nowhere() {
    local link=$IMAGES/swapped.img own=$IMAGES/swapped-own.img other=$IMAGES/swapped-other.img mark
    truncate -s 1M "$own" "$other"
    ln -sfn "$own" "$link"
    UUID=$(new_uuid)
    domain_xml swapped "$UUID" "$link" >swapped.xml
    confine_guest swapped.xml
    start_qemu swapped "$UUID"
    opens swapped "$link"
    ln -sfn "$other" "$link"
    mark=$(log_mark)
    cannot_open swapped "$link"
    denied "$mark" "libvirt-$UUID" "$other"
    opens swapped "$own"
    ln -sfn /etc/shadow "$link"
    cannot_open swapped "$link" true
    # The next derivation follows no link into the system either.
    expect 1 aa-derive swapped.xml
    says "$stderr" '/etc/shadow'
    [ -z "$stdout" ]
    ln -sfn "$own" "$link"
    opens swapped "$link"
    quit_qemu swapped
}

case_a_link_that_is_swapped_between_the_tools_is_the_file_that_was_judged() {
    local link=$IMAGES/between.img own=$IMAGES/between-own.img other=$IMAGES/between-other.img
    truncate -s 1M "$own" "$other"
    ln -sfn "$own" "$link"
    UUID=$(new_uuid)
    domain_xml between "$UUID" "$link" >between.xml
    aa-derive between.xml >derived.json
    ln -sfn "$other" "$link"
    aa-render derived.json >rendered.json
    aa-load rendered.json >loaded.json
    start_qemu between "$UUID"
    cannot_open between "$link"
    cannot_open between "$other"
    opens between "$own"
    quit_qemu between
}

case_a_record_edited_to_name_anothers_file_is_refused() {
    make_guest edited
    local victim=$PROFILE file=$PWD/$PROFILE
    expect 0 aa-render derived.json
    cp stdout rendered.json
    # A file of another name, loaded or removed; a file of an ordinary user; a directory that anybody can write to.
    jq -c --arg file /etc/apparmor.d/abstractions/base '.file = $file' rendered.json >template.json
    local verb
    for verb in replace add remove; do
        expect 1 aa-load "$verb" template.json
        says "$stderr" "$victim: /etc/apparmor.d/abstractions/base: a profile file must be named after its profile"
    done
    [ ! -e /etc/apparmor.d/abstractions/.aa-render.lock ]
    [ "$(mode_of "$victim")" = enforce ]
    # A directory that has no such file: to remove the profile makes no lock there. That is the twin, too.
    mkdir empty
    jq -c --arg file "$PWD/empty/$victim" '.file = $file' rendered.json >empty.json
    expect 1 aa-load empty.json
    expect 0 aa-load remove empty.json
    [ -z "$(ls -A empty)" ]
    expect 0 aa-load rendered.json
    printf 'profile %s {\n  /** rw,\n}\n' "$victim" >"$file"
    jq -c --arg file "$file" '.file = $file' rendered.json >planted.json
    chown 1000 "$file"
    expect 1 aa-load planted.json
    says "$stderr" 'another user owns it'
    chown 0 "$file"
    chmod 1777 .
    expect 1 aa-load planted.json
    says "$stderr" 'everybody may write to it'
    chmod 755 .
    [ "$(mode_of "$victim")" = enforce ]
    expect 1 qemu_given "$UUID" -blockdev driver=file,node-name=secret,read-only=on,filename=/etc/shadow
    # The twin: the record as it was.
    expect 0 aa-load rendered.json
    [ "$(jq -r .action <<<"$stdout")" = unchanged ]
}

case_apparmors_own_clean_up_leaves_guests_alone() {
    make_guest kept
    rm "$PROFILES/$PROFILE" "$PROFILES/$PROFILE.files"
    printf 'profile lies-stray { /x r, }\n' | apparmor_parser -K -r
    expect 0 aa-remove-unknown -n
    says "$stdout$stderr" lies-stray
    # It spares a guest's profile by its name. Not so the one of passt within it, in libvirt's template of Debian 13: that is
    # kept by the guest's file alone, with libvirt's own helper too.
    [[ $stdout$stderr != *"'$PROFILE'"* ]] || fail "it would be removed: $stdout"
    printf 'profile lies-stray {}\n' | apparmor_parser -K -R
    expect 0 aa-load remove "$PROFILE"
}
