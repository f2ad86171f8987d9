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
use crate::tasks;

/// Where guests are defined: by libvirt, and for `aa-svirt-guest@.service`. One of the two must be there.
const DEFINED: [&str; 2] = [LIBVIRT, "/etc/aa-svirt/guests"];
const LIBVIRT: &str = "/etc/libvirt/qemu";
/// Where libvirt keeps containers, and the state of running guests.
const MORE: [&str; 3] = ["/etc/libvirt/lxc", "/run/libvirt/qemu", "/run/libvirt/lxc"];

/// Bytes of one definition.
const LARGEST: u64 = 16 << 20;

/// The guests that definitions speak of.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Every UUID found, as its profile.
    pub profiles: BTreeSet<ProfileName>,
    /// The process that libvirt knows each running guest by, from the files of its state.
    pub running: BTreeMap<ProfileName, Known>,
}

/// The process that libvirt knows a running guest by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub pid: u32,
    /// Whether it is the controller of a container (`libvirt_lxc`), which starts that and itself stays outside of it.
    pub is_controller: bool,
}

impl Wanted {
    /// The processes of each running guest that must carry its label: QEMU; of a container the children of its controller,
    /// or that itself as long as it has none, since a container without a process is not one that is confined.
    ///
    /// # Errors
    /// [`Error::Host`]: `/proc` cannot be read.
    pub fn processes(&self, proc: &Path) -> Result<BTreeMap<ProfileName, Vec<u32>>, Error> {
        let controllers = self.running.values().filter(|known| known.is_controller).map(|known| known.pid);
        let mut children = tasks::children(proc, &controllers.collect())?;
        let mut of = |known: &Known| children.remove(&known.pid).unwrap_or_else(|| vec![known.pid]);
        Ok(self.running.iter().map(|(name, known)| (*name, of(known))).collect())
    }
}

/// Reads all definitions: the files `*.xml` of each directory and, but for libvirt's own, `domain.xml` of each directory
/// in it.
///
/// # Errors
/// As [`read_what_is_there`]; and none of the usual places is there, so that nobody knows what is wanted.
pub fn read(directories: &[PathBuf]) -> Result<Wanted, Error> {
    match look(directories)? {
        (wanted, None) => Ok(wanted),
        (_, Some(missing)) => Err(missing),
    }
}

/// The same for who can do without: a host with no definitions at all has none.
///
/// # Errors
/// [`Error::Host`]: a directory or a definition cannot be read, or a definition has no UUID: then nobody knows
/// what is wanted. Named directories must all be there.
pub fn read_what_is_there(directories: &[PathBuf]) -> Result<Wanted, Error> {
    Ok(look(directories)?.0)
}

fn look(directories: &[PathBuf]) -> Result<(Wanted, Option<Error>), Error> {
    if directories.is_empty() {
        return read_usual(DEFINED.map(Path::new), &MORE.map(Path::new));
    }
    let mut wanted = Wanted::default();
    for directory in directories {
        read_directory(directory, &mut wanted)?;
    }
    Ok((wanted, None))
}

/// What the usual places hold, and an error if there is none for definitions.
fn read_usual(defined: [&Path; 2], more: &[&Path]) -> Result<(Wanted, Option<Error>), Error> {
    let mut wanted = Wanted::default();
    let mut is_there = |directory: &Path| match read_directory(directory, &mut wanted) {
        Err(Error::Host { path, source })
            if path == directory && source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(false)
        }
        other => other.map(|()| true),
    };
    let [libvirts, ours] = defined;
    let is_known = [is_there(libvirts)?, is_there(ours)?].contains(&true);
    for directory in more {
        is_there(directory)?;
    }
    Ok((wanted, (!is_known).then_some(Error::NoDefinitions(DEFINED))))
}

fn read_directory(directory: &Path, wanted: &mut Wanted) -> Result<(), Error> {
    // In libvirt's directories are others that hold anything, some of them a guest's own.
    let has_guests = ![LIBVIRT].iter().chain(&MORE).any(|libvirts| directory == Path::new(libvirts));
    for entry in fs::read_dir(directory).map_err(Error::host(directory))? {
        let path = entry.map_err(Error::host(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "xml") {
            add_definition(&path, wanted)?;
        }
        if has_guests {
            add_definition(&path.join("domain.xml"), wanted)?;
        }
    }
    Ok(())
}

fn add_definition(path: &Path, wanted: &mut Wanted) -> Result<(), Error> {
    match read_definition(path) {
        Ok(Some((uuids, known))) => {
            let names: Vec<ProfileName> = uuids.into_iter().map(ProfileName::new).collect();
            if let (Some(name), Some(known)) = (names.first(), known) {
                wanted.running.insert(*name, known);
            }
            wanted.profiles.extend(names);
            Ok(())
        }
        Ok(None) => Ok(()),
        // A guest that was undefined, or stopped, meanwhile; a file where there might be a guest's directory.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(())
        }
        Err(source) => Err(Error::Host { path: path.to_owned(), source }),
    }
}

/// UUIDs and, in a file of state, the process. `None` for a directory or the like.
fn read_definition(path: &Path) -> io::Result<Option<(Vec<Uuid>, Option<Known>)>> {
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
    Ok(Some((uuids, known(&text))))
}

fn uuids(text: &str) -> Vec<Uuid> {
    let inside = |part: &str| Uuid::try_parse(part.split_once("</uuid")?.0.trim()).ok();
    text.split("<uuid>").skip(1).filter_map(inside).collect()
}

