//! Removes what no definition and no process needs: from the kernel, from the disk, from the cache.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aa_contract::ProfileName;

use crate::cache::Cache;
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

/// Where to look, and how old garbage is.
#[derive(Debug)]
pub struct Places<'a> {
    /// The kernel's policy.
    pub kernel: &'a Kernel,
    /// The directory of guests' profiles.
    pub directory: &'a Path,
    /// The cache, if there is one.
    pub cache: Option<&'a Cache>,
    /// What is newer stays.
    pub min_age: Duration,
}

/// What may go: profiles called `libvirt-<uuid>` and nothing else, of no defined guest, carried by no thread, and
/// neither written nor loaded within `min_age`, since a guest that is just being started has no definition yet. A load
/// that found nothing to do counts by the mark that it leaves in the cache.
///
/// # Errors
/// [`Error::Host`]: a place cannot be read, so nobody knows what is needed.
pub fn plan(found: &Found, wanted: &Wanted, places: &Places<'_>) -> Result<Vec<Garbage>, Error> {
    let Places { kernel, directory, cache, min_age } = *places;
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
        young |= cache.is_some_and(|cache| is_used(cache, profile, min_age));
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

/// Drops the compiled policy of guests that are neither defined nor running, but for what is newer than `min_age`. What
/// cannot be dropped only takes space.
pub fn forget(cache: &Cache, found: &Found, wanted: &Wanted, min_age: Duration) {
    for profile in cache.profiles().unwrap_or_default() {
        if wanted.profiles.contains(&profile) || found.tasks.contains_key(&profile) {
            continue;
        }
        // Under the lock: a load puts its mark there.
        if let Ok(_lock) = cache.lock([profile])
            && !is_used(cache, profile, min_age)
        {
            let _ = cache.forget(profile);
        }
    }
}

/// Whether a profile was loaded within an age, for all that the cache tells.
fn is_used(cache: &Cache, profile: ProfileName, age: Duration) -> bool {
    let entry = cache.entry(profile);
    entry.exists() && younger(&entry, age)
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
            tasks: tasks::in_use(&kernel, &proc).unwrap(),
            ..Found::default()
        };
        let cache = Cache::open(&root.path().join("cache")).unwrap();
        let plan = |age| {
            let min_age = Duration::from_secs(age);
            let places = Places { kernel: &kernel, directory: &disk, cache: Some(&cache), min_age };
            plan(&found, &wanted, &places)
        };
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

    #[test]
    fn a_load_that_had_nothing_to_do_counts_too() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let cache = Cache::open(&root.path().join("cache")).unwrap();
        let name: ProfileName = NAME.parse().unwrap();
        let disk = root.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let date = |path: &Path| {
            let old = std::time::SystemTime::now() - Duration::from_secs(3600);
            fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        };
        fs::write(disk.join(NAME), "").unwrap();
        date(&disk.join(NAME));
        let (found, wanted, min_age) = (Found::default(), Wanted::default(), Duration::from_secs(600));
        let places = Places { kernel: &kernel, directory: &disk, cache: Some(&cache), min_age };
        let planned = || plan(&found, &wanted, &places).unwrap().len();
        assert_eq!(planned(), 1);
        cache.put(name, &[1; 32], b"policy").unwrap();
        assert_eq!(planned(), 0);
        date(&cache.entry(name));
        assert_eq!(planned(), 1);
        // It is read by a load: that is the mark, which gc itself does not take away.
        assert!(cache.get(name, &[1; 32]).is_some());
        assert_eq!(planned(), 0);
        forget(&cache, &found, &wanted, min_age);
        assert_eq!(cache.profiles().unwrap(), [name]);
        date(&cache.entry(name));
        forget(&cache, &found, &Wanted { profiles: [name].into(), ..Wanted::default() }, min_age);
        assert_eq!(cache.profiles().unwrap(), [name]);
        forget(&cache, &found, &wanted, min_age);
        assert!(cache.profiles().unwrap().is_empty());
    }
}
