//! QEMU's option values: `key=value,key=value` with `,,` for a comma, or the same as a JSON object,
//! nested or flattened with dots (QEMU: «keyval» and «`QemuOpts`»).

use std::collections::BTreeMap;

use serde_json::Value;

/// How many times as long as its text a JSON value may be once each of its values carries the keys above it.
const MAX_GROWTH: usize = 16;

/// Keys, sorted, with the values that each was given. Where a key stands twice, QEMU takes the last.
///
/// A value may have a hundred thousand keys, and each of its nodes asks for several: no question walks over all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    entries: BTreeMap<String, Vec<String>>,
}

impl Options {
    /// Reads a value in either form; the first word without `=` is the value of `implied`.
    ///
    /// # Errors
    /// It starts as JSON and is none, or its keys are too long for what stands below them.
    pub(super) fn parse(text: &str, implied: &str) -> Result<Self, String> {
        if text.starts_with('{') {
            let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
            let mut options = Self::default();
            let mut room = text.len().saturating_mul(MAX_GROWTH);
            options.flatten("", value, &mut room).ok_or("too many values stand below long keys")?;
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
                options.add(key, value);
            }
        }
        options
    }

    fn add(&mut self, key: String, value: String) {
        self.entries.entry(key).or_default().push(value);
    }

    /// Adds a value with the keys above it before its own. None if `room` does not hold them all.
    fn flatten(&mut self, prefix: &str, value: Value, room: &mut usize) -> Option<()> {
        *room = room.checked_sub(prefix.len())?;
        let below = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        let text = match value {
            Value::Object(object) => {
                return object
                    .into_iter()
                    .try_for_each(|(key, value)| self.flatten(&below(&key), value, room));
            }
            Value::Array(array) => {
                let mut numbered = (0_usize..).zip(array);
                return numbered
                    .try_for_each(|(at, value)| self.flatten(&below(&at.to_string()), value, room));
            }
            Value::String(text) => text,
            Value::Bool(on) => if on { "on" } else { "off" }.to_owned(),
            // QEMU takes null for «none at all», as in "backing": null.
            Value::Null => String::new(),
            Value::Number(number) => number.to_string(),
        };
        self.add(prefix.to_owned(), text);
        Some(())
    }

    /// The value that holds for a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key)?.last().map(String::as_str)
    }

    /// The value that holds for a key, which then is understood.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.entries.remove(key)?.pop()
    }

    /// Whether a key is switched on.
    pub(super) fn is_on(&self, key: &str) -> bool {
        matches!(self.get(key), Some("on" | "yes" | "true" | "y"))
    }

    /// Whether a key is switched off.
    pub(super) fn is_off(&self, key: &str) -> bool {
        matches!(self.get(key), Some("off" | "no" | "false" | "n"))
    }

    /// The keys below this one, as `file.filename` below `file`.
    pub(super) fn below(&self, key: &str) -> impl Iterator<Item = &str> {
        let start = format!("{key}.");
        let keys = self.entries.range(start.clone()..).map(|(key, _)| key.as_str());
        keys.take_while(move |key| key.starts_with(&start))
    }

    /// Whether any key lies below this one.
    pub(super) fn has_below(&self, key: &str) -> bool {
        self.below(key).next().is_some()
    }

    /// What was not taken, by key and value.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .flat_map(|(key, values)| values.iter().map(|value| (key.as_str(), value.as_str())))
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
        let options = Options::parse(text, "id").unwrap();
        options.left().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn words() {
        assert_eq!(
            entries("x,file=/a,,b=c,readonly,nowait,z="),
            pairs(&[("file", "/a,b=c"), ("id", "x"), ("readonly", "on"), ("wait", "off"), ("z", "")])
        );
        let mut options = Options::words("file=/a,file=/b,file.x=1,file-=2,file0=3", "");
        assert_eq!(options.get("file"), Some("/b"));
        assert_eq!(options.below("file").collect::<Vec<_>>(), ["file.x"]);
        assert_eq!(options.take("file").as_deref(), Some("/b"));
        assert_eq!(options.left().collect::<Vec<_>>(), [("file-", "2"), ("file.x", "1"), ("file0", "3")]);
        assert!(options.has_below("file") && !options.has_below("fil"));
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

    /// A long key before each of many values would take memory by the square of the text.
    #[test]
    fn json_grows_only_so_far() {
        let long = "k".repeat(1000);
        assert!(Options::parse(&format!("{{\"{long}\":[{}1]}}", "1,".repeat(10)), "").is_ok());
        assert!(Options::parse(&format!("{{\"{long}\":[{}1]}}", "1,".repeat(1000)), "").is_err());
    }
}
