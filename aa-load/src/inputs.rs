//! Every file that a compile reads, as one digest: by content, never by time.
//!
//! The parser's own cache goes by file times, and so loads stale policy after a rollback, and by base name, and
//! so loads foreign policy for two files called alike. Here a word that looks like an include is taken for one:
//! a file too many in the digest costs a compile, a file too few would be a lie.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// A digest of contents.
pub(crate) type Sum = [u8; 32];

/// Bytes of one file.
const LARGEST: u64 = 16 << 20;
/// Files of one profile.
const MOST: usize = 10_000;

/// Looks includes up, and remembers what it has read for as long as the file is the same.
#[derive(Debug)]
pub(crate) struct Inputs {
    base: PathBuf,
    include: Vec<PathBuf>,
    known: Mutex<HashMap<PathBuf, Arc<Node>>>,
}

/// A path that a compile may read: file, directory, or neither.
#[derive(Debug)]
struct Node {
    stamp: Option<Stamp>,
    content: Sum,
    /// What it includes, or what the directory holds.
    next: Vec<PathBuf>,
}

/// Device, inode, size, times of modification and change in nanoseconds. The time of change cannot be set back.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Inputs {
    pub(crate) fn new(base: &Path, include: &[PathBuf]) -> Self {
        Self { base: base.to_owned(), include: include.to_vec(), known: Mutex::default() }
    }

    /// The digest of `file` and of everything that it reaches. Absent files count as absent, and unreadable ones as
    /// unreadable: the parser will tell. `None` if there is more than a profile can have.
    pub(crate) fn sum(&self, file: &Path) -> Option<Sum> {
        let mut pending = vec![file.to_owned()];
        if let Some(name) = file.file_name() {
            // These links change what the parser does with a file of this name.
            pending.push(self.base.join("force-complain").join(name));
            pending.push(self.base.join("disable").join(name));
        }
        self.sum_of(pending, |path| !is_own(path, file)).map(|(sum, _)| sum)
    }

    /// The same of everything that a text reaches, without the text, and where that is.
    pub(crate) fn sum_of_text(&self, text: &str) -> Option<(Sum, Vec<PathBuf>)> {
        let pending = references(text.as_bytes()).into_iter().flat_map(|name| self.places(&name)).collect();
        self.sum_of(pending, |_| true)
    }

    fn sum_of(
        &self,
        mut pending: Vec<PathBuf>,
        shared: impl Fn(&Path) -> bool,
    ) -> Option<(Sum, Vec<PathBuf>)> {
        let mut sum = Sha256::new();
        let mut seen: HashSet<PathBuf> = HashSet::new();
        while let Some(path) = pending.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            if seen.len() > MOST {
                return None;
            }
            let node = self.node(&path, shared(&path))?;
            let name = path.as_os_str().as_encoded_bytes();
            sum.update((name.len() as u64).to_le_bytes());
            sum.update(name);
            sum.update(node.content);
            pending.extend(node.next.iter().cloned());
        }
        Some((sum.finalize().into(), seen.into_iter().collect()))
    }

    /// What is at a path; remembered only if another profile may include it too, or memory would grow with each.
    fn node(&self, path: &Path, shared: bool) -> Option<Arc<Node>> {
        let stamp = fs::metadata(path)
            .ok()
            .map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()));
        if stamp.is_some() {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(node) = known.get(path).filter(|node| node.stamp == stamp) {
                return Some(Arc::clone(node));
            }
        }
        let node = Arc::new(self.read(path, stamp)?);
        if shared && stamp.is_some() {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(path.to_owned(), Arc::clone(&node));
        }
        Some(node)
    }

    fn read(&self, path: &Path, stamp: Option<Stamp>) -> Option<Node> {
        let node = |kind: &[u8], content: &[u8], next| {
            let content = Sha256::new().chain_update(kind).chain_update(content).finalize().into();
            Some(Node { stamp, content, next })
        };
        let failed = |error: &io::Error| node(b"none ", format!("{:?}", error.kind()).as_bytes(), Vec::new());
        // A device or a pipe in a profile's place must not be waited for.
        match fs::metadata(path) {
            Err(error) => return failed(&error),
            Ok(metadata) if metadata.is_dir() => {
                let mut names: Vec<PathBuf> =
                    match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                        Ok(entries) => entries.iter().map(fs::DirEntry::path).collect(),
                        Err(error) => return failed(&error),
                    };
                names.sort_unstable();
                // The names are part of the digest as paths; directories in it are not entered by the parser.
                names.retain(|name| !name.is_dir());
                return node(b"directory", b"", names);
            }
            Ok(metadata) if !metadata.is_file() => return node(b"special", b"", Vec::new()),
            Ok(_) => {}
        }
        let mut bytes = Vec::new();
        match fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)) {
            Err(error) => failed(&error),
            Ok(_) if bytes.len() as u64 > LARGEST => None,
            Ok(_) => {
                let next = references(&bytes).into_iter().flat_map(|name| self.places(&name)).collect();
                node(b"file", &bytes, next)
            }
        }
    }

    /// Everywhere that an included name could be found. All of them count: a file that appears in an earlier place
    /// takes the place of one in a later.
    pub(crate) fn places(&self, name: &str) -> Vec<PathBuf> {
        if name.starts_with('/') {
            return vec![PathBuf::from(name)];
        }
        std::iter::once(&self.base).chain(&self.include).map(|directory| directory.join(name)).collect()
    }
}

