//! Disks: the image, everything below it in its backing chain, its mirror, and what a source needs
//! besides. The variable store of the firmware is a disk source too.

use std::cell::RefCell;

use aa_contract::{Access, Feature, NoteKind};

use crate::UnknownVolumes;
use crate::deriver::{Ask, Deriver, Place};
use crate::domain::refuse;
use crate::error::{Error, Refusal};
use crate::host::Kind;
use crate::image::{self, ChainNote, Format, LayerKind, Named, Said, TopImage};
use crate::pool::{VolumeError, VolumeKind};
use crate::seclabel;
use crate::xml::Element;

/// Types of sources that lie in this host's files, each with the attribute that names the file, node or directory.
const LOCAL: [(&str, &str); 3] = [("file", "file"), ("block", "dev"), ("dir", "dir")];

/// A source: one that a guest opens by itself, or a layer of such a one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopSource<'d> {
    /// What it is, for messages.
    pub(crate) what: &'static str,
    /// The declared format; none is raw, which is never probed.
    pub(crate) format: Option<Format>,
    /// Whether the guest only reads it.
    pub(crate) read_only: bool,
    /// The element whose `<backingStore>` describes what is below.
    pub(crate) chain: Option<Element<'d>>,
    /// Its place in its chain: 0 is the top.
    pub(crate) depth: u32,
    /// Whether it is the medium of a drive, which may be empty.
    pub(crate) is_medium: bool,
    /// What is said of it elsewhere than in these elements.
    pub(crate) said: Said,
}

impl TopSource<'_> {
    /// A top of which nothing more is said.
    pub(crate) fn new(what: &'static str, format: Option<Format>, read_only: bool) -> Self {
        Self { what, format, read_only, chain: None, depth: 0, is_medium: false, said: Said::default() }
    }

    fn access(self) -> Access {
        if self.read_only { Access::RK } else { Access::RWK }
    }

    fn place(self, element: Element<'_>) -> Place<'_> {
        Place { element, layer: (self.depth > 0).then_some(self.depth) }
    }
}

/// `<disk>`
pub(crate) fn derive(deriver: &mut Deriver<'_>, disk: &Element<'_>) -> Result<(), Error> {
    let format = declared(disk.child("driver"), "type")?;
    let cdrom = disk.attr("device") == Some("cdrom");
    if disk.attr("device") == Some("lun") || disk.attr("rawio") == Some("yes") {
        deriver.uses(Feature::Rawio);
    }
    if let Some(mirror) = disk.child("mirror") {
        mirrored(deriver, &mirror)?;
    }
    let Some(source) = disk.child("source") else { return Ok(()) };
    let read_only = cdrom || disk.child("readonly").is_some();
    let is_medium = cdrom || disk.attr("device") == Some("floppy");
    let top = TopSource { chain: Some(*disk), is_medium, ..TopSource::new("disk source", format, read_only) };
    let Some(place) = located(deriver, &source, disk.attr("type").unwrap_or("file"))? else {
        return below(deriver, &source, None, top);
    };
    if is_left_out(deriver, disk, &source, &place) {
        return Ok(());
    }
    let overlay = place.path.as_ref().filter(|_| place.kind == "file" && disk.child("transient").is_some());
    if let Some(path) = overlay {
        // libvirt puts a throw-away overlay over the image, which is then only read.
        let path = format!("{path}.TRANSIENT-{}", deriver.domain.name);
        deriver.grant(source, "transient overlay", &path, Access::RWK)?;
        return opened(deriver, &source, &place, TopSource { read_only: true, ..top });
    }
    opened(deriver, &source, &place, top)
}

/// Whether the guest will not open the source at all: libvirt drops an optional medium that is missing. Says why.
fn is_left_out(
    deriver: &mut Deriver<'_>,
    disk: &Element<'_>,
    source: &Element<'_>,
    place: &Located<'_>,
) -> bool {
    let policy = source.attr("startupPolicy").or_else(|| disk.attr("startupPolicy"));
    if !matches!(policy, Some("optional" | "requisite")) {
        return false;
    }
    let Some(path) = place.path.as_deref() else { return false };
    let missing = deriver
        .resolve(source.into(), "disk source", path)
        .is_ok_and(|resolved| resolved.kind == Kind::Missing);
    if missing {
        deriver.note(NoteKind::LeftOut, source, format!("no rule is made for \"{path}\": it is missing, and its startupPolicy lets the guest start without it"));
    }
    missing
}

