//! Kernel, firmware, variable store, ACPI tables, persistent store: what `<os>` and its kin name.

use aa_contract::{Access, Feature, NoteKind};

use crate::base::LIB;
use crate::deriver::Deriver;
use crate::devices::{TopSource, disk_image, disk_source};
use crate::error::Error;
use crate::image::Format;
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    if let Some(os) = root.child("os") {
        for (name, what) in [
            ("kernel", "kernel"),
            ("initrd", "initial RAM disk"),
            ("shim", "boot shim"),
            ("dtb", "device tree"),
        ] {
            for element in os.children(name) {
                file(deriver, &element, what, Access::R)?;
            }
        }
        for table in os.children("acpi").flat_map(|acpi| acpi.children("table")) {
            file(deriver, &table, "ACPI table", Access::R)?;
        }
        if let Some(loader) = os.child("loader") {
            firmware(deriver, &loader)?;
        }
        if let Some(nvram) = os.child("nvram") {
            variables(deriver, &nvram)?;
        }
        if let Some(store) = os.child("varstore")
            && let Some(path) = store.attr("path")
        {
            deriver.uses(Feature::Firmware);
            deriver.grant(store, "variable store", path, Access::RWK)?;
        }
        if os.attr("firmware").is_some() && os.child("loader").is_none() {
            deriver.note(
                NoteKind::NotCovered,
                &os,
                "the firmware is chosen when the guest is started: derive from the XML of the running guest, or name <loader> and <nvram>",
            );
        }
    }
    for entry in root
        .children("sysinfo")
        .filter(|info| info.attr("type") == Some("fwcfg"))
        .flat_map(|info| info.children("entry"))
    {
        if let Some(path) = entry.attr("file") {
            deriver.grant(entry, "firmware configuration file", path, Access::R)?;
        }
    }
    Ok(())
}

/// A file that an element's text names.
fn file(
    deriver: &mut Deriver<'_>,
    element: &Element<'_>,
    what: &'static str,
    access: Access,
) -> Result<(), Error> {
    match element.text().trim() {
        "" => Ok(()),
        path => deriver.grant(element, what, path, access).map(drop),
    }
}

/// `<loader>`: a ROM is only read; a flash device is written unless it says `readonly`.
fn firmware(deriver: &mut Deriver<'_>, loader: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Firmware);
    let access = match (loader.attr("type"), loader.attr("readonly")) {
        (Some("pflash"), Some("yes")) => Access::RK,
        (Some("pflash"), _) => Access::RWK,
        // Without a type libvirt takes the loader for a ROM; an XML that says readonly means flash or ROM, and locks do no harm.
        (_, Some("yes")) => Access::RK,
        (_, _) => Access::R,
    };
    file(deriver, loader, "firmware", access)
}

/// `<nvram>`: the text of the old form, or a `<source>` like a disk's. Its template is read by
/// libvirtd, not by the guest.
fn variables(deriver: &mut Deriver<'_>, nvram: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Firmware);
    let format = nvram.attr("format").and_then(Format::from_driver_type);
    match nvram.child("source") {
        Some(source) => {
            let top = TopSource { what: "variable store", format, read_only: false, chain: None, depth: 0 };
            disk_source(deriver, &source, nvram.attr("type").unwrap_or("file"), top)
        }
        None => match nvram.text().trim() {
            "" => Ok(()),
            path => disk_image(
                deriver,
                nvram,
                path,
                TopSource { what: "variable store", format, read_only: false, chain: None, depth: 0 },
            ),
        },
    }
}

/// `<pstore>`: the guest's persistent crash store.
pub(crate) fn pstore(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    match device.child("path").map(|path| (path, path.text().trim())) {
        Some((path, text)) if !text.is_empty() => {
            deriver.grant(path, "persistent store", text, Access::RWK).map(drop)
        }
        _ => {
            let name = deriver.domain.name.clone();
            deriver.allow(device, "persistent store", &format!("{LIB}/nvram/{name}_PSTORE.raw"), Access::RWK)
        }
    }
}
