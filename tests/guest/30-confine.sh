# aa-confine starts the command under the profile, or starts nothing.

# A command that leaves a trace.
command_ran() { [ -e "$IMAGES/ran-$UUID" ]; }

# refused PATTERN COMMAND…: status 125, the reason said, nothing started.
refused() {
    local pattern=$1
    shift
    expect_denial 'info="label not found".* profile="aa-confine"'
    expect 125 "$@"
    says "$stderr" "$pattern"
    [ "$(wc -l <stderr)" = 1 ] || fail "more than one line: $stderr"
    ! command_ran || fail "the command was started"
}

# A guest whose profile lets it run touch, on one file.
make_toucher() {
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    domain_xml toucher "$UUID" >toucher.xml
    aa-derive --add "$IMAGES/ran-$UUID:rw" --add-glob /usr/bin/touch:rm toucher.xml | aa-render "$@" | aa-load
    TOUCH=(/usr/bin/touch "$IMAGES/ran-$UUID")
}

case_a_loaded_profile_runs_the_command() {
    make_toucher
    expect 0 aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    command_ran
    mark=$(log_mark)
    expect 1 aa-confine --profile "$PROFILE" -- /usr/bin/touch "$PWD/elsewhere"
    denied "$mark" "$PROFILE" "$PWD/elsewhere" c
    [ ! -e elsewhere ]
}

case_the_commands_status_is_passed_on() {
    make_toucher
    expect 1 aa-confine --uuid "$UUID" -- /usr/bin/touch /nonexistent/file
    says "$stderr" 'touch:'
}

case_an_unknown_profile_is_refused() {
    make_toucher
    local other
    other=$(new_uuid)
    refused "libvirt-$other" aa-confine --uuid "$other" -- "${TOUCH[@]}"
    refused 'no-such' aa-confine --profile no-such -- "${TOUCH[@]}"
    # A part of a loaded name, as a search in the kernel's list would find it.
    refused "${UUID:0:8}" aa-confine --profile "libvirt-${UUID:0:8}" -- "${TOUCH[@]}"
}

case_complain_mode_is_refused_unless_allowed() {
    make_toucher --complain
    [ "$(mode_of "$PROFILE")" = complain ]
    refused complain aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    expect 0 aa-confine --uuid "$UUID" --allow-complain -- "${TOUCH[@]}"
    command_ran
}

# As a whole, AppArmor lets through what a profile denies that still reads as enforced.
case_apparmor_that_complains_as_a_whole_is_refused() {
    local parameter=/sys/module/apparmor/parameters/mode
    make_toucher
    trap 'printf enforce >/sys/module/apparmor/parameters/mode' EXIT
    printf complain >"$parameter"
    [ "$(mode_of "$PROFILE")" = enforce ]
    refused 'as a whole is in mode "complain"' aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    refused 'as a whole is in mode "complain"' aa-confine --uuid "$UUID" --now -- "${TOUCH[@]}"
    expect 1 aa-load verify "$PROFILE"
    says "$stderr" 'AppArmor as a whole is in mode complain'
    expect 3 aa-load doctor
    says "$stdout" 'FAILED   mode'
    expect 0 aa-load status "$PROFILE"
    says "$stdout" 'AppArmor as a whole does not enforce'
    # It does let it through; and who may not read the parameter is not told.
    expect 0 aa-confine --uuid "$UUID" --allow-complain -- /usr/bin/touch "$PWD/elsewhere"
    chmod 777 .
    expect 0 setpriv --reuid 65534 --clear-groups aa-confine --uuid "$UUID" -- /usr/bin/touch "$PWD/unknown"
    [ -e elsewhere ]
    [ -e unknown ]
    # The twin.
    printf enforce >"$parameter"
    expect 0 aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    command_ran
    expect 1 aa-confine --uuid "$UUID" -- /usr/bin/touch "$PWD/denied"
    expect 0 aa-load verify "$PROFILE"
    expect 0 setpriv --reuid 65534 --clear-groups aa-confine --uuid "$UUID" -- /usr/bin/touch --version
}

case_a_missing_command_is_127() {
    make_toucher
    expect 127 aa-confine --uuid "$UUID" -- /nonexistent/command
    expect 127 aa-confine --uuid "$UUID" -- no-such-command-in-path
}

case_a_file_that_cannot_be_executed_is_126() {
    make_toucher
    echo text >text
    expect 126 aa-confine --uuid "$UUID" -- "$PWD/text"
    expect 126 aa-confine --uuid "$UUID" -- /etc
}

