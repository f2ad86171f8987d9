//! Host devices that are handed to the guest (libvirt: `formatdomain`, «Host device assignment»).

use aa_contract::{Access, Feature, NoteKind};

use crate::deriver::Deriver;
use crate::domain::refuse;
use crate::error::{Error, Refusal};
use crate::host::{Host, Kind, Resolved};
use crate::sysfs::{self, UsbDevice};
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    if device.attr("mode").is_some_and(|mode| mode != "subsystem") {
        deriver.note(
            NoteKind::NotCovered,
            device,
            "host devices by capability are for containers: no rule is made for it",
        );
        return Ok(());
    }
    let Some(source) = device.child("source") else { return Ok(()) };
    match device.attr("type") {
        Some("usb") => usb(deriver, &source),
        Some("pci") => {
            let name = pci_address(&address(&source)?)?;
            let iommufd = device.child("driver").and_then(|driver| driver.attr("iommufd")) == Some("yes");
            if pci(deriver, device, &name)? && iommufd {
                deriver.allow(device, "IOMMU", "/dev/iommu", Access::RW)?;
                vfio_node(deriver, device, &sysfs::pci_directory(&name))?;
            }
            Ok(())
        }
        Some("mdev") => mdev(deriver, device, &source),
        Some("scsi") => scsi(deriver, device, &source),
        Some("scsi_host") => scsi_host(deriver, &source),
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!(
                    "host device of type {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
            Ok(())
        }
    }
}

/// `<interface type='hostdev'>`: a PCI device, or a USB one, by its address.
pub(crate) fn interface(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let Some(source) = device.child("source") else { return Ok(()) };
    let address = address(&source)?;
    match address.attr("type") {
        Some("usb") => usb(deriver, &source),
        _ => vfio_pci(deriver, device, &address),
    }
}

fn address<'d>(source: &Element<'d>) -> Result<Element<'d>, Error> {
    source
        .child("address")
        .ok_or_else(|| refuse(source, Refusal::Incomplete { what: "host device", missing: "source address" }))
}

/// A USB device by address, or by vendor and product; where both stand, by both.
fn usb(deriver: &mut Deriver<'_>, source: &Element<'_>) -> Result<(), Error> {
    // What stands there and is no number is that of no device.
    let id = |name| source.child(name).map(|element| element.attr("id").and_then(sysfs::number));
    let (vendor, product) = (id("vendor"), id("product"));
    let position = source.child("address").map(|address| {
        let number = |name| address.attr(name).and_then(sysfs::number);
        (number("bus").unwrap_or(0), number("device").unwrap_or(0))
    });
    let position = position.filter(|position| *position != (0, 0));
    let is_named = position.is_some() || vendor.is_some() && product.is_some();
    let fits = |wanted: Option<Option<u32>>, found| wanted.is_none_or(|wanted| wanted == Some(found));
    usb_node(deriver, source, |usb| {
        is_named
            && position.is_none_or(|position| position == (usb.bus, usb.number))
            && fits(vendor, usb.vendor)
            && fits(product, usb.product)
    })
}

/// The node of the one USB device that is meant.
pub(crate) fn usb_node(
    deriver: &mut Deriver<'_>,
    source: &Element<'_>,
    is_meant: impl Fn(&UsbDevice) -> bool,
) -> Result<(), Error> {
    deriver.uses(Feature::Usb);
    let found = deriver.usb_devices().iter().filter(|usb| is_meant(usb)).map(|usb| (usb.bus, usb.number));
    let nodes: Vec<(u32, u32)> = found.collect();
    match nodes.as_slice() {
        [(bus, number)] => {
            deriver.allow(source, "USB device", &format!("/dev/bus/usb/{bus:03}/{number:03}"), Access::RW)
        }
        // What is not there now may be anybody's device when its number is given again.
        [] => {
            deriver.note(
                NoteKind::MissingDevice,
                source,
                "the USB device is not there: no rule is made for it",
            );
            Ok(())
        }
        // libvirt refuses to choose too.
        _ => {
            deriver.note(
                NoteKind::MissingDevice,
                source,
                "several USB devices are meant: name one by its <address>; no rule is made",
            );
            Ok(())
        }
    }
}

/// The VFIO group of the PCI device at an `<address>`, and what QEMU reads of it in sysfs.
pub(crate) fn vfio_pci(
    deriver: &mut Deriver<'_>,
    place: &Element<'_>,
    address: &Element<'_>,
) -> Result<(), Error> {
    pci(deriver, place, &pci_address(address)?).map(drop)
}

