//! Unified diffs of small texts, in the form that `diff -u` prints and `patch` reads.

use std::fmt::Write;
use std::ops::Range;

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// Above this many pairs of lines the changed part is shown as removed and added whole.
const MAX_CELLS: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep(usize, usize),
    Remove(usize),
    Add(usize),
}

/// The difference between two texts of the file `path`; `None` is a file that does not exist. Empty
/// if they are the same.
pub fn unified(path: &str, old: Option<&str>, new: Option<&str>) -> String {
    if old == new {
        return String::new();
    }
    let lines = |text: Option<&str>| -> Vec<String> {
        text.unwrap_or_default().split_inclusive('\n').map(str::to_owned).collect()
    };
    let (a, b) = (lines(old), lines(new));
    let edits = edits(&a, &b);
    let mut out = String::new();
    let name = |text: Option<&str>| if text.is_some() { path.to_owned() } else { "/dev/null".to_owned() };
    let _ = writeln!(out, "--- {}\n+++ {}", name(old), name(new));
    for hunk in hunks(&edits) {
        write_hunk(&mut out, edits.get(hunk).unwrap_or_default(), &a, &b);
    }
    out
}

/// The longest common subsequence, after what both begin and end with is set aside.
fn edits(old: &[String], new: &[String]) -> Vec<Edit> {
    let prefix = old.iter().zip(new).take_while(|(x, y)| x == y).count();
    let (old, new) = (old.get(prefix..).unwrap_or_default(), new.get(prefix..).unwrap_or_default());
    let suffix = old.iter().rev().zip(new.iter().rev()).take_while(|(x, y)| x == y).count();
    let (rows, columns) = (old.len() - suffix, new.len() - suffix);
    let width = columns + 1;
    let cells = (rows + 1).saturating_mul(width);
    // longest[i * width + j]: the longest common subsequence of what follows i in old and j in new.
    let mut longest = vec![0u32; if cells <= MAX_CELLS { cells } else { 0 }];
    let cell = |longest: &[u32], i: usize, j: usize| longest.get(i * width + j).copied().unwrap_or(0);
    for (i, x) in old.iter().enumerate().take(rows).rev() {
        for (j, y) in new.iter().enumerate().take(columns).rev() {
            let length = if x == y {
                cell(&longest, i + 1, j + 1) + 1
            } else {
                cell(&longest, i + 1, j).max(cell(&longest, i, j + 1))
            };
            match longest.get_mut(i * width + j) {
                Some(slot) => *slot = length,
                None => break,
            }
        }
    }
    let mut edits: Vec<Edit> = (0..prefix).map(|at| Edit::Keep(at, at)).collect();
    let (mut i, mut j) = (0, 0);
    while i < rows || j < columns {
        let is_same = i < rows && j < columns && old.get(i) == new.get(j) && !longest.is_empty();
        if is_same {
            edits.push(Edit::Keep(prefix + i, prefix + j));
            i += 1;
            j += 1;
        } else if i < rows && (j == columns || cell(&longest, i + 1, j) >= cell(&longest, i, j + 1)) {
            edits.push(Edit::Remove(prefix + i));
            i += 1;
        } else {
            edits.push(Edit::Add(prefix + j));
            j += 1;
        }
    }
    edits.extend((0..suffix).map(|at| Edit::Keep(prefix + rows + at, prefix + columns + at)));
    edits
}

/// Ranges of edits: each change with its context, those that touch joined.
fn hunks(edits: &[Edit]) -> Vec<Range<usize>> {
    let mut hunks: Vec<Range<usize>> = Vec::new();
    for (at, _) in edits.iter().enumerate().filter(|(_, edit)| !matches!(edit, Edit::Keep(..))) {
        let range = at.saturating_sub(CONTEXT)..(at + 1 + CONTEXT).min(edits.len());
        match hunks.last_mut() {
            Some(last) if range.start <= last.end => last.end = range.end,
            _ => hunks.push(range),
        }
    }
    hunks
}

fn write_hunk(out: &mut String, edits: &[Edit], a: &[String], b: &[String]) {
    let old = edits.iter().filter_map(|edit| match edit {
        Edit::Keep(i, _) | Edit::Remove(i) => Some(*i),
        Edit::Add(_) => None,
    });
    let new = edits.iter().filter_map(|edit| match edit {
        Edit::Keep(_, j) | Edit::Add(j) => Some(*j),
        Edit::Remove(_) => None,
    });
    let side = |mut lines: Box<dyn Iterator<Item = usize> + '_>| {
        let first = lines.next();
        format!("{},{}", first.map_or(0, |i| i + 1), first.map_or(0, |_| lines.count() + 1))
    };
    let _ = writeln!(out, "@@ -{} +{} @@", side(Box::new(old)), side(Box::new(new)));
    for edit in edits {
        let (sign, line) = match edit {
            Edit::Keep(i, _) => (' ', a.get(*i)),
            Edit::Remove(i) => ('-', a.get(*i)),
            Edit::Add(j) => ('+', b.get(*j)),
        };
        let line = line.map(String::as_str).unwrap_or_default();
        let end = if line.ends_with('\n') { "" } else { "\n\\ No newline at end of file\n" };
        let _ = write!(out, "{sign}{line}{end}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_its_context_and_nothing_more() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10";
        assert_eq!(
            unified("/f", Some(old), Some(new)),
            "--- /f\n+++ /f\n@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+10\n\\ No newline at end of file\n"
        );
        assert_eq!(unified("/f", None, Some("a\n")), "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified("/f", Some("a\n"), None), "--- /f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n");
        assert_eq!(unified("/f", Some(old), Some(old)), "");
    }
}
