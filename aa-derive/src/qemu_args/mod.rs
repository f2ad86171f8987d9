//! `<qemu:commandline>`: arguments that libvirt hands to QEMU as they are (libvirt: `drvqemu`,
//! «Pass-through of arbitrary QEMU commands»; QEMU: `qemu(1)`). Each known argument that names a
//! host file grants it; an argument that is not understood is a note, never silence.

mod block;
mod character;
mod device;
mod keyval;
mod object;

use aa_contract::{Access, Feature, NoteKind, VirtType};

use crate::deriver::Deriver;
use crate::devices;
use crate::error::Error;
use crate::host::{Host, Kind};
use crate::xml::Element;
use keyval::Options;

/// Options that take no value and open no file.
const SWITCHES: [&str; 36] = [
    "S",
    "alt-grab",
    "ctrl-grab",
    "curses",
    "daemonize",
    "enable-fips",
    "enable-kvm",
    "full-screen",
    "h",
    "help",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-frame",
    "no-hpet",
    "no-kvm",
    "no-quit",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nodefconfig",
    "nographic",
    "nouserconfig",
    "old-param",
    "only-migratable",
    "portrait",
    "preconfig",
    "s",
    "semihosting",
    "show-cursor",
    "singlestep",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
];

/// Options whose value names no file of the host.
const WITHOUT_FILES: [&str; 41] = [
    "accel",
    "action",
    "add-fd",
    "append",
    "audio-help",
    "balloon",
    "boot-order",
    "clock",
    "compat",
    "cpu",
    "d",
    "dfilter",
    "echr",
    "g",
    "icount-sleep",
    "iscsi",
    "k",
    "loadvm",
    "m",
    "mon",
    "msg",
    "name",
    "numa",
    "overcommit",
    "prom-env",
    "realtime",
    "rotate",
    "rtc",
    "runas",
    "sandbox",
    "seed",
    "semihosting-config",
    "smp",
    "soundhw",
    "startdate",
    "tb-size",
    "uuid",
    "vga",
    "watchdog",
    "watchdog-action",
    "xen-domid",
];

/// What a key or an option needs of the file that it names.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// One file, socket or device node.
    File(Access),
    /// A directory with what is below it.
    Tree(Access),
    /// A memory file, or a directory in which QEMU makes such: whichever is there.
    Memory(Access),
}

/// How the files begin that QEMU makes, and removes at once, where memory is to lie in a directory (QEMU: `-mem-path`).
const MEMORY_FILES: &str = "qemu_back_mem.";

const READ: Need = Need::File(Access::R);
const WRITE: Need = Need::File(Access::W);
const BOTH: Need = Need::File(Access::RW);

/// Options whose whole value is a path.
const PATHS: [(&str, &str, Need); 13] = [
    ("kernel", "kernel", READ),
    ("initrd", "initial ramdisk", READ),
    ("dtb", "device tree", READ),
    ("shim", "shim", READ),
    ("L", "firmware directory", Need::Tree(Access::R)),
    ("D", "log file", WRITE),
    ("pidfile", "pid file", Need::File(Access::RWK)),
    ("dump-vmstate", "state description", WRITE),
    ("mem-path", "memory file", Need::Memory(Access::RW)),
    ("readconfig", "configuration", READ),
    ("writeconfig", "configuration", WRITE),
    ("bios", "firmware", READ),
    ("option-rom", "option ROM", READ),
];

/// Keys with what they need of the file that they name.
type Keys = &'static [(&'static str, Need)];

