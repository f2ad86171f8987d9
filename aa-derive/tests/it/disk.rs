//! What disks grant: each type, role and option of `<disk>` (libvirt: `formatdomain`, «Hard drives, floppy disks, CDROMs»).

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::{derive_with, device, domain, inside, options, refused, rules, try_inside};
use aa_contract::NoteKind;

#[test]
fn a_file_is_read_and_written_and_a_read_only_one_is_not() {
    assert_eq!(device("<disk type='file'><source file='/srv/a.img'/></disk>"), ["rwk /srv/a.img"]);
    assert_eq!(device("<disk><source file='/srv/a.img'/><readonly/></disk>"), ["rk /srv/a.img"]);
    assert_eq!(
        device("<disk type='file' device='cdrom'><source file='/srv/a.iso'/></disk>"),
        ["rk /srv/a.iso"]
    );
    assert_eq!(
        device("<disk type='file' device='floppy'><source file='/srv/a.img'/></disk>"),
        ["rwk /srv/a.img"]
    );
    assert_eq!(device("<disk type='block'><source dev='/dev/vg/lv'/></disk>"), ["rwk /dev/vg/lv"]);
    // The descriptor that is handed over is of the file that is named.
    assert_eq!(device("<disk><source file='/srv/a.img' fdgroup='g'/></disk>"), ["rwk /srv/a.img"]);
}

#[test]
fn an_empty_drive_grants_nothing() {
    for empty in [
        "<disk type='file' device='cdrom'/>",
        "<disk type='file' device='cdrom'><source file=''/></disk>",
        "<disk type='block' device='cdrom'><source/></disk>",
    ] {
        assert_eq!(device(empty), [""; 0], "{empty}");
        let record = try_inside(&format!("<devices>{empty}</devices>")).unwrap();
        assert!(record.notes().is_empty(), "{empty}");
    }
}

/// As by a slip of the pen: not even who asks for strictness would be told.
#[test]
fn a_disk_that_names_no_file_is_noted() {
    for (disk, attribute) in [
        ("<disk type='file'><source fil='/srv/a'/></disk>", "file"),
        ("<disk type='block' device='lun'><source file='/dev/sda'/></disk>", "dev"),
        ("<disk type='dir'><source dir=''/></disk>", "dir"),
    ] {
        let record = try_inside(&format!("<devices>{disk}</devices>")).unwrap();
        assert_eq!(rules(&record), [""; 0], "{disk}");
        let note = &record.notes()[0];
        assert_eq!(note.kind, NoteKind::UnknownElement);
        assert_eq!(note.text, format!("the source has no attribute \"{attribute}\": no rule is made for it"));
    }
}

#[test]
fn a_directory_is_granted_whole_and_a_restricted_one_not_at_all() {
    assert_eq!(
        device("<disk type='dir'><driver type='fat'/><source dir='/srv/fat'/><readonly/></disk>"),
        ["r /srv/fat/", "r glob:/srv/fat/**"]
    );
    assert!(
        refused("<disk type='dir'><driver type='fat'/><source dir='/etc'/></disk>").contains("refuse /etc")
    );
}

#[test]
fn every_byte_of_a_path_means_itself() {
    let record =
        try_inside("<devices><disk><source file='/srv/*?[a]{b}^&quot;@{HOME}\\&#9;é'/></disk></devices>")
            .unwrap();
    assert!(rules(&record).contains(&"rwk /srv/*?[a]{b}^\"@{HOME}\\\té".to_owned()), "{:?}", rules(&record));
    assert_eq!(
        device("<filesystem><source dir='/srv/[x]*'/><target dir='x'/></filesystem>"),
        ["r /srv/[x]*/", "rwkl glob:/srv/\\133x\\135\\052/**"]
    );
}

