# contrib/: the shell example, and the hook called as libvirtd calls it.

CONFINED_GUEST=/usr/lib/aa-svirt/confined-guest
HOOK=/usr/share/doc/aa-svirt/contrib/libvirt-hook-qemu

setup() {
    systemd-sysusers
}

# example NAME ARGUMENT…: the script starts a QEMU that runs no guest code.
example() {
    "$CONFINED_GUEST" start "$1.xml" -M none -nodefaults -display none -S "${@:2}"
}

# start_example NAME ARGUMENT…: the same; its process is $QEMU_PID.
start_example() {
    example "$@"
    QEMU_PID=$(<"/run/aa-svirt/$UUID/pid")
}

case_the_shell_example_starts_and_stops_a_confined_guest() {
    account_guest shell
    start_example shell -drive "if=none,file=$DISK,format=raw"
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    [ "$(stat -c %U "/proc/$QEMU_PID")" = aa-svirt ]
    opens shell "$DISK"
    truncate -s 1M "$IMAGES/not-the-shells.img"
    chmod 666 "$IMAGES/not-the-shells.img"
    mark=$(log_mark)
    cannot_open shell "$IMAGES/not-the-shells.img"
    denied "$mark" "$PROFILE" "$IMAGES/not-the-shells.img"
    "$CONFINED_GUEST" stop shell.xml
    [ ! -d "/proc/$QEMU_PID" ]
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "/run/aa-svirt/$UUID" ]
}

case_the_shell_example_leaves_no_profile_of_a_failed_start() {
    account_guest failing
    truncate -s 1M "$IMAGES/not-the-failings.img"
    chmod 666 "$IMAGES/not-the-failings.img"
    expect 1 example failing -drive "if=none,file=$IMAGES/not-the-failings.img,format=raw"
    says "$stderr" 'Permission denied'
    [ -z "$(mode_of "$PROFILE")" ]
}

# aa-confine has the account of QEMU there, which is not told.
case_the_shell_example_starts_nothing_that_apparmor_does_not_confine() {
    account_guest loosened
    trap 'printf enforce >/sys/module/apparmor/parameters/mode' EXIT
    printf complain >/sys/module/apparmor/parameters/mode
    expect 1 example loosened
    says "$stderr" 'AppArmor as a whole is in mode complain'
    [ ! -e "/run/aa-svirt/$UUID" ]
    [ -z "$(mode_of "$PROFILE")" ]
    printf enforce >/sys/module/apparmor/parameters/mode
    start_example loosened
    "$CONFINED_GUEST" stop loosened.xml
}

case_the_shell_example_keeps_a_running_guest_from_a_second_start() {
    account_guest twice
    start_example twice
    local first=$QEMU_PID
    expect 1 example twice
    [ "$(label_of "$first")" = "$PROFILE (enforce)" ]
    [ "$(mode_of "$PROFILE")" = enforce ]
    "$CONFINED_GUEST" stop twice.xml
}

case_the_shell_example_stops_a_guest_that_has_died() {
    account_guest died
    start_example died
    kill -9 "$QEMU_PID"
    wait_for not_running "$QEMU_PID"
    expect 1 example died
    says "$stderr" 'runs, or was not stopped'
    "$CONFINED_GUEST" stop died.xml
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "/run/aa-svirt/$UUID" ]
}

case_the_shell_example_ends_no_other_process() {
    account_guest forged
    start_example forged
    sleep 600 &
    echo $! >"/run/aa-svirt/$UUID/pid"
    expect 1 "$CONFINED_GUEST" stop forged.xml
    says "$stderr" 'is not of'
    kill -0 $!
    kill -0 "$QEMU_PID"
    echo "$QEMU_PID" >"/run/aa-svirt/$UUID/pid"
    "$CONFINED_GUEST" stop forged.xml
}

# hook NAME OPERATION SUB: as libvirtd calls it, with the guest's XML. It may print nothing on standard output.
hook() {
    "$HOOK" "$1" "$2" "$3" - <"$1.xml"
}

