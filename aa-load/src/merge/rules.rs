//! A guest's own rules, merged into the automaton of a base.
//!
//! The rules are a tree of bytes; beside each state of the base that a path of them passes, a new one stands that knows
//! the place in the tree and what holds in the whole directory. All other states stay the base's. Bits of an accept
//! word: `parser/perms.h` of AppArmor's parser; what a base denies stays denied, by the bits of its second word.

use std::collections::HashMap;

use aa_contract::syntax::{parse_rule, write_rule};
use aa_contract::{LiteralPath, Rule, Target};

use super::Refused;
use super::automaton::{Automaton, DEAD, START, State};

/// Bits of one half of an accept word, that of a file's owner; the other stands 14 bits higher.
const BITS: [(char, u32); 5] = [('r', 0x4), ('w', 0xa), ('a', 0x8), ('k', 0x20), ('m', 0x40)];
/// How far the half of those who do not own the file is from that of its owner.
const OTHERS: u32 = 14;
/// Where the second word has what is denied without a line in the log.
const QUIET: u32 = 7;
/// Bits of a permission in one half.
const HALF: u32 = 0x7f;

/// How much of what is below its path a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The path itself.
    Path,
    /// The directory, whose name ends in a slash, and everything in it: `{,**}`.
    Directory,
    /// Everything in the directory: `**`.
    Inside,
}

/// A rule that can be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) path: Vec<u8>,
    pub(crate) extent: Extent,
    /// In one half of an accept word.
    pub(crate) bits: u32,
}

impl Merged {
    /// The rule, if it can be merged.
    fn of(rule: &Rule) -> Option<Self> {
        if rule.deny || rule.owner || rule.audit {
            return None;
        }
        let bits = rule.access.to_string().chars().try_fold(0, |bits, letter| {
            BITS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| bits | bit)
        })?;
        let (path, extent) = match &rule.target {
            Target::Path(path) => (path.clone(), Extent::Path),
            Target::Glob(glob) => {
                let (directory, extent) = match glob.as_str().strip_suffix("{,**}") {
                    Some(directory) => (directory, Extent::Directory),
                    None => (glob.as_str().strip_suffix("**")?, Extent::Inside),
                };
                (literal(directory).filter(|path| path.as_str().ends_with('/'))?, extent)
            }
        };
        Some(Self { path: path.as_str().as_bytes().to_vec(), extent, bits })
    }

    /// Whether the rule is about `path`, told without the tree.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let Some(below) = path.strip_prefix(self.path.as_slice()) else { return false };
        match self.extent {
            Extent::Path => below.is_empty(),
            Extent::Directory => !below.contains(&0),
            Extent::Inside => !below.contains(&0) && below.first().is_some_and(|byte| *byte != b'/'),
        }
    }
}

/// The literal that a pattern is.
fn literal(pattern: &str) -> Option<LiteralPath> {
    match parse_rule(&format!("\"{pattern}\" r,")).ok()?.target {
        Target::Path(path) => Some(path),
        Target::Glob(_) => None,
    }
}

/// Reads a rules file: what can be merged, and the lines of the rules that execute, which stay with the base.
pub(crate) fn read(text: &str) -> Result<(Vec<Merged>, String), Refused> {
    let (mut merged, mut residual) = (Vec::new(), String::new());
    for line in text.split('\n').map(|line| line.trim_matches([' ', '\t'])).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            // To the parser, some of these are no comments.
            if line.contains("include") {
                return Err(Refused::of("a rules file with an include"));
            }
            continue;
        }
        let rule =
            parse_rule(line).map_err(|_| Refused::of("a rules file with other lines than file rules"))?;
        match Merged::of(&rule) {
            Some(rule) => merged.push(rule),
            None if rule.access.exec().is_some() => write_rule(&rule, &mut residual),
            None => {
                return Err(Refused::of("a rule that is not merged (deny, owner, audit, l, or a pattern)"));
            }
        }
    }
    Ok((merged, residual))
}

/// The rules as a tree of bytes.
#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(u8, usize)>,
    /// Here.
    here: u32,
    /// Here and behind every byte but NUL.
    directory: u32,
    /// Behind every first byte but a slash and NUL.
    inside: u32,
}

