//! Trusted platform modules (libvirt: `formatdomain`, «TPM device»).

use aa_contract::{Access, Feature, NoteKind};

use super::chardev_source;
use crate::base::RUN;
use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

/// Where libvirt keeps the state of emulated TPMs, by UUID. The path policy refuses all of it.
const STATE: &str = "/var/lib/libvirt/swtpm";
const WHAT: &str = "TPM state";

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    let Some(backend) = device.child("backend") else { return Ok(()) };
    deriver.uses(Feature::Tpm);
    match backend.attr("type") {
        Some("emulator") => emulator(deriver, &backend),
        Some("passthrough") => passthrough(deriver, &backend),
        Some("external") => {
            match backend.child("source").and_then(|source| Some((source, source.attr("path")?))) {
                Some((source, path)) => deriver.grant(source, "TPM socket", path, Access::RW).map(drop),
                None => chardev_source(deriver, &backend, "TPM socket"),
            }
        }
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                &backend,
                format!(
                    "TPM backend {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
            Ok(())
        }
    }
}

/// swtpm, which libvirtd starts under the guest's profile: its socket, state, log and pid file.
fn emulator(deriver: &mut Deriver<'_>, backend: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Swtpm);
    let (name, uuid, short) = (deriver.domain.name.clone(), deriver.domain.uuid, deriver.short.clone());
    deriver.allow(backend, "TPM socket", &format!("{RUN}/swtpm/{short}-swtpm.sock"), Access::RW)?;
    deriver.allow(backend, "TPM pid file", &format!("{RUN}/swtpm/{short}-swtpm.pid"), Access::RW)?;
    deriver.allow(backend, "TPM log", &format!("/var/log/swtpm/libvirt/qemu/{name}-swtpm.log"), Access::W)?;
    let source =
        backend.child("source").and_then(|source| Some((source, source.attr("type"), source.attr("path")?)));
    match source {
        Some((source, kind, path)) => state(deriver, &source, kind, path),
        None => {
            // Without a version libvirt makes a TPM 2.0.
            let version = if backend.attr("version") == Some("1.2") { "tpm1.2" } else { "tpm2" };
            own_state(deriver, backend, &format!("{STATE}/{uuid}/{version}"))
        }
    }
}

/// State where the XML says that it is. What libvirt keeps there for this guest carries its UUID; no other may be named.
fn state(
    deriver: &mut Deriver<'_>,
    source: &Element<'_>,
    kind: Option<&str>,
    path: &str,
) -> Result<(), Error> {
    let resolved = deriver.resolve(source.into(), WHAT, path)?.path;
    let own = format!("{STATE}/{}", deriver.domain.uuid);
    let rest = resolved.strip_prefix(&own);
    let is_own = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match kind {
        Some("file") if is_own => deriver.allow(source, WHAT, &resolved, Access::RWK),
        Some("file") => deriver.grant(source, WHAT, path, Access::RWK).map(drop),
        _ if is_own => own_state(deriver, source, &resolved),
        _ => deriver.grant_tree(source, WHAT, path, Access::RWK).map(drop),
    }
}

/// A directory of this guest's own state.
fn own_state(deriver: &mut Deriver<'_>, place: &Element<'_>, dir: &str) -> Result<(), Error> {
    deriver.allow(place, WHAT, &format!("{dir}/"), Access::R)?;
    deriver.allow_below(place, WHAT, dir, "**", Access::RWK)
}

