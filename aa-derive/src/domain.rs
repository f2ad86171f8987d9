//! The guest itself: name, UUID, id, type, architecture.

use aa_contract::{Domain, DomainName, LiteralPath, Uuid, VirtType};

use crate::error::{Error, Refusal};
use crate::xml::{Document, Element};

/// The `<domain>` element of a document: its root, or, in the status XML that libvirtd keeps of
/// running guests under /run/libvirt, the one child of the root.
pub(crate) fn find<'d>(document: &'d Document<'d>) -> Result<Element<'d>, Error> {
    let root = document.root();
    match root.name() {
        _ if !root.is_plain() => {}
        "domain" => return Ok(root),
        "domstatus" => {
            if let Some(domain) = root.child("domain") {
                return Ok(domain);
            }
        }
        _ => {}
    }
    Err(refuse(&root, Refusal::NotDomain(root.name().to_owned())))
}

/// Reads who the guest is.
pub(crate) fn read(root: &Element<'_>) -> Result<Domain, Error> {
    let missing = |what| move || refuse(root, Refusal::Missing(what));
    let virt_type = match root.attr("type").ok_or_else(missing("type"))? {
        "kvm" => VirtType::Kvm,
        "qemu" => VirtType::Qemu,
        "lxc" => VirtType::Lxc,
        other => return Err(refuse(root, Refusal::VirtType(other.to_owned()))),
    };
    let name = root.child("name").ok_or_else(missing("name"))?;
    let name = DomainName::new(name.text()).map_err(|error| refuse(&name, Refusal::Name(error)))?;
    let uuid = root.child("uuid").ok_or_else(missing("uuid"))?;
    let uuid = Uuid::try_parse(uuid.text().trim())
        .map_err(|_| refuse(&uuid, Refusal::Uuid(uuid.text().to_owned())))?;
    let id = match root.attr("id") {
        Some(text) => Some(text.trim().parse().map_err(|_| refuse(root, Refusal::Id(text.to_owned())))?),
        None => None,
    };
    let os = root.at(&["os", "type"]).ok_or_else(missing("os type"))?;
    let emulator = match root.at(&["devices", "emulator"]).filter(|element| !element.text().trim().is_empty())
    {
        Some(element) => Some(
            LiteralPath::new(normal(element.text().trim()))
                .map_err(|error| refuse(&element, Refusal::Path { what: "emulator", error }))?,
        ),
        None => None,
    };
    Ok(Domain {
        name,
        uuid,
        id: id.filter(|&id| id >= 0),
        virt_type,
        os: os.text().trim().to_owned(),
        arch: os.attr("arch").map(str::to_owned),
        emulator,
    })
}

/// The path without empty and `.` components, as the kernel walks it.
fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// A refusal at an element.
pub(crate) fn refuse(at: &Element<'_>, kind: Refusal) -> Error {
    Error { pos: Some(at.pos()), kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_normal_and_no_other() {
        for (written, made) in [
            ("/usr/bin/x", "/usr/bin/x"),
            ("//a/./b//", "/a/b"),
            ("/", "/"),
            ("a/b", "a/b"),
            ("/a/../b", "/a/../b"),
        ] {
            assert_eq!(normal(written), made);
        }
    }
}
