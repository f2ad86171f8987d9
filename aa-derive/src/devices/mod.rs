//! One file for each family of devices. What is not known is named in a note, never passed over.

mod audio;
mod chardev;
mod disk;
mod filesystem;
mod graphics;
mod hostdev;
mod input;
mod lxc;
mod memory;
mod net;
mod rng;
mod shmem;
mod smartcard;
mod tpm;
mod video;
mod vsock;

use aa_contract::{Access, Feature, NoteKind, VirtType};

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

pub(crate) use chardev::{pipe as chardev_pipe, source as chardev_source};
pub(crate) use disk::{
    TopSource, declared as disk_format, image as disk_image, reached as disk_reached, source as disk_source,
};
pub(crate) use graphics::{any_node, gl};
pub(crate) use hostdev::{pci, usb_node, vfio_device, vfio_node};

/// Devices that reach no file of the host, by libvirt's `formatdomain`.
const WITHOUT_FILES: [&str; 10] =
    ["controller", "hub", "watchdog", "memballoon", "panic", "iommu", "sound", "lease", "crypto", "acpi"];

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    // What is in a namespace is another program's.
    for device in root.children("devices").flat_map(|devices| devices.elements()).filter(Element::is_plain) {
        one(deriver, &device)?;
    }
    Ok(())
}

/// The rules of one device.
fn one(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    if deriver.domain.virt_type == VirtType::Lxc {
        return lxc::derive(deriver, device);
    }
    if let Some((rom, file)) = device.child("rom").and_then(|rom| Some((rom, rom.attr("file")?))) {
        deriver.grant(rom, "option ROM", file, Access::R)?;
        deriver.uses(Feature::Firmware);
    }
    match device.name() {
        "disk" => disk::derive(deriver, device),
        "serial" | "parallel" | "channel" | "console" => chardev::derive(deriver, device),
        "redirdev" => {
            deriver.uses(Feature::Redirect);
            chardev::source(deriver, device, "redirection")
        }
        "smartcard" => smartcard::derive(deriver, device),
        "rng" => rng::derive(deriver, device),
        "tpm" => tpm::derive(deriver, device),
        "graphics" => graphics::derive(deriver, device),
        "video" => video::derive(deriver, device),
        "audio" => audio::derive(deriver, device),
        "hostdev" => hostdev::derive(deriver, device),
        "filesystem" => filesystem::derive(deriver, device),
        "input" => input::derive(deriver, device),
        "interface" => net::derive(deriver, device),
        "memory" => memory::derive(deriver, device),
        "shmem" => shmem::derive(deriver, device),
        "vsock" => vsock::derive(deriver, device),
        "pstore" => crate::boot::pstore(deriver, device),
        "emulator" | "redirfilter" => Ok(()),
        name if WITHOUT_FILES.contains(&name) => {
            if name == "sound" {
                deriver.uses(Feature::Sound);
            }
            Ok(())
        }
        name => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!("device <{name}> is not known here: no rule is made for it"),
            );
            Ok(())
        }
    }
}

