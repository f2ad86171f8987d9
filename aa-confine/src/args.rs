//! The command line.

use std::ffi::OsString;

use crate::{Complain, Method, Moment, Namespace, Profile, Request, Target};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgGroup, CommandFactory, Parser};

/// Executes COMMAND under an AppArmor profile, or does not execute it at all.
///
/// The profile must be loaded and in enforce mode. The change is written to the kernel, read back,
/// and only then is COMMAND executed, in this same process: process id, environment, working
/// directory and open files stay the caller's. Not so SIGPIPE, which is as by default again, and a
/// standard stream that was closed, which is /dev/null.
#[derive(Debug, Parser)]
#[command(
    name = "aa-confine",
    version,
    after_help = "Exit status: 125 aa-confine failed, 126 not executable, 127 not found, else COMMAND's (see --help)",
    after_long_help = "\
Examples:
  aa-confine --uuid a22e3930-d87a-584e-22b2-1d8950212bac -- qemu-system-x86_64 -M q35
      under the guest's profile
  aa-confine --profile libvirt-a22e3930-d87a-584e-22b2-1d8950212bac --now -- /usr/bin/qemu-img info vm.img
      not where aa-confine runs under the profile that is installed for it, whose head says why
  aa-confine --stack --profile no-network -- ./build.sh
      what confines the caller holds as well; not under that profile either

Exit status:
  125  aa-confine itself failed (usage, AppArmor off, unknown profile, complain mode,
       a /proc that is not procfs, a label that does not read back): nothing was executed
  126  COMMAND was found but could not be executed
  127  COMMAND was not found
  else the status of COMMAND"
)]
#[command(group(ArgGroup::new("target").required(true).args(["profile", "uuid"])))]
pub struct Args {
    /// The profile to enter, by its full name (PARENT//CHILD for a child profile)
    #[arg(long, value_name = "NAME")]
    profile: Option<Profile>,

    /// The guest whose profile to enter: libvirt-UUID
    #[arg(long, value_name = "UUID", value_parser = Profile::of_guest)]
    uuid: Option<Profile>,

    /// Change at once and not at the exec: the profile itself must then allow executing COMMAND. Nobody can
    /// take the profile away any more between the look at it and the exec
    #[arg(long)]
    now: bool,

    /// Add the profile to the caller's own confinement; both must allow whatever COMMAND does
    #[arg(long)]
    stack: bool,

    /// The policy namespace that holds the profile (PARENT//CHILD for a nested one)
    #[arg(long, value_name = "NS")]
    namespace: Option<Namespace>,

    /// Take a profile, and AppArmor as a whole, in complain mode too, which only logs and confines nothing
    #[arg(long)]
    allow_complain: bool,

    /// The program, looked up in PATH if it has no slash, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Args {
    /// Reads the command line: what to do, and the command to do it to.
    ///
    /// # Errors
    /// It is not understood, or asks for help.
    pub fn read() -> Result<(Request, Vec<OsString>), clap::Error> {
        Self::try_parse().map_err(with_tip).and_then(Self::into_request)
    }

    /// What to do, and the command to do it to.
    ///
    /// # Errors
    /// Neither a profile nor a guest is named; clap has refused that before.
    pub fn into_request(self) -> Result<(Request, Vec<OsString>), clap::Error> {
        let Some(profile) = self.profile.or(self.uuid) else {
            let missing = "one of --profile and --uuid is needed";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, missing));
        };
        let request = Request {
            target: Target { namespace: self.namespace, profile },
            moment: if self.now { Moment::Now } else { Moment::OnExec },
            method: if self.stack { Method::Stack } else { Method::Replace },
            complain: if self.allow_complain { Complain::Allow } else { Complain::Refuse },
        };
        Ok((request, self.command))
    }
}

/// A word that is no option is the command, without what parts it from aa-confine's own options.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let is_command =
        |word: &ContextValue| matches!(word, ContextValue::String(word) if !word.starts_with('-'));
    if error.kind() == ErrorKind::UnknownArgument
        && error.get(ContextKind::InvalidArg).is_some_and(is_command)
    {
        let tip = ContextValue::StyledStrs(vec!["write -- before the command".into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}