/// The same by its name in sysfs. Says whether the device is there, as far as can be told.
pub(crate) fn pci(deriver: &mut Deriver<'_>, place: &Element<'_>, name: &str) -> Result<bool, Error> {
    let dir = deriver.resolve(place.into(), "PCI device", &sysfs::pci_directory(name))?;
    vfio_device(deriver, place, &dir, &format!("PCI device {name}"))
}

/// The same of any device by VFIO, by its directory in sysfs.
pub(crate) fn vfio_device(
    deriver: &mut Deriver<'_>,
    place: &Element<'_>,
    resolved: &Resolved,
    what: &str,
) -> Result<bool, Error> {
    if is_missing(deriver, place, resolved, what) {
        return Ok(false);
    }
    vfio(deriver, place, &resolved.path, what)?;
    if resolved.kind == Kind::Missing {
        return Ok(true);
    }
    let entries = deriver.host.entries(&resolved.path);
    if entries.is_empty() {
        let text = format!("the files of {what} in sysfs cannot be seen: no rule is made for them");
        deriver.note(NoteKind::MissingDevice, place, text);
    }
    for entry in entries {
        if entry.starts_with("resource")
            || matches!(entry.as_str(), "config" | "rom" | "vendor" | "device" | "reset")
        {
            deriver.allow(place, "host device", &format!("{}/{entry}", resolved.path), Access::R)?;
        }
    }
    Ok(true)
}

/// Whether a device is certainly not there, which a note says. It may be in any group when it comes: as for USB devices,
/// no rule is made.
fn is_missing(deriver: &mut Deriver<'_>, place: &Element<'_>, resolved: &Resolved, what: &str) -> bool {
    let is_missing = resolved.kind == Kind::Missing && sysfs::is_there(deriver.host);
    if is_missing {
        let text = format!("{what} is not there: no rule is made for it");
        deriver.note(NoteKind::MissingDevice, place, text);
    }
    is_missing
}

/// The VFIO group of a device that is there. Only where sysfs is not there, or does not let its group be read, all
/// groups are granted, as libvirt's helper always does, and a note says so.
fn vfio(deriver: &mut Deriver<'_>, place: &Element<'_>, sysfs: &str, what: &str) -> Result<(), Error> {
    deriver.uses(Feature::Vfio);
    deriver.allow(place, "VFIO", "/dev/vfio/vfio", Access::RW)?;
    if let Some(group) = sysfs::iommu_group(deriver.host, sysfs) {
        return deriver.allow(place, "VFIO group", &format!("/dev/vfio/{group}"), Access::RW);
    }
    let entries = deriver.host.entries(sysfs);
    if !entries.is_empty() && !entries.iter().any(|entry| entry == "iommu_group") {
        let text = format!("{what} has no IOMMU group: no rule is made for one");
        deriver.note(NoteKind::MissingDevice, place, text);
        return Ok(());
    }
    let text = format!("sysfs does not tell the IOMMU group of {what}: every VFIO group is granted");
    deriver.note(NoteKind::MissingDevice, place, text);
    deriver.allow_glob(place, "VFIO group", "/dev/vfio/[0-9]*", Access::RW)
}

/// A device opened through iommufd has a node of its own besides, which sysfs tells in its directory.
pub(crate) fn vfio_node(deriver: &mut Deriver<'_>, place: &Element<'_>, dir: &str) -> Result<(), Error> {
    let nodes = deriver.host.entries(&format!("{dir}/vfio-dev"));
    if nodes.is_empty() {
        let text = format!("the device at {dir} is not given to VFIO yet: no rule is made for its own node");
        deriver.note(NoteKind::MissingDevice, place, text);
    }
    for node in nodes {
        deriver.allow(place, "VFIO device", &format!("/dev/vfio/devices/{node}"), Access::RW)?;
    }
    Ok(())
}

/// A mediated device, by its UUID.
fn mdev(deriver: &mut Deriver<'_>, device: &Element<'_>, source: &Element<'_>) -> Result<(), Error> {
    let address = address(source)?;
    let text = address.attr("uuid").unwrap_or_default();
    let uuid =
        aa_contract::Uuid::try_parse(text).map_err(|_| refuse(&address, Refusal::Uuid(text.to_owned())))?;
    let dir = deriver.resolve(source.into(), "mediated device", &format!("/sys/bus/mdev/devices/{uuid}"))?;
    vfio_device(deriver, device, &dir, &format!("mediated device {uuid}")).map(drop)
}