/// Options whose value is a list of keys: the key of its first word, and the keys that name files.
const LISTS: [(&str, &str, Keys); 11] = [
    ("fw_cfg", "name", &[("file", READ)]),
    ("machine", "type", &[("kernel", READ), ("initrd", READ), ("dtb", READ), ("dumpdtb", WRITE)]),
    ("M", "type", &[("kernel", READ), ("initrd", READ), ("dtb", READ), ("dumpdtb", WRITE)]),
    ("boot", "order", &[("splash", READ)]),
    ("smbios", "", &[("file", READ), ("path", READ)]),
    ("trace", "enable", &[("events", READ), ("file", WRITE)]),
    ("plugin", "file", &[("file", Need::File(Access::RM))]),
    ("icount", "shift", &[("rrfile", Need::File(Access::RWK))]),
    (
        "spice",
        "port",
        &[
            ("x509-dir", Need::Tree(Access::R)),
            ("x509-key-file", READ),
            ("x509-cert-file", READ),
            ("x509-cacert-file", READ),
            ("x509-dh-key-file", READ),
            ("rendernode", BOTH),
        ],
    ),
    ("display", "type", &[("rendernode", BOTH), ("addr", BOTH)]),
    ("audiodev", "driver", &[("path", WRITE), ("in.dev", BOTH), ("out.dev", BOTH), ("server", BOTH)]),
];

/// One argument at work: the rules so far and the element that asks.
struct Context<'a, 'b, 'd> {
    deriver: &'a mut Deriver<'b>,
    at: Element<'d>,
    /// The option, without its dashes.
    option: String,
}

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    if deriver.domain.virt_type == VirtType::Lxc {
        return Ok(());
    }
    for part in root.elements() {
        if part.is_qemu("commandline") {
            command_line(deriver, &part)?;
        } else if part.is_qemu("override") {
            overrides(deriver, &part);
        }
    }
    Ok(())
}

fn command_line(deriver: &mut Deriver<'_>, part: &Element<'_>) -> Result<(), Error> {
    for variable in part.elements().filter(|element| element.is_qemu("env")) {
        if let (Some(name), Some(value)) = (variable.attr("name"), variable.attr("value"))
            && value.contains('/')
        {
            deriver.note(
                NoteKind::NotCovered,
                &variable,
                format!("environment variable {name} names a path, \"{value}\": no rule is made for it"),
            );
        }
    }
    let mut arguments = part
        .elements()
        .filter(|element| element.is_qemu("arg"))
        .filter_map(|element| Some((element, element.attr("value")?)))
        .peekable();
    let mut nodes = block::Nodes::default();
    while let Some((element, text)) = arguments.next() {
        deriver.uses(Feature::CommandLine);
        let dashed = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
        let Some(option) = dashed.filter(|option| !option.is_empty()) else {
            let mut context = Context { deriver, at: element, option: text.to_owned() };
            if text.starts_with('@') || text == "-" {
                context.unknown();
            } else {
                // An argument by itself is the first disk.
                block::bare(&mut context, text, Access::RWK)?;
            }
            continue;
        };
        if SWITCHES.contains(&option) {
            continue;
        }
        let mut context = Context { deriver, at: element, option: option.to_owned() };
        if option == "snapshot" {
            context.note(
                NoteKind::NotCovered,
                "writes go to temporary files in $TMPDIR: no rule is made for them",
            );
            continue;
        }
        let known = WITHOUT_FILES.contains(&option) || is_understood(option);
        let value = if known {
            arguments.next()
        } else {
            // How many values an unknown option takes is unknown too; what starts with a dash is none.
            arguments.next_if(|(_, text)| !text.starts_with('-'))
        };
        match value {
            _ if !known => context.unknown(),
            Some(_) if WITHOUT_FILES.contains(&option) => {}
            Some((element, text)) => {
                context.at = element;
                one(&mut context, text, &mut nodes)?;
            }
            None => context.unknown(),
        }
    }
    nodes.derive(deriver)
}

/// Options with a value that `one` reads.
fn is_understood(option: &str) -> bool {
    PATHS.iter().any(|(known, ..)| *known == option)
        || LISTS.iter().any(|(known, ..)| *known == option)
        || block::OPTIONS.contains(&option)
        || character::OPTIONS.contains(&option)
        || device::OPTIONS.contains(&option)
        || matches!(option, "object" | "acpitable" | "vnc" | "global" | "set" | "chroot" | "run-with")
}

