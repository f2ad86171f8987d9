//! libvirt's own helper, asked live; it is run in its dry mode, which writes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Answer, Grant, starts};
use crate::process;
use crate::workspace;

/// The packages that have held the helper: Debian 12's, and what later releases split off.
const PACKAGES: [&str; 3] = ["libvirt-daemon", "libvirt-daemon-common", "libvirt-daemon-system"];
const INSTALLED: &str = "/usr/lib/libvirt/virt-aa-helper";

/// The original.
pub(super) struct Original {
    program: PathBuf,
}

impl Original {
    pub(super) fn at(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    /// The installed one, or the one out of the distribution's package, unpacked under target/.
    pub(super) fn of_debian() -> Result<Self> {
        let dir = workspace::scratch("original")?;
        let unpacked = dir.join(INSTALLED.trim_start_matches('/'));
        for program in [PathBuf::from(INSTALLED), unpacked.clone()] {
            if starts(Command::new(&program).arg("--help")) {
                return Ok(Self { program });
            }
        }
        for package in PACKAGES {
            let mut download = Command::new("apt-get");
            download
                .args(["--quiet", "-o", "APT::Sandbox::User=root", "download", package])
                .current_dir(&dir);
            if process::output(&mut download).is_err() {
                continue;
            }
            for deb in workspace::files(&dir, "deb")? {
                process::run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&dir))?;
                std::fs::remove_file(&deb)?;
            }
            if starts(Command::new(&unpacked).arg("--help")) {
                return Ok(Self { program: unpacked });
            }
        }
        bail!("no virt-aa-helper to compare with: it is neither installed nor in {}", PACKAGES.join(", "))
    }

    /// What it answers for the domain in a file.
    pub(super) fn ask(&self, path: &Path) -> Result<Answer> {
        let xml = std::fs::read_to_string(path)?;
        let uuid = xml
            .split_once("<uuid>")
            .and_then(|(_, rest)| rest.split_once("</uuid>"))
            .map(|(uuid, _)| uuid.trim().to_owned())
            .with_context(|| format!("{}: there is no uuid", path.display()))?;
        let mut command = Command::new(&self.program);
        command.args(["--dryrun", "--replace", "--uuid", &format!("libvirt-{uuid}")]).env_clear();
        let output = process::filter(&mut command, xml.as_bytes())?;
        let answer = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code().is_none() {
            bail!("{}: the original ended with {}", path.display(), output.status);
        }
        Ok(Answer {
            file: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            path: path.to_owned(),
            accepted: output.status.success(),
            grants: answer.lines().filter_map(|line| grant(line.trim())).collect(),
            errors: answer
                .lines()
                .filter_map(|line| Some(line.split_once("error: ")?.1.to_owned()))
                .collect(),
        })
    }
}

/// A rule as the original prints it, `"/path" rwk,`; none for one that denies, and for other lines.
pub(super) fn grant(line: &str) -> Option<Grant> {
    let (pattern, letters) = line.strip_prefix('"')?.rsplit_once("\" ")?;
    let letters: BTreeSet<char> = letters.strip_suffix(',')?.chars().collect();
    Some((pattern.to_owned(), letters))
}
