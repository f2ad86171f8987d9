//! What is in use, confined, left behind: remove, verify and gc against a tree like the kernel's.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Host, NAME, OTHER, text};

fn uuid(name: &str) -> &str {
    name.strip_prefix("libvirt-").unwrap()
}

impl Host {
    fn removed(&self) -> String {
        fs::read_to_string(self.at("fs/apparmor/.remove")).unwrap()
    }

    fn load(&self, names: &[&str]) {
        assert!(self.run(names, "").status.success());
    }

    /// Gives a process a command line and the user who started it.
    fn call(&self, pid: u32, line: &str, user: u32) {
        fs::write(self.at(&format!("proc/{pid}/cmdline")), line.replace(' ', "\0")).unwrap();
        fs::write(self.at(&format!("proc/{pid}/status")), format!("Uid:\t{user}\t{user}\t0\t0\n")).unwrap();
    }

    /// Makes all of a profile an hour old.
    fn age(&self, name: &str) {
        let cache = self.at(&format!("cache/{name}.policy"));
        let profiles = self.at("fs/apparmor/policy/profiles");
        for path in [self.at("d").join(name), cache, profiles.join(format!("{name}.1"))] {
            let touched = Command::new("touch").args(["-d", "1 hour ago"]).arg(path).status().unwrap();
            assert!(touched.success());
        }
    }

    fn define(&self, file: &str, name: &str) {
        let file = self.at(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("<domain><uuid>{}</uuid></domain>", uuid(name))).unwrap();
    }
}