#[test]
fn what_is_restricted_is_refused_with_element_path_and_line() {
    let message = refused("\n<disk type='file'>\n  <source file='/srv/../etc/shadow'/></disk>");
    assert!(message.starts_with("7:3: disk source \"/srv/../etc/shadow\" may not be granted (it is \"/etc/shadow\"): /etc is restricted (path policy line "), "{message}");
    assert!(message.ends_with(": refuse /etc; rwk asked for by devices/disk[1]/source)"), "{message}");
    for path in [
        "/etc/shadow",
        "//etc//shadow",
        "/nonexist/../etc/shadow",
        "/usr/bin/qemu-system-x86_64",
        "/proc/kcore",
        "/dev/mem",
        "/",
        "/srv/..",
    ] {
        refused(&format!("<disk><source file='{path}'/></disk>"));
    }
    // Patterns do not pass the list: they are names of files of their own.
    assert_eq!(device("<disk><source file='/e?c/shadow'/></disk>"), ["rwk /e?c/shadow"]);
    assert_eq!(device("<disk><source file='/library/x.img'/></disk>"), ["rwk /library/x.img"]);
}

#[test]
fn a_relative_path_is_refused() {
    assert!(refused("<disk><source file='a.img'/></disk>").contains("\"a.img\" is not an absolute path"));
}

#[test]
fn links_are_followed_and_the_target_is_judged() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("srv/real")).unwrap();
    fs::write(root.path().join("srv/real/a.img"), "").unwrap();
    symlink("/srv/real/a.img", root.path().join("srv/link")).unwrap();
    symlink("/etc/shadow", root.path().join("srv/evil")).unwrap();
    let xml = |path: &str| domain(&format!("<devices><disk><source file='{path}'/></disk></devices>"));
    let record = derive_with(&xml("/srv/link"), &options(), root.path()).unwrap();
    assert_eq!(rules(&record), ["rwk /srv/real/a.img"]);
    assert!(record.notes().is_empty());
    let error = derive_with(&xml("/srv/evil"), &options(), root.path()).unwrap_err();
    assert!(error.to_string().contains("(it is \"/etc/shadow\")"), "{error}");
}

#[test]
fn a_fifo_or_socket_is_no_disk() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("srv")).unwrap();
    assert!(Command::new("mkfifo").arg(root.path().join("srv/fifo")).status().unwrap().success());
    let _listener = std::os::unix::net::UnixListener::bind(root.path().join("srv/socket")).unwrap();
    for (name, kind) in [("fifo", "FIFO"), ("socket", "socket")] {
        let xml = domain(&format!(
            "<devices><disk><driver type='qcow2'/><source file='/srv/{name}'/></disk></devices>"
        ));
        let error = derive_with(&xml, &options(), root.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("\"/srv/{name}\" is a {kind}")), "{error}");
    }
}

#[test]
fn a_missing_image_is_noted_and_strict_refuses_it() {
    let xml = domain("<devices><disk><source file='/srv/a'/></disk></devices>");
    let root = tempfile::tempdir().unwrap();
    let record = derive_with(&xml, &options(), root.path()).unwrap();
    assert_eq!(record.notes()[0].kind, NoteKind::MissingFile);
    let strict = aa_derive::Options { strict: true, ..options() };
    let error = derive_with(&xml, &strict, root.path()).unwrap_err().to_string();
    assert!(error.starts_with("5:16: ") && error.ends_with("(refused by --strict)"), "{error}");
}

#[test]
fn an_optional_medium_that_is_missing_gets_no_rule() {
    let xml = "<disk device='floppy'><source file='/srv/{x}' startupPolicy='optional'/></disk>";
    assert_eq!(device(xml), [""; 0]);
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("srv")).unwrap();
    fs::write(root.path().join("srv/{x}"), "").unwrap();
    let record = derive_with(&domain(&format!("<devices>{xml}</devices>")), &options(), root.path()).unwrap();
    assert_eq!(rules(&record), ["rwk /srv/{x}"]);
}