/// Whether a path is of one profile: its file, or what is called after that.
fn is_own(path: &Path, profile: &Path) -> bool {
    let Some(name) = profile.file_name().map(OsStr::as_encoded_bytes) else { return false };
    path.components().any(|component| component.as_os_str().as_encoded_bytes().starts_with(name))
}

/// The names behind every word `include` or `abi`, in comments too: to the parser, `#include` is no comment.
pub(crate) fn references(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut names = Vec::new();
    for keyword in ["include", "abi"] {
        for (at, _) in text.match_indices(keyword) {
            let Some(after) = text.get(at + keyword.len()..) else { continue };
            let mut rest = after.trim_start();
            if let Some(conditional) = rest.strip_prefix("if").map(str::trim_start)
                && let Some(target) = conditional.strip_prefix("exists")
            {
                rest = target.trim_start();
            }
            let name = if let Some(rest) = rest.strip_prefix('<') {
                rest.split(['>', '\n']).next()
            } else if let Some(rest) = rest.strip_prefix('"') {
                rest.split(['"', '\n']).next()
            } else if rest.len() < after.len() {
                rest.split(|c: char| c.is_whitespace() || c == ',').next()
            } else {
                None
            };
            // A name ends in a comma where it is a rule; the quotes and brackets do not belong to it.
            if let Some(name) = name.map(str::trim).filter(|name| !name.is_empty() && !name.contains('\0')) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_spelling_of_an_include_is_seen() {
        let text = "#include <a/1>\ninclude <a/2>\n  include if exists <a/3>\n#include if exists \"a/4\"\n\
                    include a/5\nabi <abi/3.0>,\n/x r, include <a/6>\ninclude  \"/abs/7\"\n# a word: includes x\n";
        let names = references(text.as_bytes());
        for name in ["a/1", "a/2", "a/3", "a/4", "a/5", "abi/3.0", "a/6", "/abs/7"] {
            assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
        }
        assert!(references(b"/usr/lib/libabi.so r,").iter().all(|name| name != "/usr/lib/libabi.so"));
        assert!(references(b"\xff\xfe include").is_empty());
    }

    struct Tree {
        dir: tempfile::TempDir,
        profile: PathBuf,
    }

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for sub in ["base/a", "base/local.d", "more/a", "base/disable", "base/force-complain"] {
                fs::create_dir_all(dir.path().join(sub)).unwrap();
            }
            let profile = dir.path().join("p");
            fs::write(
                &profile,
                "profile x {\n #include <a/1>\n include if exists <a/opt>\n include <local.d>\n}\n",
            )
            .unwrap();
            fs::write(dir.path().join("base/a/1"), "include <a/2>\n/one r,\n").unwrap();
            fs::write(dir.path().join("base/a/2"), "include <a/1>\n/two r,\n").unwrap();
            Self { dir, profile }
        }
        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }
        fn inputs(&self) -> Inputs {
            Inputs::new(&self.path("base"), &[self.path("more")])
        }
    }

    #[test]
    fn each_change_changes_the_sum_and_its_undoing_brings_it_back() {
        let tree = Tree::new();
        // One that remembers, and a fresh one each time: they must agree.
        let inputs = tree.inputs();
        let sum = || {
            let sum = inputs.sum(&tree.profile).unwrap();
            assert_eq!(Some(sum), tree.inputs().sum(&tree.profile));
            sum
        };
        let first = sum();
        let changed = |what: &str, act: &dyn Fn(), undo: &dyn Fn()| {
            act();
            assert_ne!(sum(), first, "{what}");
            undo();
            assert_eq!(sum(), first, "{what} undone");
        };
        let write = |name: &str, text: &str| fs::write(tree.path(name), text).unwrap();
        let remove = |name: &str| fs::remove_file(tree.path(name)).unwrap();
        changed("an include of an include", &|| write("base/a/2", "include <a/1>\n/twO r,\n"), &|| {
            write("base/a/2", "include <a/1>\n/two r,\n");
        });
        changed("an optional include appears", &|| write("base/a/opt", ""), &|| remove("base/a/opt"));
        changed("a file in an included directory", &|| write("base/local.d/x", "/x r,"), &|| {
            remove("base/local.d/x");
        });
        changed("a file in another place of the search", &|| write("more/a/1", ""), &|| remove("more/a/1"));
        changed("switched off", &|| symlink(&tree.profile, tree.path("base/disable/p")).unwrap(), &|| {
            remove("base/disable/p");
        });
        changed(
            "complain by link",
            &|| symlink(&tree.profile, tree.path("base/force-complain/p")).unwrap(),
            &|| {
                remove("base/force-complain/p");
            },
        );
    }

    #[test]
    fn an_older_date_and_the_same_size_hide_nothing() {
        let tree = Tree::new();
        let inputs = tree.inputs();
        let before = inputs.sum(&tree.profile);
        let include = tree.path("base/a/2");
        let times = fs::metadata(&include).unwrap().modified().unwrap();
        // Not within one tick of the clock that stamps files.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&include, "include <a/1>\n/oth r,\n").unwrap();
        fs::File::options().write(true).open(&include).unwrap().set_modified(times).unwrap();
        assert_eq!(fs::metadata(&include).unwrap().modified().unwrap(), times);
        assert_ne!(inputs.sum(&tree.profile), before);
    }

    #[test]
    fn only_what_profiles_share_is_remembered() {
        let tree = Tree::new();
        let inputs = tree.inputs();
        let known = || inputs.known.lock().unwrap().keys().cloned().collect::<HashSet<_>>();
        inputs.sum(&tree.profile).unwrap();
        let shared = known();
        assert!(shared.contains(&tree.path("base/a/1")), "{shared:?}");
        for number in 0..10 {
            let name = format!("libvirt-{number}");
            let text = format!(
                "profile x {{\n include <a/1>\n include \"{}\"\n}}\n",
                tree.path(&format!("{name}.files")).display()
            );
            for (file, text) in [(name.clone(), text), (format!("{name}.files"), "/f r,\n".into())] {
                fs::write(tree.path(&file), text).unwrap();
            }
            let before = inputs.sum(&tree.path(&name)).unwrap();
            fs::write(tree.path(&format!("{name}.files")), "/g r,\n").unwrap();
            assert_ne!(inputs.sum(&tree.path(&name)).unwrap(), before);
        }
        assert_eq!(known(), shared);
    }

    #[test]
    fn equal_base_names_in_two_directories_are_two() {
        let tree = Tree::new();
        fs::copy(&tree.profile, tree.path("more/p")).unwrap();
        assert_ne!(tree.inputs().sum(&tree.profile), tree.inputs().sum(&tree.path("more/p")));
    }

    #[test]
    fn what_is_no_file_neither_hangs_nor_passes_for_one() {
        let tree = Tree::new();
        let before = tree.inputs().sum(&tree.profile);
        nix::unistd::mkfifo(&tree.path("base/a/opt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_ne!(tree.inputs().sum(&tree.profile), before);
    }
}
