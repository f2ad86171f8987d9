//! The guest itself: name, UUID, id, type, architecture.

use aa_contract::{Domain, DomainName, LiteralPath, NoteKind, Uuid, VirtType};

use crate::deriver::Deriver;
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
    let (name, uuid) = name_and_uuid(root)?;
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

/// The two by which everybody knows the guest.
pub(crate) fn name_and_uuid(root: &Element<'_>) -> Result<(DomainName, Uuid), Error> {
    let missing = |what| move || refuse(root, Refusal::Missing(what));
    let name = root.child("name").ok_or_else(missing("name"))?;
    let name = DomainName::new(name.text()).map_err(|error| refuse(&name, Refusal::Name(error)))?;
    let uuid = root.child("uuid").ok_or_else(missing("uuid"))?;
    let uuid = Uuid::try_parse(uuid.text().trim())
        .map_err(|_| refuse(&uuid, Refusal::Uuid(uuid.text().to_owned())))?;
    Ok((name, uuid))
}

/// What a domain's XML has below its root (libvirt: `formatdomain`), in the order of that document.
const CHILDREN: [&str; 40] = [
    "name",
    "uuid",
    "hwuuid",
    "genid",
    "title",
    "description",
    "metadata",
    "os",
    "bootloader",
    "bootloader_args",
    "sysinfo",
    "vcpu",
    "vcpus",
    "iothreads",
    "iothreadids",
    "defaultiothread",
    "cputune",
    "memory",
    "maxMemory",
    "currentMemory",
    "memoryBacking",
    "memtune",
    "numatune",
    "blkiotune",
    "throttlegroups",
    "resource",
    "cpu",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_lockfailure",
    "pm",
    "features",
    "clock",
    "perf",
    "devices",
    "seclabel",
    "keywrap",
    "launchSecurity",
    "idmap",
];

/// Names what is not known below the root: a file in it gets no rule.
pub(crate) fn note_unknown(deriver: &mut Deriver<'_>, root: &Element<'_>) {
    for element in root.elements().filter(|element| element.is_plain() && !CHILDREN.contains(&element.name()))
    {
        let text = format!("<{}> is not known here: no rule is made for it", element.name());
        deriver.note(NoteKind::UnknownElement, &element, text);
    }
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
    use crate::testing::notes;

    #[test]
    fn what_is_not_known_below_the_root_is_noted() {
        let root = tempfile::tempdir().unwrap();
        let notes = |inner: &str| notes(inner, root.path());
        assert_eq!(notes("<flubber file='/srv/x'/>"), [NoteKind::UnknownElement]);
        assert!(notes("<memory>1</memory><metadata><x:a xmlns:x='urn:x'/></metadata>").is_empty());
        assert!(notes("<x:a xmlns:x='urn:x' file='/srv/x'/>").is_empty());
    }

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
