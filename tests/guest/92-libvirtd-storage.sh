# What a guest of libvirtd's can be made of: it starts, and nothing is denied to it; what is not its own is.
case_timeout=240
on_request=yes

setup() {
    quick_parser
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# starts NAME: it does, confined, and with nothing denied.
starts() {
    local mark
    mark=$(log_mark)
    start_guest "$1"
    confined "$1"
    undisturbed "$mark"
}

# ends NAME: with nothing denied and nothing left.
ends() {
    local mark
    mark=$(log_mark)
    virsh destroy "$1"
    wait_for profile_gone "$PROFILE"
    undisturbed "$mark"
}

# The profile of libvirt's own helper keeps the pools closed; ours, and an administrator's, open them.
case_a_volume_of_a_pool() {
    echo '/{etc,run}/libvirt/storage/{,**} r,' >>/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper
    apparmor_parser -r /etc/apparmor.d/usr.lib.libvirt.virt-aa-helper
    mkdir -p /srv/pool
    virsh pool-define-as pool dir --target /srv/pool
    virsh pool-start pool
    virsh vol-create-as pool volume.qcow2 1M --format qcow2
    virsh vol-create-as pool other.qcow2 1M --format qcow2
    DEVICES="<disk type='volume' device='disk'>
        <driver name='qemu' type='qcow2'/><source pool='pool' volume='volume.qcow2'/><target dev='vda' bus='virtio'/>
    </disk>" define_guest volume
    starts volume
    opens volume /srv/pool/volume.qcow2 true
    chmod 666 /srv/pool/other.qcow2
    denied_file volume /srv/pool/other.qcow2
    ends volume
}

case_a_chain_of_four() {
    local n
    qemu-img create -q -f qcow2 "$IMAGES/chain0.qcow2" 1M
    for n in 1 2 3; do
        qemu-img create -q -f qcow2 -F qcow2 -b "$IMAGES/chain$((n - 1)).qcow2" "$IMAGES/chain$n.qcow2"
    done
    qemu-img create -q -f qcow2 -F qcow2 -b "$IMAGES/chain0.qcow2" "$IMAGES/chain-other.qcow2"
    define_guest chain "$IMAGES/chain3.qcow2"
    starts chain
    for n in 0 1 2; do
        opens chain "$IMAGES/chain$n.qcow2" true
        cannot_open chain "$IMAGES/chain$n.qcow2"
    done
    chmod 666 "$IMAGES/chain-other.qcow2"
    denied_file chain "$IMAGES/chain-other.qcow2"
    ends chain
}

case_a_folder_by_9p() {
    mkdir -p /srv/shared/below /srv/not-shared
    host_file /srv/shared/below/file /srv/not-shared/file
    chmod 777 /srv/shared /srv/shared/below /srv/not-shared
    DEVICES="<filesystem type='mount' accessmode='mapped'>
        <source dir='/srv/shared'/><target dir='shared'/>
    </filesystem>" define_guest by-9p
    starts by-9p
    opens by-9p /srv/shared/below/file
    denied_file by-9p /srv/not-shared/file
    ends by-9p
}

case_a_folder_by_virtiofs() {
    # The guest's root is the kernel's first file system, which no pivot_root can leave.
    local binary="<binary><sandbox mode='chroot'/></binary>"
    mkdir -p /srv/virtiofs
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    DEVICES="<filesystem type='mount' accessmode='passthrough'>
        <driver type='virtiofs'/>$binary<source dir='/srv/virtiofs'/><target dir='shared'/>
    </filesystem>" domain_xml by-virtiofs "$UUID" | shared_memory >by-virtiofs.xml
    virsh define by-virtiofs.xml
    starts by-virtiofs
    expect 0 aa-load verify "$PROFILE"
    # The folder is the daemon's, which runs beside QEMU; QEMU itself has no business in it.
    host_file /srv/virtiofs/file
    chmod 777 /srv/virtiofs
    denied_file by-virtiofs /srv/virtiofs/file
    ends by-virtiofs
}

case_a_tpm() {
    # As the packages' installation leaves it: libvirt runs swtpm as this user.
    install -d -o tss -g tss /var/lib/swtpm-localca
    DEVICES="<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>" define_guest tpm
    trap 'cat /var/log/swtpm/libvirt/qemu/tpm-swtpm.log >&2' EXIT
    starts tpm
    trap - EXIT
    pgrep -x swtpm
    expect 0 aa-load verify "$PROFILE"
    # Where libvirt makes the guest a control group, what is not confined in it is told.
    local group
    group=$(sed -n 's/^0:://p' "/proc/$(pgrep -x swtpm)/cgroup")
    case $group in
    *machine-qemu*.scope* | *.libvirt-qemu*)
        sleep 60 &
        echo "$!" >"/sys/fs/cgroup$group/cgroup.procs"
        expect 1 aa-load verify "$PROFILE"
        kill "$!"
        wait "$!" || true
        expect 0 aa-load verify "$PROFILE"
        ;;
    esac
    # Another guest's emulator.
    local theirs
    theirs=/var/lib/libvirt/swtpm/$(new_uuid)/tpm2
    mkdir -p "$theirs"
    chmod 755 "${theirs%/*}" "$theirs"
    host_file "$theirs/tpm2-00.permall"
    denied_file tpm "$theirs/tpm2-00.permall"
    ends tpm
}
