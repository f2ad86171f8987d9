//! Text that is profile syntax to whoever does not quote it, in every field of a domain that can reach a profile.
//!
//! What comes out is compared with what the same domain gives with a plain word in that place: the same rules with the
//! text in them, by the record and by the automaton that the real parser makes; and the same of everything that is not a file
//! rule (name, flags, capabilities, network, mounts, signals, other profiles), byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aa_tests::compiled::{FileDfa, LETTERS, beside_files, compile_text, profiles};
use proptest::prelude::*;
use serde_json::Value;

use crate::tools::{escaped, output, run, tool};

/// Texts of at most 18 characters: libvirt cuts a guest's name after 20.
const HOSTILE: [&str; 26] = [
    "a\" rwk, /** rwk,",
    "\", capability, \"",
    "\" r,\n capability,\n",
    "\n}\nprofile x {\n",
    "\n  network,\n",
    "\n#include <a>\n",
    " #include <a>",
    "a,\n/etc/** r,\n#",
    "#",
    "\\",
    "\\\\\"",
    "\\052",
    "\\x2a",
    "*",
    "**",
    "?",
    "[^/]",
    "{,**}",
    "@{HOME}",
    "@{profile_name}",
    " -> /b",
    " px -> unconfined,",
    "a/b c/d",
    "'%s' $(id) `id`",
    "\té日\u{202e}\u{7f}",
    "<a b=\"&amp;\">",
];

type Word = (&'static str, &'static str, fn(&str) -> String);

/// Where the text stands in the fields below, the plain word that is held against it, and what of the text comes into rules: all,
/// what can be a file's name, what is before a comma. No constant has such a word.
const WORDS: [Word; 3] = [
    ("TEXT", "harmless", str::to_owned),
    ("NAME", "blameless", |text| text.replace('/', "_")),
    ("HEAD", "guileless", |text| text.split(',').next().unwrap_or_default().to_owned()),
];

/// What patterns of the GL libraries need.
const VARIABLES: &str = "@{multiarch}=*-linux-gnu*\n";

