//! What a guest reports on its second serial line, one record a line:
//!
//! ```text
//! E2E-START name              a case begins
//! E2E-LINE text               a line of a failed case's output, a figure, or of the demo
//! E2E-CASE name ok|fail ms    a case has ended
//! E2E-EXIT status             everything has ended; without it the guest died
//! ```

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Start(String),
    Line(String),
    Case { name: String, passed: bool, millis: u64 },
    Exit(i32),
}

impl Record {
    /// Reads one line; anything else than a record is none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\r', '\n']);
        let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
        match tag {
            "E2E-START" => Some(Self::Start(rest.to_owned())),
            "E2E-LINE" => Some(Self::Line(rest.to_owned())),
            "E2E-CASE" => {
                let mut words = rest.split(' ');
                let name = words.next()?.to_owned();
                let passed = match words.next()? {
                    "ok" => true,
                    "fail" => false,
                    _ => return None,
                };
                let millis = words.next()?.parse().ok()?;
                Some(Self::Case { name, passed, millis })
            }
            "E2E-EXIT" => Some(Self::Exit(rest.parse().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_count() {
        let case = |passed| Record::Case { name: "a/b".into(), passed, millis: 12 };
        assert_eq!(Record::parse("E2E-CASE a/b ok 12\r\n"), Some(case(true)));
        assert_eq!(Record::parse("E2E-CASE a/b fail 12"), Some(case(false)));
        assert_eq!(Record::parse("E2E-EXIT 0"), Some(Record::Exit(0)));
        assert_eq!(Record::parse("E2E-LINE "), Some(Record::Line(String::new())));
        for broken in ["E2E-CASE a/b", "E2E-CASE a/b okay 1", "E2E-CASE a/b ok x", "E2E-EXIT", "noise", ""] {
            assert_eq!(Record::parse(broken), None, "{broken}");
        }
    }
}
