# A container's profile.

# make_container: a container and its profile in the kernel. Sets UUID and PROFILE.
make_container() {
    UUID=$(new_uuid)
    PROFILE=libvirt-$UUID
    mkdir -p /srv/container
    cat >lxc.xml <<XML
<domain type='lxc' id='2'>
  <name>container</name>
  <uuid>$UUID</uuid>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64'>exe</type><init>/usr/bin/sleep</init></os>
  <devices>
    <emulator>/usr/lib/libvirt/libvirt_lxc</emulator>
    <filesystem type='mount'><source dir='/srv/container'/><target dir='/'/></filesystem>
  </devices>
</domain>
XML
    confine_guest lxc.xml
}

case_a_container_is_confined() {
    make_container
    [ "$(jq -r .template derived.json)" = lxc ]
    [ "$(mode_of "$PROFILE")" = enforce ]
    aa-confine --uuid "$UUID" -- /usr/bin/sleep 30 &
    local pid=$!
    wait_for grep -q "^$PROFILE (enforce)" "/proc/$pid/attr/current"
    kill "$pid"
    # What the container's profile denies: the kernel's switches. (libvirt's abstraction, which serves here, lets it read
    # the host's memory in /proc/kcore.)
    expect 0 aa-confine --uuid "$UUID" -- /usr/bin/cat /proc/self/attr/current
    says "$stdout" "^$PROFILE \\(enforce\\)"
    expect 1 aa-confine --uuid "$UUID" -- /usr/bin/dd if=/dev/null of=/proc/sysrq-trigger
    says "$stderr" 'Permission denied'
    # A rule that denies leaves no record. The twin: it is the profile that denies it, and not the file's mode.
    expect 0 /usr/bin/dd if=/dev/null of=/proc/sysrq-trigger
}

# in_container ATTEMPT: of the probe's, under the container's profile, in a mount namespace that ends with it.
in_container() {
    unshare -m aa-confine --uuid "$UUID" -- /tests/probe "$1"
}

# In a mount namespace whose /etc/apparmor.d has none of libvirt's policy, so that ours serves.
own_mounts() {
    local dir=$PWD/place attempt
    mkdir -p place from
    make_container
    # The rules of our own abstraction, and not libvirt's.
    grep -F 'deny mount fstype=[^cdhmoprst]*,' "$PROFILES/$PROFILE"
    for attempt in "mount-as:tmpfs:rw:none:$dir" "mount-as:tmpfs:ro:none:$dir" "mount-as:proc:rw:proc:$dir" \
        "mount-as:none:bind:$PWD/from:$dir"; do
        expect 0 in_container "$attempt"
    done
    # Plain mounts are what parser 3.0.8 let through by rules of other mounts. Types of devices and servers this kernel has
    # none of, and AppArmor then answers that there is no such type.
    for attempt in "mount-as:bpf:ro:none:$dir" mount-as:{bpf,securityfs,debugfs,tracefs,pstore}":rw:none:$dir"; do
        expect 1 in_container "$attempt"
        says "$stdout" 'Permission denied'
        # The twin: it is the profile that denies it.
        expect 0 unshare -m /tests/probe "$attempt"
    done
}

case_own_rules_for_mounts_hold() {
    printf '%s\n' 'set -eEuo pipefail
        cp -a /etc/apparmor.d policy
        rm -rf policy/libvirt policy/abstractions/libvirt-* policy/local policy/usr.*
        mkdir -p policy/libvirt policy/local
        mount --bind policy /etc/apparmor.d' >own
    printf '. /tests/lib.sh own_mounts %q\n' "$file" >>own
    unshare -m bash own
}
