//! What sysfs says of the host's devices (kernel: `Documentation/ABI/testing/sysfs-bus-pci`,
//! `sysfs-bus-usb`, `vfio-mediated-device`). Names in it are checked before they become paths.

use crate::host::{Host, Kind};
use crate::xml::Element;

/// The files of a PCI device that a hypervisor reads, besides its `resource…`.
const PCI_FILES: [&str; 5] = ["config", "device", "reset", "rom", "vendor"];

/// A number as libvirt's XML writes it: decimal, hexadecimal with `0x`, octal with a leading zero.
pub(crate) fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(hex, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// A number in an attribute.
pub(crate) fn attr(element: &Element<'_>, name: &str) -> Option<u32> {
    number(element.attr(name)?)
}

/// The name of a PCI device, as in `0000:06:12.5`, out of an `<address>`.
pub(crate) fn pci_name(address: &Element<'_>) -> Option<String> {
    let part = |name, max| match address.attr(name) {
        Some(text) => number(text).filter(|&value| value <= max),
        None => Some(0),
    };
    let (domain, bus) = (part("domain", 0xffff)?, part("bus", 0xff)?);
    let (slot, function) = (part("slot", 0x1f)?, part("function", 7)?);
    Some(format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"))
}

/// The real directory of a device below `/sys/devices`, by a link elsewhere in sysfs.
pub(crate) fn device_dir(host: &dyn Host, link: &str) -> Option<String> {
    let resolved = host.resolve(link).ok()?;
    (resolved.kind == Kind::Directory && resolved.path.starts_with("/sys/devices/")).then_some(resolved.path)
}

/// The number of the IOMMU group of a device.
pub(crate) fn iommu_group(host: &dyn Host, device: &str) -> Option<u32> {
    let group = host.resolve(&format!("{device}/iommu_group")).ok()?;
    if group.kind != Kind::Directory {
        return None;
    }
    group.path.strip_prefix("/sys/kernel/iommu_groups/")?.parse().ok()
}

/// The name of a device's node below `/dev/vfio/devices`, as in `vfio0`.
pub(crate) fn vfio_cdev(host: &dyn Host, device: &str) -> Option<String> {
    numbered(host, &format!("{device}/vfio-dev"), "vfio")
}

/// The first entry of a directory that is `prefix` and a number.
pub(crate) fn numbered(host: &dyn Host, dir: &str, prefix: &str) -> Option<String> {
    host.entries(dir).into_iter().find(|name| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// The files of a PCI device that a hypervisor reads, below its real directory.
pub(crate) fn pci_files(host: &dyn Host, dir: &str) -> Vec<String> {
    let wanted = |name: &String| {
        PCI_FILES.contains(&name.as_str())
            || name.strip_prefix("resource").is_some_and(|rest| {
                rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_' || byte.is_ascii_lowercase())
            })
    };
    host.entries(dir).into_iter().filter(wanted).map(|name| format!("{dir}/{name}")).collect()
}

/// A USB device's place: bus and device number, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usb {
    pub(crate) bus: u32,
    pub(crate) device: u32,
}

impl Usb {
    /// The device's node.
    pub(crate) fn node(self) -> String {
        format!("/dev/bus/usb/{:03}/{:03}", self.bus, self.device)
    }
}

/// What is asked of a USB device; what is absent may be anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UsbQuery<'a> {
    pub(crate) vendor: Option<u32>,
    pub(crate) product: Option<u32>,
    pub(crate) bus: Option<u32>,
    pub(crate) device: Option<u32>,
    /// Ports from the root hub on, as in `1.4`.
    pub(crate) port: Option<&'a str>,
}

/// The USB devices that match.
pub(crate) fn usb(host: &dyn Host, query: UsbQuery<'_>) -> Vec<Usb> {
    const DIR: &str = "/sys/bus/usb/devices";
    let mut found = Vec::new();
    for name in host.entries(DIR) {
        let text = |file: &str| host.text(&format!("{DIR}/{name}/{file}"));
        let hex = |file: &str| text(file).and_then(|text| u32::from_str_radix(&text, 16).ok());
        let decimal = |file: &str| text(file).and_then(|text| text.parse::<u32>().ok());
        // Interfaces of devices (`1-1:1.0`) have no numbers of their own.
        let (Some(bus), Some(device)) = (decimal("busnum"), decimal("devnum")) else { continue };
        let is = |wanted: Option<u32>, value: Option<u32>| wanted.is_none() || wanted == value;
        if is(query.bus, Some(bus))
            && is(query.device, Some(device))
            && query.port.is_none_or(|port| name == format!("{bus}-{port}"))
            && (query.vendor.is_none() || is(query.vendor, hex("idVendor")))
            && (query.product.is_none() || is(query.product, hex("idProduct")))
        {
            found.push(Usb { bus, device });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_libvirt_writes_them() {
        for (text, value) in [("0x1f", Some(31)), ("017", Some(15)), ("0", Some(0)), ("12", Some(12)), ("/", None), ("", None), ("0x", None), ("08", None), ("-1", None)] {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn pci_names_hold_only_what_fits() {
        let name = |xml: &str| {
            let text = format!("<address {xml}/>");
            let document = crate::xml::Document::parse(text.as_bytes()).unwrap();
            pci_name(&document.root())
        };
        assert_eq!(name("domain='0x0001' bus='0x06' slot='0x12' function='0x5'").as_deref(), Some("0001:06:12.5"));
        assert_eq!(name("bus='6'").as_deref(), Some("0000:06:00.0"));
        for bad in ["bus='../..'", "bus='0x100'", "slot='32'", "function='8'", "domain='*'"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
