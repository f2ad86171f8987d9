//! QEMU's option values: `key=value,key=value` with `,,` for a comma, or the same as a JSON object,
//! nested or flattened with dots (QEMU: «keyval» and «`QemuOpts`»).

use serde_json::Value;

/// Keys and values in the order given. Where a key stands twice, QEMU takes the last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    entries: Vec<(String, String)>,
}

impl Options {
    /// Reads a value in either form; the first word without `=` is the value of `implied`.
    ///
    /// # Errors
    /// It starts as JSON and is none.
    pub(super) fn parse(text: &str, implied: &str) -> Result<Self, String> {
        if text.starts_with('{') {
            let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let mut options = Self::default();
            options.flatten("", value);
            return Ok(options);
        }
        Ok(Self::words(text, implied))
    }

    /// Reads `key=value,…`.
    pub(super) fn words(text: &str, implied: &str) -> Self {
        let mut options = Self::default();
        for (index, word) in split(text).into_iter().enumerate() {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None if index == 0 && !implied.is_empty() => (implied.to_owned(), word),
                None => match word.strip_prefix("no") {
                    Some(key) if !key.is_empty() && !key.starts_with('-') => {
                        (key.to_owned(), "off".to_owned())
                    }
                    _ => (word, "on".to_owned()),
                },
            };
            if !key.is_empty() {
                options.entries.push((key, value));
            }
        }
        options
    }

    fn flatten(&mut self, prefix: &str, value: Value) {
        let below = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    self.flatten(&below(&key), value);
                }
            }
            Value::Array(array) => {
                for (index, value) in array.into_iter().enumerate() {
                    self.flatten(&below(&index.to_string()), value);
                }
            }
            Value::String(text) => self.entries.push((prefix.to_owned(), text)),
            Value::Bool(on) => {
                self.entries.push((prefix.to_owned(), if on { "on" } else { "off" }.to_owned()));
            }
            // QEMU takes null for «none at all», as in "backing": null.
            Value::Null => self.entries.push((prefix.to_owned(), String::new())),
            Value::Number(number) => self.entries.push((prefix.to_owned(), number.to_string())),
        }
    }

    /// The value that holds for a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The value that holds for a key, which then is understood.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let value = self.get(key).map(str::to_owned);
        self.entries.retain(|(known, _)| known != key);
        value
    }

    /// Whether a key is switched on.
    pub(super) fn is_on(&self, key: &str) -> bool {
        matches!(self.get(key), Some("on" | "yes" | "true" | "y"))
    }

    /// Whether any key lies below this one, as `file.filename` below `file`.
    pub(super) fn has_below(&self, key: &str) -> bool {
        self.entries
            .iter()
            .any(|(known, _)| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// What was not taken, by key and value.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Splits at single commas; two are one comma of the value.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ',' if chars.peek() == Some(&',') => {
                chars.next();
                word.push(',');
            }
            ',' => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, String)> {
        Options::parse(text, "id").unwrap().entries
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn words() {
        assert_eq!(
            entries("x,file=/a,,b=c,readonly,nowait,z="),
            pairs(&[("id", "x"), ("file", "/a,b=c"), ("readonly", "on"), ("wait", "off"), ("z", "")])
        );
        let mut options = Options::words("file=/a,file=/b,file.x=1", "");
        assert_eq!(options.get("file"), Some("/b"));
        assert!(options.has_below("file"));
        assert_eq!(options.take("file").as_deref(), Some("/b"));
        assert_eq!(options.left().collect::<Vec<_>>(), [("file.x", "1")]);
        assert!(!options.has_below("fil"));
    }

    #[test]
    fn json_is_the_same_flattened() {
        assert_eq!(
            entries(r#"{"driver":"qcow2","file":{"filename":"/a,b"},"l":[1,true],"backing":null}"#),
            pairs(&[
                ("backing", ""),
                ("driver", "qcow2"),
                ("file.filename", "/a,b"),
                ("l.0", "1"),
                ("l.1", "on")
            ])
        );
        assert!(Options::parse("{", "").is_err());
        assert!(Options::parse(&"{\"a\":".repeat(10_000), "").is_err());
    }
}
