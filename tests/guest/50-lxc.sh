# A container's profile.

case_a_container_is_confined() {
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
