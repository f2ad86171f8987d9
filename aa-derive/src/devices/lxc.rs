//! Containers (libvirt: `drvlxc`). What runs in one is confined by its template; the rules here are
//! for what the controller on the host's side opens for it.

use aa_contract::{Access, Feature, NoteKind};

use crate::deriver::Deriver;
use crate::error::{Error, Refusal};
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    match device.name() {
        "filesystem" => filesystem(deriver, device),
        "hostdev" => hostdev(deriver, device),
        "disk" => super::disk::derive(deriver, device),
        "emulator" | "controller" => Ok(()),
        // Its terminals are libvirtd's, and its cards are moved into its network namespace.
        "console" if matches!(device.attr("type"), None | Some("pty")) => Ok(()),
        "interface" if !matches!(device.attr("type"), Some("vhostuser" | "vdpa")) => Ok(()),
        name => {
            deriver.note(
                NoteKind::NotCovered,
                device,
                format!("device <{name}> of a container: no rule is made for it"),
            );
            Ok(())
        }
    }
}

/// Images that become a container's file system are opened on the host. Directories are bind-mounted
/// there; what is restricted for a guest may still be mounted into a container, whose template says
/// what it may do with it, so that is left out and not refused.
fn filesystem(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let access = if device.child("readonly").is_some() { Access::RK } else { Access::RWK };
    let Some(source) = device.child("source") else { return Ok(()) };
    let image = match device.attr("type") {
        Some("file") => source.attr("file"),
        Some("block") => source.attr("dev"),
        None | Some("mount" | "bind") => return directory(deriver, device, &source),
        // Memory, and a directory of a template that the controller knows.
        Some("ram" | "template") => return Ok(()),
        Some(other) => {
            let text = format!("file system of type {other} of a container: no rule is made for it");
            deriver.note(NoteKind::NotCovered, device, text);
            return Ok(());
        }
    };
    match image {
        Some(path) => {
            deriver.uses(Feature::Disk);
            deriver.grant(source, "container image", path, access).map(drop)
        }
        None => Ok(()),
    }
}

fn directory(deriver: &mut Deriver<'_>, device: &Element<'_>, source: &Element<'_>) -> Result<(), Error> {
    let Some(dir) = source.attr("dir") else { return Ok(()) };
    let access = if device.child("readonly").is_some() { Access::R } else { Access::RWKL };
    match deriver.grant_tree(source, "container directory", dir, access) {
        Err(Error { kind: kind @ Refusal::Restricted { .. }, .. }) => {
            deriver.note(NoteKind::LeftOut, source, kind.to_string());
            Ok(())
        }
        granted => granted.map(drop),
    }
}

/// Devices by capability.
fn hostdev(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let Some(source) = device.child("source") else { return Ok(()) };
    let node = match device.attr("type") {
        Some("storage") => source.child("block"),
        Some("misc") => source.child("char"),
        // A network interface is moved, not opened.
        Some("net") => None,
        other => {
            let kind = other.unwrap_or("(none)");
            let text = format!("host device of type {kind} of a container: no rule is made for it");
            deriver.note(NoteKind::NotCovered, device, text);
            None
        }
    };
    match node {
        Some(node) => deriver.grant(node, "container device", node.text().trim(), Access::RW).map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{record, rules, same};

    fn lxc(device: &str) -> Vec<(String, String)> {
        let root = tempfile::tempdir().unwrap();
        rules("lxc", &format!("<devices>{device}</devices>"), root.path())
    }

    #[test]
    fn images_and_devices_of_the_controller() {
        same(
            &lxc("<filesystem type='file'><source file='/srv/c*.img'/><target dir='/'/></filesystem>"),
            &[("/srv/c*.img", "rwk")],
        );
        same(
            &lxc(
                "<filesystem type='block'><source dev='/dev/vg/c'/><readonly/><target dir='/'/></filesystem>",
            ),
            &[("/dev/vg/c", "rk")],
        );
        same(
            &lxc(
                "<hostdev mode='capabilities' type='storage'><source><block>/dev/sdf1</block></source></hostdev>",
            ),
            &[("/dev/sdf1", "rw")],
        );
        same(
            &lxc(
                "<hostdev mode='capabilities' type='misc'><source><char>/dev/input/event3</char></source></hostdev>",
            ),
            &[("/dev/input/event3", "rw")],
        );
    }

    #[test]
    fn a_directory_is_granted_whole_and_a_restricted_one_left_out() {
        same(
            &lxc("<filesystem type='mount'><source dir='/srv/root'/><target dir='/'/></filesystem>"),
            &[("/srv/root/", "r"), ("/srv/root/**", "rwkl")],
        );
        same(
            &lxc(
                "<filesystem type='mount'><source dir='/etc/resolv.conf'/><target dir='/etc/resolv.conf'/></filesystem>",
            ),
            &[],
        );
    }

    #[test]
    fn what_is_not_covered_is_noted() {
        let root = tempfile::tempdir().unwrap();
        let notes = |device: &str| {
            record("lxc", &format!("<devices>{device}</devices>"), root.path()).unwrap().notes().len()
        };
        for device in [
            "<filesystem type='volume'><source pool='p' volume='v'/><target dir='/'/></filesystem>",
            "<hostdev mode='subsystem' type='usb'><source><vendor id='1'/><product id='2'/></source></hostdev>",
            "<graphics type='egl-headless'/>",
            "<interface type='vhostuser'><source type='unix' path='/run/vhost.sock' mode='server'/></interface>",
            "<console type='file'><source path='/srv/console'/></console>",
        ] {
            assert_eq!(notes(device), 1, "{device}");
            assert!(lxc(device).is_empty(), "{device}");
        }
        for device in [
            "<filesystem type='ram'><source usage='1'/><target dir='/'/></filesystem>",
            "<hostdev mode='capabilities' type='net'><source><interface>eth0</interface></source></hostdev>",
            "<interface type='direct'><source dev='eth0'/></interface>",
            "<console type='pty'/>",
        ] {
            assert_eq!(notes(device), 0, "{device}");
        }
    }

    #[test]
    fn a_container_has_none_of_a_virtual_machines_rules() {
        let root = tempfile::tempdir().unwrap();
        assert!(record("lxc", "", root.path()).unwrap().rules().is_empty());
        let shadow = "<devices><filesystem type='file'><source file='/etc/shadow'/><target dir='/'/></filesystem></devices>";
        assert!(record("lxc", shadow, root.path()).is_err());
    }
}
