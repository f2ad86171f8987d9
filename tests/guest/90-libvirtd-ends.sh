# How a guest of libvirtd's ends, and libvirtd itself: the profile is in force as long as the guest runs, and no longer.
case_timeout=240
on_request=yes
each_change=case_libvirtd_is_killed

setup() {
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# ended: libvirtd has seen the end of guest $NAME, and its profile is gone.
ended() {
    [ "$(virsh domstate "$NAME")" = 'shut off' ] && profile_gone "$PROFILE"
}

case_shutdown_from_inside() {
    boot_disk "$IMAGES/inside.img"
    MACHINE=pc define_guest inside "$IMAGES/inside.img"
    start_system inside
    confined inside
    # Pressed again until the system is there to notice.
    local _
    for _ in {1..30}; do
        virsh shutdown inside || true
        sleep 1
        ! ended || break
    done
    ended
    grep -aq 'shutting down, reason=shutdown' /var/log/libvirt/qemu/inside.log
}

case_quit_by_the_monitor() {
    host_file "$IMAGES/quit.img"
    define_guest quit "$IMAGES/quit.img"
    start_guest quit
    confined quit
    virsh qemu-monitor-command quit '{"execute":"quit"}' || true
    wait_for ended
}

case_qemu_is_killed() {
    host_file "$IMAGES/killed.img"
    define_guest killed "$IMAGES/killed.img"
    start_guest killed
    confined killed
    kill -9 "$QEMU_PID"
    wait_for ended
    # The next start makes it anew.
    start_guest killed
    confined killed
    virsh destroy killed
    wait_for ended
}

case_libvirtd_is_killed() {
    host_file "$IMAGES/orphan.img" "$IMAGES/orphan-cd.iso" "$IMAGES/neighbour.img"
    DEVICES="<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>" \
        define_guest orphan "$IMAGES/orphan.img"
    start_guest orphan
    kill -9 "$(</run/libvirtd.pid)"
    wait_for not_running "$(</run/libvirtd.pid)"
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    [ "$(mode_of "$PROFILE")" = enforce ]
    run_libvirtd
    confined orphan
    [ "$(</run/libvirt/qemu/orphan.pid)" = "$QEMU_PID" ]
    opens orphan "$IMAGES/orphan.img" true
    denied_file orphan "$IMAGES/neighbour.img"
    # It can still be changed.
    denied_file orphan "$IMAGES/orphan-cd.iso"
    virsh change-media orphan sda "$IMAGES/orphan-cd.iso" --insert --live
    opens orphan "$IMAGES/orphan-cd.iso" true
    virsh destroy orphan
    wait_for ended
}

# A guest that ends while there is no libvirtd: the next one finds that out and removes its profile.
case_qemu_ends_without_libvirtd() {
    host_file "$IMAGES/alone.img"
    define_guest alone "$IMAGES/alone.img"
    start_guest alone
    kill -9 "$(</run/libvirtd.pid)"
    wait_for not_running "$(</run/libvirtd.pid)"
    kill -9 "$QEMU_PID"
    run_libvirtd
    wait_for ended
}
