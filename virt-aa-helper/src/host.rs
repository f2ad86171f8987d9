//! Where the helper works: the real places, or a tree that stands for them in tests.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aa_load::parser::Parser;
use aa_render::Layout;

use crate::error::Error;

/// A run of the parser takes two seconds in an emulated guest, some 70 ms otherwise.
const PARSER_TIME: Duration = Duration::from_secs(60);

/// The host's places. None of them can be set from outside.
#[derive(Debug, Clone)]
pub struct Host {
    /// The profile directory, and the policy tree it is in, with the templates.
    pub layout: Layout,
    /// What stands for `/` where the guest's files are looked at.
    pub root: PathBuf,
    /// A mounted procfs.
    pub proc: PathBuf,
    /// The parser, if not the installed one.
    pub parser: Option<PathBuf>,
    /// Longest that one run of the parser may take.
    pub parser_time: Duration,
}

impl Host {
    /// The machine itself.
    ///
    /// # Errors
    /// Never with these names; [`Error::Render`] by signature.
    pub fn installed() -> Result<Self, Error> {
        let base = Path::new(aa_render::layout::POLICY_BASE);
        Ok(Self {
            layout: Layout::new(&base.join("libvirt"), base)?,
            root: "/".into(),
            proc: "/proc".into(),
            parser: None,
            parser_time: PARSER_TIME,
        })
    }

    /// The parser, looked for only when it is needed: a dry run works without.
    ///
    /// # Errors
    /// [`Error::Parser`]: it is not installed.
    pub fn parser(&self) -> Result<Parser, Error> {
        Ok(Parser::find(self.parser.as_deref())?.with_time(self.parser_time))
    }

    /// Whether this process has the profile of libvirt's own helper, under which a file cannot be locked nor
    /// the directory be opened. Each attempt would be a denial in the system's log, in every call; that of the list
    /// of mounts is one that this profile asks the kernel to keep quiet about, and that ours permits.
    pub fn is_caged(&self) -> bool {
        File::open(self.proc.join("self/mounts"))
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }
}
