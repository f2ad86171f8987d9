//! The families of differences, one place for all of them. Each is explained in docs/differences.md
//! under its name.

use aa_contract::{Access, Derived, Feature, LiteralPath, NoteKind, Rule, Target, VirtType};

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

/// A grant that the original makes, and we not or with fewer letters (`in_part`).
struct Case<'a> {
    pattern: &'a str,
    in_part: bool,
    record: &'a Derived,
}

impl Case<'_> {
    fn uses(&self, feature: Feature) -> bool {
        self.record.uses().contains(&feature)
    }

    /// Whether a note says that what the pattern is about was left out, with these words.
    fn left_out(&self, words: &str) -> bool {
        notes(self.record, NoteKind::LeftOut).any(|note| note.contains(self.pattern) && note.contains(words))
    }

    /// Whether this is what the original grants to each guest by its name, or a directory of its own by a pattern.
    fn is_by_name(&self) -> bool {
        let name = self.record.domain().name.as_str();
        let base = [
            format!("/var/log/libvirt/**/{name}.log"),
            format!("/var/lib/libvirt/qemu/domain-{name}/monitor.sock"),
            format!("/run/libvirt/**/{name}.pid"),
            format!("/run/libvirt/**/*.tunnelmigrate.dest.{name}"),
        ];
        let own = self.pattern.starts_with("/var/lib/libvirt/qemu/domain-") && self.pattern.ends_with("/*");
        own || base.iter().any(|known| known == self.pattern)
    }

    fn has_terminal(&self) -> bool {
        self.pattern.starts_with("/dev/pts/") && self.uses(Feature::Pty)
    }

    fn has_transient_overlay(&self) -> bool {
        has(self.record, &format!("{}.TRANSIENT-{}", self.pattern, self.record.domain().name.as_str()))
    }
}

/// A family, and whether such a grant belongs to it.
type Narrowing = (&'static str, fn(&Case<'_>) -> bool);

/// The families of such grants; the first that it belongs to counts.
const NARROWER: [Narrowing; 20] = [
    ("narrow-names", |case| case.is_by_name()),
    ("vhost-net-for-taps", |case| case.pattern == "/dev/vhost-net" && !case.uses(Feature::VhostNet)),
    ("vfio-groups", |case| case.pattern == "/dev/vfio/[0-9]*" && has(case.record, "/dev/vfio/vfio")),
    ("vfio-groups", |case| case.pattern.starts_with("/dev/vfio/") && lacks_a_vfio_device(case.record)),
    ("tpm-version", |case| case.pattern.contains("/(null)/")),
    ("tpm-state-elsewhere", |case| {
        case.pattern.starts_with("/var/lib/libvirt/swtpm/")
            && rules_from(case.record, "tpm", "backend/source")
    }),
    ("optional-media", |case| case.left_out("startupPolicy")),
    ("fat-directories", |case| {
        has(case.record, &format!("{}/", case.pattern)) && rules_from(case.record, "disk", "source")
    }),
    ("read-only-memory", |case| case.in_part && rules_from(case.record, "memory", "source/path")),
    ("pseudo-terminals", |case| case.left_out("is no pseudo-terminal") || case.has_terminal()),
    ("another-guests-socket", |case| case.left_out(": own ")),
    ("transient-disks", |case| case.in_part && case.has_transient_overlay()),
    ("pci-attributes", |case| {
        case.in_part && case.pattern.starts_with("/sys/devices/") && case.uses(Feature::Vfio)
    }),
    ("rom-loaders", |case| is_rom(case.record, case.pattern)),
    ("literal-paths", |case| has_literally(case.record, case.pattern)),
    ("devices-of-containers", |case| {
        case.pattern.starts_with("/dev/vfio/")
            && notes(case.record, NoteKind::NotCovered)
                .any(|note| note.starts_with("host devices by capability"))
    }),
    ("container-devices", |case| !case.in_part && is_of_a_machines_device(case.record, case.pattern)),
    ("rendering-that-is-off", |case| {
        case.left_out("GL is off") || is_for_gl(case.pattern) && renders_nothing(case.record)
    }),
    ("container-directories", |case| left_out_directory(case.record, case.pattern)),
    ("normal-paths", |case| ["//", "/./", "/../"].iter().any(|part| case.pattern.contains(part))),
];