/// The format that an attribute of an element declares, if any.
pub(crate) fn declared(at: Option<Element<'_>>, attribute: &'static str) -> Result<Option<Format>, Error> {
    let Some((at, name)) = at.and_then(|at| Some((at, at.attr(attribute)?))) else { return Ok(None) };
    match Format::from_driver_type(name) {
        Some(format) => Ok(Some(format)),
        None => Err(refuse(&at, Refusal::Value { what: "disk format", value: name.to_owned() })),
    }
}

/// `<mirror>`: the target of a copy or of an active commit, in both its forms.
fn mirrored(deriver: &mut Deriver<'_>, mirror: &Element<'_>) -> Result<(), Error> {
    let format = declared(mirror.child("format"), "type")?.or(declared(Some(*mirror), "format")?);
    let top = TopSource { chain: Some(*mirror), ..TopSource::new("mirror", format, false) };
    match (mirror.child("source"), mirror.attr("file")) {
        (Some(source), _) => self::source(deriver, &source, mirror.attr("type").unwrap_or("file"), top),
        (None, Some(path)) => image(deriver, mirror, path, top),
        (None, None) => Ok(()),
    }
}

/// Where a `<source>` lies, once a volume is looked up.
#[derive(Debug)]
struct Located<'d> {
    /// The type, as `disk/@type`, but for `volume`.
    kind: &'d str,
    /// The file, node or directory of this host, if the source is one and is named.
    path: Option<String>,
}

/// The attribute that names the file, node or directory of a source of this type; none if it lies in none.
fn naming(kind: &str) -> Option<&'static str> {
    LOCAL.iter().find(|(known, _)| *known == kind).map(|(_, attribute)| *attribute)
}

/// Where a `<source>` lies; none, with a note, of one that gets no rule itself.
fn located<'d>(
    deriver: &mut Deriver<'_>,
    source: &Element<'d>,
    kind: &'d str,
) -> Result<Option<Located<'d>>, Error> {
    if seclabel::leaves_alone(deriver, source) {
        return Ok(None);
    }
    let named = |kind| {
        let path = naming(kind).and_then(|name| source.attr(name)).filter(|path| !path.is_empty());
        Located { kind, path: path.map(str::to_owned) }
    };
    match (kind, source.attr("actualType")) {
        // The XML of a running guest has it translated.
        ("volume", Some(actual))
            if actual != "volume" && LOCAL.iter().any(|(_, name)| source.attr(name).is_some()) =>
        {
            Ok(Some(named(actual)))
        }
        ("volume", _) => volume(deriver, source),
        _ => Ok(Some(named(kind))),
    }
}

/// A `<source>` of any type, with everything that opening it takes.
pub(crate) fn source(
    deriver: &mut Deriver<'_>,
    source: &Element<'_>,
    kind: &str,
    top: TopSource<'_>,
) -> Result<(), Error> {
    match located(deriver, source, kind)? {
        Some(place) => opened(deriver, source, &place, top),
        None => below(deriver, source, None, top),
    }
}

