//! aa-derive: domain XML in, rules out.

mod input;
mod sandbox;

use std::io::{self, BufWriter, LineWriter, Write};
use std::num::NonZero;
use std::thread;

use aa_contract::text::{Printable, strip_os_code};
use aa_contract::{Derived, Exit, Note};
use aa_derive::args::Args;
use aa_derive::host::Files;
use aa_derive::identity::{Identity, identify};
use aa_derive::path_policy::{self, PathPolicy};
use aa_derive::pool::Pools;
use aa_derive::{Addition, Options, Refusal, derive, is_of_a_missing_rule};
use clap::Parser;
use input::{Input, inputs};
use serde::Serialize;

/// Documents in work at once for each core: enough to keep the cores busy, few enough to keep memory flat.
const WINDOW: usize = 64;
/// Bytes of records that are written at once: as many as a pipe holds (pipe(7)), so that its reader is woken seldom.
const OUTPUT: usize = 64 << 10;

/// Most warnings for one document.
const WARNINGS: usize = 10;

fn main() -> Exit {
    let args = Args::parse();
    // Before anything is read, and before there is a second thread.
    if let Err(message) = sandbox::enter(args.require_sandbox) {
        complain(&message);
        return Exit::Host;
    }
    let mut out = BufWriter::with_capacity(OUTPUT, io::stdout().lock());
    let result = if args.print_policy {
        out.write_all(path_policy::DEFAULT.as_bytes()).map(|()| Exit::Done)
    } else {
        let host = Files::new(&args.root)
            .map_err(|error| (Exit::Host, format!("{}: {}", args.root.display(), strip_os_code(&error))));
        match options(&args).and_then(|options| Ok((options, host?))) {
            Ok((options, host)) => run(&args, &options, &host, &mut out),
            Err((exit, message)) => {
                complain(&message);
                return exit;
            }
        }
    };
    match result.and_then(|exit| out.flush().map(|()| exit)) {
        Ok(exit) => exit,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                complain(&format!("standard output: {}", strip_os_code(&error)));
            }
            Exit::Host
        }
    }
}

/// One line for people, in one write: other programs of a pipe talk there too. There is nobody to tell where even that fails.
fn complain(message: &str) {
    drop(writeln!(LineWriter::new(io::stderr().lock()), "aa-derive: {}", Printable(message)));
}

/// Says what gets no rule in a document.
fn warn(name: &str, notes: &[Note]) {
    let mut missing = notes.iter().filter(|note| is_of_a_missing_rule(note));
    for Note { line, text, .. } in missing.by_ref().take(WARNINGS) {
        let line = line.map(|line| format!("{line}:")).unwrap_or_default();
        complain(&format!("{name}:{line} warning: {text}"));
    }
    match missing.count() {
        0 => {}
        more => complain(&format!("{name}: warning: {more} more, which are in the record's notes")),
    }
}

fn options(args: &Args) -> Result<Options, (Exit, String)> {
    let policy = match &args.policy {
        None => path_policy::DEFAULT.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| (Exit::Host, format!("{}: {}", file.display(), strip_os_code(&error))))?,
    };
    let policy = PathPolicy::parse(&policy).map_err(|error| {
        let name = args.policy.as_ref().map_or("the built-in policy".into(), |file| file.to_string_lossy());
        (Exit::Refused, format!("{name}: {error}"))
    })?;
    let policy = match &args.policy {
        Some(file) => policy.of_file(file.to_string_lossy().into_owned()),
        None => policy,
    };
    let pools = Pools::load(&args.pools).map_err(|error| (error.exit(), error.to_string()))?;
    let paths = args.add.iter().map(|(path, access)| Addition::path(path.clone(), *access));
    let globs = args.add_glob.iter().map(|(glob, access)| Addition::glob(glob.clone(), *access));
    Ok(Options {
        pools,
        add: paths.chain(globs).collect(),
        probe: !args.no_probe,
        strict: args.strict,
        deny_readonly: args.deny_readonly,
        ..Options::new(policy)
    })
}

