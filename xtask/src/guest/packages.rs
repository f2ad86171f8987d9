//! Which packages a guest is made of, and fetching them without root by an apt directory of our own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Suite;
use crate::{process, workspace};

/// What is asked for; apt adds what these depend on.
const PACKAGES: &[&str] = &[
    // a system to run scripts in
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "grep",
    "sed",
    "gawk",
    "findutils",
    "diffutils",
    "util-linux",
    "mount",
    "libc-bin",
    "procps",
    "iproute2",
    "kmod",
    "jq",
    "socat",
    // what docs/libvirt.md is followed with
    "dpkg",
    "tar",
    "zstd",
    // what is tested, and tested against
    "linux-image-amd64",
    "apparmor",
    "qemu-system-x86",
    "qemu-utils",
    "libvirt-daemon-system",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-driver-lxc",
    "libvirt-clients",
    "swtpm",
    "swtpm-tools",
    // what a guest's devices use beside QEMU
    "libegl1",
    "libgl1-mesa-dri",
    "libopengl0",
    "libnss3-tools",
    "ovmf",
    "passt",
];

/// More for a suite that has them as packages of their own.
fn more(suite: Suite) -> &'static [&'static str] {
    match suite {
        Suite::Bookworm => &[],
        // libvirtd 11.3 does not start without a firewall's program.
        Suite::Trixie => &["qemu-system-modules-spice", "virtiofsd", "nftables"],
    }
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The packages asked for in a suite.
pub(crate) fn wanted(suite: Suite) -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().chain(more(suite)).copied()
}

/// Where [`fetch`] puts the packages that it downloads into `dir`.
pub(crate) fn archives(dir: &Path) -> PathBuf {
    dir.join("cache/archives")
}

/// Downloads the packages of a suite with all that they depend on into `dir`, and says where each is,
/// sorted by name.
///
/// # Errors
/// The host's apt names no Debian archive, or cannot reach or verify it.
pub(crate) fn fetch(suite: Suite, dir: &Path) -> Result<Vec<PathBuf>> {
    let apt = Apt::new(suite, dir, "deb")?;
    // What is there already is not planned to be fetched: the plan is made as if nothing were.
    let nothing = format!("Dir::Cache::Archives={}", dir.join("none").display());
    let plan = process::output(apt.get(&["install", "--print-uris", "-o", &nothing]).args(wanted(suite)))?;
    process::output(apt.get(&["install", "--download-only"]).args(wanted(suite)))?;
    let mut files: Vec<PathBuf> = String::from_utf8_lossy(&plan)
        .lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|name| archives(dir).join(name))
        .collect();
    files.sort();
    if files.is_empty() {
        bail!("apt-get planned to install nothing");
    }
    Ok(files)
}

/// Downloads the upstream tar file of a source package of a suite into `dir`, and says where it is.
///
/// # Errors
/// As for [`fetch`].
pub(crate) fn source(suite: Suite, package: &str, dir: &Path) -> Result<PathBuf> {
    let apt = Apt::new(suite, dir, "deb-src")?;
    process::output(apt.get(&["source", "--download-only", "--tar-only", package]).current_dir(dir))?;
    let mut found = workspace::files(dir, "xz")?;
    found.pop().with_context(|| format!("apt-get brought no tar file of {package}"))
}

/// An apt of our own, which needs no root and knows one suite.
#[derive(Debug)]
struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Keeps everything in `dir`; `kind` is deb or deb-src.
    fn new(suite: Suite, dir: &Path, kind: &str) -> Result<Self> {
        for made in ["etc", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(made))
                .with_context(|| format!("cannot make {made} in {}", dir.display()))?;
        }
        fs::write(dir.join("state/status"), "")?;
        fs::write(dir.join("etc/sources.list"), Mirrors::of_this_host()?.sources(suite, kind))?;
        let config = dir.join("etc/apt.conf");
        fs::write(&config, configuration(dir)?)?;
        let apt = Self { config };
        process::output(&mut apt.get(&["update"]))?;
        Ok(apt)
    }

    fn get(&self, words: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C.UTF-8").arg("--yes").args(words);
        command
    }
}

/// An apt that keeps to `dir`, trusts Debian's keyring only, and takes nothing from this host but the way
/// to the network.
fn configuration(dir: &Path) -> Result<String> {
    let dir = dir.to_str().context("the target directory's path is not UTF-8")?;
    let mut text = format!(
        r#"Dir::State "{dir}/state";
Dir::State::status "{dir}/state/status";
Dir::Cache "{dir}/cache";
Dir::Etc::SourceList "{dir}/etc/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"#
    );
    let host = process::output(Command::new("apt-config").args(["dump", "Acquire"]))?;
    for line in String::from_utf8_lossy(&host).lines().filter(|line| line.contains("Proxy")) {
        writeln!(text, "{line}")?;
    }
    Ok(text)
}

