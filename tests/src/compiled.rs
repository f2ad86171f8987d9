//! Compiles profiles with the real parser, and reads the file rules out of what it compiled, as the kernel would
//! walk them.
//!
//! The container is AppArmor's tagged stream, the automaton a compressed table in flex's layout
//! (AppArmor's `parser/libapparmor_re`, the kernel's `security/apparmor/match.c`). Only the form that
//! goes with the pinned features is read: permissions in the accept words, no difference encoding.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::process::Command;

/// In the automaton of the other rules: where those for mounts begin, and the permission to make one.
const MOUNT_CLASS: u8 = 7;
const MAY_MOUNT: u32 = 0x2;
/// Permission bits of an accept word.
pub const WRITE: u32 = 0x2;
/// As [`WRITE`].
pub const READ: u32 = 0x4;
/// The letters of the permission bits, from right to left.
pub const LETTERS: [char; 7] = ['x', 'w', 'r', 'a', 'l', 'k', 'm'];
/// How a program is executed, above the permission bits.
const EXEC_KIND: u32 = 0x3f80;
const MAGIC: u32 = 0x1B5E_783D;
/// Where includes in `<>` are looked for.
pub const BASE: &str = "/etc/apparmor.d";
/// More words than any profile here has rules.
const MANY: usize = 100_000;

/// The parser, which looks below `base` for includes and loads nothing; the features are those that Debian
/// pins, and none of this host's configuration counts.
pub fn parser(base: &Path) -> Command {
    let mut command = Command::new("apparmor_parser");
    command
        .env("PATH", "/usr/sbin:/sbin")
        .args(["-QTK", "--config-file", "/dev/null", "-M", "/usr/share/apparmor-features/features", "--base"])
        .arg(base);
    command
}

/// Compiles a profile.
///
/// # Errors
/// What the parser says.
///
/// # Panics
/// There is no parser.
pub fn compile(file: &Path) -> Result<Vec<u8>, String> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let output = parser(Path::new(BASE)).arg("-o").arg(out.path()).arg(file).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(fs::read(out.path()).unwrap()) } else { Err(err) }
}

/// The same for a text.
///
/// # Errors
/// What the parser says.
///
/// # Panics
/// There is no parser.
pub fn compile_text(text: impl AsRef<[u8]>) -> Result<Vec<u8>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    compile(file.path())
}

/// A compiled profile and the profiles inside it, each by itself.
pub fn profiles(compiled: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = heads(compiled).chain([compiled.len()]).collect();
    starts.windows(2).map(|pair| &compiled[pair[0]..pair[1]]).collect()
}

/// One of [`profiles`] without the automaton of its file rules: its name and flags, its capabilities, its rules for networks, mounts,
/// signals and the rest.
///
/// # Panics
/// It is none in the form that is read here.
pub fn beside_files(compiled: &[u8]) -> Vec<u8> {
    let (name, start) = file_automaton(compiled);
    let size = number(compiled, start + 8, 4) as usize;
    [&compiled[..name], &compiled[start + size..]].concat()
}

/// Where each profile of a stream begins.
fn heads(compiled: &[u8]) -> impl Iterator<Item = usize> {
    let head = b"\x04\x08\0version\0";
    compiled.windows(head.len()).enumerate().filter(move |(_, window)| window == head).map(|(at, _)| at)
}

/// Where the automaton of a profile's file rules is: its name in the stream, and its head. It is the last of the profile;
/// profiles inside it are left out.
fn file_automaton(compiled: &[u8]) -> (usize, usize) {
    let end = heads(compiled).nth(1).unwrap_or(compiled.len());
    let compiled = &compiled[..end];
    let name = b"aadfa\0";
    let at = compiled.windows(name.len()).rposition(|window| window == name).unwrap();
    let magic = MAGIC.to_be_bytes();
    (at, at + compiled[at..].windows(4).position(|window| window == magic).unwrap())
}

/// Whether a compiled profile allows mount(2) on `target`, with `flags` as that call takes them; a bind mount has no type, a remount
/// no source either. It is matched as by the kernel's `security/apparmor/mount.c`, but for a file system's own options.
///
/// # Panics
/// It has no rules but those of files, or is none in the form that is read here.
pub fn allows_mount(compiled: &[u8], target: &str, source: &str, kind: &str, flags: u32) -> bool {
    let name = b"policydb\0";
    let at = compiled.windows(name.len()).position(|window| window == name).unwrap();
    let magic = MAGIC.to_be_bytes();
    let start = at + compiled[at..].windows(4).position(|window| window == magic).unwrap();
    let rules = FileDfa::read(&compiled[start..]);
    let flags = (0..32).filter(|bit| flags >> bit & 1 != 0).map(|bit| bit + 1);
    let text =
        [&[MOUNT_CLASS], target.as_bytes(), &[0], source.as_bytes(), &[0], kind.as_bytes(), &[0]].concat();
    rules.accepted(&text.into_iter().chain(flags).collect::<Vec<_>>()) & MAY_MOUNT != 0
}

