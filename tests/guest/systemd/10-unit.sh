# contrib/aa-svirt-guest@.service under a systemd that is PID 1.

UNITS=/usr/lib/systemd/system
GUESTS=/etc/aa-svirt/guests

case_timeout=120

# One guest for the cases that need one which runs.
setup() {
    systemd-sysusers
    quick_parser
    configure web
    start web
}

teardown() {
    systemctl stop aa-svirt-guest@web
}

# web: the guest of setup, as start leaves it.
web() {
    UNIT=aa-svirt-guest@web
    UUID=$(sed -n 's|.*<uuid>\(.*\)</uuid>|\1|p' "$GUESTS/web/domain.xml")
    PROFILE=libvirt-$UUID
    DISK=$IMAGES/web.img
    QEMU_PID=$(shown MainPID)
}

# configure NAME [ARGUMENT]…: what the unit reads: the XML of a guest with a disk, and arguments for a QEMU with this disk that
# runs no guest code. Sets UUID, PROFILE, DISK and UNIT.
configure() {
    UNIT=aa-svirt-guest@$1
    mkdir -p "$GUESTS/$1"
    account_guest "$1" "$GUESTS/$1/domain.xml"
    arguments "$1" "-M none -S -drive if=none,file=$DISK,format=raw ${*:2}"
}

# arguments NAME TEXT: what does not answer its power button is not waited for.
arguments() {
    printf '%s\n' "QEMU_ARGUMENTS=-nodefaults -display none $2" SHUTDOWN_SECONDS=1 >"$GUESTS/$1/environment"
}

# start NAME: its process is $QEMU_PID.
start() {
    systemctl start "$UNIT"
    QEMU_PID=$(shown MainPID)
    # aa-confine has become QEMU, and that has its monitor.
    until answers "$1"; do
        [ "$(shown ActiveState)" = active ] || fail "$1 has ended: $(journal)"
    done
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ] || fail "$1 is labelled $(label_of "$QEMU_PID")"
}

# answers NAME
answers() {
    [[ $(qmp "$1" query-status) == *'"running"'* ]]
}

# shown PROPERTY: of the unit.
shown() {
    systemctl show --property "$1" --value "$UNIT"
}

# unit_is ACTIVE RESULT
unit_is() {
    [ "$(shown ActiveState) $(shown Result)" = "$*" ]
}

# journal: of the unit.
journal() {
    journalctl --sync
    journalctl -u "$UNIT" -o cat
}

# told TEXT: the unit's journal has it.
told() {
    local journal
    journal=$(journal)
    [[ $journal == *"$1"* ]] || fail "not in the unit's journal: $1"$'\n'"$journal"
}

# nothing_left: no process, no profile, no file at run time.
nothing_left() {
    expect 1 pgrep -f -- "$UUID"
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "/run/aa-svirt/$UUID" ]
    [ ! -e "/run/aa-svirt/${UNIT#*@}.env" ]
}

# not_started STATUS: the start fails, by ExecStartPre or ExecStart with this status, and leaves nothing.
not_started() {
    systemctl start "$UNIT" || true
    wait_for unit_is failed exit-code
    says "$(shown ExecStartPre) $(shown ExecStart)" "code=exited ; status=$1 "
    nothing_left
}

case_the_unit_is_in_order() {
    expect 0 systemd-analyze verify "$UNITS/aa-svirt-guest@.service"
    [ -z "$stdout$stderr" ] || fail "$stdout$stderr"
    # Of 100: 96 is a service that is exposed to everything.
    expect 0 systemd-analyze security --offline=yes --threshold=25 "$UNITS/aa-svirt-guest@.service"
    sed '/^\(Protect\|Restrict\|SystemCall\|NoNewPrivileges\)/d' "$UNITS/aa-svirt-guest@.service" >loose.service
    expect 1 systemd-analyze security --offline=yes --threshold=25 ./loose.service
}

