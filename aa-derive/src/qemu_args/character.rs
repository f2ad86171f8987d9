//! Character devices: `-chardev`, and the short form that `-serial`, `-monitor` and others take.

use aa_contract::{Access, Feature, NoteKind};

use super::{BOTH, Context, READ, WRITE};
use crate::devices::chardev_pipe;
use crate::error::Error;

pub(super) const OPTIONS: [&str; 10] = [
    "chardev",
    "serial",
    "parallel",
    "monitor",
    "qmp",
    "qmp-pretty",
    "debugcon",
    "gdb",
    "incoming",
    "virtioconsole",
];

/// Back ends that open no file.
const WITHOUT_FILES: [&str; 15] = [
    "null",
    "none",
    "vc",
    "con",
    "ringbuf",
    "memory",
    "mux",
    "hub",
    "stdio",
    "udp",
    "spicevmc",
    "spiceport",
    "qemu-vdagent",
    "dbus",
    "msmouse",
];

const WHAT: &str = "character device";

pub(super) fn derive(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    match context.option.as_str() {
        "chardev" => chardev(context, text),
        "incoming" => incoming(context, text),
        _ => short(context, text),
    }
}

fn chardev(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let Some(mut options) = context.options(text, "backend") else { return Ok(()) };
    let backend = options.take("backend").unwrap_or_default();
    // Even where it appends QEMU asks for the file to be made, which AppArmor counts as writing.
    context.take(&mut options, "logfile", WRITE)?;
    match backend.as_str() {
        // An abstract socket has a name, and no file.
        "socket" if options.is_on("abstract") => drop(options.take("path")),
        "socket" | "serial" | "tty" | "parallel" | "parport" => context.take(&mut options, "path", BOTH)?,
        "file" => {
            context.take(&mut options, "path", WRITE)?;
            context.take(&mut options, "input-path", READ)?;
        }
        "pipe" => {
            if let Some(path) = options.take("path") {
                pipe(context, &path)?;
            }
        }
        "pty" => {
            context.deriver.uses(Feature::Pty);
            // A link of that name to the pseudo-terminal.
            context.take(&mut options, "path", super::Need::File(Access::W))?;
        }
        "braille" => context.note(
            NoteKind::NotCovered,
            "a braille display is reached over BrlAPI's socket: no rule is made for it",
        ),
        known if WITHOUT_FILES.contains(&known) => {}
        other => context.note(
            NoteKind::UnknownArgument,
            &format!("back end \"{other}\" is not known here: no rule is made for it"),
        ),
    }
    context.left(&options, &[]);
    Ok(())
}

/// A pipe in both its forms, one file or two.
fn pipe(context: &mut Context<'_, '_, '_>, path: &str) -> Result<(), Error> {
    if !context.names_a_file(path) {
        return Ok(());
    }
    let at = context.at;
    chardev_pipe(context.deriver, &at, WHAT, path)
}

/// `unix:PATH,…`, `file:PATH`, `pipe:PATH`, `/dev/…`, `tcp:…`, or the back ends without a colon.
fn short(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    let text = text.strip_prefix("mon:").unwrap_or(text);
    let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
    match scheme {
        "unix" => {
            let path = super::Options::words(rest, "path").take("path").unwrap_or_default();
            context.grant(WHAT, &path, Access::RW)
        }
        "file" => context.grant(WHAT, rest, Access::W),
        "pipe" => pipe(context, rest),
        "pty" => {
            context.deriver.uses(Feature::Pty);
            Ok(())
        }
        "chardev" | "tcp" | "telnet" | "websocket" | "tn3270" => Ok(()),
        known if WITHOUT_FILES.contains(&known) => Ok(()),
        _ if text.starts_with('/') => context.grant(WHAT, text, Access::RW),
        _ => {
            context.unknown();
            Ok(())
        }
    }
}

/// `-incoming`: where a migration or a saved state comes from.
fn incoming(context: &mut Context<'_, '_, '_>, text: &str) -> Result<(), Error> {
    const SOURCE: &str = "migration source";
    if text.starts_with('{') {
        let Some(mut options) = context.options(text, "") else { return Ok(()) };
        let unix = options.get("addr.type") == Some("unix");
        context.take(&mut options, "addr.path", if unix { BOTH } else { READ })?;
        context.take(&mut options, "addr.filename", READ)?;
        if options.get("addr.transport") == Some("exec") {
            context.note(NoteKind::NotCovered, "it runs a program: no rule is made for it");
        }
        context.left(&options, &[]);
        return Ok(());
    }
    let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
    match scheme {
        "unix" => context.grant(SOURCE, rest, Access::RW),
        "file" => {
            let path = super::Options::words(rest, "path").take("path").unwrap_or_default();
            context.grant(SOURCE, &path, Access::R)
        }
        "exec" => {
            context.note(NoteKind::NotCovered, "it runs a program: no rule is made for it");
            Ok(())
        }
        "defer" | "tcp" | "rdma" | "fd" | "vsock" => Ok(()),
        _ => {
            context.unknown();
            Ok(())
        }
    }
}
