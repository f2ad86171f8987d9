//! The host as deriving sees it: real paths, directory entries, small text files. The only input
//! and output besides the command line, and all of it reads.

use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use std::os::unix::fs::FileTypeExt;

use aa_contract::LiteralPath;
use aa_contract::path::{MAX_PATH, PathError};

use crate::image;

/// How many symbolic links one path may go through, as in the kernel (`path_resolution(7)`).
const MAX_LINKS: usize = 40;
/// Attribute files in sysfs are at most a page; the list of mounts has some hundred bytes for each of at most 100,000 mounts
/// (`fs.mount-max`), or a thousand for one of a container's.
const MAX_TEXT: u64 = 128 << 20;

/// What a path turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are stat's own words")]
pub enum Kind {
    Missing,
    File,
    Directory,
    Block,
    Character,
    Fifo,
    Socket,
}

/// A path with its symbolic links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path that the kernel would see: absolute and normal; where a component does not exist,
    /// the rest stays as it was written.
    pub path: String,
    /// What is there.
    pub kind: Kind,
}

/// Questions to the host. Every answer is about the tree below the root that was given.
pub trait Host: std::fmt::Debug {
    /// Follows the symbolic links of an absolute path as far as it exists.
    ///
    /// # Errors
    /// Too many links, a name that is not UTF-8, or a path that is longer than Linux takes.
    fn resolve(&self, path: &str) -> io::Result<Resolved>;

    /// Names in a directory, sorted; empty if it cannot be read to its end. What is not UTF-8 is left out.
    fn entries(&self, dir: &str) -> Vec<String>;

    /// A text file of the kernel's, without white space at its end; none if it cannot be read, or has more than 128 MiB:
    /// never a part of it. What is not UTF-8 in it are replacement characters.
    fn text(&self, path: &str) -> Option<String>;
}

/// The real host, or the tree below a directory that stands for it.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    images: image::Files,
}

