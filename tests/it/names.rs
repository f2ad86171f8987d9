//! Whatever a guest is called, its profile reaches what carries that name and nothing that carries another.

use std::collections::BTreeSet;

use aa_tests::compiled::{FileDfa, READ, WRITE, compile_text};

use crate::tools::{derive, escaped, output, render_whole, testqemu};

/// Names that are patterns or profile syntax to whoever does not quote them.
const HOSTILE: [&str; 14] = [
    "*",
    "**",
    "?",
    "[a-z]",
    "{a,b}",
    "{,**}",
    "@{HOME}",
    "\\052",
    "a\" rwk,",
    "a #include <x>",
    "}",
    "é日\u{202e}",
    "7-victim",
    " ",
];

/// The profile of a running guest with this name, made from a template that allows nothing.
fn profile(name: &str) -> FileDfa {
    let name = format!("<name>{}</name>", escaped(name));
    let xml = testqemu().replace("<name>testqemu</name>", &name).replace("id='3'", "id='9'");
    let record = output(&mut derive(), &xml);
    let templates = tempfile::tempdir().unwrap();
    std::fs::write(templates.path().join("TEMPLATE.qemu"), "profile LIBVIRT_TEMPLATE {\n}\n").unwrap();
    let profile = output(render_whole().arg("--template-dir").arg(templates.path()), &record);
    FileDfa::of(&compile_text(profile).unwrap())
}

/// What a guest called so has for itself.
fn own(name: &str) -> [String; 5] {
    let short: String = name.chars().take(20).collect();
    [
        format!("/run/libvirt/qemu/{name}.pid"),
        format!("/run/libvirt/qemu/qemu.tunnelmigrate.dest.{name}"),
        format!("/var/lib/libvirt/qemu/domain-9-{short}/monitor.sock"),
        format!("/run/libvirt/qemu/channel/9-{short}/agent"),
        format!("/var/lib/libvirt/qemu/channel/target/domain-9-{short}/agent"),
    ]
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_guest_reaches_its_own_state_and_nobody_elses() {
    let plain = (b' '..=b'~').map(char::from).filter(|c| *c != '/').map(|c| format!("a{c}b"));
    for name in plain.chain(HOSTILE.map(str::to_owned)) {
        let file = profile(&name);
        for path in own(&name) {
            assert_eq!(file.access(path.as_bytes()) & (READ | WRITE), READ | WRITE, "{name}: {path}");
        }
        let log = format!("/var/log/libvirt/qemu/{name}.log");
        assert_eq!(file.access(log.as_bytes()) & WRITE, WRITE, "{name}");
        let others: BTreeSet<String> =
            ["a", "aXb", "aXYb", "ab", "a/b", "victim", &format!("{name}x"), &format!("x{name}")]
                .map(str::to_owned)
                .into_iter()
                .filter(|other| *other != name)
                .collect();
        for other in others {
            for path in own(&other).into_iter().chain([
                format!("/var/log/libvirt/qemu/{other}.log"),
                format!("/var/lib/libvirt/qemu/domain-7-{other}/monitor.sock"),
                format!("/run/libvirt/qemu/channel/7-{other}/agent"),
            ]) {
                assert_eq!(file.access(path.as_bytes()), 0, "{name}: {path}");
            }
        }
    }
}
