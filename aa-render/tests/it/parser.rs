//! Every profile that is made, through the real parser: it compiles, and it grants what it should.

use std::fs;
use std::path::Path;

use aa_tests::compiled::{FileDfa, READ, WRITE, compile, compile_text};

use crate::support::{PROFILE, Place, UUID, as_lxc, disk, record, record_of, rule, run, run_in};

const DISK: &[u8] = b"/var/lib/libvirt/images/testqemu.img";
const OTHER_DISK: &[u8] = b"/var/lib/libvirt/images/other.img";

/// Every feature that a record may name.
pub(crate) const FEATURES: &str = r#""kvm","disk","network-disk","ceph","gluster","iscsi","nbdkit","rawio","tap","vhost-net","vhost-user","vdpa","slirp","passt","vfio","usb","redirect","scsi","sound","vnc","spice","sdl","dbus","dbus-daemon","gl","firmware","tpm","swtpm","nine-p","virtiofs","hugepages","file-memory","shmem","smartcard","vsock","sev","sgx","tls","pty","command-line""#;

/// The profile on standard output, compiled.
fn standalone(args: &[&str], input: &str) -> FileDfa {
    let args: Vec<&str> = ["--stdout"].iter().chain(args).copied().collect();
    let (status, text, err) = run(&args, input);
    assert_eq!(status, 0, "{err}");
    FileDfa::of(&compile_text(&text).unwrap())
}

