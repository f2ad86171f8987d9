//! Makes AppArmor profiles from rules and templates.
//!
//! A [`Renderer`] computes texts and touches nothing; a [`Store`] reads and writes them. A change is
//! always the same four steps, under the lock: read what is there, plan what should be, write the
//! difference, and, if whatever uses the profile then fails, write it back:
//!
//! ```no_run
//! # use aa_render::{Layout, Renderer, Settings, Store, Sync, template::Source};
//! # fn f(record: &aa_contract::Derived) -> Result<(), aa_render::Error> {
//! let layout = Layout::new("/etc/apparmor.d/libvirt".as_ref(), "/etc/apparmor.d".as_ref())?;
//! let store = Store::open(&layout, Sync::Required)?;
//! let renderer = Renderer::new(layout, Source::Host, Settings::default());
//! let locked = store.lock(record.profile())?;
//! let old = locked.read()?;
//! let new = renderer.plan(&old, record)?;
//! locked.write(&old, &new)?;
//! # Ok(()) }
//! ```

pub mod args;
pub mod batch;
pub mod diff;
pub mod error;
pub mod grants;
pub mod layout;
mod lock;
pub mod minimal;
pub mod profile_text;
mod render;
pub mod rules_file;
pub mod store;
pub mod template;

pub use error::Error;
pub use layout::{Layout, Part};
pub use lock::{SECURITYFS, Turn};
pub use render::{Renderer, Settings};
pub use store::{Contents, Locked, Store, Sync};
