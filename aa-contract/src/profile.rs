//! The name of a guest's profile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::text::Printable;

const PREFIX: &str = "libvirt-";

/// The name of a guest's profile: `libvirt-` and the UUID in its 36-character lower-case form, as
/// libvirt's AppArmor driver names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "String", extend("pattern" = "^libvirt-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
)]
pub struct ProfileName(Uuid);

/// The text is not `libvirt-<uuid>`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{}\" is not a profile name: it must be libvirt- and a lower-case UUID", Printable(.0))]
pub struct ProfileNameError(String);

impl ProfileName {
    /// The profile of the guest with this UUID.
    pub fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The guest's UUID.
    pub fn uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0.hyphenated())
    }
}

impl FromStr for ProfileName {
    type Err = ProfileNameError;
    fn from_str(text: &str) -> Result<Self, ProfileNameError> {
        // The uuid crate takes more spellings than the canonical one; only that one may name a profile.
        text.strip_prefix(PREFIX)
            .and_then(|rest| Uuid::try_parse(rest).ok())
            .map(Self)
            .filter(|name| name.to_string() == text)
            .ok_or_else(|| ProfileNameError(text.to_owned()))
    }
}

impl TryFrom<String> for ProfileName {
    type Error = ProfileNameError;
    fn try_from(text: String) -> Result<Self, ProfileNameError> {
        text.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_a_name() {
        let good = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac";
        assert_eq!(good.parse::<ProfileName>().unwrap().to_string(), good);
        for bad in [
            "",
            "libvirt-",
            "a22e3930-d87a-584e-22b2-1d8950212bac",
            "libvirt-A22E3930-d87a-584e-22b2-1d8950212bac",
            "libvirt-a22e3930d87a584e22b21d8950212bac",
            "libvirt-{a22e3930-d87a-584e-22b2-1d8950212bac}",
            "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac\n",
            "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac//x",
        ] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad}");
        }
    }
}
