//! Where a profile's files are, and how the base profile names them.

use std::path::{Path, PathBuf};

use aa_contract::{LiteralPath, ProfileName};

use crate::error::Error;

/// Where Debian, Ubuntu and SUSE keep AppArmor policy, and the parser's own default for `<…>`.
pub const POLICY_BASE: &str = "/etc/apparmor.d";
/// The directory of additions to every guest's profile.
pub const DROP_IN_FOR_ALL: &str = "guests.d";

/// The files of one profile, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The base profile: made once from the template, then the user's.
    Base,
    /// The rules, made anew each time.
    Rules,
    /// Rules that stay for a while, one JSON object a line.
    Grants,
    /// The directory of additions to this guest's profile.
    DropIn,
}

/// The file name of a part of a profile.
pub fn file_name(profile: ProfileName, part: Part) -> String {
    let suffix = match part {
        Part::Base => "",
        Part::Rules => ".files",
        Part::Grants => ".grants",
        Part::DropIn => ".d",
    };
    format!("{profile}{suffix}")
}

/// The profile directory and the directory that `<…>` includes are looked up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: LiteralPath,
    base: PathBuf,
}

impl Layout {
    /// A profile directory, made absolute, in a policy tree whose base is `base`.
    ///
    /// # Errors
    /// [`Error::Directory`]: the directory's name cannot be written into an include line; or
    /// [`Error::Io`]: the current directory is not known.
    pub fn new(dir: &Path, base: &Path) -> Result<Self, Error> {
        let fail = |reason| Error::Directory { path: dir.to_owned(), reason };
        let io = |source| Error::Io { path: dir.to_owned(), doing: "find", source };
        let mut absolute = std::path::absolute(dir).map_err(io)?;
        if absolute.components().any(|part| part == std::path::Component::ParentDir) {
            absolute = absolute.canonicalize().map_err(io)?;
        }
        let text = absolute.to_str().ok_or_else(|| fail("its name is not UTF-8"))?;
        let text = if text == "/" { text } else { text.trim_end_matches('/') };
        let Ok(literal) = LiteralPath::new(text) else {
            return Err(fail("its name is not a normal absolute path"));
        };
        // Measured with parsers 3.0.8 and 4.1.0: between quotes an include takes every byte as it is,
        // and there is no way to write a quote.
        if text.chars().any(|c| c == '"' || c.is_control()) {
            return Err(fail("its name has a quote or a control character, which no include can name"));
        }
        Ok(Self { dir: literal, base: base.to_owned() })
    }

    /// The profile directory, absolute.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref()
    }

    /// The directory that `<…>` includes are looked up in.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The absolute path of a part of a profile.
    ///
    /// # Errors
    /// [`Error::Directory`]: the path would be longer than Linux takes.
    pub fn path(&self, profile: ProfileName, part: Part) -> Result<LiteralPath, Error> {
        let name = file_name(profile, part);
        LiteralPath::new(format!("{}/{name}", self.dir.as_str().trim_end_matches('/')))
            .map_err(|_| Error::Directory { path: self.dir().to_owned(), reason: "its name is too long" })
    }

    /// What the base profile includes: the rules file, the additions of this guest, those of all.
    pub(crate) fn include_lines(&self, profile: ProfileName) -> String {
        let rules = file_name(profile, Part::Rules);
        let drop_in = file_name(profile, Part::DropIn);
        let rules = self.include_target(&rules);
        let drop_in = self.include_target(&drop_in);
        let for_all = self.include_target(DROP_IN_FOR_ALL);
        format!("  #include {rules}\n  include if exists {drop_in}\n  include if exists {for_all}\n")
    }

    /// `<libvirt/NAME>` where the parser looks that up here, and the quoted path elsewhere.
    fn include_target(&self, name: &str) -> String {
        if self.base.join("libvirt") == self.dir() {
            format!("<libvirt/{name}>")
        } else {
            format!("\"{}/{name}\"", self.dir.as_str().trim_end_matches('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_short_in_the_policy_tree_and_absolute_elsewhere() {
        let profile: ProfileName = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac".parse().unwrap();
        let base = Path::new(POLICY_BASE);
        let lines = Layout::new(&base.join("libvirt/"), base).unwrap().include_lines(profile);
        assert!(
            lines.starts_with("  #include <libvirt/libvirt-a22e3930-d87a-584e-22b2-1d8950212bac.files>\n")
        );
        let lines = Layout::new(Path::new("/srv/a b"), base).unwrap().include_lines(profile);
        assert!(lines.contains("include if exists \"/srv/a b/guests.d\"\n"), "{lines}");
        for bad in ["/srv/a\"b", "/srv/a\nb"] {
            assert!(Layout::new(Path::new(bad), base).is_err());
        }
        assert!(Layout::new(Path::new("rel"), base).unwrap().dir().is_absolute());
    }
}
