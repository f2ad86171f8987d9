//! Audio backends (libvirt: `formatdomain`, «Audio backends»).

use aa_contract::{Access, Feature, NoteKind};

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

/// The device that OSS uses unless told otherwise.
const OSS: &str = "/dev/dsp";

pub(crate) fn derive(deriver: &mut Deriver<'_>, device: &Element<'_>) -> Result<(), Error> {
    match device.attr("type") {
        Some("none" | "spice" | "sdl" | "coreaudio" | "dbus") => Ok(()),
        Some("file") => match device.attr("path") {
            Some(path) if path.starts_with('/') => {
                deriver.grant(device, "audio file", path, Access::RW).map(drop)
            }
            Some(path) => {
                deriver.note(
                    NoteKind::NotCovered,
                    device,
                    format!("audio file \"{path}\" is relative: no rule is made for it"),
                );
                Ok(())
            }
            None => Ok(()),
        },
        Some("oss") => {
            deriver.uses(Feature::Sound);
            for end in ["input", "output"] {
                match device.child(end).and_then(|end| Some((end, end.attr("dev")?))) {
                    Some((end, path)) => deriver.grant(end, "audio device", path, Access::RW).map(drop)?,
                    None => deriver.allow(device, "audio device", OSS, Access::RW)?,
                }
            }
            Ok(())
        }
        Some("alsa") => {
            deriver.uses(Feature::Sound);
            Ok(())
        }
        Some("jack") => {
            deriver.uses(Feature::Sound);
            // Its sockets carry the id of the user whom QEMU runs as, its shared memory is that of all its clients.
            let text = "where JACK has its sockets and shared memory is not known: no rule is made for them";
            deriver.note(NoteKind::NotCovered, device, text);
            Ok(())
        }
        Some("pulseaudio") => server(deriver, device, "serverName", |name| {
            name.strip_prefix("unix:").or(Some(name)).map(str::to_owned)
        }),
        Some("pipewire") => server(deriver, device, "runtimeDir", |dir| {
            Some(format!("{}/pipewire-0", dir.trim_end_matches('/')))
        }),
        other => {
            deriver.note(
                NoteKind::UnknownElement,
                device,
                format!(
                    "audio backend {} is not known here: no rule is made for it",
                    other.unwrap_or("(none)")
                ),
            );
            Ok(())
        }
    }
}

/// The socket of a sound server, where the attribute names one on this host.
fn server(
    deriver: &mut Deriver<'_>,
    device: &Element<'_>,
    attribute: &str,
    socket: fn(&str) -> Option<String>,
) -> Result<(), Error> {
    deriver.uses(Feature::Sound);
    match device.attr(attribute).and_then(socket).filter(|path| path.starts_with('/')) {
        Some(path) => deriver.grant(device, "sound server socket", &path, Access::RW).map(drop),
        None => {
            deriver.note(
                NoteKind::NotCovered,
                device,
                format!("the sound server's socket is not known: no {attribute} names a path"),
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{device_notes, device_rules, refusal, same};

    #[test]
    fn files_devices_and_sockets() {
        same(&device_rules("<audio id='1' type='file' path='/srv/a.wav'/>"), &[("/srv/a.wav", "rw")]);
        same(
            &device_rules("<audio id='1' type='oss'><input dev='/dev/dsp1'/></audio>"),
            &[("/dev/dsp1", "rw"), ("/dev/dsp", "rw")],
        );
        same(
            &device_rules("<audio id='1' type='pulseaudio' serverName='unix:/run/pulse'/>"),
            &[("/run/pulse", "rw")],
        );
        same(
            &device_rules("<audio id='1' type='pipewire' runtimeDir='/run/user/1000'/>"),
            &[("/run/user/1000/pipewire-0", "rw")],
        );
        assert!(device_rules("<audio id='1' type='none'/>").is_empty());
        assert!(device_rules("<audio id='1' type='file' path='a.wav'/>").is_empty());
        assert!(device_rules("<audio id='1' type='alsa'/>").is_empty());
        assert!(refusal("<audio id='1' type='file' path='/etc/a'/>").contains("refuse /etc"));
        assert!(
            refusal("<audio id='1' type='oss'><output dev='/dev/mem'/></audio>").contains("refuse /dev/mem")
        );
        assert_eq!(device_notes("<audio id='1' type='pulseaudio' serverName='host.example'/>").len(), 1);
        assert_eq!(device_notes("<audio id='1' type='telepathy'/>").len(), 1);
        assert!(device_rules("<audio id='1' type='jack'/>").is_empty());
        assert_eq!(device_notes("<audio id='1' type='jack'/>").len(), 1);
    }
}
