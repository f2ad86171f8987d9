# Devices that come to a running guest of libvirtd's, and go.
case_timeout=300
on_request=yes
each_change=case_a_disk_on_each_bus

setup() {
    mkdir -p /srv
    depmod -a
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# system_guest NAME: a running guest that lets go of its devices.
system_guest() {
    boot_disk "$IMAGES/$1.img"
    MACHINE=pc define_guest "$1" "$IMAGES/$1.img"
    start_system "$1"
    confined "$1"
}

# attach XML
attach() {
    virsh attach-device "$NAME" "$1" --live
}

# detach XML TEXT: until the guest has let go and the definition has no such text any more.
detach() {
    local _ devices
    for _ in {1..20}; do
        virsh detach-device "$NAME" "$1" --live || true
        for _ in {1..10}; do
            devices=$(virsh dumpxml "$NAME")
            [[ $devices == *"$2"* ]] || return 0
            sleep 0.5
        done
    done
    fail "$2 is still plugged in"
}

# is_closed PATH: to a process under the profile.
is_closed() {
    # shellcheck disable=SC2016
    ! aa-exec -p "$PROFILE" -- /bin/dash -c ': <"$0"' "$1"
}

disk_device() {
    printf "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='%s' bus='%s'/></disk>\n" "$@"
}

case_a_disk_on_each_bus() {
    local bus target path mark
    boot_disk "$IMAGES/disks.img"
    DEVICES="<controller type='usb' model='qemu-xhci'/><controller type='scsi' model='virtio-scsi'/>" MACHINE=pc \
        define_guest disks "$IMAGES/disks.img"
    start_system disks
    confined disks
    for bus in virtio:vdb scsi:sda usb:sdb; do
        target=${bus#*:}
        bus=${bus%:*}
        path=$IMAGES/disks-$bus.img
        host_file "$path"
        disk_device "$path" "$target" "$bus" >"$bus.xml"
        denied_file disks "$path"
        mark=$(log_mark)
        attach "$bus.xml"
        undisturbed "$mark"
        opens disks "$path" true
        detach "$bus.xml" "$path"
        wait_for is_closed "$path"
        denied_file disks "$path"
    done
    confined disks
    opens disks "$IMAGES/disks.img" true
    virsh destroy disks
}

# A second overlay on the base of the guest's own disk: the base is everybody's, and no more than read.
case_an_overlay_on_a_base_that_the_guest_has() {
    local base=$IMAGES/golden.qcow2 mark
    boot_disk "$IMAGES/golden.img"
    qemu-img convert -O qcow2 "$IMAGES/golden.img" "$base"
    chmod 666 "$base"
    qemu-img create -q -f qcow2 -b "$base" -F qcow2 "$IMAGES/first.qcow2"
    qemu-img create -q -f qcow2 -b "$base" -F qcow2 "$IMAGES/second.qcow2"
    MACHINE=pc define_guest layers "$IMAGES/first.qcow2"
    start_system layers
    confined layers
    disk_device "$IMAGES/second.qcow2" vdb virtio | sed "s/type='raw'/type='qcow2'/" >second.xml
    mark=$(log_mark)
    attach second.xml
    undisturbed "$mark"
    opens layers "$base" true
    cannot_open layers "$base"
    denied "$mark" "$PROFILE" "$base" w
    detach second.xml "$IMAGES/second.qcow2"
    wait_for is_closed "$IMAGES/second.qcow2"
    mark=$(log_mark)
    cannot_open layers "$base"
    denied "$mark" "$PROFILE" "$base" w
    virsh destroy layers
}

case_network_cards() {
    modprobe -a tun bridge macvtap dummy
    ip link add host0 type dummy
    ip link set host0 up
    ip link add bridge0 type bridge
    ip link set bridge0 up
    system_guest cards
    local mark
    mark=$(log_mark)
    echo "<interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>" >user.xml
    echo "<interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='bridge0'/><model type='virtio'/></interface>" >bridge.xml
    echo "<interface type='direct'><mac address='52:54:00:00:00:03'/><source dev='host0' mode='bridge'/><model type='virtio'/></interface>" >direct.xml
    attach user.xml
    attach bridge.xml
    attach direct.xml
    undisturbed "$mark"
    detach user.xml 52:54:00:00:00:01
    detach bridge.xml 52:54:00:00:00:02
    local node
    node=$(echo /dev/tap[0-9]*)
    [ -c "$node" ]
    detach direct.xml 52:54:00:00:00:03
    # The node went with the card.
    wait_for test ! -e "$node"
    confined cards
    opens cards "$IMAGES/cards.img" true
    virsh destroy cards
}

# A guest may use the keyboard it was given, and no other device.
case_an_input_device() {
    modprobe evdev
    wait_for test -c /dev/input/event0
    host_file "$IMAGES/input.img"
    DEVICES="<input type='evdev'><source dev='/dev/input/event0'/></input>" define_guest input "$IMAGES/input.img"
    mark=$(log_mark)
    start_guest input
    undisturbed "$mark"
    confined input
    has_open "$QEMU_PID" /dev/input/event0
    for other in /dev/input/event*; do
        if [ "$other" = /dev/input/event0 ]; then continue; fi
        expect 2 aa-exec -p "$PROFILE" -- /bin/dash -c ': <"$0"' "$other"
        says "$stderr" 'Permission denied'
    done
    virsh destroy input
    # Without the device in the definition.
    virsh undefine input
    domain_xml input "$UUID" "$IMAGES/input.img" >input.xml
    virsh define input.xml
    start_guest input
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    expect 2 aa-exec -p "$PROFILE" -- /bin/dash -c ': <"$0"' /dev/input/event0
    says "$stderr" 'Permission denied'
    virsh destroy input
}

# An event device of the host's as a PCI device: evdev's other form, the one that libvirtd plugs into a running guest.
case_an_event_device_that_comes_and_goes() {
    modprobe evdev
    wait_for test -c /dev/input/event0
    system_guest event
    local node=/dev/input/event0 mark
    is_closed "$node"
    echo "<input type='passthrough' bus='virtio'><source evdev='$node'/></input>" >event.xml
    mark=$(log_mark)
    attach event.xml
    undisturbed "$mark"
    has_open "$QEMU_PID" "$node"
    for other in /dev/input/event*; do
        [ "$other" = "$node" ] || is_closed "$other"
    done
    detach event.xml "$node"
    # libvirtd tells the helper before it drops the device from the definition: the next change ends the rule. The
    # node is gone at once from the /dev that the guest sees.
    [ ! -e "/proc/$QEMU_PID/root$node" ]
    truncate -s 1M "$IMAGES/event.iso"
    disk_device "$IMAGES/event.iso" vdb virtio >other.xml
    attach other.xml
    detach other.xml "$IMAGES/event.iso"
    wait_for is_closed "$node"
    confined event
    virsh destroy event
}

# usb_node PRODUCT: the node of a USB device of this machine.
usb_node() {
    local device
    device=$(usb_device "$1") || return
    printf '/dev/bus/usb/%03d/%03d\n' "$(<"$device/busnum")" "$(<"$device/devnum")"
}

case_a_usb_device_that_comes_and_goes() {
    modprobe xhci-pci
    wait_for usb_node 'QEMU USB Tablet'
    wait_for usb_node 'QEMU USB Keyboard'
    local node other mark
    node=$(usb_node 'QEMU USB Tablet')
    other=$(usb_node 'QEMU USB Keyboard')
    [ -c "$node" ]
    [ -c "$other" ]
    host_file "$IMAGES/usb.img"
    DEVICES="<controller type='usb' model='qemu-xhci'/>" define_guest usb "$IMAGES/usb.img"
    start_guest usb
    confined usb
    is_closed "$node"
    echo "$node" | sed "s|.*/\(.*\)/\(.*\)|<hostdev mode='subsystem' type='usb'><source>\
        <address bus='\1' device='\2'/></source></hostdev>|" >usb.xml
    mark=$(log_mark)
    attach usb.xml
    # QEMU's USB library asks for the mounts too, and does without: no helper's rules and no abstraction let it.
    [ -z "$(denials_since "$mark" | grep -v 'name="/proc/[0-9]*/mountinfo"')" ]
    has_open "$QEMU_PID" "$node"
    is_closed "$other"
    detach usb.xml '<hostdev'
    wait_for is_closed "$node"
    confined usb
    virsh destroy usb
}

# libvirtd names the node before the definition has the device: what the device needs besides comes with the node.
case_a_usb_device_under_a_minimal_profile() {
    modprobe xhci-pci
    wait_for usb_node 'QEMU USB Tablet'
    local node mark
    node=$(usb_node 'QEMU USB Tablet')
    host_file "$IMAGES/usb-minimal.img"
    DEVICES="<controller type='usb' model='qemu-xhci'/>" define_guest usb-minimal "$IMAGES/usb-minimal.img"
    aa-derive usb-minimal.xml | aa-render --minimal >/dev/null
    start_guest usb-minimal
    confined usb-minimal
    is_closed "$node"
    expect 1 grep 'network netlink raw' "$PROFILES/$PROFILE"
    echo "$node" | sed "s|.*/\(.*\)/\(.*\)|<hostdev mode='subsystem' type='usb'><source>\
        <address bus='\1' device='\2'/></source></hostdev>|" >usb.xml
    mark=$(log_mark)
    attach usb.xml
    # As in the case above.
    [ -z "$(denials_since "$mark" | grep -v 'name="/proc/[0-9]*/mountinfo"')" ]
    has_open "$QEMU_PID" "$node"
    grep -q 'network netlink raw' "$PROFILES/$PROFILE"
    detach usb.xml '<hostdev'
    wait_for is_closed "$node"
    virsh destroy usb-minimal
}

# A folder of the host's, by 9p, which libvirtd does not plug into a running guest.
case_a_shared_folder() {
    mkdir -p /srv/folder/below /srv/folder-beside
    host_file "$IMAGES/folder.img" /srv/folder/below/file /srv/folder-beside/file
    DEVICES="<filesystem type='mount' accessmode='mapped'><source dir='/srv/folder'/><target dir='folder'/></filesystem>" \
        define_guest folder "$IMAGES/folder.img"
    local mark
    mark=$(log_mark)
    start_guest folder
    undisturbed "$mark"
    opens folder /srv/folder/below/file
    denied_file folder /srv/folder-beside/file
    virsh destroy folder
    domain_xml folder "$UUID" "$IMAGES/folder.img" >folder.xml
    virsh define folder.xml
    start_guest folder
    denied_file folder /srv/folder/below/file
    virsh destroy folder
}

no_virtiofsd() {
    [ -z "$(pgrep virtiofsd)" ]
}

# A folder by virtiofs, which libvirtd does plug into a running guest. Its daemon reads it; QEMU has the daemon's
# socket, and no business in the folder.
case_a_shared_folder_that_comes_and_goes() {
    mkdir -p /srv/plugged
    host_file /srv/plugged/file
    chmod 777 /srv/plugged
    boot_disk "$IMAGES/virtiofs.img"
    MACHINE=pc define_guest virtiofs "$IMAGES/virtiofs.img"
    shared_memory <virtiofs.xml >shared.xml
    virsh define shared.xml
    start_system virtiofs
    confined virtiofs
    # The root of this machine is the kernel's first file system, which no pivot_root can leave.
    cat >folder.xml <<XML
<filesystem type='mount' accessmode='passthrough'>
  <driver type='virtiofs'/><binary><sandbox mode='chroot'/></binary>
  <source dir='/srv/plugged'/><target dir='shared'/>
</filesystem>
XML
    local mark daemon
    mark=$(log_mark)
    attach folder.xml
    undisturbed "$mark"
    daemon=$(pgrep virtiofsd)
    [ -n "$daemon" ]
    denied_file virtiofs /srv/plugged/file
    detach folder.xml "<filesystem"
    wait_for no_virtiofsd
    denied_file virtiofs /srv/plugged/file
    confined virtiofs
    virsh destroy virtiofs
}
