//! Weaknesses of the original that lie in image headers (W-21, W-25, W-26, W-42) and devices (W-28, W-43).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use aa_contract::NoteKind;
use aa_derive::Options;

use crate::common::{derive_with, domain, options, rules};

/// A qcow2 image of version 3 that names these; the format's name stands in an extension before the data file's.
fn qcow2(backing: Option<(&str, Option<&str>)>, data: Option<&str>) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut extension = |kind: u32, text: &str| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        extensions.extend(text.as_bytes());
        extensions.resize(extensions.len().next_multiple_of(8), 0);
    };
    if let Some((_, Some(format))) = backing {
        extension(0xe279_2aca, format);
    }
    if let Some(data) = data {
        extension(0x4441_5441, data);
    }
    extension(0, "");
    let name = backing.map_or("", |(name, _)| name);
    let mut image = b"QFI\xfb\0\0\0\x03".to_vec();
    let offset = if name.is_empty() { 0 } else { 104 + extensions.len() as u64 };
    image.extend(offset.to_be_bytes());
    image.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
    image.extend(16u32.to_be_bytes());
    image.extend((1u64 << 20).to_be_bytes());
    image.resize(72, 0);
    image.extend(u64::from(data.is_some()).wrapping_mul(4).to_be_bytes());
    image.resize(96, 0);
    image.extend(4u32.to_be_bytes());
    image.extend(104u32.to_be_bytes());
    image.extend(extensions);
    image.extend(name.as_bytes());
    image
}

fn host(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    root
}

fn disk(format: &str, root: &Path) -> Result<aa_contract::Derived, aa_derive::Error> {
    let xml = format!("<devices><disk><driver type='{format}'/><source file='/srv/top'/></disk></devices>");
    derive_with(&domain(&xml), &options(), root)
}

#[test]
fn w25_a_layer_that_cannot_be_read_is_granted_and_named() {
    let root = host(&[("/srv/top", qcow2(Some(("missing.qcow2", Some("qcow2"))), None))]);
    let record = disk("qcow2", root.path()).unwrap();
    assert_eq!(rules(&record), ["rk /srv/missing.qcow2", "rwk /srv/top"]);
    assert!(record.notes().iter().any(|note| note.kind == NoteKind::MissingFile));
}

#[test]
fn w26_a_data_file_behind_a_padded_extension_is_found() {
    let root = host(&[
        ("/srv/top", qcow2(Some(("/srv/base", Some("qcow2"))), Some("/srv/data"))),
        ("/srv/base", qcow2(None, None)),
        ("/srv/data", Vec::new()),
    ]);
    assert_eq!(
        rules(&disk("qcow2", root.path()).unwrap()),
        ["rk /srv/base", "rwk /srv/data", "rwk /srv/top"]
    );
}

/// A VMDK descriptor of one extent.
fn vmdk(extent: &str) -> Vec<u8> {
    format!("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"{extent}\" 0\n")
        .into_bytes()
}

/// libvirt writes a `<backingStore>` for each guest that runs, and nothing of what else a header names.
#[test]
fn where_the_xml_says_what_is_below_headers_still_name_data() {
    let root = host(&[
        ("/srv/top", qcow2(Some(("/srv/base", Some("qcow2"))), Some("/srv/data"))),
        ("/srv/base", qcow2(Some(("/srv/lowest", Some("raw"))), Some("/srv/base-data"))),
        ("/srv/flat", vmdk("/srv/extent")),
        ("/srv/data", Vec::new()),
        ("/srv/base-data", Vec::new()),
        ("/srv/extent", Vec::new()),
    ]);
    let with = |format: &str, top: &str, below: &str| {
        let disk = format!("<disk><driver type='{format}'/><source file='{top}'/>{below}</disk>");
        let record = derive_with(&domain(&format!("<devices>{disk}</devices>")), &options(), root.path());
        rules(&record.unwrap())
    };
    let layer = |format: &str, path: &str| {
        format!(
            "<backingStore type='file'><format type='{format}'/><source file='{path}'/><backingStore/></backingStore>"
        )
    };
    // The names of backing files that stand in the headers add nothing.
    assert_eq!(with("qcow2", "/srv/top", "<backingStore/>"), ["rwk /srv/data", "rwk /srv/top"]);
    assert_eq!(with("vmdk", "/srv/flat", "<backingStore/>"), ["rwk /srv/extent", "rwk /srv/flat"]);
    assert_eq!(
        with("raw", "/srv/x", &layer("qcow2", "/srv/base")),
        ["rk /srv/base", "rk /srv/base-data", "rwk /srv/x"]
    );
    assert_eq!(
        with("raw", "/srv/x", &layer("vmdk", "/srv/flat")),
        ["rk /srv/extent", "rk /srv/flat", "rwk /srv/x"]
    );
    // The twin: a layer that is declared raw, or nothing, is not read.
    assert_eq!(with("raw", "/srv/x", &layer("raw", "/srv/base")), ["rk /srv/base", "rwk /srv/x"]);
    assert_eq!(
        with("raw", "/srv/top", "<backingStore><source file='/srv/base'/></backingStore>"),
        ["rk /srv/base", "rwk /srv/top"]
    );
}

