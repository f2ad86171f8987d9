//! VMDK disks (Virtual Disk Format 5.0, 2011; what QEMU opens of it: `block/vmdk.c`).
//!
//! A disk is a sparse extent with a descriptor inside, or a descriptor in a file of its own that lists the
//! extents; fields are little-endian. Whatever the name, a parent is a VMDK too: the format allows no other.

use super::reader::{le32, le64, name};
use super::{BackingFormat, BackingRef, Format, Header, HeaderError, Reader, no_magic};

const SECTOR: u64 = 512;
/// Where the descriptor lies inside of a sparse extent, and how much of it QEMU searches for the parent.
const EMBEDDED_AT: u64 = SECTOR;
const PARENT_WINDOW: usize = 20 * 512;
/// Longest descriptor that QEMU reads for the extents.
const MAX_DESCRIPTOR: usize = (1 << 20) - 1;
/// A disk of 8 TiB in pieces of 2 GiB.
const MAX_EXTENTS: usize = 4096;
/// Longest extent name that QEMU reads.
const MAX_EXTENT_NAME: usize = 511;

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let head = image.up_to(0, 512)?;
    if head.starts_with(b"COWD") {
        // An extent of the old ESX kind has no descriptor.
        return Ok(Header::plain(Format::Vmdk));
    }
    if !head.starts_with(b"KDMV") {
        let descriptor = image.up_to(0, MAX_DESCRIPTOR)?;
        if !is_descriptor(&descriptor) {
            return Err(no_magic(Format::Vmdk));
        }
        let backing = parent(&image.up_to(0, PARENT_WINDOW)?)?;
        return Ok(Header { backing, extents: extents(&descriptor)?, ..Header::plain(Format::Vmdk) });
    }
    let version = le32(&head, 4)?;
    if !(1..=3).contains(&version) {
        return Err(HeaderError::Version { format: Format::Vmdk, version });
    }
    let backing = parent(&image.up_to(EMBEDDED_AT, PARENT_WINDOW)?)?;
    let mut header = Header { backing, ..Header::plain(Format::Vmdk) };
    // The descriptor of a sparse extent names the extent itself, but for a header of no capacity.
    let descriptor_at = le64(&head, 28)?;
    if le64(&head, 12)? == 0 && descriptor_at != 0 {
        let offset =
            descriptor_at.checked_mul(SECTOR).ok_or(HeaderError::Range { field: "descriptorOffset" })?;
        header.extents = extents(&image.up_to(offset, MAX_DESCRIPTOR)?)?;
    }
    Ok(header)
}

/// Whether a text is a descriptor: a version line after nothing but comments and blank lines.
fn is_descriptor(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#"))
        .is_some_and(|line| {
            line.strip_prefix(b"version=").is_some_and(|number| matches!(number, b"1" | b"2" | b"3"))
        })
}

/// The parent that a descriptor names.
fn parent(descriptor: &[u8]) -> Result<Option<BackingRef>, HeaderError> {
    const KEY: &[u8] = b"parentFileNameHint=\"";
    let text = descriptor.split(|byte| *byte == 0).next().unwrap_or_default();
    let Some(at) = text.windows(KEY.len()).position(|window| window == KEY) else { return Ok(None) };
    let value = text.get(at.saturating_add(KEY.len())..).unwrap_or_default();
    let Some(len) = value.iter().position(|byte| *byte == b'"') else {
        return Err(HeaderError::Range { field: "parentFileNameHint" });
    };
    let (field, max) = ("parentFileNameHint", super::MAX_NAME);
    if len > max {
        return Err(HeaderError::TooLong { field, len: u64::try_from(len).unwrap_or(u64::MAX), max });
    }
    let text = name(value.get(..len).unwrap_or_default(), field)?;
    Ok(text.map(|text| BackingRef { text, format: BackingFormat::Declared(Format::Vmdk) }))
}

/// The files of the extent lines that QEMU opens: `RW <sectors> <type> "<file>" [<offset>]`.
fn extents(descriptor: &[u8]) -> Result<Vec<String>, HeaderError> {
    let text = descriptor.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut found = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(file) = extent_file(line) else { continue };
        let field = "extent file name";
        if file.len() > MAX_EXTENT_NAME {
            let len = u64::try_from(file.len()).unwrap_or(u64::MAX);
            return Err(HeaderError::TooLong { field, len, max: MAX_EXTENT_NAME });
        }
        if let Some(file) = name(file, field)? {
            if found.len() == MAX_EXTENTS {
                return Err(HeaderError::TooManyExtents(MAX_EXTENTS));
            }
            found.push(file);
        }
    }
    Ok(found)
}

fn extent_file(line: &[u8]) -> Option<&[u8]> {
    let mut parts = line.splitn(3, |byte| *byte == b'"');
    let mut words = parts.next()?.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let file = parts.next()?;
    parts.next()?;
    let known: [&[u8]; 5] = [b"FLAT", b"SPARSE", b"VMFS", b"VMFSSPARSE", b"SESPARSE"];
    let sectors: i64 = {
        let access = words.next()?;
        let number = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        if access != b"RW" {
            return None;
        }
        number
    };
    let kind = words.next()?;
    (sectors > 0 && known.contains(&kind)).then_some(file)
}
