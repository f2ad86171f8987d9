//! What a container may mount by this project's own policy, by what the parser makes of its rules.

use std::collections::BTreeSet;

use aa_tests::compiled::{allows_mount, compile_text};
use nix::mount::MsFlags;

use crate::tools::{derive, output, render_whole};

const LXC: &str = "<domain type='lxc' id='2'><name>container</name><uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid>\
    <os><type arch='x86_64'>exe</type><init>/sbin/init</init></os>\
    <devices><filesystem type='mount'><source dir='/srv/container'/><target dir='/'/></filesystem></devices></domain>";

fn container() -> Vec<u8> {
    let record = output(&mut derive(), LXC);
    compile_text(output(&mut render_whole(), &record)).unwrap()
}

const OWN: [&str; 11] = [
    "cgroup",
    "cgroup2",
    "devpts",
    "devtmpfs",
    "hugetlbfs",
    "mqueue",
    "overlay",
    "proc",
    "ramfs",
    "sysfs",
    "tmpfs",
];
const OTHERS: [&str; 43] = [
    "9p",
    "apparmorfs",
    "autofs",
    "bcachefs",
    "binder",
    "binfmt_misc",
    "bpf",
    "btrfs",
    "ceph",
    "cifs",
    "coda",
    "configfs",
    "cramfs",
    "debugfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext4",
    "f2fs",
    "fuse",
    "fuse.x",
    "fuseblk",
    "gfs2",
    "hfs",
    "iso9660",
    "minix",
    "nfs",
    "nfs4",
    "ntfs3",
    "ocfs2",
    "pstore",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "squashfs",
    "sysv",
    "tracefs",
    "udf",
    "vfat",
    "virtiofs",
    "xfs",
];

/// Names that are nearly one of a container's own: cut short, with another letter somewhere, or with one more.
fn neighbours() -> BTreeSet<String> {
    let of = |kind: &str| {
        let letters: Vec<char> = kind.chars().collect();
        let cut = (1..letters.len()).map(|length| letters.iter().take(length).collect());
        let other = (0..letters.len()).map(|at| {
            let changed =
                letters.iter().enumerate().map(|(index, letter)| if index == at { &'X' } else { letter });
            changed.collect()
        });
        let more = ["x", "2", "22", ".x"].map(|more| format!("{kind}{more}"));
        cut.chain(other).chain(more).collect::<Vec<_>>()
    };
    let mut names: BTreeSet<String> = OWN.into_iter().flat_map(of).collect();
    names.retain(|name| !OWN.contains(&name.as_str()));
    names
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_container_mounts_its_own_kinds_and_no_other() {
    let container = container();
    let none = MsFlags::empty();
    let plain = [
        none,
        MsFlags::MS_RDONLY,
        MsFlags::MS_NOSUID,
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
    ];
    // A profile that may mount anything: what is denied is denied by the rules.
    let any = compile_text("profile x {\n  mount,\n}\n").unwrap();
    for flags in plain.map(|flags| u32::try_from(flags.bits()).unwrap()) {
        for kind in OWN {
            assert!(allows_mount(&container, "/mnt/", "none", kind, flags), "{kind} {flags:#x}");
        }
        for kind in OTHERS {
            assert!(!allows_mount(&container, "/mnt/", "/dev/vda", kind, flags), "{kind} {flags:#x}");
            assert!(allows_mount(&any, "/mnt/", "/dev/vda", kind, flags), "{kind} {flags:#x}");
        }
    }
    for kind in neighbours() {
        assert!(!allows_mount(&container, "/mnt/", "none", &kind, 0), "{kind}");
    }
}

#[test]
#[ignore = "needs apparmor_parser"]
fn a_container_binds_and_remounts_and_moves_nothing() {
    let container = container();
    let allows = |source: &str, flags: MsFlags| {
        allows_mount(&container, "/mnt/", source, "", u32::try_from(flags.bits()).unwrap())
    };
    let (bind, remount, read_only) = (MsFlags::MS_BIND, MsFlags::MS_REMOUNT, MsFlags::MS_RDONLY);
    for flags in [bind, bind | MsFlags::MS_REC] {
        assert!(allows("/srv/", flags), "{flags:?}");
    }
    for flags in [
        remount,
        remount | read_only,
        remount | read_only | bind,
        MsFlags::MS_PRIVATE,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
    ] {
        assert!(allows("", flags), "{flags:?}");
    }
    assert!(!allows("/srv/", MsFlags::MS_MOVE));
    assert!(!allows("", remount | MsFlags::MS_NOSUID));
}
