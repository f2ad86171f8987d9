//! The fast way to a guest's compiled policy: a base that guests share, compiled once by the parser and kept, and the
//! guest's own rules merged into it here.
//!
//! It is taken only where everything is of a form that is known; any [`Refused`] leaves the profile to the parser. What
//! it makes is what the parser makes, state for state: `aa-load::merge` tests that against the parser.

mod audit;
mod automaton;
mod base;
mod name;
mod rules;
mod stream;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use self::base::Base;
pub(crate) use self::base::Compiles;
use self::rules::Merged;
use crate::cache::Cache;
use crate::load::Profile;
use crate::sources::{Sources, Sum, references};

/// Why a profile is left to the parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub(crate) Cow<'static, str>);

impl Refused {
    pub(crate) const fn of(why: &'static str) -> Self {
        Self(Cow::Borrowed(why))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The parser did not compile a base; whether it would another time, nobody knows.
pub(crate) const NOT_COMPILED: Refused = Refused::of("the parser does not compile a base of it");

/// What an entry of the cache begins with that holds the reason why there is no base: longer than a base's first part can be.
const NO_BASE: &[u8] = &[u8::MAX; 8];

/// Bytes of a profile, a rules file or an include.
const LARGEST: u64 = 1 << 20;

/// The bases that this process has met, also those that cannot be.
#[derive(Debug, Default)]
pub(crate) struct Bases(Mutex<HashMap<Sum, Result<Arc<Base>, Refused>>>);

/// Everything that a merge needs to know of the host.
pub(crate) struct Host<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) sources: &'a Sources,
    /// AppArmor's directory.
    pub(crate) directory: &'a Path,
    /// What goes into every key.
    pub(crate) common: &'a [u8],
    /// A reader of the same files that remembers nothing.
    pub(crate) again: &'a dyn Fn() -> Sources,
}

impl Bases {
    /// The policy of a profile.
    pub(crate) fn policy(
        &self,
        profile: &Profile,
        host: &Host<'_>,
        compile: &mut Compiles<'_>,
    ) -> Result<Vec<u8>, Refused> {
        let source = Source::read(profile, host)?;
        self.base(&source, host, compile)?.policy(profile.name, &source.rules)
    }

    fn base(
        &self,
        source: &Source,
        host: &Host<'_>,
        compile: &mut Compiles<'_>,
    ) -> Result<Arc<Base>, Refused> {
        let text = source.text(name::ONE, "");
        let key = |sources: &Sources| {
            let (files, paths) = sources
                .sum_of_text(&text)
                .map_err(|_| Refused::of("files that are not to be trusted or understood"))?;
            let key: Sum = Sha256::new()
                .chain_update(host.common)
                .chain_update("base 1\0")
                .chain_update(Sha256::digest(&text))
                .chain_update(files)
                .finalize()
                .into();
            Ok((key, paths))
        };
        let (sum, paths) = key(host.sources)?;
        // One at a time: others that want the same base would compile it too.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = known.get(&sum) {
            return base.clone();
        }
        let _lock = host.cache.lock_bases().map_err(|_| Refused::of("no lock in the cache"))?;
        let kept = host.cache.base(&sum).and_then(|bytes| match bytes.strip_prefix(NO_BASE) {
            Some(why) => Some(Err(Refused(String::from_utf8_lossy(why).into_owned().into()))),
            None => Base::read(&bytes).ok().map(|base| Ok(Arc::new(base))),
        });
        let base = match kept {
            Some(base) => base,
            None if host.cache.read_only() => {
                return Err(Refused::of("a base that only looking does not make"));
            }
            None => {
                let made = audit::denied(&text, &paths).and_then(|audited| {
                    Base::make(&|uuid, rules| source.text(uuid, rules), &audited, compile)
                });
                if key(&(host.again)())?.0 != sum {
                    return Err(Refused::of("files that changed meanwhile"));
                }
                let bytes = match &made {
                    Ok(base) => Some(base.write()),
                    Err(refused) if *refused == NOT_COMPILED => None,
                    Err(Refused(why)) => Some([NO_BASE, why.as_bytes()].concat()),
                };
                // A base that cannot be kept is made again by the next.
                let _ = bytes.map(|bytes| host.cache.keep_base(&sum, &bytes));
                made.map(Arc::new)
            }
        };
        known.insert(sum, base.clone());
        base
    }
}

