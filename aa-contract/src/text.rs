//! Making text that came from an input safe to print to a terminal.

use std::fmt::{self, Display, Write};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_moves_the_cursor_and_keeps_letters() {
        assert_eq!(Printable("a\x1b[31m\n\u{202e}é").to_string(), "a\\u{1b}[31m\\n\\u{202e}é");
    }
}