/// A field, and how many rules it stands in; none where a domain with any word in it is refused.
type Field = (&'static str, Option<usize>);

const KVM: &str = "<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
    <name>guest</name><uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid><os><type arch='x86_64'>hvm</type></os>\
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>\
    <qemu:commandline></qemu:commandline></domain>";

const LXC: &str = "<domain type='lxc' id='3'><name>guest</name><uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid>\
    <os><type>exe</type><init>/sbin/init</init></os><devices></devices></domain>";

/// In the place of what a guest is called and is.
const INSTEAD: [(&str, Field); 7] = [
    ("<name>guest</name>", ("<name>nTEXTz</name>", Some(6))),
    (" id='3'", (" id='TEXT'", None)),
    ("a22e3930-d87a-584e-22b2-1d8950212bac", ("TEXT", None)),
    ("x86_64", ("TEXT", Some(0))),
    (">hvm<", (">TEXT<", Some(0))),
    ("/usr/bin/qemu-system-x86_64", ("/usr/bin/qemu-TEXTz", Some(1))),
    ("type='kvm'", ("type='TEXT'", None)),
];

/// Below `<domain>`.
const ROOT: [Field; 11] = [
    ("<title>TEXT</title>", Some(0)),
    ("<description>TEXT</description>", Some(0)),
    ("<metadata><x:a xmlns:x='urn:x' b='TEXT'>TEXT</x:a></metadata>", Some(0)),
    ("<flubber file='TEXT'>TEXT</flubber>", Some(0)),
    ("<sysinfo type='fwcfg'><entry name='TEXT' file='/srv/fwcfgTEXTz'/></sysinfo>", Some(1)),
    ("<launchSecurity type='tdx'><quoteGenerationService path='/run/quoteTEXTz'/></launchSecurity>", Some(1)),
    ("<launchSecurity type='TEXT'/>", Some(0)),
    ("<memoryBacking><source type='TEXT'/><access mode='TEXT'/></memoryBacking>", Some(0)),
    ("<seclabel type='static' model='apparmor'><label>TEXT</label></seclabel>", Some(0)),
    ("<seclabel type='dynamic' model='TEXT'><baselabel>TEXT</baselabel></seclabel>", Some(0)),
    ("<bootloader>/srv/bootTEXTz</bootloader>", Some(0)),
];

/// Below `<os>`.
const OS: [Field; 9] = [
    ("<kernel>/srv/kernelTEXTz</kernel>", Some(1)),
    ("<initrd>/srv/initrdTEXTz</initrd>", Some(1)),
    ("<shim>/srv/shimTEXTz</shim>", Some(1)),
    ("<dtb>/srv/dtbTEXTz</dtb>", Some(1)),
    ("<cmdline>TEXT</cmdline>", Some(0)),
    ("<acpi><table type='TEXT'>/srv/acpiTEXTz</table></acpi>", Some(1)),
    ("<loader readonly='TEXT' type='TEXT'>/srv/loaderTEXTz</loader>", Some(1)),
    ("<nvram template='/srv/templateTEXTz'>/srv/nvramTEXTz</nvram>", Some(1)),
    ("<varstore path='/srv/varstoreTEXTz'/>", Some(1)),
];

/// Below `<devices>`.
const DEVICES: [Field; 68] = [
    (
        "<disk><driver type='raw'/><source file='/srv/diskTEXTz'/><target dev='TEXT'/><serial>TEXT</serial></disk>",
        Some(1),
    ),
    ("<disk type='block'><driver type='raw'/><source dev='/dev/diskTEXTz'/></disk>", Some(1)),
    ("<disk type='dir'><driver type='fat'/><source dir='/srv/dirTEXTz'/></disk>", Some(2)),
    ("<disk type='TEXT'><source file='/srv/a'/></disk>", None),
    ("<disk><driver type='TEXT'/><source file='/srv/a'/></disk>", None),
    (
        "<disk><driver name='TEXT' type='raw'/><source file='/srv/startTEXTz' startupPolicy='optional'/></disk>",
        Some(0),
    ),
    (
        "<disk><driver type='qcow2'/><source file='/srv/top'/><backingStore type='file'><format type='raw'/><source file='/srv/baseTEXTz'/></backingStore></disk>",
        Some(1),
    ),
    (
        "<disk><driver type='qcow2'/><source file='/srv/top'><dataStore type='file'><format type='raw'/><source file='/srv/dataTEXTz'/></dataStore></source><backingStore/></disk>",
        Some(1),
    ),
    (
        "<disk><driver type='raw'/><source file='/srv/top'/><mirror type='file' job='TEXT'><format type='raw'/><source file='/srv/mirrorTEXTz'/></mirror></disk>",
        Some(1),
    ),
    (
        "<disk><driver type='raw'/><source file='/srv/top'/><mirror file='/srv/oldTEXTz' format='raw'/></disk>",
        Some(1),
    ),
    ("<disk><driver type='raw'/><source file='/srv/transientTEXTz'/><transient/></disk>", Some(2)),
    (
        "<disk type='block'><driver type='raw'/><source dev='/dev/sdx'><reservations managed='no'><source type='unix' path='/run/prTEXTz'/></reservations></source></disk>",
        Some(1),
    ),
    ("<disk type='volume'><driver type='raw'/><source pool='pool' volume='volumeTEXTz'/></disk>", Some(1)),
    ("<disk type='volume'><source pool='TEXT' volume='v'/></disk>", None),
    (
        "<disk type='network'><driver type='raw'/><source protocol='TEXT' name='TEXT'><host name='TEXT' transport='unix' socket='/run/nbdTEXTz'/></source></disk>",
        Some(1),
    ),
    (
        "<disk type='network'><driver type='raw'/><source protocol='rbd' name='a'><config file='/etc/ceph/cTEXTz'/></source></disk>",
        Some(1),
    ),
    (
        "<disk type='network'><driver type='raw'/><source protocol='ssh' name='a'><knownHosts path='/srv/hostsTEXTz'/><identity keyfile='/srv/keyTEXTz' agentsock='/run/agentTEXTz'/></source></disk>",
        Some(3),
    ),
    ("<disk type='vhostuser'><source type='unix' path='/run/vuTEXTz'/></disk>", Some(1)),
    ("<disk type='vhostvdpa'><source dev='/dev/vdpaTEXTz'/></disk>", Some(1)),
    (
        "<disk><driver type='raw'/><source file='/srv/top'/><target dev='a'/><rom file='/srv/romTEXTz'/></disk>",
        Some(1),
    ),
    ("<filesystem type='mount'><source dir='/srv/shareTEXTz'/><target dir='TEXT'/></filesystem>", Some(2)),
    (
        "<filesystem type='mount'><driver type='virtiofs'/><source socket='/run/fsTEXTz'/><target dir='TEXT'/></filesystem>",
        Some(1),
    ),
    ("<filesystem type='TEXT'><driver type='TEXT'/><source dir='/srv/notTEXTz'/></filesystem>", Some(0)),
    ("<serial type='file'><source path='/srv/serialTEXTz' append='TEXT'/></serial>", Some(1)),
    ("<serial type='TEXT'><source path='/srv/notTEXTz'/></serial>", Some(0)),
    ("<parallel type='dev'><source path='/dev/parportTEXTz'/></parallel>", Some(1)),
    ("<console type='pipe'><source path='/srv/pipeTEXTz'/></console>", Some(3)),
    ("<console type='pty' tty='/dev/pts/TEXT'><source path='/dev/pts/TEXT'/></console>", Some(0)),
    (
        "<channel type='unix'><source mode='bind' path='/run/channelTEXTz'/><target type='virtio' name='TEXT'/></channel>",
        Some(1),
    ),
    ("<serial type='pty'><log file='/srv/logTEXTz' append='on'/></serial>", Some(1)),
    ("<redirdev bus='usb' type='unix'><source mode='bind' path='/run/redirTEXTz'/></redirdev>", Some(1)),
    (
        "<smartcard mode='host-certificates'><certificate>TEXT</certificate><database>/srv/cardTEXTz</database></smartcard>",
        Some(1),
    ),
    (
        "<smartcard mode='passthrough' type='unix'><source mode='bind' path='/run/cardTEXTz'/></smartcard>",
        Some(1),
    ),
    ("<smartcard mode='TEXT'><database>/srv/notTEXTz</database></smartcard>", Some(0)),
    ("<rng model='virtio'><backend model='random'>/dev/rngTEXTz</backend></rng>", Some(1)),
    (
        "<rng model='virtio'><backend model='egd' type='unix'><source mode='connect' path='/run/egdTEXTz'/></backend></rng>",
        Some(1),
    ),
    ("<tpm><backend type='passthrough'><device path='/dev/tpmNAMEz'/></backend></tpm>", Some(3)),
    ("<tpm><backend type='passthrough'><device path='/dev/tpm/TEXTz'/></backend></tpm>", Some(1)),
    (
        "<tpm><backend type='external'><source type='unix' mode='connect' path='/run/tpmTEXTz'/></backend></tpm>",
        Some(1),
    ),
    (
        "<tpm><backend type='emulator' version='TEXT'><source type='dir' path='/srv/tpmTEXTz'/></backend></tpm>",
        Some(2),
    ),
    ("<tpm><backend type='emulator'><source type='file' path='/srv/tpmfileTEXTz'/></backend></tpm>", Some(1)),
    ("<shmem name='shmTEXTz'><model type='ivshmem-plain'/></shmem>", Some(1)),
    ("<shmem name='doorTEXTz'><model type='ivshmem-doorbell'/></shmem>", Some(1)),
    ("<shmem name='a'><model type='TEXT'/><server path='/run/shmTEXTz'/></shmem>", Some(1)),
    ("<memory model='nvdimm' access='TEXT'><source><path>/srv/nvTEXTz</path></source></memory>", Some(1)),
    ("<memory model='TEXT'><source><path>/srv/notTEXTz</path></source></memory>", Some(0)),
    ("<pstore backend='TEXT'><path>/srv/psTEXTz</path></pstore>", Some(1)),
    (
        "<interface type='vhostuser'><source type='unix' path='/run/netTEXTz' mode='client'/></interface>",
        Some(1),
    ),
    ("<interface type='vdpa'><source dev='/dev/vhost-vdpaTEXTz'/></interface>", Some(1)),
    (
        "<interface type='network'><source network='TEXT'/><backend tap='/dev/tapTEXTz' vhost='/dev/vhostTEXTz'/><script path='/srv/TEXT'/></interface>",
        Some(2),
    ),
    (
        "<interface type='user'><backend type='passt' logFile='/srv/TEXT'/><alias name='uaNAMEz'/></interface>",
        Some(2),
    ),
    ("<interface type='direct'><source dev='TEXT'/><target dev='TEXT'/></interface>", Some(0)),
    (
        "<interface type='network'><source network='n'/><model type='virtio'/><rom file='/srv/netromTEXTz'/></interface>",
        Some(1),
    ),
    ("<graphics type='vnc' passwd='TEXT'><listen type='socket' socket='/run/vncTEXTz'/></graphics>", Some(1)),
    ("<graphics type='spice' socket='/run/spiceTEXTz'/>", Some(1)),
    ("<graphics type='egl-headless'><gl rendernode='/dev/dri/renderTEXTz'/></graphics>", Some(1)),
    ("<graphics type='sdl' display='TEXT' xauth='/srv/xauthTEXTz'/>", Some(1)),
    ("<graphics type='dbus' address='unix:path=/run/busHEAD'/>", Some(1)),
    ("<video><model type='virtio'><acceleration rendernode='/dev/dri/videoTEXTz'/></model></video>", Some(1)),
    ("<audio id='1' type='file' path='/srv/audioTEXTz'/>", Some(1)),
    (
        "<audio id='2' type='oss'><input dev='/dev/dspinTEXTz'/><output dev='/dev/dspoutTEXTz'/></audio>",
        Some(2),
    ),
    ("<audio id='3' type='pulseaudio' serverName='unix:/run/pulseTEXTz'/>", Some(1)),
    ("<audio id='4' type='pipewire' runtimeDir='/run/pipeTEXTz'/>", Some(1)),
    ("<input type='passthrough'><source evdev='/dev/input/aTEXTz'/></input>", Some(1)),
    ("<input type='evdev'><source dev='/dev/input/bTEXTz' grab='TEXT'/></input>", Some(1)),
    (
        "<hostdev mode='subsystem' type='mdev' model='TEXT'><source><address uuid='TEXT'/></source></hostdev>",
        None,
    ),
    (
        "<hostdev mode='subsystem' type='scsi'><source><adapter name='TEXT'/><address bus='0'/></source></hostdev>",
        None,
    ),
    ("<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='TEXT'/></hostdev>", None),
];

/// Arguments of `<qemu:commandline>`, each with its option. COMMAS is the text with each comma twice, JSON as in a string of JSON.
const ARGUMENTS: [Field; 10] = [
    ("-kernel\n/srv/argkernelTEXTz", Some(1)),
    ("-pidfile\n/srv/argpidTEXTz", Some(1)),
    ("-L\n/srv/argfirmwareTEXTz", Some(2)),
    ("-drive\nfile=/srv/argdriveCOMMASz,format=raw", Some(1)),
    ("-blockdev\n{\"driver\":\"file\",\"node-name\":\"a\",\"filename\":\"/srv/argblockJSONz\"}", Some(1)),
    ("-chardev\nsocket,id=a,path=/run/argcharCOMMASz", Some(1)),
    ("-object\nmemory-backend-file,id=m,size=1M,mem-path=/srv/argmemCOMMASz", Some(1)),
    ("-fw_cfg\nname=opt/a,file=/srv/argfwCOMMASz", Some(1)),
    ("-vnc\nvnc=unix:/run/argvncCOMMASz", Some(1)),
    ("-append\nTEXT", Some(0)),
];

/// Below the `<devices>` of a container.
const CONTAINER: [Field; 5] = [
    ("<filesystem type='mount'><source dir='/srv/rootTEXTz'/><target dir='/TEXT'/></filesystem>", Some(2)),
    (
        "<filesystem type='file'><driver type='loop' format='raw'/><source file='/srv/imageTEXTz'/><target dir='/TEXT'/></filesystem>",
        Some(1),
    ),
    (
        "<hostdev mode='capabilities' type='storage'><source><block>/dev/blockTEXTz</block></source></hostdev>",
        Some(1),
    ),
    (
        "<hostdev mode='capabilities' type='misc'><source><char>/dev/charTEXTz</char></source></hostdev>",
        Some(1),
    ),
    (
        "<hostdev mode='capabilities' type='net'><source><interface>TEXT</interface></source></hostdev>",
        Some(0),
    ),
];

/// A field at its place in a domain.
#[derive(Clone, Copy)]
struct Placed {
    base: &'static str,
    /// What of the base it stands in the place of, or in front of.
    at: &'static str,
    is_instead: bool,
    is_argument: bool,
    field: Field,
}

/// Every field.
fn fields() -> Vec<Placed> {
    let plain = Placed { base: KVM, at: "", is_instead: false, is_argument: false, field: ("", None) };
    let all = |base, at, fields: &[Field]| {
        fields.iter().map(|field| Placed { base, at, field: *field, ..plain }).collect::<Vec<_>>()
    };
    let mut found: Vec<Placed> =
        INSTEAD.iter().map(|(at, field)| Placed { at, is_instead: true, field: *field, ..plain }).collect();
    found.extend(all(KVM, "<os>", &ROOT));
    found.extend(all(KVM, "</os>", &OS));
    found.extend(all(KVM, "</devices>", &DEVICES));
    found.extend(
        all(KVM, "</qemu:commandline>", &ARGUMENTS)
            .into_iter()
            .map(|field| Placed { is_argument: true, ..field }),
    );
    found.extend(all(LXC, "</devices>", &CONTAINER));
    found
}

/// A domain with these fields, which are of one base, and this text in each, or a plain word.
fn domain(fields: &[Placed], text: Option<&str>) -> String {
    let mut xml = fields[0].base.to_owned();
    for Placed { at, is_instead, is_argument, field: (with, _), .. } in fields {
        let mut with = (*with).to_owned();
        for (place, plain, _) in WORDS {
            let text = text.unwrap_or(plain);
            let json = Value::from(text).to_string();
            let json = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap();
            with = if *is_argument {
                with.replace("COMMAS", &text.replace(',', ",,")).replace("JSON", json).replace(place, text)
            } else {
                let of_name = if place == "NAME" { text.replace('/', "_") } else { text.to_owned() };
                with.replace(place, &escaped(&of_name))
            };
        }
        if *is_argument {
            let (option, value) = with.split_once('\n').unwrap();
            with = [option, value].map(|word| format!("<qemu:arg value='{}'/>", escaped(word))).concat();
        }
        if !is_instead {
            with.push_str(at);
        }
        assert!(xml.contains(at), "{at}");
        xml = xml.replacen(at, &with, 1);
    }
    xml
}

/// A target with plain words as it is to be with the text.
fn with_text(target: &str, text: &str, spell: impl Fn(&str) -> String) -> String {
    let filled = |target: String, (_, plain, of): &Word| target.replace(plain, &spell(&of(text)));
    WORDS.iter().fold(target.to_owned(), filled)
}

/// Derives each: the record, or nothing where it is refused.
fn derive(domains: &[String]) -> Vec<Option<Value>> {
    let dir = tempfile::tempdir().unwrap();
    for (number, xml) in domains.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{number:03}.xml")), xml).unwrap();
    }
    let pools = tempfile::tempdir().unwrap();
    let pool = "<pool type='dir'><name>pool</name><target><path>/srv/pool</path></target></pool>";
    std::fs::write(pools.path().join("pool.xml"), pool).unwrap();
    let output = run(tool("aa-derive").arg("--quiet").arg("--pools").arg(pools.path()).arg(dir.path()), "");
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let mut records = out.lines().map(|line| serde_json::from_str(line).unwrap());
    // Each that is refused is named by a line of its own, which nothing in it breaks.
    let found: Vec<Option<Value>> = (0..domains.len())
        .map(|number| if err.contains(&format!("/{number:03}.xml:")) { None } else { records.next() })
        .collect();
    assert!(records.next().is_none());
    let refused = found.iter().filter(|record| record.is_none()).count();
    assert_eq!(err.lines().count(), refused, "{err}");
    assert_eq!(output.status.code(), Some(i32::from(refused > 0)), "{err}");
    found
}

