//! The program when the system, the parser or the files fail it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use aa_tests::strace::{self, Fault, Run, in_each_call, in_each_call_and_look};

use crate::merge::PINNED;
use crate::support::{FAKE, Host, NAME, OTHER, blob, text};

/// Where the parser that is a script has noted a compile.
const COMPILE: &str = "cat > \"$here/features-seen\"";

/// A way to load, and what it is given.
#[derive(Debug, Clone, Copy)]
struct Way {
    args: &'static [&'static str],
    /// The record on standard input.
    by_record: bool,
    /// Before, the kernel holds nothing.
    from_nothing: bool,
    /// By the real parser, which a script runs.
    is_real: bool,
}

const PLAIN: Way = Way { args: &[NAME], by_record: false, from_nothing: false, is_real: false };
const BY_RECORD: Way = Way { args: &[], by_record: true, ..PLAIN };
const ADD: Way = Way { args: &["add", NAME], from_nothing: true, ..PLAIN };
const MERGE: Way = Way {
    args: &["--merge", "--kernel-features", PINNED, "--policy-features", PINNED, NAME],
    is_real: true,
    ..PLAIN
};

/// A host whose kernel holds a profile, or nothing, and where other policy for it waits to be loaded.
struct Update {
    host: Host,
    way: Way,
    /// What the kernel holds, and the cache, before.
    old: Option<String>,
    entry: Option<Vec<u8>>,
    /// What it holds after: with a merge, one of two.
    new: Vec<String>,
}

impl Update {
    fn new() -> Self {
        Self::by(PLAIN)
    }

    fn by(way: Way) -> Self {
        let host = if way.is_real { crate::merge::host() } else { Host::new() };
        let mut update = Self { host, way, old: None, entry: None, new: Vec::new() };
        update.load(2);
        update.new.extend(update.held());
        if way.is_real {
            let whole: Vec<&str> = way.args.iter().copied().filter(|word| *word != "--merge").collect();
            assert!(update.host.run(&whole, "").status.success());
            update.new.extend(update.held());
        }
        if way.from_nothing {
            update.forget();
        } else {
            update.load(1);
            update.old = update.held();
            update.entry = Some(fs::read(update.entry()).unwrap());
            assert!(!update.new.contains(update.old.as_ref().unwrap()));
        }
        update
    }

    fn forget(&self) {
        drop(fs::remove_dir_all(self.loaded()));
        drop(fs::remove_file(self.entry()));
    }

