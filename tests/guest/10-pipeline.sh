# From domain XML to a confined QEMU that reaches its own files and no others.

case_derive_render_load() {
    make_guest pipeline
    [ "$(mode_of "$PROFILE")" = enforce ]
    [ "$(jq -r '.profile + " " + .mode' loaded.json)" = "$PROFILE enforce" ]
    says "$(jq -r .action loaded.json)" '^added$'
    grep -F "\"$DISK\" rwk," "$PROFILES/$PROFILE.files"
    grep -F "\"$BASE\" rk," "$PROFILES/$PROFILE.files"
    # The twin: nothing of another disk, and a profile that was not asked for is not there.
    expect 1 grep -F "$IMAGES/other" "$PROFILES/$PROFILE.files"
    [ -z "$(mode_of "libvirt-$(new_uuid)")" ]
}

case_qemu_runs_confined_and_writes_its_overlay() {
    make_guest runs
    local arguments
    mapfile -t arguments < <(disk_arguments)
    start_qemu runs "$UUID" "${arguments[@]}"
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    for task in /proc/"$QEMU_PID"/task/*; do
        [ "$(tr -d '\0' <"$task/attr/current")" = "$PROFILE (enforce)" ]
    done
    qemu_io runs disk0 'write -P 0x5a 0 64k'
    qemu_io runs disk0 'read -P 0x5a 0 64k'
    # The twins: other bytes than those that are there, and a node that is not to be written.
    if (qemu_io runs disk0 'read -P 0x5b 0 64k'); then fail 'other bytes are there too'; fi
    qmp_ok runs blockdev-add "$(file_node base "$BASE" true)"
    if (qemu_io runs base 'write 0 64k'); then fail 'the base was written'; fi
    quit_qemu runs
    qemu-io -r -c 'read -P 0x5a 0 64k' "$DISK"
    # The base was read through the overlay and not written.
    qemu-io -r -c 'read -P 0 0 64k' "$BASE"
}

case_qemu_given_its_own_disk_starts() {
    make_guest given
    local arguments
    mapfile -t arguments < <(disk_arguments)
    mark=$(log_mark)
    expect 0 qemu_given "$UUID" "${arguments[@]}"
    [ -z "$(denials_since "$mark" | grep -F "$IMAGES")" ]
}

case_another_guests_disk_is_denied() {
    make_guest first
    local own=$UUID profile=$PROFILE
    make_guest second
    mark=$(log_mark)
    expect 1 qemu_given "$own" -blockdev "driver=file,node-name=theirs,filename=$DISK"
    says "$stderr" 'Permission denied'
    denied "$mark" "$profile" "$DISK" r
}

case_shadow_is_denied() {
    make_guest shadow
    mark=$(log_mark)
    expect 1 qemu_given "$UUID" -blockdev driver=file,node-name=secret,read-only=on,filename=/etc/shadow
    says "$stderr" 'Permission denied'
    denied "$mark" "$PROFILE" /etc/shadow r
}

case_its_base_is_read_only() {
    make_guest base
    mark=$(log_mark)
    expect 0 qemu_given "$UUID" -blockdev "driver=file,node-name=base,read-only=on,filename=$BASE"
    [ -z "$(denials_since "$mark" | grep -F "$BASE")" ]
    expect 1 qemu_given "$UUID" -blockdev "driver=file,node-name=base,filename=$BASE"
    says "$stderr" 'Permission denied'
    denied "$mark" "$PROFILE" "$BASE" w
}

case_two_guests_at_once_cannot_reach_each_other() {
    make_guest one
    local one=$UUID profile_one=$PROFILE disk_one=$DISK
    make_guest two
    local two=$UUID profile_two=$PROFILE disk_two=$DISK
    start_qemu one "$one"
    start_qemu two "$two"
    mark=$(log_mark)
    opens one "$disk_one"
    opens two "$disk_two"
    [ -z "$(denials_since "$mark" | grep -F "$IMAGES")" ]
    cannot_open one "$disk_two"
    cannot_open two "$disk_one"
    denied "$mark" "$profile_one" "$disk_two" r
    denied "$mark" "$profile_two" "$disk_one" r
    # Nor each other's monitor and log.
    cannot_open one /var/log/libvirt/qemu/two-serial.log
    cannot_open two /run/libvirt/qemu/one.pid
}
