//! The path policy beside the fragments of profiles: what guests may read anyway, a definition may name.

use std::fs;

use aa_derive::path_policy::{DEFAULT, Owner, PathPolicy, Want};

/// Directories that libraries read by themselves: no definition has a use for a file of theirs.
const OF_LIBRARIES: [&str; 16] = [
    "/etc/alsa",
    "/etc/crypto-policies",
    "/etc/pulse",
    "/etc/qemu",
    "/etc/ssl/certs",
    "/proc/",
    "/sys/",
    "/usr/lib/locale",
    "/usr/share/X11",
    "/usr/share/alsa",
    "/usr/share/ca-certificates",
    "/usr/share/fonts",
    "/usr/share/glib-2.0",
    "/usr/share/icons",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
];

/// The alternatives of a pattern's braces, written out from the innermost on.
fn alternatives(pattern: &str) -> Vec<String> {
    let Some((head, after)) = pattern.split_once('}') else { return vec![pattern.to_owned()] };
    let (before, group) = head.rsplit_once('{').unwrap();
    group.split(',').flat_map(|one| alternatives(&format!("{before}{one}{after}"))).collect()
}

/// The directories that a fragment lets be read with all that is in them.
fn read_whole(fragment: &str) -> Vec<String> {
    let rules = fragment.lines().filter_map(|line| line.trim().strip_suffix(',')?.rsplit_once(' '));
    let reading = rules.filter(|(path, access)| path.starts_with('/') && matches!(*access, "r" | "rk"));
    let paths = reading.flat_map(|(path, _)| alternatives(path));
    paths
        .filter_map(|path| path.strip_suffix("/**").map(|dir| dir.trim_end_matches('*').to_owned()))
        .collect()
}

#[test]
fn what_fragments_let_guests_read_a_definition_may_name() {
    let policy = PathPolicy::parse(DEFAULT).unwrap();
    let owner = Owner { id: None, name: "guest" };
    let check = |path: &str, want| policy.check(path, want, owner).is_ok();
    let is_a_librarys = |dir: &str| OF_LIBRARIES.iter().any(|known| dir.starts_with(known));
    let mut compared = 0;
    let fragments = concat!(env!("CARGO_MANIFEST_DIR"), "/../aa-render/policy/minimal");
    for entry in fs::read_dir(fragments).unwrap() {
        let path = entry.unwrap().path();
        for dir in read_whole(&fs::read_to_string(&path).unwrap()).iter().filter(|dir| !is_a_librarys(dir)) {
            let file = format!("{dir}/file");
            assert!(check(&file, Want::Read), "{}: {dir}", path.display());
            assert!(!check(&file, Want::Write), "{}: {dir}", path.display());
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
    // The twin: what no fragment lets be read.
    assert!(
        !check("/etc/pki/libvirt/private/serverkey.pem", Want::Read) && !check("/usr/share/x", Want::Read)
    );
}

#[test]
fn braces_are_written_out() {
    assert_eq!(alternatives("/a{b,c/{d,}}{,**}").join(" "), "/ab /ab** /ac/d /ac/d** /ab /ab** /ac/ /ac/**");
}
