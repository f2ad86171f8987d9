//! What the documents name exists: tests, functions to review, files that are installed, and where links lead.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The files below a directory with this extension.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, extension));
        } else if path.extension() == Some(extension.as_ref()) {
            found.push(path);
        }
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `crate::module::test` and `guest/file/case`.
fn is_test(name: &str) -> bool {
    (name.split("::").count() == 3 && !name.starts_with("crate::"))
        || (name.starts_with("guest/") && name.split('/').count() == 3)
}

/// Whether there is such a test: in a module of that name, with the attribute.
fn exists(name: &str) -> bool {
    if let Some((_, case)) = name.split_once("guest/") {
        let (file, case) = case.split_once('/').unwrap();
        let is_of = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().get(3..) == Some(file);
        return files(&root().join("tests/guest"), "sh")
            .iter()
            .any(|path| is_of(path) && read(path).contains(&format!("\ncase_{case}() {{\n")));
    }
    let parts: Vec<&str> = name.split("::").collect();
    let (krate, module, test) = (parts[0], parts[1], parts[2]);
    begins(krate, module, &format!("fn {test}("))
}

/// Whether a test in such a module of the crate begins so.
fn begins(krate: &str, module: &str, head: &str) -> bool {
    let dir = root().join(if krate == "aa-tests" { "tests" } else { krate });
    dir.is_dir()
        && files(&dir, "rs").iter().any(|path| {
            let stems = path.iter().map(|part| part.to_string_lossy());
            let mut stems =
                stems.map(|part| part.trim_end_matches(".rs").trim_end_matches("_tests").to_owned());
            let source = read(path);
            stems.any(|stem| stem == module)
                && source
                    .split(head)
                    .take(source.matches(head).count())
                    .any(|before| before.lines().rev().take(4).any(|line| line.trim() == "#[test]"))
        })
}

/// As in documents that are of one crate: `module::test` or `module::tests::test`, of a long name the beginning and `…`;
/// `module::tests` are all of a module.
fn exists_in_short(name: &str) -> bool {
    let (module, test) = name.split_once("::").unwrap();
    let test = test.trim_start_matches("tests::");
    let head = match test.strip_suffix('…') {
        Some(beginning) => format!("fn {beginning}"),
        None if test == "tests" => "fn ".to_owned(),
        None => format!("fn {test}("),
    };
    ["aa-derive", "aa-render", "virt-aa-helper"].iter().any(|krate| begins(krate, module, &head))
}

#[test]
fn each_test_of_what_is_granted_exists() {
    for document in ["docs/coverage.md", "docs/differences.md"] {
        let text = read(document);
        // Of the rule for names the head gives the form.
        let is_name = |name: &&str| name.contains("::") && *name != "module::test" && !name.ends_with("::…");
        let names: Vec<&str> = quoted(&text).filter(is_name).collect();
        let missing: Vec<&&str> = names.iter().filter(|name| !exists_in_short(name)).collect();
        assert!(missing.is_empty(), "{document} names what is no test: {missing:?}");
        assert!(names.len() > 50, "{document}: only {names:?}");
    }
    for missing in
        ["image::chain", "disk::no_such_…", "base::tests::no", "sysfs::usb_devices", "error::tests"]
    {
        assert!(!exists_in_short(missing), "{missing}");
    }
}

#[test]
fn each_named_test_exists() {
    let mut total = 0;
    for document in ["docs/security-tests.md", "SECURITY.md"] {
        let text = read(document);
        let names: Vec<&str> = quoted(&text).filter(|name| is_test(name)).collect();
        let missing: Vec<&&str> = names.iter().filter(|name| !exists(name)).collect();
        assert!(missing.is_empty(), "{document} names what is no test: {missing:?}");
        total += names.len();
    }
    assert!(total > 100, "only {total} tests are named");
    for row in read("docs/security-tests.md").lines().filter(|line| line.starts_with("| ")) {
        let is_head = row.ends_with("| test |");
        assert!(is_head || quoted(row).any(is_test), "no test: {row}");
    }
    // The check would see one that is not there, or that is there and no test.
    for missing in [
        "aa-render::faults::no_such_test",
        "aa-load::lies::no_file_of_the_kernel_stays_open_over_exec",
        "aa-render::faults::changes",
        "guest/load/no_such_case",
        "guest/lies/long_many_changes_by_eight_processes",
    ] {
        assert!(is_test(missing) && !exists(missing), "{missing}");
    }
}