/// The generic node of a SCSI device, by the adapter's number and its address there.
fn scsi(deriver: &mut Deriver<'_>, device: &Element<'_>, source: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Scsi);
    if device.attr("rawio") == Some("yes") {
        deriver.uses(Feature::Rawio);
    }
    let access = if device.child("readonly").is_some() { Access::R } else { Access::RW };
    if source.attr("protocol").is_some_and(|protocol| protocol != "adapter") {
        deriver.uses(Feature::Iscsi);
        return Ok(());
    }
    let adapter = source.child("adapter").and_then(|adapter| adapter.attr("name")).unwrap_or_default();
    let host = adapter.strip_prefix("scsi_host").and_then(sysfs::number);
    let part = |name| source.child("address").and_then(|address| sysfs::number(address.attr(name)?));
    let Some(host) = host else {
        return Err(refuse(source, Refusal::Value { what: "SCSI adapter", value: adapter.to_owned() }));
    };
    let name = format!(
        "{host}:{}:{}:{}",
        part("bus").unwrap_or(0),
        part("target").unwrap_or(0),
        part("unit").unwrap_or(0)
    );
    let nodes = deriver.host.entries(&format!("/sys/bus/scsi/devices/{name}/scsi_generic"));
    if nodes.is_empty() {
        deriver.note(
            NoteKind::MissingDevice,
            source,
            format!("SCSI device {name} is not there: no rule is made for it"),
        );
    }
    for node in nodes {
        deriver.allow(source, "SCSI device", &format!("/dev/{node}"), access)?;
    }
    Ok(())
}

/// A SCSI target of the kernel's own, by its world-wide name (`naa.` and 16 hexadecimal digits).
fn scsi_host(deriver: &mut Deriver<'_>, source: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Scsi);
    let name = source.attr("wwpn").unwrap_or_default();
    let hexadecimal = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !name.strip_prefix("naa.").is_some_and(hexadecimal) {
        return Err(refuse(source, Refusal::Value { what: "world-wide name", value: name.to_owned() }));
    }
    deriver.allow(source, "vhost-scsi", "/dev/vhost-scsi", Access::RW)?;
    let target = format!("/sys/kernel/config/target/vhost/{name}");
    deriver.allow(source, "SCSI target", &target, Access::RW)?;
    deriver.allow_below(source, "SCSI target", &target, "{,**}", Access::RW)
}

