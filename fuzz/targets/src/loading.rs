//! What `apparmor_parser` says: its release, its status with its words, and what it compiled.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use aa_load::blob;
use aa_load::parser::{Input, failure};

use crate::domain::assert_one_line;

/// Longest message that is passed on, with what stands before it, in characters.
const LONGEST: usize = 16 * 1024;

/// Two bytes of what `wait` gives, and then the words; the whole is read as compiled policy too.
pub fn parser_output(data: &[u8]) {
    if let Ok(profiles) = blob::parse(data) {
        assert!(!profiles.is_empty());
    }
    let Some((status, words)) = data.split_first_chunk() else { return };
    let status = ExitStatus::from_raw(i32::from(u16::from_le_bytes(*status)));
    for input in [Input::Text, Input::Removal, Input::Blob] {
        let text = failure(input, status, words).to_string();
        assert_one_line(&text);
        assert!(text.chars().count() < LONGEST, "{} characters", text.chars().count());
    }
}
