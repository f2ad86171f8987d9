//! A second reading of AppArmor's patterns, to check the first: what stands between the quotes of a rule, as
//! `apparmor.d(5)` and the measured parsers have it. Where the parser is narrower (a `*` behind a slash must
//! match something), this one is not: it is asked what a rule must not match.

use std::collections::BTreeSet;

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// This byte.
    Byte(u8),
    /// `?`
    One,
    /// `*`, and a variable.
    Name,
    /// `**`
    Any,
    /// `[…]`
    Class {
        /// `[^…]`
        not: bool,
        /// First and last byte of each range.
        ranges: Vec<(u8, u8)>,
    },
    /// `{…,…}`
    Choice(Vec<Vec<Part>>),
}

/// A byte after escapes were decoded, and whether it can still mean something.
#[derive(Debug, Clone, Copy)]
struct Decoded {
    byte: u8,
    live: bool,
}

/// The bytes that stay without a sense of their own when they come out of an escape.
const SPECIAL: &[u8] = b"\"*?[]{}^,\\";

/// Reads what stands between the quotes of a rule.
///
/// # Errors
/// The parser would refuse it, or its reading is not told here.
pub fn parse(pattern: &[u8]) -> Result<Vec<Part>, &'static str> {
    let decoded = decode(pattern)?;
    let mut rest = decoded.as_slice();
    let parts = sequence(&mut rest, 0)?;
    if rest.is_empty() { Ok(parts) } else { Err("a closing brace without an opening one") }
}

/// The only text that the pattern matches; none if there are more.
pub fn literal(parts: &[Part]) -> Option<Vec<u8>> {
    parts.iter().map(|part| if let Part::Byte(byte) = part { Some(*byte) } else { None }).collect()
}

/// Whether the pattern matches all of `text`.
pub fn matches(parts: &[Part], text: &[u8]) -> bool {
    advance(parts, text, BTreeSet::from([0])).contains(&text.len())
}

fn decode(pattern: &[u8]) -> Result<Vec<Decoded>, &'static str> {
    let mut decoded = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            if byte == b'"' {
                return Err("a quote ends the pattern");
            }
            decoded.push(Decoded { byte, live: true });
            continue;
        }
        let Some((&next, tail)) = rest.split_first() else { return Err("a backslash at the end") };
        if SPECIAL.contains(&next) && next != b'\\' {
            rest = tail;
            decoded.push(Decoded { byte: next, live: false });
            continue;
        }
        let Some((digits, tail)) = rest.split_at_checked(3) else { return Err("another escape") };
        rest = tail;
        let mut value = 0u32;
        for digit in digits {
            let digit = char::from(*digit).to_digit(8).ok_or("another escape")?;
            value = value * 8 + digit;
        }
        let byte = u8::try_from(value).map_err(|_| "more than a byte")?;
        decoded.push(Decoded { byte, live: !SPECIAL.contains(&byte) });
    }
    Ok(decoded)
}

fn sequence(rest: &mut &[Decoded], depth: usize) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    while let Some((&Decoded { byte, live }, tail)) = rest.split_first() {
        if live && depth > 0 && matches!(byte, b',' | b'}') {
            return Ok(parts);
        }
        *rest = tail;
        let next = |byte| tail.first().is_some_and(|next| next.live && next.byte == byte);
        parts.push(match byte {
            _ if !live => Part::Byte(byte),
            b'?' => Part::One,
            b'*' if next(b'*') => {
                *rest = tail.get(1..).unwrap_or_default();
                Part::Any
            }
            b'*' => Part::Name,
            b'@' if next(b'{') => {
                let end = tail.iter().position(|part| part.byte == b'}').ok_or("an open variable")?;
                *rest = tail.get(end + 1..).unwrap_or_default();
                Part::Name
            }
            b'[' => class(rest)?,
            b'{' => choice(rest, depth)?,
            b']' => return Err("a closing bracket without an opening one"),
            b'}' => return Err("a closing brace without an opening one"),
            byte => Part::Byte(byte),
        });
    }
    if depth > 0 { Err("an open brace") } else { Ok(parts) }
}

