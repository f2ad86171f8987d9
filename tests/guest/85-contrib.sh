# contrib/: the shell example, and the hook called as libvirtd calls it.

CONFINED_GUEST=/usr/lib/aa-svirt/confined-guest
# A guest that does not answer takes the script half a minute.
case_timeout=150
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

case_the_shell_example_stops_a_guest_that_has_ended_by_itself() {
    account_guest ended
    local _
    for _ in 1 2; do
        start_example ended
        qmp ended quit || true
        wait_for not_running "$QEMU_PID"
        # QEMU takes it away when it ends in order.
        [ ! -e "/run/aa-svirt/$UUID/pid" ]
        "$CONFINED_GUEST" stop ended.xml
        [ -z "$(mode_of "$PROFILE")" ]
        [ ! -e "/run/aa-svirt/$UUID" ]
    done
    # Nor is it stopped twice.
    expect 1 "$CONFINED_GUEST" stop ended.xml
    says "$stderr" 'was not started'
}

case_the_shell_example_ends_the_guest_that_is_named_and_no_other() {
    account_guest bystander
    start_example bystander
    mkdir none one
    cp bystander.xml one/guest.xml
    : >empty.xml
    echo "<pool type='dir'><name>p</name><target><path>/srv</path></target></pool>" >pool.xml
    local operand
    for operand in none one empty.xml pool.xml missing.xml; do
        if "$CONFINED_GUEST" stop "$operand"; then fail "stopped: $operand"; fi
        if "$CONFINED_GUEST" load "$operand" "$PWD/none.env"; then fail "loaded: $operand"; fi
        [ ! -e none.env ]
    done
    # Nor by what load has not written.
    for operand in 'UUID=' 'UUID=*' "UUID=${UUID%?}" "RUN=/run/aa-svirt/$UUID"; do
        printf '%s\n' "$operand" >forged.env
        expect 1 "$CONFINED_GUEST" unload forged.env
        says "$stderr" 'not the UUID of a guest'
        expect 1 "$CONFINED_GUEST" powerdown forged.env 1
    done
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    [ -d "/run/aa-svirt/$UUID" ]
    # The twin.
    "$CONFINED_GUEST" stop bystander.xml
    not_running "$QEMU_PID"
    [ ! -e "/run/aa-svirt/$UUID" ]
}

case_the_shell_example_starts_no_program_that_the_guest_does_not_name() {
    account_guest nameless
    sed -i '/<emulator>/d' nameless.xml
    expect 1 example nameless
    says "$stderr" 'names no emulator'
    [ ! -e "/run/aa-svirt/$UUID" ]
}

# What start takes, stop does: it looks at none of the guest's files.
case_the_shell_example_stops_a_guest_whose_disk_is_a_link() {
    account_guest linked
    ln -sfn "$DISK" /etc/linked.img
    sed -i "s|$DISK|/etc/linked.img|" linked.xml
    start_example linked -drive "if=none,file=/etc/linked.img,format=raw"
    "$CONFINED_GUEST" stop linked.xml
    not_running "$QEMU_PID"
    [ ! -e "/run/aa-svirt/$UUID" ]
    rm /etc/linked.img
}

case_the_shell_example_ends_no_other_process() {
    account_guest forged
    start_example forged
    sleep 600 &
    echo $! >"/run/aa-svirt/$UUID/pid"
    "$CONFINED_GUEST" stop forged.xml
    kill -0 $!
    not_running "$QEMU_PID"
}

