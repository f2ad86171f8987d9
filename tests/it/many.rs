//! Thousands of domains in one pipe: every good one gets through, in order, a bad one is named, and no tool grows.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use aa_tests::{directory_in_memory, own_directory};

use crate::tools::{bare_host, testqemu, tool};

/// A parser that «compiles» the smallest stream that is a profile of the asked name (see aa-load's `blob`), with nothing
/// but what its shell has built in; each run starts thousands of times.
const PARSER: &str = r#"#!/bin/sh
[ "$1" = --version ] && echo "AppArmor parser version 4.1.0" && exit
for last; do :; done
name=${last##*/}
printf '\004\010\000version\000\002\007\040\007\002\004\010\000profile\000\007\005\055\000%s\000\000\001\010' "$name"
"#;

fn name(number: usize) -> String {
    format!("libvirt-{number:08x}-d87a-584e-22b2-1d8950212bac")
}

/// What one run of the pipe gave: records of aa-load, what each tool said, each tool's status and its peak in KiB.
struct Ran {
    records: String,
    said: [String; 3],
    status: [i32; 3],
    peak: [u64; 3],
}

/// `aa-derive DIR | aa-render | aa-load --dry-run` over so many domains, of which the one in the middle is bad.
fn pipe(count: usize) -> Ran {
    // It is about the tools, not about the disk.
    let dir = directory_in_memory();
    let at = |path: &str| dir.path().join(path);
    for made in
        ["xml", "profiles", "base", "fs/apparmor/policy/profiles", "fs/apparmor/features/policy", "proc"]
    {
        own_directory(&at(made));
    }
    fs::write(at("fs/apparmor/features/policy/set_load"), "yes\n").unwrap();
    fs::write(at("parser"), PARSER).unwrap();
    fs::set_permissions(at("parser"), fs::Permissions::from_mode(0o755)).unwrap();
    for number in 0..count {
        let mut xml = testqemu().replace("a22e3930", &format!("{number:08x}"));
        if number == count / 2 {
            xml = xml.replace("/var/lib/libvirt/images/testqemu.img", "/etc/shadow");
        }
        fs::write(at("xml").join(format!("{number:06}.xml")), xml).unwrap();
    }
    let timed = |number: usize, name: &str| {
        let mut command = Command::new("/usr/bin/time");
        command.args(["--quiet", "--format=%M", "--output"]).arg(at(&format!("peak.{number}")));
        command.arg(tool(name).get_program());
        command.stderr(fs::File::create(at(&format!("said.{number}"))).unwrap());
        command
    };
    let mut derive = timed(0, "aa-derive")
        .arg("--root")
        .arg(bare_host())
        .arg(at("xml"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut render = timed(1, "aa-render")
        .args(["--dir".into(), at("profiles"), "--base".into(), at("base")])
        .stdin(derive.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let load = timed(2, "aa-load")
        .arg("--dry-run")
        .args(["--parser".into(), at("parser"), "--securityfs".into(), at("fs"), "--proc".into(), at("proc")])
        .args(["--base".into(), at("base"), "--cache-dir".into(), at("cache")])
        .stdin(render.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let status = [derive.wait().unwrap(), render.wait().unwrap(), load.status];
    let read = |what: &str, number: usize| fs::read_to_string(at(&format!("{what}.{number}"))).unwrap();
    Ran {
        records: String::from_utf8(load.stdout).unwrap(),
        said: [0, 1, 2].map(|number| read("said", number)),
        status: status.map(|status| status.code().unwrap()),
        peak: [0, 1, 2].map(|number| read("peak", number).trim().parse().unwrap()),
    }
}

/// Everything but memory.
#[track_caller]
fn check(ran: &Ran, count: usize) {
    let mut wanted = String::new();
    for number in (0..count).filter(|&number| number != count / 2) {
        writeln!(wanted, "{{\"version\":1,\"profile\":\"{}\",\"action\":\"added\"}}", name(number)).unwrap();
    }
    assert_eq!(ran.status, [1, 0, 0], "{:?}", ran.said);
    assert!(ran.said[0].contains(&format!("{:06}.xml:", count / 2)), "{}", ran.said[0]);
    assert!(ran.said[0].contains("/etc/shadow"), "{}", ran.said[0]);
    assert_eq!(ran.said[0].lines().count(), 1, "{}", ran.said[0]);
    assert_eq!((ran.said[1].as_str(), ran.said[2].as_str()), ("", ""));
    let first = ran.records.lines().zip(wanted.lines()).find(|(record, wanted)| record != wanted);
    assert!(first.is_none() && ran.records == wanted, "{first:?}");
}

#[test]
#[ignore = "needs GNU time"]
fn a_thousand_domains_and_ten_thousand_go_through_and_memory_stays() {
    let few = pipe(1_000);
    check(&few, 1_000);
    let many = pipe(10_000);
    check(&many, 10_000);
    for (few, many) in few.peak.into_iter().zip(many.peak) {
        // What is remembered of each is its name, to refuse a second of it.
        assert!(many < few + 3 * 1024, "{few} KiB for 1,000 and {many} KiB for 10,000");
    }
}
