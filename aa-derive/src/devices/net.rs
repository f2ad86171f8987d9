//! Network interfaces (libvirt: `formatdomain`, «Network interfaces»).

use aa_contract::{Access, Feature, NoteKind, VirtType};

use super::hostdev;
use crate::base::RUN;
use crate::deriver::Deriver;
use crate::error::Error;
use crate::host::Host;
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    // Of a running guest's card on a network, libvirtd's status XML says by what it was connected.
    let connection = device.child("actual").filter(|actual| actual.attr("type").is_some()).unwrap_or(*device);
    let source = connection.child("source");
    let named = |name| source.and_then(|source| Some((source, source.attr(name)?)));
    match connection.attr("type") {
        Some(
            "network" | "bridge" | "ethernet" | "server" | "client" | "mcast" | "udp" | "internal" | "null"
            | "vds",
        ) => {}
        Some("direct") => macvtap(deriver, device)?,
        Some("user") => user(deriver, device)?,
        Some("vhostuser") => {
            deriver.uses(Feature::VhostUser);
            if let Some((source, path)) = named("path") {
                deriver.grant(source, "vhost-user socket", path, Access::RW)?;
            } else if backend(device) == Some("passt") {
                user(deriver, device)?;
            }
        }
        Some("vdpa") => {
            deriver.uses(Feature::Vdpa);
            if let Some((source, path)) = named("dev") {
                deriver.grant(source, "vDPA device", path, Access::RW)?;
            }
        }
        Some("hostdev") => hostdev::interface(deriver, &connection)?,
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!(
                    "interface of type {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
        }
    }
    if is_tap(&connection) {
        tap(deriver, device)?;
    }
    Ok(())
}

fn backend<'d>(device: &Element<'d>) -> Option<&'d str> {
    device.child("backend").and_then(|backend| backend.attr("type"))
}

/// Types that are a tap device on the host.
fn is_tap(device: &Element<'_>) -> bool {
    matches!(device.attr("type"), Some("network" | "bridge" | "ethernet" | "direct"))
}

/// The node of a tap, and the kernel's virtio back end where the guest has a virtio card.
fn tap(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Tap);
    let backend = device.child("backend");
    let named = |name| backend.and_then(|backend| Some((backend, backend.attr(name)?)));
    if let Some((backend, path)) = named("tap") {
        deriver.grant(backend, "tap device", path, Access::RW)?;
    }
    // The model decides: vhost-net serves virtio alone, and not where the driver is QEMU's own.
    let model = device.child("model").and_then(|model| model.attr("type"));
    let driven_by = device.child("driver").and_then(|element| element.attr("name"));
    let virtio = model.is_none_or(|model| model.starts_with("virtio"));
    let vhost = deriver.domain.virt_type == VirtType::Kvm
        && virtio
        && !(model.is_some() && driven_by == Some("qemu"));
    if vhost {
        deriver.uses(Feature::VhostNet);
        match named("vhost") {
            Some((backend, path)) => {
                deriver.grant(backend, "vhost-net device", path, Access::RW)?;
            }
            None => deriver.allow(device, "vhost-net", "/dev/vhost-net", Access::RW)?,
        }
    }
    Ok(())
}

/// A macvtap's node is `/dev/tapN`, N being the number of the link that libvirtd has made.
fn macvtap(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    // A link of that name is another guest's where this one does not run.
    let target = device.child("target").filter(|_| deriver.domain.id.is_some());
    let Some(link) = target.and_then(|target| target.attr("dev")) else { return Ok(()) };
    if link.is_empty() || link.contains('/') || matches!(link, "." | "..") {
        return Ok(());
    }
    match deriver
        .host
        .text(&format!("/sys/class/net/{link}/ifindex"))
        .and_then(|text| text.parse::<u32>().ok())
    {
        Some(index) => deriver.allow(device, "macvtap", &format!("/dev/tap{index}"), Access::RW),
        None => {
            let text = format!("the link \"{link}\" is not seen in sysfs: no rule is made for its node");
            deriver.note(NoteKind::MissingDevice, device, text);
            Ok(())
        }
    }
}

