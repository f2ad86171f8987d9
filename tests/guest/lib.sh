#!/bin/bash
# What cases are written with. Run as: bash lib.sh FUNCTION FILE.
#
# A case fails when a command in it fails. Its working directory is a new empty one. Nothing is piped
# into `grep -q`: it ends at the first match, and what still writes to it fails.
set -eEuo pipefail
trap 'echo "failed: ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR

IMAGES=/var/lib/libvirt/images
PROFILES=/etc/apparmor.d/libvirt
QEMU=/usr/bin/qemu-system-x86_64
# What QEMU is started through: a command that gives it another user, for instance.
AS=()

setup() { :; }
teardown() { :; }

# fail TEXT: ends the case.
fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# expect STATUS COMMAND…: the command must end with just this status; its output is in $stdout and $stderr.
expect() {
    local wanted=$1 status=0
    shift
    "$@" >stdout 2>stderr || status=$?
    stdout=$(<stdout)
    stderr=$(<stderr)
    [ "$status" = "$wanted" ] || fail "status $status, not $wanted: $*"$'\n'"$stdout"$'\n'"$stderr"
}

# says TEXT PATTERN: the text must match the extended regular expression.
says() {
    [[ $1 =~ $2 ]] || fail "not as expected: $1"$'\n'"expected a match of: $2"
}

# wait_for COMMAND…: tries it until it succeeds, for 20 seconds, or for $PATIENCE of them.
wait_for() {
    local tries=$((${PATIENCE:-20} * 10))
    while ((tries--)); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "still not so after ${PATIENCE:-20} seconds: $*"
}

# new_uuid: a UUID that no other case has.
new_uuid() {
    cat /proc/sys/kernel/random/uuid
}

# log_mark: the place in the kernel's log that denials_since counts from.
log_mark() {
    dmesg | wc -l
}

# denials_since MARK: the kernel's records of what AppArmor denied since then.
denials_since() {
    dmesg | tail -n +"$(($1 + 1))" | grep -a 'apparmor="DENIED"' || true
}

# denied MARK PROFILE PATH [ACCESS]: the kernel must have logged this denial.
denied() {
    local records
    records=$(denials_since "$1")
    grep -aF "profile=\"$2\"" <<<"$records" | grep -aF "name=\"$3\"" |
        grep -aE "denied_mask=\"[a-z]*${4:-r}" >/dev/null ||
        fail "no record of $2 being denied $3; the log has: $records"
}

# expect_denial PATTERN: the kernel's log may have a record that a tool was denied something, if it matches this
# extended regular expression. Any other one fails the case.
expect_denial() {
    printf '%s\n' "$1" >>/run/expected
}

# uncaged TOOL…: from here on the case runs copies of these to which no profile is attached.
uncaged() {
    local tool
    mkdir -p uncaged
    for tool; do cp "/usr/lib/aa-svirt/bin/$tool" uncaged/; done
    PATH=$PWD/uncaged:$PATH
}

# domain_xml NAME UUID DISK…: a QEMU guest with these disks, qcow2 if the name ends so and raw otherwise, and with
# $MACHINE and the elements $DEVICES if set.
domain_xml() {
    local name=$1 uuid=$2 disk format n=0 letters=abcdefghijklmnopqrstuvwxyz
    shift 2
    echo "<domain type='qemu' id='1'>"
    echo "  <name>$name</name>"
    echo "  <uuid>$uuid</uuid>"
    echo "  <memory unit='MiB'>64</memory>"
    echo "  <os><type arch='x86_64' machine='${MACHINE:-q35}'>hvm</type></os>"
    echo "  <features><acpi/></features>"
    echo "  <devices>"
    echo "    <emulator>$QEMU</emulator>"
    for disk; do
        format=raw
        [[ $disk != *.qcow2 ]] || format=qcow2
        echo "    <disk type='file' device='disk'>"
        echo "      <driver name='qemu' type='$format'/>"
        echo "      <source file='$(xml_escape "$disk")'/>"
        echo "      <target dev='vd${letters:n:1}' bus='virtio'/>"
        echo "    </disk>"
        n=$((n + 1))
    done
    echo "    <serial type='file'><source path='/var/log/libvirt/qemu/$name-serial.log'/><target port='0'/></serial>"
    echo "    ${DEVICES:-}"
    echo "  </devices>"
    echo "</domain>"
}

