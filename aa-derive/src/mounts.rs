//! Where huge pages are mounted. libvirt keeps a directory for each guest below each of these, `libvirt/qemu/ID-NAME`.

use crate::host::Host;
use crate::host_policy::OF_GUESTS;

/// The mounts of file systems of type hugetlbfs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Absolute paths of the mount points, as the kernel has them.
    pub dirs: Vec<String>,
    /// How many more there are whose names are not UTF-8.
    pub unnamed: usize,
}

impl HugePages {
    /// Those of the host (`proc_mounts(5)`); none where the list of mounts cannot be read whole, as by who is denied it.
    pub fn of(host: &impl Host) -> Option<Self> {
        let mut found = Self::default();
        let mounts = host.text("/proc/mounts")?;
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            if let (Some(_), Some(dir), Some("hugetlbfs")) = (fields.next(), fields.next(), fields.next()) {
                if dir.contains(char::REPLACEMENT_CHARACTER) {
                    found.unnamed = found.unnamed.saturating_add(1);
                } else {
                    found.dirs.push(unescape(dir));
                }
            }
        }
        Some(found)
    }

    /// The directories in which libvirt has one for each guest, each with a slash at its end.
    pub fn of_guests(&self) -> impl Iterator<Item = String> {
        self.dirs.iter().map(|dir| format!("{}{OF_GUESTS}", dir.trim_end_matches('/')))
    }
}

/// The kernel writes space, tab, newline and backslash of a mount point as three octal digits (`proc_mounts(5)`).
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
