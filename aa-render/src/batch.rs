//! Records in, files and records out: one at a time, in constant memory.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use aa_contract::record::{RecordError, parse_line, to_line};
use aa_contract::text::{Printable, strip_os_code};
use aa_contract::{Derived, DomainName, Exit, LiteralPath, Mode, ProfileName, Target};

use crate::args::Args;
use crate::diff::unified;
use crate::error::Error;
use crate::grants::Change;
use crate::layout::{DROP_IN_FOR_ALL, Layout, Part, file_name};
use crate::profile_text::ProfileText;
use crate::render::{Renderer, Settings};
use crate::store::{Contents, Store, Sync};
use crate::template::Source;

/// Longest record, in bytes: far above what 10 MiB of domain XML, libvirt's limit, can ask for.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// What is printed for each profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// The record, after the files are written.
    Written,
    /// The record, as if they were.
    DryRun,
    /// The difference.
    Diff,
    /// The profile itself.
    Standalone,
}

/// The output can no longer be written; nothing more is done.
struct Closed(io::Error);

/// What became of one profile.
type Outcome = Result<String, Error>;

/// One run of the program.
struct Batch<'a> {
    renderer: Renderer,
    /// Absent where nothing on disk is looked at.
    store: Option<Rc<Store>>,
    output: Output,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    exit: Exit,
    /// Statements that an earlier profile of the same output already has at its head.
    seen: BTreeSet<String>,
    /// The guest that each profile of this run is for: two guests must never share one.
    guests: HashMap<ProfileName, DomainName>,
}

/// Does what the command line says.
pub fn run(args: Args, stdin: &mut dyn Read, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Exit {
    let output = match (args.stdout, args.diff, args.dry_run) {
        (true, ..) => Output::Standalone,
        (_, true, _) => Output::Diff,
        (_, _, true) => Output::DryRun,
        _ => Output::Written,
    };
    let layout = match Layout::new(&args.dir, &args.base) {
        Ok(layout) => layout,
        Err(error) => return fail(stderr, &error),
    };
    let store = match output {
        Output::Standalone => Ok(None),
        Output::Diff | Output::DryRun => Store::look(&layout).map(Rc::new).map(Some),
        Output::Written => Store::open(&layout, Sync::Required).map(Rc::new).map(Some),
    };
    let store = match store {
        Ok(store) => store,
        Err(error) => return fail(stderr, &error),
    };
    let mode = match (args.complain, args.enforce) {
        (true, _) => Some(Mode::Complain),
        (_, true) => Some(Mode::Enforce),
        _ => None,
    };
    let settings = Settings { append: args.append, mode, renew: args.renew, minimal: args.minimal };
    let source = args.template_dir.map_or(Source::Host, Source::Given);
    let renderer = Renderer::new(layout, source, settings);
    let mut batch = Batch {
        renderer,
        store,
        output,
        stdout,
        stderr,
        exit: Exit::Done,
        seen: BTreeSet::new(),
        guests: HashMap::new(),
    };
    let profile = args.profile.or(args.uuid.map(ProfileName::new));
    let access = args.add.as_ref().map(|(_, access)| *access);
    let path = args.add.map(|(path, _)| path).or(args.drop);
    let done = match (path, profile) {
        (Some(path), Some(profile)) => batch.grant(&path, access.zip(args.reason), profile),
        _ if args.input.is_empty() => batch.read(stdin, "stdin"),
        _ => batch.read_files(&args.input, stdin),
    };
    match done {
        Ok(()) => batch.exit,
        Err(Closed(error)) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                batch.report(&format_args!("stdout: write: {}", strip_os_code(&error)), Exit::Host);
            }
            Exit::Host
        }
    }
}

fn fail(stderr: &mut dyn Write, error: &Error) -> Exit {
    // There is no other place to report a failure of standard error to.
    let _ = writeln!(stderr, "aa-render: {error}");
    error.exit()
}

