//! Removes what no definition and no process needs: from the kernel, from the disk, from the cache.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aa_contract::ProfileName;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::status::Found;
use crate::wanted::Wanted;

/// Files of a profile beside its base profile.
const SUFFIXES: [&str; 3] = ["", ".files", ".grants"];

/// What is left behind by one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Its profile.
    pub profile: ProfileName,
    /// Whether the kernel holds it.
    pub in_kernel: bool,
    /// Its files.
    pub files: Vec<PathBuf>,
}

/// What may go: profiles called `libvirt-<uuid>` and nothing else, of no defined guest, carried by no thread, and
/// neither loaded nor written within `min_age`, since a guest that is just being started has no definition yet.
///
/// # Errors
/// [`Error::Host`]: a place cannot be read, so nobody knows what is needed.
pub fn plan(
    found: &Found,
    wanted: &Wanted,
    kernel: &Kernel,
    directory: &Path,
    min_age: Duration,
) -> Result<Vec<Garbage>, Error> {
    let mut names: BTreeSet<ProfileName> = found.loaded.keys().copied().collect();
    for (name, _) in files(directory)? {
        names.insert(name);
    }
    names.retain(|name| !wanted.profiles.contains(name) && !found.tasks.contains_key(name));
    let mut garbage = Vec::new();
    for profile in names {
        let files: Vec<PathBuf> = SUFFIXES
            .iter()
            .map(|suffix| directory.join(format!("{profile}{suffix}")))
            .filter(|path| path.symlink_metadata().is_ok())
            .collect();
        let in_kernel = found.loaded.contains_key(&profile);
        let mut young = files.iter().any(|path| younger(path, min_age));
        if in_kernel {
            young |= kernel.directories(profile)?.iter().any(|path| younger(path, min_age));
        }
        if !young {
            garbage.push(Garbage { profile, in_kernel, files });
        }
    }
    Ok(garbage)
}

/// Removes one guest's files, after its profile has left the kernel.
///
/// # Errors
/// [`Error::Host`]: one cannot be removed.
pub fn remove_files(garbage: &Garbage) -> Result<(), Error> {
    for path in &garbage.files {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(Error::host(path))?,
        }
    }
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<(ProfileName, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::host(directory))? {
        let entry = entry.map_err(Error::host(directory))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let stem = SUFFIXES.iter().rev().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        if let Ok(profile) = stem.parse() {
            found.push((profile, entry.path()));
        }
    }
    Ok(found)
}

/// Whether something changed within an age; what has no time, or one in the future, counts as new.
fn younger(path: &Path, age: Duration) -> bool {
    if age.is_zero() {
        return false;
    }
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| time.elapsed().ok()).is_none_or(|elapsed| elapsed < age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::{NAME, put, tree};
    use crate::tasks;

    #[test]
    fn only_what_nothing_needs_is_garbage() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let disk = root.path().join("disk");
        let proc = root.path().join("proc");
        fs::create_dir_all(&disk).unwrap();
        fs::create_dir_all(&proc).unwrap();
        let [gone, defined, used] = ["1", "2", "3"].map(|digit| NAME.replacen('a', digit, 1));
        for name in [&gone, &defined, &used] {
            put(&kernel, &format!("{name}.1"), name, "enforce", None);
            fs::write(disk.join(name), "").unwrap();
            fs::write(disk.join(format!("{name}.files")), "").unwrap();
        }
        put(&kernel, "usr.sbin.libvirtd.1", "libvirtd", "enforce", None);
        fs::write(disk.join("TEMPLATE.qemu"), "").unwrap();
        tasks::tests::put(&proc, 5, 6, &format!("{used}//passt (enforce)"));
        let wanted = Wanted { profiles: [defined.parse().unwrap()].into(), ..Wanted::default() };
        let found = Found {
            loaded: kernel.list().unwrap(),
            tasks: tasks::scan(&kernel, &proc).unwrap(),
            ..Found::default()
        };
        let plan = |age| plan(&found, &wanted, &kernel, &disk, Duration::from_secs(age));
        assert!(plan(600).unwrap().is_empty());
        let garbage = plan(0).unwrap();
        assert_eq!(garbage.len(), 1);
        assert_eq!(garbage[0].profile.to_string(), gone);
        assert!(garbage[0].in_kernel);
        remove_files(&garbage[0]).unwrap();
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 5);
        fs::remove_dir_all(&disk).unwrap();
        assert!(plan(0).is_err());
    }
}
