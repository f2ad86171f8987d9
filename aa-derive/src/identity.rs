//! Who a guest is, and whether it is to be confined at all: what its XML says without a look at any file.
//!
//! For who has a guest's XML and wants its profile's name. No path in it is judged, so nothing in it that would be
//! refused keeps a guest from being found.

use aa_contract::{DomainName, ProfileName, Uuid};
use serde::Serialize;

use crate::domain;
use crate::error::Error;
use crate::seclabel;
use crate::xml::Document;

/// The format of [`Identity`], which is no record of the pipe: it has no rules, and aa-render refuses it.
const VERSION: u32 = 1;

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    version: u32,
    /// The profile that is the guest's.
    pub profile: ProfileName,
    /// The domain's name.
    pub name: DomainName,
    /// The domain's UUID.
    pub uuid: Uuid,
    /// Whether the guest is to be confined: it is, unless its label says that it is not (`<seclabel type='none'/>`).
    /// The last field, so that no text of the domain's stands behind it.
    pub confined: bool,
}

/// Reads who the guest is.
///
/// # Errors
/// [`Error`]: the XML is not well-formed, no domain, or has no name or UUID.
pub fn identify(xml: &[u8]) -> Result<Identity, Error> {
    let document = Document::parse(xml)?;
    let root = domain::find(&document)?;
    let (name, uuid) = domain::name_and_uuid(&root)?;
    let confined = !seclabel::asks_for_no_profile(&root);
    Ok(Identity { version: VERSION, profile: ProfileName::new(uuid), name, uuid, confined })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inner: &str) -> Result<String, Error> {
        let xml = format!(
            "<domain type='kvm'><name>g</name><uuid>A22E3930-d87a-584e-22b2-1d8950212bac</uuid>{inner}</domain>"
        );
        Ok(serde_json::to_string(&identify(xml.as_bytes())?).unwrap())
    }

    fn line(confined: bool) -> String {
        format!(
            r#"{{"version":1,"profile":"libvirt-a22e3930-d87a-584e-22b2-1d8950212bac","name":"g","uuid":"a22e3930-d87a-584e-22b2-1d8950212bac","confined":{confined}}}"#
        )
    }

    #[test]
    fn nothing_but_the_name_and_the_uuid_is_asked_for() {
        for inner in [
            "",
            "<devices><disk type='volume'><source pool='p' volume='v'/></disk></devices>",
            "<devices><emulator>/a/../b</emulator><disk type='file'><source file='/etc/shadow'/></disk></devices>",
        ] {
            assert_eq!(read(inner), Ok(line(true)), "{inner}");
        }
        assert!(identify(b"<domain type='kvm'><name>g</name></domain>").is_err());
        assert!(identify(b"<pool type='dir'><name>g</name></pool>").is_err());
        assert!(identify(b"<domain type='kvm'><name>g</name>").is_err());
    }

    #[test]
    fn only_a_label_that_says_so_leaves_a_guest_unconfined() {
        for labels in ["<seclabel type='none' model='apparmor'/>", "<seclabel type='none'/>"] {
            assert_eq!(read(labels), Ok(line(false)), "{labels}");
        }
        for labels in [
            "<seclabel type='none' model='dac'/>",
            "<seclabel type='dynamic' model='apparmor'/>",
            "<seclabel type='none'/><seclabel type='dynamic' model='apparmor'/>",
            "<!--<seclabel type='none' model='apparmor'/>-->",
            "<metadata><seclabel type='none' model='apparmor'/></metadata>",
            "<devices><disk><source><seclabel type='none' model='apparmor'/></source></disk></devices>",
        ] {
            assert_eq!(read(labels), Ok(line(true)), "{labels}");
        }
    }
}
