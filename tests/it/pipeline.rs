//! Domain XML all the way to text that the real parser takes.

use aa_tests::compiled::compile_text;

use crate::tools::{derive, output, render, render_whole, run, testqemu};

/// The fixtures that are refused on any host.
const REFUSED: [&str; 9] = [
    "bad-name",
    "first-console",
    "host-services",
    "restricted",
    "restricted-mirror",
    "restricted-socket",
    "unknown-data-store",
    "unknown-pci-function",
    "unknown-shared-memory",
];

/// The whole profile of a domain.
fn profile(xml: &str) -> String {
    let record = output(&mut derive(), xml);
    output(&mut render_whole(), &record)
}

#[test]
fn the_documented_example_has_the_documented_rules() {
    let profile = profile(&testqemu());
    for rule in [
        "profile libvirt-a22e3930-d87a-584e-22b2-1d8950212bac ",
        "  \"/var/log/libvirt/qemu/testqemu.log\" w,\n",
        "  \"/var/lib/libvirt/qemu/domain-3-testqemu/{,**}\" rwk,\n",
        "  \"/run/libvirt/qemu/testqemu.pid\" rwk,\n",
        "  \"/var/lib/libvirt/images/testqemu.img\" rwk,\n",
    ] {
        assert!(profile.contains(rule), "{rule}\n{profile}");
    }
}

/// The emulator's path is the domain's word, as every other: it is executed and read only if the path policy lets it be.
#[test]
fn an_emulator_that_is_none_is_in_no_profile() {
    let qemu = "/usr/bin/qemu-system-x86_64";
    for (emulator, is_granted) in [(qemu, true), ("/etc/shadow", false), ("/usr/bin/bash", false)] {
        let xml = testqemu().replace(&format!("<emulator>{qemu}<"), &format!("<emulator>{emulator}<"));
        assert!(xml.contains(emulator));
        let record = output(&mut derive(), &xml);
        for kind in [&[][..], &["--minimal"]] {
            let profile = output(render_whole().args(kind), &record);
            assert_eq!(
                profile.contains(&format!("  \"{emulator}\" rmix,\n")),
                is_granted,
                "{kind:?} {emulator}"
            );
            assert_eq!(profile.contains(emulator), is_granted, "{kind:?} {emulator}");
        }
    }
}

#[test]
fn one_bad_domain_does_not_stop_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.xml", &testqemu());
    write("b.xml", &testqemu().replace("/var/lib/libvirt/images/testqemu.img", "/etc/shadow"));
    write("c.xml", &testqemu().replace("a22e3930", "b22e3930").replace("testqemu", "other"));
    let derived = run(derive().arg(dir.path()), "");
    assert_eq!(derived.status.code(), Some(1));
    let rendered = output(&mut render(dir.path()), &String::from_utf8(derived.stdout).unwrap());
    assert_eq!(rendered.lines().count(), 2);
}

/// In one run two guests of one UUID are refused (aa-render's own tests); in two the second is what the first is called now.
#[test]
fn a_guest_that_is_called_otherwise_has_its_profile_and_none_of_its_old_names() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("libvirt-a22e3930-d87a-584e-22b2-1d8950212bac.files");
    for (name, other) in [("testqemu", "renamed"), ("renamed", "testqemu")] {
        let record = output(&mut derive(), &testqemu().replace("testqemu", name));
        output(&mut render(dir.path()), &record);
        let text = std::fs::read_to_string(&files).unwrap();
        assert!(text.contains(&format!("/{name}.log\"")) && !text.contains(other), "{text}");
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn each_fixture_compiles() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/domains");
    let mut refused = Vec::new();
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let derived = run(&mut derive(), &std::fs::read_to_string(&path).unwrap());
        if derived.status.code() == Some(1) {
            refused.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
            continue;
        }
        let profile = output(&mut render_whole(), &String::from_utf8(derived.stdout).unwrap());
        compile_text(profile).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    refused.sort_unstable();
    assert_eq!(refused, REFUSED);
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_broken_profile_does_not_compile() {
    let broken = profile(&testqemu()).replace("\"/var/lib/libvirt/images/testqemu.img\" rwk,", "\"/var rwk,");
    assert!(compile_text(broken).is_err());
}
