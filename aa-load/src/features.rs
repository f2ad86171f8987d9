//! The features that a parser compiles for. They are always given to it: without them, and without a kernel
//! to ask, it compiles for a kernel of 2010 and says nothing.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// What Debian and Ubuntu pin in `parser.conf`: policy behaves the same on every kernel.
pub(crate) const PINNED: &str = "/usr/share/apparmor-features/features";

/// Bytes of one features text. The parser itself takes 8 KiB.
const LARGEST: usize = 64 << 10;
/// Depth of the tree under `features/`; kernels have three.
const DEEPEST: usize = 8;

/// The tree of `/sys/kernel/security/apparmor/features` as one text, `name {content}`, names in order.
///
/// # Errors
/// What the system said, or that the tree is larger than any kernel's.
pub(crate) fn read_tree(directory: &Path) -> io::Result<String> {
    let mut text = String::new();
    append(directory, &mut text, 0)?;
    Ok(text)
}

fn append(directory: &Path, text: &mut String, depth: usize) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        text.push_str(&name.to_string_lossy());
        text.push_str(" {");
        if entry.file_type()?.is_dir() {
            if depth == DEEPEST {
                return Err(io::Error::other("the tree of features is too deep"));
            }
            append(&entry.path(), text, depth + 1)?;
        } else {
            fs::File::open(entry.path())?.take(LARGEST as u64).read_to_string(text)?;
        }
        text.push_str("}\n");
        if text.len() > LARGEST {
            return Err(io::Error::other("the tree of features is too large"));
        }
    }
    Ok(())
}

/// The text without the perms tables that parsers before 4.1.8 get wrong: blobs seven times as large, and on
/// Linux 7.2 `owner` rules that are not enforced.
pub(crate) fn without_perms_tables(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, found)) = rest.find("permstable32").and_then(|at| rest.split_at_checked(at)) {
        kept.push_str(before);
        let mut depth = 0_usize;
        let end = found.char_indices().find_map(|(at, c)| {
            depth = match c {
                '{' => depth + 1,
                '}' => depth.saturating_sub(1),
                _ => depth,
            };
            (c == '}' && depth == 0).then_some(at + 1)
        });
        rest = end.and_then(|end| found.get(end..)).unwrap_or_default();
        rest = rest.strip_prefix('\n').unwrap_or(rest);
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_the_parsers_text() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("policy/versions")).unwrap();
        fs::write(dir.path().join("policy/versions/v8"), "yes\n").unwrap();
        fs::write(dir.path().join("policy/permstable32"), "allow deny\n").unwrap();
        fs::write(dir.path().join("capability"), "0xffffff\n").unwrap();
        let text = read_tree(dir.path()).unwrap();
        assert_eq!(
            text,
            "capability {0xffffff\n}\npolicy {permstable32 {allow deny\n}\nversions {v8 {yes\n}\n}\n}\n"
        );
        assert!(read_tree(&dir.path().join("none")).is_err());
    }

    #[test]
    fn perms_tables_are_cut_out_and_nothing_else() {
        let text =
            "policy {permstable32 {allow deny\n}\npermstable32_version {0x000003\n}\nset_load {yes\n}\n}\n";
        assert_eq!(without_perms_tables(text), "policy {set_load {yes\n}\n}\n");
        let plain = "file {mask {read\n}\n}\n";
        assert_eq!(without_perms_tables(plain), plain);
        assert_eq!(without_perms_tables("a {b\n}\npermstable32 {"), "a {b\n}\n");
    }
}
