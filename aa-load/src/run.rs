//! Each verb: what goes in, what comes out, and with which status.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, LineWriter, Write};
use std::time::Duration;

use aa_contract::record::to_line;
use aa_contract::text::strip_os_code;
use aa_contract::{Exit, Loaded, ProfileName};
use aa_load::operands::{self, Item};
use aa_load::status::{self, Found};
use aa_load::{Cache, Error, InUse, Kernel, Loader, Locks, Options, Place, Profile};
use aa_load::{batch, doctor, gc, parameters, remove, tasks, verify, wanted};
use clap::ValueEnum;

use aa_load::args::{Args, Verb};

use crate::progress::Progress;

/// Does what the command line says.
pub(crate) fn run(mut args: Args) -> Exit {
    let verb = match args.operands.first().and_then(|word| Verb::from_str(word, false).ok()) {
        Some(verb) => {
            args.operands.remove(0);
            verb
        }
        None => Verb::Replace,
    };
    let mut out = Output { exit: Exit::Done, progress: Progress::new(io::stderr(), &args), closed: false };
    if let Some(option) = args.misplaced(verb) {
        out.usage(&format!("{option} does not go with {}", verb.name()));
        return out.exit;
    }
    if !args.operands.is_empty() && matches!(verb, Verb::Gc | Verb::Doctor) {
        out.usage(&format!("{} is of the whole host, and takes no names", verb.name()));
        return out.exit;
    }
    let done = match verb {
        Verb::Add | Verb::Replace => load(&args, verb, &mut out),
        Verb::Remove => remove_all(&args, &mut out),
        Verb::Status => show_status(&args, &mut out),
        Verb::Verify => verify_all(&args, &mut out),
        Verb::Gc => collect(&args, &mut out),
        Verb::Doctor => {
            examine(&args, &mut out);
            Ok(())
        }
    };
    if let Err(error) = done {
        out.error(&Place::Host, &error);
    }
    if out.progress.end().is_err() {
        out.exit = Exit::Host;
    }
    out.exit
}

/// The two streams and the status so far.
struct Output {
    exit: Exit,
    progress: Progress<LineWriter<io::Stderr>>,
    /// Whoever reads standard output has gone.
    closed: bool,
}

impl Output {
    fn error(&mut self, place: &Place, error: &Error) {
        self.exit = self.exit.max(error.exit());
        self.note(&format!("{place}{error}"));
    }

    /// What is wrong with the call.
    fn usage(&mut self, text: &str) {
        self.note(text);
        self.exit = Exit::Usage;
    }

    /// A line for people.
    fn note(&mut self, text: &str) {
        if self.progress.line(&format!("aa-load: {text}")).is_err() {
            self.exit = Exit::Host;
        }
    }

    /// Writes data whole. Says whether anybody still reads.
    fn data(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> bool {
        let mut bytes = Vec::new();
        let mut out = io::stdout().lock();
        match write(&mut bytes).and_then(|()| out.write_all(&bytes)).and_then(|()| out.flush()) {
            Ok(()) => true,
            Err(error) => {
                self.exit = Exit::Host;
                self.closed = true;
                if error.kind() != io::ErrorKind::BrokenPipe {
                    self.note(&format!("standard output: {}", strip_os_code(&error)));
                }
                false
            }
        }
    }

    /// Writes one result: a record, or an error. Says whether to go on.
    fn result(&mut self, place: &Place, result: Result<Loaded, Error>) -> bool {
        if let Err(Error::Stale { loaded, .. }) = &result
            && let Ok(line) = to_line(loaded)
            && !self.data(|out| out.write_all(line.as_bytes()))
        {
            return false;
        }
        let done = result.as_ref().ok().map(|record| record.action);
        // What is said of it comes first, so that the line that is written over is the last.
        let go_on = match result.and_then(|record| Ok(to_line(&record)?)) {
            Ok(line) => self.data(|out| out.write_all(line.as_bytes())),
            Err(error) => {
                self.error(place, &error);
                true
            }
        };
        if self.progress.count(done).is_err() {
            self.exit = Exit::Host;
        }
        go_on
    }
}

fn options(args: &Args) -> Options {
    Options {
        parser: args.parser.clone(),
        base: args.base.clone(),
        include: args.include.clone(),
        cache: Some(args.cache_dir.clone()).filter(|_| !args.no_cache),
        policy_features: args.policy_features.clone(),
        kernel_features: args.kernel_features.clone(),
        securityfs: args.securityfs.clone(),
        proc: args.proc.clone(),
        dry_run: args.dry_run,
        time: Duration::from_secs(args.timeout),
        merge: args.merge,
    }
}

fn jobs(args: &Args) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    // One thing to do needs no threads.
    if args.operands.len() == 1
        && args.operands.first().is_some_and(|word| word != "-")
        && args.jobs.is_none()
    {
        let named = args.operands.first().is_some_and(|word| word.parse::<ProfileName>().is_ok());
        return if named { 1 } else { cores() };
    }
    args.jobs.map_or_else(cores, usize::from)
}

