//! The command line.

use std::path::PathBuf;

use aa_contract::access::split_access;
use aa_contract::{Access, Glob, LiteralPath};
use clap::Parser;

/// Turns libvirt domain XML into the file rules that each guest needs: one JSON record a line.
#[derive(Debug, Parser)]
#[command(name = "aa-derive", version, after_help = AFTER)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub struct Args {
    /// Domain XML: files, directories walked for *.xml (links are not followed), or - for standard input
    #[arg(value_name = "XML|DIR|-", default_value = "-")]
    pub inputs: Vec<PathBuf>,
    /// Take DIR for / wherever host files are looked at
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Also grant FILE, with ACCESS [default: rwk]; repeatable
    #[arg(long, value_name = "FILE[:ACCESS]", value_parser = addition)]
    pub add: Vec<(LiteralPath, Access)>,
    /// Also grant what the AppArmor pattern GLOB matches, with ACCESS [default: rwk]; repeatable
    #[arg(long, value_name = "GLOB[:ACCESS]", value_parser = glob_addition)]
    pub add_glob: Vec<(Glob, Access)>,
    /// Storage pool XML, a file or a directory of files, that disks of type volume are resolved through; repeatable
    #[arg(long, value_name = "PATH")]
    pub pools: Vec<PathBuf>,
    /// Read no image header: backing files are granted only where the XML names them
    #[arg(long)]
    pub no_probe: bool,
    /// Use the path policy in FILE instead of the built-in one
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Print the built-in path policy and exit
    #[arg(long)]
    pub print_policy: bool,
    /// Refuse a domain with anything missing, unreadable or unknown, instead of noting it in the record
    #[arg(long)]
    pub strict: bool,
    /// Do not warn of what gets no rule; the record's notes have it in any case
    #[arg(long)]
    pub quiet: bool,
    /// Deny writing to what is only read, as libvirt's helper does (a block commit into it then fails)
    #[arg(long)]
    pub deny_readonly: bool,
    /// Fail unless Landlock confines this program fully (Linux 6.12); by default it goes on with what the kernel has
    #[arg(long)]
    pub require_sandbox: bool,
    /// Print who each guest is and nothing else: no file is looked at, nothing in the XML is judged
    #[arg(long, conflicts_with_all = ["add", "add_glob", "pools", "no_probe", "policy", "strict", "quiet", "deny_readonly"])]
    pub identify: bool,
    /// Write each record over several lines, for people; aa-render does not read that
    #[arg(long)]
    pub pretty: bool,
}

const AFTER: &str = "\
Examples:
  virsh dumpxml vm | aa-derive | aa-render | aa-load
  aa-derive /etc/libvirt/qemu | aa-render | aa-load
  aa-derive --pools /etc/libvirt/storage vm.xml
  aa-derive vm.xml | jq -c '.rules += [{\"path\":\"/srv/key\",\"access\":\"r\"}]' | aa-render

Exit status:
  0  every domain was derived
  1  some input was refused; each is named on standard error, the others were derived
  2  the call was wrong
  3  the host failed: input or output

In a pipe, use \"set -o pipefail\": an empty input is no error for the next tool.";

/// A path with an access behind its last colon, if there is one.
fn addition(text: &str) -> Result<(LiteralPath, Access), String> {
    let (path, access) = split_access(text).map_err(|error| error.to_string())?;
    LiteralPath::new(path).map(|path| (path, access)).map_err(|error| error.to_string())
}

/// A pattern with an access behind its last colon, if there is one.
fn glob_addition(text: &str) -> Result<(Glob, Access), String> {
    let (glob, access) = split_access(text).map_err(|error| error.to_string())?;
    Glob::new(glob).map(|glob| (glob, access)).map_err(|error| error.to_string())
}
