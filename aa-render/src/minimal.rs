//! Base profiles of what one guest uses and nothing else.
//!
//! `policy/minimal/` holds a fragment for each thing that a guest may use, written from what QEMU 7.2
//! and 10.0 were seen to open. `core` is always there; the features that the record names choose the
//! rest. Of a path out of the domain nothing is written here but what is a rule of the record. The abstraction that serves guests with a template is all of the
//! fragments together. docs/minimal.md shows what comes of it.

use std::collections::BTreeSet;

use aa_contract::{Derived, Feature, Rule, Target, TemplateKind};

use aa_contract::syntax;

/// Heads a base profile that is made anew each time; one without this line is the user's.
const HEAD: &str = "# Made by aa-render --minimal from what the guest uses; made anew each time.\n";

macro_rules! fragments {
    ($($name:ident = $file:literal),* $(,)?) => {
        /// A piece of policy, in the order in which it is written.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        enum Fragment { $($name),* }

        impl Fragment {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name),*];

            fn name(self) -> &'static str {
                match self { $(Self::$name => $file),* }
            }

            fn text(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("../policy/minimal/", $file))),* }
            }
        }
    };
}

fragments! {
    Core = "core",
    Emulators = "emulators",
    Kvm = "kvm",
    Block = "block",
    Rawio = "rawio",
    Names = "names",
    Certificates = "certificates",
    Sasl = "sasl",
    Vnc = "vnc",
    Spice = "spice",
    Tap = "tap",
    Vhost = "vhost",
    Slirp = "slirp",
    Passt = "passt",
    Nbdkit = "nbdkit",
    Ceph = "ceph",
    Vfio = "vfio",
    Usb = "usb",
    Sound = "sound",
    Window = "window",
    Dbus = "dbus",
    Gl = "gl",
    Swtpm = "swtpm",
    NineP = "ninep",
    Smartcard = "smartcard",
    Pty = "pty",
    Hugepages = "hugepages",
}

/// The files that passt makes, whichever guest's it is.
const ANY_PASST: &str = "    owner /run/libvirt/qemu/passt/* rw,\n";
/// Where they are.
const PASST_DIR: &str = "/run/libvirt/qemu/passt/";

/// The names of the fragments that a feature brings.
pub fn fragments(feature: Feature) -> impl Iterator<Item = &'static str> {
    fragments_of(feature).iter().map(|fragment| fragment.name())
}

/// Whether a base profile was made here.
pub fn is_minimal(text: &str) -> bool {
    text.starts_with(HEAD)
}

/// The text of a template for this record.
pub fn template(record: &Derived) -> String {
    let mut out = String::with_capacity(8 * 1024);
    out.push_str(HEAD);
    out.push_str("\n#include <tunables/global>\n\nprofile LIBVIRT_TEMPLATE flags=(attach_disconnected) {\n");
    match record.template() {
        TemplateKind::Qemu => qemu(record, &mut out),
        // A container is a whole system; there is nothing less that would run one.
        TemplateKind::Lxc => {
            out.push_str("  #include <abstractions/libvirt-lxc>\n\n  file,\n  network,\n  capability,\n");
        }
    }
    out.push_str("}\n");
    out
}

fn qemu(record: &Derived, out: &mut String) {
    let mut chosen = BTreeSet::from([Fragment::Core]);
    chosen.extend(record.uses().iter().flat_map(|feature| fragments_of(*feature)));
    // The emulator that the domain names is one of the record's rules, if the path policy knows it as one.
    if record.domain().emulator.is_none() {
        chosen.insert(Fragment::Emulators);
    }
    for (index, fragment) in chosen.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        match fragment {
            Fragment::Passt => passt(record, out),
            other => out.push_str(other.text()),
        }
    }
}

/// passt under this guest's profile has this guest's files, not each one's.
fn passt(record: &Derived, out: &mut String) {
    let text = Fragment::Passt.text();
    let Some((before, after)) = text.split_once(ANY_PASST) else { return };
    out.push_str(before);
    let own = |rule: &&Rule| match &rule.target {
        Target::Path(path) => path.as_str().starts_with(PASST_DIR),
        Target::Glob(glob) => glob.as_str().starts_with(PASST_DIR),
    };
    for rule in record.rules().iter().filter(own) {
        out.push_str("  ");
        syntax::write_rule(rule, out);
    }
    out.push_str(after);
}

