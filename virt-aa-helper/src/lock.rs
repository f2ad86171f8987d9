//! One call at a time for each profile, where no file may be locked.
//!
//! The store's own lock needs a file beside the profiles and the right to lock it. Debian's profile for the
//! helper grants neither; all it lets be made and removed are files whose names start like the guest's
//! profile. So the fallback is a file of that kind, made exclusively, with the holder's process number in it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aa_contract::ProfileName;

use crate::error::Error;

const PAUSE: Duration = Duration::from_millis(10);
/// A lock without a number is of a process that ended between making and filling it.
const EMPTY: Duration = Duration::from_secs(5);

/// A lock by a file's existence; dropping it removes the file.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // What stays behind is taken over as soon as this process has ended.
        drop(fs::remove_file(&self.path));
    }
}

impl FileLock {
    /// Waits at most `patience` for the lock. One whose holder has ended is taken over; `proc` is a procfs.
    ///
    /// # Errors
    /// [`Error::Lock`]: it cannot be made, or somebody held it all the time.
    pub fn take(dir: &Path, profile: ProfileName, proc: &Path, patience: Duration) -> Result<Self, Error> {
        let path = dir.join(format!("{profile}.lock"));
        let deadline = Instant::now() + patience;
        let fail = |source| Error::Lock { path: path.to_string_lossy().into_owned(), source };
        loop {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    let lock = Self { path: path.clone() };
                    file.write_all(std::process::id().to_string().as_bytes()).map_err(fail)?;
                    return Ok(lock);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fail(error)),
            }
            match holder(&path) {
                Some(pid) if !proc.join(&pid).exists() => take_over(&path, &pid),
                None if is_old(&path) => take_over(&path, ""),
                _ => std::thread::sleep(PAUSE),
            }
            if Instant::now() >= deadline {
                return Err(fail(io::Error::new(io::ErrorKind::TimedOut, "another call holds it")));
            }
        }
    }
}

/// The process number in a lock file.
fn holder(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()?.parse::<u32>().ok().map(|pid| pid.to_string())
}

fn is_old(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > EMPTY)
}

/// Removes a lock whose holder is dead. It is moved aside first: should it be a new one by now, it is put back.
fn take_over(path: &Path, dead: &str) {
    let aside = path.with_extension(format!("lock.{}", std::process::id()));
    if fs::rename(path, &aside).is_err() {
        return;
    }
    if holder(&aside).unwrap_or_default() == dead || path.exists() {
        drop(fs::remove_file(&aside));
    } else {
        drop(fs::rename(&aside, path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> ProfileName {
        "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac".parse().unwrap()
    }

    #[test]
    fn one_holds_it_and_the_next_waits() {
        let dir = tempfile::tempdir().unwrap();
        let take = |patience| FileLock::take(dir.path(), profile(), Path::new("/proc"), patience);
        let first = take(Duration::ZERO).unwrap();
        assert!(take(Duration::from_millis(50)).is_err());
        drop(first);
        drop(take(Duration::ZERO).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{}.lock", profile()));
        // No process has a number that large (proc(5), pid_max).
        fs::write(&path, "4194305").unwrap();
        let lock = FileLock::take(dir.path(), profile(), Path::new("/proc"), Duration::from_secs(1)).unwrap();
        assert_eq!(holder(&path), Some(std::process::id().to_string()));
        drop(lock);
    }

    #[test]
    fn a_living_lock_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        fs::write(&path, "1").unwrap();
        take_over(&path, "4194305");
        assert_eq!(holder(&path).as_deref(), Some("1"));
        take_over(&path, "1");
        assert!(!path.exists());
    }

    #[test]
    fn threads_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        fs::write(&count, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let patience = Duration::from_secs(30);
                    let _lock = FileLock::take(dir.path(), profile(), Path::new("/proc"), patience).unwrap();
                    let seen: u32 = fs::read_to_string(&count).unwrap().parse().unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                    fs::write(&count, (seen + 1).to_string()).unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&count).unwrap(), "16");
    }
}
