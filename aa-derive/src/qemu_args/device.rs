//! Devices, networks, shares and TPMs: `-device`, `-netdev`, `-fsdev`, `-tpmdev` and their kin.

use aa_contract::{Access, Feature, NoteKind};

use super::keyval::Options;
use super::{BOTH, Context, Need, READ};
use crate::devices;
use crate::error::Error;
use crate::sysfs;

pub(super) const OPTIONS: [&str; 8] =
    ["device", "netdev", "nic", "net", "fsdev", "virtfs", "tpmdev", "usbdevice"];

/// Keys that name a file in every device that has them.
const KEYS: [(&str, Need); 12] = [
    ("evdev", BOTH),
    ("vhostdev", BOTH),
    ("hidraw", BOTH),
    ("sdrfile", READ),
    ("frudatafile", READ),
    ("kernel", READ),
    ("initrd", READ),
    ("wayland-socket-path", BOTH),
    ("socket.path", BOTH),
    ("hostdevice", BOTH),
    ("db", Need::Tree(Access::RK)),
    ("unix_path", BOTH),
];

pub(super) fn derive(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    match context.option.as_str() {
        "device" => device(context, text),
        "netdev" | "nic" | "net" => net(context, text),
        "fsdev" | "virtfs" => share(context, text),
        "tpmdev" => tpm(context, text),
        // The rest of QEMU's old USB devices open nothing.
        _ => {
            if text.contains('/') || text.starts_with("host:") {
                context.unknown();
            }
            Ok(())
        }
    }
}

fn device(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let Some(mut options) = context.options(text, "driver") else { return Ok(()) };
    let driver = options.take("driver").unwrap_or_default();
    if let Some(rom) = options.take("romfile") {
        firmware(context, "option ROM", &rom)?;
    }
    for (key, need) in KEYS {
        context.take(&mut options, key, need)?;
    }
    let (family, _) = driver.split_once('-').unwrap_or((&driver, ""));
    match driver.as_str() {
        "loader" => {
            if let Some(file) = options.take("file") {
                firmware(context, "loaded file", &file)?;
            }
        }
        "usb-host" => usb(context, &options)?,
        // Unless it says otherwise it is only read.
        "usb-mtp" => {
            let access = if options.is_off("readonly") { Access::RW } else { Access::R };
            context.take(&mut options, "rootdir", Need::Tree(access))?;
        }
        "u2f-emulated" => {
            let dir = options.take("dir");
            if let Some(dir) = dir {
                context.need("key directory", &dir, Need::Tree(Access::RW))?;
            }
        }
        "canokey" => context.take(&mut options, "file", BOTH)?,
        _ if driver.starts_with("vhost-scsi") => node(context, Feature::Scsi, "/dev/vhost-scsi")?,
        _ if driver.starts_with("vhost-vsock") && options.get("vhostfd").is_none() => {
            node(context, Feature::Vsock, "/dev/vhost-vsock")?;
        }
        _ if driver.starts_with("vhost-vdpa") => context.deriver.uses(Feature::Vdpa),
        _ if driver.starts_with("vhost-user") => context.deriver.uses(Feature::VhostUser),
        _ if family == "vfio" => vfio(context, &mut options)?,
        _ => {}
    }
    if driver.starts_with("virtio-gpu") || driver.starts_with("virtio-vga") {
        if options.is_on("blob") {
            node(context, Feature::Gl, "/dev/udmabuf")?;
        }
        if driver.contains("-gl") {
            // Its display says which node.
            let at = context.at;
            devices::gl(context.deriver, &at)?;
        }
    }
    context.left(&options, &[]);
    Ok(())
}

/// A file that QEMU also looks for in its data directory, if it is named without a directory.
fn firmware(context: &mut Context<'_, '_, '_>, what: &'static str, file: &str) -> Result<(), Error> {
    context.deriver.uses(Feature::Firmware);
    if file.contains('/') { context.need(what, file, READ) } else { Ok(()) }
}

/// A device node of the kernel's own.
fn node(context: &mut Context<'_, '_, '_>, feature: Feature, path: &'static str) -> Result<(), Error> {
    context.deriver.uses(feature);
    let at = context.at;
    context.deriver.allow(at, "device", path, Access::RW)
}

/// A USB device of the host, by bus and number or by vendor and product; without either QEMU looks through all.
fn usb(context: &mut Context<'_, '_, '_>, options: &Options) -> Result<(), Error> {
    let number = |key| options.get(key).and_then(sysfs::number).filter(|number| *number > 0);
    let [bus, address, vendor, product] = ["hostbus", "hostaddr", "vendorid", "productid"].map(number);
    if bus.zip(address).or(vendor.zip(product)).is_none() {
        context.deriver.uses(Feature::Usb);
        let note = "the USB device is named neither by bus and address nor by vendor and product: no rule is made for its node";
        context.note(NoteKind::NotCovered, note);
        return Ok(());
    }
    let fits = |wanted: Option<u32>, found| wanted.is_none_or(|wanted| wanted == found);
    let at = context.at;
    devices::usb_node(context.deriver, &at, |usb| {
        fits(bus, usb.bus)
            && fits(address, usb.number)
            && fits(vendor, usb.vendor)
            && fits(product, usb.product)
    })
}

/// A device by VFIO: by PCI address or by its directory in sysfs.
fn vfio(context: &mut Context<'_, '_, '_>, options: &mut Options) -> Result<(), Error> {
    let dir = match (options.take("sysfsdev"), options.take("host")) {
        (Some(dir), _) => vfio_at(context, dir)?,
        (None, Some(address)) => vfio_pci(context, &address)?,
        (None, None) => None,
    };
    match dir {
        Some(dir) if options.get("iommufd").is_some() => {
            let at = context.at;
            devices::vfio_node(context.deriver, &at, &dir)
        }
        _ => Ok(()),
    }
}

