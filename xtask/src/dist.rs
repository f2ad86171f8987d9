//! What is installed: every file with its place and mode, as a tree for packagers and as an archive.
//!
//! The same list is what a guest of the end-to-end test is given, so that what is tested is what is shipped.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

use crate::report::{Outcome, say};
use crate::{generate, process, workspace};

mod manual;

/// The tools' own directory. AppArmor 4 has another aa-load, with a manual page, in the usual places.
const OWN: &str = "usr/lib/aa-svirt";
const SHARE: &str = "usr/share/aa-svirt";
const DOC: &str = "usr/share/doc/aa-svirt";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lay the tree out in DIR, which must be new or empty [default: target/dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A file that is installed.
#[derive(Debug)]
pub(crate) struct Item {
    /// Where, below the root.
    pub(crate) path: String,
    /// Permission bits; the owner is root.
    pub(crate) mode: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Of(PathBuf),
    Made(Vec<u8>),
    /// The licences of what the tools are linked with.
    Notices,
}

impl Item {
    /// The bytes of the file.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match &self.content {
            Content::Of(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display())),
            Content::Made(bytes) => Ok(bytes.clone()),
            Content::Notices => notices(),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let out = match &args.out {
        Some(dir) => std::path::absolute(dir)?,
        None => {
            let dir = workspace::root()?.join("target/dist");
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            dir
        }
    };
    let items = items(&workspace::static_tools()?)?;
    let date = date()?;
    lay_out(&items, &out, date)?;
    say!("{} files in {}", items.len(), out.display())?;
    let archive = packed(&items, date)?;
    let path = out.with_file_name(archive_name());
    fs::write(&path, &archive).with_context(|| format!("cannot write {}", path.display()))?;
    say!("{:x}  {}", Sha256::digest(&archive), path.display())?;
    Ok(Outcome::Passed)
}

/// Everything that is installed, sorted by path; `tools` is where the built tools are.
///
/// # Errors
/// The workspace cannot be read, or holds something else than plain files where files are taken from.
pub(crate) fn items(tools: &Path) -> Result<Vec<Item>> {
    let root = workspace::root()?;
    let mut items = Vec::new();
    for tool in workspace::TOOLS {
        let content = Content::Of(tools.join(tool));
        items.push(Item { path: format!("{OWN}/bin/{tool}"), mode: 0o755, content });
    }
    for tool in workspace::TOOLS {
        // That of the helper would take the place of libvirt's, as the helper itself would.
        let to =
            if tool == "virt-aa-helper" { format!("{SHARE}/policy") } else { "etc/apparmor.d".to_owned() };
        copied(&mut items, &root.join(tool).join("apparmor"), &to)?;
    }
    // What libvirt has under /etc/apparmor.d, where it is libvirt's; aa-render has these built in.
    for policy in ["TEMPLATE.qemu", "TEMPLATE.lxc", "abstractions"] {
        copied(&mut items, &root.join("aa-render/policy").join(policy), &format!("{SHARE}/policy/{policy}"))?;
    }
    let contrib = root.join("contrib");
    for (file, to) in [
        ("aa-svirt.sysusers", "usr/lib/sysusers.d/aa-svirt.conf".to_owned()),
        ("aa-svirt-guest@.service", "usr/lib/systemd/system/aa-svirt-guest@.service".to_owned()),
        // Not in bin, which is for PATH: the service runs it.
        ("confined-guest", format!("{OWN}/confined-guest")),
        // For an administrator to put in place: libvirtd runs every hook that it finds.
        ("libvirt-hook-qemu", format!("{DOC}/contrib/libvirt-hook-qemu")),
    ] {
        copied(&mut items, &contrib.join(file), &to)?;
    }
    copied(&mut items, &root.join("schema"), &format!("{SHARE}/schema"))?;
    copied(&mut items, &root.join("docs"), &format!("{DOC}/docs"))?;
    for text in workspace::files(root, "md")? {
        copied(&mut items, &text, &format!("{DOC}/{}", file_name(&text)?))?;
    }
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copied(&mut items, &root.join(licence), &format!("{DOC}/{licence}"))?;
    }
    items.push(Item { path: format!("{DOC}/THIRD-PARTY"), mode: 0o644, content: Content::Notices });
    for tool in [
        aa_derive::args::Args::command(),
        aa_render::args::Args::command(),
        aa_load::args::Args::command(),
        aa_confine::args::Args::command(),
    ] {
        described(&mut items, &tool)?;
    }
    items.sort_by(|one, other| one.path.cmp(&other.path));
    if let Some([twice, _]) =
        items.windows(2).find(|pair| matches!(pair, [one, other] if one.path == other.path))
    {
        bail!("{} would be installed twice", twice.path);
    }
    Ok(items)
}

