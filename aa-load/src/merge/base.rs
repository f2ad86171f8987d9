//! What guests share: the policy of a profile without the guest's own rules, compiled once under a made-up name, with all
//! that is needed to make it a guest's.

use super::Refused;
use super::automaton::Automaton;
use super::name::{self, Hole};
use super::rules::{self, Merged};
use super::stream::{self, Piece};
use aa_contract::ProfileName;

/// A compiled base.
#[derive(Debug)]
pub(crate) struct Base {
    /// Under the name of [`name::ONE`].
    pieces: Vec<Piece>,
    holes: Vec<Hole>,
    /// What the base denies without a trace in its tables (`audit deny`), as allowed by a policy each.
    denied: Vec<Automaton>,
}

/// Compiles a text.
pub(crate) type Compiles<'a> = dyn FnMut(&str) -> Result<Vec<u8>, Refused> + 'a;

/// Rules that every new base is tried with: they meet what bases grant and deny, and one another.
const TRIAL: &str = "  \"/aa-svirt/trial/disk.img\" rwk,\n  \"/aa-svirt/trial/disk\" r,\n  \"/aa-svirt/tree/{,**}\" rwk,\n  \
    \"/aa-svirt/tree/program\" rm,\n  \"/aa-svirt/inside/**\" a,\n  \"/dev/null\" k,\n  \"/etc/shadow\" r,\n";

impl Base {
    /// Makes a base out of a profile: `text` gives it for a UUID and the guest's own rules. `audited` are rules that the
    /// text denies with `audit`, as profiles that allow them.
    pub(crate) fn make(
        text: &dyn Fn(&str, &str) -> String,
        audited: &[String],
        compile: &mut Compiles<'_>,
    ) -> Result<Self, Refused> {
        let pieces = stream::parse(&compile(&text(name::ONE, ""))?)?;
        let other = stream::parse(&compile(&text(name::OTHER, ""))?)?;
        let holes = name::holes(&pieces, &other)?;
        let denied = audited
            .iter()
            .map(|rule| stream::file_rules(&stream::parse(&compile(rule)?)?).cloned())
            .collect::<Result<_, _>>()?;
        let base = Self { pieces, holes, denied };
        let third = name::name(name::THIRD).parse().map_err(|_| Refused::of("no name"))?;
        let (trial, _) = rules::read(TRIAL)?;
        let parsers = stream::parse(&compile(&text(name::THIRD, TRIAL))?)?;
        let own = stream::parse(&base.policy(third, &trial)?)?;
        // Whatever this project does not know of policy shows here.
        if !stream::same(&own, &parsers) {
            return Err(Refused::of("a base that the parser and the merge make two things of"));
        }
        Ok(base)
    }

    /// The policy of a guest with these rules.
    pub(crate) fn policy(&self, profile: ProfileName, rules: &[Merged]) -> Result<Vec<u8>, Refused> {
        if rules.iter().any(|rule| self.denied.iter().any(|denied| rules::reaches(rule, denied))) {
            return Err(Refused::of("a rule that meets an \"audit deny\", which is not in the tables"));
        }
        let mut pieces = self.pieces.clone();
        name::rename(&mut pieces, &self.holes, profile)?;
        let before = stream::file_rules(&pieces)?.clone();
        for piece in &mut pieces {
            if let Piece::Automaton { automaton, file: true, .. } = piece {
                rules::merge(automaton, rules)?;
            }
        }
        let policy = stream::write(&pieces);
        // What is written is read again: only that is to be loaded.
        rules::check(&before, stream::file_rules(&stream::parse(&policy)?)?, rules)?;
        Ok(policy)
    }

