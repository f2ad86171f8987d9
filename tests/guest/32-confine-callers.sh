# aa-confine called by processes that are confined, unprivileged or set up in other ways.

LABEL=(/usr/bin/cat /proc/self/attr/current)

# profile NAME RULES [FLAGS]: loads one under the case's own prefix.
profile() {
    printf 'profile %s-%s %s {\n  file,\n  capability,\n  %s\n}\n' "$PREFIX" "$1" "${3:-}" "$2" |
        apparmor_parser -K -r
}

make_profiles() {
    # What aa-confine's own profile lets it enter.
    PREFIX=libvirt-callers-$(new_uuid)
    profile inner ''
    profile other ''
    profile logging '' 'flags=(complain)'
    profile open '' 'flags=(unconfined)'
    profile outer "change_profile -> $PREFIX-inner,"
    profile stacker 'change_profile,'
}

# label_is LABEL COMMAND…: the command must print this label.
label_is() {
    local wanted=$1
    shift
    expect 0 "$@"
    [ "$stdout" = "$wanted" ] || fail "label $stdout, not $wanted: $*"
}

# refused PATTERN COMMAND…
refused() {
    local pattern=$1
    shift
    expect_denial 'info="label not found".* profile="aa-confine"'
    expect 125 "$@"
    says "$stderr" "$pattern"
    [ -z "$stdout" ] || fail "something was started: $stdout"
}

confine() { aa-confine --profile "$PREFIX-$1" "${@:2}"; }

case_a_confined_caller_needs_a_rule() {
    make_profiles
    local outer=(aa-confine --profile "$PREFIX-outer" --)
    local when
    for when in '' --now; do
        label_is "$PREFIX-inner (enforce)" "${outer[@]}" aa-confine --profile "$PREFIX-inner" $when -- "${LABEL[@]}"
        refused 'change_profile' "${outer[@]}" aa-confine --profile "$PREFIX-other" $when -- "${LABEL[@]}"
        refused '&' "${outer[@]}" aa-confine --profile "$PREFIX-inner" --stack $when -- "${LABEL[@]}"
    done
}

case_a_profile_that_allows_everything_is_refused() {
    make_profiles
    refused 'does not enforce' confine open -- "${LABEL[@]}"
    refused 'does not enforce' confine open --allow-complain -- "${LABEL[@]}"
}

case_a_stack_shows_both_profiles() {
    make_profiles
    local stacker=(aa-confine --profile "$PREFIX-stacker" --) when
    for when in '' --now; do
        expect 0 "${stacker[@]}" aa-confine --profile "$PREFIX-inner" --stack $when -- "${LABEL[@]}"
        says "$stdout" "$PREFIX-inner"
        says "$stdout" "$PREFIX-stacker"
        says "$stdout" '\(enforce\)$'
        refused '' "${stacker[@]}" aa-confine --profile "$PREFIX-logging" --stack $when -- "${LABEL[@]}"
        refused '' "${stacker[@]}" aa-confine --profile "$PREFIX-open" --stack $when -- "${LABEL[@]}"
    done
}

case_now_refuses_what_change_on_exec_refuses() {
    make_profiles
    refused complain confine logging --now -- "${LABEL[@]}"
    refused 'not loaded' confine absent --now -- "${LABEL[@]}"
    label_is "$PREFIX-inner (enforce)" confine inner --now -- "${LABEL[@]}"
}

# Under aa-confine's own profile the kernel lets no process with no_new_privs go on to another one.
case_no_new_privs() {
    make_profiles
    refused no_new_privs setpriv --no-new-privs aa-confine --profile "$PREFIX-inner" -- "${LABEL[@]}"
    uncaged aa-confine
    local nnp=(setpriv --no-new-privs)
    label_is "$PREFIX-inner (enforce)" "${nnp[@]}" aa-confine --profile "$PREFIX-inner" -- "${LABEL[@]}"
    refused no_new_privs aa-confine --profile "$PREFIX-outer" -- \
        "${nnp[@]}" aa-confine --profile "$PREFIX-inner" -- "${LABEL[@]}"
    expect 0 aa-confine --profile "$PREFIX-stacker" -- \
        "${nnp[@]}" aa-confine --profile "$PREFIX-inner" --stack -- "${LABEL[@]}"
    says "$stdout" "$PREFIX-inner"
}

