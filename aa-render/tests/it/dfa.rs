//! Reads the file rules out of what the parser compiled, as the kernel would walk them.
//!
//! The container is AppArmor's tagged stream, the automaton a compressed table in flex's layout
//! (AppArmor's `parser/libapparmor_re`, the kernel's `security/apparmor/match.c`). Only the form that
//! goes with the pinned features is read: permissions in the accept words, no difference encoding.

use std::collections::BTreeSet;

/// Permission bits of an accept word.
pub(crate) const WRITE: u32 = 0x2;
pub(crate) const READ: u32 = 0x4;
const MAGIC: u32 = 0x1B5E_783D;

/// The automaton of a profile's file rules.
pub(crate) struct FileDfa {
    accept: Vec<u32>,
    base: Vec<u32>,
    check: Vec<u32>,
    default: Vec<u32>,
    next: Vec<u32>,
}

impl FileDfa {
    /// The last automaton of a compiled profile is that of its file rules.
    pub(crate) fn of(compiled: &[u8]) -> Self {
        let name = b"aadfa\0";
        let at = compiled.windows(name.len()).rposition(|window| window == name).unwrap();
        let magic = MAGIC.to_be_bytes();
        let start = at + compiled[at..].windows(4).position(|window| window == magic).unwrap();
        Self::read(&compiled[start..])
    }

    fn read(blob: &[u8]) -> Self {
        let number = |at: usize, size: usize| {
            blob[at..at + size].iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte))
        };
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
    pub(crate) fn access(&self, path: &[u8]) -> u32 {
        let state = path.iter().fold(1, |state, byte| self.step(state, *byte));
        (self.accept[state] >> 14) & 0x7f
    }

    /// The one path that anything is allowed on; `None` if there are none or more.
    pub(crate) fn only_path(&self) -> Option<Vec<u8>> {
        let live = self.live();
        let (mut state, mut path, mut seen) = (1, Vec::new(), BTreeSet::from([1]));
        loop {
            let mut onward = (0..=255u8).filter(|byte| live.contains(&self.step(state, *byte)));
            let is_end = self.accept[state] != 0;
            match (is_end, onward.next(), onward.next()) {
                (true, None, _) => return Some(path),
                (false, Some(byte), None) => {
                    state = self.step(state, byte);
                    path.push(byte);
                    // A loop would be a language without end.
                    if !seen.insert(state) {
                        return None;
                    }
                }
                _ => return None,
            }
        }
    }

    /// The states from which something is allowed.
    fn live(&self) -> BTreeSet<usize> {
        let mut live: BTreeSet<usize> =
            (1..self.accept.len()).filter(|state| self.accept[*state] != 0).collect();
        loop {
            let more: Vec<usize> = (1..self.accept.len())
                .filter(|state| !live.contains(state))
                .filter(|state| (0..=255u8).any(|byte| live.contains(&self.step(*state, byte))))
                .collect();
            if more.is_empty() {
                return live;
            }
            live.extend(more);
        }
    }
}
