//! Removes what no definition and no process needs: from the kernel, from the disk, from the cache.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aa_contract::{Action, Loaded, ProfileName};

use crate::cache::Cache;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::load::Profile;
use crate::locks::Locks;
use crate::remove::{InUse, remove};
use crate::{tasks, wanted};

/// What is newer stays, unless told otherwise: its guest may be starting.
pub const MIN_AGE: Duration = Duration::from_secs(600);

/// Files of a profile beside its base profile, and what a writer that died has left of each.
const SUFFIXES: [&str; 6] = ["", ".files", ".grants", ".new", ".files.new", ".grants.new"];
/// The link of a call that holds the profile, or held it and died. To take the lock and give it back removes it.
const LOCK: &str = ".lock";

/// What is left behind by one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Its profile.
    pub profile: ProfileName,
    /// Whether the kernel holds it.
    pub in_kernel: bool,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// All that there is of it, in the kernel and the cache too, and when that was written.
    seen: Vec<(PathBuf, Option<SystemTime>)>,
}

/// What became of one guest's garbage.
#[derive(Debug, Default)]
pub struct Gone {
    /// Its profile, if that was in the kernel.
    pub removed: Option<Loaded>,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Why the rest stays.
    pub error: Option<Error>,
}

/// Where to look, and how old garbage is.
#[derive(Debug)]
pub struct Sweep<'a> {
    /// The kernel's policy.
    pub kernel: &'a Kernel,
    /// Where procfs is mounted.
    pub proc: &'a Path,
    /// Where guests are defined; the usual places if empty.
    pub definitions: &'a [PathBuf],
    /// The directory of guests' profiles.
    pub directory: &'a Path,
    /// The cache, if there is one.
    pub cache: Option<&'a Cache>,
    /// What is newer stays.
    pub min_age: Duration,
}

