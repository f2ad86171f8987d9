# Each thing that a guest may use, under a minimal profile made of what it uses. QEMU starts with it and nothing is
# denied; under the profile of a guest that does not use it, the same start is denied what it needs.
#
# QEMU runs as the user that libvirt gives it, so that capabilities and owners are what they are there.
case_timeout=240
DIR=/srv/minimal
AS=(setpriv --reuid=libvirt-qemu --regid=kvm --clear-groups)

setup() {
    # Nothing in the image says which module needs which.
    depmod
    chmod a+rwxt /run/libvirt /run/libvirt/qemu /var/log/libvirt/qemu 2>/dev/null || {
        mkdir -p /run/libvirt/qemu
        chmod a+rwxt /run/libvirt/qemu /var/log/libvirt/qemu
    }
    mkdir -p $DIR/of-another
    host_file $DIR/of-another/disk.img
    guest plain '' ''
}

# [OS=…] [MEMORY=…] guest NAME USES DEVICES [TYPE]: loads the minimal profile of a guest with these devices, which must
# use just these features.
guest() {
    domain "$@" >"$1.xml"
    aa-derive --strict "$1.xml" >"$1.json"
    [ "$(jq -r '.uses | join(" ")' "$1.json")" = "$2" ] || fail "uses: $(jq -c .uses "$1.json")"
    aa-render --minimal "$1.json" >rendered.json
    aa-load <rendered.json >loaded.json
    [ "$(mode_of "libvirt-$(uuid_of "$1")")" = enforce ]
}

# domain NAME USES DEVICES [TYPE]: its XML, and the directory that libvirtd would make for it.
domain() {
    new_uuid >"$DIR/$1.uuid"
    mkdir -p "$(home_of "$1")"
    chown libvirt-qemu:kvm "$(home_of "$1")"
    cat <<XML
<domain type='${4:-qemu}' id='1'>
  <name>$1</name>
  <uuid>$(uuid_of "$1")</uuid>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type>${OS:-}</os>
  ${MEMORY:-}
  <devices>
    <emulator>$QEMU</emulator>
    <serial type='file'><source path='/var/log/libvirt/qemu/$1-serial.log'/><target port='0'/></serial>
    $3
  </devices>
</domain>
XML
}

uuid_of() { cat "$DIR/$1.uuid"; }
home_of() { echo "/var/lib/libvirt/qemu/domain-1-$1"; }

# run_as NAME ARGUMENT…: QEMU with this guest's profile and home, ended when it has started.
run_as() {
    local name=$1
    shift
    HOME=$(home_of "$name") XDG_CACHE_HOME=$(home_of "$name")/.cache qemu_given "$(uuid_of "$name")" -M q35 -m 64 "$@"
}

# starts NAME ARGUMENT…: QEMU starts, and nothing is denied.
starts() {
    local mark denials
    mark=$(log_mark)
    expect 0 run_as "$@"
    denials=$(denials_since "$mark")
    [ -z "$denials" ] || fail "$denials"$'\n'"$stderr"
}

# lacks PATH ACCESS NAME ARGUMENT…: under this guest's profile the start is denied the file.
lacks() {
    local path=$1 access=$2 name=$3 mark
    shift 2
    [ -e "$path" ]
    mark=$(log_mark)
    # Not each start fails for it.
    run_as "$@" >lacks.log 2>&1 || true
    denied "$mark" "libvirt-$(uuid_of "$name")" "$path" "$access"
}

# lacks_socket FAMILY TYPE NAME ARGUMENT…: it is denied such a socket.
lacks_socket() {
    local kind="family=\"$1\" sock_type=\"$2\"" mark
    shift 2
    mark=$(log_mark)
    run_as "$@" >lacks.log 2>&1 || true
    denials_since "$mark" | grep -aF "profile=\"libvirt-$(uuid_of "$1")\"" | grep -aF "$kind" >/dev/null ||
        fail "no record of $kind; the log has: $(denials_since "$mark")"
}

# node PATH…: QEMU's user may open these, as libvirtd would see to.
node() { chown libvirt-qemu:kvm "$@"; }

case_devices_that_need_nothing_of_the_host() {
    starts plain -device virtio-net-pci -device e1000e -device VGA -device qemu-xhci -device usb-tablet \
        -device virtio-balloon-pci -device virtio-serial-pci -device pvpanic -device i6300esb -device ich9-intel-hda \
        -device virtio-scsi-pci -device virtio-rng-pci -device virtio-keyboard-pci -device vmcoreinfo \
        -object memory-backend-memfd,id=m,size=1M,share=on -object rng-random,id=r,filename=/dev/urandom \
        -audiodev none,id=a -smbios type=1,serial=1 -sandbox on -msg timestamp=on -device virtio-gpu-pci
}

