//! The user-mode Linux copy-on-write format, version 2: libvirt still reads it, QEMU no longer does.

use super::reader::{be32, name};
use super::{BackingFormat, BackingRef, Format, Header, HeaderError, Reader, no_magic};

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let head = image.up_to(0, 8)?;
    if !head.starts_with(b"OOOM") {
        return Err(no_magic(Format::Cow));
    }
    let version = be32(&head, 4)?;
    if version != 2 {
        return Err(HeaderError::Version { format: Format::Cow, version });
    }
    let backing = name(&image.exact(8, 1024)?, "backing_file")?;
    Ok(Header {
        backing: backing.map(|text| BackingRef { text, format: BackingFormat::Absent }),
        ..Header::plain(Format::Cow)
    })
}
