//! Which paths a pattern matches.

use std::slice;

/// One step of a pattern on its way along a path.
#[derive(Debug)]
enum Step {
    Byte(u8),
    /// `?`
    One,
    /// `*`, and a variable, which here stands for any name.
    Name,
    /// `**`
    Any,
    /// `[…]`
    Class {
        not: bool,
        ranges: Vec<(u8, u8)>,
    },
    /// `{`: goes on at each of these.
    Fork(Vec<usize>),
    /// From the end of a choice to behind its `}`.
    Jump(usize),
}

/// A pattern that was checked, as steps. The end is behind the last.
#[derive(Debug)]
pub(crate) struct Steps(Vec<Step>);

/// A brace that is open: where its fork is, and the ends of its choices by now.
struct Open {
    fork: usize,
    ends: Vec<usize>,
}

impl Steps {
    /// Reads a pattern that [`crate::Glob`] has taken.
    pub(crate) fn of(pattern: &str) -> Self {
        let mut bytes = pattern.as_bytes().iter();
        let mut steps = Vec::with_capacity(pattern.len());
        let mut open: Vec<Open> = Vec::new();
        while let Some(&byte) = bytes.next() {
            let here = steps.len();
            match byte {
                // An `@` before a brace is a variable's also where it is escaped.
                b'@' | b'\\' => {
                    let literal = if byte == b'@' { byte } else { escaped(&mut bytes) };
                    if literal == b'@' && bytes.as_slice().starts_with(b"{") {
                        bytes.by_ref().find(|byte| **byte == b'}');
                        steps.push(Step::Name);
                    } else {
                        steps.push(Step::Byte(literal));
                    }
                }
                b'?' => steps.push(Step::One),
                b'*' => {
                    let rest = bytes.as_slice().strip_prefix(b"*");
                    steps.push(if rest.is_some() { Step::Any } else { Step::Name });
                    bytes = rest.map_or(bytes, <[u8]>::iter);
                }
                b'[' => steps.push(class(&mut bytes)),
                b'{' => {
                    steps.push(Step::Fork(vec![here.saturating_add(1)]));
                    open.push(Open { fork: here, ends: Vec::new() });
                }
                b',' if !open.is_empty() => {
                    steps.push(Step::Jump(0));
                    if let Some(brace) = open.last_mut() {
                        brace.ends.push(here);
                        if let Some(Step::Fork(choices)) = steps.get_mut(brace.fork) {
                            choices.push(here.saturating_add(1));
                        }
                    }
                }
                b'}' => {
                    for end in open.pop().map(|brace| brace.ends).unwrap_or_default() {
                        if let Some(Step::Jump(target)) = steps.get_mut(end) {
                            *target = here;
                        }
                    }
                }
                byte => steps.push(Step::Byte(byte)),
            }
        }
        Self(steps)
    }

    /// Whether all of `text` can be gone along.
    pub(crate) fn match_all(&self, text: &str) -> bool {
        let mut now = Places::new(self.0.len());
        let mut next = Places::new(self.0.len());
        now.add(&self.0, 0, 0);
        for (time, byte) in (1..).zip(text.bytes()) {
            next.list.clear();
            for place in &now.list {
                let after = place.saturating_add(1);
                match self.0.get(*place) {
                    Some(Step::Byte(wanted)) if byte == *wanted => next.add(&self.0, after, time),
                    Some(Step::One) if byte != b'/' => next.add(&self.0, after, time),
                    Some(Step::Name) if byte != b'/' => next.add(&self.0, *place, time),
                    Some(Step::Any) => next.add(&self.0, *place, time),
                    Some(Step::Class { not, ranges })
                        if ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte)) != *not =>
                    {
                        next.add(&self.0, after, time);
                    }
                    _ => {}
                }
            }
            if next.list.is_empty() {
                return false;
            }
            std::mem::swap(&mut now, &mut next);
        }
        now.list.contains(&self.0.len())
    }
}

/// The places in a pattern where one can be at a time, each once.
struct Places {
    list: Vec<usize>,
    /// For each place when it was last added, and one more than the steps for the end.
    added: Vec<Option<usize>>,
}

impl Places {
    fn new(steps: usize) -> Self {
        Self { list: Vec::new(), added: vec![None; steps.saturating_add(1)] }
    }

    /// Adds a place, and where one is from there without another byte.
    fn add(&mut self, steps: &[Step], place: usize, time: usize) {
        let mut left = vec![place];
        while let Some(place) = left.pop() {
            match self.added.get_mut(place) {
                Some(added) if *added != Some(time) => *added = Some(time),
                _ => continue,
            }
            match steps.get(place) {
                Some(Step::Fork(choices)) => left.extend(choices),
                Some(Step::Jump(target)) => left.push(*target),
                step => {
                    self.list.push(place);
                    if matches!(step, Some(Step::Name | Step::Any)) {
                        left.push(place.saturating_add(1));
                    }
                }
            }
        }
    }
}

/// What stands behind a backslash: three octal digits, or one character.
fn escaped(bytes: &mut slice::Iter<'_, u8>) -> u8 {
    let digit = |byte: u8| byte.wrapping_sub(b'0') & 7;
    match (bytes.next(), bytes.as_slice()) {
        (Some(first), [second, third, rest @ ..]) if first.is_ascii_digit() => {
            *bytes = rest.iter();
            (digit(*first) << 6) | (digit(*second) << 3) | digit(*third)
        }
        (first, _) => first.copied().unwrap_or_default(),
    }
}

/// What stands between brackets.
fn class(bytes: &mut slice::Iter<'_, u8>) -> Step {
    let mut ranges = Vec::new();
    let not = bytes.as_slice().starts_with(b"^");
    if not {
        bytes.next();
    }
    while let Some(&first) = bytes.next().filter(|byte| **byte != b']') {
        match bytes.as_slice() {
            [b'-', last, rest @ ..] => {
                ranges.push((first, *last));
                *bytes = rest.iter();
            }
            _ => ranges.push((first, first)),
        }
    }
    Step::Class { not, ranges }
}
