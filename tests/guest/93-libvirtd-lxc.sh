# Containers of an unmodified libvirtd, by its LXC driver, with our helper in the place of libvirt's.
case_timeout=240
on_request=yes

CONTAINERS=/srv/containers

setup() {
    quick_parser
    depmod -a
    modprobe -a loop veth
    # Built into the kernel of Debian 13.
    modprobe fuse || [ -c /dev/fuse ]
    start_libvirtd
}

teardown() {
    local name
    for name in $(lxc list --name); do lxc destroy "$name"; done
    stop_libvirtd
}

# The machine's root is the kernel's first file system, which no pivot_root can leave: libvirtd, whose containers do,
# gets the same files by a mount of their own. Only in the root of the control groups may it have processes and hand out
# the controllers that a container needs.
run_libvirtd() {
    unshare --mount bash -ec '
        echo $$ >/sys/fs/cgroup/cgroup.procs
        mkdir -p /run/root
        mount --rbind / /run/root
        cd /run/root
        mount --move . /
        exec chroot . libvirtd -d'
    wait_for virsh version
}

lxc() {
    virsh -c lxc:///system "$@"
}

# container NAME: defines one with the machine's /usr to read and a directory of its own to write. It runs /probe,
# which makes its attempts and tells of each in /shared/attempts what came of it.
container() {
    NAME=$1
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    SHARED=$CONTAINERS/$1-shared
    local root=$CONTAINERS/$1 link
    mkdir -p "$root"/{usr,proc,sys,dev,run,tmp,shared} "$SHARED"
    for link in bin sbin lib lib64; do ln -sfn "usr/$link" "$root/$link"; done
    cat >"$root/probe" <<'PROBE'
#!/bin/bash
attempt() {
    local text
    if text=$("${@:2}" 2>&1); then echo "$1: done"; else echo "$1: $text" | head -1; fi >>/shared/attempts
}
tr -d '\0' </proc/self/attr/current >/shared/label
# By mount(2): the newer calls are moves to AppArmor, of which libvirt's abstraction has none.
export LIBMOUNT_FORCE_MOUNT2=always
mkdir -p /tmp/{a,b,c}
attempt own-file touch /shared/own
attempt own-mount mount -t tmpfs tmpfs /tmp/a
attempt sysrq dd if=/dev/null of=/proc/sysrq-trigger
attempt securityfs mount -t securityfs securityfs /tmp/b
attempt debugfs mount -t debugfs debugfs /tmp/c
touch /shared/over
while :; do sleep 1; done
PROBE
    chmod 755 "$root/probe"
    cat >"$NAME.xml" <<XML
<domain type='lxc'>
  <name>$NAME</name>
  <uuid>$UUID</uuid>
  <memory unit='MiB'>128</memory>
  <os><type>exe</type><init>/probe</init></os>
  <devices>
    <emulator>/usr/lib/libvirt/libvirt_lxc</emulator>
    <filesystem type='mount'><source dir='$root'/><target dir='/'/></filesystem>
    <filesystem type='mount'><source dir='/usr'/><target dir='/usr'/><readonly/></filesystem>
    <filesystem type='mount'><source dir='$SHARED'/><target dir='/shared'/></filesystem>
    <console type='pty'/>
  </devices>
  <seclabel type='dynamic' model='apparmor' relabel='yes'/>
</domain>
XML
    lxc define "$NAME.xml"
}

# start_container NAME: until it has made its attempts. Its first process is $INIT.
start_container() {
    lxc start "$1"
    wait_for test -e "$SHARED/over"
    # libvirt's id of a container is its controller's process.
    INIT=$(pgrep -P "$(lxc domid "$1")" -f '/probe$')
    [ "$(label_of "$INIT")" = "$PROFILE (enforce)" ]
    [ "$(mode_of "$PROFILE")" = enforce ]
}

# ended: libvirtd has seen the end of the container, and its profile is gone.
ended() {
    [ "$(lxc domstate "$NAME")" = 'shut off' ] && profile_gone "$PROFILE"
}

