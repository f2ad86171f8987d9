# Many at once: eight processes load, replace and remove the profiles of many guests. And what is loaded is enforced to
# the letter.
case_timeout=600

PROCESSES=8

uuid_of() { printf '65000000-0000-4000-8000-%012d' "$1"; }

# write_profile GUEST VERSION: in one step, as aa-render does.
write_profile() {
    local profile new
    profile=libvirt-$(uuid_of "$1")
    new=$PROFILES/.$profile.$BASHPID
    printf 'profile %s {\n  /srv/%s/%s rw,\n  deny /srv/%s/secret r,\n}\n' "$profile" "$1" "$2" "$1" >"$new"
    mv "$new" "$PROFILES/$profile"
}

# worker NUMBER SHARE: its part of the operations; what aa-load did goes to done-NUMBER, one record a line.
worker() {
    local operation guest status
    RANDOM=$((6500 + $1))
    for ((operation = 0; operation < $2; operation++)); do
        guest=$((RANDOM % GUESTS))
        status=0
        case $((RANDOM % 10)) in
        0 | 1 | 2) aa-load remove "libvirt-$(uuid_of "$guest")" ;;
        3 | 4) aa-load add "libvirt-$(uuid_of "$guest")" ;;
        5)
            write_profile "$guest" "$operation-$1"
            aa-load --direct "libvirt-$(uuid_of "$guest")" "libvirt-$(uuid_of $(((guest + 1) % GUESTS)))"
            ;;
        *)
            write_profile "$guest" "$operation-$1"
            aa-load "libvirt-$(uuid_of "$guest")"
            ;;
        esac >>"done-$1" 2>>"refused-$1" || status=$?
        # Refused is what another has removed or added; nothing else may go wrong.
        [ "$status" -le 1 ] || fail "status $status: $(tail -n 1 "refused-$1")"
    done
}

# in_parallel FUNCTION: once for each process, with its number and its share of the operations.
in_parallel() {
    local number pids=()
    for ((number = 0; number < PROCESSES; number++)); do
        "$1" "$number" $((OPERATIONS / PROCESSES)) &
        pids+=($!)
    done
    for number in "${pids[@]}"; do wait "$number"; done
}

# every_eighth COMMAND NUMBER: for every guest of one process.
every_eighth() {
    local guest
    for ((guest = $2; guest < GUESTS; guest += PROCESSES)); do
        aa-load "$1" "libvirt-$(uuid_of "$guest")" >>"last-$2"
    done
}
load_share() { every_eighth replace "$1"; }
remove_share() { every_eighth remove "$1"; }

in_kernel() { sed -n 's/^\(libvirt-65000000-[0-9-]*\) (enforce)$/\1/p' /sys/kernel/security/apparmor/profiles | sort; }

# Parsers before 4.1.8 write tables for newer kernels in which `owner` is lost; those tables are kept from them.
case_a_rule_for_the_owner_holds_for_nobody_else() {
    local own=/srv/owner/own theirs=/srv/owner/theirs mark
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    mkdir -p /srv/owner
    echo "of root" >"$own"
    echo "of another" >"$theirs"
    chown 1000 "$theirs"
    chmod 644 "$own" "$theirs"
    printf 'profile %s {\n  /usr/** mrix,\n  /etc/ld.so.cache r,\n  owner /srv/owner/* r,\n}\n' "$PROFILE" >"$PROFILES/$PROFILE"
    expect 0 aa-load "$PROFILE"
    expect 0 aa-confine --uuid "$UUID" -- /usr/bin/cat "$own"
    says "$stdout" 'of root'
    mark=$(log_mark)
    expect 1 aa-confine --uuid "$UUID" -- /usr/bin/cat "$theirs"
    says "$stderr" 'Permission denied'
    denied "$mark" "$PROFILE" "$theirs"
    # The other way round for the other one.
    local user=(setpriv --reuid 1000 --regid 1000 --clear-groups)
    expect 0 "${user[@]}" aa-confine --uuid "$UUID" -- /usr/bin/cat "$theirs"
    says "$stdout" 'of another'
    expect 1 "${user[@]}" aa-confine --uuid "$UUID" -- /usr/bin/cat "$own"
    says "$stderr" 'Permission denied'
    # The twin: without the word each reads both.
    sed -i 's/owner //' "$PROFILES/$PROFILE"
    expect 0 aa-load "$PROFILE"
    expect 0 aa-confine --uuid "$UUID" -- /usr/bin/cat "$own" "$theirs"
    expect 0 "${user[@]}" aa-confine --uuid "$UUID" -- /usr/bin/cat "$own" "$theirs"
    expect 0 aa-load remove "$PROFILE"
    rm "$PROFILES/$PROFILE"
}

case_long_many_changes_by_eight_processes() {
    storm 240 40
}

case_long_a_thousand_changes_by_eight_processes() {
    storm 1000 100
}

# storm OPERATIONS GUESTS
storm() {
    OPERATIONS=$1
    GUESTS=$2
    local guest start ms
    for ((guest = 0; guest < GUESTS; guest++)); do write_profile "$guest" first; done
    start=$(date +%s%N)
    in_parallel worker
    ms=$((($(date +%s%N) - start) / 1000000))
    # Whoever lost a race was told so, and nobody was told anything else.
    if grep -vE ': (not in the kernel|already in the kernel \(use replace\))$' refused-*; then fail 'another reason'; fi
    # What was added more often than removed is in the kernel, and nothing else.
    cat done-* | jq -r 'select(.action == "added" or .action == "removed") | "\(.profile) \(.action)"' |
        awk '{ n[$1] += $2 == "added" ? 1 : -1 } END { for (p in n) { if (n[p] < 0 || n[p] > 1) print "lost", p; if (n[p] == 1) print p } }' |
        sort >expected
    in_kernel >found
    diff expected found
    # The kernel holds what is on disk.
    [ -s found ]
    xargs aa-load --dry-run <found >same
    [ "$(jq -r .action same | sort -u)" = unchanged ]
    [ "$(wc -l <same)" = "$(wc -l <found)" ]
    echo "figure: $OPERATIONS operations of $PROCESSES processes on $GUESTS profiles: $ms ms," \
        "$(cat done-* | jq -r .action | sort | uniq -c | awk '{printf "%s %s, ", $1, $2}')$(cat refused-* | wc -l) refused"
    # All of them, by eight at once; then none.
    in_parallel load_share
    [ "$(in_kernel | wc -l)" = "$GUESTS" ]
    in_kernel | xargs aa-load verify >verified
    [ "$(wc -l <verified)" = "$GUESTS" ]
    in_parallel remove_share
    [ -z "$(in_kernel)" ]
    rm "$PROFILES"/libvirt-65000000-*
}
