//! Random number generators (libvirt: `formatdomain`, «Random number generator device»).

use aa_contract::{Access, NoteKind};

use super::chardev_source;
use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let Some(backend) = device.child("backend") else { return Ok(()) };
    match backend.attr("model") {
        Some("random") => match backend.text().trim() {
            "" => deriver.allow(backend, "random source", "/dev/random", Access::R),
            path => deriver.grant(backend, "random source", path, Access::R).map(drop),
        },
        Some("egd") => chardev_source(deriver, &backend, "entropy daemon"),
        Some("builtin") | None => Ok(()),
        Some(other) => {
            deriver.note(
                NoteKind::UnknownElement,
                &backend,
                format!("random number backend {other} is not known here: no rule is made for it"),
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_rules, refusal};

    fn rule(path: &str, access: &str) -> Vec<(String, String)> {
        vec![(path.to_owned(), access.to_owned())]
    }

    #[test]
    fn the_source_is_only_read() {
        let rng = |backend: &str| device_rules(&format!("<rng model='virtio'>{backend}</rng>"));
        assert_eq!(rng("<backend model='random'>/dev/hwrng</backend>"), rule("/dev/hwrng", "r"));
        assert_eq!(rng("<backend model='random'/>"), rule("/dev/random", "r"));
        assert_eq!(
            rng("<backend model='egd' type='unix'><source mode='connect' path='/run/egd'/></backend>"),
            rule("/run/egd", "rw")
        );
        assert!(
            rng("<backend model='egd' type='udp'><source mode='connect' host='h' service='1'/></backend>")
                .is_empty()
        );
        assert!(rng("<backend model='builtin'/>").is_empty());
        assert!(
            refusal("<rng model='virtio'><backend model='random'>/etc/shadow</backend></rng>")
                .contains("refuse /etc")
        );
    }
}
