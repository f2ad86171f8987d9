//! The program as its users call it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{PROFILE, Place, UUID, as_lxc, disk, record, record_of, rule, run, spawn};

#[test]
fn the_documented_example_gives_the_documented_files() {
    let place = Place::new();
    let rules = format!("{},{}", disk(), r#"{"glob":"/run/libvirt/**/testqemu.pid","access":"rwk"}"#);
    let (status, out, err) = place.run(&[], &record(&rules));
    assert_eq!((status, err.as_str()), (0, ""));
    let dir = place.dir();
    let dir = dir.to_str().unwrap();
    assert_eq!(
        out,
        format!(
            "{{\"version\":1,\"profile\":\"{PROFILE}\",\"file\":\"{dir}/{PROFILE}\",\"rules_file\":\"{dir}/{PROFILE}.files\",\"changed\":true}}\n"
        )
    );
    assert_eq!(
        place.text(".files"),
        "# Made by aa-render for domain \"testqemu\"; changes are lost.\n  \"/var/lib/libvirt/images/testqemu.img\" rwk,\n  \"/run/libvirt/**/testqemu.pid\" rwk,\n"
    );
    let base = place.text("");
    assert!(base.contains(&format!("\nprofile {PROFILE} flags=(attach_disconnected) {{\n")), "{base}");
    assert!(base.contains(&format!("  #include \"{dir}/{PROFILE}.files\"\n")), "{base}");
    assert!(!base.contains("LIBVIRT_TEMPLATE"), "{base}");
    let mode = fs::metadata(place.file("")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, [".aa-render.lock".to_owned(), PROFILE.to_owned(), format!("{PROFILE}.files")]);
}

#[test]
fn what_is_unchanged_is_not_written_again() {
    let place = Place::new();
    place.run(&[], &record(&disk()));
    let inode = |suffix| fs::metadata(place.file(suffix)).unwrap().ino();
    let before = (inode(""), inode(".files"));
    let (status, out, _) = place.run(&[], &record(&disk()));
    assert_eq!(status, 0);
    assert!(out.contains("\"changed\":false"), "{out}");
    assert_eq!(before, (inode(""), inode(".files")));
    let (_, out, _) = place.run(&[], &record(&rule("/b", "r")));
    assert!(out.contains("\"changed\":true"), "{out}");
    assert!(!place.text(".files").contains("testqemu.img"));
}

#[test]
fn a_bad_record_is_named_and_the_others_are_served() {
    let place = Place::new();
    let other = "b22e3930-d87a-584e-22b2-1d8950212bac";
    let input = format!(
        "{}{{\"version\":1,\"more\":1}}\n{}{}",
        record(&disk()),
        record_of(other, "", &disk()),
        record(&rule("relative", "r"))
    );
    let (status, out, err) = place.run(&[], &input);
    assert_eq!(status, 1);
    assert_eq!(out.lines().count(), 2);
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert!(lines[0].starts_with("aa-render: stdin:2:19: not a record: unknown field `more`"), "{err}");
    assert!(lines[1].starts_with("aa-render: stdin:4:"), "{err}");
    assert!(lines[1].contains("\"relative\" is not an absolute path"), "{err}");
}

#[test]
fn two_guests_never_share_a_profile() {
    let place = Place::new();
    let other = record(&rule("/b", "r")).replace("\"name\":\"testqemu\"", "\"name\":\"other\"");
    let (status, out, err) = place.run(&[], &format!("{}{other}{}", record(&disk()), record(&disk())));
    assert_eq!((status, out.lines().count()), (1, 2), "{err}");
    assert!(err.contains("is already the profile of domain \"testqemu\" in this run"), "{err}");
    assert!(place.text(".files").contains("testqemu.img") && !place.text(".files").contains("/b"));
}

#[test]
fn what_is_not_a_record_is_refused_and_nothing_is_written() {
    let place = Place::new();
    for bad in ["<domain/>\n", "{}\n", "\n", "null\n", "\u{1b}[31m\n", "{\"version\":2}\n"] {
        let (status, out, err) = place.run(&[], bad);
        assert_eq!((status, out.as_str()), (1, ""), "{bad}");
        assert!(err.starts_with("aa-render: stdin:1:") && err.lines().count() == 1, "{err}");
        assert!(!err.contains('\u{1b}'));
    }
    let half = record(&disk());
    let (status, ..) = place.run(&[], half.get(..half.len() / 2).unwrap());
    assert_eq!(status, 1);
    assert!(!place.file("").exists());
}

/// Not each of its lines by itself. Behind a record a line that is none is one bad line.
#[test]
fn what_is_no_file_of_records_is_told_once() {
    let place = Place::new();
    let value: serde_json::Value = serde_json::from_str(&record(&disk())).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let why = "not a record: one JSON object a line is expected (aa-derive without --pretty)";
    for (input, column) in [(pretty.as_str(), 1), ("<domain>\n</domain>\n", 1), ("[1,\n2]\n", 1)] {
        let (status, out, err) = place.run(&[], input);
        assert_eq!((status, out.as_str(), err), (1, "", format!("aa-render: stdin:1:{column}: {why}\n")));
    }
    // The next input is read all the same.
    let file = place.dir().join("pretty.json");
    fs::write(&file, &pretty).unwrap();
    let (status, out, err) = place.run(&[file.to_str().unwrap(), "-"], &record(&disk()));
    assert_eq!((status, out.lines().count(), err.lines().count()), (1, 1, 1), "{err}");
    let (status, out, err) = place.run(&[], &format!("{0}{{\n{0}", record(&disk())));
    assert_eq!((status, out.lines().count(), err.lines().count()), (1, 2, 1), "{err}");
    assert!(err.starts_with("aa-render: stdin:2:1: not a record: EOF while parsing an object"), "{err}");
}

#[test]
fn a_file_that_is_not_there_does_not_stop_the_others() {
    let place = Place::new();
    let (status, out, err) = place.run(&["/nonexistent", "-"], &record(&disk()));
    assert_eq!(status, 3);
    assert_eq!(out.lines().count(), 1);
    assert_eq!(err, "aa-render: /nonexistent: read: no such file or directory\n");
}

#[test]
fn output_that_cannot_be_written_is_the_hosts_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = spawn(&["--stdout"], &record(&disk()), full.into());
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(err, "aa-render: stdout: write: no space left on device\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = spawn(&["--stdout"], &record(&disk()), Stdio::from(writer));
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(3), b"".as_slice()));
}

