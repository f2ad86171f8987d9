//! Whether AppArmor is on.

use std::io::Read;

use nix::fcntl::OFlag;
use nix::sys::statfs::SYSFS_MAGIC;

use crate::Error;
use crate::mount::{Kind, Mount};

const SYSFS: Kind = Kind { name: "sysfs", magic: SYSFS_MAGIC, root_inode: None };
/// `Y` or `N`; absent from a kernel built without AppArmor.
const ENABLED: &str = "module/apparmor/parameters/enabled";

/// Succeeds only if the kernel says that AppArmor is enabled.
///
/// With `apparmor=0` the files of /proc/PID/attr are all there, so they prove nothing.
pub(crate) fn require_apparmor() -> Result<(), Error> {
    require_enabled(&Mount::of_root("/sys", "sys", SYSFS)?)
}

fn require_enabled(sys: &Mount) -> Result<(), Error> {
    let mut file = sys.open(ENABLED, OFlag::O_RDONLY)?.ok_or(Error::NotBuiltIn)?;
    let mut answer = String::new();
    file.read_to_string(&mut answer)
        .map_err(|source| Error::Unreadable { place: sys.name(ENABLED), source })?;
    if answer.trim_end() == "Y" { Ok(()) } else { Err(Error::Off) }
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
}
