# A guest that moves from one QEMU to another, over a socket that both are granted for as long as it takes.

SOCKET=/run/migration/socket

# grant UUID: the socket, for a while.
grant() {
    aa-render --uuid "$1" --add "$SOCKET:rw" --reason migration | aa-load >granted.json
    [ "$(jq -r .action granted.json)" = replaced ]
}

# migration_is STATUS: of the guest that leaves.
migration_is() {
    [ "$(qmp leaving query-migrate | jq -r .status)" = "$1" ]
}

case_a_guest_moves() {
    mkdir -p /run/migration
    make_guest leaving
    local from=$UUID from_profile=$PROFILE to to_pid
    to=$(new_uuid)
    domain_xml arriving "$to" "$DISK" >arriving.xml
    confine_guest arriving.xml
    mapfile -t disk < <(disk_arguments)
    start_qemu leaving "$from" "${disk[@]}"
    local from_pid=$QEMU_PID
    # Nobody may make the socket without the grant, nor connect to it.
    expect 1 qemu_given "$to" -incoming "unix:$SOCKET"
    says "$stderr" 'Permission denied'
    grant "$from"
    grant "$to"
    start_qemu arriving "$to" "${disk[@]}" -incoming "unix:$SOCKET"
    to_pid=$QEMU_PID
    qmp_ok leaving migrate "{\"uri\":\"unix:$SOCKET\"}"
    wait_for migration_is completed
    [ "$(label_of "$to_pid")" = "libvirt-$to (enforce)" ]
    QEMU_PID=$from_pid
    quit_qemu leaving
    # The one that stays reaches the disk, and what was granted for the move is taken back.
    aa-load status --json >status.json
    [ "$(jq -r '.grants[] | "\(.rule.path) \(.reason)"' status.json | sort -u)" = "$SOCKET migration" ]
    aa-render --uuid "$from" --drop "$SOCKET" >/dev/null
    aa-load remove "$from_profile" >removed.json
    aa-render --uuid "$to" --drop "$SOCKET" | aa-load >dropped.json
    qmp_ok arriving cont >cont.json
    opens arriving "$BASE" true
    aa-load status --json >status.json
    expect 1 grep -F migration status.json
    expect 1 grep -F "$SOCKET" "$PROFILES/libvirt-$to.files"
    QEMU_PID=$to_pid
    quit_qemu arriving
}
