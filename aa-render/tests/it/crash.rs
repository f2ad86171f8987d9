//! The program killed at each system call that changes something: old or new, never in between.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{PROFILE, Place, record, rule};

/// Runs the program under strace, which kills it as it enters the `number`th call of this name. Says
/// whether it was killed.
fn killed_at(call: &str, number: usize, place: &Place, input: &fs::File) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let status = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", &inject])
        .arg(env!("CARGO_BIN_EXE_aa-render"))
        .args(["--complain", "--base", "/nonexistent", "--dir"])
        .arg(place.dir())
        .stdin(input.try_clone().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    !status.success()
}

#[test]
#[ignore = "needs strace"]
fn killed_anywhere_it_leaves_the_old_or_the_new_state() {
    let (old, new) = (record(&rule("/old", "r")), record(&rule("/new", "rw")));
    let finished = |input: &str, args: &[&str]| {
        let place = Place::new();
        place.run(args, input);
        (place.text(""), place.text(".files"))
    };
    let mut kills = 0;
    for call in ["openat", "fcntl", "unlinkat", "write", "fchmod", "fsync", "renameat", "close"] {
        for number in 1.. {
            let place = Place::new();
            // The include lines name the directory, so both states are made in this very place.
            place.run(&["--complain"], &new);
            let new_state = (place.text(""), place.text(".files"));
            place.run(&["--enforce"], &old);
            let old_state = (place.text(""), place.text(".files"));
            let record = place.dir().join("record");
            fs::write(&record, &new).unwrap();
            if !killed_at(call, number, &place, &fs::File::open(&record).unwrap()) {
                break;
            }
            kills += 1;
            let (base, rules) = (place.text(""), place.text(".files"));
            assert!(base == old_state.0 || base == new_state.0, "{call} {number}: {base}");
            assert!(rules == old_state.1 || rules == new_state.1, "{call} {number}: {rules}");
            // What is included is written first.
            assert!(base == old_state.0 || rules == new_state.1, "{call} {number}");
            // The next run is not kept out by what was left, and leaves nothing behind.
            assert_eq!(place.run(&["--complain"], &new).0, 0, "{call} {number}");
            assert_eq!((place.text(""), place.text(".files")), new_state);
            let names = fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().file_name());
            let left = names.filter(|name| name.to_string_lossy().contains(PROFILE)).count();
            assert!(left <= 3, "{call} {number}: temporary files pile up");
        }
    }
    assert!(kills >= 10, "only {kills} kills");
    assert_ne!(finished(&old, &[]), finished(&new, &[]));
}