/// User networking: passt, under the guest's profile too, makes a socket for QEMU and a file with its
/// process id, which libvirtd names; a slirp helper is reached through an inherited socket.
fn user(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    if backend(device) != Some("passt") {
        deriver.uses(Feature::Slirp);
        return Ok(());
    }
    deriver.uses(Feature::Passt);
    if let Some(log) = device.child("backend").and_then(|backend| backend.attr("logFile")) {
        let text = format!("passt's log \"{log}\" gets no rule: passt has a profile of its own");
        deriver.note(NoteKind::NotCovered, device, text);
    }
    let short = deriver.short.clone();
    let alias = device.child("alias").and_then(|alias| alias.attr("name"));
    let alias = alias.filter(|alias| !alias.is_empty() && !alias.contains(['/', '\0']));
    for (role, end, any) in
        [("passt socket", ".socket", "[0-9]*.socket"), ("passt process id", "-passt.pid", "[0-9]*-passt.pid")]
    {
        match alias {
            Some(alias) => {
                let path = format!("{RUN}/passt/{short}-{alias}{end}");
                deriver.allow(device, role, &path, Access::RW)?;
            }
            // libvirt names cards net0, net1 … when the guest starts.
            None => {
                let cards = format!("{RUN}/passt/{short}-net");
                deriver.allow_behind(device, role, &cards, any, Access::RW)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aa_contract::NoteKind;

    use crate::testing::{
        device_notes, device_rules, link, notes, record, refusal, rules, same, stopped, write,
    };

    const VHOST: (&str, &str) = ("/dev/vhost-net", "rw");

    #[test]
    fn vhost_net_is_for_virtio_taps_of_kvm() {
        for kind in ["network", "bridge", "ethernet"] {
            let card = |inside: &str| device_rules(&format!("<interface type='{kind}'>{inside}</interface>"));
            same(&card(""), &[VHOST]);
            same(&card("<model type='virtio'/>"), &[VHOST]);
            same(&card("<model type='virtio'/><driver name='vhost'/>"), &[VHOST]);
            same(&card("<model type='virtio'/><driver name='qemu'/>"), &[]);
            same(&card("<model type='e1000'/>"), &[]);
        }
        for kind in ["user", "null", "mcast"] {
            same(&device_rules(&format!("<interface type='{kind}'><model type='virtio'/></interface>")), &[]);
        }
        let root = tempfile::tempdir().unwrap();
        let tcg = rules(
            "qemu",
            "<devices><interface type='bridge'><model type='virtio'/></interface></devices>",
            root.path(),
        );
        same(&tcg, &[]);
    }

    #[test]
    fn nodes_that_the_xml_names() {
        let card =
            "<interface type='ethernet'><backend tap='/dev/net/tun1' vhost='/dev/vhost1'/></interface>";
        same(&device_rules(card), &[("/dev/net/tun1", "rw"), ("/dev/vhost1", "rw")]);
        same(
            &device_rules("<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>"),
            &[("/dev/vhost-vdpa-0", "rw")],
        );
        let vhost_user = |path: &str| {
            format!(
                "<interface type='vhostuser'><source type='unix' path='{path}' mode='server'/></interface>"
            )
        };
        same(&device_rules(&vhost_user("/run/v*.sock")), &[("/run/v*.sock", "rw")]);
        refusal(&vhost_user("/etc/v"));
        refusal("<interface type='vdpa'><source dev='/dev/mem'/></interface>");
        refusal("<interface type='ethernet'><backend tap='/etc/x'/></interface>");
    }

    #[test]
    fn a_macvtap_is_its_own_node() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/sys/class/net/macvtap0/ifindex", "42\n");
        let card = "<devices><interface type='direct'><source dev='eth0' mode='vepa'/><target dev='macvtap0'/><model type='e1000'/></interface></devices>";
        same(&rules("kvm", card, root.path()), &[("/dev/tap42", "rw")]);
        let network = card.replace("direct", "network").replace(
            "<source dev='eth0' mode='vepa'/>",
            "<source network='n'/><actual type='direct'><source dev='eth0' mode='vepa'/></actual>",
        );
        same(&rules("kvm", &network, root.path()), &[("/dev/tap42", "rw")]);
        assert!(notes(card, root.path()).is_empty());
        // A link that is not there, or cannot be seen.
        let gone = card.replace("macvtap0", "macvtap1");
        same(&rules("kvm", &gone, root.path()), &[]);
        assert_eq!(notes(&gone, root.path()), [NoteKind::MissingDevice]);
        let lost = card.replace("macvtap0", "../../x");
        assert!(record("kvm", &lost, root.path()).is_ok());
        same(&rules("kvm", &lost, root.path()), &[]);
    }

    #[test]
    fn a_macvtap_of_a_guest_that_does_not_run_is_another_ones() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/sys/class/net/macvtap0/ifindex", "42\n");
        let card = "<devices><interface type='direct'><source dev='eth0'/><target dev='macvtap0'/></interface></devices>";
        let stopped = stopped("kvm", card, root.path()).unwrap();
        let text = serde_json::to_string(&stopped).unwrap();
        assert!(text.contains("/dev/vhost-net") && !text.contains("/dev/tap42"), "{text}");
    }

    #[test]
    fn what_a_network_led_to_is_what_the_status_says() {
        let root = tempfile::tempdir().unwrap();
        link(
            root.path(),
            "/sys/bus/pci/devices/0000:06:12.5/iommu_group",
            "../../../../kernel/iommu_groups/13",
        );
        write(root.path(), "/sys/kernel/iommu_groups/13/type", "DMA\n");
        let card = |actual: &str| {
            let card = "<interface type='network'><source network='n'/>";
            format!("<devices>{card}{actual}<model type='virtio'/></interface></devices>")
        };
        let handed = "<actual type='hostdev' managed='yes'><source><address type='pci' domain='0' bus='6' slot='0x12' function='5'/></source></actual>";
        same(&rules("kvm", &card(handed), root.path()), &[("/dev/vfio/13", "rw"), ("/dev/vfio/vfio", "rw")]);
        let bridge = "<actual type='bridge'><source bridge='br0'/></actual>";
        for actual in ["", bridge, "<actual/>"] {
            same(&rules("kvm", &card(actual), root.path()), &[VHOST]);
        }
    }

    #[test]
    fn passt_is_its_own_socket() {
        let card = |alias: &str| format!("<interface type='user'><backend type='passt'/>{alias}</interface>");
        same(
            &device_rules(&card("<alias name='net0'/>")),
            &[
                ("/run/libvirt/qemu/passt/7-guest-net0.socket", "rw"),
                ("/run/libvirt/qemu/passt/7-guest-net0-passt.pid", "rw"),
            ],
        );
        let any = [
            ("/run/libvirt/qemu/passt/7-guest-net[0-9]*.socket", "rw"),
            ("/run/libvirt/qemu/passt/7-guest-net[0-9]*-passt.pid", "rw"),
        ];
        same(&device_rules(&card("")), &any);
        same(&device_rules(&card("<alias name='../x'/>")), &any);
        let logging = "<interface type='user'><backend type='passt' logFile='/srv/l'/></interface>";
        same(&device_rules(logging), &any);
        assert_eq!((device_notes(logging), device_notes(&card(""))), (vec![NoteKind::NotCovered], vec![]));
        assert_eq!(device_notes("<interface type='carrier-pigeon'/>").len(), 1);
    }
}
