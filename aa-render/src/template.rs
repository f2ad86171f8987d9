//! Templates: the host's own, or those of this project where the host has none.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aa_contract::TemplateKind;

use crate::error::Error;
use crate::profile_text::{ProfileText, TextError, Token, Tokens};

/// The name that a template's profile has, as in libvirt's templates.
pub const MARKER: &str = "LIBVIRT_TEMPLATE";
/// Largest template, in bytes: the limit of libvirt's helper.
const MAX_TEMPLATE: u64 = 10 * 1024 * 1024;
/// Deepest nesting of abstractions that are written out in place.
const MAX_DEPTH: usize = 4;

/// Abstractions of this project, by the name that includes give them.
const ABSTRACTIONS: [(&str, &str); 2] = [
    ("abstractions/libvirt-qemu", include_str!("../policy/abstractions/libvirt-qemu")),
    ("abstractions/libvirt-lxc", include_str!("../policy/abstractions/libvirt-lxc")),
];

/// A template that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(ProfileText);

impl Template {
    /// Checks a template's text: the line `profile LIBVIRT_TEMPLATE …` once, at the start of a line
    /// and outside of comments, and the name nowhere else; every block closed; no include with `..` in it.
    ///
    /// # Errors
    /// [`TextError`]: where and what is wrong.
    pub fn parse(text: impl Into<String>) -> Result<Self, TextError> {
        let profile = ProfileText::parse(text, MARKER)?;
        let text = profile.as_str();
        let declaration = profile.declaration();
        let line_of = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let start = declaration.start;
        let at_line_start = start == 0 || text.as_bytes().get(start - 1) == Some(&b'\n');
        if !at_line_start || text.get(declaration.clone()) != Some("profile LIBVIRT_TEMPLATE") {
            let reason = "\"profile LIBVIRT_TEMPLATE\" must stand at the start of a line";
            return Err(TextError { line: line_of(start), reason });
        }
        let second = Tokens::new(text).flatten().find(|(token, range)| {
            matches!(token, Token::Word | Token::Include)
                && range.end != declaration.end
                && text.get(range.clone()).is_some_and(|word| word.contains(MARKER))
        });
        if let Some((_, range)) = second {
            let reason = "LIBVIRT_TEMPLATE may stand in the declaration only";
            return Err(TextError { line: line_of(range.start), reason });
        }
        let mut includes = Tokens::new(text).flatten().filter(|(token, _)| *token == Token::Include);
        let leads_out = includes.find(|(_, range)| {
            let line = text.get(range.clone()).unwrap_or_default();
            line.split(['<', '>', '"', '/', ' ', '\t', '\n']).any(|part| part == "..")
        });
        if let Some((_, range)) = leads_out {
            let reason = "an include may not lead out of its directory (..)";
            return Err(TextError { line: line_of(range.start), reason });
        }
        Ok(Self(profile))
    }

    /// The checked text.
    pub fn text(&self) -> &ProfileText {
        &self.0
    }
}

/// Where templates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This directory and no other.
    Given(PathBuf),
    /// The `libvirt` directory of the policy tree, then this project's own.
    Host,
}

/// Finds a kind's template, checks it, and expands what [the host lacks](expand_missing) of it.
///
/// # Errors
/// [`Error::NoTemplate`], [`Error::Io`], or [`Error::Template`]: what is wrong with it.
pub fn load(kind: TemplateKind, source: &Source, base: &Path) -> Result<Template, Error> {
    let (name, own) = match kind {
        TemplateKind::Qemu => ("TEMPLATE.qemu", include_str!("../policy/TEMPLATE.qemu")),
        TemplateKind::Lxc => ("TEMPLATE.lxc", include_str!("../policy/TEMPLATE.lxc")),
    };
    let path = match source {
        Source::Given(dir) => dir.join(name),
        Source::Host => base.join("libvirt").join(name),
    };
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match source {
            Source::Given(_) => return Err(Error::NoTemplate(path)),
            Source::Host => own.to_owned(),
        },
        Err(source) => return Err(Error::Io { path, doing: "read", source }),
    };
    let expanded = Template::parse(text)
        .and_then(|template| Template::parse(expand_missing(template.text().as_str(), base)));
    expanded.map_err(|source| Error::Template { path, source })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_TEMPLATE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TEMPLATE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 10 MiB"));
    }
    Ok(text)
}

