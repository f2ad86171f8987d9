//! What a rule allows: the letters of `apparmor.d(5)`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::Printable;

/// How a program that a rule names may be executed (`apparmor.d(5)`, «Execute Mode»).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are the parser's own letters")]
pub enum Exec {
    Ix,
    Px,
    PxScrubbed,
    Cx,
    CxScrubbed,
    Ux,
    UxScrubbed,
    Pix,
    PixScrubbed,
    Cix,
    CixScrubbed,
    Pux,
    PuxScrubbed,
    Cux,
    CuxScrubbed,
    /// Plain `x`: only in rules that deny.
    Any,
}

/// Longest first, so that a suffix match takes the whole mode.
const EXECS: [(&str, Exec); 16] = [
    ("pix", Exec::Pix),
    ("Pix", Exec::PixScrubbed),
    ("cix", Exec::Cix),
    ("Cix", Exec::CixScrubbed),
    ("pux", Exec::Pux),
    ("PUx", Exec::PuxScrubbed),
    ("cux", Exec::Cux),
    ("CUx", Exec::CuxScrubbed),
    ("ix", Exec::Ix),
    ("px", Exec::Px),
    ("Px", Exec::PxScrubbed),
    ("cx", Exec::Cx),
    ("Cx", Exec::CxScrubbed),
    ("ux", Exec::Ux),
    ("Ux", Exec::UxScrubbed),
    ("x", Exec::Any),
];

/// Letters in their canonical order, with the bit of each.
const LETTERS: [(char, u8); 6] =
    [('r', READ), ('w', WRITE), ('a', APPEND), ('k', LOCK), ('l', LINK), ('m', MAP)];
const READ: u8 = 1;
const WRITE: u8 = 2;
const APPEND: u8 = 4;
const LOCK: u8 = 8;
const LINK: u8 = 16;
const MAP: u8 = 32;

/// A non-empty set of `r w a k l m` and at most one way to execute.
///
/// Written in that order. `w` includes `a`, and the parser refuses both together, so a set never
/// holds both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(
        with = "String",
        extend("pattern" = "^(?=.)r?(w|a)?k?l?m?(ix|px|Px|cx|Cx|ux|Ux|pix|Pix|cix|Cix|pux|PUx|cux|CUx|x)?$")
    )
)]
pub struct Access {
    bits: u8,
    exec: Option<Exec>,
}

/// The text is not a set of access letters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{}\" is not a set of accesses out of r w a k l m and one execute mode (w and a exclude each other)", Printable(.0))]
pub struct AccessError(String);

/// Two rules for one path execute it in two ways.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{left}\" and \"{right}\" execute the same path in two ways")]
pub struct ExecConflict {
    left: Access,
    right: Access,
}

/// What stands behind the last colon of an addition is meant for an access, and is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "\"{meant}\" is not an access (letters of r w a k l m and one execute mode); for a file whose name ends in \":{meant}\" write {}:rwk",
    Printable(.text)
)]
pub struct NotAnAccess {
    text: String,
    meant: String,
}

/// Longest text that is taken for an access, in bytes.
const MEANT: usize = 5;

/// What a person writes for a path or a pattern and what to allow there: `text`, and the access behind its last colon
/// if that is one, else [`Access::RWK`].
///
/// # Errors
/// [`NotAnAccess`]: few letters and commas stand behind the colon, as `ro` or `r,w`, which nobody means for a name.
pub fn split_access(text: &str) -> Result<(&str, Access), NotAnAccess> {
    let Some((path, meant)) = text.rsplit_once(':') else { return Ok((text, Access::RWK)) };
    if let Ok(access) = meant.parse() {
        return Ok((path, access));
    }
    let looks_meant = (1..=MEANT).contains(&meant.len())
        && meant.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b',');
    if looks_meant {
        Err(NotAnAccess { text: text.to_owned(), meant: meant.to_owned() })
    } else {
        Ok((text, Access::RWK))
    }
}

impl Access {
    /// `r`
    pub const R: Self = Self::of(READ);
    /// `w`
    pub const W: Self = Self::of(WRITE);
    /// `a`: append only
    pub const A: Self = Self::of(APPEND);
    /// `rw`
    pub const RW: Self = Self::of(READ | WRITE);
    /// `rk`
    pub const RK: Self = Self::of(READ | LOCK);
    /// `rwk`
    pub const RWK: Self = Self::of(READ | WRITE | LOCK);
    /// `rwkl`
    pub const RWKL: Self = Self::of(READ | WRITE | LOCK | LINK);
    /// `rm`
    pub const RM: Self = Self::of(READ | MAP);
    /// `rmix`: what a hypervisor needs of its own program file
    pub const RMIX: Self = Self { bits: READ | MAP, exec: Some(Exec::Ix) };

    const fn of(bits: u8) -> Self {
        Self { bits, exec: None }
    }

    /// Whether the set lets the file's content or metadata change.
    pub fn writes(self) -> bool {
        self.bits & (WRITE | APPEND | LINK) != 0
    }

    /// How the path may be executed, if at all.
    pub fn exec(self) -> Option<Exec> {
        self.exec
    }

