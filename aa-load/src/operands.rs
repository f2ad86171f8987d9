//! What the tool is asked to work on: records, names, files.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use aa_contract::record::parse_line;
use aa_contract::{ProfileName, Rendered, text::Printable};

use crate::error::{Error, Place};
use crate::load::Profile;

/// A profile to work on, or why there is none, and where it came from.
pub type Item = (Place, Result<Profile, Error>);

/// Bytes of one line. A record of two paths is far shorter.
const LONGEST_LINE: u64 = 1 << 20;

/// The profiles that the operands stand for, in order, each once; standard input's records if there is no operand.
/// An operand is a profile's name, whose file is in `directory`, `-` for standard input, or a file, of records or of
/// a profile.
pub fn items(operands: &[String], directory: &Path) -> impl Iterator<Item = Item> + Send + use<> {
    let operands = if operands.is_empty() { vec!["-".to_owned()] } else { operands.to_vec() };
    let directory = directory.to_owned();
    let mut seen = HashSet::new();
    operands.into_iter().flat_map(move |operand| open(operand, &directory)).map(move |(place, item)| {
        match item {
            Ok(profile) if !seen.insert(profile.name) => (place, Err(Error::Twice)),
            item => (place, item),
        }
    })
}

fn open(operand: String, directory: &Path) -> Box<dyn Iterator<Item = Item> + Send> {
    if operand == "-" {
        return Box::new(Records::new("stdin".to_owned(), Box::new(BufReader::new(io::stdin()))));
    }
    if let Ok(name) = operand.parse::<ProfileName>() {
        let profile = Profile { name, file: directory.join(&operand) };
        return Box::new(std::iter::once((Place::Profile(name), Ok(profile))));
    }
    let printable = Printable(&operand).to_string();
    let one = |result| {
        let item: Item = (Place::Host, result);
        Box::new(std::iter::once(item))
    };
    let path = PathBuf::from(&operand);
    let mut reader = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(source) if source.kind() == io::ErrorKind::NotFound && !operand.contains('/') => {
            return one(Err(Error::Nothing(operand)));
        }
        Err(source) => return one(Err(Error::Operand { operand, source })),
    };
    // A record opens with a brace, and no profile does.
    let first = reader.fill_buf().map(|bytes| bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace()));
    match first {
        Ok(Some(b'{')) => Box::new(Records::new(printable, Box::new(reader))),
        Ok(_) => one(profile_file(&path)),
        Err(source) => one(Err(Error::Operand { operand, source })),
    }
}

fn profile_file(path: &Path) -> Result<Profile, Error> {
    let Some(name) = name_of(path) else { return Err(Error::FileName(path.to_owned())) };
    let file = std::path::absolute(path).map_err(Error::host(path))?;
    Ok(Profile { name, file })
}

/// The profile that a file is named after.
fn name_of(file: &Path) -> Option<ProfileName> {
    file.file_name()?.to_str()?.parse().ok()
}

/// What a record speaks of. Who edits it chooses the directory, in which there are locks too, and no more.
fn profile_of(record: &Rendered) -> Result<Profile, Error> {
    let file = PathBuf::from(record.file.as_str());
    if name_of(&file) != Some(record.profile) {
        return Err(Error::FileName(file));
    }
    Ok(Profile { name: record.profile, file })
}

struct Records {
    name: String,
    reader: Option<Box<dyn BufRead + Send>>,
    line: usize,
}

impl Records {
    fn new(name: String, reader: Box<dyn BufRead + Send>) -> Self {
        Self { name, reader: Some(reader), line: 0 }
    }
}

