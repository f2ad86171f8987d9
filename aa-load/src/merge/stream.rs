//! Compiled policy taken apart and put together again: the texts and automata by themselves, every other byte as it is.
//!
//! The kernel looks for an automaton at the first place of its item that is a multiple of eight from a border of the
//! stream (`unpack_dfa` in `policy_unpack.c`); lengths change by multiples of eight here, so that the padding stays right.

use super::Refused;
use super::automaton::Automaton;
use crate::blob::{Cursor, Item};

/// A stretch of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Kept as they are.
    Bytes(Vec<u8>),
    /// A text without its length, which does not change.
    Text(Vec<u8>),
    /// An automaton without its length, behind so many bytes of padding.
    Automaton {
        padding: usize,
        automaton: Automaton,
        /// Whether it is that of the first profile's file rules.
        file: bool,
    },
}

/// Takes a stream apart.
pub(crate) fn parse(blob: &[u8]) -> Result<Vec<Piece>, Refused> {
    const CUT: Refused = Refused::of("policy that cannot be read");
    let mut cursor = Cursor { blob, at: 0 };
    let (mut pieces, mut kept, mut depth, mut heads) = (Vec::new(), 0, 0_usize, 0);
    let mut name: &[u8] = b"";
    while cursor.at < blob.len() {
        let before = std::mem::take(&mut name);
        let (start, length, piece) = match cursor.item().map_err(|_| CUT)? {
            Item::Name(found) => {
                heads += usize::from(found == b"version");
                if matches!(found, b"perms" | b"permsv" | b"xmatch" | b"namespace") {
                    return Err(Refused::of("policy with tables of permissions or another name's"));
                }
                name = found;
                continue;
            }
            Item::Open => {
                depth += 1;
                continue;
            }
            Item::Close => {
                depth = depth.checked_sub(1).ok_or(CUT)?;
                continue;
            }
            Item::U32(_) | Item::Other => continue,
            // Its item ends with a NUL, which is kept with what follows.
            Item::Text(text) => {
                let nul = usize::from(cursor.at > 0 && blob.get(cursor.at - 1) == Some(&0));
                (cursor.at - text.len() - nul, text.len(), Piece::Text(text.to_vec()))
            }
            Item::Blob(bytes) => {
                if before != b"aadfa" {
                    return Err(Refused::of("policy with another kind of table"));
                }
                let padding = bytes.iter().take(8).take_while(|byte| **byte == 0).count();
                let automaton = Automaton::parse(bytes.get(padding..).unwrap_or_default())?;
                // Behind the length, which is written anew.
                let start = cursor.at - bytes.len() - 4;
                let file = heads == 1 && depth == 1;
                (start, bytes.len() + 4, Piece::Automaton { padding, automaton, file })
            }
        };
        pieces.push(Piece::Bytes(blob.get(kept..start).ok_or(CUT)?.to_vec()));
        pieces.push(piece);
        kept = start + length;
    }
    pieces.push(Piece::Bytes(blob.get(kept..).ok_or(CUT)?.to_vec()));
    let files = pieces.iter().filter(|piece| matches!(piece, Piece::Automaton { file: true, .. })).count();
    if files != 1 || depth != 0 {
        return Err(Refused::of("policy without one automaton of file rules"));
    }
    Ok(pieces)
}

/// The automaton of the first profile's file rules, which every stream that [`parse`] takes has.
pub(crate) fn file_rules(pieces: &[Piece]) -> Result<&Automaton, Refused> {
    let file = pieces.iter().find_map(|piece| match piece {
        Piece::Automaton { automaton, file: true, .. } => Some(automaton),
        _ => None,
    });
    file.ok_or(Refused::of("policy without an automaton of file rules"))
}

/// The stream of these pieces.
pub(crate) fn write(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) | Piece::Text(bytes) => out.extend(bytes),
            Piece::Automaton { padding, automaton, .. } => {
                let bytes = automaton.write();
                out.extend(u32::try_from(padding + bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
                out.resize(out.len() + padding, 0);
                out.extend(bytes);
            }
        }
    }
    out
}

/// Whether two streams mean the same: equal but for the automata's tables, and these give the same words everywhere.
pub(crate) fn same(one: &[Piece], other: &[Piece]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (
                Piece::Automaton { padding, automaton, file },
                Piece::Automaton { padding: pad, automaton: other, file: of },
            ) => (padding, file) == (pad, of) && automaton.same_as(other),
            (one, other) => one == other,
        })
}
