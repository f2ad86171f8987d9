//! qcow2 versions 2 and 3 (QEMU, `docs/interop/qcow2.rst`; fields big-endian).

use super::reader::{be32, be64, name, size};
use super::{BackingFormat, BackingRef, Format, Header, HeaderError, MAX_NAME, Reader, no_magic};

/// Header of version 2, and the least of version 3, in bytes.
const V2_LEN: u32 = 72;
const V3_LEN: u32 = 104;
/// A cluster has 512 bytes to 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Incompatible feature bit 2: the data is in another file.
const EXTERNAL_DATA_FILE: u64 = 1 << 2;
/// Header extensions.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
/// Longest format name that QEMU takes.
const MAX_FORMAT: usize = 15;

pub(super) fn read(image: &mut Reader<'_>) -> Result<Header, HeaderError> {
    let head = image.up_to(0, size(V3_LEN))?;
    if !head.starts_with(b"QFI\xfb") {
        return Err(no_magic(Format::Qcow2));
    }
    let version = be32(&head, 4)?;
    let (header_len, incompatible) = match version {
        2 => (V2_LEN, 0),
        3 => (be32(&head, 100)?, be64(&head, 72)?),
        _ => return Err(HeaderError::Version { format: Format::Qcow2, version }),
    };
    let cluster_bits = be32(&head, 20)?;
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(HeaderError::Range { field: "cluster_bits" });
    }
    let cluster = 1u64.checked_shl(cluster_bits).ok_or(HeaderError::Range { field: "cluster_bits" })?;
    if u64::from(header_len) > cluster || (version == 3 && header_len < V3_LEN) {
        return Err(HeaderError::Range { field: "header_length" });
    }
    // Header, extensions and name lie in the first cluster.
    let name_offset = be64(&head, 8)?;
    let name_len = be32(&head, 16)?;
    let room = cluster.checked_sub(name_offset).ok_or(HeaderError::Range { field: "backing_file_offset" })?;
    let extensions_end = if name_offset == 0 { cluster } else { name_offset };
    let extensions = read_extensions(image, u64::from(header_len), extensions_end)?;

    let mut header = Header::plain(Format::Qcow2);
    if name_offset != 0 && name_len != 0 {
        let field = "backing file name";
        let max = MAX_NAME.min(usize::try_from(room).unwrap_or(MAX_NAME));
        if size(name_len) > max {
            return Err(HeaderError::TooLong { field, len: name_len.into(), max });
        }
        let text = name(&image.exact(name_offset, size(name_len))?, field)?;
        header.backing = text.map(|text| BackingRef { text, format: extensions.backing_format });
    }
    if incompatible & EXTERNAL_DATA_FILE != 0 {
        header.data_file = Some(extensions.data_file.ok_or(HeaderError::DataFileUnnamed)?);
    }
    Ok(header)
}

struct Extensions {
    backing_format: BackingFormat,
    data_file: Option<String>,
}

/// Walks the extensions; each starts on a multiple of 8 bytes from the first.
fn read_extensions(image: &mut Reader<'_>, start: u64, end: u64) -> Result<Extensions, HeaderError> {
    let mut found = Extensions { backing_format: BackingFormat::Absent, data_file: None };
    let mut at = start;
    while at < end {
        let head = image.up_to(at, 8)?;
        if head.len() < 8 {
            // A header of one short file and no end marker: nothing follows.
            break;
        }
        let kind = be32(&head, 0)?;
        let len = be32(&head, 4)?;
        if kind == END {
            break;
        }
        let data = at.checked_add(8).ok_or(HeaderError::Range { field: "header extension" })?;
        let room = end.checked_sub(data).ok_or(HeaderError::Range { field: "header extension" })?;
        if u64::from(len) > room {
            return Err(HeaderError::Range { field: "header extension length" });
        }
        match kind {
            BACKING_FORMAT => {
                if size(len) > MAX_FORMAT {
                    let (field, len) = ("backing file format", len.into());
                    return Err(HeaderError::TooLong { field, len, max: MAX_FORMAT });
                }
                let text = name(&image.exact(data, size(len))?, "backing file format")?;
                found.backing_format = match text {
                    None => BackingFormat::Absent,
                    Some(text) => {
                        Format::from_name(&text).map_or(BackingFormat::Unknown(text), BackingFormat::Declared)
                    }
                };
            }
            DATA_FILE => {
                if size(len) > MAX_NAME {
                    let (field, len) = ("external data file name", len.into());
                    return Err(HeaderError::TooLong { field, len, max: MAX_NAME });
                }
                found.data_file = name(&image.exact(data, size(len))?, "external data file name")?;
            }
            _ => {}
        }
        at = u64::from(len)
            .checked_next_multiple_of(8)
            .and_then(|padded| data.checked_add(padded))
            .ok_or(HeaderError::Range { field: "header extension length" })?;
    }
    Ok(found)
}
