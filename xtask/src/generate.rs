//! Files that are made from the code and committed: the JSON Schemas of the records.

use std::fs;

use anyhow::{Context as _, Result};

use crate::report::{Outcome, say};
use crate::workspace;

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
    Ok(files)
}
