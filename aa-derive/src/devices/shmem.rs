//! Memory shared with the host or other guests (libvirt: `formatdomain`, «Shared memory device»).

use aa_contract::{Access, Feature};

use crate::deriver::Deriver;
use crate::domain::refuse;
use crate::error::{Error, Refusal};
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Shmem);
    let name = device.attr("name").unwrap_or_default();
    if name.is_empty() || name.contains(['/', '\0']) || matches!(name, "." | "..") {
        return Err(refuse(device, Refusal::Value { what: "shared memory name", value: name.to_owned() }));
    }
    let model = device.child("model").and_then(|model| model.attr("type"));
    let server = device.child("server");
    match (server.and_then(|server| Some((server, server.attr("path")?))), model) {
        (Some((server, path)), _) => {
            deriver.grant(server, "shared memory server", path, Access::RW).map(drop)
        }
        (None, Some("ivshmem-doorbell")) => socket(deriver, device, name),
        (None, _) if server.is_some() => socket(deriver, device, name),
        (None, Some("ivshmem-plain")) => memory(deriver, device, name),
        // The old model without a server opens the memory itself; libvirt's helper granted the socket.
        (None, _) => {
            memory(deriver, device, name)?;
            socket(deriver, device, name)
        }
    }
}

fn memory(deriver: &mut Deriver<'_>, device: &Element<'_>, name: &str) -> Result<(), Error> {
    deriver.allow(device, "shared memory", &format!("/dev/shm/{name}"), Access::RW)
}

/// Where libvirt looks for the server's socket if the XML names none.
fn socket(deriver: &mut Deriver<'_>, device: &Element<'_>, name: &str) -> Result<(), Error> {
    deriver.allow(device, "shared memory server", &format!("/var/lib/libvirt/shmem-{name}-sock"), Access::RW)
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_rules, refusal};

    fn paths(device: &str) -> Vec<String> {
        device_rules(device).into_iter().map(|(path, access)| format!("{access} {path}")).collect()
    }

    #[test]
    fn each_model_has_its_own_file() {
        let shmem = |inside: &str| paths(&format!("<shmem name='m*'>{inside}</shmem>"));
        assert_eq!(shmem("<model type='ivshmem-plain'/><size unit='M'>4</size>"), ["rw /dev/shm/m*"]);
        assert_eq!(shmem("<model type='ivshmem-doorbell'/><server/>"), ["rw /var/lib/libvirt/shmem-m*-sock"]);
        assert_eq!(shmem("<model type='ivshmem-doorbell'/><server path='/run/s'/>"), ["rw /run/s"]);
        assert_eq!(shmem("<model type='ivshmem'/>"), ["rw /dev/shm/m*", "rw /var/lib/libvirt/shmem-m*-sock"]);
    }

    #[test]
    fn a_name_stays_in_its_directory() {
        for name in ["../../etc/shadow", "a/b", "..", ".", ""] {
            refusal(&format!("<shmem name='{name}'><model type='ivshmem-plain'/></shmem>"));
        }
        refusal("<shmem name='a'><server path='/etc/s'/></shmem>");
    }
}
