//! Compiled policy: which profiles a blob holds, and the hash that the kernel publishes for each.
//!
//! The format is the tagged stream that `security/apparmor/policy_unpack.c` of Linux reads.
//! Nothing is taken out of it but names, versions, modes and borders.

use aa_contract::text::Printable;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Why bytes are not compiled policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlobError {
    /// The stream ends inside an item.
    #[error("the stream ends inside an item, at byte {0}")]
    Truncated(usize),
    /// Another item than the format has here.
    #[error("no {wanted} at byte {at}")]
    Unexpected {
        /// What should stand there.
        wanted: &'static str,
        /// Where, in bytes from the start.
        at: usize,
    },
    /// There is no profile at all.
    #[error("it is empty")]
    Empty,
    /// It is for another policy namespace.
    #[error("it is for a namespace")]
    Namespace,
}

/// One profile of a blob; a child is a profile of its own, called `parent//child`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compiled<'a> {
    /// Its name.
    pub name: &'a str,
    version: u32,
    /// As the parser numbers it: 0 enforce, 1 complain, 2 kill, 3 unconfined, 4 prompt.
    mode: u32,
    /// From after the version header to the end.
    body: &'a [u8],
}

/// A profile's hash as the kernel publishes it, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hash {
    /// `sha1`, Linux before 6.8
    Sha1(String),
    /// `sha256`
    Sha256(String),
}

impl Compiled<'_> {
    /// Whether `hash`, which the kernel published, is that of this profile: the hash over the
    /// version as four little-endian bytes and the profile after its version header.
    pub fn has(&self, hash: &Hash) -> bool {
        match hash {
            Hash::Sha1(published) => hex(&self.digest::<Sha1>()) == *published,
            Hash::Sha256(published) => self.sha256() == *published,
        }
    }

    /// Its mode, if that is neither enforce nor kill, by which what is not allowed does not happen, nor complain.
    pub(crate) fn lax_mode(&self) -> Option<&'static str> {
        match self.mode {
            0..=2 => None,
            3 => Some("unconfined"),
            4 => Some("prompt"),
            _ => Some("that is not known"),
        }
    }

    /// The hash that a kernel since Linux 6.8 publishes of it.
    pub fn sha256(&self) -> String {
        hex(&self.digest::<Sha256>())
    }

    fn digest<D: Digest>(&self) -> Vec<u8> {
        D::new().chain_update(self.version.to_le_bytes()).chain_update(self.body).finalize().to_vec()
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The profiles of a blob, in order.
///
/// # Errors
/// [`BlobError`]: the bytes are not a whole stream of profiles for the current namespace.
pub fn parse(blob: &[u8]) -> Result<Vec<Compiled<'_>>, BlobError> {
    let mut profiles = Vec::new();
    let mut cursor = Cursor { blob, at: 0 };
    while cursor.at < blob.len() {
        if cursor.name()? != b"version" {
            return Err(BlobError::Unexpected { wanted: "version", at: cursor.at });
        }
        let Item::U32(version) = cursor.item()? else {
            return Err(BlobError::Unexpected { wanted: "version number", at: cursor.at });
        };
        let start = cursor.at;
        match cursor.name()? {
            b"profile" => {}
            b"namespace" => return Err(BlobError::Namespace),
            _ => return Err(BlobError::Unexpected { wanted: "profile", at: cursor.at }),
        }
        if !matches!(cursor.item()?, Item::Open) {
            return Err(BlobError::Unexpected { wanted: "struct", at: cursor.at });
        }
        let name = match cursor.item()? {
            Item::Text(name) => std::str::from_utf8(name)
                .map_err(|_| BlobError::Unexpected { wanted: "text", at: cursor.at })?,
            _ => return Err(BlobError::Unexpected { wanted: "profile name", at: cursor.at }),
        };
        let mut depth = 1_usize;
        let mut mode = 0;
        // How many numbers of the profile's own flags have been read: the second is the mode.
        let mut flags = None;
        while depth > 0 {
            match cursor.item()? {
                Item::Open => depth += 1,
                Item::Close => {
                    depth -= 1;
                    flags = None;
                }
                Item::Name(name) if depth == 1 => flags = (name == b"flags").then_some(0),
                Item::U32(number) => {
                    flags = flags.map(|read| read + 1);
                    if flags == Some(2) {
                        mode = number;
                    }
                }
                Item::Name(_) | Item::Text(_) | Item::Blob(_) | Item::Other => {}
            }
        }
        let body = blob.get(start..cursor.at).unwrap_or_default();
        profiles.push(Compiled { name, version, mode, body });
    }
    if profiles.is_empty() { Err(BlobError::Empty) } else { Ok(profiles) }
}

