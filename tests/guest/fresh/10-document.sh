# docs/libvirt.md, followed word by word in a guest that has nothing of ours but the archive.
case_timeout=600

DOCUMENT=/run/libvirt.md
POLICY=/etc/apparmor.d/usr.lib.libvirt.virt-aa-helper

setup() {
    mkdir -p /srv
    quick_parser
    packaged 1
    # There is no systemd. What the unit says of a reload: this signal.
    mkdir -p /usr/local/bin
    printf '%s\n' '#!/bin/bash' '[ "$*" = "try-reload-or-restart libvirtd" ] && kill -HUP "$(</run/libvirtd.pid)"' \
        >/usr/local/bin/systemctl
    chmod 755 /usr/local/bin/systemctl
    tar -xOf /root/aa-svirt-*-x86_64.tar.zst usr/share/doc/aa-svirt/docs/libvirt.md >$DOCUMENT
    start_daemons
}

teardown() {
    stop_libvirtd
}

# packaged VERSION [BYTE]: dpkg installs libvirt's helper and its profile, which are kept in /run/VERSION to compare with.
# Those of version 1 are what this release of Debian has; later ones have BYTE for their last.
packaged() {
    local tree=/run/$1 path
    mkdir -p "$tree/DEBIAN"
    printf '%s\n' 'Package: libvirt-daemon-system' "Version: $1" 'Architecture: amd64' 'Maintainer: nobody <nobody@localhost>' \
        'Description: the two files of it that are replaced' >"$tree/DEBIAN/control"
    echo "$POLICY" >"$tree/DEBIAN/conffiles"
    for path in "$HELPER" "$POLICY"; do
        mkdir -p "$tree$(dirname "$path")"
        if [ "$1" = 1 ]; then
            cp -a "$path" "$tree$path"
        else
            cp -a "/run/1$path" "$tree$path"
            truncate -s -1 "$tree$path"
            printf %s "$2" >>"$tree$path"
        fi
    done
    dpkg-deb --build "$tree" "$tree.deb"
    dpkg --install "$tree.deb" </dev/null
    # What Debian's package then does.
    apparmor_parser -r -T -W "$POLICY"
}

