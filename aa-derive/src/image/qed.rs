//! QEMU enhanced disk (QEMU, `docs/interop/qed_spec.rst`; fields little-endian).

use super::reader::{le32, le64, name, size};
use super::{BackingFormat, BackingRef, Format, Header, HeaderError, MAX_NAME, Reader, no_magic};

/// Feature bits.
const HAS_BACKING: u64 = 1;
const BACKING_IS_RAW: u64 = 4;

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let head = image.up_to(0, 64)?;
    if !head.starts_with(b"QED\0") {
        return Err(no_magic(Format::Qed));
    }
    let features = le64(&head, 16)?;
    if features & HAS_BACKING == 0 {
        return Ok(Header::plain(Format::Qed));
    }
    let header_bytes = u64::from(le32(&head, 4)?)
        .checked_mul(u64::from(le32(&head, 12)?))
        .ok_or(HeaderError::Range { field: "header_size" })?;
    let offset = le32(&head, 56)?;
    let len = le32(&head, 60)?;
    let field = "backing file name";
    if size(len) > MAX_NAME {
        return Err(HeaderError::TooLong { field, len: len.into(), max: MAX_NAME });
    }
    if u64::from(offset).checked_add(u64::from(len)).is_none_or(|end| end > header_bytes) {
        return Err(HeaderError::Range { field: "backing_filename_offset" });
    }
    let text = name(&image.exact(u64::from(offset), size(len))?, field)?;
    let format = if features & BACKING_IS_RAW != 0 {
        BackingFormat::Declared(Format::Raw)
    } else {
        BackingFormat::NotRaw
    };
    Ok(Header { backing: text.map(|text| BackingRef { text, format }), ..Header::plain(Format::Qed) })
}
