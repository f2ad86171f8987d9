//! Character devices in every role: serial, parallel, console, channel, and embedded in others
//! (smartcards, random number generators, redirection, TPM).

use aa_contract::{Access, Feature, NoteKind};

use crate::Terminals;
use crate::deriver::Deriver;
use crate::error::{Error, Refusal};
use crate::host::{Host, Kind};
use crate::seclabel;
use crate::xml::Element;

/// A serial, parallel, console or channel device. A channel on a Unix socket without a path has it
/// below the guest's own channel directory, which every guest is granted.
pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    source(deriver, device, "character device")
}

/// The host's end of a character device: `type`, `<source>`, `<log>` of `device`.
pub(crate) fn source(
    deriver: &mut Deriver<'_>,
    device: &Element<'_>,
    what: &'static str,
) -> Result<(), Error> {
    if let Some(log) = device.child("log")
        && let Some(file) = log.attr("file")
    {
        // Not for appending only: QEMU opens it so that it is made if it is missing, which AppArmor counts as writing.
        deriver.grant(log, "log file", file, Access::W)?;
    }
    let source = device.child("source");
    let place = source.unwrap_or(*device);
    if place.attr("tls") == Some("yes") {
        tls(deriver, &place)?;
    }
    if seclabel::leaves_alone(deriver, &place) {
        return Ok(());
    }
    // The old form has the path as an attribute of `tty` for a pseudo-terminal; that one is not looked at.
    let path = source.and_then(|source| source.attr("path")).filter(|path| !path.is_empty());
    let Some(kind) = device.attr("type") else {
        return Ok(());
    };
    match (kind, path) {
        ("pty", path) => {
            deriver.uses(Feature::Pty);
            match path {
                Some(path) if !path.starts_with("/dev/pts/") => {
                    let text = format!("{what} \"{path}\" gets no rule: it is no pseudo-terminal");
                    deriver.note(NoteKind::LeftOut, &place, text);
                    Ok(())
                }
                Some(path) if matches!(deriver.options.terminals, Terminals::Granted) => {
                    deriver.grant(place, what, path, Access::RW).map(drop)
                }
                _ => Ok(()),
            }
        }
        ("null" | "vc" | "stdio" | "tcp" | "udp" | "spicevmc" | "spiceport" | "qemu-vdagent" | "dbus", _) => {
            Ok(())
        }
        ("unix", Some(path)) => socket(deriver, &place, what, path),
        // QEMU only writes to a file; the letters are those of the original, so that what it allows is allowed.
        ("dev" | "file", Some(path)) => deriver.grant(place, what, path, Access::RW).map(drop),
        ("pipe", Some(path)) => pipe(deriver, &place, what, path),
        ("dev" | "file" | "pipe", None) => {
            Err(crate::domain::refuse(&place, Refusal::Incomplete { what, missing: "source path" }))
        }
        ("unix", None) => Ok(()),
        (other, _) => {
            deriver.note(
                NoteKind::UnknownElement,
                &place,
                format!("{what} of type {other} is not known here: no rule is made for it"),
            );
            Ok(())
        }
    }
}

/// A socket that QEMU makes or connects to. libvirt moves a channel's socket to the guest's own
/// directory where the XML still names one that it made for another guest or an earlier name.
fn socket(
    deriver: &mut Deriver<'_>,
    place: &Element<'_>,
    what: &'static str,
    path: &str,
) -> Result<(), Error> {
    match deriver.grant(place, what, path, Access::RW) {
        Err(error) if error.kind.is_of_another_guest() => {
            deriver.note(NoteKind::LeftOut, place, error.kind.to_string());
            Ok(())
        }
        granted => granted.map(drop),
    }
}

/// QEMU opens `PATH.in` and `PATH.out` if both are there, and `PATH` for both ways otherwise. Where
/// nothing is there yet, each of the three may come.
pub(crate) fn pipe(
    deriver: &mut Deriver<'_>,
    place: &Element<'_>,
    what: &'static str,
    path: &str,
) -> Result<(), Error> {
    let (input, output) = (format!("{path}.in"), format!("{path}.out"));
    let exists = |path: &str| deriver.host.resolve(path).is_ok_and(|resolved| resolved.kind != Kind::Missing);
    let (base, either) = (exists(path), exists(&input) || exists(&output));
    if base || !either {
        deriver.grant(place, what, path, Access::RW)?;
    }
    if either || !base {
        deriver.grant(place, what, &input, Access::RW)?;
        deriver.grant(place, what, &output, Access::RW)?;
    }
    Ok(())
}

/// Where QEMU looks for the certificates of character devices (libvirt: `qemu.conf`, `chardev_tls_x509_cert_dir`).
fn tls(deriver: &mut Deriver<'_>, place: &Element<'_>) -> Result<(), Error> {
    deriver.uses(Feature::Tls);
    for dir in ["/etc/pki/libvirt-chardev", "/etc/pki/qemu"] {
        deriver.allow_below(place, "certificates", dir, "{,**}", Access::R)?;
    }
    Ok(())
}