case_the_emulator_is_the_only_program() {
    # Under its own profile --now cannot read the label back.
    uncaged aa-confine
    local mark program
    for program in /usr/bin/qemu-system-x86_64-microvm /usr/bin/qemu-img /usr/bin/dash /usr/bin/swtpm /usr/bin/passt; do
        mark=$(log_mark)
        expect 126 "${AS[@]}" aa-confine --now --uuid "$(uuid_of plain)" -- "$program" --version
        denied "$mark" "libvirt-$(uuid_of plain)" "$program" '[a-z]*x'
    done
    "${AS[@]}" aa-confine --now --uuid "$(uuid_of plain)" -- "$QEMU" --version >version
    grep -F 'QEMU emulator' version
}

case_kvm() {
    modprobe kvm-amd
    node /dev/kvm
    guest kvm kvm '' kvm
    starts kvm -accel kvm -cpu host
    lacks /dev/kvm '[rw]' plain -accel kvm
}

case_disks_of_each_format() {
    local format node disks=() devices=''
    modprobe loop
    for format in raw qcow2 qcow vmdk vdi vpc qed; do
        qemu-img create -q -f $format $DIR/disk.$format 1M
        devices+="<disk type='file' device='disk'><driver name='qemu' type='$format'/>"
        devices+="<source file='$DIR/disk.$format'/><target dev='vd${#disks[@]}' bus='virtio'/></disk>"
        disks+=(-blockdev "{\"driver\":\"$format\",\"node-name\":\"$format\",\"file\":{\"driver\":\"file\",\"filename\":\"$DIR/disk.$format\"}}"
            -device "virtio-blk-pci,drive=$format")
    done
    truncate -s 4M $DIR/block.img
    node=$(losetup --find --show $DIR/block.img)
    devices+="<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none' io='native'/>"
    devices+="<source dev='$node'/><target dev='vdz' bus='virtio'/></disk>"
    node "$node" $DIR/disk.*
    guest disk disk "$devices"
    # shellcheck disable=SC2054  # commas of JSON
    disks+=(-blockdev "{\"driver\":\"host_device\",\"node-name\":\"block\",\"filename\":\"$node\",\"aio\":\"native\",\"cache\":{\"direct\":true}}"
        -device virtio-scsi-pci -device scsi-hd,drive=block)
    starts disk "${disks[@]}"
    lacks "$node" r plain -blockdev "{\"driver\":\"host_device\",\"node-name\":\"block\",\"filename\":\"$node\"}"
    lacks $DIR/of-another/disk.img r disk \
        -blockdev "{\"driver\":\"file\",\"node-name\":\"other\",\"filename\":\"$DIR/of-another/disk.img\"}"
}

case_network_disk() {
    local node='{"driver":"nbd","node-name":"nbd","export":"e","server":{"type":"inet","host":"localhost","port":"10809"}}'
    qemu-nbd -t -x e -f raw -p 10809 $DIR/of-another/disk.img &
    wait_for bash -c ': >/dev/tcp/127.0.0.1/10809'
    guest nbd network-disk "<disk type='network' device='disk'><driver name='qemu' type='raw'/>
        <source protocol='nbd' name='e'><host name='localhost' port='10809'/></source><target dev='vda' bus='virtio'/></disk>"
    starts nbd -blockdev "$node" -device virtio-blk-pci,drive=nbd
    lacks /etc/hosts r plain -blockdev "$node"
}

case_user_network() {
    guest user slirp "<interface type='user'><model type='virtio'/></interface>"
    starts user -netdev user,id=n,hostfwd=udp:127.0.0.1:5353-:53 -device virtio-net-pci,netdev=n
    lacks_socket inet dgram plain -netdev user,id=n,hostfwd=udp:127.0.0.1:5353-:53 -device virtio-net-pci,netdev=n
}

case_tap() {
    modprobe tun
    node /dev/net/tun
    ip tuntap add dev tap0 mode tap user libvirt-qemu
    guest tap tap "<interface type='ethernet'><target dev='tap0' managed='no'/><model type='virtio'/></interface>"
    starts tap -netdev tap,id=n,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n
    lacks /dev/net/tun '[rw]' plain -netdev tap,id=n,ifname=tap0,script=no,downscript=no
}

case_vhost_net() {
    local tap=tap,id=n,ifname=tap1,script=no,downscript=no
    modprobe -a tun vhost_net kvm-amd
    node /dev/net/tun /dev/vhost-net /dev/kvm
    ip tuntap add dev tap1 mode tap user libvirt-qemu
    guest vhost 'kvm tap vhost-net' \
        "<interface type='ethernet'><target dev='tap1' managed='no'/><model type='virtio'/></interface>" kvm
    starts vhost -accel kvm -netdev $tap,vhost=on -device virtio-net-pci,netdev=n
    guest no-vhost tap "<interface type='ethernet'><target dev='tap1' managed='no'/><model type='virtio'/></interface>"
    lacks /dev/vhost-net '[rw]' no-vhost -netdev $tap,vhost=on -device virtio-net-pci,netdev=n
}

