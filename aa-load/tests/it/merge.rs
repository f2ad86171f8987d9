//! `--merge` as a whole, with the real parser behind a script that counts its runs and plays the kernel.

use std::fs;
use std::process::Command;

use crate::support::{FAKE, Host, NAME, OTHER, text};

pub(crate) const PINNED: &str = "/usr/share/apparmor-features/features";
/// Compiles of a new base: under three names, and one for the rule that is denied with `audit`.
const BASE: &str = "compile compile compile compile";

pub(crate) fn host() -> Host {
    let host = Host::new();
    let real = FAKE.replace(
        r#"cat "$here/$(basename "$last").blob" ;;"#,
        r#"/usr/sbin/apparmor_parser "$@" < "$here/features-seen" ;;"#,
    );
    assert_ne!(real, FAKE);
    fs::write(host.at("parser"), real).unwrap();
    fs::write(host.at("base/abstractions/one"), "  /one r,\n  audit deny /run/denied/* w,\n").unwrap();
    for name in [NAME, OTHER] {
        profile(&host, name);
        rules(&host, name, "  \"/srv/disk.img\" rwk,\n");
    }
    host
}

fn profile(host: &Host, name: &str) {
    let dir = host.at("d");
    let text = format!(
        "profile {name} {{\n  include <abstractions/one>\n  signal peer=@{{profile_name}},\n  #include \"{0}/{name}.files\"\n  \
         include if exists \"{0}/{name}.d\"\n}}\n",
        dir.display()
    );
    fs::write(dir.join(name), text).unwrap();
}

fn rules(host: &Host, name: &str, text: &str) {
    fs::write(host.at("d").join(format!("{name}.files")), text).unwrap();
}

/// The options that make the real parser compile for what it knows.
fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--kernel-features", PINNED, "--policy-features", PINNED], more].concat()
}

#[track_caller]
fn load(host: &Host, more: &[&str], action: &str, runs: &str) {
    host.expect(&args(more), "", 0, &[action], &[], runs);
}

