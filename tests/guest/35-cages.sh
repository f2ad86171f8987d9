# The tools under their own profiles, as a host that has them installed. What each must not do is denied when it tries. A probe is mounted over the tool, so that the tool's own
# profile is attached to it. Each denial has two twins: the same attempt by the same program without a profile, and
# what the tool is there for, under it.

PARSER=/usr/sbin/apparmor_parser
POLICY=/sys/kernel/security/apparmor
SECRET=/root/.ssh/id_ed25519
# Below the directories of which aa-derive and the helper read the rest.
KEYS=(/{root,home/somebody}/.{aws,gnupg,kube,ssh}/key /var/lib/libvirt/qemu/domain-1-cages/master-key.aes)

setup() {
    local key
    for key in "${KEYS[@]}"; do
        mkdir -p "${key%/*}"
        echo secret >"$key"
    done
    mkdir -p /etc/libvirt/{qemu,secrets,storage} /srv/data /var/cache/aa-svirt
    echo secret | tee "$SECRET" /etc/libvirt/secrets/ceph.base64 >/srv/secret
    echo '<pool/>' >/etc/libvirt/storage/cages.xml
    echo '<domain/>' | tee /etc/libvirt/qemu/cages.xml >/srv/data/cages.xml
    echo '{}' >/srv/data/cages.json
    truncate -s 64k "$IMAGES/cages.img"
    printf 'profile %s {\n  file,\n}\n' cages-other libvirt-cages | apparmor_parser -K -r
    helper_profile ours
}

teardown() {
    rm -f /etc/libvirt/{qemu,storage}/cages.xml "$PROFILES/libvirt-cages"
    helper_profile debian
}

