//! What the tests of the program share: running it, and the example record.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) const UUID: &str = "a22e3930-d87a-584e-22b2-1d8950212bac";
pub(crate) const PROFILE: &str = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac";

/// The example that libvirt's documentation gives, with these rules.
pub(crate) fn record(rules: &str) -> String {
    record_of(UUID, "\"disk\"", rules)
}

pub(crate) fn record_of(uuid: &str, uses: &str, rules: &str) -> String {
    format!(
        r#"{{"version":1,"profile":"libvirt-{uuid}","domain":{{"name":"testqemu","uuid":"{uuid}","id":3,"type":"kvm","os":"hvm","arch":"x86_64","emulator":"/usr/bin/qemu-system-x86_64"}},"template":"qemu","uses":[{uses}],"rules":[{rules}],"notes":[]}}
"#
    )
}

pub(crate) fn as_lxc(record: &str) -> String {
    record.replace("\"type\":\"kvm\"", "\"type\":\"lxc\"").replace("\"qemu\"", "\"lxc\"")
}

/// One rule of a record.
pub(crate) fn rule(path: &str, access: &str) -> String {
    format!(r#"{{"path":{},"access":"{access}"}}"#, serde_json::Value::from(path))
}

pub(crate) fn disk() -> String {
    rule("/var/lib/libvirt/images/testqemu.img", "rwk")
}

/// A run of the program: arguments after it, standard input, and what came of it.
pub(crate) fn run(args: &[&str], input: &str) -> (i32, String, String) {
    let output = spawn(args, input, Stdio::piped());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

pub(crate) fn spawn(args: &[&str], input: &str, stdout: Stdio) -> Output {
    spawned(Command::new(env!("CARGO_BIN_EXE_aa-render")).args(args).stdout(stdout), input)
}

/// Runs a program with this standard input.
pub(crate) fn spawned(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The program may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A profile directory, a policy tree without libvirt's files, and both as options.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    pub(crate) fn in_directory(root: tempfile::TempDir) -> Self {
        aa_tests::own_directory(&root.path().join("profiles"));
        Self { root }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("profiles")
    }

    pub(crate) fn base(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        self.dir().join(format!("{PROFILE}{suffix}"))
    }

    pub(crate) fn text(&self, suffix: &str) -> String {
        std::fs::read_to_string(self.file(suffix)).unwrap()
    }

    pub(crate) fn run(&self, args: &[&str], input: &str) -> (i32, String, String) {
        run_in(&self.dir(), self.root.path(), args, input)
    }
}

pub(crate) fn run_in(dir: &Path, base: &Path, args: &[&str], input: &str) -> (i32, String, String) {
    let dir = dir.to_str().unwrap();
    let base = base.to_str().unwrap();
    let args: Vec<&str> = ["--dir", dir, "--base", base].iter().chain(args).copied().collect();
    run(&args, input)
}