case_sound() {
    modprobe snd-dummy
    node /dev/snd/*
    guest sound sound "<sound model='ich9'/><audio id='1' type='alsa'/>"
    starts sound -audiodev alsa,id=a -device ich9-intel-hda -device hda-duplex,audiodev=a
    lacks /usr/share/alsa/alsa.conf r plain -audiodev alsa,id=a -device ich9-intel-hda -device hda-duplex,audiodev=a
}

case_usb() {
    local bus=/sys/bus/usb/devices/1-1 device other
    modprobe xhci-pci
    wait_for test -e /sys/bus/usb/devices/1-2/devnum
    device=$(printf '/dev/bus/usb/%03d/%03d' "$(<$bus/busnum)" "$(<$bus/devnum)")
    other=$(printf '/dev/bus/usb/%03d/%03d' "$(<$bus/busnum)" "$(</sys/bus/usb/devices/1-2/devnum)")
    node "$device" "$other"
    guest usb usb "<hostdev mode='subsystem' type='usb' managed='no'>
        <source><address bus='$(<$bus/busnum)' device='$(<$bus/devnum)'/></source></hostdev>"
    starts usb -device qemu-xhci -device usb-host,hostbus=1,hostaddr="$(<$bus/devnum)"
    lacks "$other" '[rw]' usb -device qemu-xhci -device usb-host,hostbus=1,hostaddr="$(</sys/bus/usb/devices/1-2/devnum)"
    lacks /dev/bus/usb/ r plain -device qemu-xhci -device usb-host,hostbus=1,hostaddr="$(<$bus/devnum)"
}

case_vfio() {
    local device=0000:00:10.0 group
    modprobe vfio_iommu_type1 allow_unsafe_interrupts=1
    modprobe vfio-pci
    echo vfio-pci >/sys/bus/pci/devices/$device/driver_override
    echo $device >/sys/bus/pci/drivers_probe
    group=/dev/vfio/$(basename "$(readlink /sys/bus/pci/devices/$device/iommu_group)")
    wait_for test -e "$group"
    node "$group" /dev/vfio/vfio
    ulimit -l unlimited
    guest vfio vfio "<hostdev mode='subsystem' type='pci' managed='no'><driver name='vfio'/>
        <source><address domain='0' bus='0' slot='0x10' function='0'/></source></hostdev>"
    starts vfio -device vfio-pci,host=$device
    lacks "$group" '[rw]' plain -device vfio-pci,host=$device
}

case_vnc() {
    guest vnc vnc "<graphics type='vnc' listen='localhost'/>"
    starts vnc -device VGA -vnc localhost:7,sasl=on
    lacks /etc/hosts r plain -device VGA -vnc localhost:7
}

case_spice() {
    guest spice spice "<graphics type='spice' listen='localhost'/>"
    starts spice -spice port=5930,addr=localhost,disable-ticketing=on,sasl=on -device qxl-vga -device virtio-serial-pci \
        -chardev spicevmc,id=c,name=vdagent -device virtserialport,chardev=c,name=com.redhat.spice.0 \
        -audiodev spice,id=a -device ich9-intel-hda -device hda-duplex,audiodev=a
    lacks /etc/hosts r plain -spice port=5930,addr=localhost,disable-ticketing=on -device qxl-vga
}

case_dbus_display() {
    guest dbus dbus "<graphics type='dbus' p2p='yes'/>"
    starts dbus -display dbus,p2p=yes -device virtio-gpu-pci
    # It has no graphics by the host's hardware.
    modprobe vgem
    wait_for test -e /dev/dri/renderD128
    node /dev/dri/*
    lacks /dev/dri/renderD128 '[rw]' dbus -display dbus,p2p=yes,gl=on,rendernode=/dev/dri/renderD128 -device virtio-gpu-pci
}

case_pseudo_terminal() {
    guest pty pty "<serial type='pty'><target port='0'/></serial>"
    starts pty -chardev pty,id=c -device isa-serial,chardev=c
    lacks /dev/ptmx '[rw]' plain -chardev pty,id=c -device isa-serial,chardev=c
}

case_event_device() {
    modprobe -a xhci-pci usbhid evdev hid-generic
    wait_for test -e /dev/input/event1
    node /dev/input/event0 /dev/input/event1
    guest evdev '' "<input type='evdev'><source dev='/dev/input/event0'/></input>"
    starts evdev -object input-linux,id=i,evdev=/dev/input/event0
    lacks /dev/input/event1 '[rw]' evdev -object input-linux,id=i,evdev=/dev/input/event1
}

case_vsock() {
    modprobe vhost_vsock
    node /dev/vhost-vsock
    guest vsock vsock "<vsock model='virtio'><cid auto='no' address='3'/></vsock>"
    starts vsock -device vhost-vsock-pci,guest-cid=3
    lacks /dev/vhost-vsock '[rw]' plain -device vhost-vsock-pci,guest-cid=3
}

case_firmware() {
    cp /usr/share/OVMF/OVMF_VARS_4M.fd $DIR/VARS.fd
    chown libvirt-qemu:kvm $DIR/VARS.fd
    OS="<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram>$DIR/VARS.fd</nvram>" \
        guest firmware 'disk firmware' ''
    starts firmware -M q35,pflash0=code,pflash1=vars \
        -blockdev '{"driver":"file","filename":"/usr/share/OVMF/OVMF_CODE_4M.fd","node-name":"code","read-only":true}' \
        -blockdev "{\"driver\":\"file\",\"filename\":\"$DIR/VARS.fd\",\"node-name\":\"vars\"}"
    lacks $DIR/VARS.fd r plain -blockdev "{\"driver\":\"file\",\"filename\":\"$DIR/VARS.fd\",\"node-name\":\"vars\"}"
    # The firmware is not to be written. It is root's here, so a copy of it stands in.
    cp /usr/share/OVMF/OVMF_CODE_4M.fd $DIR/CODE.fd
    node $DIR/CODE.fd
    OS="<loader readonly='yes' type='pflash'>$DIR/CODE.fd</loader><nvram>$DIR/VARS.fd</nvram>" \
        guest own-firmware 'disk firmware' ''
    starts own-firmware -blockdev "{\"driver\":\"file\",\"filename\":\"$DIR/CODE.fd\",\"node-name\":\"code\",\"read-only\":true}"
    lacks $DIR/CODE.fd w own-firmware -blockdev "{\"driver\":\"file\",\"filename\":\"$DIR/CODE.fd\",\"node-name\":\"code\"}"
}

case_huge_pages() {
    local dir mark
    echo 40 >/proc/sys/vm/nr_hugepages
    mkdir -p /dev/hugepages
    mount -t hugetlbfs -o mode=1777 hugetlbfs /dev/hugepages
    dir=/dev/hugepages/libvirt/qemu
    mkdir -p $dir/1-huge $dir/1-other
    MEMORY="<memoryBacking><hugepages/></memoryBacking>" guest huge hugepages ''
    chown libvirt-qemu:kvm $dir/*
    starts huge -M q35,memory-backend=ram -object memory-backend-file,id=ram,size=64M,prealloc=on,mem-path=$dir/1-huge
    starts huge -M q35,memory-backend=ram -object memory-backend-memfd,id=ram,size=64M,hugetlb=on,hugetlbsize=2M
    mark=$(log_mark)
    run_as huge -M q35,memory-backend=ram \
        -object memory-backend-file,id=ram,size=64M,mem-path=$dir/1-other >lacks.log 2>&1 || true
    denials_since "$mark" | grep -aF "name=\"$dir/1-other/" >/dev/null || fail "$(denials_since "$mark")"
}

case_virtiofs() {
    local daemon socket=/run/minimal-virtiofs.sock
    for daemon in /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd; do [ ! -x $daemon ] || break; done
    mkdir -p $DIR/shared
    $daemon --socket-path=$socket -o source=$DIR/shared -o sandbox=chroot >virtiofsd.log 2>&1 &
    wait_for test -S $socket
    node $socket
    guest virtiofs virtiofs "<filesystem type='mount' accessmode='passthrough'><driver type='virtiofs'/>
        <source socket='$socket'/><target dir='shared'/></filesystem>"
    starts virtiofs -M q35,memory-backend=ram -object memory-backend-memfd,id=ram,size=64M,share=on \
        -chardev socket,id=c,path=$socket -device vhost-user-fs-pci,chardev=c,tag=shared
    # The folder is the daemon's; QEMU has no business in it.
    host_file $DIR/shared/file
    lacks $DIR/shared/file r virtiofs \
        -blockdev "{\"driver\":\"file\",\"node-name\":\"file\",\"filename\":\"$DIR/shared/file\"}"
}

case_smartcard() {
    mkdir -p /etc/pki/nssdb
    certutil -N -d sql:/etc/pki/nssdb --empty-password
    chmod a+r /etc/pki/nssdb/*
    guest card smartcard "<smartcard mode='host'/>"
    starts card -device qemu-xhci -device usb-ccid -device ccid-card-emulated,backend=nss-emulated
    lacks /etc/pki/nssdb/cert9.db r plain -device qemu-xhci -device usb-ccid -device ccid-card-emulated,backend=nss-emulated
}
