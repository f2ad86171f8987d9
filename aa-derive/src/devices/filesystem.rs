//! Directories that the guest shares with the host (libvirt: `formatdomain`, «Filesystems»).

use aa_contract::{Access, Feature, NoteKind};

use crate::deriver::Deriver;
use crate::domain::refuse;
use crate::error::{Error, Refusal};
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let kind = device.attr("type").unwrap_or("mount");
    if kind != "mount" {
        deriver.note(
            NoteKind::NotCovered,
            device,
            format!("QEMU shares no file system of type {kind}: no rule is made for it"),
        );
        return Ok(());
    }
    let Some(source) = device.child("source") else { return Ok(()) };
    match device.child("driver").and_then(|driver| driver.attr("type")) {
        None | Some("path") => {
            deriver.uses(Feature::NineP);
            let Some(dir) = source.attr("dir") else {
                return Err(refuse(
                    &source,
                    Refusal::Incomplete { what: "shared directory", missing: "dir" },
                ));
            };
            let access = if device.child("readonly").is_some() { Access::R } else { Access::RWKL };
            deriver.grant_tree(source, "shared directory", dir, access).map(drop)
        }
        Some("virtiofs") => {
            deriver.uses(Feature::Virtiofs);
            match source.attr("socket") {
                Some(socket) => deriver.grant(source, "virtiofs socket", socket, Access::RW).map(drop),
                // virtiofsd, which libvirtd starts, opens the directory; QEMU needs its socket, which is in
                // the state directory that every guest is granted.
                None => Ok(()),
            }
        }
        Some(other) => {
            deriver.note(
                NoteKind::NotCovered,
                device,
                format!("file system driver {other} is not known here: no rule is made for it"),
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_notes, device_rules, refusal, same};

    fn share(inside: &str) -> String {
        format!("<filesystem type='mount'>{inside}<target dir='tag'/></filesystem>")
    }

    #[test]
    fn a_share_is_granted_whole_and_literally() {
        same(
            &device_rules(&share("<source dir='/srv/a*b'/>")),
            &[("/srv/a*b/", "r"), ("/srv/a\\052b/**", "rwkl")],
        );
        same(
            &device_rules(&share("<source dir='/srv/x/'/><readonly/>")),
            &[("/srv/x/", "r"), ("/srv/x/**", "r")],
        );
    }

    #[test]
    fn the_system_is_not_shared() {
        for dir in
            ["/", "/etc", "/etc/", "/usr", "/bin", "/sys", "/proc", "/srv/../etc", "/var/lib/libvirt/qemu"]
        {
            refusal(&share(&format!("<source dir='{dir}'/>")));
            refusal(&share(&format!("<source dir='{dir}'/><readonly/>")));
        }
        refusal(&share("<source dir='srv'/>"));
        refusal(&share("<source/>"));
    }

    #[test]
    fn virtiofs_needs_its_socket_and_not_the_directory() {
        assert!(device_rules(&share("<driver type='virtiofs'/><source dir='/srv/x'/>")).is_empty());
        same(
            &device_rules(&share("<driver type='virtiofs'/><source socket='/run/fs.sock'/>")),
            &[("/run/fs.sock", "rw")],
        );
        refusal(&share("<driver type='virtiofs'/><source socket='/etc/fs.sock'/>"));
    }

    #[test]
    fn what_qemu_does_not_share_is_noted() {
        assert_eq!(device_notes("<filesystem type='block'><source dev='/dev/x'/></filesystem>").len(), 1);
        assert_eq!(device_notes(&share("<driver type='mtp'/><source dir='/srv'/>")).len(), 1);
    }
}
