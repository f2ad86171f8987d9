//! The profile directory: atomic, durable writes under a lock per profile.
//!
//! Files are named relative to a descriptor of the directory, links are never followed, and a file
//! that someone else owns is never taken for a profile.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aa_contract::ProfileName;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::libc;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, fsync, getegid, geteuid, mkdir, unlinkat};

use crate::error::Error;
use crate::layout::{Layout, Part, file_name};
use crate::lock::{self, LinkLock};

/// Largest file that is read, and so written, in bytes: the limit of libvirt's helper.
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// Mode of every file written: policy is public.
const FILE_MODE: u32 = 0o644;
/// Mode of the directory, where it is made.
const DIRECTORY_MODE: u32 = 0o755;

/// Whether a change must be safe on the disk before it counts as made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// The directory is synced after a rename, or the change has failed.
    Required,
    /// Permission denied (`EACCES`, `EPERM`) is no failure: for a process whose own AppArmor profile
    /// is that of libvirt's helper, which may not open the directory.
    IfPermitted,
    /// Files are synced, the directory is not: for a process that knows that it may not open it, where the
    /// attempt alone would be a denial in the system's log.
    FilesOnly,
}

/// The texts of a profile's files; `None` where there is no file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The base profile.
    pub base: Option<String>,
    /// The rules file.
    pub rules: Option<String>,
    /// The grants file.
    pub grants: Option<String>,
}

impl Contents {
    /// The files that the parser reads are other than `old`'s.
    pub fn changes_policy(&self, old: &Self) -> bool {
        self.base != old.base || self.rules != old.rules
    }

    /// Each part with its text, in the order in which they are written. What is included comes before what includes
    /// it, so that a crash between two leaves a profile that compiles; and what is granted counts as granted or
    /// dropped only when the rules say so, so that the same call again finishes what a crash cut short.
    pub fn parts(&self) -> [(Part, Option<&str>); 3] {
        [
            (Part::Rules, self.rules.as_deref()),
            (Part::Grants, self.grants.as_deref()),
            (Part::Base, self.base.as_deref()),
        ]
    }
}

/// A profile directory.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Absent where the directory does not exist.
    dir: Option<OwnedFd>,
    sync: Sync,
}

/// A profile that nobody else changes as long as this lives.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    dir: &'a OwnedFd,
    profile: ProfileName,
    /// In the order in which they are given back.
    _locks: (LinkLock<'a>, Option<OwnedFd>),
}

impl Store {
    /// Opens the directory to look at it. One that does not exist is empty.
    ///
    /// # Errors
    /// [`Error::Directory`]: someone else could change it; or [`Error::Io`].
    pub fn look(layout: &Layout) -> Result<Self, Error> {
        let path = layout.dir().to_owned();
        let dir = open_directory(&path)?;
        Ok(Self { path, dir, sync: Sync::Required })
    }

    /// Opens the directory to change it, and makes it, of mode 0755, if only its last component is missing.
    ///
    /// # Errors
    /// [`Error::Directory`]: someone else could change it; or [`Error::Io`].
    pub fn open(layout: &Layout, sync: Sync) -> Result<Self, Error> {
        let path = layout.dir().to_owned();
        let mut dir = open_directory(&path)?;
        if dir.is_none() {
            match make_directory(&path) {
                Ok(()) => sync_parent(&path, sync)?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(io_error(&path, "create", errno.into())),
            }
            dir = open_directory(&path)?;
        }
        Ok(Self { path, dir, sync })
    }