# xml_escape TEXT: for an attribute in single quotes.
xml_escape() {
    # Quoted, since an ampersand in a replacement would otherwise stand for what was matched.
    local text=$1
    text=${text//&/"&amp;"}
    text=${text//</"&lt;"}
    text=${text//\'/"&apos;"}
    text=${text//$'\t'/"&#9;"}
    printf '%s' "$text"
}

# shared_memory <XML: the same guest, with memory that a daemon can share.
shared_memory() {
    sed "s|<devices>|<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><devices>|"
}

# usb_device PRODUCT: the directory in sysfs of a USB device of this machine.
usb_device() {
    local product
    product=$(grep -lx "$1" /sys/bus/usb/devices/*/product) || return
    echo "${product%/*}"
}

# confine_guest XML: derives, renders and loads.
confine_guest() {
    aa-derive "$1" >derived.json
    aa-render derived.json >rendered.json
    aa-load <rendered.json >loaded.json
}

# mode_of PROFILE: what the kernel says of it: enforce, complain, or nothing if it is not loaded.
mode_of() {
    sed -n "s|^$1 (\(.*\))\$|\1|p" /sys/kernel/security/apparmor/profiles
}

# label_of PID
label_of() {
    tr -d '\0' <"/proc/$1/attr/current"
}

# start_qemu NAME UUID ARGUMENT…: a confined QEMU that runs no guest code, with the monitor, log, serial line
# and pid file of a libvirt guest. Its process is $!; its monitor is for qmp.
start_qemu() {
    local name=$1 uuid=$2 monitor=/var/lib/libvirt/qemu/domain-1-$1
    shift 2
    mkdir -p "$monitor" /run/libvirt/qemu
    # An earlier guest of the same name may have left them.
    rm -f "$monitor/monitor.sock" "/run/libvirt/qemu/$name.pid"
    "${AS[@]}" aa-confine --uuid "$uuid" -- "$QEMU" -M none -nodefaults -display none -S \
        -qmp "unix:$monitor/monitor.sock,server=on,wait=off" \
        -chardev "file,id=serial0,path=/var/log/libvirt/qemu/$name-serial.log" \
        -pidfile "/run/libvirt/qemu/$name.pid" "$@" >"qemu-$name.err" 2>&1 &
    QEMU_PID=$!
    wait_for_qemu "$name" "$QEMU_PID" "$monitor/monitor.sock"
}

wait_for_qemu() {
    local _
    for _ in {1..200}; do
        [ -d "/proc/$2" ] || fail "QEMU $1 ended: $(cat "qemu-$1.err")"
        if [ -S "$3" ] && [ -s "/run/libvirt/qemu/$1.pid" ]; then return 0; fi
        sleep 0.1
    done
    fail "QEMU $1 has no monitor after 20 seconds: $(cat "qemu-$1.err")"
}

# qmp NAME COMMAND [ARGUMENTS]: prints the answer, the value of "return" or of "error". Of a guest that libvirtd
# runs, it is libvirtd that is asked.
qmp() {
    local request="{\"execute\":\"$2\",\"arguments\":${3:-{\}}}"
    if [ -e "/run/libvirt/qemu/$1.xml" ]; then
        virsh qemu-monitor-command "$1" "$request" | jq -c '.return // .error'
        return
    fi
    # QEMU may reset the connection once it has answered; whether it has is for the caller to see.
    printf '%s\n%s\n' '{"execute":"qmp_capabilities"}' "$request" |
        { socat -t 10 - "UNIX-CONNECT:/var/lib/libvirt/qemu/domain-1-$1/monitor.sock" 2>/dev/null || true; } |
        jq -c 'select(has("return") or has("error")) | .return // .error' | sed -n 2p
}

# quit_qemu NAME: ends start_qemu's process. It may be gone before the answer is read.
quit_qemu() {
    qmp "$1" quit || true
    wait "$QEMU_PID"
}

# qmp_ok NAME COMMAND [ARGUMENTS]: the answer must not be an error.
qmp_ok() {
    local answer
    answer=$(qmp "$@")
    [[ $answer != *'"class"'* && -n $answer ]] || fail "QEMU $1 refused $2: $answer"
    printf '%s\n' "$answer"
}

# qemu_io NAME NODE COMMAND: reads or writes 64k through a block node of a QEMU of start_qemu's. Whatever comes of it the
# monitor answers with nothing; QEMU prints it, into a buffer, which what the second command prints drives out.
qemu_io() {
    local command answer printed log before
    log=$(readlink "/proc/$(<"/run/libvirt/qemu/$1.pid")/fd/1")
    before=$(stat -c %s "$log")
    for command in "$3" 'read -v 0 1k'; do
        answer=$(qmp_ok "$1" human-monitor-command "{\"command-line\":\"qemu-io $2 \\\"$command\\\"\"}")
        [ "$answer" = '""' ] || fail "$command: $answer"
    done
    # Without the bytes that it printed.
    printed=$(tail -c +"$((before + 1))" "$log" | grep -v '^[0-9a-f]*: ')
    [[ $printed != *failed* ]] || fail "$3: $printed"
    says "$printed" '(wrote|read) 65536/65536 bytes'
}

# file_node NODE PATH [READ-ONLY]: blockdev-add's arguments for a plain file.
file_node() {
    jq -nc --arg node "$1" --arg path "$2" --argjson ro "${3:-false}" \
        '{driver: "file", "node-name": $node, filename: $path, "read-only": $ro}'
}

# opens NAME PATH [READ-ONLY]: a running QEMU must be able to open the file.
opens() {
    qmp_ok "$1" blockdev-add "$(file_node probe "$2" "${3:-false}")" >/dev/null
    qmp_ok "$1" blockdev-del '{"node-name":"probe"}' >/dev/null
}

# cannot_open NAME PATH [READ-ONLY]: it must fail, for want of permission.
cannot_open() {
    local answer
    answer=$(qmp "$1" blockdev-add "$(file_node probe "$2" "${3:-false}")")
    says "$answer" 'Permission denied'
}

# qemu_given UUID ARGUMENT…: a confined QEMU with these arguments, ended at once when it has started.
qemu_given() {
    local uuid=$1
    shift
    printf '%s\n' '{"execute":"qmp_capabilities"}' '{"execute":"quit"}' |
        "${AS[@]}" aa-confine --uuid "$uuid" -- "$QEMU" -M none -nodefaults -display none -S -qmp stdio "$@"
}

# make_guest NAME: an overlay on a base, the XML of a guest with both, and its profile in the kernel.
# Sets UUID, PROFILE, BASE and DISK.
make_guest() {
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    BASE=$IMAGES/$1-base.qcow2
    DISK=$IMAGES/$1.qcow2
    qemu-img create -q -f qcow2 "$BASE" 1M
    qemu-img create -q -f qcow2 -b "$BASE" -F qcow2 "$DISK"
    domain_xml "$1" "$UUID" "$DISK" >"$1.xml"
    confine_guest "$1.xml"
}

# disk_arguments: -blockdev for the guest's overlay, which opens its base read-only.
disk_arguments() {
    printf '%s\n' -blockdev "{\"driver\":\"qcow2\",\"node-name\":\"disk0\",\"file\":{\"driver\":\"file\",\"filename\":\"$DISK\"}}"
}

# account_guest NAME [XML]: a disk of the account's that guests without libvirtd run as, and the XML of a guest with it.
# Sets UUID, PROFILE and DISK.
account_guest() {
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    DISK=$IMAGES/$1.img
    truncate -s 1M "$DISK"
    chown aa-svirt "$DISK"
    domain_xml "$1" "$UUID" "$DISK" >"${2:-$1.xml}"
    # Where qmp looks for the monitor.
    mkdir -p "/var/lib/libvirt/qemu/domain-1-$1"
    ln -sfn "/run/aa-svirt/$UUID/qmp" "/var/lib/libvirt/qemu/domain-1-$1/monitor.sock"
}

HELPER=/usr/lib/libvirt/virt-aa-helper
LIBVIRTD_LOG=/var/log/libvirt/libvirtd.log

# use_helper WHICH: what libvirtd runs from now on: «ours», the drop-in, or «original», Debian's, which is kept beside it.
use_helper() {
    [ -e "$HELPER.orig" ] || cp -a "$HELPER" "$HELPER.orig"
    local from=$HELPER.orig
    [ "$1" != ours ] || from=/usr/lib/aa-svirt/bin/virt-aa-helper
    # A regular file at the very path: libvirtd's profile refuses a link that leads elsewhere. Moved there, since
    # a running program cannot be written.
    cp "$from" "$HELPER.new"
    mv "$HELPER.new" "$HELPER"
}

# helper_profile WHICH: what the helper is confined by from now on: «ours», or «debian», libvirt's own.
helper_profile() {
    local from=/etc/apparmor.d
    [ "$1" != ours ] || from=/usr/share/aa-svirt/policy
    apparmor_parser -K -r "$from/usr.lib.libvirt.virt-aa-helper"
    # Ours has the parser's profile within it, which a replacement leaves behind.
    if [ "$1" = debian ] && grep -q '^virt-aa-helper//parser ' /sys/kernel/security/apparmor/profiles; then
        printf %s virt-aa-helper//parser >/sys/kernel/security/apparmor/.remove
    fi
    printf '%s\n' "$1" >/run/helper-profile
}

# quick_parser: the parser skips a step that costs most of its time in an emulated guest; same policy, larger tables.
quick_parser() {
    grep -q '^Optimize=no-expr-simplify$' /etc/apparmor/parser.conf ||
        echo Optimize=no-expr-simplify >>/etc/apparmor/parser.conf
}

# start_libvirtd: libvirtd and virtlogd under Debian's profiles, with our helper. They end with the file's cases
# if started in setup.
start_libvirtd() {
    use_helper ours
    start_daemons
}

# start_daemons: the same, with the helper that is there.
start_daemons() {
    apparmor_parser -r -W /etc/apparmor.d/usr.sbin.libvirtd /etc/apparmor.d/usr.lib.libvirt.virt-aa-helper
    grep -q '^log_outputs' /etc/libvirt/libvirtd.conf ||
        echo "log_outputs = \"3:file:$LIBVIRTD_LOG\"" >>/etc/libvirt/libvirtd.conf
    virtlogd -d
    run_libvirtd
}

# run_libvirtd: once more. It outlives the case.
run_libvirtd() {
    (
        echo "$BASHPID" >/sys/fs/cgroup/file/cgroup.procs
        exec libvirtd -d
    )
    wait_for virsh version
}

# stop_libvirtd: ends every guest and both daemons.
stop_libvirtd() {
    local name
    for name in $(virsh list --name); do virsh destroy "$name"; done
    kill "$(</run/libvirtd.pid)" "$(</run/virtlogd.pid)"
}

# define_guest NAME DISK…: to libvirtd. Sets NAME, UUID and PROFILE.
define_guest() {
    NAME=$1
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    domain_xml "$NAME" "$UUID" "${@:2}" >"$NAME.xml"
    virsh define "$NAME.xml"
}

# start_guest NAME: through libvirtd, stopped before its first instruction. Its process is $QEMU_PID.
start_guest() {
    virsh start --paused "$1"
    QEMU_PID=$(</run/libvirt/qemu/"$1".pid)
}

# profile_of NAME: of a guest of libvirtd's.
profile_of() {
    local uuid
    # Without the empty line that virsh prints too.
    uuid=$(virsh domuuid "$1")
    echo "libvirt-$uuid"
}

# confined NAME: the guest that libvirtd runs has its own label, and its profile is in force.
confined() {
    local profile pid
    profile=$(profile_of "$1")
    pid=$(</run/libvirt/qemu/"$1".pid)
    [ "$(label_of "$pid")" = "$profile (enforce)" ] || fail "$1 is labelled $(label_of "$pid")"
    [ "$(mode_of "$profile")" = enforce ]
}

# profile_gone PROFILE: neither the kernel nor a rules file knows the profile any more.
profile_gone() {
    [ -z "$(mode_of "$1")" ] && [ ! -e "$PROFILES/$1.files" ]
}

# undisturbed MARK: nothing was denied to $PROFILE, the helper or libvirtd since then.
undisturbed() {
    local records
    records=$(denials_since "$1" | grep -aE "profile=\"($PROFILE|virt-aa-helper|libvirtd)\"") || return 0
    fail "denied: $records"
}

# job_over NAME: no job of libvirtd's is going on.
job_over() {
    virsh domjobinfo "$1" | grep '^Job type: *None'
}

# has_open PID PATH
has_open() {
    [ -n "$(find "/proc/$1/fd" -lname "$2")" ]
}

# boot_disk PATH: a disk with a program in its first sector. It lets go of each PCI device that is being unplugged, and
# switches the machine off when its power button is pressed: all that libvirtd needs of a guest's system. It knows
# where machine pc has its registers.
boot_disk() {
    host_file "$1"
    # sti; mask the interrupts of the second controller; enable the power button at 0x602.
    # Then for ever: hlt; what 0xae04 asks to be unplugged goes to 0xae08; if 0x600 tells of the button, off by 0x604.
    printf '\xfb\xb0\xff\xe6\xa1\xba\x02\x06\xb8\x00\x01\xef\xf4\xba\x04\xae\x66\xed\x66\x85\xc0\x74\x05\xba\x08\xae\x66\xef\xba\x00\x06\xed\xf6\xc4\x01\x74\xe7\xba\x04\x06\xb8\x00\x20\xef\xeb\xde' |
        dd of="$1" conv=notrunc status=none
    printf '\x55\xaa' | dd of="$1" bs=1 seek=510 conv=notrunc status=none
}

# start_system NAME: through libvirtd, a guest of machine pc whose first disk is a boot_disk.
start_system() {
    virsh start "$1"
    QEMU_PID=$(</run/libvirt/qemu/"$1".pid)
}

# not_running PID
not_running() {
    [ ! -d "/proc/$1" ]
}

# host_file PATH…: a file of 1 MB that everybody may write: if it is denied, then by AppArmor.
host_file() {
    local path
    for path; do
        truncate -s 1M "$path"
        chmod 666 "$path"
    done
}

# denied_file NAME PATH: QEMU cannot open it, and it is AppArmor that says no.
denied_file() {
    local mark profile
    mark=$(log_mark)
    profile=$(profile_of "$1")
    cannot_open "$1" "$2"
    denied "$mark" "$profile" "$2"
}

function=$1
file=$2
case_dir=/tmp/cases/$(basename "$file" .sh)/$function
mkdir -p "$case_dir"
cd "$case_dir"
# shellcheck source=/dev/null
. "/tests/$file"
"$function"
