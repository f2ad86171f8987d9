//! The program as a whole, against trees like the kernel's: with a parser that is a script, and with the real one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{FAKE, Host, NAME, OTHER, blob, text};

/// The capability sets in a process's status: inheritable, permitted, effective, bounding, ambient.
fn capabilities(status: &str) -> Vec<u64> {
    let sets = status.lines().filter(|line| line.starts_with("Cap"));
    sets.map(|line| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()).collect()
}

#[test]
#[ignore = "needs root"]
fn it_keeps_three_capabilities_and_the_parser_gets_one() {
    const MAC_ADMIN: u64 = 1 << 33;
    const KEPT: u64 = MAC_ADMIN | 1 << 2 | 1 << 19;
    let before = capabilities(&fs::read_to_string("/proc/self/status").unwrap());
    // With SETPCAP, by which it gives up the others.
    let needed = KEPT | 1 << 8;
    assert_eq!(before[2] & needed, needed, "not run as root with all capabilities");
    // The twin: there is more to be had.
    assert_ne!(before[2], KEPT);
    assert_ne!(before[3], MAC_ADMIN);
    let host = Host::new();
    let telling = FAKE.replacen("\ncase", "\ngrep ^Cap /proc/self/status > \"$here/capabilities\"\ncase", 1);
    fs::write(host.at("parser"), telling).unwrap();
    let mut child = host.command(&["-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Once the parser has told its release, aa-load waits for records.
    let ran = host.at("cache/parser");
    for _ in 0..600 {
        if ran.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let own = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    assert_eq!(capabilities(&own), [0, KEPT, KEPT, MAC_ADMIN, 0]);
    let parser = fs::read_to_string(host.at("capabilities")).unwrap();
    assert_eq!(capabilities(&parser), [0, MAC_ADMIN, MAC_ADMIN, MAC_ADMIN, 0]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn nothing_is_run_when_the_kernel_holds_it_and_each_change_is_seen() {
    let host = Host::new();
    let again = |what: &str, runs: &str| {
        host.expect(&[NAME], "", 0, &[what], &[], runs);
    };
    again("\"action\":\"added\",\"mode\":\"enforce\"", "compile load");
    again("unchanged", "");
    // The same policy from other text: compiled again, and not loaded.
    fs::write(host.at("base/abstractions/one"), "/one r, # remark\n").unwrap();
    again("unchanged", "compile");
    fs::write(host.at("base/abstractions/maybe"), "").unwrap();
    again("unchanged", "compile");
    fs::remove_file(host.at("base/abstractions/maybe")).unwrap();
    again("unchanged", "compile");
    fs::write(host.at("fs/apparmor/features/policy/more"), "yes\n").unwrap();
    again("unchanged", "compile");
    // Another parser, of the same size and date.
    let date = fs::metadata(host.at("parser")).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(host.at("parser"), FAKE.replace("4.1.0", "4.1.1")).unwrap();
    fs::File::options().write(true).open(host.at("parser")).unwrap().set_modified(date).unwrap();
    again("unchanged", "compile");
    again("unchanged", "");
    // Other policy.
    fs::write(host.at(&format!("{NAME}.blob")), blob(NAME, 2)).unwrap();
    fs::write(host.at("base/abstractions/one"), "/two r,\n").unwrap();
    again("replaced", "compile load");
    // A cut entry is compiled again; without a cache, every time.
    fs::write(host.at("cache").join(format!("{NAME}.policy")), "aasvirt1").unwrap();
    again("unchanged", "compile");
    for _ in 0..2 {
        host.expect(&["--no-cache", NAME], "", 0, &["unchanged"], &[], "compile");
    }
    // What the kernel would be told about perms tables is kept from a parser that gets them wrong.
    let features = fs::read_to_string(host.at("features-seen")).unwrap();
    assert!(features.contains("set_load") && !features.contains("permstable32"), "{features}");
}

#[test]
fn one_bad_profile_is_named_and_the_others_are_loaded_in_order() {
    let host = Host::new();
    fs::write(host.at("d").join(NAME), "profile x {\n\n refuse-me\n}\n").unwrap();
    let records = format!("{}garbage\n{}", host.record(NAME), host.record(OTHER));
    host.expect(
        &["--jobs", "1"],
        &records,
        1,
        &[OTHER],
        &[
            &format!("aa-load: {NAME}: apparmor_parser refused it: AppArmor parser error for"),
            "at line 3",
            "stdin:2: not a record",
        ],
        "compile compile load",
    );
    // A profile that is not the record's own is not loaded.
    fs::write(host.at(&format!("{OTHER}.blob")), blob("sshd", 1)).unwrap();
    host.expect(&["--no-cache", OTHER], "", 1, &[], &["defines \"sshd\""], "compile");
}

#[test]
fn a_summary_is_said_if_asked_for_and_on_standard_error_only() {
    let host = Host::new();
    let records = format!("{}garbage\n{}", host.record(NAME), host.record(OTHER));
    host.expect(
        &["--verbose", "--jobs", "1"],
        &records,
        1,
        &[NAME, OTHER],
        &["stdin:2: not a record", "aa-load: 3 profiles: 2 added, 1 failed in "],
        "compile load compile load",
    );
    // Not a terminal, and not asked for.
    host.expect(&[NAME, OTHER], "", 0, &["unchanged", "unchanged"], &[], "");
}

#[test]
fn an_older_date_and_an_equal_base_name_bring_no_stale_policy() {
    let host = Host::new();
    host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
    let include = host.at("base/abstractions/one");
    let old = fs::read(&include).unwrap();
    let date = fs::metadata(&include).unwrap().modified().unwrap();
    let put = |text: &[u8], salt: u8| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&include, text).unwrap();
        fs::File::options().write(true).open(&include).unwrap().set_modified(date).unwrap();
        fs::write(host.at(&format!("{NAME}.blob")), blob(NAME, salt)).unwrap();
    };
    // Forward and back, and all the time the file is as old as at first.
    put(b"/two r,\n", 2);
    host.expect(&[NAME], "", 0, &["replaced"], &[], "compile load");
    put(&old, 1);
    host.expect(&[NAME], "", 0, &["replaced"], &[], "compile load");
    host.expect(&[NAME], "", 0, &["unchanged"], &[], "");
    // A file of the same name, size and date in another directory.
    fs::create_dir(host.at("d2")).unwrap();
    fs::copy(host.at("d").join(NAME), host.at("d2").join(NAME)).unwrap();
    fs::write(host.at(&format!("{NAME}.blob")), blob(NAME, 3)).unwrap();
    let other = host.at("d2");
    host.expect(&["--dir", other.to_str().unwrap(), NAME], "", 0, &["replaced"], &[], "compile load");
}

#[test]
fn other_features_for_policy_are_another_entry() {
    let host = Host::new();
    let pinned = host.at("pinned");
    fs::write(&pinned, "file {mask {read\n}\n}\n").unwrap();
    let args = ["--policy-features", pinned.to_str().unwrap(), NAME];
    host.expect(&args, "", 0, &["added"], &[], "compile load");
    host.expect(&args, "", 0, &["unchanged"], &[], "");
    fs::write(&pinned, "file {mask {write\n}\n}\n").unwrap();
    host.expect(&args, "", 0, &["unchanged"], &[], "compile");
    // Flags and include directories count as well.
    let more = ["--include", host.dir.path().to_str().unwrap(), NAME];
    host.expect(&more, "", 0, &["unchanged"], &[], "compile");
    host.expect(&more, "", 0, &["unchanged"], &[], "");
    // The parser reads the file once more: what it compiles must be by the text that the entry is kept under.
    fs::write(host.at("parser"), FAKE.replace("echo compile", "echo more >> \"$here/pinned\"; echo compile"))
        .unwrap();
    fs::write(host.at(&format!("{NAME}.blob")), blob(NAME, 2)).unwrap();
    let changes = "changes while it is compiled";
    host.expect(&args, "", 1, &[], &[changes], "compile");
    host.expect(&["--no-cache", "--direct", args[0], args[1], NAME], "", 1, &[], &[changes], "compile");
    fs::write(host.at("parser"), FAKE).unwrap();
    host.expect(&args, "", 0, &["replaced"], &[], "compile load");
}

#[test]
fn perms_tables_are_kept_from_parsers_that_get_them_wrong_and_from_no_other() {
    for (release, knows) in
        [("3.0.8", false), ("4.1.0", false), ("4.1.7", false), ("4.1.8", true), ("5.0.2", true)]
    {
        let host = Host::new();
        fs::write(host.at("parser"), FAKE.replace("4.1.0", release)).unwrap();
        host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
        let features = fs::read_to_string(host.at("features-seen")).unwrap();
        assert_eq!(features.contains("permstable32"), knows, "{release}: {features}");
        assert!(features.contains("set_load"), "{release}: {features}");
    }
}

#[test]
fn the_kernels_word_counts_and_not_the_parsers() {
    let host = Host::new();
    fs::write(host.at("lie"), "").unwrap();
    host.expect(&[NAME], "", 3, &[], &["the kernel does not hold what was loaded"], "compile load");
    fs::remove_file(host.at("lie")).unwrap();
    host.expect(&["add", OTHER], "", 0, &["added"], &[], "compile load");
    host.expect(&["add", OTHER], "", 1, &[], &["already in the kernel"], "");
    host.expect(&["--dry-run", NAME], "", 0, &["replaced"], &[], "");
}

#[test]
fn parsers_that_hang_crash_or_are_missing_are_told_apart() {
    let host = Host::new();
    let parser = |script: &str| {
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && echo 'AppArmor parser version 3.0.8' && exit\n{script}\n"
        );
        fs::write(host.at("parser"), text).unwrap();
    };
    // Only the one that hangs is to be ended by the time.
    for (script, timeout, message) in [
        ("sleep 60", "1", "was ended after 1 seconds"),
        ("kill -SEGV $$", "120", "killed by signal 11"),
        ("while :; do head -c 1000000 /dev/zero; done", "120", "after writing 67108864 bytes"),
    ] {
        parser(script);
        host.expect(&["--timeout", timeout, NAME], "", 3, &[], &[message], "");
    }
    parser("echo 'Skipping profile in disable: x' >&2");
    host.expect(&[NAME], "", 1, &[], &["Skipping profile"], "");
    fs::remove_file(host.at("parser")).unwrap();
    host.expect(&[NAME], "", 3, &[], &["no apparmor_parser at"], "");
    host.expect(&["--securityfs", "/nonexistent", NAME], "", 3, &[], &["AppArmor is not available"], "");
}

#[test]
fn remove_status_verify_and_gc_go_by_what_is_in_use() {
    let host = Host::new();
    for name in [NAME, OTHER] {
        host.expect(&[name], "", 0, &["added"], &[], "compile load");
    }
    let written = || fs::read_to_string(host.at("fs/apparmor/.remove")).unwrap();
    host.process(41, &format!("{NAME} (enforce)"));
    host.expect(&["remove", NAME], "", 1, &[], &["in use by process 41 (qemu-system-x86)"], "");
    assert_eq!(written(), "");
    host.expect(&["gc", "--dry-run", "--min-age", "0"], "", 0, &[OTHER], &["would remove"], "");
    assert_eq!(written(), "");
    host.expect(&["gc"], "", 0, &[], &[], "");
    let uuid = OTHER.trim_start_matches("libvirt-");
    fs::write(host.at("defs/x.xml"), format!("<domain><uuid>{uuid}</uuid></domain>")).unwrap();
    host.expect(&["gc", "--min-age", "0"], "", 0, &[], &[], "");
    host.expect(&["verify"], "", 0, &[NAME, OTHER], &[], "");
    host.expect(&["status", "--json"], "", 0, &["\"pid\":41", "\"wanted\":true"], &[], "");
    host.expect(&["status"], "", 0, &["PROFILE", NAME, OTHER], &[], "");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn relative_paths_are_those_of_the_caller_for_the_parser_too() {
    let host = Host::new();
    fs::write(host.at("features"), FEATURES).unwrap();
    let args = "--dir d --base base --securityfs fs --proc proc --cache-dir cache --parser /usr/sbin/apparmor_parser \
                --policy-features features --kernel-features features";
    let output = Command::new(env!("CARGO_BIN_EXE_aa-load"))
        .args(args.split_whitespace())
        .arg(NAME)
        .current_dir(host.dir.path())
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains(&format!("{NAME} is missing")), "{}", text(&output.stderr));
    assert!(!fs::read(host.at("fs/apparmor/.replace")).unwrap().is_empty());
}

#[test]
fn a_set_goes_in_one_write() {
    let host = Host::new();
    // Nothing plays the kernel here, so what was written is looked at, and the read-back fails.
    host.expect(
        &["--direct", "--jobs", "1", NAME, OTHER, NAME],
        "",
        3,
        &[],
        &["is missing", "names it twice"],
        "compile compile",
    );
    let set = [blob(NAME, 1), blob(OTHER, 1)].concat();
    assert_eq!(fs::read(host.at("fs/apparmor/.replace")).unwrap(), set);
    // One that does not compile is not in it.
    fs::write(host.at("fs/apparmor/.replace"), "").unwrap();
    fs::write(host.at("d").join(NAME), "refuse-me").unwrap();
    let args = ["--direct", "--jobs", "1", NAME, OTHER];
    host.expect(&args, "", 3, &[], &["apparmor_parser refused it", "is missing"], "compile");
    assert_eq!(fs::read(host.at("fs/apparmor/.replace")).unwrap(), blob(OTHER, 1));
}

#[test]
fn a_child_that_cannot_be_taken_out_is_told_beside_what_was_loaded() {
    let host = Host::new();
    host.expect(&[NAME], "", 0, &["added"], &[], "compile load");
    let child = host.at(&format!("fs/apparmor/policy/profiles/{NAME}.1/profiles/passt.2"));
    fs::create_dir_all(&child).unwrap();
    for (field, text) in [("name", "passt"), ("mode", "enforce"), ("sha256", "00")] {
        fs::write(child.join(field), text).unwrap();
    }
    let removed = || fs::read_to_string(host.at("fs/apparmor/.remove")).unwrap();
    // Whether it is in use cannot be told.
    let proc = host.at("none");
    let stays = format!("loaded, but \"{NAME}//passt\", which it no longer has, stays in the kernel");
    let args = ["--proc", proc.to_str().unwrap(), NAME];
    host.expect(&args, "", 3, &["\"action\":\"replaced\",\"mode\":\"enforce\""], &[&stays], "load");
    assert_eq!(removed(), "");
    // It is: carried, or about to be by an aa-confine that names it.
    for (label, line) in [
        (format!("{NAME}//passt (enforce)"), String::new()),
        ("unconfined".to_owned(), format!("aa-confine\0--profile\0{NAME}//passt\0--\0passt\0")),
    ] {
        host.process(41, &label);
        fs::write(host.at("proc/41/cmdline"), line).unwrap();
        let carried = format!("{stays}: in use by process 41");
        host.expect(&[NAME], "", 1, &["\"action\":\"replaced\""], &[&carried], "load");
        assert_eq!(removed(), "");
    }
    // Who enters the guest's own profile is in no need of that of the child.
    fs::write(host.at("proc/41/cmdline"), format!("aa-confine\0--profile\0{NAME}\0--\0qemu\0")).unwrap();
    host.expect(&[NAME], "", 0, &["replaced"], &[], "load");
    assert_eq!(removed(), format!("{NAME}//passt"));
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_load_without_the_kernels_file_is_the_hosts_failure() {
    let host = Host::new();
    fs::remove_file(host.at("fs/apparmor/.replace")).unwrap();
    let output = real(&host, &[NAME]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("no file to load policy by"), "{}", text(&output.stderr));
}

#[test]
fn a_closed_or_full_output_is_status_3() {
    let host = Host::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = host.command(&[NAME]).stdin(Stdio::null()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("standard output"));
    // Whoever read it has gone before the first record comes.
    let mut child = host
        .command(&[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), host.record(NAME).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(3), ""));
}

#[test]
fn help_ends_with_examples_and_statuses_and_a_wrong_option_is_status_2() {
    let host = Host::new();
    let help = text(&host.run(&["--help"], "").stdout);
    assert!(help.contains("Examples:") && help.contains("Exit status:"), "{help}");
    assert_eq!(host.run(&["--no-such"], "").status.code(), Some(2));
    // Numbers that no clock and no host goes up to, and those that do.
    for (option, wrong, right) in [
        ("--timeout", ["0", "18446744073709551615"], "86400"),
        ("--jobs", ["0", "18446744073709551615"], "1024"),
    ] {
        for wrong in wrong {
            host.expect(&[option, wrong, NAME], "", 2, &[], &[option], "");
        }
        assert!(host.run(&[option, right, NAME, OTHER], "").status.success(), "{option} {right}");
    }
}

/// The kernel's features as Debian 12 pins them, cut to what these profiles need.
const FEATURES: &str = "file {mask {create read write exec append mmap_exec link lock\n}\n}\ndomain {stack {yes\n}\nchange_profile {yes\n}\n}\npolicy {set_load {yes\n}\nversions {v8 {yes\n}\nv7 {yes\n}\nv6 {yes\n}\nv5 {yes\n}\n}\n}\n";

fn real(host: &Host, args: &[&str]) -> Output {
    fs::write(host.at("features"), FEATURES).unwrap();
    let features = host.at("features");
    let mut all = args.to_vec();
    let file = features.to_str().unwrap();
    all.extend([
        "--parser",
        "/usr/sbin/apparmor_parser",
        "--policy-features",
        file,
        "--kernel-features",
        file,
    ]);
    host.run(&all, "")
}

#[test]
#[ignore = "needs apparmor_parser"]
fn the_real_parser_writes_what_it_compiled() {
    let host = Host::new();
    // It writes to the tree's .replace; nothing plays the kernel, so the read-back finds nothing.
    let output = real(&host, &[NAME]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&format!("{NAME} is missing")), "{}", text(&output.stderr));
    let loaded = fs::read(host.at("fs/apparmor/.replace")).unwrap();
    let profiles = aa_load::blob::parse(&loaded).unwrap();
    assert_eq!(profiles.iter().map(|profile| profile.name).collect::<Vec<_>>(), [NAME]);
    let entry = fs::read(host.at("cache").join(format!("{NAME}.policy"))).unwrap();
    assert!(entry.ends_with(&loaded));
}

/// Whatever the spelling of an include, what is loaded after a change of the file is what the parser makes then.
#[test]
#[ignore = "needs apparmor_parser"]
fn no_include_that_the_real_parser_reads_is_overlooked() {
    let host = Host::new();
    fs::create_dir(host.at("base/s")).unwrap();
    fs::create_dir(host.at("outside")).unwrap();
    let outside = host.at("outside").display().to_string();
    let relative = outside.trim_start_matches('/');
    let written = |args: &[&str]| {
        fs::write(host.at("fs/apparmor/.replace"), "").unwrap();
        real(&host, args);
        fs::read(host.at("fs/apparmor/.replace")).unwrap()
    };
    for (line, file) in [
        ("include <s/a>".to_owned(), "base/s/a"),
        ("include </s/a>".to_owned(), "base/s/a"),
        ("include if exists <//s/a>".to_owned(), "base/s/a"),
        ("include < s/a >".to_owned(), "base/s/a"),
        ("include <\"s/a \">".to_owned(), "base/s/a "),
        ("include </s>".to_owned(), "base/s/a"),
        (format!("include \"{outside}/a\""), "outside/a"),
        (format!("include \"{outside}/ a \""), "outside/ a "),
        (format!("include \"{relative}/a\""), "outside/a"),
        (format!("include if exists \"{relative}/a\""), "outside/a"),
        (format!("include {relative}/a"), "outside/a"),
        (format!("include {outside}/a,b"), "outside/a,b"),
        (format!("include\t{outside}/a"), "outside/a"),
        (format!("#include{outside}/a"), "outside/a"),
        (format!("/x r,include \"{outside}/a\nb\""), "outside/a\nb"),
        (format!("mount\n#x, include {outside}/a"), "outside/a"),
        (format!("change_profile ->\n#x, include {outside}/a"), "outside/a"),
        (format!("signal peer= #x, include {outside}/a"), "outside/a"),
        (format!("\"/x\n# \" r, include {outside}/a"), "outside/a"),
    ] {
        let profile = format!("profile {NAME} {{\n  {line}\n  /last r,\n}}\n");
        fs::write(host.at("d").join(NAME), profile).unwrap();
        fs::write(host.at(file), "  /one r,\n").unwrap();
        let before = written(&[NAME]);
        assert!(!before.is_empty(), "{line}");
        fs::write(host.at(file), "  /two r,\n").unwrap();
        let after = written(&[NAME]);
        assert!(after != before && after == written(&["--no-cache", NAME]), "{line}");
        fs::remove_file(host.at(file)).unwrap();
    }
    // What may mean another file is not loaded.
    fs::write(host.at("outside/ab"), "  /one r,\n").unwrap();
    fs::write(host.at("d").join(NAME), format!("profile {NAME} {{\n  include \"{outside}/\\141b\"\n}}\n"))
        .unwrap();
    assert_eq!(written(&[NAME]), b"");
    assert!(text(&real(&host, &[NAME]).stderr).contains("that is not understood"));
}

#[test]
#[ignore = "needs apparmor_parser"]
fn the_real_parser_names_file_and_line() {
    let host = Host::new();
    for (text_of, message) in [
        (format!("profile {NAME} {{\n  /a r\n}}\n"), "at line 3"),
        (format!("profile {NAME} {{\n  include <abstractions/none>\n}}\n"), "abstractions/none"),
    ] {
        fs::write(host.at("d").join(NAME), text_of).unwrap();
        let output = real(&host, &[NAME]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(message) && error.contains(host.at("d").to_str().unwrap()), "{error}");
        assert_eq!(fs::read(host.at("fs/apparmor/.replace")).unwrap(), b"");
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn children_are_profiles_of_their_own_and_others_are_refused() {
    let host = Host::new();
    let write = |text: String| fs::write(host.at("d").join(NAME), text).unwrap();
    write(format!("profile {NAME} {{\n  /a r,\n  profile passt {{ /b r, }}\n}}\n"));
    real(&host, &[NAME]);
    let loaded = fs::read(host.at("fs/apparmor/.replace")).unwrap();
    let profiles = aa_load::blob::parse(&loaded).unwrap();
    assert_eq!(profiles[1].name, format!("{NAME}//passt"));
    fs::write(host.at("fs/apparmor/.replace"), "").unwrap();
    write(format!("profile {NAME} {{\n  /a r,\n}}\nprofile sshd {{ /b r, }}\n"));
    let output = real(&host, &[NAME]);
    assert!(text(&output.stderr).contains("\"sshd\""), "{}", text(&output.stderr));
    assert_eq!(fs::read(host.at("fs/apparmor/.replace")).unwrap(), b"");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_profile_that_confines_nothing_is_not_loaded() {
    let host = Host::new();
    for (flags, is_loaded) in [
        ("", true),
        ("flags=(kill) ", true),
        ("flags=(complain) ", true),
        ("flags=(unconfined) ", false),
        ("flags=(attach_disconnected,unconfined) ", false),
    ] {
        fs::write(host.at("fs/apparmor/.replace"), "").unwrap();
        fs::write(host.at("d").join(NAME), format!("profile {NAME} {flags}{{\n  /a r,\n}}\n")).unwrap();
        let output = real(&host, &[NAME]);
        let error = text(&output.stderr);
        // Nothing plays the kernel here.
        let (status, said) =
            if is_loaded { (3, "is missing") } else { (1, "of mode \"unconfined\", which is not loaded") };
        assert!(output.status.code() == Some(status) && error.contains(said), "{flags}: {error}");
        assert_eq!(!fs::read(host.at("fs/apparmor/.replace")).unwrap().is_empty(), is_loaded, "{flags}");
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn the_flags_that_save_time_keep_the_bytes() {
    let host = Host::new();
    fs::write(host.at("features"), FEATURES).unwrap();
    let parser = aa_load::Parser::find(Some(Path::new("/usr/sbin/apparmor_parser"))).unwrap();
    let flags = aa_load::Parser::flags(parser.version().unwrap());
    // The abstraction of every guest, and patterns that it does not have.
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../aa-render/policy");
    let mut rules = format!("  include \"{}\"\n", policy.join("abstractions/libvirt-qemu").display());
    for n in 0..40 {
        use std::fmt::Write;
        writeln!(rules, "  \"/srv/{n}/**.img\" rwk,\n  deny /srv/{n}/x* w,\n  /usr/lib*/**/{n}*.so mr,")
            .unwrap();
    }
    let profile = format!("include <tunables/global>\nprofile {NAME} {{\n{rules}}}\n");
    fs::write(host.at("d").join(NAME), profile).unwrap();
    for features in [host.at("features"), "/usr/share/apparmor-features/features".into()] {
        let compile = |flags: &[&str]| {
            let output = Command::new("/usr/sbin/apparmor_parser")
                .args(["--config-file", "/dev/null", "-QTK", "-S", "-M"])
                .arg(&features)
                .args(flags)
                .arg(host.at("d").join(NAME))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            output.stdout
        };
        assert!(compile(flags) == compile(&[]), "{flags:?} change the policy");
    }
}
