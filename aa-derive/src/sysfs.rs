//! What sysfs says of a device: the kernel's own stable layout (kernel: `Documentation/ABI/testing/sysfs-bus-pci`,
//! `sysfs-bus-usb`, `sysfs-kernel-iommu_groups`).

use crate::host::{Files, Host, Kind};

const USB: &str = "/sys/bus/usb/devices";

/// A USB device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsbDevice {
    pub(crate) bus: u32,
    pub(crate) number: u32,
    pub(crate) vendor: u32,
    pub(crate) product: u32,
}

/// Every USB device that sysfs shows.
pub(crate) fn usb_devices(host: &Files) -> Vec<UsbDevice> {
    let read = |name: &str| {
        let decimal = |file| host.text(&format!("{USB}/{name}/{file}"))?.parse().ok();
        let hexadecimal = |file| u32::from_str_radix(&host.text(&format!("{USB}/{name}/{file}"))?, 16).ok();
        Some(UsbDevice {
            bus: decimal("busnum")?,
            number: decimal("devnum")?,
            vendor: hexadecimal("idVendor")?,
            product: hexadecimal("idProduct")?,
        })
    };
    host.entries(USB).iter().filter_map(|name| read(name)).collect()
}

/// A PCI address as sysfs writes it: `0000:03:00.0`.
pub(crate) fn pci_name(domain: u32, bus: u32, slot: u32, function: u32) -> String {
    format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}")
}

/// Where sysfs shows the device of that name.
pub(crate) fn pci_directory(name: &str) -> String {
    format!("/sys/bus/pci/devices/{name}")
}

/// The name of a device by its address as people write it, with or without the domain: `03:00.0`.
pub(crate) fn pci_name_of(text: &str) -> Option<String> {
    let hexadecimal = |text: &str, max| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|number| is_number && *number <= max)
    };
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, slot) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    Some(pci_name(
        hexadecimal(domain, u32::MAX)?,
        hexadecimal(bus, 0xff)?,
        hexadecimal(slot, 0x1f)?,
        hexadecimal(function, 7)?,
    ))
}

/// Whether sysfs is there at all, so that a device that it does not have is none. To be looked at, a file needs no rule
/// of a profile.
pub(crate) fn is_there(host: &Files) -> bool {
    host.resolve("/sys/bus").is_ok_and(|bus| bus.kind == Kind::Directory)
}

/// The number of the IOMMU group that a device's directory in sysfs belongs to. Only the kernel's own
/// list of groups counts: the directory may be one that the XML names.
pub(crate) fn iommu_group(host: &Files, device: &str) -> Option<u32> {
    let group =
        host.resolve(&format!("{device}/iommu_group")).ok().filter(|group| group.kind != Kind::Missing)?;
    group.path.strip_prefix("/sys/kernel/iommu_groups/")?.parse().ok()
}

/// A number as libvirt reads addresses: hexadecimal behind `0x`, octal behind `0`, decimal otherwise
/// (libvirt: `virXMLPropUInt` with base 0).
pub(crate) fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    if let Some(hexadecimal) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(hexadecimal, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{number, pci_name_of};

    #[test]
    fn a_pci_address_may_leave_out_the_domain() {
        for (text, name) in [
            ("3:0.0", Some("0000:03:00.0")),
            ("0001:aF:1f.7", Some("0001:af:1f.7")),
            ("0:03:00.0:0", None),
            ("03:20.0", None),
            ("03:00.8", None),
            ("100:00.0", None),
            ("+3:00.0", None),
            ("../../x", None),
            ("0:0:3:0.0", None),
            ("", None),
        ] {
            assert_eq!(pci_name_of(text).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn numbers_have_three_bases() {
        for (text, value) in [
            ("0x1f", Some(31)),
            ("012", Some(10)),
            ("12", Some(12)),
            ("0", Some(0)),
            ("08", None),
            ("-1", None),
            ("", None),
            ("0x", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }
}
