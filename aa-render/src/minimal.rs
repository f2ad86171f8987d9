//! Base profiles of what one guest uses and nothing else.
//!
//! `policy/minimal/` holds a fragment for each thing that a guest may use, written from what QEMU 7.2
//! was seen to open. `core` and the guest's own emulator are always there; the features that the
//! record names choose the rest. The abstraction that serves guests with a template is all of the
//! fragments together.

use std::collections::BTreeSet;

use aa_contract::quote::escape_literal;
use aa_contract::{Derived, Feature, TemplateKind};

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
    Gl = "gl",
    Swtpm = "swtpm",
    NineP = "ninep",
    Smartcard = "smartcard",
    Pty = "pty",
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
    match &record.domain().emulator {
        Some(emulator) => {
            out.push_str("  # The one emulator of this guest.\n  \"");
            escape_literal(emulator.as_str(), out);
            out.push_str("\" rmix,\n\n");
        }
        None => {
            chosen.insert(Fragment::Emulators);
        }
    }
    write(chosen, out);
}

fn write(chosen: impl IntoIterator<Item = Fragment>, out: &mut String) {
    for (index, fragment) in chosen.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        out.push_str(fragment.text());
    }
}

/// What a feature needs beside the guest's own rules, which name its files and device nodes.
fn fragments_of(feature: Feature) -> &'static [Fragment] {
    use Fragment as F;
    match feature {
        Feature::Kvm => &[F::Kvm],
        Feature::Disk => &[F::Block],
        Feature::Rawio => &[F::Block, F::Rawio],
        Feature::NetworkDisk | Feature::Gluster | Feature::Iscsi | Feature::Vnc | Feature::Spice => {
            &[F::Names, F::Certificates]
        }
        Feature::Ceph => &[F::Names, F::Certificates, F::Ceph],
        Feature::Nbdkit => &[F::Names, F::Certificates, F::Nbdkit],
        Feature::Tap => &[F::Tap],
        Feature::VhostNet => &[F::Tap, F::Vhost],
        Feature::Slirp => &[F::Names, F::Slirp],
        Feature::Passt => &[F::Passt],
        Feature::Vfio => &[F::Vfio],
        Feature::Usb => &[F::Usb],
        Feature::Sound => &[F::Sound],
        Feature::Sdl => &[F::Window],
        Feature::Gl => &[F::Gl],
        Feature::Swtpm => &[F::Swtpm],
        Feature::NineP => &[F::NineP],
        Feature::Smartcard => &[F::Smartcard],
        Feature::Tls => &[F::Certificates],
        Feature::Pty => &[F::Pty],
        // Files, sockets and device nodes only: the guest's own rules. Also features of later
        // versions: what they need is then denied, not granted unseen.
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `policy/abstractions/libvirt-qemu` is made from the fragments; when one of them changes, write
    /// it again with `AA_WRITE_POLICY=1 cargo test -p aa-render abstraction`.
    #[test]
    fn a_profile_takes_in_what_its_guest_uses_and_nothing_else() {
        let line = |uses: &str| {
            format!(
                r#"{{"version":1,"profile":"libvirt-a22e3930-d87a-584e-22b2-1d8950212bac","domain":{{"name":"t","uuid":"a22e3930-d87a-584e-22b2-1d8950212bac","type":"kvm","os":"hvm","emulator":"/opt/q*"}},"template":"qemu","uses":[{uses}],"rules":[]}}"#
            )
        };
        let text = |uses: &str| template(&aa_contract::record::parse_line(&line(uses)).unwrap());
        let plain = text("");
        assert!(is_minimal(&plain));
        assert!(plain.contains("\"/opt/q\\052\" rmix,"), "{plain}");
        for (uses, rule) in [
            ("\"sound\"", "/dev/snd/*"),
            ("\"gl\"", "/dev/dri/"),
            ("\"kvm\"", "/dev/kvm"),
            ("\"usb\"", "/dev/{,bus/usb/"),
        ] {
            assert!(text(uses).contains(rule), "{uses}");
            assert!(!plain.contains(rule), "{uses}");
        }
        for never in ["qemu-system-*", "dac_override"] {
            assert!(!plain.contains(never), "{never}");
        }
    }

    #[test]
    fn the_abstraction_is_all_of_the_fragments() {
        let mut text = String::from(
            "# What every QEMU guest may do: written for aa-svirt, from policy/minimal/.\n\
             # A guest's own files are rules of its own profile; aa-render --minimal leaves out what the\n\
             # guest does not use.\n\n\
             \x20 # A QEMU that stays root, on files of other users.\n\
             \x20 capability chown,\n  capability dac_override,\n  capability dac_read_search,\n\n",
        );
        write(Fragment::ALL.iter().copied(), &mut text);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/policy/abstractions/libvirt-qemu");
        if std::env::var_os("AA_WRITE_POLICY").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }
}
