//! What a profile denies with `audit`: nothing of it is in the tables of the base.

use std::path::PathBuf;

use super::{Refused, read};
use crate::lines::{lines, words};

/// The rules that a text or a file of policy that it reaches denies with `audit`, each as a profile that allows it.
pub(super) fn denied(text: &str, paths: &[PathBuf]) -> Result<Vec<String>, Refused> {
    let mut rules = rules(text)?;
    for path in paths.iter().filter(|path| path.is_file()) {
        rules.extend(self::rules(&read(path)?)?);
    }
    rules.sort_unstable();
    rules.dedup();
    // The variables are those of the profile.
    let preamble: String =
        text.split_inclusive('\n').take_while(|line| !line.trim_ascii().starts_with("profile ")).collect();
    Ok(rules.into_iter().map(|rule| format!("{preamble}\nprofile denied {{\n{rule}\n}}\n")).collect())
}

/// Words that change what other rules mean, in ways that are not looked into here.
const FOREIGN: [&str; 3] = ["alias", "priority", "prompt"];

/// The same of one text. Each line with such a word must be of the one form that is known, or a comment for certain.
pub(super) fn rules(text: &str) -> Result<Vec<String>, Refused> {
    const UNKNOWN: Refused = Refused::of("a line with \"audit\" in a form that is not known");
    let mut rules = Vec::new();
    for line in lines(text.as_bytes()) {
        let line = std::str::from_utf8(line.text).map_err(|_| UNKNOWN)?;
        if FOREIGN.iter().any(|word| has_word(line, word)) {
            return Err(Refused::of("policy with \"alias\", \"priority\" or \"prompt\""));
        }
        if has_word(line, "audit") {
            rules.extend(rule(line).ok_or(UNKNOWN)?);
        }
    }
    Ok(rules)
}

/// What a line with `audit` denies, as a rule that allows it, if it is one rule for a path: `Some(None)` if nothing.
#[expect(clippy::option_option, reason = "an iterator of none or one, or a line that is not understood")]
fn rule(line: &str) -> Option<Option<String>> {
    let mut words = line.split_ascii_whitespace().peekable();
    let mut denies = false;
    while let Some(word) = words.next_if(|word| ["audit", "deny", "allow", "owner"].contains(word)) {
        denies |= word == "deny";
    }
    let (path, access, None) = (words.next()?, words.next()?, words.next()) else { return None };
    let access = access.strip_suffix(',')?;
    let is_path = path.starts_with(['/', '@']) && !path.contains(['"', '#', '\\']);
    if !is_path || !access.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    // Nothing that executes is merged.
    let access = access.replace('x', "");
    Some((denies && !access.is_empty()).then(|| format!("  {path} {access},")))
}

/// Whether a word may stand in a line, and not within a longer one or a path.
fn has_word(line: &str, word: &str) -> bool {
    let (line, word) = (line.as_bytes(), word.as_bytes());
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    words(line, word).any(|at| !line.get(at + word.len()).is_some_and(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_with_audit_is_found_in_every_line() {
        let found = |text: &str| rules(text).map(|rules| rules.join("|"));
        assert_eq!(found("/a r,\n  audit deny /b w,\n# audit deny /c w,\n").unwrap(), "  /b w,");
        assert_eq!(found("audit deny owner @{X}/{a,b} mrwklx, # why").unwrap(), "  @{X}/{a,b} mrwkl,");
        for nothing in [
            "audit /b w,",
            "deny /b w,",
            "/var/log/audit/x r,",
            "/x/audit-deny r,",
            "audit deny /x x,",
            "/a r, # audit deny /b w,",
            "/usr/share/locale.alias r,",
            "\n# alias /a -> /b,\n#audit deny \"/x\" w,",
        ] {
            assert_eq!(found(nothing).unwrap(), "", "{nothing}");
        }
        for unknown in [
            "audit",
            "audit deny",
            "audit deny /b w, /c r,",
            "/a r, audit deny /b w,",
            "/a r,audit deny /b w,",
            "audit deny {",
            "audit deny \"/a b\" w,",
            "audit deny /b",
            "audit deny capability kill,",
            "audit deny /a#b w,",
            "audit deny /a\\ b w,",
            "prompt /a r,",
            "priority=5 /a r,",
            "alias /a -> /b,",
            "audit/a w,",
            "profile x flags=(audit) {",
            // What looks like a comment, and is none.
            "\"/a #b\" r, audit deny /c w,",
            "\"/a\n# \" r, audit deny /b w,",
            "#include <abstractions/y> audit deny /b w,",
            "#include <abstractions/y>audit deny /b w,",
            "signal (send)\n# x, audit deny /b w,",
            "signal peer= #x, audit deny /b w,",
            "mount options=(rw,\n# a), alias /a -> /b,",
            "\"/a #b\" r, priority=5 /c w,",
        ] {
            assert!(found(unknown).is_err(), "{unknown}");
        }
    }
}