/// Writes out in place each abstraction of this project that the policy tree at `base` lacks, so that
/// the text compiles on a host that has only AppArmor's own policy.
pub fn expand_missing(text: &str, base: &Path) -> String {
    expand(text, base, MAX_DEPTH)
}

fn expand(text: &str, base: &Path, depth: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (_, range) in Tokens::new(text).flatten().filter(|(token, _)| *token == Token::Include) {
        let line = text.get(range.clone()).unwrap_or_default();
        let own = include_name(line).and_then(|name| {
            let (_, own) = ABSTRACTIONS.iter().find(|(own, _)| *own == name)?;
            (depth > 0 && !base.join(name).exists()).then_some(*own)
        });
        if let Some(own) = own {
            out.push_str(text.get(done..range.start).unwrap_or_default());
            out.push_str(expand(own, base, depth - 1).trim());
            done = range.end;
        }
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// What stands between `<` and `>`.
fn include_name(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once('<')?;
    rest.split_once('>').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_the_marker_once_and_at_a_line_start() {
        let good = "# LIBVIRT_TEMPLATE\nprofile LIBVIRT_TEMPLATE flags=(attach_disconnected) {\n}\n";
        assert!(Template::parse(good).is_ok());
        assert!(Template::parse("profile LIBVIRT_TEMPLATE {\n}\n").is_ok());
        let include =
            "profile LIBVIRT_TEMPLATE {\n  #include <abstractions/a..b>\n  include \"/srv/rules\"\n}\n";
        assert!(Template::parse(include).is_ok());
        for (bad, line) in [
            ("", 1),
            ("# profile LIBVIRT_TEMPLATE {\n# }\n", 3),
            ("\n profile LIBVIRT_TEMPLATE {\n}\n", 2),
            ("profile  LIBVIRT_TEMPLATE {\n}\n", 1),
            ("profile LIBVIRT_TEMPLATE {\n", 2),
            ("profile LIBVIRT_TEMPLATE {\n}\nprofile LIBVIRT_TEMPLATE {\n}\n", 3),
            ("profile LIBVIRT_TEMPLATE {\n  signal peer=LIBVIRT_TEMPLATE,\n}\n", 2),
            ("profile LIBVIRT_TEMPLATE {\n  #include <../../home/user/rules>\n}\n", 2),
            ("profile LIBVIRT_TEMPLATE {\n  include if exists \"/etc/apparmor.d/..\"\n}\n", 2),
            ("profile LIBVIRT_TEMPLATE {\n\n  include ../rules\n}\n", 3),
        ] {
            assert_eq!(Template::parse(bad).unwrap_err().line, line, "{bad}");
        }
    }

    #[test]
    fn own_templates_pass_their_own_check_and_lose_no_include_of_the_host() {
        let none = Path::new("/nonexistent");
        for kind in [TemplateKind::Qemu, TemplateKind::Lxc] {
            let template = load(kind, &Source::Host, none).unwrap();
            let text = template.text().as_str();
            assert!(!text.contains("<abstractions/libvirt"), "{text}");
            assert!(text.contains("<tunables/global>"), "{text}");
        }
    }

    #[test]
    fn a_template_directory_that_was_given_is_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Given(dir.path().to_owned());
        let error = load(TemplateKind::Qemu, &source, Path::new("/etc/apparmor.d")).unwrap_err();
        assert!(matches!(error, Error::NoTemplate(_)));
        fs::write(dir.path().join("TEMPLATE.qemu"), "profile x {\n}\n").unwrap();
        let error = load(TemplateKind::Qemu, &source, Path::new("/etc/apparmor.d")).unwrap_err();
        assert_eq!(error.exit(), aa_contract::Exit::Refused);
    }
}