/// The list that is committed: a mode and a path a line. `items` reads no tool, so that none has to be built.
pub(crate) fn listing() -> Result<String> {
    let items = items(Path::new(""))?;
    let lines: Vec<String> = items.iter().map(|item| format!("{:04o} {}", item.mode, item.path)).collect();
    Ok(lines.join("\n") + "\n")
}

/// A file, or every file below a directory. Whether one is executed is all that the checkout says of its mode.
fn copied(items: &mut Vec<Item>, from: &Path, to: &str) -> Result<()> {
    for entry in WalkDir::new(from).min_depth(usize::from(from.is_dir())) {
        let entry = entry?;
        if entry.file_type().is_dir() {
            continue;
        }
        if !entry.file_type().is_file() {
            bail!("{} is no plain file", entry.path().display());
        }
        let below = entry.path().strip_prefix(from)?;
        let path = Path::new(to).join(below);
        let path = path.to_str().context("a path is not UTF-8")?.trim_end_matches('/').to_owned();
        let executed = entry.metadata()?.permissions().mode() & 0o100 != 0;
        let mode = if executed { 0o755 } else { 0o644 };
        items.push(Item { path, mode, content: Content::Of(entry.into_path()) });
    }
    Ok(())
}

/// A tool's manual page, beside its directory of programs, where man(1) looks if that is in PATH; and what
/// shells complete its command line by.
fn described(items: &mut Vec<Item>, command: &clap::Command) -> Result<()> {
    let name = command.get_name().to_owned();
    let mut made = |path: String, bytes| {
        items.push(Item { path, mode: 0o644, content: Content::Made(bytes) });
    };
    made(format!("{OWN}/share/man/man8/{name}.8"), manual::page(command)?);
    // Shells look for these by the name alone, and by this one AppArmor 4 has another program in everybody's PATH.
    if name == "aa-load" {
        return Ok(());
    }
    for (shell, path) in [
        (Shell::Bash, format!("usr/share/bash-completion/completions/{name}")),
        (Shell::Fish, format!("usr/share/fish/vendor_completions.d/{name}.fish")),
        (Shell::Zsh, format!("usr/share/zsh/vendor-completions/_{name}")),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), &name, &mut script);
        made(path, script);
    }
    Ok(())
}

/// The text of the MIT licence of each crate that a tool is linked with, with its authors; all have that one
/// (deny.toml), alone or as a choice.
fn notices() -> Result<Vec<u8>> {
    let mut crates = BTreeSet::new();
    for tool in workspace::TOOLS {
        crates.extend(generate::linked(tool)?);
    }
    let mut metadata = workspace::cargo();
    metadata.current_dir(workspace::root()?).args(["metadata", "--format-version=1", "--locked"]);
    metadata.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Metadata = serde_json::from_slice(&process::output(&mut metadata)?)?;
    let mut text = String::from(
        "The tools are linked with these crates, each used under the MIT licence, with Rust's standard library (MIT or\n\
         Apache-2.0) and, where they are linked statically, with the GNU C Library (LGPL-2.1-or-later).\n",
    );
    for (name, licence) in crates {
        let package = metadata
            .packages
            .iter()
            .find(|package| format!("{} {}", package.name, package.version) == name)
            .with_context(|| format!("cargo has no metadata of {name}"))?;
        let dir = package.manifest_path.parent().context("a manifest has no directory")?;
        let file = ["LICENSE-MIT", "LICENSE-MIT.md", "LICENSE"].map(|file| dir.join(file));
        let file = file.iter().find(|file| file.is_file());
        let file =
            file.filter(|_| licence.contains("MIT")).with_context(|| format!("no MIT licence in {name}"))?;
        write!(text, "\n== {name} ({licence})\n\n{}\n", fs::read_to_string(file)?.trim())?;
    }
    Ok(text.into_bytes())
}

/// What cargo says of the packages, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("a file has no name in UTF-8")
}