    /// Waits until nobody else changes the profile.
    ///
    /// # Errors
    /// [`Error::Io`]: the lock could not be had in two minutes, or the directory does not exist.
    pub fn lock(&self, profile: ProfileName) -> Result<Locked<'_>, Error> {
        let byte = lock::take_byte(self.directory()?, profile)
            .map_err(|errno| io_error(&self.path.join(lock::LOCK_FILE), "lock", errno.into()))?;
        self.lock_by_link(profile, Some(byte))
    }

    /// The same for a caller that may lock no file.
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub fn lock_without_file(&self, profile: ProfileName) -> Result<Locked<'_>, Error> {
        self.lock_by_link(profile, None)
    }

    fn lock_by_link(&self, profile: ProfileName, byte: Option<OwnedFd>) -> Result<Locked<'_>, Error> {
        let dir = self.directory()?;
        let link = LinkLock::take(dir, profile, lock::PATIENCE)
            .map_err(|error| io_error(&self.path.join(lock::link_name(profile)), "lock", error))?;
        Ok(Locked { store: self, dir, profile, _locks: (link, byte) })
    }

    fn directory(&self) -> Result<&OwnedFd, Error> {
        self.dir.as_ref().ok_or_else(|| io_error(&self.path, "lock", io::ErrorKind::NotFound.into()))
    }

    /// The profile's files as they are now, without a lock.
    ///
    /// # Errors
    /// [`Error::File`]: a file is a link or not this user's; or [`Error::Io`].
    pub fn read(&self, profile: ProfileName) -> Result<Contents, Error> {
        let read = |part| self.read_file(&file_name(profile, part));
        Ok(Contents { base: read(Part::Base)?, rules: read(Part::Rules)?, grants: read(Part::Grants)? })
    }

    fn read_file(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = self.path.join(name);
        let refuse = |reason| Error::File { path: path.clone(), reason };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(refuse("it is a symbolic link")),
            Err(errno) => return Err(io_error(&path, "read", errno.into())),
        };
        let io = |error| io_error(&path, "read", error);
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(refuse("it is not a regular file"));
        }
        if meta.nlink() != 1 {
            return Err(refuse("it has more than one name (hard links)"));
        }
        if !is_trusted_owner(meta.uid()) {
            return Err(refuse("another user owns it"));
        }
        if meta.len() > MAX_FILE {
            return Err(refuse("it is larger than 10 MiB"));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(io)?;
        Ok(Some(text))
    }
}

impl Locked<'_> {
    /// The profile's files as they are now.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read(&self) -> Result<Contents, Error> {
        self.store.read(self.profile)
    }

    /// Makes the files what `new` says, where that differs from `old`, which is what [`Self::read`]
    /// gave. Each file is replaced in one step, and none before all that is new is safe on the disk.
    /// With the two exchanged, it takes a change back.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; or [`Error::Io`]: a file could not be written. The files hold what they held, unless
    /// putting them back failed as well.
    pub fn write(&self, old: &Contents, new: &Contents) -> Result<(), Error> {
        if let Some((part, _)) = changes(old, new).find(|(_, text)| text.is_some_and(is_too_large)) {
            return Err(Error::TooLarge(self.store.path.join(file_name(self.profile, part))));
        }
        self.remove_leftovers();
        let result = self.prepare(old, new).and_then(|()| {
            self.commit(old, new).inspect_err(|_| {
                // Best effort: the failure above is the one to report.
                self.remove_leftovers();
                drop(self.prepare(new, old).and_then(|()| self.commit(new, old)));
            })
        });
        if result.is_err() {
            self.remove_leftovers();
        }
        result
    }

    /// Writes a temporary file for each part that is to be replaced.
    fn prepare(&self, old: &Contents, new: &Contents) -> Result<(), Error> {
        for (part, text) in changes(old, new) {
            if let Some(text) = text {
                self.write_temporary(&self.temporary_name(part), text)?;
            }
        }
        Ok(())
    }

    /// Puts the temporary files in place.
    fn commit(&self, old: &Contents, new: &Contents) -> Result<(), Error> {
        let mut changed = false;
        for (part, text) in changes(old, new) {
            let name = file_name(self.profile, part);
            match text {
                Some(_) => renameat(self.dir, self.temporary_name(part).as_str(), self.dir, name.as_str())
                    .map_err(|errno| self.io(&name, "replace", errno.into()))?,
                None => match unlinkat(self.dir, name.as_str(), UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(self.io(&name, "remove", errno.into())),
                },
            }
            changed = true;
        }
        if changed { self.sync_directory() } else { Ok(()) }
    }

    /// Removes temporary files: those of a failure, and under the lock also those that a crash left.
    fn remove_leftovers(&self) {
        for (part, _) in Contents::default().parts() {
            // One that stays is replaced by the next write of this part.
            let _ = unlinkat(self.dir, self.temporary_name(part).as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }

    fn write_temporary(&self, name: &str, text: &str) -> Result<(), Error> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(self.dir, name, flags, Mode::from_bits_truncate(FILE_MODE))
            .map_err(|errno| self.io(name, "create", errno.into()))?;
        let mut file = File::from(fd);
        file.write_all(text.as_bytes())
            .and_then(|()| file.set_permissions(Permissions::from_mode(FILE_MODE)))
            .and_then(|()| file.sync_all())
            .map_err(|error| self.io(name, "write", error))
    }

    /// A name that starts like the profile's, which is all that the profile of libvirt's helper lets
    /// it create. Nobody else uses it as long as the lock is held.
    fn temporary_name(&self, part: Part) -> String {
        format!("{}.new", file_name(self.profile, part))
    }

    fn sync_directory(&self) -> Result<(), Error> {
        if self.store.sync == Sync::FilesOnly {
            return Ok(());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let synced = openat(self.dir, ".", flags, Mode::empty()).and_then(fsync);
        self.store.sync.judge(synced).map_err(|errno| io_error(&self.store.path, "sync", errno.into()))
    }

    fn io(&self, name: &str, doing: &'static str, source: io::Error) -> Error {
        io_error(&self.store.path.join(name), doing, source)
    }
}

impl Sync {
    fn judge(self, synced: Result<(), Errno>) -> Result<(), Errno> {
        match synced {
            Err(Errno::EACCES | Errno::EPERM) if self == Self::IfPermitted => Ok(()),
            other => other,
        }
    }
}

/// Whether a text is more than what is read.
fn is_too_large(text: &str) -> bool {
    text.len() as u64 > MAX_FILE
}

/// The parts that differ, with the text that is to be.
fn changes<'a>(old: &'a Contents, new: &'a Contents) -> impl Iterator<Item = (Part, Option<&'a str>)> {
    let pairs = old.parts().into_iter().zip(new.parts());
    pairs.filter(|((_, before), (_, after))| before != after).map(|(_, after)| after)
}

