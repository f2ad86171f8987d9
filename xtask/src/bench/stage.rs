//! A host for the tools and for libvirt's helper alike, on a machine whose kernel need not have AppArmor.
//!
//! Both sides work in `/etc/apparmor.d` and run the installed parser; in a mount namespace of our own that is a
//! copy with libvirt's templates, and in the kernel's place are plain files that take what the parser writes.
//! So whole processes are timed, all but the kernel's own part; the guests tell that.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

use super::measure::Pipe;
use crate::process;

const POLICY: &str = "/etc/apparmor.d";
const CONFIGURATION: &str = "/etc/apparmor/parser.conf";
/// What Debian pins; here it stands for the kernel's features too.
pub(super) const FEATURES: &str = "/usr/share/apparmor-features/features";
/// Where both sides write profiles.
pub(super) const PROFILES: &str = "/etc/apparmor.d/libvirt";

/// The directories behind it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) dir: PathBuf,
}

impl Stage {
    /// Makes the directories anew; `libvirt` has libvirt's templates and abstractions.
    pub(super) fn make(dir: &Path, libvirt: &Path) -> Result<Self> {
        let stage = Self { dir: dir.to_owned() };
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        for sub in ["kernel/apparmor/policy/profiles", "kernel/apparmor/features/policy", "images", "guests"]
        {
            fs::create_dir_all(dir.join(sub))?;
        }
        for file in [".load", ".replace", ".remove"] {
            fs::write(stage.apparmor().join(file), "")?;
        }
        copy(Path::new(POLICY), &stage.policy())?;
        copy(libvirt, &stage.policy())?;
        // The abstraction includes it without a condition, and a package's script makes it.
        let local = stage.policy().join("local/abstractions");
        fs::create_dir_all(&local)?;
        fs::write(local.join("libvirt-qemu"), "")?;
        let configuration = format!(
            "policy-features={FEATURES}\nkernel-features={FEATURES}\nsubdomainfs={}\n",
            stage.apparmor().display()
        );
        fs::write(dir.join("parser.conf"), configuration)?;
        Ok(stage)
    }

    /// One that was made by another process.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// This program again, in a mount namespace of its own.
    pub(super) fn command() -> Result<Command> {
        let root = process::output(Command::new("id").arg("-u"))?.trim_ascii() == b"0";
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !root {
            command.arg("--map-root-user");
        }
        command.arg(std::env::current_exe()?);
        Ok(command)
    }

    /// Puts the copies in their places: in the namespace only.
    pub(super) fn mount(&self) -> Result<()> {
        for (from, to) in [(self.policy(), POLICY), (self.dir.join("parser.conf"), CONFIGURATION)] {
            process::run(Command::new("mount").arg("--bind").arg(from).arg(to))?;
        }
        if !Path::new(PROFILES).join("TEMPLATE.qemu").exists() {
            bail!("{PROFILES} has no template");
        }
        Ok(())
    }

    fn policy(&self) -> PathBuf {
        self.dir.join("apparmor.d")
    }

    fn apparmor(&self) -> PathBuf {
        self.dir.join("kernel/apparmor")
    }

    /// The words that make aa-load work here.
    pub(super) fn aa_load(&self, tools: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![tools.join("aa-load").into()];
        words.extend(["--securityfs".into(), self.dir.join("kernel").into()]);
        words.extend(["--cache-dir".into(), self.dir.join("cache").into()]);
        words.extend(["--kernel-features".into(), FEATURES.into()]);
        words
    }

    /// What was loaded last, by a write of all of it.
    pub(super) fn replaced(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.apparmor().join(".replace"))?)
    }

    /// Nothing was loaded yet.
    pub(super) fn forget_what_was_written(&self) -> Result<()> {
        Ok(fs::write(self.apparmor().join(".replace"), "")?)
    }

    /// The kernel holds these profiles. Without a hash it is told of no content, so that loads go through; with one
    /// it holds exactly that.
    pub(super) fn holds(&self, profile: &str, hash: Option<&str>) -> Result<()> {
        let dir = self.apparmor().join("policy/profiles").join(format!("{profile}.1"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("name"), format!("{profile}\n"))?;
        fs::write(dir.join("mode"), "enforce\n")?;
        match hash {
            Some(hash) => fs::write(dir.join("sha256"), format!("{hash}\n"))?,
            None => gone(fs::remove_file(dir.join("sha256")))?,
        }
        Ok(())
    }

    /// The kernel holds nothing.
    pub(super) fn holds_nothing(&self) -> Result<()> {
        let profiles = self.apparmor().join("policy/profiles");
        fs::remove_dir_all(&profiles)?;
        Ok(fs::create_dir(&profiles)?)
    }

    /// A guest that never started: no files of its own, nothing compiled.
    pub(super) fn forget(&self, profile: &str) -> Result<()> {
        for name in [profile.to_owned(), format!("{profile}.files")] {
            gone(fs::remove_file(Path::new(PROFILES).join(name)))?;
        }
        gone(fs::remove_file(self.dir.join("cache").join(format!("{profile}.policy"))))
    }

    /// A host on which no guest ever started: no base of guests is kept.
    pub(super) fn forget_bases(&self) -> Result<()> {
        for entry in fs::read_dir(self.dir.join("cache"))? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"base-") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Not being there is as good as being removed.
fn gone(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Copies files and directories; links are not followed, and not needed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry?;
        let path = to.join(entry.path().strip_prefix(from)?);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&path)?;
        } else if entry.file_type().is_file() {
            fs::copy(entry.path(), &path).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

/// A pipe that does what a person does to one guest.
pub(super) fn start(tools: &Path, load: &[OsString], xml: &Path, render: &[&str]) -> Pipe {
    let derive: [OsString; 2] = [tools.join("aa-derive").into(), xml.into()];
    let mut renders: Vec<OsString> = vec![tools.join("aa-render").into()];
    renders.extend(render.iter().map(OsString::from));
    Pipe::program(derive).into(renders).into(load.to_vec())
}
