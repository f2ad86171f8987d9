//! What is fuzzed: each function takes any bytes, and panics if what it drives panics, takes more than it
//! should, or breaks a promise. libFuzzer drives them (`cargo xtask fuzz`), and so does a test of this package.

#![expect(clippy::panic, clippy::unwrap_used, clippy::missing_panics_doc, reason = "a finding is a panic")]

pub mod aare;
pub mod domain;
pub mod image;
pub mod loading;
pub mod quoting;
pub mod record;
pub mod rendering;

/// One function with the name that its program, its seeds and its corpus go by.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All of them.
pub const TARGETS: [Target; 18] = [
    target("domain", domain::domain),
    target("pool", domain::pool),
    target("qemu_args", domain::qemu_args),
    target("image_cow", image::cow),
    target("image_qcow", image::qcow),
    target("image_qcow2", image::qcow2),
    target("image_qed", image::qed),
    target("image_vdi", image::vdi),
    target("image_vhdx", image::vhdx),
    target("image_vmdk", image::vmdk),
    target("image_vpc", image::vpc),
    target("chain", image::chain),
    target("backing_name", image::backing_name),
    target("record", record::record),
    target("quoting", quoting::quoting),
    target("rules_file", rendering::rules_file),
    target("profile_text", rendering::profile_text),
    target("parser_output", loading::parser_output),
];
