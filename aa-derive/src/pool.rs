//! Storage pools: from a pool's name and a volume's to a path.
//!
//! libvirt's `formatstorage` and «Storage Management» say how each type of pool names its volumes.
//! Pool XML is what libvirtd keeps below `/etc/libvirt/storage` (definitions) and
//! `/run/libvirt/storage` (state of running pools). Nothing of a volume is opened here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aa_contract::text::{Printable, strip_os_code};
use aa_contract::{Exit, LiteralPath};
use nix::fcntl::OFlag;
use thiserror::Error;
use walkdir::WalkDir;

use crate::host::{Host, Kind};
use crate::sysfs;
use crate::xml::{Document, Element, MAX_BYTES, Pos, XmlErrorKind};

/// The pools that are known, by name.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    pools: BTreeMap<String, Pool>,
}

/// One pool, as far as it says where its volumes are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pool {
    form: Form,
    /// `target/path`: where the volumes appear.
    target: Option<LiteralPath>,
}

/// How a pool names its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Files of a directory: dir, fs, netfs, vstorage.
    Directory,
    /// Logical volumes of this group.
    Logical { group: Option<String> },
    /// Partitions of this disk.
    Disk { device: Option<String> },
    /// Units of an iSCSI target, by its name and the portal's address.
    Iscsi { target: Option<String>, portal: Option<String> },
    /// Units behind a SCSI host adapter.
    Scsi(Adapter),
    /// Multipath devices of the host.
    Multipath,
    /// Volumes of this ZFS pool.
    Zfs { pool: Option<String> },
    /// Behind a protocol: no path on this host.
    Network,
    /// A type that is not known here.
    Unknown(String),
}

/// How a SCSI pool names its host adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Adapter {
    /// By the kernel's number: `scsi_host3`.
    Number(u32),
    /// By the PCI address in sysfs' form, and the adapter's number on it.
    Parent { address: String, unique_id: Option<String> },
    /// By the two world-wide names, in lower case.
    Fibre { node: String, port: String },
    /// Not at all.
    Absent,
}

/// What a volume turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are libvirt's own words")]
pub enum VolumeKind {
    File,
    Block,
    Dir,
    /// Reached by a protocol: there is no path.
    Network,
}

/// A volume that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is, with links not yet followed; none for a network volume.
    pub path: Option<LiteralPath>,
    /// What it is; a file where nothing is there yet.
    pub kind: VolumeKind,
}

