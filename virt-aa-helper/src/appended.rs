//! What libvirtd grants a running guest by `-F`, and how long it lasts.
//!
//! libvirtd never takes such a grant back by name. All it does when a device is gone or a job has ended is a
//! plain `-r`; the original then forgets every `-F`, those still needed too. Here each grant is remembered
//! with what the XML said at that time, and a plain `-r` keeps exactly those that must outlast it.

use aa_contract::{Access, Rule, Target};
use serde::{Deserialize, Serialize};

use crate::extra::is_below;

/// How long an appended grant lasts. It never outlasts the guest's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasts {
    /// Until the next plain `-r`: by then the XML names the file, or it is not needed any more.
    UntilUpdate,
    /// As long as the XML names the file: a backing file that a block job writes. libvirtd says neither
    /// that it is one nor when it ends, and to cut it off would break the guest's disk.
    WhileNamed,
    /// As long as the guest runs: what the XML never names, and no event ends.
    WhileRunning,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appended {
    /// What is allowed.
    pub rule: Rule,
    /// How long.
    pub lasts: Lasts,
}

impl Appended {
    /// What libvirtd asks for with `-F`, given the rules of the XML at that time: `rwk`, but for the
    /// medium of a read-only drive.
    pub fn new(target: Target, derived: &[Rule]) -> Self {
        let origin = find(derived, &target)
            .filter(|rule| !rule.access.writes())
            .and_then(|rule| Some((rule.access, rule.origin.as_ref()?.layer)));
        let (access, lasts) = match origin {
            Some((access, None)) => (access, Lasts::UntilUpdate),
            Some((_, Some(_))) => (Access::RWK, Lasts::WhileNamed),
            None if is_never_named(&target) => (Access::RWK, Lasts::WhileRunning),
            None => (Access::RWK, Lasts::UntilUpdate),
        };
        let rule = Rule { target, access, deny: false, owner: false, audit: false, origin: None };
        Self { rule, lasts }
    }

    /// Whether a plain `-r` with these rules of the XML keeps it.
    pub fn outlasts_update(&self, derived: &[Rule]) -> bool {
        match self.lasts {
            Lasts::UntilUpdate => false,
            Lasts::WhileNamed => find(derived, &self.rule.target).is_some(),
            Lasts::WhileRunning => true,
        }
    }
}

fn find<'r>(rules: &'r [Rule], target: &Target) -> Option<&'r Rule> {
    rules.iter().find(|rule| !rule.deny && rule.target == *target)
}

/// Directories of memory and state, and the nodes that libvirtd opens itself and hands over.
fn is_never_named(target: &Target) -> bool {
    match target {
        Target::Glob(_) => true,
        Target::Path(path) => match path.as_str() {
            "/dev/userfaultfd" | "/dev/net/tun" | "/dev/vhost-net" => true,
            path => path
                .strip_prefix("/dev/tap")
                .is_some_and(|index| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit())),
        },
    }
}

/// Whether the rules allow all of `wanted` already. Where a rule denies anything, nobody can tell: no.
pub fn is_covered(wanted: &Rule, rules: &[Rule]) -> bool {
    let allows = |rule: &Rule| {
        !rule.owner
            && rule.access.includes(wanted.access)
            && (rule.target == wanted.target
                || matches!(&rule.target, Target::Glob(glob) if is_below(glob, &wanted.target)))
    };
    !rules.iter().any(|rule| rule.deny) && rules.iter().any(allows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<Rule> {
        serde_json::from_str(json).unwrap()
    }

    fn appended(path: &str, derived: &[Rule]) -> (String, Lasts) {
        let rule = rules(&format!(r#"[{{"path":"{path}","access":"r"}}]"#)).remove(0);
        let appended = Appended::new(rule.target, derived);
        (appended.rule.access.to_string(), appended.lasts)
    }

    #[test]
    fn access_and_end_follow_from_what_the_xml_says() {
        let derived = rules(
            r#"[{"path":"/i/top","access":"rwk","origin":{"element":"devices/disk[1]/source"}},
                {"path":"/i/base","access":"rk","origin":{"element":"devices/disk[1]/source","layer":1}},
                {"path":"/i/cd.iso","access":"rk","origin":{"element":"devices/disk[2]/source"}}]"#,
        );
        let of = |path| appended(path, &derived);
        assert_eq!(of("/i/new"), ("rwk".into(), Lasts::UntilUpdate));
        assert_eq!(of("/i/top"), ("rwk".into(), Lasts::UntilUpdate));
        assert_eq!(of("/i/base"), ("rwk".into(), Lasts::WhileNamed));
        assert_eq!(of("/i/cd.iso"), ("rk".into(), Lasts::UntilUpdate));
        assert_eq!(of("/dev/userfaultfd"), ("rwk".into(), Lasts::WhileRunning));
        assert_eq!(of("/dev/tap12"), ("rwk".into(), Lasts::WhileRunning));
        for other in ["/dev/tap", "/dev/tapestry", "/dev/sda", "/dev/vfio/12"] {
            assert_eq!(of(other).1, Lasts::UntilUpdate, "{other}");
        }
    }

    #[test]
    fn a_block_jobs_file_stays_until_the_xml_drops_it() {
        let named = rules(
            r#"[{"path":"/i/base","access":"rk","origin":{"element":"devices/disk[1]/source","layer":1}}]"#,
        );
        let grant = Appended::new(named[0].target.clone(), &named);
        assert!(grant.outlasts_update(&named));
        assert!(!grant.outlasts_update(&[]));
        // Plugged in before the XML named it: then the XML's access is the right one.
        assert!(!Appended::new(named[0].target.clone(), &[]).outlasts_update(&named));
    }

    #[test]
    fn covered_is_what_needs_no_new_rule() {
        let have = rules(
            r#"[{"path":"/i/a","access":"rk"},{"path":"/i/b","access":"rwk"},
                {"glob":"/d/{,**}","access":"rwk"},{"path":"/i/o","access":"rwk","owner":true}]"#,
        );
        let want = |path: &str| rules(&format!(r#"[{{"path":"{path}","access":"rwk"}}]"#)).remove(0);
        for path in ["/i/b", "/d/key"] {
            assert!(is_covered(&want(path), &have), "{path}");
        }
        for path in ["/i/a", "/i/c", "/i/o", "/dx"] {
            assert!(!is_covered(&want(path), &have), "{path}");
        }
        let denied = rules(r#"[{"path":"/i/b","access":"rwk"},{"path":"/i/b","access":"w","deny":true}]"#);
        assert!(!is_covered(&want("/i/b"), &denied));
    }
}
