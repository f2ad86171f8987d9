//! What tests of several crates share; the tests of this one are in `it/` and, for a guest with an AppArmor kernel,
//! in `guest/`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first thing that goes wrong"
)]

pub mod compiled;
pub mod numbers;
pub mod strace;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

/// Bytes that a test may fill.
const ROOM: u64 = 256 << 20;

/// A temporary directory where fsync(2) costs nothing: in memory, where there is such a place that serves.
///
/// # Panics
/// It cannot be made.
pub fn directory_in_memory() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm").ok().filter(|dir| serves(dir.path()));
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Makes a directory with those above it in which nobody else may make files, whatever the umask.
///
/// # Panics
/// It cannot be made.
pub fn own_directory(path: &Path) {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).unwrap();
}

/// Whether a program that is written there can be executed, and there is room; containers often have neither in /dev/shm.
fn serves(dir: &Path) -> bool {
    statvfs(dir).is_ok_and(|fs| has_what_it_takes(fs.flags(), fs.blocks_available() * fs.fragment_size()))
}

fn has_what_it_takes(flags: FsFlags, free: u64) -> bool {
    !flags.contains(FsFlags::ST_NOEXEC) && free >= ROOM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_room_or_where_nothing_is_executed_is_not_taken() {
        let (nosuid, noexec) = (FsFlags::ST_NOSUID, FsFlags::ST_NOEXEC);
        assert!(has_what_it_takes(nosuid, ROOM));
        assert!(!has_what_it_takes(nosuid, 64 << 20));
        assert!(!has_what_it_takes(nosuid | noexec, ROOM));
        // Neither room nor programs.
        assert!(!serves(Path::new("/proc")) && !serves(Path::new("/nonexistent")));
        let dir = directory_in_memory();
        std::fs::write(dir.path().join("file"), "x").unwrap();
    }
}
