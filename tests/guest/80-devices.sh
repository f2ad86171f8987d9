# One guest with a device of every kind that has files of the host, running. Each case uses its own file of that
# kind, and then another guest's, which is of the same kind, exists, and has the same access bits.
#
# The two guests are alpha, which runs all through this file, and beta, whose files are there and whose sockets listen.
case_timeout=120
# The same file by another name, 82-devices-minimal.sh, runs the same cases under minimal profiles.
RENDER=()
# shellcheck disable=SC2154  # lib.sh was given the file
[[ $file != *minimal* ]] || RENDER=(--minimal)
SRV=/srv/guests
INPUT_MAJOR_MINOR='1 3'
RANDOM_MAJOR_MINOR='1 8'

uuid_of() { cat "$SRV/$1/uuid"; }
profile_of() { echo "libvirt-$(uuid_of "$1")"; }
tpm_socket() { echo "/run/libvirt/qemu/swtpm/1-$1-swtpm.sock"; }
tpm_state() { echo "/var/lib/libvirt/swtpm/$(uuid_of "$1")/tpm2"; }

# make_files NAME: what a guest's XML names.
make_files() {
    local dir=$SRV/$1 layer
    # Another file's cases may have left theirs.
    rm -rf "$dir" "/dev/input/event-$1" "/dev/entropy-$1" "/dev/shm/memory-$1" "$(tpm_socket "$1")"
    mkdir -p "$dir"/{pool,shared,shared-ro,run} /var/log/swtpm/libvirt/qemu /run/libvirt/qemu/swtpm
    new_uuid >"$dir/uuid"
    mkdir -p "$(tpm_state "$1")"
    truncate -s 1M "$dir/pool/volume.img"
    qemu-img create -q -f vmdk "$dir/disk.vmdk" 1M
    qemu-img create -q -f qcow2 "$dir/layer0.qcow2" 1M
    qemu-io -c 'write -P 0x11 0 64k' "$dir/layer0.qcow2" >/dev/null
    for layer in 1 2 3; do
        qemu-img create -q -f qcow2 -b "$dir/layer$((layer - 1)).qcow2" -F qcow2 "$dir/layer$layer.qcow2"
    done
    qemu-img create -q -f qcow2 -o "data_file=$dir/external.raw,data_file_raw=on" "$dir/external.qcow2" 1M
    cp /usr/share/seabios/bios-256k.bin "$dir/firmware.fd"
    truncate -s 256K "$dir/variables.fd"
    echo shared >"$dir/shared/file"
    echo shared >"$dir/shared-ro/file"
    # shellcheck disable=SC2086  # two words each
    {
        mkdir -p /dev/input
        mknod "/dev/input/event-$1" c $INPUT_MAJOR_MINOR
        mknod "/dev/entropy-$1" c $RANDOM_MAJOR_MINOR
    }
    truncate -s 1M "/dev/shm/memory-$1"
    [ "$1" = alpha ] || : >"$dir/device.log"
}

# guest_xml NAME
guest_xml() {
    local dir=$SRV/$1
    cat <<XML
<domain type='qemu' id='1'>
  <name>$1</name>
  <uuid>$(uuid_of "$1")</uuid>
  <memory unit='MiB'>64</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>$dir/firmware.fd</loader>
    <nvram>$dir/variables.fd</nvram>
  </os>
  <devices>
    <emulator>$QEMU</emulator>
    <disk type='volume' device='disk'>
      <driver name='qemu' type='raw'/><source pool='pool-$1' volume='volume.img'/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='vmdk'/><source file='$dir/disk.vmdk'/><target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='$dir/layer3.qcow2'/><target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='$dir/external.qcow2'/><target dev='vdd' bus='virtio'/>
    </disk>
    <filesystem type='mount' accessmode='passthrough'>
      <source dir='$dir/shared'/><target dir='shared'/>
    </filesystem>
    <filesystem type='mount' accessmode='passthrough'>
      <source dir='$dir/shared-ro'/><target dir='shared-ro'/><readonly/>
    </filesystem>
    <serial type='file'>
      <source path='$dir/device.out'/><log file='$dir/device.log' append='on'/><target port='0'/>
    </serial>
    <serial type='file'><source path='/var/log/libvirt/qemu/$1-serial.log'/><target port='1'/></serial>
    <channel type='unix'>
      <source mode='bind' path='$dir/run/agent.sock'/><target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <input type='evdev'><source dev='/dev/input/event-$1'/></input>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <rng model='virtio'><backend model='random'>/dev/entropy-$1</backend></rng>
    <shmem name='memory-$1'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>
  </devices>
</domain>
XML
}