/// Where this host gets Debian's packages from.
#[derive(Debug, Default)]
struct Mirrors {
    main: Option<String>,
    security: Option<String>,
}

impl Mirrors {
    fn of_this_host() -> Result<Self> {
        let mut mirrors = Self::default();
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(parts.filter_map(|part| Some(part.ok()?.path())));
        }
        files.sort();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => mirrors.read_deb822(&text),
                Some("list") => mirrors.read_lines(&text),
                _ => {}
            }
        }
        if mirrors.main.is_none() {
            bail!(
                "apt's sources on this host name no Debian archive, so there are no packages to make a guest from"
            );
        }
        Ok(mirrors)
    }

    /// One-line entries, sources.list(5): `deb [options] uri suite component…`.
    fn read_lines(&mut self, text: &str) {
        for line in text.lines() {
            let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
            let rest = rest.trim_start();
            let rest = match rest.strip_prefix('[') {
                Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
                None => rest,
            };
            let words: Vec<&str> = rest.split_whitespace().collect();
            if let [uri, suite, components @ ..] = words.as_slice() {
                self.take(uri, suite, components);
            }
        }
    }

    /// Paragraphs, sources.list(5), «DEB822-style format».
    fn read_deb822(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            let mut fields: Vec<(&str, Vec<&str>)> = Vec::new();
            for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
                if line.starts_with([' ', '\t']) {
                    if let Some((_, words)) = fields.last_mut() {
                        words.extend(line.split_whitespace());
                    }
                } else if let Some((name, value)) = line.split_once(':') {
                    fields.push((name.trim(), value.split_whitespace().collect()));
                }
            }
            let field = |wanted: &str| {
                fields
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                    .map_or(&[] as &[&str], |(_, words)| words.as_slice())
            };
            let disabled = field("Enabled").first().is_some_and(|word| word.eq_ignore_ascii_case("no"));
            if disabled || !field("Types").contains(&"deb") {
                continue;
            }
            for uri in field("URIs") {
                for suite in field("Suites") {
                    self.take(uri, suite, field("Components"));
                }
            }
        }
    }

    /// Notes an entry if it is one of Debian's own archives.
    fn take(&mut self, uri: &str, suite: &str, components: &[&str]) {
        const RELEASES: [&str; 9] =
            ["bookworm", "trixie", "forky", "duke", "oldstable", "stable", "testing", "sid", "unstable"];
        if !components.contains(&"main") {
            return;
        }
        let (release, place) = match suite.split_once('-') {
            None => (suite, &mut self.main),
            Some((release, "security")) => (release, &mut self.security),
            Some(_) => return,
        };
        if RELEASES.contains(&release) && place.is_none() {
            *place = Some(uri.to_owned());
        }
    }

    /// The entries for another suite of the same archives; `kind` is deb or deb-src.
    fn sources(&self, suite: Suite, kind: &str) -> String {
        let name = suite.name();
        [(&self.main, ""), (&self.main, "-updates"), (&self.security, "-security")]
            .iter()
            .filter_map(|(uri, suffix)| {
                let uri = uri.as_ref()?;
                Some(format!("{kind} [signed-by={KEYRING}] {uri} {name}{suffix} main\n"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_archives_are_taken() {
        let mut mirrors = Mirrors::default();
        mirrors.read_deb822(
            "Types: deb\nURIs: http://other.example/x\nSuites: nodistro\nComponents: main\n\n\
             Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n\
             Types: deb\n# a comment\nURIs: http://main.example/debian\nSuites: bookworm\n bookworm-updates\n\
             Components: main\n",
        );
        mirrors.read_lines(
            "# deb http://no.example/ trixie-security main\n\
             deb [arch=amd64 signed-by=/x] http://security.example/s bookworm-security main contrib\n\
             deb http://second.example/debian trixie main\n",
        );
        assert_eq!(
            mirrors.sources(Suite::Trixie, "deb"),
            format!(
                "deb [signed-by={KEYRING}] http://main.example/debian trixie main\n\
                 deb [signed-by={KEYRING}] http://main.example/debian trixie-updates main\n\
                 deb [signed-by={KEYRING}] http://security.example/s trixie-security main\n"
            )
        );
    }
}