impl Batch<'_> {
    fn read_files(&mut self, files: &[PathBuf], stdin: &mut dyn Read) -> Result<(), Closed> {
        for path in files {
            if path == Path::new("-") {
                self.read(stdin, "stdin")?;
                continue;
            }
            let place = path.to_string_lossy();
            match File::open(path) {
                Ok(mut file) => self.read(&mut file, &place)?,
                Err(error) => self.host_failure(&place, &error),
            }
        }
        Ok(())
    }

    /// Serves one input, line by line.
    fn read(&mut self, input: &mut dyn Read, place: &str) -> Result<(), Closed> {
        let mut input = BufReader::with_capacity(64 * 1024, input);
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            match input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.host_failure(place, &error);
                    break;
                }
            }
            let place = format!("{}:{number}", Printable(place));
            if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
                self.report(
                    &format_args!("{place}: longer than 64 MiB; the rest of it is not read"),
                    Exit::Refused,
                );
                break;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            match parse(text) {
                Ok(record) => self.serve(&record, &place)?,
                Err((column, reason)) => {
                    self.report(&format_args!("{place}:{column}: {reason}"), Exit::Refused);
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self, record: &Derived, place: &str) -> Result<(), Closed> {
        let profile = record.profile();
        let name = &record.domain().name;
        let is_second = self.guests.contains_key(&profile);
        let owner = self.guests.entry(profile).or_insert_with(|| name.clone());
        if owner != name {
            let message = format!(
                "{place}: {profile} is already the profile of domain \"{}\" in this run, and would be that of \"{}\" too",
                Printable(owner.as_str()),
                Printable(name.as_str())
            );
            self.report(&message, Exit::Refused);
            return Ok(());
        }
        if is_second && self.output == Output::Standalone {
            self.report(&format_args!("{place}: {profile} is in this output already"), Exit::Refused);
            return Ok(());
        }
        let outcome = match self.store.clone() {
            None => self.renderer.standalone(record).map(|text| self.without_seen_head(&text, profile)),
            Some(store) => self.change(&store, profile, |renderer, old| renderer.plan(old, record)),
        };
        self.finish(outcome, &format!("{place}: {profile}"))
    }

    fn grant(
        &mut self,
        path: &str,
        added: Option<(aa_contract::Access, aa_contract::Reason)>,
        profile: ProfileName,
    ) -> Result<(), Closed> {
        let option = if added.is_some() { "--add" } else { "--drop" };
        let target = match LiteralPath::new(path) {
            Ok(path) => Target::Path(path),
            Err(error) => {
                self.report(&format_args!("{option}: {error}"), Exit::Refused);
                return Ok(());
            }
        };
        let change = match added {
            Some((access, reason)) => Change::Add { target, access, reason },
            None => Change::Drop { target },
        };
        if let Change::Add { target: Target::Path(path), .. } = &change
            && let Some(end) = end_of_links(path.as_ref())
        {
            let (path, end) = (Printable(path.as_str()), end.to_string_lossy().into_owned());
            self.say(&format_args!("{option}: {profile}: warning: \"{path}\" is reached by a link; a profile is asked for \"{}\", which is not granted by it", Printable(&end)));
        }
        let Some(store) = self.store.clone() else { return Ok(()) };
        let outcome =
            self.change(&store, profile, |renderer, old| renderer.plan_grant(old, profile, &change));
        self.finish(outcome, &format!("{option}: {profile}"))
    }

    /// Prints what was made, or why nothing was.
    fn finish(&mut self, outcome: Outcome, place: &str) -> Result<(), Closed> {
        match outcome {
            Ok(text) => {
                self.stdout.write_all(text.as_bytes()).and_then(|()| self.stdout.flush()).map_err(Closed)
            }
            Err(error) => {
                self.report(&format_args!("{place}: {error}"), error.exit());
                Ok(())
            }
        }
    }

    /// Reads, plans and, unless this only looks, writes. Gives what is to be printed.
    fn change(
        &mut self,
        store: &Store,
        profile: ProfileName,
        plan: impl FnOnce(&Renderer, &Contents) -> Result<Contents, Error>,
    ) -> Outcome {
        let locked = if self.output == Output::Written { Some(store.lock(profile)?) } else { None };
        let old = store.read(profile)?;
        let new = plan(&self.renderer, &old)?;
        let rules = file_name(profile, Part::Rules);
        if new.base.is_some() && !self.renderer.base_includes(&new, profile, &rules) {
            let path = self.renderer.layout().path(profile, Part::Base)?;
            let path = Printable(path.as_str());
            self.say(&format_args!("{path}: warning: it does not include the rules file, so no rule is in force; --renew makes it anew"));
        }
        for path in self.renderer.denied_grants(&new, profile)? {
            self.say(&format_args!(
                "{profile}: warning: what was granted of \"{}\" is denied by a rule of the guest",
                Printable(&path)
            ));
        }
        if let Some(locked) = locked {
            locked.write(&old, &new)?;
        }
        if self.output == Output::Diff {
            return self.difference(profile, &old, &new);
        }
        if new.base.is_none() || new.rules.is_none() {
            // Granted while the guest has no rules, never had any or is stopped: there is nothing to load.
            let waits = if new.base.is_none() {
                "there is no such profile; what is granted waits until one is made"
            } else {
                "the guest has no rules now; what is granted waits until it is started"
            };
            self.say(&format_args!("{profile}: {waits}"));
            return Ok(String::new());
        }
        let record = self.renderer.rendered(profile, new.changes_policy(&old))?;
        Ok(to_line(&record).unwrap_or_default())
    }

    /// The unified diff of each file, and the additions that the new profile takes in besides.
    fn difference(&self, profile: ProfileName, old: &Contents, new: &Contents) -> Outcome {
        let layout = self.renderer.layout();
        let mut out = String::new();
        for ((part, before), (_, after)) in old.parts().into_iter().zip(new.parts()).rev() {
            let path = layout.path(profile, part)?;
            out += &unified(&Printable(path.as_str()).to_string(), before, after);
        }
        let own = file_name(profile, Part::DropIn);
        for name in [own.as_str(), DROP_IN_FOR_ALL] {
            if !self.renderer.base_includes(new, profile, name) {
                continue;
            }
            for file in drop_ins(&layout.dir().join(name))? {
                for piece in ["Drop-in: ", &Printable(&file.to_string_lossy()).to_string(), "\n"] {
                    out.push_str(piece);
                }
            }
        }
        Ok(out)
    }

    /// The profile without what the output already has at a head: a second `tunables/global` is an error for the
    /// parser, and `abi` may stand behind no profile.
    fn without_seen_head(&mut self, text: &str, profile: ProfileName) -> String {
        let parsed = ProfileText::parse(text, &profile.to_string());
        let (head, body) = text.split_at(parsed.map_or(0, |parsed| parsed.declaration().start));
        let is_statement =
            |line: &str| ["include", "#include", "abi", "@{"].iter().any(|word| line.starts_with(word));
        let mut out = String::with_capacity(text.len());
        for line in head.split_inclusive('\n') {
            if !is_statement(line.trim()) || self.seen.insert(line.trim().to_owned()) {
                out.push_str(line);
            }
        }
        out + body
    }

    fn host_failure(&mut self, place: &str, error: &io::Error) {
        let text = format!("{}: read: {}", Printable(place), strip_os_code(error));
        self.report(&text, Exit::Host);
    }

    fn report(&mut self, message: &dyn Display, exit: Exit) {
        self.say(message);
        self.exit = self.exit.max(exit);
    }

    fn say(&mut self, message: &dyn Display) {
        // There is no other place to report a failure of standard error to.
        let _ = writeln!(self.stderr, "aa-render: {message}");
    }
}

