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
    /// directories. A directory that is not there, or is mounted read-only, has no locks.
    ///
    /// # Errors
    /// [`Error::Read`]: another user could keep this call waiting; [`Error::Host`]: a lock cannot be had.
    pub fn take<'a>(
        profiles: impl IntoIterator<Item = &'a Profile>,
        cache: Option<&Cache>,
    ) -> Result<Self, Error> {
        let mut names = BTreeSet::new();
        let mut directories: BTreeMap<PathBuf, BTreeSet<ProfileName>> = BTreeMap::new();
        for profile in profiles {
            names.insert(profile.name);
            if let Some(directory) = directory(&profile.file)? {
                directories.entry(directory).or_default().insert(profile.name);
            }
        }
        // In one order for all: two that wait for each other would wait for ever.
        let mut turns = Vec::new();
        for (directory, profiles) in &directories {
            match Turn::take(directory, profiles) {
                Ok(turn) => turns.push(turn),
                Err(aa_render::Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
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

/// Where a profile's locks are; `None` if the directory is not there.
fn directory(file: &Path) -> Result<Option<PathBuf>, Error> {
    let file = std::path::absolute(file).map_err(Error::host(file))?;
    let Some(parent) = file.parent() else { return Ok(None) };
    match trust::directory(parent) {
        Ok(directory) => Ok(Some(directory)),
        Err(problem) if problem.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(problem) => Err(problem.into()),
    }
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
        let locks = Locks::take(&both, None).unwrap();
        assert_eq!(locks.turns.len(), 2);
        assert!(locks.file().is_some());
        for profile in &both {
            assert!(profile.file.with_extension("lock").symlink_metadata().is_ok());
        }
        drop(locks);
        assert!(!both[0].file.with_extension("lock").exists());
        // No directory, and so no writer in it.
        assert!(Locks::take(&[profile("none")], None).unwrap().file().is_none());
        // Whoever may write there could hold the lock for ever.
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(Locks::take(&both, None), Err(Error::Read { .. })));
        // What is in the way of a lock is an error, here and in the cache.
        fs::remove_file(dir.path().join("a/.aa-render.lock")).unwrap();
        fs::create_dir(dir.path().join("a/.aa-render.lock")).unwrap();
        assert!(matches!(Locks::take(&[profile("a")], None), Err(Error::Host { .. })));
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        assert!(Locks::take(&[profile("none")], Some(&cache)).is_ok());
        for entry in fs::read_dir(dir.path().join("cache")).unwrap() {
            let path = entry.unwrap().path();
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        }
        assert!(matches!(Locks::take(&[profile("none")], Some(&cache)), Err(Error::Host { .. })));
    }
}