# under PROFILE ATTEMPT…: the probe under a tool's profile: in the place of the tool, or of the parser that the tool executes.
under() {
    local profile=$1 tool=/usr/lib/aa-svirt/bin/${1%//parser}
    shift
    [ -e "$tool" ] || fail "no such tool: $tool"
    [[ $profile != virt-aa-helper* ]] || tool=$HELPER
    [[ $profile != *//parser ]] || set -- "exec:$PARSER" "$@"
    # The probe looks for the bounds of its stack, which the parser in whose place it is does not.
    expect_denial '//parser" name="/proc/[0-9]+/maps"'
    # shellcheck disable=SC2016
    unshare -m bash -ec 'for place in "$1" "$2"; do mount --bind /tests/probe "$place"; done
        exec "$1" "${@:3}"' - "$tool" "$PARSER" "$@"
}

# all_let COMMAND…: a probe, each of whose attempts the kernel lets. What it executes last ends with a status of its own.
all_let() {
    expect 0 "$@"
    if grep -v -e ': ok$' -e '^$' <<<"$stdout"; then fail "not each was let: $*"; fi
}

# allows PROFILE ATTEMPT…
allows() {
    all_let under "$@"
}

# denies PROFILE ATTEMPT…: each of them, and the kernel has a record of it.
denies() {
    local profile=$1 attempt mark
    expect_denial " profile=\"$profile\" "
    mark=$(log_mark)
    expect 1 under "$@"
    shift
    for attempt; do
        grep -F "$attempt: " <<<"$stdout" | grep -E '(EACCES|EPERM):|os error (1|13)\)' >/dev/null ||
            fail "not denied: $attempt: $stdout"
    done
    [ "$(denials_since "$mark" | grep -c " profile=\"$profile\" ")" -ge $# ] || fail "not each has a record: $(denials_since "$mark")"
    all_let unshare -m /tests/probe "$@"
}

# denies_the_rest PROFILE: what no tool may do. The last one would end the probe.
denies_the_rest() {
    sleep 60 &
    denies "$1" read:/etc/shadow "read:$SECRET" read:/etc/libvirt/secrets/ceph.base64 read:/proc/1/environ \
        write:/srv/data/new "write:$IMAGES/cages.img" write:/etc/apparmor.d/usr.sbin.libvirtd \
        "write:$PROFILES/TEMPLATE.qemu" write:/proc/sys/kernel/hostname \
        inet tcp unix "trace:$!" "signal:$!" on-exec:cages-other mount:/srv exec:/usr/bin/true
    denies "$1" now:cages-other
}

CAGES=(aa-{derive,render,load,confine} aa-load//parser virt-aa-helper virt-aa-helper//parser)

case_the_profiles_are_in_force() {
    local name
    for name in "${CAGES[@]}"; do
        [ "$(mode_of "$name")" = enforce ] || fail "$name: $(mode_of "$name")"
    done
}

# carriers PROFILE: the processes that it confines.
carriers() { grep -lsx "$1 (enforce)" /proc/[0-9]*/attr/current | cut -d / -f 3; }

# aa-load reads the labels of all processes, other tools among them; that is no denial. To trace a tool is one, for a
# program that may trace everything but is confined: the kernel asks no profile about one that is not.
case_others_may_look_at_them() {
    local name pid
    cp /tests/probe /srv/tracer
    printf 'profile cages-tracer /srv/tracer {\n  file,\n  capability,\n  ptrace,\n}\n' | apparmor_parser -K -r
    for name in "${CAGES[@]}"; do
        under "$name" sleep:60 &
        wait_for carriers "$name"
        pid=$(carriers "$name")
        expect 0 aa-load status
        expect 0 /srv/tracer "read:/proc/$pid/environ"
        expect_denial " profile=\"$name\" .* requested_mask=\"tracedby\" .* peer=\"cages-tracer\""
        expect 1 /srv/tracer "trace:$pid"
        kill "$pid"
        wait "$!" || true
    done
    # A tracer that the tool's profile is not asked about.
    sleep 60 &
    expect 0 /srv/tracer "trace:$!"
    kill "$!"
}

# From a domain's XML to a QEMU that runs, is given another disk, and is gone. What is denied to a tool fails the case.
case_the_tools_do_their_work() {
    make_guest caged
    start_qemu caged "$UUID"
    [ "$(label_of "$QEMU_PID")" = "$PROFILE (enforce)" ]
    truncate -s 1M "$IMAGES/caged-second.img"
    cannot_open caged "$IMAGES/caged-second.img"
    domain_xml caged "$UUID" "$DISK" "$IMAGES/caged-second.img" >caged.xml
    confine_guest caged.xml
    [ "$(jq -r .action loaded.json)" = replaced ]
    opens caged "$IMAGES/caged-second.img"
    # Merged instead of compiled: as much and no more.
    truncate -s 1M "$IMAGES/caged-third.img"
    domain_xml caged "$UUID" "$DISK" "$IMAGES/caged-third.img" >caged.xml
    aa-derive caged.xml | aa-render | aa-load --merge --verbose >loaded.json 2>merged.err || fail "$(cat merged.err)"
    [ "$(jq -r .action loaded.json)" = replaced ]
    if grep 'compiled whole' merged.err; then fail "not merged"; fi
    opens caged "$IMAGES/caged-third.img"
    cannot_open caged "$IMAGES/caged-second.img"
    expect 1 aa-load remove "$PROFILE"
    quit_qemu caged
    expect 0 aa-load remove "$PROFILE"
}

case_aa_derive() {
    allows aa-derive "read:$IMAGES/cages.img" read:/srv/data/cages.xml read:/srv/secret list:/etc/libvirt/qemu \
        read:/etc/libvirt/qemu/cages.xml read:/proc/mounts list:/sys/bus/pci/devices
    denies aa-derive "read:$POLICY/profiles" read:/proc/cmdline "write:$PROFILES/libvirt-cages" unix-stream "${KEYS[@]/#/read:}"
    denies_the_rest aa-derive
}

# Names that begin like those of the four directories that are not read as a whole, and end otherwise.
case_aa_derive_reads_images_in_any_other_directory() {
    local name names=(a d de deV devices e et etcetera p pr pro process s sy syst x/etc/y)
    for name in "${names[@]}"; do
        mkdir -p "/$name/images"
        : >"/$name/images/a.img"
    done
    local attempts=(list:/)
    for name in "${names[@]}"; do attempts+=("list:/$name" "read:/$name/images/a.img"); done
    allows aa-derive "${attempts[@]}"
    mkdir -p /etc/images
    : >/etc/images/a.img
    : >/dev/images.img
    denies aa-derive read:/etc/images/a.img read:/dev/images.img list:/etc list:/dev
    for name in "${names[@]}"; do rm -r "/${name:?}"; done
    rm -r /etc/images /dev/images.img
}

case_aa_render() {
    allows aa-render read:/srv/data/cages.json "read:$PROFILES/TEMPLATE.qemu" "write:$PROFILES/libvirt-cages" "list:$PROFILES"
    denies aa-render "read:$IMAGES/cages.img" read:/srv/data/cages.xml "write:$POLICY/.replace" unix-stream
    denies_the_rest aa-render
}

case_aa_load() {
    : >>"$PROFILES/.aa-render.lock"
    allows aa-load read:/srv/data/cages.json "read:$PROFILES/TEMPLATE.qemu" read:/etc/libvirt/qemu/cages.xml \
        "list:$POLICY/policy/profiles" "read:/proc/$$/task/$$/attr/current" write:/var/cache/aa-svirt/cages \
        "write:$POLICY/.remove" "write:$PROFILES/.aa-render.lock" "exec:$PARSER"
    denies aa-load "read:$IMAGES/cages.img" read:/srv/data/cages.xml "write:$POLICY/.load" unix-stream
    denies_the_rest aa-load
}

case_the_parser_of_aa_load() {
    : >>/var/cache/aa-svirt/lock-00
    : >>"$PROFILES/.aa-render.lock"
    allows aa-load//parser "read:$PROFILES/TEMPLATE.qemu" "read:$POLICY/features/file/mask" "write:$POLICY/.replace" \
        read:/var/cache/aa-svirt/lock-00 "write:$PROFILES/.aa-render.lock"
    denies aa-load//parser read:/srv/data/cages.json write:/var/cache/aa-svirt/cages write:/var/cache/aa-svirt/lock-00 \
        "write:$PROFILES/libvirt-cages" "write:$POLICY/.remove" unix-stream
    denies_the_rest aa-load//parser
}

case_aa_confine() {
    allows aa-confine read:/sys/module/apparmor/parameters/enabled unix-stream on-exec:libvirt-cages exec:/usr/bin/true
    allows aa-confine now:libvirt-cages
    denies aa-confine on-exec:unconfined on-exec:aa-load "read:$IMAGES/cages.img" "read:$PROFILES/TEMPLATE.qemu"
    denies_the_rest aa-confine
}

case_virt_aa_helper() {
    allows virt-aa-helper "read:$IMAGES/cages.img" "read:$PROFILES/TEMPLATE.qemu" "write:$PROFILES/libvirt-cages" \
        read:/proc/mounts list:/etc/libvirt/storage read:/etc/libvirt/storage/cages.xml "exec:$PARSER"
    denies virt-aa-helper "read:$POLICY/profiles" "write:$POLICY/.replace" read:/etc/libvirt/qemu/cages.xml unix-stream \
        "${KEYS[@]/#/read:}"
    denies_the_rest virt-aa-helper
}

case_the_parser_of_virt_aa_helper() {
    allows virt-aa-helper//parser "read:$PROFILES/TEMPLATE.qemu" "write:$POLICY/.replace" "write:$POLICY/.remove"
    denies virt-aa-helper//parser "write:$PROFILES/libvirt-cages" "read:$IMAGES/cages.img" unix-stream
    denies_the_rest virt-aa-helper//parser
}
