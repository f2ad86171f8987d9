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

/// The socket of a tunnelled migration, before the guest's name.
const MIGRATION: &str = "qemu.tunnelmigrate.dest";
/// What libvirtd keeps for each guest beside that socket ends so behind the guest's name; `.new` while it writes the state.
const OF_GUESTS: [&str; 3] = [".pid", ".xml", ".xml.new"];

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
    } else if deriver.owner().is_called_as_anothers_helper() {
        deriver.note(
            NoteKind::LeftOut,
            &element,
            format!("no pid file is granted: {RUN}/{name}.pid could be that of another guest's helper"),
        );
    } else {
        deriver.allow(element, "pid file", &format!("{RUN}/{name}.pid"), Access::RWK)?;
    }
    if OF_GUESTS.iter().any(|end| name.as_str().ends_with(end)) {
        deriver.note(
            NoteKind::LeftOut,
            &element,
            format!("no migration socket is granted: {MIGRATION}.{name} could be another guest's pid file or state"),
        );
    } else {
        let socket = format!("{RUN}/{MIGRATION}.{name}");
        deriver.allow(element, "migration socket", &socket, Access::RW)?;
    }
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

#[cfg(test)]
mod tests {
    use crate::host::Files;
    use crate::path_policy::{DEFAULT, PathPolicy};
    use crate::testing::domain;
    use crate::{Options, derive};

    /// The record of a guest of this name, as text.
    fn named(name: &str) -> String {
        numbered(" id='7'", name)
    }

    /// The same with this id, as an attribute.
    fn numbered(id: &str, name: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let xml = domain("kvm", "").replace(">guest<", &format!(">{name}<")).replace(" id='7'", id);
        let options = Options::new(PathPolicy::parse(DEFAULT).unwrap());
        let record = derive(xml.as_bytes(), &options, &Files::new(root.path()).unwrap()).unwrap();
        serde_json::to_string(&record).unwrap()
    }

    #[test]
    fn a_migration_socket_is_no_other_guests_file() {
        let socket = |name: &str| format!("{{\"path\":\"/run/libvirt/qemu/qemu.tunnelmigrate.dest.{name}\"");
        for name in ["victim", "victim.pidx", "pid", "victim.new"] {
            assert!(named(name).contains(&socket(name)), "{name}");
        }
        for name in ["victim.pid", "victim.xml", "victim.xml.new"] {
            assert!(!named(name).contains(&socket(name)), "{name}");
        }
    }

    /// libvirtd ends the processes whose numbers are in these files.
    #[test]
    fn a_pid_file_is_no_other_guests_helpers() {
        let has = |id: &str, name: &str| {
            let pid = format!("{{\"path\":\"/run/libvirt/qemu/{name}.pid\"");
            numbered(id, name).contains(&pid)
        };
        for name in ["victim", "7-victim", "3-victim", "victim-3-a-b", "x3-victim-fs0-fs", "3--a", "3-a"] {
            assert!(has(" id='7'", name), "{name}");
        }
        for name in
            ["driver", "3-victim-pr-helper0", "3-victim-fs0-fs", "3-v-video0-vhost-user-gpu", "-1-v-x"]
        {
            assert!(!has(" id='7'", name) && !has("", name), "{name}");
        }
        // No other guest that runs has its id.
        assert!(has(" id='3'", "3-victim-fs0-fs") && !has(" id='33'", "3-victim-fs0-fs"));
    }
}