#[test]
fn layers_that_the_xml_names_are_only_read() {
    let chain = "<disk type='file'><driver type='qcow2'/><source file='/srv/top'/>\
        <backingStore type='file'><format type='qcow2'/><source file='/srv/mid'/>\
        <backingStore type='block'><format type='raw'/><source dev='/dev/vg/base'/><backingStore/></backingStore></backingStore></disk>";
    assert_eq!(device(chain), ["rk /dev/vg/base", "rk /srv/mid", "rwk /srv/top"]);
    let record = try_inside(&format!("<devices>{chain}</devices>")).unwrap();
    let layers: Vec<_> = record.rules().iter().filter_map(|rule| rule.origin.as_ref()?.layer).collect();
    assert_eq!(layers, [2, 1]);
}

/// A level without a file, or elsewhere than in one, is a level all the same.
#[test]
fn what_is_below_a_level_without_a_file_is_still_counted_and_granted() {
    let pci =
        "<source type='pci' namespace='1'><address domain='0' bus='6' slot='18' function='5'/></source>";
    let base = "<backingStore type='file'><source file='/srv/base'/></backingStore>";
    assert!(device(&format!("<disk type='nvme'>{pci}{base}</disk>")).contains(&"rk /srv/base".to_owned()));
    for level in [
        "type='dir'><source file='/srv/x'/>",
        "type='block'><source file='/srv/x'/>",
        "type='dir'><source dir='/srv/fat'/>",
    ] {
        let disk =
            format!("<disk><source file='/srv/top'/><backingStore {level}{base}</backingStore></disk>");
        assert!(device(&disk).contains(&"rk /srv/base".to_owned()), "{level}");
    }
    let chain = |levels: usize| {
        let (level, end) = ("<backingStore type='file'><source/>", "</backingStore>");
        format!("<disk><source file='/srv/top'/>{}{base}{}</disk>", level.repeat(levels), end.repeat(levels))
    };
    // 200 images with the top and the base.
    assert_eq!(device(&chain(198)), ["rk /srv/base", "rwk /srv/top"]);
    assert!(refused(&chain(199)).contains("more than 200 images"));
}

/// Each level has the names of those above it, so that ten megabytes of XML became a gigabyte.
#[test]
fn very_many_deep_elements_are_refused() {
    let chain = |disk: usize| {
        let level = |at: usize| format!("<backingStore><source file='/srv/{disk}-{at}'/>");
        let levels: String = (0..190).map(level).collect();
        format!("<disk><source file='/srv/{disk}'/>{levels}{}</disk>", "</backingStore>".repeat(190))
    };
    let disks = |count: usize| (0..count).map(chain).collect::<String>();
    assert_eq!(device(&disks(10)).len(), 1910);
    assert!(refused(&disks(200)).contains("so deep and so many"));
}

/// As deep as an element may lie: what goes down element by element does so to a bound, whatever the stack.
#[test]
fn elements_within_their_own_kind_overflow_no_stack() {
    let nested = |start: &str, end: &str| {
        let deep =
            format!("<disk><source file='/srv/a'>{}{}</source></disk>", start.repeat(500), end.repeat(500));
        std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(move || try_inside(&format!("<devices>{deep}</devices>")).map(|record| rules(&record)))
            .unwrap()
            .join()
            .unwrap()
    };
    let data = nested("<dataStore><source file='/srv/b'>", "</source></dataStore>");
    assert!(data.unwrap_err().to_string().contains("a data file of its own"));
    let chain = "<disk><source file='/srv/a'/>".to_owned()
        + &"<backingStore><source file='/srv/b'/>".repeat(500)
        + &"</backingStore>".repeat(500)
        + "</disk>";
    assert!(refused(&chain).contains("more than 200 images"));
    for kind in ["mirror", "reservations", "source", "x"] {
        assert_eq!(nested(&format!("<{kind}>"), &format!("</{kind}>")).unwrap(), ["rwk /srv/a"], "{kind}");
    }
}

