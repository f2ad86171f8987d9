//! A policy text by lines, without what is a comment for certain.
//!
//! To the parser a `#` begins a comment only between rules: in a quoted name, and behind the first word of many a rule, it
//! is a letter, and what looks like a comment is in force. So a comment is taken for one only where a rule or block has just
//! ended; not behind an include, since a rule may begin in that file and end in this. In any doubt it stays, and whoever
//! looks for words finds more than there are.

/// A line that may say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Without white space around it, and without a comment at its end.
    pub(crate) text: &'a [u8],
    /// Whether it begins between rules.
    pub(crate) begins: bool,
}

/// The lines of a text that may say something.
pub(crate) fn lines(text: &[u8]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    // Some control characters part words for people, and are letters to the parser.
    let mut is_plain = !text.iter().any(|byte| byte.is_ascii_control() && !b"\t\n".contains(byte));
    let mut begins = is_plain;
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        let is_comment = line.starts_with(b"#") && !line.starts_with(b"#include");
        if line.is_empty() || is_comment && begins {
            continue;
        }
        let rule = without_comment(line, begins).filter(|_| is_plain).unwrap_or(line);
        lines.push(Line { text: rule, begins });
        is_plain = is_plain && is_balanced(rule);
        begins = is_plain && ends(rule, begins);
    }
    lines
}

/// A line less the comment behind a rule.
fn without_comment(line: &[u8], begins: bool) -> Option<&[u8]> {
    let at = line.windows(2).position(|pair| pair == b" #")?;
    let rule = line.get(..at)?.trim_ascii_end();
    (is_balanced(rule) && ends(rule, begins)).then_some(rule)
}

/// Whether no quote or parenthesis of a line reaches into the next.
fn is_balanced(line: &[u8]) -> bool {
    let parts = |byte| line.split(|found| *found == byte).count();
    parts(b'"') % 2 == 1 && parts(b'(') == parts(b')')
}

/// Whether a rule ends with a line, or is begun and ended by it as a block is, and a variable's value.
fn ends(line: &[u8], begins: bool) -> bool {
    let is_whole = || line == b"}" || line.ends_with(b" {") || is_assignment(line);
    !line.contains(&b'\\') && (line.ends_with(b",") || begins && is_whole())
}

fn is_assignment(line: &[u8]) -> bool {
    let Some(end) = line.iter().position(|byte| *byte == b'}') else { return false };
    let behind = line.get(end + 1..).unwrap_or_default().trim_ascii_start();
    line.starts_with(b"@{") && (behind.starts_with(b"=") || behind.starts_with(b"+="))
}

/// Where a word begins that is not the end of a longer one, and no part of a path.
pub(crate) fn words<'a>(text: &'a [u8], word: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let begins = |at: &usize| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"_/.-".contains(byte))
    };
    (0..text.len())
        .filter(move |at| text.get(*at..).is_some_and(|rest| rest.starts_with(word)))
        .filter(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> Vec<&str> {
        lines(text.as_bytes()).iter().map(|line| std::str::from_utf8(line.text).unwrap()).collect()
    }

    #[test]
    fn comments_between_rules_are_left_out() {
        let text = "# one\n#two\n\n  /a r, # three\n # four\n  signal (send)\n    peer=x,\n# five\nprofile x {\n#six\n  \
                    capability,\n# seven\n}\n# eight\n@{A} = b # nine\n# ten\n#include <a>\n";
        let rules = ["/a r,", "signal (send)", "peer=x,", "profile x {", "capability,", "}", "@{A} = b"];
        assert_eq!(kept(text), [&rules[..], &["#include <a>"]].concat());
    }

    #[test]
    fn what_may_be_in_force_is_kept() {
        for before in [
            "signal (send)",
            "mount a\\,",
            "mount options=(rw,",
            "\"/a,",
            "/a px ->",
            "mount\n}",
            "include <a>",
            "#includefoo",
            "/a r,\r",
            "mount a,\x0c",
        ] {
            let text = format!("{before}\n# x, audit deny /b w,\n");
            assert_eq!(kept(&text).last(), Some(&"# x, audit deny /b w,"), "{text:?}");
        }
        for line in
            ["mount #x, audit deny /b w,", "\"/a #b\" r, audit deny /b w,", "#include <a> audit deny /b w,"]
        {
            assert_eq!(kept(line), [line]);
        }
        // A quote may go on for lines that look whole.
        assert_eq!(kept("\"/a,\n/b r,\n# x\n").len(), 3);
    }
}