#[test]
fn w42_a_header_reaches_nothing_restricted_and_no_pattern() {
    for restricted in [
        "/etc/passwd",
        "../etc/shadow",
        "file:///etc/shadow",
        "json:{\"file\":{\"driver\":\"file\",\"filename\":\"/etc/shadow\"},\"driver\":\"raw\"}",
    ] {
        let root = host(&[("/srv/top", qcow2(Some((restricted, Some("raw"))), None))]);
        assert!(disk("qcow2", root.path()).is_err(), "{restricted}");
    }
    let root = host(&[("/srv/top", qcow2(Some(("/srv/*", Some("raw"))), None))]);
    assert_eq!(rules(&disk("qcow2", root.path()).unwrap()), ["rk /srv/*", "rwk /srv/top"]);
}

/// Whoever may upload an image chooses what its header names, also as a place for the guest's own data.
#[test]
fn an_uploaded_image_reaches_no_file_of_the_host() {
    for restricted in ["/etc/passwd", "../etc/shadow", "/dev/mem", "/run/libvirt/virtqemud-sock"] {
        for (format, image) in [("qcow2", qcow2(None, Some(restricted))), ("vmdk", vmdk(restricted))] {
            let root = host(&[("/srv/top", image)]);
            assert!(disk(format, root.path()).is_err(), "{format} {restricted}");
        }
    }
    for (format, image) in [("qcow2", qcow2(None, Some("/srv/data"))), ("vmdk", vmdk("/srv/data"))] {
        let root = host(&[("/srv/top", image), ("/srv/data", Vec::new())]);
        assert_eq!(rules(&disk(format, root.path()).unwrap()), ["rwk /srv/data", "rwk /srv/top"], "{format}");
        // Who does not trust the headers has none read.
        let unread = Options { probe: false, ..options() };
        let domain = domain(&format!(
            "<devices><disk><driver type='{format}'/><source file='/srv/top'/></disk></devices>"
        ));
        assert_eq!(rules(&derive_with(&domain, &unread, root.path()).unwrap()), ["rwk /srv/top"], "{format}");
    }
}