# pool_xml NAME: a pool called pool-NAME.
pool_xml() {
    printf '%s' "<pool type='dir'><name>pool-$1</name><uuid>$(new_uuid)</uuid>" \
        "<target><path>$SRV/$1/pool</path></target></pool>"
}

# start_swtpm NAME: libvirt starts it under the guest's profile.
start_swtpm() {
    aa-confine --uuid "$(uuid_of "$1")" -- /usr/bin/swtpm socket --tpm2 \
        --ctrl "type=unixio,path=$(tpm_socket "$1"),mode=0600" \
        --tpmstate "dir=$(tpm_state "$1"),mode=0600" \
        --log "file=/var/log/swtpm/libvirt/qemu/$1-swtpm.log" \
        --pid "file=${2:-/run/libvirt/qemu/swtpm/1-$1-swtpm.pid}" 2>"swtpm-$1.err" &
    wait_for test -S "$(tpm_socket "$1")"
}

setup() {
    local guest dir=$SRV/alpha mark
    mkdir pools
    for guest in alpha beta; do
        make_files "$guest"
        pool_xml "$guest" >"pools/$guest.xml"
        guest_xml "$guest" >"$guest.xml"
    done
    aa-derive --strict --pools pools alpha.xml beta.xml | aa-render "${RENDER[@]}" | aa-load
    mark=$(log_mark)
    start_swtpm alpha
    start_swtpm beta
    # What listens for the other guest's channel.
    socat "UNIX-LISTEN:$SRV/beta/run/agent.sock,fork" OPEN:/dev/null &
    wait_for test -S "$SRV/beta/run/agent.sock"
    local file='"driver":"file","filename"'
    start_qemu alpha "$(uuid_of alpha)" -M q35,accel=tcg,pflash0=firmware,pflash1=variables -m 64 \
        -blockdev "{$file:\"$dir/firmware.fd\",\"node-name\":\"firmware\",\"read-only\":true}" \
        -blockdev "{$file:\"$dir/variables.fd\",\"node-name\":\"variables\"}" \
        -blockdev "{$file:\"$dir/pool/volume.img\",\"node-name\":\"volume\"}" \
        -blockdev "{\"driver\":\"vmdk\",\"node-name\":\"vmdk\",\"file\":{$file:\"$dir/disk.vmdk\"}}" \
        -blockdev "{\"driver\":\"qcow2\",\"node-name\":\"chain\",\"file\":{$file:\"$dir/layer3.qcow2\"}}" \
        -blockdev "{\"driver\":\"qcow2\",\"node-name\":\"external\",\"file\":{$file:\"$dir/external.qcow2\"}}" \
        -device virtio-blk-pci,share-rw=on,drive=volume -device virtio-blk-pci,share-rw=on,drive=vmdk \
        -device virtio-blk-pci,share-rw=on,drive=chain -device virtio-blk-pci,share-rw=on,drive=external \
        -fsdev "local,id=fs0,security_model=passthrough,path=$dir/shared" \
        -device virtio-9p-pci,fsdev=fs0,mount_tag=shared \
        -fsdev "local,id=fs1,security_model=passthrough,readonly=on,path=$dir/shared-ro" \
        -device virtio-9p-pci,fsdev=fs1,mount_tag=shared-ro \
        -chardev "file,id=out,path=$dir/device.out,logfile=$dir/device.log,logappend=on" \
        -device isa-serial,chardev=out \
        -device virtio-serial-pci \
        -chardev "socket,id=agent,path=$dir/run/agent.sock,server=on,wait=off" \
        -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 \
        -chardev "socket,id=tpm,path=$(tpm_socket alpha)" \
        -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0 \
        -object rng-random,id=rng0,filename=/dev/entropy-alpha -device virtio-rng-pci,rng=rng0 \
        -object memory-backend-file,id=shmem0,share=on,size=1M,mem-path=/dev/shm/memory-alpha \
        -device ivshmem-plain,memdev=shmem0
    [ "$(label_of "$QEMU_PID")" = "$(profile_of alpha) (enforce)" ]
    [ -z "$(denials_since "$mark")" ] || fail "denied: $(denials_since "$mark")"
}