/// The rules of a record: paths and patterns, with their letters.
fn rules(record: &Value) -> [BTreeSet<(String, String)>; 2] {
    ["path", "glob"].map(|kind| {
        let of_kind = record["rules"].as_array().unwrap().iter().filter(|rule| !rule[kind].is_null());
        of_kind
            .map(|rule| [kind, "access"].map(|key| rule[key].as_str().unwrap().to_owned()).into())
            .collect()
    })
}

/// The text as a profile's pattern: every byte as its number.
fn spelled(text: &str) -> String {
    let spell = |byte: u8| if byte == b'/' { "/".to_owned() } else { format!("\\{byte:03o}") };
    text.bytes().map(spell).collect::<Vec<_>>().concat()
}

/// The profile of a record, from a template that allows nothing.
fn bare(record: &Value) -> String {
    let templates = tempfile::tempdir().unwrap();
    for template in ["TEMPLATE.qemu", "TEMPLATE.lxc"] {
        let text = format!("{VARIABLES}profile LIBVIRT_TEMPLATE {{\n}}\n");
        std::fs::write(templates.path().join(template), text).unwrap();
    }
    render(record, &["--template-dir", templates.path().to_str().unwrap()])
}

fn render(record: &Value, options: &[&str]) -> String {
    output(tool("aa-render").arg("--stdout").args(options), &record.to_string())
}

