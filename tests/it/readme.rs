//! What the walk-through of README.md has to be typed does what it shows, as far as no kernel is needed for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::tools::{bare_host, output, tool};

/// The domain of the walk-through, as far as rules go.
const VM: &str = "<domain type='kvm' id='1'>\
    <name>vm</name><uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid>\
    <os><type arch='x86_64' machine='q35'>hvm</type></os>\
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
    <source file='/var/lib/libvirt/images/vm.qcow2'/>\
    <backingStore type='file'><format type='qcow2'/><source file='/var/lib/libvirt/images/base.qcow2'/><backingStore/></backingStore>\
    <target dev='vda' bus='virtio'/></disk></devices></domain>";
/// Where the tools are in the walk-through.
const TOOLS: &str = "target/release/";

/// The commands of the walk-through, each with its prompt, and what it prints.
fn commands() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, text) = text.split_once("\n## Walk-through\n").unwrap();
    let (text, _) = text.split_once("\n## ").unwrap();
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for block in text.split("\n```console\n").skip(1) {
        let (block, _) = block.split_once("\n```\n").unwrap();
        for line in block.lines() {
            if line.starts_with("$ ") || line.starts_with("# ") {
                commands.push((line.to_owned(), Vec::new()));
            } else {
                commands.last_mut().unwrap().1.push(line.to_owned());
            }
        }
    }
    commands
}

/// What this command of the walk-through prints.
fn shown(command: &str) -> Vec<String> {
    let found = commands().into_iter().find(|(line, _)| line == command);
    found.unwrap_or_else(|| panic!("README.md does not say: {command}")).1
}

/// A directory in which the user of the walk-through is: with the domain, and the tools that are tested.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vm.xml"), VM).unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    let tools = Path::new(tool("aa-derive").get_program()).parent().unwrap().to_owned();
    symlink(tools, dir.path().join(TOOLS.trim_end_matches('/'))).unwrap();
    dir
}

/// A command of the walk-through, on a host that has nothing, with this profile directory.
fn typed(command: &str, profiles: &Path) -> Command {
    let (host, profiles) = (bare_host(), profiles.display());
    let host = host.display();
    let command = command
        .trim_start_matches("$ ")
        .replace("/aa-derive ", &format!("/aa-derive --root '{host}' "))
        .replace("/aa-render ", &format!("/aa-render --base '{host}' --dir '{profiles}' "));
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]);
    shell
}

#[test]
fn the_rules_are_those_that_are_shown() {
    let command = r#"$ target/release/aa-derive vm.xml | jq -r '.rules[] | "\(.access)\t\(.path // .glob)\t\(.origin.element)"'"#;
    let wanted = shown(command);
    let place = place();
    let (derive, _) = command.split_once(" | jq").unwrap();
    let record = output(typed(derive, place.path()).current_dir(place.path()), "");
    let record: Value = serde_json::from_str(&record).unwrap();
    // What jq makes of it, which is not everywhere.
    let rules = record["rules"].as_array().unwrap().iter().map(|rule| {
        let target = rule.get("path").unwrap_or(&rule["glob"]);
        let words = [&rule["access"], target, &rule["origin"]["element"]];
        words.map(|word| word.as_str().unwrap()).join("\t")
    });
    assert_eq!(rules.collect::<Vec<_>>(), wanted);
}

#[test]
fn what_would_change_is_told_and_nothing_is_changed() {
    let command = "$ target/release/aa-derive vm.xml | target/release/aa-render --diff";
    assert_eq!(shown(command), [""; 0]);
    let (place, profiles) = (place(), tempfile::tempdir().unwrap());
    let diff = output(typed(command, profiles.path()).current_dir(place.path()), "");
    assert!(diff.contains("\n+  \"/var/lib/libvirt/images/vm.qcow2\" rwk,\n"), "{diff}");
    assert_eq!(fs::read_dir(profiles.path()).unwrap().count(), 0);
}

/// Each of our programs is called by its path (another of the name may be the one in root's), and knows what it is given.
#[test]
fn each_program_is_called_by_its_path_and_knows_its_words() {
    let mut total = 0;
    for (line, _) in commands() {
        for part in line.trim_start_matches(['$', '#', ' ']).split(" | ") {
            let mut words = part.split_whitespace();
            let program = words.next().unwrap();
            let Some(name) = program.strip_prefix(TOOLS) else {
                assert!(!program.starts_with("aa-") && !line.contains("sudo aa-"), "{line}");
                continue;
            };
            total += 1;
            let help = output(tool(name).arg("--help"), "");
            let given = words.take_while(|word| *word != "--");
            for word in given.filter(|word| word.starts_with("--") || ["status", "remove"].contains(word)) {
                assert!(help.contains(word), "{name} knows no {word}: {line}");
            }
        }
    }
    assert!(total > 6, "only {total}");
}