# A /proc that is a tmpfs, with the files that a real one would have.
case_a_tmpfs_over_proc_is_refused() {
    make_toucher
    export PROFILE
    printf '%s' 'mount -t tmpfs none /proc
        mkdir -p /proc/self/attr/apparmor /proc/thread-self/attr/apparmor /proc/sys
        for where in self thread-self; do
            for file in attr/current attr/exec attr/apparmor/current attr/apparmor/exec; do
                echo "$PROFILE (enforce)" >"/proc/$where/$file"
            done
        done
        exec "$@"' >fake
    refused '/proc' unshare -m bash fake aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    # The twin: the same namespace, with the true one.
    expect 0 unshare -m aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    command_ran
}

# A root directory whose /proc is a symbolic link to a true procfs elsewhere.
case_a_link_for_proc_is_refused() {
    make_toucher
    mkdir root
    printf '%s' 'mount -t tmpfs none root
        mkdir -p root/{usr,etc,sys,var/lib/libvirt/images,real}
        mount --bind /usr root/usr
        mount --rbind /sys root/sys
        mount --bind /var/lib/libvirt/images root/var/lib/libvirt/images
        ln -s usr/lib root/lib
        ln -s usr/lib64 root/lib64
        if [ "$KIND" = link ]; then
            mount -t proc proc root/real
            ln -s /real root/proc
        else
            mkdir root/proc
            mount -t proc proc root/proc
        fi
        exec chroot root /usr/lib/aa-svirt/bin/aa-confine "$@"' >chrooted
    export KIND=link
    refused '/proc' unshare -m bash chrooted --uuid "$UUID" -- "${TOUCH[@]}"
    KIND=directory
    # The twin: the command is executed. To the profile its libraries lie below this directory, so it gets no further.
    expect 127 unshare -m bash chrooted --uuid "$UUID" -- "${TOUCH[@]}"
    says "$stderr" '^/usr/bin/touch: error while loading shared libraries'
}

# A true /proc, with something else mounted over the directory that counts.
case_a_mount_over_the_attributes_is_refused() {
    make_toucher
    printf '%s' 'mount -t tmpfs none "/proc/$$/$COVERED"
        mkdir "/proc/$$/$COVERED/apparmor"
        echo "$PROFILE (enforce)" | tee "/proc/$$/$COVERED/"{current,exec,apparmor/current,apparmor/exec} >/dev/null
        exec "$@"' >covered
    # The pid of the shell is that of its one task.
    sed -i 's,^mount,COVERED=${COVERED/PID/$$}; mount,' covered
    export PROFILE COVERED=task/PID/attr
    refused '/proc' unshare -m bash covered aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    # The twin: the process's own directory is not the one that is written to, and the command is confined.
    COVERED=attr
    expect 1 unshare -m bash covered aa-confine --uuid "$UUID" -- /usr/bin/touch "$PWD/elsewhere"
    says "$stderr" 'touch: .*Permission denied'
    expect 0 unshare -m bash covered aa-confine --uuid "$UUID" -- "${TOUCH[@]}"
    command_ran
}

# aa-confine's own profile would have to be followed by one that allows reading the label back.
case_now_changes_before_the_exec() {
    uncaged aa-confine
    make_toucher
    # Change at once: the profile itself must allow the exec, and it does not.
    expect 126 aa-confine --uuid "$UUID" --now -- "${TOUCH[@]}"
    ! command_ran || fail "the command was started"
    make_guest now
    expect 0 aa-confine --uuid "$UUID" --now -- "$QEMU" --version
}

# A stack has the caller's own confinement in it, so aa-confine's own profile must not be part of that.
case_stack_adds_to_the_callers_confinement() {
    uncaged aa-confine
    make_guest stack
    printf 'profile outer-%s {\n  file,\n  capability,\n  network,\n  signal,\n  ptrace,\n  unix,\n  change_profile,\n  deny %s rw,\n}\n' \
        "$UUID" "$DISK" >outer
    apparmor_parser -K -r outer
    local arguments
    mapfile -t arguments < <(disk_arguments)
    # Alone each allows QEMU to start, together they deny what one of them denies.
    expect 0 qemu_given "$UUID" "${arguments[@]}"
    expect 1 aa-exec -p "outer-$UUID" -- aa-confine --uuid "$UUID" --stack -- "$QEMU" -M none -nodefaults \
        -display none -S "${arguments[@]}"
    says "$stderr" 'Permission denied'
}
