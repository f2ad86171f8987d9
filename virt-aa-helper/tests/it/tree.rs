//! A host in a temporary directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aa_render::Layout;
use virt_aa_helper::{Error, Host, args, run};

pub(crate) const NAME: &str = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac";

pub(crate) struct Tree {
    dir: tempfile::TempDir,
    pub(crate) host: Host,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["etc/libvirt", "root/var/lib/libvirt/images"] {
            aa_tests::own_directory(&at(name));
        }
        let parser = at("parser");
        // What it does besides is in the file `then`, its release in `release`, if there is one. Its environment is empty.
        let script = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\n[ \"$1\" = --version ] && {{ cat {0}/release; exit; }}\necho \"$*\" >>{0}/calls\ncat >/dev/null\n[ ! -e {0}/then ] || . {0}/then\n",
            dir.path().display()
        );
        fs::write(&parser, script).unwrap();
        fs::set_permissions(&parser, Permissions::from_mode(0o755)).unwrap();
        let host = Host {
            layout: Layout::new(&at("etc/libvirt"), &at("etc")).unwrap(),
            root: at("root"),
            proc: "/proc".into(),
            parser: Some(parser),
            parser_time: Duration::from_secs(60),
        };
        Self { dir, host }
    }

    /// What the parser does besides, in shell.
    pub(crate) fn parser_does(&self, script: &str) {
        fs::write(self.dir.path().join("then"), script).unwrap();
    }

    /// The parser is of this release.
    pub(crate) fn parser_is(&self, release: &str) {
        fs::write(self.dir.path().join("release"), format!("AppArmor parser version {release}\n")).unwrap();
    }

    /// The parser's arguments, one call a line, since the last time.
    pub(crate) fn parser_calls(&self) -> Vec<String> {
        let path = self.dir.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        drop(fs::remove_file(path));
        calls.lines().map(str::to_owned).collect()
    }

    pub(crate) fn profiles(&self) -> &Path {
        self.host.layout.dir()
    }

    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        self.profiles().join(format!("{NAME}{suffix}"))
    }

    /// A text file of the profile; none if there is no such file.
    pub(crate) fn text(&self, suffix: &str) -> Option<String> {
        fs::read_to_string(self.file(suffix)).ok()
    }

    /// The rules that are on disk, without comments.
    pub(crate) fn rules(&self) -> Vec<String> {
        let text = self.text(".files").unwrap_or_default();
        text.lines().map(str::trim).filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// The names in the profile directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.profiles()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".aa-render.lock");
        names.sort();
        names
    }

    /// One call; answers with what went to standard error.
    pub(crate) fn call(&self, options: &[&str], xml: &str) -> Result<String, Error> {
        let mut all = vec!["-u", NAME];
        all.extend(options);
        let args = args::parse(all.into_iter().map(Into::into))?;
        let mut diagnostics = Vec::new();
        run(&args, &self.host, &mut xml.as_bytes(), &mut diagnostics)?;
        Ok(String::from_utf8(diagnostics).unwrap())
    }

    pub(crate) fn refused(&self, options: &[&str], xml: &str) -> String {
        self.call(options, xml).unwrap_err().to_string()
    }
}

/// A guest with these disks.
pub(crate) fn guest(id: u32, disks: &[&str]) -> String {
    let mut devices = "<controller type='usb'><alias name='usb'/></controller>".to_owned();
    for disk in disks {
        devices.push_str("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='");
        devices.push_str(disk);
        devices.push_str("'/><target dev='vda'/></disk>");
    }
    format!(
        "<domain type='kvm' id='{id}'><name>t1</name><uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid>\
         <os><type arch='x86_64'>hvm</type></os><devices>{devices}</devices></domain>"
    )
}

/// The header of a qcow2 image of version 2 with a backing file (QEMU: docs/interop/qcow2).
pub(crate) fn qcow2(backing: &str) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(b"QFI\xfb");
    header.extend(2u32.to_be_bytes());
    header.extend(72u64.to_be_bytes());
    header.extend(u32::try_from(backing.len()).unwrap().to_be_bytes());
    header.extend(16u32.to_be_bytes());
    header.extend((1u64 << 20).to_be_bytes());
    header.resize(72, 0);
    header.extend(backing.as_bytes());
    header.resize(1 << 16, 0);
    header
}