#[test]
fn no_rule_denies_unless_asked_for() {
    let xml = domain("<devices><disk><source file='/srv/a'/><readonly/></disk></devices>");
    let root = tempfile::tempdir().unwrap();
    assert!(derive_with(&xml, &options(), root.path()).unwrap().rules().iter().all(|rule| !rule.deny));
    let denying = aa_derive::Options { deny_readonly: true, ..options() };
    let record = derive_with(&xml, &denying, root.path()).unwrap();
    assert!(rules(&record).contains(&"deny w /srv/a".to_owned()));
}

#[test]
fn a_data_file_follows_its_disk() {
    let disk = |readonly: &str| {
        device(&format!(
            "<disk><driver type='qcow2'/><source file='/srv/top'><dataStore type='file'><format type='raw'/>\
             <source file='/srv/data'/></dataStore></source>{readonly}<backingStore/></disk>"
        ))
    };
    assert_eq!(disk(""), ["rwk /srv/data", "rwk /srv/top"]);
    assert_eq!(disk("<readonly/>"), ["rk /srv/data", "rk /srv/top"]);
    let by = |kind: &str, source: &str| {
        format!(
            "<disk><driver type='qcow2'/><source file='/srv/top'><dataStore type='{kind}'><format type='raw'/>{source}\
             </dataStore></source><backingStore/></disk>"
        )
    };
    let socket = |path: &str| {
        by(
            "network",
            &format!("<source protocol='nbd' name='x'><host transport='unix' socket='{path}'/></source>"),
        )
    };
    assert_eq!(device(&socket("/run/nbd")), ["rw /run/nbd", "rwk /srv/top"]);
    refused(&socket("/etc/nbd"));
    assert_eq!(device(&by("block", "<source dev='/dev/vg/d'/>")), ["rwk /dev/vg/d", "rwk /srv/top"]);
    let nested =
        "<source file='/srv/data'><dataStore type='file'><source file='/srv/x'/></dataStore></source>";
    assert!(refused(&by("file", nested)).contains("its data file has a data file of its own"));
    assert!(
        refused(&by("telnet", "<source file='/srv/data'/>")).contains("disk type \"telnet\" is not known")
    );
}

#[test]
fn a_mirror_is_written_in_both_its_forms() {
    let new = "<disk><source file='/srv/a'/><mirror type='file' job='copy'><format type='qcow2'/><source file='/srv/b'/></mirror></disk>";
    assert_eq!(device(new), ["rwk /srv/a", "rwk /srv/b"]);
    let old = "<disk><source file='/srv/a'/><mirror file='/srv/b' format='raw'/></disk>";
    assert_eq!(device(old), ["rwk /srv/a", "rwk /srv/b"]);
    // libvirt 9.0 writes an empty job after a pivot, over which the original stumbles.
    let empty = "<disk><source file='/srv/a'/><mirror type='file' job=''><format type='raw'/><source file='/srv/b'/></mirror></disk>";
    assert_eq!(device(empty), ["rwk /srv/a", "rwk /srv/b"]);
    assert!(refused("<disk><source file='/srv/a'/><mirror file='/etc/b'/></disk>").contains("mirror"));
    for unknown in [
        "<mirror type='file' job='copy'><format type='quantum'/><source file='/srv/b'/></mirror>",
        "<mirror file='/srv/b' format='quantum'/>",
    ] {
        let message = refused(&format!("<disk><source file='/srv/a'/>{unknown}</disk>"));
        assert!(message.contains("disk format \"quantum\" is not known"), "{message}");
    }
}

#[test]
fn a_transient_disk_writes_only_its_overlay() {
    assert_eq!(
        device("<disk type='file'><source file='/srv/a'/><transient/></disk>"),
        ["rk /srv/a", "rwk /srv/a.TRANSIENT-guest"]
    );
}