fn choice(rest: &mut &[Decoded], depth: usize) -> Result<Part, &'static str> {
    let mut choices = Vec::new();
    loop {
        choices.push(sequence(rest, depth + 1)?);
        let Some((end, tail)) = rest.split_first() else { return Err("an open brace") };
        *rest = tail;
        if end.byte == b'}' {
            return Ok(Part::Choice(choices));
        }
    }
}

fn class(rest: &mut &[Decoded]) -> Result<Part, &'static str> {
    let end = rest.iter().position(|part| part.live && part.byte == b']').ok_or("an open bracket")?;
    let (inside, tail) = rest.split_at(end);
    *rest = tail.get(1..).unwrap_or_default();
    let mut bytes: Vec<u8> = inside.iter().map(|part| part.byte).collect();
    let not = bytes.first() == Some(&b'^');
    if not {
        bytes.remove(0);
    }
    if bytes.is_empty() {
        return Err("an empty bracket");
    }
    let mut ranges = Vec::new();
    let mut left = bytes.as_slice();
    while let Some((&first, tail)) = left.split_first() {
        left = match tail {
            [b'-', last, more @ ..] => {
                ranges.push((first, *last));
                more
            }
            more => {
                ranges.push((first, first));
                more
            }
        };
    }
    Ok(Part::Class { not, ranges })
}

/// Where in `text` the parts can end when they start at one of these places.
fn advance(parts: &[Part], text: &[u8], mut from: BTreeSet<usize>) -> BTreeSet<usize> {
    for part in parts {
        let step = |takes: &dyn Fn(u8) -> bool| -> BTreeSet<usize> {
            from.iter()
                .filter(|at| text.get(**at).is_some_and(|byte| takes(*byte)))
                .map(|at| at + 1)
                .collect()
        };
        let run = |stops: &dyn Fn(u8) -> bool| -> BTreeSet<usize> {
            from.iter()
                .flat_map(|at| {
                    let tail = text.get(*at..).unwrap_or_default();
                    let end = tail.iter().position(|byte| stops(*byte)).unwrap_or(tail.len());
                    *at..=*at + end
                })
                .collect()
        };
        from = match part {
            Part::Byte(wanted) => step(&|byte| byte == *wanted),
            Part::One => step(&|byte| byte != b'/'),
            Part::Name => run(&|byte| byte == b'/'),
            Part::Any => run(&|_| false),
            Part::Class { not, ranges } => {
                step(&|byte| ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte)) != *not)
            }
            Part::Choice(choices) => {
                choices.iter().flat_map(|choice| advance(choice, text, from.clone())).collect()
            }
        };
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_should_and_nothing_else() {
        for (pattern, yes, no) in [
            ("/a/**", &["/a/b", "/a/b/c"][..], &["/a", "/ab"][..]),
            ("/a/*", &["/a/b"], &["/a/b/c", "/b"]),
            ("/a?", &["/ab"], &["/a", "/a/", "/abc"]),
            ("/[a-c]x[^d]", &["/bxe"], &["/dxe", "/bxd"]),
            ("/{a,b{c,}}/x", &["/a/x", "/b/x", "/bc/x"], &["/c/x", "/abc/x"]),
            ("/d/{,**}", &["/d/", "/d/e/f"], &["/d", "/de"]),
            ("/\\052\\173a\\054b\\175\\*", &["/*{a,b}*"], &["/xa", "/a"]),
            ("/usr/lib/@{multiarch}/x", &["/usr/lib/x86_64-linux-gnu/x"], &["/usr/lib/a/b/x"]),
            ("/\\100{x}", &["/anything"], &["/a/b"]),
        ] {
            let parts = parse(pattern.as_bytes()).unwrap();
            for text in yes {
                assert!(matches(&parts, text.as_bytes()), "{pattern} {text}");
            }
            for text in no {
                assert!(!matches(&parts, text.as_bytes()), "{pattern} {text}");
            }
        }
        for bad in ["/a\"", "/{", "/}", "/[", "/]", "/[]", "/\\", "/\\q", "/\\09", "/@{x"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
