//! Paths as rules name them: literals, and patterns.

use std::path::Path;
use std::{fmt, slice};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::matching::Steps;
use crate::quote::escape_literal;
use crate::rule::Target;
use crate::text::Printable;

/// Longest path or pattern accepted, in bytes. Linux takes paths of up to 4,095 bytes
/// (`PATH_MAX` less the terminator, `path_resolution(7)`); a literal pattern may be four times that.
pub const MAX_PATH: usize = 4095;
const MAX_GLOB: usize = 4 * MAX_PATH;

/// Why a path or a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// The path is empty or does not start with `/`.
    #[error("\"{}\" is not an absolute path", Printable(.0))]
    Relative(String),
    /// The path has a NUL byte, which no file name can hold.
    #[error("\"{}\" has a NUL byte", Printable(.0))]
    Nul(String),
    /// The path has an empty, `.` or `..` component, so it is not the name the kernel will see.
    #[error("\"{}\" is not normal: it has an empty, \".\" or \"..\" component", Printable(.0))]
    NotNormal(String),
    /// The path is longer than Linux takes.
    #[error("a path of {0} bytes is longer than the {MAX_PATH} that Linux takes")]
    TooLong(usize),
    /// The pattern is not one that the AppArmor parser reads in one way only.
    #[error("\"{}\" is not a pattern that AppArmor reads in one way only: {reason}", Printable(.pattern))]
    BadGlob {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// An absolute, normal path in which every byte means itself.
///
/// It has no NUL, no empty, `.` or `..` component. A trailing `/` is allowed and means the
/// directory itself, as in an AppArmor rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = "^/")))]
pub struct LiteralPath(String);

impl LiteralPath {
    /// Checks and takes a path.
    ///
    /// # Errors
    /// Any [`PathError`] but [`PathError::BadGlob`].
    pub fn new(path: impl Into<String>) -> Result<Self, PathError> {
        let path = path.into();
        if !path.starts_with('/') {
            return Err(PathError::Relative(path));
        }
        if path.contains('\0') {
            return Err(PathError::Nul(path));
        }
        if path.len() > MAX_PATH {
            return Err(PathError::TooLong(path.len()));
        }
        if !components_are_normal(&path) {
            return Err(PathError::NotNormal(path));
        }
        Ok(Self(path))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same path as a directory rule: with exactly one trailing `/`.
    #[must_use]
    pub fn as_directory(&self) -> Self {
        if self.0.ends_with('/') { self.clone() } else { Self(format!("{}/", self.0)) }
    }
}

/// No component between two slashes is empty, `.` or `..`; a trailing slash is fine.
fn components_are_normal(path: &str) -> bool {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() {
        return path == "/";
    }
    inner.as_bytes().split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

impl fmt::Display for LiteralPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for LiteralPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl TryFrom<String> for LiteralPath {
    type Error = PathError;
    fn try_from(path: String) -> Result<Self, PathError> {
        Self::new(path)
    }
}

impl From<LiteralPath> for String {
    fn from(path: LiteralPath) -> Self {
        path.0
    }
}

/// An AppArmor pattern, in the part of the language that can be read in one way only.
///
/// It starts with `/`; braces and brackets are balanced; a backslash is followed by three octal
/// digits or by one of ``"*?[]{}^,``; there is no variable but `@{multiarch}`, no raw quote, no control character and
/// no empty, `.` or `..` component. So it can stand between double quotes as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = "^/")))]
pub struct Glob(String);

impl Glob {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// [`PathError`]: what is wrong with the pattern.
    pub fn new(pattern: impl Into<String>) -> Result<Self, PathError> {
        let pattern = pattern.into();
        if !pattern.starts_with('/') {
            return Err(PathError::Relative(pattern));
        }
        if pattern.len() > MAX_GLOB {
            return Err(PathError::TooLong(pattern.len()));
        }
        match check_glob(&pattern) {
            Ok(()) => Ok(Self(pattern)),
            Err(reason) => Err(PathError::BadGlob { pattern, reason }),
        }
    }

    /// The literal directory `dir` followed by `suffix`, a pattern of this tool's own such as
    /// `**` or `{,**}`; a `/` stands between the two.
    ///
    /// # Errors
    /// [`PathError`]: the suffix is not a pattern, or the whole is too long.
    pub fn below(dir: &LiteralPath, suffix: &str) -> Result<Self, PathError> {
        Self::behind(&dir.as_directory(), suffix)
    }

    /// The literal `prefix` followed by `suffix`, a pattern of this tool's own such as `[0-9]*`.
    ///
    /// # Errors
    /// As [`Glob::below`].
    pub fn behind(prefix: &LiteralPath, suffix: &str) -> Result<Self, PathError> {
        let mut pattern = String::new();
        escape_literal(prefix.as_str(), &mut pattern);
        pattern.push_str(suffix);
        Self::new(pattern)
    }

    /// Whether the pattern matches all of a path. Where the parser is narrower (a `*` behind a slash must match
    /// something, a variable has its values alone), this is not: it is asked what a rule must not reach.
    pub fn matches(&self, path: &LiteralPath) -> bool {
        Steps::of(&self.0).match_all(path.as_str())
    }

    /// Whether this is `DIR/{,**}` or `DIR/**` for a literal DIR, and a rule for it grants all of `target` too. Of any other
    /// pattern this is not told: false.
    pub fn has_below(&self, target: &Target) -> bool {
        let whole = self.0.strip_suffix("{,**}");
        let Some(dir) = whole.or_else(|| self.0.strip_suffix("**")) else { return false };
        // What is quoted has none of these.
        if !dir.ends_with('/') || dir.contains(['*', '?', '[', '{']) {
            return false;
        }
        let mut quoted = String::new();
        let text = match target {
            Target::Glob(glob) => glob.as_str(),
            Target::Path(path) => {
                escape_literal(path.as_str(), &mut quoted);
                &quoted
            }
        };
        // Of `DIR/**` the directory itself is no part, which a brace may stand for.
        text.strip_prefix(dir)
            .is_some_and(|rest| whole.is_some() || !rest.is_empty() && !rest.starts_with('{'))
    }

    /// The pattern as it stands between double quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Glob {
    type Error = PathError;
    fn try_from(pattern: String) -> Result<Self, PathError> {
        Self::new(pattern)
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

/// Variables that AppArmor's own tunables always define, behind `@{`: the library directory of each architecture.
const VARIABLES: [&str; 1] = ["multiarch}"];

const UNCLOSED: &str = "an opening brace or bracket without a closing one";
const CONTROL: &str = "a control character must be written as three octal digits";

/// One pass over the pattern; see [`Glob`] for what is accepted.
fn check_glob(pattern: &str) -> Result<(), &'static str> {
    let mut bytes = pattern.as_bytes().iter();
    // For each open brace, whether it has more than one choice by now.
    let mut braces: Vec<bool> = Vec::new();
    let mut after_at = false;
    while let Some(&byte) = bytes.next() {
        let was_at = std::mem::take(&mut after_at);
        match byte {
            b'\\' => after_at = check_escape(&mut bytes)?,
            b'{' if was_at => {
                match VARIABLES.iter().find_map(|name| bytes.as_slice().strip_prefix(name.as_bytes())) {
                    Some(rest) => bytes = rest.iter(),
                    None => return Err("this variable is not expanded here: write the brace as \\173"),
                }
            }
            b'{' => braces.push(false),
            b',' => braces.last_mut().into_iter().for_each(|has_choice| *has_choice = true),
            b'}' => match braces.pop() {
                Some(true) => {}
                Some(false) => return Err("braces hold two choices or more, with a comma between"),
                None => return Err("a closing brace without an opening one"),
            },
            b'[' => check_bracket(&mut bytes)?,
            b']' => return Err("a closing bracket without an opening one"),
            b'"' => return Err("a quote must be written as \\042"),
            0..=0x1f | 0x7f => return Err(CONTROL),
            b'@' => after_at = true,
            _ => {}
        }
    }
    if !braces.is_empty() {
        return Err(UNCLOSED);
    }
    if pattern.split('/').skip(1).any(|part| matches!(part, "." | "..")) || pattern.contains("//") {
        return Err("it has an empty, \".\" or \"..\" component");
    }
    Ok(())
}

/// What stands behind a backslash. Says whether it is an `@`.
fn check_escape(bytes: &mut slice::Iter<'_, u8>) -> Result<bool, &'static str> {
    let first = *bytes.next().ok_or("a backslash at the end")?;
    if !first.is_ascii_digit() {
        return if b"\"*?[]{}^,".contains(&first) {
            Ok(false)
        } else {
            Err("a backslash may stand only before three octal digits or one of \"*?[]{}^,")
        };
    }
    let (second, third) = (*bytes.next().unwrap_or(&b'x'), *bytes.next().unwrap_or(&b'x'));
    let octal = |d: u8| (b'0'..=b'7').contains(&d);
    if !((b'0'..=b'3').contains(&first) && octal(second) && octal(third)) {
        return Err("a backslash and a digit must be three octal digits up to 377");
    }
    match (first, second, third) {
        (b'0', b'0', b'0') => Err("no path holds a NUL byte"),
        (b'0', b'5', b'6' | b'7') => Err("dots and slashes must be written plainly"),
        (b'1', b'0', b'0') => Ok(true),
        _ => Ok(false),
    }
}

/// Whether a byte means itself between brackets.
fn is_plain(byte: u8) -> bool {
    !byte.is_ascii_control() && !b"/[]{}\"\\,".contains(&byte)
}

/// What stands between brackets, up to the closing one. A `-` is itself in the first place and makes a range between two
/// characters; anywhere else the parser (3.0.8) refuses the profile.
fn check_bracket(bytes: &mut slice::Iter<'_, u8>) -> Result<(), &'static str> {
    if let Some(rest) = bytes.as_slice().strip_prefix(b"^") {
        *bytes = rest.iter();
    }
    let mut is_empty = true;
    // What a range could begin with.
    let mut start = None;
    while let Some(&byte) = bytes.next() {
        match byte {
            b']' if !is_empty => return Ok(()),
            0..=0x1f | 0x7f => return Err(CONTROL),
            byte if !is_plain(byte) => {
                return Err("a bracket expression holds only plain characters and ranges");
            }
            b'-' if !is_empty => match start.take().zip(bytes.next().copied()) {
                Some((start, end)) if start <= end && end != b'-' && is_plain(end) => {}
                _ => return Err("a \"-\" in brackets comes first or between the ends of a range"),
            },
            _ => start = Some(byte),
        }
        is_empty = false;
    }
    Err(UNCLOSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_paths() {
        for good in ["/", "/a", "/a/", "/a*b/[c]", "/a\nb", "/...", "/a/..b"] {
            assert!(LiteralPath::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "./a", "//a", "/a//b", "/a/./b", "/a/..", "/.", "/a\0b", "//"] {
            assert!(LiteralPath::new(bad).is_err(), "{bad}");
        }
        assert!(LiteralPath::new(format!("/{}", "a".repeat(4095))).is_err());
    }

    #[test]
    fn globs() {
        for good in [
            "/a/**",
            "/a/{,**}",
            "/a/[0-9]*",
            "/a\\052b",
            "/a/[^x]",
            "/{usr/,}bin/x",
            "/a b",
            "/a\\173",
            "/é",
            "/usr/lib/@{multiarch}/x",
            "/[-a]",
            "/[^a-cx]",
            "/{a,b{c,d}}",
            "/a{b,}",
            "/a{[-0-9],b}",
        ] {
            assert!(Glob::new(good).is_ok(), "{good}");
        }
        for bad in [
            "a",
            "/a\"",
            "/a{",
            "/a}",
            "/a[",
            "/a]",
            "/a\\",
            "/a\\\\",
            "/a\\x41",
            "/a\\400",
            "/a\\000",
            "/a\\057b",
            "/\\056\\056/b",
            "/@{HOME}",
            "/\\100{HOME}",
            "/a\nb",
            "/a//b",
            "/a/../b",
            "/a[]",
            "/a[/]",
            "/a\\9",
            "/a{}",
            "/a{b}",
            "/{a,{b}}",
            "/{a{b,c}}",
            "/a{\\,}",
            "/[a-]",
            "/[a-c-e]",
            "/[c-a]",
            "/[a--]",
            "/[/-a]",
            "/[a-/]",
            "/[a-\\]",
        ] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_matches_what_it_should_and_nothing_else() {
        for (pattern, yes, no) in [
            ("/a/**", &["/a/b", "/a/b/c"][..], &["/a", "/ab", "/b/a/b"][..]),
            ("/a/*", &["/a/b"], &["/a/b/c", "/b"]),
            ("/a*c", &["/ac", "/abbc"], &["/ab/c", "/acb"]),
            ("/a?", &["/ab"], &["/a", "/a/", "/abc"]),
            ("/[a-c]x[^d]", &["/bxe", "/cx]"], &["/dxe", "/bxd", "/bx"]),
            ("/[-a]", &["/-", "/a"], &["/b"]),
            ("/{a,b{c,}}/x", &["/a/x", "/b/x", "/bc/x"], &["/c/x", "/abc/x", "/{a,b}/x"]),
            ("/d/{,**}", &["/d/", "/d/e/f"], &["/d", "/de"]),
            ("/a,b", &["/a,b"], &["/a", "/b"]),
            ("/\\052\\173a\\054b\\175\\*", &["/*{a,b}*"], &["/xa", "/a"]),
            ("/usr/lib/@{multiarch}/x", &["/usr/lib/x86_64-linux-gnu/x"], &["/usr/lib/a/b/x"]),
            ("/\\100{multiarch}", &["/x86_64-linux-gnu"], &["/a/b"]),
            ("/a\\100", &["/a@"], &["/a"]),
            ("/dev/vfio/[0-9]*", &["/dev/vfio/7", "/dev/vfio/12"], &["/dev/vfio/vfio", "/dev/vfio/"]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            for path in yes {
                assert!(glob.matches(&LiteralPath::new(*path).unwrap()), "{pattern} {path}");
            }
            for path in no {
                assert!(!glob.matches(&LiteralPath::new(*path).unwrap()), "{pattern} {path}");
            }
        }
        // Neither depth nor choices make it slow.
        let deep = format!("/{}{}", "{**,".repeat(1000), "}".repeat(1000));
        let path = LiteralPath::new(format!("/{}", "a".repeat(4000))).unwrap();
        assert!(Glob::new(deep).unwrap().matches(&path));
    }

    #[test]
    fn a_directorys_pattern_has_what_is_below_it_and_no_neighbour() {
        let glob = |pattern: &str| Glob::new(pattern).unwrap();
        let path = |path: &str| Target::Path(LiteralPath::new(path).unwrap());
        let pattern = |pattern: &str| Target::Glob(glob(pattern));
        let (whole, inner) = (glob("/a\\052/b/{,**}"), glob("/a\\052/b/**"));
        for below in
            [path("/a*/b/c"), path("/a*/b/c/d"), pattern("/a\\052/b/c/{,**}"), pattern("/a\\052/b/**")]
        {
            assert!(whole.has_below(&below) && inner.has_below(&below), "{below:?}");
        }
        for itself in [path("/a*/b/"), pattern("/a\\052/b/{,**}"), pattern("/a\\052/b/{,c}")] {
            assert!(whole.has_below(&itself) && !inner.has_below(&itself), "{itself:?}");
        }
        for beside in [path("/a*/b"), path("/a*/bc"), path("/axx/b/c"), pattern("/a\\052/{,**}")] {
            assert!(!whole.has_below(&beside) && !inner.has_below(&beside), "{beside:?}");
        }
        // Of these it is not told.
        for other in ["/*/{,**}", "/a{,**}", "/a**", "/a/*", "/a/b"] {
            assert!(!glob(other).has_below(&path("/a/b")), "{other}");
        }
    }

    #[test]
    fn below_keeps_the_directory_literal() {
        let dir = LiteralPath::new("/srv/a*b").unwrap();
        assert_eq!(Glob::below(&dir, "**").unwrap().as_str(), "/srv/a\\052b/**");
    }
}
