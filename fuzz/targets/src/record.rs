//! The records that pass between the tools.

use aa_contract::record::{parse_line, to_line};
use aa_contract::{Derived, Grant, Loaded, Rendered};

use crate::rendering;

/// A line that should be a record.
pub fn record(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    if let Ok(record) = parse_line::<Derived>(line) {
        comes_back(&record);
        rendering::renders(&record);
    }
    let one = |line: Result<String, _>| -> String {
        let line: String = line.map_err(|error: aa_contract::record::RecordError| error.to_string()).unwrap();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
        line
    };
    if let Ok(record) = parse_line::<Rendered>(line) {
        assert_eq!(parse_line::<Rendered>(one(to_line(&record)).trim_end()).unwrap(), record);
    }
    if let Ok(record) = parse_line::<Loaded>(line) {
        assert_eq!(parse_line::<Loaded>(one(to_line(&record)).trim_end()).unwrap(), record);
    }
    if let Ok(record) = parse_line::<Grant>(line) {
        assert_eq!(parse_line::<Grant>(one(to_line(&record)).trim_end()).unwrap(), record);
    }
}

/// A record is one line, and the line is the record; what is in it holds for the schema's reader too.
pub(crate) fn comes_back(record: &Derived) {
    let line = to_line(record).unwrap();
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
    let again: Derived = parse_line(line.trim_end()).unwrap();
    assert_eq!(again, *record);
    let keys: Vec<_> =
        record.rules().iter().map(|rule| (&rule.target, rule.deny, rule.owner, rule.audit)).collect();
    assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair.first() != pair.last()), "{keys:?}");
}