/// The family of a grant that only the original makes.
pub(super) fn narrower(pattern: &str, in_part: bool, record: &Derived) -> Option<&'static str> {
    let case = Case { pattern, in_part, record };
    NARROWER.iter().find(|(_, holds)| holds(&case)).map(|(family, _)| *family)
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

/// Whether a rule, itself or by a pattern, is for this path.
fn is_granted(record: &Derived, path: &str) -> bool {
    let path = LiteralPath::new(path);
    path.is_ok_and(|path| record.rules().iter().any(|rule| rule.target.matches(&path)))
}

/// The rule for a path.
fn rule<'r>(record: &'r Derived, path: &str) -> Option<&'r Rule> {
    record.rules().iter().find(|rule| matches!(&rule.target, Target::Path(target) if target.as_str() == path))
}

/// The lines of the path policy that the original has not, by family. A refusal for any other line is explained by
/// what it is about, or not at all: the original refuses that path too.
const OWN_LINES: [(&str, &[&str]); 4] = [
    (
        "another-guests-socket",
        &[
            "own /run/libvirt/qemu/channel/*",
            "own /run/libvirt/qemu/dbus/*",
            "own /run/libvirt/qemu/nbdkit/*",
            "own /run/libvirt/qemu/passt/*",
            "own /run/libvirt/qemu/rdp/*",
            "own /run/libvirt/qemu/slirp/*",
            "own /run/libvirt/qemu/swtpm/*",
            "own /var/lib/libvirt/qemu/channel/target/domain-*",
            "own /var/lib/libvirt/qemu/domain-*",
        ],
    ),
    (
        "files-of-daemons",
        &[
            "own /dev/hugepages/libvirt/qemu/*",
            "own /run/hugepages/kvm/libvirt/qemu/*",
            "own /var/lib/libvirt/qemu/dump/*",
            "own /var/lib/libvirt/qemu/dump/*.core",
            "own /var/lib/libvirt/qemu/dump/*.dump",
            "own /var/lib/libvirt/qemu/ram/*",
            "own /var/lib/libvirt/qemu/save/*.save",
            "own /var/log/libvirt/qemu/*-console.log",
            "own /var/log/libvirt/qemu/*-console0.log",
            "own /var/log/libvirt/qemu/*-serial.log",
            "own /var/log/libvirt/qemu/*-serial0.log",
            "own /var/log/libvirt/qemu/*-serial1.log",
            "own /var/log/libvirt/qemu/*.log",
            "own /var/log/swtpm/libvirt/qemu/*-swtpm.log",
            "refuse /run/libvirt",
            "refuse /var/cache/aa-svirt",
            "refuse /var/cache/apparmor",
            "refuse /var/lib/libvirt/dnsmasq",
            "refuse /var/lib/libvirt/lockd",
            "refuse /var/lib/libvirt/network",
            "refuse /var/lib/libvirt/qemu/checkpoint",
            "refuse /var/lib/libvirt/qemu/save",
            "refuse /var/lib/libvirt/qemu/snapshot",
            "refuse /var/lib/libvirt/sanlock",
            "refuse /var/lib/libvirt/secrets",
            "refuse /var/lib/libvirt/swtpm",
            "refuse /var/log/libvirt",
            "refuse /var/log/swtpm",
        ],
    ),
    ("host-services", HOST_SERVICES),
    ("shared-firmware", FIRMWARE),
];

