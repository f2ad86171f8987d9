# Guests of libvirtd's with hostile paths: each starts confined, with what it names and nothing beside it, or is refused
# and leaves nothing in force. 20-file-names.sh has the same pairs for the tools.
case_timeout=300
on_request=yes
each_change=case_disks_that_are_plugged_in

DIR=/srv/paths

setup() {
    quick_parser
    mkdir -p "$DIR"
    chmod 777 "$DIR"
    start_libvirtd
}

teardown() {
    stop_libvirtd
}

# pairs: a path of the guest's, and one that it would match, or end at, if it were a pattern or profile syntax.
pairs() {
    sed -n "/^pairs() {/,/^}/p" /tests/20-file-names.sh >pairs.sh
    # shellcheck source=/dev/null
    (. ./pairs.sh && pairs)
}

# take_pairs DIR: makes them there, but for the name with a tab; sets OWN and BESIDE.
take_pairs() {
    local pair
    OWN=() BESIDE=()
    mkdir -p "$1"
    while IFS= read -r pair; do
        [[ $pair != *$'\t'* ]] || continue
        OWN+=("$1/${pair%%|*}")
        BESIDE+=("$1/${pair#*|}")
    done < <(pairs)
    [ "${#OWN[@]}" = 20 ]
    host_file "${OWN[@]}" "${BESIDE[@]}"
}

# opened PATH…: those of the files that a process under $PROFILE can open, for reading and writing.
opened() {
    # shellcheck disable=SC2016
    aa-exec -p "$PROFILE" -- /bin/dash -c 'for file; do if true <>"$file"; then printf "%s\n" "$file"; fi; done' dash "$@" \
        2>refused || true
}

# just_its_own: all of OWN and none of BESIDE.
just_its_own() {
    [ "$(opened "${OWN[@]}")" = "$(printf '%s\n' "${OWN[@]}")" ] || fail "not all of its own: $(cat refused)"
    [ -z "$(opened "${BESIDE[@]}")" ] || fail "beside its own: $(opened "${BESIDE[@]}")"
    [ "$(grep -c 'Permission denied' refused)" = "${#BESIDE[@]}" ]
}

case_disks_it_is_defined_with() {
    take_pairs "$DIR/cold"
    DEVICES="<controller type='scsi' model='virtio-scsi'/>" domain_xml cold "$(new_uuid)" "${OWN[@]}" |
        sed -e 's/<target dev=.vd\(.\). bus=.virtio.\/>/<target dev="sd\1" bus="scsi"\/>/' >cold.xml
    UUID=$(sed -n 's|.*<uuid>\(.*\)</uuid>|\1|p' cold.xml)
    PROFILE=libvirt-$UUID
    virsh define cold.xml
    mark=$(log_mark)
    start_guest cold
    confined cold
    undisturbed "$mark"
    just_its_own
    virsh destroy cold
}

# libvirtd hands a tab in a path to its helper as it stands, and an attribute of XML then has a space there: what the
# helper, the original too, reads is the name of another file. The guest does not start.
case_a_tab_in_a_path() {
    local helper
    trap 'use_helper ours' EXIT
    host_file "$DIR/z"$'\t'"A.img"
    for helper in original ours; do
        use_helper "$helper"
        define_guest "tab-$helper" "$DIR/z"$'\t'"A.img"
        expect 1 virsh start --paused "tab-$helper"
        says "$stderr" 'Permission denied'
        profile_gone "$PROFILE"
    done
}

# What libvirtd hands to the helper by itself: the path of a disk that comes, and, only for directories of its own, a
# pattern below it, as which a file's name can be read too.
case_disks_that_are_plugged_in() {
    local path bus=0 target xml
    # shellcheck disable=SC2016
    OWN=("$DIR/hot/{,**}" "$DIR/hot/*" "$DIR/hot/[a-z].img" "$DIR/hot/q\\052" "$DIR/hot/x\" rwk,"
        "$DIR/hot/@{pid}" "$DIR/hot/{a,b}")
    BESIDE=("$DIR/hot/secret" "$DIR/hot/below/secret" "$DIR/hot/c.img" "$DIR/hot/q*" "$DIR/hot/x" "$DIR/hot/1" "$DIR/hot/a")
    mkdir -p "$DIR/hot/below"
    host_file "${OWN[@]}" "${BESIDE[@]}" "$IMAGES/hot.img"
    DEVICES="<controller type='scsi' model='virtio-scsi'/>" define_guest hot "$IMAGES/hot.img"
    start_guest hot
    local letters=abcdefg
    for path in "${OWN[@]}"; do
        target=sd${letters:bus:1}
        bus=$((bus + 1))
        xml="<disk type='file' device='disk'><driver name='qemu' type='raw'/>
            <source file='$(xml_escape "$path")'/><target dev='$target' bus='scsi'/></disk>"
        echo "$xml" >disk.xml
        virsh attach-device hot disk.xml --live
        has_open "$QEMU_PID" "$(sed 's/[][*?\\]/\\&/g' <<<"$path")"
    done
    confined hot
    just_its_own
    virsh destroy hot
    wait_for profile_gone "$PROFILE"
}