/// Why a volume has no path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VolumeError {
    /// No definition has that name.
    #[error("no pool of that name is known")]
    UnknownPool,
    /// A pool of a type that is not known here.
    #[error("pools of type \"{}\" are not known", Printable(.0))]
    Type(String),
    /// A name that would lead out of the pool (GLSA-201612-10).
    #[error("a volume's name is not empty, not \".\" or \"..\", and has no \"/\" and no control character")]
    Name,
    /// The definition lacks what the type needs.
    #[error("the pool's definition has no {0}")]
    Incomplete(&'static str),
    /// The name is none that the pool gives.
    #[error("volumes of such a pool are called {0}")]
    Form(&'static str),
    /// sysfs or the directory of links does not show the unit.
    #[error("{0}")]
    Absent(String),
    /// Several devices answer to the name.
    #[error("{} devices could be meant, in {}", .0, Printable(.1))]
    Ambiguous(usize, String),
}

/// Why a file of pool XML was not read.
#[derive(Debug, Error)]
#[error("{}: {kind}", place(.file, *.pos))]
pub struct PoolError {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub pos: Option<Pos>,
    /// Why.
    #[source]
    pub kind: PoolErrorKind,
}

/// What can be wrong with a file of pool XML.
#[derive(Debug, Error)]
pub enum PoolErrorKind {
    /// The host does not let it be read.
    #[error("{}", strip_os_code(.0))]
    Io(#[from] io::Error),
    /// Not well-formed.
    #[error("{0}")]
    Xml(XmlErrorKind),
    /// The root element is neither a pool nor a pool's state.
    #[error("the root element is <{}>, not <pool>", Printable(.0))]
    NotPool(String),
    /// Something that every pool has is missing.
    #[error("the pool has no {0}")]
    Missing(&'static str),
    /// A target that is no absolute, normal path.
    #[error("target path: {0}")]
    Target(aa_contract::path::PathError),
    /// A second definition of another content.
    #[error("pool \"{}\" is already defined in another way", Printable(.0))]
    Contradiction(String),
}

impl PoolError {
    /// The status that a program ends with.
    pub fn exit(&self) -> Exit {
        match self.kind {
            PoolErrorKind::Io(_) => Exit::Host,
            _ => Exit::Refused,
        }
    }
}

fn place(file: &Path, pos: Option<Pos>) -> String {
    let file = file.to_string_lossy();
    let file = Printable(&file);
    pos.map_or_else(|| file.to_string(), |pos| format!("{file}:{pos}"))
}

impl Pools {
    /// Reads pool XML from files, and from all `*.xml` below directories, links not followed.
    ///
    /// Equal definitions of one pool are one, so that definitions and state can be given together.
    ///
    /// # Errors
    /// [`PoolError`] of the first file that cannot be read, is no pool, or defines a known pool in another way.
    pub fn load(paths: &[PathBuf]) -> Result<Self, PoolError> {
        let mut pools = Self::default();
        for path in paths {
            for file in files(path) {
                pools.add_file(&file?)?;
            }
        }
        Ok(pools)
    }

    /// Reads what [`Pools::load`] would, and passes over each file that it would fail on: a missing path is nothing.
    pub fn load_what_is_right(paths: &[PathBuf], mut wrong: impl FnMut(&PoolError)) -> Self {
        let mut pools = Self::default();
        for file in paths.iter().filter(|path| path.exists()).flat_map(|path| files(path)) {
            let added = file.and_then(|file| pools.add_file(&file));
            if let Err(error) = added {
                wrong(&error);
            }
        }
        pools
    }

    fn add_file(&mut self, file: &Path) -> Result<(), PoolError> {
        let bytes = read(file).map_err(|error| fail(file, None, error.into()))?;
        self.add(file, &bytes)
    }

    /// Adds the pool that a file's content defines.
    ///
    /// # Errors
    /// [`PoolError`]: it is no pool, or defines a known pool in another way.
    pub fn add(&mut self, file: &Path, bytes: &[u8]) -> Result<(), PoolError> {
        let document = Document::parse(bytes)
            .map_err(|error| fail(file, Some(error.pos), PoolErrorKind::Xml(error.kind)))?;
        let (root, name, pool) = parse(&document).map_err(|(at, kind)| fail(file, Some(at.pos()), kind))?;
        match self.pools.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(pool);
                Ok(())
            }
            Entry::Occupied(entry) if *entry.get() == pool => Ok(()),
            Entry::Occupied(entry) => {
                let kind = PoolErrorKind::Contradiction(entry.key().clone());
                Err(fail(file, Some(root.pos()), kind))
            }
        }
    }

    /// Finds a volume of a pool.
    ///
    /// # Errors
    /// [`VolumeError`]: why there is no path that could be granted.
    pub fn resolve(&self, pool: &str, volume: &str, host: &dyn Host) -> Result<Volume, VolumeError> {
        let pool = self.pools.get(pool).ok_or(VolumeError::UnknownPool)?;
        if matches!(volume, "" | "." | "..") || volume.chars().any(|c| c == '/' || c.is_control()) {
            return Err(VolumeError::Name);
        }
        pool.resolve(volume, host)
    }
}

impl Pool {
    fn resolve(&self, volume: &str, host: &dyn Host) -> Result<Volume, VolumeError> {
        match &self.form {
            Form::Directory => {
                let path = join(self.target()?, volume)?;
                let kind = match host.resolve(path.as_str()).map(|resolved| resolved.kind) {
                    Ok(Kind::Block) => VolumeKind::Block,
                    Ok(Kind::Directory) => VolumeKind::Dir,
                    _ => VolumeKind::File,
                };
                Ok(Volume { path: Some(path), kind })
            }
            Form::Logical { group } => {
                let dir = self.target_or("/dev", group.as_deref(), "target path and no source name")?;
                block(join(&dir, volume)?)
            }
            Form::Zfs { pool } => {
                let dir = self.target_or("/dev/zvol", pool.as_deref(), "target path and no source name")?;
                block(join(&dir, volume)?)
            }
            Form::Disk { device } => {
                let device = device.as_deref().ok_or(VolumeError::Incomplete("source device"))?;
                block(partition(device, volume, host)?)
            }
            Form::Iscsi { target, portal } => {
                let target =
                    target.as_deref().ok_or(VolumeError::Incomplete("source device (the target's name)"))?;
                let unit = unit(volume)?;
                block(iscsi_link(self.target()?, target, portal.as_deref(), unit, host)?)
            }
            Form::Scsi(adapter) => {
                let unit = unit(volume)?;
                block(scsi_device(adapter.host_number(host)?, unit, host)?)
            }
            Form::Multipath => block(multipath(volume, host)?),
            Form::Network => Ok(Volume { path: None, kind: VolumeKind::Network }),
            Form::Unknown(name) => Err(VolumeError::Type(name.clone())),
        }
    }

    fn target(&self) -> Result<&LiteralPath, VolumeError> {
        self.target.as_ref().ok_or(VolumeError::Incomplete("target path"))
    }

    /// The target path, or what libvirt makes of the source's name where there is none.
    fn target_or(
        &self,
        below: &str,
        name: Option<&str>,
        missing: &'static str,
    ) -> Result<LiteralPath, VolumeError> {
        if let Some(target) = &self.target {
            return Ok(target.clone());
        }
        let name = name.ok_or(VolumeError::Incomplete(missing))?;
        LiteralPath::new(format!("{below}/{name}")).map_err(|error| VolumeError::Absent(error.to_string()))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it ends the chains above")]
fn block(path: LiteralPath) -> Result<Volume, VolumeError> {
    Ok(Volume { path: Some(path), kind: VolumeKind::Block })
}

fn join(dir: &LiteralPath, name: &str) -> Result<LiteralPath, VolumeError> {
    LiteralPath::new(format!("{}{name}", dir.as_directory()))
        .map_err(|error| VolumeError::Absent(error.to_string()))
}

/// A partition of a disk: the disk's name and a number, with `p` between where the name ends in a
/// digit (kernel), or `p` or `-part` for device mapper names (libvirt: `part_separator`).
fn partition(device: &str, volume: &str, host: &dyn Host) -> Result<LiteralPath, VolumeError> {
    let absent = |error: &dyn std::fmt::Display| VolumeError::Absent(format!("source device: {error}"));
    let resolved = host.resolve(device).map_err(|error| absent(&error))?.path;
    for disk in [resolved.as_str(), device] {
        let Some((dir, name)) = disk.rsplit_once('/') else { continue };
        let Some(rest) = volume.strip_prefix(name).filter(|_| !name.is_empty()) else { continue };
        let number = ["-part", "p"].iter().find_map(|separator| rest.strip_prefix(separator));
        let apart = number.is_some() || !name.ends_with(|c: char| c.is_ascii_digit());
        let number = number.unwrap_or(rest);
        if apart && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            return LiteralPath::new(format!("{dir}/{volume}")).map_err(|error| absent(&error));
        }
    }
    Err(VolumeError::Form("by the disk's name and a partition number, as sda1 or nvme0n1p1"))
}

/// Bus, target and logical unit of `unit:BUS:TARGET:LUN`. The host's number is not in it, because
/// the kernel gives it anew at each start.
fn unit(volume: &str) -> Result<[u32; 3], VolumeError> {
    let form = VolumeError::Form("unit:BUS:TARGET:LUN");
    let number = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten()
    };
    let mut parts = volume.strip_prefix("unit:").map(|rest| rest.split(':')).ok_or(form.clone())?;
    let mut next = || parts.next().and_then(number).ok_or(form.clone());
    let unit = [next()?, next()?, next()?];
    if parts.next().is_some() { Err(form) } else { Ok(unit) }
}

/// The link that udev makes for a unit of an iSCSI target: `ip-ADDRESS:PORT-iscsi-TARGET-lun-LUN`.
fn iscsi_link(
    dir: &LiteralPath,
    target: &str,
    portal: Option<&str>,
    [_, _, lun]: [u32; 3],
    host: &dyn Host,
) -> Result<LiteralPath, VolumeError> {
    let end = format!("-iscsi-{target}-lun-{lun}");
    let mut links: Vec<String> = host
        .entries(dir.as_str())
        .into_iter()
        .filter(|link| link.strip_suffix(&end).is_some_and(|portal| portal.contains("ip-")))
        .collect();
    if links.len() > 1
        && let Some(portal) = portal
    {
        // The address in a link is a number; a portal by name may match none, which is then named below.
        let [plain, six] = [format!("ip-{portal}:"), format!("ip-[{portal}]:")];
        links.retain(|link| link.contains(&plain) || link.contains(&six));
    }
    match links.as_slice() {
        [link] => join(dir, link),
        [] => Err(VolumeError::Absent(format!(
            "no link {}/ip-…{} is there: the pool is not running",
            Printable(dir.as_str().trim_end_matches('/')),
            Printable(&end)
        ))),
        several => Err(VolumeError::Ambiguous(several.len(), dir.to_string())),
    }
}

/// The block device of a unit behind a SCSI host, by sysfs.
fn scsi_device(
    number: u32,
    [bus, target, lun]: [u32; 3],
    host: &dyn Host,
) -> Result<LiteralPath, VolumeError> {
    let unit = format!("/sys/bus/scsi/devices/{number}:{bus}:{target}:{lun}/block");
    let dir = host.resolve(&unit).map_err(|error| VolumeError::Absent(error.to_string()))?.path;
    match host.entries(&dir).as_slice() {
        [name] => {
            LiteralPath::new(format!("/dev/{name}")).map_err(|error| VolumeError::Absent(error.to_string()))
        }
        _ => Err(VolumeError::Absent(format!("sysfs shows no block device as {unit}"))),
    }
}

/// A multipath device is called by its kernel name, `dm-N`; other device mapper devices (the host's
/// own volumes among them) are called so too, and are told apart by their UUID in sysfs.
fn multipath(volume: &str, host: &dyn Host) -> Result<LiteralPath, VolumeError> {
    let number = volume.strip_prefix("dm-").unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(VolumeError::Form("dm-NUMBER"));
    }
    let uuid = host.text(&format!("/sys/block/{volume}/dm/uuid")).unwrap_or_default();
    if !uuid.starts_with("mpath-") {
        return Err(VolumeError::Absent(format!("sysfs does not show {volume} as a multipath device")));
    }
    LiteralPath::new(format!("/dev/{volume}")).map_err(|error| VolumeError::Absent(error.to_string()))
}