const HOST_SERVICES: &[&str] = &[
    "read **/.local/bin",
    "read /gnu/store",
    "read /nix/store",
    "read /sys/devices/pci*",
    "read /usr/libexec",
    "read /usr/local/libexec",
    "read /usr/local/share",
    "refuse **/.aws",
    "refuse **/.azure",
    "refuse **/.bash_aliases",
    "refuse **/.bash_login",
    "refuse **/.bash_logout",
    "refuse **/.bash_profile",
    "refuse **/.bashrc",
    "refuse **/.config/autostart",
    "refuse **/.config/environment.d",
    "refuse **/.config/fish",
    "refuse **/.config/gcloud",
    "refuse **/.config/plasma-workspace",
    "refuse **/.config/systemd",
    "refuse **/.cshrc",
    "refuse **/.docker",
    "refuse **/.forward",
    "refuse **/.gnupg",
    "refuse **/.kube",
    "refuse **/.local/share/systemd",
    "refuse **/.login",
    "refuse **/.netrc",
    "refuse **/.pam_environment",
    "refuse **/.profile",
    "refuse **/.rhosts",
    "refuse **/.shosts",
    "refuse **/.ssh",
    "refuse **/.tcshrc",
    "refuse **/.vnc/xstartup",
    "refuse **/.xinitrc",
    "refuse **/.xprofile",
    "refuse **/.xserverrc",
    "refuse **/.xsession",
    "refuse **/.xsessionrc",
    "refuse **/.zlogin",
    "refuse **/.zprofile",
    "refuse **/.zshenv",
    "refuse **/.zshrc",
    "refuse **/docker.sock",
    "refuse **/podman/podman.sock",
    "refuse /dev/console",
    "refuse /dev/cpu",
    "refuse /dev/crash",
    "refuse /dev/cuse",
    "refuse /dev/fb*",
    "refuse /dev/i2c-*",
    "refuse /dev/initctl",
    "refuse /dev/ipmi*",
    "refuse /dev/kmem",
    "refuse /dev/kmsg",
    "refuse /dev/loop-control",
    "refuse /dev/mapper/control",
    "refuse /dev/mem",
    "refuse /dev/mtd*",
    "refuse /dev/nvram",
    "refuse /dev/oldmem",
    "refuse /dev/port",
    "refuse /dev/snapshot",
    "refuse /dev/tty0*",
    "refuse /dev/tty1*",
    "refuse /dev/tty2*",
    "refuse /dev/tty3*",
    "refuse /dev/tty4*",
    "refuse /dev/tty5*",
    "refuse /dev/tty6*",
    "refuse /dev/tty7*",
    "refuse /dev/tty8*",
    "refuse /dev/tty9*",
    "refuse /dev/uhid",
    "refuse /dev/uinput",
    "refuse /dev/vcs*",
    "refuse /dev/vhci",
    "refuse /dev/watchdog*",
    "refuse /root/.ssh",
    "refuse /run/NetworkManager",
    "refuse /run/containerd",
    "refuse /run/crio",
    "refuse /run/current-system",
    "refuse /run/dbus",
    "refuse /run/docker.sock",
    "refuse /run/initctl",
    "refuse /run/k3s",
    "refuse /run/podman",
    "refuse /run/snapd*",
    "refuse /run/sudo",
    "refuse /run/systemd",
    "refuse /run/udev",
    "refuse /usr/etc",
    "refuse /usr/games",
    "refuse /usr/include",
    "refuse /usr/local/games",
    "refuse /usr/local/src",
    "refuse /usr/src",
    "refuse /var/backups",
    "refuse /var/lib/NetworkManager",
    "refuse /var/lib/apt",
    "refuse /var/lib/cloud",
    "refuse /var/lib/dhcp",
    "refuse /var/lib/dpkg",
    "refuse /var/lib/extrausers",
    "refuse /var/lib/incus/unix.socket*",
    "refuse /var/lib/lxd/unix.socket*",
    "refuse /var/lib/polkit-1",
    "refuse /var/lib/rpm",
    "refuse /var/lib/systemd",
    "refuse /var/snap/lxd/common/lxd/unix.socket*",
    "refuse /var/spool/anacron",
    "refuse /var/spool/at",
    "refuse /var/spool/atjobs",
    "refuse /var/spool/cron",
    "refuse /var/spool/incron",
    "run /run/current-system/profile/bin/qemu-*",
    "run /run/current-system/sw/bin/qemu-*",
    "run /run/libvirt/nix-emulators",
    "run /usr/libexec/qemu-kvm",
    "run /usr/local/libexec/qemu-*",
    "single /dev",
];

const FIRMWARE: &[&str] = &[
    "read /efi",
    "read /usr/lib/ipxe",
    "read /usr/lib/riscv64-linux-gnu/opensbi",
    "read /usr/lib/u-boot",
    "read /usr/share/AAVMF",
    "read /usr/share/OVMF",
    "read /usr/share/SLOF",
    "read /usr/share/edk2",
    "read /usr/share/edk2-armvirt",
    "read /usr/share/edk2-ovmf",
    "read /usr/share/edk2-riscv64",
    "read /usr/share/ipxe",
    "read /usr/share/openbios",
    "read /usr/share/opensbi",
    "read /usr/share/ovmf",
    "read /usr/share/qemu",
    "read /usr/share/qemu-efi*",
    "read /usr/share/qemu-kvm",
    "read /usr/share/seabios",
    "read /usr/share/sgabios",
    "read /usr/share/skiboot",
    "read /usr/share/slof",
    "read /usr/share/vgabios",
];

