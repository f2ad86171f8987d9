//! AppArmor's files below securityfs: what is loaded, and by what hash; removal by name; a whole set in one write.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aa_contract::text::strip_os_code;
use aa_contract::{Mode, ProfileName};

use crate::blob::{Compiled, Hash};
use crate::error::Error;
use crate::parser;

/// A loaded profile as `policy/profiles/*` tells it, readable by everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in full: a child's is `parent//child`.
    pub name: String,
    /// `enforce`, `complain`, `unconfined`, `kill` or `prompt`.
    pub mode: String,
    /// Absent if the kernel was built or booted without hashes of policy.
    pub hash: Option<Hash>,
}

impl Entry {
    /// The mode as a record tells it, which has `kill` as `enforce`.
    ///
    /// # Errors
    /// [`Error::Mode`]: it is another.
    pub fn record_mode(&self) -> Result<Mode, Error> {
        match self.mode.as_str() {
            mode if enforces(mode) => Ok(Mode::Enforce),
            "complain" => Ok(Mode::Complain),
            other => Err(Error::Mode(other.to_owned())),
        }
    }
}

/// Whether what is not allowed is denied in a mode: a profile's, a thread's, or AppArmor's as a whole. `kill` ends the
/// process besides.
pub(crate) fn enforces(mode: &str) -> bool {
    matches!(mode, "enforce" | "kill")
}

/// A guest's profile in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InKernel {
    /// The profile itself.
    pub entry: Entry,
    /// Its children.
    pub children: Vec<Entry>,
}