case_its_guest_is_confined() {
    web
    local task
    for task in /proc/"$QEMU_PID"/task/*; do
        [ "$(tr -d '\0' <"$task/attr/current")" = "$PROFILE (enforce)" ]
    done
    [ "$(stat -c %U "/proc/$QEMU_PID")" = aa-svirt ]
    says "$(<"/proc/$QEMU_PID/status")" 'NoNewPrivs:.1.*Seccomp:.2'
    says "$(<"/proc/$QEMU_PID/status")" 'CapBnd:.0000000000000000'
    has_open "$QEMU_PID" "$DISK"
    opens web "$DISK"
    local own=$PROFILE
    # Of the same account.
    configure mail
    mark=$(log_mark)
    cannot_open web "$DISK"
    denied "$mark" "$own" "$DISK"
}

case_it_comes_after_apparmor_and_outlives_its_restart() {
    web
    says " $(shown After) " ' apparmor.service '
    # Nothing else here asks for that service.
    [ "$(systemctl show --property ActiveState --value apparmor)" = active ]
    [ "$(systemctl show --property ActiveEnterTimestampMonotonic --value apparmor)" -lt "$(shown ExecMainStartTimestampMonotonic)" ]
    systemctl restart apparmor
    [ "$(shown MainPID)" = "$QEMU_PID" ]
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    host_file "$IMAGES/not-the-webs.img"
    mark=$(log_mark)
    cannot_open web "$IMAGES/not-the-webs.img"
    denied "$mark" "$PROFILE" "$IMAGES/not-the-webs.img"
}

case_a_second_unit_of_one_guest_is_refused() {
    web
    local own=$UUID
    configure copy
    sed "s/$UUID/$own/" -i "$GUESTS/copy/domain.xml"
    expect 1 systemctl start "$UNIT"
    told 'runs, or was not stopped'
    [ ! -e /run/aa-svirt/copy.env ]
    # Nor has it changed what the first one may.
    web
    [ "$(shown ActiveState)" = active ]
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    mark=$(log_mark)
    cannot_open web "$IMAGES/copy.img"
    denied "$mark" "$PROFILE" "$IMAGES/copy.img"
    opens web "$DISK"
}

case_it_ends_with_its_unit_and_can_be_started_again() {
    web
    systemctl stop "$UNIT"
    unit_is inactive success
    nothing_left
    [ -z "$(ls /run/aa-svirt)" ]
    # Its power button was pressed, and nobody answered.
    told 'terminating on signal 15'
    start web
    opens web "$DISK"
}

case_a_guest_is_shut_down_by_its_power_button() {
    configure button
    boot_disk "$DISK"
    arguments button "-M pc -m 32 -drive file=$DISK,format=raw"
    sed -i 's/^SHUTDOWN_SECONDS=.*/SHUTDOWN_SECONDS=45/' "$GUESTS/button/environment"
    start button
    # Its system has said that it takes the button: boot_disk writes there.
    wait_for power_button_enabled button
    systemctl stop "$UNIT"
    unit_is inactive success
    nothing_left
    [[ $(journal) != *'terminating on signal'* ]]
}

power_button_enabled() {
    [[ $(qmp "$1" human-monitor-command '{"command-line":"i/h 0x602"}') =~ '= 0x'0*100 ]]
}

# As when its own system is shut down: ExecStop is run then too.
case_a_guest_that_ends_by_itself_is_no_alarm() {
    configure ended
    start ended
    qmp ended quit || true
    wait_for unit_is inactive success
    nothing_left
    [[ $(journal) != *'is not a monitor of its own'* ]]
}

# What a QEMU that was taken over can do in its directory.
case_a_guest_has_no_other_monitor_told_of_its_power_button() {
    configure linked
    start linked
    # Stands for the monitor of another guest.
    socat -u "UNIX-LISTEN:$PWD/monitor,fork" "OPEN:$PWD/heard,creat,append" &
    local listener=$!
    wait_for test -S monitor
    echo aloud | socat -u - "UNIX-CONNECT:$PWD/monitor"
    wait_for grep aloud heard
    setpriv --reuid aa-svirt --regid aa-svirt --clear-groups ln -sfn "$PWD/monitor" "/run/aa-svirt/$UUID/qmp"
    systemctl stop "$UNIT"
    told 'is not a monitor of its own'
    [ "$(<heard)" = aloud ] || fail "the other one has heard $(<heard)"
    nothing_left
    kill "$listener"
}

case_a_killed_guest_is_failed_and_leaves_nothing() {
    configure killed
    start killed
    kill -9 "$QEMU_PID"
    wait_for unit_is failed signal
    nothing_left
}

case_a_refused_domain_is_not_started() {
    configure restricted
    sed -i "s|$DISK|/etc/shadow|" "$GUESTS/restricted/domain.xml"
    not_started 1
    told '"/etc/shadow" may not be granted'
    # Nor one whose emulator would be a command of the script, or a variable of the unit.
    sed -i "s|/etc/shadow|$DISK|; s|$QEMU|/usr/bin/qemu'\$(touch /run/pwned)'|" "$GUESTS/restricted/domain.xml"
    not_started 1
    told 'not the path of an emulator'
    [ ! -e /run/pwned ]
}

case_without_its_profile_in_force_nothing_is_started() {
    configure unloaded
    mkdir -p "$PROFILES/$PROFILE.d"
    echo 'this is no rule' >"$PROFILES/$PROFILE.d/broken"
    not_started 1
    told 'syntax error'
    rm "$PROFILES/$PROFILE.d/broken"
    # In complain mode.
    aa-derive "$GUESTS/unloaded/domain.xml" | aa-render --complain
    not_started 125
    told 'is in complain mode'
    # Where aa-confine is confined and cannot leave its profile.
    configure caged
    mkdir -p "/run/systemd/system/$UNIT.service.d"
    printf '[Service]\nAppArmorProfile=\n' >"/run/systemd/system/$UNIT.service.d/caged.conf"
    not_started 125
    told 'no_new_privs is set'
}
