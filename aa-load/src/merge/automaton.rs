//! The automaton of compiled policy: what AppArmor's parser writes (`libapparmor_re/chfa.cc`, `flex-tables.h`) and Linux
//! reads (`security/apparmor/match.c`).
//!
//! A big-endian header, then tables padded to eight bytes. From a state, a byte leads to `next[base + byte]` if
//! `check` there is the state, and to its `default` otherwise; 0 is dead, 1 the start. Only the plain form is read:
//! permissions in the accept words, 16-bit states, no classes of bytes, no difference encoding. Anything else is refused.

use std::collections::{HashMap, HashSet};

use super::Refused;

const MAGIC: u32 = 0x1B5E_783D;
/// Magic, size of the header, size of it all, flags; two texts and padding follow.
const HEAD: usize = 16;
/// States that 16 bits can tell apart, and one is kept free.
pub(crate) const MOST_STATES: usize = 65_534;
/// What a base may be besides its offset: flags of forms that are not read here.
const OFFSET: u32 = 0x00ff_ffff;

/// The tables that are known, each with the width of its entries: accept, base, check, default, accept2, next.
const TABLES: [(u16, usize); 6] = [(1, 4), (2, 4), (3, 2), (4, 2), (7, 4), (8, 2)];

/// A state of an automaton.
pub(crate) type State = u16;
/// Where every byte leads from one state.
pub(crate) type Row = [State; 256];

/// The dead state.
pub(crate) const DEAD: State = 0;
/// The first state.
pub(crate) const START: State = 1;

/// An automaton, checked: every number in it is within bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Automaton {
    head: Vec<u8>,
    /// The tables in the order that they are written in.
    order: Vec<u16>,
    accept: Vec<u32>,
    accept2: Vec<u32>,
    base: Vec<u32>,
    default: Vec<State>,
    next: Vec<State>,
    check: Vec<State>,
    /// No slot before this one is free.
    low: usize,
}

