//! A guest with a real AppArmor kernel: Debian's own packages, booted by QEMU under software emulation.
//!
//! Nothing here needs root or a network once an image is there. One image a suite is made from
//! packages ([`packages`], [`image`]) and kept; what changes from run to run, the tools and the scripts,
//! goes into a small second archive ([`boot`]).

pub(crate) mod boot;
mod cpio;
pub(crate) mod image;
mod kernel;
pub(crate) mod packages;
pub(crate) mod results;

use clap::ValueEnum;

/// A Debian release, as its archive names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Debian 12: AppArmor 3.0.8, Linux 6.1, libvirt 9.0, QEMU 7.2
    Bookworm,
    /// Debian 13: AppArmor 4.1.0, Linux 6.12, libvirt 11.3, QEMU 10.0
    Trixie,
}

impl Suite {
    pub(crate) const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}
