# Guests of libvirtd's with hostile names: each starts confined, or is refused and leaves nothing in force.
case_timeout=600
on_request=yes

setup() {
    start_libvirtd
    host_file "$IMAGES/names.img" "$IMAGES/names-neighbour.img"
}

teardown() {
    stop_libvirtd
}

# name_xml NAME UUID
name_xml() {
    domain_xml "$(xml_escape "$1")" "$2" "$IMAGES/names.img" | grep -v '<serial'
}

# Names like any other to libvirt's own helper.
plain_names() {
    # shellcheck disable=SC2016
    printf '%s\n' 'a b#c' "it's %n" 'ä日' 'back\slash' '$(id)' '-rf' '7-victim' 'default'
}

# Each of these has what that one refuses, and so does ours.
other_names() {
    printf '%s\n' '@{pid}' 'star*' '[abc]' '{a,b}' 'qu"ote' '..' 'sl/ash'
}

case_each_name_is_confined_or_refused() {
    local name uuid profile
    : >confined
    : >refused
    while IFS= read -r name; do
        uuid=$(new_uuid)
        profile=libvirt-$uuid
        name_xml "$name" "$uuid" >name.xml
        if virsh define name.xml >define.out 2>&1 && virsh start --paused --domain "$uuid" >start.out 2>&1; then
            printf '%s\n' "$name" >>confined
            local pid
            pid=$(pgrep -f "uuid $uuid")
            [ "$(label_of "$pid")" = "$profile (enforce)" ]
            # Its own disk, and neither its neighbour's nor another guest's log, pid file or monitor.
            expect 0 aa-exec -p "$profile" -- /bin/dash -c ': <"$0"' "$IMAGES/names.img"
            local other
            for other in "$IMAGES/names-neighbour.img" /var/log/libvirt/qemu/victim.log /run/libvirt/qemu/victim.pid \
                /run/libvirt/network/default.pid \
                /var/lib/libvirt/qemu/domain-7-victim/master-key.aes; do
                mkdir -p "$(dirname "$other")"
                [ -e "$other" ] || touch "$other"
                expect 2 aa-exec -p "$profile" -- /bin/dash -c ': <>"$0"' "$other"
                says "$stderr" 'Permission denied'
            done
            virsh destroy --domain "$uuid"
            wait_for profile_gone "$profile"
        else
            printf '%s\n' "$name" >>refused
            echo "refused: $name: $(cat define.out start.out 2>/dev/null)"
            grep -q '^error: ' define.out start.out
            [ -z "$(mode_of "$profile")" ]
            [ ! -e "$PROFILES/$profile.files" ]
        fi
        rm -f define.out start.out
        virsh undefine --domain "$uuid" >/dev/null 2>&1 || true
    done < <(plain_names; other_names)
    plain_names | diff - confined
    other_names | diff - refused
}