    /// Writes policy with this number, and loads it.
    fn load(&self, salt: u8) {
        self.write(salt);
        let output = self.output();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn output(&self) -> std::process::Output {
        if self.way.from_nothing {
            // It would be refused where it was loaded after all.
            return self.host.run(&[NAME], "");
        }
        self.host.run(self.way.args, &self.stdin())
    }

    fn stdin(&self) -> String {
        if self.way.by_record { self.host.record(NAME) } else { String::new() }
    }

    fn write(&self, salt: u8) {
        if self.way.is_real {
            let rules = format!("  \"/srv/disk{salt}.img\" rwk,\n");
            fs::write(self.host.at(&format!("d/{NAME}.files")), rules).unwrap();
        } else {
            fs::write(self.host.at(&format!("{NAME}.blob")), blob(NAME, salt)).unwrap();
            fs::write(self.host.at("base/abstractions/one"), format!("/{salt} r,\n")).unwrap();
        }
        drop(fs::remove_file(self.host.at("log")));
    }

    fn loaded(&self) -> PathBuf {
        self.host.at(&format!("fs/apparmor/policy/profiles/{NAME}.1"))
    }

    fn entry(&self) -> PathBuf {
        self.host.at(&format!("cache/{NAME}.policy"))
    }

    /// The hash of what the kernel holds.
    fn held(&self) -> Option<String> {
        fs::read_to_string(self.loaded().join("sha256")).ok()
    }

    fn was_loaded(&self) -> bool {
        fs::read_to_string(self.host.at("log")).is_ok_and(|log| log.contains("load"))
    }

    fn run(&self, expression: Option<&str>) -> Run {
        match (&self.old, &self.entry) {
            (Some(old), Some(entry)) => {
                fs::write(self.loaded().join("sha256"), old).unwrap();
                fs::write(self.entry(), entry).unwrap();
            }
            _ => self.forget(),
        }
        self.write(2);
        strace::run(&self.host.command(self.way.args), expression, &self.stdin())
    }

    fn check(&self, what: &str, run: &Run) {
        let what = format!("{:?} {what}: status {:?} {}", self.way.args, run.status, run.stderr);
        let held = self.held();
        let is_new = held.as_ref().is_some_and(|held| self.new.contains(held)) && self.was_loaded();
        // Who cannot read back or write the record says so.
        let is_said = run.stderr.contains("standard output") || run.stderr.contains("is not known");
        match run.status {
            Some(0) => assert!(is_new, "{what}"),
            Some(_) => assert!(held == self.old || is_new && is_said, "{what}: {held:?}"),
            None => assert!(held == self.old || is_new, "{what}: {held:?}"),
        }
        assert!(run.status == Some(0) || run.status.is_none() || !run.stderr.is_empty(), "{what}");
        let output = self.output();
        assert!(output.status.success(), "{what}; then {}", text(&output.stderr));
        assert!(self.held().is_some_and(|held| self.new.contains(&held)), "{what}");
        for directory in ["cache", "d"] {
            for entry in fs::read_dir(self.host.at(directory)).unwrap() {
                let name = entry.unwrap().file_name();
                let name = name.to_string_lossy();
                let is_left = name.starts_with(".new") || name.starts_with(&format!("{NAME}.lock"));
                assert!(!is_left, "{what}: {name} is left");
            }
        }
    }

    fn survives(&self, fault: Fault) {
        let hits = in_each_call(fault, |expression| self.one(expression));
        assert!(hits > 10, "{fault:?}: only {hits} faults");
    }

    /// The same, with errors in the calls that only look, too.
    fn survives_blindness(&self, fault: Fault) {
        let hits = in_each_call_and_look(fault, |expression| self.one(expression));
        assert!(hits > 50, "{fault:?}: only {hits} faults");
    }

    fn one(&self, expression: Option<&str>) -> Run {
        let run = self.run(expression);
        self.check(expression.unwrap_or("no fault"), &run);
        run
    }
}

#[test]
#[ignore = "needs strace"]
fn killed_at_any_call_it_leaves_the_old_or_the_new_policy() {
    Update::new().survives(Fault::Signal("KILL"));
}

#[test]
#[ignore = "needs strace"]
fn terminated_at_any_call_it_leaves_the_old_or_the_new_policy() {
    Update::new().survives(Fault::Signal("TERM"));
}

#[test]
#[ignore = "needs strace"]
fn a_call_that_fails_is_told_with_what_became_of_the_policy() {
    Update::new().survives_blindness(Fault::Error("EIO"));
}

#[test]
#[ignore = "needs strace"]
fn a_full_read_only_or_interrupted_system_leaves_the_old_policy_or_says_otherwise() {
    let update = Update::new();
    for error in ["ENOSPC", "EROFS", "EINTR"] {
        update.survives(Fault::Error(error));
    }
}

#[test]
#[ignore = "needs strace"]
fn what_is_added_is_nothing_or_the_new_policy() {
    let update = Update::by(ADD);
    update.survives(Fault::Signal("KILL"));
    update.survives(Fault::Error("EIO"));
}

#[test]
#[ignore = "needs strace"]
fn what_comes_by_records_is_the_old_or_the_new_policy_too() {
    Update::by(BY_RECORD).survives_blindness(Fault::Error("EIO"));
}

#[test]
#[ignore = "needs strace and apparmor_parser"]
fn what_is_merged_is_the_old_or_the_new_policy_too() {
    let update = Update::by(MERGE);
    update.survives(Fault::Signal("KILL"));
    update.survives(Fault::Error("EIO"));
}

#[test]
#[ignore = "needs strace"]
fn a_removal_is_done_or_not_and_the_status_says_which() {
    let update = Update::new();
    let removed = || fs::read_to_string(update.host.at("fs/apparmor/.remove")).unwrap();
    for fault in [Fault::Signal("KILL"), Fault::Signal("TERM"), Fault::Error("EIO"), Fault::Error("EINTR")] {
        let hits = in_each_call(fault, |expression| {
            fs::write(update.host.at("fs/apparmor/.remove"), "").unwrap();
            let run = strace::run(&update.host.command(&["remove", NAME]), expression, "");
            assert!(["", NAME].contains(&removed().as_str()), "{expression:?}");
            let said = run.stderr.contains("standard output");
            match run.status {
                Some(0) => assert_eq!(removed(), NAME, "{expression:?}"),
                Some(_) => {
                    assert_eq!(removed(), if said { NAME } else { "" }, "{expression:?}: {}", run.stderr);
                }
                None => {}
            }
            run
        });
        assert!(hits > 10, "{fault:?}: only {hits} faults");
    }
}

#[test]
#[ignore = "needs strace"]
fn gc_takes_the_file_of_no_profile_that_is_in_the_kernel_and_says_what_it_took() {
    let host = Host::new();
    fs::remove_file(host.at("d").join(OTHER)).unwrap();
    assert!(host.run(&[NAME], "").status.success());
    let removed = || fs::read_to_string(host.at("fs/apparmor/.remove")).unwrap();
    let file = host.at("d").join(NAME);
    for fault in [Fault::Signal("KILL"), Fault::Error("EIO")] {
        let hits = in_each_call(fault, |expression| {
            fs::write(host.at("fs/apparmor/.remove"), "").unwrap();
            host.profile(NAME);
            let run = strace::run(&host.command(&["gc", "--min-age", "0"]), expression, "");
            let what = format!("{expression:?}: {:?} {}{}", run.status, run.stdout, run.stderr);
            assert!(["", NAME].contains(&removed().as_str()), "{what}");
            assert!(removed() == NAME || file.exists(), "{what}");
            let is_said = run.stdout.contains(NAME) || run.stderr.contains("standard output");
            match run.status {
                Some(0) => assert!(removed() == NAME && !file.exists(), "{what}"),
                Some(_) => assert!(removed().is_empty() || is_said, "{what}"),
                None => {}
            }
            run
        });
        assert!(hits > 10, "{fault:?}: only {hits} faults");
    }
}

#[test]
#[ignore = "needs strace"]
fn nothing_is_removed_that_could_not_be_looked_at() {
    let host = Host::new();
    for name in [NAME, OTHER] {
        assert!(host.run(&[name], "").status.success());
    }
    // One is carried, the other about to be entered.
    host.process(41, &format!("{NAME} (enforce)"));
    host.process(42, "unconfined");
    fs::write(host.at("proc/42/cmdline"), format!("aa-confine\0--profile\0{OTHER}\0--\0qemu\0")).unwrap();
    let kept = |args: &[&str]| {
        let hits = in_each_call_and_look(Fault::Error("EIO"), |expression| {
            let run = strace::run(&host.command(args), expression, "");
            let removed = fs::read_to_string(host.at("fs/apparmor/.remove")).unwrap();
            assert_eq!(removed, "", "{args:?} {expression:?}: {}", run.stderr);
            assert!(host.at("d").join(NAME).exists() && host.at("d").join(OTHER).exists(), "{expression:?}");
            run
        });
        assert!(hits > 50, "{args:?}: only {hits} faults");
    };
    kept(&["remove", NAME, OTHER]);
    kept(&["gc", "--min-age", "0"]);
    // One is defined, the other was written just now.
    for pid in [41, 42] {
        fs::remove_dir_all(host.at(&format!("proc/{pid}"))).unwrap();
    }
    let uuid = OTHER.trim_start_matches("libvirt-");
    fs::write(host.at("defs/x.xml"), format!("<domain><uuid>{uuid}</uuid></domain>")).unwrap();
    kept(&["gc"]);
}

/// Address space that is too small, from almost none to enough.
#[test]
fn out_of_memory_it_leaves_the_old_policy_or_says_otherwise() {
    let update = Update::new();
    let mut failed = 0;
    for kib in (0..).map(|step: u64| 2048 << (step / 2) | (step % 2 * (1024 << (step / 2)))) {
        update.load(1);
        update.write(2);
        let command = update.host.command(&[NAME]);
        let limited = std::process::Command::new("sh")
            .args(["-c", &format!("ulimit -v {kib} && exec \"$@\""), "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = text(&limited.stderr);
        if limited.status.success() {
            assert!(update.new.contains(&update.held().unwrap()));
            break;
        }
        failed += 1;
        let is_said = error.contains("is not known") || error.contains("standard output");
        // Where even that takes memory, nobody is told.
        let is_ended = !matches!(limited.status.code(), Some(1..=3));
        let is_old = update.held() == update.old;
        assert!(is_old || update.was_loaded() && (is_said || is_ended), "{kib}: {error}");
        assert!(!error.contains("panicked"), "{kib}: {error}");
    }
    assert!(failed > 2, "only {failed} limits were too small");
    let output = update.host.run(&[NAME], "");
    assert!(output.status.success() && text(&output.stdout).contains("unchanged"));
}

#[test]
fn a_parser_that_lies_is_not_believed() {
    let host = Host::new();
    let parser = |script: &str| fs::write(host.at("parser"), script).unwrap();
    let compiled = "echo compile >> \"$here/log\"";
    for (what, instead, message, status) in [
        ("compiles nothing, and says that it did", "exit 0", "refused it", 1),
        ("writes what is no policy", "head -c 100000 /dev/urandom; exit 0", "wrote no policy", 3),
        (
            "writes policy and says that it failed",
            "cat \"$here/$(basename \"$last\").blob\"; exit 1",
            "refused it",
            1,
        ),
        ("talks for megabytes", "head -c 30000000 /dev/zero >&2; exit 1", "refused it", 1),
    ] {
        parser(&FAKE.replace(compiled, instead));
        let output = host.run(&["--no-cache", NAME], "");
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(status), ""), "{what}");
        let error = text(&output.stderr);
        assert!(error.contains(message) && error.len() < 20_000, "{what}: {error}");
        assert!(!host.at("fs/apparmor/policy/profiles").join(format!("{NAME}.1")).exists(), "{what}");
    }
    // It loads nothing and says that it did, or that it failed, or says nothing.
    let load = "echo load >> \"$here/log\"";
    parser(&FAKE.replace(load, "exit 0"));
    host.expect(&[NAME], "", 3, &[], &["is missing"], "compile");
    parser(&FAKE.replace(load, "exit 1"));
    host.expect(&[NAME], "", 3, &[], &["no privilege"], "compile");
    parser(&FAKE.replace(load, "exec sleep 60"));
    host.expect(&["--timeout", "5", NAME], "", 3, &[], &["was ended after 5 seconds"], "compile");
    assert!(!host.at("fs/apparmor/policy/profiles").join(format!("{NAME}.1")).exists());
    // The twins: it loads, and fails or hangs then. What the kernel says counts.
    for (salt, end) in [(1, "exit 1"), (2, "exec sleep 60"), (3, "kill -SEGV $$")] {
        fs::write(host.at(&format!("{NAME}.blob")), blob(NAME, salt)).unwrap();
        parser(&FAKE.replace("rm \"$blob\"", &format!("rm \"$blob\"; {end}")));
        let action = if salt == 1 { "added" } else { "replaced" };
        host.expect(&["--timeout", "5", NAME], "", 0, &[action], &[], "compile load");
    }
    // Without a hash the kernel does not say that it is this policy.
    fs::write(host.at(&format!("{NAME}.blob")), blob(NAME, 4)).unwrap();
    parser(&FAKE.replace("rm \"$blob\"", "rm \"$blob\" \"$dir/sha256\"; exit 1"));
    let not_known = "whether it was loaded is not known";
    host.expect(&[NAME], "", 3, &[], &["no privilege", not_known], "compile load");
    // Its refusal of the policy is one all the same; other errors say nothing of the policy.
    for (code, status, said) in [(22, 1, "EINVAL"), (12, 3, "ENOMEM"), (28, 3, "another error")] {
        parser(&FAKE.replace(load, &format!("exit {code}")));
        host.expect(&["--no-cache", NAME], "", status, &[], &[said], "compile");
    }
    // Nor does a kernel that cannot be asked any more.
    for (salt, end, said) in [(5, "exit 1", "no privilege"), (6, "exit 0", "policy/profiles")] {
        fs::write(host.at(&format!("{NAME}.blob")), blob(NAME, salt)).unwrap();
        let gone = format!("rm \"$blob\"; mv \"$here/fs/apparmor/policy/profiles\" \"$here/gone\"; {end}");
        parser(&FAKE.replace("rm \"$blob\"", &gone));
        host.expect(&["--no-cache", NAME], "", 3, &[], &[said, not_known], "compile load");
        fs::rename(host.at("gone"), host.at("fs/apparmor/policy/profiles")).unwrap();
    }
}

#[test]
fn a_parser_that_outlives_a_killed_call_keeps_the_next_waiting() {
    let update = Update::new();
    let host = &update.host;
    let slow = "if [ -e \"$here/slow\" ]; then rm \"$here/slow\"; sleep 1; fi";
    let descriptors =
        |what: &str| format!("echo {what} >> \"$here/log\"; ls -l /proc/$$/fd > \"$here/{what}-fds\"");
    let parser = FAKE
        .replace("cat > \"$blob\"", &format!("cat > \"$blob\"; {slow}"))
        .replace("echo load >> \"$here/log\"", &descriptors("load"))
        .replace("echo compile >> \"$here/log\"", &descriptors("compile"));
    fs::write(host.at("parser"), parser).unwrap();
    // Policy that is to be replaced by the next.
    update.write(3);
    fs::write(host.at("slow"), "").unwrap();
    let mut child = host.command(&[NAME]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while host.at("slow").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(update.held(), update.old);
    update.write(2);
    // Whether there is a cache or not: the next waits where the profile is.
    let output = host.run(&["--no-cache", NAME], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(update.held().as_ref(), update.new.first());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(update.held().as_ref(), update.new.first());
    // The lock is all that it is handed, and only to load.
    let handed = |what: &str| {
        let list = fs::read_to_string(host.at(&format!("{what}-fds"))).unwrap();
        list.lines()
            .filter(|line| line.contains(host.dir.path().to_str().unwrap()))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let own =
        |lines: Vec<String>| lines.into_iter().filter(|line| !line.contains("/parser")).collect::<Vec<_>>();
    assert!(
        own(handed("compile")).iter().all(|line| line.contains("compile-fds")),
        "{:?}",
        handed("compile")
    );
    let load = own(handed("load"));
    assert!(load.iter().any(|line| line.contains("d/.aa-render.lock")), "{load:?}");
    assert!(
        load.iter().all(|line| line.contains("d/.aa-render.lock") || line.contains("load-fds")),
        "{load:?}"
    );
}

#[test]
#[ignore = "needs strace"]
fn no_file_of_the_kernel_stays_open_over_exec() {
    let host = Host::new();
    for (args, file) in
        [(&["--direct", NAME][..], "/.replace"), (&["remove", NAME], "/.remove"), (&[NAME], "")]
    {
        fs::create_dir_all(host.at(&format!("fs/apparmor/policy/profiles/{NAME}.1"))).unwrap();
        for (field, text) in [("name", NAME), ("mode", "enforce")] {
            fs::write(host.at(&format!("fs/apparmor/policy/profiles/{NAME}.1/{field}")), text).unwrap();
        }
        let log = strace::run(&host.command(args), None, "").log;
        let opened: Vec<&str> = log.lines().filter(|line| line.starts_with("open")).collect();
        assert!(opened.iter().any(|line| line.contains(file)), "{file}: {log}");
        for line in opened {
            assert!(line.contains("O_CLOEXEC"), "{line}");
        }
    }
}

#[test]
fn a_profile_that_others_can_write_is_not_loaded() {
    let host = Host::new();
    let file = host.at("d").join(NAME);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let refused = |why: &str| {
        for args in [&[NAME][..], &["add", NAME], &["--direct", NAME]] {
            host.expect(args, "", 1, &[], &[why], "");
        }
        host.expect(&[], &host.record(NAME), 1, &[], &[why], "");
    };
    mode(&file, 0o666);
    refused("everybody may write to it");
    mode(&file, 0o644);
    mode(&host.at("d"), 0o1777);
    refused("everybody may write to it");
    mode(&host.at("d"), 0o755);
    // A link counts as what it leads to, and is followed once: the parser gets what was looked at.
    let elsewhere = host.at("elsewhere/deep").join(NAME);
    fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    mode(&elsewhere, 0o666);
    refused("everybody may write to it");
    mode(&elsewhere, 0o644);
    // Who may write further up can put another directory in the place of this one, unless that is sticky.
    mode(&host.at("elsewhere"), 0o777);
    refused("everybody may write to it");
    mode(&host.at("elsewhere"), 0o1777);
    host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
    let seen = fs::read_to_string(host.at("file-seen")).unwrap();
    assert_eq!(Path::new(seen.trim_end()), elsewhere.canonicalize().unwrap());
}

#[test]
fn an_include_that_others_can_write_is_not_loaded() {
    let host = Host::new();
    let profile = format!(
        "profile {NAME} {{\n  include <abstractions/one>\n  include \"{}.files\"\n}}\n",
        host.at("d").join(NAME).display()
    );
    fs::write(host.at("d").join(NAME), profile).unwrap();
    let rules = host.at(&format!("d/{NAME}.files"));
    fs::write(&rules, "  \"/a\" r,\n").unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let refused = |path: &Path, why: &str| {
        let named = format!("{}: {why}", path.display());
        for args in [&[NAME][..], &["--direct", NAME], &["--no-cache", NAME], &["--merge", NAME]] {
            host.expect(args, "", 1, &[], &[&named], "");
        }
    };
    for path in [&rules, &host.at("base/abstractions/one"), &host.at("base/abstractions")] {
        let before = fs::metadata(path).unwrap().permissions().mode();
        mode(path, before | 0o002);
        refused(path, "everybody may write to it");
        mode(path, before);
    }
    host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
    // One that comes while others are remembered.
    fs::write(host.at("base/abstractions/maybe"), "").unwrap();
    mode(&host.at("base/abstractions/maybe"), 0o666);
    host.expect(&[OTHER], "", 1, &[], &["everybody may write to it"], "");
}

/// What cannot be read is not known to be what it was: neither loaded nor called unchanged.
#[test]
fn an_include_that_cannot_be_read_is_the_hosts_failure() {
    let host = Host::new();
    host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
    let maybe = host.at("base/abstractions/maybe");
    // A loop is the path's fault, and no answer either.
    symlink("maybe", &maybe).unwrap();
    host.expect(&[NAME], "", 1, &[], &["abstractions/maybe: "], "");
    fs::remove_file(&maybe).unwrap();
    // A name that no file system takes.
    symlink("x".repeat(300), &maybe).unwrap();
    for args in [&[NAME][..], &["--direct", NAME], &["--no-cache", NAME]] {
        host.expect(args, "", 3, &[], &["abstractions/maybe: "], "");
    }
    fs::remove_file(&maybe).unwrap();
    // The twin: it leads to nothing.
    symlink("none", &maybe).unwrap();
    host.expect(&[NAME], "", 0, &["unchanged"], &[], "");
}

#[test]
#[ignore = "needs root"]
fn a_profile_of_another_user_is_not_loaded() {
    let host = Host::new();
    let file = host.at("d").join(NAME);
    chown(host.dir.path(), Some(1000), None).unwrap();
    host.expect(&[NAME], "", 1, &[], &["another user owns it"], "");
    chown(host.dir.path(), Some(0), None).unwrap();
    let include = host.at("base/abstractions/one");
    for (path, back) in [(file.clone(), 0o644), (host.at("d"), 0o755), (include, 0o644)] {
        chown(&path, Some(1000), None).unwrap();
        host.expect(&[NAME], "", 1, &[], &["another user owns it"], "");
        // Of any group, root's own too: with an access list, these bits are those of whoever is on it.
        for group in [1000, 0] {
            chown(&path, Some(0), Some(group)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(back | 0o020)).unwrap();
            let why = "a group, or whom an access list names, may write to it";
            host.expect(&[NAME], "", 1, &[], &[why], "");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(back)).unwrap();
    }
    host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
}

#[test]
fn loads_and_removals_at_once_take_turns() {
    for with_cache in [true, false] {
        let host = Host::new();
        for name in [NAME, OTHER] {
            assert!(host.run(&[name], "").status.success());
        }
        fs::write(host.at("base/abstractions/one"), "/other r,\n").unwrap();
        drop(fs::remove_file(host.at("log")));
        let names = [NAME, OTHER].map(|name| name.parse().unwrap());
        let more: &[&str] = if with_cache { &[] } else { &["--no-cache"] };
        let calls = [&[NAME][..], &["--direct", OTHER, NAME], &["remove", OTHER]];
        let start = || calls.map(|args| spawn(&host, &[more, args].concat()));
        let waits = |children: &mut [Child]| {
            std::thread::sleep(Duration::from_millis(300));
            assert!(children.iter_mut().all(|child| child.try_wait().unwrap().is_none()), "{with_cache}");
            assert!(!host.at("log").exists());
            assert_eq!(fs::read_to_string(host.at("fs/apparmor/.remove")).unwrap(), "");
        };
        // While one holds the locks, no other touches the kernel: neither of the tools that write profiles, nor another
        // aa-load that names another directory.
        let mut children = if with_cache {
            let cache = aa_load::Cache::open(&host.at("cache")).unwrap();
            let locks = cache.lock(names).unwrap();
            let mut children = start();
            waits(&mut children);
            drop(locks);
            children
        } else {
            let turn = aa_render::Turn::take(&host.at("d"), &names.into()).unwrap();
            let mut children = start();
            waits(&mut children);
            drop(turn);
            children
        };
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(fs::read_to_string(host.at("fs/apparmor/.remove")).unwrap(), OTHER);
    }
}

fn spawn(host: &Host, args: &[&str]) -> Child {
    host.command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn without_its_lock_nothing_is_loaded_and_nothing_removed() {
    let host = Host::new();
    host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
    let removed = || fs::read_to_string(host.at("fs/apparmor/.remove")).unwrap();
    let calls = [&["--direct", NAME][..], &["replace", NAME], &["remove", NAME], &["gc", "--min-age", "0"]];
    let lock = host.at("d/.aa-render.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    for args in calls {
        for more in [&[][..], &["--no-cache"]] {
            host.expect(&[args, more].concat(), "", 3, &[], &["d/.aa-render.lock: "], "");
        }
    }
    fs::remove_dir(&lock).unwrap();
    // The same of the cache's own, for who has one.
    for entry in fs::read_dir(host.at("cache")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_str().unwrap().starts_with("lock-") {
            fs::remove_file(&entry).unwrap();
            symlink("/dev/null", &entry).unwrap();
        }
    }
    for args in calls {
        host.expect(args, "", 3, &[], &["cache/lock-"], "");
    }
    assert_eq!(removed(), "");
    assert!(host.at("d").join(NAME).exists());
    // The twin.
    host.expect(&["remove", "--no-cache", NAME], "", 0, &["removed"], &[], "");
    assert_eq!(removed(), NAME);
}

#[test]
fn a_profile_of_a_set_that_cannot_be_locked_is_named_and_left_out() {
    let host = Host::new();
    let open = host.at("open");
    fs::create_dir(&open).unwrap();
    fs::rename(host.at("d").join(NAME), open.join(NAME)).unwrap();
    let mode = |mode| fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
    let file = open.join(NAME).display().to_string();
    let args = ["--direct", "--jobs", "1", &file, OTHER];
    let written = || fs::read(host.at("fs/apparmor/.replace")).unwrap();
    for more in [&[][..], &["--no-cache"]] {
        mode(0o1777);
        fs::write(host.at("fs/apparmor/.replace"), "").unwrap();
        let said = [&format!("aa-load: {NAME}: {}: everybody may write to it", open.display()), "is missing"];
        host.expect(&[&args, more].concat(), "", 3, &[], &said, "compile");
        assert_eq!(written(), blob(OTHER, 1));
        // The twin.
        mode(0o755);
        fs::remove_dir_all(host.at("cache")).unwrap_or_default();
        host.expect(&[&args, more].concat(), "", 3, &[], &["is missing"], "compile compile");
        assert_eq!(written(), [blob(NAME, 1), blob(OTHER, 1)].concat());
        fs::remove_dir_all(host.at("cache")).unwrap_or_default();
    }
}

/// While other profiles of a set are compiled, this one's can change.
#[test]
fn a_set_holds_all_its_locks_only_once_it_is_compiled() {
    let host = Host::new();
    let other = &NAME.replace("1d8950212bac", "1d8950212bad");
    host.profile(other);
    // The second to be compiled takes a while, and asks meanwhile whether the first one is locked.
    let slow =
        format!("[ $(grep -c compile \"$here/log\") = 2 ] && ls \"$here/d\" > \"$here/locks\"; {COMPILE}");
    fs::write(host.at("parser"), FAKE.replace(COMPILE, &slow)).unwrap();
    host.expect(&["--direct", "--jobs", "1", NAME, other], "", 3, &[], &["is missing"], "compile compile");
    let locks = fs::read_to_string(host.at("locks")).unwrap();
    assert!(locks.contains(&format!("{other}.lock")) && !locks.contains(&format!("{NAME}.lock")), "{locks}");
}

/// Every path below a directory, with its size and time of change.
fn everything(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            all.extend(everything(&entry.path()));
        }
        all.push((entry.path(), metadata.len(), metadata.modified().unwrap()));
    }
    all.sort();
    all
}

#[test]
fn a_dry_run_writes_nothing() {
    let host = Host::new();
    // Nothing but what the parser that is a script notes of itself.
    let quiet = FAKE
        .replace("echo compile >> \"$here/log\"", "")
        .replace("> \"$here/features-seen\"", "> /dev/null")
        .replace("echo \"$last\" > \"$here/file-seen\"", "");
    fs::write(host.at("parser"), quiet).unwrap();
    let dry = |args: &[&str], stdin: &str, part: &str| {
        let before = everything(host.dir.path());
        let output = host.run(&[&["--dry-run"], args].concat(), stdin);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(part), "{args:?}: {}", text(&output.stdout));
        assert_eq!(everything(host.dir.path()), before, "{args:?}");
    };
    dry(&["add", NAME], "", "added");
    dry(&["--merge", NAME], "", "added");
    dry(&["--direct", NAME], "", "added");
    dry(&[], &host.record(NAME), "added");
    host.expect(&[NAME], "", 0, &["added"], &[], "load");
    std::thread::sleep(Duration::from_millis(20));
    dry(&[NAME], "", "unchanged");
    dry(&["--merge", NAME], "", "unchanged");
    dry(&["remove", NAME], "", "removed");
    dry(&["gc", "--min-age", "0"], "", "removed");
    // The twin: gc's mark, at the least, is renewed by the same without it.
    let before = everything(host.dir.path());
    host.expect(&[NAME], "", 0, &["unchanged"], &[], "");
    assert_ne!(everything(host.dir.path()), before);
}