/// A profile's text without its own rules, and these.
struct Source {
    uuid: String,
    /// Before the line that includes the rules file, and behind it.
    head: String,
    tail: String,
    /// Own rules that stay in the text.
    residual: String,
    rules: Vec<Merged>,
}

impl Source {
    fn read(profile: &Profile, host: &Host<'_>) -> Result<Self, Refused> {
        let name = profile.name.to_string();
        let uuid = profile.name.uuid().hyphenated().to_string();
        if profile.file.file_name() != Some(name.as_ref()) {
            return Err(Refused::of("a profile in a file of another name"));
        }
        if host.directory.join("force-complain").join(&name).symlink_metadata().is_ok() {
            return Err(Refused::of("a profile that is forced to complain"));
        }
        let text = read(&profile.file)?;
        let rules_file = profile.file.with_file_name(format!("{name}.files"));
        let mentions = text.matches(&format!("{name}.files")).count();
        let mut includes = text.split_inclusive('\n').filter(|line| line.contains(&format!("{name}.files")));
        let line =
            includes.next().filter(|line| mentions == 1 && host.included(line).as_ref() == Some(&rules_file));
        let line = line.ok_or(Refused::of("a rules file that is not included in the usual way"))?;
        let (head, tail) = text.split_once(line).ok_or(Refused::of("a text without its line"))?;
        // What is there for this guest alone, and is found by its name; also a rules file in an earlier place.
        let names = references(text.as_bytes()).ok_or(Refused::of("a name that is not understood"))?;
        let is_own = |name: &[u8]| name.windows(uuid.len()).any(|part| part == uuid.as_bytes());
        let own = names.iter().filter(|reference| is_own(&reference.name));
        let mut places = own.flat_map(|reference| host.sources.places(&reference.name));
        if places.any(|place| place != rules_file && !is_nothing(&place)) {
            return Err(Refused::of("additions for this guest alone"));
        }
        let (rules, residual) = rules::read(&read(&rules_file)?)?;
        let made_up = |text: &str| {
            [name::ONE, name::OTHER, name::THIRD]
                .iter()
                .any(|made_up| *made_up != uuid && text.contains(made_up))
        };
        if made_up(&text) || made_up(&residual) {
            return Err(Refused::of("a text with a UUID that is used here"));
        }
        Ok(Self { uuid, head: head.to_owned(), tail: tail.to_owned(), residual, rules })
    }

    /// The text for another guest, with these rules of its own.
    fn text(&self, uuid: &str, rules: &str) -> String {
        [&self.head, &self.residual, rules, &self.tail].concat().replace(&self.uuid, uuid)
    }
}

impl Host<'_> {
    /// The file that a line includes, if the line does nothing else.
    fn included(&self, line: &str) -> Option<PathBuf> {
        let line = line.trim_ascii();
        let target = line.strip_prefix('#').unwrap_or(line).strip_prefix("include ")?.trim_ascii();
        if let Some(name) = target.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            // To the parser a name that begins with a slash is below this directory too.
            let path = self.directory.join(name.trim_start_matches('/'));
            return Some(path).filter(|path| path.is_file());
        }
        let path = target.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))?;
        Some(PathBuf::from(path)).filter(|path| path.is_absolute())
    }
}

fn read(path: &Path) -> Result<String, Refused> {
    const UNREADABLE: Refused = Refused::of("a file that cannot be read as text");
    let mut text = String::new();
    // A device or a pipe must not be waited for.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Err(UNREADABLE);
    }
    let file = fs::File::open(path).map_err(|_| UNREADABLE)?;
    let length = file.take(LARGEST + 1).read_to_string(&mut text).map_err(|_| UNREADABLE)?;
    if length as u64 > LARGEST { Err(UNREADABLE) } else { Ok(text) }
}

/// Whether an include of this path, if it exists, adds nothing.
fn is_nothing(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(metadata) => {
            metadata.is_dir() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
        }
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests;
