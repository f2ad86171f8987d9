//! Input devices of the host (libvirt: `formatdomain`, «Input devices»).

use aa_contract::{Access, NoteKind};

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

/// Only the types that take a device node of the host touch it.
pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let attribute = match device.attr("type") {
        Some("passthrough") => "evdev",
        Some("evdev") => "dev",
        Some("mouse" | "tablet" | "keyboard") | None => return Ok(()),
        Some(other) => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!("input of type {other} is not known here: no rule is made for it"),
            );
            return Ok(());
        }
    };
    match device.child("source").and_then(|source| Some((source, source.attr(attribute)?))) {
        Some((source, path)) => deriver.grant(source, "input device", path, Access::RW).map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_notes, device_rules, refusal};

    #[test]
    fn only_the_named_event_node() {
        for device in [
            "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event3'/></input>",
            "<input type='evdev'><source dev='/dev/input/event3' grab='all'/></input>",
        ] {
            assert_eq!(device_rules(device), [("/dev/input/event3".to_owned(), "rw".to_owned())]);
        }
        assert!(device_rules("<input type='tablet' bus='usb'/>").is_empty());
        assert!(refusal("<input type='evdev'><source dev='/etc/shadow'/></input>").contains("refuse /etc"));
        assert_eq!(device_notes("<input type='mindreader'/>").len(), 1);
    }
}
