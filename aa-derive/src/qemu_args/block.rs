//! Disk images: `-drive`, `-blockdev`, and the options that are one image each.

use std::collections::BTreeMap;

use aa_contract::{Access, NoteKind};

use super::keyval::Options;
use super::{BOTH, Context, Need, READ};
use crate::deriver::Deriver;
use crate::devices::{TopSource, disk_image, disk_reached};
use crate::error::Error;
use crate::image::backing::{self, NameError};
use crate::image::{FILTERS, Format, MAX_NODES, Node, Override, Said, Source};
use crate::xml::Element;

pub(super) const OPTIONS: [&str; 12] =
    ["drive", "blockdev", "hda", "hdb", "hdc", "hdd", "fda", "fdb", "cdrom", "sd", "mtdblock", "pflash"];

const WHAT: &str = "disk image";

/// Drivers besides [`FILTERS`] that open no file by themselves: they stand next to the bytes, or have none.
const WITHOUT_FILES: [&str; 8] = [
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "copy-before-write",
    "null-aio",
    "null-co",
    "quorum",
    "snapshot-access",
];

/// The children that a node can have besides its file.
const CHILDREN: [&str; 7] = ["backing", "data-file", "log", "image", "raw", "test", "target"];

/// Drivers that show a file of this host from its first byte.
const FILES: [&str; 3] = ["file", "host_device", "host_cdrom"];

/// The `-blockdev` arguments of one command line. A format names the node that holds its bytes, which
/// may stand before or after it.
#[derive(Debug, Default)]
pub(super) struct Nodes<'d> {
    arguments: Vec<(Element<'d>, Options)>,
    /// Path of the file behind each named node.
    files: BTreeMap<String, String>,
}

pub(super) fn derive<'d>(
    context: &mut Context<'_, '_, 'd>,
    text: &str,
    nodes: &mut Nodes<'d>,
) -> Result<(), Error> {
    match context.option.as_str() {
        "blockdev" => {
            if let Some(options) = context.options(text, "") {
                let shown = options.get("driver").filter(|driver| FILES.contains(driver));
                let path = shown.and_then(|_| options.get("filename"));
                if let (Some(name), Some(path)) = (options.get("node-name"), path) {
                    nodes.files.insert(name.to_owned(), path.to_owned());
                }
                nodes.arguments.push((context.at, options));
            }
            Ok(())
        }
        "drive" => drive(context, text),
        "cdrom" => bare(context, text, Access::RK),
        _ => bare(context, text, Access::RWK),
    }
}

/// An option whose value is an image of no declared format.
pub(super) fn bare(context: &mut Context<'_, '_, '_>, text: &str, access: Access) -> Result<(), Error> {
    name(context, text, None, Said::default(), !access.writes())
}

fn drive(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let mut options = Options::words(text, "file");
    let read_only =
        options.is_on("readonly") || options.is_on("read-only") || options.get("media") == Some("cdrom");
    if options.is_on("snapshot") {
        context
            .note(NoteKind::NotCovered, "writes go to a temporary file in $TMPDIR: no rule is made for it");
    }
    let read_only = read_only || options.is_on("snapshot");
    let Some(file) = options.take("file") else {
        let driver = options.get("driver").or_else(|| options.get("format")).map(str::to_owned);
        return node(context, &mut options, &BTreeMap::new(), "", driver, read_only);
    };
    let format = options.take("format").or_else(|| options.take("driver"));
    let format = declared(context, format.as_deref());
    let said = said(&mut options, "");
    name(context, &file, format, said, read_only)?;
    // What else is said of the file itself, as that it is not locked, names none.
    children(context, &mut options, &BTreeMap::new(), "", &CHILDREN, read_only)?;
    context.left(&options, &[]);
    Ok(())
}

/// What the options of a format say themselves, so that its header is not asked.
fn said(options: &mut Options, prefix: &str) -> Said {
    let key = |name: &str| format!("{prefix}{name}");
    let mut is_said = |child: &str| options.take(&key(child)).is_some() || options.has_below(&key(child));
    let (backing, data_file) = (is_said("backing"), is_said("data-file"));
    let driver = options.get(&key("file.driver"));
    let offset = options.get(&key("file.offset"));
    let sliced =
        driver.is_some_and(|driver| !FILES.contains(&driver)) || offset.is_some_and(|offset| offset != "0");
    Said { backing, data_file, sliced }
}

