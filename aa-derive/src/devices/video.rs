//! Video devices (libvirt: `formatdomain`, «Video devices»).

use aa_contract::Access;

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let Some(model) = device.child("model") else { return Ok(()) };
    if model.attr("blob") == Some("on") {
        deriver.allow(model, "udmabuf", "/dev/udmabuf", Access::RW)?;
    }
    let acceleration = model.child("acceleration");
    if let Some((acceleration, node)) =
        acceleration.and_then(|element| Some((element, element.attr("rendernode")?)))
    {
        deriver.grant(acceleration, "render node", node, Access::RW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_rules, refusal, same};

    #[test]
    fn blobs_and_render_nodes() {
        assert!(device_rules("<video><model type='virtio'/></video>").is_empty());
        same(&device_rules("<video><model type='virtio' blob='on'/></video>"), &[("/dev/udmabuf", "rw")]);
        let node = |path: &str| {
            format!("<video><model type='virtio'><acceleration rendernode='{path}'/></model></video>")
        };
        same(&device_rules(&node("/dev/dri/renderD129")), &[("/dev/dri/renderD129", "rw")]);
        assert!(refusal(&node("/etc/shadow")).contains("refuse /etc"));
    }
}
