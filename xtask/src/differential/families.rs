//! The families of differences, one place for all of them. Each is explained in docs/differences.md
//! under its name.

use aa_contract::{Access, Derived, Feature, NoteKind, Rule, Target, VirtType};

/// Grants of ours that the original lacks, by the element that asks: a prefix of its path, without positions.
const WIDER: [(&str, &str); 39] = [
    ("own-directories", "name"),
    ("emulator", "devices/emulator"),
    ("acpi-and-kernels", "os/"),
    ("memory-directories", "memoryBacking"),
    ("memory-directories", "cpu/numa/cell"),
    ("memory-directories", "devices/memory"),
    ("encrypted-guests", "launchSecurity"),
    ("command-line", "qemu:commandline"),
    ("mirrors", "devices/disk/mirror"),
    ("network-storage", "devices/disk/source/host"),
    ("network-storage", "devices/disk/source/config"),
    ("network-storage", "devices/disk/source/knownHosts"),
    ("network-storage", "devices/disk/source/identity"),
    ("network-storage", "devices/disk/backingStore"),
    ("reservations", "devices/disk/source/reservations"),
    ("other-disk-sources", "devices/disk/source"),
    ("other-disk-sources", "devices/disk"),
    ("log-files", "devices/channel/log"),
    ("log-files", "devices/serial/log"),
    ("log-files", "devices/console/log"),
    ("log-files", "devices/parallel/log"),
    ("channel-ends", "devices/channel"),
    ("channel-ends", "devices/serial"),
    ("channel-ends", "devices/console"),
    ("channel-ends", "devices/parallel"),
    ("channel-ends", "devices/smartcard"),
    ("channel-ends", "devices/redirdev"),
    ("random-sources", "devices/rng"),
    ("host-devices", "devices/hostdev"),
    ("shares", "devices/filesystem"),
    ("network-back-ends", "devices/interface"),
    ("displays-and-sound", "devices/graphics"),
    ("displays-and-sound", "devices/audio"),
    ("displays-and-sound", "devices/video"),
    ("trusted-platform-modules", "devices/tpm"),
    ("sockets-of-the-guest", "devices/vsock"),
    ("shared-memory", "devices/shmem"),
    ("persistent-store", "devices/pstore"),
    ("input-devices", "devices/input"),
];

/// Families of what the original grants and we do not, and of refusals.
const OTHERS: [&str; 32] = [
    "narrow-names",
    "vfio-groups",
    "vhost-net-for-taps",
    "tpm-version",
    "tpm-state-elsewhere",
    "optional-media",
    "fat-directories",
    "read-only-memory",
    "pseudo-terminals",
    "another-guests-socket",
    "transient-disks",
    "pci-attributes",
    "rom-loaders",
    "rendering-that-is-off",
    "container-devices",
    "devices-of-containers",
    "literal-paths",
    "container-directories",
    "normal-paths",
    "relative-paths",
    "incomplete-devices",
    "unknown-values",
    "first-console",
    "unbound-prefixes",
    "files-of-daemons",
    "host-services",
    "root-directory",
    "shared-firmware",
    "virtual-machine-types",
    "volumes",
    "whole-domain-parser",
    "false-refusals",
];

/// Every family's name.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    WIDER.iter().map(|(family, _)| *family).chain(OTHERS)
}

/// Families in which a rule may have more letters than the original's for the same pattern.
const MORE_LETTERS: [&str; 3] = ["shares", "persistent-store", "acpi-and-kernels"];

/// Families of elements that the original does not look at, and so cannot refuse.
const UNSEEN: [&str; 10] = [
    "command-line",
    "displays-and-sound",
    "encrypted-guests",
    "log-files",
    "mirrors",
    "network-storage",
    "persistent-store",
    "random-sources",
    "reservations",
    "trusted-platform-modules",
];