/// The same of one that is located.
fn opened(
    deriver: &mut Deriver<'_>,
    source: &Element<'_>,
    place: &Located<'_>,
    top: TopSource<'_>,
) -> Result<(), Error> {
    reservations(deriver, source)?;
    let named = |name| source.attr(name).filter(|path| !path.is_empty());
    if let (Some(attribute), None) = (naming(place.kind), &place.path) {
        if !top.is_medium {
            let text = format!("the source has no attribute \"{attribute}\": no rule is made for it");
            deriver.note(NoteKind::UnknownElement, source, text);
        }
        return below(deriver, source, None, top);
    }
    match (place.kind, place.path.as_deref()) {
        ("file" | "block", Some(path)) => image(deriver, source, path, top),
        ("dir", Some(path)) => directory(deriver, source, path, top),
        ("network", _) => {
            network(deriver, source)?;
            below(deriver, source, None, top)
        }
        ("nvme", _) => {
            let Some(address) = source.child("address") else {
                return Err(refuse(source, Refusal::Incomplete { what: "NVMe disk", missing: "address" }));
            };
            deriver.uses(Feature::Disk);
            super::hostdev::vfio_pci(deriver, source, &address)?;
            below(deriver, source, None, top)
        }
        ("vhostuser", _) => {
            deriver.uses(Feature::VhostUser);
            match named("path") {
                Some(path) => deriver.grant(source, "vhost-user disk socket", path, Access::RW).map(drop),
                None => super::chardev_source(deriver, source, "vhost-user disk"),
            }
        }
        ("vhostvdpa", _) => {
            deriver.uses(Feature::Vdpa);
            match named("dev") {
                Some(path) => deriver.grant(source, "vDPA disk", path, Access::RW).map(drop),
                None => Err(refuse(source, Refusal::Incomplete { what: "vDPA disk", missing: "source dev" })),
            }
        }
        (other, _) => Err(refuse(source, Refusal::Value { what: "disk type", value: other.to_owned() })),
    }
}

/// Persistent reservations by a helper of the user's own; libvirt's own has its socket in the state directory.
fn reservations(deriver: &mut Deriver<'_>, source: &Element<'_>) -> Result<(), Error> {
    let Some(reservations) = source.child("reservations") else { return Ok(()) };
    deriver.uses(Feature::Rawio);
    if let Some(socket) = reservations.child("source")
        && let Some(path) = socket.attr("path")
    {
        deriver.grant(socket, "reservations socket", path, Access::RW)?;
    }
    Ok(())
}

/// `<source pool= volume=>`, by pool definitions.
fn volume<'d>(deriver: &mut Deriver<'_>, source: &Element<'d>) -> Result<Option<Located<'d>>, Error> {
    let (Some(pool), Some(name)) = (source.attr("pool"), source.attr("volume")) else {
        return Err(refuse(
            source,
            Refusal::Incomplete { what: "volume", missing: "source pool and volume" },
        ));
    };
    let unresolved =
        |reason: String| Refusal::Volume { pool: pool.to_owned(), volume: name.to_owned(), reason };
    let resolved = match deriver.options.pools.resolve(pool, name, deriver.host) {
        Ok(resolved) => resolved,
        Err(error @ VolumeError::UnknownPool)
            if deriver.options.unknown_volumes == UnknownVolumes::LeftOut =>
        {
            deriver.note(NoteKind::LeftOut, source, unresolved(error.to_string()).to_string());
            return Ok(None);
        }
        Err(error) => return Err(refuse(source, unresolved(error.to_string()))),
    };
    let kind = match resolved.kind {
        VolumeKind::File => "file",
        VolumeKind::Block => "block",
        VolumeKind::Dir => "dir",
        VolumeKind::Network => "network",
    };
    if resolved.path.is_none() && resolved.kind != VolumeKind::Network {
        return Err(refuse(source, unresolved("its pool does not say where it lies".to_owned())));
    }
    Ok(Some(Located { kind, path: resolved.path.map(|path| path.as_str().to_owned()) }))
}

/// What a network source needs on this host: sockets, client configuration, keys.
fn network(deriver: &mut Deriver<'_>, source: &Element<'_>) -> Result<(), Error> {
    let protocol = source.attr("protocol").unwrap_or_default();
    served(deriver, protocol);
    for host in source.children("host").filter(|host| host.attr("transport") == Some("unix")) {
        if let Some(socket) = host.attr("socket") {
            deriver.grant(host, "storage socket", socket, Access::RW)?;
        }
    }
    if let Some(config) = source.child("config")
        && let Some(file) = config.attr("file")
    {
        deriver.grant(config, "storage client configuration", file, Access::R)?;
    }
    if let Some(hosts) = source.child("knownHosts")
        && let Some(path) = hosts.attr("path")
    {
        deriver.grant(hosts, "known hosts file", path, Access::R)?;
    }
    if let Some(identity) = source.child("identity") {
        if let Some(key) = identity.attr("keyfile") {
            deriver.grant(identity, "identity key", key, Access::R)?;
        }
        if let Some(socket) = identity.attr("agentsock") {
            deriver.grant(identity, "authentication agent socket", socket, Access::RW)?;
        }
    }
    if source.attr("tls") == Some("yes") {
        deriver.uses(Feature::Tls);
        // libvirt: `qemu.conf`, `nbd_tls_x509_cert_dir` and `vxhs_tls_x509_cert_dir`, and the directory they fall back to.
        let dir = if protocol == "vxhs" { "/etc/pki/libvirt-vxhs" } else { "/etc/pki/libvirt-nbd" };
        for dir in [dir, "/etc/pki/qemu"] {
            deriver.allow_below(source, "certificates", dir, "{,**}", Access::R)?;
        }
    }
    Ok(())
}