impl Adapter {
    /// The kernel's number of the SCSI host.
    fn host_number(&self, host: &dyn Host) -> Result<u32, VolumeError> {
        let number = |name: &str| name.strip_prefix("host").and_then(|number| number.parse().ok());
        let find = |class: &str, is_it: &dyn Fn(&str) -> bool| {
            let mut found = host
                .entries(class)
                .into_iter()
                .filter(|name| is_it(&format!("{class}/{name}")))
                .filter_map(|name| number(&name));
            found.next().filter(|_| found.next().is_none())
        };
        match self {
            Self::Number(number) => return Ok(*number),
            Self::Fibre { node, port } => find("/sys/class/fc_host", &|dir| {
                let is = |file: &str, name: &str| {
                    host.text(&format!("{dir}/{file}"))
                        .is_some_and(|text| text.trim_start_matches("0x").eq_ignore_ascii_case(name))
                };
                is("node_name", node) && is("port_name", port)
            }),
            Self::Parent { address, unique_id } => find("/sys/class/scsi_host", &|dir| {
                host.resolve(dir).is_ok_and(|resolved| resolved.path.split('/').any(|part| part == address))
                    && unique_id.as_deref().is_none_or(|id| {
                        host.text(&format!("{dir}/unique_id")).is_some_and(|text| text == id)
                    })
            }),
            Self::Absent => return Err(VolumeError::Incomplete("source adapter that names a host")),
        }
        .ok_or_else(|| VolumeError::Absent("sysfs shows no such SCSI host adapter, or several".to_owned()))
    }
}