/// `<address domain= bus= slot= function=>` as sysfs names the device (libvirt: `formatdomain`, «Device Addresses»).
fn pci_address(address: &Element<'_>) -> Result<String, Error> {
    let number = |name: &'static str, max: u32| {
        let text = address.attr(name).unwrap_or("0");
        sysfs::number(text)
            .filter(|number| *number <= max)
            .ok_or_else(|| refuse(address, Refusal::Value { what: "PCI address", value: text.to_owned() }))
    };
    Ok(sysfs::pci_name(
        number("domain", u32::MAX)?,
        number("bus", 0xff)?,
        number("slot", 0x1f)?,
        number("function", 7)?,
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::testing::{device_notes, device_rules, link, notes, refusal, rules, same, write};

    fn on(root: &Path, device: &str) -> Vec<(String, String)> {
        rules("kvm", &format!("<devices>{device}</devices>"), root)
    }

    fn stick(root: &Path, name: &str, bus: u32, number: u32, product: &str) {
        for (file, text) in [
            ("busnum", bus.to_string()),
            ("devnum", number.to_string()),
            ("idVendor", "1d6b".to_owned()),
            ("idProduct", product.to_owned()),
        ] {
            write(root, &format!("/sys/bus/usb/devices/{name}/{file}"), &format!("{text}\n"));
        }
    }

    #[test]
    fn a_usb_device_is_its_own_node() {
        let root = tempfile::tempdir().unwrap();
        stick(root.path(), "1-1", 1, 4, "0002");
        stick(root.path(), "1-2", 1, 5, "0003");
        write(root.path(), "/sys/bus/usb/devices/1-1:1.0/bInterfaceClass", "03\n");
        let usb = |source: &str| {
            on(
                root.path(),
                &format!("<hostdev mode='subsystem' type='usb'><source>{source}</source></hostdev>"),
            )
        };
        same(&usb("<address bus='1' device='4'/>"), &[("/dev/bus/usb/001/004", "rw")]);
        same(&usb("<address bus='0x1' device='0x5'/>"), &[("/dev/bus/usb/001/005", "rw")]);
        same(&usb("<vendor id='0x1d6b'/><product id='0x0003'/>"), &[("/dev/bus/usb/001/005", "rw")]);
        same(&usb("<vendor id='0x1d6b'/><product id='0x0004'/>"), &[]);
        same(&usb("<address bus='1' device='6'/>"), &[]);
        // Where both are said, both must be so: another device may have the number by now.
        let both = |product: &str| {
            format!("<vendor id='0x1d6b'/><product id='{product}'/><address bus='1' device='4'/>")
        };
        same(&usb(&both("0x0002")), &[("/dev/bus/usb/001/004", "rw")]);
        same(&usb(&both("0x0003")), &[]);
        same(&usb(&both("zzz")), &[]);
        stick(root.path(), "1-3", 1, 6, "0003");
        same(&usb("<vendor id='0x1d6b'/><product id='0x0003'/>"), &[]);
        same(&usb("<address bus='1' device='06'/>"), &[("/dev/bus/usb/001/006", "rw")]);
    }

    /// Each looked through all of them in sysfs: together they took minutes.
    #[test]
    fn very_many_usb_devices_are_looked_for_once() {
        let root = tempfile::tempdir().unwrap();
        for number in 1..=100 {
            stick(root.path(), &format!("1-{number}"), 1, number, &format!("{number:04x}"));
        }
        let one = |product: &str| {
            format!(
                "<hostdev type='usb'><source><vendor id='0x1d6b'/><product id='{product}'/></source></hostdev>"
            )
        };
        let devices = one("0x1000").repeat(20_000) + &one("0x0064");
        same(&on(root.path(), &devices), &[("/dev/bus/usb/001/100", "rw")]);
    }

    #[test]
    fn usb_bus_zero_and_nonsense_are_no_crash_and_no_rule() {
        for source in
            ["<address bus='0' device='0'/>", "<address bus='x' device='-1'/>", "<vendor id='zzz'/>", ""]
        {
            let device = format!("<hostdev mode='subsystem' type='usb'><source>{source}</source></hostdev>");
            assert!(device_rules(&device).is_empty(), "{source}");
            assert_eq!(device_notes(&device).len(), 1, "{source}");
        }
    }

    const PCI: &str = "<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source></hostdev>";

    #[test]
    fn a_pci_device_is_its_own_group_and_reads_its_own_files() {
        let root = tempfile::tempdir().unwrap();
        // A root below a platform device, as on ARM.
        let real = "/sys/devices/platform/40.pcie/pci0000:00/0000:06:12.5";
        for file in
            ["config", "resource0", "resource4_wc", "vendor", "device", "rom", "reset", "driver_override"]
        {
            write(root.path(), &format!("{real}/{file}"), "");
        }
        write(root.path(), "/sys/kernel/iommu_groups/13/type", "DMA\n");
        link(root.path(), &format!("{real}/iommu_group"), "../../../../../kernel/iommu_groups/13");
        link(root.path(), "/sys/bus/pci/devices/0000:06:12.5", &format!("../../../../{real}"));
        let files = ["config", "resource0", "resource4_wc", "vendor", "device", "rom", "reset"]
            .map(|file| format!("{real}/{file}"));
        let mut expected: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), "r")).collect();
        expected.extend([("/dev/vfio/13", "rw"), ("/dev/vfio/vfio", "rw")]);
        same(&on(root.path(), PCI), &expected);
        let interface = PCI
            .replace("hostdev mode='subsystem' type='pci'", "interface type='hostdev'")
            .replace("</hostdev>", "</interface>");
        same(&on(root.path(), &interface), &expected);
        let disk = "<disk type='nvme'><source type='pci' namespace='1'><address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source></disk>";
        same(&on(root.path(), disk), &expected);
    }

    #[test]
    fn without_sysfs_every_group_is_granted_and_said() {
        same(&device_rules(PCI), &[("/dev/vfio/vfio", "rw"), ("/dev/vfio/[0-9]*", "rw")]);
        assert_eq!(device_notes(PCI).len(), 1);
        refusal(&PCI.replace("0x12", "0x52"));
        refusal(&PCI.replace("0x06", "../.."));
        refusal(&PCI.replace("0x5", "0x8"));
        // Only a container has devices by capability.
        let capability = "<hostdev mode='capabilities' type='misc'><source><char>/dev/input/event3</char></source></hostdev>";
        same(&device_rules(capability), &[]);
        assert_eq!(device_notes(capability).len(), 1);
    }

    /// Whoever defines a guest chooses the address: every group for one that is not there would be any device of the host's.
    #[test]
    fn a_device_that_is_not_there_or_has_no_group_is_no_group() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/sys/bus/pci/devices/0000:00:01.0/vendor", "0x8086\n");
        let mdev = "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='53764d0e-85a0-42b4-af5c-2046b460b1dc'/></source></hostdev>";
        let nvme = "<disk type='nvme'><source type='pci' namespace='1'><address bus='0x06' slot='0x12' function='0x5'/></source></disk>";
        let interface = PCI
            .replace("hostdev mode='subsystem' type='pci'", "interface type='hostdev'")
            .replace("</hostdev>", "</interface>");
        let iommufd = PCI.replace("<source>", "<driver name='vfio' iommufd='yes'/><source>");
        for absent in [PCI, mdev, nvme, &interface, &iommufd] {
            same(&on(root.path(), absent), &[]);
            let noted = notes(&format!("<devices>{absent}</devices>"), root.path());
            assert_eq!(noted, [aa_contract::NoteKind::MissingDevice], "{absent}");
        }
        // One that is there and has no group, as where the host has no IOMMU.
        let there = PCI.replace("0x06", "0").replace("0x12", "1").replace("0x5", "0");
        let files = [("/dev/vfio/vfio", "rw"), ("/sys/bus/pci/devices/0000:00:01.0/vendor", "r")];
        same(&on(root.path(), &there), &files);
        // Its group cannot be read.
        write(root.path(), "/sys/bus/pci/devices/0000:00:01.0/iommu_group/x", "");
        let [vfio, vendor] = files;
        same(&on(root.path(), &there), &[vfio, vendor, ("/dev/vfio/[0-9]*", "rw")]);
    }

    #[test]
    fn iommufd_adds_the_devices_own_node() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/sys/bus/pci/devices/0000:06:12.5/vfio-dev/vfio3/dev", "");
        let device = PCI.replace("<source>", "<driver name='vfio' iommufd='yes'/><source>");
        let rules = on(root.path(), &device);
        assert!(rules.contains(&("/dev/vfio/devices/vfio3".to_owned(), "rw".to_owned())));
        assert!(rules.contains(&("/dev/iommu".to_owned(), "rw".to_owned())));
        let noted = |root: &Path| {
            let notes = notes(&format!("<devices>{device}</devices>"), root);
            notes.iter().filter(|kind| **kind == aa_contract::NoteKind::MissingDevice).count()
        };
        let absent = tempfile::tempdir().unwrap();
        assert_eq!((noted(root.path()), noted(absent.path())), (1, 2), "the group, and the node");
    }

    #[test]
    fn a_mediated_device_is_its_group() {
        let root = tempfile::tempdir().unwrap();
        let device = "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='53764d0e-85a0-42b4-af5c-2046b460b1dc'/></source></hostdev>";
        write(root.path(), "/sys/kernel/iommu_groups/7/type", "");
        write(root.path(), "/sys/bus/mdev/devices/53764d0e-85a0-42b4-af5c-2046b460b1dc/name", "");
        link(
            root.path(),
            "/sys/bus/mdev/devices/53764d0e-85a0-42b4-af5c-2046b460b1dc/iommu_group",
            "../../../../kernel/iommu_groups/7",
        );
        same(&on(root.path(), device), &[("/dev/vfio/7", "rw"), ("/dev/vfio/vfio", "rw")]);
        refusal(&device.replace("53764d0e", "../../x"));
    }

    #[test]
    fn scsi_devices_and_targets() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/sys/bus/scsi/devices/2:0:4:1/scsi_generic/sg7/dev", "");
        let scsi = "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host2'/><address bus='0' target='4' unit='1'/></source></hostdev>";
        same(&on(root.path(), scsi), &[("/dev/sg7", "rw")]);
        same(&on(root.path(), &scsi.replace("<source>", "<readonly/><source>")), &[("/dev/sg7", "r")]);
        same(&device_rules(scsi), &[]);
        refusal(&scsi.replace("scsi_host2", "../x"));
        let iscsi = "<hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='iqn'/></hostdev>";
        same(&device_rules(iscsi), &[]);
        let target = "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.5123456789abcde0'/></hostdev>";
        same(
            &device_rules(target),
            &[
                ("/dev/vhost-scsi", "rw"),
                ("/sys/kernel/config/target/vhost/naa.5123456789abcde0", "rw"),
                ("/sys/kernel/config/target/vhost/naa.5123456789abcde0/{,**}", "rw"),
            ],
        );
        refusal(&target.replace("naa.5123456789abcde0", "naa.../../../x/yz"));
    }
}
