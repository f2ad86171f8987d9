//! The rules file of a guest, `libvirt-<uuid>.files`: comments and file rules, nothing else.

use std::fmt::Write;

use aa_contract::text::Printable;
use aa_contract::{DomainName, Grant, Rule, RuleSet};
use thiserror::Error;

use aa_contract::syntax::{self, LineError};

/// Begins the comment in which libvirtd's helper keeps what it must know at its next call. It is nobody else's to
/// read or to drop.
pub const MEMO: &str = "# virt-aa-helper: ";
/// Divides the rules of the domain from those granted for a while.
const GRANTS_MARK: &str = "# Granted for a while with aa-render --add:";

/// A rules file that holds something this tool does not write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{line}: {reason}")]
pub struct RulesFileError {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: RulesFileReason,
}

/// What is wrong with a line of a rules file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RulesFileReason {
    /// Not a rule.
    #[error(transparent)]
    Line(#[from] LineError),
    /// An include, which the parser honours even where it looks like a comment.
    #[error("an include is not merged; put it in the drop-in directory")]
    Include,
    /// Two rules execute one path in two ways.
    #[error(transparent)]
    Exec(#[from] aa_contract::access::ExecConflict),
}

/// What a rules file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesFile {
    /// The comment that heads the file, without its newline.
    pub header: String,
    /// The domain's rules, without those granted for a while.
    pub rules: RuleSet,
}

/// The comment that heads a domain's rules file.
pub fn header(domain: &DomainName) -> String {
    // A name has no control character, so it cannot end the comment; the fixed words before it keep
    // the comment from being read as an include.
    format!("# Made by aa-render for domain \"{}\"; changes are lost.", Printable(domain.as_str()))
}

/// The line of a rules file that begins with [`MEMO`].
pub fn memo(text: &str) -> Option<&str> {
    text.lines().find(|line| line.starts_with(MEMO))
}

/// Writes a rules file; `memo` is the [`memo`] of the one it takes the place of.
pub fn write<'a>(
    header: &str,
    memo: Option<&str>,
    rules: impl IntoIterator<Item = &'a Rule>,
    grants: &[Grant],
) -> String {
    let mut out = String::with_capacity(1024);
    for line in [Some(header), memo].into_iter().flatten() {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{line}");
    }
    for rule in rules {
        syntax::write_rule(rule, &mut out);
    }
    if !grants.is_empty() {
        let _ = writeln!(out, "{GRANTS_MARK}");
        for grant in grants {
            syntax::write_rule(&grant.rule, &mut out);
        }
    }
    out
}

/// Reads a rules file that this tool or libvirt's helper wrote.
///
/// # Errors
/// [`RulesFileError`]: a line is anything but a comment or a file rule.
pub fn parse(text: &str) -> Result<RulesFile, RulesFileError> {
    let mut file = RulesFile::default();
    let mut in_grants = false;
    for (index, line) in text.lines().enumerate() {
        let at = |reason| RulesFileError { line: index + 1, reason };
        let trimmed = line.trim_matches([' ', '\t']);
        if trimmed.is_empty() {
            continue;
        }
        if let Some(comment) = trimmed.strip_prefix('#') {
            if comment.trim_start().starts_with("include") {
                return Err(at(RulesFileReason::Include));
            }
            in_grants |= trimmed == GRANTS_MARK;
            if index == 0 {
                trimmed.clone_into(&mut file.header);
            }
            continue;
        }
        let rule = syntax::parse_rule(line).map_err(|reason| at(reason.into()))?;
        if !in_grants {
            file.rules.insert(rule).map_err(|reason| at(reason.into()))?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aa_contract::Reason;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_without_the_grants() {
        let rules = [rule(r#"{"path":"/a","access":"r"}"#), rule(r#"{"glob":"/b/**","access":"rw"}"#)];
        let grant = Grant::new(rule(r#"{"path":"/c","access":"rw"}"#), Reason::new("backup").unwrap());
        let head = header(&DomainName::new("x \"y\" \u{202e}").unwrap());
        let memo = format!("{MEMO}{{}}");
        let text = write(&head, Some(&memo), &rules, &[grant]);
        let file = parse(&text).unwrap();
        assert_eq!(file.header, head);
        assert_eq!(super::memo(&text), Some(memo.as_str()));
        assert_eq!(file.rules.into_rules(), rules);
        assert!(text.contains("\"/c\" rw,"));
        assert!(!text.contains('\u{202e}'));
    }

    #[test]
    fn a_foreign_line_is_named() {
        for (text, line) in [
            ("# a\n  capability sys_admin,\n", 2),
            ("  \"/a\" r,\n\n#include <tunables/global>\n", 3),
            ("  \"/a\" r,\n#  include <x>\n", 2),
            ("  \"/a\" ix,\n  \"/a\" px,\n", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text}");
        }
    }
}