# What a QEMU that was taken over can do to its disk and to its directory.
case_a_guest_cannot_keep_the_shell_example_from_stopping_it() {
    account_guest captive
    qemu-img create -q -f qcow2 "$DISK" 1M
    sed -i "s|type='raw'|type='qcow2'|" captive.xml
    start_example captive -drive "if=none,file=$DISK,format=qcow2"
    rm "/run/aa-svirt/$UUID/pid"
    mkfifo "/run/aa-svirt/$UUID/pid"
    # QEMU has a lock on its disk, which is in nobody's way but qemu-img's.
    qemu-img create -q -f qcow2 -u -b /etc/shadow -F raw greedy.qcow2 1M
    cat greedy.qcow2 >"$DISK"
    expect 1 aa-derive captive.xml
    says "$stderr" '/etc/shadow.* may not be granted'
    "$CONFINED_GUEST" stop captive.xml
    not_running "$QEMU_PID"
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "/run/aa-svirt/$UUID" ]
    # The same with a link in the place of the disk.
    account_guest captive
    start_example captive
    ln -sfn /etc/shadow "$DISK"
    expect 1 aa-derive --no-probe captive.xml
    says "$stderr" 'may not be granted .it is ./etc/shadow'
    "$CONFINED_GUEST" stop captive.xml
    not_running "$QEMU_PID"
    rm "$DISK"
}

case_the_shell_example_kills_a_guest_that_does_not_answer() {
    account_guest deaf
    start_example deaf
    # Until it goes on, SIGTERM waits.
    kill -STOP "$QEMU_PID"
    "$CONFINED_GUEST" stop deaf.xml
    not_running "$QEMU_PID"
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "/run/aa-svirt/$UUID" ]
}

case_a_profile_in_use_keeps_the_guest_from_a_second_start() {
    account_guest used
    "$CONFINED_GUEST" load used.xml "$PWD/used.env"
    start_qemu used "$UUID"
    expect 1 "$CONFINED_GUEST" unload "$PWD/used.env"
    says "$stderr" "in use.*process $QEMU_PID"
    [ "$(mode_of "$PROFILE")" = enforce ]
    [ -d "/run/aa-svirt/$UUID" ]
    expect 1 example used
    says "$stderr" 'runs, or was not stopped'
    quit_qemu used
    # A name without a slash is one here, not in PATH.
    expect 0 "$CONFINED_GUEST" unload used.env
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "/run/aa-svirt/$UUID" ]
    [ ! -e used.env ]
}

case_without_its_account_the_shell_example_leaves_nothing() {
    account_guest nobodys
    sed 's/^account=.*/account=no-such-account/' "$CONFINED_GUEST" >other-account
    expect 1 sh other-account start nobodys.xml
    says "$stderr" 'no-such-account'
    [ ! -e "/run/aa-svirt/$UUID" ]
    [ -z "$(mode_of "$PROFILE")" ]
    # The twin.
    start_example nobodys
    "$CONFINED_GUEST" stop nobodys.xml
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
    says "$stderr" 'stdin:1:1: the domain has no name'
}

# libvirt hands a hook the XML without the files that its volumes are; and what is below an image may have changed since.
case_the_hook_asks_nothing_of_a_guests_files() {
    make_guest volumes
    sed -i "s|<disk type='file'|<disk type='volume'|; s|<source file='[^']*'/>|<source pool='no-such' volume='v'/>|" volumes.xml
    expect 1 aa-derive volumes.xml
    says "$stderr" 'no-such'
    start_qemu volumes "$UUID" -uuid "$UUID"
    expect 0 hook volumes started begin
    [ -z "$stdout$stderr" ]
    quit_qemu volumes
    # The twin: one that is not confined.
    "$QEMU" -uuid "$UUID" -M none -nodefaults -display none -S &
    wait_for grep -a "$UUID" "/proc/$!/cmdline"
    expect 1 hook volumes started begin
    says "$stderr" 'does not carry it'
    kill $!
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
        "<seclabel type='dynamic' model='apparmor'/>\n  <seclabel type='none'/>" \
        '<title>","confined":false}</title>'; do
        sed "s|^</domain>|$not_it\n&|" wished-first.xml >feigned.xml
        expect 1 hook feigned started begin
        says "$stderr" 'not in the kernel'
    done
    # Nor is it what the guest is called.
    sed 's|<name>wished</name>|<name>wished","confined":false}</name>|' wished-first.xml >feigned.xml
    expect 1 hook feigned started begin
    says "$stderr" 'not in the kernel'
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