/// Without the mount of its own, a process in another PID namespace still sees the host's procfs.
#[test]
#[ignore = "needs root"]
fn nothing_is_removed_by_who_sees_only_a_part_of_all_processes() {
    let host = Host::new();
    host.load(&[NAME]);
    let run = |unshare: &[&str], verb: &str| {
        fs::write(host.at("fs/apparmor/.remove"), "").unwrap();
        let age: &[&str] = if verb == "gc" { &["--min-age", "0"] } else { &[] };
        let aa_load = host.command(&[&["--proc", "/proc", verb], age].concat());
        let mut line =
            unshare.iter().map(std::ffi::OsStr::new).chain([aa_load.get_program()]).chain(aa_load.get_args());
        let mut command = Command::new(line.next().unwrap());
        command.args(line);
        if verb == "remove" {
            command.arg(NAME);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let inside: &[&str] = &["unshare", "--pid", "--fork", "--mount-proc"];
    for verb in ["remove", "gc", "verify", "status"] {
        let (status, error) = run(inside, verb);
        assert_eq!(status, Some(3), "{verb}: {error}");
        assert!(
            error.contains("/proc: it may be of another PID namespace than the host's"),
            "{verb}: {error}"
        );
        assert_eq!(host.removed(), "", "{verb}");
    }
    assert!(host.at("d").join(NAME).exists());
    // The twins: policy of a container's own; and the host's procfs, if this machine is one.
    fs::write(host.at("fs/apparmor/.ns_level"), "1\n").unwrap();
    assert_eq!(run(inside, "remove").0, Some(0));
    assert_eq!(host.removed(), NAME);
    fs::write(host.at("fs/apparmor/.ns_level"), "0\n").unwrap();
    // Who is in a namespace of its own needs the word of the first process, which not every machine gives to root.
    for (unshare, process) in [(&[][..], "self"), (&["unshare", "--pid", "--fork"], "1")] {
        let (status, error) = run(unshare, "remove");
        let link = fs::read_link(Path::new("/proc").join(process).join("ns/pid"));
        let is_host = link.is_ok_and(|link| link == Path::new("pid:[4026531836]"));
        assert_eq!(status, Some(if is_host { 0 } else { 3 }), "{unshare:?}: {error}");
    }
}

/// As for root in a directory of its own (chroot) with the host's /sys and nothing at /proc.
#[test]
#[ignore = "needs root"]
fn where_proc_is_no_procfs_nothing_is_removed_and_nothing_verified() {
    let host = Host::new();
    host.load(&[NAME]);
    let run = |mount: &str, verb: &[&str]| {
        let aa_load = host.command(&[&["--proc", "/proc"], verb].concat());
        let script = format!("{mount} && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(aa_load.get_program());
        let output = command.args(aa_load.get_args()).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for mount in ["mount -t tmpfs none /proc", "mount --bind /proc/sys /proc"] {
        for verb in [&["remove", NAME][..], &["gc", "--min-age", "0"], &["verify"], &["status"]] {
            let (status, error) = run(mount, verb);
            assert_eq!(status, Some(3), "{mount}: {verb:?}: {error}");
            assert!(error.contains("/proc: it is not the root of a procfs"), "{mount}: {verb:?}: {error}");
            assert_eq!(host.removed(), "", "{mount}: {verb:?}");
        }
    }
    assert!(host.at("d").join(NAME).exists());
    // The twin: the same tree, at a place that the caller names.
    host.expect(&["remove", NAME], "", 0, &["removed"], &[], "");
}

#[test]
fn a_profile_stays_that_aa_confine_is_about_to_enter() {
    let host = Host::new();
    host.load(&[NAME, OTHER]);
    host.process(41, "aa-confine (enforce)");
    host.call(41, &format!("/x/aa-confine --uuid {} -- qemu", uuid(NAME)), 1000);
    host.expect(&["remove", NAME], "", 1, &[], &["in use by process 41"], "");
    assert_eq!(host.removed(), "");
    host.expect(&["gc", "--min-age", "0"], "", 0, &[OTHER], &["removes"], "");
    assert_eq!(host.removed(), OTHER);
    assert!(host.at("d").join(NAME).exists() && !host.at("d").join(OTHER).exists());
    // It is not under it yet, so it is none of its processes.
    host.expect(&["verify", NAME], "", 0, &[NAME], &[], "");
    host.expect(&["remove", "--force", NAME], "", 0, &["removed"], &[], "");
}

#[test]
fn who_waits_for_a_removal_is_not_about_to_enter_the_profile() {
    let host = Host::new();
    host.load(&[NAME]);
    let line = format!("sh with-guest aa-confine --uuid {} -- qemu", uuid(NAME));
    let put = |pid: u32, parent: u32| {
        host.process(pid, "unconfined");
        host.call(pid, &line, 0);
        fs::write(host.at(&format!("proc/{pid}/status")), format!("PPid:\t{parent}\n")).unwrap();
    };
    std::os::unix::fs::symlink("43", host.at("proc/self")).unwrap();
    for (pid, parent) in [(41, 1), (42, 41), (43, 42)] {
        put(pid, parent);
    }
    host.expect(&["remove", "--dry-run", NAME], "", 0, &["removed"], &[], "");
    // A child of who waits has the same line until it executes aa-confine, and that.
    put(44, 42);
    host.expect(&["remove", NAME], "", 1, &[], &["in use by process 44"], "");
    fs::remove_dir_all(host.at("proc/44")).unwrap();
    // Who carries the profile would be unconfined, whatever it waits for.
    host.process(41, &format!("{NAME} (enforce)"));
    host.expect(&["remove", NAME], "", 1, &[], &["in use by process 41"], "");
    assert_eq!(host.removed(), "");
    host.process(41, "unconfined");
    host.expect(&["remove", NAME], "", 0, &["removed"], &[], "");
}

#[test]
fn verify_without_names_is_of_every_guest_that_there_is_anything_of() {
    let host = Host::new();
    host.load(&[NAME]);
    fs::remove_file(host.at("d").join(OTHER)).unwrap();
    host.expect(&["verify"], "", 0, &[NAME], &[], "");
    // Loaded without a file, in complain mode.
    fs::remove_file(host.at("d").join(NAME)).unwrap();
    let mode = host.at(&format!("fs/apparmor/policy/profiles/{NAME}.1/mode"));
    fs::write(&mode, "complain\n").unwrap();
    host.expect(&["verify"], "", 1, &[], &["in mode complain"], "");
    fs::write(&mode, "enforce\n").unwrap();
    host.expect(&["verify"], "", 0, &[NAME], &[], "");
    // One that runs with no profile at all, as libvirt says, or its command line.
    let state = format!("<domstatus state='running' pid='50'><uuid>{}</uuid></domstatus>", uuid(OTHER));
    fs::write(host.at("defs/x.xml"), state).unwrap();
    host.expect(&["verify"], "", 1, &[NAME], &[&format!("{OTHER}: not in the kernel")], "");
    fs::remove_file(host.at("defs/x.xml")).unwrap();
    host.process(50, "unconfined");
    host.call(50, &format!("qemu -uuid {}", uuid(OTHER)), 0);
    host.expect(&["verify"], "", 1, &[NAME], &[&format!("{OTHER}: not in the kernel")], "");
    // An ordinary user's process fails no verification, whatever it is called.
    host.call(50, &format!("qemu -uuid {}", uuid(NAME)), 1000);
    let status = b"Name:\t\xff\nUid:\t1000\t1000\t0\t0\n";
    fs::write(host.at("proc/50/status"), status).unwrap();
    host.expect(&["verify"], "", 0, &[NAME], &[], "");
    host.expect(&["verify", NAME], "", 0, &[NAME], &[], "");
}

#[test]
fn of_a_container_the_processes_are_looked_at_and_not_its_controller() {
    let host = Host::new();
    host.load(&[NAME]);
    fs::remove_file(host.at("d").join(OTHER)).unwrap();
    let state = format!(
        "<domstatus state='running' pid='40'><domain type='lxc' id='40'><uuid>{}</uuid></domain></domstatus>",
        uuid(NAME)
    );
    fs::write(host.at("defs/x.xml"), state).unwrap();
    let put = |pid: u32, parent: u32, label: &str| {
        host.process(pid, label);
        fs::write(host.at(&format!("proc/{pid}/status")), format!("PPid:\t{parent}\n")).unwrap();
    };
    let not_carried = "the guest's process does not carry it";
    put(40, 1, "unconfined");
    host.expect(&["verify"], "", 1, &[], &["process 40 thread 40 does not carry it"], "");
    host.expect(&["status", "--json"], "", 0, &[not_carried], &[], "");
    put(41, 40, &format!("{NAME} (enforce)"));
    put(42, 41, &format!("{NAME} (enforce)"));
    host.expect(&["verify"], "", 0, &[NAME], &[], "");
    host.expect(&["status", "--json"], "", 0, &["\"drift\":[]"], &[], "");
    put(41, 40, "unconfined");
    host.expect(&["verify"], "", 1, &[], &["process 41 thread 41 does not carry it"], "");
    host.expect(&["status", "--json"], "", 0, &[not_carried], &[], "");
}

#[test]
fn verify_fails_where_it_cannot_look() {
    let host = Host::new();
    host.load(&[NAME, OTHER]);
    host.expect(&["verify"], "", 0, &[NAME, OTHER], &[], "");
    for option in ["--dir", "--definitions", "--parameters"] {
        host.expect(&["verify", option, "/nonexistent"], "", 3, &[], &["/nonexistent"], "");
    }
    // The guest's process is known by a definition; one beside it that cannot be understood hides none.
    host.process(41, "unconfined");
    let state = format!("<domstatus state='running' pid='41'><uuid>{}</uuid></domstatus>", uuid(NAME));
    fs::write(host.at("defs/a.xml"), state).unwrap();
    host.expect(&["verify", NAME], "", 1, &[], &["process 41 thread 41 does not carry it"], "");
    fs::write(host.at("defs/b.xml"), "<network/>").unwrap();
    host.expect(&["verify", NAME], "", 3, &[], &["b.xml: the definition has no UUID"], "");
    // Confined by a namesake in another policy namespace.
    fs::remove_file(host.at("defs/b.xml")).unwrap();
    host.process(41, &format!(":other:{NAME} (enforce)"));
    host.expect(&["verify", NAME], "", 1, &[], &["does not carry it"], "");
    host.expect(&["remove", NAME], "", 1, &[], &["in use by process 41"], "");
    host.process(41, &format!("{NAME} (enforce)"));
    host.expect(&["verify", NAME], "", 0, &[NAME], &[], "");
}

#[test]
fn apparmor_that_complains_as_a_whole_is_told_by_verify_status_and_doctor() {
    let host = Host::new();
    host.load(&[NAME]);
    let mode = |mode: &str| fs::write(host.at("parameters/mode"), mode).unwrap();
    let failed = |name: &str| {
        let report = text(&host.run(&["doctor", "--json"], "").stdout);
        report.contains(&format!("{{\"name\":\"{name}\",\"state\":\"failed\""))
    };
    host.expect(&["verify", NAME], "", 0, &[NAME], &[], "");
    assert!(!failed("mode") && !failed("policy lock"));
    mode("complain");
    host.expect(&["verify", NAME], "", 1, &[], &["AppArmor as a whole is in mode complain, not enforce"], "");
    host.expect(&["status", "--json", NAME], "", 0, &["AppArmor as a whole does not enforce"], &[], "");
    assert!(failed("mode"));
    for enforcing in ["enforce", "kill"] {
        mode(enforcing);
        host.expect(&["verify", NAME], "", 0, &[NAME], &[], "");
        let status = text(&host.run(&["status", "--json", NAME], "").stdout);
        assert!(!status.contains("as a whole") && !failed("mode"), "{status}");
    }
    fs::write(host.at("parameters/lock_policy"), "Y\n").unwrap();
    assert!(failed("policy lock"));
    // Who may not read it cannot verify anything; status tells the rest.
    fs::remove_file(host.at("parameters/mode")).unwrap();
    host.expect(&["verify", NAME], "", 3, &[], &["parameters/mode"], "");
    assert!(host.run(&["status", NAME], "").status.success());
}

#[test]
fn gc_looks_again_under_the_locks() {
    let host = Host::new();
    host.load(&[NAME, OTHER]);
    for name in [NAME, OTHER] {
        host.age(name);
    }
    // As aa-render has it while it writes, whether gc has a cache or not.
    let names = [NAME, OTHER].map(|name| name.parse().unwrap());
    let locks = aa_render::Turn::take(&host.at("d"), &names.into()).unwrap();
    let mut command = host.command(&["gc", "--no-cache"]);
    let mut gc = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(gc.try_wait().unwrap().is_none());
    assert_eq!(host.removed(), "");
    // Meanwhile it is written again, as for a guest that starts.
    host.profile(NAME);
    drop(locks);
    let output = gc.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stdout).contains(OTHER) && !text(&output.stdout).contains(NAME));
    assert!(host.at("d").join(NAME).exists() && !host.at("d").join(OTHER).exists());
}

/// As of an aa-render that waits for something.
#[test]
fn a_lock_of_one_guest_keeps_no_other_from_being_collected() {
    let host = Host::new();
    // Not the constants' guests, which share a byte of the lock file.
    let other = &NAME.replace("1d8950212bac", "1d8950212bad");
    fs::remove_file(host.at("d").join(OTHER)).unwrap();
    host.profile(other);
    host.load(&[NAME, other]);
    let turn = aa_render::Turn::take(&host.at("d"), &[other.parse().unwrap()].into()).unwrap();
    let mut command = host.command(&["gc", "--min-age", "0"]);
    let mut gc = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Told at once, though the second is waited for, and what reads it is late.
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(gc.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(line.contains(NAME), "{line}");
    assert_eq!(host.removed(), NAME);
    assert!(!host.at("d").join(NAME).exists() && host.at("d").join(other).exists());
    // Nor is the first still locked.
    drop(aa_render::Turn::take(&host.at("d"), &[NAME.parse().unwrap()].into()).unwrap());
    drop(turn);
    assert!(gc.wait().unwrap().success());
    assert!(!host.at("d").join(other).exists());
    // One that cannot be had is that guest's error, and the next one is collected.
    for name in [NAME, other] {
        host.profile(name);
    }
    fs::remove_dir_all(host.at("fs/apparmor/policy/profiles")).unwrap();
    fs::create_dir(host.at("fs/apparmor/policy/profiles")).unwrap();
    let shard = NAME.parse::<aa_contract::ProfileName>().unwrap();
    let shard = shard.uuid().as_bytes().iter().fold(0_u8, |sum, byte| sum ^ byte);
    let lock = host.at(&format!("cache/lock-{shard:02x}"));
    fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink("/dev/null", &lock).unwrap();
    let refused = format!("aa-load: {NAME}: {}: ", lock.display());
    host.expect(&["gc", "--min-age", "0"], "", 3, &[], &[&refused, &format!("{other}: removes")], "");
    assert!(host.at("d").join(NAME).exists() && !host.at("d").join(other).exists());
}

/// Whoever may write there could put in anything, and nothing of it is read.
#[test]
fn removals_need_nothing_from_a_directory_that_is_open_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    host.load(&[NAME, OTHER]);
    for mode in [0o775, 0o777, 0o1777] {
        fs::set_permissions(host.at("d"), fs::Permissions::from_mode(mode)).unwrap();
        for args in [&["remove", NAME][..], &["remove", "--force", NAME]] {
            fs::write(host.at("fs/apparmor/.remove"), "").unwrap();
            host.expect(args, "", 0, &["removed"], &[], "");
            assert_eq!(host.removed(), NAME);
        }
        // The twin.
        host.expect(&[NAME], "", 1, &[], &["may write to it"], "");
        assert!(!host.at("d/.aa-render.lock").exists() || mode == 0o775);
        let _ = fs::remove_file(host.at("d/.aa-render.lock"));
    }
    host.expect(&["gc", "--min-age", "0"], "", 0, &[NAME, OTHER], &["removes"], "");
    assert!(!host.at("d").join(NAME).exists());
}

/// A file system that takes no file takes no lock, of nobody.
#[test]
#[ignore = "needs root"]
fn a_full_or_read_only_place_for_locks_is_in_nobodys_way() {
    let keep = "cp -r d keep && mount -t tmpfs -o mode=0755,nr_inodes";
    for (mount, is_written) in [
        ("mount --bind cache cache && mount -o remount,bind,ro cache".to_owned(), true),
        ("mount -t tmpfs -o mode=0700,nr_inodes=1 none cache".to_owned(), true),
        ("mount --bind d d && mount -o remount,bind,ro d".to_owned(), false),
        // The file is there, its lock, and no link; and not even the lock.
        (format!("{keep}=3 none d && cp keep/{NAME} d"), false),
        (format!("{keep}=2 none d && cp keep/{NAME} d"), false),
    ] {
        for (verb, word) in [("replace", "added"), ("remove", "removed"), ("gc", "removed")] {
            let host = Host::new();
            fs::remove_file(host.at("d").join(OTHER)).unwrap();
            assert!(aa_load::Cache::open(&host.at("cache")).is_ok());
            if verb != "replace" {
                assert!(host.run(&["--no-cache", NAME], "").status.success());
                let _ = fs::remove_file(host.at("d/.aa-render.lock"));
            }
            let name: &[&str] = if verb == "gc" { &["--min-age", "0"] } else { &[NAME] };
            let aa_load = host.command(&[&[verb], name].concat());
            let script = format!("cd \"$1\" && {mount} && shift && exec \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-ec", &script, "sh"]).arg(host.dir.path());
            let output = command.arg(aa_load.get_program()).args(aa_load.get_args()).output().unwrap();
            let (out, error) = (text(&output.stdout), text(&output.stderr));
            assert!(out.contains(word), "{mount}: {verb}: {out}{error}");
            // A file that cannot be removed is told.
            let status = if verb == "gc" && mount.contains("d d") { 3 } else { 0 };
            assert_eq!(output.status.code(), Some(status), "{mount}: {verb}: {out}{error}");
            assert_eq!(host.at("d/.aa-render.lock").exists(), is_written, "{mount}: {verb}");
        }
    }
}

#[test]
fn gc_leaves_alone_what_was_loaded_though_nothing_was_to_be_done() {
    let host = Host::new();
    host.load(&[NAME]);
    fs::remove_file(host.at("d").join(OTHER)).unwrap();
    let dry_run = ["gc", "--dry-run"];
    host.age(NAME);
    host.expect(&dry_run, "", 0, &[NAME], &["would remove"], "");
    host.expect(&[NAME], "", 0, &["unchanged"], &[], "");
    host.expect(&dry_run, "", 0, &[], &[], "");
    // Nor does gc take that mark away.
    for _ in 0..2 {
        host.expect(&["gc"], "", 0, &[], &[], "");
    }
    host.age(NAME);
    host.expect(&["gc"], "", 0, &[NAME], &["removes"], "");
    assert!(!host.at(&format!("cache/{NAME}.policy")).exists());
}

#[test]
fn gc_knows_guests_with_a_directory_each() {
    let host = Host::new();
    host.load(&[NAME, OTHER]);
    host.define("defs/web/domain.xml", NAME);
    host.expect(&["gc", "--min-age", "0"], "", 0, &[OTHER], &["removes"], "");
    assert!(host.at("d").join(NAME).exists());
    // As the kernel would have it.
    fs::remove_dir_all(host.at(&format!("fs/apparmor/policy/profiles/{OTHER}.1"))).unwrap();
    // A place without any guest is one from which the last has gone.
    fs::remove_dir_all(host.at("defs/web")).unwrap();
    host.expect(&["gc", "--min-age", "0"], "", 0, &[NAME], &["removes"], "");
}

#[test]
fn an_option_or_a_name_that_a_verb_would_ignore_is_status_2() {
    let host = Host::new();
    let defs = host.at("defs");
    let definitions = ["--definitions", defs.to_str().unwrap()];
    for (option, verbs) in [
        (&["--force"][..], &["remove"][..]),
        (&["--merge"], &["add", "replace"]),
        (&["--jobs", "1"], &["add", "replace"]),
        (&["--json"], &["status", "doctor"]),
        (&["--min-age", "0"], &["gc"]),
        (&definitions, &["status", "verify", "gc"]),
    ] {
        for verb in ["add", "replace", "remove", "status", "verify", "gc", "doctor"] {
            let name: &[&str] = if ["gc", "doctor"].contains(&verb) { &[] } else { &[NAME] };
            let output = host.run(&[&[verb], name, option].concat(), "");
            let error = text(&output.stderr);
            let is_refused = error.contains(&format!("aa-load: {} does not go with {verb}", option[0]));
            assert_eq!(output.status.code() == Some(2), is_refused, "{verb} {option:?}: {error}");
            assert_eq!(is_refused, !verbs.contains(&verb), "{verb} {option:?}: {error}");
        }
    }
    // Without a verb it is replace.
    host.expect(&["--force", NAME], "", 2, &[], &["--force does not go with replace"], "");
    for verb in ["gc", "doctor"] {
        host.expect(&[verb, "x"], "", 2, &[], &[&format!("{verb} is of the whole host")], "");
    }
    // Those that are of the design's own line go with every verb.
    for verb in ["remove", "status", "verify", "gc", "doctor"] {
        let output = host.run(&[verb, "--dry-run", "--no-cache", "--include", "/x"], "");
        assert_ne!(output.status.code(), Some(2), "{verb}: {}", text(&output.stderr));
    }
}

#[test]
fn a_whole_set_is_replaced_and_nothing_else() {
    let host = Host::new();
    for _ in 0..2 {
        host.expect(&["add", "--direct", NAME], "", 2, &[], &["does not go with add"], "");
        assert!(fs::read(host.at("fs/apparmor/.replace")).unwrap().is_empty());
        host.load(&[NAME]);
    }
    for verb in ["remove", "status", "verify", "gc", "doctor"] {
        host.expect(&[verb, "--direct"], "", 2, &[], &[&format!("does not go with {verb}")], "");
    }
    assert_eq!(host.removed(), "");
    host.expect(&["replace", "--direct", NAME], "", 0, &["unchanged"], &[], "");
}