#[test]
fn a_wrong_call_is_status_2() {
    for args in [
        &["--nonsense"][..],
        &["--complain", "--enforce"],
        &["--stdout", "--append"],
        &["--add", "/a"],
        &["--add", "/a", "--uuid", UUID],
        &["--add", "/a", "--reason", "", "--uuid", UUID],
        &["--add", "/a:ro", "--reason", "r", "--uuid", UUID],
        &["--drop", "/a"],
        &["--uuid", UUID],
        &["--drop", "/a", "--uuid", UUID, "file"],
    ] {
        let (status, out, err) = run(args, "");
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}");
        assert!(!err.is_empty());
    }
    let (status, out, _) = run(&["--help"], "");
    assert_eq!(status, 0);
    assert!(out.contains("Examples:") && out.contains("Exit status:"));
}

#[test]
fn the_users_template_is_used_and_checked() {
    let place = Place::new();
    let templates = tempfile::tempdir().unwrap();
    let option = ["--template-dir", templates.path().to_str().unwrap()];
    let (status, _, err) = place.run(&option, &record(&disk()));
    assert_eq!(status, 3);
    assert!(err.ends_with("/TEMPLATE.qemu: no such template\n"), "{err}");
    fs::write(templates.path().join("TEMPLATE.qemu"), "# none\nprofile other {\n}\n").unwrap();
    let (status, _, err) = place.run(&option, &record(&disk()));
    assert_eq!(status, 1);
    assert!(err.contains("/TEMPLATE.qemu:4: the profile is not declared here"), "{err}");
    assert!(!place.file("").exists() && !place.file(".files").exists());
    let text = "profile LIBVIRT_TEMPLATE {\n  /mine r,\n}\n";
    fs::write(templates.path().join("TEMPLATE.qemu"), text).unwrap();
    assert_eq!(place.run(&option, &record(&disk())).0, 0);
    assert!(place.text("").starts_with(&format!("profile {PROFILE} {{\n  /mine r,\n  #include ")));
    // A container's template is still missing, a guest of QEMU is served all the same.
    let input = format!("{}{}", as_lxc(&record("")), record(&disk()));
    let (status, out, _) = place.run(&[option[0], option[1], "--renew"], &input);
    assert_eq!((status, out.lines().count()), (3, 1));
}

