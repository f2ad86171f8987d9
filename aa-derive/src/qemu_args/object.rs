//! `-object`: back ends that open files (QEMU: `qapi/qom.json`).

use aa_contract::{Access, Feature, NoteKind};

use super::{BOTH, Context, Keys, Need, READ, WRITE};
use crate::error::Error;

/// Types with the keys that name files.
const KEYS: [(&str, Keys); 21] = [
    ("secret", &[("file", READ)]),
    ("tls-creds-x509", &[("dir", Need::Tree(Access::R))]),
    ("tls-creds-anon", &[("dir", Need::Tree(Access::R))]),
    ("tls-creds-psk", &[("dir", Need::Tree(Access::R))]),
    ("filter-dump", &[("file", WRITE)]),
    ("input-linux", &[("evdev", BOTH)]),
    ("pr-manager-helper", &[("path", BOTH)]),
    ("authz-list-file", &[("filename", READ)]),
    ("dbus-vmstate", &[("addr", BOTH)]),
    ("vfio-user-server", &[("socket.path", BOTH), ("path", BOTH)]),
    ("x-vfio-user-server", &[("socket.path", BOTH), ("path", BOTH)]),
    ("qtest", &[("log", BOTH)]),
    ("sev-guest", &[("dh-cert-file", READ), ("session-file", READ)]),
    ("sev-snp-guest", &[]),
    ("tdx-guest", &[]),
    ("iommufd", &[]),
    ("memory-backend-file", &[]),
    ("memory-backend-epc", &[]),
    ("rng-random", &[]),
    ("acpi-generic-initiator", &[]),
    ("igvm-cfg", &[("file", READ)]),
];

/// Types that open no file of their own.
const WITHOUT_FILES: [&str; 30] = [
    "authz-list",
    "authz-pam",
    "authz-simple",
    "can-bus",
    "can-host-socketcan",
    "colo-compare",
    "cryptodev-backend",
    "cryptodev-backend-builtin",
    "cryptodev-backend-lkcf",
    "cryptodev-vhost-user",
    "filter-buffer",
    "filter-mirror",
    "filter-redirector",
    "filter-replay",
    "filter-rewriter",
    "input-barrier",
    "iothread",
    "main-loop",
    "memory-backend-memfd",
    "memory-backend-ram",
    "memory-backend-shm",
    "pef-guest",
    "rng-builtin",
    "rng-egd",
    "s390-pv-guest",
    "secret_keyring",
    "thread-context",
    "throttle-group",
    "tls-cipher-suites",
    "arm-rme-guest",
];

pub(super) fn derive(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let Some(mut options) = context.options(text, "qom-type") else { return Ok(()) };
    let kind = options.take("qom-type").unwrap_or_default();
    let keys = KEYS.iter().find(|(known, _)| *known == kind).map(|(_, keys)| *keys);
    if keys.is_none() && !WITHOUT_FILES.contains(&kind.as_str()) {
        context.note(
            NoteKind::UnknownArgument,
            &format!("objects of type \"{kind}\" are not known here: no rule is made for it"),
        );
        return Ok(());
    }
    for (key, need) in keys.unwrap_or_default() {
        context.take(&mut options, key, *need)?;
    }
    match kind.as_str() {
        "memory-backend-file" => {
            let access = if options.is_on("readonly") { Access::R } else { Access::RW };
            context.deriver.uses(Feature::FileMemory);
            context.take(&mut options, "mem-path", Need::Memory(access))?;
        }
        "memory-backend-epc" => {
            context.deriver.uses(Feature::Sgx);
            context.deriver.allow(context.at, "SGX memory", "/dev/sgx_vepc", Access::RW)?;
        }
        "rng-random" => {
            let path = options.take("filename").unwrap_or_else(|| "/dev/urandom".to_owned());
            context.grant("random number source", &path, Access::R)?;
        }
        "sev-guest" | "sev-snp-guest" => {
            context.deriver.uses(Feature::Sev);
            let path = options.take("sev-device").unwrap_or_else(|| "/dev/sev".to_owned());
            context.grant("SEV device", &path, Access::RW)?;
        }
        // With a descriptor QEMU opens nothing itself.
        "iommufd" if options.get("fd").is_none() => {
            context.deriver.uses(Feature::Vfio);
            context.deriver.allow(context.at, "IOMMU", "/dev/iommu", Access::RW)?;
        }
        "tls-creds-x509" | "tls-creds-anon" | "tls-creds-psk" => context.deriver.uses(Feature::Tls),
        _ => {}
    }
    context.left(&options, &[]);
    Ok(())
}
