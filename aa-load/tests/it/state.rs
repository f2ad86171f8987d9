//! What is in use, confined, left behind: remove, verify and gc against a tree like the kernel's.

use std::fs;

use crate::support::{Host, NAME, OTHER};

fn uuid(name: &str) -> &str {
    name.strip_prefix("libvirt-").unwrap()
}

impl Host {
    fn load(&self, names: &[&str]) {
        assert!(self.run(names, "").status.success());
    }

    fn define(&self, file: &str, name: &str) {
        let file = self.at(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("<domain><uuid>{}</uuid></domain>", uuid(name))).unwrap();
    }
}

#[test]
fn gc_knows_guests_with_a_directory_each() {
    let host = Host::new();
    host.load(&[NAME, OTHER]);
    host.define("defs/web/domain.xml", NAME);
    host.expect(&["gc", "--min-age", "0"], "", 0, &[OTHER], &["removes"], "");
    assert!(host.at("d").join(NAME).exists());
    // As the kernel would have it.
    fs::remove_dir_all(host.at(&format!("fs/apparmor/policy/profiles/{OTHER}.1"))).unwrap();
    // A place without any guest is one from which the last has gone.
    fs::remove_dir_all(host.at("defs/web")).unwrap();
    host.expect(&["gc", "--min-age", "0"], "", 0, &[NAME], &["removes"], "");
}

#[test]
fn a_whole_set_is_never_added() {
    let host = Host::new();
    for _ in 0..2 {
        host.expect(&["add", "--direct", NAME], "", 2, &[], &["does not go with add"], "");
        assert!(fs::read(host.at("fs/apparmor/.replace")).unwrap().is_empty());
        host.load(&[NAME]);
    }
    host.expect(&["replace", "--direct", NAME], "", 0, &["unchanged"], &[], "");
}
