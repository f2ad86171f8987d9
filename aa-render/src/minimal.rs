//! Base profiles of what one guest uses and nothing else.

use aa_contract::Derived;

/// Heads a base profile that is made anew each time; one without this line is the user's.
const HEAD: &str = "# Made by aa-render --minimal from what the guest uses; made anew each time.\n";

/// Whether a base profile was made here.
pub fn is_minimal(text: &str) -> bool {
    text.starts_with(HEAD)
}

/// The text of a template for this record.
pub fn template(_record: &Derived) -> String {
    format!(
        "{HEAD}\n#include <tunables/global>\n\nprofile LIBVIRT_TEMPLATE flags=(attach_disconnected) {{\n  #include <abstractions/base>\n}}\n"
    )
}
