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
use crate::plugged::Plugged;

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
    match extra {
        Some(Extra::Append(argument)) => {
            let (wanted, plugged) = wanted(guest, memory.as_ref(), argument)?;
            append(old, derived, memory, wanted, plugged, renderer)
        }
        Some(Extra::Add(argument)) => {
            let (wanted, _) = wanted(guest, None, argument)?;
            update(old, derived, memory, Some(wanted), renderer)
        }
        None => update(old, derived, memory, None, renderer),
    }
}

/// What the argument of `-f` or `-F` asks for, and what is being plugged in by it.
fn wanted(
    guest: &Guest,
    memory: Option<&Memory>,
    argument: &str,
) -> Result<(Appended, Option<Plugged>), Error> {
    let (domain, rules) = (guest.derived.domain(), guest.derived.rules());
    let owner = Owner { id: domain.id, name: domain.name.as_str() };
    let plugged = memory.and_then(|memory| memory.plugged.as_ref());
    let mut is_layer = false;
    let below = |target: &Target| {
        is_layer = plugged
            .is_some_and(|plugged| plugged.has_below(target, rules, &guest.policy, owner, &guest.files));
        is_layer
    };
    let appended = extra::judged(
        argument,
        |target| Appended::new(target, rules, below),
        &guest.policy,
        owner,
        &guest.files,
    )?;
    let plugged = if is_layer {
        plugged.cloned()
    } else {
        Plugged::new(&appended.rule.target, rules, |image| guest.is_declared_raw(image))
    };
    Ok((appended, plugged))
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
    let mut set = RuleSet::default();
    for rule in derived.rules() {
        insert(&mut set, rule)?;
    }
    let contents = render(old, derived, set, appended, None, renderer)?;
    Ok(Plan { contents, appended: None, adds_nothing: false })
}

/// `-F`: what is granted already, what the XML has got since, and one rule more.
fn append(
    old: &Contents,
    derived: &Derived,
    memory: Option<Memory>,
    wanted: Appended,
    plugged: Option<Plugged>,
    renderer: &Renderer,
) -> Result<Plan, Error> {
    let rule = wanted.rule.clone();
    let known = old.rules.as_deref().and_then(|rules| aa_render::rules_file::parse(rules).ok());
    let (mut set, mut appended, is_known) = match (memory, known) {
        (Some(memory), Some(file)) => (file.rules, memory.appended, true),
        // The rules file is missing, empty, of another run, or of libvirt's own helper, whose deny rules
        // would hold for ever: the XML tells what is needed.
        _ => (RuleSet::default(), Vec::new(), false),
    };
    // What the XML has got since, but for what lies in a directory that is granted whole.
    let have = set.clone().into_rules();
    let mut is_more = false;
    for rule in derived.rules() {
        is_more |= insert(&mut set, rule)? && !is_covered(rule, &have);
    }
    let is_new = !is_covered(&rule, &set.clone().into_rules());
    if is_known && !is_new && !is_more {
        return Ok(Plan { contents: old.clone(), appended: Some(rule), adds_nothing: true });
    }
    if is_new {
        appended.push(wanted);
    }
    let contents = render(old, derived, set, appended, plugged, renderer)?;
    Ok(Plan { contents, appended: Some(rule), adds_nothing: false })
}

/// Adds a rule; says whether that changed anything.
fn insert(set: &mut RuleSet, rule: &Rule) -> Result<bool, Error> {
    Ok(set.insert(rule.clone()).map_err(aa_render::Error::Exec)?)
}

/// The files with the rules in `set` and those that were appended.
fn render(
    old: &Contents,
    derived: &Derived,
    mut set: RuleSet,
    appended: Vec<Appended>,
    plugged: Option<Plugged>,
    renderer: &Renderer,
) -> Result<Contents, Error> {
    let mut uses = derived.uses().to_vec();
    for grant in &appended {
        let brings = grant.brings(derived);
        uses.extend(brings.uses);
        for rule in [Some(grant.rule.clone()), brings.node].into_iter().flatten() {
            insert(&mut set, &rule)?;
        }
    }
    let record = Derived::new(derived.domain().clone(), uses, set, Vec::new());
    let contents = renderer.plan(old, &record)?;
    let memory = Memory { id: derived.domain().id, appended, plugged, loaded: None };
    let rules = memory
        .write(contents.rules.as_deref().unwrap_or_default())
        .map_err(|error| Error::Setup { what: "rules file", reason: error.to_string() })?;
    Ok(Contents { rules: Some(rules), ..contents })
}
