//! Files and directories that are not what they seem.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};

use crate::support::{Place, record, rule, run_in};

fn render(place: &Place) -> (i32, String) {
    let (status, _, err) = place.run(&[], &record(&rule("/own", "rw")));
    (status, err)
}

#[test]
fn a_link_in_the_place_of_a_temporary_file_is_not_written_through() {
    for is_hard in [true, false] {
        let place = Place::new();
        let victim = place.base().join("victim");
        fs::write(&victim, "mine\n").unwrap();
        for part in [".files.new", ".new"] {
            if is_hard {
                fs::hard_link(&victim, place.file(part)).unwrap();
            } else {
                symlink(&victim, place.file(part)).unwrap();
            }
        }
        assert_eq!(render(&place), (0, String::new()));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine\n");
        assert!(place.text(".files").contains("\"/own\" rw,"));
        assert!(!place.file(".files.new").is_symlink() && !place.file(".files.new").exists());
    }
    // What cannot be taken away stops it.
    let place = Place::new();
    fs::create_dir(place.file(".files.new")).unwrap();
    assert_eq!(render(&place).0, 3);
    assert!(!place.file(".files").exists() && !place.file("").exists());
}

/// What is written can be read again: a guest with ever so many disks is refused and not locked out.
#[test]
fn more_rules_than_a_file_may_hold_are_refused() {
    let place = Place::new();
    let rules = |count: usize| {
        // One byte of a path is four in the file.
        let long = format!("/{}", "#".repeat(250)).repeat(15);
        let rules: Vec<String> = (0..count).map(|number| rule(&format!("/{number}{long}"), "rw")).collect();
        record(&rules.join(","))
    };
    for (count, status) in [(690, 0), (690, 0), (700, 1), (690, 0)] {
        let (got, _, err) = place.run(&[], &rules(count));
        assert_eq!((got, err.contains("it would be larger than 10 MiB")), (status, status == 1), "{err}");
        assert_eq!(place.text(".files").lines().filter(|line| line.contains('#')).count(), 1);
        assert_eq!(place.text(".files").lines().filter(|line| line.contains("\\043")).count(), 690);
    }
    let (status, _, _) = place.run(&["--append"], &record(&rule("/own", "rw")));
    assert_eq!(status, 0);
}

#[test]
fn a_directory_in_which_others_can_make_files_is_refused() {
    let place = Place::new();
    for mode in [0o777, 0o1777, 0o703] {
        fs::set_permissions(place.dir(), Permissions::from_mode(mode)).unwrap();
        let (status, err) = render(&place);
        assert!(status == 3 && err.contains("everybody may make files in it"), "{mode:o}: {err}");
        assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0);
    }
    // A group's own files are as open to it as it likes, but for root: with an access list, the bits are not the group's.
    fs::set_permissions(place.dir(), Permissions::from_mode(0o775)).unwrap();
    let is_root = fs::metadata(place.dir()).unwrap().uid() == 0;
    assert_eq!(render(&place).0, if is_root { 3 } else { 0 });
    fs::set_permissions(place.dir(), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(render(&place).0, 0);
}

#[test]
#[ignore = "needs root"]
fn a_directory_of_another_user_or_a_link_of_one_is_refused() {
    let place = Place::new();
    let refused = |why: &str| {
        let (status, err) = render(&place);
        assert!(status == 3 && err.contains(why), "{err}");
        assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0);
    };
    chown(place.dir(), Some(1000), None).unwrap();
    refused("another user owns it");
    for group in [1000, 0] {
        chown(place.dir(), Some(0), Some(group)).unwrap();
        fs::set_permissions(place.dir(), Permissions::from_mode(0o775)).unwrap();
        refused("a group, or whom an access list names, may make files in it");
    }
    fs::set_permissions(place.dir(), Permissions::from_mode(0o755)).unwrap();
    let link = place.base().join("link");
    symlink(place.dir(), &link).unwrap();
    lchown(&link, Some(1000), None).unwrap();
    let through_link = || run_in(&link, place.base(), &[], &record(&rule("/own", "rw")));
    let (status, _, err) = through_link();
    assert!(status == 3 && err.contains("a link that another user can change"), "{err}");
    // The twin: root's own link to root's own directory.
    lchown(&link, Some(0), None).unwrap();
    assert_eq!(through_link().0, 0);
    assert!(place.file(".files").exists());
}

#[test]
#[ignore = "needs root"]
fn a_file_of_another_user_is_not_taken_for_a_profile() {
    let place = Place::new();
    assert_eq!(render(&place).0, 0);
    for part in ["", ".files"] {
        chown(place.file(part), Some(1000), None).unwrap();
        let (status, err) = render(&place);
        assert!(status == 3 && err.contains("another user owns it"), "{err}");
        chown(place.file(part), Some(0), None).unwrap();
    }
    assert_eq!(render(&place).0, 0);
}
