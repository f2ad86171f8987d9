//! Gives up what root may do besides: before any input is read, and for good.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// What this program keeps, if it has it: changing policy; reading records and definitions of other users; and
/// seeing all processes where procfs shows only those that one may trace (`hidepid=`).
const KEPT: [Capability; 3] =
    [Capability::CAP_MAC_ADMIN, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_SYS_PTRACE];
/// What the parser can get: its user is root, and root gets all that is in the bounding set.
const FOR_THE_PARSER: Capability = Capability::CAP_MAC_ADMIN;

/// Drops every capability of this thread, and so of those that it starts, that is not needed.
///
/// # Errors
/// The kernel refused.
pub(crate) fn drop_the_rest() -> Result<(), CapsError> {
    // Without this one a process cannot narrow its bounding set; nor has it much that it could give up.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)? {
            if capability != FOR_THE_PARSER {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|capability| permitted.contains(capability)).collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