# commands SECTION: what is to be typed there.
commands() {
    awk -v heading="$1" '
        /^##+ / { sub(/^#+ /, ""); inside = $0 == heading; next }
        /^```/ { block = $0 == "```console"; next }
        inside && block && sub(/^# /, "")' "$DOCUMENT"
}

# follow SECTION: types it, where the archive is, as somebody without our tools in PATH.
follow() {
    commands "$1" >script
    [ -s script ] || fail "nothing to be typed in section $1"
    echo "$1" >>followed
    script=$PWD/script
    (cd /root && PATH=/usr/local/bin:/usr/sbin:/usr/bin bash -euxo pipefail "$script") 2>&1 | tee typed
}

# sections: those that have something to be typed.
sections() {
    local section
    sed -n 's/^###* //p' "$DOCUMENT" | while IFS= read -r section; do
        [ -z "$(commands "$section")" ] || printf '%s\n' "$section"
    done
}

# isolated NAME: it is confined, opens its own disk and not its neighbour's.
isolated() {
    confined "$1"
    opens "$1" "$IMAGES/$1.img" true
    denied_file "$1" "$IMAGES/neighbour.img"
}

# changed NAME TARGET: a disk that is plugged in can be opened; the neighbour's is still another's.
changed() {
    host_file "$IMAGES/$1-$2.img"
    virsh attach-disk "$1" "$IMAGES/$1-$2.img" "$2" --targetbus virtio --live
    opens "$1" "$IMAGES/$1-$2.img" true
    isolated "$1"
}

# gone NAME: ended, with nothing of it left in force.
gone() {
    PROFILE=$(profile_of "$1")
    virsh destroy "$1"
    wait_for profile_gone "$PROFILE"
}

# starts NAME…: each does, confined, and ends.
starts() {
    local name mark
    for name; do
        PROFILE=$(profile_of "$name")
        mark=$(log_mark)
        start_guest "$name"
        confined "$name"
        undisturbed "$mark"
        denied_file "$name" "$IMAGES/neighbour.img"
        gone "$name"
    done
}

# refused NAME PATTERN: it does not start, for a reason that libvirtd tells.
refused() {
    expect 1 virsh start --paused "$1"
    says "$stderr" "$2"
    [ "$(virsh domstate "$1")" = 'shut off' ]
}

# snapshot FILE: the profiles in force; every file where packages have theirs, but for what libvirtd and its helper make of
# each guest and pool; and every directory that there was at first.
snapshot() {
    [ -e directories ] || find /etc /usr -xdev -type d >directories
    {
        sort /sys/kernel/security/apparmor/profiles
        find /etc /usr -xdev ! -type d \
            \( -path "$PROFILES/libvirt-*" -o -path '/etc/libvirt/*/*.xml' -o -printf '%p %m %U:%G %s\n' \) | sort
        xargs -d '\n' stat -c '%n %a %U:%G' <directories
    } >"$1"
}

# as_libvirtd HELPER: executed, for its help, by a process with libvirtd's profile.
as_libvirtd() {
    aa-exec -p libvirtd -- /usr/bin/env "$1" --help
}

# mode FILE…
mode() {
    stat -c '%a %U:%G %F' "$@"
}

case_there_and_back() {
    local path section sections
    mapfile -t sections < <(sections)
    snapshot before
    host_file "$IMAGES/neighbour.img" "$IMAGES/vm.img" /srv/notes.img
    define_guest vm "$IMAGES/vm.img"
    for section in "${sections[@]}"; do
        mark=$(log_mark)
        follow "$section"
        case $section in
        'See that it works')
            undisturbed "$mark"
            isolated vm
            ;;
        'Additions that a guest needs') opens vm /srv/notes.img true ;;
        esac
    done
    [ "$section" = 'The way back' ]
    gone vm
    start_guest vm
    isolated vm
    gone vm
    snapshot after
    diff before after
    for path in "$HELPER" "$POLICY"; do cmp "$path" "/run/1$path"; done
}

