//! Smartcards (libvirt: `formatdomain`, «Smartcard devices»).

use aa_contract::{Access, Feature, NoteKind};

use super::chardev_source;
use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

/// Where NSS keeps its database unless the XML names another (libvirt: `formatdomain`).
const DATABASE: &str = "/etc/pki/nssdb";

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    match device.attr("mode") {
        Some("host") => database(deriver, device, DATABASE),
        Some("host-certificates") => match device.child("database") {
            Some(element) if !element.text().trim().is_empty() => {
                database(deriver, &element, element.text().trim())
            }
            _ => database(deriver, device, DATABASE),
        },
        Some("passthrough") => chardev_source(deriver, device, "smartcard"),
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!(
                    "smartcard mode {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
            Ok(())
        }
    }
}

/// The directory and the files in it. The path comes from the XML, so it is asked of the policy, and
/// every byte of it means itself.
fn database(deriver: &mut Deriver<'_>, at: &Element<'_>, dir: &str) -> Result<(), Error> {
    deriver.uses(Feature::Smartcard);
    deriver.grant_directory(at, "smartcard database", dir, "{,*}", Access::RK)
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_rules, refusal};

    #[test]
    fn the_database_is_read() {
        let expected = |dir: &str| vec![(format!("{dir}/{{,*}}"), "rk".to_owned())];
        assert_eq!(device_rules("<smartcard mode='host'/>"), expected("/etc/pki/nssdb"));
        let certificates = |database: &str| {
            format!("<smartcard mode='host-certificates'><certificate>a</certificate>{database}</smartcard>")
        };
        assert_eq!(device_rules(&certificates("")), expected("/etc/pki/nssdb"));
        assert_eq!(device_rules(&certificates("<database>/srv/nss</database>")), expected("/srv/nss"));
        assert!(refusal(&certificates("<database>/etc</database>")).contains("refuse /etc"));
        assert!(refusal(&certificates("<database>nss</database>")).contains("not an absolute path"));
    }

    #[test]
    fn a_database_cannot_slip_a_rule_into_the_profile() {
        let evil = "/x&quot; rwk, /etc/shadow rwk, capability sys_admin, #";
        let rules = device_rules(&format!(
            "<smartcard mode='host-certificates'><database>{evil}</database></smartcard>"
        ));
        assert_eq!(
            rules,
            [("/x\\042 rwk, /etc/shadow rwk, capability sys_admin, \\043/{,*}".to_owned(), "rk".to_owned())]
        );
    }

    #[test]
    fn a_card_of_another_process_is_a_character_device() {
        let card =
            "<smartcard mode='passthrough' type='unix'><source mode='connect' path='/run/card'/></smartcard>";
        assert_eq!(device_rules(card), [("/run/card".to_owned(), "rw".to_owned())]);
        assert!(device_rules("<smartcard mode='passthrough' type='spicevmc'/>").is_empty());
    }
}