/// The family of a rule that the original lacks, or has with fewer letters (`in_part`).
pub(super) fn wider(rule: &Rule, in_part: bool) -> Option<&'static str> {
    let element = without_positions(&rule.origin.as_ref()?.element);
    let family = family_of(&element)?;
    (!in_part || MORE_LETTERS.contains(&family)).then_some(family)
}

fn family_of(element: &str) -> Option<&'static str> {
    WIDER.iter().find(|(_, prefix)| element.starts_with(prefix)).map(|(family, _)| *family)
}

/// The family of a grant that only the original makes.
pub(super) fn narrower(pattern: &str, in_part: bool, record: &Derived) -> Option<&'static str> {
    let left_out = |text: &str| {
        notes(record, NoteKind::LeftOut).any(|note| note.contains(pattern) && note.contains(text))
    };
    let name = record.domain().name.as_str();
    let base = [
        format!("/var/log/libvirt/**/{name}.log"),
        format!("/var/lib/libvirt/qemu/domain-{name}/monitor.sock"),
        format!("/run/libvirt/**/{name}.pid"),
        format!("/run/libvirt/**/*.tunnelmigrate.dest.{name}"),
    ];
    let own_directory = pattern.starts_with("/var/lib/libvirt/qemu/domain-") && pattern.ends_with("/*");
    if own_directory || base.iter().any(|known| known == pattern) {
        Some("narrow-names")
    } else if pattern == "/dev/vhost-net" && !record.uses().contains(&Feature::VhostNet) {
        Some("vhost-net-for-taps")
    } else if pattern == "/dev/vfio/[0-9]*" && has(record, "/dev/vfio/vfio")
        || pattern.starts_with("/dev/vfio/") && lacks_a_vfio_device(record)
    {
        Some("vfio-groups")
    } else if pattern.contains("/(null)/") {
        Some("tpm-version")
    } else if pattern.starts_with("/var/lib/libvirt/swtpm/") && rules_from(record, "tpm", "backend/source") {
        Some("tpm-state-elsewhere")
    } else if left_out("startupPolicy") {
        Some("optional-media")
    } else if has(record, &format!("{pattern}/")) && rules_from(record, "disk", "source") {
        Some("fat-directories")
    } else if in_part && rules_from(record, "memory", "source/path") {
        Some("read-only-memory")
    } else if left_out("is no pseudo-terminal")
        || pattern.starts_with("/dev/pts/") && record.uses().contains(&Feature::Pty)
    {
        Some("pseudo-terminals")
    } else if left_out(": own ") {
        Some("another-guests-socket")
    } else if in_part && has(record, &format!("{pattern}.TRANSIENT-{name}")) {
        Some("transient-disks")
    } else if in_part && pattern.starts_with("/sys/devices/") && record.uses().contains(&Feature::Vfio) {
        Some("pci-attributes")
    } else if is_rom(record, pattern) {
        Some("rom-loaders")
    } else if has_literally(record, pattern) {
        Some("literal-paths")
    } else if pattern.starts_with("/dev/vfio/")
        && notes(record, NoteKind::NotCovered).any(|note| note.starts_with("host devices by capability"))
    {
        Some("devices-of-containers")
    } else if is_of_a_machines_device(record, pattern) {
        Some("container-devices")
    } else if left_out("GL is off") || is_for_gl(pattern) && renders_nothing(record) {
        Some("rendering-that-is-off")
    } else if left_out_directory(record, pattern) {
        Some("container-directories")
    } else if ["//", "/./", "/../"].iter().any(|part| pattern.contains(part)) {
        Some("normal-paths")
    } else {
        None
    }
}

/// Whether the original has a directory's name as a pattern, and ours is the directory of that name.
fn has_literally(record: &Derived, pattern: &str) -> bool {
    pattern.strip_suffix("**").is_some_and(|dir| dir.contains(['*', '?', '[', '{']) && has(record, dir))
}