    /// Everything that either set allows.
    ///
    /// # Errors
    /// [`ExecConflict`]: both execute, in different ways, which the parser refuses.
    pub fn union(self, other: Self) -> Result<Self, ExecConflict> {
        let exec = match (self.exec, other.exec) {
            (Some(left), Some(right)) if left != right => {
                return Err(ExecConflict { left: self, right: other });
            }
            (left, right) => left.or(right),
        };
        let mut bits = self.bits | other.bits;
        if bits & WRITE != 0 {
            bits &= !APPEND;
        }
        Ok(Self { bits, exec })
    }

    /// Whether anything that `other` allows is allowed here too.
    pub fn overlaps(self, other: Self) -> bool {
        // Who may write may append.
        let all = |access: Self| access.bits | if access.bits & WRITE == 0 { 0 } else { APPEND };
        all(self) & all(other) != 0 || (self.exec.is_some() && other.exec.is_some())
    }

    /// Whether everything that `other` allows is allowed here too.
    pub fn includes(self, other: Self) -> bool {
        self.union(other) == Ok(self)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, bit) in LETTERS {
            if self.bits & bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        if let Some((letters, _)) = EXECS.iter().find(|(_, exec)| Some(*exec) == self.exec) {
            f.write_str(letters)?;
        }
        Ok(())
    }
}

impl FromStr for Access {
    type Err = AccessError;
    fn from_str(text: &str) -> Result<Self, AccessError> {
        let error = || AccessError(text.to_owned());
        let (letters, exec) = EXECS
            .iter()
            .find_map(|(suffix, exec)| text.strip_suffix(suffix).map(|rest| (rest, Some(*exec))))
            .unwrap_or((text, None));
        let mut bits = 0;
        for c in letters.chars() {
            let (_, bit) = LETTERS.iter().find(|(letter, _)| *letter == c).ok_or_else(error)?;
            if bits & bit != 0 {
                return Err(error());
            }
            bits |= bit;
        }
        if (bits == 0 && exec.is_none()) || bits & (WRITE | APPEND) == WRITE | APPEND {
            return Err(error());
        }
        Ok(Self { bits, exec })
    }
}

impl TryFrom<String> for Access {
    type Error = AccessError;
    fn try_from(text: String) -> Result<Self, AccessError> {
        text.parse()
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        access.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_out_in_canonical_order() {
        for (given, canonical) in
            [("kwr", "rwk"), ("rmix", "rmix"), ("lkwr", "rwkl"), ("PUx", "PUx"), ("mrpix", "rmpix")]
        {
            assert_eq!(given.parse::<Access>().unwrap().to_string(), canonical);
        }
        for bad in ["", "z", "rr", "wa", "R", "r w", "ixr", "rixpx", "é"] {
            assert!(bad.parse::<Access>().is_err(), "{bad}");
        }
    }

    #[test]
    fn union_lets_w_swallow_a_and_refuses_two_exec_modes() {
        assert_eq!(Access::W.union(Access::A).unwrap(), Access::W);
        assert!(Access::RW.includes(Access::A));
        assert!(!Access::A.includes(Access::W));
        let px: Access = "px".parse().unwrap();
        assert!(Access::RMIX.union(px).is_err());
    }

    #[test]
    fn accesses_overlap_where_they_have_a_letter_or_an_execution_in_common() {
        let overlap = |a: &str, b: &str| a.parse::<Access>().unwrap().overlaps(b.parse().unwrap());
        for (a, b) in [("rw", "w"), ("w", "rwk"), ("a", "w"), ("w", "a"), ("x", "rix"), ("rk", "k")] {
            assert!(overlap(a, b), "{a} {b}");
        }
        for (a, b) in [("w", "rk"), ("rk", "w"), ("x", "rw"), ("l", "rwk")] {
            assert!(!overlap(a, b), "{a} {b}");
        }
    }

    #[test]
    fn what_stands_behind_the_last_colon_is_an_access_or_part_of_the_name() {
        for (text, path, access) in [
            ("/srv/a:r", "/srv/a", "r"),
            ("/srv/a", "/srv/a", "rwk"),
            ("/srv/a:b1", "/srv/a:b1", "rwk"),
            ("/srv/a:b:rk", "/srv/a:b", "rk"),
            ("/srv/a:ro:rwk", "/srv/a:ro", "rwk"),
            ("/srv/a:", "/srv/a:", "rwk"),
            ("/srv/a:b/c", "/srv/a:b/c", "rwk"),
            ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "rwk"),
            ("/srv/a:backup", "/srv/a:backup", "rwk"),
        ] {
            let (split, found) = split_access(text).unwrap();
            assert_eq!((split, found.to_string().as_str()), (path, access), "{text}");
        }
        // A wrong access granted the file of that name, which is none, for writing.
        for wrong in ["/srv/a:ro", "/srv/a:r,w", "/srv/a:RW", "/srv/a:b", "/srv/a:rwkx,"] {
            assert!(split_access(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            split_access("/srv/x:ro").unwrap_err().to_string(),
            "\"ro\" is not an access (letters of r w a k l m and one execute mode); for a file whose name ends in \":ro\" write /srv/x:ro:rwk"
        );
    }
}
