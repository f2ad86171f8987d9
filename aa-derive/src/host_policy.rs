//! The path policy as it holds on one host, on which huge pages may be mounted anywhere.

use std::cell::OnceCell;

use crate::host::Files;
use crate::mounts::HugePages;
use crate::path_policy::{Owner, PathPolicy, Reach, Restriction, Want};

/// What stands in the path of each directory that libvirt keeps for one guest below a mount of huge pages.
pub(crate) const OF_GUESTS: &str = "/libvirt/qemu/";

/// A path policy with a line for each place where this host has huge pages of other guests.
///
/// Where that is, is read once, and only if an answer depends on it.
#[derive(Debug)]
pub struct HostPolicy<'a> {
    policy: &'a PathPolicy,
    host: &'a Files,
    huge_pages: OnceCell<Option<HugePages>>,
    with_mounts: OnceCell<PathPolicy>,
}

impl<'a> HostPolicy<'a> {
    /// The policy for this host.
    pub fn new(policy: &'a PathPolicy, host: &'a Files) -> Self {
        Self { policy, host, huge_pages: OnceCell::new(), with_mounts: OnceCell::new() }
    }

    /// Where huge pages are mounted; none if that is not known.
    pub fn huge_pages(&self) -> Option<&HugePages> {
        self.huge_pages.get_or_init(|| HugePages::of(self.host)).as_ref()
    }

    /// Whether a path, its links followed, may be granted.
    ///
    /// # Errors
    /// The line of the policy that refuses it.
    pub fn check(&self, path: &str, reach: Reach, want: Want, owner: Owner<'_>) -> Result<(), Restriction> {
        let policy = self.policy_for(path, reach);
        policy.judge(path, reach, want, owner).map_err(|line| policy.restriction(line))
    }

    /// As [`PathPolicy::is_emulator`].
    pub fn is_emulator(&self, path: &str, resolved: &str, owner: Owner<'_>) -> bool {
        self.policy_for(resolved, Reach::File).is_emulator(path, resolved, owner)
    }

    /// Only what lies in libvirt's directories, and a tree that may hold them, depends on what is mounted: for most guests
    /// nobody has to look.
    fn policy_for(&self, path: &str, reach: Reach) -> &PathPolicy {
        if reach == Reach::File && !path.contains(OF_GUESTS) {
            return self.policy;
        }
        self.with_mounts.get_or_init(|| self.policy.with(self.huge_pages()))
    }
}