/// Compiles a profile, and one that is the same with plain words in it: they must be one, but for the text. `has_files` says whether
/// file rules are compared too.
fn same(hostile: &str, plain: &str, text: &str, has_files: bool) {
    let wanted = with_text(plain, text, spelled);
    let [hostile, wanted] = [hostile, &wanted].map(|profile| compile_text(profile).unwrap());
    let (hostile, wanted) = (profiles(&hostile), profiles(&wanted));
    assert_eq!(hostile.len(), wanted.len(), "profiles, with {text:?}");
    for (hostile, wanted) in hostile.into_iter().zip(wanted) {
        assert!(beside_files(hostile) == beside_files(wanted), "more than file rules, with {text:?}");
        if !has_files {
            continue;
        }
        let [hostile, wanted] = [hostile, wanted].map(FileDfa::of);
        let shown = |found: BTreeMap<Vec<u8>, String>| {
            let each = found.into_iter();
            each.map(|(path, letters)| format!("{} {letters}", path.escape_ascii())).collect::<Vec<_>>()
        };
        assert_eq!(shown(hostile.beyond(&wanted)), [""; 0], "granted besides, with {text:?}");
        assert_eq!(shown(wanted.beyond(&hostile)), [""; 0], "not granted, with {text:?}");
    }
}

