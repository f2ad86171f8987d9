# What libvirt documents: the tutorial of AppArmor's wiki, and the <seclabel> element.
case_timeout=240
on_request=yes

setup() {
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# Command by command.
case_tutorial() {
    virsh capabilities | grep '<model>apparmor</model>'
    boot_disk "$IMAGES/tutorial.img"
    MACHINE=pc define_guest tutorial "$IMAGES/tutorial.img"
    start_system tutorial
    [ "$(virsh domuuid tutorial)" = "$UUID" ]
    aa-status >status
    sed -n '/profiles are in enforce mode/,/profiles are in complain mode/p' status | grep "^ *$PROFILE\$"
    sed -n '/processes are in enforce mode/,/processes are in complain mode/p' status | grep -E "\\($QEMU_PID\\) +$PROFILE\$"
    # shellcheck disable=SC2009
    ps -eZ | grep -E "^$PROFILE \\(enforce\\) +$QEMU_PID "
    grep -q "^profile $PROFILE " "$PROFILES/$PROFILE"
    grep -q '<abstractions/libvirt-qemu>' "$PROFILES/$PROFILE"
    grep -q "<libvirt/$PROFILE.files>" "$PROFILES/$PROFILE"
    grep -qF "\"$IMAGES/tutorial.img\" rwk," "$PROFILES/$PROFILE.files"
    local _
    for _ in {1..30}; do
        virsh shutdown tutorial || true
        sleep 1
        ! profile_gone "$PROFILE" || break
    done
    profile_gone "$PROFILE"
    aa-status >status
    expect 1 grep "$PROFILE" status
    # What stays is the base profile, without rules: it is there for the next start, and for a person's own additions.
    [ -e "$PROFILES/$PROFILE" ]
}

# label_guest NAME SECLABEL…: defines a guest with these elements.
label_guest() {
    NAME=$1
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    host_file "$IMAGES/$NAME.img"
    domain_xml "$NAME" "$UUID" "$IMAGES/$NAME.img" | sed '$d' >"$NAME.xml"
    printf '%s\n' "${@:2}" '</domain>' >>"$NAME.xml"
    virsh define "$NAME.xml"
}

case_dynamic_is_the_default() {
    label_guest dynamic "<seclabel type='dynamic' model='apparmor' relabel='yes'/>"
    start_guest dynamic
    confined dynamic
    virsh dumpxml dynamic >live.xml
    grep -A2 "<seclabel type='dynamic' model='apparmor' relabel='yes'>" live.xml | grep "<label>$PROFILE</label>"
    virsh destroy dynamic
    wait_for profile_gone "$PROFILE"
}

case_none_has_no_profile() {
    label_guest none "<seclabel type='none' model='apparmor'/>"
    start_guest none
    [ "$(label_of "$QEMU_PID")" = unconfined ]
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "$PROFILES/$PROFILE" ]
    virsh destroy none
}

# The label of another model is that model's affair.
case_other_models() {
    label_guest owner "<seclabel type='static' model='dac' relabel='yes'><label>+64055:+64055</label></seclabel>" \
        "<seclabel type='dynamic' model='apparmor' relabel='yes'/>"
    start_guest owner
    confined owner
    virsh destroy owner
    label_guest foreign "<seclabel type='dynamic' model='selinux' relabel='yes'/>"
    expect 1 virsh start --paused foreign
    says "$stderr" selinux
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "$PROFILES/$PROFILE.files" ]
}

# own_profile NAME: a profile that an administrator wrote by hand, in force: what every guest has, and this guest's disk.
own_profile() {
    cat >"$1.profile" <<PROFILE
#include <tunables/global>
profile $1 flags=(attach_disconnected) {
  #include <abstractions/libvirt-qemu>
  /var/lib/libvirt/qemu/domain-*/{,**} rwk,
  /var/log/libvirt/qemu/*.log w,
  "$IMAGES/$NAME.img" rwk,
}
PROFILE
    apparmor_parser -K -r "$1.profile"
}

# A static label is the administrator's: no helper is run for it, so nothing of the profile is changed, neither at the
# start nor by a device that comes, nor at the end. The same with libvirt's own helper and with ours.
case_static_is_left_alone() {
    trap 'use_helper ours' EXIT
    local helper relabel mark
    for helper in original ours; do
        use_helper "$helper"
        for relabel in no yes; do
            label_guest "static-$helper-$relabel"
            sed -i "s|</domain>|<seclabel type='static' model='apparmor' relabel='$relabel'><label>$PROFILE</label></seclabel>&|" \
                "$NAME.xml"
            virsh define "$NAME.xml"
            # Without the profile there is no start.
            expect 1 virsh start --paused "$NAME"
            [ -z "$(mode_of "$PROFILE")" ]
            [ ! -e "$PROFILES/$PROFILE" ]
            own_profile "$PROFILE"
            start_guest "$NAME"
            confined "$NAME"
            virsh dumpxml "$NAME" | grep -A2 "<seclabel type='static' model='apparmor'" | grep "<label>$PROFILE</label>"
            opens "$NAME" "$IMAGES/$NAME.img" true
            host_file "$IMAGES/$NAME-more.img"
            mark=$(log_mark)
            expect 1 virsh attach-disk "$NAME" "$IMAGES/$NAME-more.img" vdb
            says "$stderr" 'Permission denied'
            denied "$mark" "$PROFILE" "$IMAGES/$NAME-more.img"
            virsh destroy "$NAME"
            [ "$(mode_of "$PROFILE")" = enforce ]
            [ ! -e "$PROFILES/$PROFILE" ]
            [ ! -e "$PROFILES/$PROFILE.files" ]
            apparmor_parser -R "$PROFILE.profile"
        done
    done
}

# A static label by another name: libvirt asks that the profile be there, and then enters the one of the guest's UUID.
case_static_of_another_name() {
    trap 'use_helper ours' EXIT
    local helper
    for helper in original ours; do
        use_helper "$helper"
        label_guest "named-$helper"
        sed -i "s|</domain>|<seclabel type='static' model='apparmor' relabel='no'><label>by-hand-$helper</label></seclabel>&|" \
            "$NAME.xml"
        virsh define "$NAME.xml"
        expect 1 virsh start --paused "$NAME"
        own_profile "by-hand-$helper"
        expect 1 virsh start --paused "$NAME"
        [ "$(virsh domstate "$NAME")" = 'shut off' ]
        [ -z "$(mode_of "$PROFILE")" ]
        [ ! -e "$PROFILES/$PROFILE" ]
        apparmor_parser -R "by-hand-$helper.profile"
    done
}