#[test]
fn the_base_profile_is_the_users() {
    let place = Place::new();
    let mine = format!("profile {PROFILE} {{\n  /mine r,\n  #include <libvirt/{PROFILE}.files>\n}}\n");
    fs::write(place.file(""), &mine).unwrap();
    assert_eq!(place.run(&[], &record(&disk())).0, 0);
    assert_eq!(place.text(""), mine);
    // --renew makes it anew and keeps the mode.
    assert_eq!(place.run(&["--complain"], &record(&disk())).0, 0);
    assert_eq!(place.run(&["--renew"], &record(&disk())).0, 0);
    assert!(!place.text("").contains("/mine"));
    assert!(place.text("").contains("flags=(attach_disconnected, complain)"));
    // What a crash of another tool left empty is made anew; what is broken is named.
    fs::write(place.file(""), "").unwrap();
    assert_eq!(place.run(&[], &record(&disk())).0, 0);
    assert!(place.text("").contains(PROFILE));
    fs::write(place.file(""), "profile other {\n}\n").unwrap();
    let (status, _, err) = place.run(&[], &record(&rule("/new", "r")));
    assert_eq!(status, 1);
    assert!(err.contains(&format!("{PROFILE}:3: the profile is not declared here")), "{err}");
    assert!(!place.text(".files").contains("/new"));
}

#[test]
fn a_base_profile_that_ignores_the_rules_is_warned_of() {
    let place = Place::new();
    fs::write(place.file(""), format!("profile {PROFILE} {{\n}}\n")).unwrap();
    let (status, out, err) = place.run(&[], &record(&disk()));
    assert_eq!((status, out.lines().count()), (0, 1));
    assert!(err.contains("warning: it does not include the rules file"), "{err}");
}

#[test]
fn complain_mode_lasts_until_enforce() {
    let place = Place::new();
    let flags = "flags=(attach_disconnected, complain)";
    place.run(&["--complain"], &record(&disk()));
    assert!(place.text("").contains(flags));
    let (_, out, _) = place.run(&[], &record(&disk()));
    assert!(out.contains("\"changed\":false") && place.text("").contains(flags));
    place.run(&["--enforce"], &record(&disk()));
    assert!(place.text("").contains("flags=(attach_disconnected) {"));
}

#[test]
fn diff_and_dry_run_write_nothing() {
    let place = Place::new();
    let (status, out, _) = place.run(&["--dry-run"], &record(&disk()));
    assert_eq!(status, 0);
    assert!(out.contains("\"changed\":true"));
    let (status, out, _) = place.run(&["--diff"], &record(&disk()));
    assert_eq!(status, 0);
    assert!(
        out.contains("--- /dev/null\n")
            && out.contains("\n+  \"/var/lib/libvirt/images/testqemu.img\" rwk,\n")
    );
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0);
    place.run(&[], &record(&disk()));
    assert_eq!(place.run(&["--diff"], &record(&disk())).1, "");
    fs::create_dir(place.file(".d")).unwrap();
    fs::write(place.file(".d").join("keys"), "  /srv/keys r,\n").unwrap();
    let (_, out, _) = place.run(&["--diff"], &record(&rule("/b", "r")));
    let header = "# Made by aa-render for domain \"testqemu\"; changes are lost.";
    let expected = format!(
        "--- {0}\n+++ {0}\n@@ -1,2 +1,2 @@\n {header}\n-  \"/var/lib/libvirt/images/testqemu.img\" rwk,\n+  \"/b\" r,\nDrop-in: {1}/keys\n",
        place.file(".files").display(),
        place.file(".d").display()
    );
    assert_eq!(out, expected);
    assert!(!place.text(".files").contains("/b"));
    // One that does not take the additions in, as libvirt's helper makes it.
    let own = format!("{PROFILE}.d");
    let text = place.text("");
    let base: Vec<&str> = text.lines().filter(|line| !line.contains(&own)).collect();
    fs::write(place.file(""), base.join("\n")).unwrap();
    assert!(!place.run(&["--diff"], &record(&rule("/b", "r"))).1.contains("Drop-in"));
}