/// Paths next to one that is granted: longer, shorter, and with each character of the text for another. What is in a directory is
/// granted with it.
fn neighbours(path: &str, text: &str) -> Vec<String> {
    let mut found = match path.strip_suffix('/') {
        Some(dir) => vec![format!("{dir}x/")],
        None => vec![format!("{path}x"), path.chars().take(path.chars().count() - 1).collect()],
    };
    for (at, _) in text.chars().enumerate().filter(|(_, c)| *c != '/') {
        let other: String = text.chars().enumerate().map(|(i, c)| if i == at { 'Q' } else { c }).collect();
        found.push(path.replacen(text, &other, 1));
    }
    found
}

/// What `text` does in every field; how many of the fields that take any word take it, and how many there are.
fn check(text: &str) -> (usize, usize) {
    let fields = fields();
    let of_all = |text| derive(&fields.iter().map(|field| domain(&[*field], text)).collect::<Vec<_>>());
    let (plain, hostile) = (of_all(None), of_all(Some(text)));
    let mut taken = Vec::new();
    for ((placed, plain), hostile) in fields.iter().zip(&plain).zip(&hostile) {
        let (xml, count) = placed.field;
        let Some(plain) = plain else {
            // A number can be a guest's id.
            let is_refused = hostile.is_none() || text.trim().parse::<i64>().is_ok();
            assert!(count.is_none() && is_refused, "{xml}: {text:?}");
            continue;
        };
        let [plain_paths, plain_globs] = rules(plain);
        let has_word =
            |(target, _): &&(String, String)| WORDS.iter().any(|(_, plain, _)| target.contains(plain));
        let all: Vec<_> = plain_paths.iter().chain(&plain_globs).filter(has_word).collect();
        assert_eq!(Some(all.len()), count, "{xml}: {all:?}");
        let Some(hostile) = hostile else { continue };
        let wanted = plain_paths
            .into_iter()
            .map(|(path, letters)| (with_text(&path, text, str::to_owned), letters))
            .collect();
        let [paths, globs] = rules(hostile);
        assert_eq!(paths, wanted, "{xml}: {text:?}");
        assert_eq!(globs.len(), plain_globs.len(), "{xml}: {text:?}");
        taken.push(*placed);
    }
    for base in [KVM, LXC] {
        let of_base: Vec<Placed> = taken.iter().filter(|placed| placed.base == base).copied().collect();
        if !of_base.is_empty() {
            compare(&of_base, text);
        }
    }
    (taken.len(), plain.iter().flatten().count())
}

