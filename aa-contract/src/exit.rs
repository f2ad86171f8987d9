//! The exit statuses that all filters share.

use std::process::{ExitCode, Termination};

/// Status of aa-derive, aa-render and aa-load (aa-confine has its own, which leave room for the command's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done and written.
    Done = 0,
    /// Some input was refused; each is named on standard error, the rest was done.
    Refused = 1,
    /// The call itself was wrong.
    Usage = 2,
    /// The host failed: input or output, no parser, no AppArmor, no privilege.
    Host = 3,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}