#[test]
fn what_a_header_names_is_refused_as_what_it_is() {
    for (image, format, message) in [
        (
            qcow2(None, Some("/etc/passwd")),
            "qcow2",
            "data file \"/etc/passwd\" in the header of \"/srv/top\" may not be granted: /etc is restricted (path policy line ",
        ),
        (
            vmdk("/boot/x"),
            "vmdk",
            "extent \"/boot/x\" in the header of \"/srv/top\" may not be granted: /boot may only be read",
        ),
        (
            qcow2(Some(("nbd:unix:/run/udev/x", Some("raw"))), None),
            "qcow2",
            "storage socket \"/run/udev/x\" in the header of \"/srv/top\" may not be granted: /run/udev",
        ),
        (
            qcow2(Some(("/etc/passwd", Some("raw"))), None),
            "qcow2",
            "backing file \"/etc/passwd\" in the header of \"/srv/top\" may not be granted: /etc",
        ),
    ] {
        let root = host(&[("/srv/top", image)]);
        let error = disk(format, root.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        let access = if message.contains("backing") {
            "rk"
        } else if message.contains("socket") {
            "rw"
        } else {
            "rwk"
        };
        assert!(error.ends_with(&format!("; {access} asked for by devices/disk[1]/source)")), "{error}");
    }
}

#[test]
fn a_file_that_is_missing_is_told_once() {
    let root = host(&[("/srv/top", qcow2(Some(("/srv/base", Some("qcow2"))), Some("/srv/data")))]);
    let notes = |record: &aa_contract::Derived| -> Vec<String> {
        record.notes().iter().map(|note| note.text.clone()).collect()
    };
    assert_eq!(
        notes(&disk("qcow2", root.path()).unwrap()),
        ["backing file \"/srv/base\" does not exist", "data file \"/srv/data\" does not exist"]
    );
    fs::remove_file(root.path().join("srv/top")).unwrap();
    assert_eq!(notes(&disk("qcow2", root.path()).unwrap()), ["disk source \"/srv/top\" does not exist"]);
}

/// An image that was uploaded makes no other writable, and opens no directory: not even as a CD.
#[test]
fn an_uploaded_image_makes_no_file_a_socket_and_opens_no_directory() {
    let cdrom = |name: &str, root: &Path| {
        let image = qcow2(Some((name, Some("raw"))), None);
        fs::write(root.join("srv/top"), image).unwrap();
        let disk = "<disk device='cdrom'><driver type='qcow2'/><source file='/srv/top'/></disk>";
        derive_with(&domain(&format!("<devices>{disk}</devices>")), &options(), root).unwrap()
    };
    let root = host(&[("/srv/images/victim.img", Vec::new())]);
    symlink("images/victim.img", root.path().join("srv/link")).unwrap();
    for name in [
        "nbd:unix:/srv/images/victim.img",
        "nbd:unix:/srv/link",
        "nbd:unix:/srv/images/none.img",
        "nbd+unix:///e?socket=/srv/images/victim.img",
        r#"json:{"driver":"nbd","path":"/srv/images/victim.img"}"#,
        "fat:/srv/images",
        r#"json:{"driver":"raw","file":{"driver":"vvfat","dir":"/srv/images"}}"#,
    ] {
        let record = cdrom(name, root.path());
        assert_eq!(rules(&record), ["rk /srv/top"], "{name}");
        assert!(record.notes().iter().any(|note| note.kind == NoteKind::NotCovered), "{name}");
    }
    // A server that listens is reached, and the definition itself may name a directory.
    let _listener = std::os::unix::net::UnixListener::bind(root.path().join("srv/nbd.sock")).unwrap();
    assert_eq!(rules(&cdrom("nbd:unix:/srv/nbd.sock", root.path())), ["rk /srv/top", "rw /srv/nbd.sock"]);
    let below = "<devices><disk><driver type='qcow2'/><source file='/srv/top'/>\
                 <backingStore type='dir'><format type='raw'/><source dir='/srv/images'/></backingStore></disk></devices>";
    assert_eq!(
        rules(&derive_with(&domain(below), &options(), root.path()).unwrap()),
        ["r /srv/images/", "r glob:/srv/images/**", "rwk /srv/top"]
    );
}

/// A thousand disks on one image that names thousands of files took gigabytes.
#[test]
fn many_disks_on_one_strange_image_are_refused() {
    let extents: String =
        (0..4000).fold(String::new(), |all, number| all + &format!("RW 8 FLAT \"no:{number}\" 0\n"));
    let root = host(&[("/srv/top", format!("# Disk DescriptorFile\nversion=1\n{extents}").into_bytes())]);
    let disks = |count: usize| {
        let disk = "<disk><driver type='vmdk'/><source file='/srv/top'/></disk>";
        derive_with(&domain(&format!("<devices>{}</devices>", disk.repeat(count))), &options(), root.path())
    };
    assert_eq!(rules(&disks(4).unwrap()), ["rwk /srv/top"]);
    let error = disks(5).unwrap_err().to_string();
    assert!(error.contains("the headers of the images name more than 16384 files"), "{error}");
}

#[test]
fn what_a_guest_can_write_is_never_read() {
    let evil = qcow2(Some(("/srv/secret", Some("raw"))), Some("/srv/data"));
    // The disk itself is raw, declared or not.
    let root = host(&[("/srv/top", evil.clone())]);
    assert_eq!(rules(&disk("raw", root.path()).unwrap()), ["rwk /srv/top"]);
    let undeclared = domain("<devices><disk><source file='/srv/top'/></disk></devices>");
    assert_eq!(rules(&derive_with(&undeclared, &options(), root.path()).unwrap()), ["rwk /srv/top"]);
    // A raw layer, and one whose format nobody declared.
    for format in [Some("raw"), None] {
        let root =
            host(&[("/srv/top", qcow2(Some(("/srv/base", format)), None)), ("/srv/base", evil.clone())]);
        assert_eq!(
            rules(&disk("qcow2", root.path()).unwrap()),
            ["rk /srv/base", "rwk /srv/top"],
            "{format:?}"
        );
    }
    // An image that is a part of a file, at whose start the guest may have written.
    let root = host(&[("/srv/top", evil.clone())]);
    let slice = |offset: &str| {
        domain(&format!(
            "<devices><disk><driver type='qcow2'/><source file='/srv/top'>\
             <slices><slice type='storage' offset='{offset}' size='1048576'/></slices></source></disk></devices>"
        ))
    };
    let part = derive_with(&slice("1048576"), &options(), root.path()).unwrap();
    assert_eq!(rules(&part), ["rwk /srv/top"]);
    assert!(part.notes().iter().any(|note| note.kind == NoteKind::ChainEnds));
    let whole = derive_with(&slice("0"), &options(), root.path()).unwrap();
    assert_eq!(rules(&whole), ["rk /srv/secret", "rwk /srv/data", "rwk /srv/top"]);
    // Declared by the image above, it is read.
    let root = host(&[("/srv/top", qcow2(Some(("/srv/base", Some("qcow2"))), None)), ("/srv/base", evil)]);
    assert!(rules(&disk("qcow2", root.path()).unwrap()).contains(&"rk /srv/secret".to_owned()));
}

#[test]
fn a_loop_and_a_chain_without_end_are_refused() {
    let root = host(&[
        ("/srv/top", qcow2(Some(("/srv/b", Some("qcow2"))), None)),
        ("/srv/b", qcow2(Some(("/srv/top", Some("qcow2"))), None)),
    ]);
    assert!(disk("qcow2", root.path()).unwrap_err().to_string().contains("loop"));
    let mut files: Vec<(String, Vec<u8>)> = (0..300)
        .map(|n| (format!("/srv/{n}"), qcow2(Some((&format!("/srv/{}", n + 1), Some("qcow2"))), None)))
        .collect();
    files.push(("/srv/top".to_owned(), qcow2(Some(("/srv/0", Some("qcow2"))), None)));
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    let root = host(&files);
    assert!(disk("qcow2", root.path()).unwrap_err().to_string().contains("more than 200 images"));
}

#[test]
fn w28_w43_one_vfio_group_also_on_a_platform_bus() {
    let real = "/sys/devices/platform/soc/pci0000:00/0000:03:00.0";
    let root =
        host(&[(&format!("{real}/config"), Vec::new()), ("/sys/kernel/iommu_groups/4/type", Vec::new())]);
    symlink(
        "../../../../../kernel/iommu_groups/4",
        root.path().join(real.trim_start_matches('/')).join("iommu_group"),
    )
    .unwrap();
    fs::create_dir_all(root.path().join("sys/bus/pci/devices")).unwrap();
    symlink(format!("../../../..{real}"), root.path().join("sys/bus/pci/devices/0000:03:00.0")).unwrap();
    let xml = "<devices><hostdev mode='subsystem' type='pci'><source><address domain='0' bus='3' slot='0' function='0'/></source></hostdev></devices>";
    let record = derive_with(&domain(xml), &options(), root.path()).unwrap();
    assert_eq!(
        rules(&record),
        [format!("r {real}/config"), "rw /dev/vfio/4".to_owned(), "rw /dev/vfio/vfio".to_owned()]
    );
}
