//! What passes between the aa-svirt tools: one JSON object a line, and the types in it.
//!
//! Every type here is parsed once and cannot be wrong afterwards: a [`LiteralPath`] is absolute and
//! normal, a [`Glob`] is a well-formed AppArmor pattern, a [`ProfileName`] is `libvirt-<uuid>`.
//! Nothing in this crate does any input or output.

pub mod access;
pub mod domain;
pub mod exit;
pub mod grant;
mod matching;
pub mod path;
pub mod profile;
pub mod quote;
pub mod record;
pub mod rule;
pub mod syntax;
pub mod text;

pub use access::{Access, Exec};
pub use domain::{Domain, DomainName, VirtType};
pub use exit::Exit;
pub use grant::{Grant, Reason};
pub use path::{Glob, LiteralPath};
pub use profile::ProfileName;
pub use record::{Action, Derived, Feature, Loaded, Mode, Note, NoteKind, Rendered, TemplateKind};
pub use rule::{Origin, Rule, RuleSet, Target};
pub use uuid::Uuid;
