//! Installs the Debian packages that the tests and the demo need.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::report::{Outcome, say};

/// What has to be on the machine. The guest's own packages are not installed, see `guest::packages`.
const PACKAGES: [(&str, &str); 13] = [
    ("apparmor", "compiles the profiles"),
    ("qemu-system-x86", "boots the guest"),
    ("qemu-utils", "makes disk images"),
    ("xz-utils", "unpacks Debian 12's kernel"),
    ("zstd", "unpacks Debian 13's kernel, packs the distribution"),
    ("git", "tells the date of the distribution's files"),
    ("shellcheck", "checks the scripts"),
    ("g++", "compiles libFuzzer"),
    ("strace", "kills the tools at each of their writes"),
    ("mount", "gives tests file systems of their own"),
    ("time", "measures peak memory"),
    ("libvirt0", "is what libvirt's own helper, the one compared with, is linked with"),
    ("debian-archive-keyring", "verifies the guest's packages"),
];

/// To install one package apt may remove another of the list: qemu-utils from elsewhere, say, which is newer than
/// the qemu-system-x86 that there is. The next round brings back the one that goes with the others.
const ROUNDS: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<Outcome> {
    packages()?;
    Ok(Outcome::Passed)
}

/// Installs what is missing; each task that needs a package begins with it.
///
/// # Errors
/// This is no Debian system, there is neither root nor sudo, or apt-get fails.
pub(crate) fn packages() -> Result<()> {
    let mut wanted = missing()?;
    for _ in 0..ROUNDS {
        if wanted.is_empty() {
            break;
        }
        install(&wanted)?;
        wanted = missing()?;
    }
    if !wanted.is_empty() {
        bail!("apt-get does not install these together with the others: {}", wanted.join(" "));
    }
    say!("setup: every package is installed")?;
    Ok(())
}

/// The packages that are not installed.
fn missing() -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for (package, _) in PACKAGES {
        if !installed(package)? {
            missing.push(package);
        }
    }
    Ok(missing)
}

fn installed(package: &str) -> Result<bool> {
    let status = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .context("cannot start dpkg-query: this needs a Debian system")?;
    Ok(status.stdout == b"installed")
}

/// The version of a package that is installed.
///
/// # Errors
/// There is none, or no dpkg.
pub(crate) fn version(package: &str) -> Result<String> {
    let format = "--showformat=${db:Status-Status} ${Version}";
    let told = process::output(Command::new("dpkg-query").args(["--show", format, package]))?;
    let told = String::from_utf8(told)?;
    told.strip_prefix("installed ")
        .map(str::to_owned)
        .with_context(|| format!("{package} is not installed: {told}"))
}

fn install(packages: &[&str]) -> Result<()> {
    for (package, purpose) in PACKAGES {
        if packages.contains(&package) {
            say!("setup: installing {package}: it {purpose}")?;
        }
    }
    update()?;
    let mut install = apt_get()?;
    process::run(install.args(["--quiet=2", "--yes", "--no-install-recommends", "install"]).args(packages))
}

/// Fetches the lists of the packages that there are.
///
/// # Errors
/// There is neither root nor sudo, or apt-get fails.
pub(crate) fn update() -> Result<()> {
    say!("setup: fetching the lists of packages")?;
    process::run(apt_get()?.args(["--quiet=2", "update"]))
}

/// apt-get as root.
fn apt_get() -> Result<Command> {
    let root = is_root();
    if !root
        && !process::passes(Command::new("sudo").arg("--version").stdout(std::process::Stdio::null()))
            .unwrap_or(false)
    {
        bail!("apt-get needs root: run this as root, or install sudo");
    }
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        say!("setup: through sudo, as this is not root")?;
        // sudo does not hand on the environment.
        command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}