#[test]
fn append_merges_and_is_idempotent() {
    let place = Place::new();
    let original =
        "# DO NOT EDIT\n  \"/var/log/libvirt/**/testqemu.log\" w,\n  \"/srv/b\" rk,\n  deny \"/srv/b\" w,\n";
    fs::write(place.file(".files"), original).unwrap();
    for changed in ["true", "false"] {
        let (status, out, err) = place.run(&["--append"], &record(&rule("/srv/b", "rwk")));
        assert_eq!(status, 0, "{err}");
        assert!(out.contains(&format!("\"changed\":{changed}")), "{out}");
    }
    let text = place.text(".files");
    for line in
        ["  \"/srv/b\" rwk,\n", "  deny \"/srv/b\" w,\n", "  \"/var/log/libvirt/**/testqemu.log\" w,\n"]
    {
        assert_eq!(text.matches(line).count(), 1, "{text}");
    }
    fs::write(place.file(".files"), "  \"/a\" r,\n  capability sys_admin,\n").unwrap();
    let (status, out, err) = place.run(&["--append"], &record(&disk()));
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains(".files:2: not a line of the form"), "{err}");
    assert!(place.text(".files").contains("capability"));
}

#[test]
fn a_hundred_appends_at_once_lose_nothing() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..100 {
            let place = &place;
            scope.spawn(move || {
                let path = format!("/srv/disk-{number}");
                let (status, _, err) = place.run(&["--append"], &record(&rule(&path, "rwk")));
                assert_eq!(status, 0, "{err}");
            });
        }
    });
    let text = place.text(".files");
    for number in 0..100 {
        assert!(text.contains(&format!("\"/srv/disk-{number}\" rwk,")), "{number} is lost");
    }
    assert_eq!(text.lines().count(), 101);
}

#[test]
fn a_grant_survives_a_new_derivation_until_it_is_dropped() {
    let place = Place::new();
    let add = ["--add", "/srv/backup.img:rw", "--reason", "nightly backup", "--uuid", UUID];
    // Before the guest is rendered there is nothing to load; the grant waits.
    let waits =
        format!("aa-render: {PROFILE}: there is no such profile; what is granted waits until one is made\n");
    assert_eq!(place.run(&add, ""), (0, String::new(), waits));
    place.run(&[], &record(&disk()));
    assert!(place.text(".files").contains("  \"/srv/backup.img\" rw,\n"));
    place
        .run(&["--add", "/var/lib/libvirt/images/testqemu.img:r", "--reason", "x", "--profile", PROFILE], "");
    let (_, out, _) = place.run(&[], &record(&rule("/other", "r")));
    assert!(out.contains("\"changed\":true"));
    let text = place.text(".files");
    assert!(text.contains("/other") && text.contains("/srv/backup.img"), "{text}");
    // A grant is not merged into the guest's own rules, so that it can be taken back.
    place.run(&["--append"], &record(&rule("/third", "r")));
    let (status, out, _) = place.run(&["--drop", "/srv/backup.img", "--uuid", UUID], "");
    assert_eq!((status, out.contains("\"changed\":true")), (0, true));
    let text = place.text(".files");
    assert!(!text.contains("backup") && text.contains("/other") && text.contains("/third"), "{text}");
    place.run(&["--drop", "/var/lib/libvirt/images/testqemu.img", "--uuid", UUID], "");
    assert!(!place.file(".grants").exists());
    let (status, _, err) = place.run(&["--drop", "/srv/backup.img", "--uuid", UUID], "");
    assert_eq!(status, 1);
    assert!(err.ends_with(&format!("--drop: {PROFILE}: no grant for \"/srv/backup.img\"\n")), "{err}");
    let (status, _, err) = place.run(&["--add", "rel", "--reason", "x", "--uuid", UUID], "");
    assert_eq!(status, 1);
    assert!(err.contains("--add: \"rel\" is not an absolute path"), "{err}");
}

