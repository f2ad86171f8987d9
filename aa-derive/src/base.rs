//! The rules that every QEMU guest has, whatever its devices: its log, monitor, pid file, its own
//! directories and its end of a tunnelled migration. Narrower than the original's, whose patterns
//! reach across guests (see docs/differences.md).

use aa_contract::{Access, Feature, NoteKind, VirtType};

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

/// Where libvirt keeps the state of QEMU guests (libvirt: `drvqemu`, «Location of configuration files»).
pub(crate) const LIB: &str = "/var/lib/libvirt/qemu";
pub(crate) const RUN: &str = "/run/libvirt/qemu";
const LOG: &str = "/var/log/libvirt/qemu";

/// A name whose pid file would be libvirtd's own (`/run/libvirt/qemu/driver.pid`).
const DRIVER: &str = "driver";

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    match deriver.domain.virt_type {
        VirtType::Kvm => deriver.uses(Feature::Kvm),
        VirtType::Qemu => {}
        VirtType::Lxc => return Ok(()),
    }
    let element = root.child("name").unwrap_or(*root);
    let name = deriver.domain.name.clone();
    let short = deriver.short.clone();
    deriver.allow(element, "log", &format!("{LOG}/{name}.log"), Access::W)?;
    if name.as_str() == DRIVER {
        deriver.note(
            NoteKind::LeftOut,
            &element,
            "no pid file is granted: /run/libvirt/qemu/driver.pid is libvirtd's own",
        );
    } else {
        deriver.allow(element, "pid file", &format!("{RUN}/{name}.pid"), Access::RWK)?;
    }
    deriver.allow(
        element,
        "migration socket",
        &format!("{RUN}/qemu.tunnelmigrate.dest.{name}"),
        Access::RW,
    )?;
    // Monitor, secrets, sockets of helpers; libvirtd makes it and grants it again at each start.
    deriver.allow_below(
        element,
        "state directory",
        &format!("{LIB}/domain-{short}"),
        "{,**}",
        Access::RWK,
    )?;
    // Sockets of channels without a path: since libvirt 9.7 below /run, before below /var/lib.
    deriver.allow_below(
        element,
        "channel directory",
        &format!("{RUN}/channel/{short}"),
        "{,**}",
        Access::RWK,
    )?;
    deriver.allow_below(
        element,
        "channel directory",
        &format!("{LIB}/channel/target/domain-{short}"),
        "{,**}",
        Access::RWK,
    )
}