/// A PCI device by VFIO, by its address with or without the domain. Gives its directory in sysfs, if it is there.
pub(super) fn vfio_pci(context: &mut Context<'_, '_, '_>, address: &str) -> Result<Option<String>, Error> {
    let Some(name) = sysfs::pci_name_of(address) else {
        context.unknown();
        return Ok(None);
    };
    let at = context.at;
    let is_there = devices::pci(context.deriver, &at, &name)?;
    Ok(is_there.then(|| sysfs::pci_directory(&name)))
}

/// A device by VFIO at a directory, which must be one of sysfs: any other could show any group.
fn vfio_at(context: &mut Context<'_, '_, '_>, dir: String) -> Result<Option<String>, Error> {
    let at = context.at;
    let resolved = context.deriver.resolve((&at).into(), "host device", &dir)?;
    if !resolved.path.starts_with("/sys/") {
        context.note(
            NoteKind::MissingDevice,
            &format!("\"{dir}\" is no directory of sysfs: no rule is made for it"),
        );
        return Ok(None);
    }
    let is_there = devices::vfio_device(context.deriver, &at, &resolved, &format!("the device at {dir}"))?;
    Ok(is_there.then_some(dir))
}

fn net(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let Some(mut options) = context.options(text, "type") else { return Ok(()) };
    let kind = options.take("type").unwrap_or_default();
    match kind.as_str() {
        "tap" => tap(context, &mut options)?,
        "bridge" => {
            drop(options.take("helper"));
            context.note(NoteKind::NotCovered, "it runs a program of the host: no rule is made for it");
        }
        "user" => {
            context.take(&mut options, "tftp", Need::Tree(Access::R))?;
            if options.take("smb").is_some() {
                context.note(NoteKind::NotCovered, "it runs a file server: no rule is made for it");
            }
            if options.left().any(|(key, value)| key == "guestfwd" && value.contains("cmd:")) {
                context.note(NoteKind::NotCovered, "it runs a program of the host: no rule is made for it");
            }
            // Names that the guest sees, below the directory above.
            drop(options.take("bootfile"));
        }
        "vhost-user" => context.deriver.uses(Feature::VhostUser),
        "vhost-vdpa" => {
            context.deriver.uses(Feature::Vdpa);
            context.take(&mut options, "vhostdev", BOTH)?;
        }
        "vde" => context.take(&mut options, "sock", BOTH)?,
        "stream" | "dgram" => {
            for key in ["addr.path", "local.path", "remote.path"] {
                context.take(&mut options, key, BOTH)?;
            }
        }
        "netmap" => node(context, Feature::Tap, "/dev/netmap")?,
        "dump" => context.take(&mut options, "file", super::WRITE)?,
        "af-xdp" => context.take(&mut options, "map-path", BOTH)?,
        "passt" => {
            context.deriver.uses(Feature::Passt);
            context.note(NoteKind::NotCovered, "it runs a program of the host: no rule is made for it");
        }
        "none" | "nic" | "hubport" | "socket" | "l2tpv3" => {}
        other => context.note(
            NoteKind::UnknownArgument,
            &format!("networks of type \"{other}\" are not known here: no rule is made for it"),
        ),
    }
    context.left(&options, &[]);
    Ok(())
}

/// A tap device: made by QEMU itself, unless its descriptor is given.
fn tap(context: &mut Context<'_, '_, '_>, options: &mut Options) -> Result<(), Error> {
    let opened = options.get("fd").is_none() && options.get("fds").is_none();
    if opened {
        node(context, Feature::Tap, "/dev/net/tun")?;
    }
    let runs = |value: Option<String>, default: bool| value.map_or(default, |value| value != "no");
    let up = runs(options.take("script"), opened && options.get("helper").is_none());
    let down = runs(options.take("downscript"), false);
    if up || down || options.take("helper").is_some() {
        context.note(NoteKind::NotCovered, "it runs a program of the host: no rule is made for it");
    }
    let given = options.get("vhostfd").is_some() || options.get("vhostfds").is_some();
    if (options.is_on("vhost") || options.is_on("vhostforce")) && !given {
        node(context, Feature::VhostNet, "/dev/vhost-net")?;
    }
    Ok(())
}

/// A directory shared by 9p.
fn share(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let mut options = Options::words(text, "fsdriver");
    let driver = options.take("fsdriver").unwrap_or_default();
    context.deriver.uses(Feature::NineP);
    match driver.as_str() {
        "local" => {
            let access = if options.is_on("readonly") { Access::R } else { Access::RWKL };
            if let Some(path) = options.take("path") {
                context.need("shared directory", &path, Need::Tree(access))?;
            }
        }
        "proxy" => context.take(&mut options, "socket", BOTH)?,
        "synth" => {}
        other => context.note(
            NoteKind::UnknownArgument,
            &format!("shares of type \"{other}\" are not known here: no rule is made for it"),
        ),
    }
    context.left(&options, &[]);
    Ok(())
}

fn tpm(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let mut options = Options::words(text, "type");
    context.deriver.uses(Feature::Tpm);
    if options.take("type").as_deref() == Some("passthrough") {
        let path = options.take("path").unwrap_or_else(|| "/dev/tpm0".to_owned());
        context.grant("TPM", &path, Access::RW)?;
        match options.take("cancel-path") {
            Some(path) => context.grant("TPM cancel file", &path, Access::W)?,
            None => context.note(
                NoteKind::NotCovered,
                "it has no cancel-path: no rule is made for the file that QEMU finds in sysfs",
            ),
        }
    }
    context.left(&options, &[]);
    Ok(())
}