/// A TPM of the host: its node, and the file in sysfs that cancels a command.
fn passthrough(deriver: &mut Deriver<'_>, backend: &Element<'_>) -> Result<(), Error> {
    let device = backend.child("device").and_then(|device| Some((device, device.attr("path")?)));
    let path = match device {
        Some((device, path)) => {
            deriver.grant(device, "TPM", path, Access::RW)?;
            path
        }
        None => {
            deriver.allow(backend, "TPM", "/dev/tpm0", Access::RW)?;
            "/dev/tpm0"
        }
    };
    let Some(node) = path.strip_prefix("/dev/").filter(|node| node.starts_with("tpm") && !node.contains('/'))
    else {
        deriver.note(
            NoteKind::NotCovered,
            backend,
            format!("\"{path}\" does not name a TPM: its cancel file is not known"),
        );
        return Ok(());
    };
    for class in ["tpm", "misc"] {
        let resolved =
            deriver.resolve(backend.into(), "TPM", &format!("/sys/class/{class}/{node}/device/cancel"))?;
        deriver.allow(backend, "TPM cancel file", &resolved.path, Access::W)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{UUID, device_rules, refusal};

    fn tpm(backend: &str) -> Vec<String> {
        device_rules(&format!("<tpm model='tpm-crb'>{backend}</tpm>"))
            .into_iter()
            .map(|(path, access)| format!("{access} {path}"))
            .collect()
    }

    #[test]
    fn the_emulator_has_its_own_state_and_nobody_elses() {
        let expected = |version: &str| {
            [
                "rw /run/libvirt/qemu/swtpm/7-guest-swtpm.pid".to_owned(),
                "rw /run/libvirt/qemu/swtpm/7-guest-swtpm.sock".to_owned(),
                format!("r /var/lib/libvirt/swtpm/{UUID}/{version}/"),
                "w /var/log/swtpm/libvirt/qemu/guest-swtpm.log".to_owned(),
                format!("rwk /var/lib/libvirt/swtpm/{UUID}/{version}/**"),
            ]
        };
        assert_eq!(tpm("<backend type='emulator' version='1.2'/>"), expected("tpm1.2"));
        assert_eq!(tpm("<backend type='emulator'/>"), expected("tpm2"));
    }

    #[test]
    fn the_state_that_the_xml_names_is_used() {
        let rules =
            tpm("<backend type='emulator' version='2.0'><source type='dir' path='/srv/tpm'/></backend>");
        assert!(
            rules.contains(&"rwk /srv/tpm/**".to_owned())
                && !rules.iter().any(|rule| rule.contains("/swtpm/a22e")),
            "{rules:?}"
        );
        let rules = tpm(
            "<backend type='emulator' version='2.0'><source type='file' path='/srv/tpm.state'/></backend>",
        );
        assert!(rules.contains(&"rwk /srv/tpm.state".to_owned()), "{rules:?}");
        refusal("<tpm><backend type='emulator'><source type='dir' path='/etc'/></backend></tpm>");
    }

    #[test]
    fn state_that_libvirt_keeps_is_the_guests_own() {
        let source = |kind: &str, path: &str| {
            format!(
                "<backend type='emulator'><source type='{kind}' path='/var/lib/libvirt/swtpm{path}'/></backend>"
            )
        };
        let own = format!("/{UUID}/tpm2");
        assert_eq!(tpm(&source("dir", &own)), tpm("<backend type='emulator'/>"));
        let file = format!("{own}/tpm2-00.permall");
        assert!(tpm(&source("file", &file)).contains(&format!("rwk /var/lib/libvirt/swtpm{file}")));
        let other = "/00000000-0000-4000-8000-000000000000/tpm2";
        for path in ["", "/", other, &format!("/{UUID}x"), &format!("/{UUID}/..{other}")] {
            for kind in ["dir", "file"] {
                let refused = refusal(&format!("<tpm>{}</tpm>", source(kind, path)));
                assert!(refused.contains("refuse /var/lib/libvirt/swtpm"), "{refused}");
            }
        }
        refusal("<filesystem><source dir='/var/lib/libvirt/swtpm'/><target dir='t'/></filesystem>");
    }

    #[test]
    fn a_host_tpm_and_an_external_one() {
        assert_eq!(
            tpm("<backend type='passthrough'><device path='/dev/tpm1'/></backend>"),
            ["rw /dev/tpm1", "w /sys/class/misc/tpm1/device/cancel", "w /sys/class/tpm/tpm1/device/cancel"]
        );
        assert!(tpm("<backend type='passthrough'/>").contains(&"rw /dev/tpm0".to_owned()));
        assert_eq!(
            tpm(
                "<backend type='external'><source type='unix' mode='connect' path='/run/tpm.sock'/></backend>"
            ),
            ["rw /run/tpm.sock"]
        );
        refusal(
            "<tpm><backend type='external'><source type='unix' mode='connect' path='/etc/x'/></backend></tpm>",
        );
        refusal("<tpm><backend type='passthrough'><device path='/dev/mem'/></backend></tpm>");
    }
}