/// What an image needs that libvirt reaches by a protocol: over SSH it has nbdkit do so.
fn served(deriver: &mut Deriver<'_>, protocol: &str) {
    reached(deriver, protocol);
    if protocol == "ssh" {
        deriver.uses(Feature::Nbdkit);
    }
}

/// What an image needs that QEMU itself reaches by a protocol, as QEMU calls it.
pub(crate) fn reached(deriver: &mut Deriver<'_>, protocol: &str) {
    deriver.uses(Feature::NetworkDisk);
    match protocol {
        "rbd" => deriver.uses(Feature::Ceph),
        "gluster" => deriver.uses(Feature::Gluster),
        "iscsi" | "iser" => deriver.uses(Feature::Iscsi),
        _ => {}
    }
}

/// A directory that is shown to the guest as a FAT disk, and what the XML has below it.
fn directory(
    deriver: &mut Deriver<'_>,
    source: &Element<'_>,
    path: &str,
    top: TopSource<'_>,
) -> Result<(), Error> {
    let access = if top.read_only { Access::R } else { Access::RWK };
    deriver.uses(Feature::Disk);
    deriver.grant_tree(source, top.what, path, access)?;
    below(deriver, source, None, top)
}

/// A local image and what is below it.
pub(crate) fn image<'d>(
    deriver: &mut Deriver<'_>,
    at: &Element<'d>,
    path: &str,
    top: TopSource<'d>,
) -> Result<(), Error> {
    deriver.uses(Feature::Disk);
    grant_image(deriver, top.place(*at), top.what, path, top.access())?;
    below(deriver, at, Some(path), top)
}

/// Grants one image, refusing what cannot be one: to open a FIFO is to wait for ever.
fn grant_image(
    deriver: &mut Deriver<'_>,
    place: Place<'_>,
    what: &'static str,
    path: &str,
    access: Access,
) -> Result<(), Error> {
    let kind = deriver.grant(place, what, path, access)?;
    match kind {
        Kind::Fifo | Kind::Socket => {
            return Err(refuse(&place.element, Refusal::WrongKind { what, path: path.to_owned(), kind }));
        }
        Kind::Missing => {
            deriver.note(NoteKind::MissingFile, &place.element, format!("{what} \"{path}\" does not exist"));
        }
        Kind::File | Kind::Directory | Kind::Block | Kind::Character => {}
    }
    if deriver.options.deny_readonly && !access.writes() {
        deriver.deny_write(place, path)?;
    }
    Ok(())
}

