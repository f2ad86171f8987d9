//! What the helper remembers from one call to the next: a comment in the rules file, so that it is replaced
//! in one step with the rules and goes when they go.

use std::fmt::Write;

use aa_contract::ProfileName;
use aa_render::Contents;
use aa_render::rules_file::{self, MEMO};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::appended::Appended;
use crate::plugged::Plugged;

/// The state of one guest's run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The domain's id: another one is another run, for which nothing is kept.
    pub id: Option<i32>,
    /// What libvirtd appended.
    #[serde(default)]
    pub appended: Vec<Appended>,
    /// What it may be plugging in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugged: Option<Plugged>,
    /// Sum of the files that were last loaded; absent from before a change is written until it is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,
}

impl Memory {
    /// What the rules file remembers; nothing if another tool wrote it.
    pub fn read(rules: &str) -> Option<Self> {
        serde_json::from_str(rules_file::memo(rules)?.strip_prefix(MEMO)?).ok()
    }

    /// Puts it into a rules file, in the place of what was there, behind the first line.
    ///
    /// # Errors
    /// Never for this type; `serde_json`'s signature says it could.
    pub fn write(&self, rules: &str) -> Result<String, serde_json::Error> {
        // JSON escapes control characters, so it is one line whatever the paths are.
        let mark = format!("{MEMO}{}", serde_json::to_string(self)?);
        let mut lines: Vec<&str> = rules.lines().filter(|line| !line.starts_with(MEMO)).collect();
        lines.insert(lines.len().min(1), &mark);
        let mut text = lines.join("\n");
        text.push('\n');
        Ok(text)
    }
}

/// Whether these files are what this helper last loaded.
///
/// Nothing here asks the kernel, which Debian's profile for the helper forbids. That is safe for `-F`, the only
/// caller: libvirtd runs it for a guest whose profile it has just found in the kernel. What stands there is
/// what was loaded last; this helper takes its note back before it changes anything and makes it anew when that is
/// done, so a call that failed or died leaves none; and a file that anyone else has changed since has another sum.
pub fn is_loaded(contents: &Contents, profile: ProfileName) -> bool {
    let Some(memory) = contents.rules.as_deref().and_then(Memory::read) else { return false };
    memory.loaded.is_some() && memory.loaded == sum(contents, profile)
}

/// The same files with another note of what was loaded; as they are if another tool made them.
pub fn noting(contents: &Contents, loaded: Option<String>) -> Contents {
    let noted = contents.rules.as_deref().and_then(|rules| {
        let memory = Memory { loaded, ..Memory::read(rules)? };
        memory.write(rules).ok()
    });
    Contents { rules: noted.or_else(|| contents.rules.clone()), ..contents.clone() }
}

/// Sum of a profile's own files as the parser reads them; the helper's comment is left out of it.
pub fn sum(contents: &Contents, profile: ProfileName) -> Option<String> {
    let (base, rules) = (contents.base.as_deref()?, contents.rules.as_deref()?);
    let mut sum = Sha256::new();
    sum.update(profile.to_string());
    sum.update((base.len() as u64).to_le_bytes());
    sum.update(base);
    for line in rules.lines().filter(|line| !line.starts_with(MEMO)) {
        sum.update(line);
        sum.update("\n");
    }
    let mut text = String::new();
    for byte in sum.finalize() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_comment_line_and_comes_back() {
        let rule = serde_json::from_str(r#"{"path":"/a\n  \"/etc/x\" rw,","access":"rwk"}"#).unwrap();
        let appended = vec![Appended { rule, lasts: crate::appended::Lasts::UntilUpdate }];
        let plugged = Some(Plugged { image: "/a\n".to_owned().try_into().unwrap(), is_medium: false });
        let memory = Memory { id: Some(3), appended, plugged, loaded: None };
        let text = memory.write("# head\n  \"/b\" r,\n").unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(Memory::read(&text), Some(memory.clone()));
        let again = Memory { loaded: Some("x".into()), ..memory }.write(&text).unwrap();
        assert_eq!(again.lines().count(), 3);
        assert_eq!(Memory::read("# head\n"), None);
        assert_eq!(Memory::read(&format!("{MEMO}{{}} x\n")), None);
    }

    #[test]
    fn a_change_of_either_file_is_seen() {
        let profile: ProfileName = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac".parse().unwrap();
        let with = |base: &str, rules: &str, loaded: Option<String>| {
            let rules = Memory { loaded, ..Memory::default() }.write(rules).unwrap();
            Contents { base: Some(base.into()), rules: Some(rules), grants: None }
        };
        let loaded = sum(&with("base", "# h\n  \"/a\" r,\n", None), profile);
        let is =
            |base, rules, loaded: &Option<String>| is_loaded(&with(base, rules, loaded.clone()), profile);
        assert!(is("base", "# h\n  \"/a\" r,\n", &loaded));
        assert!(!is("base2", "# h\n  \"/a\" r,\n", &loaded));
        assert!(!is("base", "# h\n  \"/a\" rw,\n", &loaded));
        assert!(!is("base", "# h\n  \"/a\" r,\n", &None));
        assert!(!is_loaded(&Contents::default(), profile));
    }
}
