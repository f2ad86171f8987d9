//! Making text that came from an input safe to print to a terminal.

use std::fmt::{self, Display, Write};
use std::io;

/// Displays a string with control, bidirectional and other invisible characters escaped, so that a
/// hostile name or path can neither move the cursor nor reorder the line it is printed in.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || is_invisible(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Line separators, zero-width characters and the bidirectional controls of Unicode (UAX #9).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What the system says of a failure, as the tools word it: in lower case, without Rust's `(os error N)` at its end.
pub fn strip_os_code(error: &io::Error) -> String {
    let text = error.to_string();
    let told = text.rsplit_once(" (os error ").map_or(text.as_str(), |(told, _)| told);
    // What a program says itself may hold a name.
    if error.raw_os_error().is_some() { told.to_lowercase() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_worded_alike() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(strip_os_code(&missing), "no such file or directory");
        assert_eq!(strip_os_code(&io::Error::other("File A (os error 2)")), "File A (os error 2)");
    }

    #[test]
    fn escapes_what_moves_the_cursor_and_keeps_letters() {
        assert_eq!(Printable("a\x1b[31m\n\u{202e}é").to_string(), "a\\u{1b}[31m\\n\\u{202e}é");
    }
}
