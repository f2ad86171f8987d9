//! The command line, as it is written; no behaviour.

use std::path::PathBuf;

use aa_contract::access::{NotAnAccess, split_access};
use aa_contract::{Access, ProfileName, Reason, Uuid};
use clap::{ArgGroup, Parser};

const EXAMPLES: &str = "\
Examples:
  virsh dumpxml vm | aa-derive | aa-render | aa-load
  aa-derive vm.xml | aa-render --stdout | apparmor_parser -QTK
  aa-derive /etc/libvirt/qemu | aa-render --diff
  aa-render --add /srv/backup.img:rw --reason 'nightly backup' --uuid \"$UUID\" | aa-load
  aa-render --drop /srv/backup.img --uuid \"$UUID\" | aa-load

Additions that last go into DIR/libvirt-<uuid>.d/ for one guest and DIR/guests.d/ for all.

Exit status:
  0  every record was rendered
  1  a record, grant or template was refused, or what a file of the profile says; each is named, the rest was done
  2  the call was wrong
  3  the host failed: input or output, a template that is not there, a file of the profile that is no regular file
     owned by root or the caller

In a pipe, use \"set -o pipefail\": an empty input is no error for the next tool.";

/// Makes AppArmor profiles: reads aa-derive's records, writes profile files, and prints a record of
/// each profile for aa-load
#[derive(Debug, Clone, Parser)]
#[command(name = "aa-render", version, after_help = EXAMPLES)]
#[command(group(ArgGroup::new("output").args(["stdout", "diff"])))]
#[command(group(ArgGroup::new("grant").args(["add", "drop"])))]
#[command(group(ArgGroup::new("guest").args(["uuid", "profile"])))]
#[command(group(ArgGroup::new("mode").args(["complain", "enforce"])))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// Profile directory
    #[arg(long, value_name = "DIR", default_value = "/etc/apparmor.d/libvirt")]
    pub dir: PathBuf,
    /// Directory that <…> includes are looked up in
    #[arg(long, value_name = "DIR", default_value = crate::layout::POLICY_BASE)]
    pub base: PathBuf,
    /// Take TEMPLATE.qemu and TEMPLATE.lxc from this directory only
    #[arg(long, value_name = "DIR", conflicts_with = "minimal")]
    pub template_dir: Option<PathBuf>,
    /// Print each profile whole, with its rules in it; touch nothing
    #[arg(long, conflicts_with_all = ["append", "renew"])]
    pub stdout: bool,
    /// Keep the rules that the rules file already has
    #[arg(long)]
    pub append: bool,
    /// Print the records of what would be done; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print what would change as a unified diff; write nothing
    #[arg(long)]
    pub diff: bool,
    /// Only log what the profile would deny; stays until --enforce
    #[arg(long)]
    pub complain: bool,
    /// Enforce the profile again
    #[arg(long)]
    pub enforce: bool,
    /// Allow what this guest uses and nothing else, without libvirt's abstraction
    #[arg(long)]
    pub minimal: bool,
    /// Make the base profile again even if there is one
    #[arg(long)]
    pub renew: bool,
    /// Grant a path for a while, through every new rendering [access: rwk]
    #[arg(long, value_name = "PATH[:ACCESS]", value_parser = grant, requires_all = ["reason", "guest"])]
    #[arg(conflicts_with_all = ["input", "stdout", "append", "mode", "minimal", "renew", "template_dir"])]
    pub add: Option<(String, Access)>,
    /// Take back what --add granted
    #[arg(long, value_name = "PATH", requires = "guest")]
    #[arg(conflicts_with_all = ["input", "stdout", "append", "mode", "minimal", "renew", "template_dir", "reason"])]
    pub drop: Option<String>,
    /// Why the path is granted
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Reason::new(text), requires = "add")]
    pub reason: Option<Reason>,
    /// The guest that --add and --drop are about
    #[arg(long, value_name = "UUID", requires = "grant")]
    pub uuid: Option<Uuid>,
    /// The same, by its profile
    #[arg(long, value_name = "NAME", requires = "grant")]
    pub profile: Option<ProfileName>,
    /// Files with records of aa-derive, or - for standard input, which is read if there is none
    #[arg(value_name = "FILE|-")]
    pub input: Vec<PathBuf>,
}

/// A path, and the access behind its last colon if there is one. Whether it is a path is said when it is granted.
fn grant(text: &str) -> Result<(String, Access), NotAnAccess> {
    let (path, access) = split_access(text)?;
    Ok((path.to_owned(), access))
}