/// The format of a declared name. A protocol that stands as the driver declares no format.
fn declared(context: &mut Context<'_, '_, '_>, name: Option<&str>) -> Option<Format> {
    let name = name?;
    let format = Format::from_name(name);
    if format.is_none() && !FILES.contains(&name) {
        context.note(
            NoteKind::UnknownArgument,
            &format!("format \"{name}\" is not known here: the image is taken for raw"),
        );
    }
    format
}

/// An image by the name that QEMU takes for `file=`: a path, `json:`, a URI or `protocol:…`.
fn name(
    context: &mut Context<'_, '_, '_>,
    text: &str,
    format: Option<Format>,
    said: Said,
    read_only: bool,
) -> Result<(), Error> {
    if backing::protocol(text).is_none() {
        return local(context, text, format, said, read_only);
    }
    match backing::parse(text, "/") {
        Ok(node) => named(context, node, format, said, read_only),
        // The path itself is the fault, which is told as that of any other.
        Err(NameError::Relative(path)) => local(context, &path, format, said, read_only),
        Err(error) => {
            context.note(NoteKind::UnknownArgument, &format!("\"{text}\": {error}"));
            Ok(())
        }
    }
}

fn named(
    context: &mut Context<'_, '_, '_>,
    node: Node,
    format: Option<Format>,
    said: Said,
    read_only: bool,
) -> Result<(), Error> {
    let said = said.or(Said::from(&node));
    match node.source {
        Source::File(path) => local(context, &path, node.format.or(format), said, read_only)?,
        Source::Directory { path, is_written } => fat(context, &path, is_written && !read_only)?,
        Source::Remote(remote) => {
            disk_reached(context.deriver, remote.protocol);
            for socket in &remote.sockets {
                context.grant("storage socket", socket, Access::RW)?;
            }
            for config in &remote.configs {
                context.grant("storage client configuration", config, Access::R)?;
            }
        }
        Source::Nvme(address) => super::device::vfio_pci(context, &address).map(drop)?,
        Source::Null => {}
    }
    if let Override::Node(data) = node.data_file {
        named(context, *data, Some(Format::Raw), Said::default(), read_only)?;
    }
    if let Override::Node(backing) = node.backing {
        named(context, *backing, None, Said::default(), true)?;
    }
    Ok(())
}

/// A directory that is shown as a FAT disk.
fn fat(context: &mut Context<'_, '_, '_>, dir: &str, is_written: bool) -> Result<(), Error> {
    let access = if is_written { Access::RW } else { Access::R };
    context.need("FAT directory", dir, Need::Tree(access))
}

/// A file or device of this host. An image of no declared format is taken for raw and never probed:
/// its guest could have written any header.
fn local(
    context: &mut Context<'_, '_, '_>,
    path: &str,
    format: Option<Format>,
    said: Said,
    read_only: bool,
) -> Result<(), Error> {
    if !context.names_a_file(path) {
        return Ok(());
    }
    if format.is_none() {
        context.note(
            NoteKind::ChainEnds,
            &format!("the format of \"{path}\" is not declared: it is taken for raw, and no rule is made for what its header may name"),
        );
    }
    let top = TopSource { said, ..TopSource::new(WHAT, format, read_only) };
    let at = context.at;
    disk_image(context.deriver, &at, path, top)
}

impl Nodes<'_> {
    /// The rules of every node, once all are known.
    pub(super) fn derive(self, deriver: &mut Deriver<'_>) -> Result<(), Error> {
        let Self { arguments, files } = self;
        for (at, mut options) in arguments {
            let mut context = Context { deriver, at, option: "blockdev".to_owned() };
            node(&mut context, &mut options, &files, "", None, false)?;
        }
        Ok(())
    }
}

