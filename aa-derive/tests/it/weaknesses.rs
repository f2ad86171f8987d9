//! Weaknesses of libvirt's helper that lie in deriving, each as a test that its behaviour fails.
//! The numbers are those under which docs/differences.md and its sources know them.

use crate::common::{derive_with, device, domain, options, refused, rules, try_inside};

/// A running guest of this name and id; its rules without those of its devices.
fn named(name: &str, id: i32) -> Result<Vec<String>, String> {
    let xml = domain("")
        .replace("<name>guest</name>", &format!("<name>{name}</name>"))
        .replace("id='7'", &format!("id='{id}'"));
    let root = tempfile::tempdir().unwrap();
    let record = derive_with(&xml, &options(), root.path()).map_err(|error| error.to_string())?;
    Ok(record.rules().iter().map(|rule| rule.target.to_string()).collect())
}

#[test]
fn w01_a_smartcard_database_adds_no_statement() {
    let evil = "/x&quot; rwk, /etc/shadow rwk, capability sys_admin, change_profile -> **, #";
    let rules =
        device(&format!("<smartcard mode='host-certificates'><database>{evil}</database></smartcard>"));
    assert_eq!(rules.len(), 1);
    assert!(!rules[0].contains('"'), "{rules:?}");
}

#[test]
fn w02_patterns_in_paths_are_letters() {
    assert_eq!(
        device("<disk><source file='/var/lib/libvirt/images/*'/></disk>"),
        ["rwk /var/lib/libvirt/images/*"]
    );
    assert_eq!(device("<shmem name='*'><model type='ivshmem-plain'/></shmem>"), ["rw /dev/shm/*"]);
    let share = device("<filesystem><source dir='/srv/a*b'/><target dir='t'/></filesystem>");
    assert_eq!(share, ["r /srv/a*b/", "rwkl glob:/srv/a\\052b/**"]);
}

#[test]
fn w03_a_pattern_does_not_pass_the_policy_as_a_pattern() {
    for path in ["/e?c/shadow", "/[e]tc/shadow", "/{etc,x}/**", "/**"] {
        assert_eq!(device(&format!("<disk><source file='{path}'/></disk>")), [format!("rwk {path}")]);
    }
    refused("<disk><source file='/etc/shadow'/></disk>");
}

#[test]
fn w04_w06_nothing_is_denied_and_what_is_read_only_stays_so() {
    let record =
        try_inside("<devices><disk device='cdrom'><source file='/srv/a.iso'/></disk></devices>").unwrap();
    assert!(record.rules().iter().all(|rule| !rule.deny));
    assert_eq!(rules(&record), ["rk /srv/a.iso"]);
}

#[test]
fn w05_the_system_is_not_shared() {
    for dir in ["/", "/etc", "/usr", "/bin", "/sys", "/proc"] {
        refused(&format!("<filesystem><source dir='{dir}'/><target dir='t'/></filesystem>"));
    }
}

#[test]
fn w07_a_name_reaches_no_other_guest() {
    let victim = [
        "/var/lib/libvirt/qemu/domain-7-victim",
        "/run/libvirt/network/default.pid",
        "/run/libvirt/qemu/driver.pid",
    ];
    for (name, id) in [("7-victim", 9), ("default", 9), ("driver", 9), ("victim", 9)] {
        let rules = named(name, id).unwrap();
        assert!(!rules.iter().any(|rule| victim.iter().any(|path| rule.starts_with(path))), "{rules:?}");
    }
    // The original's patterns reach everywhere below a directory; ours name one thing each.
    assert!(named("default", 9).unwrap().iter().all(|rule| !rule.contains("/**/")));
}

#[test]
fn w08_w09_w10_w11_backslashes_variables_and_braces_are_letters() {
    for name in ["victim\\", "a\\057b", "a{b", "a[b", "@{HOME}", "a*b", "a,b", "a&quot;b"] {
        let rules = named(name, 9).unwrap();
        let literal = name.replace("&quot;", "\"");
        assert!(rules.contains(&format!("/var/log/libvirt/qemu/{literal}.log")), "{rules:?}");
    }
    for path in ["/srv/a\\b", "/srv/a\\", "/x@{HOME}/y", "/srv/{", "/srv/["] {
        assert_eq!(device(&format!("<disk><source file='{path}'/></disk>")), [format!("rwk {path}")]);
    }
}

#[test]
fn w15_a_relative_addition_is_no_rule() {
    assert!(aa_contract::LiteralPath::new("relative").is_err());
    assert!(aa_contract::LiteralPath::new("").is_err());
}

#[test]
fn w22_w23_no_crash_and_no_refusal() {
    assert!(
        device(
            "<hostdev mode='subsystem' type='usb'><source><address bus='0' device='0'/></source></hostdev>"
        )
        .is_empty()
    );
    try_inside("<devices><graphics type='sdl'/></devices>").unwrap();
}

#[test]
fn w24_only_whole_components_are_compared() {
    for path in ["/library/x.img", "/usr/local/libfoo", "/vmlinuz-foo", "/etcetera/x"] {
        assert_eq!(device(&format!("<disk><source file='{path}'/></disk>")), [format!("rwk {path}")]);
    }
}

#[test]
fn w27_read_only_reaches_the_data_file_and_the_memory() {
    let disk = "<disk><driver type='qcow2'/><source file='/srv/t'><dataStore type='file'><format type='raw'/><source file='/srv/d'/></dataStore></source>\
                <readonly/><backingStore/></disk>";
    assert_eq!(device(disk), ["rk /srv/d", "rk /srv/t"]);
    let memory =
        "<memory model='nvdimm'><source><path>/srv/m</path></source><target><readonly/></target></memory>";
    assert_eq!(device(memory), ["r /srv/m"]);
}

#[test]
fn w32_the_constructs_that_the_original_misses() {
    for (xml, rule) in [
        ("<disk type='vhostuser'><source path='/run/v'/></disk>", "rw /run/v"),
        ("<vsock/>", "rw /dev/vhost-vsock"),
        ("<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>", "rw /dev/vhost-vdpa-0"),
        ("<interface type='network'><rom file='/srv/rom'/><model type='e1000'/></interface>", "r /srv/rom"),
        ("<redirdev bus='usb' type='unix'><source mode='connect' path='/run/u'/></redirdev>", "rw /run/u"),
        ("<video><model type='virtio' blob='on'/></video>", "rw /dev/udmabuf"),
        ("<serial type='pty'><log file='/srv/l'/></serial>", "w /srv/l"),
    ] {
        assert!(device(xml).contains(&rule.to_owned()), "{xml}: {:?}", device(xml));
    }
}

#[test]
fn w33_a_tpm_without_version_has_a_real_path() {
    assert!(device("<tpm><backend type='emulator'/></tpm>").iter().all(|rule| !rule.contains("null")));
}

#[test]
fn w34_the_name_is_cut_at_characters() {
    let rules = named("äöüßäöüßäöüßäöüßäöüßx", 7).unwrap();
    let mut cut = String::new();
    aa_contract::quote::escape_literal("äöüßäöüßäöüßäöüßäöüß", &mut cut);
    assert!(rules.contains(&format!("/var/lib/libvirt/qemu/domain-7-{cut}/{{,**}}")), "{rules:?}");
}

#[test]
fn w41_control_characters_in_names_are_refused_and_in_paths_are_bytes() {
    assert!(named("a&#10;b", 7).is_err());
    assert_eq!(device("<disk><source file='/srv/a&#9;b&#10;c'/></disk>"), ["rwk /srv/a\tb\nc"]);
}
