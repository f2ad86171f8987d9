//! Every file that a compile reads, as one digest: by content, never by time.
//!
//! The parser's own cache goes by file times, and so loads stale policy after a rollback, and by base name, and
//! so loads foreign policy for two files called alike. Here a word that looks like an include is taken for one, and
//! its name for every file that the parser could mean: a file too many in the digest costs a compile, a file too few
//! would be a lie. A name that is not understood refuses the profile.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aa_contract::syntax::parse_rule;
use sha2::{Digest, Sha256};

use crate::lines::{Line, lines, words};
use crate::trust::{Directories, Problem};

/// A digest of contents.
pub(crate) type Sum = [u8; 32];

/// Bytes of one file.
const LARGEST: u64 = 16 << 20;
/// Files of one profile.
const MOST: usize = 10_000;
/// Bytes of a name, which is more than a path can have.
const LONGEST_NAME: usize = 8 << 10;

/// Looks includes up, and remembers what it has read for as long as the file is the same.
#[derive(Debug)]
pub(crate) struct Sources {
    base: PathBuf,
    include: Vec<PathBuf>,
    known: Mutex<HashMap<PathBuf, Arc<Node>>>,
}

/// A path that a compile may read: file, directory, or neither.
#[derive(Debug)]
struct Node {
    stamp: Option<Stamp>,
    content: Sum,
    next: Vec<Next>,
}

/// What a file names, or a directory holds.
#[derive(Debug, Clone)]
struct Next {
    path: PathBuf,
    /// Whether the parser reads it as policy; else it is a text of features.
    is_policy: bool,
}

/// Device, inode, size, times of modification and change in nanoseconds. The time of change cannot be set back.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Sources {
    pub(crate) fn new(base: &Path, include: &[PathBuf]) -> Self {
        Self { base: base.to_owned(), include: include.to_vec(), known: Mutex::default() }
    }

    /// The digest of `file` and of everything that it reaches. Absent files count as absent: the parser will tell.
    ///
    /// # Errors
    /// A file that cannot be read, since nobody knows whether it is still what it was; one that another user can change,
    /// more than a profile can have, or a name that is not understood.
    pub(crate) fn sum(&self, file: &Path) -> Result<Sum, Problem> {
        let mut pending = vec![file.to_owned()];
        if let Some(name) = file.file_name() {
            // These links change what the parser does with a file of this name.
            pending.push(self.base.join("force-complain").join(name));
            pending.push(self.base.join("disable").join(name));
        }
        let pending = pending.into_iter().map(|path| Next { path, is_policy: true }).collect();
        self.sum_of(pending, |path| !is_own(path, file)).map(|(sum, _)| sum)
    }

    /// The same of everything that a text reaches, without the text, and which of it is policy.
    ///
    /// # Errors
    /// As with [`Sources::sum`].
    pub(crate) fn sum_of_text(&self, text: &str) -> Result<(Sum, Vec<PathBuf>), Problem> {
        self.sum_of(self.next(Path::new("a profile"), text.as_bytes())?, |_| true)
    }

    fn sum_of(
        &self,
        mut pending: Vec<Next>,
        shared: impl Fn(&Path) -> bool,
    ) -> Result<(Sum, Vec<PathBuf>), Problem> {
        let mut sum = Sha256::new();
        let mut seen: HashMap<PathBuf, bool> = HashMap::new();
        let mut directories = Directories::default();
        while let Some(Next { path, is_policy }) = pending.pop() {
            let before = seen.get(&path).copied();
            // What was met as a text of features may be policy as well.
            if before.is_some_and(|was_policy| was_policy || !is_policy) {
                continue;
            }
            if seen.len() >= MOST {
                return Err(Problem::new(&path, "more files than a profile can have"));
            }
            let node = self.node(&path, shared(&path), &mut directories)?;
            if before.is_none() {
                let name = path.as_os_str().as_encoded_bytes();
                sum.update((name.len() as u64).to_le_bytes());
                sum.update(name);
                sum.update(node.content);
            }
            let next = node.next.iter().cloned();
            pending.extend(next.map(|next| Next { is_policy: next.is_policy && is_policy, ..next }));
            seen.insert(path, is_policy);
        }
        let policy = seen.into_iter().filter_map(|(path, is_policy)| is_policy.then_some(path)).collect();
        Ok((sum.finalize().into(), policy))
    }

    /// What is at a path; remembered only if another profile may include it too, or memory would grow with each.
    fn node(&self, path: &Path, shared: bool, directories: &mut Directories) -> Result<Arc<Node>, Problem> {
        let stamp = fs::metadata(path)
            .ok()
            .map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()));
        if stamp.is_some() {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(node) = known.get(path).filter(|node| node.stamp == stamp) {
                return Ok(Arc::clone(node));
            }
        }
        let node = Arc::new(self.read(path, stamp, directories)?);
        if shared && stamp.is_some() {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(path.to_owned(), Arc::clone(&node));
        }
        Ok(node)
    }

    fn read(
        &self,
        path: &Path,
        stamp: Option<Stamp>,
        directories: &mut Directories,
    ) -> Result<Node, Problem> {
        let node = |kind: &[u8], content: &[u8], next| {
            let content = Sha256::new().chain_update(kind).chain_update(content).finalize().into();
            Ok(Node { stamp, content, next })
        };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => node(b"none", b"", Vec::new()),
            _ => Err(Problem::of(path)(error)),
        };
        // A device or a pipe in a profile's place must not be waited for; the parser reads nothing from it.
        let metadata = match fs::metadata(path) {
            Err(error) => return failed(error),
            Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
                return node(b"special", b"", Vec::new());
            }
            Ok(metadata) => metadata,
        };
        directories.place(path)?;
        if metadata.is_dir() {
            let mut names: Vec<PathBuf> =
                match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                    Ok(entries) => entries.iter().map(fs::DirEntry::path).collect(),
                    Err(error) => return failed(error),
                };
            names.sort_unstable();
            // The names are part of the digest as paths; directories in it are not entered by the parser.
            names.retain(|name| !name.is_dir());
            let next = names.into_iter().map(|path| Next { path, is_policy: true }).collect();
            return node(b"directory", b"", next);
        }
        let mut bytes = Vec::new();
        match fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)) {
            Err(error) => failed(error),
            Ok(_) if bytes.len() as u64 > LARGEST => {
                Err(Problem::new(path, "a file larger than policy can be"))
            }
            Ok(_) => node(b"file", &bytes, self.next(path, &bytes)?),
        }
    }

    /// What a text, which is at `path`, makes the parser read.
    fn next(&self, path: &Path, text: &[u8]) -> Result<Vec<Next>, Problem> {
        let references = references(text).ok_or_else(|| Problem::new(path, UNKNOWN_NAME))?;
        let next = |Reference { name, is_policy }| {
            self.places(&name).into_iter().map(move |path| Next { path, is_policy })
        };
        Ok(references.into_iter().flat_map(next).collect())
    }

    /// Everywhere that the parser could look for a name: it runs in `/`, and below each directory of the search an
    /// absolute name is as good as any. All of them count: a file that appears in an earlier place takes the place of
    /// one in a later.
    pub(crate) fn places(&self, name: &[u8]) -> Vec<PathBuf> {
        let start = name.iter().position(|byte| *byte != b'/').unwrap_or(name.len());
        let name = OsStr::from_bytes(name.get(start..).unwrap_or_default());
        let directories = std::iter::once(Path::new("/")).chain([self.base.as_path()]);
        directories
            .chain(self.include.iter().map(PathBuf::as_path))
            .map(|directory| directory.join(name))
            .collect()
    }
}

