//! Files that are made from the code and committed: the JSON Schemas of the records, the list of dependencies, and
//! that of installed files, which dist's tests hold the archive against.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::report::{Outcome, say};
use crate::workspace::TOOLS;
use crate::{dist, process, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if a file is not what the code would make
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let root = workspace::root()?;
    let mut current = true;
    for (path, text) in files()? {
        let file = root.join(&path);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        if args.check {
            say!("{path} is stale: run `cargo xtask generate`")?;
            current = false;
        } else {
            if let Some(dir) = file.parent() {
                fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            }
            fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
            say!("wrote {path}")?;
        }
    }
    Ok(Outcome::of(current))
}

/// Every generated file: its path below the root, and its content.
fn files() -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for (name, schema) in aa_contract::record::schemas() {
        let mut text = serde_json::to_string_pretty(&schema)?;
        text.push('\n');
        files.push((format!("schema/{name}"), text));
    }
    files.push(("docs/dependencies.md".to_owned(), dependencies()?));
    files.push(("xtask/installed.txt".to_owned(), dist::listing()?));
    Ok(files)
}

/// The crates from elsewhere that a tool is linked with, from Cargo.lock: name with version, and licence.
pub(crate) fn linked(tool: &str) -> Result<BTreeSet<(String, String)>> {
    let mut tree = workspace::cargo();
    tree.current_dir(workspace::root()?).args(["tree", "--locked", "--package", tool]);
    tree.args(["--target", "x86_64-unknown-linux-gnu", "--edges", "normal,no-proc-macro"]);
    tree.args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"]);
    let lines = String::from_utf8(process::output(&mut tree)?)?;
    let crates = lines
        .lines()
        .filter_map(|line| line.split_once('|'))
        // Members of the workspace have their place behind the version.
        .filter(|(package, _)| !package.contains(" ("))
        .map(|(package, licence)| (package.replacen(" v", " ", 1), licence.to_owned()));
    Ok(crates.collect())
}

/// What each tool is linked with.
fn dependencies() -> Result<String> {
    let mut text = String::from(
        "# What each tool is linked with\n\n\
         Written by `cargo xtask generate`. Macros that run while compiling are not listed; CONTRIBUTING.md says\n\
         what each direct dependency is for, deny.toml which licences and sources are let in.\n",
    );
    for tool in TOOLS {
        let crates = linked(tool)?;
        write!(text, "\n## {tool}: {}\n\n| crate | licence |\n|---|---|\n", crates.len())?;
        for (package, licence) in crates {
            writeln!(text, "| {package} | {licence} |")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first words of the rows of CONTRIBUTING.md's table, and what the workspace depends on besides its own crates.
    #[test]
    fn contributing_says_why_of_each_direct_dependency() {
        let read = |path: &str| fs::read_to_string(workspace::root().unwrap().join(path)).unwrap();
        let text = read("CONTRIBUTING.md");
        let (_, section) = text.split_once("\n## Dependencies\n").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let mut told: Vec<&str> =
            rows.flat_map(|cell| cell.split(", ")).filter(|name| *name != "crate").collect();
        told.sort_unstable();
        let manifest = read("Cargo.toml");
        let (_, section) = manifest.split_once("\n[workspace.dependencies]\n").unwrap();
        let lines = section.lines().take_while(|line| !line.is_empty());
        let mut wanted: Vec<&str> = lines
            .filter(|line| !line.contains("path = "))
            .filter_map(|line| Some(line.split_once(" = ")?.0))
            .collect();
        wanted.sort_unstable();
        assert!(wanted.len() > 10 && told == wanted, "told {told:?}, wanted {wanted:?}");
    }
}
