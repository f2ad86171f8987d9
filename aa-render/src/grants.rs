//! The grants file of a guest, `libvirt-<uuid>.grants`: one [`Grant`] a line.

use std::path::Path;

use aa_contract::record::{parse_line, to_line};
use aa_contract::{Access, Exec, Grant, ProfileName, Reason, Rule, Target};

use crate::error::Error;

/// A change to what is granted for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Grant `access` to `target`, in place of what was granted there before.
    Add {
        /// The path or pattern.
        target: Target,
        /// What is allowed.
        access: Access,
        /// Why.
        reason: Reason,
    },
    /// Take back what was granted.
    Drop {
        /// The path or pattern.
        target: Target,
    },
}

/// Reads a grants file.
///
/// # Errors
/// [`Error::Grants`]: a line is not a grant.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Grant>, Error> {
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| {
            let fail = |reason: String| Error::Grants { path: path.to_owned(), line: index + 1, reason };
            let grant: Grant = parse_line(line).map_err(|error| fail(error.to_string()))?;
            let exec = grant.rule.access.exec();
            if grant.rule.deny || exec == Some(Exec::Any) {
                return Err(fail("a grant allows".to_owned()));
            }
            Ok(grant)
        })
        .collect()
}

/// The text of a grants file; no file if nothing is granted.
pub fn write(grants: &[Grant]) -> Option<String> {
    (!grants.is_empty()).then(|| grants.iter().filter_map(|grant| to_line(grant).ok()).collect())
}

/// The grants after a change.
///
/// # Errors
/// [`Error::NoGrant`]: what is to be dropped was never granted.
pub fn apply(mut grants: Vec<Grant>, profile: ProfileName, change: &Change) -> Result<Vec<Grant>, Error> {
    let (Change::Add { target, .. } | Change::Drop { target }) = change;
    let before = grants.len();
    grants.retain(|grant| grant.rule.target != *target);
    match change {
        Change::Drop { target } if grants.len() == before => {
            let path = match target {
                Target::Path(path) => path.to_string(),
                Target::Glob(glob) => glob.to_string(),
            };
            return Err(Error::NoGrant { profile, path });
        }
        Change::Drop { .. } => {}
        Change::Add { target, access, reason } => {
            let rule = Rule {
                target: target.clone(),
                access: *access,
                deny: false,
                owner: false,
                audit: false,
                origin: None,
            };
            grants.push(Grant::new(rule, reason.clone()));
        }
    }
    grants.sort_by(|a, b| a.rule.target.cmp(&b.rule.target));
    Ok(grants)
}
