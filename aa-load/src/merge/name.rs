//! Compiled policy of one guest made into that of another: its name in texts, and where an automaton spells it out.
//!
//! A profile's name is in the tables too (`signal peer=@{profile_name}`), each digit of it a byte that leads on. Where that
//! is, two compiles tell: the same text under two UUIDs whose digits differ in another pair at each place. Walked
//! side by side, states whose rows agree once the two digits of one place are exchanged are where that digit is read.

use std::collections::HashMap;

use aa_contract::ProfileName;

use super::Refused;
use super::automaton::{Automaton, DEAD, Row, START, State};
use super::stream::Piece;

/// The UUID that bases are kept under.
pub(crate) const ONE: &str = "01234567-89ab-cdef-0123-456789abcdef";
/// Another at each place: no two places have the same two digits, in either order.
pub(crate) const OTHER: &str = "12345678-9abc-def0-2345-6789abcdef01";
/// A third, to try what was found out.
pub(crate) const THIRD: &str = "f7c03b9e-5a16-482d-b06e-93d7a1f5c284";

/// A state that reads a digit of the name: the automaton among the pieces, the state, and the place in the UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) piece: u32,
    pub(crate) state: State,
    pub(crate) place: u8,
}

/// The name of the profile with this UUID.
pub(crate) fn name(uuid: &str) -> String {
    format!("libvirt-{uuid}")
}

/// Where two compiles of one text, under [`ONE`] and [`OTHER`], read the name.
pub(crate) fn holes(one: &[Piece], other: &[Piece]) -> Result<Vec<Hole>, Refused> {
    const DIFFER: Refused = Refused::of("policy that depends on the name in another way");
    if one.len() != other.len() {
        return Err(DIFFER);
    }
    let mut holes = Vec::new();
    for (index, pair) in (0_u32..).zip(one.iter().zip(other)) {
        match pair {
            (
                Piece::Automaton { padding, automaton, file },
                Piece::Automaton { padding: pad, automaton: other, file: of },
            ) if (padding, file) == (pad, of) => {
                let found = holes_of(automaton, other).ok_or(DIFFER)?;
                holes.extend(found.into_iter().map(|(state, place)| Hole { piece: index, state, place }));
            }
            (Piece::Text(one), Piece::Text(other)) if renamed(one, OTHER) == *other => {}
            (Piece::Bytes(one), Piece::Bytes(other)) if one == other => {}
            _ => return Err(DIFFER),
        }
    }
    Ok(holes)
}

/// The states of `one` that read a digit, with its place; none if the two are not alike in all else.
fn holes_of(one: &Automaton, other: &Automaton) -> Option<Vec<(State, u8)>> {
    let mut pairs = Pairs::default();
    pairs.agree(DEAD, DEAD);
    pairs.agree(START, START);
    let (mut ahead, mut holes) = (vec![(START, START)], Vec::new());
    while let Some((state, others)) = ahead.pop() {
        if one.words(state) != other.words(others) {
            return None;
        }
        let (row, mut others) = (one.row(state), other.row(others));
        if !alike(&row, &others) {
            let mut fits = places().filter_map(|(place, a, b)| {
                let mut row_of_place = others;
                row_of_place.swap(usize::from(a), usize::from(b));
                alike(&row, &row_of_place).then_some((place, row_of_place))
            });
            let (place, exchanged) = fits.next()?;
            if fits.next().is_some() {
                return None;
            }
            holes.push((state, place));
            others = exchanged;
        }
        for (state, others) in row.into_iter().zip(others) {
            match pairs.agree(state, others) {
                Agreed::New => ahead.push((state, others)),
                Agreed::Known => {}
                Agreed::No => return None,
            }
        }
    }
    Some(holes)
}

/// Each place of a digit in a UUID, with the two digits there.
fn places() -> impl Iterator<Item = (u8, u8, u8)> {
    let digits = ONE.bytes().zip(OTHER.bytes());
    (0..).zip(digits).filter(|(_, (one, _))| *one != b'-').map(|(place, (one, other))| (place, one, other))
}

/// Whether two rows divide the bytes in the same way.
fn alike(row: &Row, other: &Row) -> bool {
    let mut pairs = Pairs::default();
    row.iter().zip(other).all(|(state, others)| pairs.agree(*state, *others) != Agreed::No)
}

/// Which state of one stands for which of the other, one to one.
#[derive(Default)]
struct Pairs {
    there: HashMap<State, State>,
    back: HashMap<State, State>,
}

#[derive(PartialEq, Eq)]
enum Agreed {
    New,
    Known,
    No,
}

impl Pairs {
    fn agree(&mut self, state: State, others: State) -> Agreed {
        match (self.there.get(&state), self.back.get(&others)) {
            (None, None) => {
                self.there.insert(state, others);
                self.back.insert(others, state);
                Agreed::New
            }
            (Some(known), Some(back)) if *known == others && *back == state => Agreed::Known,
            _ => Agreed::No,
        }
    }
}

