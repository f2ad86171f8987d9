//! docs/minimal.md: its tables, out of the code and of what the real parser makes of the profiles.
//!
//! `AA_WRITE_POLICY=1` writes them again. Only paths are taken from libvirt's policy, none of its text.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aa_contract::Feature;

use aa_tests::compiled::{BASE, FileDfa, READ, WRITE, parser};

use crate::parser::FEATURES;
use crate::support::{UUID, disk, record_of, rule, run};

const EXECUTE: u32 = 0x1;
/// The guest that most hosts run.
const USUAL: &str = r#""kvm","disk","tap","vhost-net","vnc","pty""#;

/// Files of a host that some guest or other uses, and those that none should.
const HOST: [(&str, &[&str]); 6] = [
    (
        "Programs",
        &[
            "/usr/bin/qemu-system-x86_64",
            "/usr/bin/qemu-system-aarch64",
            "/usr/bin/qemu-arm",
            "/usr/bin/bash",
            "/usr/bin/dash",
            "/usr/bin/dd",
            "/usr/bin/swtpm",
            "/usr/bin/passt",
        ],
    ),
    (
        "Devices",
        &[
            "/dev/kvm",
            "/dev/net/tun",
            "/dev/vfio/vfio",
            "/dev/snd/pcmC0D0p",
            "/dev/bus/usb/",
            "/dev/dri/",
            "/dev/ptmx",
            "/dev/tty",
            "/dev/console",
            "/dev/log",
        ],
    ),
    (
        "Keys, certificates, passwords",
        &[
            "/etc/krb5.keytab",
            "/etc/ldap.secret",
            "/tmp/krb5cc_0",
            "/root/.pulse-cookie",
            "/etc/letsencrypt/archive/host.example/cert1.pem",
            "/etc/ssl/certs/host.example.pem",
            "/etc/pki/qemu/server-key.pem",
            "/etc/pki/libvirt-vnc/server-key.pem",
            "/home/.ecryptfs/user/.Private/file",
        ],
    ),
    (
        "Other guests and their processes",
        &[
            "/var/lib/libvirt/qemu/nvram/other_VARS.fd",
            "/dev/pts/7",
            "/dev/shm/spice.1",
            "/proc/1/status",
            "/proc/1/cmdline",
        ],
    ),
    (
        "Accounts and services",
        &[
            "/var/lib/extrausers/passwd",
            "/var/lib/sss/pipes/nss",
            "/var/lib/samba/winbindd_privileged/pipe",
            "/etc/samba/smb.conf",
            "/etc/ceph/ceph.conf",
            "/etc/openldap/ldap.conf",
            "/etc/sasl2/qemu.conf",
            "/etc/pulse/client.conf",
            "/etc/hosts",
            "/etc/resolv.conf",
        ],
    ),
    (
        "The system",
        &[
            "/",
            "/tmp/",
            "/tmp/directory/",
            "/sys/bus/",
            "/sys/class/",
            "/sys/bus/usb/devices/1-1",
            "/proc/stat",
            "/usr/lib/x86_64-linux-gnu/file",
            "/usr/share/alsa/alsa.conf",
            "/usr/share/common-licenses/GPL-3",
            "/usr/share/ca-certificates/authority.crt",
        ],
    ),
];

/// A policy tree with AppArmor's own abstractions and libvirt's policy.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let libvirts =
            PathBuf::from(std::env::var("AA_LIBVIRT_POLICY").unwrap_or_else(|_| format!("{BASE}/libvirt")));
        let libvirts = libvirts.parent().unwrap();
        for (from, dir) in [
            (Path::new(BASE), "abi"),
            (Path::new(BASE), "tunables"),
            (Path::new(BASE), "abstractions"),
            (libvirts, "abstractions"),
            (libvirts, "libvirt"),
        ] {
            copy(&from.join(dir), &tree.path().join(dir));
        }
        // Of another package, which may be here or not.
        let _absent = fs::remove_file(tree.path().join("abstractions/passt"));
        fs::create_dir_all(tree.path().join("local/abstractions")).unwrap();
        for empty in ["libvirt-qemu", "libvirt-lxc"] {
            fs::write(tree.path().join("local/abstractions").join(empty), "").unwrap();
        }
        Self(tree)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    /// A guest's whole profile: with libvirt's template, with ours, minimal.
    fn profiles(&self, uses: &str) -> [Profile; 3] {
        let libvirts = format!("{}/libvirt", self.path());
        [
            &["--template-dir", &libvirts, "--base", self.path()][..],
            &["--base", "/nonexistent"],
            &["--minimal", "--base", "/nonexistent"],
        ]
        .map(|args| self.profile(args, uses))
    }

    fn profile(&self, args: &[&str], uses: &str) -> Profile {
        let args: Vec<&str> = ["--stdout"].iter().chain(args).copied().collect();
        let rules = [disk(), rule("/usr/bin/qemu-system-x86_64", "rmix")].join(",");
        let (status, text, err) = run(&args, &record_of(UUID, uses, &rules));
        assert_eq!(status, 0, "{err}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let out = tempfile::NamedTempFile::new().unwrap();
        let output = parser(self.0.path())
            .args(["-D", "rule-exprs", "-o"])
            .arg(out.path())
            .arg(file.path())
            .output()
            .unwrap();
        let dump = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{dump}");
        let compiled = fs::read(out.path()).unwrap();
        Profile {
            rules: dump.lines().filter(|line| line.starts_with("rule: /")).count(),
            bytes: compiled.len(),
            files: FileDfa::of(&compiled),
        }
    }
}

