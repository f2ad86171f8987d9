//! The program killed or failed by the system at each of its calls: old or new, never in between, and the status
//! says which.

use std::fs;
use std::process::Command;

use aa_tests::strace::{self, Fault, Run, changes_are_durable, in_each_call};

use crate::support::{PROFILE, Place, UUID, record, rule};

/// In the order in which they are replaced: what is included comes first.
const PARTS: [&str; 3] = [".files", ".grants", ""];

/// The texts of the profile's files.
type State = [Option<String>; 3];

/// A change of the profile's files, and what they hold before and after it.
struct Change {
    place: Place,
    args: Vec<String>,
    input: String,
    old: State,
    new: State,
    /// What the same call answers once the change is made.
    again: i32,
}

impl Change {
    /// The change that `args` make after the calls in `before`.
    fn new(before: &[(&[&str], &str)], args: &[&str], input: &str, again: i32) -> Self {
        let place = Place::in_directory(aa_tests::directory_in_memory());
        for (args, input) in before {
            assert_eq!(place.run(args, input).0, 0);
        }
        let mut change = Self {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            input: input.to_owned(),
            old: State::default(),
            new: State::default(),
            again,
            place,
        };
        change.old = change.state();
        assert_eq!(change.run(), 0);
        change.new = change.state();
        assert_ne!(change.old, change.new);
        change
    }

    fn state(&self) -> State {
        PARTS.map(|part| fs::read_to_string(self.place.file(part)).ok())
    }

    fn reset(&self) {
        fs::remove_dir_all(self.place.dir()).unwrap();
        aa_tests::own_directory(&self.place.dir());
        for (part, text) in PARTS.iter().zip(&self.old) {
            if let Some(text) = text {
                fs::write(self.place.file(part), text).unwrap();
            }
        }
    }

    fn run(&self) -> i32 {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.place.run(&args, &self.input).0
    }

    fn traced(&self, expression: Option<&str>) -> Run {
        self.reset();
        let mut command = Command::new(env!("CARGO_BIN_EXE_aa-render"));
        command.arg("--dir").arg(self.place.dir()).arg("--base").arg(self.place.base()).args(&self.args);
        strace::run(&command, expression, &self.input)
    }

    fn temporary_files(&self) -> Vec<String> {
        let names = fs::read_dir(self.place.dir()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(PROFILE) && name.contains(".new")).collect()
    }

    /// How many of the parts are new, of those that change: the first ones, or there is half a state.
    fn steps_done(&self) -> Option<usize> {
        let state = self.state();
        (0..=PARTS.len())
            .rev()
            .find(|done| state[..*done] == self.new[..*done] && state[*done..] == self.old[*done..])
    }

    /// Judges what a run with a fault left behind.
    fn check(&self, what: &str, run: &Run) {
        let what = format!("{:?} {what}: status {:?} {}", self.args, run.status, run.stderr);
        let (is_old, is_new) = (self.state() == self.old, self.state() == self.new);
        assert!(self.steps_done().is_some(), "{what}");
        match run.status {
            None => {}
            Some(0) => assert!(is_new, "{what}"),
            // What aa-load goes by is the record; it comes last, and may be what could not be written.
            Some(_) if run.stderr.contains("stdout") || !run.stdout.is_empty() => assert!(is_new, "{what}"),
            Some(_) => assert!(is_old, "{what}"),
        }
        if run.status.is_some() && !what.contains("inject=unlinkat") {
            assert_eq!(self.temporary_files(), [""; 0], "{what}");
        }
        // The next call is not kept out by what was left, and leaves nothing behind.
        let status = self.run();
        assert!(status == 0 || (is_new && status == self.again), "{what}: then {status}");
        assert!(self.state() == self.new, "{what}");
        assert_eq!(self.temporary_files(), [""; 0], "{what}");
    }

    fn survives(&self, fault: Fault) {
        let hits = in_each_call(fault, |expression| {
            let run = self.traced(expression);
            self.check(expression.unwrap_or("no fault"), &run);
            run
        });
        assert!(hits > 10, "{fault:?}: only {hits} faults");
    }
}

fn changes() -> [Change; 5] {
    let (one, two) = (record(&rule("/one", "r")), record(&rule("/two", "rw")));
    let add = ["--uuid", UUID, "--reason", "backup", "--add", "/three"];
    let drop = ["--uuid", UUID, "--drop", "/three"];
    [
        Change::new(&[], &[], &one, 0),
        Change::new(&[(&[], &one)], &["--complain"], &two, 0),
        Change::new(&[(&[], &one)], &["--append"], &two, 0),
        Change::new(&[(&[], &one)], &add, "", 0),
        Change::new(&[(&[], &one), (&add, "")], &drop, "", 1),
    ]
}

