//! Virtual PC disks, «VHD» (Microsoft, Virtual Hard Disk Image Format Specification 1.0; fields big-endian).
//!
//! QEMU opens no parent of a differencing disk, so a parent is text for people. It must stay so: the first
//! sector of a fixed disk is the guest's own.

use super::reader::{array, be32, be64, size, utf16_for_people};
use super::{Format, Header, HeaderError, Reader, no_magic};

const COOKIE: &[u8] = b"conectix";
const DIFFERENCING: u32 = 4;
/// Parent locators: number, place in the dynamic header, longest text read, all in bytes.
const LOCATORS: usize = 8;
const LOCATORS_AT: usize = 576;
const LOCATOR_LEN: usize = 24;
const MAX_LOCATOR: usize = 4096;

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let head = image.up_to(0, 512)?;
    if !head.starts_with(COOKIE) {
        let footer = image.size().checked_sub(512).ok_or_else(|| no_magic(Format::Vpc))?;
        return if image.up_to(footer, 512)?.starts_with(COOKIE) {
            Ok(Header::plain(Format::Vpc))
        } else {
            Err(no_magic(Format::Vpc))
        };
    }
    let version = be32(&head, 12)?;
    if version != 0x1_0000 {
        return Err(HeaderError::Version { format: Format::Vpc, version });
    }
    let unread_parent =
        if be32(&head, 60)? == DIFFERENCING { Some(parent(image, be64(&head, 16)?)?) } else { None };
    Ok(Header { unread_parent, ..Header::plain(Format::Vpc) })
}

/// The parent's name out of the dynamic header at `offset`: a locator's text if there is one that can be
/// read, else the name without a directory.
fn parent(image: &mut Reader<'_>, offset: u64) -> Result<String, HeaderError> {
    let head = image.exact(offset, 1024)?;
    if !head.starts_with(b"cxsparse") {
        return Err(HeaderError::Range { field: "data offset" });
    }
    let mut best: Option<(u8, String)> = None;
    for entry in head.get(LOCATORS_AT..).unwrap_or_default().chunks_exact(LOCATOR_LEN).take(LOCATORS) {
        let rank = match &array::<4>(entry, 0)? {
            b"W2ru" => 0,
            b"MacX" => 1,
            b"W2ku" => 2,
            _ => continue,
        };
        let data = image.up_to(be64(entry, 16)?, size(be32(entry, 8)?).min(MAX_LOCATOR))?;
        let text = if rank == 1 {
            Some(String::from_utf8_lossy(&data).trim_end_matches('\0').to_owned())
                .filter(|text| !text.is_empty())
        } else {
            utf16_for_people(&data, u16::from_le_bytes)
        };
        if let Some(text) = text
            && best.as_ref().is_none_or(|(known, _)| rank < *known)
        {
            best = Some((rank, text));
        }
    }
    let plain = || utf16_for_people(head.get(64..576).unwrap_or_default(), u16::from_be_bytes);
    Ok(best
        .map(|(_, text)| text)
        .or_else(plain)
        .unwrap_or_else(|| "an image that it does not name".to_owned()))
}