fn load(args: &Args, verb: Verb, out: &mut Output) -> Result<(), Error> {
    let loader = Loader::new(&options(args))?;
    if let Some(problem) = loader.cache_problem() {
        out.note(&format!("{}: no cache is used: {problem}", args.cache_dir.display()));
    }
    let items = operands::items(&args.operands, &args.dir);
    if args.direct {
        load_set(args, &loader, items, out);
        tell_refused(args, &loader, out);
    } else {
        let work = |(place, profile): Item| {
            let result = profile.and_then(|profile| match verb {
                Verb::Add => loader.add(&profile),
                _ => loader.replace(&profile),
            });
            (place, result)
        };
        batch::ordered(jobs(args), items, work, |(place, result)| {
            tell_refused(args, &loader, out);
            out.result(&place, result)
        });
    }
    Ok(())
}

/// Says which profiles were compiled whole though they were to be merged.
fn tell_refused(args: &Args, loader: &Loader, out: &mut Output) {
    for (profile, refused) in loader.take_refused() {
        if args.verbose {
            out.note(&format!("{profile}: compiled whole: {refused}"));
        }
    }
}

fn load_set(args: &Args, loader: &Loader, items: impl Iterator<Item = Item>, out: &mut Output) {
    let mut profiles: Vec<Profile> = Vec::new();
    for (place, item) in items {
        match item {
            Ok(profile) => profiles.push(profile),
            Err(error) => {
                out.result(&place, Err(error));
            }
        }
    }
    for (profile, result) in profiles.iter().zip(loader.replace_direct(&profiles, jobs(args))) {
        if !out.result(&Place::Profile(profile.name), result) {
            break;
        }
    }
}

fn remove_all(args: &Args, out: &mut Output) -> Result<(), Error> {
    let kernel = Kernel::open(&args.securityfs)?;
    let in_use = if args.force { InUse::Force } else { InUse::Refuse };
    let cache = if args.no_cache || args.dry_run { None } else { Cache::open(&args.cache_dir).ok() };
    for (place, item) in operands::items(&args.operands, &args.dir) {
        let result = item.and_then(|profile| {
            let _locks = if args.dry_run {
                Locks::default()
            } else {
                Locks::to_remove(&profile, &args.dir, cache.as_ref())?
            };
            remove(&kernel, &args.proc, profile.name, in_use, args.dry_run)
        });
        if !out.result(&place, result) {
            break;
        }
    }
    Ok(())
}

/// The operands of a verb that takes names only.
fn names(args: &Args, out: &mut Output) -> BTreeSet<ProfileName> {
    let mut names = BTreeSet::new();
    for operand in &args.operands {
        if operand == "-" || operand.parse::<ProfileName>().is_err() {
            for (place, item) in operands::items(std::slice::from_ref(operand), &args.dir) {
                match item {
                    Ok(profile) => {
                        names.insert(profile.name);
                    }
                    Err(error) => out.error(&place, &error),
                }
            }
        } else if let Ok(name) = operand.parse() {
            names.insert(name);
        }
    }
    names
}

fn find(args: &Args, kernel: &Kernel) -> Result<Found, Error> {
    let (on_disk, grants) = status::on_disk(&args.dir)?;
    // The two places with most files, at the same time.
    let (loaded, tasks) = std::thread::scope(|scope| {
        let loaded = std::thread::Builder::new().spawn_scoped(scope, || kernel.list());
        let tasks = tasks::scan(kernel, &args.proc);
        let loaded = match loaded {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => kernel.list(),
        };
        (loaded, tasks)
    });
    Ok(Found { on_disk, grants, loaded: loaded?, tasks: tasks?, ..Found::default() })
}

