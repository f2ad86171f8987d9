//! The three records, each one line of JSON.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::access::ExecConflict;
use crate::domain::{Domain, VirtType};
use crate::path::LiteralPath;
use crate::profile::ProfileName;
use crate::rule::{Rule, RuleSet};
use crate::text::Printable;

/// The version of all three records. A reader refuses every other.
pub const VERSION: u32 = 1;

/// Why a line is not a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a record: {} (column {column})", Printable(.reason))]
pub struct RecordError {
    /// Where in the line, in bytes from 1.
    pub column: usize,
    /// What is wrong there, as it came from the input in part.
    pub reason: String,
    /// Whether the line is a JSON object, as far as it was read. If not, its input is of another kind, or was cut short.
    pub is_object: bool,
}

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = error.to_string();
        let reason = reason.strip_suffix(place.as_str()).unwrap_or(&reason).to_owned();
        Self { column: error.column().max(1), reason, is_object: error.is_data() }
    }
}

/// Reads one record from one line.
///
/// # Errors
/// [`RecordError`]: the line is no JSON object, has an unknown or missing field or version, or a value
/// that its type refuses.
pub fn parse_line<'de, T: Deserialize<'de>>(line: &'de str) -> Result<T, RecordError> {
    // serde would take an array of the values too.
    if !line.trim_ascii_start().starts_with('{') {
        let reason = "it is no JSON object".to_owned();
        return Err(RecordError { column: 1, reason, is_object: false });
    }
    Ok(serde_json::from_str(line)?)
}

/// Writes one record as one line, with its newline.
///
/// # Errors
/// [`RecordError`]: never for the records here; serde's signature says it could.
pub fn to_line<T: Serialize>(record: &T) -> Result<String, RecordError> {
    let mut line = serde_json::to_string(record)?;
    line.push('\n');
    Ok(line)
}

/// Takes version 1 and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "u32", extend("const" = 1)))]
pub(crate) struct Version;

impl TryFrom<u32> for Version {
    type Error = String;
    fn try_from(version: u32) -> Result<Self, String> {
        if version == VERSION {
            Ok(Self)
        } else {
            Err(format!("record version {version} is not known here; this tool reads version {VERSION}"))
        }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        VERSION
    }
}

/// The template that a profile is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TemplateKind {
    /// `TEMPLATE.qemu`
    Qemu,
    /// `TEMPLATE.lxc`
    Lxc,
}

impl From<VirtType> for TemplateKind {
    fn from(virt_type: VirtType) -> Self {
        match virt_type {
            VirtType::Kvm | VirtType::Qemu => Self::Qemu,
            VirtType::Lxc => Self::Lxc,
        }
    }
}

/// A feature of the guest that needs more than its own files: what a minimal profile is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Feature {
    /// Hardware virtualisation: `/dev/kvm`.
    Kvm,
    /// At least one disk on a file or block device.
    Disk,
    /// A disk over the network.
    NetworkDisk,
    /// Ceph's client library: configuration, keyring, admin socket.
    Ceph,
    /// Gluster's client library.
    Gluster,
    /// iSCSI by QEMU's own initiator.
    Iscsi,
    /// nbdkit serves a source.
    Nbdkit,
    /// Raw SCSI commands to a device (`rawio`), which needs a capability.
    Rawio,
    /// Tap interfaces: `/dev/net/tun`.
    Tap,
    /// `/dev/vhost-net`.
    VhostNet,
    /// A network backend in another process, by vhost-user.
    VhostUser,
    /// vDPA devices.
    Vdpa,
    /// QEMU's user networking by a helper.
    Slirp,
    /// User networking by passt.
    Passt,
    /// Host devices by VFIO.
    Vfio,
    /// USB host devices: the bus's tree in sysfs.
    Usb,
    /// USB redirection.
    Redirect,
    /// SCSI host devices.
    Scsi,
    /// Sound on the host's hardware or server.
    Sound,
    /// VNC display.
    Vnc,
    /// SPICE display.
    Spice,
    /// A display in a window of the host.
    Sdl,
    /// D-Bus display.
    Dbus,
    /// A bus of the guest's own beside it.
    DbusDaemon,
    /// Host GPU acceleration: the GL libraries, the DRI directory.
    Gl,
    /// NVRAM or firmware images.
    Firmware,
    /// Any trusted platform module.
    Tpm,
    /// swtpm beside the guest.
    Swtpm,
    /// Directories shared by 9p.
    NineP,
    /// Directories shared by virtiofsd.
    Virtiofs,
    /// Huge pages.
    Hugepages,
    /// Guest memory in a file.
    FileMemory,
    /// Shared memory with other guests or the host.
    Shmem,
    /// Smartcards by NSS.
    Smartcard,
    /// `/dev/vhost-vsock`.
    Vsock,
    /// AMD SEV.
    Sev,
    /// Intel SGX.
    Sgx,
    /// TLS on a character device, a migration or a display.
    Tls,
    /// A pseudo-terminal.
    Pty,
    /// Files handed to the guest by `qemu:commandline`.
    CommandLine,
}

