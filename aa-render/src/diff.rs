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
fn edits(a: &[String], b: &[String]) -> Vec<Edit> {
    let prefix = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (tail_a, tail_b) = (a.get(prefix..).unwrap_or_default(), b.get(prefix..).unwrap_or_default());
    let suffix = tail_a.iter().rev().zip(tail_b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (n, m) = (tail_a.len() - suffix, tail_b.len() - suffix);
    let mut edits: Vec<Edit> = (0..prefix).map(|i| Edit::Keep(i, i)).collect();
    let width = m + 1;
    let cells = (n + 1).saturating_mul(width);
    let mut table = vec![0u32; if cells <= MAX_CELLS { cells } else { 0 }];
    let cell = |table: &[u32], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    if !table.is_empty() {
        for (i, x) in tail_a.iter().enumerate().take(n).rev() {
            for (j, y) in tail_b.iter().enumerate().take(m).rev() {
                let longest = if x == y {
                    cell(&table, i + 1, j + 1) + 1
                } else {
                    cell(&table, i + 1, j).max(cell(&table, i, j + 1))
                };
                if let Some(slot) = table.get_mut(i * width + j) {
                    *slot = longest;
                }
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < n || j < m {
        let same = i < n && j < m && tail_a.get(i) == tail_b.get(j) && !table.is_empty();
        if same {
            edits.push(Edit::Keep(prefix + i, prefix + j));
            i += 1;
            j += 1;
        } else if i < n && (j == m || cell(&table, i + 1, j) >= cell(&table, i, j + 1)) {
            edits.push(Edit::Remove(prefix + i));
            i += 1;
        } else {
            edits.push(Edit::Add(prefix + j));
            j += 1;
        }
    }
    edits.extend((0..suffix).map(|k| Edit::Keep(prefix + n + k, prefix + m + k)));
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
