//! Compiled policy on disk, by content: one entry for each profile, used only if its key is the wanted one and
//! its checksum is right.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aa_contract::ProfileName;
use aa_contract::text::strip_os_code;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::locks::nobody_writes;
use crate::parser::{Parser, Version};
use crate::sources::Sum;
use crate::trust::{self, Problem};

/// Where it is unless told otherwise.
pub const DIRECTORY: &str = "/var/cache/aa-svirt";

const MAGIC: &[u8; 8] = b"aasvirt1";
const LARGEST: u64 = 64 << 20;
/// A host has few: one for each template and emulator, or set of devices of a minimal profile.
const MOST_BASES: usize = 32;
const NOFOLLOW: i32 = nix::fcntl::OFlag::O_NOFOLLOW.bits();

/// A directory that only its owner can write. It need not be there for anything to work.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
    /// Only looked into: nothing is kept, marked or locked.
    read_only: bool,
}

impl Cache {
    /// Opens the cache, making the directory (mode 0700) if needed.
    ///
    /// # Errors
    /// It cannot be made, or somebody else could write to it: then nothing in it is to be believed.
    pub fn open(directory: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).recursive(true).create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        check(directory)?;
        Ok(Self { directory: directory.to_owned(), read_only: false })
    }

    /// Opens the cache for a run that only tells what would be done: it writes nothing there.
    ///
    /// # Errors
    /// It is not there, or somebody else could write to it.
    pub fn look(directory: &Path) -> io::Result<Self> {
        check(directory)?;
        Ok(Self { directory: directory.to_owned(), read_only: true })
    }

    /// Whether nothing is written.
    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    /// Waits until no other aa-load works on any of these profiles, and keeps others waiting until the files are
    /// closed. A few hundred files serve all profiles, so none is left behind by a guest that is gone. Where nothing can be
    /// written there is no lock, since no entry is changed either.
    ///
    /// # Errors
    /// [`Error::Host`]: what the system said.
    pub fn lock(&self, profiles: impl IntoIterator<Item = ProfileName>) -> Result<Vec<File>, Error> {
        if self.read_only {
            return Ok(Vec::new());
        }
        let shard =
            |profile: ProfileName| profile.uuid().as_bytes().iter().fold(0_u8, |sum, byte| sum ^ byte);
        // In one order, each once: two that wait for each other would wait for ever.
        let shards: BTreeSet<u8> = profiles.into_iter().map(shard).collect();
        let lock = |shard| {
            let name = format!("lock-{shard:02x}");
            match self.lock_file(&name) {
                Err(error) if nobody_writes(&error) => None,
                locked => Some(locked.map_err(Error::host(&self.directory.join(name)))),
            }
        };
        shards.into_iter().filter_map(lock).collect()
    }

    fn lock_file(&self, name: &str) -> io::Result<File> {
        // For reading only: the parser holds it too, and must not write there.
        let file = OpenOptions::new()
            .read(true)
            .mode(0o600)
            .custom_flags(NOFOLLOW | nix::fcntl::OFlag::O_CREAT.bits())
            .open(self.directory.join(name))?;
        file.lock()?;
        Ok(file)
    }

    /// The compiled policy of a profile, if it was made from exactly what `key` stands for. An entry that is cut off or
    /// changed counts as none.
    pub(crate) fn get(&self, profile: ProfileName, key: &Sum) -> Option<Vec<u8>> {
        let path = self.entry(profile);
        let policy = self.get_entry(&path, key)?;
        if !self.read_only {
            // For gc: where the kernel holds it already, nothing else tells of this load.
            let _ = File::open(&path).and_then(|entry| entry.set_modified(SystemTime::now()));
        }
        Some(policy)
    }

    fn get_entry(&self, path: &Path, key: &Sum) -> Option<Vec<u8>> {
        let entry = self.read(path)?;
        let (head, rest) = entry.split_at_checked(MAGIC.len())?;
        let (found, rest) = rest.split_at_checked(key.len())?;
        let (sum, blob) = rest.split_at_checked(key.len())?;
        (head == MAGIC && found == key && sum == checksum(found, blob)).then(|| blob.to_vec())
    }

    /// Keeps the compiled policy of a profile in the place of what was kept before, under its lock.
    ///
    /// # Errors
    /// What the system said. The old entry is whole or gone.
    pub(crate) fn put(&self, profile: ProfileName, key: &Sum, blob: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.write(&format!("{profile}.policy"), &whole(key, blob))
    }

    /// What was kept of the base that guests share, under the same conditions.
    pub(crate) fn base(&self, key: &Sum) -> Option<Vec<u8>> {
        self.get_entry(&self.directory.join(base_name(key)), key)
    }

    /// Keeps a base, under [`Cache::lock_bases`], and drops the oldest of too many.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn keep_base(&self, key: &Sum, base: &[u8]) -> io::Result<()> {
        self.write(&base_name(key), &whole(key, base))?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_base = entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with("base-") && name.ends_with(".policy"));
            if is_base {
                kept.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        kept.sort_unstable();
        let excess = kept.len().saturating_sub(MOST_BASES);
        kept.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
    }

    /// Keeps others from making bases until the file is closed; nothing if none is made here.
    pub(crate) fn lock_bases(&self) -> io::Result<Option<File>> {
        if self.read_only { Ok(None) } else { self.lock_file("lock-bases").map(Some) }
    }

    /// Does something with a text as a file in this directory, under [`Cache::lock_bases`].
    pub(crate) fn with_text<T>(&self, text: &str, work: impl FnOnce(&Path) -> T) -> io::Result<T> {
        const NAME: &str = "base-text";
        self.write(NAME, text.as_bytes())?;
        let path = self.directory.join(NAME);
        let result = work(&path);
        fs::remove_file(path)?;
        Ok(result)
    }

    /// Forgets a profile.
    ///
    /// # Errors
    /// What the system said, unless there was nothing.
    pub fn forget(&self, profile: ProfileName) -> io::Result<()> {
        match fs::remove_file(self.entry(profile)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The profiles that have an entry.
    ///
    /// # Errors
    /// What the system said.
    pub fn profiles(&self) -> io::Result<Vec<ProfileName>> {
        let mut profiles = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            profiles.extend(
                name.to_str().and_then(|name| name.strip_suffix(".policy")?.parse::<ProfileName>().ok()),
            );
        }
        Ok(profiles)
    }

    /// The release of a parser, asked only once as long as its file stays the same.
    ///
    /// # Errors
    /// [`crate::ParserError`]: the parser does not tell.
    pub(crate) fn version(&self, parser: &Parser) -> Result<Version, crate::ParserError> {
        let identity = parser.identity()?;
        let path = self.directory.join("parser");
        let known = self.read(&path).and_then(|bytes| {
            let text = String::from_utf8(bytes).ok()?;
            let (found, version) = text.rsplit_once('\n')?;
            let mut numbers = version.split('.').map(|number| number.parse().ok());
            let version = Version(numbers.next()??, numbers.next()??, numbers.next()??);
            (found == identity).then_some(version)
        });
        if let Some(version) = known {
            return Ok(version);
        }
        let version = parser.version()?;
        // Without the entry the next run asks again.
        if !self.read_only
            && let Ok(_lock) = self.lock_file("lock-parser")
        {
            let _ = self.write("parser", format!("{identity}\n{version}").as_bytes());
        }
        Ok(version)
    }

    /// Where a profile's compiled policy is kept.
    pub(crate) fn entry(&self, profile: ProfileName) -> PathBuf {
        self.directory.join(format!("{profile}.policy"))
    }

    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        check(&self.directory).ok()?;
        let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).ok()?);
        file.take(LARGEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Writes a file whole or not at all; whoever calls it has a lock for this name. It is not synced: what a crash
    /// leaves half fails its checksum.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.directory.join(format!(".new-{name}"));
        // One that a crash left is in the way.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        let result = file.write_all(bytes).and_then(|()| fs::rename(&temporary, self.directory.join(name)));
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
    }
}