/// Why a note was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum NoteKind {
    /// A file that the domain names does not exist.
    MissingFile,
    /// An image's header could not be read, so its chain is not known.
    UnreadableLayer,
    /// A backing chain ends in something that is not followed, and why.
    ChainEnds,
    /// An element or attribute that this version does not know.
    UnknownElement,
    /// An element that is known and touches the host in a way no file rule covers.
    NotCovered,
    /// Something the host does not have (a device, a sysfs entry).
    MissingDevice,
    /// An argument of `qemu:commandline` that is not understood.
    UnknownArgument,
    /// A rule was left out, and why.
    LeftOut,
    /// A security label that changes what happens.
    Seclabel,
}

/// Something a person should know of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a note")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Note {
    /// Why it was made.
    pub kind: NoteKind,
    /// What happened, for people.
    pub text: String,
    /// Line in the XML, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// What aa-derive writes and aa-render reads: everything one guest needs.
///
/// The profile is always that of the domain's UUID; rules are sorted and without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawDerived", into = "RawDerived")]
pub struct Derived {
    domain: Domain,
    template: TemplateKind,
    uses: Vec<Feature>,
    rules: Vec<Rule>,
    notes: Vec<Note>,
}

impl Derived {
    /// Makes a record; `uses` and `notes` are sorted and freed of duplicates here.
    pub fn new(domain: Domain, mut uses: Vec<Feature>, rules: RuleSet, mut notes: Vec<Note>) -> Self {
        uses.sort_unstable();
        uses.dedup();
        notes.sort_by(|a, b| (a.line, a.kind, &a.text).cmp(&(b.line, b.kind, &b.text)));
        notes.dedup();
        let template = domain.virt_type.into();
        Self { domain, template, uses, rules: rules.into_rules(), notes }
    }

    /// The guest's profile.
    pub fn profile(&self) -> ProfileName {
        ProfileName::new(self.domain.uuid)
    }

    /// The guest.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The template to use.
    pub fn template(&self) -> TemplateKind {
        self.template
    }

    /// The features the guest uses, sorted.
    pub fn uses(&self) -> &[Feature] {
        &self.uses
    }

    /// The rules, sorted, one for each target.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The notes, by line.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// The record as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a record of aa-derive")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Derived"))]
pub(crate) struct RawDerived {
    version: Version,
    profile: ProfileName,
    domain: Domain,
    template: TemplateKind,
    #[serde(default)]
    uses: Vec<Feature>,
    #[cfg_attr(feature = "schema", schemars(with = "Vec<crate::rule::RawRule>"))]
    rules: Vec<Rule>,
    #[serde(default)]
    notes: Vec<Note>,
}

/// Why a well-formed line contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DerivedError {
    /// The profile is not that of the domain's UUID.
    #[error("profile {profile} is not that of domain {uuid}")]
    Profile {
        /// The profile that the record names.
        profile: ProfileName,
        /// The UUID that it names.
        uuid: uuid::Uuid,
    },
    /// The template is not that of the domain's type.
    #[error("a domain of this type is not made from this template")]
    Template,
    /// Two rules execute one path in two ways.
    #[error(transparent)]
    Exec(#[from] ExecConflict),
}

impl TryFrom<RawDerived> for Derived {
    type Error = DerivedError;
    fn try_from(raw: RawDerived) -> Result<Self, DerivedError> {
        if raw.profile.uuid() != raw.domain.uuid {
            return Err(DerivedError::Profile { profile: raw.profile, uuid: raw.domain.uuid });
        }
        if raw.template != raw.domain.virt_type.into() {
            return Err(DerivedError::Template);
        }
        let mut rules = RuleSet::default();
        for rule in raw.rules {
            rules.insert(rule)?;
        }
        Ok(Self::new(raw.domain, raw.uses, rules, raw.notes))
    }
}

impl From<Derived> for RawDerived {
    fn from(record: Derived) -> Self {
        let profile = record.profile();
        let Derived { domain, template, uses, rules, notes } = record;
        Self { version: Version, profile, domain, template, uses, rules, notes }
    }
}

/// What aa-render writes and aa-load reads: a profile on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a record of aa-render")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rendered {
    version: Version,
    /// The profile's name.
    pub profile: ProfileName,
    /// The base profile, which includes the rules file.
    pub file: LiteralPath,
    /// The rules file.
    pub rules_file: LiteralPath,
    /// Whether either file's content is other than it was before.
    pub changed: bool,
}

