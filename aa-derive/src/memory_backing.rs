//! Where the guest's memory lies (libvirt: `formatdomain`, «Memory Backing», and `launchSecurity`).

use aa_contract::{Access, Feature, NoteKind, VirtType};

use crate::base::LIB;
use crate::deriver::Deriver;
use crate::error::Error;
use crate::mounts::HugePages;
use crate::xml::Element;

/// Where Intel's quote generation service listens, unless the XML says otherwise.
const QUOTES: &str = "/run/tdx-qgs/qgs.socket";

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    if deriver.domain.virt_type == VirtType::Lxc {
        return Ok(());
    }
    if let Some(backing) = root.child("memoryBacking") {
        let within = |name| root.at(&["memoryBacking", name]);
        let source = within("source").and_then(|source| source.attr("type"));
        let shared = within("access").and_then(|access| access.attr("mode")) == Some("shared");
        if source == Some("file") || (shared && !matches!(source, Some("memfd" | "anonymous"))) {
            ram(deriver, &backing)?;
        }
        if let Some(pages) = within("hugepages") {
            hugepages(deriver, &pages)?;
        }
    }
    if let Some(cell) = root
        .at(&["cpu", "numa"])
        .and_then(|numa| numa.children("cell").find(|cell| cell.attr("memAccess") == Some("shared")))
    {
        ram(deriver, &cell)?;
    }
    if let Some(security) = root.child("launchSecurity") {
        launch_security(deriver, &security)?;
    }
    Ok(())
}

/// libvirtd's directory for memory in files; its patterns for it end in `{,**}`.
pub(crate) fn ram(deriver: &mut Deriver<'_>, at: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::FileMemory);
    let short = deriver.short.clone();
    deriver.allow_below(at, "memory directory", &format!("{LIB}/ram/{short}"), "{,**}", Access::RW)
}

/// The guest's own directory below each mounted hugetlbfs.
pub(crate) fn hugepages(deriver: &mut Deriver<'_>, at: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Hugepages);
    let Some(mounts) = deriver.policy.huge_pages().cloned() else {
        let text = "the list of mounts (/proc/mounts) cannot be read: no directory of huge pages is granted";
        deriver.note(NoteKind::NotCovered, at, text);
        return Ok(());
    };
    let short = deriver.short.clone();
    for dir in mounts.of_guests() {
        deriver.allow_below(at, "huge pages", &format!("{dir}{short}"), "{,**}", Access::RW)?;
    }
    for _ in 0..mounts.unnamed {
        let text = "a hugetlbfs is mounted at a name that is not UTF-8: no directory in it is granted";
        deriver.note(NoteKind::NotCovered, at, text);
    }
    if mounts == HugePages::default() {
        deriver.note(
            NoteKind::MissingDevice,
            at,
            "no hugetlbfs is mounted here: no directory of huge pages is granted",
        );
    }
    Ok(())
}

