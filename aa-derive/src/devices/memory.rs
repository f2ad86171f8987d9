//! Memory devices (libvirt: `formatdomain`, «Memory devices»).

use aa_contract::{Access, Feature, NoteKind};

use crate::deriver::Deriver;
use crate::error::Error;
use crate::memory_backing;
use crate::xml::Element;

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    match device.attr("model") {
        Some("nvdimm" | "virtio-pmem") => {
            let Some(path) = device.at(&["source", "path"]) else { return Ok(()) };
            let read_only = device.at(&["target", "readonly"]).is_some();
            let access = if read_only { Access::R } else { Access::RW };
            deriver.grant(path, "memory file", path.text().trim(), access).map(drop)
        }
        Some("sgx-epc") => {
            deriver.uses(Feature::Sgx);
            deriver.allow(device, "SGX", "/dev/sgx_vepc", Access::RW)?;
            deriver.allow(device, "SGX", "/dev/sgx_provision", Access::R)
        }
        Some("dimm" | "virtio-mem") => {
            // Plugged memory comes from where the guest's memory comes from, or from huge pages of its own.
            memory_backing::ram(deriver, device)?;
            if device.at(&["source", "pagesize"]).is_some() {
                memory_backing::hugepages(deriver, device)?;
            }
            Ok(())
        }
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!(
                    "memory device {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_notes, device_rules, refusal};

    fn memory(model: &str, inside: &str) -> Vec<String> {
        device_rules(&format!("<memory model='{model}'>{inside}</memory>"))
            .into_iter()
            .map(|(path, access)| format!("{access} {path}"))
            .collect()
    }

    #[test]
    fn a_file_is_written_unless_it_is_read_only() {
        for model in ["nvdimm", "virtio-pmem"] {
            assert_eq!(memory(model, "<source><path>/srv/m</path></source>"), ["rw /srv/m"]);
            assert_eq!(
                memory(model, "<source><path>/srv/m</path></source><target><readonly/></target>"),
                ["r /srv/m"]
            );
            refusal(&format!("<memory model='{model}'><source><path>/etc/m</path></source></memory>"));
        }
    }

    #[test]
    fn enclaves_have_their_nodes() {
        assert_eq!(memory("sgx-epc", ""), ["r /dev/sgx_provision", "rw /dev/sgx_vepc"]);
    }

    #[test]
    fn plugged_memory_is_the_guests_own_directory() {
        assert_eq!(
            memory("dimm", "<target><size>1</size></target>"),
            ["rw /var/lib/libvirt/qemu/ram/7-guest/{,**}"]
        );
        assert_eq!(device_notes("<memory model='core'/>").len(), 1);
    }
}
