//! Whether AppArmor is on, and enforces.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use nix::fcntl::OFlag;
use nix::sys::statfs::SYSFS_MAGIC;

use crate::mount::{Kind, Mount};
use crate::{Complain, Error};

const SYSFS: Kind = Kind { name: "sysfs", magic: SYSFS_MAGIC, root_inode: None };
/// `Y` or `N`; absent from a kernel built without AppArmor.
const ENABLED: &str = "module/apparmor/parameters/enabled";

/// The mode that holds for all profiles, whatever is read of each. Only root may read it.
const MODE: &str = "module/apparmor/parameters/mode";

/// Succeeds only if the kernel says that AppArmor is enabled and, to who may ask, that it enforces as a whole.
///
/// With `apparmor=0` the files of /proc/PID/attr are all there, so they prove nothing. In complain mode as a whole
/// each profile still reads as of its own mode.
pub(crate) fn require_apparmor(complain: Complain) -> Result<(), Error> {
    let sys = Mount::of_root("/sys", "sys", SYSFS)?;
    require_enabled(&sys)?;
    match complain {
        Complain::Allow => Ok(()),
        Complain::Refuse => require_enforcing(&sys),
    }
}

fn require_enabled(sys: &Mount) -> Result<(), Error> {
    let file = sys.open(ENABLED, OFlag::O_RDONLY)?.ok_or(Error::NotBuiltIn)?;
    let answer = read(file).map_err(|source| Error::Unreadable { place: sys.name(ENABLED), source })?;
    if answer == "Y" { Ok(()) } else { Err(Error::Off) }
}

fn require_enforcing(sys: &Mount) -> Result<(), Error> {
    let place = || sys.name(MODE);
    let answer = match sys.open(MODE, OFlag::O_RDONLY) {
        // A kernel without it has no mode as a whole.
        Ok(None) => return Ok(()),
        Ok(Some(file)) => read(file).map_err(|source| Error::Unreadable { place: place(), source }),
        Err(error) => Err(error),
    };
    match answer {
        Ok(mode) if mode == "enforce" || mode == "kill" => Ok(()),
        Ok(mode) => Err(Error::ComplainsAsAWhole { place: place(), mode }),
        // QEMU's own account: root sees to it.
        Err(Error::Unreadable { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

fn read(mut file: File) -> io::Result<String> {
    let mut answer = String::new();
    file.read_to_string(&mut answer)?;
    answer.truncate(answer.trim_end().len());
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with_answer(answer: Option<&str>) -> Result<(), Error> {
        let directory = tempfile::tempdir().unwrap();
        let parameters = directory.path().join("module/apparmor/parameters");
        fs::create_dir_all(&parameters).unwrap();
        if let Some(answer) = answer {
            fs::write(parameters.join("enabled"), answer).unwrap();
        }
        require_enabled(&Mount::of_test(directory.path()))
    }

    #[test]
    fn only_a_plain_yes_will_do() {
        assert!(with_answer(Some("Y\n")).is_ok());
        for no in ["N\n", "", "y\n", "YES\n", "1\n"] {
            assert!(matches!(with_answer(Some(no)), Err(Error::Off)), "{no:?}");
        }
        assert!(matches!(with_answer(None), Err(Error::NotBuiltIn)));
    }

    #[test]
    fn a_mode_as_a_whole_that_enforces_nothing_is_refused_where_it_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let parameters = directory.path().join("module/apparmor/parameters");
        fs::create_dir_all(&parameters).unwrap();
        let sys = Mount::of_test(directory.path());
        assert!(require_enforcing(&sys).is_ok(), "no such parameter");
        for enforcing in ["enforce", "enforce\n", "kill"] {
            fs::write(parameters.join("mode"), enforcing).unwrap();
            assert!(require_enforcing(&sys).is_ok(), "{enforcing:?}");
        }
        for other in ["complain", "complain\n", "unconfined", "", "user"] {
            fs::write(parameters.join("mode"), other).unwrap();
            let refused = require_enforcing(&sys).unwrap_err();
            assert!(matches!(refused, Error::ComplainsAsAWhole { .. }), "{other:?}: {refused}");
        }
        // What is in the way is no answer, and no want of permission either.
        fs::remove_file(parameters.join("mode")).unwrap();
        fs::create_dir(parameters.join("mode")).unwrap();
        assert!(matches!(require_enforcing(&sys), Err(Error::Unreadable { .. })));
        fs::remove_dir(parameters.join("mode")).unwrap();
        std::os::unix::fs::symlink("/dev/null", parameters.join("mode")).unwrap();
        assert!(matches!(require_enforcing(&sys), Err(Error::Covered { .. })));
    }
}