/// The root, the name and the pool of a document.
fn parse<'d>(
    document: &'d Document<'d>,
) -> Result<(Element<'d>, String, Pool), (Element<'d>, PoolErrorKind)> {
    let root = document.root();
    let not_pool = || (root, PoolErrorKind::NotPool(root.name().to_owned()));
    let pool = match root.name() {
        _ if !root.is_plain() => return Err(not_pool()),
        "pool" => root,
        "poolstate" => root.child("pool").ok_or_else(not_pool)?,
        _ => return Err(not_pool()),
    };
    let missing = |what| move || (pool, PoolErrorKind::Missing(what));
    let kind = pool.attr("type").ok_or_else(missing("type"))?;
    let name = pool.child("name").map(|name| name.text().trim()).filter(|name| !name.is_empty());
    // libvirt takes the source's name where the pool has none of its own.
    let name = name.or_else(|| text(pool.at(&["source", "name"]))).ok_or_else(missing("name"))?.to_owned();
    let target = match pool.at(&["target", "path"]).filter(|path| !path.text().trim().is_empty()) {
        Some(path) => {
            Some(LiteralPath::new(path.text().trim()).map_err(|error| (path, PoolErrorKind::Target(error)))?)
        }
        None => None,
    };
    let device = || pool.at(&["source", "device"]).and_then(|device| device.attr("path")).map(str::to_owned);
    let source_name = || text(pool.at(&["source", "name"])).map(str::to_owned);
    let form = match kind {
        "dir" | "fs" | "netfs" | "vstorage" => Form::Directory,
        "logical" => Form::Logical { group: source_name().or_else(|| Some(name.clone())) },
        "disk" => Form::Disk { device: device() },
        "iscsi" => Form::Iscsi {
            target: device(),
            portal: pool.at(&["source", "host"]).and_then(|host| host.attr("name")).map(str::to_owned),
        },
        "scsi" => Form::Scsi(adapter(&pool)),
        "mpath" => Form::Multipath,
        "zfs" => Form::Zfs { pool: source_name() },
        "rbd" | "gluster" | "sheepdog" | "iscsi-direct" => Form::Network,
        other => Form::Unknown(other.to_owned()),
    };
    Ok((root, name, Pool { form, target }))
}

