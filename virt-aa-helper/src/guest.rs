//! The guest on standard input.

use std::io::Read;

use aa_contract::{Derived, ProfileName, VirtType};
use aa_derive::host::Files;
use aa_derive::path_policy::{self, PathPolicy};
use aa_derive::{Options, Terminals, derive};

use crate::error::Error;
use crate::host::Host;

/// Longest XML, in bytes: the limit of libvirt's helper.
const MAX_XML: u64 = 10 * 1024 * 1024;
/// What libvirt's helper takes in no name of a domain. Rules here are quoted and would be right; but a
/// guest that starts with one of the two helpers and not with the other would be a surprise.
const BAD_IN_NAME: [char; 10] = ['/', '[', ']', '{', '}', '?', '^', ',', '"', '*'];

/// A guest and what its XML asks for.
#[derive(Debug)]
pub struct Guest {
    /// The record.
    pub derived: Derived,
    /// What may never be granted.
    pub policy: PathPolicy,
    /// The host's files.
    pub files: Files,
}

impl Guest {
    /// Reads the XML and derives its rules.
    ///
    /// # Errors
    /// The XML is too large, refused, or of another guest than `profile`.
    pub fn read(host: &Host, profile: ProfileName, input: &mut dyn Read) -> Result<Self, Error> {
        let mut xml = Vec::new();
        input.take(MAX_XML + 1).read_to_end(&mut xml).map_err(Error::Input)?;
        if xml.len() as u64 > MAX_XML {
            return Err(Error::TooLarge);
        }
        let setup = |what, reason: String| Error::Setup { what, reason };
        let policy = PathPolicy::parse(path_policy::DEFAULT)
            .map_err(|error| setup("path policy", error.to_string()))?;
        let files = Files::new(&host.root).map_err(|error| setup("root directory", error.to_string()))?;
        // Volumes come as the files that they are; nothing denies, since a block commit could not undo it.
        // A terminal's path is printed where libvirt's own tests of its helper look for it.
        let options = Options { terminals: Terminals::Granted, ..Options::new(policy) };
        let derived = derive(&xml, &options, &files)?;
        let domain = derived.domain();
        if domain.name.as_str().contains(BAD_IN_NAME) {
            return Err(Error::DomainName(domain.name.as_str().to_owned()));
        }
        let is_known = match domain.virt_type {
            VirtType::Kvm | VirtType::Qemu => ["hvm", "linux", "xen", "xenpvh"].contains(&domain.os.as_str()),
            VirtType::Lxc => domain.os == "exe",
        };
        if !is_known {
            return Err(Error::OsType(domain.os.clone()));
        }
        if derived.profile() != profile {
            return Err(Error::OtherGuest { asked: profile, found: derived.profile() });
        }
        Ok(Self { derived, policy: options.policy, files })
    }
}
