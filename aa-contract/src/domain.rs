//! The guest that a record is about.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::path::LiteralPath;
use crate::text::Printable;

/// A domain's name: not empty, no `/`, no control character, neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("minLength" = 1)))]
pub struct DomainName(String);

/// The text cannot name a domain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{}\" cannot be a domain's name: {reason}", Printable(.name))]
pub struct DomainNameError {
    name: String,
    reason: &'static str,
}

impl DomainName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`DomainNameError`]: the name could reach another directory or break a line.
    pub fn new(name: impl Into<String>) -> Result<Self, DomainNameError> {
        let name = name.into();
        let reason = if name.is_empty() {
            "it is empty"
        } else if name.contains('/') {
            "it has a /"
        } else if name.chars().any(char::is_control) {
            "it has a control character"
        } else if name == "." || name == ".." {
            "it names a directory"
        } else {
            return Ok(Self(name));
        };
        Err(DomainNameError { name, reason })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainNameError;
    fn try_from(name: String) -> Result<Self, DomainNameError> {
        Self::new(name)
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0
    }
}

/// The hypervisor drivers whose guests libvirt confines with AppArmor on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the variants are libvirt's own words, formatdomain")]
pub enum VirtType {
    Kvm,
    Qemu,
    Lxc,
}

/// Who the guest is (libvirt's `formatdomain`, «General metadata» and «Operating system booting»).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a domain")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Domain {
    /// `<name>`
    pub name: DomainName,
    /// `<uuid>`, written in lower case with dashes
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "uuid")))]
    pub uuid: Uuid,
    /// `<domain id=…>`: present only while the guest runs
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i32>,
    /// `<domain type=…>`
    #[serde(rename = "type")]
    pub virt_type: VirtType,
    /// `<os><type>`: `hvm`, `exe` …
    pub os: String,
    /// `<os><type arch=…>`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// `<devices><emulator>`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulator: Option<LiteralPath>,
}