case_the_hook_lets_a_confined_guest_run() {
    make_guest hooked
    start_qemu hooked "$UUID" -uuid "$UUID"
    expect 0 hook hooked started begin
    [ -z "$stdout$stderr" ]
    quit_qemu hooked
}

case_the_hook_ends_the_start_of_one_that_is_not() {
    make_guest loose
    "$QEMU" -uuid "$UUID" -M none -nodefaults -display none -S &
    wait_for grep -a "$UUID" "/proc/$!/cmdline"
    expect 1 hook loose started begin
    says "$stderr" 'does not carry it'
    # Nor one whose profile is not there at all.
    kill $!
    aa-load remove "$PROFILE"
    expect 1 hook loose started begin
    says "$stderr" 'not in the kernel'
    # Nor one that is refused.
    echo '<domain/>' >loose.xml
    expect 1 hook loose started begin
    says "$stderr" 'stdin:1:1: the domain has no type'
}

case_the_hook_lets_be_what_is_not_to_be_confined() {
    make_guest wished
    aa-load remove "$PROFILE"
    expect 1 hook wished started begin
    cp wished.xml wished-first.xml
    sed -i "s|^</domain>|  <seclabel type='none' model='apparmor'/>\n&|" wished.xml
    expect 0 hook wished started begin
    # It is the guest's own element that counts, wherever something like it is written.
    local not_it
    for not_it in "<!--\n  <seclabel type='none' model='apparmor'/>\n-->" \
        "<metadata>\n  <seclabel type='none' model='apparmor'/>\n</metadata>" \
        '<seclabel type="dynamic" model="{\&quot;kind\&quot;:\&quot;seclabel\&quot;,\&quot;text\&quot;:\&quot;the guest asks not to be confined"/>'; do
        sed "s|^</domain>|$not_it\n&|" wished-first.xml >feigned.xml
        expect 1 hook feigned started begin
        says "$stderr" 'not in the kernel'
    done
    # The owner and group of files are another matter.
    sed -i "s|model='apparmor'|model='dac'|" wished.xml
    expect 1 hook wished started begin
}

# long_ago: the files of $PROFILE are old, and so is its last load, of which the cache tells.
long_ago() {
    touch -d '1 hour ago' "$PROFILES/$PROFILE"* "/var/cache/aa-svirt/$PROFILE.policy"
}

case_the_hook_removes_what_is_left_behind() {
    make_guest gone
    aa-load remove "$PROFILE"
    long_ago
    local gone=$PROFILE
    make_guest kept
    aa-load remove "$PROFILE"
    long_ago
    cp kept.xml /etc/libvirt/qemu/
    # A guest of the unit aa-svirt-guest@, which is stopped.
    make_guest service
    local service=$PROFILE
    aa-load remove "$PROFILE"
    long_ago
    mkdir -p /etc/aa-svirt/guests/hooked
    cp service.xml /etc/aa-svirt/guests/hooked/domain.xml
    make_guest young
    aa-load remove "$PROFILE"
    expect 0 hook young release end
    [ -z "$stdout" ]
    expect 2 ls "$PROFILES/$gone" "$PROFILES/$gone.files"
    [ -e "$PROFILES/$PROFILE" ]
    [ -e "$PROFILES/$(sed -n 's|.*<uuid>\(.*\)</uuid>|libvirt-\1|p' kept.xml)" ]
    [ -e "$PROFILES/$service" ]
    rm -r /etc/libvirt/qemu/kept.xml /etc/aa-svirt/guests/hooked
    # It is not defined any more.
    expect 0 hook young release end
    expect 2 ls "$PROFILES/$service"
}

case_the_hook_prints_nothing_for_anything_else() {
    make_guest other
    local operation
    for operation in prepare start stopped reconnect attach migrate restore; do
        expect 0 hook other "$operation" begin
        [ -z "$stdout$stderr" ]
    done
}