# denies_alpha PATH [ACCESS] [READ-ONLY]: alpha cannot open the file, and the log says so.
denies_alpha() {
    local mark
    mark=$(log_mark)
    [ -e "$1" ]
    cannot_open alpha "$1" "${3:-false}"
    denied "$mark" "$(profile_of alpha)" "$1" "${2:-r}"
}

# alpha_refuses PATH ACCESS COMMAND ARGUMENTS: the command fails for want of permission on the path.
alpha_refuses() {
    local mark answer
    mark=$(log_mark)
    [ -e "$1" ]
    answer=$(qmp alpha "$3" "$4")
    says "$answer" 'Permission denied'
    denied "$mark" "$(profile_of alpha)" "$1" "$2"
}

# io NODE COMMAND: through a node of alpha.
io() {
    qemu_io alpha "$1" "$2"
}

# alpha_cannot_take SOCKET: alpha cannot put a socket of its own in its place. Nor connect to it, where the kernel
# mediates that: connecting to a socket with a path is no access to a file, so Debian's kernels leave it to the
# socket's owner and mode.
alpha_cannot_take() {
    alpha_refuses "$1" '[a-z]' chardev-add "$(socket_chardev "$1" true)"
    [ -S "$1" ]
    if compgen -G '/sys/kernel/security/apparmor/features/network*/af_unix' >/dev/null; then
        alpha_refuses "$1" w chardev-add "$(socket_chardev "$1" false)"
    fi
}

# socket_chardev PATH SERVER
socket_chardev() {
    printf '{"id":"probe","backend":{"type":"socket","data":{"server":%s,"addr":{"type":"unix","data":{"path":"%s"}}}}}' "$2" "$1"
}

case_volume_disk() {
    io volume 'write -P 0x21 0 64k'
    qemu-io -r -U -f raw -c 'read -P 0x21 0 64k' "$SRV/alpha/pool/volume.img"
    denies_alpha "$SRV/beta/pool/volume.img"
    # A volume of its own pool that is not its disk.
    truncate -s 64k "$SRV/alpha/pool/other.img"
    denies_alpha "$SRV/alpha/pool/other.img"
}

case_vmdk_disk() {
    io vmdk 'write -P 0x22 0 64k'
    io vmdk 'read -P 0x22 0 64k'
    denies_alpha "$SRV/beta/disk.vmdk"
}

case_qcow2_chain_of_four() {
    local layer
    # This comes from the lowest layer.
    io chain 'read -P 0x11 0 64k'
    io chain 'write -P 0x23 64k 64k'
    for layer in 0 1 2; do
        opens alpha "$SRV/alpha/layer$layer.qcow2" true
        denies_alpha "$SRV/alpha/layer$layer.qcow2" w
    done
    for layer in 0 1 2 3; do denies_alpha "$SRV/beta/layer$layer.qcow2" r true; done
}

case_external_data_file() {
    io external 'write -P 0x24 0 64k'
    qemu-io -r -U -f raw -c 'read -P 0x24 0 64k' "$SRV/alpha/external.raw"
    denies_alpha "$SRV/beta/external.raw"
    denies_alpha "$SRV/beta/external.qcow2"
}

case_pflash_loader_and_nvram() {
    io firmware 'read 0 64k'
    denies_alpha "$SRV/alpha/firmware.fd" w
    denies_alpha "$SRV/beta/firmware.fd" r true
    io variables 'write -P 0x25 0 64k'
    qemu-io -r -U -f raw -c 'read -P 0x25 0 64k' "$SRV/alpha/variables.fd"
    denies_alpha "$SRV/beta/variables.fd"
}

case_unix_channel() {
    socat -u OPEN:/dev/null "UNIX-CONNECT:$SRV/alpha/run/agent.sock"
    # The twin: somebody listens there too, as one who is not confined sees.
    socat -u OPEN:/dev/null "UNIX-CONNECT:$SRV/beta/run/agent.sock"
    alpha_cannot_take "$SRV/beta/run/agent.sock"
}

