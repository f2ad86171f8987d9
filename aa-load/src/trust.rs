//! Whether anybody else than root and this user can change what is at a path, or put another thing there: whoever can
//! decides what the guest may do.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use aa_render::store::group_may_write;
use nix::errno::Errno;

use crate::error::Error;

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;

/// What is wrong, and with which path.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl Problem {
    pub(crate) fn new(path: &Path, problem: &'static str) -> Self {
        Self { path: path.to_owned(), source: io::Error::new(io::ErrorKind::PermissionDenied, problem) }
    }

    /// That the system said so of a path, for `map_err`.
    pub(crate) fn of(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }

    /// Whether the system failed, and not the path: it is there, or may be, and could not be looked at.
    pub(crate) fn is_the_hosts(&self) -> bool {
        let of_the_path = [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP];
        self.source.raw_os_error().is_some_and(|error| !of_the_path.contains(&Errno::from_raw(error)))
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let is_the_hosts = problem.is_the_hosts();
        let Problem { path, source } = problem;
        if is_the_hosts { Self::Host { path, source } } else { Self::Read { path, source } }
    }
}

/// Where a file is once its links are followed: a place where nobody else can change it or put another.
pub(crate) fn file(path: &Path) -> Result<PathBuf, Problem> {
    let found = place(path)?;
    // A file of another kind would be waited for, or has no end.
    if !fs::metadata(&found).map_err(Problem::of(&found))?.is_file() {
        return Err(Problem { path: found, source: io::Error::other("not a regular file") });
    }
    Ok(found)
}

/// The same of a file or a directory. What holds it must not be open to others even if it is sticky.
pub(crate) fn place(path: &Path) -> Result<PathBuf, Problem> {
    let found = way(path)?;
    for path in found.ancestors().take(2) {
        let metadata = fs::metadata(path).map_err(Problem::of(path))?;
        check(path, &metadata, false)?;
    }
    Ok(found)
}

/// Directories whose files are nobody else's to put there, and where they are: each is looked at once, for what is looked
/// at together.
#[derive(Debug, Default)]
pub(crate) struct Directories(HashMap<PathBuf, PathBuf>);

impl Directories {
    /// As [`place`].
    pub(crate) fn place(&mut self, path: &Path) -> Result<(), Problem> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return place(path).map(drop);
        };
        let metadata = fs::symlink_metadata(path).map_err(Problem::of(path))?;
        if metadata.is_symlink() {
            return place(path).map(drop);
        }
        if !self.0.contains_key(parent) {
            self.0.insert(parent.to_owned(), directory(parent)?);
        }
        let found = self.0.get(parent).map_or_else(|| path.to_owned(), |parent| parent.join(name));
        check(&found, &metadata, false)
    }
}

/// Where a directory is whose files are nobody else's to put there.
pub(crate) fn directory(path: &Path) -> Result<PathBuf, Problem> {
    let found = way(path)?;
    let metadata = fs::metadata(&found).map_err(Problem::of(&found))?;
    if !metadata.is_dir() {
        return Err(Problem { path: found, source: io::Error::other("not a directory") });
    }
    check(&found, &metadata, false)?;
    Ok(found)
}

/// Where a path leads, which nobody else can change: each link, and each directory on the way. What is in a sticky
/// directory stays where it is.
pub(crate) fn way(path: &Path) -> Result<PathBuf, Problem> {
    let mut found = PathBuf::from("/");
    let mut ahead = parts(&std::path::absolute(path).map_err(Problem::of(path))?);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        let metadata = fs::metadata(&found).map_err(Problem::of(&found))?;
        check(&found, &metadata, metadata.mode() & 0o1000 != 0)?;
        if part == ".." {
            found.pop();
            continue;
        }
        found.push(part);
        let metadata = fs::symlink_metadata(&found).map_err(Problem::of(&found))?;
        if !metadata.is_symlink() {
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Problem { path: found, source: io::Error::other("too many links") });
        }
        // The mode of a link says nothing.
        check(&found, &metadata, true)?;
        let target = fs::read_link(&found).map_err(Problem::of(&found))?;
        found = if target.is_absolute() { PathBuf::from("/") } else { parent(found) };
        ahead.extend(parts(&target));
    }
    Ok(found)
}