# The same for what is no disk.
case_folders_logs_and_sockets() {
    mkdir -p "$DIR"/{'sh*re',shXre,'so[ck]'}
    chmod 777 "$DIR"/*
    OWN=("$DIR/sh*re/file" "$DIR/ser{i,a}l.log" "$DIR/cd?.iso")
    BESIDE=("$DIR/shXre/file" "$DIR/serial.log" "$DIR/seril.log" "$DIR/cdX.iso" "$DIR/soc/file" "$DIR/other")
    mkdir -p "$DIR/soc"
    host_file "$IMAGES/kinds.img" "${OWN[@]}" "${BESIDE[@]}"
    DEVICES="
        <filesystem type='mount' accessmode='mapped'><source dir='$DIR/sh*re'/><target dir='shared'/></filesystem>
        <serial type='file'><source path='$DIR/ser{i,a}l.log'/><target port='1'/></serial>
        <channel type='unix'>
          <source mode='bind' path='$DIR/so[ck]/channel'/><target type='virtio' name='org.example.0'/>
        </channel>
        <disk type='file' device='disk'>
          <driver name='qemu' type='raw'/><source file='$DIR/cd?.iso'/><target dev='vdb' bus='virtio'/>
        </disk>
    " define_guest kinds "$IMAGES/kinds.img"
    mark=$(log_mark)
    start_guest kinds
    confined kinds
    undisturbed "$mark"
    [ -S "$DIR/so[ck]/channel" ]
    just_its_own
    # A snapshot's overlay.
    mark=$(log_mark)
    cat >snapshot.xml <<XML
<domainsnapshot><disks><disk name='vdb' snapshot='external'><source file='$DIR/o{ver,ther}'/></disk>
<disk name='vda' snapshot='no'/></disks></domainsnapshot>
XML
    virsh snapshot-create kinds snapshot.xml --disk-only --no-metadata
    undisturbed "$mark"
    has_open "$QEMU_PID" "$DIR/o{ver,ther}"
    chmod 666 "$DIR/o{ver,ther}"
    OWN=("$DIR/sh*re/file" "$DIR/ser{i,a}l.log" "$DIR/o{ver,ther}")
    just_its_own
    virsh destroy kinds
}

# refused_guest NAME: it does not start, libvirtd's log says why, and nothing is left in force.
refused_guest() {
    local lines
    lines=$(wc -l <"$LIBVIRTD_LOG")
    expect 1 virsh start --paused "$1"
    says "$stderr" '^error: '
    echo "$stderr"
    [ -z "$(mode_of "$PROFILE")" ]
    [ ! -e "$PROFILES/$PROFILE.files" ]
    tail -n +"$((lines + 1))" "$LIBVIRTD_LOG" >log
}

case_what_is_restricted_is_refused() {
    ln -sfn /etc/shadow "$DIR/link.img"
    local n=0 path
    for path in /etc/shadow "$DIR/../../etc/shadow" "$DIR/link.img" /usr/bin/dash; do
        n=$((n + 1))
        define_guest "refused$n" "$path"
        refused_guest "refused$n"
        grep -F 'may not be granted' log
    done
    # A file that is not there and whose name as a pattern would be. libvirtd misses it when the helper has loaded the
    # profile, and may leave it there without a process: it grants the one name.
    define_guest "missing" '/e?c/shadow'
    expect 1 virsh start --paused missing
    says "$stderr" "'/e\?c/shadow': No such file"
    if [ -n "$(mode_of "$PROFILE")" ]; then
        local mark
        mark=$(log_mark)
        # shellcheck disable=SC2016
        expect 2 aa-exec -p "$PROFILE" -- /bin/dash -c ': <"$0"' /etc/shadow
        denied "$mark" "$PROFILE" /etc/shadow
    fi
    for path in / /etc /usr; do
        n=$((n + 1))
        DEVICES="<filesystem type='mount' accessmode='mapped'><source dir='$path'/><target dir='shared'/></filesystem>" \
            define_guest "refused$n"
        refused_guest "refused$n"
        grep -F 'may not be granted' log
    done
}