/// A number of so many bytes, as an automaton has it.
fn number(blob: &[u8], at: usize, size: usize) -> u32 {
    blob[at..at + size].iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte))
}

/// The automaton of a profile's file rules.
#[derive(Debug)]
pub struct FileDfa {
    accept: Vec<u32>,
    base: Vec<u32>,
    check: Vec<u32>,
    default: Vec<u32>,
    next: Vec<u32>,
}

impl FileDfa {
    /// That of a compiled profile.
    ///
    /// # Panics
    /// It is none in the form that is read here.
    pub fn of(compiled: &[u8]) -> Self {
        Self::read(&compiled[file_automaton(compiled).1..])
    }

    fn read(blob: &[u8]) -> Self {
        let number = |at, size| number(blob, at, size);
        let (mut at, size) = (number(4, 4) as usize, number(8, 4) as usize);
        assert_eq!(number(12, 2), 0, "an automaton of another form");
        let mut tables: [Vec<u32>; 9] = Default::default();
        while at < size {
            let (id, width) = (number(at, 2) as usize, number(at + 2, 2) as usize);
            let length = number(at + 8, 4) as usize;
            tables[id] = (0..length).map(|index| number(at + 12 + index * width, width)).collect();
            at = (at + 12 + length * width).next_multiple_of(8);
        }
        let [_, accept, base, check, default, classes, _, _, next] = tables;
        assert!(classes.is_empty(), "an automaton with classes of bytes");
        assert!(base.iter().all(|word| word >> 24 == 0), "an automaton of another form");
        Self { accept, base, check, default, next }
    }

    fn step(&self, state: usize, byte: u8) -> usize {
        let slot = self.base[state] as usize + usize::from(byte);
        let taken = self.check.get(slot) == Some(&u32::try_from(state).unwrap());
        if taken { self.next[slot] as usize } else { self.default[state] as usize }
    }

    /// What is allowed on `path` to a process that does not own it.
    pub fn access(&self, path: &[u8]) -> u32 {
        (self.accepted(path) >> 14) & 0x7f
    }

    /// What is allowed on `path` to its owner.
    pub fn access_of_owner(&self, path: &[u8]) -> u32 {
        self.accepted(path) & 0x7f
    }

    fn accepted(&self, path: &[u8]) -> u32 {
        self.accept[path.iter().fold(1, |state, byte| self.step(state, *byte))]
    }

    /// What this one allows and the other does not: for each pair of their states where there is such a thing, one of the
    /// shortest paths that lead there and the letters that the other lacks; who may write may append. Empty only if the other allows on every
    /// path what this one does.
    pub fn beyond(&self, other: &Self) -> BTreeMap<Vec<u8>, String> {
        let mut found = BTreeMap::new();
        let mut ahead = VecDeque::from([((1, 1), Vec::new())]);
        let mut seen = BTreeSet::from([(1, 1)]);
        while let Some(((mine, theirs), path)) = ahead.pop_front() {
            let letters = lacking(self.accept[mine], other.accept[theirs]);
            // Byte 0 leads from a link's name to its target; nothing follows the state in which nothing is allowed.
            for byte in 0..=255 {
                let next = (self.step(mine, byte), other.step(theirs, byte));
                if next.0 != 0 && seen.insert(next) {
                    ahead.push_back((next, [path.as_slice(), &[byte]].concat()));
                }
            }
            if !letters.is_empty() {
                found.insert(path, letters);
            }
        }
        found
    }

    /// Every path that anything is allowed on; `None` if there is no end to them, as with a pattern, or if they are
    /// very many.
    pub fn paths(&self) -> Option<BTreeSet<Vec<u8>>> {
        let onward = self.onward();
        let (mut paths, mut path, mut above) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        self.collect(1, &onward, &mut path, &mut above, &mut paths).then_some(paths)
    }