/// What became of one document.
enum Outcome {
    Record {
        /// Of the document.
        name: String,
        record: Box<Derived>,
    },
    Identity(Box<Identity>),
    /// A document of another kind in a walked directory.
    PassedOver(String),
    Refused(String),
    Unreadable(String),
}

fn run(args: &Args, options: &Options, host: &Files, out: &mut impl Write) -> io::Result<Exit> {
    let mut documents = args.inputs.iter().flat_map(|argument| inputs(argument));
    let first: Vec<_> = documents.by_ref().take(2).collect();
    // One document needs no second thread, and to learn how many cores there are means reading several files.
    let workers = if first.len() < 2 { 1 } else { thread::available_parallelism().map_or(1, NonZero::get) };
    let mut documents = first.into_iter().chain(documents);
    let mut exit = Exit::Done;
    loop {
        let batch: Vec<io::Result<Input>> = documents.by_ref().take(workers * WINDOW).collect();
        if batch.is_empty() {
            return Ok(exit);
        }
        for outcome in outcomes(&batch, workers, args.identify, options, host) {
            let status = match outcome {
                Outcome::Record { name, record } => {
                    if !args.quiet {
                        warn(&name, record.notes());
                    }
                    write_record(out, &record, args.pretty)?;
                    Exit::Done
                }
                Outcome::Identity(identity) => {
                    write_record(out, &identity, args.pretty)?;
                    Exit::Done
                }
                Outcome::PassedOver(message) => {
                    complain(&message);
                    Exit::Done
                }
                Outcome::Refused(message) => {
                    complain(&message);
                    Exit::Refused
                }
                Outcome::Unreadable(message) => {
                    complain(&message);
                    Exit::Host
                }
            };
            exit = exit.max(status);
        }
    }
}

/// Works on a batch with all cores; the outcomes are in the batch's order.
fn outcomes(
    batch: &[io::Result<Input>],
    workers: usize,
    identifies: bool,
    options: &Options,
    host: &Files,
) -> Vec<Outcome> {
    if batch.len() == 1 {
        return batch.iter().map(|input| one(input, identifies, options, host)).collect();
    }
    let share = batch.len().div_ceil(workers).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = batch
            .chunks(share)
            .map(|chunk| {
                scope.spawn(move || {
                    chunk.iter().map(|input| one(input, identifies, options, host)).collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn one(input: &io::Result<Input>, identifies: bool, options: &Options, host: &Files) -> Outcome {
    let input = match input {
        Ok(input) => input,
        Err(error) => return Outcome::Unreadable(error.to_string()),
    };
    let name = input.name();
    let bytes = match input.read() {
        Ok(bytes) => bytes,
        Err(error) => return Outcome::Unreadable(format!("{name}: {}", strip_os_code(&error))),
    };
    let outcome = if identifies {
        identify(&bytes).map(|identity| Outcome::Identity(Box::new(identity)))
    } else {
        let record = derive(&bytes, options, host);
        record.map(|record| Outcome::Record { name: name.clone(), record: Box::new(record) })
    };
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => match (&error.kind, input) {
            (Refusal::NotDomain(root), Input::Found(_)) => {
                Outcome::PassedOver(format!("{name}: passed over: its root element is <{root}>"))
            }
            _ if error.pos.is_none() => Outcome::Refused(format!("{name}: {error}")),
            _ => Outcome::Refused(format!("{name}:{error}")),
        },
    }
}

fn write_record(out: &mut impl Write, record: &impl Serialize, pretty: bool) -> io::Result<()> {
    if pretty {
        serde_json::to_writer_pretty(&mut *out, record)?;
    } else {
        serde_json::to_writer(&mut *out, record)?;
    }
    out.write_all(b"\n")
}