#[test]
fn a_grant_that_no_profile_could_hold_is_refused() {
    let place = Place::new();
    let add = |grant: &str| place.run(&["--add", grant, "--reason", "x", "--uuid", UUID], "");
    place.run(&[], &record(&rule("/usr/bin/qemu-system-x86_64", "rmix")));
    let before = place.text(".files");
    let (status, out, err) = add("/srv/img:x");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("plain \"x\" stands in deny rules and only there"), "{err}");
    let (status, out, err) = add("/usr/bin/qemu-system-x86_64:Ux");
    assert_eq!((status, out.as_str()), (1, ""));
    let two_ways = "the grant of \"/usr/bin/qemu-system-x86_64\": \"rmix\" and \"Ux\" execute";
    assert!(err.contains(two_ways), "{err}");
    assert!(place.text(".files") == before && !place.file(".grants").exists());
    // The twins: the same way, and another path.
    assert_eq!(add("/usr/bin/qemu-system-x86_64:rix").0, 0);
    assert_eq!(add("/srv/tool:Ux").0, 0);
    // Granted first, it keeps a later record out until it is dropped.
    let (status, _, err) = place.run(&[], &record(&rule("/srv/tool", "rix")));
    assert!(status == 1 && err.contains("the grant of \"/srv/tool\""), "{err}");
    assert_eq!(place.run(&["--drop", "/srv/tool", "--uuid", UUID], "").0, 0);
    assert_eq!(place.run(&[], &record(&rule("/srv/tool", "rix"))).0, 0);
}

#[test]
fn a_grant_that_the_guests_rules_deny_is_refused() {
    let place = Place::new();
    let denied = r#"{"path":"/srv/img","access":"rk"},{"path":"/srv/img","access":"w","deny":true}"#;
    place.run(&[], &record(denied));
    let before = place.text(".files");
    let add = |grant: &str| place.run(&["--add", grant, "--reason", "x", "--uuid", UUID], "");
    let (status, out, err) = add("/srv/img:rwk");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("the grant of \"/srv/img\": a rule of the guest denies \"w\" there"), "{err}");
    assert!(place.text(".files") == before && !place.file(".grants").exists());
    // The twins: what it does not deny, and another file.
    assert_eq!(add("/srv/img:r").0, 0);
    assert_eq!(add("/srv/other:rwk").0, 0);
    // Granted first, it is told when a record denies it.
    let other = r#"{"path":"/srv/other","access":"w","deny":true}"#;
    let (status, _, err) = place.run(&[], &record(other));
    assert_eq!(status, 0);
    assert!(err.contains("warning: what was granted of \"/srv/other\" is denied"), "{err}");
}

#[test]
fn a_grant_of_a_link_is_told_where_it_leads() {
    let place = Place::new();
    place.run(&[], &record(&disk()));
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/img"), "").unwrap();
    symlink(at("real"), at("link")).unwrap();
    symlink("real/missing", at("dangling")).unwrap();
    let add = |path: &str| {
        let (status, _, err) = place.run(&["--add", &at(path), "--reason", "x", "--uuid", UUID], "");
        assert_eq!(status, 0, "{err}");
        err
    };
    for (path, end) in
        [("link/img", "real/img"), ("link/new/img", "real/new/img"), ("dangling", "real/missing")]
    {
        let err = add(path);
        assert!(
            err.contains("warning: ") && err.contains(&format!("\"{}\", which is not granted", at(end))),
            "{err}"
        );
    }
    for path in ["real/img", "real/new"] {
        assert_eq!(add(path), "", "{path}");
    }
}