#[test]
#[ignore = "needs apparmor_parser"]
fn the_guests_disk_is_granted_and_anothers_is_not() {
    // No policy tree but AppArmor's own has libvirt's abstractions at a base that does not exist.
    for args in [&["--base", "/nonexistent"][..], &["--minimal"], &["--minimal", "--complain"]] {
        for uses in ["", "\"kvm\",\"disk\",\"tap\",\"vhost-net\",\"vnc\",\"pty\"", FEATURES] {
            let file = standalone(args, &record_of(UUID, uses, &disk()));
            assert_eq!(file.access(DISK) & (READ | WRITE), READ | WRITE, "{args:?} {uses}");
            for denied in [OTHER_DISK, b"/etc/shadow", b"/root/.ssh/id_rsa", b"/usr/bin/bash", b"/dev/sda"] {
                assert_eq!(file.access(denied), 0, "{args:?} {uses} {}", denied.escape_ascii());
            }
        }
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_container_profile_keeps_the_hosts_switches_closed() {
    let file = standalone(&["--base", "/nonexistent"], &as_lxc(&record("")));
    for (path, allowed) in [
        (&b"/etc/hostname"[..], READ | WRITE),
        (b"/proc/sys/net/ipv4/ip_forward", READ | WRITE),
        (b"/proc/sys/kernel/hostname", READ | WRITE),
        (b"/proc/sys/kernel/domainname", READ | WRITE),
        (b"/proc/sys/kernel/shmmax", READ | WRITE),
        (b"/proc/sys/kernel/sem", READ | WRITE),
        (b"/proc/sys/kernel/msgmax", READ | WRITE),
        (b"/sys/fs/cgroup/system.slice/cgroup.procs", READ | WRITE),
        (b"/proc/self/attr/current", READ | WRITE),
        (b"/proc/sys/kernel/core_pattern", READ),
        (b"/proc/sys/kernel/modprobe", READ),
        (b"/proc/sys/kernel/sysrq", READ),
        (b"/proc/sys/kernel/seccomp/actions_logged", READ),
        (b"/proc/sys/kernel/yama/ptrace_scope", READ),
        (b"/proc/sys/vm/drop_caches", READ),
        (b"/proc/sys/fs/binfmt_misc/register", READ),
        (b"/proc/irq/1/smp_affinity", READ),
        (b"/sys/module/kvm/parameters/halt_poll_ns", READ),
        (b"/sys/devices/system/cpu/cpu0/online", READ),
        (b"/sys/bus/pci/rescan", READ),
        (b"/sys/power/state", READ),
        (b"/sys/kernel/uevent_helper", READ),
        (b"/proc/sysrq-trigger", READ),
        (b"/proc/kcore", 0),
        (b"/dev/mem", 0),
        (b"/sys/kernel/security/apparmor/.replace", 0),
        (b"/sys/kernel/debug/x", 0),
        (b"/sys/firmware/efi/efivars/x", 0),
    ] {
        assert_eq!(file.access(path) & (READ | WRITE), allowed, "{}", path.escape_ascii());
    }
}

#[test]
#[ignore = "needs apparmor_parser and libvirt's templates"]
fn libvirts_own_templates_serve_as_well() {
    let libvirts =
        std::env::var("AA_LIBVIRT_POLICY").unwrap_or_else(|_| "/etc/apparmor.d/libvirt".to_owned());
    for input in [record(&disk()), as_lxc(&record(&disk()))] {
        let file = standalone(&["--template-dir", &libvirts], &input);
        assert_eq!(file.access(DISK) & (READ | WRITE), READ | WRITE);
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn what_stands_on_disk_compiles_wherever_it_stands() {
    let tree = tempfile::tempdir().unwrap();
    let names =
        ["libvirt", "a b", "st*r", "q{a,b}[c]?", "@{HOME}", "ba\\ck", "h#sh", "co,mma", "é", "<x>", "$'"];
    for name in names {
        let dir = tree.path().join(name);
        let (status, _, err) = run_in(&dir, Path::new("/nonexistent"), &[], &record(&disk()));
        assert_eq!(status, 0, "{name}: {err}");
        let own = dir.join(format!("{PROFILE}.d"));
        fs::create_dir(&own).unwrap();
        fs::write(own.join("mine"), "  /srv/mine r,\n").unwrap();
        let file = FileDfa::of(&compile(&dir.join(PROFILE)).unwrap());
        assert_eq!(file.access(DISK) & (READ | WRITE), READ | WRITE, "{name}");
        assert_eq!(
            (file.access(b"/srv/mine"), file.access(b"/srv/all"), file.access(OTHER_DISK)),
            (READ, 0, 0)
        );
        fs::create_dir(dir.join("guests.d")).unwrap();
        fs::write(dir.join("guests.d/all"), "  /srv/all r,\n").unwrap();
        let file = FileDfa::of(&compile(&dir.join(PROFILE)).unwrap());
        assert_eq!((file.access(b"/srv/mine"), file.access(b"/srv/all")), (READ, READ), "{name}");
    }
    for name in ["q\"x", "new\nline"] {
        let dir = tree.path().join(name);
        let (status, out, err) = run_in(&dir, Path::new("/nonexistent"), &[], &record(&disk()));
        assert_eq!((status, out.as_str()), (3, ""), "{name}");
        assert!(err.contains("which no include can name"), "{err}");
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn many_profiles_on_standard_output_are_one_policy() {
    let other = "b22e3930-d87a-584e-22b2-1d8950212bac";
    for args in [&["--stdout"][..], &["--stdout", "--minimal"], &["--stdout", "--base", "/nonexistent"]] {
        let input = format!("{}{}", record(&disk()), record_of(other, "", &disk()));
        let (status, text, _) = run(args, &input);
        assert_eq!(status, 0);
        compile_text(&text).unwrap();
    }
    // Nor is what a template of the user's has at its head there twice.
    let templates = tempfile::tempdir().unwrap();
    let template = "abi <abi/3.0>,\ninclude <tunables/global>\n@{MINE}=/srv\n\nprofile LIBVIRT_TEMPLATE {\n  @{MINE}/x r,\n}\n";
    fs::write(templates.path().join("TEMPLATE.qemu"), template).unwrap();
    let args = ["--stdout", "--template-dir", templates.path().to_str().unwrap()];
    let (status, text, err) = run(&args, &format!("{}{}", record(&disk()), record_of(other, "", &disk())));
    assert_eq!(status, 0, "{err}");
    assert_eq!((text.matches("abi <").count(), text.matches("profile libvirt-").count()), (1, 2));
    compile_text(&text).unwrap();
}

#[test]
#[ignore = "needs apparmor_parser"]
fn the_additions_that_are_listed_are_those_that_the_parser_reads() {
    let place = Place::new();
    place.run(&[], &record(&disk()));
    let dir = place.file(".d");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/file"), "/sub r,\n").unwrap();
    let ends =
        ["", "~", ".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".dpkg-remove", ".pacsave", ".pacnew"];
    let names = ends.iter().chain(&[".rpmnew", ".rpmsave", ".orig", ".rej", ".bak", ".swp", ".dpkg"]);
    let names = names.map(|end| format!("a{end}")).chain([".a", "README", "README.md"].map(str::to_owned));
    for name in names.clone() {
        fs::write(dir.join(&name), format!("/read/{name} r,\n")).unwrap();
    }
    let policy = FileDfa::of(&compile(&place.file("")).unwrap());
    let (_, listed, _) = place.run(&["--diff"], &record(&disk()));
    let mut read = 0;
    for name in names {
        let is_read = policy.access(format!("/read/{name}").as_bytes()) != 0;
        let line = format!("Drop-in: {}/{name}\n", dir.display());
        assert_eq!(listed.contains(&line), is_read, "{name}: {listed}");
        read += usize::from(is_read);
    }
    assert_eq!((read, listed.lines().count()), (5, 5), "{listed}");
    // A file in the directory's place is read as well.
    fs::remove_dir_all(&dir).unwrap();
    fs::write(&dir, "/one r,\n").unwrap();
    assert_ne!(FileDfa::of(&compile(&place.file("")).unwrap()).access(b"/one"), 0);
    assert_eq!(place.run(&["--diff"], &record(&disk())).1, format!("Drop-in: {}\n", dir.display()));
}

#[test]
#[ignore = "needs apparmor_parser"]
fn grants_and_appended_rules_are_in_force() {
    let place = Place::new();
    place.run(&[], &record(&disk()));
    place.run(&["--append"], &record(&rule("/srv/second.img", "rw")));
    place.run(&["--add", "/srv/backup*.img:rw", "--reason", "backup", "--uuid", UUID], "");
    let granted = |path: &[u8]| FileDfa::of(&compile(&place.file("")).unwrap()).access(path);
    assert_eq!(granted(b"/srv/second.img"), granted(b"/srv/backup*.img"));
    assert_eq!(granted(b"/srv/second.img") & (READ | WRITE), READ | WRITE);
    assert_eq!(granted(b"/srv/backup1.img"), 0);
    place.run(&["--drop", "/srv/backup*.img", "--uuid", UUID], "");
    assert_eq!(granted(b"/srv/backup*.img"), 0);
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_denial_wins_over_what_is_allowed() {
    let rules = format!(
        "{},{}",
        disk(),
        r#"{"path":"/var/lib/libvirt/images/testqemu.img","access":"w","deny":true}"#
    );
    let file = standalone(&["--base", "/nonexistent"], &record(&rules));
    assert_eq!(file.access(DISK) & (READ | WRITE), READ);
}