/// What the notes of a kind say.
fn notes(record: &Derived, kind: NoteKind) -> impl Iterator<Item = &str> {
    record.notes().iter().filter(move |note| note.kind == kind).map(|note| note.text.as_str())
}

/// Whether a device that would be given to VFIO is not on this host.
fn lacks_a_vfio_device(record: &Derived) -> bool {
    notes(record, NoteKind::MissingDevice).any(|note| {
        ["PCI device ", "mediated device "].iter().any(|what| note.starts_with(what))
            && note.ends_with(" is not there: no rule is made for it")
    })
}

/// Whether a container has a device that only virtual machines have.
fn has_a_machines_device(record: &Derived) -> bool {
    record.domain().virt_type == VirtType::Lxc
        && notes(record, NoteKind::NotCovered).any(|note| note.contains(" of a container: no rule"))
}

/// Whether the original takes a container for a virtual machine: it has a device that containers have not, or VFIO.
fn is_of_a_machines_device(record: &Derived, pattern: &str) -> bool {
    let is_directory = pattern.ends_with('/') || pattern.ends_with("/**");
    record.domain().virt_type == VirtType::Lxc
        && (pattern.starts_with("/dev/vfio/")
            || is_for_gl(pattern)
            || !is_directory && has_a_machines_device(record))
}

/// Whether a directory of a container, which `pattern` grants whole, was left out.
fn left_out_directory(record: &Derived, pattern: &str) -> bool {
    let dir = pattern.strip_suffix("**").unwrap_or(pattern);
    let dir = dir.strip_suffix('/').filter(|dir| !dir.is_empty()).unwrap_or(dir);
    let text = format!("container directory \"{dir}\"");
    notes(record, NoteKind::LeftOut).any(|note| note.contains(&text))
}

/// Whether a path that the domain names is left out as it stands, so that there is nothing to refuse.
fn gets_no_rule(record: &Derived, path: &str) -> bool {
    let text = format!(" \"{path}\" gets no rule");
    notes(record, NoteKind::LeftOut).any(|note| note.contains(&text))
}

/// What the original grants to a guest that renders, besides the node.
fn is_for_gl(pattern: &str) -> bool {
    const GL: [&str; 13] = [
        "/dev/dri/",
        "/dev/nvidia",
        "/etc/drirc",
        "/etc/glvnd/",
        "/proc/driver/nvidia/",
        "/proc/modules",
        "/sys/devices/**/{uevent",
        "/usr/lib/@{multiarch}/dri/",
        "/usr/lib/fglrx/",
        "/usr/lib{,32,64}/dri/",
        "/usr/share/drirc.d/",
        "/usr/share/egl/",
        "/usr/share/glvnd/",
    ];
    GL.iter().any(|prefix| pattern.starts_with(prefix))
}

/// Whether a display names a node to render on, and none renders.
fn renders_nothing(record: &Derived) -> bool {
    notes(record, NoteKind::LeftOut).any(|note| note.ends_with("GL is off"))
        && !record.uses().contains(&Feature::Gl)
}

/// Whether this is a file that all guests share, which may be read and no more.
fn is_only_read(record: &Derived, path: &str) -> bool {
    ["/usr/share/", "/usr/lib/", "/usr/libexec/", "/etc/ceph/"].iter().any(|dir| path.starts_with(dir))
        && rule(record, path).is_some_and(|rule| [Access::R, Access::RK].contains(&rule.access))
}

/// Whether this is a loader that is a ROM.
fn is_rom(record: &Derived, path: &str) -> bool {
    rule(record, path).is_some_and(|rule| {
        rule.access == Access::R && rule.origin.as_ref().is_some_and(|origin| origin.element == "os/loader")
    })
}

/// Whether a rule comes from this part of such a device.
fn rules_from(record: &Derived, device: &str, part: &str) -> bool {
    let element = format!("devices/{device}/{part}");
    record
        .rules()
        .iter()
        .filter_map(|rule| rule.origin.as_ref())
        .any(|origin| without_positions(&origin.element) == element)
}