    /// For the cache.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut part = |bytes: &[u8]| {
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        };
        part(&stream::write(&self.pieces));
        let holes = self.holes.iter().flat_map(|hole| {
            let [a, b, c, d] = hole.piece.to_le_bytes();
            let [low, high] = hole.state.to_le_bytes();
            [a, b, c, d, low, high, hole.place]
        });
        part(&holes.collect::<Vec<u8>>());
        for denied in &self.denied {
            part(&denied.write());
        }
        out
    }

    /// What [`Base::write`] wrote.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refused> {
        const CUT: Refused = Refused::of("a base that is not whole");
        let (mut parts, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk().ok_or(CUT)?;
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| CUT)?;
            let (part, tail) = tail.split_at_checked(length).ok_or(CUT)?;
            parts.push(part);
            rest = tail;
        }
        let [policy, holes, denied @ ..] = parts.as_slice() else { return Err(CUT) };
        let hole = |bytes: &[u8]| match bytes {
            [a, b, c, d, low, high, place] => Ok(Hole {
                piece: u32::from_le_bytes([*a, *b, *c, *d]),
                state: u16::from_le_bytes([*low, *high]),
                place: *place,
            }),
            _ => Err(CUT),
        };
        Ok(Self {
            pieces: stream::parse(policy)?,
            holes: holes.chunks(7).map(hole).collect::<Result<_, _>>()?,
            denied: denied.iter().map(|bytes| Automaton::parse(bytes)).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::empty;
    use super::*;

    /// A small stream: a profile of this name, which its policy database and its file rules spell out too.
    pub(crate) fn stream_of(uuid: &str, rules: &str) -> Vec<u8> {
        let name = name::name(uuid);
        let mut blob = crate::blob::tests::sample(&name, 1);
        let mut automaton = empty();
        let all = format!("\"/x/{name}\" r,\n\"/etc/x\" r,\n{rules}");
        rules::merge(&mut automaton, &rules::read(&all).unwrap().0).unwrap();
        let piece = Piece::Automaton { padding: 3, automaton, file: true };
        // Its own blob and the end.
        blob.truncate(blob.len() - 9);
        blob.extend(b"\x04\x06\0aadfa\0\x06");
        blob.extend(stream::write(&[piece]));
        blob.push(8);
        blob
    }

    /// A parser that knows one profile.
    #[expect(clippy::unnecessary_wraps, reason = "it stands for one that can fail")]
    fn compile(text: &str) -> Result<Vec<u8>, Refused> {
        let (uuid, rules) = text.split_once('\n').unwrap();
        Ok(stream_of(uuid, rules))
    }

    fn text(uuid: &str, rules: &str) -> String {
        format!("{uuid}\n{rules}")
    }

    const GUEST: &str = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac";

    #[test]
    fn a_base_is_kept_and_read_again_and_gives_the_same() {
        let base = Base::make(&text, &[text(name::ONE, "\"/no\" w,")], &mut compile).unwrap();
        let again = Base::read(&base.write()).unwrap();
        let guest: ProfileName = GUEST.parse().unwrap();
        let rules = rules::read("\"/var/disk\" rwk,").unwrap().0;
        let policy = base.policy(guest, &rules).unwrap();
        assert_eq!(again.policy(guest, &rules).unwrap(), policy);
        let parsers = stream_of(GUEST.strip_prefix("libvirt-").unwrap(), "\"/var/disk\" rwk,");
        assert!(stream::same(&stream::parse(&policy).unwrap(), &stream::parse(&parsers).unwrap()));
        assert_eq!(policy.len() % 8, parsers.len() % 8);
        let denied = rules::read("\"/no\" rw,").unwrap().0;
        assert!(base.policy(guest, &denied).is_err() && again.policy(guest, &denied).is_err());
    }

    #[test]
    fn a_parser_that_makes_something_else_gives_no_base() {
        for wrong in ["\"/aa-svirt/trial/x\" r,\n", "\"/x\" r,\n"] {
            let mut compile = |given: &str| {
                let (uuid, rules) = given.split_once('\n').unwrap();
                let more = if uuid == name::THIRD { wrong } else { "" };
                Ok(stream_of(uuid, &format!("{rules}{more}")))
            };
            assert!(Base::make(&text, &[], &mut compile).is_err());
        }
        assert!(Base::make(&text, &[], &mut |_| Err(super::super::NOT_COMPILED)).is_err());
    }

    #[test]
    fn no_cut_or_garbled_base_panics() {
        let base = Base::make(&text, &[], &mut compile).unwrap().write();
        let rules = rules::read("\"/d\" rw,").unwrap().0;
        for cut in 0..base.len() {
            assert!(Base::read(&base[..cut]).is_err() || cut == base.len() - 7 * 32, "{cut}");
        }
        for at in (0..base.len()).step_by(3) {
            let mut other = base.clone();
            other[at] ^= 0x81;
            if let Ok(other) = Base::read(&other) {
                let _ = other.policy(GUEST.parse().unwrap(), &rules);
            }
        }
    }
}