struct Profile {
    /// File rules, as the parser has them before it builds the automaton.
    rules: usize,
    /// Size of the compiled profile.
    bytes: usize,
    files: FileDfa,
}

impl Profile {
    /// What is allowed on a path: letters, and whether only on files of QEMU's own user.
    fn access(&self, path: &str) -> String {
        let letters = |bits: u32| -> String {
            let all = [(READ, 'r'), (WRITE, 'w'), (EXECUTE, 'x')];
            all.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, letter)| letter).collect()
        };
        let (own, others) = (self.files.access_of_owner(path.as_bytes()), self.files.access(path.as_bytes()));
        match (letters(own), letters(others)) {
            (own, _) if own.is_empty() => "–".to_owned(),
            (own, others) if own == others => own,
            (own, _) => format!("{own} if its own"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn features() -> Vec<(&'static str, Feature)> {
    FEATURES
        .split(',')
        .map(|quoted| (quoted.trim_matches('"'), serde_json::from_str(quoted).unwrap()))
        .collect()
}

fn fragments() -> String {
    let mut table = String::from("| `uses` | fragments |\n|---|---|\n");
    for (name, feature) in features() {
        let names: Vec<String> =
            aa_render::minimal::fragments(feature).map(|name| format!("`{name}`")).collect();
        let names =
            if names.is_empty() { "none: its rules are the record's".to_owned() } else { names.join(", ") };
        writeln!(table, "| {name} | {names} |").unwrap();
    }
    table
}

fn sizes(tree: &Tree) -> String {
    let mut table =
        String::from("| guest uses | libvirt's template | our template | minimal |\n|---|---|---|---|\n");
    for (guest, uses) in [
        ("nothing but a disk image", ""),
        ("kvm, disk, tap, vhost-net, vnc, pty", USUAL),
        ("everything", FEATURES),
    ] {
        let cells =
            tree.profiles(uses).map(|profile| format!("{} rules, {} bytes", profile.rules, profile.bytes));
        writeln!(table, "| {guest} | {} |", cells.join(" | ")).unwrap();
    }
    table
}

fn host(tree: &Tree) -> String {
    let [libvirts, _, plain] = tree.profiles("");
    let with: Vec<(&str, Profile)> = features()
        .into_iter()
        .map(|(name, _)| {
            (name, tree.profile(&["--minimal", "--base", "/nonexistent"], &format!("\"{name}\"")))
        })
        .collect();
    let mut table = String::from(
        "| | libvirt's, each guest | minimal, each guest | minimal, a guest that uses |\n|---|---|---|---|\n",
    );
    for (title, paths) in HOST {
        writeln!(table, "| **{title}** | | | |").unwrap();
        for path in paths {
            let ours = plain.access(path);
            let others: Vec<String> = with
                .iter()
                .map(|(name, profile)| (name, profile.access(path)))
                .filter(|(_, access)| *access != ours)
                .map(|(name, access)| format!("{name} ({access})"))
                .collect();
            writeln!(table, "| `{path}` | {} | {ours} | {} |", libvirts.access(path), others.join(", "))
                .unwrap();
        }
    }
    table
}

/// What the tables depend on beside this project.
fn versions() -> String {
    let parser =
        Command::new("apparmor_parser").env("PATH", "/usr/sbin:/sbin").arg("--version").output().unwrap();
    let parser = String::from_utf8(parser.stdout).unwrap();
    format!("Made with {}.\n", parser.lines().next().unwrap())
}

/// The document with `content` between the marks of a table.
fn put(document: &str, mark: &str, content: &str) -> String {
    let (open, close) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->\n"));
    let (before, rest) = document.split_once(&open).unwrap();
    let (_, after) = rest.split_once(&close).unwrap();
    format!("{before}{open}{content}{close}{after}")
}

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/minimal.md");
const STALE: &str = "docs/minimal.md is stale: AA_WRITE_POLICY=1 cargo xtask test, or see this test";

fn writes() -> bool {
    std::env::var_os("AA_WRITE_POLICY").is_some()
}

#[test]
fn the_document_shows_what_each_feature_brings() {
    let document = fs::read_to_string(PATH).unwrap();
    // Where it is written, that is the other test's.
    assert!(writes() || put(&document, "fragments", &fragments()) == document, "{STALE}");
}

/// Another parser makes other sizes of the same policy: `cargo xtask test` leaves this out there, and says so.
#[test]
#[ignore = "needs the parser that docs/minimal.md was made with, and libvirt's templates"]
fn the_document_shows_what_is_compiled() {
    let document = fs::read_to_string(PATH).unwrap();
    let versions = versions();
    assert!(writes() || document.contains(&versions), "docs/minimal.md was not {versions}");
    let tree = Tree::new();
    let mut made = put(&document, "fragments", &fragments());
    made = put(&made, "versions", &versions);
    made = put(&made, "sizes", &sizes(&tree));
    made = put(&made, "host", &host(&tree));
    if writes() {
        fs::write(PATH, &made).unwrap();
    }
    assert!(made == document || writes(), "{STALE}");
}
