use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::host::Files;

/// Files below a directory that stands for the host's root.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(self, path: &str, text: &str) -> Self {
        let file = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        let link = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, link).unwrap();
        self
    }

    fn resolve(&self, pool: &str, volume: &str) -> Result<String, VolumeError> {
        let mut pools = Pools::default();
        pools.add(Path::new("pool.xml"), pool.as_bytes()).unwrap();
        let volume = pools.resolve("p", volume, &Files::new(self.0.path()).unwrap())?;
        Ok(format!("{:?} {}", volume.kind, volume.path.map_or_else(String::new, |path| path.to_string())))
    }
}

fn pool(kind: &str, source: &str, target: &str) -> String {
    let target =
        if target.is_empty() { String::new() } else { format!("<target><path>{target}</path></target>") };
    format!("<pool type='{kind}'><name>p</name><source>{source}</source>{target}</pool>")
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside results")]
fn ok(text: &str) -> Result<String, VolumeError> {
    Ok(text.to_owned())
}

#[test]
fn directory_pools_hold_files_block_devices_and_directories() {
    let tree = Tree::new().file("/srv/images/a.img", "").file("/srv/images/ploop/root.hds", "");
    for kind in ["dir", "fs", "netfs", "vstorage"] {
        let pool = pool(kind, "", "/srv/images");
        assert_eq!(tree.resolve(&pool, "a.img"), ok("File /srv/images/a.img"));
        assert_eq!(tree.resolve(&pool, "new.img"), ok("File /srv/images/new.img"));
        assert_eq!(tree.resolve(&pool, "ploop"), ok("Dir /srv/images/ploop"));
    }
    assert_eq!(tree.resolve(&pool("dir", "", ""), "a"), Err(VolumeError::Incomplete("target path")));
}

#[test]
fn a_volume_stays_in_its_pool() {
    let tree = Tree::new();
    for name in ["", ".", "..", "../etc/shadow", "a/b", "/etc/shadow", "a\nb", "a\u{7f}"] {
        for kind in ["dir", "logical", "rbd", "zfs"] {
            let pool = pool(kind, "<name>g</name>", "/srv/images");
            assert_eq!(tree.resolve(&pool, name), Err(VolumeError::Name), "{kind} {name:?}");
        }
    }
    // Dots that lead nowhere are a name like any other, and so are the characters of patterns.
    let pool = pool("dir", "", "/srv");
    assert_eq!(tree.resolve(&pool, "a..b"), ok("File /srv/a..b"));
    assert_eq!(tree.resolve(&pool, "*"), ok("File /srv/*"));
}

#[test]
fn logical_and_zfs_volumes() {
    let tree = Tree::new();
    assert_eq!(tree.resolve(&pool("logical", "<name>vg</name>", "/dev/vg"), "lv"), ok("Block /dev/vg/lv"));
    assert_eq!(tree.resolve(&pool("logical", "<name>vg</name>", ""), "lv"), ok("Block /dev/vg/lv"));
    assert_eq!(tree.resolve(&pool("zfs", "<name>tank/vm</name>", ""), "v"), ok("Block /dev/zvol/tank/vm/v"));
    assert!(tree.resolve(&pool("zfs", "<name>../..</name>", ""), "v").is_err());
    assert!(tree.resolve(&pool("zfs", "", ""), "v").is_err());
}

#[test]
fn partitions_are_those_of_the_pools_disk() {
    let tree = Tree::new().link("/dev/disk/by-id/x", "../../sda").file("/dev/sda", "");
    let disk = |device: &str| pool("disk", &format!("<device path='{device}'/>"), "/dev");
    assert_eq!(tree.resolve(&disk("/dev/sda"), "sda1"), ok("Block /dev/sda1"));
    assert_eq!(tree.resolve(&disk("/dev/disk/by-id/x"), "sda12"), ok("Block /dev/sda12"));
    assert_eq!(tree.resolve(&disk("/dev/nvme0n1"), "nvme0n1p1"), ok("Block /dev/nvme0n1p1"));
    assert_eq!(tree.resolve(&disk("/dev/mapper/m"), "m-part1"), ok("Block /dev/mapper/m-part1"));
    assert_eq!(tree.resolve(&disk("/dev/mapper/m"), "mp1"), ok("Block /dev/mapper/mp1"));
    for (device, volume) in [
        ("/dev/sda", "sda"),
        ("/dev/sda", "sdb1"),
        ("/dev/sda", "sdaa1"),
        ("/dev/sda", "sda1x"),
        ("/dev/nvme0n1", "nvme0n12"),
        ("/dev/", "mem1"),
    ] {
        assert!(
            matches!(tree.resolve(&disk(device), volume), Err(VolumeError::Form(_))),
            "{device} {volume}"
        );
    }
    assert!(tree.resolve(&pool("disk", "", "/dev"), "sda1").is_err());
}

#[test]
fn iscsi_units_by_their_links() {
    let tree = Tree::new()
        .link("/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.2013-06.com.x:t-lun-1", "../../sdb")
        .link("/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.2013-06.com.x:t-lun-1-part1", "../../sdb1")
        .link("/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.2013-06.com.x:t-lun-2", "../../sdc")
        .link("/dev/disk/by-path/ip-10.0.0.2:3260-iscsi-iqn.2013-06.com.x:t-lun-2", "../../sdd");
    let iscsi = |host: &str| {
        pool(
            "iscsi",
            &format!("<host name='{host}'/><device path='iqn.2013-06.com.x:t'/>"),
            "/dev/disk/by-path",
        )
    };
    assert_eq!(
        tree.resolve(&iscsi("san"), "unit:0:0:1"),
        ok("Block /dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.2013-06.com.x:t-lun-1")
    );
    assert_eq!(
        tree.resolve(&iscsi("10.0.0.2"), "unit:0:0:2"),
        ok("Block /dev/disk/by-path/ip-10.0.0.2:3260-iscsi-iqn.2013-06.com.x:t-lun-2")
    );
    assert!(tree.resolve(&iscsi("san"), "unit:0:0:2").is_err());
    assert!(tree.resolve(&iscsi("san"), "unit:0:0:3").is_err());
    for bad in ["unit:0:0", "unit:0:0:1:2", "unit:0:0:-1", "unit:0:0:+1", "0:0:1", "unit:0:0:x"] {
        assert!(matches!(tree.resolve(&iscsi("san"), bad), Err(VolumeError::Form(_))), "{bad}");
    }
    assert_eq!(tree.resolve(&pool("iscsi-direct", "", ""), "unit:0:0:1"), ok("Network "));
}

#[test]
fn scsi_units_by_sysfs() {
    let tree = Tree::new()
        .file("/sys/bus/scsi/devices/5:0:1:2/block/sdq/dev", "")
        .file("/sys/bus/scsi/devices/6:0:0:0/block/sdr/dev", "")
        .file("/sys/class/fc_host/host5/node_name", "0x20000000C9831B4B\n")
        .file("/sys/class/fc_host/host5/port_name", "0x10000000c9831b4b\n")
        .file("/sys/devices/pci0000:00/0000:00:1f.2/ata1/host6/scsi_host/host6/unique_id", "1\n")
        .file("/sys/devices/pci0000:00/0000:00:1f.2/ata2/host7/scsi_host/host7/unique_id", "2\n")
        .link(
            "/sys/class/scsi_host/host6",
            "../../devices/pci0000:00/0000:00:1f.2/ata1/host6/scsi_host/host6",
        )
        .link(
            "/sys/class/scsi_host/host7",
            "../../devices/pci0000:00/0000:00:1f.2/ata2/host7/scsi_host/host7",
        );
    let resolve = |adapter: &str, volume| tree.resolve(&pool("scsi", adapter, "/dev/disk/by-path"), volume);
    assert_eq!(resolve("<adapter type='scsi_host' name='scsi_host5'/>", "unit:0:1:2"), ok("Block /dev/sdq"));
    assert_eq!(resolve("<adapter name='host5'/>", "unit:0:1:2"), ok("Block /dev/sdq"));
    let fibre = "<adapter type='fc_host' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>";
    assert_eq!(resolve(fibre, "unit:0:1:2"), ok("Block /dev/sdq"));
    let parent = |id: &str| {
        format!(
            "<adapter type='scsi_host'><parentaddr unique_id='{id}'>\
             <address domain='0x0000' bus='0x00' slot='0x1f' function='0x2'/></parentaddr></adapter>"
        )
    };
    assert_eq!(resolve(&parent("1"), "unit:0:0:0"), ok("Block /dev/sdr"));
    // Numbers are as in a domain: of three bases.
    let decimal = parent("1").replace("0x1f", "31").replace("0x00", "00");
    assert_eq!(resolve(&decimal, "unit:0:0:0"), ok("Block /dev/sdr"));
    assert!(resolve(&parent("1").replace("0x1f", "1f"), "unit:0:0:0").is_err());
    assert!(resolve(&parent("2"), "unit:0:0:0").is_err());
    assert!(resolve(&parent("3"), "unit:0:0:0").is_err());
    assert!(resolve("<adapter name='host5'/>", "unit:0:1:3").is_err());
    assert!(resolve("<adapter name='eth0'/>", "unit:0:1:2").is_err());
    assert!(resolve("", "unit:0:1:2").is_err());
}

#[test]
fn multipath_devices_and_no_others() {
    let tree = Tree::new()
        .file("/sys/block/dm-3/dm/uuid", "mpath-3600a0b80\n")
        .file("/sys/block/dm-0/dm/uuid", "LVM-abcdef\n");
    let pool = pool("mpath", "", "/dev/mapper");
    assert_eq!(tree.resolve(&pool, "dm-3"), ok("Block /dev/dm-3"));
    for other in ["dm-0", "dm-9", "control", "dm-", "dm-3x"] {
        assert!(tree.resolve(&pool, other).is_err(), "{other}");
    }
}

#[test]
fn network_volumes_have_no_path_and_unknown_types_no_volume() {
    let tree = Tree::new();
    for kind in ["rbd", "gluster", "sheepdog"] {
        assert_eq!(tree.resolve(&pool(kind, "<name>x</name>", ""), "v"), ok("Network "));
    }
    assert_eq!(tree.resolve(&pool("tape", "", "/srv"), "v"), Err(VolumeError::Type("tape".to_owned())));
    assert!(matches!(
        Pools::default().resolve("none", "v", &Files::new("/").unwrap()),
        Err(VolumeError::UnknownPool)
    ));
}

#[test]
fn definitions_and_state_are_read_from_files_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    let definition = pool("dir", "", "/srv");
    write("etc/p.xml", &definition);
    write("etc/notes.txt", "not XML");
    write("run/p.xml", &format!("<poolstate>{definition}</poolstate>"));
    fs::create_dir(dir.path().join("etc/autostart")).unwrap();
    symlink("../p.xml", dir.path().join("etc/autostart/p.xml")).unwrap();
    let pools = Pools::load(&[dir.path().join("etc"), dir.path().join("run/p.xml")]).unwrap();
    assert!(pools.resolve("p", "v", &Files::new("/").unwrap()).is_ok());

    // Another pool of that name: which of the two runs cannot be known.
    write("other.xml", &pool("dir", "", "/elsewhere"));
    let error = Pools::load(&[dir.path().join("etc"), dir.path().join("other.xml")]).unwrap_err();
    assert!(error.to_string().ends_with("other.xml:1:1: pool \"p\" is already defined in another way"));
    assert_eq!(error.exit(), Exit::Refused);
}