/// What `<domstatus state='running' reason='booted' pid='1234'>` and `<domain type='lxc' id='1234'>` say, as libvirt's
/// drivers write them.
fn known(text: &str) -> Option<Known> {
    let pid = attribute(text, "<domstatus", "pid")?.parse().ok()?;
    Some(Known { pid, is_controller: attribute(text, "<domain", "type") == Some("lxc") })
}

/// An attribute of the first such element.
fn attribute<'a>(text: &'a str, element: &str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("{element} "))?;
    let (attributes, _) = rest.split_once('>')?;
    let value = attributes.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    value.trim_start_matches(['\'', '"']).split(['\'', '"']).next()
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
        let known = |is_controller| Known { pid: 77, is_controller };
        assert_eq!(wanted.running.into_values().collect::<Vec<_>>(), [known(false)]);
        let state = |attributes: &str| {
            let domain = format!("<domain {attributes}><domain type='lxc'/></domain>");
            super::known(&format!(
                "<domstatus state='running' pid='77'><domainbackup type='lxc'/>{domain}</domstatus>"
            ))
        };
        assert_eq!(state("type='lxc' id='77'"), Some(known(true)));
        assert_eq!(state("type=\"lxc\""), Some(known(true)));
        for other in ["type='kvm' id='1'", "id='lxc'", "subtype='lxc'"] {
            assert_eq!(state(other), Some(known(false)), "{other}");
        }
        assert_eq!(super::known("<domain type='lxc'/>"), None);
    }

    #[test]
    fn a_container_is_the_children_of_its_controller() {
        let proc = tempfile::tempdir().unwrap();
        let put = |pid: u32, parent: u32| {
            fs::create_dir_all(proc.path().join(pid.to_string())).unwrap();
            let status = format!("Name:\tPPid:\nPPid:\t{parent}\nUid:\t0\n");
            fs::write(proc.path().join(format!("{pid}/status")), status).unwrap();
        };
        let [container, guest]: [ProfileName; 2] =
            ["1", "2"].map(|n| NAME.replacen('a', n, 1).parse().unwrap());
        let wanted = Wanted {
            running: [
                (container, Known { pid: 7, is_controller: true }),
                (guest, Known { pid: 8, is_controller: false }),
            ]
            .into(),
            ..Wanted::default()
        };
        let processes = || {
            let mut found = wanted.processes(proc.path()).unwrap();
            for pids in found.values_mut() {
                pids.sort_unstable();
            }
            found
        };
        for (pid, parent) in [(7, 1), (8, 1), (20, 8), (21, 20)] {
            put(pid, parent);
        }
        assert_eq!(processes(), [(container, vec![7]), (guest, vec![8])].into(), "it has none");
        put(9, 7);
        put(30, 9);
        put(10, 7);
        assert_eq!(processes(), [(container, vec![9, 10]), (guest, vec![8])].into());
        // One that ends meanwhile is none; what cannot be read is no answer.
        fs::remove_file(proc.path().join("9/status")).unwrap();
        assert_eq!(processes()[&container], [10]);
        fs::create_dir(proc.path().join("9/status")).unwrap();
        assert!(wanted.processes(proc.path()).is_err());
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

    #[test]
    fn guests_with_a_directory_each_are_defined_too() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["1", "2", "3"].map(|digit| NAME.replacen('a', digit, 1));
        let define = |path: &str, name: &str| {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let uuid = name.strip_prefix("libvirt-").unwrap();
            fs::write(file, format!("<domain><uuid>{uuid}</uuid></domain>")).unwrap();
        };
        let found = || -> Vec<String> {
            read(&[dir.path().to_owned()]).unwrap().profiles.iter().map(ToString::to_string).collect()
        };
        define("web/domain.xml", &names[0]);
        define("mail.xml/domain.xml", &names[1]);
        define("plain.xml", &names[2]);
        fs::write(dir.path().join("notes"), "no uuid").unwrap();
        assert_eq!(found(), names);
        // Not what lies elsewhere in it.
        define("web/old/domain.xml", NAME);
        define("web/other.xml", NAME);
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert_eq!(found(), names);
        fs::write(dir.path().join("empty/domain.xml"), "<domain/>").unwrap();
        assert!(read(&[dir.path().to_owned()]).is_err());
    }

    #[test]
    fn one_of_the_usual_places_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let [libvirts, ours, state] = ["qemu", "guests", "state"].map(|name| dir.path().join(name));
        let usual = || read_usual([&libvirts, &ours], &[&state]);
        fs::create_dir(&state).unwrap();
        let uuid = NAME.strip_prefix("libvirt-").unwrap();
        let text = format!("<domstatus state='running' pid='7'><uuid>{uuid}</uuid></domstatus>");
        fs::write(state.join("vm.xml"), text).unwrap();
        let (wanted, missing) = usual().unwrap();
        let told = missing.unwrap();
        assert_eq!(told.exit(), aa_contract::Exit::Host);
        let text = "no definitions of guests: neither /etc/libvirt/qemu nor /etc/aa-svirt/guests is there; name a \
                    directory with --definitions";
        assert_eq!(told.to_string(), text);
        assert_eq!(wanted.running.len(), 1);
        for there in [&ours, &libvirts] {
            fs::create_dir(there).unwrap();
            assert!(usual().unwrap().1.is_none());
            fs::remove_dir(there).unwrap();
        }
        // One that cannot be read is not one that is absent.
        fs::create_dir(&libvirts).unwrap();
        fs::write(&ours, "").unwrap();
        assert!(usual().is_err());
    }
}
