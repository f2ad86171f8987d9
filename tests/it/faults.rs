//! aa-derive when the system fails it. It writes nothing but its output: one whole record or none.

use std::process::{Command, Stdio};

use aa_tests::strace::{self, Fault, in_each_call};

use crate::tools::{testqemu, tool};

/// Judges an output: empty, or the record; and the status must say which.
fn check(what: &str, status: Option<i32>, stdout: &str, stderr: &str, record: &str) {
    assert!(stdout.is_empty() || stdout == record, "{what}: {stdout}");
    match status {
        Some(0) => assert_eq!(stdout, record, "{what}"),
        // 127: not even its libraries could be loaded.
        Some(status) => {
            assert!([1, 3, 127].contains(&status) && !stderr.is_empty(), "{what}: {status} {stderr}");
        }
        None => {}
    }
}

#[test]
#[ignore = "needs strace"]
fn a_fault_in_any_call_gives_a_whole_record_or_none() {
    let xml = testqemu();
    let record = strace::run(&tool("aa-derive"), None, &xml).stdout;
    assert!(record.ends_with("}\n"));
    for fault in ["EIO", "ENOMEM", "EINTR"].map(Fault::Error).into_iter().chain([Fault::Signal("TERM")]) {
        let hits = in_each_call(fault, |expression| {
            let run = strace::run(&tool("aa-derive"), expression, &xml);
            // A host that cannot be looked at may give other notes and rules, but never a status that says nothing.
            if run.status != Some(0) {
                check(&format!("{fault:?} {expression:?}"), run.status, &run.stdout, &run.stderr, &record);
            }
            assert!(run.stdout.is_empty() || run.stdout.ends_with("}\n"), "{expression:?}: {}", run.stdout);
            run
        });
        assert!(hits > 5, "{fault:?}: only {hits} faults");
    }
}

#[test]
fn out_of_memory_it_gives_a_whole_record_or_none() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/domains/testqemu.xml");
    let derive = |limit: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit} exec \"$@\""), "sh"]);
        command.arg(tool("aa-derive").get_program()).arg(fixture).stdin(Stdio::null()).output().unwrap()
    };
    let record = String::from_utf8(derive("").stdout).unwrap();
    let mut failed = 0;
    for kib in (1024..).step_by(256) {
        let output = derive(&format!("ulimit -v {kib} &&"));
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        check(&format!("{kib} KiB"), output.status.code(), &stdout, &stderr, &record);
        if output.status.success() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 2, "only {failed} limits were too small");
}