/// The lines of every function of that name, outside of tests.
fn lines_of(text: &str, function: &str) -> usize {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines: Vec<&str> = code.lines().collect();
    let begins = |line: &str| ["(", "<"].iter().any(|c| line.contains(&format!("fn {function}{c}")));
    let starts = lines.iter().enumerate().filter(|(_, line)| begins(line));
    starts
        .map(|(at, line)| {
            let end = format!("{}}}", " ".repeat(line.len() - line.trim_start().len()));
            lines[at..].iter().position(|line| *line == end).map_or(0, |length| length + 1)
        })
        .sum()
}

#[test]
fn each_function_to_review_exists() {
    let text = read("docs/review.md");
    let (all, merged) = text.split_once("\nWhere `aa-load --merge`").unwrap();
    for part in [all, merged] {
        let mut total = 0;
        for row in part.lines().filter(|line| line.starts_with("| `")) {
            let mut names = quoted(row);
            let file = names.next().unwrap();
            let source = read(file);
            for function in names {
                let lines = lines_of(&source, function);
                assert!(lines > 0, "docs/review.md: {file} has no function {function}");
                total += lines;
            }
        }
        // The first number that stands alone in each part of docs/review.md is its number of lines.
        let told: usize = part.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        assert!(told.abs_diff(total) <= 15, "docs/review.md says {told} lines, and it is {total}");
    }
    assert_eq!(lines_of("fn a() {\n    1\n}\n#[cfg(test)]\nfn a() {\n}\n", "a"), 3);
}

/// The name by which a link finds a heading: in lower case, without punctuation, with dashes for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn each_link_leads_somewhere() {
    let documents = [files(&root().join("docs"), "md"), files(&root().join("contrib"), "md")].concat();
    let at_the_top = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let at_the_top = at_the_top.filter(|path| path.extension() == Some("md".as_ref()));
    let mut followed = 0;
    for document in at_the_top.chain(documents) {
        let text = read(&document);
        for (_, rest) in text.match_indices("](").map(|(at, mark)| text.split_at(at + mark.len())) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
            let linked = if path.is_empty() { document.clone() } else { document.with_file_name(path) };
            let place = format!("{}: {target}", document.display());
            assert!(linked.exists(), "{place} is not there");
            if !wanted.is_empty() {
                let linked = read(&linked);
                let mut headings = linked.lines().filter(|line| line.starts_with('#'));
                let is_wanted = |heading: &str| anchor(heading.trim_start_matches('#').trim()) == wanted;
                assert!(headings.any(is_wanted), "{place} has no such heading");
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "only {followed} links");
    assert_eq!(anchor("`aa-load status --json`"), "aa-load-status---json");
}

/// What a document has to be typed: the lines of its blocks, without the prompt.
fn commands(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    for block in text.split("\n```console\n").skip(1) {
        let (block, _) = block.split_once("\n```\n").unwrap();
        for line in block.lines() {
            commands.push(line.strip_prefix("# ").unwrap_or_else(|| panic!("no prompt: {line}")));
        }
    }
    commands
}

/// Whether a path of ours, or a pattern with a star at its end, is what `cargo xtask dist` installs or the
/// directory of such.
fn is_installed(path: &str) -> bool {
    let list = read("xtask/installed.txt");
    let mut installed = list.lines().map(|line| line.split_once(' ').unwrap().1);
    let path = path.trim_start_matches('/');
    installed.any(|file| match path.strip_suffix('*') {
        Some(start) => file.starts_with(start),
        None => file == path || file.starts_with(&format!("{path}/")),
    })
}

/// tests/guest/fresh/10-document.sh types them.
#[test]
fn each_file_of_ours_that_is_typed_is_installed() {
    let text = read("docs/libvirt.md");
    let commands = commands(&text);
    assert!(commands.len() > 30, "{commands:?}");
    let mut made: Vec<&str> = vec!["/var/cache/aa-svirt"];
    let mut total = 0;
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        // What a command makes: the place of a diverted file.
        made.extend(words.windows(2).filter(|pair| pair[0] == "--divert").map(|pair| pair[1]));
        for word in words.into_iter().filter(|word| word.starts_with('/') && word.contains("aa-svirt")) {
            // libvirt's directory of hooks is not ours.
            if word.starts_with("/etc/libvirt/") || made.contains(&word) {
                continue;
            }
            assert!(is_installed(word), "not installed: {word}, in: {command}");
            total += 1;
        }
    }
    assert!(total > 10, "only {total}");
    for none in ["/usr/lib/aa-svirt/bin/aa-none", "/etc/apparmor.d/usr.sbin.aa-svirt.*", "/usr/lib/aa-sv"] {
        assert!(!is_installed(none), "{none}");
    }
}