#[test]
#[ignore = "needs strace"]
fn killed_at_any_call_it_leaves_the_old_or_the_new_files() {
    for change in changes() {
        change.survives(Fault::Signal("KILL"));
    }
}

#[test]
#[ignore = "needs strace"]
fn terminated_at_any_call_it_leaves_the_old_or_the_new_files() {
    for change in changes() {
        change.survives(Fault::Signal("TERM"));
    }
}

#[test]
#[ignore = "needs strace"]
fn a_call_that_fails_leaves_the_old_files_and_the_status_says_so() {
    for change in changes() {
        change.survives(Fault::Error("EIO"));
    }
}

#[test]
#[ignore = "needs strace"]
fn a_full_system_leaves_the_old_files() {
    for change in changes() {
        change.survives(Fault::Error("ENOSPC"));
    }
}

#[test]
#[ignore = "needs strace"]
fn a_read_only_system_leaves_the_old_files() {
    for change in changes() {
        change.survives(Fault::Error("EROFS"));
    }
}

#[test]
#[ignore = "needs strace"]
fn an_interrupted_call_leaves_the_old_files_or_is_made_again() {
    for change in changes() {
        change.survives(Fault::Error("EINTR"));
    }
}

#[test]
#[ignore = "needs strace"]
fn each_rename_is_preceded_and_followed_by_a_sync() {
    for change in changes() {
        let log = change.traced(None).log;
        assert!(changes_are_durable(&log) > 0, "{log}");
    }
    // A directory that is made is made to last as well.
    let place = Place::new();
    fs::remove_dir(place.dir()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aa-render"));
    command.arg("--dir").arg(place.dir()).arg("--base").arg(place.base());
    let log = strace::run(&command, None, &record(&rule("/one", "r"))).log;
    let (_, rest) = log.split_once("\nmkdir(").unwrap();
    assert!(rest.contains(&format!("fsync(3<{}>", place.base().display())), "{log}");
}

/// A file system that is really full, by more and more pages.
#[test]
#[ignore = "needs root"]
fn on_a_full_disk_the_old_files_stay() {
    let (old, new) = (record(&rule("/old", "r")), record(&rule("/new", "rw")));
    let script = r#"
        mount -t tmpfs -o size=64k,mode=755 none "$1/profiles"
        run() { "$0" --dir "$1/profiles" --base "$1" "$2" < "$1/$3"; }
        run "$1" --enforce old >/dev/null
        cp -r "$1/profiles" "$1/before"
        head -c 65536 /dev/zero > "$1/profiles/filler" || true
        failed=0
        until run "$1" --complain new > "$1/out" 2> "$1/err"; do
            failed=$((failed + 1))
            grep -q 'no space left on device' "$1/err"
            [ ! -s "$1/out" ]
            for file in "$1"/before/*; do cmp "$file" "$1/profiles/${file##*/}"; done
            ! ls "$1/profiles" | grep '[.]new$'
            truncate -s -4096 "$1/profiles/filler"
        done
        grep -q 'complain' "$1/profiles/libvirt-a22e3930-d87a-584e-22b2-1d8950212bac"
        [ "$failed" -ge 2 ]"#;
    let place = Place::new();
    fs::write(place.base().join("old"), old).unwrap();
    fs::write(place.base().join("new"), new).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-euxc", script, env!("CARGO_BIN_EXE_aa-render")])
        .arg(place.base())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Address space that is too small, from almost none to enough.
#[test]
fn out_of_memory_it_leaves_the_old_files() {
    let (old, new) = (record(&rule("/old", "r")), record(&rule("/new", "rw")));
    let change = Change::new(&[(&[], &old)], &["--complain"], &new, 0);
    fs::write(change.place.base().join("input"), &new).unwrap();
    let mut failed = 0;
    for kib in (1024..).step_by(256) {
        change.reset();
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("ulimit -v {kib} && exec \"$@\""),
                "sh",
                env!("CARGO_BIN_EXE_aa-render"),
                "--dir",
            ])
            .arg(change.place.dir())
            .arg("--base")
            .arg(change.place.base())
            .args(["--complain".into(), change.place.base().join("input")])
            .output()
            .unwrap();
        if output.status.success() {
            break;
        }
        failed += 1;
        assert!(change.state() == change.old, "{kib}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(change.state() == change.new && failed > 2, "only {failed} limits were too small");
}
