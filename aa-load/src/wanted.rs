//! Which guests are defined, by the UUIDs in libvirt's files.
//!
//! This is no XML reader and must not become one: it looks for `<uuid>` and takes everything it finds. That is
//! enough to show a guest as wanted and to keep gc off it; nothing is ever granted or loaded by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aa_contract::{ProfileName, Uuid};

use crate::error::Error;

/// Where libvirt keeps definitions, and the state of running guests; only the first must be there.
pub const DIRECTORIES: [&str; 4] =
    ["/etc/libvirt/qemu", "/etc/libvirt/lxc", "/run/libvirt/qemu", "/run/libvirt/lxc"];

/// Bytes of one definition.
const LARGEST: u64 = 16 << 20;

/// The guests that definitions speak of.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Every UUID found, as its profile.
    pub profiles: BTreeSet<ProfileName>,
    /// The main process of each guest that libvirt has running, from the files of its state.
    pub running: BTreeMap<ProfileName, u32>,
}

/// Reads all definitions.
///
/// # Errors
/// [`Error::Host`]: a directory or a definition cannot be read, or a definition has no UUID: then nobody knows
/// what is wanted. Of libvirt's own directories all but the first may be absent; named ones may not.
pub fn read(directories: &[PathBuf]) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    if directories.is_empty() {
        for (index, directory) in DIRECTORIES.iter().enumerate() {
            match read_directory(Path::new(directory), &mut wanted) {
                Err(Error::Host { source, .. }) if source.kind() == io::ErrorKind::NotFound && index > 0 => {}
                other => other?,
            }
        }
    }
    for directory in directories {
        read_directory(directory, &mut wanted)?;
    }
    Ok(wanted)
}

fn read_directory(directory: &Path, wanted: &mut Wanted) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::host(directory))? {
        let path = entry.map_err(Error::host(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "xml") {
            continue;
        }
        match read_definition(&path) {
            Ok(Some((uuids, pid))) => {
                let names: Vec<ProfileName> = uuids.into_iter().map(ProfileName::new).collect();
                if let (Some(name), Some(pid)) = (names.first(), pid) {
                    wanted.running.insert(*name, pid);
                }
                wanted.profiles.extend(names);
            }
            Ok(None) => {}
            // A guest that was undefined, or stopped, meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Host { path, source }),
        }
    }
    Ok(())
}

/// UUIDs and, in a file of state, the process. `None` for a directory or the like.
fn read_definition(path: &Path) -> io::Result<Option<(Vec<Uuid>, Option<u32>)>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("the definition is larger than 16 MiB"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let uuids = uuids(&text);
    if uuids.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the definition has no UUID"));
    }
    Ok(Some((uuids, pid(&text))))
}

fn uuids(text: &str) -> Vec<Uuid> {
    let inside = |part: &str| Uuid::try_parse(part.split_once("</uuid")?.0.trim()).ok();
    text.split("<uuid>").skip(1).filter_map(inside).collect()
}

/// `pid` of `<domstatus state='running' reason='booted' pid='1234'>`, as libvirt's drivers write it.
fn pid(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("<domstatus ")?;
    let (tag, _) = rest.split_once('>')?;
    let (_, rest) = tag.split_once(" pid=")?;
    rest.trim_start_matches(['\'', '"']).split(['\'', '"']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::NAME;

    #[test]
    fn definitions_and_states_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let uuid = NAME.strip_prefix("libvirt-").unwrap();
        fs::write(
            dir.path().join("a.xml"),
            format!(
                "<domstatus state='running' pid='77'><domain><uuid>\n {uuid}\n</uuid></domain></domstatus>"
            ),
        )
        .unwrap();
        fs::write(dir.path().join("notes.txt"), "no uuid").unwrap();
        fs::create_dir(dir.path().join("networks")).unwrap();
        let wanted = read(&[dir.path().to_owned()]).unwrap();
        assert_eq!(wanted.profiles.iter().map(ToString::to_string).collect::<Vec<_>>(), [NAME]);
        assert_eq!(wanted.running.values().copied().collect::<Vec<_>>(), [77]);
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&[dir.path().join("none")]).is_err());
        for text in ["", "<domain><uuid>x</uuid></domain>", "<domain/>"] {
            fs::write(dir.path().join("a.xml"), text).unwrap();
            assert!(read(&[dir.path().to_owned()]).is_err(), "{text}");
        }
    }
}