/// Makes the directory, of the mode that it is to have whatever the caller's umask leaves of that: others may look for a
/// guest's profile, and write none.
fn make_directory(path: &Path) -> Result<(), Errno> {
    mkdir(path, Mode::from_bits_truncate(DIRECTORY_MODE))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir = nix::fcntl::open(path, flags, Mode::empty())?;
    fchmod(dir, Mode::from_bits_truncate(DIRECTORY_MODE))
}

fn sync_parent(path: &Path, sync: Sync) -> Result<(), Error> {
    if sync == Sync::FilesOnly {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let synced = nix::fcntl::open(parent, flags, Mode::empty()).and_then(fsync);
    sync.judge(synced).map_err(|errno| io_error(parent, "sync", errno.into()))
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), doing, source }
}

/// Whether the group of a file or directory, of this mode and group, is one to be kept from writing to it. To root, every
/// group is: where there is an access list (acl(5)), the group's bits are the most that anybody on it has, whoever the
/// group is. Another user's own group is taken, since many have files of theirs open to it, and load no policy.
pub fn group_may_write(mode: u32, gid: u32) -> bool {
    let is_own = !geteuid().is_root() && gid == getegid().as_raw();
    mode & libc::S_IWGRP != 0 && !is_own
}

fn is_trusted_owner(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Opens the directory by path only (`O_PATH`), which no AppArmor profile mediates, and checks that
/// nobody but this user and root can put files of other names' in place of ours.
fn open_directory(path: &Path) -> Result<Option<OwnedFd>, Error> {
    let refuse = |reason| Err(Error::Directory { path: path.to_owned(), reason });
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = match nix::fcntl::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(io_error(path, "open", errno.into())),
    };
    let link = fs::symlink_metadata(path).map_err(|error| io_error(path, "open", error))?;
    if link.is_symlink() && !is_trusted_owner(link.uid()) {
        return refuse("it is a link that another user can change");
    }
    let io = |errno: Errno| io_error(path, "open", errno.into());
    let stat = nix::sys::stat::fstat(&fd).map_err(io)?;
    if !is_trusted_owner(stat.st_uid) {
        return refuse("another user owns it");
    }
    // With the sticky bit too: what the base profile includes if it exists, anybody could make.
    if stat.st_mode & libc::S_IWOTH != 0 {
        return refuse("everybody may make files in it (chmod o-w)");
    }
    if group_may_write(stat.st_mode, stat.st_gid) {
        return refuse("a group, or whom an access list names, may make files in it (chmod g-w)");
    }
    Ok(Some(fd))
}