#[test]
fn a_network_disk_grants_its_clients_files_and_no_image() {
    let rbd = "<disk type='network'><source protocol='rbd' name='pool/image'><config file='/etc/ceph/ceph.conf'/></source></disk>";
    assert_eq!(device(rbd), ["r /etc/ceph/ceph.conf"]);
    let nbd = "<disk type='network'><source protocol='nbd' name='x'><host transport='unix' socket='/run/nbd.sock'/></source></disk>";
    assert_eq!(device(nbd), ["rw /run/nbd.sock"]);
    let ssh = "<disk type='network'><source protocol='ssh' name='/srv/x'><knownHosts path='/srv/known'/>\
               <identity keyfile='/srv/key' agentsock='/run/agent'/></source></disk>";
    assert_eq!(device(ssh), ["r /srv/key", "r /srv/known", "rw /run/agent"]);
    refused(
        "<disk type='network'><source protocol='nbd'><host transport='unix' socket='/etc/x'/></source></disk>",
    );
}

#[test]
fn a_disk_over_tls_reads_its_certificates() {
    let tls = |protocol: &str, tls: &str| {
        device(&format!(
            "<disk type='network'><source protocol='{protocol}' name='x' tls='{tls}'><host name='h'/></source></disk>"
        ))
    };
    let fallback = "r glob:/etc/pki/qemu/{,**}";
    assert_eq!(tls("nbd", "yes"), ["r glob:/etc/pki/libvirt-nbd/{,**}", fallback]);
    assert_eq!(tls("vxhs", "yes"), ["r glob:/etc/pki/libvirt-vxhs/{,**}", fallback]);
    assert_eq!(tls("nbd", "no"), [""; 0]);
}

#[test]
fn other_kinds_of_source() {
    assert_eq!(
        device("<disk type='vhostuser'><source type='unix' path='/run/v.sock'/></disk>"),
        ["rw /run/v.sock"]
    );
    assert_eq!(
        device("<disk type='vhostvdpa'><source dev='/dev/vhost-vdpa-0'/></disk>"),
        ["rw /dev/vhost-vdpa-0"]
    );
    refused("<disk type='vhostvdpa'><source/></disk>");
    refused("<disk type='quantum'><source file='/srv/a'/></disk>");
    refused("<disk type='file'><driver type='quantum'/><source file='/srv/a'/></disk>");
}

#[test]
fn a_reservations_socket_is_granted() {
    let disk = "<disk type='block' device='lun'><source dev='/dev/sda'><reservations managed='no'>\
                <source type='unix' path='/run/pr.sock' mode='client'/></reservations></source></disk>";
    assert_eq!(device(disk), ["rw /run/pr.sock", "rwk /dev/sda"]);
}

#[test]
fn a_translated_volume_is_its_file_and_an_untranslated_one_is_an_error() {
    let live = "<disk type='volume'><source pool='p' volume='v' actualType='file' file='/srv/v'/></disk>";
    assert_eq!(device(live), ["rwk /srv/v"]);
    let message = refused("<disk type='volume'><source pool='p' volume='v'/></disk>");
    assert!(message.contains("volume \"v\" of pool \"p\" is not resolved"), "{message}");
}

/// What a disk says of its source holds of a volume as well, however it is resolved.
#[test]
fn a_volume_may_be_transient_and_may_be_missing() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("srv")).unwrap();
    fs::write(root.path().join("srv/there"), "").unwrap();
    let mut options = options();
    let pool = b"<pool type='dir'><name>p</name><target><path>/srv</path></target></pool>";
    options.pools.add(std::path::Path::new("p.xml"), pool).unwrap();
    let disk = |source: &str, inside: &str| {
        let disk = format!("<devices><disk type='volume'><source {source}/>{inside}</disk></devices>");
        rules(&derive_with(&domain(&disk), &options, root.path()).unwrap())
    };
    let by_pool = |name: &str| format!("pool='p' volume='{name}'");
    let translated = |name: &str| format!("pool='p' volume='{name}' actualType='file' file='/srv/{name}'");
    for volume in [&by_pool as &dyn Fn(&str) -> String, &translated] {
        let overlay = ["rk /srv/there", "rwk /srv/there.TRANSIENT-guest"];
        assert_eq!(disk(&volume("there"), "<transient/>"), overlay);
        let optional = |name: &str| disk(&(volume(name) + " startupPolicy='optional'"), "");
        assert_eq!(optional("absent"), [""; 0]);
        assert_eq!(optional("there"), ["rwk /srv/there"]);
        assert_eq!(disk(&volume("absent"), ""), ["rwk /srv/absent"]);
    }
}