impl Sweep<'_> {
    /// The guests that a definition or a process needs.
    ///
    /// # Errors
    /// [`Error::Host`]: a place cannot be read, so nobody knows what is needed.
    pub fn needed(&self) -> Result<BTreeSet<ProfileName>, Error> {
        let mut needed = wanted::read(self.definitions)?.profiles;
        needed.extend(tasks::in_use(self.kernel, self.proc)?.into_keys());
        Ok(needed)
    }

    /// What may go: profiles called `libvirt-<uuid>` and nothing else, that are not needed, and were neither written nor
    /// loaded within the age, since a guest that is just being started has no definition yet. A load that found nothing to
    /// do counts by the mark that it leaves in the cache.
    ///
    /// # Errors
    /// [`Error::Host`]: a place cannot be read.
    pub fn plan(&self, needed: &BTreeSet<ProfileName>) -> Result<Vec<Garbage>, Error> {
        let loaded = self.kernel.list()?;
        let mut names: BTreeSet<ProfileName> = loaded.keys().copied().collect();
        names.extend(self.on_disk()?);
        let left = names.difference(needed);
        left.filter_map(|name| self.garbage(*name, loaded.contains_key(name)).transpose()).collect()
    }

    /// Removes one guest's garbage, if it still is: looked at again under the guest's lock, and in the kernel only once no
    /// process is seen that carries it. Definitions are read again for each: reading them takes less time than the look at
    /// all processes, and no lock of ours keeps anybody from defining a guest.
    ///
    /// # Errors
    /// A lock cannot be had, or a place cannot be read: nothing is removed.
    pub fn remove(&self, garbage: &Garbage) -> Result<Gone, Error> {
        let name = garbage.profile;
        let profile = Profile { name, file: self.directory.join(name.to_string()) };
        let _locks = Locks::to_remove(&profile, self.directory, self.cache)?;
        if wanted::read(self.definitions)?.profiles.contains(&name) {
            return Ok(Gone::default());
        }
        let now = self.garbage(name, self.kernel.find_again(name)?.is_some())?;
        let Some(garbage) = now.filter(|now| now.seen == garbage.seen) else { return Ok(Gone::default()) };
        let mut gone = Gone::default();
        if garbage.in_kernel {
            match remove(self.kernel, self.proc, name, InUse::Refuse, false) {
                Ok(removed) => gone.removed = Some(removed),
                Err(Error::InUse(_)) => return Ok(gone),
                Err(error) => return Err(error),
            }
        }
        for path in garbage.files {
            match fs::remove_file(&path) {
                Ok(()) => gone.files.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    gone.error = Some(Error::host(&path)(error));
                    break;
                }
            }
        }
        Ok(gone)
    }

    /// Drops the compiled policy of guests that are not needed, but for what is newer than the age. What cannot be dropped
    /// only takes space.
    pub fn forget(&self, needed: &BTreeSet<ProfileName>) {
        let Some(cache) = self.cache else { return };
        for profile in cache.profiles().unwrap_or_default() {
            // Under the lock: a load puts its mark there.
            if !needed.contains(&profile)
                && let Ok(_lock) = cache.lock([profile])
                && !self.is_young(modified(&cache.entry(profile)))
            {
                let _ = cache.forget(profile);
            }
        }
    }

    /// All that there is of a guest, if none of it is young.
    fn garbage(&self, profile: ProfileName, in_kernel: bool) -> Result<Option<Garbage>, Error> {
        let path = |suffix: &&str| self.directory.join(format!("{profile}{suffix}"));
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
        let files: Vec<PathBuf> = SUFFIXES.iter().map(path).filter(is_there).collect();
        let kernels = if in_kernel { self.kernel.directories(profile)? } else { Vec::new() };
        let kept = self.cache.map(|cache| cache.entry(profile)).filter(is_there);
        let all = files.iter().cloned().chain(kernels).chain(kept);
        let seen: Vec<_> = all.map(|path| (modified(&path), path)).map(|(time, path)| (path, time)).collect();
        let is_young = seen.iter().any(|(_, time)| self.is_young(*time));
        Ok((!is_young).then_some(Garbage { profile, in_kernel, files, seen }))
    }

    /// The guests that have files in the directory, or a lock that nobody holds any more by its age.
    fn on_disk(&self) -> Result<BTreeSet<ProfileName>, Error> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(self.directory).map_err(Error::host(self.directory))? {
            let entry = entry.map_err(Error::host(self.directory))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let of = |suffix: &&str| name.strip_suffix(*suffix)?.parse::<ProfileName>().ok();
            found.extend(SUFFIXES.iter().find_map(of));
            found.extend(of(&LOCK).filter(|_| !self.is_young(modified(&entry.path()))));
        }
        Ok(found)
    }

    /// Whether something was written within the age; what has no time, or one in the future, counts as new.
    fn is_young(&self, time: Option<SystemTime>) -> bool {
        let is_new =
            || time.and_then(|time| time.elapsed().ok()).is_none_or(|elapsed| elapsed < self.min_age);
        !self.min_age.is_zero() && is_new()
    }
}

impl Garbage {
    /// What a run that removes would come to.
    pub fn would_be_gone(&self) -> Gone {
        let removed = self.in_kernel.then(|| Loaded::new(self.profile, Action::Removed, None));
        Gone { removed, files: self.files.clone(), error: None }
    }
}