/// The directories that the files are in, each after the one it is in.
fn directories(items: &[Item]) -> BTreeSet<&Path> {
    let parents = items.iter().flat_map(|item| Path::new(&item.path).ancestors().skip(1));
    parents.filter(|path| !path.as_os_str().is_empty()).collect()
}

/// What the archive of all files is called.
pub(crate) fn archive_name() -> String {
    format!("aa-svirt-{}-x86_64.tar.zst", env!("CARGO_PKG_VERSION"))
}

/// The archive of these files.
///
/// # Errors
/// A file cannot be read, or there is no zstd.
pub(crate) fn packed(items: &[Item], date: u64) -> Result<Vec<u8>> {
    compressed(&archive(items, date)?)
}

/// The time that every file gets, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the last commit's, else that of
/// CHANGELOG.md, which an archive of the sources keeps.
///
/// # Errors
/// None of these can be had.
pub(crate) fn date() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(told) => seconds(&told),
        Err(std::env::VarError::NotPresent) => date_of(workspace::root()?),
        Err(error) => Err(error).context("SOURCE_DATE_EPOCH"),
    }
}

/// The time of the sources in a directory.
fn date_of(root: &Path) -> Result<u64> {
    // Whoever owns the checkout, as where root runs this in another user's.
    let mut log = Command::new("git");
    log.current_dir(root).args(["-c", "safe.directory=*", "log", "-1", "--format=%ct"]);
    if let Ok(told) = process::output(&mut log) {
        return seconds(&String::from_utf8(told)?);
    }
    let file = root.join("CHANGELOG.md");
    let modified = fs::metadata(&file).and_then(|found| found.modified());
    let modified =
        modified.with_context(|| format!("no commit, no {}: set SOURCE_DATE_EPOCH", file.display()))?;
    Ok(modified.duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
}

fn seconds(told: &str) -> Result<u64> {
    told.trim().parse().with_context(|| format!("this is no number of seconds: \"{}\"", told.trim()))
}

/// Writes the tree for packagers; its owner is whoever runs this.
fn lay_out(items: &[Item], dir: &Path, date: u64) -> Result<()> {
    if dir.exists() && fs::read_dir(dir)?.next().is_some() {
        bail!("{} is not empty", dir.display());
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(date);
    let directories = directories(items);
    for path in &directories {
        fs::create_dir(dir.join(path))?;
    }
    for item in items {
        let path = dir.join(&item.path);
        fs::write(&path, item.read()?).with_context(|| format!("cannot write {}", path.display()))?;
        // Not what the umask leaves of it.
        fs::set_permissions(&path, fs::Permissions::from_mode(item.mode))?;
        fs::File::options().write(true).open(&path)?.set_modified(modified)?;
    }
    for path in directories.iter().rev() {
        let path = dir.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        fs::File::open(path)?.set_modified(modified)?;
    }
    Ok(())
}

/// The same as an archive, whose bytes depend on the files and the date alone.
fn archive(items: &[Item], date: u64) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in directories(items) {
        // With a slash behind, by which `tar -t` tells them from files.
        append(&mut archive, &path.join(""), tar::EntryType::Directory, 0o755, date, &[])?;
    }
    for item in items {
        append(&mut archive, Path::new(&item.path), tar::EntryType::Regular, item.mode, date, &item.read()?)?;
    }
    Ok(archive.into_inner()?)
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &Path,
    kind: tar::EntryType,
    mode: u32,
    date: u64,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_mtime(date);
    header.set_size(u64::try_from(content.len())?);
    archive.append_data(&mut header, path, content)?;
    Ok(())
}

fn compressed(archive: &[u8]) -> Result<Vec<u8>> {
    // With more threads the bytes would depend on their number.
    let mut zstd = Command::new("zstd");
    let output = process::filter(zstd.args(["--quiet", "-19", "--single-thread", "--stdout"]), archive)?;
    if !output.status.success() {
        bail!("{}: {}", process::shown(&zstd), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const LIST: &str = include_str!("../installed.txt");

    /// The list, with stand-ins for the tools.
    fn all(tools: &Path) -> Vec<Item> {
        for tool in workspace::TOOLS {
            fs::write(tools.join(tool), format!("program {tool}")).unwrap();
        }
        items(tools).unwrap()
    }

    fn listed() -> Vec<(u32, String)> {
        LIST.lines()
            .map(|line| {
                let (mode, path) = line.split_once(' ').unwrap();
                (u32::from_str_radix(mode, 8).unwrap(), path.to_owned())
            })
            .collect()
    }

    #[test]
    fn the_archive_holds_the_list_and_is_roots() {
        let tools = tempfile::tempdir().unwrap();
        let items = all(tools.path());
        let bytes = archive(&items, 1_700_000_000).unwrap();
        let mut files = Vec::new();
        let mut directories = BTreeSet::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let header = entry.header();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            assert_eq!(owner, (0, 0), "{}", path.display());
            assert_eq!(
                (header.username().unwrap(), header.groupname().unwrap()),
                (Some("root"), Some("root"))
            );
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            let mode = header.mode().unwrap();
            let is_directory = header.entry_type() == tar::EntryType::Directory;
            assert_eq!(entry.path_bytes().ends_with(b"/"), is_directory, "{}", path.display());
            let parent = path.parent().unwrap();
            assert!(parent.as_os_str().is_empty() || directories.contains(parent), "{}", path.display());
            match header.entry_type() {
                tar::EntryType::Directory => {
                    assert_eq!(mode, 0o755);
                    directories.insert(path);
                }
                tar::EntryType::Regular => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).unwrap();
                    assert!(!content.is_empty(), "{} is empty", path.display());
                    files.push((mode, path.to_str().unwrap().to_owned()));
                }
                other => panic!("{}: {other:?}", path.display()),
            }
        }
        assert_eq!(files, listed(), "if this is meant: cargo xtask generate");
        let executed: Vec<&str> =
            files.iter().filter(|(mode, _)| *mode == 0o755).map(|(_, path)| path.as_str()).collect();
        for tool in workspace::TOOLS {
            assert!(executed.contains(&format!("usr/lib/aa-svirt/bin/{tool}").as_str()));
        }
        // Nothing that another package has.
        assert!(!files.iter().any(|(_, path)| path.starts_with("usr/sbin/") || path.starts_with("usr/bin/")));
        assert!(!files.iter().any(|(_, path)| path.starts_with("etc/apparmor.d/libvirt/")));
    }

    #[test]
    #[ignore = "needs zstd"]
    fn the_same_files_and_date_make_the_same_bytes() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let bytes = |dir: &Path, date| packed(&all(dir), date).unwrap();
        let first = bytes(one.path(), 1_700_000_000);
        assert_eq!(first, bytes(other.path(), 1_700_000_000));
        assert_ne!(first, bytes(one.path(), 1_700_000_001));
    }

    #[test]
    fn the_tree_has_the_modes_of_the_list_and_replaces_nothing() {
        let tools = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let items = all(tools.path());
        lay_out(&items, out.path(), 1_700_000_000).unwrap();
        for (mode, path) in listed() {
            let found = fs::symlink_metadata(out.path().join(&path)).unwrap();
            assert!(found.is_file(), "{path}");
            assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
            assert_eq!(
                found.modified().unwrap(),
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
            );
        }
        let found = WalkDir::new(out.path()).into_iter().filter(|entry| {
            let entry = entry.as_ref().unwrap();
            !entry.file_type().is_dir()
        });
        assert_eq!(found.count(), listed().len());
        assert!(lay_out(&items, out.path(), 1_700_000_000).is_err());
    }

    #[test]
    #[ignore = "needs root and git"]
    fn the_date_is_the_last_commits_whoever_owns_it_or_the_changelogs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(date_of(dir.path()).unwrap_err().to_string().contains("SOURCE_DATE_EPOCH"));
        let changelog = fs::File::create(dir.path().join("CHANGELOG.md")).unwrap();
        changelog.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)).unwrap();
        assert_eq!(date_of(dir.path()).unwrap(), 1_600_000_000);
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(dir.path()).env("GIT_COMMITTER_DATE", "@1700000000 +0000");
            process::run(git.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(arguments))
                .unwrap();
        };
        git(&["init", "--quiet"]);
        git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        for path in [dir.path().to_owned(), dir.path().join(".git")] {
            std::os::unix::fs::chown(path, Some(65534), None).unwrap();
        }
        assert_eq!(date_of(dir.path()).unwrap(), 1_700_000_000);
    }

    #[test]
    fn a_link_is_not_installed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        copied(&mut Vec::new(), dir.path(), "usr").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        assert!(copied(&mut Vec::new(), dir.path(), "usr").is_err());
    }
}