/// That a directory belongs to this user, and nobody else can write to it or put another in its place.
pub(crate) fn check(directory: &Path) -> io::Result<()> {
    if let Err(Problem { path, source }) = trust::way(directory) {
        let text = format!("{}: {}", path.display(), strip_os_code(&source));
        return Err(io::Error::new(source.kind(), text));
    }
    let metadata = fs::symlink_metadata(directory)?;
    let problem = if !metadata.is_dir() {
        "not a directory".to_owned()
    } else if metadata.uid() != nix::unistd::geteuid().as_raw() {
        format!("owned by user {}", metadata.uid())
    } else if metadata.permissions().mode() & 0o022 != 0 {
        format!("others can write to it (mode {:04o})", metadata.permissions().mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// An entry's bytes.
fn whole(key: &Sum, blob: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), key, &checksum(key, blob), blob].concat()
}

/// A base's file.
fn base_name(key: &Sum) -> String {
    format!("base-{}.policy", crate::blob::hex(key.get(..8).unwrap_or(key)))
}

fn checksum(key: &[u8], blob: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(key).chain_update(blob).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::NAME;

    fn cache(dir: &tempfile::TempDir) -> Cache {
        Cache::open(&dir.path().join("c")).unwrap()
    }

    #[test]
    fn an_entry_is_found_by_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, name) = (cache(&dir), NAME.parse().unwrap());
        assert_eq!(cache.get(name, &[1; 32]), None);
        cache.put(name, &[1; 32], b"blob").unwrap();
        assert_eq!(cache.get(name, &[1; 32]).unwrap(), b"blob");
        assert_eq!(cache.get(name, &[2; 32]), None);
        assert_eq!(cache.profiles().unwrap(), [name]);
        cache.put(name, &[2; 32], b"other").unwrap();
        assert_eq!(cache.get(name, &[1; 32]), None);
        cache.forget(name).unwrap();
        cache.forget(name).unwrap();
        assert_eq!(cache.get(name, &[2; 32]), None);
    }

    #[test]
    fn a_truncated_or_changed_entry_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, name) = (cache(&dir), NAME.parse().unwrap());
        cache.put(name, &[1; 32], b"some policy").unwrap();
        let whole = fs::read(cache.entry(name)).unwrap();
        for cut in 0..whole.len() {
            fs::write(cache.entry(name), &whole[..cut]).unwrap();
            assert_eq!(cache.get(name, &[1; 32]), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            fs::write(cache.entry(name), &other).unwrap();
            assert_eq!(cache.get(name, &[1; 32]), None, "{at}");
        }
        fs::write(cache.entry(name), &whole).unwrap();
        assert!(cache.get(name, &[1; 32]).is_some());
    }

    #[test]
    fn bases_are_kept_by_their_key_and_the_oldest_of_too_many_go() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, name) = (cache(&dir), NAME.parse().unwrap());
        let key = |number: usize| [u8::try_from(number).unwrap(); 32];
        cache.put(name, &[1; 32], b"policy").unwrap();
        for number in 0..MOST_BASES + 2 {
            let _lock = cache.lock_bases().unwrap();
            cache.keep_base(&key(number), b"base").unwrap();
            let file =
                File::options().write(true).open(cache.directory.join(base_name(&key(number)))).unwrap();
            let day = std::time::Duration::from_secs(86_400 * (number as u64 + 1));
            file.set_modified(SystemTime::UNIX_EPOCH + day).unwrap();
        }
        for number in 0..MOST_BASES + 2 {
            assert_eq!(cache.base(&key(number)).is_some(), number >= 2, "{number}");
        }
        // Another key with the same beginning, which names the file, is another base.
        let mut other = key(5);
        other[31] ^= 1;
        assert_eq!(cache.base(&other), None);
        // Those who ask for guests see none of them, and guests' entries stay.
        assert_eq!(cache.profiles().unwrap(), [name]);
        assert!(cache.get(name, &[1; 32]).is_some());
    }

    #[test]
    fn a_text_is_there_for_as_long_as_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(&dir);
        let read = |path: &Path| (path.to_owned(), fs::read_to_string(path).unwrap());
        let (path, text) = cache.with_text("profile x { }", read).unwrap();
        assert_eq!(text, "profile x { }");
        assert!(!path.exists());
    }

    #[test]
    fn a_writer_that_died_half_way_leaves_the_old_entry() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, name) = (cache(&dir), NAME.parse::<ProfileName>().unwrap());
        cache.put(name, &[1; 32], b"old").unwrap();
        fs::write(cache.directory.join(format!(".new-{name}.policy")), b"half").unwrap();
        assert_eq!(cache.get(name, &[1; 32]).unwrap(), b"old");
        cache.put(name, &[2; 32], b"new").unwrap();
        assert_eq!(cache.get(name, &[2; 32]).unwrap(), b"new");
        assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 1);
    }

    #[test]
    fn two_writers_leave_one_whole_entry() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, name) = (cache(&dir), NAME.parse::<ProfileName>().unwrap());
        let blob = |byte: u8| vec![byte; 100_000];
        std::thread::scope(|scope| {
            for byte in [1_u8, 2] {
                let cache = &cache;
                scope.spawn(move || {
                    for _ in 0..50 {
                        let _lock = cache.lock([name]).unwrap();
                        cache.put(name, &[byte; 32], &blob(byte)).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                for byte in [1_u8, 2] {
                    assert!(cache.get(name, &[byte; 32]).is_none_or(|found| found == blob(byte)));
                }
            }
        });
        assert!(cache.get(name, &[1; 32]).is_some() != cache.get(name, &[2; 32]).is_some());
        // The entry and the lock.
        assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_that_others_can_write_and_a_link_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::open(&open).is_err());
        std::os::unix::fs::symlink(cache(&dir).directory, dir.path().join("link")).unwrap();
        assert!(Cache::open(&dir.path().join("link")).is_err());
        let name = NAME.parse().unwrap();
        let cache = cache(&dir);
        cache.put(name, &[1; 32], b"x").unwrap();
        fs::set_permissions(&cache.directory, fs::Permissions::from_mode(0o720)).unwrap();
        assert_eq!(cache.get(name, &[1; 32]), None);
    }

    #[test]
    fn a_directory_that_others_can_put_another_in_the_place_of_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(&dir);
        let name = NAME.parse().unwrap();
        cache.put(name, &[1; 32], b"x").unwrap();
        let mode = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        assert_eq!(cache.get(name, &[1; 32]), None);
        let error = Cache::open(&cache.directory).unwrap_err().to_string();
        assert!(error.contains("everybody may write to it"), "{error}");
        // In a sticky one it stays where it is.
        mode(0o1777);
        assert!(Cache::open(&cache.directory).is_ok() && cache.get(name, &[1; 32]).is_some());
    }

    #[test]
    fn a_lock_keeps_a_second_holder_out() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, name) = (cache(&dir), NAME.parse::<ProfileName>().unwrap());
        let other = name.to_string().replace("libvirt-a2", "libvirt-b3").parse::<ProfileName>().unwrap();
        // Twice the same is one lock.
        let held = cache.lock([name, other, name]).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let cache = &cache;
            scope.spawn(move || sender.send(cache.lock([other, name]).map(drop).is_ok()));
            assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err());
            drop(held);
            assert!(receiver.recv().unwrap());
        });
    }
}