#[test]
fn a_bad_file_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, message) in [
        ("a.xml", "<pool type='dir'>\n<name>x</pool>", ":2:8: "),
        ("b.xml", "<domain/>", ":1:1: the root element is <domain>, not <pool>"),
        ("c.xml", "<pool><name>c</name></pool>", ":1:1: the pool has no type"),
        ("d.xml", "<pool type='dir'/>", ":1:1: the pool has no name"),
        ("e.xml", "<poolstate/>", ":1:1: the root element is <poolstate>, not <pool>"),
        (
            "f.xml",
            "<pool type='dir'><name>f</name>\n<target><path>../x</path></target></pool>",
            ":2:9: target path: \"../x\" is not an absolute path",
        ),
        ("g.xml", "<!DOCTYPE a><pool/>", ":1:1: a document type declaration is not allowed"),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let error = Pools::load(&[file]).unwrap_err();
        assert!(error.to_string().contains(&format!("{name}{message}")), "{error}");
        assert_eq!(error.exit(), Exit::Refused);
    }
    assert_eq!(Pools::load(&[dir.path().join("none.xml")]).unwrap_err().exit(), Exit::Host);
    // A FIFO must not make it wait.
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(Pools::load(&[fifo]).unwrap_err().exit(), Exit::Host);
}
