//! How a literal is written inside a quoted AppArmor pattern.
//!
//! Inside double quotes the parser decodes escapes, then expands variables, then reads globs
//! (`apparmor.d(5)`, and measured on parsers 3.0.8 and 4.1.0). A byte written as three octal digits
//! means itself in every position; that form is used for all bytes but those proven to be plain.

/// Writes `text` so that each of its bytes means itself inside a quoted AppArmor pattern.
pub fn escape_literal(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('\\');
            for shift in [6u8, 3, 0] {
                out.push(char::from(b'0' + ((byte >> shift) & 7)));
            }
        }
    }
}

/// Bytes that mean themselves in a quoted pattern and are left as they are for the reader's sake.
pub fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._- :+=%,~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_byte_is_octal() {
        let mut out = String::new();
        escape_literal("/a b*?[]{}^\\\"@#\té", &mut out);
        assert_eq!(out, "/a b\\052\\077\\133\\135\\173\\175\\136\\134\\042\\100\\043\\011\\303\\251");
    }
}
