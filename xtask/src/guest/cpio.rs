//! Archives in cpio's «newc» format, which Linux unpacks as its first root file system
//! (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Permissions and owner of an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    /// Permission bits, with set-user-ID and the like.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u32,
}

impl Attributes {
    /// Root's, with these permission bits.
    pub(crate) fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0 }
    }
}

/// Writes one archive; the kernel unpacks several, one after the other, and later entries win.
#[derive(Debug)]
pub(crate) struct Writer<W: Write> {
    out: W,
    inode: u32,
    directories: HashSet<String>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, inode: 0, directories: HashSet::new() }
    }

    /// A directory, with the parents it needs. The first entry for a directory stays.
    pub(crate) fn directory(&mut self, path: &str, attributes: Attributes) -> io::Result<()> {
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY, attributes, b"")
    }

    /// A regular file.
    pub(crate) fn file(&mut self, path: &str, attributes: Attributes, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, REGULAR, attributes, content)
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, SYMLINK, Attributes::root(0o777), target.as_bytes())
    }

    /// Ends the archive and gives back what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, Attributes::root(0), b"")?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// The kernel makes no directory by itself.
    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent, Attributes::root(0o755)),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, kind: u32, attributes: Attributes, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, path.to_owned()))?;
        let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        self.inode += 1;
        let fields = [
            self.inode,
            kind | attributes.mode,
            attributes.uid,
            attributes.gid,
            1, // links
            attributes.mtime,
            size,
            0, // device of the file system
            0,
            0, // device number
            0,
            name_size,
            0, // checksum, not used by newc
        ];
        let mut header = String::from("070701");
        for field in fields {
            write!(header, "{field:08X}").map_err(io::Error::other)?;
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(header.len() + path.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Header with name, and content, each end at a multiple of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        let zeros: &[u8] = match written % 4 {
            1 => b"\0\0\0",
            2 => b"\0\0",
            3 => b"\0",
            _ => b"",
        };
        self.out.write_all(zeros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_have_their_parents() {
        let mut archive = Writer::new(Vec::new());
        archive.file("a/b/c", Attributes::root(0o644), b"hello").unwrap();
        archive.symlink("a/l", "b/c").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut names = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(header) = rest.get(..110) {
            assert_eq!(&header[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let name = &rest[110..110 + field(11) - 1];
            names.push(String::from_utf8(name.to_vec()).unwrap());
            let content = (110 + field(11)).next_multiple_of(4);
            rest = &rest[content + field(6).next_multiple_of(4)..];
        }
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/l", "TRAILER!!!"]);
    }
}
