//! One file rule, and sets of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::access::{Access, Exec, ExecConflict};
use crate::path::{Glob, LiteralPath};

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A path in which every byte means itself.
    Path(LiteralPath),
    /// An AppArmor pattern: this project's own constants, literal directories with a constant
    /// suffix, or the user's own words.
    Glob(Glob),
}

impl Target {
    /// Whether the path, or a path that the pattern matches, is this one (see [`Glob::matches`]).
    pub fn matches(&self, path: &LiteralPath) -> bool {
        match self {
            Self::Path(target) => target == path,
            Self::Glob(glob) => glob.matches(path),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Glob(glob) => glob.fmt(f),
        }
    }
}

/// Where in the input a rule comes from, so that each grant can be explained.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "where a rule comes from")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Origin {
    /// Element path below `<domain>`, as in `devices/disk[1]/source`, or the option that asked for it.
    pub element: String,
    /// Line of the element in the XML, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Depth in a disk's backing chain: absent for the disk itself, from 1 for its backing files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
}

/// One file rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawRule", into = "RawRule")]
pub struct Rule {
    /// Path or pattern.
    pub target: Target,
    /// What is allowed, or denied.
    pub access: Access,
    /// Whether the rule denies.
    pub deny: bool,
    /// Whether the rule holds only for files owned by the process's user.
    pub owner: bool,
    /// Whether each use is logged.
    pub audit: bool,
    /// Where it comes from; a rule that a person adds may have none.
    pub origin: Option<Origin>,
}

impl Rule {
    /// A rule that allows `access` to `target`.
    pub fn allow(target: Target, access: Access, origin: Origin) -> Self {
        Self { origin: Some(origin), ..Self::plain(target, access) }
    }

    /// The same of no origin.
    pub fn plain(target: Target, access: Access) -> Self {
        Self { target, access, deny: false, owner: false, audit: false, origin: None }
    }

    /// The rule, if it is one that the parser takes.
    ///
    /// # Errors
    /// [`RuleError::Exec`]: its execute mode goes with the other kind of rule.
    pub fn checked(self) -> Result<Self, RuleError> {
        match self.access.exec() {
            Some(exec) if (exec == Exec::Any) != self.deny => Err(RuleError::Exec(self.access)),
            _ => Ok(self),
        }
    }
}

/// The rule as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rule")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Rule", extend("oneOf" = [{"required": ["path"]}, {"required": ["glob"]}])))]
pub(crate) struct RawRule {
    /// A literal path: every byte means itself. Exactly one of path and glob is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<LiteralPath>,
    /// An AppArmor pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glob: Option<Glob>,
    access: Access,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deny: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    owner: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    audit: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
}

/// Why a written rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Both or neither of `path` and `glob`.
    #[error("a rule has exactly one of \"path\" and \"glob\"")]
    Target,
    /// Plain `x` outside a deny rule, or a qualified one inside.
    #[error("plain \"x\" stands in deny rules and only there: \"{0}\"")]
    Exec(Access),
}

impl TryFrom<RawRule> for Rule {
    type Error = RuleError;
    fn try_from(raw: RawRule) -> Result<Self, RuleError> {
        let target = match (raw.path, raw.glob) {
            (Some(path), None) => Target::Path(path),
            (None, Some(glob)) => Target::Glob(glob),
            _ => return Err(RuleError::Target),
        };
        let RawRule { access, deny, owner, audit, origin, .. } = raw;
        Self { target, access, deny, owner, audit, origin }.checked()
    }
}

impl From<Rule> for RawRule {
    fn from(rule: Rule) -> Self {
        let Rule { target, access, deny, owner, audit, origin } = rule;
        let (path, glob) = match target {
            Target::Path(path) => (Some(path), None),
            Target::Glob(glob) => (None, Some(glob)),
        };
        Self { path, glob, access, deny, owner, audit, origin }
    }
}

/// Rules, sorted and one for each target: accesses to the same target are joined, and the first
/// origin stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet(BTreeMap<Key, (Access, Option<Origin>)>);

/// What makes two rules one: target, deny, owner, audit.
type Key = (Target, bool, bool, bool);

impl RuleSet {
    /// Adds a rule, joining it with one for the same target. Says whether anything changed.
    ///
    /// # Errors
    /// [`ExecConflict`]: the path is already executed in another way.
    pub fn insert(&mut self, rule: Rule) -> Result<bool, ExecConflict> {
        match self.0.entry((rule.target, rule.deny, rule.owner, rule.audit)) {
            Entry::Vacant(entry) => {
                entry.insert((rule.access, rule.origin));
                Ok(true)
            }
            Entry::Occupied(mut entry) => {
                let (access, _) = entry.get_mut();
                let joined = access.union(rule.access)?;
                Ok(std::mem::replace(access, joined) != joined)
            }
        }
    }

    /// Whether a rule allows writing to this path, itself or by a pattern.
    pub fn writes(&self, path: &LiteralPath) -> bool {
        self.0
            .iter()
            .any(|((target, deny, ..), (access, _))| !deny && access.writes() && target.matches(path))
    }

    /// The rules in order.
    pub fn into_rules(self) -> Vec<Rule> {
        self.0
            .into_iter()
            .map(|((target, deny, owner, audit), (access, origin))| Rule {
                target,
                access,
                deny,
                owner,
                audit,
                origin,
            })
            .collect()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Rule, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn exactly_one_target() {
        assert!(rule(r#"{"path":"/a","access":"r"}"#).is_ok());
        assert!(rule(r#"{"glob":"/a/**","access":"r"}"#).is_ok());
        assert!(rule(r#"{"access":"r"}"#).is_err());
        assert!(rule(r#"{"path":"/a","glob":"/a","access":"r"}"#).is_err());
        assert!(rule(r#"{"path":"/a","access":"r","acess":"w"}"#).is_err());
        assert!(rule(r#"{"path":"/a","access":"x"}"#).is_err());
        assert!(rule(r#"{"path":"/a","access":"rx","deny":true}"#).is_ok());
    }

    #[test]
    fn a_set_writes_what_any_of_its_rules_writes() {
        let mut set = RuleSet::default();
        for json in [
            r#"{"path":"/r","access":"rmix"}"#,
            r#"{"path":"/w","access":"w"}"#,
            r#"{"glob":"/srv/**","access":"rwkl","owner":true}"#,
            r#"{"glob":"/lib/**","access":"r"}"#,
            r#"{"glob":"/lib/**","access":"w","deny":true}"#,
        ] {
            set.insert(rule(json).unwrap()).unwrap();
        }
        let writes = |path| set.writes(&LiteralPath::new(path).unwrap());
        assert!(writes("/w") && writes("/srv/a") && writes("/srv/a/b"));
        assert!(!writes("/r") && !writes("/srv") && !writes("/lib/a"));
    }

    #[test]
    fn the_same_target_is_one_rule() {
        let mut set = RuleSet::default();
        let mut add = |json: &str| set.insert(rule(json).unwrap()).unwrap();
        assert!(add(r#"{"path":"/b","access":"rk"}"#));
        assert!(add(r#"{"path":"/a","access":"r"}"#));
        assert!(add(r#"{"path":"/b","access":"rw"}"#));
        assert!(!add(r#"{"path":"/b","access":"w"}"#));
        let rules = set.into_rules();
        assert_eq!(
            serde_json::to_string(&rules).unwrap(),
            r#"[{"path":"/a","access":"r"},{"path":"/b","access":"rwk"}]"#
        );
    }
}
