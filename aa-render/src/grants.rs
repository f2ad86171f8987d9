//! The grants file of a guest, `libvirt-<uuid>.grants`: one [`Grant`] a line.

use std::path::Path;

use aa_contract::access::ExecConflict;
use aa_contract::record::{parse_line, to_line};
use aa_contract::{Access, Exec, Grant, ProfileName, Reason, Rule, RuleSet, Target};

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
/// [`Error::Rule`]: the access is one of deny rules; [`Error::NoGrant`]: what is to be dropped was never granted.
pub fn apply(mut grants: Vec<Grant>, profile: ProfileName, change: &Change) -> Result<Vec<Grant>, Error> {
    let (Change::Add { target, .. } | Change::Drop { target }) = change;
    let before = grants.len();
    grants.retain(|grant| grant.rule.target != *target);
    match change {
        Change::Drop { target } if grants.len() == before => {
            return Err(Error::NoGrant { profile, path: target.to_string() });
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
            grants.push(Grant::new(rule.checked()?, reason.clone()));
        }
    }
    grants.sort_by(|a, b| a.rule.target.cmp(&b.rule.target));
    Ok(grants)
}

/// Refuses grants that execute what the guest's own rules execute in another way: the parser would take neither.
///
/// # Errors
/// [`Error::GrantExec`]: which grant.
pub fn check(grants: &[Grant], rules: &[Rule]) -> Result<(), Error> {
    for grant in grants {
        let mut set = RuleSet::default();
        let same = rules.iter().filter(|rule| rule.target == grant.rule.target);
        same.chain([&grant.rule]).try_for_each(|rule| set.insert(rule.clone()).map(drop)).map_err(
            |source: ExecConflict| Error::GrantExec { path: grant.rule.target.to_string(), source },
        )?;
    }
    Ok(())
}
