//! What libvirtd grants a running guest by `-F`, and how long it lasts.
//!
//! libvirtd never takes such a grant back by name. All it does when a device is gone or a job has ended is a
//! plain `-r`; the original then forgets every `-F`, those still needed too. Here each grant is remembered
//! with what the XML said at that time, and a plain `-r` keeps exactly those that must outlast it.

use aa_contract::{Access, Derived, Feature, LiteralPath, Rule, Target, VirtType};
use serde::{Deserialize, Serialize};

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
    /// medium of a read-only drive, and for what `is_layer` knows as a layer of what is being plugged in.
    pub fn new(target: Target, derived: &[Rule], is_layer: impl FnOnce(&Target) -> bool) -> Self {
        let origin = find(derived, &target)
            .filter(|rule| !rule.access.writes())
            .and_then(|rule| Some((rule.access, rule.origin.as_ref()?.layer)));
        let (access, lasts) = match origin {
            Some((access, None)) => (access, Lasts::UntilUpdate),
            _ if is_layer(&target) => (Access::RK, Lasts::UntilUpdate),
            Some((_, Some(_))) => (Access::RWK, Lasts::WhileNamed),
            None if is_never_named(&target) => (Access::RWK, Lasts::WhileRunning),
            None => (Access::RWK, Lasts::UntilUpdate),
        };
        Self { rule: Rule::plain(target, access), lasts }
    }

    /// Whether a plain `-r` with these rules of the XML keeps it.
    pub fn outlasts_update(&self, derived: &[Rule]) -> bool {
        match self.lasts {
            Lasts::UntilUpdate => false,
            Lasts::WhileNamed => find(derived, &self.rule.target).is_some(),
            Lasts::WhileRunning => true,
        }
    }

    /// What goes with it. libvirtd names the node of a device that it plugs in and nothing else, and that before the XML
    /// has the device, which would name the rest.
    pub fn brings(&self, derived: &Derived) -> Brings {
        let Target::Path(path) = &self.rule.target else { return Brings::default() };
        // The card's model is not known. A tap of the XML's own says by its features whether it has the back end.
        let may_be_vhost =
            derived.domain().virt_type == VirtType::Kvm && !derived.uses().contains(&Feature::Tap);
        let (uses, node): (&[Feature], Option<&'static str>) = match path.as_str() {
            "/dev/userfaultfd" => (&[], None),
            "/dev/vhost-net" => (&[Feature::VhostNet], None),
            path if path == "/dev/net/tun" || is_macvtap(path) => {
                if may_be_vhost {
                    (&[Feature::Tap, Feature::VhostNet], Some("/dev/vhost-net"))
                } else {
                    (&[Feature::Tap], None)
                }
            }
            path if path.starts_with("/dev/bus/usb/") => (&[Feature::Usb], None),
            // Of a vhost-scsi adapter libvirtd names its target and not the node, which it opens itself and hands over.
            path if path.starts_with("/sys/kernel/config/target/vhost/") => {
                (&[Feature::Scsi], Some("/dev/vhost-scsi"))
            }
            path => match path.strip_prefix("/dev/vfio/") {
                Some(group) if is_number(group) => (&[Feature::Vfio], Some("/dev/vfio/vfio")),
                Some(_) => (&[Feature::Vfio], None),
                None => (&[Feature::Disk], None),
            },
        };
        let node = node.and_then(|node| LiteralPath::new(node).ok());
        Brings { uses: uses.to_vec(), node: node.map(|node| Rule::plain(Target::Path(node), Access::RW)) }
    }
}

/// What a grant brings with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brings {
    /// What a minimal profile is built from.
    pub uses: Vec<Feature>,
    /// The node that serves all devices of the kind.
    pub node: Option<Rule>,
}

/// The rule of the XML that allows anything of `target`.
pub fn find<'r>(rules: &'r [Rule], target: &Target) -> Option<&'r Rule> {
    rules.iter().find(|rule| !rule.deny && rule.target == *target)
}

/// Directories of memory and state, and the nodes that libvirtd opens itself and hands over.
fn is_never_named(target: &Target) -> bool {
    match target {
        Target::Glob(_) => true,
        Target::Path(path) => match path.as_str() {
            "/dev/userfaultfd" | "/dev/net/tun" | "/dev/vhost-net" => true,
            path => is_macvtap(path),
        },
    }
}

