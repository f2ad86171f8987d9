//! A domain around a piece of XML, and what is derived from it.

use std::path::Path;

use aa_contract::{Derived, Target};
use aa_derive::host::Files;
use aa_derive::path_policy::{DEFAULT, PathPolicy};
use aa_derive::{Error, Options, derive};

/// The options of a call without any.
pub(crate) fn options() -> Options {
    Options::new(PathPolicy::parse(DEFAULT).unwrap())
}

/// A running kvm guest called `guest`, id 7, with this inside `<domain>`.
pub(crate) fn domain(inside: &str) -> String {
    format!(
        "<domain type='kvm' id='7'>\n<name>guest</name>\n<uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid>\n\
         <os><type arch='x86_64'>hvm</type></os>\n{inside}\n</domain>\n"
    )
}

/// Derives with options of the test's own, below a root of the test's own.
pub(crate) fn derive_with(xml: &str, options: &Options, root: &Path) -> Result<Derived, Error> {
    derive(xml.as_bytes(), options, &Files::new(root).unwrap())
}

/// Derives a domain with this inside, on an empty host.
pub(crate) fn try_inside(inside: &str) -> Result<Derived, Error> {
    let root = tempfile::tempdir().unwrap();
    derive_with(&domain(inside), &options(), root.path())
}

/// The rules as `ACCESS TARGET`, sorted as text (`deny ` before, `glob:` before a pattern), without those every guest has.
pub(crate) fn rules(record: &Derived) -> Vec<String> {
    let base = try_inside("").unwrap();
    let own = |rule: &&aa_contract::Rule| !base.rules().iter().any(|other| other.target == rule.target);
    let mut rules: Vec<String> = record
        .rules()
        .iter()
        .filter(own)
        .map(|rule| {
            let deny = if rule.deny { "deny " } else { "" };
            match &rule.target {
                Target::Path(path) => format!("{deny}{} {path}", rule.access),
                Target::Glob(glob) => format!("{deny}{} glob:{glob}", rule.access),
            }
        })
        .collect();
    rules.sort();
    rules
}

/// The rules of a domain with this inside, on an empty host.
pub(crate) fn inside(inside: &str) -> Vec<String> {
    rules(&try_inside(inside).unwrap())
}

/// The rules of a device.
pub(crate) fn device(device: &str) -> Vec<String> {
    inside(&format!("<devices>{device}</devices>"))
}

/// The refusal of a device, as it is printed.
pub(crate) fn refused(device: &str) -> String {
    try_inside(&format!("<devices>{device}</devices>")).expect_err(device).to_string()
}
