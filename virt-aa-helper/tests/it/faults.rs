//! The program killed or failed by the system at each of its calls, in a mount namespace where the parser is a script
//! that plays the kernel.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use aa_tests::strace::{self, Fault, Run, changes_are_durable, in_each_call};

use crate::tree::{NAME, guest};

/// Holds what it was given to load until it is told to remove it; one that is not held cannot be removed.
const PARSER: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
cat >/dev/null
case $1 in
-R) [ -e HERE/kernel ] || exit 254; rm HERE/kernel ;;
*) cat "$4" "$4.files" >HERE/kernel.new && mv HERE/kernel.new HERE/kernel ;;
esac
"#;

/// Puts the tree in the place of the host's policy and of its parser.
const MOUNTS: &str = r#"
mount --bind "$0/etc" /etc/apparmor.d
mount --bind "$0/parser" /usr/sbin/apparmor_parser
exec "$@""#;

/// What is on disk, without the helper's notes, and what is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    base: Option<String>,
    rules: Option<String>,
    kernel: Option<String>,
}

/// One call of the helper, what there is before it, and what there must be after it.
struct Call {
    dir: tempfile::TempDir,
    mode: Vec<String>,
    xml: String,
    files: Vec<(PathBuf, String)>,
    old: State,
    new: State,
}

impl Call {
    fn new(before: &[(&[&str], &str)], mode: &[&str], xml: &str) -> Self {
        let dir = aa_tests::directory_in_memory();
        aa_tests::own_directory(&dir.path().join("etc/libvirt"));
        let parser = dir.path().join("parser");
        fs::write(&parser, PARSER.replace("HERE", dir.path().to_str().unwrap())).unwrap();
        fs::set_permissions(&parser, Permissions::from_mode(0o755)).unwrap();
        let none = State { base: None, rules: None, kernel: None };
        let mut call =
            Self { dir, mode: Vec::new(), xml: String::new(), files: vec![], old: none.clone(), new: none };
        for (mode, xml) in before {
            call.set(mode, xml);
            assert_eq!(call.run(&[]).status, Some(0), "{mode:?}");
        }
        call.old = call.state();
        let kept = ["", ".files"].map(|suffix| call.file(suffix)).into_iter().chain([call.kernel()]);
        call.files = kept.filter_map(|file| Some((file.clone(), fs::read_to_string(file).ok()?))).collect();
        call.set(mode, xml);
        let run = call.run(&[]);
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        call.new = call.state();
        assert_ne!(call.old, call.new);
        call
    }

    fn set(&mut self, mode: &[&str], xml: &str) {
        self.mode = mode.iter().map(|word| (*word).to_owned()).collect();
        xml.clone_into(&mut self.xml);
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("etc/libvirt/{NAME}{suffix}"))
    }

    fn kernel(&self) -> PathBuf {
        self.dir.path().join("kernel")
    }

    fn state(&self) -> State {
        let read = |path: PathBuf| {
            let text = fs::read_to_string(path).ok()?;
            let lines = text.lines().filter(|line| !line.starts_with("# virt-aa-helper: "));
            Some(lines.collect::<Vec<_>>().join("\n"))
        };
        State { base: read(self.file("")), rules: read(self.file(".files")), kernel: read(self.kernel()) }
    }

    /// Whether the helper believes that what is on disk is in force.
    fn is_noted(&self) -> bool {
        fs::read_to_string(self.file(".files")).is_ok_and(|text| text.contains("\"loaded\":"))
    }

    fn run(&self, expressions: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virt-aa-helper"));
        command.args(["-u", NAME]).args(&self.mode);
        let way = ["unshare", "--mount", "sh", "-euc", MOUNTS, self.dir.path().to_str().unwrap()];
        strace::run_by(&way, &command, expressions.iter().copied(), &self.xml)
    }

    /// Runs it with what `before`, in shell, says of its process, and with this for its standard error.
    fn run_with(&self, before: &str, stderr: Stdio) -> Run {
        let script = format!("{before}exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", MOUNTS]).arg(self.dir.path());
        command.args(["sh", "-euc", &script, "sh", env!("CARGO_BIN_EXE_virt-aa-helper"), "-u", NAME]);
        let mut child = command
            .args(&self.mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        // It may end before it has read everything.
        drop(child.stdin.take().unwrap().write_all(self.xml.as_bytes()));
        Run::new(&child.wait_with_output().unwrap(), String::new())
    }

    /// The same as libvirtd would call it next: it goes by whether there is a base profile.
    fn again(&mut self, besides: &[&str]) -> Run {
        let mode = self.mode.clone();
        if self.mode[0] == "-c" && self.file("").exists() {
            "-r".clone_into(&mut self.mode[0]);
        }
        let run = self.run(besides);
        self.mode = mode;
        run
    }

    fn reset(&self) {
        for dir in ["etc/libvirt", "."] {
            for entry in fs::read_dir(self.dir.path().join(dir)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() && entry.file_name() != "parser" {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        for (file, text) in &self.files {
            fs::write(file, text).unwrap();
        }
    }

    fn check(&mut self, what: &str, run: &Run, besides: &[&str]) {
        let what = format!("{:?} {what}: status {:?} {}", self.mode, run.status, run.stderr);
        let state = self.state();
        assert!([&self.old.base, &self.new.base].contains(&&state.base), "{what}");
        assert!([&self.old.rules, &self.new.rules].contains(&&state.rules), "{what}");
        assert!([&self.old.kernel, &self.new.kernel].contains(&&state.kernel), "{what}");
        // What it includes comes before the base profile, and both before the kernel.
        assert!(state.base == self.old.base || state.rules == self.new.rules, "{what}");
        match run.status {
            None => {}
            Some(0) => assert!(state == self.new, "{what}"),
            Some(_) => {
                assert!((&state.base, &state.rules) == (&self.old.base, &self.old.rules), "{what}");
                // Who cannot wait for the parser does not know what it did, and says so to the next call.
                assert!(state.kernel == self.old.kernel || !self.is_noted(), "{what}");
            }
        }
        assert!(!self.is_noted() || state.kernel.is_some(), "{what}");
        let run = self.again(besides);
        assert_eq!(run.status, Some(0), "{what}; then {}", run.stderr);
        assert!(self.state() == self.new, "{what}");
        let names = fs::read_dir(self.dir.path().join("etc/libvirt")).unwrap();
        for name in names.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            let expected = name == NAME || name == format!("{NAME}.files") || !name.starts_with(NAME);
            assert!(expected, "{what}: {name} is left");
        }
    }

    fn survives(&mut self, fault: Fault, besides: &[&str]) {
        let hits = in_each_call(fault, |expression| {
            self.reset();
            let expressions: Vec<&str> = expression.into_iter().chain(besides.iter().copied()).collect();
            let run = self.run(&expressions);
            self.check(expression.unwrap_or("no fault"), &run, besides);
            run
        });
        assert!(hits > 10, "{fault:?}: only {hits} faults");
    }
}

fn calls() -> [Call; 5] {
    calls_for(&guest(1, &["/srv/a.img"]), &guest(1, &["/srv/b.img"]))
}

/// One of each kind, for a guest and what becomes of it.
fn calls_for(one: &str, two: &str) -> [Call; 5] {
    let created: (&[&str], &str) = (&["-c"], one);
    [
        Call::new(&[], &["-c"], one),
        Call::new(&[created], &["-r"], two),
        Call::new(&[created], &["-r", "-F", "/srv/hot.img"], one),
        Call::new(&[created], &["-R"], ""),
        Call::new(&[created], &["-D"], ""),
    ]
}

#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn killed_at_any_call_it_leaves_the_old_or_the_new_policy() {
    for mut call in calls() {
        call.survives(Fault::Signal("KILL"), &[]);
    }
}

