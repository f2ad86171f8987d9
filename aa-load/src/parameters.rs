//! AppArmor's parameters, which hold for all profiles.

use std::fs;
use std::path::Path;

use crate::error::Error;

/// Where Linux has them.
pub const DIRECTORY: &str = "/sys/module/apparmor/parameters";

/// One of them. The kernel lets root alone read some.
///
/// # Errors
/// [`Error::Host`]: it cannot be read.
pub(crate) fn read(directory: &Path, name: &str) -> Result<String, Error> {
    let path = directory.join(name);
    let text = fs::read_to_string(&path).map_err(Error::host(&path))?;
    Ok(text.trim_end().to_owned())
}

/// AppArmor's mode as a whole: `enforce`, or that in which every profile is, though the kernel goes on telling each
/// one's own.
///
/// # Errors
/// [`Error::Host`]: it cannot be read.
pub fn mode(directory: &Path) -> Result<String, Error> {
    read(directory, "mode")
}
