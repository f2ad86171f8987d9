//! The grants file of a guest, `libvirt-<uuid>.grants`: one [`Grant`] a line.

use std::path::Path;

use aa_contract::access::ExecConflict;
use aa_contract::record::{parse_line, to_line};
use aa_contract::{Access, Exec, Grant, Reason, Rule, RuleSet, Target};

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
pub fn apply(mut grants: Vec<Grant>, change: &Change) -> Result<Vec<Grant>, Error> {
    let (Change::Add { target, .. } | Change::Drop { target }) = change;
    let before = grants.len();
    grants.retain(|grant| grant.rule.target != *target);
    match change {
        Change::Drop { target } if grants.len() == before => {
            return Err(Error::NoGrant(target.to_string()));
        }
        Change::Drop { .. } => {}
        Change::Add { target, access, reason } => {
            let rule = Rule::plain(target.clone(), *access).checked()?;
            grants.push(Grant::new(rule, reason.clone()));
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

/// Refuses to grant what the guest's own rules deny: a denial holds whatever allows.
///
/// # Errors
/// [`Error::GrantDenied`]: which grant, and which rule.
pub fn check_change(change: &Change, rules: &[Rule]) -> Result<(), Error> {
    let Change::Add { target, access, .. } = change else { return Ok(()) };
    match denial(target, *access, rules) {
        Some(rule) => Err(Error::GrantDenied { path: target.to_string(), denied: rule.access }),
        None => Ok(()),
    }
}

/// The grants that are without effect, all or in part, since the guest's own rules deny them.
pub fn denied<'g>(grants: &'g [Grant], rules: &[Rule]) -> impl Iterator<Item = &'g Grant> {
    grants.iter().filter(|grant| denial(&grant.rule.target, grant.rule.access, rules).is_some())
}

/// A rule that denies anything of an access: for the very target, or for all below a directory.
fn denial<'r>(target: &Target, access: Access, rules: &'r [Rule]) -> Option<&'r Rule> {
    let mut denials = rules.iter().filter(|rule| rule.deny && rule.access.overlaps(access));
    denials.find(|rule| {
        rule.target == *target || matches!(&rule.target, Target::Glob(glob) if glob.has_below(target))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<Rule> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_a_rule_denies_is_not_granted() {
        let rules = rules(
            r#"[{"path":"/i/a*","access":"w","deny":true},{"glob":"/d\\052/**","access":"rw","deny":true},
                {"glob":"/e/{,**}","access":"x","deny":true},{"path":"/i/b","access":"w"}]"#,
        );
        let is_denied = |path: &str, access: &str| {
            let target = Target::Path(path.to_owned().try_into().unwrap());
            let reason = Reason::new("x").unwrap();
            check_change(&Change::Add { target, access: access.parse().unwrap(), reason }, &rules).is_err()
        };
        for (path, access) in [("/i/a*", "rwk"), ("/i/a*", "a"), ("/d*/x/y", "r"), ("/e/x", "rix")] {
            assert!(is_denied(path, access), "{path} {access}");
        }
        for (path, access) in [
            ("/i/a*", "rk"),
            ("/i/ab", "rwk"),
            ("/dx/y", "rw"),
            ("/e/x", "rw"),
            ("/i/b", "rw"),
            ("/ex", "rix"),
        ] {
            assert!(!is_denied(path, access), "{path} {access}");
        }
        // To take one back is no grant.
        let target = Target::Path("/i/a*".to_owned().try_into().unwrap());
        assert!(check_change(&Change::Drop { target }, &rules).is_ok());
    }
}