#[test]
fn a_source_that_its_label_leaves_alone_gets_no_rule() {
    let disk = |model: &str| {
        device(&format!(
            "<disk><source file='/srv/a'><seclabel model='{model}' relabel='no'/></source></disk>"
        ))
    };
    assert_eq!(disk("apparmor"), [""; 0]);
    assert_eq!(disk("dac"), ["rwk /srv/a"]);
    // It is of this source alone: of a layer, and of what is below one.
    let layers = |top: &str, layer: &str| {
        let label = |model: &str| format!("<seclabel model='{model}' relabel='no'/>");
        device(&format!(
            "<disk><source file='/srv/a'>{}</source><backingStore><source file='/srv/b'>{}</source>\
             <backingStore><source file='/srv/c'/></backingStore></backingStore></disk>",
            label(top),
            label(layer)
        ))
    };
    assert_eq!(layers("dac", "apparmor"), ["rk /srv/c", "rwk /srv/a"]);
    assert_eq!(layers("apparmor", "dac"), ["rk /srv/b", "rk /srv/c"]);
    let serial = |model: &str| {
        device(&format!(
            "<serial type='file'><source path='/srv/s'><seclabel model='{model}' relabel='no'/></source></serial>"
        ))
    };
    assert_eq!(serial("apparmor"), [""; 0]);
    assert_eq!(serial("dac"), ["rw /srv/s"]);
}

