//! Everything that keeps the program from being executed.

use std::ffi::OsString;
use std::io;

use nix::errno::Errno;
use thiserror::Error as ThisError;

use crate::label::Label;
use crate::procattr::Write;

/// A reason why nothing was executed. Place first, then what is wrong and what helps.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A link or a file is where the root of a kernel file system must be.
    #[error(
        "{place}: not a directory but a link or a file: what is written there would not reach the kernel"
    )]
    NotDirectory {
        /// The path.
        place: String,
    },
    /// The type of the file system is another one.
    #[error(
        "{place}: not {kind} but a file system of type {magic:#x}: what is there is not the kernel's word"
    )]
    OtherKind {
        /// The path.
        place: String,
        /// What it must be.
        kind: &'static str,
        /// `f_type` of statfs(2).
        magic: i64,
    },
    /// A part of the right file system is mounted in place of its root.
    #[error("{place}: not the root of a {kind} (inode {inode}): a part of one is mounted there")]
    NotRoot {
        /// The path.
        place: String,
        /// What it must be.
        kind: &'static str,
        /// The inode number found.
        inode: u64,
    },
    /// A mount or a link is in the way.
    #[error(
        "{place}: something is mounted over it, or a link leads out: a change written there would not reach the kernel"
    )]
    Covered {
        /// The path.
        place: String,
    },
    /// Older than Linux 5.6, or a filter on system calls: systemd's cannot look into the arguments of openat2.
    #[error(
        "the kernel has no openat2 (Linux 5.6), or a filter takes it away (as systemd's RestrictSUIDSGID= does), so /proc cannot be trusted"
    )]
    NoOpenat2,
    /// A file that must be there could not be opened or read.
    #[error("{place}: {}", told(.source))]
    Unreadable {
        /// The path.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// No module of that name in the kernel.
    #[error("AppArmor is not part of this kernel (no /sys/module/apparmor/parameters/enabled)")]
    NotBuiltIn,
    /// `apparmor=0`, or another security module took its place.
    #[error(
        "AppArmor is off: boot with apparmor=1 and apparmor in the kernel's list of security modules (lsm=)"
    )]
    Off,
    /// AppArmor's mode as a whole, in which every profile is.
    #[error(
        "{place}: AppArmor as a whole is in mode {mode:?}, and denies nothing: write \"enforce\" there, or give --allow-complain"
    )]
    ComplainsAsAWhole {
        /// The path.
        place: String,
        /// What it reads.
        mode: String,
    },
    /// The thread has no such attribute.
    #[error("{place}: no such file, so this kernel cannot change a profile")]
    NoAttribute {
        /// The path last tried.
        place: String,
    },
    /// The kernel took only a part of the name.
    #[error("{place}: the kernel took only a part of the profile's name")]
    ShortWrite {
        /// The path.
        place: String,
    },
    /// No profile of that name is loaded.
    #[error(
        "profile {profile:?} is not loaded: load it first (aa-load), or check the name and the namespace"
    )]
    UnknownProfile {
        /// As written to the kernel.
        profile: String,
    },
    /// The caller's own profile has no rule for the change.
    #[error(
        "the profile that confines aa-confine ({current}) does not allow changing to {profile:?}: it needs the rule: change_profile -> {rule:?},"
    )]
    NotAllowed {
        /// As written to the kernel.
        profile: String,
        /// The label of this process.
        current: String,
        /// The target of the rule that would allow it.
        rule: String,
    },
    /// `no_new_privs` forbids leaving the caller's profile.
    #[error(
        "no_new_privs is set, so this process cannot leave its profile ({current}) for {profile:?}: clear it, or use --stack"
    )]
    NoNewPrivs {
        /// As written to the kernel.
        profile: String,
        /// The label of this process.
        current: String,
    },
    /// The kernel does not understand the change.
    #[error(
        "{place}: the kernel does not take a change to {profile:?}: AppArmor is off here, or this is no name of a profile"
    )]
    NotUnderstood {
        /// As written to the kernel.
        profile: String,
        /// The path.
        place: String,
    },
    /// Any other refusal of the kernel.
    #[error("{place}: change to {profile:?} failed: {}", told(.source))]
    NotChanged {
        /// As written to the kernel.
        profile: String,
        /// The path.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The label could not be read.
    #[error("{place}: the label cannot be read back, so nothing is proven: {}", told(.source))]
    NotReadBack {
        /// The path.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// What was read is no label.
    #[error("{place}: reads {text:?}, which is no AppArmor label")]
    NotLabel {
        /// The path.
        place: String,
        /// What it holds.
        text: String,
    },
    /// The label that reads back is another one.
    #[error("asked for profile {wanted:?}, but the kernel reads back {found:?}")]
    OtherLabel {
        /// As written to the kernel.
        wanted: String,
        /// As read.
        found: String,
    },
    /// The profile only logs.
    #[error(
        "profile {profile:?} is in complain mode, which logs but denies nothing: load it in enforce mode, or give --allow-complain"
    )]
    ComplainMode {
        /// As written to the kernel.
        profile: String,
    },
    /// The stack's components differ in mode, so the profile's own mode is not known.
    #[error(
        "the stack {found:?} is of several modes, which does not prove that {profile:?} enforces: leave out --now, then its own mode can be read"
    )]
    MixedMode {
        /// As written to the kernel.
        profile: String,
        /// As read.
        found: String,
    },
    /// The profile is of a mode that enforces nothing.
    #[error("profile {profile:?} does not enforce anything: the kernel reads back {found:?}")]
    NotEnforced {
        /// As written to the kernel.
        profile: String,
        /// As read.
        found: String,
    },
    /// No command was given.
    #[error("no command to execute")]
    NoCommand,
    /// The command, or the interpreter it names, does not exist.
    #[error("{program:?}: not found: {}", told(.source))]
    NotFound {
        /// The command.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// The command cannot be executed.
    #[error("{program:?}: cannot be executed: {}{hint}", told(.source))]
    NotExecutable {
        /// The command.
        program: OsString,
        /// Why.
        source: io::Error,
        /// What else may be behind it; empty or starting with a space.
        hint: &'static str,
    },
}