#[test]
#[ignore = "needs apparmor_parser"]
fn the_second_guest_costs_no_compile_and_each_change_makes_a_new_base() {
    let host = host();
    load(&host, &["--merge", NAME], "added", &format!("{BASE} load"));
    load(&host, &["--merge", OTHER], "added", "load");
    load(&host, &["--merge", OTHER], "unchanged", "");
    // A disk is plugged in.
    rules(&host, OTHER, "  \"/srv/disk.img\" rwk,\n  \"/srv/second.img\" rwk,\n");
    load(&host, &["--merge", OTHER], "replaced", "load");
    // A run without the option takes nothing that was merged, and the other way round.
    load(&host, &[OTHER], "replaced", "compile load");
    load(&host, &[OTHER], "unchanged", "");
    load(&host, &["--merge", OTHER], "replaced", "load");
    let one = "  /one r,\n  audit deny /run/denied/* w,\n";
    let include = |text: &str| fs::write(host.at("base/abstractions/one"), text).unwrap();
    include(&format!("{one}  /two r,\n"));
    load(&host, &["--merge", NAME], "replaced", &format!("{BASE} load"));
    // The older text again: its base is still there.
    include(one);
    load(&host, &["--merge", NAME], "replaced", "load");
    // Another emulator.
    rules(&host, NAME, "  \"/usr/bin/qemu\" rmix,\n  \"/srv/disk.img\" rwk,\n");
    load(&host, &["--merge", NAME], "replaced", &format!("{BASE} load"));
    // Other flags, which are part of every key.
    fs::create_dir(host.at("more")).unwrap();
    let more = host.at("more");
    load(&host, &["--merge", "--include", more.to_str().unwrap(), NAME], "unchanged", BASE);
    // Another parser.
    let parser = fs::read_to_string(host.at("parser")).unwrap();
    fs::write(host.at("parser"), format!("{parser}# new\n")).unwrap();
    load(&host, &["--merge", NAME], "unchanged", BASE);
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_cache_at_a_relative_path_is_the_callers() {
    let host = host();
    let words =
        "--merge --verbose --dir d --base base --securityfs fs --proc proc --cache-dir cache --parser parser";
    let output = Command::new(env!("CARGO_BIN_EXE_aa-load"))
        .args(words.split(' ').chain(args(&[NAME])))
        .current_dir(host.dir.path())
        .output()
        .unwrap();
    let error = text(&output.stderr);
    assert!(output.status.success() && !error.contains("compiled whole"), "{error}");
    let log = fs::read_to_string(host.at("log")).unwrap();
    assert_eq!(log.split_whitespace().collect::<Vec<_>>().join(" "), format!("{BASE} load"));
}

#[test]
#[ignore = "needs apparmor_parser"]
fn only_looking_makes_no_base_and_takes_one_that_is_there() {
    let host = host();
    let verbose = ["--merge", "--verbose", "--dry-run", NAME];
    let refused = "compiled whole: a base that only looking does not make";
    load(&host, &[OTHER], "added", "compile load");
    host.expect(&args(&verbose), "", 0, &["added"], &[refused], "compile");
    load(&host, &["--merge", OTHER], "replaced", &format!("{BASE} load"));
    let output = host.run(&args(&verbose), "");
    let error = text(&output.stderr);
    assert!(output.status.success() && !error.contains("compiled whole"), "{error}");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn what_is_not_merged_is_compiled_and_said_only_when_asked() {
    let host = host();
    load(&host, &["--merge", NAME], "added", &format!("{BASE} load"));
    let own = host.at(&format!("d/{NAME}.d"));
    fs::create_dir(&own).unwrap();
    fs::write(own.join("more"), "  /srv/more r,\n").unwrap();
    load(&host, &["--merge", NAME], "replaced", "compile load");
    fs::remove_dir_all(&own).unwrap();
    load(&host, &["--merge", NAME], "replaced", "load");
    // A rule where `audit deny` leaves no trace, and one beside it.
    rules(&host, NAME, "  \"/run/denied/x\" rw,\n");
    let verbose = args(&["--merge", "--verbose", NAME]);
    host.expect(
        &verbose,
        "",
        0,
        &["replaced"],
        &["compiled whole: a rule that meets an \"audit deny\""],
        "compile load",
    );
    rules(&host, NAME, "  \"/run/denied/x\" r,\n");
    load(&host, &["--merge", NAME], "replaced", "load");
    // A base whose entry is garbled is made again; without the option nothing is merged.
    for entry in fs::read_dir(host.at("cache")).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".policy") {
            let mut bytes = fs::read(&entry).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&entry, bytes).unwrap();
        }
    }
    load(&host, &["--merge", NAME], "unchanged", BASE);
    fs::remove_file(host.at(&format!("cache/{NAME}.policy"))).unwrap();
    // The parser's own bytes are others, and grant the same.
    load(&host, &[NAME], "replaced", "compile load");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_profile_that_can_have_no_base_costs_no_second_attempt() {
    let host = host();
    let include = "  /one r,\n  audit deny /a w, /b r,\n";
    fs::write(host.at("base/abstractions/one"), include).unwrap();
    // Nor is the reason forgotten.
    for name in [NAME, OTHER] {
        let verbose = args(&["--merge", "--verbose", name]);
        let why = format!("{name}: compiled whole: a line with \"audit\" in a form that is not known");
        host.expect(&verbose, "", 0, &["added"], &[&why], "compile load");
    }
    // One that the parser refuses is refused as ever.
    rules(&host, NAME, "  \"/refuse-me\" rwk,\n");
    fs::write(host.at("base/abstractions/one"), "  /one r\n").unwrap();
    let output = host.run(&args(&["--merge", NAME]), "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("syntax error"), "{}", text(&output.stderr));
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_set_is_merged_too_and_without_a_cache_the_call_is_wrong() {
    let host = host();
    // Nothing plays the kernel for a direct write: what was written is looked at.
    host.expect(&args(&["--merge", "--direct", NAME, OTHER]), "", 3, &[], &["is missing"], BASE);
    let written = fs::read(host.at("fs/apparmor/.replace")).unwrap();
    let names: Vec<&str> =
        aa_load::blob::parse(&written).unwrap().iter().map(|profile| profile.name).collect();
    assert_eq!(names, [NAME, OTHER]);
    host.expect(&args(&["--merge", "--no-cache", NAME]), "", 2, &[], &["--no-cache"], "");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn no_spelling_of_a_denial_is_overlooked() {
    let host = host();
    for sub in ["base/rules/abi", "base/slash", "base/local", "outside"] {
        fs::create_dir_all(host.at(sub)).unwrap();
    }
    for file in ["base/rules/abi/x", "base/slash/one", "outside/a,b"] {
        fs::write(host.at(file), "  audit deny /secret/** w,\n").unwrap();
    }
    fs::write(host.at("base/abstractions/empty"), "").unwrap();
    fs::write(host.at(&format!("base/local/{NAME}")), "  deny /secret/** w,\n").unwrap();
    rules(&host, NAME, "  \"/secret/disk.img\" rw,\n");
    let verbose = args(&["--merge", "--verbose", NAME]);
    let whole = fs::read_to_string(host.at("d").join(NAME)).unwrap();
    let outside = host.at("outside/a,b");
    let outside = format!("include {}", outside.display());
    let own = format!("include if exists </local/{NAME}>");
    for (line, why) in [
        ("\"/a #b\" r, audit deny /secret/** w,", "in a form that is not known"),
        ("#include <abstractions/empty> audit deny /secret/** w,", "in a form that is not known"),
        ("include <rules/abi>", "a rule that meets"),
        ("include </slash/one>", "a rule that meets"),
        (&outside, "a rule that meets"),
        (&own, "additions for this guest alone"),
    ] {
        let with_line = whole.replacen("include <", &format!("{line}\n  include <"), 1);
        fs::write(host.at("d").join(NAME), with_line).unwrap();
        let output = host.run(&verbose, "");
        let error = text(&output.stderr);
        assert!(
            output.status.success() && error.contains("compiled whole") && error.contains(why),
            "{line}: {error}"
        );
    }
    // The twin: without any of them it is merged.
    fs::write(host.at("d").join(NAME), whole).unwrap();
    let output = host.run(&verbose, "");
    assert!(
        output.status.success() && !text(&output.stderr).contains("compiled whole"),
        "{}",
        text(&output.stderr)
    );
}
