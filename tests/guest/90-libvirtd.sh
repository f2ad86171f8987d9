# An unmodified libvirtd under Debian's own profiles, with our helper in the place of libvirt's.
case_timeout=240

setup() {
    mkdir -p /srv
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

case_capabilities() {
    virsh capabilities >capabilities.xml
    grep -A1 '<model>apparmor</model>' capabilities.xml | grep '<doi>0</doi>'
    aa-load doctor --json >doctor.json
    [ "$(jq -r '"\(.secmodel.model) \(.secmodel.doi)"' doctor.json)" = 'apparmor 0' ]
    [ "$(label_of "$(</run/libvirtd.pid)")" = 'libvirtd (enforce)' ]
    cmp "$HELPER" /usr/lib/aa-svirt/bin/virt-aa-helper
}

case_start_and_destroy() {
    host_file "$IMAGES/life.img" "$IMAGES/neighbour.img"
    define_guest life "$IMAGES/life.img"
    mark=$(log_mark)
    start_guest life
    undisturbed "$mark"
    confined life
    opens life "$IMAGES/life.img" true
    denied_file life "$IMAGES/neighbour.img"
    mark=$(log_mark)
    virsh destroy life
    wait_for profile_gone "$PROFILE"
    undisturbed "$mark"
    [ ! -d "/proc/$QEMU_PID" ]
}

# The helper that libvirtd runs is under its own profile, seen while it waits for a lock that another call holds.
case_the_helper_is_confined() {
    host_file "$IMAGES/helper.img"
    define_guest helper "$IMAGES/helper.img"
    ln -s "$$ $(cut -d. -f1 /proc/uptime) $(stat -c %.9Z /sys/kernel/security)" "$PROFILES/$PROFILE.lock"
    virsh start --paused helper &
    wait_for pgrep -x virt-aa-helper
    [ "$(label_of "$(pgrep -x virt-aa-helper)")" = 'virt-aa-helper (enforce)' ]
    [ -z "$(mode_of "$PROFILE")" ]
    rm "$PROFILES/$PROFILE.lock"
    wait $!
    confined helper
    virsh destroy helper
}

# All of a guest's life under the profile that we have for the helper: what it denies would fail the case.
case_the_helper_under_our_profile() {
    trap 'helper_profile debian' EXIT
    helper_profile ours
    host_file "$IMAGES/ours.img" "$IMAGES/plugged.img" /srv/secret.img
    define_guest ours "$IMAGES/ours.img"
    mark=$(log_mark)
    start_guest ours
    confined ours
    virsh attach-disk ours "$IMAGES/plugged.img" vdb
    undisturbed "$mark"
    opens ours "$IMAGES/plugged.img" true
    denied_file ours /srv/secret.img
    virsh destroy ours
    wait_for profile_gone "$PROFILE"
}

# Also where the helper looks up itself which file a volume is: in a pool that runs, whose definition is below /etc.
case_a_volume_under_our_profile() {
    trap 'helper_profile debian' EXIT
    helper_profile ours
    mkdir -p /srv/volumes
    virsh pool-define-as volumes dir --target /srv/volumes
    virsh pool-start volumes
    virsh vol-create-as volumes volume.img 1M --format raw
    virsh vol-create-as volumes other.img 1M --format raw
    DEVICES="<disk type='volume' device='disk'>
        <driver name='qemu' type='raw'/><source pool='volumes' volume='volume.img'/><target dev='vda' bus='virtio'/>
    </disk>" define_guest volume
    mark=$(log_mark)
    start_guest volume
    confined volume
    undisturbed "$mark"
    opens volume /srv/volumes/volume.img true
    chmod 666 /srv/volumes/other.img
    denied_file volume /srv/volumes/other.img
    virsh destroy volume
    wait_for profile_gone "$PROFILE"
    virsh pool-destroy volumes
    virsh pool-undefine volumes
}
