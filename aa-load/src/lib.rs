//! Loads guests' AppArmor profiles into the kernel, takes them out, and tells their state.
//!
//! [`Loader`] is the way of the tool itself: a cache by content, the kernel asked first, the result read back.
//! [`Parser`] alone is for a caller that may do no more than run `apparmor_parser`.
//! Nothing here parses domain XML, and no shell is ever started.

pub mod args;
pub mod batch;
pub mod blob;
pub mod cache;
pub mod doctor;
pub mod error;
mod features;
pub mod gc;
pub mod kernel;
mod lines;
pub mod load;
pub mod locks;
mod merge;
pub mod operands;
pub mod parameters;
pub mod parser;
mod process;
pub mod remove;
mod sources;
pub mod status;
pub mod tasks;
mod trust;
pub mod verify;
pub mod wanted;

pub use cache::Cache;
pub use error::{Error, ParserError, Place};
pub use kernel::Kernel;
pub use load::{Loader, Options, Profile, add, replace};
pub use locks::Locks;
pub use merge::Refused;
pub use parser::Parser;
pub use remove::{InUse, remove};