impl Files {
    /// The host as seen with `root` for `/`.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        Ok(Self { images: image::Files::new(root.clone())?, root })
    }

    /// The same tree as the reader of image headers sees it.
    pub fn images(&self) -> &image::Files {
        &self.images
    }

    /// Where a resolved path of the guest's host lies on ours.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Host for Files {
    fn resolve(&self, path: &str) -> io::Result<Resolved> {
        let fits = |path: &str| match path.len() {
            0..=MAX_PATH => Ok(()),
            length => Err(io::Error::other(PathError::TooLong(length))),
        };
        fits(path)?;
        // Most paths are as the kernel sees them.
        let is_normal = !path.ends_with('/') && LiteralPath::new(path).is_ok();
        if let Some(file_type) = is_normal.then(|| self.images.at_end_of(path)).flatten() {
            return Ok(Resolved { path: path.to_owned(), kind: kind_of(file_type) });
        }
        let mut done = String::new();
        let mut rest: Vec<String> = parts(Path::new(path))?;
        let mut links = 0;
        let mut kind = Kind::Directory;
        let mut exists = true;
        while let Some(part) = rest.pop() {
            if part == ".." {
                // `..` of the root is the root; behind a component that is missing it is textual.
                done.truncate(done.rfind('/').unwrap_or(0));
                kind = Kind::Directory;
                continue;
            }
            let next = format!("{done}/{part}");
            fits(&next)?;
            let metadata = if exists {
                fs::symlink_metadata(self.outside(&next))
            } else {
                Err(io::ErrorKind::NotFound.into())
            };
            match metadata {
                Ok(metadata) if metadata.is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    let target = fs::read_link(self.outside(&next))?;
                    if target.is_absolute() {
                        done.clear();
                    }
                    rest.extend(parts(&target)?);
                    kind = Kind::Directory;
                    continue;
                }
                Ok(metadata) => kind = kind_of(metadata.file_type()),
                Err(_) => {
                    exists = false;
                    kind = Kind::Missing;
                }
            }
            done = next;
        }
        if done.is_empty() {
            done.push('/');
        }
        Ok(Resolved { path: done, kind })
    }

    fn entries(&self, dir: &str) -> Vec<String> {
        let Ok(resolved) = self.resolve(dir) else { return Vec::new() };
        let Ok(entries) = fs::read_dir(self.outside(&resolved.path)) else { return Vec::new() };
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
        let mut names: Vec<String> =
            names.unwrap_or_default().into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    fn text(&self, path: &str) -> Option<String> {
        let resolved = self.resolve(path).ok()?;
        if resolved.kind != Kind::File {
            return None;
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(self.outside(&resolved.path)).ok()?;
        let read = file.take(MAX_TEXT.saturating_add(1)).read_to_end(&mut bytes).ok()?;
        let is_whole = u64::try_from(read).is_ok_and(|read| read <= MAX_TEXT);
        is_whole.then(|| String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned())
    }
}

fn kind_of(file_type: fs::FileType) -> Kind {
    if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_block_device() {
        Kind::Block
    } else if file_type.is_char_device() {
        Kind::Character
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        Kind::File
    }
}

/// The components of a path, last first; `.` and empty ones left out.
fn parts(path: &Path) -> io::Result<Vec<String>> {
    let mut parts = Vec::new();
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => {
                let name = name
                    .to_str()
                    .ok_or_else(|| io::Error::other("a symbolic link leads to a name that is not UTF-8"))?;
                parts.push(name.to_owned());
            }
            Component::ParentDir => parts.push("..".to_owned()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_below_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("srv/real")).unwrap();
        fs::write(root.join("srv/real/a"), "text\n").unwrap();
        symlink("/srv/real", root.join("images")).unwrap();
        symlink("../../../../etc/passwd", root.join("srv/up")).unwrap();
        symlink("nothing/here", root.join("srv/dangling")).unwrap();
        symlink("loop", root.join("srv/loop")).unwrap();
        let host = Files::new(root).unwrap();
        let resolve = |path: &str| host.resolve(path).map(|r| (r.path, r.kind)).map_err(|e| e.to_string());
        assert_eq!(resolve("/images/a"), Ok(("/srv/real/a".into(), Kind::File)));
        assert_eq!(resolve("//images/./../real//a"), Ok(("/srv/real/a".into(), Kind::File)));
        assert_eq!(resolve("/images/../images/a"), Ok(("/srv/images/a".into(), Kind::Missing)));
        assert_eq!(resolve("/srv/up"), Ok(("/etc/passwd".into(), Kind::Missing)));
        assert_eq!(resolve("/srv/dangling"), Ok(("/srv/nothing/here".into(), Kind::Missing)));
        assert_eq!(resolve("/nonexist/../etc/shadow"), Ok(("/etc/shadow".into(), Kind::Missing)));
        assert_eq!(resolve("/.."), Ok(("/".into(), Kind::Directory)));
        assert!(resolve("/srv/loop").is_err());
        assert!(resolve(&format!("/srv{}", "/a".repeat(2045))).is_ok());
        assert!(resolve(&format!("/srv{}", "/a".repeat(2046))).is_err());
        symlink(format!("/srv/real{}", "/b".repeat(1000)), root.join("srv/long")).unwrap();
        assert!(resolve(&format!("/srv/long{}", "/a".repeat(1000))).is_ok());
        assert!(resolve(&format!("/srv/long{}", "/a".repeat(1100))).is_err());
        assert_eq!(host.text("/images/a").as_deref(), Some("text"));
        // A file without a byte in it, so that nothing is written for its length.
        let sparse = fs::File::create(root.join("srv/real/b")).unwrap();
        for (length, is_read) in [(1 << 20 | 1, true), (MAX_TEXT + 1, false)] {
            sparse.set_len(length).unwrap();
            assert_eq!(host.text("/images/b").is_some(), is_read, "{length}");
        }
        fs::remove_file(root.join("srv/real/b")).unwrap();
        assert_eq!(host.entries("/srv"), ["dangling", "long", "loop", "real", "up"]);
        // What the link means to this process is its own root's.
        symlink("/", root.join("srv/real/root")).unwrap();
        symlink("/proc", root.join("outside")).unwrap();
        assert_eq!(host.entries("/images"), ["a", "root"]);
        assert_eq!(host.entries("/srv/real/root/images"), ["a", "root"]);
        assert!(host.entries("/outside").is_empty() && host.entries("/srv/loop").is_empty());
    }
}
