//! Host devices given to the guest: PCI and mediated devices by VFIO, USB, SCSI.

use aa_contract::{Access, Feature, NoteKind};

use crate::deriver::Deriver;
use crate::domain::refuse;
use crate::error::{Error, Refusal};
use crate::host::{Host, Kind};
use crate::sysfs;
use crate::xml::Element;

const PCI: &str = "/sys/bus/pci/devices";
const MDEV: &str = "/sys/bus/mdev/devices";
const VHOST_SCSI: &str = "/sys/kernel/config/target/vhost";

/// `<hostdev>`
pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    if device.attr("mode") == Some("capabilities") {
        deriver.note(NoteKind::NotCovered, device, "host devices by capability are for containers");
        return Ok(());
    }
    let Some(source) = device.child("source") else {
        return Err(refuse(device, Refusal::Incomplete { what: "host device", missing: "source" }));
    };
    match device.attr("type") {
        Some("usb") => usb(deriver, &source),
        Some("pci") => match source.child("address") {
            Some(address) => vfio_pci(deriver, &source, &address),
            None => incomplete(&source, "PCI host device", "address"),
        },
        Some("mdev") => mdev(deriver, &source),
        Some("scsi") => scsi(deriver, device, &source),
        Some("scsi_host") => scsi_host(deriver, &source),
        other => {
            unknown(deriver, device, other.unwrap_or("none"));
            Ok(())
        }
    }
}

/// `<interface type='hostdev'>`: a network card given to the guest.
pub(crate) fn interface(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let Some(source) = device.child("source") else {
        return incomplete(device, "host device", "source");
    };
    match source.child("address") {
        Some(address) if address.attr("type") == Some("usb") => usb(deriver, &source),
        Some(address) => vfio_pci(deriver, &source, &address),
        None => incomplete(&source, "PCI host device", "address"),
    }
}

fn incomplete(at: &Element<'_>, what: &'static str, missing: &'static str) -> Result<(), Error> {
    Err(refuse(at, Refusal::Incomplete { what, missing }))
}

fn unknown(deriver: &mut Deriver<'_>, at: &Element<'_>, kind: &str) {
    deriver.note(
        NoteKind::UnknownElement,
        at,
        format!("host device of type {kind} is not known here: no rule is made for it"),
    );
}

/// A PCI device by VFIO: its group's node and what is read of it in sysfs. `place` is what the
/// rules are said to come from, `address` the PCI address.
pub(crate) fn vfio_pci(
    deriver: &mut Deriver<'_>,
    place: &Element<'_>,
    address: &Element<'_>,
) -> Result<(), Error> {
    let Some(name) = sysfs::pci_name(address) else {
        return Err(refuse(address, Refusal::Value { what: "PCI address", value: describe(address) }));
    };
    let dir = sysfs::device_dir(deriver.host, &format!("{PCI}/{name}"));
    if let Some(dir) = &dir {
        for file in sysfs::pci_files(deriver.host, dir) {
            deriver.allow(place, "PCI device", &file, Access::R)?;
        }
    }
    let driver = [place.child("driver"), parent_driver(deriver, place)];
    let iommufd = driver.iter().flatten().any(|driver| driver.attr("iommufd") == Some("yes"));
    let missing = format!("PCI device {name}");
    if iommufd { cdev(deriver, place, dir.as_deref(), &missing) } else { group(deriver, place, dir.as_deref(), &missing) }
}

fn describe(element: &Element<'_>) -> String {
    element.attrs().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
