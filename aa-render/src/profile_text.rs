//! A profile's text, read just far enough to change its name, its mode and its last lines.
//!
//! Comments, quoted strings, includes and nested blocks are told apart as the parser's lexer does
//! (`apparmor.d(5)`, «Format»); everything between is left as it is, byte for byte.

use std::ops::Range;

use aa_contract::Mode;
use thiserror::Error;

/// Words of a flag list that set how a profile is enforced; at most one of them holds.
const MODES: [&str; 6] = ["enforce", "complain", "kill", "unconfined", "default_allow", "prompt"];
/// Those that do not enforce.
const LAX_MODES: [&str; 4] = ["complain", "unconfined", "default_allow", "prompt"];

/// What parts words.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Why a text is not one profile of the wanted name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{line}: {reason}")]
pub struct TextError {
    /// Line in the text, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

/// A text that holds exactly one profile of the wanted name outside of any other block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileText {
    text: String,
    /// The word `profile` and the name.
    declaration: Range<usize>,
    name: Range<usize>,
    /// The brace that opens the profile, and the one that closes it.
    open: usize,
    close: usize,
    flags: Option<Flags>,
}

/// Where the flags of a profile are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flags {
    /// The keyword, if it is there, and the parentheses.
    whole: Range<usize>,
    /// What stands between the parentheses.
    list: Range<usize>,
}

/// One piece of profile text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Open,
    Close,
    Comment,
    /// An include in either spelling, up to the end of its line.
    Include,
    Word,
}

