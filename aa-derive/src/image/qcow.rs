//! QEMU's first copy-on-write format (QEMU, `block/qcow.c`; fields big-endian).
//!
//! It has no place for the backing file's format.

use super::reader::{be32, be64, name, size};
use super::{BackingFormat, BackingRef, Format, Header, HeaderError, MAX_NAME, Reader, no_magic};

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let head = image.up_to(0, 48)?;
    if !head.starts_with(b"QFI\xfb") {
        return Err(no_magic(Format::Qcow));
    }
    let version = be32(&head, 4)?;
    if version != 1 {
        return Err(HeaderError::Version { format: Format::Qcow, version });
    }
    let offset = be64(&head, 8)?;
    let len = be32(&head, 16)?;
    if offset == 0 || len == 0 {
        return Ok(Header::plain(Format::Qcow));
    }
    if size(len) > MAX_NAME {
        return Err(HeaderError::TooLong { field: "backing file name", len: len.into(), max: MAX_NAME });
    }
    let backing = name(&image.exact(offset, size(len))?, "backing file name")?;
    Ok(Header {
        backing: backing.map(|text| BackingRef { text, format: BackingFormat::Absent }),
        ..Header::plain(Format::Qcow)
    })
}
