//! Executes a program under an AppArmor profile, or not at all.
//!
//! [`confine`] asks the kernel for the change and reads it back; [`execute`] replaces this process by
//! the program. Nothing is executed unless every step before it succeeded. Both must run on the same
//! thread, and the process must have no other: a change of profile is a thread's own.

pub mod args;

mod error;
mod label;
mod mount;
mod procattr;
mod sysfs;
mod target;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;

pub use error::Error;
pub use target::{NameError, Namespace, Profile, Target};

use crate::label::{Expected, Mismatch};
use crate::procattr::{ProcAttr, Write};

/// What to enter, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The profile to enter.
    pub target: Target,
    /// When the change happens.
    pub moment: Moment,
    /// What becomes of the caller's own confinement.
    pub method: Method,
    /// Whether complain mode will do.
    pub complain: Complain,
}

/// When the change happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At the next exec of this thread (`change_onexec`). The profile needs no rule for the program.
    OnExec,
    /// At once (`change_profile`), so that the profile itself must allow executing the program.
    Now,
}

/// What becomes of the caller's own confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The profile takes its place.
    Replace,
    /// The profile is added: what the program does must be allowed by both.
    Stack,
}

/// Whether a profile in complain mode, which denies nothing, will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complain {
    /// It will not.
    Refuse,
    /// The user has asked for it.
    Allow,
}

/// Changes this thread's profile as asked, or sees to it that its next exec does.
///
/// # Errors
///
/// /proc is not procfs, AppArmor is off or enforces nothing, the kernel refused the change, or the label that
/// reads back is not the profile in enforce mode. The caller must then execute nothing.
pub fn confine(request: &Request) -> Result<(), Error> {
    let attributes = ProcAttr::open()?;
    sysfs::require_apparmor(request.complain)?;
    let before = attributes.current()?;
    let wanted = request.target.kernel_name();
    let write = Write { method: request.method, moment: request.moment, name: wanted.clone() };
    let found = attributes.change(write, &before)?;
    let expected = Expected {
        target: &request.target,
        moment: request.moment,
        method: request.method,
        before: &before,
        complain: request.complain,
    };
    expected.accepts(&found.label).map_err(|mismatch| refusal(mismatch, wanted, found.text))
}

fn refusal(mismatch: Mismatch, wanted: String, found: String) -> Error {
    match mismatch {
        Mismatch::Name => Error::OtherLabel { wanted, found },
        Mismatch::Complain => Error::ComplainMode { profile: wanted },
        Mismatch::Mixed => Error::MixedMode { profile: wanted, found },
        Mismatch::NotEnforced => Error::NotEnforced { profile: wanted, found },
    }
}

/// Replaces this process by the command (its name, looked up in `PATH` if it has no slash, and its
/// arguments); returns only if that failed. Environment, working directory and open files stay. Not so
/// what Rust's library changes before main, and nobody can tell afterwards: a SIGPIPE that was ignored is as by
/// default, and a standard stream that was closed is /dev/null.
pub fn execute(command: &[OsString]) -> Error {
    let Some((program, arguments)) = command.split_first() else {
        return Error::NoCommand;
    };
    let source = Command::new(program).args(arguments).exec();
    let no_new_privs = prctl::get_no_new_privs().unwrap_or(false);
    Error::from_exec(program.clone(), source, no_new_privs)
}
