//! What a path, a pattern and a name become in a profile.

use aa_contract::quote::escape_literal;
use aa_contract::syntax::{parse_rule, write_rule};
use aa_contract::text::Printable;
use aa_contract::{Access, DomainName, Glob, LiteralPath, Rule, Target};

use crate::aare;
use crate::domain::assert_one_line;

/// Any text, taken for a path, for a pattern and for a name.
pub fn quoting(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = LiteralPath::new(text) {
        literal(&path);
    }
    if let Ok(glob) = Glob::new(text) {
        pattern(glob);
    }
    if let Ok(name) = DomainName::new(text) {
        assert_one_line(&aa_render::rules_file::header(&name));
    }
    if !text.is_empty() {
        assert_one_line(&Printable(text).to_string());
    }
    if let Ok(rule) = parse_rule(text) {
        assert_eq!(parse_rule(line(&rule).trim_end()).unwrap(), rule);
    }
}

fn rule(target: Target) -> Rule {
    Rule::plain(target, Access::RWK)
}

fn line(rule: &Rule) -> String {
    let mut line = String::new();
    write_rule(rule, &mut line);
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
    line
}

/// A path means itself, in a rule as in front of a pattern.
fn literal(path: &LiteralPath) {
    let mut quoted = String::new();
    escape_literal(path.as_str(), &mut quoted);
    assert!(quoted.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"'), "{quoted}");
    let parts = aare::parse(quoted.as_bytes()).unwrap();
    assert_eq!(aare::literal(&parts).as_deref(), Some(path.as_str().as_bytes()), "{quoted}");
    assert!(aare::matches(&parts, path.as_str().as_bytes()));

    let rule = rule(Target::Path(path.clone()));
    assert_eq!(parse_rule(line(&rule).trim_end()).unwrap(), rule);

    let Ok(below) = Glob::below(path, "**") else { return };
    let parts = aare::parse(below.as_str().as_bytes()).unwrap();
    let dir = path.as_directory();
    assert!(aare::matches(&parts, format!("{dir}x").as_bytes()), "{below}");
    let beside = format!("{}x/x", dir.as_str().trim_end_matches('/'));
    assert!(dir.as_str() == "/" || !aare::matches(&parts, beside.as_bytes()), "{below} {beside}");
    agree(&below, &parts, path.as_str());
    agree(&below, &parts, &beside);
}

/// Both readings of a pattern match a path, or neither.
fn agree(glob: &Glob, parts: &[aare::Part], path: &str) {
    let Ok(path) = LiteralPath::new(path) else { return };
    assert_eq!(glob.matches(&path), aare::matches(parts, path.as_str().as_bytes()), "{glob} {path}");
}

/// A pattern that is taken can be read, and its line gives it back.
fn pattern(glob: Glob) {
    let parts = aare::parse(glob.as_str().as_bytes()).unwrap();
    // Itself, and itself without what is syntax: some of these it matches.
    let text = glob.as_str();
    let plain = |out: &[char]| text.chars().filter(|c| !out.contains(c)).collect::<String>();
    for path in
        [text.to_owned(), plain(&['*', '?', '{', '}', ',']), plain(&['*', '[', ']', '^', '{', '}', ','])]
    {
        agree(&glob, &parts, &path);
    }
    let rule = rule(Target::Glob(glob));
    let again = parse_rule(line(&rule).trim_end());
    match (aare::literal(&parts), again.map(|rule| rule.target)) {
        (_, Ok(target)) if target == rule.target => {}
        // One without any pattern in it comes back as the path that it is.
        (Some(bytes), Ok(Target::Path(path))) => assert_eq!(path.as_str().as_bytes(), bytes),
        (parts, again) => panic!("{rule:?} came back as {again:?}, {parts:?}"),
    }
}