fn show_status(args: &Args, out: &mut Output) -> Result<(), Error> {
    let only = names(args, out);
    if !args.operands.is_empty() && only.is_empty() {
        return Ok(());
    }
    let mut found = find(args, &Kernel::open(&args.securityfs)?)?;
    match wanted::read(&args.definitions) {
        Ok(wanted) => {
            found.running = wanted.processes(&args.proc)?;
            found.wanted = Some(wanted);
        }
        Err(error) => out.note(&format!("cannot tell which guests are wanted: {error}")),
    }
    found.mode = parameters::mode(&args.parameters).ok();
    let rows = status::rows(&found, &only);
    out.data(|mut out| {
        if args.json {
            for row in &rows {
                serde_json::to_writer(&mut out, row)?;
                out.write_all(b"\n")?;
            }
            Ok(())
        } else {
            status::table(&rows, &mut out)
        }
    });
    Ok(())
}

fn verify_all(args: &Args, out: &mut Output) -> Result<(), Error> {
    let mut names = names(args, out);
    let mut found = find(args, &Kernel::open(&args.securityfs)?)?;
    found.running = wanted::read_what_is_there(&args.definitions)?.processes(&args.proc)?;
    found.mode = Some(parameters::mode(&args.parameters)?);
    let running = verify::Running::look(&args.proc)?;
    if args.operands.is_empty() {
        // A directory that is not there has no profiles, or was mistyped.
        fs::read_dir(&args.dir).map_err(|source| Error::Host { path: args.dir.clone(), source })?;
        names = verify::all(&found, &running);
    }
    for name in names {
        if !out.result(&Place::Profile(name), verify::verify(name, &found, &running, &args.proc)) {
            break;
        }
    }
    Ok(())
}

fn collect(args: &Args, out: &mut Output) -> Result<(), Error> {
    let kernel = Kernel::open(&args.securityfs)?;
    let open = if args.dry_run { Cache::look } else { Cache::open };
    let cache = if args.no_cache { None } else { open(&args.cache_dir).ok() };
    let sweep = gc::Sweep {
        kernel: &kernel,
        proc: &args.proc,
        definitions: &args.definitions,
        directory: &args.dir,
        cache: cache.as_ref(),
        min_age: args.min_age.map_or(gc::MIN_AGE, Duration::from_secs),
    };
    let needed = sweep.needed()?;
    for garbage in sweep.plan(&needed)? {
        let gone = if args.dry_run { Ok(garbage.would_be_gone()) } else { sweep.remove(&garbage) };
        if !tell_gone(args, &Place::Profile(garbage.profile), gone, out) {
            return Ok(());
        }
    }
    if !args.dry_run {
        sweep.forget(&needed);
    }
    Ok(())
}

/// Says what became of one guest's garbage, and whether to go on.
fn tell_gone(args: &Args, place: &Place, gone: Result<gc::Gone, Error>, out: &mut Output) -> bool {
    let gone = match gone {
        Ok(gone) => gone,
        Err(error) => return out.result(place, Err(error)),
    };
    let go_on = gone.removed.is_none_or(|removed| out.result(place, Ok(removed)));
    for file in &gone.files {
        let verb = if args.dry_run { "would remove" } else { "removes" };
        out.note(&format!("{place}{verb} {}", file.display()));
    }
    if let Some(error) = &gone.error {
        out.error(place, error);
    }
    go_on
}

fn examine(args: &Args, out: &mut Output) {
    let path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect());
    let paths = doctor::Paths {
        parameters: args.parameters.clone(),
        search: path.unwrap_or_default(),
        profiles: args.dir.clone(),
    };
    let report = doctor::examine(&options(args), &paths);
    out.data(|mut out| {
        if args.json {
            serde_json::to_writer(&mut out, &report)?;
            out.write_all(b"\n")
        } else {
            doctor::table(&report, &mut out)
        }
    });
    if !report.ok {
        out.exit = Exit::Host;
    }
}
