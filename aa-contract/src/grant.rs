//! What a person or a backup tool allows a guest for a while, beside the rules of its definition.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::record::Version;
use crate::rule::Rule;

/// A rule that stays through every new derivation until it is dropped by name.
///
/// One line of `libvirt-<uuid>.grants`, which aa-render writes beside the profile and aa-load's
/// `status` lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a grant")]
pub struct Grant {
    version: Version,
    /// What is allowed.
    pub rule: Rule,
    /// Why, in the words of whoever allowed it.
    pub reason: Reason,
}

impl Grant {
    /// A grant of `rule`.
    pub fn new(rule: Rule, reason: Reason) -> Self {
        Self { version: Version, rule, reason }
    }
}

/// Why a grant was made: one line, not empty, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(String);

/// The text cannot be a reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a reason is one line of text, not empty, without control characters")]
pub struct ReasonError;

impl Reason {
    /// Checks and takes a reason.
    ///
    /// # Errors
    /// [`ReasonError`]: the text is empty or more than a line.
    pub fn new(text: impl Into<String>) -> Result<Self, ReasonError> {
        let text = text.into();
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            return Err(ReasonError);
        }
        Ok(Self(text))
    }

    /// The reason as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Reason {
    type Error = ReasonError;
    fn try_from(text: String) -> Result<Self, ReasonError> {
        Self::new(text)
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{parse_line, to_line};

    #[test]
    fn a_grant_reads_what_it_wrote_and_nothing_else() {
        let line = r#"{"version":1,"rule":{"path":"/srv/b","access":"rw"},"reason":"nightly backup"}"#;
        let grant: Grant = parse_line(line).unwrap();
        assert_eq!(to_line(&grant).unwrap().trim_end(), line);
        for (from, to) in [("nightly backup", ""), ("nightly", "a\\nb"), ("\"version\":1", "\"version\":2")] {
            assert!(parse_line::<Grant>(&line.replace(from, to)).is_err(), "{to}");
        }
    }
}