fn parent(mut path: PathBuf) -> PathBuf {
    path.pop();
    path
}

/// The names of a path, the last first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(named).collect()
}

/// That nobody else than root and this user may write a file, or into a directory unless what is in it `is_kept`.
fn check(path: &Path, metadata: &Metadata, is_kept: bool) -> Result<(), Problem> {
    match others_may_write(metadata, is_kept) {
        Some(problem) => Err(Problem::new(path, problem)),
        None => Ok(()),
    }
}

/// Why somebody else may write; nothing if nobody may.
fn others_may_write(metadata: &Metadata, is_kept: bool) -> Option<&'static str> {
    let uid = nix::unistd::geteuid().as_raw();
    if ![0, uid].contains(&metadata.uid()) {
        Some("another user owns it")
    } else if metadata.mode() & 0o002 != 0 && !is_kept {
        Some("everybody may write to it (chmod o-w)")
    } else if !is_kept && group_may_write(metadata.mode(), metadata.gid()) {
        Some("a group, or whom an access list names, may write to it (chmod g-w)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aa_contract::Exit;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn every_link_on_the_way_must_be_in_a_place_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["own/deep", "open/deep"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let mode = |name: &str, mode| fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        fs::write(at("own/deep/file"), "").unwrap();
        let own = at("own/deep/file").canonicalize().unwrap();
        // A link to a link, the second in a directory that is open to others.
        symlink(&own, at("open/second")).unwrap();
        symlink("../open/second", at("own/first")).unwrap();
        assert_eq!(file(&at("own/first")).unwrap(), own);
        mode("open", 0o777);
        let problem = file(&at("own/first")).unwrap_err();
        assert!(problem.path.ends_with("open") && problem.source.to_string().contains("everybody"));
        // What is in a sticky one stays where it is, but no file is taken out of it.
        mode("open", 0o1777);
        assert_eq!(file(&at("own/first")).unwrap(), own);
        fs::write(at("open/file"), "").unwrap();
        assert!(file(&at("open/file")).is_err());
        fs::write(at("open/deep/file"), "").unwrap();
        assert!(file(&at("open/deep/file")).is_ok() && file(&at("own/deep/../../open/deep/file")).is_ok());
        mode("open/deep/file", 0o666);
        assert!(file(&at("open/deep/file")).is_err());
        // One look at each directory comes to the same.
        for name in ["own/deep/file", "own/first", "own/deep", "open/file", "open/deep/file", "own/none"] {
            let once = Directories::default().place(&at(name)).map_err(|problem| problem.path);
            assert_eq!(once, place(&at(name)).map(drop).map_err(|problem| problem.path), "{name}");
        }
        let mut directories = Directories::default();
        assert!(directories.place(&at("own/deep/file")).is_ok() && directories.0.len() == 1);
        mode("own/deep/file", 0o666);
        assert!(directories.place(&at("own/deep/file")).is_err());
        mode("own/deep/file", 0o644);
        // The bits of the group stand for every user of an access list, also where the group is root's own.
        mode("own/deep/file", 0o664);
        assert_eq!(file(&at("own/deep/file")).is_ok(), !nix::unistd::geteuid().is_root());
        mode("own/deep/file", 0o644);
        // A circle, a directory, nothing.
        symlink("circle", at("own/circle")).unwrap();
        for name in ["own/circle", "own/deep", "own/none"] {
            assert!(file(&at(name)).is_err(), "{name}");
        }
        // None of these is the host's failure.
        for (error, is_the_hosts) in
            [(2, false), (20, false), (40, false), (5, true), (13, true), (12, true), (36, true)]
        {
            let problem = Problem { path: PathBuf::new(), source: io::Error::from_raw_os_error(error) };
            assert_eq!(problem.is_the_hosts(), is_the_hosts, "{error}");
            let exit = Error::from(problem).exit();
            assert_eq!(exit, if is_the_hosts { Exit::Host } else { Exit::Refused }, "{error}");
        }
        for name in ["own/circle", "own/none", "own/deep/file/x", "open/file"] {
            assert!(!file(&at(name)).unwrap_err().is_the_hosts(), "{name}");
        }
        assert!(place(&at("own/deep")).is_ok() && directory(&at("own/deep")).is_ok());
        assert!(directory(&own).is_err() && directory(&at("open")).is_err());
    }
}