impl InKernel {
    /// Whether the kernel holds exactly these compiled profiles and no other child.
    pub fn is(&self, compiled: &[Compiled<'_>]) -> bool {
        compiled.len() == self.children.len() + 1 && self.difference(compiled).is_none()
    }

    /// The first of the compiled profiles that the kernel does not hold as it is.
    pub(crate) fn difference(&self, compiled: &[Compiled<'_>]) -> Option<String> {
        compiled.iter().find_map(|profile| {
            let same = |entry: &&Entry| entry.name == profile.name;
            let Some(entry) = std::iter::once(&self.entry).chain(&self.children).find(same) else {
                return Some(format!("{} is missing", profile.name));
            };
            match &entry.hash {
                Some(hash) if profile.has(hash) => None,
                Some(_) => Some(format!("{} has another hash", profile.name)),
                None => Some(format!("{} has no hash", profile.name)),
            }
        })
    }
}

/// AppArmor of the running kernel, or a tree like it.
#[derive(Debug)]
pub struct Kernel {
    root: PathBuf,
    /// Where profiles were when all directories were listed, which takes the longer the more there are.
    places: Mutex<HashMap<ProfileName, PathBuf>>,
}

impl Kernel {
    /// AppArmor below a mounted securityfs.
    ///
    /// # Errors
    /// [`Error::NoAppArmor`]: there is none.
    pub fn open(securityfs: &Path) -> Result<Self, Error> {
        let root = securityfs.join("apparmor");
        let profiles = root.join("policy/profiles");
        match fs::metadata(&profiles) {
            Ok(metadata) if metadata.is_dir() => Ok(Self { root, places: Mutex::default() }),
            Ok(_) => Err(Error::NoAppArmor(format!("{} is no directory", profiles.display()))),
            Err(error) => {
                Err(Error::NoAppArmor(format!("{}: {}", profiles.display(), strip_os_code(&error))))
            }
        }
    }

    /// Where the files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tree of features.
    pub(crate) fn features(&self) -> PathBuf {
        self.root.join("features")
    }

    /// The loaded profile of that name.
    ///
    /// # Errors
    /// [`Error::Host`]: the files cannot be read. [`Error::ReadBack`]: there are two of that name.
    pub fn find(&self, name: ProfileName) -> Result<Option<InKernel>, Error> {
        Ok(self.read(Some(name))?.remove(&name))
    }

    /// All loaded profiles of guests, by name.
    ///
    /// # Errors
    /// As with [`Kernel::find`].
    pub fn list(&self) -> Result<BTreeMap<ProfileName, InKernel>, Error> {
        self.read(None)
    }

    /// As [`Kernel::find`], but looked for first where it was, and only there if it still is.
    ///
    /// # Errors
    /// As with [`Kernel::find`].
    pub(crate) fn find_again(&self, name: ProfileName) -> Result<Option<InKernel>, Error> {
        let place = self.places().get(&name).cloned();
        if let Some(dir) = place
            && let Some((found, profile)) = read_profile(&dir)?
            && found == name
        {
            return Ok(Some(profile));
        }
        self.find(name)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<ProfileName, PathBuf>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, only: Option<ProfileName>) -> Result<BTreeMap<ProfileName, InKernel>, Error> {
        let directory = self.root.join("policy/profiles");
        let remember = self.places().is_empty();
        // A directory is called after its profile, with a number; characters that a guest's name does not
        // have are changed in it. So it tells which may be meant, and the file `name` in it which is.
        let prefix = only.map_or_else(|| "libvirt-".to_owned(), |name| format!("{name}."));
        let mut found = BTreeMap::new();
        for dir in fs::read_dir(&directory).map_err(Error::host(&directory))? {
            let dir = dir.map_err(Error::host(&directory))?;
            let file_name = dir.file_name();
            let file_name = file_name.to_string_lossy();
            if remember
                && let Some((Ok(name), _)) = file_name.rsplit_once('.').map(|(name, id)| (name.parse(), id))
            {
                self.places().insert(name, dir.path());
            }
            if !file_name.starts_with(&prefix) {
                continue;
            }
            let Some((name, profile)) = read_profile(&dir.path())? else { continue };
            if only.is_some_and(|only| only != name) {
                continue;
            }
            if found.insert(name, profile).is_some() {
                self.places().remove(&name);
                return Err(Error::ReadBack(format!("it lists {name} twice")));
            }
            self.places().insert(name, dir.path());
        }
        Ok(found)
    }

    /// The directories of a profile; their times tell when it was loaded.
    ///
    /// # Errors
    /// [`Error::Host`]: the files cannot be read.
    pub(crate) fn directories(&self, name: ProfileName) -> Result<Vec<PathBuf>, Error> {
        let directory = self.root.join("policy/profiles");
        let prefix = format!("{name}.");
        let mut found = Vec::new();
        for dir in fs::read_dir(&directory).map_err(Error::host(&directory))? {
            let dir = dir.map_err(Error::host(&directory))?;
            if dir.file_name().to_string_lossy().starts_with(&prefix) {
                found.push(dir.path());
            }
        }
        Ok(found)
    }

    /// Removes a profile, and its children with it, by writing its name to `.remove`: neither its file
    /// nor a compile nor a process is needed.
    ///
    /// # Errors
    /// [`Error::NotLoaded`], [`Error::Privilege`], [`Error::Host`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.write(".remove", name.as_bytes())
    }

    /// Loads a set of compiled profiles in one write: all of them or, if the kernel refuses one, none.
    /// The kernel does not notice two profiles of one name in a set; the caller must.
    ///
    /// # Errors
    /// [`Error::Parser`]: the kernel refused it, as it does through the parser; [`Error::Privilege`], [`Error::Host`].
    pub fn replace_set(&self, blob: &[u8]) -> Result<(), Error> {
        self.write(".replace", blob)
    }

    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.root.join(file);
        // One open and one write in one state of privilege: the kernel compares the two, and takes no second part.
        let result = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write(bytes));
        match result {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(Error::Host { path, source: io::Error::from(io::ErrorKind::WriteZero) }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Error::Privilege(error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && file == ".remove" && path.exists() => {
                Err(Error::NotLoaded)
            }
            Err(source) => {
                let refused = source.raw_os_error().filter(|_| file != ".remove");
                let refused = refused.and_then(|errno| parser::refusal(errno, source.to_string()));
                Err(refused.map_or(Error::Host { path, source }, Error::Parser))
            }
        }
    }
}

/// A guest's profile in its directory, with its children; `None` if it went away meanwhile, or is no guest's.
fn read_profile(dir: &Path) -> Result<Option<(ProfileName, InKernel)>, Error> {
    let Some(entry) = read_entry(dir).map_err(Error::host(dir))? else { return Ok(None) };
    let Ok(name) = entry.name.parse::<ProfileName>() else { return Ok(None) };
    let mut children = Vec::new();
    let below = dir.join("profiles");
    match fs::read_dir(&below) {
        Ok(entries) => {
            for child in entries {
                let path = child.map_err(Error::host(&below))?.path();
                if let Some(mut entry) = read_entry(&path).map_err(Error::host(&path))? {
                    // The kernel gives a child's own name; a record of policy has it in full.
                    if !entry.name.contains("//") {
                        entry.name = format!("{name}//{}", entry.name);
                    }
                    children.push(entry);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Host { path: below, source }),
    }
    Ok(Some((name, InKernel { entry, children })))
}

/// One profile's directory; `None` if it went away meanwhile.
fn read_entry(dir: &Path) -> io::Result<Option<Entry>> {
    // The name may be any bytes, but not of a guest's profile.
    let read = |file: &str| match fs::read(dir.join(file)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(name), Some(mode)) = (read("name")?, read("mode")?) else { return Ok(None) };
    let hash = match read("sha256")? {
        Some(hash) => Some(Hash::Sha256(hash)),
        None => read("sha1")?.map(Hash::Sha1),
    };
    Ok(Some(Entry { name, mode, hash }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aa_contract::Exit;

    pub(crate) const NAME: &str = "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac";

    /// A tree like the kernel's, with nothing loaded.
    pub(crate) fn tree(root: &Path) -> Kernel {
        let apparmor = root.join("apparmor");
        fs::create_dir_all(apparmor.join("policy/profiles")).unwrap();
        fs::create_dir_all(apparmor.join("features/policy")).unwrap();
        fs::write(apparmor.join("features/policy/set_load"), "yes\n").unwrap();
        for file in [".load", ".replace", ".remove"] {
            fs::write(apparmor.join(file), "").unwrap();
        }
        Kernel::open(root).unwrap()
    }

    /// Puts a profile into such a tree.
    pub(crate) fn put(kernel: &Kernel, dir: &str, name: &str, mode: &str, hash: Option<(&str, &str)>) {
        let dir = kernel.root.join("policy/profiles").join(dir);
        fs::create_dir_all(dir.join("profiles")).unwrap();
        fs::write(dir.join("name"), format!("{name}\n")).unwrap();
        fs::write(dir.join("mode"), format!("{mode}\n")).unwrap();
        if let Some((file, hash)) = hash {
            fs::write(dir.join(file), format!("{hash}\n")).unwrap();
        }
    }

    #[test]
    fn profiles_are_found_by_their_name_and_not_by_that_of_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let name: ProfileName = NAME.parse().unwrap();
        assert_eq!(kernel.find(name).unwrap(), None);
        // A longer name must not count, nor the tail of another, nor a directory that lies.
        put(&kernel, &format!("{NAME}.longer.1"), &format!("{NAME}.longer"), "enforce", None);
        put(&kernel, &format!("{NAME}.2"), "other", "enforce", None);
        assert_eq!(kernel.find(name).unwrap(), None);
        put(&kernel, &format!("{NAME}.3"), NAME, "complain", Some(("sha1", "00")));
        put(&kernel, &format!("{NAME}.3/profiles/passt.4"), "passt", "enforce", Some(("sha256", "11")));
        put(&kernel, "usr.bin.man.5", "/usr/bin/man", "enforce", None);
        put(&kernel, "libvirt-_.6", "", "enforce", None);
        fs::write(kernel.root.join("policy/profiles/libvirt-_.6/name"), b"libvirt-\xff\n").unwrap();
        let found = kernel.find(name).unwrap().unwrap();
        assert_eq!(found.entry.hash, Some(Hash::Sha1("00".into())));
        assert_eq!(found.entry.record_mode().unwrap(), Mode::Complain);
        let of = |mode: &str| Entry { mode: mode.into(), ..found.entry.clone() }.record_mode();
        assert_eq!((of("enforce").unwrap(), of("kill").unwrap()), (Mode::Enforce, Mode::Enforce));
        assert!(of("unconfined").is_err() && of("prompt").is_err() && of("").is_err());
        assert_eq!(found.children[0].name, format!("{NAME}//passt"));
        assert_eq!(kernel.list().unwrap().len(), 1);
        put(&kernel, &format!("{NAME}.9"), NAME, "enforce", None);
        assert!(matches!(kernel.find(name), Err(Error::ReadBack(_))));
    }

    #[test]
    fn a_profile_that_moved_or_went_is_looked_for_anew() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let name: ProfileName = NAME.parse().unwrap();
        let mode = || kernel.find_again(name).unwrap().map(|held| held.entry.mode);
        assert_eq!(mode(), None);
        put(&kernel, &format!("{NAME}.1"), NAME, "enforce", None);
        assert_eq!(mode().as_deref(), Some("enforce"));
        // What it is read from is never remembered.
        put(&kernel, &format!("{NAME}.1"), NAME, "complain", None);
        assert_eq!(mode().as_deref(), Some("complain"));
        let profiles = kernel.root.join("policy/profiles");
        fs::remove_dir_all(profiles.join(format!("{NAME}.1"))).unwrap();
        assert_eq!(mode(), None);
        put(&kernel, &format!("{NAME}.7"), NAME, "enforce", None);
        assert_eq!(mode().as_deref(), Some("enforce"));
        // Another profile in its place.
        put(&kernel, &format!("{NAME}.7"), "other", "enforce", None);
        assert_eq!(mode(), None);
    }

    #[test]
    fn names_and_sets_are_written_in_one_piece() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        kernel.remove(NAME).unwrap();
        assert_eq!(fs::read_to_string(kernel.root.join(".remove")).unwrap(), NAME);
        kernel.replace_set(b"abc").unwrap();
        assert_eq!(fs::read(kernel.root.join(".replace")).unwrap(), b"abc");
        // Files that refuse what is written: one as policy, the other as a disk does that is full.
        let write = |file: &str, target: &str| {
            fs::remove_file(kernel.root.join(file)).unwrap();
            std::os::unix::fs::symlink(target, kernel.root.join(file)).unwrap();
            if file == ".remove" { kernel.remove(NAME) } else { kernel.replace_set(b"abc") }.unwrap_err()
        };
        let error = write(".replace", "/proc/self/oom_score_adj");
        assert!(error.to_string().contains("the kernel refused it: EINVAL"), "{error}");
        assert_eq!((error.exit(), error.again().to_string()), (Exit::Refused, error.to_string()));
        let error = write(".replace", "/dev/full");
        assert_eq!((error.exit(), error.again().to_string()), (Exit::Host, error.to_string()));
        assert_eq!(write(".remove", "/proc/self/oom_score_adj").exit(), Exit::Host);
        fs::remove_file(kernel.root.join(".remove")).unwrap();
        assert!(matches!(kernel.remove(NAME), Err(Error::Host { .. })));
        assert!(matches!(Kernel::open(&root.path().join("none")), Err(Error::NoAppArmor(_))));
    }
}
