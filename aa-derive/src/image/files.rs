//! The host's files, as the chain walk sees them.

use std::fs::{File, FileType, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use aa_contract::text::{Printable, strip_os_code};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use thiserror::Error;

use super::ReadAt;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    Block,
}

/// The same file under any name: a regular file's device and inode, a block device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// `st_dev` and `st_ino`.
    Inode(u64, u64),
    /// `st_rdev`.
    Device(u64),
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Regular file or block device.
    pub kind: FileKind,
    /// Which file it is.
    pub identity: Identity,
}

/// Why a file cannot be an image, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("does not exist")]
    Missing,
    /// This process may not open it.
    #[error("may not be read by this process")]
    Denied,
    /// A directory, which the block layer cannot open.
    #[error("is a directory")]
    Directory,
    /// A FIFO, socket or character device: never an image, and opening one can block or have effects.
    #[error("is neither a regular file nor a block device")]
    NotAnImage,
    /// Anything but a Unix socket, where a name says that there is one.
    #[error("is no socket")]
    NotASocket,
    /// The path has a NUL byte.
    #[error("\"{}\" has a NUL byte", Printable(.0))]
    Nul(String),
    /// Any other answer of the host.
    #[error("cannot be opened: {0}")]
    Host(String),
}

impl OpenError {
    /// Whether what is there can never be opened as an image, by anyone.
    pub fn is_for_ever(&self) -> bool {
        match self {
            Self::Directory | Self::NotAnImage | Self::NotASocket | Self::Nul(_) => true,
            Self::Missing | Self::Denied | Self::Host(_) => false,
        }
    }
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Self::Missing,
            Errno::EACCES | Errno::EPERM => Self::Denied,
            other => Self::Host(other.desc().to_lowercase()),
        }
    }
}

/// Where images are looked up. The walk asks only for paths that its caller permits, with their links followed: a link
/// that is met all the same was put there since, and is an error.
pub trait ImageHost {
    /// What the file at an absolute path is; nothing is opened for reading.
    ///
    /// # Errors
    /// [`OpenError`]: missing, behind a link, or never an image.
    fn stat(&self, path: &str) -> Result<FileInfo, OpenError>;

    /// Opens the file for reading.
    ///
    /// # Errors
    /// [`OpenError`]: missing, behind a link, unreadable, or never an image.
    fn open(&self, path: &str) -> Result<Box<dyn ReadAt>, OpenError>;

    /// Finds a Unix socket at an absolute path: it is connected to, and holds nothing that could be read or written.
    ///
    /// # Errors
    /// [`OpenError`]: missing, behind a link, or anything else.
    fn find_socket(&self, path: &str) -> Result<(), OpenError>;
}

/// The files below a directory that stands for `/`.
///
/// No symbolic link is followed (`openat2(2)`, `RESOLVE_NO_SYMLINKS`): `..` too stays inside. Before Linux 5.6, or where a
/// filter denies that call, the way is gone component by component, and never by `..`.
#[derive(Debug)]
pub struct Files {
    /// None for `/` itself, where every path is what it says.
    root: Option<File>,
}

impl Files {
    /// Takes `root` for `/`.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        if root == Path::new("/") {
            return Ok(Self { root: None });
        }
        Ok(Self { root: Some(File::open(root)?) })
    }

    fn open_with(&self, path: &str, flags: OFlag) -> Result<File, OpenError> {
        if path.contains('\0') {
            return Err(OpenError::Nul(path.to_owned()));
        }
        let flags = flags | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags);
        let without = ResolveFlag::RESOLVE_NO_SYMLINKS;
        let opened = match &self.root {
            None => openat2(AT_FDCWD, path, how.resolve(without)),
            Some(root) => openat2(root.as_fd(), path, how.resolve(without | ResolveFlag::RESOLVE_IN_ROOT)),
        };
        let fd = match opened {
            // Filters of system calls deny by the second what they do not know. Where it means the file, it is said again.
            Err(Errno::ENOSYS | Errno::EPERM) => self.walk(path, flags),
            opened => opened,
        }?;
        Ok(File::from(fd))
    }

    /// The same by `openat(2)` for each component, none of which may be a link, or `..`: a path that was judged has none.
    fn walk(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        const WAY: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);
        let mut names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.contains(&"..") {
            return Err(Errno::ELOOP);
        }
        let last = names.pop().unwrap_or(".");
        let root = match &self.root {
            None => openat(AT_FDCWD, "/", WAY, Mode::empty()),
            Some(root) => openat(root, ".", WAY, Mode::empty()),
        }?;
        let dir = names.into_iter().try_fold(root, |dir, name| open_no_link(&dir, name, WAY))?;
        open_no_link(&dir, last, flags)
    }

    /// What is at an absolute path that goes through no symbolic link, in one question instead of one for each
    /// component; none if it does, or if that cannot be told.
    pub(crate) fn at_end_of(&self, path: &str) -> Option<FileType> {
        Some(self.open_with(path, OFlag::O_PATH).ok()?.metadata().ok()?.file_type())
    }

    fn info(meta: &Metadata) -> Result<FileInfo, OpenError> {
        let kind = meta.file_type();
        if kind.is_dir() {
            Err(OpenError::Directory)
        } else if kind.is_block_device() {
            Ok(FileInfo { kind: FileKind::Block, identity: Identity::Device(meta.rdev()) })
        } else if kind.is_file() {
            Ok(FileInfo { kind: FileKind::Regular, identity: Identity::Inode(meta.dev(), meta.ino()) })
        } else {
            Err(OpenError::NotAnImage)
        }
    }
}

impl ImageHost for Files {
    fn stat(&self, path: &str) -> Result<FileInfo, OpenError> {
        Self::info(&metadata(&self.open_with(path, OFlag::O_PATH)?)?)
    }

    fn open(&self, path: &str) -> Result<Box<dyn ReadAt>, OpenError> {
        // Opening a device node can have effects (a tape rewinds), so the kind is looked at first; and
        // again afterwards, for the path may have changed in between.
        self.stat(path)?;
        let file = self.open_with(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let meta = metadata(&file)?;
        let size = match Self::info(&meta)?.kind {
            FileKind::Regular => meta.len(),
            FileKind::Block => {
                (&file).seek(SeekFrom::End(0)).map_err(|error| OpenError::Host(strip_os_code(&error)))?
            }
        };
        Ok(Box::new(OpenFile { file, size }))
    }

    fn find_socket(&self, path: &str) -> Result<(), OpenError> {
        let kind = metadata(&self.open_with(path, OFlag::O_PATH)?)?.file_type();
        if kind.is_socket() { Ok(()) } else { Err(OpenError::NotASocket) }
    }
}

/// Opens what a directory has by this name, unless it is a link.
fn open_no_link(dir: &OwnedFd, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let opened = openat(dir, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    // Without its content being opened, a link is opened itself.
    let is_link = SFlag::from_bits_truncate(fstat(&opened)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
    if is_link { Err(Errno::ELOOP) } else { Ok(opened) }
}

fn metadata(file: &File) -> Result<Metadata, OpenError> {
    file.metadata().map_err(|error| OpenError::Host(strip_os_code(&error)))
}

struct OpenFile {
    file: File,
    size: u64,
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        // A hostile length costs no memory beyond the file's own.
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        let mut done = 0usize;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(read) => done = done.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
