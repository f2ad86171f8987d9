# aa-confine believes only the kernel: a /proc or /sys that is partly something else starts nothing.

# A profile that allows every file, and the file that a started command would leave.
make_plain() {
    PROFILE=libvirt-plain-$(new_uuid)
    printf 'profile %s {\n  file,\n  capability,\n}\n' "$PROFILE" >plain
    apparmor_parser -K -r plain
    echo "$PROFILE (enforce)" >label
    export PROFILE
}

# with SETUP STATUS OPTION…: aa-confine after a setup in a mount namespace of its own, in the process that
# did the setup ($$ in it).
with() {
    local script=$1 status=$2
    shift 2
    printf 'set -e\n%s\nexec aa-confine --profile "$PROFILE" "$@" -- /usr/bin/touch ran\n' "$script" >with
    expect "$status" unshare -m bash with "$@"
    if [ "$status" = 0 ]; then
        [ -e ran ] || fail "the command was not started"
        rm ran
    else
        says "$stderr" '^aa-confine: /(proc|sys)'
        [ ! -e ran ] || fail "the command was started"
    fi
}

case_the_true_ones_are_believed() {
    make_plain
    with true 0
    with true 0 --now
    # A stack of the profile and aa-confine's own allows nothing.
    uncaged aa-confine
    with true 0 --stack
    # Only this thread's own attributes count; what is mounted over another's changes nothing.
    with 'mount --bind label /proc/1/attr/exec' 0
}

case_a_part_of_procfs_for_proc() {
    make_plain
    with 'mount --bind /proc/$$ /proc' 125
    says "$stderr" 'not the root of a procfs'
}

case_a_file_over_an_attribute() {
    make_plain
    with 'mount --bind label /proc/$$/task/$$/attr/apparmor/exec' 125
    says "$stderr" 'attr/apparmor/exec: something is mounted over it'
    with 'mount --bind label /proc/$$/task/$$/attr/apparmor/current' 125 --now
    says "$stderr" 'attr/apparmor/current: something is mounted over it'
}

# Of the right file system, as CVE-2019-16884's fix did not expect.
case_another_procfs_file_over_an_attribute() {
    make_plain
    with 'mount --bind /proc/$$/task/$$/comm /proc/$$/task/$$/attr/apparmor/exec' 125
    with 'mount --bind /proc/1/attr/apparmor/exec /proc/$$/task/$$/attr/apparmor/exec' 125
}

case_a_directory_over_a_part_of_the_way() {
    make_plain
    local place
    for place in attr/apparmor attr; do
        with "mount -t tmpfs none /proc/\$\$/task/\$\$/$place" 125
    done
    with 'mount -t tmpfs none /proc/$$/task' 125
    with 'mount -t tmpfs none /proc/$$' 125
}

case_a_false_answer_in_sys() {
    make_plain
    echo Y >answer
    with 'mount -t tmpfs none /sys; mkdir -p /sys/module/apparmor/parameters
        echo Y >/sys/module/apparmor/parameters/enabled' 125
    with 'mount --bind answer /sys/module/apparmor/parameters/enabled' 125
}
