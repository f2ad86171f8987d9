//! VDI disks (QEMU, `block/vdi.c`; fields little-endian).
//!
//! A parent is known by its UUID only, and QEMU refuses an image that has one.

use super::reader::{array, le32};
use super::{Format, Header, HeaderError, Reader, no_magic};

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let head = image.up_to(0, 512)?;
    if le32(&head, 64) != Ok(0xbeda_107f) {
        return Err(no_magic(Format::Vdi));
    }
    let version = le32(&head, 68)?;
    if version != 0x1_0001 {
        return Err(HeaderError::Version { format: Format::Vdi, version });
    }
    let parent: [u8; 16] = array(&head, 440)?;
    let unread_parent = (parent != [0; 16]).then(|| {
        format!("the image with UUID {:032x}, in the order of its bytes", u128::from_be_bytes(parent))
    });
    Ok(Header { unread_parent, ..Header::plain(Format::Vdi) })
}
