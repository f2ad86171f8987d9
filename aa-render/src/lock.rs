//! One change of a profile at a time.
//!
//! There are two locks, because not every caller can take the same one:
//!
//! - The profile's byte of the file `.aa-render.lock`, by an open file description lock (`fcntl(2)`): who waits for it
//!   is woken by the kernel, and it goes with its holder.
//! - The symbolic link `libvirt-UUID.lock`, which says who made it and when. libvirt's helper under Debian's profile may
//!   lock no file, only make and remove files that are named like the guest's profile. So every caller makes this link
//!   too, behind the byte, before it changes the profile.
//!
//! aa-load takes both as well ([`Turn`]), so that nobody puts into the kernel what another is about to replace on disk.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use aa_contract::ProfileName;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, open, openat, readlinkat, renameat};
use nix::libc;
use nix::sys::signal::kill;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, stat};
use nix::sys::statfs::{SECURITYFS_MAGIC, statfs};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, UnlinkatFlags, symlinkat, unlinkat};

use crate::error::Error;

/// One file for the locks of all profiles: each locks the byte that its UUID stands for, so no file
/// per guest is left behind. The parser skips names that start with a dot.
pub(crate) const LOCK_FILE: &str = ".aa-render.lock";
/// How long a link of a living process is waited for: twice what libvirt's helper gives the parser.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(10);
/// Where securityfs is mounted, through which AppArmor is spoken to.
pub const SECURITYFS: &str = "/sys/kernel/security";
/// Seconds after which a link holds nobody out: by then its maker's number may be another process's, as after a crash of
/// the host. A change that takes longer (aa-load may be at very many profiles) is kept apart by the byte alone from then on.
const LONGEST: u64 = 600;

/// The lock of who may lock no file. Dropping it removes the link.
#[derive(Debug)]
pub(crate) struct LinkLock<'a> {
    dir: &'a OwnedFd,
    link: Link,
}

impl Drop for LinkLock<'_> {
    fn drop(&mut self) {
        self.link.remove(self.dir);
    }
}

impl<'a> LinkLock<'a> {
    /// Waits at most `patience` for the lock. One whose holder has ended is taken over.
    ///
    /// # Errors
    /// It cannot be made, or somebody held it all the time (`TimedOut`).
    pub(crate) fn take(dir: &'a OwnedFd, profile: ProfileName, patience: Duration) -> io::Result<Self> {
        Ok(Self { dir, link: Link::make(dir, profile, patience)? })
    }
}

/// Every lock of some profiles in one directory, for who puts policy in force that it has not written. Dropping it gives
/// them back.
#[derive(Debug)]
pub struct Turn {
    dir: OwnedFd,
    links: Vec<Link>,
    bytes: OwnedFd,
}

impl Turn {
    /// Waits until nobody else changes any of the profiles. The directory is one that nobody else can change.
    ///
    /// # Errors
    /// [`Error::Io`]: a lock could not be had, or its link not in two minutes; the directory does not exist, or cannot be
    /// written. On a full disk the byte alone is enough.
    pub fn take(directory: &Path, profiles: &BTreeSet<ProfileName>) -> Result<Self, Error> {
        let io = |name: &str, doing, source| Error::Io { path: directory.join(name), doing, source };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(directory, flags, Mode::empty()).map_err(|errno| io("", "open", errno.into()))?;
        // First all that is waited for in the kernel, each in its order: two that wait for each other would wait for ever.
        let bytes = take_bytes(&dir, &profiles.iter().copied().map(byte).collect())
            .map_err(|errno| io(LOCK_FILE, "lock", errno.into()))?;
        let mut turn = Self { dir, links: Vec::new(), bytes };
        for profile in profiles {
            match Link::make(&turn.dir, *profile, PATIENCE) {
                Ok(link) => turn.links.push(link),
                // Nor can anybody else make it where the disk is full; who may lock a file waits for the byte.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {}
                Err(error) => return Err(io(&link_name(*profile), "lock", error)),
            }
        }
        Ok(turn)
    }
}

/// The file with the locked bytes: whoever has it too keeps them locked.
impl AsFd for Turn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bytes.as_fd()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for link in &self.links {
            link.remove(&self.dir);
        }
    }
}

/// A profile's link, made by this call.
#[derive(Debug)]
struct Link {
    name: String,
    holder: Holder,
}

