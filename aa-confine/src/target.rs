//! The names of what is entered: a profile, and the policy namespace that holds it.

use std::str::FromStr;

use thiserror::Error;

/// Between the components of a stacked label.
pub(crate) const STACK_SEPARATOR: &str = "//&";
/// What the kernel calls the absence of a profile.
pub(crate) const UNCONFINED: &str = "unconfined";

/// The full name of a profile within its namespace (a child is `parent//child`), such that the
/// kernel reads it as this one name: neither a stack nor a namespace can hide in it, and nothing
/// of it is trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile(String);

/// A policy namespace as seen from the caller's, `parent//child` if nested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

/// A profile and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// None for the caller's own namespace.
    pub namespace: Option<Namespace>,
    /// The profile in it.
    pub profile: Profile,
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// A NUL, line feed or other control character.
    #[error("it holds a control character")]
    Control,
    /// The kernel trims white space off the ends, and would so look for another profile.
    #[error("the kernel drops white space at its ends, so it can never be found")]
    Trimmed,
    /// A leading `:`.
    #[error("a leading \":\" means a namespace; give that with --namespace")]
    NamespaceInside,
    /// `//&`, or a leading `&`.
    #[error("\"&\" there means a stack of profiles; give one profile, and --stack to add it to the caller's")]
    StackInside,
    /// The word `unconfined`.
    #[error("\"unconfined\" is no profile but the lack of one")]
    Unconfined,
    /// Not the 36 characters of a UUID.
    #[error("not a UUID (8-4-4-4-12 hexadecimal digits)")]
    NotUuid,
    /// An empty part, a single slash or a colon in a namespace.
    #[error("a namespace is a name without \":\" and \"/\", or several of them joined by \"//\"")]
    NotNamespace,
}

impl Profile {
    /// The profile of the guest with this UUID, `libvirt-<uuid>` in lower case, as libvirt's
    /// AppArmor driver names it.
    ///
    /// # Errors
    ///
    /// The text is not a UUID in its 36-character form.
    pub fn of_guest(uuid: &str) -> Result<Self, NameError> {
        let hyphens = [8, 13, 18, 23];
        let fits = |(place, byte): (usize, u8)| {
            if hyphens.contains(&place) { byte == b'-' } else { byte.is_ascii_hexdigit() }
        };
        if uuid.len() != 36 || !uuid.bytes().enumerate().all(fits) {
            return Err(NameError::NotUuid);
        }
        Ok(Self(format!("libvirt-{}", uuid.to_ascii_lowercase())))
    }

    /// The name, as it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Profile {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        no_control(text)?;
        if text.starts_with(' ') || text.bytes().next_back().is_some_and(is_kernel_space) {
            return Err(NameError::Trimmed);
        }
        if text.starts_with(':') {
            return Err(NameError::NamespaceInside);
        }
        if text.starts_with('&') || text.contains(STACK_SEPARATOR) {
            return Err(NameError::StackInside);
        }
        if text == UNCONFINED {
            return Err(NameError::Unconfined);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Namespace {
    /// The name, as it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        no_control(text)?;
        let good = |part: &str| {
            !part.is_empty() && !matches!(part, "." | "..") && !part.contains([':', '/', '&', ' '])
        };
        if text.split("//").all(good) { Ok(Self(text.to_owned())) } else { Err(NameError::NotNamespace) }
    }
}

impl Target {
    /// The name as it is written to the kernel: `name`, or `:namespace://name`.
    pub fn kernel_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!(":{}://{}", namespace.0, self.profile.0),
            None => self.profile.0.clone(),
        }
    }
}

fn no_control(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.chars().any(char::is_control) { Err(NameError::Control) } else { Ok(()) }
}

/// White space by the kernel's table (lib/ctype.c), which goes by bytes: 0xa0 is Latin-1's
/// no-break space and also the last byte of many a UTF-8 letter. Control characters are refused before.
fn is_kernel_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0xa0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_is_taken_as_it_is() {
        for name in [
            "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac",
            "parent//child",
            "/usr/bin/foo",
            "my profile (old)",
            "a&b",
            "x:y",
            "größe",
            "unconfined2",
        ] {
            let profile: Profile = name.parse().unwrap();
            assert_eq!(Target { namespace: None, profile }.kernel_name(), name);
        }
    }

    #[test]
    fn a_name_that_the_kernel_would_read_otherwise_is_refused() {
        for (name, why) in [
            ("", NameError::Empty),
            ("vm\n", NameError::Control),
            ("v\0m", NameError::Control),
            ("vm\u{85}", NameError::Control),
            (" vm", NameError::Trimmed),
            ("vm ", NameError::Trimmed),
            ("voilà", NameError::Trimmed),
            (":ns:vm", NameError::NamespaceInside),
            ("&vm", NameError::StackInside),
            ("vm//&unconfined", NameError::StackInside),
            ("unconfined", NameError::Unconfined),
        ] {
            assert_eq!(name.parse::<Profile>(), Err(why), "{name:?}");
        }
    }

    #[test]
    fn a_guest_has_the_same_profile_name_here_as_in_the_records() {
        let uuid = "A22E3930-d87a-584e-22b2-1d8950212bac";
        let theirs = aa_contract::ProfileName::new(uuid.parse().unwrap());
        assert_eq!(Profile::of_guest(uuid).unwrap().as_str(), theirs.to_string());
        for bad in [
            "",
            "a22e3930d87a584e22b21d8950212bac",
            "{a22e3930-d87a-584e-22b2-1d8950212bac}",
            "a22e3930-d87a-584e-22b2-1d8950212bag",
            "a22e3930-d87a-584e-22b2-1d8950212bac\n",
            "a22e3930-d87a-584e-22b2-1d8950212ba\u{e9}",
            "a22e3930-d87a-584e-22b2-1d8950212bac//x",
        ] {
            assert_eq!(Profile::of_guest(bad), Err(NameError::NotUuid), "{bad:?}");
        }
    }

    #[test]
    fn a_namespace_goes_before_the_name() {
        let target = |namespace: &str| Target {
            namespace: Some(namespace.parse().unwrap()),
            profile: "vm".parse().unwrap(),
        };
        assert_eq!(target("u1000").kernel_name(), ":u1000://vm");
        assert_eq!(target("a//b").kernel_name(), ":a//b://vm");
        for bad in ["", "a:b", "a/b", "a//", "//a", "..", "a//.", "a///b", "a b", "a\n", "//&a"] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad:?}");
        }
    }
}