case_a_container_is_confined() {
    local mark
    container life
    mark=$(log_mark)
    start_container life
    [ "$(cat "$SHARED/label")" = "$PROFILE (enforce)" ]
    grep -q '<abstractions/libvirt-lxc>' "$PROFILES/$PROFILE"
    lxc dominfo life | grep -F "$PROFILE (enforcing)"
    cat "$SHARED/attempts"
    grep -x 'own-file: done' "$SHARED/attempts"
    grep -x 'own-mount: done' "$SHARED/attempts"
    grep 'sysrq: .*Permission denied' "$SHARED/attempts"
    # mount(8) tries again, read-only, and may tell of that.
    grep -iE 'securityfs: .*(permission denied|cannot mount)' "$SHARED/attempts"
    grep -iE 'debugfs: .*(permission denied|cannot mount)' "$SHARED/attempts"
    denials_since "$mark" | grep -F "profile=\"$PROFILE\"" | grep -F 'fstype="securityfs"'
    # The helper and libvirtd had what they need.
    [ -z "$(denials_since "$mark" | grep -E 'profile="(virt-aa-helper|libvirtd)"')" ]
    lxc destroy life
    wait_for not_running "$INIT"
    wait_for ended
}

# The process that libvirt knows a container by is its controller, which is none of the container's.
case_verify_and_status_are_of_the_container_and_not_of_its_controller() {
    # A guest with a file that is not loaded fails a verification of all: whatever earlier cases have left behind.
    rm -f "$PROFILES"/libvirt-????????-*
    expect 0 aa-load gc --min-age 0
    container seen
    start_container seen
    [ "$(label_of "$(lxc domid seen)")" != "$PROFILE (enforce)" ]
    expect 0 aa-load verify "$PROFILE"
    expect 0 aa-load verify
    says "$stdout" "$PROFILE"
    expect 0 aa-load status --json "$PROFILE"
    [ "$(jq -c .drift <<<"$stdout")" = '[]' ]
    lxc destroy seen
    wait_for ended
    # The twin: a container that libvirt does not confine, and a profile for it.
    container bare
    sed -i "s|<seclabel .*|<seclabel type='none' model='apparmor'/>|" bare.xml
    lxc define bare.xml
    sed '/<seclabel/d' bare.xml >confined.xml
    confine_guest confined.xml
    lxc start bare
    wait_for test -e "$SHARED/over"
    [ "$(mode_of "$PROFILE")" = enforce ]
    INIT=$(pgrep -P "$(lxc domid bare)" -f '/probe$')
    expect 1 aa-load verify "$PROFILE"
    says "$stderr" "process $INIT thread $INIT does not carry it"
    expect 0 aa-load status --json "$PROFILE"
    says "$stdout" "the guest's process does not carry it"
    lxc destroy bare
    wait_for not_running "$INIT"
    expect 0 aa-load remove "$PROFILE"
    rm "$PROFILES/$PROFILE" "$PROFILES/$PROFILE.files"
}

case_libvirtd_is_killed() {
    container orphan
    start_container orphan
    kill -9 "$(</run/libvirtd.pid)"
    wait_for not_running "$(</run/libvirtd.pid)"
    [ "$(label_of "$INIT")" = "$PROFILE (enforce)" ]
    run_libvirtd
    [ "$(lxc domstate orphan)" = running ]
    [ "$(label_of "$INIT")" = "$PROFILE (enforce)" ]
    [ "$(mode_of "$PROFILE")" = enforce ]
    kill -9 "$INIT"
    wait_for ended
}

# libvirtd runs its helper for a device that is plugged in among the container's own files, where there is no profile to
# change: no helper can help it. The container stays as it is.
case_no_device_can_be_plugged_in() {
    local helper node
    trap 'use_helper ours' EXIT
    container device
    start_container device
    truncate -s 1M disk.img
    node=$(losetup --find --show disk.img)
    cp "$PROFILES/$PROFILE.files" before
    for helper in original ours; do
        use_helper "$helper"
        expect 1 lxc attach-disk device "$node" sda --sourcetype block --live
        says "$stderr" 'cannot update AppArmor profile'
        [ ! -e "/proc/$INIT/root/dev/sda" ]
        [ "$(label_of "$INIT")" = "$PROFILE (enforce)" ]
        [ "$(mode_of "$PROFILE")" = enforce ]
    done
    cmp before "$PROFILES/$PROFILE.files"
    losetup --detach "$node"
    lxc destroy device
    wait_for ended
}