/// What a feature needs beside the guest's own rules, which name its files and device nodes.
fn fragments_of(feature: Feature) -> &'static [Fragment] {
    use Fragment as F;
    match feature {
        Feature::Kvm => &[F::Kvm],
        Feature::Disk => &[F::Block],
        Feature::Rawio => &[F::Block, F::Rawio],
        Feature::NetworkDisk | Feature::Gluster | Feature::Iscsi => &[F::Names, F::Certificates],
        Feature::Vnc => &[F::Names, F::Certificates, F::Sasl, F::Vnc],
        Feature::Spice => &[F::Names, F::Certificates, F::Sasl, F::Spice],
        Feature::Ceph => &[F::Names, F::Certificates, F::Ceph],
        Feature::Nbdkit => &[F::Names, F::Certificates, F::Nbdkit],
        Feature::Tap => &[F::Tap],
        Feature::VhostNet => &[F::Tap, F::Vhost],
        Feature::Vsock | Feature::Scsi => &[F::Vhost],
        Feature::Slirp => &[F::Names, F::Slirp],
        Feature::Passt => &[F::Passt],
        Feature::Vfio => &[F::Vfio],
        Feature::Usb => &[F::Usb],
        Feature::Sound => &[F::Sound],
        Feature::Sdl => &[F::Window],
        Feature::DbusDaemon => &[F::Dbus],
        Feature::Gl => &[F::Gl],
        Feature::Swtpm => &[F::Swtpm],
        Feature::NineP => &[F::NineP],
        Feature::Smartcard => &[F::Smartcard],
        Feature::Tls => &[F::Certificates],
        Feature::Pty => &[F::Pty],
        Feature::Hugepages => &[F::Hugepages],
        // Files, sockets and device nodes only: the guest's own rules. A record with a feature that
        // the contract does not know is refused before it comes here.
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "a22e3930-d87a-584e-22b2-1d8950212bac";

    /// Every feature that a record may name, by the schema of the records.
    fn features() -> Vec<Feature> {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../schema/derived-v1.json")).unwrap();
        let named = schema.pointer("/$defs/Feature/oneOf").unwrap().as_array().unwrap();
        named.iter().map(|one| serde_json::from_value(one["const"].clone()).unwrap()).collect()
    }

    fn record(uses: &[Feature], domain: &str, rules: &str) -> Derived {
        let uses = serde_json::to_string(uses).unwrap();
        aa_contract::record::parse_line(&format!(
            r#"{{"version":1,"profile":"libvirt-{UUID}","domain":{{"name":"t","uuid":"{UUID}","type":"kvm","os":"hvm"{domain}}},"template":"qemu","uses":{uses},"rules":[{rules}]}}"#
        ))
        .unwrap()
    }

    fn text(uses: &[Feature]) -> String {
        template(&record(uses, r#","emulator":"/opt/q*""#, ""))
    }

    /// The fragments whose text is in the profile, in their order.
    fn included(text: &str) -> Vec<&'static str> {
        let heading = |fragment: &Fragment| fragment.text().lines().next().unwrap();
        let found = Fragment::ALL.iter().filter(|fragment| text.contains(heading(fragment)));
        found.map(|fragment| fragment.name()).collect()
    }

    /// What each feature brings: all of it, and in the order in which it is written.
    #[test]
    fn each_feature_selects_its_fragments_and_no_other() {
        const BRINGS: &[(&str, &[&str])] = &[
            ("kvm", &["kvm"]),
            ("disk", &["block"]),
            ("network-disk", &["names", "certificates"]),
            ("ceph", &["names", "certificates", "ceph"]),
            ("gluster", &["names", "certificates"]),
            ("iscsi", &["names", "certificates"]),
            ("nbdkit", &["names", "certificates", "nbdkit"]),
            ("rawio", &["block", "rawio"]),
            ("tap", &["tap"]),
            ("vhost-net", &["tap", "vhost"]),
            ("vhost-user", &[]),
            ("vdpa", &[]),
            ("slirp", &["names", "slirp"]),
            ("passt", &["passt"]),
            ("vfio", &["vfio"]),
            ("usb", &["usb"]),
            ("redirect", &[]),
            ("scsi", &["vhost"]),
            ("sound", &["sound"]),
            ("vnc", &["names", "certificates", "sasl", "vnc"]),
            ("spice", &["names", "certificates", "sasl", "spice"]),
            ("sdl", &["window"]),
            ("dbus", &[]),
            ("dbus-daemon", &["dbus"]),
            ("gl", &["gl"]),
            ("firmware", &[]),
            ("tpm", &[]),
            ("swtpm", &["swtpm"]),
            ("nine-p", &["ninep"]),
            ("virtiofs", &[]),
            ("hugepages", &["hugepages"]),
            ("file-memory", &[]),
            ("shmem", &[]),
            ("smartcard", &["smartcard"]),
            ("vsock", &["vhost"]),
            ("sev", &[]),
            ("sgx", &[]),
            ("tls", &["certificates"]),
            ("pty", &["pty"]),
            ("command-line", &[]),
        ];
        let names: Vec<String> = features()
            .iter()
            .map(|feature| serde_json::to_value(feature).unwrap().as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, BRINGS.iter().map(|(feature, _)| *feature).collect::<Vec<_>>());
        assert_eq!(included(&text(&[])), ["core"]);
        for (feature, (name, brought)) in features().into_iter().zip(BRINGS) {
            let mut wanted: Vec<&str> = vec!["core"];
            wanted.extend(*brought);
            assert_eq!(included(&text(&[feature])), wanted, "{name}");
            assert_eq!(fragments(feature).collect::<Vec<_>>(), *brought, "{name}");
        }
        // Together they bring what each brings, once; only the emulators are never brought by a feature.
        let all = text(&features());
        let wanted = Fragment::ALL.iter().map(|fragment| fragment.name()).filter(|name| *name != "emulators");
        assert_eq!(included(&all), wanted.collect::<Vec<_>>());
        for fragment in Fragment::ALL {
            assert!(all.matches(fragment.text().lines().next().unwrap()).count() <= 1, "{fragment:?}");
        }
    }

    /// The profile is its head, the chosen fragments, and not a line more; no emulator that is no rule of the record.
    #[test]
    fn there_is_nothing_else_in_it() {
        for feature in features().into_iter().filter(|feature| *feature != Feature::Passt) {
            let text = text(&[feature]);
            let mut rest = text.as_str();
            for part in [
                HEAD,
                "\n#include <tunables/global>\n\nprofile LIBVIRT_TEMPLATE flags=(attach_disconnected) {\n",
                Fragment::Core.text(),
            ] {
                rest = rest.strip_prefix(part).unwrap();
            }
            for fragment in fragments_of(feature) {
                rest = rest.strip_prefix('\n').unwrap().strip_prefix(fragment.text()).unwrap();
            }
            assert_eq!(rest, "}\n", "{feature:?}");
        }
    }

    #[test]
    fn a_guest_that_names_no_emulator_has_any() {
        assert_eq!(included(&template(&record(&[], "", ""))), ["core", "emulators"]);
    }

    #[test]
    fn passt_has_its_own_guests_files() {
        let rules = r#"{"path":"/run/libvirt/qemu/passt/3-t-net*.socket","access":"rw"},{"path":"/srv/disk","access":"rwk"}"#;
        let text = template(&record(&[Feature::Passt], "", rules));
        let (_, child) = text.split_once("profile passt ").unwrap();
        assert!(child.contains("\"/run/libvirt/qemu/passt/3-t-net\\052.socket\" rw,\n"), "{child}");
        for others in ["passt/* ", "/srv/disk"] {
            assert!(!text.contains(others), "{text}");
        }
    }

    /// `policy/abstractions/libvirt-qemu` is made from the fragments; when one of them changes, write
    /// it again with `AA_WRITE_POLICY=1 cargo test -p aa-render abstraction`.
    #[test]
    fn the_abstraction_is_all_of_the_fragments() {
        let mut text = String::from(
            "# What every QEMU guest may do: written for aa-svirt, from policy/minimal/.\n\
             # A guest's own files are rules of its own profile; aa-render --minimal leaves out what the\n\
             # guest does not use.\n\n\
             \x20 # A QEMU that stays root, on files of other users.\n\
             \x20 capability chown,\n  capability dac_override,\n  capability dac_read_search,\n\n",
        );
        let fragments: Vec<&str> = Fragment::ALL.iter().map(|fragment| fragment.text()).collect();
        text.push_str(&fragments.join("\n"));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/policy/abstractions/libvirt-qemu");
        if std::env::var_os("AA_WRITE_POLICY").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }
}