impl Automaton {
    /// Reads all of `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let number = |at: usize, width: usize| {
            let end = at.checked_add(width).ok_or(Refused::of("an automaton that is cut off"))?;
            let bytes = bytes.get(at..end).ok_or(Refused::of("an automaton that is cut off"))?;
            Ok(bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)))
        };
        let size = |at, width| number(at, width).map(|number| number as usize);
        let head = size(4, 4)?;
        if number(0, 4)? != MAGIC || !(HEAD..=64).contains(&head) || !head.is_multiple_of(8) {
            return Err(Refused::of("an automaton with another header"));
        }
        if size(8, 4)? != bytes.len() || !bytes.len().is_multiple_of(8) {
            return Err(Refused::of("an automaton of another length"));
        }
        if number(12, 2)? != 0 {
            return Err(Refused::of("an automaton in another encoding"));
        }
        let mut tables: HashMap<u16, Vec<u32>> = HashMap::new();
        let (mut order, mut at) = (Vec::new(), head);
        while at < bytes.len() {
            let (id, width, high, length) =
                (number(at, 2)?, size(at + 2, 2)?, number(at + 4, 4)?, size(at + 8, 4)?);
            let known = TABLES.iter().find(|(known, _)| u32::from(*known) == id);
            let Some((id, _)) = known.filter(|(_, known)| *known == width && high == 0) else {
                return Err(Refused::of("a table of another kind"));
            };
            let start = at + 12;
            let end = length.checked_mul(width).and_then(|length| start.checked_add(length));
            let Some(data) = end.and_then(|end| bytes.get(start..end)) else {
                return Err(Refused::of("a table that is cut off"));
            };
            let word = |entry: &[u8]| entry.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
            if tables.insert(*id, data.chunks_exact(width).map(word).collect()).is_some() {
                return Err(Refused::of("a table that comes twice"));
            }
            order.push(*id);
            at = (start + data.len()).next_multiple_of(8);
        }
        let mut wide = |id| tables.remove(&id).unwrap_or_default();
        let (accept, base, accept2) = (wide(1), wide(2), wide(7));
        let mut narrow = |id| -> Vec<State> {
            wide(id).into_iter().map(|entry| State::try_from(entry).unwrap_or(State::MAX)).collect()
        };
        let (check, default, next) = (narrow(3), narrow(4), narrow(8));
        let automaton = Self {
            head: bytes.get(..head).unwrap_or_default().to_vec(),
            order,
            accept,
            accept2,
            base,
            default,
            next,
            check,
            low: 0,
        };
        automaton.verify()?;
        Ok(automaton)
    }

    /// That every number is within bounds, and that what is free looks free.
    fn verify(&self) -> Result<(), Refused> {
        let states = self.states();
        let same =
            [self.accept2.len(), self.base.len(), self.default.len()].iter().all(|length| *length == states);
        if !same || self.order.len() != TABLES.len() || self.next.len() != self.check.len() {
            return Err(Refused::of("tables of unequal lengths"));
        }
        if !(2..=MOST_STATES).contains(&states) {
            return Err(Refused::of("an automaton of another size"));
        }
        let within = |entry: &State| usize::from(*entry) < states;
        if !self.next.iter().chain(&self.check).chain(&self.default).all(within) {
            return Err(Refused::of("a state that does not exist"));
        }
        if !self.base.iter().all(|base| base & !OFFSET == 0 && *base as usize + 256 <= self.next.len()) {
            return Err(Refused::of("a row that is encoded in another way, or out of bounds"));
        }
        // The dead state leads nowhere, and so the free slots, which look like its own, can be taken.
        let free_leads_on =
            self.check.iter().zip(&self.next).any(|(check, next)| *check == DEAD && *next != DEAD);
        let dead = [self.accept.first(), self.accept2.first()] == [Some(&0), Some(&0)];
        if free_leads_on || !dead || self.default.first() != Some(&DEAD) {
            return Err(Refused::of("a dead state that is not dead"));
        }
        Ok(())
    }

    /// The bytes that [`Automaton::parse`] reads; a multiple of eight.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = self.head.clone();
        for id in &self.order {
            let (width, wide, narrow): (usize, &[u32], &[State]) = match id {
                1 => (4, &self.accept, &[]),
                2 => (4, &self.base, &[]),
                3 => (2, &[], &self.check),
                4 => (2, &[], &self.default),
                7 => (4, &self.accept2, &[]),
                _ => (2, &[], &self.next),
            };
            let length = u32::try_from(wide.len() + narrow.len()).unwrap_or(u32::MAX);
            out.extend(id.to_be_bytes());
            out.extend(u16::try_from(width).unwrap_or(0).to_be_bytes());
            out.extend(0_u32.to_be_bytes());
            out.extend(length.to_be_bytes());
            out.extend(wide.iter().flat_map(|entry| entry.to_be_bytes()));
            out.extend(narrow.iter().flat_map(|entry| entry.to_be_bytes()));
            out.resize(out.len().next_multiple_of(8), 0);
        }
        let size = u32::try_from(out.len()).unwrap_or(u32::MAX).to_be_bytes();
        for (at, byte) in out.iter_mut().skip(8).zip(size) {
            *at = byte;
        }
        out
    }

    pub(crate) fn states(&self) -> usize {
        self.accept.len()
    }

    fn base_of(&self, state: State) -> usize {
        self.base.get(usize::from(state)).map_or(0, |base| *base as usize)
    }

    /// Where the slot is that decides on `byte`, if it is this state's own.
    fn slot(&self, state: State, byte: u8) -> Option<usize> {
        let slot = self.base_of(state) + usize::from(byte);
        (state != DEAD && self.check.get(slot) == Some(&state)).then_some(slot)
    }

    /// Where `byte` leads.
    pub(crate) fn step(&self, state: State, byte: u8) -> State {
        let entry = match self.slot(state, byte) {
            Some(slot) => self.next.get(slot),
            None => self.default.get(usize::from(state)),
        };
        entry.copied().unwrap_or(DEAD)
    }

    pub(crate) fn row(&self, state: State) -> Row {
        let mut row = [self.default.get(usize::from(state)).copied().unwrap_or(DEAD); 256];
        let slots = self.check.iter().zip(&self.next).skip(self.base_of(state));
        for (target, (check, next)) in row.iter_mut().zip(slots) {
            if *check == state {
                *target = *next;
            }
        }
        row
    }

    /// The two accept words of a state.
    pub(crate) fn words(&self, state: State) -> (u32, u32) {
        let word = |table: &[u32]| table.get(usize::from(state)).copied().unwrap_or(0);
        (word(&self.accept), word(&self.accept2))
    }

    /// The two accept words behind `text`.
    pub(crate) fn walk(&self, text: &[u8]) -> (u32, u32) {
        self.words(text.iter().fold(START, |state, byte| self.step(state, *byte)))
    }

    /// Whether something leads back to the start: then it cannot be changed in its place.
    pub(crate) fn returns_to_start(&self) -> bool {
        self.next.iter().chain(&self.default).any(|target| *target == START)
    }

    /// Changes where a byte leads that the row names itself.
    pub(crate) fn redirect(&mut self, state: State, byte: u8, target: State) -> Result<(), Refused> {
        let slot = self.slot(state, byte).and_then(|slot| self.next.get_mut(slot));
        *slot.ok_or(Refused::of("a start without a row for \"/\""))? = target;
        Ok(())
    }

    /// Adds a state that leads nowhere yet.
    pub(crate) fn add_state(&mut self) -> Result<State, Refused> {
        let state = State::try_from(self.states()).ok().filter(|state| usize::from(*state) < MOST_STATES);
        let state = state.ok_or(Refused::of("more states than 16 bits tell apart"))?;
        self.accept.push(0);
        self.accept2.push(0);
        self.base.push(0);
        self.default.push(DEAD);
        Ok(state)
    }

    pub(crate) fn set_words(&mut self, state: State, accept: u32, accept2: u32) {
        for (table, word) in [(&mut self.accept, accept), (&mut self.accept2, accept2)] {
            if let Some(entry) = table.get_mut(usize::from(state)) {
                *entry = word;
            }
        }
    }

    /// Gives a state another row: what most bytes lead to is its default, the others go into the first free slots that
    /// lie as they must.
    pub(crate) fn set_row(&mut self, state: State, row: &Row) -> Result<(), Refused> {
        let old = self.base_of(state);
        for slot in old..old + 256 {
            if state != DEAD && self.check.get(slot) == Some(&state) {
                self.fill(slot, DEAD, DEAD);
                self.low = self.low.min(slot);
            }
        }
        // A row has few targets, so that a list is the fastest map.
        let mut counts: Vec<(State, usize)> = Vec::new();
        for target in row {
            match counts.iter_mut().find(|(known, _)| known == target) {
                Some((_, count)) => *count += 1,
                None => counts.push((*target, 1)),
            }
        }
        let most = counts.iter().max_by_key(|(_, count)| *count);
        let default = most.map_or(DEAD, |(target, _)| *target);
        let own: Vec<(usize, State)> =
            row.iter().copied().enumerate().filter(|(_, target)| *target != default).collect();
        let base = self.first_fit(&own);
        if base > OFFSET as usize {
            return Err(Refused::of("tables longer than an offset reaches"));
        }
        self.next.resize(self.next.len().max(base + 256), DEAD);
        self.check.resize(self.next.len(), DEAD);
        for (byte, target) in own {
            self.fill(base + byte, state, target);
        }
        for (entry, word) in self.base.get_mut(usize::from(state)).into_iter().zip(u32::try_from(base)) {
            *entry = word;
        }
        if let Some(entry) = self.default.get_mut(usize::from(state)) {
            *entry = default;
        }
        Ok(())
    }

    fn fill(&mut self, slot: usize, check: State, next: State) {
        if let (Some(own), Some(target)) = (self.check.get_mut(slot), self.next.get_mut(slot)) {
            (*own, *target) = (check, next);
        }
    }

    /// The lowest offset at which every byte of a row finds a free slot; behind the end all are free.
    fn first_fit(&mut self, own: &[(usize, State)]) -> usize {
        let free = |slot: usize| self.check.get(slot).is_none_or(|check| *check == DEAD);
        let mut low = self.low;
        while !free(low) {
            low += 1;
        }
        let Some((first, _)) = own.first() else { return 0 };
        let mut base = low.saturating_sub(*first);
        while !own.iter().all(|(byte, _)| free(base + byte)) {
            base += 1;
        }
        self.low = low;
        base
    }

    /// Whether both give the same words for every text.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let mut seen = HashSet::from([(START, START)]);
        let mut ahead = vec![(START, START)];
        while let Some((own, others)) = ahead.pop() {
            if self.words(own) != other.words(others) {
                return false;
            }
            let mut last = (START, START);
            for pair in self.row(own).into_iter().zip(other.row(others)) {
                // Most bytes lead where the one before led.
                if std::mem::replace(&mut last, pair) != pair && seen.insert(pair) {
                    ahead.push(pair);
                }
            }
        }
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An automaton that accepts nothing, and whose start has a row for a slash.
    pub(crate) fn empty() -> Automaton {
        let mut head = MAGIC.to_be_bytes().to_vec();
        head.extend([0, 0, 0, 24, 0, 0, 0, 0, 0, 0]);
        head.extend(b"notflex\0\0\0");
        let mut automaton = Automaton {
            head,
            order: vec![1, 7, 2, 4, 8, 3],
            accept: vec![0; 2],
            accept2: vec![0; 2],
            base: vec![0; 2],
            default: vec![DEAD; 2],
            next: vec![DEAD; 256],
            check: vec![DEAD; 256],
            low: 0,
        };
        automaton.fill(usize::from(b'/'), START, DEAD);
        automaton
    }

    fn refused(change: impl Fn(&mut Automaton)) -> std::borrow::Cow<'static, str> {
        let mut automaton = empty();
        change(&mut automaton);
        let Refused(why) = Automaton::parse(&automaton.write()).unwrap_err();
        why
    }

    #[test]
    fn what_is_written_is_read_again() {
        let automaton = empty();
        let bytes = automaton.write();
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(Automaton::parse(&bytes).unwrap().write(), bytes);
        assert!(Automaton::parse(&bytes).unwrap().same_as(&automaton));
    }

    #[test]
    fn every_other_form_is_refused() {
        for (change, part) in [
            (&(|it: &mut Automaton| it.head[3] = 0) as &dyn Fn(&mut Automaton), "header"),
            (&|it| it.head[13] = 1, "encoding"),
            (&|it| it.head[13] = 2, "encoding"),
            (&|it| it.order.push(1), "twice"),
            (&|it| it.order.truncate(5), "unequal"),
            (&|it| it.accept2.push(0), "unequal"),
            (&|it| it.check.push(0), "unequal"),
            (&|it| it.base[1] = 1, "out of bounds"),
            (&|it| it.base[1] = 0x8000_0000, "another way"),
            (&|it| it.base[1] = 0x2000_0000, "another way"),
            (&|it| it.default[1] = 2, "does not exist"),
            (&|it| it.next[usize::from(b'/')] = 2, "does not exist"),
            (&|it| it.check[7] = 2, "does not exist"),
            (&|it| it.next[7] = 1, "not dead"),
            (&|it| it.accept[0] = 4, "not dead"),
            (&|it| it.default[0] = 1, "not dead"),
        ] {
            let why = refused(change);
            assert!(why.contains(part), "{part}: {why}");
        }
        // A table of classes of bytes (5), and wide states.
        for (at, byte) in [(25, 5), (24 + 16 + 8 + 16 + 8 + 16 + 8 + 3, 4)] {
            let mut bytes = empty().write();
            bytes[at] = byte;
            assert!(Automaton::parse(&bytes).is_err(), "{at}");
        }
        let mut many = empty();
        for _ in 2..MOST_STATES {
            many.add_state().unwrap();
        }
        assert!(Automaton::parse(&many.write()).is_ok());
        assert!(many.add_state().is_err());
    }

    #[test]
    fn no_cut_or_garbled_automaton_panics() {
        let mut automaton = empty();
        let rules = crate::merge::rules::read("\"/a/b\" rw,\n\"/a/{,**}\" k,").unwrap().0;
        crate::merge::rules::merge(&mut automaton, &rules).unwrap();
        let bytes = automaton.write();
        for cut in 0..bytes.len() {
            assert!(Automaton::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            for byte in [0, 2, 0xff] {
                let mut other = bytes.clone();
                other[at] = byte;
                if let Ok(mut other) = Automaton::parse(&other) {
                    let _ = (other.walk(b"/a/b"), other.same_as(&automaton), other.returns_to_start());
                    let _ = crate::merge::rules::merge(&mut other, &rules);
                    let _ = Automaton::parse(&other.write());
                }
            }
        }
    }

    #[test]
    fn a_row_is_what_was_set_and_others_stay() {
        let mut automaton = empty();
        let states: Vec<State> = (0..40).map(|_| automaton.add_state().unwrap()).collect();
        let row_of = |salt: usize| {
            let mut row = [states[salt % 40]; 256];
            for (byte, target) in row.iter_mut().enumerate().filter(|(byte, _)| byte % (salt % 7 + 1) == 0) {
                *target = states[(byte * salt) % 40];
            }
            row
        };
        for round in [1, 100] {
            for (salt, state) in states.iter().enumerate() {
                automaton.set_row(*state, &row_of(salt * round)).unwrap();
            }
            let again = Automaton::parse(&automaton.write()).unwrap();
            for (salt, state) in states.iter().enumerate() {
                assert_eq!(again.row(*state), row_of(salt * round));
                assert!(
                    (0..=255).all(|byte| again.step(*state, byte) == row_of(salt * round)[usize::from(byte)])
                );
            }
            assert_eq!(again.step(DEAD, 7), DEAD);
            assert_eq!(again.step(START, b'x'), DEAD);
        }
    }
}