impl Tree {
    fn new(rules: &[Merged]) -> Self {
        let mut tree = Self { nodes: vec![Node::default()] };
        for rule in rules {
            let end = rule.path.iter().fold(0, |node, byte| tree.child(node, *byte));
            if let Some(node) = tree.nodes.get_mut(end) {
                match rule.extent {
                    Extent::Path => node.here |= rule.bits,
                    Extent::Directory => node.directory |= rule.bits,
                    Extent::Inside => node.inside |= rule.bits,
                }
            }
        }
        tree
    }

    fn child(&mut self, node: usize, byte: u8) -> usize {
        let new = self.nodes.len();
        let Some(parent) = self.nodes.get_mut(node) else { return node };
        if let Some((_, child)) = parent.children.iter().find(|(known, _)| *known == byte) {
            return *child;
        }
        parent.children.push((byte, new));
        self.nodes.push(Node::default());
        new
    }
}

/// What a state of the result stands for: a state of the base, the place in the tree if any, and what holds in the
/// whole directory.
type Place = (State, Option<usize>, u32);

/// Most rules of one guest: each of them is tried afterwards, as are the paths beside it.
const MOST_RULES: usize = 2000;

/// Merges rules into the automaton of a base.
pub(crate) fn merge(automaton: &mut Automaton, rules: &[Merged]) -> Result<(), Refused> {
    if rules.is_empty() {
        return Ok(());
    }
    if rules.len() > MOST_RULES {
        return Err(Refused::of("more rules than are tried after a merge"));
    }
    if automaton.returns_to_start() {
        return Err(Refused::of("an automaton that comes back to its start"));
    }
    let tree = Tree::new(rules);
    let empty = Node::default();
    let node = |place: Option<usize>| place.and_then(|index| tree.nodes.get(index)).unwrap_or(&empty);
    let mut known: HashMap<Place, State> = HashMap::new();
    let mut ahead: Vec<(Place, State)> = Vec::new();
    let mut state_of = |automaton: &mut Automaton, ahead: &mut Vec<_>, place: Place| match place {
        (base, None, 0) => Ok(base),
        place => match known.get(&place) {
            Some(state) => Ok(*state),
            None => {
                let state = automaton.add_state()?;
                known.insert(place, state);
                ahead.push((place, state));
                Ok(state)
            }
        },
    };
    // Every path starts with a slash.
    let root = node(Some(0)).children.first().map(|(_, child)| *child);
    let first = state_of(automaton, &mut ahead, (automaton.step(START, b'/'), root, 0))?;
    automaton.redirect(START, b'/', first)?;
    while let Some(((base, place, above), state)) = ahead.pop() {
        let node = node(place);
        let below = above | node.directory;
        let (accept, accept2) = automaton.words(base);
        automaton.set_words(state, accept | allowed(node.here | below, accept2), accept2);
        let mut row = automaton.row(base);
        for (byte, target) in (0..=u8::MAX).zip(&mut row) {
            let child = node.children.iter().find(|(known, _)| *known == byte).map(|(_, child)| *child);
            let holds = match byte {
                0 => 0,
                b'/' => below,
                _ => below | node.inside,
            };
            *target = state_of(automaton, &mut ahead, (*target, child, holds))?;
        }
        automaton.set_row(state, &row)?;
    }
    Ok(())
}

/// What a rule adds to an accept word where the base has this second one.
fn allowed(bits: u32, accept2: u32) -> u32 {
    let denied = (accept2 >> QUIET) & (HALF | HALF << OTHERS);
    (bits | bits << OTHERS) & !denied
}

/// Whether a rule reaches where `denied` accepts some of what it allows.
pub(crate) fn reaches(rule: &Merged, denied: &Automaton) -> bool {
    let refuses = |state: State| {
        let (accept, _) = denied.words(state);
        (accept | accept >> OTHERS) & HALF & rule.bits != 0
    };
    let end = rule.path.iter().fold(START, |state, byte| denied.step(state, *byte));
    if rule.extent == Extent::Path {
        return refuses(end);
    }
    let (mut seen, mut ahead) = (vec![end], vec![end]);
    while let Some(state) = ahead.pop() {
        if refuses(state) {
            return true;
        }
        for target in denied.row(state).into_iter().skip(1) {
            if target != DEAD && !seen.contains(&target) {
                seen.push(target);
                ahead.push(target);
            }
        }
    }
    false
}