/// The node of a macvtap card: its link's number stands behind the name.
fn is_macvtap(path: &str) -> bool {
    path.strip_prefix("/dev/tap").is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the rules allow all of `wanted` already. Where a rule denies anything, nobody can tell: no.
pub fn is_covered(wanted: &Rule, rules: &[Rule]) -> bool {
    let allows = |rule: &Rule| {
        !rule.owner
            && rule.access.includes(wanted.access)
            && (rule.target == wanted.target
                || matches!(&rule.target, Target::Glob(glob) if glob.has_below(&wanted.target)))
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
        let appended = Appended::new(rule.target, derived, |_| false);
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
        let grant = Appended::new(named[0].target.clone(), &named, |_| false);
        assert!(grant.outlasts_update(&named));
        assert!(!grant.outlasts_update(&[]));
        // Plugged in before the XML named it: then the XML's access is the right one.
        assert!(!Appended::new(named[0].target.clone(), &[], |_| false).outlasts_update(&named));
    }

    #[test]
    fn a_layer_of_what_is_plugged_in_is_only_read() {
        let named = rules(
            r#"[{"path":"/i/base","access":"rk","origin":{"element":"devices/disk[1]/source","layer":1}},
                {"path":"/i/cd.iso","access":"r","origin":{"element":"devices/disk[2]/source"}}]"#,
        );
        let layer = |path: &str, derived: &[Rule]| {
            let target = Target::Path(LiteralPath::new(path).unwrap());
            let appended = Appended::new(target, derived, |target| target.to_string() != "/i/top");
            (appended.rule.access.to_string(), appended.lasts)
        };
        for derived in [named.as_slice(), &[]] {
            assert_eq!(layer("/i/base", derived), ("rk".into(), Lasts::UntilUpdate));
            assert_eq!(layer("/i/top", derived), ("rwk".into(), Lasts::UntilUpdate));
        }
        // No more than the XML gives.
        assert_eq!(layer("/i/cd.iso", &named), ("r".into(), Lasts::UntilUpdate));
    }

    #[test]
    fn a_node_brings_what_serves_its_kind_of_device() {
        let brings = |path: &str, virt_type: &str, uses: &str| {
            let derived: Derived = aa_contract::record::parse_line(&format!(
                r#"{{"version":1,"profile":"libvirt-a22e3930-d87a-584e-22b2-1d8950212bac","domain":{{"name":"t","uuid":"a22e3930-d87a-584e-22b2-1d8950212bac","type":"{virt_type}","os":"hvm"}},"template":"qemu","uses":[{uses}],"rules":[]}}"#
            ))
            .unwrap();
            let target = Target::Path(LiteralPath::new(path).unwrap());
            let Brings { uses, node } = Appended::new(target, &[], |_| false).brings(&derived);
            let node = node.map(|rule| format!("{} {}", rule.target, rule.access));
            (uses, node.unwrap_or_default())
        };
        for (path, uses, node) in [
            ("/dev/vfio/12", vec![Feature::Vfio], "/dev/vfio/vfio rw"),
            ("/dev/vfio/devices/vfio0", vec![Feature::Vfio], ""),
            ("/dev/bus/usb/001/002", vec![Feature::Usb], ""),
            (
                "/sys/kernel/config/target/vhost/naa.5123456789abcde0",
                vec![Feature::Scsi],
                "/dev/vhost-scsi rw",
            ),
            ("/sys/kernel/config/target/iscsi", vec![Feature::Disk], ""),
            ("/dev/net/tun", vec![Feature::Tap, Feature::VhostNet], "/dev/vhost-net rw"),
            ("/dev/tap12", vec![Feature::Tap, Feature::VhostNet], "/dev/vhost-net rw"),
            ("/dev/userfaultfd", vec![], ""),
            ("/dev/sda", vec![Feature::Disk], ""),
            ("/srv/tap12", vec![Feature::Disk], ""),
        ] {
            assert_eq!(brings(path, "kvm", "\"kvm\""), (uses, node.to_owned()), "{path}");
        }
        // Without KVM there is no such back end, and a tap that the XML has says itself whether it has one.
        for (virt_type, uses) in [("qemu", ""), ("kvm", "\"tap\"")] {
            assert_eq!(
                brings("/dev/net/tun", virt_type, uses),
                (vec![Feature::Tap], String::new()),
                "{virt_type}"
            );
        }
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