impl Error {
    /// The exit status: 127 if the command was not found, 126 if it could not be executed, 125 for
    /// everything before that, as with env(1).
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }

    /// What the kernel's answer to the write of a profile's name means (`aa_change_profile` in the
    /// kernel's security/apparmor/domain.c).
    pub(crate) fn from_write(write: Write, place: String, source: io::Error, before: &Label) -> Self {
        let (rule, profile) = (write.rule_target(), write.name);
        let current = before.to_string();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => Self::UnknownProfile { profile },
            Some(Errno::EACCES) => Self::NotAllowed { profile, current, rule },
            Some(Errno::EPERM) => Self::NoNewPrivs { profile, current },
            Some(Errno::EINVAL) => Self::NotUnderstood { profile, place },
            _ => Self::NotChanged { profile, place, source },
        }
    }

    pub(crate) fn from_exec(program: OsString, source: io::Error, no_new_privs: bool) -> Self {
        let hint = match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => return Self::NotFound { program, source },
            Some(Errno::EPERM) if no_new_privs => {
                " (no_new_privs is set, so a confined process cannot change its profile: clear it, or use --stack)"
            }
            Some(Errno::EACCES) => {
                " (file permissions, or AppArmor: with --now or --stack the profile needs a rule for the program)"
            }
            _ => "",
        };
        Self::NotExecutable { program, source, hint }
    }
}

/// What the system says of a failure, as the other tools word it: in lower case, without Rust's `(os error N)`.
fn told(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Method, Moment};

    #[test]
    fn each_answer_to_the_write_has_its_own_meaning() {
        let before = "outer//&inner (enforce)".parse().unwrap();
        for (errno, words) in [
            (Errno::ENOENT, r#"profile "vm" is not loaded"#),
            (
                Errno::EACCES,
                r#"("inner" and "outer") does not allow changing to "vm": it needs the rule: change_profile -> "&vm","#,
            ),
            (Errno::EPERM, "no_new_privs is set"),
            (Errno::EINVAL, "AppArmor is off here"),
            (Errno::ENOMEM, "/p: change to \"vm\" failed"),
        ] {
            let write = Write { method: Method::Stack, moment: Moment::OnExec, name: "vm".to_owned() };
            let error = Error::from_write(write, "/p".to_owned(), errno.into(), &before);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.status(), 125);
        }
    }

    #[test]
    fn a_failed_exec_is_126_or_127() {
        for (errno, no_new_privs, status, words) in [
            (Errno::ENOENT, false, 127, "not found"),
            (Errno::EACCES, false, 126, "file permissions, or AppArmor"),
            (Errno::EPERM, true, 126, "no_new_privs"),
            (Errno::ENOEXEC, true, 126, "cannot be executed: exec format error"),
        ] {
            let error = Error::from_exec("a\nb".into(), errno.into(), no_new_privs);
            assert_eq!(error.status(), status, "{error}");
            assert!(
                error.to_string().starts_with(r#""a\nb": "#) && error.to_string().contains(words),
                "{error}"
            );
        }
        let quiet = Error::from_exec("x".into(), Errno::EPERM.into(), false);
        assert!(!quiet.to_string().contains("no_new_privs"));
    }

    #[test]
    fn the_program_takes_the_place_of_this_process_or_says_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        std::fs::write(&plain, "text").unwrap();
        assert_eq!(crate::execute(&[plain.into()]).status(), 126);
        assert_eq!(crate::execute(&[directory.path().join("absent").into()]).status(), 127);
        assert_eq!(crate::execute(&["no-such-program-anywhere".into()]).status(), 127);
        assert_eq!(crate::execute(&[]).status(), 125);
    }
}