/// The policy under [`ONE`] as that of another profile.
pub(crate) fn rename(pieces: &mut [Piece], holes: &[Hole], profile: ProfileName) -> Result<(), Refused> {
    let uuid = profile.uuid().hyphenated().to_string();
    for piece in pieces.iter_mut() {
        if let Piece::Text(text) = piece {
            *text = renamed(text, &uuid);
        }
    }
    for Hole { piece, state, place } in holes {
        let piece = usize::try_from(*piece).ok().and_then(|index| pieces.get_mut(index));
        let Some(Piece::Automaton { automaton, .. }) = piece else {
            return Err(Refused::of("a base that is not whole"));
        };
        let digit = |uuid: &str| uuid.as_bytes().get(usize::from(*place)).copied();
        let (Some(one), Some(other), Some(wanted)) = (digit(ONE), digit(OTHER), digit(&uuid)) else {
            return Err(Refused::of("a base that is not whole"));
        };
        if one == wanted {
            continue;
        }
        let (spelled, any) = (automaton.step(*state, one), automaton.step(*state, other));
        if automaton.step(*state, wanted) != any {
            return Err(Refused::of("a name that the policy mentions in another place"));
        }
        let mut row = automaton.row(*state);
        for (byte, target) in [(one, any), (wanted, spelled)] {
            if let Some(entry) = row.get_mut(usize::from(byte)) {
                *entry = target;
            }
        }
        automaton.set_row(*state, &row)?;
    }
    Ok(())
}

/// A text with the name of [`ONE`] in it, for the profile of another UUID.
fn renamed(text: &[u8], uuid: &str) -> Vec<u8> {
    let mut text = text.to_vec();
    let old = name(ONE);
    let mut at = 0;
    while let Some(rest) = text.get_mut(at..) {
        let Some(found) = rest.windows(old.len()).position(|window| window == old.as_bytes()) else { break };
        for (byte, new) in rest.iter_mut().skip(found).zip(name(uuid).bytes()) {
            *byte = new;
        }
        at += found + old.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::empty;
    use super::super::rules;
    use super::*;

    fn automaton(rules: &str) -> Automaton {
        let mut automaton = empty();
        rules::merge(&mut automaton, &rules::read(rules).unwrap().0).unwrap();
        automaton
    }

    /// Policy with the name in a text and in an automaton, twice.
    fn policy(uuid: &str, more: &str) -> Vec<Piece> {
        let rules = format!("\"/signal/libvirt-{uuid}\" r,\n\"/ptrace/libvirt-{uuid}\" w,\n{more}");
        let automaton = automaton(&rules);
        vec![
            Piece::Bytes(vec![1, 2]),
            Piece::Text(format!("libvirt-{uuid}//child").into_bytes()),
            Piece::Automaton { padding: 1, automaton, file: true },
        ]
    }

    #[test]
    fn no_two_places_have_the_same_digits() {
        let places: Vec<(u8, u8, u8)> = places().collect();
        assert_eq!(places.len(), 32);
        let pairs: std::collections::BTreeSet<(u8, u8)> =
            places.iter().map(|(_, one, other)| (*one.min(other), *one.max(other))).collect();
        assert_eq!(pairs.len(), 32);
        assert!(pairs.iter().all(|(one, other)| one != other));
        for uuid in [ONE, OTHER, THIRD] {
            assert!(name(uuid).parse::<ProfileName>().is_ok());
        }
    }

    #[test]
    fn a_renamed_policy_is_that_of_the_other_name() {
        let holes = holes(&policy(ONE, ""), &policy(OTHER, "")).unwrap();
        assert_eq!(holes.len(), 64);
        for uuid in [
            ONE,
            OTHER,
            THIRD,
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            let mut renamed = policy(ONE, "");
            rename(&mut renamed, &holes, name(uuid).parse().unwrap()).unwrap();
            assert!(super::super::stream::same(&renamed, &policy(uuid, "")), "{uuid}");
            assert_eq!(super::super::stream::same(&renamed, &policy(ONE, "")), uuid == ONE);
        }
    }

    #[test]
    fn a_name_that_the_policy_mentions_elsewhere_is_refused() {
        // Another guest's name, which shares the first digits with one and not with the other.
        let mention = "\"/signal/libvirt-a22e3930-d87a-584e-22b2-1d8950212bac\" k,\n";
        let holes = holes(&policy(ONE, mention), &policy(OTHER, mention)).unwrap();
        for (uuid, fine) in [
            ("a22e3930-d87a-584e-22b2-1d8950212bac", false),
            ("a32e3930-d87a-584e-22b2-1d8950212bac", false),
            ("b22e3930-d87a-584e-22b2-1d8950212bac", true),
        ] {
            let mut renamed = policy(ONE, mention);
            assert_eq!(rename(&mut renamed, &holes, name(uuid).parse().unwrap()).is_ok(), fine, "{uuid}");
        }
    }

    #[test]
    fn policies_that_differ_otherwise_are_refused() {
        let one = policy(ONE, "");
        for other in [
            policy(OTHER, "\"/x\" r,\n"),
            policy(ONE, ""),
            policy(THIRD, ""),
            vec![Piece::Bytes(vec![1, 3])],
            {
                let mut other = policy(OTHER, "");
                other[0] = Piece::Bytes(vec![1, 3]);
                other
            },
            {
                let mut other = policy(OTHER, "");
                other[1] = Piece::Text(b"another".to_vec());
                other
            },
        ] {
            assert!(holes(&one, &other).is_err());
        }
    }
}