/// Tries the result without the tree: what each rule's path and some beside it lead to is what the base says there and
/// what the rules say, one by one.
pub(crate) fn check(base: &Automaton, result: &Automaton, rules: &[Merged]) -> Result<(), Refused> {
    let paths: HashMap<&[u8], u32> =
        rules.iter().filter(|rule| rule.extent == Extent::Path).fold(HashMap::new(), |mut paths, rule| {
            *paths.entry(rule.path.as_slice()).or_default() |= rule.bits;
            paths
        });
    let trees: Vec<&Merged> = rules.iter().filter(|rule| rule.extent != Extent::Path).collect();
    for path in rules.iter().flat_map(|rule| beside(&rule.path)) {
        let own = paths.get(path.as_slice()).copied().unwrap_or(0);
        let bits = trees.iter().filter(|rule| rule.matches(&path)).fold(own, |bits, rule| bits | rule.bits);
        let (accept, accept2) = base.walk(&path);
        let wanted = [0, OTHERS].into_iter().fold(accept, |word, half| {
            let quiet = accept2 >> half >> QUIET;
            word | (bits & HALF & !quiet) << half
        });
        if result.walk(&path) != (wanted, accept2) {
            return Err(Refused::of("a merge that does not grant what the rules say"));
        }
    }
    Ok(())
}