#[test]
fn the_variable_store_of_the_firmware() {
    let derive = |inside: &str| {
        let xml = domain("").replace("</os>", &format!("{inside}</os>"));
        derive_with(&xml, &options(), tempfile::tempdir().unwrap().path())
            .map(|record| rules(&record))
            .map_err(|error| error.to_string())
    };
    let ok = |list: &[&str]| Ok(list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(
        derive(
            "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader><nvram>/srv/x_VARS.fd</nvram>"
        ),
        ok(&["rk /usr/share/OVMF/OVMF_CODE.fd", "rwk /srv/x_VARS.fd"])
    );
    assert_eq!(
        derive("<loader type='rom'>/usr/share/seabios/bios.bin</loader>"),
        ok(&["r /usr/share/seabios/bios.bin"])
    );
    let beside_the_emulator = |access: &str| format!("<loader {access}>/usr/lib/xen/boot/hvmloader</loader>");
    assert_eq!(derive(&beside_the_emulator("")), ok(&["r /usr/lib/xen/boot/hvmloader"]));
    assert!(derive(&beside_the_emulator("type='pflash'")).is_err());
    assert!(
        derive("<loader type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>")
            .unwrap_err()
            .contains("rwk asked for by os/loader")
    );
    assert_eq!(derive("<nvram type='file'><source file='/srv/n'/></nvram>"), ok(&["rwk /srv/n"]));
    assert_eq!(derive("<nvram format='qcow2'>/srv/n</nvram>"), ok(&["rwk /srv/n"]));
    assert!(
        derive("<nvram format='quantum'>/srv/n</nvram>").unwrap_err().contains("disk format \"quantum\"")
    );
    assert_eq!(derive("<nvram type='block'><source dev='/dev/vg/n'/></nvram>"), ok(&["rwk /dev/vg/n"]));
    assert_eq!(
        derive(
            "<nvram type='network'><source protocol='nbd' name='x'><host transport='unix' socket='/run/n.sock'/></source></nvram>"
        ),
        ok(&["rw /run/n.sock"])
    );
    assert_eq!(
        derive("<kernel>/boot/k</kernel><initrd>/boot/i</initrd><shim>/srv/s</shim><dtb>/srv/d</dtb>"),
        ok(&["r /boot/i", "r /boot/k", "r /srv/d", "r /srv/s"])
    );
    assert_eq!(derive("<acpi><table type='slic'>/srv/slic</table></acpi>"), ok(&["r /srv/slic"]));
    assert!(derive("<kernel>/etc/passwd</kernel>").is_err());
    assert!(derive("<nvram>/boot/x</nvram>").is_err());
    // The template is read by libvirtd.
    assert_eq!(derive("<nvram template='/srv/t'>/srv/n</nvram>"), ok(&["rwk /srv/n"]));
}

#[test]
fn firmware_configuration_files_and_the_persistent_store() {
    let fwcfg =
        "<sysinfo type='fwcfg'><entry name='opt/a' file='/srv/f'/><entry name='opt/b'>text</entry></sysinfo>";
    assert_eq!(inside(fwcfg), ["r /srv/f"]);
    assert_eq!(
        device("<pstore backend='acpi-erst'><path>/srv/p</path><size unit='KiB'>8</size></pstore>"),
        ["rwk /srv/p"]
    );
    assert_eq!(
        device("<pstore backend='acpi-erst'><size unit='KiB'>8</size></pstore>"),
        ["rwk /var/lib/libvirt/qemu/nvram/guest_PSTORE.raw"]
    );
    refused("<pstore backend='acpi-erst'><path>/etc/p</path></pstore>");
}

#[test]
fn character_devices() {
    for role in ["serial", "parallel", "channel", "console"] {
        let chardev = |inside: &str| device(&format!("<{role} {inside}</{role}>"));
        assert_eq!(chardev("type='file'><source path='/srv/f'/>"), ["rw /srv/f"]);
        assert_eq!(chardev("type='dev'><source path='/dev/ttyS0'/>"), ["rw /dev/ttyS0"]);
        assert_eq!(chardev("type='unix'><source mode='bind' path='/srv/s'/>"), ["rw /srv/s"]);
        assert_eq!(
            chardev("type='pipe'><source path='/srv/p'/>"),
            ["rw /srv/p", "rw /srv/p.in", "rw /srv/p.out"]
        );
        assert_eq!(chardev("type='pty'><source path='/dev/pts/3'/>"), [""; 0]);
        assert_eq!(chardev("type='pty'><source path='/srv/pty'/>"), [""; 0]);
        assert_eq!(chardev("type='tcp'><source mode='bind' host='h' service='1'/>"), [""; 0]);
        assert_eq!(chardev("type='pty'><log file='/srv/l' append='on'/>"), ["w /srv/l"]);
        refused(&format!("<{role} type='file'><source path='/etc/f'/></{role}>"));
        refused(&format!("<{role} type='file'><source/></{role}>"));
    }
    let nmdm = "<serial type='nmdm'><source master='/dev/nmdm0A' slave='/dev/nmdm0B'/></serial>";
    let record = try_inside(&format!("<devices>{nmdm}</devices>")).unwrap();
    assert_eq!((rules(&record), record.notes()[0].kind), (Vec::new(), NoteKind::UnknownElement));
    // What the first console says is judged, though libvirt makes it the serial port's other end.
    let console = |path: &str| {
        format!(
            "<serial type='pty'/><console type='file'><source path='{path}'/><target type='serial'/></console>"
        )
    };
    assert_eq!(device(&console("/srv/c")), ["rw /srv/c"]);
    refused(&console("/etc/c"));
    assert_eq!(
        device("<serial type='tcp'><source mode='connect' host='h' service='1' tls='yes'/></serial>"),
        ["r glob:/etc/pki/libvirt-chardev/{,**}", "r glob:/etc/pki/qemu/{,**}"]
    );
    // A socket that libvirt made for another guest is not this one's.
    let other = "<channel type='unix'><source path='/var/lib/libvirt/qemu/channel/target/domain-8-other/a'/></channel>";
    assert_eq!(device(other), [""; 0]);
    let own = "<channel type='unix'><source path='/var/lib/libvirt/qemu/channel/target/domain-7-guest/a'/></channel>";
    assert_eq!(device(own), ["rw /var/lib/libvirt/qemu/channel/target/domain-7-guest/a"]);
}
