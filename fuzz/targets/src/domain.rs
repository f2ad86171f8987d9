//! Domain XML, pool XML and QEMU's arguments, on a small host (`../host`) whose images, links and
//! directories they can name.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aa_contract::{Derived, Target};
use aa_derive::host::Files;
use aa_derive::path_policy::{self, PathPolicy};
use aa_derive::pool::Pools;
use aa_derive::xml::Document;
use aa_derive::{Options, Terminals, UnknownVolumes, derive};

use crate::{aare, record, rendering};

/// What stands for the root of the host.
static HOST: LazyLock<Files> = LazyLock::new(|| Files::new(root()).unwrap());

/// As a call without options, but that the pools of the host are known.
static OPTIONS: LazyLock<Options> = LazyLock::new(|| {
    let policy = PathPolicy::parse(path_policy::DEFAULT).unwrap();
    let pools = Pools::load(&[root().join("etc/libvirt/storage")]).unwrap();
    Options { pools, ..Options::new(policy) }
});

/// The same with what libvirtd's helper decides otherwise.
static OF_THE_DROP_IN: LazyLock<Options> = LazyLock::new(|| Options {
    terminals: Terminals::Granted,
    unknown_volumes: UnknownVolumes::LeftOut,
    ..OPTIONS.clone()
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("host")
}

/// What no definition may reach, but for that of the guest `neighbour`, with id 42 or none where the path has it.
const OUT_OF_REACH: [&str; 50] = [
    "/",
    "/bin/sh",
    "/dev/mem",
    "/dev/cpu/0/msr",
    "/dev/uinput",
    "/dev/uhid",
    "/dev/cuse",
    "/dev/watchdog0",
    "/root/.ssh/authorized_keys",
    "/run/dbus/system_bus_socket",
    "/run/systemd/system/x.service",
    "/run/udev/rules.d/x.rules",
    "/usr/etc/passwd",
    "/var/lib/dpkg/info/x.postinst",
    "/var/lib/libvirt/dnsmasq/default.conf",
    "/var/lib/libvirt/secrets/x.base64",
    "/var/spool/cron/crontabs/root",
    "/dev/hugepages/libvirt/qemu/42-neighbour/pages",
    "/etc/apparmor.d/libvirt/TEMPLATE.qemu",
    "/etc/libvirt/qemu.conf",
    "/etc/passwd",
    "/etc/shadow",
    "/proc/kcore",
    "/proc/sysrq-trigger",
    "/sys/kernel/security/apparmor/.load",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/run/libvirt/libvirt-sock",
    "/run/libvirt/virtlogd-sock",
    "/run/libvirt/virtqemud-sock",
    "/run/libvirt/common/system.token",
    "/run/libvirt/network/default.xml",
    "/run/libvirt/qemu/neighbour.xml",
    "/run/libvirt/qemu/dbus/42-neighbour-dbus.sock",
    "/run/libvirt/qemu/swtpm/42-neighbour-swtpm.sock",
    "/var/cache/aa-svirt/libvirt-a22e3930-d87a-584e-22b2-1d8950212bac",
    "/run/libvirt/qemu/driver.pid",
    "/run/libvirt/qemu/channel/42-neighbour/agent",
    "/var/lib/libvirt/qemu/channel/target/domain-42-neighbour/agent",
    "/var/lib/libvirt/qemu/domain-42-neighbour/master-key.aes",
    "/var/lib/libvirt/qemu/domain-42-neighbour/monitor.sock",
    "/var/lib/libvirt/qemu/ram/42-neighbour/ram-node0",
    "/var/lib/libvirt/qemu/dump/42-neighbour-2026-11-26-10:00:00",
    "/var/lib/libvirt/qemu/save/neighbour.save",
    "/var/lib/libvirt/qemu/snapshot/neighbour/1.xml",
    "/var/lib/libvirt/swtpm/00000000-0000-4000-8000-000000000042/tpm2/tpm2-00.permall",
    "/var/log/libvirt/libvirtd.log",
    "/var/log/libvirt/qemu/neighbour.log",
    "/var/log/libvirt/qemu/neighbour-serial0.log",
    "/var/log/swtpm/libvirt/qemu/neighbour-swtpm.log",
    "/var/lib/libvirt/qemu/domain--1-neighbour/monitor.sock",
];

/// The XML of a domain.
pub fn domain(data: &[u8]) {
    let first = derive(data, &OPTIONS, &HOST);
    match (&first, derive(data, &OPTIONS, &HOST)) {
        (Ok(first), Ok(second)) => assert_eq!(*first, second, "another record the second time"),
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        (first, second) => panic!("{first:?}, then {second:?}"),
    }
    if let Ok(record) = &first {
        check(record);
    }
    let of_the_drop_in = derive(data, &OF_THE_DROP_IN, &HOST);
    // It mostly is the same.
    if let (Ok(record), first) = (&of_the_drop_in, first.as_ref().ok())
        && first != Some(record)
    {
        check(record);
    }
    for result in [first, of_the_drop_in] {
        if let Err(error) = result {
            assert_one_line(&error.to_string());
        }
    }
}

/// What every record keeps.
fn check(record: &Derived) {
    record::comes_back(record);
    rendering::renders(record);
    for note in record.notes() {
        assert!(!note.text.is_empty());
    }
    let domain = record.domain();
    let (id, tpm) = (domain.id, format!("/var/lib/libvirt/swtpm/{}/", domain.uuid));
    let is_named = domain.name.as_str() == "neighbour";
    let executing = record.rules().iter().filter(|rule| rule.access.exec().is_some());
    let executed: Vec<&str> = executing
        .map(|rule| match &rule.target {
            Target::Path(path) => path.as_str(),
            Target::Glob(glob) => panic!("a pattern is executed: {glob}"),
        })
        .collect();
    for rule in record.rules().iter().filter(|rule| !rule.deny) {
        let parts = parts(&rule.target);
        if rule.access.writes() {
            for executed in &executed {
                assert!(!aare::matches(&parts, executed.as_bytes()), "{executed} is executed: {rule:?}");
            }
        }
        for path in OUT_OF_REACH {
            let fits = !path.contains("42-neighbour") || id.is_none_or(|id| id == 42);
            let own = is_named && path.contains("neighbour") && fits || path.starts_with(&tpm);
            assert!(own || !aare::matches(&parts, path.as_bytes()), "{path} by {rule:?}");
        }
    }
}

/// The target of a rule, by the second reading of patterns.
fn parts(target: &Target) -> Vec<aare::Part> {
    match target {
        Target::Path(path) => path.as_str().bytes().map(aare::Part::Byte).collect(),
        Target::Glob(glob) => aare::parse(glob.as_str().as_bytes()).unwrap(),
    }
}

/// A message for people is one line without control characters.
pub(crate) fn assert_one_line(text: &str) {
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

/// The XML of a storage pool, behind a first line that is the name of a volume.
pub fn pool(data: &[u8]) {
    let (volume, xml) = data.iter().position(|byte| *byte == b'\n').map_or((&[][..], data), |end| {
        let (volume, rest) = data.split_at(end);
        (volume, rest.get(1..).unwrap_or_default())
    });
    let mut pools = Pools::default();
    if let Err(error) = pools.add(Path::new("pool.xml"), xml) {
        return assert_one_line(&error.to_string());
    }
    // The same definition again, as definition and state of one pool are.
    pools.add(Path::new("again.xml"), xml).unwrap();
    let Ok(volume) = std::str::from_utf8(volume) else { return };
    let document = Document::parse(xml).unwrap();
    let root = document.root();
    let definition = if root.name() == "poolstate" { root.child("pool").unwrap() } else { root };
    let target =
        definition.at(&["target", "path"]).map_or("", |path| path.text().trim().trim_end_matches('/'));
    // The name is in the debug form only; a pool's target and a link's are the ways to a path.
    for pool in ["p", "vg", "sda", "0"] {
        if let Ok(found) = pools.resolve(pool, volume, &*HOST)
            && let Some(path) = found.path
        {
            match definition.attr("type") {
                Some("dir" | "fs" | "netfs" | "vstorage") => {
                    assert_eq!(path.as_str(), format!("{target}/{volume}"));
                }
                Some("logical" | "zfs" | "disk") => {
                    assert_eq!(path.as_str().rsplit_once('/').map(|(_, name)| name), Some(volume));
                }
                // A link there, by the name that udev gives it.
                Some("iscsi") => {
                    let name = path.as_str().strip_prefix(target).and_then(|rest| rest.strip_prefix('/'));
                    assert!(name.is_some_and(|name| name.contains("ip-") && !name.contains('/')), "{path}");
                }
                _ => assert!(path.as_str().starts_with("/dev/"), "{path} of {volume:?}"),
            }
        }
    }
}

/// Arguments of `qemu:commandline`, each behind the last with a NUL between.
pub fn qemu_args(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut xml = String::from(
        "<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>guest</name>\
         <uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid><os><type>hvm</type></os><qemu:commandline>",
    );
    for argument in text.split('\0') {
        xml.push_str("<qemu:arg value='");
        for c in argument.chars() {
            match c {
                '&' => xml.push_str("&amp;"),
                '<' => xml.push_str("&lt;"),
                '\'' => xml.push_str("&apos;"),
                '\n' => xml.push_str("&#10;"),
                c => xml.push(c),
            }
        }
        xml.push_str("'/>");
    }
    xml.push_str("</qemu:commandline></domain>");
    domain(xml.as_bytes());
}
