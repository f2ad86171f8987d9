//! What aa-render writes and reads again.

use std::collections::{BTreeMap, BTreeSet};

use aa_contract::{Derived, LiteralPath, Mode, Rule, RuleSet, Target};
use aa_render::minimal;
use aa_render::profile_text::ProfileText;
use aa_render::rules_file::{self, RulesFileError, RulesFileReason};
use aa_render::template::{MARKER, Template, expand_missing};

use crate::aare::{self, Part};

/// The rules of a record, written, are its rules when they are read, whatever the domain is called.
pub(crate) fn renders(record: &Derived) {
    let header = rules_file::header(&record.domain().name);
    let text = rules_file::write(&header, None, record.rules(), &[]);
    assert_eq!(text.lines().count(), record.rules().len() + 1, "{text}");
    match rules_file::parse(&text) {
        Ok(file) => {
            assert_eq!(file.header, header);
            assert_eq!(meaning(&file.rules.into_rules()), meaning(record.rules()), "{text}");
        }
        // A pattern that is no more than a path meets that path only here.
        Err(RulesFileError { reason: RulesFileReason::Exec(_), .. }) => {}
        Err(error) => panic!("{error}: {text}"),
    }
    // A minimal profile has nothing else of the record's.
    let mut domain = record.domain().clone();
    domain.emulator = domain.emulator.map(|_| LiteralPath::new("/emulator").unwrap());
    let bare = Derived::new(domain, record.uses().to_vec(), RuleSet::default(), Vec::new());
    let (minimal, constant) = (minimal::template(record), minimal::template(&bare));
    let known: BTreeSet<&str> = constant.lines().chain(text.lines()).map(str::trim_start).collect();
    for line in minimal.lines().map(str::trim_start) {
        assert!(known.contains(line), "{line}");
    }
    // Between the braces of a profile they stay between them.
    let profile = format!("profile {MARKER} {{\n{text}}}\n");
    let profile = ProfileText::parse(profile, MARKER).unwrap();
    assert!(!profile.includes("") && profile.mode() == Mode::Enforce);
}

/// What rules allow and deny: letters by pattern. A pattern that is no more than a path is that path.
fn meaning(rules: &[Rule]) -> BTreeMap<(Vec<Part>, bool, bool, bool), BTreeSet<char>> {
    let mut meaning = BTreeMap::<_, BTreeSet<char>>::new();
    for rule in rules {
        let parts = match &rule.target {
            Target::Path(path) => path.as_str().bytes().map(Part::Byte).collect(),
            Target::Glob(glob) => aare::parse(glob.as_str().as_bytes()).unwrap(),
        };
        let key = (parts, rule.deny, rule.owner, rule.audit);
        meaning.entry(key).or_default().extend(rule.access.to_string().chars());
    }
    meaning
}

/// A rules file that anybody may have changed.
pub fn rules_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(file) = rules_file::parse(text) else { return };
    let rules = file.rules.into_rules();
    let written = rules_file::write(&file.header, rules_file::memo(text), &rules, &[]);
    let again = rules_file::parse(&written).unwrap();
    assert_eq!(again.rules.into_rules(), rules, "{written:?}");
}

/// A template or a profile that anybody may have changed.
pub fn profile_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _expanded = expand_missing(text, "/nonexistent".as_ref());
    // No template has a guest's name in it; what is made of one that does is refused when it is read again.
    if let Ok(template) = Template::parse(text)
        && !text.contains("NAME")
    {
        let made = template.text().instantiate("NAME", "  \"/x\" r,\n");
        let made = ProfileText::parse(made, "NAME").unwrap();
        assert_eq!(made.mode(), template.text().mode());
    }
    let Ok(profile) = ProfileText::parse(text, "x") else { return };
    assert_eq!(profile.as_str(), text);
    for mode in [Mode::Complain, Mode::Enforce] {
        let changed = ProfileText::parse(profile.with_mode(mode), "x").unwrap();
        assert_eq!(changed.mode(), mode, "{}", changed.as_str());
        assert_eq!(changed.with_mode(mode), changed.as_str());
    }
}
