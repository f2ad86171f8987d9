//! The mode of a loaded profile, from the tree that the kernel shows to everybody.
//!
//! Asked only where a stack's own mode is `mixed`; what a process is confined by is always read
//! from the process itself.

use std::io::Read;

use nix::fcntl::OFlag;
use nix::sys::statfs::FsType;

use crate::Target;
use crate::label::Mode;
use crate::mount::{Kind, Mount};

/// The caller's own policy namespace: a link of securityfs into AppArmor's internal file system.
const POLICY: &str = "/sys/kernel/security/apparmor/policy";
/// `AAFS_MAGIC` of linux/magic.h. That file system can be mounted by nobody but the kernel.
const AAFS: Kind =
    Kind { name: "AppArmor's policy file system", magic: FsType(0x5a3c_69f0), root_inode: None };

/// The mode of this profile; None if it is not loaded or that cannot be learnt.
pub(crate) fn mode_of(target: &Target) -> Option<Mode> {
    find_mode(&Mount::at(POLICY, AAFS).ok()?, target)
}

/// Directories are named after the profiles but with bytes dropped, so the file `name` decides. It
/// holds the last part of the full name; children are below their parent.
fn find_mode(policy: &Mount, target: &Target) -> Option<Mode> {
    let mut place = String::new();
    for part in target.namespace.iter().flat_map(|namespace| namespace.as_str().split("//")) {
        place = format!("{place}namespaces/{part}/");
    }
    for part in target.profile.as_str().split("//") {
        let profiles = format!("{place}profiles");
        let directory =
            policy.list(&profiles).ok()?.into_iter().find(|entry| {
                read_line(policy, &format!("{profiles}/{entry}/name")).as_deref() == Some(part)
            })?;
        place = format!("{profiles}/{directory}/");
    }
    read_line(policy, &format!("{place}mode"))?.parse().ok()
}

fn read_line(policy: &Mount, path: &str) -> Option<String> {
    let mut text = String::new();
    policy.open(path, OFlag::O_RDONLY).ok()??.read_to_string(&mut text).ok()?;
    Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn add(root: &Path, directory: &str, name: &str, mode: &str) {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("name"), format!("{name}\n")).unwrap();
        fs::write(directory.join("mode"), format!("{mode}\n")).unwrap();
    }

    #[test]
    fn a_profile_is_found_by_its_name_and_not_by_its_directory() {
        let root = tempfile::tempdir().unwrap();
        add(root.path(), "profiles/vm.1", "vm*", "complain");
        add(root.path(), "profiles/vm.2", "vm", "enforce");
        add(root.path(), "profiles/vm.2/profiles/child.3", "child", "kill");
        add(root.path(), "namespaces/ns/profiles/vm.4", "vm", "unconfined");
        let policy = Mount::of_test(root.path());
        let mode = |namespace: Option<&str>, profile: &str| {
            let namespace = namespace.map(|text| text.parse().unwrap());
            find_mode(&policy, &Target { namespace, profile: profile.parse().unwrap() })
        };
        assert_eq!(mode(None, "vm"), Some(Mode::Enforce));
        assert_eq!(mode(None, "vm*"), Some(Mode::Complain));
        assert_eq!(mode(None, "vm//child"), Some(Mode::Kill));
        assert_eq!(mode(Some("ns"), "vm"), Some(Mode::Unconfined));
        for (namespace, absent) in
            [(None, "v"), (None, "vm.2"), (None, "vm//other"), (Some("ns"), "vm//child"), (Some("no"), "vm")]
        {
            assert_eq!(mode(namespace, absent), None, "{absent}");
        }
    }
}
