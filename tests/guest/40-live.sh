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

# Who has a /proc of their own does not see the guest's process, and must not conclude that there is none.
case_a_process_namespace_takes_no_profile_away() {
    make_guest elsewhere
    start_qemu elsewhere "$UUID"
    mkdir -p /etc/libvirt/qemu
    local verb inside=(unshare --pid --fork --mount-proc)
    for verb in "remove $PROFILE" 'gc --min-age 0' "verify $PROFILE" status; do
        # shellcheck disable=SC2086
        expect 3 "${inside[@]}" aa-load $verb
        says "$stderr" "another PID namespace than the host's"
    done
    [ "$(mode_of "$PROFILE")" = enforce ]
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    cannot_open elsewhere /etc/shadow true
    [ -e "$PROFILES/$PROFILE" ]
    # The twins: the host's /proc, seen from the host and from such a namespace.
    expect 1 unshare --pid --fork aa-load remove "$PROFILE"
    says "$stderr" "in use by process $QEMU_PID"
    quit_qemu elsewhere
    expect 3 "${inside[@]}" aa-load remove "$PROFILE"
    expect 0 unshare --pid --fork aa-load remove "$PROFILE"
    [ -z "$(mode_of "$PROFILE")" ]
}

# pending ARGUMENT…: a process that has asked for $PROFILE at its next exec, and tells its label when it has executed.
# It is called aa-confine, with these arguments.
pending() {
    : >label
    ./aa-confine "on-exec:$PROFILE" "$@" sleep:8 exec:/usr/bin/cat /proc/self/attr/current >label &
    PENDING=$!
    wait_for grep -a ^./aa-confine "/proc/$PENDING/cmdline"
    sleep 1
    [ "$(label_of "$PENDING")" = unconfined ]
}

# The kernel unconfines what is asked for as well, and does not tell who has asked.
case_a_profile_that_aa_confine_is_about_to_enter_stays() {
    cp /tests/probe aa-confine
    mkdir -p /etc/libvirt/qemu
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    local load=(apparmor_parser -K -r)
    printf 'profile %s {\n  file,\n}\n' "$PROFILE" >"$PROFILE"
    "${load[@]}" "$PROFILE"
    pending --uuid "$UUID"
    expect 1 aa-load remove "$PROFILE"
    says "$stderr" "in use by process $PENDING"
    aa-load gc --min-age 0
    [ "$(mode_of "$PROFILE")" = enforce ]
    wait "$PENDING"
    says "$(<label)" "$PROFILE \(enforce\)"
    # The twins: nothing is about to; and it would not be known by its command line.
    expect 0 aa-load remove "$PROFILE"
    "${load[@]}" "$PROFILE"
    pending
    expect 0 aa-load remove "$PROFILE"
    wait "$PENDING"
    says "$(<label)" unconfined
}

# A script that runs a guest and then removes its profile has aa-confine on its command line.
case_who_waits_for_a_removal_keeps_no_profile() {
    make_guest waiting
    printf '#!/bin/bash\n"${@:2}"\naa-load remove "$1"\n' >with-guest
    chmod +x with-guest
    expect 0 ./with-guest "$PROFILE" aa-confine --uuid "$UUID" -- "$QEMU" --version
    says "$stdout" removed
    [ -z "$(mode_of "$PROFILE")" ]
    # The twin: another one that waits, and is not above aa-load.
    aa-load "$PROFILE"
    bash -c 'sleep 60; :' aa-confine --uuid "$UUID" -- /bin/true &
    wait_for grep -a "$UUID" "/proc/$!/cmdline"
    expect 1 ./with-guest "$PROFILE" /bin/true
    says "$stderr" "in use by process $!"
    kill "$!"
    wait_for not_running "$!"
    expect 0 aa-load remove "$PROFILE"
}

# As another user of the host can start them.
case_a_command_line_of_another_user_fails_no_verification() {
    make_guest feigned
    start_qemu feigned "$UUID" -uuid "$UUID"
    expect 0 aa-load verify "$PROFILE"
    setpriv --reuid 65534 --clear-groups bash -c 'sleep 60; :' x -uuid "$UUID" &
    local feigned=$!
    wait_for grep -a "$UUID" "/proc/$feigned/cmdline"
    expect 0 aa-load verify "$PROFILE"
    # A set-user-ID program, which may have the real user root, as sudo at its prompt.
    cp /usr/bin/bash emulator
    chmod u+s emulator
    ./emulator -c 'sleep 60; :' x -uuid "$UUID" &
    wait_for grep -a "$UUID" "/proc/$!/cmdline"
    expect 0 aa-load verify "$PROFILE"
    # The twins: it is a plain program, and of root or the account of a service.
    chmod u-s emulator
    expect 1 aa-load verify "$PROFILE"
    kill "$!"
    wait_for not_running "$!"
    local user
    for user in 0 64055; do
        setpriv --reuid "$user" --clear-groups bash -c 'sleep 60; :' x -uuid "$UUID" &
        wait_for grep -a "$UUID" "/proc/$!/cmdline"
        expect 1 aa-load verify "$PROFILE"
        says "$stderr" "process $! thread $! does not carry it"
        kill "$!"
        wait_for not_running "$!"
    done
    expect 0 aa-load verify "$PROFILE"
    kill "$feigned"
    quit_qemu feigned
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