/// Everything below an image: what the XML says as far as it goes, what headers say from there on.
fn below(
    deriver: &mut Deriver<'_>,
    source: &Element<'_>,
    path: Option<&str>,
    top: TopSource<'_>,
) -> Result<(), Error> {
    let explicit_data =
        source.child("dataStore").or_else(|| top.chain.and_then(|chain| chain.child("dataStore")));
    if let Some(data) = explicit_data
        && let Some(data_source) = data.child("source")
    {
        // It is always raw: nothing is below it.
        if let Some(nested) = data_source.child("dataStore") {
            let path = path.unwrap_or_default().to_owned();
            let reason = "its data file has a data file of its own".to_owned();
            return Err(refuse(&nested, Refusal::Chain { what: top.what, path, reason }));
        }
        let file =
            TopSource { depth: top.depth, ..TopSource::new("data file", Some(Format::Raw), top.read_only) };
        self::source(deriver, &data_source, data.attr("type").unwrap_or("file"), file)?;
    }
    let backing = top.chain.and_then(|chain| chain.child("backingStore"));
    // libvirt writes out what is below an image, and neither its data file nor its extents: those are the header's.
    let said = Said {
        backing: backing.is_some(),
        data_file: explicit_data.is_some(),
        sliced: source
            .children("slices")
            .flat_map(|slices| slices.children("slice"))
            .any(|slice| slice.attr("offset") != Some("0")),
    };
    probe(deriver, source, path, TopSource { said: said.or(top.said), ..top })?;
    let Some(backing) = backing else { return Ok(()) };
    // An empty element says that nothing is below.
    let Some(next) = backing.child("source") else { return Ok(()) };
    let depth = top.depth.saturating_add(1);
    if depth >= image::LIMIT {
        return Err(refuse(
            &backing,
            Refusal::Chain {
                what: top.what,
                path: path.unwrap_or_default().to_owned(),
                reason: format!("the backing chain has more than {} images", image::LIMIT),
            },
        ));
    }
    let format = declared(backing.child("format"), "type")?;
    let layer = TopSource { chain: Some(backing), depth, ..TopSource::new("backing file", format, true) };
    // A level elsewhere than in this host's files is passed, but what is below it is not.
    self::source(deriver, &next, backing.attr("type").unwrap_or("file"), layer)
}

/// What the headers of images say of that of which the XML says nothing.
fn probe(
    deriver: &mut Deriver<'_>,
    source: &Element<'_>,
    path: Option<&str>,
    top: TopSource<'_>,
) -> Result<(), Error> {
    let Some(path) = path.filter(|_| deriver.options.probe) else { return Ok(()) };
    let place = Place { element: *source, layer: None };
    // The walk asks before it opens anything; the first refusal is the domain's.
    let refusal = RefCell::new(None);
    let permit = |named: Named<'_>| {
        let what = named.kind.map_or(top.what, name_of);
        let header = Some(named.by).filter(|by| !by.is_empty());
        let asked = deriver.permit(place, Ask { header, ..Ask::file(what, named.path, named.access) });
        asked.map(|resolved| resolved.path).map_err(|error| {
            let reason = error.kind.to_string();
            refusal.borrow_mut().get_or_insert(error);
            reason
        })
    };
    let limit = image::LIMIT.saturating_sub(top.depth);
    let chain = image::walk(
        deriver.host.images(),
        &permit,
        TopImage { path, format: top.format, readonly: top.read_only, said: top.said },
        limit,
    );
    let chain = chain.and_then(|chain| deriver.headers.add(&chain).map(|()| chain)).map_err(|error| {
        refuse(source, Refusal::Chain { what: top.what, path: path.to_owned(), reason: error.to_string() })
    })?;
    if let Some(error) = refusal.into_inner() {
        return Err(error);
    }
    // Of a file that is missing and granted all the same, granting it tells.
    let is_told = |note: &ChainNote| {
        note.kind() == NoteKind::MissingFile
            && deriver.resolve(place, top.what, &note.path).is_ok_and(|file| file.kind == Kind::Missing)
    };
    let notes: Vec<&ChainNote> = chain.notes.iter().filter(|note| !is_told(note)).collect();
    for note in notes {
        deriver.note(note.kind(), source, note.to_string());
    }
    for protocol in &chain.protocols {
        served(deriver, protocol);
    }
    for layer in chain.layers {
        let place = TopSource { depth: top.depth.saturating_add(layer.depth), ..top }.place(*source);
        let what = name_of(layer.kind);
        match layer.kind {
            LayerKind::Backing | LayerKind::DataFile | LayerKind::Extent => {
                grant_image(deriver, place, what, &layer.path, layer.access)?;
            }
            LayerKind::Socket | LayerKind::Config => {
                deriver.grant(place, what, &layer.path, layer.access)?;
            }
        }
    }
    Ok(())
}

/// What a file is that a header names, for messages.
fn name_of(kind: LayerKind) -> &'static str {
    match kind {
        LayerKind::Backing => "backing file",
        LayerKind::DataFile => "data file",
        LayerKind::Extent => "extent",
        LayerKind::Socket => "storage socket",
        LayerKind::Config => "storage client configuration",
    }
}
