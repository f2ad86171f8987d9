//! Displays (libvirt: `formatdomain`, «Graphical framebuffers»), and what host GPU acceleration needs.

use aa_contract::{Access, Feature, NoteKind};

use super::chardev_source;
use crate::base::RUN;
use crate::deriver::Deriver;
use crate::error::Error;
use crate::host::Host;
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    match device.attr("type") {
        Some("vnc") => {
            deriver.uses(Feature::Vnc);
            listens(deriver, device)?;
        }
        Some("spice") => {
            deriver.uses(Feature::Spice);
            listens(deriver, device)?;
        }
        Some("sdl") => {
            deriver.uses(Feature::Sdl);
            if let Some(file) = device.attr("xauth") {
                deriver.grant(device, "X authority", file, Access::R)?;
            }
        }
        Some("dbus") => {
            deriver.uses(Feature::Dbus);
            let socket = device.attr("address").and_then(|address| address.strip_prefix("unix:path="));
            if let Some(path) = socket.and_then(|rest| rest.split(',').next()) {
                deriver.grant(device, "D-Bus socket", path, Access::RW)?;
            } else if device.attr("address").is_none() && device.attr("p2p") != Some("yes") {
                bus(deriver, device)?;
            }
        }
        Some("rdp") => deriver.note(
            NoteKind::NotCovered,
            device,
            "libvirtd runs a server for a display of type rdp, and a bus between the two: no rule is made for them",
        ),
        Some("egl-headless" | "desktop") => {}
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!(
                    "display of type {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
        }
    }
    if let Some(channel) = device.child("chardev") {
        chardev_source(deriver, &channel, "display channel")?;
    }
    acceleration(deriver, device)
}

/// The bus that libvirtd starts for the guest, under its profile.
fn bus(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::DbusDaemon);
    let stem = format!("{RUN}/dbus/{}-dbus", deriver.short);
    deriver.allow(device, "D-Bus socket", &format!("{stem}.sock"), Access::RW)?;
    deriver.allow(device, "D-Bus configuration", &format!("{stem}.conf"), Access::R)
}

/// Unix sockets that the display listens on; without a path they are in the state directory.
fn listens(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    for listen in device.children("listen").filter(|listen| listen.attr("type") == Some("socket")) {
        if let Some(path) = listen.attr("socket") {
            deriver.grant(listen, "display socket", path, Access::RW)?;
        }
    }
    if let Some(path) = device.attr("socket") {
        deriver.grant(device, "display socket", path, Access::RW)?;
    }
    Ok(())
}

/// Whether a display renders by GL: a headless EGL display does nothing else, the others say so.
fn renders(device: &Element<'_>) -> bool {
    device.attr("type") == Some("egl-headless")
        || device.child("gl").and_then(|gl| gl.attr("enable")) == Some("yes")
}

/// `<gl>`, where it is on, and the node it renders on.
fn acceleration(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let node = device.child("gl").and_then(|gl| Some((gl, gl.attr("rendernode")?)));
    if !renders(device) {
        if let Some((gl, node)) = node {
            deriver.note(NoteKind::LeftOut, &gl, format!("render node \"{node}\" gets no rule: GL is off"));
        }
        return Ok(());
    }
    gl(deriver, device)?;
    match node {
        Some((gl, node)) => deriver.grant(gl, "render node", node, Access::RW).map(drop),
        None => any_node(deriver, device),
    }
}

/// The node of a display that names none. libvirt takes the first that the directory happens to give; the lowest is one
/// that everybody can predict.
pub(crate) fn any_node(deriver: &mut Deriver<'_>, place: &Element<'_>) -> Result<(), Error> {
    let nodes = deriver.host.entries("/dev/dri");
    match nodes.iter().find(|name| name.starts_with("renderD")) {
        Some(node) => deriver.allow(place, "render node", &format!("/dev/dri/{node}"), Access::RW),
        None => {
            let text = "no render node is seen in /dev/dri: no rule is made for one".to_owned();
            deriver.note(NoteKind::MissingDevice, place, text);
            Ok(())
        }
    }
}

/// What the GL libraries of Mesa, glvnd and NVIDIA open: found by running QEMU's displays, and the
/// list that libvirt's helper grants.
const LIBRARIES: [(&str, Access); 18] = [
    ("/usr/lib{,32,64}/dri/*.so*", Access::RM),
    ("/usr/lib/@{multiarch}/dri/*.so*", Access::RM),
    ("/usr/lib/fglrx/dri/*.so*", Access::RM),
    ("/etc/drirc", Access::R),
    ("/usr/share/drirc.d/{,*.conf}", Access::R),
    ("/etc/glvnd/egl_vendor.d/{,*}", Access::R),
    ("/usr/share/glvnd/egl_vendor.d/{,*}", Access::R),
    ("/usr/share/egl/egl_external_platform.d/", Access::R),
    ("/usr/share/egl/egl_external_platform.d/*", Access::R),
    ("/proc/modules", Access::R),
    ("/proc/driver/nvidia/params", Access::R),
    ("/dev/nvidiactl", Access::RW),
    ("/dev/nvidia[0-9]*", Access::RW),
    ("/dev/nvidia-modeset", Access::RW),
    ("/usr/lib/@{multiarch}/gbm/*.so*", Access::RM),
    ("/usr/share/vulkan/icd.d/{,*}", Access::R),
    ("/dev/dri/", Access::R),
    ("/sys/devices/**/{uevent,vendor,device,subsystem_vendor,subsystem_device,config,revision}", Access::R),
];