impl Link {
    /// Waits at most `patience` until it can be made.
    fn make(dir: &OwnedFd, profile: ProfileName, patience: Duration) -> io::Result<Self> {
        let name = link_name(profile);
        let deadline = Instant::now() + patience;
        loop {
            let holder = Holder { pid: std::process::id(), since: uptime()?, boot: Boot::this() };
            match symlinkat(holder.text().as_str(), dir, name.as_str()) {
                Ok(()) => return Ok(Self { name, holder }),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            match Holder::of(dir, &name) {
                Ok(other) if !other.is_alive(holder) => take_over(dir, &name, other),
                // Gone since.
                Err(Errno::ENOENT) => continue,
                Ok(_) => std::thread::sleep(PAUSE),
                Err(errno) => return Err(errno.into()),
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another call holds it"));
            }
        }
    }

    /// Removes it, unless it has been taken over (see [`LONGEST`]) and is another's now.
    fn remove(&self, dir: &OwnedFd) {
        if Holder::of(dir, &self.name) == Ok(self.holder) {
            // What stays behind is taken over as soon as this process has ended.
            let _ = unlinkat(dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The link's name, which is also what a person is told of a lock that cannot be had.
pub(crate) fn link_name(profile: ProfileName) -> String {
    format!("{profile}.lock")
}

/// Who made a link: process number, the seconds that the host had been up, and which time it was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    pid: u32,
    since: u64,
    boot: Boot,
}

/// When the kernel made the root of securityfs, which it does once each time that the host is started: seconds and
/// nanoseconds. The kernel's own name for that time is in a file that Debian's profile for libvirt's helper does not
/// open; no profile keeps a process from asking of what age a file is. Nothing where there is no securityfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Boot(i64, i64);

impl Boot {
    const UNKNOWN: Self = Self(0, 0);

    fn this() -> Self {
        let is_there = statfs(SECURITYFS).is_ok_and(|fs| fs.filesystem_type() == SECURITYFS_MAGIC);
        let made = stat(SECURITYFS).ok().filter(|_| is_there);
        made.map_or(Self::UNKNOWN, |made| Self(made.st_ctime, made.st_ctime_nsec))
    }
}

impl Holder {
    /// Nobody; stands for a link that no call of this project made.
    const NOBODY: Self = Self { pid: 0, since: 0, boot: Boot::UNKNOWN };

    fn text(self) -> String {
        let Self { pid, since, boot: Boot(seconds, nanoseconds) } = self;
        format!("{pid} {since} {seconds}.{nanoseconds}")
    }

    fn parse(text: &OsStr) -> Self {
        let parse = |text: &str| {
            let (pid, rest) = text.split_once(' ')?;
            let (since, boot) = rest.split_once(' ')?;
            let (seconds, nanoseconds) = boot.split_once('.')?;
            let boot = Boot(seconds.parse().ok()?, nanoseconds.parse().ok()?);
            Some(Self { pid: pid.parse().ok()?, since: since.parse().ok()?, boot })
        };
        text.to_str().and_then(parse).unwrap_or(Self::NOBODY)
    }

    fn of(dir: &OwnedFd, name: &str) -> Result<Self, Errno> {
        match readlinkat(dir, name) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(Errno::EINVAL) => Ok(Self::NOBODY),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the maker is still at it. The kernel answers for processes that procfs may hide, and before it
    /// asks a confined caller's profile.
    fn is_alive(self, own: Self) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().filter(|pid| *pid > 0) else { return false };
        let age = own.since.checked_sub(self.since).filter(|_| own.boot == self.boot);
        age.is_some_and(|age| age <= LONGEST) && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
    }
}

/// Seconds since the host was started, those asleep left out: neither set nor moved by anybody.
fn uptime() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec()).unwrap_or_default())
}

/// Removes a link whose maker is dead. It is moved aside first: should it be a new one by now, it is put back. That is
/// enough for two, and there are no more: of those who may lock a file one comes here at a time, and libvirtd runs
/// its helper for one change of a guest at a time.
fn take_over(dir: &OwnedFd, lock: &str, dead: Holder) {
    let aside = format!("{lock}.{}", std::process::id());
    if renameat(dir, lock, dir, aside.as_str()).is_err() {
        return;
    }
    if Holder::of(dir, &aside) == Ok(dead) || Holder::of(dir, lock).is_ok() {
        let _ = unlinkat(dir, aside.as_str(), UnlinkatFlags::NoRemoveDir);
    } else {
        let _ = renameat(dir, aside.as_str(), dir, lock);
    }
}

/// Locks the profile's byte of the lock file for this open file description (`fcntl(2)`, «Open file
/// description locks»), so that threads of one process keep each other out too.
pub(crate) fn take_byte(dir: &OwnedFd, profile: ProfileName) -> Result<OwnedFd, Errno> {
    take_bytes(dir, &BTreeSet::from([byte(profile)]))
}

/// A profile's byte: 62 bits of the UUID. Two guests that share them wait for each other and nothing worse.
fn byte(profile: ProfileName) -> i64 {
    let (_, low) = profile.uuid().as_u64_pair();
    (low & (u64::MAX >> 2)).cast_signed()
}

fn take_bytes(dir: &OwnedFd, bytes: &BTreeSet<i64>) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let short = |constant: libc::c_int| libc::c_short::try_from(constant).unwrap_or_default();
    loop {
        let fd = openat(dir, LOCK_FILE, flags, Mode::from_bits_truncate(0o600))?;
        for byte in bytes {
            let byte = libc::flock {
                l_type: short(libc::F_WRLCK),
                l_whence: short(libc::SEEK_SET),
                l_start: *byte,
                l_len: 1,
                l_pid: 0,
            };
            loop {
                match fcntl(&fd, FcntlArg::F_OFD_SETLKW(&byte)) {
                    Ok(_) => break,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        // The file may have been removed while this waited; a lock on its ghost keeps nobody out.
        let same = |a: &FileStat, b: &FileStat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        let held = fstat(&fd)?;
        match fstatat(dir, LOCK_FILE, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(named) if same(&held, &named) => return Ok(fd),
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const LONG: Duration = Duration::from_secs(30);

    fn profile() -> ProfileName {
        "libvirt-a22e3930-d87a-584e-22b2-1d8950212bac".parse().unwrap()
    }

    fn open(dir: &Path) -> OwnedFd {
        fs::File::open(dir).unwrap().into()
    }

    /// A directory with the lock of somebody, and what `take` says to it after a moment.
    fn held_by(holder: Holder) -> bool {
        let temp = tempfile::tempdir().unwrap();
        symlink(holder.text(), temp.path().join(link_name(profile()))).unwrap();
        let dir = open(temp.path());
        let held = LinkLock::take(&dir, profile(), Duration::from_millis(30)).is_err();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), usize::from(held));
        held
    }

    #[test]
    fn one_holds_it_and_the_next_waits() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path());
        let take = |patience| LinkLock::take(&dir, profile(), patience);
        let first = take(Duration::ZERO).unwrap();
        assert_eq!(take(Duration::from_millis(50)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(first);
        drop(take(Duration::ZERO).unwrap());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_living_process_holds_it_and_a_dead_one_does_not() {
        let (since, boot) = (uptime().unwrap(), Boot::this());
        // Whose process is nobody else's to signal for an ordinary user, and lives all the same.
        assert!(held_by(Holder { pid: 1, since, boot }));
        // No process has a number that large (proc(5), pid_max).
        assert!(!held_by(Holder { pid: 4_194_305, since, boot }));
        assert!(!held_by(Holder { pid: u32::MAX, since, boot }));
    }

    #[test]
    fn a_number_that_lives_again_holds_nobody_out_for_ever() {
        // Made by a call that is over, or before the host was started again.
        let (now, boot) = (uptime().unwrap(), Boot::this());
        let me = |since| Holder { pid: std::process::id(), since, boot };
        let alive = |since| me(since).is_alive(me(now.max(LONGEST) + 1));
        assert!(alive(now.max(LONGEST)));
        assert!(!alive(now.max(LONGEST) - LONGEST));
        assert!(!held_by(Holder { pid: 1, since: now + 1000, boot }));
    }

    /// The host crashed, and is up as long as it was then, or a little longer.
    #[test]
    fn a_number_of_another_boot_holds_nobody_out() {
        let (since, boot) = (uptime().unwrap(), Boot::this());
        assert!(held_by(Holder { pid: 1, since, boot }));
        assert!(!held_by(Holder { pid: 1, since, boot: Boot(boot.0, boot.1 + 1) }));
        assert!(!held_by(Holder { pid: 1, since, boot: Boot(boot.0 - 60, boot.1) }));
        // It is the same each time that it is asked for, and comes back out of a link.
        assert_eq!(Boot::this(), boot);
        let holder = Holder { pid: 1, since, boot };
        assert_eq!(Holder::parse(OsStr::new(&holder.text())), holder);
        // As links were before, and what is no link of ours.
        for other in ["1 2", "1", "", "1 2 3", "1 2 3.x", "-1 2 3.4"] {
            assert_eq!(Holder::parse(OsStr::new(other)), Holder::NOBODY, "{other}");
        }
    }

    #[test]
    fn what_is_no_lock_of_ours_holds_nobody_out() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path());
        let path = temp.path().join(link_name(profile()));
        fs::write(&path, "1").unwrap();
        drop(LinkLock::take(&dir, profile(), LONG).unwrap());
        symlink("/etc/passwd", &path).unwrap();
        drop(LinkLock::take(&dir, profile(), LONG).unwrap());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_that_is_new_by_now_is_put_back() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path());
        let boot = Boot::UNKNOWN;
        let living = Holder { pid: 1, since: 1, boot };
        symlink(living.text(), temp.path().join("x.lock")).unwrap();
        take_over(&dir, "x.lock", Holder { pid: 4_194_305, since: 1, boot });
        assert_eq!(Holder::of(&dir, "x.lock"), Ok(living));
        take_over(&dir, "x.lock", living);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_turn_is_of_both_kinds_of_lock_and_of_all_its_profiles() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path());
        let other: ProfileName = profile().to_string().replace('a', "b").parse().unwrap();
        let third: ProfileName = profile().to_string().replace('a', "c").parse().unwrap();
        let turn = Turn::take(temp.path(), &BTreeSet::from([profile(), other])).unwrap();
        for profile in [profile(), other] {
            let (sender, receiver) = std::sync::mpsc::channel();
            let dir = open(temp.path());
            std::thread::spawn(move || sender.send(take_byte(&dir, profile).is_ok()));
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            let error = LinkLock::take(&open(temp.path()), profile, Duration::ZERO).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        // The twin: a profile that it is not of. And whoever has the file keeps the bytes.
        drop((take_byte(&dir, third).unwrap(), LinkLock::take(&dir, third, Duration::ZERO).unwrap()));
        let kept = turn.as_fd().try_clone_to_owned().unwrap();
        drop(turn);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(take_byte(&dir, other).is_ok()));
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            drop(kept);
            assert!(receiver.recv_timeout(LONG).unwrap());
        });
        assert!(Turn::take(&temp.path().join("none"), &BTreeSet::new()).is_err());
    }

    /// Whether the link of another, in place of this lock's, is still there behind it.
    fn others_link_stays(path: &Path, lock: impl Sized) -> bool {
        let other = Holder { pid: 1, since: 1, boot: Boot::UNKNOWN }.text();
        fs::remove_file(path).unwrap();
        symlink(&other, path).unwrap();
        drop(lock);
        let stays = fs::read_link(path).is_ok_and(|found| found == Path::new(&other));
        fs::remove_file(path).unwrap();
        stays
    }

    /// After so long a time, say, that it was taken for one of a process that is gone.
    #[test]
    fn what_another_has_taken_over_is_not_removed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path());
        let path = temp.path().join(link_name(profile()));
        let turn = || Turn::take(temp.path(), &BTreeSet::from([profile()])).unwrap();
        assert!(others_link_stays(&path, LinkLock::take(&dir, profile(), LONG).unwrap()));
        assert!(others_link_stays(&path, turn()));
        // The twin: what is still its own goes.
        drop(LinkLock::take(&dir, profile(), LONG).unwrap());
        drop(turn());
        assert!(!path.is_symlink());
    }

    #[test]
    fn threads_take_turns() {
        let temp = tempfile::tempdir().unwrap();
        let count = temp.path().join("count");
        fs::write(&count, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let dir = open(temp.path());
                    let _lock = LinkLock::take(&dir, profile(), LONG).unwrap();
                    let seen: u32 = fs::read_to_string(&count).unwrap().parse().unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                    fs::write(&count, (seen + 1).to_string()).unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&count).unwrap(), "16");
    }
}
