//! What a profile's files should hold after `-c` or `-r`.

use aa_contract::{Derived, Rule, RuleSet, Target};
use aa_derive::path_policy::Owner;
use aa_render::{Contents, Renderer};

use crate::appended::{Appended, is_covered};
use crate::args::Extra;
use crate::error::Error;
use crate::extra;
use crate::guest::Guest;
use crate::memory::Memory;

/// New files.
#[derive(Debug)]
pub struct Plan {
    /// What the files should hold.
    pub contents: Contents,
    /// The rule that `-F` asked for, which is all that its dry run shows.
    pub appended: Option<Rule>,
    /// Whether nothing that the parser reads is other than before.
    pub adds_nothing: bool,
}

/// Plans a `-c` or `-r`.
///
/// # Errors
/// The file to add is refused, or the template or base profile cannot be used.
pub fn plan(
    old: &Contents,
    guest: &Guest,
    extra: Option<&Extra>,
    renderer: &Renderer,
) -> Result<Plan, Error> {
    let derived = &guest.derived;
    let is_same_run = |memory: &Memory| memory.id == derived.domain().id && !guest.is_starting;
    let memory = old.rules.as_deref().and_then(Memory::read).filter(is_same_run);
    let wanted = |argument| Ok::<_, Error>(Appended::new(target(guest, argument)?, derived.rules()));
    match extra {
        Some(Extra::Append(argument)) => append(old, derived, memory, wanted(argument)?, renderer),
        Some(Extra::Add(argument)) => update(old, derived, memory, Some(wanted(argument)?), renderer),
        None => update(old, derived, memory, None, renderer),
    }
}

fn target(guest: &Guest, argument: &str) -> Result<Target, Error> {
    let domain = guest.derived.domain();
    let owner = Owner { id: domain.id, name: domain.name.as_str() };
    extra::target(argument, &guest.policy, owner, &guest.files)
}

/// A plain `-r`: what the XML says, and what of the appended grants outlasts it.
fn update(
    old: &Contents,
    derived: &Derived,
    memory: Option<Memory>,
    extra: Option<Appended>,
    renderer: &Renderer,
) -> Result<Plan, Error> {
    let mut appended = memory.map(|memory| memory.appended).unwrap_or_default();
    appended.retain(|grant| grant.outlasts_update(derived.rules()));
    appended.extend(extra);
    let contents = render(old, derived, derived.rules(), appended, renderer)?;
    Ok(Plan { contents, appended: None, adds_nothing: false })
}

/// `-F`: what is granted already, and one rule more.
fn append(
    old: &Contents,
    derived: &Derived,
    memory: Option<Memory>,
    wanted: Appended,
    renderer: &Renderer,
) -> Result<Plan, Error> {
    let rule = wanted.rule.clone();
    let known = old.rules.as_deref().and_then(|rules| aa_render::rules_file::parse(rules).ok());
    let (have, mut appended, is_known) = match (memory, known) {
        (Some(memory), Some(file)) => (file.rules.into_rules(), memory.appended, true),
        // The rules file is missing, empty, of another run, or of libvirt's own helper, whose deny rules
        // would hold for ever: the XML tells what is needed.
        _ => (derived.rules().to_vec(), Vec::new(), false),
    };
    let is_new = !is_covered(&rule, &have);
    if is_known && !is_new {
        return Ok(Plan { contents: old.clone(), appended: Some(rule), adds_nothing: true });
    }
    if is_new {
        appended.push(wanted);
    }
    let contents = render(old, derived, &have, appended, renderer)?;
    Ok(Plan { contents, appended: Some(rule), adds_nothing: false })
}

fn render(
    old: &Contents,
    derived: &Derived,
    rules: &[Rule],
    appended: Vec<Appended>,
    renderer: &Renderer,
) -> Result<Contents, Error> {
    let mut set = RuleSet::default();
    for rule in rules.iter().chain(appended.iter().map(|grant| &grant.rule)) {
        set.insert(rule.clone()).map_err(aa_render::Error::Exec)?;
    }
    let record = Derived::new(derived.domain().clone(), derived.uses().to_vec(), set, Vec::new());
    let contents = renderer.plan(old, &record)?;
    let memory = Memory { id: derived.domain().id, appended, loaded: None };
    let rules = memory
        .write(contents.rules.as_deref().unwrap_or_default())
        .map_err(|error| Error::Setup { what: "rules file", reason: error.to_string() })?;
    Ok(Contents { rules: Some(rules), ..contents })
}
