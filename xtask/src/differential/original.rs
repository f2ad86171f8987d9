//! libvirt's own helper, asked live; it is run in its dry mode, which writes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Answer, Grant};
use crate::{process, setup, workspace};

/// The packages that have held the helper: Debian 12's, and what later releases split off.
const PACKAGES: [&str; 3] = ["libvirt-daemon", "libvirt-daemon-common", "libvirt-daemon-system"];
/// The library that the helper is linked with; only that of its own version has what it asks for.
const LIBRARY: &str = "libvirt0";
const INSTALLED: &str = "usr/lib/libvirt/virt-aa-helper";
const POLICY: &str = "etc/apparmor.d/libvirt";

/// The original.
pub(super) struct Original {
    program: PathBuf,
}

impl Original {
    pub(super) fn at(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    /// The one out of the distribution's package.
    pub(super) fn of_debian() -> Result<Self> {
        let dir = unpacked()?;
        let program = dir.join(INSTALLED);
        process::output(Command::new(&program).arg("--help")).with_context(|| {
            format!("libvirt's own helper does not start; without {} it is fetched again", dir.display())
        })?;
        Ok(Self { program })
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
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

/// libvirt's own templates.
pub(super) fn policy() -> Result<PathBuf> {
    Ok(unpacked()?.join(POLICY))
}

/// The packages, unpacked under target/ and not installed: nothing of them is started as a service. They are those of the
/// libvirt0 that is installed, since the helper starts with no other.
fn unpacked() -> Result<PathBuf> {
    let dir = workspace::scratch("original")?;
    let version = setup::version(LIBRARY)?;
    let has_all = || dir.join(INSTALLED).exists() && dir.join(POLICY).join("TEMPLATE.qemu").exists();
    let stamp = dir.join("version");
    if has_all() && std::fs::read_to_string(&stamp).is_ok_and(|of| of == version) {
        return Ok(dir);
    }
    // Nothing of another version, or of a run that was cut short, is left among them.
    std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    workspace::scratch("original")?;
    let mut refused = download(&version, &dir)?;
    if !has_all() {
        // An image may have its packages and no lists of any, or lists that are old.
        setup::update().with_context(|| refused.join("\n"))?;
        refused = download(&version, &dir)?;
    }
    if !has_all() {
        bail!(
            "libvirt's helper and templates of version {version} are not in {}; where a newer one is in the archive, install its \
             {LIBRARY}. {}",
            PACKAGES.join(", "),
            refused.join("\n")
        );
    }
    std::fs::write(&stamp, version).with_context(|| stamp.display().to_string())?;
    Ok(dir)
}

/// Unpacks those of the packages in `dir` that there are, and gives what apt-get says of the others: which of them there are
/// depends on the release.
fn download(version: &str, dir: &Path) -> Result<Vec<String>> {
    let mut refused = Vec::new();
    for package in PACKAGES {
        let mut download = Command::new("apt-get");
        download
            .args(["--quiet", "-o", "APT::Sandbox::User=root", "download", &format!("{package}={version}")])
            .env("LC_ALL", "C.UTF-8")
            .current_dir(dir);
        if let Err(error) = process::output(&mut download) {
            refused.push(error.to_string());
            continue;
        }
        for deb in workspace::files(dir, "deb")? {
            process::run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(dir))?;
            std::fs::remove_file(&deb)?;
        }
    }
    Ok(refused)
}

/// A rule as the original prints it, `"/path" rwk,`; none for one that denies, and for other lines.
pub(super) fn grant(line: &str) -> Option<Grant> {
    let (pattern, letters) = line.strip_prefix('"')?.rsplit_once("\" ")?;
    let letters: BTreeSet<char> = letters.strip_suffix(',')?.chars().collect();
    Some((pattern.to_owned(), letters))
}