impl Iterator for Records {
    type Item = Item;
    fn next(&mut self) -> Option<Item> {
        loop {
            let mut bytes = Vec::new();
            let read = self.reader.as_mut()?.take(LONGEST_LINE).read_until(b'\n', &mut bytes);
            self.line += 1;
            let place = Place::Line(self.name.clone(), self.line);
            let failed = |reader: &mut Option<_>, source| {
                // After this nobody knows where a line begins.
                *reader = None;
                Some((place.clone(), Err(Error::Host { path: PathBuf::from(&self.name), source })))
            };
            match read {
                Ok(0) => return None,
                Ok(length) if length as u64 == LONGEST_LINE && !bytes.ends_with(b"\n") => {
                    return failed(&mut self.reader, io::Error::other("a line is longer than 1 MiB"));
                }
                Ok(_) => {}
                Err(source) => return failed(&mut self.reader, source),
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                let source = io::Error::new(io::ErrorKind::InvalidData, "the line is not UTF-8");
                return Some((place, Err(Error::Read { path: PathBuf::from(&self.name), source })));
            };
            if text.trim().is_empty() {
                continue;
            }
            let item = parse_line::<Rendered>(text.trim_end_matches('\n'));
            return Some(match item {
                Ok(record) => (Place::Profile(record.profile), profile_of(&record)),
                Err(error) => (place, Err(error.into())),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::NAME;

    fn record(name: &str) -> String {
        format!(
            "{{\"version\":1,\"profile\":\"{name}\",\"file\":\"/d/{name}\",\"rules_file\":\"/d/{name}.files\",\"changed\":true}}\n"
        )
    }

    #[test]
    fn records_names_and_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let other = NAME.replace('a', "b");
        let third = NAME.replace('a', "c");
        let profile = dir.path().join(&other);
        std::fs::write(&profile, "profile x {}").unwrap();
        let records = dir.path().join("records");
        std::fs::write(&records, format!("\n{}garbage\n{}", record(&third), record(&third))).unwrap();
        let strange = dir.path().join("strange");
        std::fs::write(&strange, "profile x {}").unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let operands =
            [NAME.to_owned(), text(&profile), text(&records), text(&strange), "/nonexistent".to_owned()];
        let items: Vec<Item> = items(&operands, Path::new("/d")).collect();
        assert_eq!(items[0].1.as_ref().unwrap().file, Path::new("/d").join(NAME));
        assert_eq!(items[1].1.as_ref().unwrap().file, profile);
        assert_eq!(items[2].1.as_ref().unwrap().name.to_string(), third);
        assert!(matches!(items[3], (Place::Line(_, 3), Err(Error::Record(_)))));
        assert!(matches!(items[4].1, Err(Error::Twice)));
        assert!(matches!(items[5].1, Err(Error::FileName(_))));
        let told = |item: &Item| format!("{}{}", item.0, item.1.as_ref().unwrap_err());
        assert_eq!(told(&items[6]), "/nonexistent: no such file or directory");
        let strange =
            format!("{}: a profile file must be named after its profile, libvirt-<uuid>", strange.display());
        assert_eq!(told(&items[5]), strange);
    }

    #[test]
    fn an_operand_that_is_nothing_is_told_what_it_could_be() {
        let told = |operand: &str| {
            let (place, result) = items(&[operand.to_owned()], Path::new("/d")).next().unwrap();
            let error = result.unwrap_err();
            assert_eq!(error.exit(), aa_contract::Exit::Refused);
            format!("{place}{error}")
        };
        let kinds = "is no verb (add, replace, remove, status, verify, gc, doctor), profile name (libvirt-<uuid>) or file";
        assert_eq!(told("stauts"), format!("\"stauts\" {kinds}"));
        let uuid = NAME.strip_prefix("libvirt-").unwrap();
        assert_eq!(told(uuid), format!("\"{uuid}\" {kinds}; did you mean {NAME}?"));
        let upper = uuid.to_uppercase();
        assert_eq!(told(&upper), format!("\"{upper}\" {kinds}; did you mean {NAME}?"));
        assert_eq!(told("./stauts"), "./stauts: no such file or directory");
    }

    #[test]
    fn a_record_names_no_file_but_one_that_is_named_after_its_profile() {
        let own = format!("/d/{NAME}");
        for (file, is_own) in [
            (own.clone(), true),
            (format!("/elsewhere/{NAME}"), true),
            ("/d/TEMPLATE.qemu".to_owned(), false),
            (own.replace('a', "b"), false),
            (format!("{own}/x"), false),
        ] {
            let text = record(NAME).replace(&format!("\"{own}\""), &format!("\"{file}\""));
            let item = Records::new("in".into(), Box::new(io::Cursor::new(text))).next().unwrap();
            assert!(matches!(item.0, Place::Profile(name) if name.to_string() == NAME), "{file}");
            match item.1 {
                Ok(profile) => assert!(is_own && profile.file == Path::new(&file), "{file}"),
                Err(error) => assert!(!is_own && matches!(error, Error::FileName(_)), "{file}: {error}"),
            }
        }
    }

    #[test]
    fn a_line_without_end_ends_the_input() {
        let mut text = vec![b'x'; 3 << 20];
        text.push(b'\n');
        let records = Records::new("in".into(), Box::new(io::Cursor::new(text)));
        let items: Vec<Item> = records.collect();
        assert_eq!(items.len(), 1);
        assert!(matches!(items[0].1, Err(Error::Host { .. })));
    }
}
