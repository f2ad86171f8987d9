//! A host in a temporary directory: a tree like the kernel's, and a parser that is a script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub(crate) const NAME: &str = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac";
pub(crate) const OTHER: &str = "libvirt-b22e3930-d87a-584e-22b2-1d8950212bac";

/// A parser that counts its runs, «compiles» by copying a file from beside it, and puts what it is given
/// into the tree as the kernel would, with the right hash.
pub(crate) const FAKE: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$1" in --version) echo "AppArmor parser version 4.1.0"; exit 0;; esac
for last; do :; done
case " $* " in
*" -S "*)
    echo compile >> "$here/log"
    cat > "$here/features-seen"
    echo "$last" > "$here/file-seen"
    if grep -q refuse-me "$last"; then
        echo "AppArmor parser error for $last in profile $last at line 3: syntax error" >&2; exit 1
    fi
    cat "$here/$(basename "$last").blob" ;;
*" -B "*)
    echo load >> "$here/log"
    blob=$(mktemp); cat > "$blob"
    name=$(tr '\000\001\002\003\004\005\006\007\010' '\n' < "$blob" | grep -a '^libvirt-' | head -n 1)
    dir="$here/fs/apparmor/policy/profiles/$name.1"
    mkdir -p "$dir"
    echo "$name" > "$dir/name"; echo enforce > "$dir/mode"
    { head -c 16 "$blob" | tail -c 4; tail -c +17 "$blob"; } | sha256sum | cut -d' ' -f1 > "$dir/sha256"
    if [ -e "$here/lie" ]; then echo 00 > "$dir/sha256"; fi
    rm "$blob" ;;
esac
"#;

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let host = Self { dir: aa_tests::directory_in_memory() };
        for sub in [
            "fs/apparmor/policy/profiles",
            "fs/apparmor/features/policy",
            "d",
            "base/abstractions",
            "proc",
            "defs",
            "parameters",
        ] {
            fs::create_dir_all(host.at(sub)).unwrap();
        }
        for file in [".load", ".replace", ".remove"] {
            fs::write(host.at("fs/apparmor").join(file), "").unwrap();
        }
        fs::write(host.at("fs/apparmor/features/policy/set_load"), "yes\n").unwrap();
        fs::write(host.at("fs/apparmor/features/policy/permstable32_version"), "0x000003\n").unwrap();
        for (name, value) in [("enabled", "Y\n"), ("mode", "enforce"), ("lock_policy", "N\n")] {
            fs::write(host.at("parameters").join(name), value).unwrap();
        }
        fs::write(host.at("base/abstractions/one"), "/one r,\n").unwrap();
        fs::write(host.at("parser"), FAKE).unwrap();
        fs::set_permissions(host.at("parser"), fs::Permissions::from_mode(0o755)).unwrap();
        host.profile(NAME);
        host.profile(OTHER);
        host
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn profile(&self, name: &str) {
        let text = format!(
            "profile {name} {{\n  include <abstractions/one>\n  include if exists <abstractions/maybe>\n}}\n"
        );
        fs::write(self.at("d").join(name), text).unwrap();
        fs::write(self.at(&format!("{name}.blob")), blob(name, 1)).unwrap();
    }

    pub(crate) fn record(&self, name: &str) -> String {
        let file = self.at("d").join(name);
        format!(
            "{{\"version\":1,\"profile\":\"{name}\",\"file\":\"{0}\",\"rules_file\":\"{0}.files\",\"changed\":true}}\n",
            file.display()
        )
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aa-load"));
        command.args(args);
        for (option, path) in [
            ("--dir", "d"),
            ("--base", "base"),
            ("--cache-dir", "cache"),
            ("--securityfs", "fs"),
            ("--proc", "proc"),
            ("--definitions", "defs"),
            ("--parameters", "parameters"),
            ("--parser", "parser"),
        ] {
            let is_asked = ["status", "verify", "gc"].iter().any(|verb| args.contains(verb));
            let unwanted = option == "--cache-dir" && args.contains(&"--no-cache")
                || option == "--definitions" && !is_asked;
            if !args.contains(&option) && !unwanted {
                command.arg(option).arg(self.at(path));
            }
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A run that fails early does not read it.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Status, standard output, standard error; and what the parser was run for.
    #[track_caller]
    pub(crate) fn expect(
        &self,
        args: &[&str],
        stdin: &str,
        status: i32,
        stdout: &[&str],
        stderr: &[&str],
        runs: &str,
    ) {
        let _ = fs::remove_file(self.at("log"));
        let output = self.run(args, stdin);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{out}{err}");
        assert_eq!(out.lines().count(), stdout.len(), "{out}{err}");
        for (line, part) in out.lines().zip(stdout) {
            assert!(line.contains(part), "{part} in {line}");
        }
        for part in stderr {
            assert!(err.contains(part), "{part} in {err}");
        }
        assert!(!stderr.is_empty() || err.is_empty(), "{err}");
        let log = fs::read_to_string(self.at("log")).unwrap_or_default();
        assert_eq!(log.split_whitespace().collect::<Vec<_>>().join(" "), runs);
    }

    pub(crate) fn process(&self, pid: u32, label: &str) {
        let task = self.at(&format!("proc/{pid}/task/{pid}"));
        fs::create_dir_all(task.join("attr/apparmor")).unwrap();
        fs::write(task.join("attr/apparmor/current"), format!("{label}\n")).unwrap();
        fs::write(task.join("comm"), "qemu-system-x86\n").unwrap();
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The smallest stream that is a profile of this name.
pub(crate) fn blob(name: &str, salt: u8) -> Vec<u8> {
    let mut blob = b"\x04\x08\0version\0\x02\x07\x20\x07\x02\x04\x08\0profile\0\x07\x05".to_vec();
    blob.extend(u16::try_from(name.len() + 1).unwrap().to_le_bytes());
    blob.extend(name.as_bytes());
    blob.extend([0, 0, salt, 8]);
    blob
}