impl ProfileText {
    /// Reads `text` and finds the profile `name` in it.
    ///
    /// # Errors
    /// [`TextError`]: there is no such profile, more than one, or a brace or quote is not closed.
    pub fn parse(text: impl Into<String>, name: &str) -> Result<Self, TextError> {
        let text = text.into();
        let mut found: Option<(Range<usize>, Range<usize>)> = None;
        let mut after_profile: Option<usize> = None;
        let (mut open, mut close) = (None, None);
        let mut depth = 0usize;
        for item in Tokens::new(&text) {
            let (token, range) = item.map_err(|(at, reason)| error_at(&text, at, reason))?;
            let fail = |reason| error_at(&text, range.start, reason);
            match token {
                Token::Open => {
                    if depth == 0 && found.is_some() && open.is_none() {
                        open = Some(range.start);
                    }
                    depth += 1;
                }
                Token::Close => {
                    depth =
                        depth.checked_sub(1).ok_or_else(|| fail("a closing brace without an opening one"))?;
                    if depth == 0 && open.is_some() && close.is_none() {
                        close = Some(range.start);
                    }
                }
                Token::Include if found.is_some() && open.is_none() => {
                    return Err(fail("an include between a profile's name and its block"));
                }
                Token::Comment | Token::Include => continue,
                Token::Word if depth == 0 => {
                    let word = text.get(range.clone()).unwrap_or_default();
                    if let Some(start) = after_profile.take()
                        && word.trim_matches('"') == name
                    {
                        if found.is_some() {
                            return Err(fail("the profile is declared a second time"));
                        }
                        found = Some((start..range.end, range));
                        continue;
                    }
                    after_profile = (word == "profile").then_some(range.start);
                    continue;
                }
                Token::Word => {}
            }
            after_profile = None;
        }
        let end = |reason| error_at(&text, text.len(), reason);
        let (declaration, name) = found.ok_or_else(|| end("the profile is not declared here"))?;
        if depth > 0 {
            return Err(end("a block is not closed"));
        }
        let (Some(open), Some(close)) = (open, close) else {
            return Err(end("the profile has no block"));
        };
        let header = text.get(name.end..open).unwrap_or_default();
        let flags = Flags::read(header, name.end).map_err(|(at, reason)| error_at(&text, at, reason))?;
        Ok(Self { text, declaration, name, open, close, flags })
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where the word `profile` of the declaration starts, and where the name ends.
    pub(crate) fn declaration(&self) -> Range<usize> {
        self.declaration.clone()
    }

    /// The text with another name, and `lines` before the brace that closes the profile.
    pub fn instantiate(&self, name: &str, lines: &str) -> String {
        let piece = |range: Range<usize>| self.text.get(range).unwrap_or_default();
        let before = piece(self.name.end..self.close);
        let gap = if before.ends_with('\n') { "" } else { "\n" };
        [piece(0..self.name.start), name, before, gap, lines, piece(self.close..self.text.len())].concat()
    }

    /// Whether any include of the text names `file`.
    pub fn includes(&self, file: &str) -> bool {
        Tokens::new(&self.text).flatten().any(|(token, range)| {
            token == Token::Include && self.text.get(range).is_some_and(|line| line.contains(file))
        })
    }

    /// The mode that the flags set.
    pub fn mode(&self) -> Mode {
        if words(self.flags()).any(|word| LAX_MODES.contains(&word)) { Mode::Complain } else { Mode::Enforce }
    }

    /// The text with the flags of `mode`; every other flag stays. The same text if it has that mode.
    #[must_use]
    pub fn with_mode(&self, mode: Mode) -> String {
        let given = self.flags();
        let is_so = match mode {
            Mode::Enforce => !words(given).any(|word| LAX_MODES.contains(&word)),
            Mode::Complain => words(given).any(|word| word == "complain"),
        };
        if is_so {
            return self.text.clone();
        }
        let mut flags: Vec<&str> = words(given).filter(|word| !MODES.contains(word)).collect();
        if mode == Mode::Complain {
            flags.push("complain");
        }
        let list = flags.join(", ");
        let (range, new) = match &self.flags {
            Some(flags) if list.is_empty() => (self.with_space_after(&flags.whole), String::new()),
            Some(flags) => (flags.list.clone(), list),
            None => {
                let before = self.text.get(..self.open).unwrap_or_default();
                let gap = if before.ends_with(|c: char| c.is_ascii_whitespace()) { "" } else { " " };
                (self.open..self.open, format!("{gap}flags=({list}) "))
            }
        };
        let piece = |range: Range<usize>| self.text.get(range).unwrap_or_default();
        [piece(0..range.start), &new, piece(range.end..self.text.len())].concat()
    }

    /// What stands between the parentheses of the flag list.
    fn flags(&self) -> &str {
        self.flags.as_ref().and_then(|flags| self.text.get(flags.list.clone())).unwrap_or_default()
    }

    fn with_space_after(&self, range: &Range<usize>) -> Range<usize> {
        let after = self.text.get(range.end..self.open).unwrap_or_default();
        range.start..range.end + (after.len() - after.trim_start_matches(SPACE).len())
    }
}

impl Flags {
    /// Reads `header`, what stands between the profile's name and its block, which starts at `base` of the text:
    /// an attachment, `xattrs=(…)` and the flags, whose keyword may be left out, each if it is there and in this
    /// order. What is more than that is refused, though the parser may know it.
    fn read(header: &str, base: usize) -> Result<Option<Self>, (usize, &'static str)> {
        let at = |rest: &str| base + header.len() - rest.len();
        let mut rest = skip(header);
        if rest.starts_with(['/', '@', '"']) {
            rest = skip(after_attachment(rest).ok_or((at(rest), "the attachment is not understood"))?);
        }
        if let Some((_, after)) = list(rest, "xattrs") {
            rest = skip(after);
        }
        let flags = list(rest, "flags").or_else(|| parenthesised(rest)).map(|(list, after)| {
            let end = at(after);
            let list = end - 1 - list.len()..end - 1;
            let flags = Self { whole: at(rest)..end, list };
            rest = skip(after);
            flags
        });
        if !rest.is_empty() {
            return Err((at(rest), "what stands in front of the block is not understood"));
        }
        Ok(flags)
    }
}

/// Past white space and comments.
fn skip(text: &str) -> &str {
    let mut rest = text.trim_start_matches(SPACE);
    while rest.starts_with('#') {
        rest = rest.find('\n').and_then(|end| rest.get(end..)).unwrap_or_default().trim_start_matches(SPACE);
    }
    rest
}

/// Past a quoted word, or past one without quotes and escapes.
fn after_attachment(text: &str) -> Option<&str> {
    if text.starts_with('"') {
        let mut tokens = Tokens::new(text);
        tokens.quoted().ok()?;
        return text.get(tokens.at..);
    }
    let (word, rest) = text.split_at(text.find(SPACE).unwrap_or(text.len()));
    (!word.contains(['"', '\\'])).then_some(rest)
}

/// What stands between the parentheses behind `keyword=`, and what follows them.
fn list<'a>(text: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let text = text.strip_prefix(keyword)?.trim_start_matches(SPACE).strip_prefix('=')?;
    parenthesised(text.trim_start_matches(SPACE))
}