/// One node of `-blockdev`, or of a `-drive` in the same words, and the nodes written inside it.
fn node(
    context: &mut Context<'_, '_, '_>,
    options: &mut Options,
    files: &BTreeMap<String, String>,
    prefix: &str,
    driver: Option<String>,
    read_only: bool,
) -> Result<(), Error> {
    if prefix.bytes().filter(|byte| *byte == b'.').count() > usize::from(MAX_NODES) {
        context.note(NoteKind::UnknownArgument, "its nodes nest too deep: no rule is made for the lowest");
        return Ok(());
    }
    let key = |name: &str| format!("{prefix}{name}");
    let read_only = read_only || options.is_on(&key("read-only"));
    let driver = options.take(&key("driver")).or(driver).unwrap_or_default();
    let access = if read_only { Access::RK } else { Access::RWK };
    match driver.as_str() {
        "file" | "host_device" | "host_cdrom" | "" => {
            if let Some(path) = options.take(&key("filename")) {
                // Its format, and so its chain, is another node's matter; here it is bytes.
                let at = context.at;
                let top = TopSource::new(WHAT, Some(Format::Raw), read_only);
                if context.names_a_file(&path) {
                    disk_image(context.deriver, &at, &path, top)?;
                }
            }
        }
        "vvfat" => {
            let is_written = options.is_on(&key("rw")) && !read_only;
            if let Some(dir) = options.take(&key("dir")) {
                fat(context, &dir, is_written)?;
            }
        }
        "nbd" | "gluster" | "rbd" | "ssh" | "sheepdog" | "vxhs" => {
            disk_reached(context.deriver, &driver);
            context.take(options, &key("conf"), READ)?;
            let servers = key("server");
            let types = options.below(&servers).filter_map(|name| name.strip_suffix(".type"));
            let sockets: Vec<String> = types.map(str::to_owned).collect();
            for socket in sockets {
                if options.take(&format!("{socket}.type")).as_deref() == Some("unix") {
                    context.take(options, &format!("{socket}.path"), BOTH)?;
                }
            }
            // The old form of a socket of nbd; a path of the others is the server's own.
            let path = options.take(&key("path"));
            if let Some(path) = path.filter(|_| driver == "nbd") {
                context.grant("storage socket", &path, Access::RW)?;
            }
        }
        "nvme" => {
            if let Some(address) = options.take(&key("device")) {
                super::device::vfio_pci(context, &address)?;
            }
        }
        "nvme-io_uring" | "virtio-blk-vhost-user" | "virtio-blk-vhost-vdpa" => {
            context.take(options, &key("path"), Need::File(access.union(Access::RW).unwrap_or(access)))?;
        }
        "blkdebug" => context.take(options, &key("config"), READ)?,
        protocol if backing::network(protocol).is_some() => {
            disk_reached(context.deriver, protocol);
            drop(options.take(&key("path")));
        }
        known if FILTERS.contains(&known) || WITHOUT_FILES.contains(&known) => {}
        format => {
            let format = declared(context, Some(format));
            chain(context, options, files, prefix, format, read_only)?;
        }
    }
    children(context, options, files, prefix, &["file"], read_only)?;
    children(context, options, files, prefix, &CHILDREN, read_only)?;
    if prefix.is_empty() {
        context.left(options, &[]);
    }
    Ok(())
}

/// The nodes that are written inside a node.
fn children(
    context: &mut Context<'_, '_, '_>,
    options: &mut Options,
    files: &BTreeMap<String, String>,
    prefix: &str,
    children: &[&str],
    read_only: bool,
) -> Result<(), Error> {
    for child in children {
        let key = format!("{prefix}{child}");
        if options.has_below(&key) {
            let read_only = read_only || *child == "backing";
            node(context, options, files, &format!("{key}."), None, read_only)?;
        }
    }
    Ok(())
}

/// What the header of a format's own file names, unless the argument says it.
fn chain(
    context: &mut Context<'_, '_, '_>,
    options: &mut Options,
    files: &BTreeMap<String, String>,
    prefix: &str,
    format: Option<Format>,
    read_only: bool,
) -> Result<(), Error> {
    let Some(format) = format.filter(|format| format.is_read()) else { return Ok(()) };
    let said = said(options, prefix);
    let file = options.take(&format!("{prefix}file"));
    let path = match file.as_deref() {
        Some(node) => files.get(node).cloned(),
        None => options.get(&format!("{prefix}file.filename")).map(str::to_owned),
    };
    let Some(path) = path.filter(|path| path.starts_with('/') && !path.starts_with("/dev/fdset/")) else {
        if !(said.backing && said.data_file) {
            context.note(
                NoteKind::ChainEnds,
                &format!("the header of a {format} image is in no file that is known here: no rule is made for what it may name"),
            );
        }
        return Ok(());
    };
    let at = context.at;
    let top = TopSource { said, ..TopSource::new(WHAT, Some(format), read_only) };
    disk_image(context.deriver, &at, &path, top)
}