#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn a_call_that_fails_leaves_the_old_policy_and_the_status_says_so() {
    for mut call in calls() {
        call.survives(Fault::Error("EIO"), &[]);
    }
}

#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn terminated_at_any_call_it_leaves_the_old_or_the_new_policy() {
    for mut call in calls() {
        call.survives(Fault::Signal("TERM"), &[]);
    }
}

#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn a_full_system_leaves_the_old_policy() {
    for mut call in calls() {
        call.survives(Fault::Error("ENOSPC"), &[]);
    }
}

#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn a_read_only_system_leaves_the_old_policy() {
    for mut call in calls() {
        call.survives(Fault::Error("EROFS"), &[]);
    }
}

#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn an_interrupted_call_leaves_the_old_policy_or_is_made_again() {
    for mut call in calls() {
        call.survives(Fault::Error("EINTR"), &[]);
    }
}

/// Address space that is too small, from almost none to enough. The parser has no more than the helper.
#[test]
#[ignore = "needs root and apparmor_parser"]
fn out_of_memory_it_leaves_the_old_policy() {
    for mut call in calls() {
        let mut failed = 0;
        for kib in (1024..).step_by(512) {
            call.reset();
            let run = call.run_with(&format!("ulimit -v {kib}; "), Stdio::piped());
            call.check(&format!("{kib} KiB"), &run, &[]);
            if run.status == Some(0) {
                break;
            }
            failed += 1;
        }
        assert!(failed > 2, "only {failed} limits were too small");
    }
}

/// What cannot be said is not done; what there is nothing to say of is.
#[test]
#[ignore = "needs root and apparmor_parser"]
fn with_a_standard_error_that_is_full_or_closed_it_does_all_or_nothing() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for stderr in [full, closed] {
        // Nothing is said of a guest without a disk, which may be missing.
        for mut call in calls_for(&guest(1, &[]), &guest(2, &[])) {
            call.reset();
            let run = call.run_with("", stderr());
            assert_eq!(run.status, Some(0), "{:?}", call.mode);
            call.check("nothing to say", &run, &[]);
            // It has something to say, or somebody else's XML to refuse.
            let is_given_xml = !call.xml.is_empty();
            for xml in [call.xml.replace("</domain>", "<flubber/></domain>"), "<domain/>".to_owned()] {
                let quiet = std::mem::replace(&mut call.xml, xml);
                call.reset();
                let run = call.run_with("", stderr());
                assert_eq!(run.status, Some(i32::from(is_given_xml)), "{:?} {}", call.mode, call.xml);
                assert!(!is_given_xml || call.state() == call.old, "{:?} {}", call.mode, call.xml);
                call.xml = quiet;
            }
        }
    }
}

/// Debian's profile for the helper permits no lock on a file.
#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn killed_where_no_file_may_be_locked_it_keeps_nobody_out() {
    let [_, mut update, ..] = calls();
    update.survives(Fault::Signal("KILL"), &["inject=fcntl:error=EACCES"]);
}

#[test]
#[ignore = "needs root, strace and apparmor_parser"]
fn each_change_is_synced() {
    for call in calls() {
        call.reset();
        let log = call.run(&[]).log;
        assert!(changes_are_durable(&log) > 0, "{log}");
    }
}
