//! One file for each family of devices. What is not known is named in a note, never passed over.

mod audio;
mod chardev;
mod disk;
mod filesystem;
mod graphics;
mod hostdev;
mod input;
mod lxc;
mod memory;
mod net;
mod rng;
mod shmem;
mod smartcard;
mod tpm;
mod video;
mod vsock;

use aa_contract::{Access, Feature, NoteKind, VirtType};

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

pub(crate) use chardev::{pipe as chardev_pipe, source as chardev_source};
pub(crate) use disk::{TopSource, image as disk_image, source as disk_source};

/// Devices that reach no file of the host, by libvirt's `formatdomain`.
const WITHOUT_FILES: [&str; 10] =
    ["controller", "hub", "watchdog", "memballoon", "panic", "iommu", "sound", "lease", "crypto", "acpi"];

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    let Some(devices) = root.child("devices") else { return Ok(()) };
    for device in devices.elements() {
        one(deriver, &device)?;
    }
    graphics::gl(deriver, &devices)?;
    Ok(())
}

/// The rules of one device.
fn one(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    if deriver.domain.virt_type == VirtType::Lxc {
        return lxc::derive(deriver, device);
    }
    if let Some(rom) = device.child("rom").and_then(|rom| rom.attr("file")) {
        deriver.grant(device, "option ROM", rom, Access::R)?;
        deriver.uses(Feature::Firmware);
    }
    match device.name() {
        _ if device.is_foreign() => Ok(()),
        "emulator" => emulator(deriver, device),
        "disk" => disk::derive(deriver, device),
        "serial" | "parallel" | "channel" | "console" => chardev::derive(deriver, device),
        "redirdev" => {
            deriver.uses(Feature::Redirect);
            chardev::source(deriver, device, "redirection")
        }
        "smartcard" => smartcard::derive(deriver, device),
        "rng" => rng::derive(deriver, device),
        "tpm" => tpm::derive(deriver, device),
        "graphics" => graphics::derive(deriver, device),
        "video" => video::derive(deriver, device),
        "audio" => audio::derive(deriver, device),
        "hostdev" => hostdev::derive(deriver, device),
        "filesystem" => filesystem::derive(deriver, device),
        "input" => input::derive(deriver, device),
        "interface" => net::derive(deriver, device),
        "memory" => memory::derive(deriver, device),
        "shmem" => shmem::derive(deriver, device),
        "vsock" => vsock::derive(deriver, device),
        "pstore" => crate::boot::pstore(deriver, device),
        "redirfilter" => Ok(()),
        name if WITHOUT_FILES.contains(&name) => {
            if name == "sound" {
                deriver.uses(Feature::Sound);
            }
            Ok(())
        }
        name => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!("device <{name}> is not known here: no rule is made for it"),
            );
            Ok(())
        }
    }
}

/// The hypervisor's own program file.
fn emulator(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let path = device.text().trim();
    if path.is_empty() {
        return Ok(());
    }
    let resolved = deriver.resolve(device.into(), "emulator", path)?;
    match deriver.permit(device.into(), "emulator", path, &resolved.path, Access::RMIX, false) {
        Ok(()) => deriver.allow(device, "emulator", &resolved.path, Access::RMIX),
        // libvirt starts what it starts; what is no emulator must not become executable for the guest.
        Err(error) => {
            deriver.note(NoteKind::LeftOut, device, error.kind.to_string());
            Ok(())
        }
    }
}
