//! Labels as the kernel prints them in `/proc/PID/attr/*`, and whether one is what was asked for.
//!
//! The form is `component//&component (mode)` (`aa_label_snxprint` in the kernel's
//! security/apparmor/label.c): components in the kernel's own order, so they are a set here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::target::{STACK_SEPARATOR, Target, UNCONFINED};
use crate::{Complain, Method, Moment};

/// A label: what a process is confined by, or will be after its next exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Never empty.
    pub(crate) components: BTreeSet<Component>,
    /// None where the kernel prints none, which is so where nothing confines.
    pub(crate) mode: Option<Mode>,
}

/// One profile of a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Component {
    /// Relative to the reader's own namespace; empty for that namespace itself.
    pub(crate) namespace: String,
    /// The full name in it, `unconfined` if there is no profile.
    pub(crate) name: String,
}

/// How the profiles of a label are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Violations are denied.
    Enforce,
    /// Violations end the process.
    Kill,
    /// Violations are logged only.
    Complain,
    /// A profile with `flags=(unconfined)`, which allows everything.
    Unconfined,
    /// The components of a stack differ.
    Mixed,
    /// A word that this program does not know.
    Other(String),
}

/// The text is not a label.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a label")]
pub(crate) struct LabelError(String);

/// What a label must be to be accepted.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) target: &'a Target,
    pub(crate) moment: Moment,
    pub(crate) method: Method,
    /// The label before the change.
    pub(crate) before: &'a Label,
    pub(crate) complain: Complain,
}

/// Why a label is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Another label than asked for.
    Name,
    /// The target is in complain mode.
    Complain,
    /// A stack of several modes, so the target's own is not known.
    Mixed,
    /// Nothing is enforced.
    NotEnforced,
}

impl FromStr for Mode {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(match word {
            "enforce" => Self::Enforce,
            "kill" => Self::Kill,
            "complain" => Self::Complain,
            "unconfined" => Self::Unconfined,
            "mixed" => Self::Mixed,
            other => Self::Other(other.to_owned()),
        })
    }
}

/// The names, for messages: control characters escaped, no mode.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, component) in self.components.iter().enumerate() {
            let between = if place == 0 { "" } else { " and " };
            write!(f, "{between}{:?}", component.name)?;
        }
        Ok(())
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let refused = || LabelError(text.to_owned());
        let line = text.strip_suffix('\n').unwrap_or(text);
        let (names, mode) = split_mode(line);
        let mut components = BTreeSet::new();
        // A component without a namespace is in that of the one before it: the kernel prints a
        // namespace only where it changes.
        let mut namespace = "";
        for part in names.split(STACK_SEPARATOR) {
            let name = match part.strip_prefix(':') {
                Some(rest) => {
                    let (found, name) = rest.split_once(':').ok_or_else(refused)?;
                    namespace = found;
                    name.strip_prefix("//").unwrap_or(name)
                }
                None => part,
            };
            if name.is_empty() || name.contains('\0') {
                return Err(refused());
            }
            components.insert(Component { namespace: namespace.to_owned(), name: name.to_owned() });
        }
        let mode = mode.map(|word| match word.parse() {
            Ok(mode) => mode,
            Err(never) => match never {},
        });
        Ok(Self { components, mode })
    }
}