fn text(element: Option<Element<'_>>) -> Option<&str> {
    element.map(|element| element.text().trim()).filter(|text| !text.is_empty())
}

/// `source/adapter`: by name, by PCI parent or by world-wide names.
fn adapter(pool: &Element<'_>) -> Adapter {
    let Some(adapter) = pool.at(&["source", "adapter"]) else { return Adapter::Absent };
    if let (Some(node), Some(port)) = (adapter.attr("wwnn"), adapter.attr("wwpn")) {
        return Adapter::Fibre { node: node.to_ascii_lowercase(), port: port.to_ascii_lowercase() };
    }
    if let Some(parent) = adapter.child("parentaddr")
        && let Some(address) = parent.child("address").and_then(|address| pci_address(&address))
    {
        return Adapter::Parent { address, unique_id: parent.attr("unique_id").map(str::to_owned) };
    }
    let number = adapter.attr("name").and_then(|name| {
        name.trim_start_matches("scsi_").strip_prefix("host").and_then(|number| number.parse().ok())
    });
    number.map_or(Adapter::Absent, Adapter::Number)
}

/// A PCI address as sysfs writes it: `0000:00:1f.2`.
fn pci_address(address: &Element<'_>) -> Option<String> {
    let part = |name| address.attr(name).map_or(Some(0), sysfs::number);
    Some(sysfs::pci_name(part("domain")?, part("bus")?, part("slot")?, part("function")?))
}

fn fail(file: &Path, pos: Option<Pos>, kind: PoolErrorKind) -> PoolError {
    PoolError { file: file.to_owned(), pos, kind }
}

/// The file itself, or every `*.xml` below the directory.
fn files(path: &Path) -> Vec<Result<PathBuf, PoolError>> {
    if !path.is_dir() {
        return vec![Ok(path.to_owned())];
    }
    WalkDir::new(path)
        .sort_by_file_name()
        .into_iter()
        .filter_map(|entry| match entry {
            Ok(entry) => {
                let is_pool = entry.file_type().is_file()
                    && entry.path().extension().is_some_and(|extension| extension == "xml");
                is_pool.then(|| Ok(entry.into_path()))
            }
            Err(error) => {
                let file = error.path().unwrap_or(path).to_owned();
                Some(Err(fail(&file, None, io::Error::from(error).into())))
            }
        })
        .collect()
}

/// The content of a regular file, up to one byte over what the XML reader takes.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    // A FIFO would wait for a writer for ever.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
