//! The guest on standard input.

use std::io::Read;

use aa_contract::{Derived, ProfileName, VirtType};
use aa_derive::host::{Files, Host as _};
use aa_derive::path_policy::{self, PathPolicy};
use aa_derive::pool::Pools;
use aa_derive::xml::{Document, Element};
use aa_derive::{Options, Terminals, UnknownVolumes, derive_parsed};

use crate::error::Error;
use crate::host::Host;

/// Longest XML, in bytes: the limit of libvirt's helper.
const MAX_XML: u64 = 10 * 1024 * 1024;
/// What libvirt's helper takes in no name of a domain. Rules here are quoted and would be right; but a
/// guest that starts with one of the two helpers and not with the other would be a surprise.
const BAD_IN_NAME: [char; 10] = ['/', '[', ']', '{', '}', '?', '^', ',', '"', '*'];

/// Below the root, where libvirtd keeps the XML of storage pools.
const POOLS: [&str; 2] = ["run/libvirt/storage", "etc/libvirt/storage"];
const VOLUME: &[u8] = b"volume";

/// A guest and what its XML asks for.
#[derive(Debug)]
pub struct Guest {
    /// The record.
    pub derived: Derived,
    /// What may never be granted.
    pub policy: PathPolicy,
    /// The host's files.
    pub files: Files,
    /// The paths of disks that the XML declares raw, as written.
    raw_disks: Vec<String>,
    /// Whether this is the first call of a run, so that nothing can have been granted in it before.
    pub is_starting: bool,
    /// What could not be looked at, for people.
    pub warnings: Vec<String>,
}

impl Guest {
    /// Reads the XML and derives its rules.
    ///
    /// # Errors
    /// The XML is too large, refused, or of another guest than `profile`.
    pub fn read(host: &Host, profile: ProfileName, input: &mut dyn Read) -> Result<Self, Error> {
        let mut xml = Vec::new();
        input.take(MAX_XML + 1).read_to_end(&mut xml).map_err(Error::Input)?;
        if xml.len() as u64 > MAX_XML {
            return Err(Error::TooLarge);
        }
        let setup = |what, reason: String| Error::Setup { what, reason };
        let policy = PathPolicy::parse(path_policy::DEFAULT)
            .map_err(|error| setup("path policy", error.to_string()))?;
        let files = Files::new(&host.root).map_err(|error| setup("root directory", error.to_string()))?;
        let (pools, warnings) = pools(host, &xml);
        // Nothing denies, since a block commit could not undo it. A terminal's path is printed where libvirt's
        // own tests of its helper look for it.
        let options = Options {
            pools,
            unknown_volumes: UnknownVolumes::LeftOut,
            terminals: Terminals::Granted,
            ..Options::new(policy)
        };
        let document = Document::parse(&xml).map_err(aa_derive::Error::from)?;
        let derived = derive_parsed(&document, &options, &files)?;
        let domain = derived.domain();
        if domain.name.as_str().contains(BAD_IN_NAME) {
            return Err(Error::DomainName(domain.name.as_str().to_owned()));
        }
        let is_known = match domain.virt_type {
            VirtType::Kvm | VirtType::Qemu => ["hvm", "linux", "xen", "xenpvh"].contains(&domain.os.as_str()),
            VirtType::Lxc => domain.os == "exe",
        };
        if !is_known {
            return Err(Error::OsType(domain.os.clone()));
        }
        if derived.profile() != profile {
            return Err(Error::OtherGuest { asked: profile, found: derived.profile() });
        }
        let is_starting = domain.virt_type != VirtType::Lxc && !has_named_devices(&document);
        let raw_disks = raw_disks(&document);
        Ok(Self { derived, policy: options.policy, files, raw_disks, is_starting, warnings })
    }

    /// Whether the XML declares the image raw that lies at a path, its links followed. Asked of `-F` alone, so that other
    /// calls follow none for it.
    pub fn is_declared_raw(&self, image: &str) -> bool {
        self.raw_disks.iter().any(|path| self.files.resolve(path).is_ok_and(|found| found.path == image))
    }
}

/// Whether libvirtd has given a device a name, which it does after it has asked for the first profile of a run; those
/// that a user gives begin with "ua-" (libvirt's formatdomain, «Devices»). The id alone does not tell one run
/// from another: libvirtd counts from 1 again when the host was started, and the host may have crashed.
fn has_named_devices(document: &Document<'_>) -> bool {
    let devices = document.root().child("devices");
    let mut names =
        devices.iter().flat_map(Element::elements).filter_map(|device| device.child("alias")?.attr("name"));
    names.any(|name| !name.starts_with("ua-"))
}

/// One of no declared format is raw too, as to libvirt.
fn raw_disks(document: &Document<'_>) -> Vec<String> {
    let devices = document.root().child("devices");
    let disks = devices.iter().flat_map(|devices| devices.children("disk"));
    let raw = disks.filter(|disk| {
        let declared = disk.child("driver").and_then(|driver| driver.attr("type"));
        declared.is_none_or(|format| format == "raw")
    });
    let paths = raw.filter_map(|disk| {
        let source = disk.child("source")?;
        source.attr("file").or_else(|| source.attr("dev"))
    });
    paths.map(str::to_owned).collect()
}

/// The pools of the host, and what was wrong with them, where the XML may have a volume of one.
///
/// libvirtd asks for a guest's first profile before it has looked up what file a volume is. The profile that
/// libvirt has for its helper keeps these directories closed; ours opens them.
fn pools(host: &Host, xml: &[u8]) -> (Pools, Vec<String>) {
    let mut warnings = Vec::new();
    if !xml.windows(VOLUME.len()).any(|window| window == VOLUME) {
        return (Pools::default(), warnings);
    }
    // Those that run and those that are defined, each by itself: a broken one keeps no guest from starting.
    let dirs = POOLS.map(|dir| host.root.join(dir));
    let pools = Pools::load_what_is_right(&dirs, |error| warnings.push(error.to_string()));
    (pools, warnings)
}