/// Splits ` (mode)` off. A profile may be called `foo (bar)`, so only the last pair is a mode.
fn split_mode(line: &str) -> (&str, Option<&str>) {
    line.strip_suffix(')')
        .and_then(|open| open.rsplit_once(" ("))
        .filter(|(_, word)| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
        .map_or((line, None), |(names, word)| (names, Some(word)))
}

impl Component {
    fn in_namespace_of(target: &Target) -> Self {
        let namespace = target.namespace.as_ref().map_or("", |namespace| namespace.as_str());
        Self { namespace: namespace.to_owned(), name: target.profile.as_str().to_owned() }
    }

    fn in_own_namespace(name: &str) -> Self {
        Self { namespace: String::new(), name: name.to_owned() }
    }
}

impl Expected<'_> {
    /// Accepts `found` as the result of the change, or says why not.
    pub(crate) fn accepts(&self, found: &Label) -> Result<(), Mismatch> {
        if !self.accepts_components(&found.components) {
            return Err(Mismatch::Name);
        }
        self.accepts_mode(found.mode.as_ref())
    }

    fn accepts_components(&self, found: &BTreeSet<Component>) -> bool {
        let wanted = Component::in_namespace_of(self.target);
        // A process that has already entered another namespace sees labels from within it: its own
        // name is then the bare one, and what is outside cannot be seen.
        if self.moment == Moment::Now && self.target.namespace.is_some() {
            let bare = Component::in_own_namespace(self.target.profile.as_str());
            let present = found.contains(&wanted) || found.contains(&bare);
            return present && (self.method == Method::Stack || found.len() == 1);
        }
        match (self.method, self.moment) {
            (Method::Stack, Moment::Now) => {
                let mut stack = self.before.components.clone();
                stack.insert(wanted);
                *found == stack
            }
            // The stack is built at the exec; until then the attribute holds what will be added.
            (Method::Stack, Moment::OnExec) => *found == BTreeSet::from([wanted]),
            // With kernel.apparmor_restrict_unprivileged_unconfined=1 an unprivileged process that
            // is unconfined gets `vm//&unconfined`: the intersection of the two, which is vm.
            (Method::Replace, _) => {
                let unconfined = Component::in_own_namespace(UNCONFINED);
                found.contains(&wanted) && found.iter().all(|part| *part == wanted || *part == unconfined)
            }
        }
    }

    fn accepts_mode(&self, mode: Option<&Mode>) -> Result<(), Mismatch> {
        match mode {
            Some(Mode::Enforce | Mode::Kill) => Ok(()),
            Some(Mode::Complain) if self.complain == Complain::Allow => Ok(()),
            Some(Mode::Complain) => Err(Mismatch::Complain),
            Some(Mode::Mixed) => Err(Mismatch::Mixed),
            Some(Mode::Unconfined | Mode::Other(_)) | None => Err(Mismatch::NotEnforced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    fn names(text: &str) -> Vec<(String, String)> {
        label(text).components.into_iter().map(|part| (part.namespace, part.name)).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(namespace, name)| ((*namespace).to_owned(), (*name).to_owned())).collect()
    }

    #[test]
    fn reads_what_the_kernel_prints() {
        for (text, components, mode) in [
            ("vm (enforce)\n", &[("", "vm")][..], Some(Mode::Enforce)),
            ("vm (enforce)", &[("", "vm")], Some(Mode::Enforce)),
            ("vm (complain)\n", &[("", "vm")], Some(Mode::Complain)),
            ("vm (kill)\n", &[("", "vm")], Some(Mode::Kill)),
            ("vm (unconfined)\n", &[("", "vm")], Some(Mode::Unconfined)),
            ("vm (user)\n", &[("", "vm")], Some(Mode::Other("user".to_owned()))),
            ("unconfined\n", &[("", "unconfined")], None),
            ("unconfined//&vm (enforce)\n", &[("", "unconfined"), ("", "vm")], Some(Mode::Enforce)),
            ("b//&a (mixed)\n", &[("", "a"), ("", "b")], Some(Mode::Mixed)),
            ("parent//child (enforce)\n", &[("", "parent//child")], Some(Mode::Enforce)),
            ("my vm (enforce)\n", &[("", "my vm")], Some(Mode::Enforce)),
            ("vm (enforce) (complain)\n", &[("", "vm (enforce)")], Some(Mode::Complain)),
            ("vm (a (b)) (enforce)\n", &[("", "vm (a (b))")], Some(Mode::Enforce)),
            ("vm (Old)\n", &[("", "vm (Old)")], None),
            (":ns:vm (enforce)\n", &[("ns", "vm")], Some(Mode::Enforce)),
            (":ns://vm (enforce)\n", &[("ns", "vm")], Some(Mode::Enforce)),
            (":a//b:vm (enforce)\n", &[("a//b", "vm")], Some(Mode::Enforce)),
            ("x//&:ns:vm//&y (enforce)", &[("", "x"), ("ns", "vm"), ("ns", "y")], Some(Mode::Enforce)),
        ] {
            assert_eq!(names(text), pairs(components), "{text:?}");
            assert_eq!(label(text).mode, mode, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for text in
            ["", "\n", " (enforce)\n", "//&vm (enforce)", "vm//& (enforce)", ":ns (enforce)", ":ns:", "v\0m"]
        {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_order_of_a_stack_says_nothing() {
        assert_eq!(label("a//&b//&c (enforce)"), label("c//&a//&b (enforce)\n"));
        assert_ne!(label("a//&b (enforce)"), label("a (enforce)"));
    }

    struct Case {
        namespace: Option<&'static str>,
        moment: Moment,
        method: Method,
        before: &'static str,
        complain: Complain,
    }

    const PLAIN: Case = Case {
        namespace: None,
        moment: Moment::OnExec,
        method: Method::Replace,
        before: "unconfined",
        complain: Complain::Refuse,
    };

    fn judge(case: &Case, found: &str) -> Result<(), Mismatch> {
        let target = Target {
            namespace: case.namespace.map(|namespace| namespace.parse().unwrap()),
            profile: "vm".parse().unwrap(),
        };
        let before = label(case.before);
        let expected = Expected {
            target: &target,
            moment: case.moment,
            method: case.method,
            before: &before,
            complain: case.complain,
        };
        expected.accepts(&label(found))
    }

    #[test]
    fn a_replacement_is_the_profile_alone_or_with_unconfined() {
        assert_eq!(judge(&PLAIN, "vm (enforce)"), Ok(()));
        assert_eq!(judge(&PLAIN, "vm (kill)"), Ok(()));
        assert_eq!(judge(&PLAIN, "vm//&unconfined (enforce)"), Ok(()));
        for other in [
            "unconfined",
            "vm2 (enforce)",
            "vm//child (enforce)",
            ":ns:vm (enforce)",
            "vm//&other (enforce)",
            "vm (x) (enforce)",
            "caller//null-vm (complain)",
        ] {
            assert_eq!(judge(&PLAIN, other), Err(Mismatch::Name), "{other}");
        }
    }

    #[test]
    fn only_enforcing_modes_are_accepted() {
        assert_eq!(judge(&PLAIN, "vm (complain)"), Err(Mismatch::Complain));
        assert_eq!(judge(&PLAIN, "vm//&unconfined (complain)"), Err(Mismatch::Complain));
        for mode in ["vm", "vm (unconfined)", "vm (user)"] {
            assert_eq!(judge(&PLAIN, mode), Err(Mismatch::NotEnforced), "{mode}");
        }
        let lenient = Case { complain: Complain::Allow, ..PLAIN };
        assert_eq!(judge(&lenient, "vm (complain)"), Ok(()));
        assert_eq!(judge(&lenient, "vm (unconfined)"), Err(Mismatch::NotEnforced));
        assert_eq!(judge(&lenient, "vm2 (complain)"), Err(Mismatch::Name));
    }

    #[test]
    fn a_stack_keeps_what_confined_the_caller() {
        let stack = |before| Case {
            method: Method::Stack,
            moment: Moment::Now,
            before,
            complain: Complain::Refuse,
            ..PLAIN
        };
        let twice = stack("a//&b (enforce)");
        assert_eq!(judge(&twice, "vm//&b//&a (enforce)"), Ok(()));
        for lost in ["vm (enforce)", "vm//&a (enforce)", "a//&b (enforce)", "a//&b//&c//&vm (enforce)"] {
            assert_eq!(judge(&twice, lost), Err(Mismatch::Name), "{lost}");
        }
        assert_eq!(judge(&stack("vm (enforce)"), "vm (enforce)"), Ok(()));
        assert_eq!(judge(&stack("unconfined"), "unconfined//&vm (enforce)"), Ok(()));
    }

    #[test]
    fn a_stack_that_is_yet_to_be_built_shows_what_will_be_added() {
        let stack = |complain| Case { method: Method::Stack, before: "a (complain)", complain, ..PLAIN };
        assert_eq!(judge(&stack(Complain::Refuse), "vm (enforce)"), Ok(()));
        assert_eq!(judge(&stack(Complain::Refuse), "vm (complain)"), Err(Mismatch::Complain));
        assert_eq!(judge(&stack(Complain::Allow), "vm (complain)"), Ok(()));
        for other in ["unconfined", "a (complain)", "vm2 (enforce)"] {
            assert_eq!(judge(&stack(Complain::Refuse), other), Err(Mismatch::Name), "{other}");
        }
    }

    #[test]
    fn a_mixed_stack_proves_nothing_of_the_profile() {
        for complain in [Complain::Refuse, Complain::Allow] {
            let stack = Case {
                method: Method::Stack,
                moment: Moment::Now,
                before: "a (complain)",
                complain,
                ..PLAIN
            };
            assert_eq!(judge(&stack, "a//&vm (mixed)"), Err(Mismatch::Mixed));
        }
    }

    #[test]
    fn a_namespace_is_seen_from_outside_before_the_change_and_from_inside_after_it() {
        let on_exec = Case { namespace: Some("ns"), ..PLAIN };
        assert_eq!(judge(&on_exec, ":ns:vm (enforce)"), Ok(()));
        assert_eq!(judge(&on_exec, "vm (enforce)"), Err(Mismatch::Name));
        assert_eq!(judge(&on_exec, ":other:vm (enforce)"), Err(Mismatch::Name));
        let now = Case { namespace: Some("ns"), moment: Moment::Now, ..PLAIN };
        assert_eq!(judge(&now, "vm (enforce)"), Ok(()));
        assert_eq!(judge(&now, ":ns:vm (enforce)"), Ok(()));
        assert_eq!(judge(&now, "vm//&other (enforce)"), Err(Mismatch::Name));
        assert_eq!(judge(&now, "unconfined"), Err(Mismatch::Name));
        assert_eq!(judge(&now, "vm (complain)"), Err(Mismatch::Complain));
    }
}
