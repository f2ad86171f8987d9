# The project's own templates and abstractions, on a host that has none of libvirt's, and the minimal profile.

# in_own_policy FUNCTION: in a mount namespace whose /etc/apparmor.d has only AppArmor's own policy.
in_own_policy() {
    # Without -e a failure here would have the case run, and pass, in libvirt's policy.
    printf '%s\n' 'set -eu
        cp -a /etc/apparmor.d policy
        rm -rf policy/libvirt policy/abstractions/libvirt-* policy/local policy/usr.*
        mkdir -p policy/libvirt policy/local
        mount --bind policy /etc/apparmor.d' >own
    printf '. /tests/lib.sh %q %q\n' "$1" "$file" >>own
    unshare -m bash -c '. ./own'
}

# no_libvirt_policy: what of libvirt's could serve is not there.
no_libvirt_policy() {
    expect 2 ls -d "$PROFILES/TEMPLATE.qemu" /etc/apparmor.d/abstractions/libvirt-qemu
    [ -z "$stdout" ] || fail "$stdout is there"
}

own_template() {
    no_libvirt_policy
    make_guest own
    grep -q 'Base profile of a QEMU guest' "$PROFILES/$PROFILE"
    grep -q 'written for aa-svirt' "$PROFILES/$PROFILE"
    [ "$(mode_of "$PROFILE")" = enforce ]
    check_guest own
}

minimal() {
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    DISK=$IMAGES/minimal.qcow2
    qemu-img create -q -f qcow2 "$DISK" 1M
    domain_xml minimal "$UUID" "$DISK" >minimal.xml
    aa-derive minimal.xml | aa-render --minimal | aa-load
    check_guest minimal
}

# check_guest NAME: it runs, writes its disk, and reaches nothing else.
check_guest() {
    local arguments
    mapfile -t arguments < <(disk_arguments)
    mark=$(log_mark)
    start_qemu "$1" "$UUID" "${arguments[@]}"
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    qemu_io "$1" disk0 'write -P 0x5a 0 64k'
    # Its label is looked at, and that is no denial either.
    expect 0 aa-load status
    expect 0 aa-load verify "$PROFILE"
    local needless
    needless=$(denials_since "$mark")
    [ -z "$needless" ] || fail "denied although nothing forbidden was tried: $needless"
    cannot_open "$1" /etc/shadow true
    truncate -s 64k "$IMAGES/of-another.img"
    cannot_open "$1" "$IMAGES/of-another.img"
    denied "$mark" "$PROFILE" "$IMAGES/of-another.img"
}

case_own_templates_confine() {
    in_own_policy own_template
}

minimal_alone() {
    no_libvirt_policy
    minimal
}

case_minimal_profile_confines() {
    in_own_policy minimal_alone
}

case_minimal_profile_confines_beside_libvirts_policy() {
    minimal
}
