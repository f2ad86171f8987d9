//! Every call that real libvirtds made in the life of a guest, made again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tree::{Tree, qcow2};

const IMAGES: &str = "/var/lib/libvirt/images/";

/// The recorded calls, beside the project.
fn captures(suite: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures").join(suite);
    assert!(dir.is_dir(), "no recorded calls in {}", dir.display());
    dir
}

/// The image files that rules name, with whether they may be written.
fn granted(tree: &Tree) -> BTreeSet<(String, bool)> {
    let named = |rule: String| {
        let (path, access) = rule.strip_prefix('"')?.split_once("\" ")?;
        let image = path.strip_prefix(IMAGES)?;
        Some((image.to_owned(), access.contains('w')))
    };
    tree.rules().into_iter().filter_map(named).collect()
}

/// The image files that the XML names in any attribute, mirrors and serial logs too.
fn named(xml: &str) -> BTreeSet<String> {
    xml.split(IMAGES).skip(1).filter_map(|rest| rest.split(['\'', '<']).next()).map(str::to_owned).collect()
}

fn replay(suite: &str, loads_of_a_start: usize) {
    let dir = captures(suite);
    let calls: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(dir.join("calls.json")).unwrap()).unwrap();
    let tree = Tree::new();
    let root = tree.host.root.join("var/lib/libvirt/images");
    fs::write(root.join("a.qcow2"), qcow2("/var/lib/libvirt/images/base.raw")).unwrap();
    fs::write(root.join("base.raw"), "").unwrap();
    let mut appended = BTreeSet::new();
    let mut last_update = BTreeSet::new();
    let mut loads = 0;
    for call in &calls {
        let number = call["call"].as_str().unwrap();
        let event = format!("{suite} {number} {}", call["event"].as_str().unwrap());
        let argv: Vec<&str> =
            call["argv"].as_array().unwrap().iter().skip(1).map(|arg| arg.as_str().unwrap()).collect();
        let xml = fs::read_to_string(dir.join(format!("{number}.xml"))).unwrap_or_default();
        tree.call(&argv, &xml).unwrap_or_else(|error| panic!("{event}: {error}"));
        loads += tree.parser_calls().len();
        if call["event"] == "start" && argv.last() == Some(&"/dev/userfaultfd")
            || call["event"] == "start" && suite.contains("12") && number == "003"
        {
            assert_eq!(loads, loads_of_a_start, "{event}");
        }
        if argv.contains(&"-D") {
            assert!(tree.text(".files").is_none(), "{event}");
            appended.clear();
            continue;
        }
        if let Some(at) = argv.iter().position(|arg| *arg == "-F") {
            appended.extend(argv[at + 1].strip_prefix(IMAGES).map(str::to_owned));
        } else {
            appended.clear();
            last_update = named(&xml);
        }
        // What the last update's XML named, what was appended since, and the first image's chain. Only an
        // update takes away: at an append, libvirtd may be about to use what its XML names no more.
        let have = granted(&tree);
        let images: BTreeSet<String> = have.iter().map(|(image, _)| image.clone()).collect();
        let mut may: BTreeSet<String> = last_update.clone();
        may.extend(appended.iter().cloned());
        if may.contains("a.qcow2") || may.contains("copy.qcow2") {
            may.insert("base.raw".to_owned());
        }
        assert!(images.is_subset(&may), "{event}: {:?} may not be granted", images.difference(&may));
        let must: BTreeSet<String> = appended.iter().cloned().collect();
        assert!(must.is_subset(&images), "{event}: {:?} must be granted", must.difference(&images));
        if !argv.contains(&"-F") {
            let must = named(&xml);
            assert!(must.is_subset(&images), "{event}: {:?} must be granted", must.difference(&images));
        }
        // The shared base and the medium of a read-only drive are never written.
        for image in ["base.raw", "cd.iso"] {
            assert!(!have.contains(&(image.to_owned(), true)), "{event}: {image} may be written");
        }
        assert!(!tree.text(".files").unwrap().contains("deny "), "{event}");
    }
}

#[test]
#[ignore = "needs the recorded calls beside the project; cargo xtask test runs it"]
fn of_libvirt_9() {
    replay("debian12-libvirt-9.0", 1);
}

#[test]
#[ignore = "needs the recorded calls beside the project; cargo xtask test runs it"]
fn of_libvirt_11() {
    // The node for post-copy migration is granted by libvirtd alone, so it costs a second load.
    replay("debian13-libvirt-11.3", 2);
}
