//! What libvirtd appends is granted literally, by the automaton that the real parser makes of the rules.

use std::collections::BTreeSet;

use aa_tests::compiled::{FileDfa, READ, WRITE, compile_text};

use crate::tree::{Tree, guest};

/// Paths that are patterns or profile syntax to whoever does not quote them.
const HOSTILE: [&str; 17] = [
    "/srv/*",
    "/srv/**",
    "/srv/{,**}x",
    "/srv/{,**}",
    "/srv/{a,b}",
    "/srv/[a-z]?",
    "/srv/[^x]",
    "/srv/@{HOME}",
    "/srv/@{pid}x",
    "/srv/\\052",
    "/srv/\\",
    "/srv/x\" rwk,",
    "/srv/\" rwk,\n  \"/**",
    "/srv/a,b #include <x>",
    "/srv/\t\r\u{7f}\u{1}",
    "/srv/é日\u{202e}",
    "/srv/}",
];

/// The rules that `after` has and `before` has not, compiled.
fn compiled(before: &[String], after: &[String]) -> FileDfa {
    let new: Vec<&str> = after.iter().filter(|rule| !before.contains(rule)).map(String::as_str).collect();
    FileDfa::of(&compile_text(format!("profile x {{\n{}\n}}\n", new.join("\n"))).unwrap())
}

fn only(path: &str) -> BTreeSet<Vec<u8>> {
    BTreeSet::from([path.as_bytes().to_vec()])
}

#[test]
#[ignore = "needs apparmor_parser"]
fn appended_paths_are_granted_and_nothing_else() {
    for option in ["-f", "-F"] {
        let tree = Tree::new();
        let xml = guest(1, &["/srv/a.img"]);
        tree.call(&["-c"], &xml).unwrap();
        let before = tree.rules();
        for path in HOSTILE {
            // `-f` makes the file anew each time, `-F` adds to it.
            let known = if option == "-F" { tree.rules() } else { before.clone() };
            tree.call(&["-r", option, path], &xml).unwrap();
            let file = compiled(&known, &tree.rules());
            assert_eq!(file.paths(), Some(only(path)), "{option} {path}");
            assert_eq!(file.access(path.as_bytes()) & (READ | WRITE), READ | WRITE, "{option} {path}");
        }
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn an_appended_subtree_is_below_its_directory_whatever_that_is_called() {
    for path in HOSTILE {
        // libvirtd appends subtrees only of directories that are called by the guest's id and name.
        let path = format!("{path}/1-t1");
        let tree = Tree::new();
        let xml = guest(1, &["/srv/a.img"]);
        tree.call(&["-c"], &xml).unwrap();
        let before = tree.rules();
        tree.call(&["-r", "-F", &format!("{path}/{{,**}}")], &xml).unwrap();
        let file = compiled(&before, &tree.rules());
        assert_eq!(file.paths(), None, "{path}");
        for inside in ["", "x", "x/y"] {
            let inside = format!("{path}/{inside}");
            assert_eq!(file.access(inside.as_bytes()) & (READ | WRITE), READ | WRITE, "{inside}");
        }
        let bytes = path.as_bytes();
        for at in 0..bytes.len() {
            for other in [b'a', b'*', b'/', b'\\', bytes[at] ^ 1] {
                let mut beside = bytes.to_vec();
                beside[at] = other;
                beside.extend(b"/x");
                if beside.starts_with(format!("{path}/").as_bytes()) {
                    continue;
                }
                assert_eq!(file.access(&beside), 0, "{path} {}", beside.escape_ascii());
            }
        }
        for beside in [path.clone(), format!("{path}x/x"), "/srv/other/x".to_owned()] {
            assert_eq!(file.access(beside.as_bytes()), 0, "{path} {beside}");
        }
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn disks_are_granted_whatever_they_are_called() {
    // What XML cannot hold is no name there.
    for path in HOSTILE.iter().filter(|path| !path.contains(['\u{1}', '\n'])) {
        let escaped: Vec<String> = path.chars().map(|c| format!("&#{};", u32::from(c))).collect();
        let tree = Tree::new();
        tree.call(&["-c"], &guest(1, &[])).unwrap();
        let before = tree.rules();
        tree.call(&["-r"], &guest(1, &[escaped.concat().as_str()])).unwrap();
        assert_eq!(compiled(&before, &tree.rules()).paths(), Some(only(path)), "{path}");
    }
}