/// Where the links on the way to a path lead, if there are any: the kernel asks a profile for the end of them. What does
/// not exist yet counts as it is written, as far as it does not.
fn end_of_links(path: &Path) -> Option<PathBuf> {
    let (mut end, mut rest) = (path.to_owned(), Vec::new());
    let existing = loop {
        match end.canonicalize() {
            Ok(existing) => break existing,
            // A link that leads to nothing yet.
            Err(_) if end.is_symlink() => {
                let to = fs::read_link(&end).ok()?;
                break end.parent()?.join(to);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rest.push(end.file_name()?.to_owned());
                end.pop();
            }
            // Whoever may not look need not be told.
            Err(_) => return None,
        }
    };
    let resolved = rest.iter().rev().fold(existing, |dir, name| dir.join(name));
    (resolved != path).then_some(resolved)
}

/// One record, or the column and the reason.
fn parse(line: &[u8]) -> Result<Derived, (usize, String)> {
    let text =
        std::str::from_utf8(line).map_err(|error| (error.valid_up_to() + 1, "not UTF-8".to_owned()))?;
    parse_line(text).map_err(|error| {
        let RecordError::Json(json) = &error;
        let place = format!(" at line {} column {}", json.line(), json.column());
        let reason = json.to_string();
        let reason = reason.strip_suffix(place.as_str()).unwrap_or(&reason);
        (json.column().max(1), format!("not a record: {}", Printable(reason)))
    })
}

/// Ends of file names that the parser passes over in a directory: what package managers and editors leave
/// (apparmor.d(5), «Include mechanism»; `tests/it/parser.rs` asks the parser itself).
const PASSED_OVER: [&str; 12] = [
    "~",
    ".dpkg-new",
    ".dpkg-old",
    ".dpkg-dist",
    ".dpkg-bak",
    ".dpkg-remove",
    ".pacsave",
    ".pacnew",
    ".rpmnew",
    ".rpmsave",
    ".orig",
    ".rej",
];

/// The files of a drop-in directory that the parser reads, sorted; or the file that stands in its place.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let io = |source| Error::Io { path: dir.to_owned(), doing: "read", source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(vec![dir.to_owned()]),
        Err(error) => return Err(io(error)),
    };
    let mut files =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(io)?;
    files.retain(|file| is_read(file));
    files.sort_unstable();
    Ok(files)
}

fn is_read(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    let is_passed_over = name.starts_with(b".")
        || name == b"README"
        || PASSED_OVER.iter().any(|end| name.ends_with(end.as_bytes()));
    !is_passed_over && file.is_file()
}
