//! Kernel, firmware, variable store, ACPI tables, persistent store: what `<os>` and its kin name.

use aa_contract::{Access, Feature, NoteKind};

use crate::base::LIB;
use crate::deriver::Deriver;
use crate::devices::{TopSource, disk_format, disk_image, disk_source};
use crate::error::Error;
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    for os in root.children("os") {
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
    }
    if let Some(loader) = root.at(&["os", "loader"]) {
        firmware(deriver, &loader)?;
    }
    if let Some(nvram) = root.at(&["os", "nvram"]) {
        variables(deriver, &nvram)?;
    }
    if let Some(store) = root.at(&["os", "varstore"])
        && let Some(path) = store.attr("path")
    {
        deriver.uses(Feature::Firmware);
        deriver.grant(store, "variable store", path, Access::RWK)?;
    }
    chosen_later(deriver, root);
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

/// Says what the XML leaves to libvirt: the firmware, whatever else it says of it, or the variable store of flash that is only read.
fn chosen_later(deriver: &mut Deriver<'_>, root: &Element<'_>) {
    let Some(os) = root.child("os") else { return };
    let loader = root.at(&["os", "loader"]);
    let is_named =
        |element: Element<'_>| element.child("source").is_some() || !element.text().trim().is_empty();
    let text = match loader.filter(|loader| is_named(*loader)) {
        None if root.children("os").any(|os| os.attr("firmware").is_some()) => {
            "the firmware is chosen when the guest is started: derive from the XML of the running guest, or name <loader> and <nvram>"
        }
        Some(loader)
            if loader.attr("type") == Some("pflash")
                && loader.attr("readonly") == Some("yes")
                && loader.attr("stateless") != Some("yes")
                && !root.at(&["os", "nvram"]).is_some_and(is_named) =>
        {
            "the variable store is chosen when the guest is defined: derive from the XML that libvirt has of it, or name <nvram>"
        }
        _ => return,
    };
    deriver.note(NoteKind::NotCovered, &os, text);
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
    let format = disk_format(Some(*nvram), "format")?;
    let top = TopSource::new("variable store", format, false);
    match nvram.child("source") {
        Some(source) => disk_source(deriver, &source, nvram.attr("type").unwrap_or("file"), top),
        None => match nvram.text().trim() {
            "" => Ok(()),
            path => disk_image(deriver, nvram, path, top),
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

#[cfg(test)]
mod tests {
    use aa_contract::NoteKind;

    use crate::testing::{UUID, options, record, rules, same};

    /// The kinds of the notes on such an `<os>` but those of missing files.
    fn notes(attributes: &str, inside: &str) -> Vec<NoteKind> {
        let xml = format!(
            "<domain type='kvm'><name>g</name><uuid>{UUID}</uuid><os {attributes}><type>hvm</type>{inside}</os></domain>"
        );
        let root = tempfile::tempdir().unwrap();
        let host = crate::host::Files::new(root.path()).unwrap();
        let record = crate::derive(xml.as_bytes(), &options(), &host).unwrap();
        record.notes().iter().map(|note| note.kind).filter(|kind| *kind != NoteKind::MissingFile).collect()
    }

    #[test]
    fn a_variable_store_of_its_own_is_written_and_locked() {
        let store = |path: &str| format!("<os><varstore path='{path}' template='/srv/template'/></os>");
        let root = tempfile::tempdir().unwrap();
        let varstore = rules("kvm", &store("/srv/vars.json"), root.path());
        same(&varstore, &[("/srv/vars.json", "rwk")]);
        assert!(record("kvm", &store("/etc/vars.json"), root.path()).is_err());
    }

    #[test]
    fn what_libvirt_chooses_later_is_said() {
        let flash = |attributes: &str, nvram: &str| {
            format!("<loader type='pflash' {attributes}>/usr/share/OVMF/OVMF_CODE.fd</loader>{nvram}")
        };
        for (attributes, inside) in [
            ("firmware='efi'", String::new()),
            ("firmware='efi'", "<loader secure='yes'/>".to_owned()),
            ("firmware='efi'", "<loader stateless='yes'/>".to_owned()),
            ("firmware='efi'", "<loader format='qcow2'>\n</loader><nvram/>".to_owned()),
            ("", flash("readonly='yes'", "")),
            ("", flash("readonly='yes'", "<nvram template='/usr/share/OVMF/OVMF_VARS.fd'/>")),
        ] {
            assert_eq!(notes(attributes, &inside), [NoteKind::NotCovered], "{attributes} {inside}");
        }
        for (attributes, inside) in [
            ("", String::new()),
            ("", flash("readonly='yes' stateless='yes'", "")),
            ("", flash("readonly='yes'", "<nvram>/srv/vars.fd</nvram>")),
            ("firmware='efi'", flash("readonly='yes'", "<nvram type='file'><source file='/srv/v'/></nvram>")),
            ("", "<loader readonly='yes'>/usr/share/seabios/bios.bin</loader>".to_owned()),
        ] {
            assert_eq!(notes(attributes, &inside), [], "{attributes} {inside}");
        }
    }
}
