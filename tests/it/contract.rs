//! The records as an outsider would declare them, from the documents alone: a renamed or added
//! field fails here, whatever the shared types say.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::tools::{derive, output, render, run, testqemu, tool};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Derived {
    version: u32,
    profile: String,
    domain: BTreeMap<String, serde_json::Value>,
    template: String,
    uses: Vec<String>,
    rules: Vec<Rule>,
    notes: Vec<Note>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    path: Option<String>,
    glob: Option<String>,
    access: String,
    #[serde(default)]
    deny: bool,
    origin: Option<Origin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Origin {
    element: String,
    line: Option<u32>,
    layer: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    kind: String,
    text: String,
    line: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rendered {
    version: u32,
    profile: String,
    file: String,
    rules_file: String,
    changed: bool,
}

const PROFILE: &str = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac";

#[test]
fn what_aa_derive_writes() {
    let line = output(&mut derive(), &testqemu());
    let record: Derived = serde_json::from_str(&line).unwrap();
    assert_eq!((record.version, record.profile.as_str(), record.template.as_str()), (1, PROFILE, "qemu"));
    let field = |name: &str| record.domain.get(name).unwrap().clone();
    assert_eq!(field("name"), "testqemu");
    assert_eq!(field("uuid"), "a22e3930-d87a-584e-22b2-1d8950212bac");
    assert_eq!(field("id"), 3);
    assert_eq!(field("type"), "kvm");
    assert_eq!(field("os"), "hvm");
    assert_eq!(field("arch"), "x86_64");
    assert_eq!(field("emulator"), "/usr/bin/qemu-system-x86_64");
    assert_eq!(record.uses, ["kvm", "disk"]);
    let disk = record
        .rules
        .iter()
        .find(|rule| rule.path.as_deref() == Some("/var/lib/libvirt/images/testqemu.img"))
        .unwrap();
    assert_eq!((disk.access.as_str(), disk.deny, disk.glob.is_none()), ("rwk", false, true));
    let origin = disk.origin.as_ref().unwrap();
    assert_eq!(
        (origin.element.as_str(), origin.line, origin.layer),
        ("devices/disk[1]/source", Some(11), None)
    );
    let note = record.notes.first().unwrap();
    assert_eq!((note.kind.as_str(), note.line), ("missing-file", Some(11)));
    assert!(note.text.contains("testqemu.img"));
}

#[test]
fn what_aa_render_reads_and_writes() {
    // Written by hand: neither order nor a field of the tool's own.
    let record = format!(
        r#"{{"rules":[{{"access":"kr","path":"/srv/a"}}],"template":"qemu","profile":"{PROFILE}","version":1,"domain":{{"os":"hvm","type":"qemu","uuid":"a22e3930-d87a-584e-22b2-1d8950212bac","name":"x"}}}}"#
    );
    let dir = tempfile::tempdir().unwrap();
    let line = output(&mut render(dir.path()), &format!("{record}\n"));
    let rendered: Rendered = serde_json::from_str(&line).unwrap();
    assert_eq!((rendered.version, rendered.profile.as_str(), rendered.changed), (1, PROFILE, true));
    assert_eq!(rendered.rules_file, format!("{}.files", rendered.file));
    assert!(rendered.file.ends_with(PROFILE));
    let rules = std::fs::read_to_string(&rendered.rules_file).unwrap();
    assert!(rules.contains("  \"/srv/a\" rk,\n"), "{rules}");
}

#[test]
fn what_is_not_of_the_contract_is_refused_at_every_border() {
    let line = output(&mut derive(), &testqemu());
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"template\"", "\"tamplate\""),
        ("\"notes\":", "\"more\":1,\"notes\":"),
        ("\"path\":\"/var", "\"path\":\"var"),
        ("\"path\":\"/var", "\"glob\":\"/{\",\"path\":\"/var"),
        ("\"access\":\"rwk\"", "\"access\":\"rwkx\""),
        ("libvirt-a22e", "libvirt-A22E"),
    ] {
        let edited = line.replacen(from, to, 1);
        assert_ne!(edited, line);
        let answer = run(&mut render(dir.path()), &edited);
        assert_eq!(answer.status.code(), Some(1), "{to}");
        assert!(answer.stdout.is_empty(), "{to}");
    }
    assert!(!dir.path().join(PROFILE).exists());
    let answer = run(tool("aa-load").arg("--dry-run").arg("-"), "{\"version\":1}\n");
    assert!(matches!(answer.status.code(), Some(1 | 3)) && answer.stdout.is_empty());
}
