# A guest that moves from one libvirtd to another. Each has a file system, a host name and an AppArmor policy namespace
# of its own, as two hosts have; they share the disks, the loopback network, and this directory.
case_timeout=300
on_request=yes
each_change=case_over_the_network

# The second host's files: what it has for itself is below.
OTHER=/second
# What the first host's label of a task of the second's begins with.
SPACE=second
DISKS=/srv/disks
GROUP=/sys/fs/cgroup/file/second

setup() {
    quick_parser
    mkdir -p "$DISKS"
    chmod 777 "$DISKS"
    start_libvirtd
    second_host
}

teardown() {
    stop_libvirtd
    on_second 'for name in $(virsh list --name); do virsh destroy "$name"; done
        kill "$(</run/libvirtd.pid)" "$(</run/virtlogd.pid)"'
}

# second_host: makes it, and starts its libvirtd with our helper.
second_host() {
    local dir
    mkdir -p "/sys/kernel/security/apparmor/policy/namespaces/$SPACE" "$GROUP"
    for dir in run var/lib/libvirt var/log/libvirt var/cache/libvirt etc/libvirt etc/apparmor.d; do
        mkdir -p "$OTHER/$dir"
        case $dir in etc/*) cp -a "/$dir/." "$OTHER/$dir" ;; esac
    done
    rm -f "$OTHER"/etc/apparmor.d/libvirt/libvirt-*
    mkdir -p "$OTHER"/run/{libvirt,lock,user} "$OTHER"/var/lib/libvirt/{qemu,images} "$OTHER"/var/log/libvirt/qemu
    echo "host_uuid = \"$(new_uuid)\"" >>"$OTHER/etc/libvirt/libvirtd.conf"
    # shellcheck disable=SC2016
    unshare --mount --uts bash -ec '
        for dir in run var/lib/libvirt var/log/libvirt var/cache/libvirt etc/libvirt etc/apparmor.d; do
            mount --bind "$1/$dir" "/$dir"
        done
        echo second >/proc/sys/kernel/hostname
        echo $$ >/run/keeper.pid
        exec sleep infinity' bash "$OTHER" &
    wait_for test -s "$OTHER/run/keeper.pid"
    on_second 'apparmor_parser -r -W /etc/apparmor.d/usr.sbin.libvirtd /etc/apparmor.d/usr.lib.libvirt.virt-aa-helper
        virtlogd -d
        libvirtd -d
        for _ in {1..200}; do ! virsh version || break; sleep 0.1; done
        virsh version'
}

# on_second COMMAND: runs a line of shell there.
on_second() {
    (
        # Groups of guests are made below that of their libvirtd.
        echo "$BASHPID" >"$GROUP/cgroup.procs"
        exec nsenter --target "$(<"$OTHER/run/keeper.pid")" --mount --uts \
            aa-exec -p ":$SPACE://unconfined" -- bash -c "$1"
    )
}

# arrived NAME: it runs on the second host, under its own profile there.
arrived() {
    local pid
    pid=$(<"$OTHER/run/libvirt/qemu/$1.pid")
    [ "$(label_of "$pid")" = ":$SPACE:$PROFILE (enforce)" ] || fail "$1 is labelled $(label_of "$pid")"
    [ "$(loaded_there)" = '(enforce)' ]
}

# loaded_there: the mode of $PROFILE on the second host, if it is in force.
loaded_there() {
    on_second "sed -n 's|^$PROFILE ||p' /sys/kernel/security/apparmor/profiles"
}

# second_grants PATH: the rules of $PROFILE there have the path, or what begins so.
second_grants() {
    grep -F "\"$1" "$OTHER/etc/apparmor.d/libvirt/$PROFILE.files"
}

# there NAME PATH: what QEMU on the second host answers when it is to open the file.
there() {
    on_second "virsh qemu-monitor-command $1 '{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"file\",
        \"node-name\":\"probe\",\"filename\":\"$2\",\"read-only\":true}}'
        virsh qemu-monitor-command $1 '{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"probe\"}}' >/dev/null"
}

# moving_guest NAME
moving_guest() {
    host_file "$DISKS/$1.img" "$DISKS/$1-beside.img"
    define_guest "$1" "$DISKS/$1.img"
    start_guest "$1"
    confined "$1"
    MARK=$(log_mark)
}

# move NAME OPTION…: to the second host, where the guest is stopped as it was here.
move() {
    virsh migrate "$@" --unsafe --live --desturi "qemu+unix:///system?socket=$OTHER/run/libvirt/libvirt-sock"
}

# moved NAME: nothing was denied, nothing of it is left here, and there it has what is its own and no more.
moved() {
    undisturbed "$MARK"
    [ "$(virsh domstate "$1")" = 'shut off' ]
    profile_gone "$PROFILE"
    arrived "$1"
    says "$(there "$1" "$DISKS/$1.img")" '"return":'
    MARK=$(log_mark)
    says "$(there "$1" "$DISKS/$1-beside.img")" 'Permission denied'
    denied "$MARK" "$PROFILE" "$DISKS/$1-beside.img"
    second_grants "$DISKS/$1.img"
    on_second "virsh destroy $1"
    [ -z "$(loaded_there)" ]
    [ ! -e "$OTHER/etc/apparmor.d/libvirt/$PROFILE.files" ]
}

case_over_the_network() {
    moving_guest network
    move network --migrateuri tcp://127.0.0.1
    moved network
}

# libvirtd does not tell its helper of the socket that a guest arrives by: it takes an administrator's rule for all guests.
case_over_a_unix_socket() {
    moving_guest socket
    local socket=$DISKS/socket.sock
    expect 1 move socket --migrateuri "unix://$socket"
    says "$stderr" 'Permission denied'
    denied "$MARK" "$PROFILE" "$socket" c
    confined socket
    [ -z "$(loaded_there)" ]
    echo "$DISKS/*.sock rw," >>"$OTHER/etc/apparmor.d/local/abstractions/libvirt-qemu"
    MARK=$(log_mark)
    move socket --migrateuri "unix://$socket"
    moved socket
}

case_tunnelled_through_the_daemons() {
    moving_guest tunnel
    move tunnel --p2p --tunnelled
    moved tunnel
}

# A move that fails leaves the guest where it is, with what it has, and no guest on the other side.
case_a_move_that_fails() {
    moving_guest failing
    rm "$DISKS/failing.img"
    expect 1 move failing --migrateuri tcp://127.0.0.1
    host_file "$DISKS/failing.img"
    confined failing
    opens failing "$DISKS/failing.img" true
    denied_file failing "$DISKS/failing-beside.img"
    # A start that fails so early leaves its profile there, with no process; the next one makes it anew.
    MARK=$(log_mark)
    move failing --migrateuri tcp://127.0.0.1
    moved failing
}