/// One option with its value.
fn one<'d>(
    context: &mut Context<'_, '_, 'd>,
    text: &'d str,
    nodes: &mut block::Nodes<'d>,
) -> Result<(), Error> {
    let option = context.option.clone();
    if let Some((_, what, need)) = PATHS.iter().find(|(known, ..)| *known == option) {
        return whole(context, what, text, *need);
    }
    if let Some((_, implied, keys)) = LISTS.iter().find(|(known, ..)| *known == option) {
        let Some(mut options) = context.options(text, implied) else { return Ok(()) };
        features(context, &options);
        if renders(&options) {
            let at = context.at;
            devices::gl(context.deriver, &at)?;
            if options.get("rendernode").is_none() {
                devices::any_node(context.deriver, &at)?;
            }
        }
        if option == "spice" && options.is_on("unix") {
            context.take(&mut options, "addr", BOTH)?;
        }
        for (key, need) in *keys {
            context.take(&mut options, key, *need)?;
        }
        context.left(&options, &["string"]);
        return Ok(());
    }
    match option.as_str() {
        "object" => object::derive(context, text),
        "acpitable" => {
            let mut options = Options::words(text, "");
            for key in ["file", "data"] {
                // Several files stand in one value, with colons between.
                for path in options.take(key).unwrap_or_default().split(':').filter(|path| !path.is_empty()) {
                    context.grant("ACPI table", path, Access::R)?;
                }
            }
            context.left(&options, &[]);
            Ok(())
        }
        "vnc" => {
            context.deriver.uses(Feature::Vnc);
            let mut options = Options::words(text, "vnc");
            if let Some(path) = options.take("vnc").as_deref().and_then(|value| value.strip_prefix("unix:")) {
                context.grant("VNC socket", path, Access::RW)?;
            }
            context.left(&options, &[]);
            Ok(())
        }
        "chroot" | "run-with" => {
            context.note(NoteKind::NotCovered, "rules are made for the host's own root directory");
            Ok(())
        }
        // A property of a device by its name: which one names a file is not known for each.
        "global" | "set" => {
            if text.contains('/') {
                context.unknown();
            }
            Ok(())
        }
        _ if block::OPTIONS.contains(&option.as_str()) => block::derive(context, text, nodes),
        _ if character::OPTIONS.contains(&option.as_str()) => character::derive(context, text),
        _ => device::derive(context, text),
    }
}

/// An option whose whole value is a path.
fn whole(context: &mut Context<'_, '_, '_>, what: &'static str, text: &str, need: Need) -> Result<(), Error> {
    match context.option.as_str() {
        "L" if matches!(text, "help" | "?") => return Ok(()),
        "writeconfig" | "D" if text == "-" => return Ok(()),
        "readconfig" => {
            let note =
                "it holds further options, which are not read here: no rule is made for what they name";
            context.note(NoteKind::UnknownArgument, note);
        }
        // QEMU looks for a plain name in its own data directory.
        "bios" | "option-rom" => {
            let file = Options::words(text, "file").take("file").unwrap_or_default();
            context.deriver.uses(Feature::Firmware);
            return if file.contains('/') { context.need(what, &file, need) } else { Ok(()) };
        }
        // Modules of a multiboot kernel stand in one value with their own arguments.
        "initrd" if text.contains(',') || text.contains(' ') => {
            for module in Options::words(text, "file")
                .left()
                .map(|(key, value)| if key == "file" { value } else { key })
            {
                let path = module.split(' ').next().unwrap_or_default();
                context.need(what, path, need)?;
            }
            return Ok(());
        }
        _ => {}
    }
    context.need(what, text, need)
}

/// The features that a list's keys switch on.
fn features(context: &mut Context<'_, '_, '_>, options: &Options) {
    let feature = match (context.option.as_str(), options.get("driver").or_else(|| options.get("type"))) {
        ("audiodev", driver) => driver.filter(|driver| *driver != "none").map(|_| Feature::Sound),
        ("spice", _) | ("display", Some("spice-app")) => Some(Feature::Spice),
        ("display", Some("sdl" | "gtk")) => Some(Feature::Sdl),
        ("display", Some("dbus")) => Some(Feature::Dbus),
        _ => None,
    };
    if let Some(feature) = feature {
        context.deriver.uses(feature);
    }
}