/// The names of a blob's profiles, for people.
pub(crate) fn names(profiles: &[Compiled<'_>]) -> String {
    let names: Vec<String> =
        profiles.iter().take(8).map(|profile| format!("\"{}\"", Printable(profile.name))).collect();
    names.join(", ")
}

/// One item of the stream.
pub(crate) enum Item<'a> {
    U32(u32),
    /// The name of the item that follows.
    Name(&'a [u8]),
    Text(&'a [u8]),
    Blob(&'a [u8]),
    /// A struct, list or array opens.
    Open,
    Close,
    Other,
}

/// Reads a stream item by item.
pub(crate) struct Cursor<'a> {
    pub(crate) blob: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BlobError> {
        let end = self.at.checked_add(length).ok_or(BlobError::Truncated(self.at))?;
        let bytes = self.blob.get(self.at..end).ok_or(BlobError::Truncated(self.at))?;
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self, width: usize) -> Result<u64, BlobError> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A text with its 16-bit length; the closing NUL is left out.
    fn text(&mut self) -> Result<&'a [u8], BlobError> {
        let length = usize::try_from(self.number(2)?).unwrap_or(usize::MAX);
        let text = self.take(length)?;
        Ok(text.strip_suffix(b"\0").unwrap_or(text))
    }

    fn name(&mut self) -> Result<&'a [u8], BlobError> {
        match self.number(1)? {
            4 => self.text(),
            _ => Err(BlobError::Unexpected { wanted: "name", at: self.at - 1 }),
        }
    }

    pub(crate) fn item(&mut self) -> Result<Item<'a>, BlobError> {
        Ok(match self.number(1)? {
            0 => self.take(1).map(|_| Item::Other)?,
            1 => self.take(2).map(|_| Item::Other)?,
            2 => Item::U32(u32::try_from(self.number(4)?).unwrap_or(u32::MAX)),
            3 => self.take(8).map(|_| Item::Other)?,
            4 => Item::Name(self.text()?),
            5 => Item::Text(self.text()?),
            6 => {
                let length = usize::try_from(self.number(4)?).unwrap_or(usize::MAX);
                Item::Blob(self.take(length)?)
            }
            7 | 9 => Item::Open,
            11 => self.take(2).map(|_| Item::Open)?,
            8 | 10 | 12 => Item::Close,
            _ => return Err(BlobError::Unexpected { wanted: "item", at: self.at - 1 }),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small stream: one profile with an array and a blob in it.
    pub(crate) fn sample(name: &str, salt: u8) -> Vec<u8> {
        let mut blob = b"\x04\x08\0version\0\x02\x07\x20\x07\x02\x04\x08\0profile\0\x07\x05".to_vec();
        blob.extend(u16::try_from(name.len() + 1).unwrap().to_le_bytes());
        blob.extend(name.as_bytes());
        blob.extend(b"\0\x04\x06\0flags\0\x07\x02\0\0\0\0\x08\x0b\x02\0\x01\x01\x01\x03\x01\x02\x03\x04\x05\x06\x07\x08\x0c");
        blob.extend([6, 3, 0, 0, 0, 8, salt, 8, 8]);
        blob
    }

    #[test]
    fn profiles_of_a_set_are_told_apart() {
        let mut blob = sample("a", 1);
        blob.extend(sample("a//b", 2));
        let profiles = parse(&blob).unwrap();
        assert_eq!(profiles.iter().map(|profile| profile.name).collect::<Vec<_>>(), ["a", "a//b"]);
        // The hash of a profile does not depend on its place in the set.
        let alone = sample("a//b", 2);
        let hash = Hash::Sha256(hex(&parse(&alone).unwrap()[0].digest::<Sha256>()));
        assert!(profiles[1].has(&hash));
        assert!(!profiles[0].has(&hash));
        let hash = Hash::Sha1(hex(&Sha1::digest([&0x0207_2007_u32.to_le_bytes(), &alone[16..]].concat())));
        assert!(profiles[1].has(&hash));
    }

    #[test]
    fn the_mode_is_the_second_number_of_the_profiles_own_flags() {
        let flags = |numbers: &[u32]| {
            let mut bytes = b"\x04\x06\0flags\0\x07".to_vec();
            for number in numbers {
                bytes.push(2);
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(b"\x08");
            bytes
        };
        let mode = |items: &[Vec<u8>]| {
            let head = b"\x04\x08\0version\0\x02\x07\x20\x07\x02\x04\x08\0profile\0\x07\x05\x02\0a\0";
            let blob = [head.as_slice(), &items.concat(), b"\x08"].concat();
            parse(&blob).unwrap()[0].lax_mode()
        };
        for enforced_or_told in [0, 1, 2] {
            assert_eq!(mode(&[flags(&[0, enforced_or_told, 0])]), None);
        }
        assert_eq!(mode(&[flags(&[0, 3, 0])]), Some("unconfined"));
        assert_eq!(mode(&[flags(&[0, 4])]), Some("prompt"));
        assert_eq!(mode(&[flags(&[9, 5, 9])]), Some("that is not known"));
        // Others' numbers, before, behind and within something else.
        let number = vec![2, 3, 0, 0, 0];
        let inside = [b"\x04\x02\0x\0\x07".as_slice(), &flags(&[3, 3, 3]), b"\x08"].concat();
        assert_eq!(mode(&[number.clone(), inside, flags(&[3, 0, 3]), number]), None);
    }

    #[test]
    fn no_cut_or_garbled_stream_passes_or_panics() {
        let blob = sample("a", 1);
        for cut in 0..blob.len() {
            assert!(parse(&blob[..cut]).is_err(), "{cut}");
        }
        let mut longer = blob.clone();
        longer.push(0);
        assert!(parse(&longer).is_err());
        assert_eq!(parse(b"profile x { }").unwrap_err(), BlobError::Unexpected { wanted: "name", at: 0 });
        for at in 0..blob.len() {
            for byte in 0..=255 {
                let mut other = blob.clone();
                other[at] = byte;
                let _ = parse(&other);
            }
        }
    }
}