# With guests that run through all of it, others that come and go, and upgrades of libvirt.
case_long_each_step() {
    local name path tool
    snapshot before
    host_file "$IMAGES/neighbour.img" "$IMAGES/vm.img" "$IMAGES/busy.img" /srv/notes.img
    # Of the machine to which disks can be added.
    MACHINE=pc define_guest vm "$IMAGES/vm.img"
    MACHINE=pc define_guest busy "$IMAGES/busy.img"
    # Disks that libvirt's profile keeps from the helper: a pool's, and an image in no place and of no name that it knows.
    mkdir -p /srv/pool /data/images /elsewhere
    virsh pool-define-as pool dir --target /srv/pool
    virsh pool-start pool
    virsh vol-create-as pool volume.qcow2 1M --format qcow2
    DEVICES="<disk type='volume' device='disk'>
        <driver name='qemu' type='qcow2'/><source pool='pool' volume='volume.qcow2'/><target dev='vda' bus='virtio'/>
    </disk>" define_guest volume
    for path in /data/images /elsewhere; do
        qemu-img create -q -f qcow2 "$path/base" 1M
        qemu-img create -q -f qcow2 -F qcow2 -b "$path/base" "$path/top"
        DEVICES="<disk type='file' device='disk'>
            <driver name='qemu' type='qcow2'/><source file='$path/top'/><target dev='vda' bus='virtio'/>
        </disk>" define_guest "${path##*/}"
    done
    # A guest that was started by libvirt's own helper stays.
    start_guest busy
    isolated busy

    follow 'Unpack'
    expect 1 grep '^FAILED' typed
    grep -E '^ok +own profiles ' typed
    [ "$(mode /etc /usr/lib)" = $'755 root:root directory\n755 root:root directory' ]
    for tool in aa-derive aa-render aa-load aa-confine; do
        [ "$(mode_of "$tool")" = enforce ]
        [ "$(mode "/usr/lib/aa-svirt/bin/$tool")" = '755 root:root regular file' ]
    done
    # No guest is other than before.
    cmp "$HELPER" "/run/1$HELPER"

    follow 'Put the helper in its place'
    cmp "$HELPER" /usr/lib/aa-svirt/bin/virt-aa-helper
    [ "$(mode "$HELPER")" = '755 root:root regular file' ]
    [ "$(find "$(dirname "$HELPER")" -name 'virt-aa-helper*')" = "$HELPER" ]
    changed busy vdb
    gone busy
    start_guest busy
    changed busy vdb
    # Under libvirtd's profile libvirt's own cannot be executed where it is now. Under another name beside ours it could.
    as_libvirtd "$HELPER"
    cp /usr/lib/aa-svirt/virt-aa-helper.libvirt "$HELPER.other"
    as_libvirtd "$HELPER.other"
    rm "$HELPER.other"
    mark=$(log_mark)
    expect 126 as_libvirtd /usr/lib/aa-svirt/virt-aa-helper.libvirt
    denied "$mark" libvirtd /usr/lib/aa-svirt/virt-aa-helper.libvirt x

    # An upgrade of libvirt leaves ours.
    packaged 2 ' '
    cmp "$HELPER" /usr/lib/aa-svirt/bin/virt-aa-helper
    cmp /usr/lib/aa-svirt/virt-aa-helper.libvirt "/run/2$HELPER"

    refused volume 'Permission denied|AppArmor'
    refused images 'Permission denied|AppArmor'
    follow 'The one that libvirt ships'
    starts volume images
    refused elsewhere 'Permission denied|AppArmor'

    follow 'Ours'
    [ "$(mode_of virt-aa-helper//parser)" = enforce ]
    starts volume images elsewhere
    packaged 3 $'\t'
    cmp "$POLICY" /usr/share/aa-svirt/policy/usr.lib.libvirt.virt-aa-helper
    cmp "$POLICY.orig" "/run/3$POLICY"
    # What the next boot would load has ours in it, and once.
    apparmor_parser -N /etc/apparmor.d >named
    [ "$(grep '^virt-aa-helper' named)" = $'virt-aa-helper\nvirt-aa-helper//parser' ]

    follow 'A hook that looks after'
    starts elsewhere
    # One that is not confined does not start; without the hook it would.
    virsh dumpxml elsewhere | aa-derive | aa-render --complain
    refused elsewhere 'aa-svirt elsewhere started begin.*mode'
    mv /etc/libvirt/hooks/qemu.d/aa-svirt hook
    start_guest elsewhere
    [ "$(mode_of "$PROFILE")" = complain ]
    gone elsewhere
    mv hook /etc/libvirt/hooks/qemu.d/aa-svirt
    virsh dumpxml elsewhere | aa-derive | aa-render --enforce
    starts elsewhere

    follow 'See that it works'
    changed vm vdb
    changed busy vdc
    grep -E "^libvirt-$(virsh domuuid vm) \(enforce\) .*qemu-system" typed

    denied_file vm /srv/notes.img
    follow 'Additions that a guest needs'
    opens vm /srv/notes.img true
    cannot_open vm /srv/notes.img
    # The profile of the other was made by libvirt's own helper.
    gone busy
    expect 1 grep "$PROFILE\.d" "$PROFILES/$PROFILE"
    virsh dumpxml busy | aa-derive | aa-render --renew
    mkdir "$PROFILES/$PROFILE.d"
    echo '/srv/notes.img rk,' >"$PROFILES/$PROFILE.d/notes"
    start_guest busy
    opens busy /srv/notes.img true

    follow 'The way back'
    [ "$(sections)" = "$(<followed)" ]
    changed vm vdc
    opens vm /srv/notes.img true
    isolated busy
    for name in vm busy; do
        gone "$name"
        start_guest "$name"
        isolated "$name"
        opens "$name" /srv/notes.img true
        gone "$name"
    done
    # All is as dpkg installed it last, and nothing of ours is left.
    snapshot after
    diff before after
    for path in "$HELPER" "$POLICY"; do cmp "$path" "/run/3$path"; done
}