/// Encrypted guests. libvirtd puts the certificates into the state directory.
fn launch_security(deriver: &mut Deriver<'_>, security: &Element<'_>) -> Result<(), Error> {
    match security.attr("type") {
        Some("sev" | "sev-snp") => {
            deriver.uses(Feature::Sev);
            deriver.allow(security, "SEV", "/dev/sev", Access::RW)
        }
        Some("tdx") => match security.child("quoteGenerationService") {
            Some(service) => {
                let path = service.attr("path").unwrap_or(QUOTES);
                deriver.grant(service, "quote generation socket", path, Access::RW).map(drop)
            }
            None => Ok(()),
        },
        Some("s390-pv") => Ok(()),
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                security,
                format!(
                    "launch security {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aa_contract::NoteKind;

    use crate::testing::{notes, record, rules, same, write};

    fn with(mounts: impl AsRef<[u8]>, inner: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/mounts"), mounts).unwrap();
        rules("kvm", inner, root.path())
            .into_iter()
            .map(|(path, access)| format!("{access} {path}"))
            .collect()
    }

    #[test]
    fn huge_pages_are_the_guests_own_directory_in_each_mount() {
        let mounts = "proc /proc proc rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0\nnone /huge\\040{1} hugetlbfs rw 0 0\n";
        assert_eq!(
            with(mounts, "<memoryBacking><hugepages/></memoryBacking>"),
            [
                "rw /dev/hugepages/libvirt/qemu/7-guest/{,**}",
                "rw /huge \\1731\\175/libvirt/qemu/7-guest/{,**}"
            ]
        );
        assert!(with(mounts, "<memoryBacking/>").is_empty());
        let root = tempfile::tempdir().unwrap();
        assert_eq!(notes("<memoryBacking><hugepages/></memoryBacking>", root.path()).len(), 1);
    }

    #[test]
    fn huge_pages_of_another_guest_are_refused_wherever_they_are_mounted() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/mounts"), "none /huge\\040pages hugetlbfs rw 0 0\n").unwrap();
        let is_granted = |device: &str, path: &str| {
            let device = device.replace("PATH", path);
            record("kvm", &format!("<devices>{device}</devices>"), root.path()).is_ok()
        };
        let share = "<filesystem><source dir='PATH'/></filesystem>";
        for device in [share, "<disk><source file='PATH'/></disk>"] {
            for mount in ["/huge pages", "/dev/hugepages"] {
                let own = format!("{mount}/libvirt/qemu/7-guest");
                assert!(is_granted(device, &own) && is_granted(device, &format!("{mount}/x")), "{own}");
                let another = format!("{mount}/libvirt/qemu/3-victim");
                assert!(!is_granted(device, &another), "{another}");
                assert!(!is_granted(device, &format!("{another}/x")), "{another}");
                assert!(!is_granted(share, mount), "{mount}");
            }
            // Nothing is mounted there.
            assert!(is_granted(device, "/srv/libvirt/qemu/3-victim"));
        }
    }

    /// As on a host of many containers, and to who is denied the list of mounts.
    #[test]
    fn a_long_list_of_mounts_is_read_whole_and_an_unreadable_one_is_not_taken_for_none() {
        let pages = "<memoryBacking><hugepages/></memoryBacking>";
        let layers = "overlay /var/lib/containers/x overlay rw,lowerdir=/l 0 0\n".repeat(40_000);
        let root = tempfile::tempdir().unwrap();
        let refused = |path: &str| {
            record("kvm", &format!("<devices><disk><source file='{path}'/></disk></devices>"), root.path())
                .is_err()
        };
        write(root.path(), "/proc/mounts", &(layers + "none /huge hugetlbfs rw 0 0\n"));
        same(&rules("kvm", pages, root.path()), &[("/huge/libvirt/qemu/7-guest/{,**}", "rw")]);
        assert!(refused("/huge/libvirt/qemu/3-victim/x") && !refused("/srv/libvirt/qemu/3-victim/x"));
        fs::remove_file(root.path().join("proc/mounts")).unwrap();
        same(&rules("kvm", pages, root.path()), &[]);
        assert_eq!(notes(pages, root.path()), [NoteKind::NotCovered]);
        assert!(refused("/huge/libvirt/qemu/3-victim/x") && refused("/srv/libvirt/qemu/3-victim/x"));
        assert!(!refused("/huge/libvirt/qemu/7-guest/x") && !refused("/srv/libvirt/qemu/x"));
        // The twin: it can be read, and has none.
        write(root.path(), "/proc/mounts", "none / ext4 rw 0 0\n");
        assert_eq!(notes(pages, root.path()), [NoteKind::MissingDevice]);
    }

    #[test]
    fn a_mount_that_is_not_utf_8_hides_no_other() {
        let mounts =
            b"x /srv/\xff ext4 rw 0 0\nx /huge/\xff hugetlbfs rw 0 0\nx /dev/hugepages hugetlbfs rw 0 0\n";
        let pages = "<memoryBacking><hugepages/></memoryBacking>";
        assert_eq!(with(mounts, pages), ["rw /dev/hugepages/libvirt/qemu/7-guest/{,**}"]);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/mounts"), mounts).unwrap();
        assert_eq!(notes(pages, root.path()), [NoteKind::NotCovered]);
    }

    /// The mounts were read for each of them: together they took minutes.
    #[test]
    fn for_very_many_memory_devices_mounts_are_read_once() {
        let mounts = "x /srv/y ext4 rw 0 0\n".repeat(20_000) + "none /huge hugetlbfs rw 0 0\n";
        let dimm = "<memory model='dimm'><source><pagesize>2048</pagesize></source></memory>";
        assert_eq!(
            with(mounts, &format!("<devices>{}</devices>", dimm.repeat(10_000))),
            ["rw /huge/libvirt/qemu/7-guest/{,**}", "rw /var/lib/libvirt/qemu/ram/7-guest/{,**}"]
        );
    }

    #[test]
    fn memory_in_files_is_the_guests_own_directory() {
        let ram = ["rw /var/lib/libvirt/qemu/ram/7-guest/{,**}"];
        assert_eq!(with("", "<memoryBacking><source type='file'/></memoryBacking>"), ram);
        assert_eq!(with("", "<memoryBacking><access mode='shared'/></memoryBacking>"), ram);
        assert_eq!(with("", "<cpu><numa><cell id='0' memAccess='shared'/></numa></cpu>"), ram);
        assert!(
            with("", "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>")
                .is_empty()
        );
    }

    #[test]
    fn encrypted_guests_have_the_node() {
        assert_eq!(
            with("", "<launchSecurity type='sev'><policy>0x1</policy></launchSecurity>"),
            ["rw /dev/sev"]
        );
        assert_eq!(with("", "<launchSecurity type='sev-snp'/>"), ["rw /dev/sev"]);
        assert!(with("", "<launchSecurity type='s390-pv'/>").is_empty());
    }

    #[test]
    fn quotes_of_an_enclave_come_by_a_socket() {
        let tdx = |inside: &str| format!("<launchSecurity type='tdx'>{inside}</launchSecurity>");
        let with = |inside: &str| with("", &tdx(inside));
        assert_eq!(with("<quoteGenerationService path='/run/q*'/>"), ["rw /run/q*"]);
        assert_eq!(with("<quoteGenerationService/>"), ["rw /run/tdx-qgs/qgs.socket"]);
        assert!(with("<policy>0x0</policy>").is_empty());
        let root = tempfile::tempdir().unwrap();
        assert!(record("kvm", &tdx("<quoteGenerationService path='/etc/q'/>"), root.path()).is_err());
    }
}
