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

/// A temporary directory where fsync(2) costs nothing: in memory, where there is such a place.
///
/// # Panics
/// It cannot be made.
pub fn directory_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
