//! One change of a profile at a time, whoever makes it: aa-render, libvirtd's helper, or another call of this tool.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aa_contract::ProfileName;
use aa_render::Turn;

use crate::cache::Cache;
use crate::error::Error;
use crate::load::Profile;
use crate::trust;

/// Every lock of some profiles. Dropping it gives them back.
#[derive(Debug, Default)]
pub struct Locks {
    turns: Vec<Turn>,
    cache: Vec<File>,
}

impl Locks {
    /// Waits until nobody else writes, loads or removes any of the profiles: in the directories of their files, which
    /// are the same for calls with any cache and with none; and in the cache, for its entries and for calls that name other
    /// directories. Where nothing can be written, no lock is to be had and none is needed.
    ///
    /// # Errors
    /// [`Error::Read`]: another user could keep this call waiting; [`Error::Host`]: a lock cannot be had.
    pub fn to_load<'a>(
        profiles: impl IntoIterator<Item = &'a Profile>,
        cache: Option<&Cache>,
    ) -> Result<Self, Error> {
        let mut names = BTreeSet::new();
        let mut directories: BTreeMap<PathBuf, BTreeSet<ProfileName>> = BTreeMap::new();
        for profile in profiles {
            names.insert(profile.name);
            if let Some(directory) = parent(&profile.file)? {
                let directory = trust::directory(&directory)?;
                directories.entry(directory).or_default().insert(profile.name);
            }
        }
        Self::take(&directories, names, cache)
    }

    /// The same for a profile that goes, by its name alone: nothing that is read from the directory of its file decides
    /// anything. So there is no lock where another user could hold it for ever, nor, but in `home`, where aa-render writes,
    /// where the file is not.
    ///
    /// # Errors
    /// [`Error::Host`]: a lock cannot be had.
    pub fn to_remove(profile: &Profile, home: &Path, cache: Option<&Cache>) -> Result<Self, Error> {
        let mut directories = BTreeMap::new();
        let home = std::path::absolute(home).map_err(Error::host(home))?;
        if let Some(directory) = parent(&profile.file)?
            && (directory == home || is_there(&profile.file))
        {
            match trust::directory(&directory) {
                Ok(directory) => drop(directories.insert(directory, BTreeSet::from([profile.name]))),
                Err(problem) if problem.is_the_hosts() => return Err(problem.into()),
                Err(_) => {}
            }
        }
        Self::take(&directories, BTreeSet::from([profile.name]), cache)
    }

    /// In one order for all: two that wait for each other would wait for ever.
    fn take(
        directories: &BTreeMap<PathBuf, BTreeSet<ProfileName>>,
        names: BTreeSet<ProfileName>,
        cache: Option<&Cache>,
    ) -> Result<Self, Error> {
        let mut turns = Vec::new();
        for (directory, profiles) in directories {
            match Turn::take(directory, profiles) {
                Ok(turn) => turns.push(turn),
                Err(aa_render::Error::Io { source, .. }) if nobody_writes(&source) => {}
                Err(aa_render::Error::Io { path, source, .. }) => return Err(Error::Host { path, source }),
                Err(other) => return Err(Error::host(directory)(io::Error::other(other.to_string()))),
            }
        }
        let cache = cache.map_or_else(|| Ok(Vec::new()), |cache| cache.lock(names))?;
        Ok(Self { turns, cache })
    }

    /// A file that keeps others waiting for as long as anybody has it open.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.turns.first().map(AsFd::as_fd).or_else(|| self.cache.first().map(AsFd::as_fd))
    }
}

/// Whether a file could not be made for a reason that holds for everybody: a file system that is read-only or full.
pub(crate) fn nobody_writes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn parent(file: &Path) -> Result<Option<PathBuf>, Error> {
    let file = std::path::absolute(file).map_err(Error::host(file))?;
    Ok(file.parent().map(Path::to_owned))
}

/// Whether there is a file, or may be one.
fn is_there(file: &Path) -> bool {
    !file
        .symlink_metadata()
        .is_err_and(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::NAME;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn locks_are_where_the_profile_is_and_in_no_place_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let profile =
            |sub: &str| Profile { name: NAME.parse().unwrap(), file: dir.path().join(sub).join(NAME) };
        for sub in ["a", "b"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let both = [profile("b"), profile("a")];
        for profile in &both {
            fs::write(&profile.file, "").unwrap();
        }
        let locks = Locks::to_load(&both, None).unwrap();
        assert_eq!(locks.turns.len(), 2);
        assert!(locks.file().is_some());
        for profile in &both {
            assert!(profile.file.with_extension("lock").symlink_metadata().is_ok());
        }
        drop(locks);
        assert!(!both[0].file.with_extension("lock").exists());
        // Whoever may write there could hold the lock for ever: a removal does without.
        let home = dir.path().join("none");
        let removes =
            |profile: &Profile, home: &Path| Locks::to_remove(profile, home, None).unwrap().turns.len();
        assert_eq!(removes(&both[0], &home), 1);
        for mode in [0o775, 0o1777] {
            fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Locks::to_load(&both, None), Err(Error::Read { .. })));
            assert_eq!(removes(&both[0], &home), 0);
            assert_eq!(removes(&both[0], both[0].file.parent().unwrap()), 0);
        }
        // Nobody makes files where a record happens to point; where aa-render writes, the file may be about to come.
        fs::create_dir(dir.path().join("c")).unwrap();
        let [absent, nowhere] = [profile("c"), profile("none")];
        assert_eq!((removes(&absent, &home), removes(&nowhere, &home)), (0, 0));
        assert_eq!(fs::read_dir(dir.path().join("c")).unwrap().count(), 0);
        assert_eq!(removes(&absent, absent.file.parent().unwrap()), 1);
        // What is in the way of a lock is an error, here and in the cache.
        fs::remove_file(dir.path().join("a/.aa-render.lock")).unwrap();
        fs::create_dir(dir.path().join("a/.aa-render.lock")).unwrap();
        assert!(matches!(Locks::to_load(&[profile("a")], None), Err(Error::Host { .. })));
        assert!(matches!(Locks::to_remove(&profile("a"), &home, None), Err(Error::Host { .. })));
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        assert!(Locks::to_remove(&nowhere, &home, Some(&cache)).unwrap().file().is_some());
        for entry in fs::read_dir(dir.path().join("cache")).unwrap() {
            let path = entry.unwrap().path();
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        }
        assert!(matches!(Locks::to_remove(&nowhere, &home, Some(&cache)), Err(Error::Host { .. })));
    }
}
