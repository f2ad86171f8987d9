# What changes a running guest's files under libvirtd: snapshots, block jobs, backups, saving. After each, the guest
# reaches what it has now, and no longer what only the job needed.
case_timeout=240
on_request=yes
each_change=case_snapshot_and_active_commit

setup() {
    quick_parser
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# job_guest NAME: a guest that runs, on an overlay over a base.
job_guest() {
    BASE=$IMAGES/$1-base.qcow2
    DISK=$IMAGES/$1.qcow2
    qemu-img create -q -f qcow2 "$BASE" 1M
    qemu-img create -q -f qcow2 -b "$BASE" -F qcow2 "$DISK"
    truncate -s 64k "$IMAGES/$1.iso"
    DEVICES="<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>" define_guest "$1" "$DISK"
    start_guest "$1"
    mark=$(log_mark)
}

# change NAME: a change of the guest that has nothing to do with its disk.
change() {
    virsh change-media "$1" sda "$IMAGES/$1.iso" --insert
    virsh change-media "$1" sda --eject
}

# snapshot NAME FILE: an external one, whose overlay is the disk from then on.
snapshot() {
    virsh snapshot-create-as "$1" --disk-only --atomic --no-metadata --diskspec "vda,snapshot=external,file=$2"
}

# disk_is NAME FILE: libvirtd says that this file is the guest's disk.
disk_is() {
    [ "$(virsh domblklist "$1" | awk '$1 == "vda" { print $2 }')" = "$2" ]
}

# gone_from NAME FILE: the guest may not open the file any more. Made readable for everybody, so that it is
# AppArmor that says no.
gone_from() {
    chown libvirt-qemu "$2"
    denied_file "$1" "$2"
}

case_snapshot_and_active_commit() {
    job_guest commit
    snapshot commit "$IMAGES/commit.s1"
    disk_is commit "$IMAGES/commit.s1"
    undisturbed "$mark"
    virsh blockcommit commit vda --active --shallow --wait --pivot
    wait_for disk_is commit "$DISK"
    undisturbed "$mark"
    gone_from commit "$IMAGES/commit.s1"
    opens commit "$BASE" true
    virsh destroy commit
}

# The original denies writing to a backing file once and for all, which no later rule undoes.
case_commit_into_the_base_which_the_original_denies() {
    # A failure must not leave the original in our place for the next case.
    trap 'use_helper ours' EXIT
    use_helper original
    job_guest denied
    snapshot denied "$IMAGES/denied.s1"
    expect 1 virsh blockcommit denied vda --active --wait --pivot
    says "$stderr" "$BASE.*Permission denied"
    virsh destroy denied
    use_helper ours
    job_guest based
    snapshot based "$IMAGES/based.s1"
    virsh blockcommit based vda --active --wait --pivot
    wait_for disk_is based "$BASE"
    undisturbed "$mark"
    change based
    gone_from based "$DISK"
    gone_from based "$IMAGES/based.s1"
    virsh destroy based
}

case_commit_of_a_layer_between() {
    job_guest between
    snapshot between "$IMAGES/between.s1"
    snapshot between "$IMAGES/between.s2"
    # The middle one goes down into the guest's first disk.
    virsh blockcommit between vda --top "$IMAGES/between.s1" --base "$DISK" --wait
    disk_is between "$IMAGES/between.s2"
    undisturbed "$mark"
    gone_from between "$IMAGES/between.s1"
    opens between "$DISK" true
    virsh destroy between
}

case_copy_with_pivot() {
    job_guest copy
    virsh blockcopy copy vda --dest "$IMAGES/copy.moved" --format qcow2 --wait --pivot --transient-job
    wait_for disk_is copy "$IMAGES/copy.moved"
    undisturbed "$mark"
    # To libvirt 9.0's last call the disk has both files still, and a job without a name.
    change copy
    gone_from copy "$DISK"
    opens copy "$IMAGES/copy.moved" true
    virsh destroy copy
}

case_copy_that_is_given_up() {
    job_guest giveup
    virsh blockcopy giveup vda --dest "$IMAGES/giveup.copy" --format qcow2 --wait --transient-job
    virsh blockjob giveup vda --abort
    disk_is giveup "$DISK"
    undisturbed "$mark"
    change giveup
    gone_from giveup "$IMAGES/giveup.copy"
    opens giveup "$BASE" true
    virsh destroy giveup
}

case_pull() {
    job_guest pull
    virsh blockpull pull vda --wait
    disk_is pull "$DISK"
    undisturbed "$mark"
    gone_from pull "$BASE"
    virsh destroy pull
}

# backup NAME MODE PLACE: begins one; PLACE is the element of the file that it writes.
backup() {
    cat >backup.xml <<XML
<domainbackup mode='$2'>
  ${4:-}
  <disks><disk name='vda' backup='yes' type='file'>$3<driver type='qcow2'/></disk></disks>
</domainbackup>
XML
    virsh backup-begin "$1" backup.xml
}

case_backup_that_pushes() {
    job_guest push
    backup push push "<target file='$IMAGES/push.backup'/>"
    wait_for job_over push
    undisturbed "$mark"
    [ "$(qemu-img info --output=json "$IMAGES/push.backup" | jq -r .format)" = qcow2 ]
    gone_from push "$IMAGES/push.backup"
    virsh destroy push
}

case_backup_that_is_pulled() {
    job_guest pulled
    backup pulled pull "<scratch file='$IMAGES/pulled.scratch'/>" \
        "<server transport='unix' socket='/var/lib/libvirt/qemu/domain-$(virsh domid pulled)-pulled/nbd.sock'/>"
    undisturbed "$mark"
    # It serves the disk as long as the job goes on.
    qemu-img info --output=json \
        "nbd+unix:///vda?socket=/var/lib/libvirt/qemu/domain-$(virsh domid pulled)-pulled/nbd.sock" >served.json
    [ "$(jq '."virtual-size"' served.json)" = 1048576 ]
    virsh domjobabort pulled
    wait_for job_over pulled
    undisturbed "$mark"
    [ ! -e "$IMAGES/pulled.scratch" ] || gone_from pulled "$IMAGES/pulled.scratch"
    virsh destroy pulled
}

case_save_and_restore() {
    job_guest saved
    virsh save saved "$IMAGES/saved.save"
    wait_for profile_gone "$PROFILE"
    undisturbed "$mark"
    mark=$(log_mark)
    virsh restore --paused "$IMAGES/saved.save"
    confined saved
    undisturbed "$mark"
    opens saved "$DISK" true
    # libvirtd says nothing when the file has been read; the next change of the guest ends its grant.
    change saved
    gone_from saved "$IMAGES/saved.save"
    virsh destroy saved
    wait_for profile_gone "$PROFILE"
}

case_managed_save() {
    job_guest managed
    virsh managedsave managed
    wait_for profile_gone "$PROFILE"
    virsh start --paused managed
    confined managed
    undisturbed "$mark"
    [ ! -e /var/lib/libvirt/qemu/save/managed.save ]
    # As after restore, the next change of the guest ends the grant of the file that it came from.
    change managed
    host_file /var/lib/libvirt/qemu/save/managed.save
    gone_from managed /var/lib/libvirt/qemu/save/managed.save
    rm /var/lib/libvirt/qemu/save/managed.save
    virsh destroy managed
    wait_for profile_gone "$PROFILE"
}

case_dump_of_memory() {
    job_guest dumped
    virsh dump --memory-only dumped "$IMAGES/dumped.core"
    undisturbed "$mark"
    [ -s "$IMAGES/dumped.core" ]
    change dumped
    gone_from dumped "$IMAGES/dumped.core"
    virsh destroy dumped
}
