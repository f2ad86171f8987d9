//! A mounted file system that is proven to be of its kind, and looked into without leaving it.
//!
//! A tmpfs, a link or another procfs file put over a path of /proc takes the write of the profile's
//! name and confines nothing (CVE-2019-16884, CVE-2023-28642). So the root is opened without
//! following a link, its type comes from the kernel, and below it openat2(2) crosses neither a mount
//! point nor a magic link.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{FsType, fstatfs};

use crate::Error;

/// A directory of a file system of a known type.
#[derive(Debug)]
pub(crate) struct Mount {
    root: OwnedFd,
    kind: FsType,
    /// Where the directory is, for messages.
    place: &'static str,
}

/// What a mount must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// In words.
    pub(crate) name: &'static str,
    /// `f_type` of statfs(2).
    pub(crate) magic: FsType,
    /// The inode number that its root always has, if there is one: a bind mount of one of its
    /// other directories has the type but not the number.
    pub(crate) root_inode: Option<u64>,
}

impl Mount {
    /// Opens the directory `name` of the root directory, which must not be a link, and proves its kind.
    pub(crate) fn of_root(place: &'static str, name: &str, kind: Kind) -> Result<Self, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened =
            open("/", flags, Mode::empty()).and_then(|root| openat(root, name, flags, Mode::empty()));
        Self::prove(opened, place, kind)
    }

    fn prove(opened: nix::Result<OwnedFd>, place: &'static str, kind: Kind) -> Result<Self, Error> {
        let root = opened.map_err(|errno| match errno {
            Errno::ENOTDIR | Errno::ELOOP => Error::NotDirectory { place: place.to_owned() },
            _ => Error::Unreadable { place: place.to_owned(), source: errno.into() },
        })?;
        let mount = Self { root, kind: kind.magic, place };
        mount.require_kind(&mount.root, place, kind.name)?;
        if let Some(expected) = kind.root_inode {
            let inode = fstat(&mount.root).map_err(|errno| mount.unreadable("", errno))?.st_ino;
            if inode != expected {
                return Err(Error::NotRoot { place: place.to_owned(), kind: kind.name, inode });
            }
        }
        Ok(mount)
    }

    /// Opens a file beneath the root; None if there is no such file.
    ///
    /// Symbolic links are followed if they stay beneath it (procfs's own `thread-self` is one).
    pub(crate) fn open(&self, path: &str, flags: OFlag) -> Result<Option<File>, Error> {
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY)
            .resolve(resolve);
        let opened = match openat2(self.root.as_fd(), path, how) {
            Ok(opened) => opened,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::EXDEV | Errno::ELOOP) => return Err(Error::Covered { place: self.name(path) }),
            Err(Errno::ENOSYS) => return Err(Error::NoOpenat2),
            Err(errno) => return Err(self.unreadable(path, errno)),
        };
        self.require_kind(&opened, &self.name(path), "the file system around it")?;
        Ok(Some(File::from(opened)))
    }

    /// The path of a file beneath the root, for messages.
    pub(crate) fn name(&self, path: &str) -> String {
        if path.is_empty() { self.place.to_owned() } else { format!("{}/{path}", self.place) }
    }

    fn unreadable(&self, path: &str, errno: Errno) -> Error {
        Error::Unreadable { place: self.name(path), source: errno.into() }
    }

    fn require_kind(&self, opened: impl AsFd, place: &str, kind: &'static str) -> Result<(), Error> {
        let found = fstatfs(opened)
            .map_err(|errno| Error::Unreadable { place: place.to_owned(), source: errno.into() })?;
        let FsType(magic) = found.filesystem_type();
        if magic == self.kind.0 {
            Ok(())
        } else {
            Err(Error::OtherKind { place: place.to_owned(), kind, magic })
        }
    }

    /// A directory of the tests' own in place of a kernel file system.
    #[cfg(test)]
    pub(crate) fn of_test(directory: &std::path::Path) -> Self {
        let root = OwnedFd::from(File::open(directory).unwrap());
        let kind = fstatfs(&root).unwrap().filesystem_type();
        Self { root, kind, place: "/test" }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC};

    use super::*;

    const PROC: Kind = Kind { name: "procfs", magic: PROC_SUPER_MAGIC, root_inode: Some(1) };

    #[test]
    fn the_real_proc_is_accepted_and_read() {
        let proc = Mount::of_root("/proc", "proc", PROC).unwrap();
        let mut text = String::new();
        proc.open("thread-self/comm", OFlag::O_RDONLY).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        assert!(proc.open("no-such-file", OFlag::O_RDONLY).unwrap().is_none());
    }

    #[test]
    fn another_file_system_is_not_procfs() {
        let wrong = Mount::of_root("/tmp", "tmp", PROC).unwrap_err();
        assert!(matches!(wrong, Error::OtherKind { .. }), "{wrong}");
        let wrong = Mount::of_root("/proc", "proc", Kind { magic: SYSFS_MAGIC, ..PROC }).unwrap_err();
        assert!(matches!(wrong, Error::OtherKind { .. }), "{wrong}");
    }

    #[test]
    fn a_directory_within_procfs_is_not_its_root() {
        let wrong = Mount::of_root("/proc/sys", "proc/sys", PROC).unwrap_err();
        assert!(matches!(wrong, Error::NotRoot { .. }), "{wrong}");
    }

    #[test]
    fn what_is_no_directory_is_not_opened() {
        // On every merged-/usr system /bin is a link.
        let link = Mount::of_root("/bin", "bin", PROC).unwrap_err();
        assert!(matches!(link, Error::NotDirectory { .. } | Error::OtherKind { .. }), "{link}");
        let absent = Mount::of_root("/absent", "no-such-directory", PROC).unwrap_err();
        assert!(matches!(absent, Error::Unreadable { .. }), "{absent}");
    }

    #[test]
    fn magic_links_and_links_out_of_the_root_are_not_followed() {
        let proc = Mount::of_root("/proc", "proc", PROC).unwrap();
        for path in ["self/exe", "self/root/etc/passwd", "self/cwd/Cargo.toml"] {
            let refused = proc.open(path, OFlag::O_RDONLY).unwrap_err();
            assert!(matches!(refused, Error::Covered { .. }), "{path}: {refused}");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("inside")).unwrap();
        std::fs::write(directory.path().join("inside/file"), "text").unwrap();
        symlink("inside", directory.path().join("stays")).unwrap();
        symlink("/etc", directory.path().join("absolute")).unwrap();
        symlink("../..", directory.path().join("climbs")).unwrap();
        let mount = Mount::of_test(directory.path());
        assert!(mount.open("stays/file", OFlag::O_RDONLY).unwrap().is_some());
        for path in ["absolute/passwd", "climbs/etc/passwd", "../x"] {
            let refused = mount.open(path, OFlag::O_RDONLY).unwrap_err();
            assert!(matches!(refused, Error::Covered { .. }), "{path}: {refused}");
        }
    }

    #[test]
    fn a_mount_point_is_not_crossed() {
        let root = Mount::of_test(std::path::Path::new("/"));
        let refused = root.open("proc/version", OFlag::O_RDONLY).unwrap_err();
        assert!(matches!(refused, Error::Covered { .. }), "{refused}");
    }

    #[test]
    fn what_is_opened_is_closed_on_exec() {
        let proc = Mount::of_root("/proc", "proc", PROC).unwrap();
        let file = proc.open("version", OFlag::O_RDONLY).unwrap().unwrap();
        for opened in [proc.root.as_fd(), file.as_fd()] {
            let flags = FdFlag::from_bits_retain(fcntl(opened, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
        }
    }
}