#[test]
fn a_grant_for_a_stopped_guest_waits_for_its_start() {
    let place = Place::new();
    place.run(&[], &record(&disk()));
    // As libvirtd's helper leaves it.
    fs::remove_file(place.file(".files")).unwrap();
    let add = ["--add", "/srv/backup.img:rw", "--reason", "x", "--uuid", UUID];
    let waits = format!(
        "aa-render: {PROFILE}: the guest has no rules now; what is granted waits until it is started\n"
    );
    assert_eq!(place.run(&add, ""), (0, String::new(), waits));
    let (_, out, _) = place.run(&[], &record(&disk()));
    assert!(out.contains("\"changed\":true") && place.text(".files").contains("backup"), "{out}");
    // The twin: what is in force at once.
    let (status, out, err) = place.run(&["--add", "/srv/more.img", "--reason", "x", "--uuid", UUID], "");
    assert_eq!((status, out.lines().count(), err.as_str()), (0, 1, ""));
}

#[test]
fn what_libvirtds_helper_remembers_outlasts_every_change() {
    let place = Place::new();
    let memo = "# virt-aa-helper: {\"id\":3}\n";
    place.run(&[], &record(&disk()));
    let (head, rules) =
        place.text(".files").split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    fs::write(place.file(".files"), format!("{head}\n{memo}{rules}")).unwrap();
    let add = ["--add", "/srv/backup.img:rw", "--reason", "x", "--uuid", UUID];
    for (args, input) in [
        (&add[..], String::new()),
        (&["--append"], record(&rule("/b", "r"))),
        (&[], record(&rule("/c", "r"))),
        (&["--drop", "/srv/backup.img", "--uuid", UUID], String::new()),
    ] {
        let (status, out, err) = place.run(args, &input);
        assert!(status == 0 && out.contains("\"changed\":true"), "{err}");
        assert_eq!(place.text(".files").matches(memo).count(), 1, "{args:?}");
    }
}

#[test]
fn both_kinds_of_lock_keep_each_other_out() {
    let place = Place::new();
    let layout = aa_render::Layout::new(&place.dir(), place.base()).unwrap();
    let store = aa_render::Store::open(&layout, aa_render::Sync::Required).unwrap();
    let profile = PROFILE.parse().unwrap();
    let any = store.lock(profile).unwrap();
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| drop(store.lock_without_file(profile).unwrap()));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!helper.is_finished());
        drop(any);
        helper.join().unwrap();
    });
    let helper = store.lock_without_file(profile).unwrap();
    std::thread::scope(|scope| {
        let render = scope.spawn(|| place.run(&[], &record(&disk())));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!render.is_finished() && !place.file("").exists());
        drop(helper);
        assert_eq!(render.join().unwrap().0, 0);
    });
    assert!(place.file("").exists() && !place.file(".lock").is_symlink());
}

