#![expect(clippy::arithmetic_side_effects, reason = "the numbers are the tests' own")]

use std::cell::Cell;
use std::io;

use proptest::prelude::*;

use super::*;

fn put(bytes: &mut Vec<u8>, at: usize, value: &[u8]) {
    if bytes.len() < at + value.len() {
        bytes.resize(at + value.len(), 0);
    }
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn be(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap().to_be_bytes()
}

fn le(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap().to_le_bytes()
}

/// A qcow2 header with clusters of 64 KiB: extensions padded to 8 bytes, then the backing name.
pub(crate) fn qcow2(version: u32, backing: Option<(&str, Option<&str>)>, data: Option<&str>) -> Vec<u8> {
    let mut bytes = b"QFI\xfb".to_vec();
    put(&mut bytes, 4, &version.to_be_bytes());
    put(&mut bytes, 20, &be(16));
    let mut at = if version == 2 { 72 } else { 104 };
    put(&mut bytes, at - 4, &[0; 4]);
    if version == 3 {
        put(&mut bytes, 72, &if data.is_some() { 4u64 } else { 0 }.to_be_bytes());
        put(&mut bytes, 100, &be(104));
    }
    let format = backing.and_then(|(_, format)| format);
    for (kind, text) in [(0xe279_2aca_u32, format), (0x4441_5441, data)] {
        let Some(text) = text else { continue };
        put(&mut bytes, at, &kind.to_be_bytes());
        put(&mut bytes, at + 4, &be(text.len()));
        put(&mut bytes, at + 8, text.as_bytes());
        at += 8 + text.len().next_multiple_of(8);
    }
    put(&mut bytes, at, &[0; 8]);
    at += 8;
    if let Some((name, _)) = backing {
        put(&mut bytes, 8, &(at as u64).to_be_bytes());
        put(&mut bytes, 16, &be(name.len()));
        put(&mut bytes, at, name.as_bytes());
    }
    bytes
}

pub(super) fn qed(backing: Option<(&str, bool)>) -> Vec<u8> {
    let mut bytes = b"QED\0".to_vec();
    put(&mut bytes, 4, &le(65536));
    put(&mut bytes, 12, &le(1));
    put(&mut bytes, 60, &[0; 4]);
    if let Some((name, raw)) = backing {
        put(&mut bytes, 16, &if raw { 5u64 } else { 1 }.to_le_bytes());
        put(&mut bytes, 56, &le(64));
        put(&mut bytes, 60, &le(name.len()));
        put(&mut bytes, 64, name.as_bytes());
    }
    bytes
}

fn qcow(backing: &str) -> Vec<u8> {
    let mut bytes = b"QFI\xfb\0\0\0\x01".to_vec();
    put(&mut bytes, 8, &100_000u64.to_be_bytes());
    put(&mut bytes, 16, &be(backing.len()));
    put(&mut bytes, 100_000, backing.as_bytes());
    bytes
}

pub(super) fn vmdk_descriptor(parent: Option<&str>, extents: &[&str]) -> Vec<u8> {
    let mut text = "# Disk DescriptorFile\nversion=1\nCID=1\ncreateType=\"twoGbMaxExtentFlat\"\n".to_owned();
    if let Some(parent) = parent {
        text.extend(["parentFileNameHint=\"", parent, "\"\n"]);
    }
    for extent in extents {
        text.extend(["RW 4192256 FLAT \"", extent, "\" 0\n"]);
    }
    text.into_bytes()
}

fn vmdk_sparse(capacity: u64, descriptor: &[u8]) -> Vec<u8> {
    let mut bytes = b"KDMV\x01\0\0\0".to_vec();
    put(&mut bytes, 12, &capacity.to_le_bytes());
    put(&mut bytes, 28, &1u64.to_le_bytes());
    put(&mut bytes, 512, descriptor);
    bytes
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn vpc_differencing() -> Vec<u8> {
    let mut bytes = b"conectix".to_vec();
    put(&mut bytes, 12, &be(0x1_0000));
    put(&mut bytes, 16, &512u64.to_be_bytes());
    put(&mut bytes, 60, &be(4));
    put(&mut bytes, 512, b"cxsparse");
    put(&mut bytes, 512 + 64, &utf16("p.vhd").chunks(2).flat_map(|c| [c[1], c[0]]).collect::<Vec<u8>>());
    put(&mut bytes, 512 + 1020, &[0; 4]);
    for (number, code, text) in [(0, b"W2ku", "C:\\p.vhd"), (1, b"W2ru", ".\\p.vhd")] {
        let (entry, at) = (512 + 576 + number * 24, 2048 + number * 512);
        put(&mut bytes, entry, code);
        put(&mut bytes, entry + 8, &be(utf16(text).len()));
        put(&mut bytes, entry + 16, &(at as u64).to_be_bytes());
        put(&mut bytes, at, &utf16(text));
    }
    bytes
}

fn vhdx_differencing() -> Vec<u8> {
    const METADATA: usize = 2 << 20;
    let mut bytes = b"vhdxfile".to_vec();
    put(&mut bytes, 192 * 1024, b"regi");
    put(&mut bytes, 192 * 1024 + 8, &le(1));
    let region = 0x06a2_7c8b_9047_9a4b_b8fe_575f_050f_886e_u128.to_be_bytes();
    put(&mut bytes, 192 * 1024 + 16, &region);
    put(&mut bytes, 192 * 1024 + 32, &(METADATA as u64).to_le_bytes());
    put(&mut bytes, 192 * 1024 + 48, &[0; 8]);
    put(&mut bytes, METADATA, b"metadata");
    put(&mut bytes, METADATA + 10, &[1, 0]);
    let item = 0x2d5f_d3a8_0bb3_4d45_abf7_d3d8_4834_ab0c_u128.to_be_bytes();
    put(&mut bytes, METADATA + 32, &item);
    put(&mut bytes, METADATA + 48, &le(65536));
    let (key, value) = (utf16("relative_path"), utf16("..\\p.vhdx"));
    let locator = METADATA + 65536;
    put(&mut bytes, METADATA + 52, &le(32 + key.len() + value.len()));
    put(&mut bytes, METADATA + 56, &[0; 8]);
    put(&mut bytes, locator + 18, &[1, 0]);
    put(&mut bytes, locator + 20, &le(32));
    put(&mut bytes, locator + 24, &le(32 + key.len()));
    put(&mut bytes, locator + 28, &u16::try_from(key.len()).unwrap().to_le_bytes());
    put(&mut bytes, locator + 30, &u16::try_from(value.len()).unwrap().to_le_bytes());
    put(&mut bytes, locator + 32, &key);
    put(&mut bytes, locator + 32 + key.len(), &value);
    bytes
}

fn vdi() -> Vec<u8> {
    let mut bytes = vec![0; 512];
    put(&mut bytes, 64, &[0x7f, 0x10, 0xda, 0xbe, 1, 0, 1, 0]);
    bytes
}

fn cow(backing: &str) -> Vec<u8> {
    let mut bytes = b"OOOM\0\0\0\x02".to_vec();
    put(&mut bytes, 8, backing.as_bytes());
    put(&mut bytes, 1100, &[0]);
    bytes
}

fn header(format: Format, bytes: &[u8]) -> Result<Header, HeaderError> {
    let image = bytes.to_vec();
    read_header(format, &mut Reader::new(&image))
}

fn backing(format: Format, bytes: &[u8]) -> Option<(String, BackingFormat)> {
    header(format, bytes).unwrap().backing.map(|backing| (backing.text, backing.format))
}

#[test]
fn names_of_formats() {
    for (name, format) in NAMES {
        assert_eq!(Format::from_name(name), Some(format));
        assert_eq!(format.name(), name);
        let known = !matches!(name, "vhdx" | "parallels" | "luks");
        assert_eq!(Format::from_driver_type(name).is_some(), known, "{name}");
    }
    for name in ["auto", "none", "", "RAW", "nbd", "host_device"] {
        assert_eq!(Format::from_name(name), None);
    }
}

#[test]
fn content_is_told_by_magic_and_version() {
    let iso = {
        let mut bytes = qcow2(3, None, None);
        put(&mut bytes, 32769, b"CD001");
        bytes
    };
    let mut qcow2_v9 = qcow2(3, None, None);
    put(&mut qcow2_v9, 4, &be(9));
    for (bytes, wanted) in [
        (iso, Format::Iso),
        (vpc_differencing(), Format::Vpc),
        (vdi(), Format::Vdi),
        (b"WithouFreSpacExt".to_vec(), Format::Ploop),
        (cow(""), Format::Cow),
        (qcow(""), Format::Qcow),
        (qcow2(2, None, None), Format::Qcow2),
        (qcow2(3, None, None), Format::Qcow2),
        (qed(None), Format::Qed),
        (vmdk_sparse(1, b""), Format::Vmdk),
        (qcow2_v9, Format::Raw),
        (b"QFI\xfb".to_vec(), Format::Raw),
        (vmdk_descriptor(None, &[]), Format::Raw),
        (Vec::new(), Format::Raw),
    ] {
        assert_eq!(detect(&mut Reader::new(&bytes)), Ok(wanted));
    }
}

#[test]
fn qcow2_extensions_are_padded() {
    // An extension of 3 bytes before the data file: libvirt loses the data file here.
    for name in ["raw", "qcow2", "vmdk", "vdi"] {
        let bytes = qcow2(3, Some(("b.img", Some(name))), Some("d.img"));
        let read = header(Format::Qcow2, &bytes).unwrap();
        assert_eq!(read.data_file.as_deref(), Some("d.img"), "{name}");
        let declared = BackingFormat::Declared(Format::from_name(name).unwrap());
        assert_eq!(read.backing, Some(BackingRef { text: "b.img".to_owned(), format: declared }));
    }
}

#[test]
fn qcow2_fields_at_their_limits() {
    let plain = qcow2(3, Some(("b", Some("nbd"))), None);
    assert_eq!(
        backing(Format::Qcow2, &plain),
        Some(("b".to_owned(), BackingFormat::Unknown("nbd".to_owned())))
    );
    let long = "x".repeat(1023);
    assert_eq!(
        backing(Format::Qcow2, &qcow2(2, Some((&long, None)), None)),
        Some((long, BackingFormat::Absent))
    );
    let with = |at, value: &[u8]| {
        let mut bytes = plain.clone();
        put(&mut bytes, at, value);
        header(Format::Qcow2, &bytes)
    };
    // Each field alone at its maximum, and some just out of range.
    for (at, value) in [
        (4, be(4)),
        (8, [0xff; 4]),
        (12, be(65537)),
        (16, [0xff; 4]),
        (16, be(1024)),
        (20, be(8)),
        (20, be(22)),
        (20, [0xff; 4]),
        (100, [0xff; 4]),
        (100, be(103)),
        (100, be(65537)),
        (104 + 4, [0xff; 4]),
        (104 + 4, be(16)),
        (76, be(4)),
    ] {
        assert!(with(at, &value).is_err(), "{at} {value:?}");
    }
    assert!(header(Format::Qcow2, &[b"QFI\xfb\0\0\0\x03".to_vec(), vec![0xff; 65536]].concat()).is_err());
    assert!(matches!(with(12, &be(60000)), Err(HeaderError::Truncated { offset: 60000, len: 1 })));
    // Not UTF-8; a NUL ends a name, and an empty name is none.
    let at = plain.len() - 1;
    assert_eq!(with(at, &[0xff]), Err(HeaderError::NotUtf8 { field: "backing file name" }));
    assert_eq!(with(at, &[0]).unwrap().backing, None);
    // The data file is used only with its feature bit, and needed with it.
    let mut without_bit = qcow2(3, None, Some("d"));
    put(&mut without_bit, 72, &[0; 8]);
    assert_eq!(header(Format::Qcow2, &without_bit).unwrap().data_file, None);
    assert_eq!(header(Format::Qcow2, &qcow2(3, None, Some(""))), Err(HeaderError::DataFileUnnamed));
}

#[test]
fn a_name_far_into_a_large_cluster_is_found() {
    let mut bytes = qcow2(3, None, None);
    let at = (1usize << 21) - 6;
    put(&mut bytes, 20, &be(21));
    put(&mut bytes, 8, &(at as u64).to_be_bytes());
    put(&mut bytes, 16, &be(6));
    put(&mut bytes, at, b"/b.img");
    assert_eq!(backing(Format::Qcow2, &bytes).map(|(text, _)| text).as_deref(), Some("/b.img"));
    put(&mut bytes, 16, &be(7));
    assert!(matches!(header(Format::Qcow2, &bytes), Err(HeaderError::TooLong { max: 6, .. })));
}

#[test]
fn older_formats() {
    assert_eq!(backing(Format::Qcow, &qcow("b")), Some(("b".to_owned(), BackingFormat::Absent)));
    assert_eq!(backing(Format::Cow, &cow("b")), Some(("b".to_owned(), BackingFormat::Absent)));
    assert_eq!(backing(Format::Cow, &cow("")), None);
    assert_eq!(backing(Format::Qed, &qed(Some(("b", false)))), Some(("b".to_owned(), BackingFormat::NotRaw)));
    let raw = BackingFormat::Declared(Format::Raw);
    assert_eq!(backing(Format::Qed, &qed(Some(("b", true)))), Some(("b".to_owned(), raw)));
    let mut out_of_range = qed(Some(("b", true)));
    put(&mut out_of_range, 56, &le(65536));
    assert_eq!(
        header(Format::Qed, &out_of_range),
        Err(HeaderError::Range { field: "backing_filename_offset" })
    );
    let mut long = qcow("b");
    put(&mut long, 16, &be(1024));
    assert!(matches!(header(Format::Qcow, &long), Err(HeaderError::TooLong { .. })));
}

#[test]
fn vmdk_descriptors() {
    let vmdk = BackingFormat::Declared(Format::Vmdk);
    let text = vmdk_descriptor(Some("p.vmdk"), &["a-f001.vmdk", "a-f002.vmdk"]);
    let read = header(Format::Vmdk, &text).unwrap();
    assert_eq!(read.backing, Some(BackingRef { text: "p.vmdk".to_owned(), format: vmdk.clone() }));
    assert_eq!(read.extents, ["a-f001.vmdk", "a-f002.vmdk"]);
    // A sparse extent's own descriptor names the file itself; only without capacity does it name others.
    let read = header(Format::Vmdk, &vmdk_sparse(2048, &text)).unwrap();
    assert_eq!((read.backing.map(|backing| backing.format), read.extents), (Some(vmdk), Vec::new()));
    assert_eq!(header(Format::Vmdk, &vmdk_sparse(0, &text)).unwrap().extents.len(), 2);
    assert_eq!(header(Format::Vmdk, b"COWD").unwrap(), Header::plain(Format::Vmdk));
    for (line, file) in [
        ("RW 8 FLAT \"a\" 0", Some("a")),
        ("  RW\t8 SPARSE \"a b\"\r", Some("a b")),
        ("RW 8 VMFS \"/a\"", Some("/a")),
        ("RDONLY 8 FLAT \"a\" 0", None),
        ("NOACCESS 8 FLAT \"a\" 0", None),
        ("RW 0 FLAT \"a\" 0", None),
        ("RW -8 FLAT \"a\" 0", None),
        ("RW 8 ZERO", None),
        ("RW 8 ZERO \"a\"", None),
        ("RW 8 FLAT \"a", None),
        ("RW 8 FLAT \"\" 0", None),
        ("# RW 8 FLAT \"a\" 0", None),
    ] {
        let text = format!("# Disk DescriptorFile\n\nversion=3\n{line}\n");
        let read = header(Format::Vmdk, text.as_bytes()).unwrap();
        assert_eq!(read.extents.first().map(String::as_str), file, "{line}");
    }
    for bad in ["", "version=4\n", "CID=1\nversion=1\n", "# Disk DescriptorFile\n"] {
        assert!(matches!(header(Format::Vmdk, bad.as_bytes()), Err(HeaderError::Magic { .. })), "{bad}");
    }
    assert!(header(Format::Vmdk, b"version=1\nparentFileNameHint=\"x").is_err());
    let many = vec!["x"; 4097];
    assert_eq!(header(Format::Vmdk, &vmdk_descriptor(None, &many)), Err(HeaderError::TooManyExtents(4096)));
}

#[test]
fn parents_that_qemu_does_not_open_are_text() {
    let parent = |format, bytes: &[u8]| {
        let read = header(format, bytes).unwrap();
        assert_eq!(read.backing, None);
        read.unread_parent
    };
    assert_eq!(parent(Format::Vpc, &vpc_differencing()).as_deref(), Some(".\\p.vhd"));
    let mut no_locator = vpc_differencing();
    put(&mut no_locator, 512 + 576, &[0; 48]);
    assert_eq!(parent(Format::Vpc, &no_locator).as_deref(), Some("p.vhd"));
    let fixed = [vec![0; 4096], b"conectix".to_vec(), vec![0; 504]].concat();
    assert_eq!(parent(Format::Vpc, &fixed), None);
    assert_eq!(parent(Format::Vhdx, &vhdx_differencing()).as_deref(), Some("..\\p.vhdx"));
    assert_eq!(parent(Format::Vdi, &vdi()), None);
    let mut linked = vdi();
    linked[440] = 1;
    assert!(parent(Format::Vdi, &linked).unwrap().contains("UUID 01000000"));
    for format in [Format::Vpc, Format::Vhdx, Format::Vdi] {
        assert!(matches!(header(format, &[0; 4096]), Err(HeaderError::Magic { .. })));
        assert!(header(format, b"").is_err());
    }
}

/// Endless bytes after `head`; counts what is read.
struct Counting {
    head: Vec<u8>,
    fill: u8,
    read: Cell<usize>,
}

impl ReadAt for Counting {
    fn size(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.read.set(self.read.get() + len);
        let mut bytes = self.head.read_at(offset, len)?;
        bytes.resize(len, self.fill);
        Ok(bytes)
    }
}

fn read_all_ways(head: &[u8], fill: u8) {
    for (_, format) in NAMES {
        let image = Counting { head: head.to_vec(), fill, read: Cell::new(0) };
        let _ = read_header(format, &mut Reader::new(&image));
        assert!(image.read.get() <= reader::BUDGET);
        if !format.is_read() {
            assert_eq!(image.read.get(), 0);
        }
        let _ = read_header(format, &mut Reader::new(&head.to_vec()));
    }
}

#[test]
fn every_field_at_its_maximum() {
    for magic in [
        &b"QFI\xfb\0\0\0\x03"[..],
        b"QFI\xfb\0\0\0\x02",
        b"QFI\xfb\0\0\0\x01",
        b"QED\0",
        b"KDMV\x01\0\0\0",
        b"conectix",
        b"vhdxfile",
        b"OOOM\0\0\0\x02",
        b"version=1\n",
    ] {
        for fill in [0xff, 0x7f, 0x80, 0, b' '] {
            read_all_ways(magic, fill);
        }
    }
    // As many small extensions as fit into the largest cluster.
    let mut bytes = qcow2(3, None, None);
    put(&mut bytes, 20, &be(21));
    let extension = [b"\x01\x02\x03\x04\0\0\0\0".as_slice()].concat().repeat((1 << 18) - 13);
    put(&mut bytes, 104, &extension);
    assert!(header(Format::Qcow2, &bytes).is_ok());
}

fn samples() -> Vec<Vec<u8>> {
    vec![
        qcow2(2, Some(("b", Some("raw"))), None),
        qcow2(3, Some(("b", Some("qcow2"))), Some("d")),
        qed(Some(("b", true))),
        qcow("b")[..64].to_vec(),
        vmdk_descriptor(Some("p"), &["a", "b"]),
        vmdk_sparse(0, &vmdk_descriptor(Some("p"), &["a"])),
        vpc_differencing(),
        vdi(),
        cow("b"),
    ]
}

proptest! {
    #[test]
    fn mutated_headers_neither_panic_nor_read_much(
        sample in 0usize..9,
        changes in prop::collection::vec((0usize..700, prop::sample::select(vec![0u8, 1, 2, 0x7f, 0x80, 0xff, b'"'])), 0..24),
        cut in 0usize..2048,
        fill in any::<u8>(),
    ) {
        let mut bytes = samples().swap_remove(sample);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.max(8));
        read_all_ways(&bytes, fill);
    }

    #[test]
    fn random_bytes_neither_panic_nor_read_much(
        sample in 0usize..9,
        tail in prop::collection::vec(any::<u8>(), 0..600),
        fill in any::<u8>(),
    ) {
        let mut bytes = samples().swap_remove(sample);
        bytes.truncate(8);
        bytes.extend(tail);
        read_all_ways(&bytes, fill);
    }

    #[test]
    fn any_name_is_read_or_refused(text in "(json:|file:|nbd:|rbd:|fat:|nbd\\+unix://)?[ -~\\PC]{0,60}") {
        if let Ok(Node { source: Source::File(path), .. }) = backing::parse(&text, "/p/x") {
            prop_assert!(path.starts_with('/'));
        }
    }

    #[test]
    fn what_the_header_holds_is_what_is_read(name in "[^\0]{1,200}", data in "[^\0]{1,200}", format in 0usize..19) {
        let (format_name, format) = NAMES[format];
        let read = header(Format::Qcow2, &qcow2(3, Some((&name, Some(format_name))), Some(&data))).unwrap();
        let format = BackingFormat::Declared(format);
        prop_assert_eq!(read.backing, Some(BackingRef { text: name, format }));
        prop_assert_eq!(read.data_file, Some(data));
    }
}