/// A path, and others that differ from it in little.
fn beside(path: &[u8]) -> Vec<Vec<u8>> {
    let (last, rest) = path.split_last().unwrap_or((&b'/', path));
    let parent =
        path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default();
    let with = |start: &[u8], end: &[u8]| [start, end].concat();
    vec![
        path.to_vec(),
        rest.to_vec(),
        with(rest, &[last ^ 1]),
        with(path, b"x"),
        with(path, b"/"),
        with(path, b"/x"),
        with(path, b"x/y"),
        with(path, b"\0"),
        with(path, b"\0/x"),
        parent.to_vec(),
        with(parent, b"/"),
        with(parent, b"/y"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::empty;
    use super::*;

    fn merged(rules: &str) -> Automaton {
        let mut automaton = empty();
        merge(&mut automaton, &read(rules).unwrap().0).unwrap();
        Automaton::parse(&automaton.write()).unwrap()
    }

    #[test]
    fn a_path_is_granted_and_what_is_beside_it_is_not() {
        let automaton =
            merged("\"/a/b\" rw,\n\"/a/bc\" k,\n\"/d/{,**}\" a,\n\"/d/e\" m,\n\"/f/**\" r,\n\"/g\\052\" r,");
        for (path, bits) in [
            ("/a/b", 0xe),
            ("/a/bc", 0x20),
            ("/d/", 0x8),
            ("/d/x/y", 0x8),
            ("/d/e", 0x48),
            ("/d/e/f", 0x8),
            ("/f/x/y", 0x4),
            ("/g*", 0x4),
            ("/a", 0),
            ("/a/", 0),
            ("/a/bcd", 0),
            ("/d", 0),
            ("/d/x\0", 0),
            ("/f/", 0),
            ("/f//x", 0),
            ("/gx", 0),
            ("", 0),
            ("a", 0),
        ] {
            assert_eq!(automaton.walk(path.as_bytes()), (bits | bits << OTHERS, 0), "{path:?}");
        }
    }

    #[test]
    fn what_the_base_denies_stays_denied() {
        let mut base = merged("\"/a\" r,");
        let denied = base.step(base.step(START, b'/'), b'a');
        base.set_words(denied, 0x4, 0x2 << QUIET | 0x20 << (QUIET + OTHERS));
        let mut result = base.clone();
        let rules = read("\"/a\" rwk,").unwrap().0;
        merge(&mut result, &rules).unwrap();
        // `w` is two bits, and the owner's half is denied one of them.
        assert_eq!(result.walk(b"/a"), (0x2c | 0xe << OTHERS, 0x2 << QUIET | 0x20 << (QUIET + OTHERS)));
        check(&base, &result, &rules).unwrap();
    }

    #[test]
    fn only_what_is_known_is_merged() {
        for line in [
            "deny \"/a\" w,",
            "owner \"/a\" r,",
            "audit \"/a\" r,",
            "\"/a\" rl,",
            "\"/a*\" r,",
            "\"/a/*/{,**}\" r,",
            "\"/a{,**}\" r,",
            "\"/a/***\" r,",
            "\"/a/{,**}{,**}\" r,",
            "\"/a/@{multiarch}/**\" r,",
            "#include <x>",
            "# include <x>",
            "capability kill,",
            "\"/a\" r,\r",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let (rules, residual) =
            read("# A remark\n\n  \"/q\" rmix,\n  deny \"/x\" x,\n  \"/a\" r,\n").unwrap();
        assert_eq!((rules.len(), residual.as_str()), (1, "  \"/q\" rmix,\n  deny \"/x\" x,\n"));
    }

    #[test]
    fn a_start_that_cannot_be_changed_is_refused() {
        let rules = read("\"/a\" r,").unwrap().0;
        let mut returns = merged("\"/x\" r,");
        let state = returns.step(START, b'/');
        returns.set_row(state, &[START; 256]).unwrap();
        assert!(merge(&mut returns, &rules).is_err());
        let mut bare = empty();
        bare.set_row(START, &[DEAD; 256]).unwrap();
        assert!(merge(&mut bare, &rules).is_err());
        assert!(merge(&mut empty(), &rules).is_ok());
    }

    #[test]
    fn a_result_that_grants_too_much_or_too_little_is_found() {
        let (base, rules) = (empty(), read("\"/a/b\" r,\n\"/d/{,**}\" k,").unwrap().0);
        let good = "\"/a/b\" r,\n\"/d/{,**}\" k,\n";
        check(&base, &merged(good), &rules).unwrap();
        for wrong in [
            "\"/a/b\" r,\n",
            "\"/a/b\" r,\n\"/d/**\" k,\n",
            "\"/a/b\" rw,\n\"/d/{,**}\" k,\n",
            "\"/a/b\" r,\n\"/a/bx\" r,\n\"/d/{,**}\" k,\n",
            "\"/a/b\" r,\n\"/a\" r,\n\"/d/{,**}\" k,\n",
        ] {
            assert!(check(&base, &merged(wrong), &rules).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_rule_is_tried_or_nothing_is_merged() {
        let rules = |count: usize| {
            let lines: Vec<String> = (0..count).map(|number| format!("\"/{number:x}\" r,\n")).collect();
            read(&lines.concat()).unwrap().0
        };
        let most = rules(MOST_RULES);
        let mut result = empty();
        merge(&mut result, &most).unwrap();
        check(&empty(), &result, &most).unwrap();
        // The last one counts as the first does.
        let wrong = Merged { bits: 0x40, ..most[MOST_RULES - 1].clone() };
        let others: Vec<Merged> = most[..MOST_RULES - 1].iter().cloned().chain([wrong]).collect();
        assert!(check(&empty(), &result, &others).is_err());
        assert!(merge(&mut empty(), &rules(MOST_RULES + 1)).is_err());
    }

    #[test]
    fn a_rule_that_meets_a_denial_is_found() {
        let denied = merged("\"/run/qemu/a/b.so\" w,");
        for (rule, meets) in [
            ("\"/run/qemu/a/b.so\" rw,", true),
            ("\"/run/qemu/a/b.so\" a,", true),
            ("\"/run/qemu/{,**}\" rw,", true),
            ("\"/run/**\" w,", true),
            ("\"/run/qemu/a/b.so\" r,", false),
            ("\"/run/qemu/{,**}\" r,", false),
            ("\"/run/qemu/a/b.s\" w,", false),
            ("\"/run/qemu/b/{,**}\" w,", false),
        ] {
            assert_eq!(reaches(&read(rule).unwrap().0[0], &denied), meets, "{rule}");
        }
    }
}