case_an_ordinary_user() {
    make_profiles
    local user=(setpriv --reuid 1000 --regid 1000 --clear-groups)
    chmod 0777 .
    expect 0 "${user[@]}" aa-confine --profile "$PREFIX-inner" -- "${LABEL[@]}"
    says "$stdout" "$PREFIX-inner.*\(enforce\)$"
    refused 'not loaded' "${user[@]}" aa-confine --profile "$PREFIX-absent" -- "${LABEL[@]}"
    refused complain "${user[@]}" aa-confine --profile "$PREFIX-logging" -- "${LABEL[@]}"
}

case_other_user_and_process_namespaces() {
    make_profiles
    # Through a pipe: a file opened in another mount namespace has no path that a profile could name.
    local space piped=(bash -o pipefail -c '"$@" | cat' -)
    for space in '-Ur' '-pf' '-pf --mount-proc'; do
        # shellcheck disable=SC2086
        label_is "$PREFIX-inner (enforce)" "${piped[@]}" unshare $space aa-confine --profile "$PREFIX-inner" -- "${LABEL[@]}"
        # shellcheck disable=SC2086
        refused 'not loaded' unshare $space aa-confine --profile "$PREFIX-absent" -- "${LABEL[@]}"
    done
}

# The namespace's profiles would need a rule in aa-confine's own profile.
case_a_policy_namespace() {
    make_profiles
    uncaged aa-confine
    local space=ns-${PREFIX##*-} when
    mkdir "/sys/kernel/security/apparmor/policy/namespaces/$space"
    printf 'profile vm {\n  file,\n}\nprofile logging flags=(complain) {\n  file,\n}\n' | apparmor_parser -K -r -n "$space"
    for when in '' --now; do
        expect 0 aa-confine --namespace "$space" --profile vm $when -- sleep 0
        aa-confine --namespace "$space" --profile vm $when -- sleep 30 &
        wait_for grep -q sleep "/proc/$!/comm"
        [ "$(label_of $!)" = ":$space:vm (enforce)" ]
        kill $!
        refused complain aa-confine --namespace "$space" --profile logging $when -- "${LABEL[@]}"
        refused 'not loaded' aa-confine --namespace "$space" --profile absent $when -- "${LABEL[@]}"
        refused 'not loaded' aa-confine --profile vm $when -- "${LABEL[@]}"
    done
}

case_the_callers_files_and_no_others() {
    make_profiles
    expect 0 aa-confine --profile "$PREFIX-inner" -- /usr/bin/bash -c 'echo /proc/$$/fd/*'
    local bare=$stdout
    [ "$(wc -w <<<"$bare")" = "$(bash -c 'echo /proc/$$/fd/*' 2>stderr | wc -w)" ] || fail "another set of open files: $bare"
    expect 0 aa-confine --profile "$PREFIX-inner" -- /usr/bin/bash -c 'cat <&7' 7<<<kept
    [ "$stdout" = kept ]
}

case_the_callers_environment_and_directory() {
    make_profiles
    TMPDIR=/somewhere expect 0 aa-confine --profile "$PREFIX-inner" -- /usr/bin/bash -c 'echo "$TMPDIR $PWD"'
    [ "$stdout" = "/somewhere $PWD" ]
}

# What the help says of them: one signal and closed streams are not as the caller had them.
case_the_callers_signals_but_for_one() {
    make_profiles
    local confined=(aa-confine --profile "$PREFIX-inner" --)
    # Signals 10 and 13, of which each is a bit; without aa-confine both stay.
    printf '%s' 'trap "" USR1 PIPE; exec "$@" grep SigIgn /proc/self/status' >ignoring
    expect 0 bash ignoring env
    says "$stdout" '0000000000001200$'
    expect 0 bash ignoring "${confined[@]}"
    says "$stdout" '0000000000000200$'
    printf '%s' 'exec 0<&-; exec "$@" readlink /proc/self/fd/0' >closing
    expect 1 bash closing env
    expect 0 bash closing "${confined[@]}"
    [ "$stdout" = /dev/null ]
}
