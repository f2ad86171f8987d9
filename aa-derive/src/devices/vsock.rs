//! Sockets between the host and the guest (libvirt: `formatdomain`, «Vsock»).

use aa_contract::{Access, Feature};

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

/// libvirtd opens the node and passes it, or QEMU opens it itself.
pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Vsock);
    deriver.allow(device, "vsock", "/dev/vhost-vsock", Access::RW)
}

#[cfg(test)]
mod tests {
    use crate::testing::device_rules;

    #[test]
    fn its_node_and_nothing_else() {
        let rules = device_rules("<vsock model='virtio'><cid auto='yes'/></vsock>");
        assert_eq!(rules, [("/dev/vhost-vsock".to_owned(), "rw".to_owned())]);
        assert!(device_rules("").is_empty());
    }
}