/// The libraries' files, for whatever renders by GL.
pub(crate) fn gl(deriver: &mut Deriver<'_>, place: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Gl);
    for (pattern, access) in LIBRARIES {
        if pattern.contains(['*', '{', '[']) {
            deriver.allow_glob(place, "GL", pattern, access)?;
        } else {
            deriver.allow(place, "GL", pattern, access)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aa_contract::{Feature, NoteKind};

    use crate::testing::{device_notes, device_rules, notes, record, refusal, rules, same, write};

    /// The rules of a display that are not GL's own.
    fn display(device: &str) -> Vec<(String, String)> {
        let mut rules = device_rules(device);
        rules.retain(|(path, _)| !super::LIBRARIES.iter().any(|(pattern, _)| pattern == path));
        rules
    }

    /// A bus is started only where nobody else has one.
    #[test]
    fn what_libvirtd_runs_beside_a_display_is_used_or_noted() {
        let root = tempfile::tempdir().unwrap();
        for (display, has_bus) in [
            ("type='dbus'", true),
            ("type='dbus' p2p='yes'", false),
            ("type='dbus' address='unix:path=/run/bus'", false),
            ("type='vnc'", false),
        ] {
            let devices = format!("<devices><graphics {display}/></devices>");
            let record = record("kvm", &devices, root.path()).unwrap();
            assert_eq!(record.uses().contains(&Feature::DbusDaemon), has_bus, "{display}");
            assert!(record.notes().is_empty(), "{display}");
        }
        assert_eq!(device_notes("<graphics type='rdp'/>"), [NoteKind::NotCovered]);
    }

    #[test]
    fn sockets_are_granted_and_addresses_are_not() {
        for kind in ["vnc", "spice"] {
            same(
                &display(&format!(
                    "<graphics type='{kind}'><listen type='socket' socket='/run/x*'/></graphics>"
                )),
                &[("/run/x*", "rw")],
            );
            same(
                &display(&format!(
                    "<graphics type='{kind}'><listen type='address' address='::1'/></graphics>"
                )),
                &[],
            );
            same(&display(&format!("<graphics type='{kind}'><listen type='socket'/></graphics>")), &[]);
            refusal(&format!("<graphics type='{kind}'><listen type='socket' socket='/etc/x'/></graphics>"));
        }
        same(&display("<graphics type='vnc' socket='/run/old'/>"), &[("/run/old", "rw")]);
        same(&display("<graphics type='dbus' address='unix:path=/run/bus,guid=1'/>"), &[("/run/bus", "rw")]);
        same(
            &display("<graphics type='dbus'/>"),
            &[
                ("/run/libvirt/qemu/dbus/7-guest-dbus.conf", "r"),
                ("/run/libvirt/qemu/dbus/7-guest-dbus.sock", "rw"),
            ],
        );
        same(&display("<graphics type='dbus' p2p='yes'/>"), &[]);
    }

    #[test]
    fn an_x_authority_is_read_and_its_absence_is_no_error() {
        same(
            &display("<graphics type='sdl' xauth='/srv/.Xauthority'/><graphics type='vnc'/>"),
            &[("/srv/.Xauthority", "r")],
        );
        same(&display("<graphics type='sdl'/>"), &[]);
        refusal("<graphics type='sdl' xauth='/etc/shadow'/>");
    }

    #[test]
    fn a_render_node_is_granted_where_gl_is_on() {
        let spice = |gl: &str| {
            format!("<graphics type='spice'><gl {gl} rendernode='/dev/dri/renderD130'/></graphics>")
        };
        same(&display(&spice("enable='yes'")), &[("/dev/dri/renderD130", "rw")]);
        assert!(device_rules(&spice("enable='no'")).is_empty());
        // libvirtd passes the node on only where GL is on, whatever the display.
        let dbus =
            "<graphics type='dbus' p2p='yes'><gl enable='no' rendernode='/dev/dri/renderD130'/></graphics>";
        assert!(device_rules(dbus).is_empty());
        assert_eq!(device_notes(dbus), [NoteKind::LeftOut]);
        same(
            &display("<graphics type='egl-headless'><gl rendernode='/dev/dri/renderD131'/></graphics>"),
            &[("/dev/dri/renderD131", "rw")],
        );
        refusal("<graphics type='egl-headless'><gl rendernode='/etc/shadow'/></graphics>");
    }

    #[test]
    fn the_lowest_node_is_taken_where_none_is_named() {
        let root = tempfile::tempdir().unwrap();
        for node in ["renderD129", "renderD128", "card0"] {
            write(root.path(), &format!("/dev/dri/{node}"), "");
        }
        let display = "<devices><graphics type='egl-headless'/></devices>";
        let rules = rules("kvm", display, root.path());
        assert!(notes(display, root.path()).is_empty());
        let bare = tempfile::tempdir().unwrap();
        assert_eq!(notes(display, bare.path()), [NoteKind::MissingDevice]);
        assert!(rules.contains(&("/dev/dri/renderD128".to_owned(), "rw".to_owned())));
        assert!(!rules.iter().any(|(path, _)| path.contains("renderD129") || path.contains("card0")));
    }

    #[test]
    fn the_libraries_come_once_and_only_with_gl() {
        let root = tempfile::tempdir().unwrap();
        let gl = "<graphics type='spice'><gl enable='yes'/></graphics><graphics type='egl-headless'/>";
        let record = record("kvm", &format!("<devices>{gl}</devices>"), root.path()).unwrap();
        assert_eq!(record.rules().iter().filter(|rule| rule.access == aa_contract::Access::RM).count(), 4);
        same(&device_rules("<graphics type='vnc'/><graphics type='spice'/>"), &[]);
        assert!(
            device_rules("<graphics type='sdl'><gl enable='yes'/></graphics>")
                .contains(&("/dev/dri/".to_owned(), "r".to_owned()))
        );
    }
}
