//! What the unit tests of the rules share: a domain around a piece of XML, and what it is granted.

use std::collections::BTreeSet;
use std::path::Path;

use aa_contract::{Derived, NoteKind};

use crate::host::Files;
use crate::path_policy::{self, PathPolicy};
use crate::{Error, Options};

pub(crate) const UUID: &str = "a22e3930-d87a-584e-22b2-1d8950212bac";

/// A domain called `guest` with id 7; `inner` stands below `<domain>`.
pub(crate) fn domain(domain_type: &str, inner: &str) -> String {
    format!(
        "<domain type='{domain_type}' id='7'><name>guest</name><uuid>{UUID}</uuid><os><type>hvm</type></os>{inner}</domain>"
    )
}

/// The record of such a domain, with `root` for the host.
pub(crate) fn record(domain_type: &str, inner: &str, root: &Path) -> Result<Derived, Error> {
    crate::derive(domain(domain_type, inner).as_bytes(), &options(), &Files::new(root).unwrap())
}

/// The same, of a guest that does not run.
pub(crate) fn stopped(domain_type: &str, inner: &str, root: &Path) -> Result<Derived, Error> {
    let xml = domain(domain_type, inner).replacen(" id='7'", "", 1);
    crate::derive(xml.as_bytes(), &options(), &Files::new(root).unwrap())
}

/// Options with which no image is read.
pub(crate) fn options() -> Options {
    Options { probe: false, ..Options::new(PathPolicy::parse(path_policy::DEFAULT).unwrap()) }
}

/// The pairs of pattern or path and access that `inner` adds to what every domain of the type has.
pub(crate) fn rules(domain_type: &str, inner: &str, root: &Path) -> Vec<(String, String)> {
    let pairs = |inner| -> Vec<(String, String)> {
        let record = record(domain_type, inner, root).unwrap();
        record.rules().iter().map(|rule| (rule.target.to_string(), rule.access.to_string())).collect()
    };
    let base: BTreeSet<_> = pairs("").into_iter().collect();
    pairs(inner).into_iter().filter(|pair| !base.contains(pair)).collect()
}

/// The same for devices of a kvm domain on a host that has nothing.
pub(crate) fn device_rules(devices: &str) -> Vec<(String, String)> {
    let root = tempfile::tempdir().unwrap();
    rules("kvm", &format!("<devices>{devices}</devices>"), root.path())
}

/// The kinds of the notes on such devices.
pub(crate) fn device_notes(devices: &str) -> Vec<NoteKind> {
    let root = tempfile::tempdir().unwrap();
    notes(&format!("<devices>{devices}</devices>"), root.path())
}

/// The kinds of the notes on a kvm domain.
pub(crate) fn notes(inner: &str, root: &Path) -> Vec<NoteKind> {
    record("kvm", inner, root).unwrap().notes().iter().map(|note| note.kind).collect()
}

/// Why such devices are refused.
pub(crate) fn refusal(devices: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    record("kvm", &format!("<devices>{devices}</devices>"), root.path()).expect_err(devices).to_string()
}

/// Asserts that the rules are these, in any order.
#[track_caller]
pub(crate) fn same(rules: &[(String, String)], expected: &[(&str, &str)]) {
    let rules: BTreeSet<(&str, &str)> = rules.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(rules, expected.iter().copied().collect());
}

/// Puts a file into a fake host.
pub(crate) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Puts a symbolic link into a fake host.
pub(crate) fn link(root: &Path, path: &str, target: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(target, path).unwrap();
}
