# The guest itself: without these, what the other cases find means nothing.

case_apparmor_is_on() {
    [ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ]
    [ -r /sys/kernel/security/apparmor/profiles ]
    [ "$(label_of self)" = unconfined ]
}

# A profile made here by hand denies and allows: the twin that shows the kernel does enforce.
case_kernel_enforces() {
    printf 'profile by-hand {\n  /usr/bin/cat mr,\n  /{usr/,}lib/** mr,\n  %s/allowed r,\n  /etc/ld.so.cache r,\n}\n' "$PWD" >profile
    apparmor_parser -K -r profile
    echo yes | tee allowed >forbidden
    mark=$(log_mark)
    expect 0 aa-exec -p by-hand -- /usr/bin/cat "$PWD/allowed"
    says "$stdout" '^yes$'
    expect 1 aa-exec -p by-hand -- /usr/bin/cat "$PWD/forbidden"
    denied "$mark" by-hand "$PWD/forbidden" r
    [ "$(denials_since "$mark" | wc -l)" = 1 ]
    apparmor_parser -R profile
}
