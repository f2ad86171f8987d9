//! Domain XML in, the file rules of the guest out.
//!
//! [`derive()`] reads the XML of one libvirt domain (`formatdomain` in libvirt's documentation) and
//! answers with every host file that the guest's hypervisor must reach, each with the least access
//! that works and the element that asks for it. It reads nothing but image headers, storage pool
//! definitions, sysfs, the list of mounts, names in directories of devices and symbolic links, and writes nothing.

pub mod args;
pub mod error;
pub mod host;
pub mod host_policy;
pub mod identity;
pub mod image;
pub mod mounts;
pub mod path_policy;
pub mod pool;
pub mod xml;

mod base;
mod boot;
mod deriver;
mod devices;
mod domain;
mod memory_backing;
mod qemu_args;
mod seclabel;
mod sysfs;
#[cfg(test)]
mod testing;

use aa_contract::{Access, Derived, Glob, LiteralPath, Note, NoteKind, Target};

pub use error::{Error, Refusal};
use host::Files;
use path_policy::PathPolicy;
use pool::Pools;

/// How to derive, the same for all domains of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What may never be granted.
    pub policy: PathPolicy,
    /// Storage pools that disks of type volume may name.
    pub pools: Pools,
    /// Files to grant besides, as the original's `-f`.
    pub add: Vec<Addition>,
    /// Whether image headers are read for backing files.
    pub probe: bool,
    /// Whether what would be a note of something missing or unknown is a refusal.
    pub strict: bool,
    /// Whether layers that are only read get a rule that denies writing, as the original does.
    /// A later rule cannot undo it, so a block commit into that layer fails.
    pub deny_readonly: bool,
    /// What becomes of the paths of pseudo-terminals.
    pub terminals: Terminals,
    /// What becomes of a volume whose pool is not among [`Options::pools`].
    pub unknown_volumes: UnknownVolumes,
}

/// What becomes of a volume whose pool is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownVolumes {
    /// The domain is refused.
    Refused,
    /// No rule and a note, as the original does without a note: a volume behind a protocol needs none.
    LeftOut,
}

/// What becomes of a pseudo-terminal's path in the XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminals {
    /// No rule: QEMU's own are in the abstraction, and the number may be another guest's by the next start.
    LeftOut,
    /// A rule, as the original makes.
    Granted,
}

impl Options {
    /// The options of a call without any: headers are read, nothing is added, no pool is known.
    pub fn new(policy: PathPolicy) -> Self {
        Self {
            policy,
            pools: Pools::default(),
            add: Vec::new(),
            probe: true,
            strict: false,
            deny_readonly: false,
            terminals: Terminals::LeftOut,
            unknown_volumes: UnknownVolumes::Refused,
        }
    }
}

/// A rule that the caller adds to each domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// A path that means itself, or a pattern of the caller's own.
    pub target: Target,
    /// What to allow.
    pub access: Access,
    /// The option that asked for it.
    pub option: &'static str,
}

impl Addition {
    /// A literal path, as `--add`.
    pub fn path(path: LiteralPath, access: Access) -> Self {
        Self { target: Target::Path(path), access, option: "--add" }
    }

    /// A pattern, as `--add-glob`.
    pub fn glob(glob: Glob, access: Access) -> Self {
        Self { target: Target::Glob(glob), access, option: "--add-glob" }
    }
}

/// Derives the record of one domain from its XML.
///
/// # Errors
/// [`Error`]: the XML is not well-formed or no domain of type kvm, qemu or lxc, or it asks for
/// something that may not be granted. Nothing is granted then.
pub fn derive(xml: &[u8], options: &Options, host: &Files) -> Result<Derived, Error> {
    derive_parsed(&xml::Document::parse(xml)?, options, host)
}

/// As [`derive()`], for who looks at the XML's elements besides.
///
/// # Errors
/// As [`derive()`], but for XML that is not well-formed.
pub fn derive_parsed(
    document: &xml::Document<'_>,
    options: &Options,
    host: &Files,
) -> Result<Derived, Error> {
    let root = domain::find(document)?;
    let guest = domain::read(&root)?;
    let mut deriver = deriver::Deriver::new(guest, options, host);
    domain::note_unknown(&mut deriver, &root);
    base::derive(&mut deriver, &root)?;
    boot::derive(&mut deriver, &root)?;
    memory_backing::derive(&mut deriver, &root)?;
    devices::derive(&mut deriver, &root)?;
    qemu_args::derive(&mut deriver, &root)?;
    seclabel::derive(&mut deriver, &root)?;
    for addition in &options.add {
        deriver.add(addition).map_err(|kind| Error { pos: None, kind })?;
    }
    devices::emulator(&mut deriver, &root)?;
    if options.strict
        && let Some((pos, note)) = deriver.notes().iter().find(|(_, note)| is_strict(note))
    {
        return Err(Error { pos: Some(*pos), kind: Refusal::Strict(note.text.clone()) });
    }
    Ok(deriver.finish())
}

/// Whether `--strict` refuses a domain for this note: something is missing, unknown or unread, so
/// the rules may not be all that the guest needs.
fn is_strict(note: &Note) -> bool {
    note.kind == NoteKind::MissingFile || is_of_a_missing_rule(note)
}

/// Whether the note is of something that the guest may need and that got no rule. A file that is missing got one: it may
/// be made later, or the domain be another host's.
pub fn is_of_a_missing_rule(note: &Note) -> bool {
    use NoteKind as K;
    matches!(
        note.kind,
        K::UnreadableLayer
            | K::ChainEnds
            | K::UnknownElement
            | K::NotCovered
            | K::MissingDevice
            | K::UnknownArgument
    )
}