# QEMU opens a shared directory when it starts, so the neighbour's are given to another start. What the guest would
# do below them goes through the same process.
case_9p_share_read_write() {
    opens alpha "$SRV/alpha/shared/file"
    mark=$(log_mark)
    expect 1 qemu_given "$(uuid_of alpha)" -M q35 -fsdev "local,id=f,security_model=passthrough,path=$SRV/beta/shared" \
        -device virtio-9p-pci,fsdev=f,mount_tag=t
    says "$stderr" 'Permission denied|failed to init'
    denied "$mark" "$(profile_of alpha)" "$SRV/beta/shared/"
    denies_alpha "$SRV/beta/shared/file"
}

case_9p_share_read_only() {
    opens alpha "$SRV/alpha/shared-ro/file" true
    denies_alpha "$SRV/alpha/shared-ro/file" w
    mark=$(log_mark)
    expect 1 qemu_given "$(uuid_of alpha)" -M q35 \
        -fsdev "local,id=f,security_model=passthrough,readonly=on,path=$SRV/beta/shared-ro" \
        -device virtio-9p-pci,fsdev=f,mount_tag=t
    denied "$mark" "$(profile_of alpha)" "$SRV/beta/shared-ro/"
    denies_alpha "$SRV/beta/shared-ro/file" r true
}

case_tpm_emulator() {
    local pid
    # The emulator itself is confined, and answered QEMU when it started.
    pid=$(<"/run/libvirt/qemu/swtpm/1-alpha-swtpm.pid")
    [ "$(label_of "$pid")" = "$(profile_of alpha) (enforce)" ]
    says "$(qmp_ok alpha query-tpm)" '"id":"tpm0"'
    alpha_cannot_take "$(tpm_socket beta)"
    # The state of each, as a file that is opened under the profile that both QEMU and the emulator have.
    truncate -s 64k "$(tpm_state alpha)/probe" "$(tpm_state beta)/probe"
    opens alpha "$(tpm_state alpha)/probe"
    denies_alpha "$(tpm_state beta)/probe" r true
}

# The kernel has no event device, so the nodes are those of /dev/null: QEMU opens one, and then finds that it is none.
case_evdev_input() {
    local input='{"qom-type":"input-linux","id":"input0","evdev":"%s"}' answer
    # shellcheck disable=SC2059
    answer=$(qmp alpha object-add "$(printf "$input" /dev/input/event-alpha)")
    says "$answer" 'not an evdev device'
    # shellcheck disable=SC2059
    alpha_refuses /dev/input/event-beta r object-add "$(printf "$input" /dev/input/event-beta)"
}

case_shared_memory() {
    local memory='{"qom-type":"memory-backend-file","id":"%s","share":true,"size":1048576,"mem-path":"/dev/shm/memory-%s"}'
    [ "$(qmp_ok alpha query-memdev | jq -r '.[].id')" = shmem0 ] || qmp_ok alpha query-memdev | grep -F shmem0
    # shellcheck disable=SC2059
    qmp_ok alpha object-add "$(printf "$memory" own alpha)"
    # shellcheck disable=SC2059
    alpha_refuses /dev/shm/memory-beta r object-add "$(printf "$memory" theirs beta)"
}

case_random_source() {
    local random='{"qom-type":"rng-random","id":"%s","filename":"/dev/entropy-%s"}'
    # shellcheck disable=SC2059
    qmp_ok alpha object-add "$(printf "$random" own-random alpha)"
    # shellcheck disable=SC2059
    alpha_refuses /dev/entropy-beta r object-add "$(printf "$random" their-random beta)"
}

case_character_device_with_a_log_file() {
    local device='{"id":"probe","backend":{"type":"file","data":{"out":"%s","logfile":"%s","logappend":true}}}'
    local own=$SRV/alpha theirs=$SRV/beta
    : >"$theirs/device.out"
    # shellcheck disable=SC2059
    qmp_ok alpha chardev-add "$(printf "$device" "$own/device.out" "$own/device.log")"
    qmp_ok alpha chardev-remove '{"id":"probe"}'
    # shellcheck disable=SC2059
    alpha_refuses "$theirs/device.out" w chardev-add "$(printf "$device" "$theirs/device.out" "$own/device.log")"
    # shellcheck disable=SC2059
    alpha_refuses "$theirs/device.log" '[wac]' chardev-add "$(printf "$device" "$own/device.out" "$theirs/device.log")"
}
