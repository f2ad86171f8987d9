//! Hyper-V disks, «VHDX» (Microsoft, [MS-VHDX]; fields little-endian).
//!
//! QEMU refuses a disk with a parent, so a parent is text for people.

use super::reader::{array, le32, le64, size, utf16_for_people};
use super::{Format, Header, HeaderError, Reader, no_magic};

/// The first of two copies of the region table.
const REGION_TABLE: u64 = 192 * 1024;
/// GUIDs as they lie on disk: metadata region, parent locator item.
const METADATA_REGION: [u8; 16] = 0x06a2_7c8b_9047_9a4b_b8fe_575f_050f_886e_u128.to_be_bytes();
const PARENT_LOCATOR: [u8; 16] = 0x2d5f_d3a8_0bb3_4d45_abf7_d3d8_4834_ab0c_u128.to_be_bytes();
/// Both tables have at most 2,047 entries of 32 bytes.
const MAX_ENTRIES: usize = 2047;
/// Longest locator that is read, in bytes: keys and values of some 16-bit length each.
const MAX_LOCATOR: usize = 64 * 1024;

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    if image.up_to(0, 8)? != b"vhdxfile" {
        return Err(no_magic(Format::Vhdx));
    }
    Ok(Header { unread_parent: parent(image)?, ..Header::plain(Format::Vhdx) })
}

fn parent(image: &mut Reader<'_>) -> Result<Option<String>, HeaderError> {
    let regions = image.exact(REGION_TABLE, 16)?;
    if !regions.starts_with(b"regi") {
        return Err(HeaderError::Range { field: "region table" });
    }
    let entries = size(le32(&regions, 8)?).min(MAX_ENTRIES);
    let Some(region) = find(image, REGION_TABLE, 16, entries, METADATA_REGION)? else {
        return Err(HeaderError::Range { field: "metadata region" });
    };
    let base = le64(&region, 16)?;
    let table = image.exact(base, 32)?;
    if !table.starts_with(b"metadata") {
        return Err(HeaderError::Range { field: "metadata table" });
    }
    let entries = usize::from(u16::from_le_bytes(array(&table, 10)?)).min(MAX_ENTRIES);
    let Some(item) = find(image, base, 32, entries, PARENT_LOCATOR)? else { return Ok(None) };
    let at = base
        .checked_add(u64::from(le32(&item, 16)?))
        .ok_or(HeaderError::Range { field: "parent locator offset" })?;
    let locator = image.up_to(at, size(le32(&item, 20)?).min(MAX_LOCATOR))?;
    Ok(Some(describe(&locator).unwrap_or_else(|| "an image that it does not name".to_owned())))
}

/// The 32-byte table entry that starts with `guid`; the entries follow a head of `head` bytes at `base`.
fn find(
    image: &mut Reader<'_>,
    base: u64,
    head: u64,
    entries: usize,
    guid: [u8; 16],
) -> Result<Option<Vec<u8>>, HeaderError> {
    let start = base.checked_add(head).ok_or(HeaderError::Range { field: "table offset" })?;
    let table = image.up_to(start, entries.saturating_mul(32))?;
    Ok(table.chunks_exact(32).find(|entry| entry.starts_with(&guid)).map(<[u8]>::to_vec))
}

/// The locator's relative path, or else an absolute one: key and value pairs in UTF-16.
fn describe(locator: &[u8]) -> Option<String> {
    let pairs = usize::from(u16::from_le_bytes(array(locator, 18).ok()?));
    let text =
        |at: usize, len: usize| utf16_for_people(locator.get(at..at.checked_add(len)?)?, u16::from_le_bytes);
    let entries: Vec<(String, String)> = locator
        .get(20..)?
        .chunks_exact(12)
        .take(pairs)
        .filter_map(|entry| {
            let place = |at| le32(entry, at).ok().map(size);
            let len = |at| array(entry, at).ok().map(u16::from_le_bytes).map(usize::from);
            Some((text(place(0)?, len(8)?)?, text(place(4)?, len(10)?)?))
        })
        .collect();
    ["relative_path", "absolute_win32_path", "volume_path"]
        .iter()
        .find_map(|wanted| entries.iter().find(|(key, _)| key == wanted))
        .map(|(_, value)| value.clone())
}
