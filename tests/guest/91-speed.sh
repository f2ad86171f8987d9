# What saves time leaves the same policy in force: compared by the hash that the kernel publishes of it.

case_timeout=120
on_request=yes
DROP_IN=/usr/lib/aa-svirt/bin/virt-aa-helper

# hash_of PROFILE
hash_of() {
    cat /sys/kernel/security/apparmor/policy/profiles/"$1".*/sha*
}

case_the_helper_loads_what_the_parser_alone_would() {
    local uuid profile helped
    uuid=$(new_uuid)
    profile=libvirt-$uuid
    domain_xml speedy "$uuid" "$IMAGES/speedy.img" >speedy.xml
    "$DROP_IN" -c -u "$profile" <speedy.xml
    "$DROP_IN" -r -u "$profile" -F "/var/lib/libvirt/qemu/domain-1-speedy/{,**}" <speedy.xml
    "$DROP_IN" -r -u "$profile" -F "$IMAGES/speedy-2.img" <speedy.xml
    helped=$(hash_of "$profile")
    apparmor_parser -r -K "$PROFILES/$profile"
    [ "$(hash_of "$profile")" = "$helped" ] || fail "the parser alone loads another policy"
    # The hash tells policies apart.
    "$DROP_IN" -r -u "$profile" -F "$IMAGES/speedy-3.img" <speedy.xml
    [ "$(hash_of "$profile")" != "$helped" ] || fail "one disk more is the same policy"
    "$DROP_IN" -D -u "$profile"
    [ -z "$(mode_of "$profile")" ] || fail "it is still loaded"
}

case_aa_load_loads_the_same_from_its_cache_without_it_and_in_one_write() {
    local first way
    make_guest cached
    first=$(hash_of "$PROFILE")
    for way in "" --no-cache --direct; do
        aa-load remove "$PROFILE"
        [ -z "$(mode_of "$PROFILE")" ] || fail "it is still loaded"
        aa-load $way "$PROFILE"
        [ "$(hash_of "$PROFILE")" = "$first" ] || fail "another policy by aa-load $way"
        expect 0 aa-load $way "$PROFILE"
        says "$stdout" '"unchanged"'
    done
    echo '  "/srv/one-more.img" r,' >>"$PROFILES/$PROFILE.files"
    expect 0 aa-load "$PROFILE"
    says "$stdout" '"replaced"'
    [ "$(hash_of "$PROFILE")" != "$first" ] || fail "one rule more is the same policy"
}