impl Rendered {
    /// A record of the two files of a profile.
    pub fn new(profile: ProfileName, file: LiteralPath, rules_file: LiteralPath, changed: bool) -> Self {
        Self { version: Version, profile, file, rules_file, changed }
    }
}

/// What aa-load did with a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the variants are the words of the record")]
pub enum Action {
    Added,
    Replaced,
    Unchanged,
    Removed,
}

/// Whether the kernel enforces a profile or only logs what it would deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the variants are the kernel's own words")]
pub enum Mode {
    Enforce,
    Complain,
}

/// What aa-load writes: a profile in the kernel, or one that has left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a record of aa-load")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Loaded {
    version: Version,
    /// The profile's name.
    pub profile: ProfileName,
    /// What was done.
    pub action: Action,
    /// The mode read back from the kernel; absent once removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

impl Loaded {
    /// A record of what was done with a profile.
    pub fn new(profile: ProfileName, action: Action, mode: Option<Mode>) -> Self {
        Self { version: Version, profile, action, mode }
    }
}

/// The JSON Schemas of the three records, by file name.
#[cfg(feature = "schema")]
pub fn schemas() -> [(&'static str, schemars::Schema); 3] {
    [
        ("derived-v1.json", schemars::schema_for!(RawDerived)),
        ("rendered-v1.json", schemars::schema_for!(Rendered)),
        ("loaded-v1.json", schemars::schema_for!(Loaded)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"version":1,"profile":"libvirt-a22e3930-d87a-584e-22b2-1d8950212bac","domain":{"name":"testqemu","uuid":"a22e3930-d87a-584e-22b2-1d8950212bac","id":3,"type":"kvm","os":"hvm","arch":"x86_64","emulator":"/usr/bin/qemu-system-x86_64"},"template":"qemu","uses":["disk","vhost-net","gl"],"rules":[{"path":"/var/lib/libvirt/images/testqemu.img","access":"rwk","origin":{"element":"devices/disk[1]/source","line":14}},{"glob":"/run/libvirt/**/testqemu.pid","access":"rwk","origin":{"element":"name","line":2}}],"notes":[{"kind":"missing-file","text":"x","line":14}]}"#;

    #[test]
    fn the_documented_record_reads_and_writes_itself() {
        let record: Derived = parse_line(LINE).unwrap();
        let again: Derived = parse_line(to_line(&record).unwrap().trim_end()).unwrap();
        assert_eq!(record, again);
        assert_eq!(record.rules().len(), 2);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1,\"more\":1"),
            ("\"version\":1", "\"version\":1,\"version\":1"),
            ("libvirt-a22e", "libvirt-b22e"),
            ("\"template\":\"qemu\"", "\"template\":\"lxc\""),
            ("\"name\":\"testqemu\"", "\"name\":\"a/b\""),
            ("\"access\":\"rwk\"", "\"access\":\"rwq\""),
            ("\"/var/lib", "\"var/lib"),
        ] {
            assert!(parse_line::<Derived>(&LINE.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(parse_line::<Derived>(&format!("{LINE} {LINE}")).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_column_and_in_the_records_words() {
        let told = |line: &str| {
            let RecordError { column, reason, is_object } = parse_line::<Derived>(line).unwrap_err();
            (column, reason, is_object)
        };
        for line in ["", "{", "[]", "null", "{\"version\":1,", "x"] {
            assert!(!told(line).2, "{line}");
        }
        // In the order of the fields, as an array.
        let rendered = r#"[1,"libvirt-a22e3930-d87a-584e-22b2-1d8950212bac","/a","/b",true]"#;
        assert!(!parse_line::<Rendered>(rendered).unwrap_err().is_object);
        assert_eq!(told("{}"), (2, "missing field `version`".to_owned(), true));
        let no_rule =
            LINE.replace(r#"{"path":"/var/lib/libvirt/images/testqemu.img","#, r#""x",{"path":"/x","#);
        let (column, reason, _) = told(&no_rule);
        assert_eq!(reason, "invalid type: string \"x\", expected a rule");
        assert_eq!(no_rule.get(column - 3..column), Some("\"x\""));
        let error = parse_line::<Derived>("{}").unwrap_err().to_string();
        assert_eq!(error, "not a record: missing field `version` (column 2)");
    }
}