/// What is wrong where [`references`] gives nothing.
const UNKNOWN_NAME: &str = "a name behind \"include\" or \"abi\" that is not understood";

/// Whether a path is of one profile: its file, or what is called after that.
fn is_own(path: &Path, profile: &Path) -> bool {
    let Some(name) = profile.file_name().map(OsStr::as_encoded_bytes) else { return false };
    path.components().any(|component| component.as_os_str().as_encoded_bytes().starts_with(name))
}

/// A name behind a word `include` or `abi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) name: Vec<u8>,
    /// Whether what is there is read as policy.
    pub(crate) is_policy: bool,
}

/// The names behind every word `include` or `abi`, also where only the parser's lexer would find it; several for one
/// word where it is not certain how long the name is. `None` if a name may mean another than it spells.
pub(crate) fn references(bytes: &[u8]) -> Option<Vec<Reference>> {
    let text = lines(bytes).into_iter().filter(|line| !is_rule(line)).fold(Vec::new(), |mut text, line| {
        text.extend(line.text);
        text.push(b'\n');
        text
    });
    let mut references = Vec::new();
    for (keyword, is_policy) in [(b"include".as_slice(), true), (b"abi", false)] {
        for at in words(&text, keyword) {
            let after = skip_space(text.get(at + keyword.len()..)?);
            let mut names = names(after)?;
            let optional =
                after.strip_prefix(b"if").map(skip_space).and_then(|rest| rest.strip_prefix(b"exists"));
            if let Some(rest) = optional {
                names.extend(self::names(skip_space(rest))?);
            }
            references.extend(names.into_iter().map(|name| Reference { name: name.to_vec(), is_policy }));
        }
    }
    Some(references)
}