/// Whether a display renders by GL.
fn renders(options: &Options) -> bool {
    matches!(options.get("gl"), Some("on" | "es" | "core")) || options.get("type") == Some("egl-headless")
}

/// `<qemu:override>` sets properties of devices; those with a path are named.
fn overrides(deriver: &mut Deriver<'_>, part: &Element<'_>) {
    let properties = part
        .elements()
        .flat_map(|device| device.elements())
        .flat_map(|frontend| frontend.elements())
        .filter(|element| element.is_qemu("property"));
    for property in properties {
        if let Some(value) = property.attr("value").filter(|value| value.contains('/')) {
            deriver.note(
                NoteKind::UnknownArgument,
                &property,
                format!(
                    "property {} is set to \"{value}\": no rule is made for it",
                    property.attr("name").unwrap_or_default()
                ),
            );
        }
    }
}

impl Context<'_, '_, '_> {
    fn note(&mut self, kind: NoteKind, text: &str) {
        self.deriver.note(kind, &self.at, format!("argument -{}: {text}", self.option));
    }

    fn unknown(&mut self) {
        self.note(NoteKind::UnknownArgument, "it is not known here: no rule is made for it");
    }

    /// The value as a list of keys; none, with a note, if it cannot be read.
    fn options(&mut self, text: &str, implied: &str) -> Option<Options> {
        match Options::parse(text, implied) {
            Ok(options) => Some(options),
            Err(error) => {
                self.note(NoteKind::UnknownArgument, &error);
                None
            }
        }
    }

    fn grant(&mut self, what: &'static str, path: &str, access: Access) -> Result<(), Error> {
        self.need(what, path, Need::File(access))
    }

    /// Whether the path is one to grant. A descriptor that QEMU was started with is no file of the host
    /// to open, and what a relative path means depends on where QEMU is started.
    fn names_a_file(&mut self, path: &str) -> bool {
        if path.is_empty() || path.starts_with("/dev/fdset/") {
            return false;
        }
        if !path.starts_with('/') {
            self.note(NoteKind::NotCovered, &format!("\"{path}\" is relative: no rule is made for it"));
            return false;
        }
        true
    }

    fn need(&mut self, what: &'static str, path: &str, need: Need) -> Result<(), Error> {
        if !self.names_a_file(path) {
            return Ok(());
        }
        let is_directory =
            || self.deriver.host.resolve(path).is_ok_and(|resolved| resolved.kind == Kind::Directory);
        match need {
            Need::Tree(access) => self.deriver.grant_tree(self.at, what, path, access).map(drop),
            Need::Memory(access) if is_directory() => {
                self.deriver.grant_called(self.at, what, path, MEMORY_FILES, access)
            }
            Need::File(access) | Need::Memory(access) => {
                self.deriver.grant(self.at, what, path, access).map(drop)
            }
        }
    }

    /// Grants the file that a key names, if it is there. Of `addr` and `server`, which hold D-Bus
    /// and sound server addresses, only the path in `unix:path=…` or `unix:…` counts.
    fn take(&mut self, options: &mut Options, key: &str, need: Need) -> Result<(), Error> {
        let Some(value) = options.take(key) else { return Ok(()) };
        let address = matches!(key, "addr" | "server");
        let value = match value.strip_prefix("unix:").filter(|_| address) {
            Some(rest) => rest.strip_prefix("path=").unwrap_or(rest),
            None if address && !value.starts_with('/') => return Ok(()),
            None => &value,
        };
        self.need("argument", value, need)
    }

    /// Names what looks like a path and was not understood.
    fn left(&mut self, options: &Options, harmless: &[&str]) {
        let paths: Vec<String> = options
            .left()
            .filter(|(key, value)| value.starts_with('/') && !harmless.contains(key))
            .map(|(key, value)| format!("\"{key}={value}\" is not known here: no rule is made for it"))
            .collect();
        for path in paths {
            self.note(NoteKind::UnknownArgument, &path);
        }
    }
}

#[cfg(test)]
mod tests;