/// The hypervisor's own program file: the first that is named, as for libvirt. What is no emulator must not become
/// executable for the guest, nor what it may write, so this comes behind all else; libvirt starts what it starts.
pub(crate) fn emulator(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    let element = root.at(&["devices", "emulator"]).filter(|_| deriver.domain.virt_type != VirtType::Lxc);
    let (Some(element), Some(path)) = (element, deriver.domain.emulator.clone()) else {
        return Ok(());
    };
    let resolved = deriver.resolve(element.into(), "emulator", path.as_str())?.path;
    let reason = if !deriver.is_emulator(path.as_str(), &resolved) {
        "no run line of the path policy knows it"
    } else if deriver.is_written(&resolved) {
        "the guest may write it"
    } else {
        return deriver.allow(element, "emulator", &resolved, Access::RMIX);
    };
    deriver.note(NoteKind::NotCovered, &element, format!("emulator \"{path}\" gets no rule: {reason}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use aa_contract::NoteKind;

    use crate::testing::{device_notes, device_rules, link, record, refusal, rules, same, write};

    #[test]
    fn the_emulator_is_the_first_and_one_that_the_policy_knows() {
        let two =
            "<emulator>/usr/bin/qemu-system-x86_64</emulator><emulator>/usr/bin/qemu-system-arm</emulator>";
        same(&device_rules(two), &[("/usr/bin/qemu-system-x86_64", "rmix")]);
        same(&device_rules("<emulator>/opt/qemu/bin/qemu-x</emulator>"), &[("/opt/qemu/bin/qemu-x", "rmix")]);
        for unknown in ["/usr/bin/bash", "/etc/shadow"] {
            let emulator = format!("<emulator>{unknown}</emulator>");
            assert!(device_rules(&emulator).is_empty(), "{unknown}");
            assert_eq!(device_notes(&emulator), [NoteKind::NotCovered], "{unknown}");
        }
        refusal("<emulator>/usr/bin/qemu-x/../bash</emulator>");
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/nix/store/x/bin/qemu-system-x86_64", "");
        let name = "/run/libvirt/nix-emulators/qemu-system-x86_64";
        link(root.path(), name, "/nix/store/x/bin/qemu-system-x86_64");
        let emulator = format!("<devices><emulator>{name}</emulator></devices>");
        same(&rules("kvm", &emulator, root.path()), &[("/nix/store/x/bin/qemu-system-x86_64", "rmix")]);
    }

    #[test]
    fn an_option_rom_is_told_where_it_stands() {
        let card = |file: &str| format!("<interface type='user'>\n<rom file='{file}'/></interface>");
        let inside = format!("<devices>{}</devices>", card("/srv/rom"));
        let root = tempfile::tempdir().unwrap();
        let record = record("kvm", &inside, root.path()).unwrap();
        let rom = record.rules().iter().find(|rule| rule.target.to_string() == "/srv/rom").unwrap();
        let origin = rom.origin.as_ref().unwrap();
        assert_eq!((origin.element.as_str(), origin.line), ("devices/interface[1]/rom", Some(2)));
        let refused = refusal(&card("/etc/rom"));
        assert!(
            refused.starts_with("2:1: ") && refused.ends_with("by devices/interface[1]/rom)"),
            "{refused}"
        );
    }

    #[test]
    fn what_is_in_a_namespace_is_no_device() {
        for namespace in ["http://libvirt.org/schemas/domain/qemu/1.0", "urn:x"] {
            let disk = format!("<x:disk xmlns:x='{namespace}'><source file='/srv/a'/></x:disk>");
            assert!(device_rules(&disk).is_empty() && device_notes(&disk).is_empty(), "{namespace}");
        }
    }

    #[test]
    fn an_emulator_in_the_guests_huge_pages_gets_no_rule() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/proc/mounts", "none /huge hugetlbfs rw 0 0\n");
        let with = |emulator: &str| {
            let devices = format!("<devices><emulator>{emulator}</emulator></devices>");
            rules("kvm", &format!("<memoryBacking><hugepages/></memoryBacking>{devices}"), root.path())
        };
        let own = ("/huge/libvirt/qemu/7-guest/{,**}", "rw");
        same(&with("/huge/libvirt/qemu/7-guest/qemu-x"), &[own]);
        same(&with("/opt/qemu-x"), &[own, ("/opt/qemu-x", "rmix")]);
    }

    #[test]
    fn nothing_is_both_written_and_executed() {
        let image = "/var/lib/libvirt/images/g.img";
        let disk = format!("<emulator>{image}</emulator><disk><source file='{image}'/></disk>");
        same(&device_rules(&disk), &[(image, "rwk")]);
        // Nor where a pattern lets it write: a directory that it shares, or that is a disk.
        let (inside, beside) = ("/srv/vm/qemu-x", "/srv/vmx/qemu-x");
        for device in [
            "<filesystem><source dir='/srv/vm'/></filesystem>",
            "<filesystem><source dir='/srv'/></filesystem>",
            "<disk type='dir'><source dir='/srv/vm'/></disk>",
        ] {
            let executed = |emulator: &str, device: &str| {
                let devices = format!("<emulator>{emulator}</emulator>{device}");
                let noted = device_notes(&devices).contains(&NoteKind::NotCovered);
                let rules = device_rules(&devices);
                let executed = rules.iter().any(|(path, access)| path == emulator && access == "rmix");
                assert_ne!(noted, executed, "{devices}");
                executed
            };
            assert!(!executed(inside, device), "{device}");
            assert_eq!(executed(beside, device), !device.contains("'/srv'"), "{device}");
            assert!(executed(inside, &device.replace("</", "<readonly/></")), "{device}");
        }
        let known = "/usr/bin/qemu-system-x86_64";
        refusal(&format!("<emulator>{known}</emulator><disk><source file='{known}'/></disk>"));
    }
}