/// Whether a line is one rule as this project writes them: words in its path are no keywords, whoever chose it.
fn is_rule(line: &Line<'_>) -> bool {
    line.begins && std::str::from_utf8(line.text).is_ok_and(|text| parse_rule(text).is_ok())
}

/// The names that a text may begin with: in brackets, in quotes, in both, or in neither.
fn names(text: &[u8]) -> Option<Vec<&[u8]>> {
    let within = |text: &'_ [u8], end: u8| text.iter().position(|byte| *byte == end);
    let found = match text {
        [b'<', b'"', rest @ ..] | [b'"', rest @ ..] => {
            vec![rest.get(..within(rest, b'"').unwrap_or(rest.len()))?]
        }
        [b'<', rest @ ..] => {
            let name = rest.get(..within(rest, b'>').unwrap_or(rest.len()))?;
            vec![name, trim_space(name)]
        }
        _ => {
            let end = text.iter().position(|byte| b" \t\r\n\"!<>".contains(byte)).unwrap_or(text.len());
            let name = text.get(..end)?;
            // A comma in it belongs to it if a letter follows.
            let comma = |at: &usize| name.get(*at) == Some(&b',');
            let first = (0..end).find(comma).unwrap_or(end);
            let last = (0..end).find(|at| comma(at) && (at + 1 == end || comma(&(at + 1)))).unwrap_or(end);
            vec![name.get(..first)?, name.get(..last)?]
        }
    };
    // Escapes mean other letters, and a NUL ends a name.
    if found.iter().any(|name| name.len() > LONGEST_NAME || name.iter().any(|byte| b"\\\0".contains(byte))) {
        return None;
    }
    Some(found.into_iter().filter(|name| !name.is_empty()).collect())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn skip_space(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

fn trim_space(text: &[u8]) -> &[u8] {
    let text = skip_space(text);
    let end = text.iter().rposition(|byte| !is_space(*byte)).map_or(0, |at| at + 1);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// What the names of a text are.
    fn found(text: &[u8]) -> Option<Vec<String>> {
        let name = |reference: Reference| String::from_utf8_lossy(&reference.name).into_owned();
        Some(references(text)?.into_iter().map(name).collect())
    }

    #[test]
    fn every_spelling_of_an_include_is_seen() {
        for (text, name) in [
            ("#include <a/1>", "a/1"),
            ("include <a/2>", "a/2"),
            ("  include if exists <a/3>", "a/3"),
            ("#include if exists \"a/4\"", "a/4"),
            ("include a/5", "a/5"),
            ("abi <abi/3.0>,", "abi/3.0"),
            ("abi/s/x,", "/s/x"),
            ("abi\"s\",", "s"),
            ("/x r, include <a/6>", "a/6"),
            ("\"/x\"include <a/7>", "a/7"),
            ("include  \"/abs/8\"", "/abs/8"),
            ("include /p/a,b", "/p/a,b"),
            ("include /p/a,b,", "/p/a,b"),
            ("include \"/p/ x \"", "/p/ x "),
            ("include < \x0bs/q >", "s/q"),
            ("include <\"s/q \">", "s/q "),
            ("include <\"a>b\">", "a>b"),
            ("include \"a\nb\"", "a\nb"),
            ("include\n\n <a/9>", "a/9"),
            ("#include/rel/x", "/rel/x"),
            ("#includefoo", "foo"),
            ("include if\nexists \"/s/a\"", "if"),
            ("signal (send)\n# x, include <a/10>", "a/10"),
            ("\"/a\n# \" r, include <a/11>", "a/11"),
        ] {
            let names = found(format!("{text}\n").as_bytes()).unwrap();
            assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
        }
        let bytes = references(b"\xff\xfe\ninclude \"/\xff\"\n").unwrap();
        assert_eq!(bytes, [Reference { name: b"/\xff".to_vec(), is_policy: true }]);
    }

    #[test]
    fn a_name_that_may_mean_another_is_none() {
        for text in ["include \"/s/\\141b\"", "include /s/a\\ b", "abi </s/\\x>,", "include a\0b"] {
            assert!(found(text.as_bytes()).is_none(), "{text}");
        }
        assert!(found(format!("include \"{}\"", "a".repeat(LONGEST_NAME + 1)).as_bytes()).is_none());
    }

    #[test]
    fn words_of_comments_and_of_paths_are_no_includes() {
        for text in [
            "# a word: include tmp, abi tmp\n",
            "/usr/include/tmp r,\n/usr/lib/libabi.so r,\n",
            "\"/srv/what I include \\\"/proc/kmsg\\\" \\{x\\}\" rwk,\n",
            "/a r, # include tmp\n",
        ] {
            assert_eq!(found(text.as_bytes()).unwrap(), [""; 0], "{text}");
        }
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
        fn sources(&self) -> Sources {
            Sources::new(&self.path("base"), &[self.path("more")])
        }
    }

    #[test]
    fn each_change_changes_the_sum_and_its_undoing_brings_it_back() {
        let tree = Tree::new();
        // One that remembers, and a fresh one each time: they must agree.
        let sources = tree.sources();
        let sum = || {
            let sum = sources.sum(&tree.profile).unwrap();
            assert_eq!(sum, tree.sources().sum(&tree.profile).unwrap());
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
        let sources = tree.sources();
        let before = sources.sum(&tree.profile).unwrap();
        let include = tree.path("base/a/2");
        let times = fs::metadata(&include).unwrap().modified().unwrap();
        // Not within one tick of the clock that stamps files.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&include, "include <a/1>\n/oth r,\n").unwrap();
        fs::File::options().write(true).open(&include).unwrap().set_modified(times).unwrap();
        assert_eq!(fs::metadata(&include).unwrap().modified().unwrap(), times);
        assert_ne!(sources.sum(&tree.profile).unwrap(), before);
    }

    #[test]
    fn only_what_profiles_share_is_remembered() {
        let tree = Tree::new();
        let sources = tree.sources();
        let known =
            || sources.known.lock().unwrap().keys().cloned().collect::<std::collections::HashSet<_>>();
        sources.sum(&tree.profile).unwrap();
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
            let before = sources.sum(&tree.path(&name)).unwrap();
            fs::write(tree.path(&format!("{name}.files")), "/g r,\n").unwrap();
            assert_ne!(sources.sum(&tree.path(&name)).unwrap(), before);
        }
        assert_eq!(known(), shared);
    }

    #[test]
    fn equal_base_names_in_two_directories_are_two() {
        let tree = Tree::new();
        fs::copy(&tree.profile, tree.path("more/p")).unwrap();
        let sum = |path: &Path| tree.sources().sum(path).unwrap();
        assert_ne!(sum(&tree.profile), sum(&tree.path("more/p")));
    }

    #[test]
    fn what_cannot_be_read_is_not_what_is_absent() {
        let tree = Tree::new();
        let first = tree.sources().sum(&tree.profile).unwrap();
        let opt = tree.path("base/a/opt");
        symlink("opt", &opt).unwrap();
        assert!(tree.sources().sum(&tree.profile).unwrap_err().path.ends_with("base/a/opt"));
        fs::remove_file(&opt).unwrap();
        // The twins: nothing is there, by name or because what is above it is a file.
        symlink("none", &opt).unwrap();
        assert_eq!(tree.sources().sum(&tree.profile).unwrap(), first);
        fs::remove_file(&opt).unwrap();
        fs::remove_dir_all(tree.path("more/a")).unwrap();
        fs::write(tree.path("more/a"), "").unwrap();
        assert_eq!(tree.sources().sum(&tree.profile).unwrap(), first);
    }

    #[test]
    fn what_is_no_file_neither_hangs_nor_passes_for_one() {
        let tree = Tree::new();
        let before = tree.sources().sum(&tree.profile).unwrap();
        nix::unistd::mkfifo(&tree.path("base/a/opt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_ne!(tree.sources().sum(&tree.profile).unwrap(), before);
    }

    #[test]
    fn a_name_stands_for_each_place_where_the_parser_may_look() {
        let tree = Tree::new();
        let places = |name: &[u8]| tree.sources().places(name);
        let below = |name: &str| {
            vec![Path::new("/").join(name), tree.path("base").join(name), tree.path("more").join(name)]
        };
        assert_eq!(places(b"s/a"), below("s/a"));
        assert_eq!(places(b"/s/a"), below("s/a"));
        assert_eq!(places(b"//s/a"), below("s/a"));
    }

    #[test]
    fn what_only_an_abi_names_is_no_policy() {
        let tree = Tree::new();
        fs::create_dir(tree.path("base/abi")).unwrap();
        fs::write(tree.path("base/abi/3.0"), "features").unwrap();
        let policy =
            |text: &str| tree.sources().sum_of_text(text).unwrap().1.contains(&tree.path("base/abi/3.0"));
        assert!(!policy("abi <abi/3.0>,\n"));
        assert!(policy("include <abi/3.0>\n"));
        assert!(
            policy("abi <abi/3.0>,\ninclude <abi/3.0>\n") && policy("include <abi/3.0>\nabi <abi/3.0>,\n")
        );
    }
}