/// When something was written; of a link, that itself.
fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::{NAME, put, tree};
    use std::fs::File;

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
        let definitions = [root.path().join("defs")];
        fs::create_dir(&definitions[0]).unwrap();
        let define = |name: &str| {
            let uuid = name.strip_prefix("libvirt-").unwrap();
            fs::write(definitions[0].join("x.xml"), format!("<uuid>{uuid}</uuid>")).unwrap();
        };
        define(&defined);
        let cache = Cache::open(&root.path().join("cache")).unwrap();
        let sweep = |age| Sweep {
            kernel: &kernel,
            proc: &proc,
            definitions: &definitions,
            directory: &disk,
            cache: Some(&cache),
            min_age: Duration::from_secs(age),
        };
        let plan = |age| sweep(age).plan(&sweep(age).needed().unwrap());
        assert!(plan(600).unwrap().is_empty());
        let garbage = plan(0).unwrap();
        assert_eq!(garbage.len(), 1);
        assert_eq!(garbage[0].profile.to_string(), gone);
        assert!(garbage[0].in_kernel);
        let removed = || fs::read_to_string(kernel.root().join(".remove")).unwrap();
        let stays = |what: &str| {
            let done = sweep(0).remove(&garbage[0]).unwrap();
            assert!(done.removed.is_none() && done.files.is_empty() && done.error.is_none(), "{what}");
            assert_eq!(removed(), "", "{what}");
        };
        // Something needs it since, or it is written or loaded again, however old it may be.
        define(&gone);
        stays("defined");
        define(&defined);
        tasks::tests::put(&proc, 7, 7, &format!("{gone} (enforce)"));
        stays("carried");
        fs::remove_dir_all(proc.join("7")).unwrap();
        let date = modified(&disk.join(&gone)).unwrap();
        let touch =
            |time| File::options().write(true).open(disk.join(&gone)).unwrap().set_modified(time).unwrap();
        touch(date + Duration::from_millis(10));
        stays("written");
        touch(date);
        cache.put(gone.parse().unwrap(), &[1; 32], b"policy").unwrap();
        stays("loaded");
        cache.forget(gone.parse().unwrap()).unwrap();
        // The twin.
        let done = sweep(0).remove(&garbage[0]).unwrap();
        assert!(done.removed.is_some() && done.files.len() == 2 && done.error.is_none());
        assert_eq!(removed(), gone);
        assert!(!disk.join(&gone).exists() && disk.join(&defined).exists() && disk.join(&used).exists());
        fs::remove_dir_all(&disk).unwrap();
        assert!(plan(0).is_err());
    }

    #[test]
    fn what_writers_that_died_have_left_goes_too() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let [disk, proc, defs] = ["disk", "proc", "defs"].map(|name| root.path().join(name));
        for directory in [&disk, &proc, &defs] {
            fs::create_dir(directory).unwrap();
        }
        let definitions = [defs];
        let sweep = |age| Sweep {
            kernel: &kernel,
            proc: &proc,
            definitions: &definitions,
            directory: &disk,
            cache: None,
            min_age: Duration::from_secs(age),
        };
        let [locked, cut] = ["1", "2"].map(|digit| NAME.replacen('a', digit, 1));
        // No process has a number that large (proc(5), pid_max).
        let lock = disk.join(format!("{locked}.lock"));
        std::os::unix::fs::symlink("4194305 1 0.0", &lock).unwrap();
        for suffix in [".new", ".files.new", ".grants.new"] {
            fs::write(disk.join(format!("{cut}{suffix}")), "half").unwrap();
        }
        for other in ["TEMPLATE.qemu.new", "libvirt-x.new", ".lock"] {
            fs::write(disk.join(other), "").unwrap();
        }
        // Young ones are of a call that goes on.
        assert!(sweep(600).plan(&BTreeSet::new()).unwrap().is_empty());
        let garbage = sweep(0).plan(&BTreeSet::new()).unwrap();
        assert_eq!(garbage.iter().map(|item| item.profile.to_string()).collect::<Vec<_>>(), [locked, cut]);
        assert_eq!(garbage.iter().map(|item| item.files.len()).collect::<Vec<_>>(), [0, 3]);
        for item in &garbage {
            assert!(sweep(0).remove(item).unwrap().error.is_none());
        }
        let mut left: Vec<_> = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort_unstable();
        assert_eq!(left, [".aa-render.lock", ".lock", "TEMPLATE.qemu.new", "libvirt-x.new"]);
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
            let old = SystemTime::now() - Duration::from_secs(3600);
            File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        };
        fs::write(disk.join(NAME), "").unwrap();
        date(&disk.join(NAME));
        let sweep = Sweep {
            kernel: &kernel,
            proc: root.path(),
            definitions: &[],
            directory: &disk,
            cache: Some(&cache),
            min_age: Duration::from_secs(600),
        };
        let nobody = BTreeSet::new();
        let planned = || sweep.plan(&nobody).unwrap().len();
        assert_eq!(planned(), 1);
        cache.put(name, &[1; 32], b"policy").unwrap();
        assert_eq!(planned(), 0);
        date(&cache.entry(name));
        assert_eq!(planned(), 1);
        // It is read by a load: that is the mark, which gc itself does not take away.
        assert!(cache.get(name, &[1; 32]).is_some());
        assert_eq!(planned(), 0);
        sweep.forget(&nobody);
        assert_eq!(cache.profiles().unwrap(), [name]);
        date(&cache.entry(name));
        sweep.forget(&[name].into());
        assert_eq!(cache.profiles().unwrap(), [name]);
        sweep.forget(&nobody);
        assert!(cache.profiles().unwrap().is_empty());
    }
}
