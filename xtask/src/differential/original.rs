//! libvirt's own helper, asked live; it is run in its dry mode, which writes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Answer, Grant};
use crate::guest::{Suite, packages};
use crate::report::{Tally, say, verdict};
use crate::{process, setup, workspace};

/// The packages that have held the helper and its policy: Debian 12's, and those that later releases put it into.
const PACKAGES: [&str; 5] = [
    "libvirt-daemon",
    "libvirt-daemon-common",
    "libvirt-daemon-driver-lxc",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-system",
];
/// The library that the helper is linked with; only that of its own version has what it asks for.
const LIBRARY: &str = "libvirt0";
const INSTALLED: &str = "usr/lib/libvirt/virt-aa-helper";
const POLICY: &str = "etc/apparmor.d/libvirt";
/// What is taken out of the packages.
const TAKEN: [&str; 5] = [
    INSTALLED,
    "etc/apparmor.d/libvirt/TEMPLATE.lxc",
    "etc/apparmor.d/libvirt/TEMPLATE.qemu",
    "etc/apparmor.d/abstractions/libvirt-lxc",
    "etc/apparmor.d/abstractions/libvirt-qemu",
];

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
    let stamp = dir.join("version");
    if missing(&dir).is_empty() && std::fs::read_to_string(&stamp).is_ok_and(|of| of == version) {
        return Ok(dir);
    }
    // Nothing of another version, or of a run that was cut short, is left among them.
    std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    workspace::scratch("original")?;
    let mut refused = download(&version, &dir)?;
    if !missing(&dir).is_empty() {
        // An image may have its packages and no lists of any, or lists that are old.
        setup::update().with_context(|| refused.join("\n"))?;
        refused = download(&version, &dir)?;
    }
    let missing = missing(&dir);
    if !missing.is_empty() {
        bail!(
            "no {} in {} of version {version}; where a newer one is in the archive, install its {LIBRARY}. {}",
            missing.join(", "),
            PACKAGES.join(", "),
            refused.join("\n")
        );
    }
    std::fs::write(&stamp, version).with_context(|| stamp.display().to_string())?;
    Ok(dir)
}

/// What of the original is not in `dir`.
fn missing(dir: &Path) -> Vec<&'static str> {
    TAKEN.into_iter().filter(|path| !dir.join(path).exists()).collect()
}

/// Whether the packages of every suite, not only of this machine's, hold what is taken out of them: by those that the
/// suite's guest is made of.
///
/// # Errors
/// A package cannot be unpacked.
pub(super) fn checks() -> Result<Tally> {
    let mut tally = Tally::default();
    for suite in Suite::ALL {
        let apt = workspace::root()?.join("target/guest").join(suite.name()).join("apt");
        let mut debs = workspace::files(&packages::archives(&apt), "deb").unwrap_or_default();
        debs.retain(|deb| is_of_packages(deb));
        if debs.is_empty() {
            tally.skip(&format!("libvirt's packages of {}: its guest was not made here", suite.name()));
            continue;
        }
        let dir = tempfile::tempdir()?;
        debs.iter().try_for_each(|deb| unpack(deb, dir.path()))?;
        let missing = missing(dir.path());
        tally.count(missing.is_empty());
        let word = if missing.is_empty() { "ok".to_owned() } else { format!("no {}", missing.join(", ")) };
        say!("libvirt's packages of {} ... {}", suite.name(), verdict(missing.is_empty(), &word))?;
    }
    Ok(tally)
}

/// Whether a file is called as one of the packages, `NAME_VERSION_ARCHITECTURE.deb`.
fn is_of_packages(deb: &Path) -> bool {
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    name.split_once('_').is_some_and(|(name, _)| PACKAGES.contains(&name))
}

fn unpack(deb: &Path, dir: &Path) -> Result<()> {
    process::run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(dir))
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
            unpack(&deb, dir)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_known_by_its_whole_name_and_all_files_are_needed() {
        for (name, is_one) in [
            ("libvirt-daemon_9.0.0-4+deb12u2_amd64.deb", true),
            ("libvirt-daemon-driver-qemu_11.3.0-3+deb13u3_amd64.deb", true),
            ("libvirt-daemon-log_11.3.0-3+deb13u3_amd64.deb", false),
            ("libvirt-daemon", false),
        ] {
            assert_eq!(is_of_packages(&Path::new("/archives").join(name)), is_one, "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(missing(dir.path()), TAKEN);
        for path in TAKEN {
            assert!(missing(dir.path()).contains(&path));
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(missing(dir.path()), [""; 0]);
    }
}