/// What the original restricts as well; it grants none of these for writing.
#[cfg(test)]
const LINES_OF_BOTH: &[&str] = &[
    "read /boot",
    "read /etc/ceph",
    "read /etc/pki/CA",
    "read /etc/pki/libvirt-*",
    "read /etc/pki/nssdb",
    "read /etc/pki/qemu",
    "read /etc/pki/tls/certs",
    "read /initrd",
    "read /initrd.img",
    "read /initrd.img.old",
    "read /vmlinuz",
    "read /vmlinuz.old",
    "refuse /bin",
    "refuse /etc",
    "refuse /etc/pki/CA/private",
    "refuse /lib",
    "refuse /lib32",
    "refuse /lib64",
    "refuse /libx32",
    "refuse /lost+found",
    "refuse /proc",
    "refuse /sbin",
    "refuse /selinux",
    "refuse /sys",
    "refuse /usr/bin",
    "refuse /usr/lib",
    "refuse /usr/lib32",
    "refuse /usr/lib64",
    "refuse /usr/libx32",
    "refuse /usr/local/bin",
    "refuse /usr/local/etc",
    "refuse /usr/local/lib",
    "refuse /usr/local/lib32",
    "refuse /usr/local/lib64",
    "refuse /usr/local/libx32",
    "refuse /usr/local/sbin",
    "refuse /usr/sbin",
    "refuse /usr/share",
    "run /usr/bin/kvm",
    "run /usr/bin/kvm-spice",
    "run /usr/bin/qemu",
    "run /usr/bin/qemu-*",
    "run /usr/bin/qemu-kvm",
    "run /usr/lib/qemu",
    "run /usr/lib/xen*",
    "run /usr/lib64/qemu",
    "run /usr/local/bin/qemu-*",
];

/// A refusal of ours.
struct Refusal<'a> {
    errors: &'a str,
}

impl<'a> Refusal<'a> {
    fn says(&self, words: &str) -> bool {
        self.errors.contains(words)
    }

