//! Rules as profile text, and back.
//!
//! The only place that writes profile syntax (`apparmor.d(5)`, «File Access Rules») and the only one
//! that reads it. A line is two spaces, the qualifiers, the path between double quotes, the access
//! and a comma: the form that libvirt's helper writes too.

use crate::access::AccessError;
use crate::path::PathError;
use crate::quote::{escape_literal, is_plain};
use crate::{Access, Exec, Glob, LiteralPath, Rule, Target};
use thiserror::Error;

/// Why a line is not a file rule that this tool could have written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// The line is not of the form `[audit] [deny] [owner] "path" access,`.
    #[error("not a line of the form [audit] [deny] [owner] \"path\" access,")]
    Form,
    /// The path is neither a literal nor a pattern.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The access is not a set of access letters.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Plain `x` outside a deny rule, or a qualified one inside.
    #[error("plain \"x\" stands in deny rules and only there")]
    Exec,
}

/// Appends the rule as one line.
pub fn write_rule(rule: &Rule, out: &mut String) {
    out.push_str("  ");
    for (is_set, word) in [(rule.audit, "audit "), (rule.deny, "deny "), (rule.owner, "owner ")] {
        if is_set {
            out.push_str(word);
        }
    }
    out.push('"');
    match &rule.target {
        Target::Path(path) => escape_literal(path.as_str(), out),
        Target::Glob(glob) => out.push_str(glob.as_str()),
    }
    out.push_str("\" ");
    out.push_str(&rule.access.to_string());
    out.push_str(",\n");
}

/// Reads one line as [`write_rule`] and libvirt's helper write it; the rule has no origin.
///
/// # Errors
/// [`LineError`]: the line is anything else.
pub fn parse_rule(line: &str) -> Result<Rule, LineError> {
    let mut rest = line.trim_matches([' ', '\t']);
    let mut word = |word: &str| {
        let after = rest.strip_prefix(word);
        rest = after.map_or(rest, |rest| rest.trim_start_matches([' ', '\t']));
        after.is_some()
    };
    let (audit, deny, owner) = (word("audit "), word("deny "), word("owner "));
    let quoted = rest.strip_prefix('"').ok_or(LineError::Form)?;
    let end = end_of_quote(quoted).ok_or(LineError::Form)?;
    let (path, rest) = quoted.split_at_checked(end).ok_or(LineError::Form)?;
    let access = rest.strip_prefix("\" ").and_then(|rest| rest.strip_suffix(',')).ok_or(LineError::Form)?;
    let access: Access = access.trim_matches(' ').parse()?;
    if access.exec().is_some_and(|exec| (exec == Exec::Any) != deny) {
        return Err(LineError::Exec);
    }
    Ok(Rule { target: parse_target(path)?, access, deny, owner, audit, origin: None })
}

/// Where the first quote stands that no backslash precedes.
fn end_of_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// A literal where the text can be one, a pattern otherwise.
fn parse_target(text: &str) -> Result<Target, PathError> {
    match unescape_literal(text) {
        Some(literal) => Ok(Target::Path(LiteralPath::new(literal)?)),
        None => Ok(Target::Glob(Glob::new(text)?)),
    }
}

/// The bytes that a quoted text stands for, if none of them is a pattern's and they are UTF-8.
fn unescape_literal(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut literal = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let mut value = 0u8;
                for _ in 0..3 {
                    let digit = bytes.next().filter(|digit| (b'0'..=b'7').contains(digit))?;
                    value = value.checked_mul(8)?.checked_add(digit - b'0')?;
                }
                // These two decode to what means something at a later stage of the parser.
                if matches!(value, 0 | b'/') {
                    return None;
                }
                literal.push(value);
            }
            _ if is_plain(byte) || !byte.is_ascii() => literal.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(literal).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    fn line(rule: &Rule) -> String {
        let mut out = String::new();
        write_rule(rule, &mut out);
        out
    }

    #[test]
    fn lines_have_libvirts_form() {
        for (json, expected) in [
            (
                r#"{"path":"/var/lib/libvirt/images/testqemu.img","access":"rwk"}"#,
                "  \"/var/lib/libvirt/images/testqemu.img\" rwk,\n",
            ),
            (r#"{"path":"/a*\"b","access":"w","deny":true}"#, "  deny \"/a\\052\\042b\" w,\n"),
            (
                r#"{"glob":"/a/{,**}","access":"rw","deny":true,"owner":true,"audit":true}"#,
                "  audit deny owner \"/a/{,**}\" rw,\n",
            ),
        ] {
            assert_eq!(line(&rule(json)), expected);
        }
    }

    #[test]
    fn reads_the_original_helpers_lines() {
        for (text, json) in [
            (
                "  \"/var/log/libvirt/**/testqemu.log\" w,",
                r#"{"glob":"/var/log/libvirt/**/testqemu.log","access":"w"}"#,
            ),
            ("  deny \"/srv/base.img\" w,", r#"{"path":"/srv/base.img","access":"w","deny":true}"#),
            ("\t\"/srv/ä b\" kwr,  ", r#"{"path":"/srv/ä b","access":"rwk"}"#),
        ] {
            assert_eq!(parse_rule(text).unwrap(), rule(json), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for bad in [
            "  capability sys_admin,",
            "  /unquoted r,",
            "  \"/a\" r",
            "  \"/a\" rq,",
            "  \"/a\" x,",
            "  deny \"/a\" ix,",
            "  \"a\" r,",
            "  \"\" rwk,",
            "  \"/a\" r, \"/b\" r,",
            "  \"/a\" r -> x,",
            "  owner deny \"/a\" r,",
            "  \"/a\\\" r,",
            "  \"/@{HOME}\" r,",
            "  \"(null)\" rwk,",
        ] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_literal_comes_back_as_it_went(parts in proptest::collection::vec("[^/\0]{1,12}", 1..4)) {
            let path = format!("/{}", parts.join("/"));
            prop_assume!(LiteralPath::new(path.clone()).is_ok());
            let rule = rule(&serde_json::json!({"path": path, "access": "rwk"}).to_string());
            prop_assert_eq!(parse_rule(line(&rule).trim_end_matches('\n')).unwrap(), rule);
        }

        #[test]
        fn reading_never_panics(text in ".{0,80}") {
            let _ = parse_rule(&text);
        }
    }
}