    /// Adds the paths that start with `path`, which leads to `state`; false if there is no end to them.
    fn collect(
        &self,
        state: usize,
        onward: &[Vec<(u8, usize)>],
        path: &mut Vec<u8>,
        above: &mut BTreeSet<usize>,
        paths: &mut BTreeSet<Vec<u8>>,
    ) -> bool {
        if self.accept[state] != 0 {
            paths.insert(path.clone());
        }
        // A state that leads to itself leads to paths without end.
        if paths.len() > MANY || !above.insert(state) {
            return false;
        }
        let ends = onward[state].iter().all(|(byte, next)| {
            path.push(*byte);
            let ends = self.collect(*next, onward, path, above, paths);
            path.pop();
            ends
        });
        above.remove(&state);
        ends
    }

    /// For each state the bytes that lead on to where something is allowed.
    fn onward(&self) -> Vec<Vec<(u8, usize)>> {
        let states = self.accept.len();
        let steps = |state| (0..=255u8).map(move |byte| (byte, self.step(state, byte)));
        let mut back = vec![Vec::new(); states];
        for state in 1..states {
            for (_, next) in steps(state) {
                back[next].push(state);
            }
        }
        let mut live: Vec<bool> = self.accept.iter().map(|accept| *accept != 0).collect();
        let mut ahead: Vec<usize> = (1..states).filter(|state| live[*state]).collect();
        while let Some(state) = ahead.pop() {
            for before in back[state].drain(..) {
                if !std::mem::replace(&mut live[before], true) {
                    ahead.push(before);
                }
            }
        }
        (0..states).map(|state| steps(state).filter(|(_, next)| live[*next]).collect()).collect()
    }
}

/// The letters of what one accept word allows and another does not, to the owner or to others. A program that is
/// executed in another way is one that is not executed so.
fn lacking(word: u32, other: u32) -> String {
    let mut bits = 0;
    for (mine, theirs) in [(word, other), (word >> 14, other >> 14)] {
        bits |= mine & !theirs & 0x7f;
        if mine & 1 != 0 && (mine ^ theirs) & EXEC_KIND != 0 {
            bits |= 1;
        }
    }
    LETTERS.iter().enumerate().filter(|(at, _)| bits >> at & 1 != 0).map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs apparmor_parser"]
    fn what_one_allows_beyond_another_is_found() {
        let of = |rules: &str| FileDfa::of(&compile_text(format!("profile x {{\n{rules}\n}}")).unwrap());
        let beyond = |rules: &str, others: &str| {
            let found = of(rules).beyond(&of(others));
            found
                .into_iter()
                .map(|(path, letters)| format!("{} {letters}", path.escape_ascii()))
                .collect::<Vec<_>>()
        };
        let narrow = "/a/b rwk, /bin/x rix, /c/** r,";
        for wide in [narrow, "/a/* rwk, /bin/x rmix, /c/** rw, /d r,", "/** rwklmix,"] {
            assert_eq!(beyond(narrow, wide), [""; 0], "{wide}");
        }
        assert_eq!(beyond("/a/b rwk,", "/a/b rk,"), ["/a/b wa"]);
        assert_eq!(beyond("/a/b rw, /c r,", "/a/b rw,"), ["/c r"]);
        assert_eq!(beyond("/a/** r,", "/a/** r, deny /a/secret r,"), ["/a/secret r"]);
        assert_eq!(beyond("/a rw,", "owner /a rw,"), ["/a wra"]);
        assert_eq!(beyond("/bin/x rmix,", "/bin/x rmux,"), ["/bin/x x"]);
        assert_eq!(beyond("/a rw, deny /a w,", "/a r,"), [""; 0]);
    }

    #[test]
    #[ignore = "needs apparmor_parser"]
    fn paths_are_counted_and_patterns_seen() {
        let paths =
            |rules: &str| FileDfa::of(&compile_text(format!("profile x {{\n{rules}\n}}")).unwrap()).paths();
        let of = |list: &[&str]| Some(list.iter().map(|path| path.as_bytes().to_vec()).collect());
        assert_eq!(paths("/a r, /a/b rw, /c w,"), of(&["/a", "/a/b", "/c"]));
        assert_eq!(paths("/a{b,c} r,"), of(&["/ab", "/ac"]));
        assert_eq!(paths("/a\\052 r,"), of(&["/a*"]));
        for pattern in ["/a* r,", "/** r,"] {
            assert_eq!(paths(pattern), None, "{pattern}");
        }
        assert_eq!(paths("/a? r,").unwrap().len(), 254);
    }
}