fn parenthesised(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('(')?;
    let (list, rest) = text.split_at(text.find(['(', ')', '"', '\\', '#', '{', '}'])?);
    rest.strip_prefix(')').map(|rest| (list, rest))
}

fn words(flags: &str) -> impl Iterator<Item = &str> {
    flags.split([',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty())
}

fn error_at(text: &str, at: usize, reason: &'static str) -> TextError {
    TextError { line: text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1, reason }
}

/// Splits a text into [`Token`]s with their byte ranges.
#[derive(Debug)]
pub(crate) struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Up to the end of the line, without the newline.
    fn line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    /// Whether an include directive stands here, with or without the `#`.
    fn at_include(&self) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let rest = rest.strip_prefix(b"#").unwrap_or(rest);
        rest.strip_prefix(b"include")
            .is_some_and(|rest| matches!(rest.first(), Some(b' ' | b'\t' | b'<' | b'"')))
    }

    /// Past the quote that closes the one here: the first without a backslash in front, whatever is in front of that.
    fn quoted(&mut self) -> Result<(), (usize, &'static str)> {
        let start = self.at;
        let mut escaped = true;
        while let Some(byte) = self.peek() {
            self.at += 1;
            if byte == b'"' && !escaped {
                return Ok(());
            }
            escaped = byte == b'\\';
        }
        Err((start, "a quote is not closed"))
    }

    /// Past a word: braces in it are alternations; a quoted string, and a comma or `)` outside of braces, ends it.
    fn word(&mut self) -> Result<(), (usize, &'static str)> {
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                _ if SPACE.contains(&char::from(byte)) => return Ok(()),
                b'"' => return self.quoted(),
                b'\\' if self.bytes.get(self.at + 1) != Some(&b'\n') => self.at += 1,
                b'{' => depth += 1,
                b'}' if depth == 0 => return Ok(()),
                b'}' => depth -= 1,
                b',' | b')' if depth == 0 => {
                    self.at += 1;
                    return Ok(());
                }
                _ => {}
            }
            self.at += 1;
        }
        Ok(())
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<(Token, Range<usize>), (usize, &'static str)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.peek().is_some_and(|byte| SPACE.contains(&char::from(byte))) {
            self.at += 1;
        }
        let start = self.at;
        let token = match self.peek()? {
            _ if self.at_include() => {
                self.line();
                Token::Include
            }
            b'#' => {
                self.line();
                Token::Comment
            }
            b'{' => {
                self.at += 1;
                Token::Open
            }
            b'}' => {
                self.at += 1;
                Token::Close
            }
            _ => {
                if let Err(error) = self.word() {
                    self.at = self.bytes.len();
                    return Some(Err(error));
                }
                Token::Word
            }
        };
        self.at = self.at.min(self.bytes.len());
        Some(Ok((token, start..self.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "# a } comment\n#include <tunables/global>\n\nprofile X flags=(attach_disconnected) {\n  /a/{b,c}/@{HOME} r,\n  \"/d }\" r, # }\n  profile sub { capability, }\n}\nprofile Y {}\n";

    #[test]
    fn finds_the_closing_brace_of_the_named_profile() {
        let profile = ProfileText::parse(TEXT, "X").unwrap();
        assert_eq!(
            profile.instantiate("Z", "  NEW,\n"),
            TEXT.replace("profile X", "profile Z").replace("}\nprofile Y", "  NEW,\n}\nprofile Y")
        );
        let one_line = ProfileText::parse("profile X { file,}", "X").unwrap();
        assert_eq!(one_line.instantiate("Z", "  NEW,\n"), "profile Z { file,\n  NEW,\n}");
    }

    #[test]
    fn what_is_not_one_profile_is_refused_by_line() {
        for (text, line) in [
            ("", 1),
            ("# profile X {\n# }\n", 3),
            ("profile Y {\n profile X { }\n}\n", 4),
            ("profile X {\n", 2),
            ("profile X {\n}\n}\n", 3),
            ("profile X {\n}\nprofile X {\n}\n", 3),
            ("profile X {\n  \"/a r,\n}\n", 2),
            ("profile X\n", 2),
            ("profile X\n flags=(a {\n}", 2),
            ("profile X flags=(a (b)) {\n}", 1),
            ("profile X flags=(a) (complain) {\n}", 1),
            ("profile X flags=(a{)}) {\n}", 1),
            ("profile X flags=(a, # b\n) {\n}", 1),
            ("profile X flags=(\"complain\") {\n}", 1),
            ("profile X flags (complain) {\n}", 1),
            ("profile X\nflags=(a) xattrs=(a=b) {\n}", 2),
            ("profile X\nattached {\n}", 2),
            ("profile X -> Y {\n}", 1),
            ("profile X\n/a\" (complain) \" {\n}", 2),
            ("profile X \"/a\\\\\" {\n}", 1),
            ("profile X\n#include <flags>\n{\n}", 2),
            ("profile X flags=(a)#\"\n\" {\n}", 2),
        ] {
            assert_eq!(ProfileText::parse(text, "X").unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn the_mode_changes_and_the_other_flags_stay() {
        for (enforce, complain) in [
            (
                "profile X flags=(attach_disconnected) {\n}",
                "profile X flags=(attach_disconnected, complain) {\n}",
            ),
            ("profile X {\n}", "profile X flags=(complain) {\n}"),
            ("profile X xattrs=(a=b) {\n}", "profile X xattrs=(a=b) flags=(complain) {\n}"),
            (
                "profile X \"/a flags=(audit)\" (audit) {\n}",
                "profile X \"/a flags=(audit)\" (audit, complain) {\n}",
            ),
            ("profile X /flags/x {\n}", "profile X /flags/x flags=(complain) {\n}"),
            ("profile X # flags=(complain)\n{\n}", "profile X # flags=(complain)\nflags=(complain) {\n}"),
        ] {
            let profile = ProfileText::parse(enforce, "X").unwrap();
            assert_eq!(profile.mode(), Mode::Enforce);
            assert_eq!(profile.with_mode(Mode::Enforce), enforce);
            assert_eq!(profile.with_mode(Mode::Complain), complain);
            let profile = ProfileText::parse(complain, "X").unwrap();
            assert_eq!(profile.mode(), Mode::Complain);
            assert_eq!(profile.with_mode(Mode::Complain), complain);
            assert_eq!(profile.with_mode(Mode::Enforce), enforce);
        }
    }

    #[test]
    fn what_stands_close_together_is_told_apart() {
        for (given, complain) in [
            ("profile X xattrs=(a=b){\n}", "profile X xattrs=(a=b) flags=(complain) {\n}"),
            ("profile \"X\"(audit){\n}", "profile \"X\"(audit, complain){\n}"),
            // A comment begins where a list or a quoted string ends; in another word its sign is a letter.
            ("profile X xattrs=(a=b)#\"(\n{\n}", "profile X xattrs=(a=b)#\"(\nflags=(complain) {\n}"),
            ("profile X (audit)#\"(\n{\n}", "profile X (audit, complain)#\"(\n{\n}"),
            ("profile X \"/a\"#(complain)\n{\n}", "profile X \"/a\"#(complain)\nflags=(complain) {\n}"),
            ("profile X /a# (audit) {\n}", "profile X /a# (audit, complain) {\n}"),
            // A backslash escapes a quote, whatever stands before it.
            (r#"profile X "/a\\" (complain)" {}"#, r#"profile X "/a\\" (complain)" flags=(complain) {}"#),
        ] {
            let profile = ProfileText::parse(given, "X").unwrap();
            assert_eq!(
                (profile.mode(), profile.with_mode(Mode::Complain).as_str()),
                (Mode::Enforce, complain)
            );
        }
    }

    #[test]
    fn a_block_may_follow_a_quoted_name_at_once() {
        let text = "profile X {\n  profile \"s\"{ file, }\n}";
        let made = ProfileText::parse(text, "X").unwrap().instantiate("X", "  NEW,\n");
        assert_eq!(made, "profile X {\n  profile \"s\"{ file, }\n  NEW,\n}");
    }

    #[test]
    fn an_include_is_seen_and_a_comment_is_not() {
        let text = "profile X {\n  # include <libvirt/X.files>\n}\n";
        assert!(!ProfileText::parse(text, "X").unwrap().includes("libvirt/X.files"));
        let text = text.replace("# include", "#include");
        assert!(ProfileText::parse(text, "X").unwrap().includes("libvirt/X.files"));
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_keeps_every_byte(text in "[ -~\n{}\"#\\\\]{0,80}") {
            let _ = ProfileText::parse(text.clone(), "X");
            let whole = format!("profile X {{\n}}\n{text}");
            if let Ok(profile) = ProfileText::parse(whole.clone(), "X") {
                prop_assert_eq!(profile.as_str(), whole);
            }
        }
    }
}
