# Many guests of libvirtd's at once.
case_timeout=600
on_request=yes

setup() {
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# opened PROFILE PATH…: those of the files that a process under the profile can open.
opened() {
    local profile=$1
    shift
    # shellcheck disable=SC2016
    aa-exec -p "$profile" -- /bin/dash -c 'for file; do if true <"$file"; then echo "$file"; fi; done' dash "$@" 2>refused
}

case_eight_at_once() {
    local guests=(one two three four five six seven eight) name pids=() profiles=()
    for name in "${guests[@]}"; do
        host_file "$IMAGES/$name.img"
        define_guest "$name" "$IMAGES/$name.img"
        profiles+=("$PROFILE")
    done
    for name in "${guests[@]}"; do
        virsh start --paused "$name" &
        pids+=($!)
    done
    local pid
    for pid in "${pids[@]}"; do wait "$pid"; done
    local n disks=("${guests[@]/#/$IMAGES/}")
    disks=("${disks[@]/%/.img}")
    for n in {0..7}; do
        confined "${guests[n]}"
        [ "$(opened "${profiles[n]}" "${disks[@]}")" = "${disks[n]}" ]
        [ "$(grep -c 'Permission denied' refused)" = 7 ]
        opens "${guests[n]}" "${disks[n]}" true
        denied_file "${guests[n]}" "${disks[(n + 1) % 8]}"
    done
    pids=()
    for name in "${guests[@]}"; do
        virsh destroy "$name" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
    for n in {0..7}; do wait_for profile_gone "${profiles[n]}"; done
}
