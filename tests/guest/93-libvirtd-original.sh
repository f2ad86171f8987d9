# libvirt's own helper and ours under one libvirtd: what the original lets a guest do, ours lets it do too, but for the
# departures that docs/differences.md names; and where the original fails.
case_timeout=300
on_request=yes
each_change=case_ours_allows_what_the_original_allows

setup() {
    quick_parser
    depmod -a
    modprobe -a evdev xhci-pci
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# fresh_libvirtd WHICH: with this helper, and counting its guests from 1.
fresh_libvirtd() {
    local pid
    pid=$(</run/libvirtd.pid)
    kill "$pid"
    # It ends without its threads if they take 30 seconds (libvirt's virnetdaemon.c).
    PATIENCE=45 wait_for not_running "$pid"
    use_helper "$1"
    run_libvirtd
}

# usb_address PRODUCT: of a device of this machine, as attributes.
usb_address() {
    local device
    device=$(usb_device "$1") || return
    echo "bus='$(<"$device/busnum")' device='$(<"$device/devnum")'"
}

# define_whole: a guest with a device of each kind that has files here.
define_whole() {
    local dir=/srv/whole
    mkdir -p "$dir"/{shared,read-only,run}
    chmod 777 "$dir"/{shared,run}
    qemu-img create -q -f qcow2 "$dir/layer0.qcow2" 1M
    qemu-img create -q -f qcow2 -F qcow2 -b "$dir/layer0.qcow2" "$dir/layer1.qcow2"
    qemu-img create -q -f qcow2 -F qcow2 -b "$dir/layer1.qcow2" "$dir/layer2.qcow2"
    host_file "$dir/cd.iso" "$dir/fwcfg"
    install -d -o tss -g tss /var/lib/swtpm-localca
    DEVICES="
        <disk type='file' device='cdrom'>
          <driver name='qemu' type='raw'/><source file='$dir/cd.iso'/><target dev='sda' bus='sata'/><readonly/>
        </disk>
        <controller type='usb' model='qemu-xhci'/>
        <filesystem type='mount' accessmode='mapped'><source dir='$dir/shared'/><target dir='shared'/></filesystem>
        <filesystem type='mount' accessmode='mapped'>
          <source dir='$dir/read-only'/><target dir='read-only'/><readonly/>
        </filesystem>
        <channel type='unix'>
          <source mode='bind' path='$dir/run/channel.sock'/><target type='virtio' name='org.example.0'/>
        </channel>
        <graphics type='vnc'><listen type='socket' socket='$dir/run/vnc.sock'/></graphics>
        <input type='evdev'><source dev='/dev/input/event0'/></input>
        <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
        <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
        <shmem name='whole'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>
        <hostdev mode='subsystem' type='usb'><source><address $(usb_address 'QEMU USB Tablet')/></source></hostdev>
    " domain_xml whole "$UUID" "$dir/layer2.qcow2" |
        sed -e "s|</os>|<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\
            <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/whole.fd</nvram></os>\
            <sysinfo type='fwcfg'><entry name='opt/org.example/x' file='$dir/fwcfg'/></sysinfo>|" >whole.xml
    virsh define whole.xml
}

# run_whole OUT: once, and copies the profile that it ran with, with its rules in one file.
run_whole() {
    start_guest whole
    confined whole
    sed -e "/<libvirt\/$PROFILE.files>/{" -e "r $PROFILES/$PROFILE.files" -e d -e '}' "$PROFILES/$PROFILE" >"$1"
    grep -q "/srv/whole/layer2.qcow2" "$1"
    virsh destroy whole
    wait_for profile_gone "$PROFILE"
    # What stays would be the next start's base profile.
    rm "$PROFILES/$PROFILE"
}

# with PROFILE RULE…: the profile with these rules too.
with() {
    sed '$d' "$1"
    printf '  %s,\n' "${@:2}"
    echo '}'
}

# What only the original grants to this guest: the family narrow-names of docs/differences.md.
ONLY_THEIRS=(
    '"/var/log/libvirt/**/whole.log" w'
    '"/var/lib/libvirt/qemu/domain-whole/monitor.sock" rw'
    '"/run/libvirt/**/whole.pid" rwk'
    '"/run/libvirt/**/*.tunnelmigrate.dest.whole" rw'
)
# What only ours do: own-directories, since libvirt has had two places for channels, and shares.
ONLY_OURS=(
    '"/run/libvirt/qemu/channel/1-whole/{,**}" rwk'
    '"/var/lib/libvirt/qemu/channel/target/domain-1-whole/{,**}" rwk'
    '"/srv/whole/shared/**" k'
)

case_ours_allows_what_the_original_allows() {
    # A failure must not leave the original in our place for the next case.
    trap 'use_helper ours' EXIT
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    wait_for usb_address 'QEMU USB Tablet'
    define_whole
    fresh_libvirtd original
    run_whole original
    fresh_libvirtd ours
    run_whole ours
    # By what the parser makes of both: every path that the original allows, ours allows with the same access, but for
    # the departures, and each of those is one. And the other way.
    with ours "${ONLY_THEIRS[@]}" >extended
    expect 0 /tests/covers extended original
    expect 1 /tests/covers ours original
    local departure left_out=$stdout
    for departure in '^wa .*/whole\.log$' 'domain-whole/monitor\.sock$' '/whole\.pid$' 'tunnelmigrate\.dest\.whole$'; do
        grep -E "$departure" <<<"$left_out"
    done
    [ "$(wc -l <<<"$left_out")" = 4 ]
    with original "${ONLY_OURS[@]}" >extended
    expect 0 /tests/covers extended ours
    expect 1 /tests/covers original ours
}

# job NAME COMMAND…: what became of a job under the original, in $OUTCOMES.
job() {
    local name=$1 outcome="done" mark records
    shift
    mark=$(log_mark)
    "$@" >out 2>&1 || outcome=failed
    ! grep -q 'Permission denied' out || outcome+=' (Permission denied)'
    records=$(denials_since "$mark" | grep -aF "profile=\"$PROFILE\"" | grep -ao 'name="[^"]*"' | sort -u | tr '\n' ' ') || true
    OUTCOMES+=("$name $outcome${records:+, denied $records}")
}

# The jobs of 91-libvirtd-jobs.sh, in which nothing is denied with ours.
case_where_the_original_fails() {
    trap 'use_helper ours' EXIT
    local base=$IMAGES/orig-base.qcow2 disk=$IMAGES/orig.qcow2 outcome
    OUTCOMES=()
    qemu-img create -q -f qcow2 "$base" 1M
    qemu-img create -q -f qcow2 -b "$base" -F qcow2 "$disk"
    use_helper original
    define_guest orig "$disk"
    start_guest orig
    snapshot() { virsh snapshot-create-as orig --disk-only --atomic --no-metadata --diskspec "vda,snapshot=external,file=$1"; }
    job snapshot snapshot "$IMAGES/orig.s1"
    job active-commit virsh blockcommit orig vda --active --shallow --wait --pivot
    job second-snapshot snapshot "$IMAGES/orig.s2"
    job third-snapshot snapshot "$IMAGES/orig.s3"
    job commit-between virsh blockcommit orig vda --top "$IMAGES/orig.s2" --base "$disk" --wait
    job commit-into-base virsh blockcommit orig vda --active --wait --pivot
    virsh blockjob orig vda --abort >/dev/null 2>&1 || true
    cat >backup.xml <<XML
<domainbackup mode='push'>
  <disks><disk name='vda' backup='yes' type='file'><target file='$IMAGES/orig.backup'/><driver type='qcow2'/></disk></disks>
</domainbackup>
XML
    job backup virsh backup-begin orig backup.xml
    wait_for job_over orig
    cat >backup.xml <<XML
<domainbackup mode='pull'>
  <server transport='unix' socket='/var/lib/libvirt/qemu/domain-$(virsh domid orig)-orig/nbd.sock'/>
  <disks><disk name='vda' backup='yes' type='file'><scratch file='$IMAGES/orig.scratch'/><driver type='qcow2'/></disk></disks>
</domainbackup>
XML
    job backup-with-a-scratch-file virsh backup-begin orig backup.xml
    virsh domjobabort orig >/dev/null 2>&1 || true
    wait_for job_over orig
    job copy virsh blockcopy orig vda --dest "$IMAGES/orig.copy" --format qcow2 --wait --pivot --transient-job
    job pull virsh blockpull orig vda --wait
    virsh destroy orig
    for outcome in "${OUTCOMES[@]}"; do echo "figure: the original: $outcome"; done
    # All but one; the other finds the file that it writes denied to it.
    [ "$(printf '%s\n' "${OUTCOMES[@]}" | grep -c ' done$')" = $((${#OUTCOMES[@]} - 1)) ]
    printf '%s\n' "${OUTCOMES[@]}" | grep '^commit-into-base failed (Permission denied)'
}