/// Compiles what all these fields at once lead to, and holds it against the plain word's.
fn compare(fields: &[Placed], text: &str) {
    let both = derive(&[domain(fields, None), domain(fields, Some(text))]);
    let [Some(plain), Some(hostile)] = both.as_slice() else { panic!("refused only together: {text:?}") };
    same(&bare(hostile), &bare(plain), text, true);
    // What everyone may do has many file rules, which say nothing of the text.
    let own = ["--base", "/nonexistent"];
    same(&render(hostile, &own), &render(plain, &own), text, false);
    same(&render(hostile, &["--minimal"]), &render(plain, &["--minimal"]), text, true);
    let file = FileDfa::of(&compile_text(bare(hostile)).unwrap());
    let [paths, _] = rules(hostile);
    for (path, letters) in &paths {
        let access = file.access(path.as_bytes());
        let granted: BTreeSet<char> = LETTERS
            .iter()
            .enumerate()
            .filter(|(at, _)| access >> at & 1 != 0)
            .map(|(_, letter)| *letter)
            .collect();
        assert!(
            letters.chars().all(|letter| letter == 'i' || granted.contains(&letter)),
            "{path:?} {granted:?}"
        );
        for other in neighbours(path, text).into_iter().filter(|_| path.contains(text)) {
            let is_other = !paths.iter().any(|(path, _)| *path == other);
            assert!(!is_other || file.access(other.as_bytes()) == 0, "{other:?} with {text:?}");
        }
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn hostile_text_in_any_field_is_that_text_and_adds_no_statement() {
    assert!(Path::new("/usr/sbin/apparmor_parser").exists());
    let (mut taken, mut all) = (0, 0);
    for text in HOSTILE {
        let (some, of) = check(text);
        assert!(some * 3 > of * 2, "{text:?}: {some} of {of} fields take it");
        (taken, all) = (taken + some, all + of);
    }
    // The others are refused: a slash in a name, say.
    assert!(taken * 20 > all * 19, "{taken} of {all}");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn what_a_text_would_add_is_seen() {
    let plain = "profile x {\n  /srv/harmless rw,\n  profile y {\n    /srv/blameless r,\n  }\n}\n";
    same(&plain.replace("harmless", "\\052").replace("blameless", "\\052"), plain, "*", true);
    let added = |rule: &str| {
        plain.replace("harmless rw,", &format!("\\052 rw,\n  {rule}")).replace("blameless", "\\052")
    };
    for rule in [
        "capability mac_admin,",
        "network inet,",
        "mount,",
        "ptrace,",
        "signal,",
        "unix,",
        "/etc/shadow r,",
        "/srv/\\052 k,",
        "/bin/sh ux,",
        "profile z {}",
    ] {
        let found = std::panic::catch_unwind(|| same(&added(rule), plain, "*", true));
        assert!(found.is_err(), "{rule}");
    }
    let wide = plain.replace("harmless", "*").replace("blameless", "\\052");
    assert!(std::panic::catch_unwind(|| same(&wide, plain, "*", true)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    #[ignore = "needs apparmor_parser"]
    fn any_text_in_any_field_is_that_text(text in "[ -.0-~äé日\\t\\n]{1,18}") {
        let (taken, all) = check(&text);
        prop_assert!(taken * 3 > all * 2, "{taken} of {all} fields take it");
    }
}