fn has(record: &Derived, path: &str) -> bool {
    rule(record, path).is_some()
}

/// The rule for a path.
fn rule<'r>(record: &'r Derived, path: &str) -> Option<&'r Rule> {
    record.rules().iter().find(|rule| matches!(&rule.target, Target::Path(target) if target.as_str() == path))
}

/// The family of a domain that only we refuse.
pub(super) fn refusal_of_ours(errors: &str) -> Option<&'static str> {
    if errors.contains("are not confined by AppArmor") {
        Some("virtual-machine-types")
    } else if errors.contains("is not resolved") {
        Some("volumes")
    } else if errors.contains("is not an absolute path") {
        Some("relative-paths")
    } else if errors.contains("may not be granted (it is \"") || errors.contains("is not normal: ") {
        Some("normal-paths")
    } else if errors.contains(": own /") {
        Some("another-guests-socket")
    } else if ["/run/libvirt", "/var/cache/", "/var/lib/libvirt/", "/var/log/"]
        .iter()
        .any(|dir| errors.contains(&format!(": refuse {dir}")))
    {
        Some("files-of-daemons")
    } else if errors.contains(": single /dev")
        || ["/dev/", "/root/", "/run/", "/usr/", "/var/", "**/"]
            .iter()
            .any(|dir| errors.contains(&format!(": refuse {dir}")))
    {
        Some("host-services")
    } else if errors.contains("asked for by devices/console[1]/source)") {
        Some("first-console")
    } else if errors.contains(": read /") {
        Some("shared-firmware")
    } else if errors.ends_with("\"/\" is a directory") {
        Some("root-directory")
    } else if errors.contains(" has no ") || errors.contains("SCSI adapter \"") {
        Some("incomplete-devices")
    } else if ["disk type \"", "disk format \"", "shared memory name \"", "PCI address \""]
        .iter()
        .any(|what| errors.contains(what))
    {
        Some("unknown-values")
    } else if errors.contains("namespace prefix") {
        Some("unbound-prefixes")
    } else {
        let (what, rest) = errors.split_once(" may not be granted: ")?;
        let (_, element) = rest.trim_end().rsplit_once(" asked for by ")?;
        let element = without_positions(element.strip_suffix(')')?);
        let is_unseen = |family: &&str| {
            UNSEEN.contains(family)
                || ["devices/smartcard", "devices/redirdev"].iter().any(|device| element.starts_with(device))
                || ["vhost-user disk", "vDPA disk"].iter().any(|source| what.contains(source))
        };
        family_of(&element).filter(is_unseen)
    }
}

/// The family of a domain that only the original refuses. A path that it finds restricted must be refused here too, but
/// for what all guests share, which may be read and no more, and what is mounted into containers.
pub(super) fn refusal_of_theirs(errors: &[String], record: &Derived) -> Option<&'static str> {
    let mut restricted = errors
        .windows(2)
        .filter_map(|pair| match pair {
            [path, problem] if problem == "skipped restricted file" => Some(path.as_str()),
            _ => None,
        })
        .peekable();
    if restricted.peek().is_some() {
        let is_false = |path: &str| {
            left_out_directory(record, path) || gets_no_rule(record, path) || is_only_read(record, path)
        };
        return if has_a_machines_device(record) {
            Some("container-devices")
        } else {
            restricted.all(is_false).then_some("false-refusals")
        };
    }
    // Its parser of whole domains minds what has no bearing on files.
    let whole = |error: &String| error == "could not get VM definition" || error == "invalid VM definition";
    errors.iter().any(whole).then_some("whole-domain-parser")
}

/// `devices/disk[2]/source` without the position.
fn without_positions(element: &str) -> String {
    element
        .split('[')
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once(']').map_or("", |(_, rest)| rest) })
        .collect()
}