    /// The line of the path policy, without its number, that it is for.
    fn line(&self) -> Option<&'a str> {
        let (_, line) = self.errors.split_once("(path policy line ")?;
        let (_, statement) = line.split_once(": ")?;
        statement.split([';', ')']).next()
    }

    fn is_for_a_line_of(&self, family: &str) -> bool {
        let lines = OWN_LINES.iter().find(|(name, _)| *name == family).map_or(&[][..], |(_, lines)| lines);
        self.line().is_some_and(|line| lines.contains(&line))
    }

    /// Whether a whole directory is refused for what is restricted in it. The original looks at its name alone.
    fn is_of_a_directory_above(&self) -> bool {
        let path =
            self.errors.split_once(" \"").and_then(|(_, rest)| rest.split_once("\" may not be granted"));
        path.zip(self.line()).is_some_and(|((path, _), line)| {
            let restricted = line.split_once(' ').map_or("", |(_, prefix)| prefix);
            restricted
                .strip_prefix(path.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The family of the element that asks, if the original does not look at it.
    fn of_an_unseen_element(&self) -> Option<&'static str> {
        let (what, rest) = self.errors.split_once(" may not be granted: ")?;
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

/// A family, and whether a refusal belongs to it.
type Refusing = (&'static str, fn(&Refusal<'_>) -> bool);

/// The families of refusals that the element has no part in; the first that it belongs to counts.
const REFUSALS: [Refusing; 14] = [
    ("virtual-machine-types", |refusal| refusal.says("are not confined by AppArmor")),
    ("volumes", |refusal| refusal.says("is not resolved")),
    ("relative-paths", |refusal| refusal.says("is not an absolute path")),
    ("normal-paths", |refusal| {
        refusal.says("may not be granted (it is \"") || refusal.says("is not normal: ")
    }),
    ("another-guests-socket", |refusal| refusal.is_for_a_line_of("another-guests-socket")),
    ("files-of-daemons", |refusal| refusal.is_for_a_line_of("files-of-daemons")),
    ("host-services", |refusal| refusal.is_for_a_line_of("host-services")),
    ("shared-firmware", |refusal| refusal.is_for_a_line_of("shared-firmware")),
    ("first-console", |refusal| refusal.says("asked for by devices/console[1]/source)")),
    ("root-directory", |refusal| refusal.errors.ends_with("\"/\" is a directory")),
    ("incomplete-devices", |refusal| refusal.says(" has no ") || refusal.says("SCSI adapter \"")),
    ("unknown-values", |refusal| {
        let values = ["disk type \"", "disk format \"", "shared memory name \"", "PCI address \""];
        values.iter().any(|value| refusal.says(value))
    }),
    ("unbound-prefixes", |refusal| refusal.says("namespace prefix")),
    ("host-services", |refusal| refusal.is_of_a_directory_above()),
];

/// The family of a domain that only we refuse.
pub(super) fn refusal_of_ours(errors: &str) -> Option<&'static str> {
    let refusal = Refusal { errors };
    let found = REFUSALS.iter().find(|(_, holds)| holds(&refusal)).map(|(family, _)| *family);
    found.or_else(|| refusal.of_an_unseen_element())
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
        // What a device of a virtual machine's names gets no rule here.
        let is_device = |path: &str| has_a_machines_device(record) && !is_granted(record, path);
        let mut family = "false-refusals";
        for path in restricted.filter(|path| !is_false(path)) {
            if !is_device(path) {
                return None;
            }
            family = "container-devices";
        }
        return Some(family);
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

#[cfg(test)]
mod tests {
    use super::*;
    use aa_derive::path_policy;
    use std::collections::BTreeSet;

    /// A line that is new has to be put somewhere, and one that is gone leaves nothing behind that explains anything.
    #[test]
    fn each_line_of_the_path_policy_is_of_one_family_or_the_originals_too() {
        let lines = path_policy::DEFAULT.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let policy: BTreeSet<String> = lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|line| !line.starts_with("allow "))
            .collect();
        let listed = OWN_LINES.iter().flat_map(|(_, lines)| lines.iter()).chain(LINES_OF_BOTH);
        let mut known = BTreeSet::new();
        for line in listed {
            assert!(known.insert((*line).to_owned()), "{line} is listed twice");
        }
        assert_eq!(known.difference(&policy).collect::<Vec<_>>(), [""; 0], "no line of the policy");
        assert_eq!(policy.difference(&known).collect::<Vec<_>>(), [""; 0], "of no family");
    }

    #[test]
    fn a_refusal_is_explained_by_its_line_or_its_element_and_else_not() {
        let refusal = |what: &str, path: &str, element: &str, line: &str| {
            refusal_of_ours(&format!(
                "x.xml:2:3: {what} \"{path}\" may not be granted: it is restricted (path policy line 9: {line}; rwk asked for by {element})"
            ))
        };
        let disk = |path: &str, line: &str| refusal("disk source", path, "devices/disk[1]/source", line);
        assert_eq!(disk("/var/spool/cron/x", "refuse /var/spool/cron"), Some("host-services"));
        assert_eq!(disk("/run/libvirt/x", "refuse /run/libvirt"), Some("files-of-daemons"));
        assert_eq!(disk("/usr/share/OVMF/x", "read /usr/share/OVMF"), Some("shared-firmware"));
        // The original refuses these too: that only we do is no family's.
        for (path, line) in [
            ("/etc/shadow", "refuse /etc"),
            ("/usr/bin/x", "refuse /usr/bin"),
            ("/boot/x", "read /boot"),
            ("/srv/x", "refuse /srv"),
            ("/var/spool/crontab/x", "refuse /var/spool/crontab"),
        ] {
            assert_eq!(disk(path, line), None, "{path}");
        }
        // But for a directory above, which it does not look into, and for an element that it does not see.
        assert_eq!(disk("/usr", "refuse /usr/bin"), Some("host-services"));
        assert_eq!(disk("/us", "refuse /usr/bin"), None);
        assert_eq!(
            refusal("mirror", "/etc/x", "devices/disk[1]/mirror/source", "refuse /etc"),
            Some("mirrors")
        );
    }
}
