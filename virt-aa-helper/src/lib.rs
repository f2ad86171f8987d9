//! The helper that libvirtd runs to change the profile of a guest, over the libraries of this project.
//!
//! [`run`] does one call. What the original promises is kept: options, exit statuses, names and places of the
//! files, what a dry run prints. What it gets wrong is not: a call either does all it was asked or leaves the
//! files as they were, and the kernel's policy too unless the parser failed over it; and two calls at once lose nothing.

pub mod appended;
pub mod args;
pub mod dry_run;
pub mod error;
pub mod extra;
pub mod guest;
pub mod host;
pub mod memory;
pub mod plan;
pub mod plugged;

use std::io::{ErrorKind, Read, Write};

use aa_contract::ProfileName;
use aa_contract::text::Printable;
use aa_load::error::ParserError;
use aa_load::parser::{Action, Parser};
use aa_render::template::Source;
use aa_render::{Contents, Locked, Part, Renderer, Settings, Store, Sync};

pub use args::{Args, Mode};
pub use error::Error;
pub use host::Host;

use guest::Guest;

/// Does one call; `input` is the domain's XML, `diagnostics` is for people. Answers with what belongs on
/// standard output, which is the help or nothing.
///
/// # Errors
/// [`Error`]: the call was refused or failed.
pub fn run(
    args: &Args,
    host: &Host,
    input: &mut dyn Read,
    diagnostics: &mut dyn Write,
) -> Result<String, Error> {
    if args.mode == Mode::Help {
        return Ok(args::USAGE.to_owned());
    }
    let profile: ProfileName = args.name.as_deref().and_then(|name| name.parse().ok()).ok_or(Error::Name)?;
    let call = Call { host, profile };
    if !matches!(args.mode, Mode::Create | Mode::Replace) {
        call.as_it_is(args.mode, args.dry_run)?;
        return Ok(String::new());
    }
    let guest = Guest::read(host, profile, input)?;
    warn(&guest, diagnostics)?;
    if args.dry_run {
        let text = call.preview(args, &guest)?;
        diagnostics.write_all(text.as_bytes()).map_err(Error::Output)?;
    } else {
        call.change(args, &guest)?;
    }
    Ok(String::new())
}

/// Says what a person should know. libvirtd copies it to its log.
fn warn(guest: &Guest, diagnostics: &mut dyn Write) -> Result<(), Error> {
    for warning in &guest.warnings {
        writeln!(diagnostics, "virt-aa-helper: warning: {}", Printable(warning)).map_err(Error::Output)?;
    }
    for note in guest.derived.notes() {
        let line = note.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        writeln!(diagnostics, "virt-aa-helper: warning: {line}{}", Printable(&note.text))
            .map_err(Error::Output)?;
    }
    Ok(())
}

/// One call for one profile.
struct Call<'a> {
    host: &'a Host,
    profile: ProfileName,
}

impl Call<'_> {
    fn renderer(&self) -> Renderer {
        Renderer::new(self.host.layout.clone(), Source::Host, Settings::default())
    }

    /// What a dry run shows; it takes no lock, since that would leave a file behind.
    fn preview(&self, args: &Args, guest: &Guest) -> Result<String, Error> {
        let old = Store::look(&self.host.layout)?.read(self.profile)?;
        let creates = args.mode == Mode::Create;
        if creates && old.base.is_some() {
            return Err(Error::Exists(self.profile));
        }
        let plan = plan::plan(&old, guest, args.extra.as_ref(), &self.renderer())?;
        Ok(dry_run::text(&plan, self.profile, &self.host.layout, creates))
    }

    /// `-c` and `-r`.
    fn change(&self, args: &Args, guest: &Guest) -> Result<(), Error> {
        let parser = self.host.parser()?;
        let store = Store::open(&self.host.layout, self.sync())?;
        let locked = self.lock(&store)?;
        let old = locked.read()?;
        match (args.mode, &old.base) {
            (Mode::Create, Some(_)) => return Err(Error::Exists(self.profile)),
            (Mode::Create, None) | (_, Some(_)) => {}
            (_, None) => return Err(Error::NoProfile(self.profile)),
        }
        let plan = plan::plan(&old, guest, args.extra.as_ref(), &self.renderer())?;
        if plan.adds_nothing && memory::is_loaded(&old, self.profile) {
            return Ok(());
        }
        self.put_in_force(&parser, &locked, &old, &plan.contents)
    }

    /// Writes the files and loads them; if that fails, puts the old files back. Whether those are what is in force,
    /// nobody knows of a parser that failed: the next call loads them again.
    fn put_in_force(
        &self,
        parser: &Parser,
        locked: &Locked<'_>,
        old: &Contents,
        new: &Contents,
    ) -> Result<(), Error> {
        let base = self.host.layout.path(self.profile, Part::Base)?;
        locked.write(old, new)?;
        // Also where there was no file: a crash may have left the profile in the kernel.
        if let Err(failure) = parser.load_file(Action::Replace, base.as_ref()) {
            return Err(match locked.write(new, &memory::noting(old, None)) {
                Ok(()) => failure.into(),
                Err(restore) => Error::NotRestored { failure, restore },
            });
        }
        // Without this note the next call loads once more than it must, nothing worse.
        drop(locked.write(new, &memory::noting(new, memory::sum(new, self.profile))));
        Ok(())
    }

    /// `-a`, `-R` and `-D`: the modes that look at no XML.
    fn as_it_is(&self, mode: Mode, dry_run: bool) -> Result<(), Error> {
        if Store::look(&self.host.layout)?.read(self.profile)?.base.is_none() {
            return Err(Error::NoProfile(self.profile));
        }
        if dry_run {
            return Ok(());
        }
        let parser = self.host.parser()?;
        let store = Store::open(&self.host.layout, self.sync())?;
        let locked = self.lock(&store)?;
        let old = locked.read()?;
        if mode == Mode::Add {
            let base = self.host.layout.path(self.profile, Part::Base)?;
            return Ok(parser.load_file(Action::Add, base.as_ref())?);
        }
        // First, so that a crash leaves no note of what is gone.
        let unloaded = memory::noting(&old, None);
        let old = match locked.write(&old, &unloaded) {
            Ok(()) => unloaded,
            // The file goes, and its note with it; a full disk is no reason to keep the profile loaded.
            Err(_) if mode == Mode::Delete => old,
            Err(error) => return Err(error.into()),
        };
        unload(&parser, self.profile)?;
        if mode == Mode::Delete {
            locked.write(&old, &Contents { rules: None, ..old.clone() })?;
        }
        Ok(())
    }

    fn sync(&self) -> Sync {
        if self.host.is_caged() { Sync::FilesOnly } else { Sync::IfPermitted }
    }

    /// The profile's lock, as much of it as the system permits.
    fn lock<'s>(&self, store: &'s Store) -> Result<Locked<'s>, Error> {
        if !self.host.is_caged() {
            match store.lock(self.profile) {
                Err(aa_render::Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
                locked => return Ok(locked?),
            }
        }
        Ok(store.lock_without_file(self.profile)?)
    }
}

/// Unloads the profile. One that is not there is as it should be: parsers tell that by ENOENT (status 254),
/// and by EINVAL (status 234), which for an empty profile that is named and nothing else has no other sense.
fn unload(parser: &Parser, profile: ProfileName) -> Result<(), ParserError> {
    match parser.remove(profile) {
        Err(ParserError::NotLoaded) => Ok(()),
        Err(ParserError::Kernel { meaning, .. }) if meaning.starts_with("EINVAL") => Ok(()),
        other => other,
    }
}