#[test]
fn links_and_foreign_directories_are_refused() {
    let place = Place::new();
    let target = place.dir().join("elsewhere");
    fs::write(&target, "").unwrap();
    symlink(&target, place.file(".files")).unwrap();
    let (status, _, err) = place.run(&[], &record(&disk()));
    assert_eq!(status, 3);
    assert!(err.contains("it is a symbolic link"), "{err}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "");
    fs::remove_file(place.file(".files")).unwrap();
    fs::hard_link(&target, place.file(".files")).unwrap();
    let (status, _, err) = place.run(&[], &record(&disk()));
    assert_eq!(status, 3);
    assert!(err.contains("more than one name"), "{err}");
    fs::remove_file(place.file(".files")).unwrap();
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let (status, _, err) = place.run(&[], &record(&disk()));
    assert_eq!(status, 3);
    assert!(err.contains("everybody may make files in it"), "{err}");
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(place.run(&[], &record(&disk())).0, 0);
}

#[test]
fn a_directory_is_made_but_not_its_parents() {
    let place = Place::new();
    let deep = place.dir().join("a/b");
    let base = place.dir();
    let run =
        |dir: &std::path::Path, args: &[&str]| crate::support::run_in(dir, &base, args, &record(&disk()));
    assert_eq!(run(&deep, &[]).0, 3);
    assert_eq!(run(&place.dir().join("a"), &["--dry-run"]).0, 0);
    assert!(!place.dir().join("a").exists());
    // Nor is one made for what comes to nothing.
    let run_on =
        |args: &[&str], input: &str| crate::support::run_in(&place.dir().join("a"), &base, args, input).0;
    assert_eq!((run_on(&["/nonexistent"], ""), run_on(&[], ""), run_on(&[], "{}\n")), (3, 0, 1));
    assert!(!place.dir().join("a").exists());
    assert_eq!(run(&place.dir().join("a"), &[]).0, 0);
    assert!(place.dir().join("a").join(PROFILE).exists());
}

#[test]
fn a_directory_that_is_made_is_one_to_write_into_whatever_the_umask() {
    for umask in ["002", "077", "000"] {
        let place = Place::new();
        let dir = place.dir().join("new");
        for input in [record(&disk()), record(&rule("/b", "r"))] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_aa-render")]);
            shell.arg("--dir").arg(&dir).arg("--base").arg(place.base()).stdout(Stdio::null());
            let output = crate::support::spawned(&mut shell, &input);
            assert!(output.status.success(), "{umask}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o755, "{umask}");
        assert_eq!(fs::metadata(dir.join(PROFILE)).unwrap().permissions().mode() & 0o7777, 0o644, "{umask}");
    }
}

#[test]
fn stdout_prints_the_profile_and_touches_nothing() {
    let place = Place::new();
    let (status, out, _) = place.run(&["--stdout"], &record(&disk()));
    assert_eq!(status, 0);
    assert!(out.contains(&format!("profile {PROFILE} ")));
    assert!(out.ends_with("  \"/var/lib/libvirt/images/testqemu.img\" rwk,\n}\n"), "{out}");
    assert!(!out.contains(".files"));
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0);
    // The parser takes no profile twice.
    let (status, out, err) = place.run(&["--stdout"], &format!("{0}{0}", record(&disk())));
    assert_eq!((status, out.matches(&format!("profile {PROFILE} ")).count()), (1, 1));
    assert!(err.contains("stdin:2: ") && err.contains("is in this output already"), "{err}");
}

#[test]
fn a_minimal_profile_follows_what_the_guest_uses() {
    let place = Place::new();
    let with = |uses: &str| record_of(UUID, uses, &disk());
    assert_eq!(place.run(&["--minimal"], &with("\"kvm\"")).0, 0);
    assert!(place.text("").contains("/dev/kvm rw,") && !place.text("").contains("/dev/snd"));
    assert!(!place.text("").contains("abstractions/"));
    place.run(&["--minimal", "--complain"], &with("\"kvm\",\"usb\""));
    assert!(place.text("").contains("/sys/bus/usb/devices/ r,"));
    // Whoever makes the rules, as libvirtd's helper does.
    place.run(&[], &with("\"sound\""));
    let text = place.text("");
    assert!(
        !text.contains("/dev/kvm") && text.contains("/dev/snd/* rw,") && text.contains("complain"),
        "{text}"
    );
    // A base profile from a template is the user's: it becomes minimal only when told to.
    place.run(&["--renew"], &with(""));
    let (status, _, err) = place.run(&["--minimal"], &with(""));
    assert_eq!(status, 1);
    assert!(err.contains("--renew"), "{err}");
    assert_eq!(place.run(&["--minimal", "--renew"], &with("")).0, 0);
    assert!(!place.text("").contains("abstractions/"));
}
