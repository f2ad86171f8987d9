use std::fs;
use std::os::unix::fs::symlink;

use aa_contract::{Derived, NoteKind, Target};

use crate::host::Files;
use crate::image::tests::qcow2;
use crate::path_policy::{DEFAULT, PathPolicy};
use crate::testing::write;
use crate::{Error, Options, Refusal};

/// A directory that stands for the host's root.
fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for dir in [
        "srv/share",
        "sys/kernel/iommu_groups/7",
        "sys/bus/pci/devices/0000:01:00.0",
        "dev/hugepages/libvirt/qemu/3-victim",
    ] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    fs::create_dir_all(root.path().join("dev/dri")).unwrap();
    for file in ["srv/a.img", "dev/dri/renderD128", "dev/dri/renderD129"] {
        fs::write(root.path().join(file), "").unwrap();
    }
    let over = qcow2(3, Some(("/srv/below", Some("raw"))), Some("/srv/data"));
    fs::write(root.path().join("srv/over.qcow2"), over).unwrap();
    fs::write(root.path().join("srv/fat.qcow2"), qcow2(3, Some(("fat:/srv/share", Some("raw"))), None))
        .unwrap();
    symlink(
        "../../../../kernel/iommu_groups/7",
        root.path().join("sys/bus/pci/devices/0000:01:00.0/iommu_group"),
    )
    .unwrap();
    for (file, text) in [("busnum", "1"), ("devnum", "2"), ("idVendor", "1d6b"), ("idProduct", "0002")] {
        write(root.path(), &format!("/sys/bus/usb/devices/1-1/{file}"), text);
    }
    root
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

fn xml(inner: &str) -> String {
    format!(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>\
         <uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid><os><type>hvm</type></os>{inner}</domain>"
    )
}

fn derive(inner: &str) -> Result<Derived, Error> {
    let root = host();
    let options = Options::new(PathPolicy::parse(DEFAULT).unwrap());
    crate::derive(xml(inner).as_bytes(), &options, &Files::new(root.path()).unwrap())
}

fn command_line(args: &[&str]) -> Result<Derived, Error> {
    let args: Vec<String> = args.iter().map(|arg| format!("<qemu:arg value='{}'/>", escape(arg))).collect();
    derive(&format!("<qemu:commandline>{}</qemu:commandline>", args.concat()))
}

/// The rules that the arguments add, as `path access`, sorted.
fn rules(args: &[&str]) -> Vec<String> {
    let derived = command_line(args).unwrap();
    derived
        .rules()
        .iter()
        .filter(|rule| {
            rule.origin.as_ref().is_some_and(|origin| origin.element.starts_with("qemu:commandline/qemu:arg"))
        })
        .map(|rule| match &rule.target {
            Target::Path(path) => format!("{path} {}", rule.access),
            Target::Glob(glob) => format!("{glob} {}", rule.access),
        })
        .collect()
}

fn notes(args: &[&str]) -> Vec<NoteKind> {
    command_line(args)
        .unwrap()
        .notes()
        .iter()
        .map(|note| note.kind)
        .filter(|kind| *kind != NoteKind::MissingFile)
        .collect()
}

/// One argument's rules and the kinds of its notes.
#[track_caller]
fn check(args: &[&str], expected: &[&str], kinds: &[NoteKind]) {
    assert_eq!(rules(args), expected, "{args:?}");
    assert_eq!(notes(args), kinds, "{args:?}");
}

/// The path is asked of the policy, and links and dots do not help.
#[track_caller]
fn refused(args: &[&str]) {
    let error = command_line(args).expect_err(&args.join(" "));
    assert!(matches!(error.kind, Refusal::Restricted { .. }), "{args:?}: {error}");
    assert!(error.pos.is_some());
}

const UNKNOWN: NoteKind = NoteKind::UnknownArgument;
const ENDS: NoteKind = NoteKind::ChainEnds;
const RUNS: NoteKind = NoteKind::NotCovered;

#[test]
fn drives() {
    check(&["-drive", "file=/srv/a.img,format=raw,if=none"], &["/srv/a.img rwk"], &[]);
    check(&["-drive", "file=/srv/a.img"], &["/srv/a.img rwk"], &[ENDS]);
    check(&["-drive", "file=/srv/a,,b,format=raw,readonly=on"], &["/srv/a,b rk"], &[]);
    check(&["-drive", "file=/srv/a.img,format=raw,readonly"], &["/srv/a.img rk"], &[]);
    check(&["-drive", "file=/srv/a.iso,media=cdrom,format=raw"], &["/srv/a.iso rk"], &[]);
    check(&["-drive", "format=raw,file=file:/srv/a.img"], &["/srv/a.img rwk"], &[]);
    check(&["-drive", "format=raw,file=nbd:unix:/run/n.sock:exportname=e"], &["/run/n.sock rw"], &[]);
    check(&["-drive", "format=raw,file=nbd+unix:///e?socket=/run/n.sock"], &["/run/n.sock rw"], &[]);
    check(&["-drive", "format=raw,file=fat:rw:/srv/share"], &["/srv/share/ r", "/srv/share/** rw"], &[]);
    let read_only = "format=raw,file=fat:rw:/srv/share,readonly=on";
    check(&["-drive", read_only], &["/srv/share/ r", "/srv/share/** r"], &[]);
    let json = r#"file=json:{"driver":"vvfat",,"dir":"/srv/share",,"rw":true},format=raw"#;
    check(&["-drive", json], &["/srv/share/ r", "/srv/share/** rw"], &[]);
    check(&["-blockdev", "driver=vvfat,dir=/srv/share,rw=on"], &["/srv/share/ r", "/srv/share/** rw"], &[]);
    let read_only = "driver=vvfat,dir=/srv/share,rw=on,read-only=on";
    check(&["-blockdev", read_only], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(&["-drive", "format=raw,file=fat:/srv/share"], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(&["-drive", "driver=raw,file.driver=file,file.filename=/srv/a.img"], &["/srv/a.img rwk"], &[]);
    check(&["-drive", "file=/srv/a.img,format=raw,snapshot=on"], &["/srv/a.img rk"], &[RUNS]);
    check(&["-drive", "file=/dev/fdset/1,format=raw"], &[], &[]);
    check(&["-drive", "file=weird:/srv/a,format=raw"], &[], &[UNKNOWN]);
    check(&["-drive", "file=/srv/a.img,format=strange"], &["/srv/a.img rwk"], &[ENDS, UNKNOWN]);
    refused(&["-drive", "file=/etc/shadow,format=raw,readonly=on"]);
    refused(&["-drive", "file=/srv/../etc/shadow,format=raw"]);
    refused(&["-drive", "file=file:/etc/shadow,format=raw"]);
    refused(&["-drive", "file=fat:/etc,format=raw"]);
    refused(&["-drive", r#"file=json:{"driver":"file",,"filename":"/etc/shadow"},format=raw"#]);
    assert!(
        command_line(&["-drive", "file=relative.img,format=raw"])
            .unwrap()
            .rules()
            .iter()
            .all(|rule| !format!("{:?}", rule.target).contains("relative"))
    );
}

#[test]
fn block_devices() {
    let file = r#"{"driver":"file","filename":"/srv/a.img","node-name":"n","read-only":true}"#;
    check(&["-blockdev", file], &["/srv/a.img rk"], &[]);
    check(&["-blockdev", "driver=file,filename=/srv/a.img,node-name=n"], &["/srv/a.img rwk"], &[]);
    check(
        &[
            "-blockdev",
            r#"{"driver":"raw","read-only":true,"file":{"driver":"file","filename":"/srv/a.img"}}"#,
        ],
        &["/srv/a.img rk"],
        &[],
    );
    check(
        &[
            "-blockdev",
            r#"{"driver":"qcow2","file":{"driver":"file","filename":"/srv/t.qcow2"},"backing":{"driver":"raw","file":{"driver":"host_device","filename":"/dev/sdx"}}}"#,
        ],
        &["/dev/sdx rk", "/srv/t.qcow2 rwk"],
        &[],
    );
    check(
        &["-blockdev", "driver=nbd,server.type=unix,server.path=/run/n.sock,export=/e"],
        &["/run/n.sock rw"],
        &[UNKNOWN],
    );
    check(&["-blockdev", r#"{"driver":"nfs","server":{"host":"h"},"path":"/etc/x"}"#], &[], &[]);
    check(&["-blockdev", "driver=vvfat,dir=/srv/share"], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(
        &["-blockdev", "driver=nvme,device=0000:01:00.0,namespace=1"],
        &["/dev/vfio/7 rw", "/dev/vfio/vfio rw"],
        &[],
    );
    check(
        &["-blockdev", "driver=throttle,file.driver=file,file.filename=/srv/a.img"],
        &["/srv/a.img rwk"],
        &[],
    );
    check(&["-blockdev", "{\"driver\""], &[], &[UNKNOWN]);
    refused(&["-blockdev", r#"{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}"#]);
    refused(&["-blockdev", "driver=raw,file.driver=file,file.filename=/etc/shadow"]);
    refused(&["-blockdev", "driver=vvfat,dir=/"]);
}

/// What the argument says of an image holds, and its header is asked for the rest.
#[test]
fn a_header_says_what_the_argument_does_not() {
    let (top, below, data) = ("/srv/over.qcow2 rwk", "/srv/below rk", "/srv/data rwk");
    let drive = |json: &str| format!("file=json:{}", json.replace(',', ",,"));
    let file = r#""file":{"driver":"file","filename":"/srv/over.qcow2"}"#;
    let other = r#"{"driver":"raw","file":{"driver":"file","filename":"/srv/a.img"}}"#;
    for (said, expected) in [
        (String::new(), vec![below, data, top]),
        (r#","backing":null"#.to_owned(), vec![data, top]),
        (format!(r#","backing":{other}"#), vec!["/srv/a.img rk", data, top]),
        (format!(r#","data-file":{other}"#), vec!["/srv/a.img rwk", below, top]),
        (format!(r#","data-file":{other},"backing":null"#), vec!["/srv/a.img rwk", top]),
    ] {
        let json = format!(r#"{{"driver":"qcow2",{file}{said}}}"#);
        check(&["-drive", &drive(&json)], &expected, &[]);
        check(&["-blockdev", &json], &expected, &[]);
    }
    let bytes = "driver=file,node-name=f,filename=/srv/over.qcow2";
    check(&["-blockdev", "driver=qcow2,file=f", "-blockdev", bytes], &[below, data, top], &[]);
    let plain = "file=/srv/over.qcow2,format=qcow2";
    check(&["-drive", plain], &[below, data, top], &[]);
    check(
        &["-drive", &format!("{plain},backing.driver=raw,backing.file.filename=/srv/a.img")],
        &["/srv/a.img rk", data, top],
        &[],
    );
    // A directory is the argument's to name, and not the header's.
    check(&["-drive", "file=/srv/fat.qcow2,format=qcow2"], &["/srv/fat.qcow2 rwk"], &[NoteKind::NotCovered]);
    refused(&["-drive", &format!("{plain},backing.file.filename=/etc/shadow")]);
}

/// The first byte of a file that is shown from another on is the guest's to write.
#[test]
fn no_header_is_read_of_a_part_of_a_file() {
    let part = r#"{"driver":"raw","offset":1048576,"file":{"driver":"file","filename":"/srv/over.qcow2"}}"#;
    let qcow2 = format!(r#"{{"driver":"qcow2","file":{part}}}"#);
    let top = ["/srv/over.qcow2 rwk"];
    check(&["-drive", &format!("file=json:{}", qcow2.replace(',', ",,"))], &top, &[ENDS]);
    check(&["-blockdev", &qcow2], &top, &[ENDS]);
    check(
        &["-drive", "file=/srv/over.qcow2,format=qcow2,file.driver=raw,file.offset=1048576"],
        &top,
        &[ENDS],
    );
    check(
        &[
            "-blockdev",
            "driver=file,node-name=f,filename=/srv/over.qcow2",
            "-blockdev",
            "driver=raw,node-name=r,offset=1048576,file=f",
            "-blockdev",
            "driver=qcow2,file=r",
        ],
        &top,
        &[ENDS],
    );
    // The same without an offset is the whole file.
    let whole = qcow2.replace("1048576", "0");
    let all = ["/srv/below rk", "/srv/data rwk", "/srv/over.qcow2 rwk"];
    check(&["-drive", &format!("file=json:{}", whole.replace(',', ",,"))], &all, &[]);
}

#[test]
fn what_is_said_of_the_file_itself_leaves_its_rule() {
    check(&["-drive", "file=/srv/a.img,format=raw,file.locking=off"], &["/srv/a.img rwk"], &[]);
    check(&["-drive", "file=/srv/a.img,format=raw,readonly=on,file.aio=native"], &["/srv/a.img rk"], &[]);
    check(
        &["-drive", "file=fat:/srv/share,format=raw,file.floppy=on"],
        &["/srv/share/ r", "/srv/share/** r"],
        &[],
    );
    // QEMU takes no two names, and what is not taken is told.
    let two = "file=/srv/a.img,format=raw,file.filename=/srv/b.img";
    check(&["-drive", two], &["/srv/a.img rwk"], &[UNKNOWN]);
    refused(&["-drive", "file=/etc/shadow,format=raw,file.locking=off"]);
}

#[test]
fn images_by_themselves() {
    for option in ["-hda", "-hdd", "-fda", "-fdb", "-sd", "-mtdblock", "-pflash"] {
        check(&[option, "/srv/a.img"], &["/srv/a.img rwk"], &[ENDS]);
        refused(&[option, "/etc/shadow"]);
    }
    check(&["-cdrom", "/srv/a.img"], &["/srv/a.img rk"], &[ENDS]);
    check(&["--cdrom", "/srv/a.img"], &["/srv/a.img rk"], &[ENDS]);
    check(&["/srv/a.img"], &["/srv/a.img rwk"], &[ENDS]);
    refused(&["/etc/shadow"]);
    refused(&["-cdrom", "/proc/kcore"]);
}

#[test]
fn a_fifo_is_no_disk() {
    let root = host();
    nix::unistd::mkfifo(&root.path().join("srv/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let options = Options::new(PathPolicy::parse(DEFAULT).unwrap());
    let xml =
        xml("<qemu:commandline><qemu:arg value='-hda'/><qemu:arg value='/srv/fifo'/></qemu:commandline>");
    let error = crate::derive(xml.as_bytes(), &options, &Files::new(root.path()).unwrap()).unwrap_err();
    assert!(matches!(error.kind, Refusal::WrongKind { .. }), "{error}");
}

#[test]
fn firmware_and_kernels() {
    for option in ["-kernel", "-initrd", "-dtb", "-shim"] {
        check(&[option, "/srv/k"], &["/srv/k r"], &[]);
        check(&[option, "/boot/k"], &["/boot/k r"], &[]);
        refused(&[option, "/etc/shadow"]);
    }
    check(&["-initrd", "/srv/a x=1,/srv/b"], &["/srv/a r", "/srv/b r"], &[]);
    check(&["-bios", "/usr/share/seabios/b.bin"], &["/usr/share/seabios/b.bin r"], &[]);
    check(&["-bios", "OVMF.fd"], &[], &[]);
    check(&["-option-rom", "/srv/r.rom,bootindex=1"], &["/srv/r.rom r"], &[]);
    check(&["-fw_cfg", "name=opt/x,file=/srv/ignition,,1.json"], &["/srv/ignition,1.json r"], &[]);
    check(&["-fw_cfg", "opt/x,file=/srv/i.json"], &["/srv/i.json r"], &[]);
    check(&["-fw_cfg", "name=opt/x,string=/not/a/path"], &[], &[]);
    check(&["-smbios", "type=11,path=/srv/s"], &["/srv/s r"], &[]);
    check(&["-smbios", "file=/srv/s"], &["/srv/s r"], &[]);
    check(&["-acpitable", "sig=SLIC,data=/srv/a:/srv/b"], &["/srv/a r", "/srv/b r"], &[]);
    check(&["-machine", "q35,kernel=/srv/k"], &["/srv/k r"], &[]);
    check(&["-L", "/srv/share"], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(&["-boot", "menu=on,splash=/srv/s.bmp"], &["/srv/s.bmp r"], &[]);
    for (option, value) in [
        ("-fw_cfg", "name=opt/x,file=/etc/shadow"),
        ("-smbios", "file=/etc/shadow"),
        ("-acpitable", "data=/srv/a:/etc/shadow"),
        ("-bios", "/etc/shadow"),
        ("-L", "/etc"),
        ("-boot", "splash=/etc/shadow"),
    ] {
        assert!(command_line(&[option, value]).is_err(), "{option} {value}");
    }
}

#[test]
fn objects() {
    check(
        &["-object", "memory-backend-file,id=m,size=1G,mem-path=/dev/shm/m,share=on"],
        &["/dev/shm/m rw"],
        &[],
    );
    check(
        &["-object", "memory-backend-file,id=m,size=1G,mem-path=/dev/hugepages"],
        &["/dev/hugepages/qemu_back_mem.* rw"],
        &[],
    );
    assert!(command_line(&["-object", "memory-backend-file,mem-path=/"]).is_err());
    check(&["-mem-path", "/dev/hugepages"], &["/dev/hugepages/qemu_back_mem.* rw"], &[]);
    check(&["-object", "memory-backend-file,id=m,mem-path=/srv/m,readonly=on"], &["/srv/m r"], &[]);
    check(&["-object", r#"{"qom-type":"rng-random","id":"r"}"#], &["/dev/urandom r"], &[]);
    check(&["-object", "rng-random,id=r,filename=/dev/hwrng"], &["/dev/hwrng r"], &[]);
    check(&["-object", "secret,id=s,file=/srv/s"], &["/srv/s r"], &[]);
    check(&["-object", "secret,id=s,data=x"], &[], &[]);
    check(&["-object", "tls-creds-x509,id=t,dir=/srv/share"], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(&["-object", "filter-dump,id=f,netdev=n,file=/srv/f.pcap"], &["/srv/f.pcap w"], &[]);
    check(&["-object", "input-linux,id=i,evdev=/dev/input/event3"], &["/dev/input/event3 rw"], &[]);
    check(&["-object", "sev-guest,id=s,session-file=/srv/s"], &["/dev/sev rw", "/srv/s r"], &[]);
    check(&["-object", "iommufd,id=i"], &["/dev/iommu rw"], &[]);
    check(&["-object", "iommufd,id=i,fd=3"], &[], &[]);
    check(&["-object", "iothread,id=i"], &[], &[]);
    check(&["-object", "strange,id=i,file=/srv/x"], &[], &[UNKNOWN]);
    check(&["-object", "iothread,id=i,log=/srv/x"], &[], &[UNKNOWN]);
    for value in [
        "memory-backend-file,mem-path=/etc/shadow",
        "memory-backend-file,mem-path=/dev/mem",
        "memory-backend-file,mem-path=/etc",
        "memory-backend-file,mem-path=/dev/hugepages/libvirt/qemu",
        "memory-backend-file,mem-path=/dev/hugepages/libvirt/qemu/3-victim",
        "secret,file=/etc/shadow",
        "rng-random,filename=/dev/mem",
        "tls-creds-x509,dir=/etc",
        r#"{"qom-type":"secret","file":"/etc/shadow"}"#,
    ] {
        refused(&["-object", value]);
    }
}

#[test]
fn character_devices() {
    check(&["-chardev", "socket,id=c,path=/srv/c.sock,server=on"], &["/srv/c.sock rw"], &[]);
    check(&["-chardev", "socket,id=c,path=/c,abstract=on"], &[], &[]);
    check(&["-chardev", "socket,id=c,host=h,port=1"], &[], &[]);
    check(&["-chardev", "file,id=c,path=/srv/c"], &["/srv/c w"], &[]);
    check(&["-chardev", "file,id=c,path=/srv/c,append=on"], &["/srv/c w"], &[]);
    check(&["-chardev", "pipe,id=c,path=/srv/c"], &["/srv/c rw", "/srv/c.in rw", "/srv/c.out rw"], &[]);
    check(&["-chardev", "null,id=c,logfile=/srv/l,logappend=on"], &["/srv/l w"], &[]);
    check(&["-chardev", "null,id=c,logfile=/srv/l"], &["/srv/l w"], &[]);
    check(&["-chardev", "serial,id=c,path=/dev/ttyS0"], &["/dev/ttyS0 rw"], &[]);
    check(&["-chardev", "pty,id=c"], &[], &[]);
    check(&["-chardev", "strange,id=c,path=/srv/c"], &[], &[UNKNOWN, UNKNOWN]);
    check(&["-serial", "unix:/srv/s,server=on,wait=off"], &["/srv/s rw"], &[]);
    check(&["-serial", "file:/srv/s"], &["/srv/s w"], &[]);
    check(&["-monitor", "unix:/srv/m,server,nowait"], &["/srv/m rw"], &[]);
    check(&["-qmp", "tcp:localhost:1,server=on"], &[], &[]);
    check(&["-serial", "mon:stdio"], &[], &[]);
    check(&["-parallel", "/dev/parport0"], &["/dev/parport0 rw"], &[]);
    check(&["-serial", "strange"], &[], &[UNKNOWN]);
    // A relative path is no rule, in whatever form it stands.
    for (option, value) in [
        ("-chardev", "socket,id=c,path=rel"),
        ("-chardev", "file,id=c,path=rel"),
        ("-chardev", "pipe,id=c,path=rel"),
        ("-serial", "unix:rel,server=on"),
        ("-serial", "file:rel"),
        ("-serial", "pipe:rel"),
        ("-incoming", "unix:rel"),
        ("-incoming", "file:rel"),
        ("-vnc", "unix:rel"),
        ("-acpitable", "data=rel"),
        ("-drive", "file=nbd:unix:rel,format=raw"),
        ("-blockdev", "driver=nbd,path=rel"),
    ] {
        check(&[option, value], &[], &[RUNS]);
    }
    check(&["-incoming", "unix:/srv/i"], &["/srv/i rw"], &[]);
    check(&["-incoming", "file:/srv/i,offset=1"], &["/srv/i r"], &[]);
    check(&["-incoming", "exec:cat /srv/i"], &[], &[RUNS]);
    check(&["-incoming", "defer"], &[], &[]);
    check(
        &[
            "-incoming",
            r#"{"channel-type":"main","addr":{"transport":"socket","type":"unix","path":"/srv/i"}}"#,
        ],
        &["/srv/i rw"],
        &[],
    );
    for (option, value) in [
        ("-chardev", "socket,path=/etc/x"),
        ("-chardev", "file,path=/etc/passwd"),
        ("-chardev", "null,logfile=/etc/passwd"),
        ("-serial", "file:/etc/passwd"),
        ("-serial", "pipe:/etc/x"),
        ("-qmp", "unix:/run/libvirt/libvirt-sock"),
        ("-monitor", "unix:/var/lib/libvirt/qemu/domain-9-other/monitor.sock"),
        ("-incoming", "file:/etc/shadow"),
    ] {
        refused(&[option, value]);
    }
}

#[test]
fn devices() {
    check(&["-device", "virtio-net-pci,romfile=/srv/r.rom"], &["/srv/r.rom r"], &[]);
    check(&["-device", "e1000,romfile="], &[], &[]);
    check(&["-device", "e1000,romfile=efi-e1000.rom"], &[], &[]);
    check(&["-device", "loader,file=/srv/l,addr=0x1000"], &["/srv/l r"], &[]);
    check(&["-device", "vfio-pci,host=01:00.0"], &["/dev/vfio/7 rw", "/dev/vfio/vfio rw"], &[]);
    check(
        &["-device", r#"{"driver":"vfio-pci","sysfsdev":"/sys/bus/pci/devices/0000:01:00.0"}"#],
        &["/dev/vfio/7 rw", "/dev/vfio/vfio rw"],
        &[],
    );
    check(&["-device", "vfio-pci,host=02:00.0"], &[], &[NoteKind::MissingDevice]);
    check(&["-device", "vfio-pci,host=../../x"], &[], &[UNKNOWN]);
    check(&["-device", "vfio-pci,sysfsdev=/srv"], &[], &[NoteKind::MissingDevice]);
    check(&["-device", "usb-host,hostbus=1,hostaddr=2"], &["/dev/bus/usb/001/002 rw"], &[]);
    check(&["-device", "usb-host,hostbus=1,hostaddr=3"], &[], &[NoteKind::MissingDevice]);
    check(&["-device", "usb-host,hostbus=0,hostaddr=0"], &[], &[RUNS]);
    check(&["-device", "usb-host,vendorid=0x1d6b,productid=0x2"], &["/dev/bus/usb/001/002 rw"], &[]);
    check(&["-device", "usb-host,vendorid=0x1,productid=0x2"], &[], &[NoteKind::MissingDevice]);
    let other = "usb-host,hostbus=1,hostaddr=2,vendorid=0x1,productid=0x2";
    check(&["-device", other], &[], &[NoteKind::MissingDevice]);
    check(&["-device", "usb-mtp,rootdir=/srv/share"], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(&["-device", "usb-mtp,rootdir=/srv/share,readonly=on"], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(
        &["-device", "usb-mtp,rootdir=/srv/share,readonly=off"],
        &["/srv/share/ r", "/srv/share/** rw"],
        &[],
    );
    check(&["-device", "vhost-vsock-pci,guest-cid=3"], &["/dev/vhost-vsock rw"], &[]);
    check(&["-device", "vhost-vsock-pci,guest-cid=3,vhostfd=5"], &[], &[]);
    check(&["-device", "virtio-input-host-pci,evdev=/dev/input/event1"], &["/dev/input/event1 rw"], &[]);
    check(&["-device", "ich9-ahci,id=sata"], &[], &[]);
    check(&["-device", "strange,firmware=/srv/x"], &[], &[UNKNOWN]);
    refused(&["-device", "virtio-net-pci,romfile=/etc/shadow"]);
    refused(&["-device", "loader,file=/etc/shadow"]);
    refused(&["-device", r#"{"driver":"virtio-input-host-pci","evdev":"/dev/mem"}"#]);
}

#[test]
fn networks_shares_and_tpms() {
    check(&["-netdev", "tap,id=n,fd=3"], &[], &[]);
    check(&["-netdev", "tap,id=n,script=no,vhost=on"], &["/dev/net/tun rw", "/dev/vhost-net rw"], &[]);
    check(&["-netdev", "tap,id=n,script=/srv/up"], &["/dev/net/tun rw"], &[RUNS]);
    check(&["-netdev", "tap,id=n,fd=3,vhost=on,vhostfd=4"], &[], &[]);
    check(&["-netdev", "vhost-user,id=n,chardev=c"], &[], &[]);
    check(&["-netdev", "vhost-vdpa,id=n,vhostdev=/dev/vhost-vdpa-0"], &["/dev/vhost-vdpa-0 rw"], &[]);
    check(&["-netdev", "user,id=n,tftp=/srv/share"], &["/srv/share/ r", "/srv/share/** r"], &[]);
    check(&["-netdev", "user,id=n,smb=/srv/share"], &[], &[RUNS]);
    check(&["-netdev", "stream,id=n,addr.type=unix,addr.path=/srv/n"], &["/srv/n rw"], &[]);
    check(&["-netdev", "l2tpv3,id=n,src=1,dst=2"], &[], &[]);
    check(&["-netdev", "strange,id=n"], &[], &[UNKNOWN]);
    check(
        &["-virtfs", "local,path=/srv/share,mount_tag=t,security_model=none"],
        &["/srv/share/ r", "/srv/share/** rwkl"],
        &[],
    );
    check(
        &["-fsdev", "local,id=f,path=/srv/share,security_model=none,readonly=on"],
        &["/srv/share/ r", "/srv/share/** r"],
        &[],
    );
    check(
        &["-tpmdev", "passthrough,id=t,path=/dev/tpm1,cancel-path=/srv/c"],
        &["/dev/tpm1 rw", "/srv/c w"],
        &[],
    );
    check(&["-tpmdev", "passthrough,id=t"], &["/dev/tpm0 rw"], &[RUNS]);
    check(&["-tpmdev", "emulator,id=t,chardev=c"], &[], &[]);
    for (option, value) in [
        ("-netdev", "user,id=n,tftp=/etc"),
        ("-netdev", "stream,id=n,addr.path=/run/libvirt/libvirt-sock"),
        ("-fsdev", "local,path=/etc"),
        ("-fsdev", "local,path=/"),
        ("-virtfs", "local,path=/usr,readonly=on"),
        ("-tpmdev", "passthrough,path=/dev/mem"),
    ] {
        refused(&[option, value]);
    }
}

#[test]
fn displays_sound_and_logs() {
    check(&["-vnc", "unix:/srv/v,password=on"], &["/srv/v rw"], &[]);
    check(&["-vnc", ":1"], &[], &[]);
    check(&["-spice", "unix=on,addr=/srv/s"], &["/srv/s rw"], &[]);
    check(&["-spice", "port=1,addr=127.0.0.1,x509-key-file=/srv/k"], &["/srv/k r"], &[]);
    check(&["-display", "dbus,addr=unix:path=/run/x"], &["/run/x rw"], &[]);
    check(&["-audiodev", "wav,id=a,path=/srv/a.wav"], &["/srv/a.wav w"], &[]);
    check(&["-audiodev", "pa,id=a,server=unix:/run/pulse"], &["/run/pulse rw"], &[]);
    check(&["-audiodev", "pa,id=a,server=host"], &[], &[]);
    check(&["-D", "/srv/l"], &["/srv/l w"], &[]);
    check(&["-pidfile", "/srv/p"], &["/srv/p rwk"], &[]);
    check(&["-trace", "events=/srv/e,file=/srv/t"], &["/srv/e r", "/srv/t w"], &[]);
    check(&["-icount", "shift=auto,rr=record,rrfile=/srv/r"], &["/srv/r rwk"], &[]);
    check(&["-plugin", "/srv/p.so,arg=1"], &["/srv/p.so rm"], &[]);
    for (option, value) in [
        ("-vnc", "unix:/etc/v"),
        ("-spice", "unix=on,addr=/etc/x"),
        ("-D", "/etc/passwd"),
        ("-audiodev", "wav,path=/etc/passwd"),
        ("-plugin", "/usr/lib/x.so"),
        ("-pidfile", "/run/libvirt/qemu/driver.pid"),
    ] {
        refused(&[option, value]);
    }
}

#[test]
fn what_renders_by_gl_has_the_libraries_and_a_node() {
    let has = |args: &[&str], path: &str| rules(args).iter().any(|rule| rule == path);
    for args in [
        ["-display", "egl-headless"],
        ["-display", "gtk,gl=on"],
        ["-spice", "gl=on"],
        ["-device", "virtio-vga-gl"],
    ] {
        assert!(has(&args, "/dev/dri/ r"), "{args:?}");
        // A device renders on the node of its display.
        assert_eq!(has(&args, "/dev/dri/renderD128 rw"), args[0] != "-device", "{args:?}");
    }
    let named = ["-display", "egl-headless,rendernode=/dev/dri/renderD129"];
    assert!(has(&named, "/dev/dri/renderD129 rw") && !has(&named, "/dev/dri/renderD128 rw"));
    for args in [["-display", "gtk"], ["-display", "gtk,gl=off"], ["-device", "virtio-vga"]] {
        assert_eq!(rules(&args), [""; 0], "{args:?}");
    }
    refused(&["-display", "egl-headless,rendernode=/etc/shadow"]);
}

#[test]
fn what_is_not_understood_is_a_note() {
    check(&["-nodefaults", "-S", "-name", "x"], &[], &[]);
    check(&["-unknown"], &[], &[UNKNOWN]);
    check(&["-unknown", "parameter"], &[], &[UNKNOWN]);
    // Its value is not taken for a disk, and what follows is read on.
    check(&["-unknown", "/etc/shadow", "-kernel", "/srv/k"], &["/srv/k r"], &[UNKNOWN]);
    check(&["-unknown", "-kernel", "/srv/k"], &["/srv/k r"], &[UNKNOWN]);
    check(&["-kernel"], &[], &[UNKNOWN]);
    check(&["@/srv/args"], &[], &[UNKNOWN]);
    check(&["-readconfig", "/srv/c"], &["/srv/c r"], &[UNKNOWN]);
    check(&["-global", "driver=x,property=y,value=/srv/x"], &[], &[UNKNOWN]);
    check(&["-global", "kvm-pit.lost_tick_policy=delay"], &[], &[]);
    check(&["-snapshot"], &[], &[RUNS]);
    let inner = "<qemu:commandline><qemu:env name='A' value='/srv/x'/><qemu:env name='B' value='c'/>\
                 <qemu:env name='C'/></qemu:commandline>\
                 <qemu:override><qemu:device alias='net0'><qemu:frontend>\
                 <qemu:property name='romfile' type='string' value='/srv/r'/></qemu:frontend></qemu:device></qemu:override>";
    let kinds: Vec<NoteKind> = derive(inner).unwrap().notes().iter().map(|note| note.kind).collect();
    assert_eq!(kinds, [RUNS, UNKNOWN]);
}

#[test]
fn another_namespace_is_not_libvirts() {
    let inner = "<x:commandline xmlns:x='urn:x'><x:arg value='-kernel'/><x:arg value='/srv/k'/></x:commandline>\
                 <commandline><arg value='-kernel'/><arg value='/srv/k'/></commandline>";
    let derived = derive(inner).unwrap();
    assert!(
        derived
            .rules()
            .iter()
            .all(|rule| !matches!(&rule.target, Target::Path(path) if path.as_str() == "/srv/k"))
    );
}

#[test]
fn patterns_in_paths_stay_literal() {
    assert_eq!(rules(&["-kernel", "/srv/*{,**}\""]), ["/srv/*{,**}\" r"]);
    assert_eq!(rules(&["-fsdev", "local,path=/srv/a*"]), ["/srv/a*/ r", "/srv/a\\052/** rwkl"]);
}

/// Each level is a call of its own: twenty thousand were more than the stack holds.
#[test]
fn nodes_nest_only_so_deep() {
    let deep = |levels: usize, end: &str| format!("{}{end}", "file.".repeat(levels));
    check(&["-drive", &deep(15, "filename=/srv/a.img")], &["/srv/a.img rwk"], &[]);
    check(&["-blockdev", &deep(3, "filename=/srv/a.img")], &["/srv/a.img rwk"], &[]);
    for levels in [17, 20_000] {
        check(&["-drive", &deep(levels, "driver=null-co")], &[], &[UNKNOWN]);
        check(&["-blockdev", &format!("{{\"{}\":\"null-co\"}}", deep(levels, "driver"))], &[], &[UNKNOWN]);
    }
    // What is too deep is no rule, and where it names a file that is said as well.
    check(&["-drive", &deep(17, "filename=/srv/a.img")], &[], &[UNKNOWN, UNKNOWN]);
}

/// When each server was looked for among all of them, so many took a minute.
#[test]
fn very_many_servers_are_no_matter() {
    let servers = vec![r#"{"type":"unix"}"#; 80_000].join(",");
    let nbd = format!(r#"{{"driver":"nbd","server":[{servers},{{"type":"unix","path":"/run/nbd"}}]}}"#);
    check(&["-blockdev", &nbd], &["/run/nbd rw"], &[]);
    refused(&["-blockdev", &nbd.replace("/run/nbd", "/etc/nbd")]);
}

/// A device of the host is granted the same, whether an element or an argument hands it over, and whatever sysfs shows.
#[test]
fn devices_by_vfio_are_the_same_by_arguments() {
    let root = tempfile::tempdir().unwrap();
    let rules = |inner: &str| {
        let options = Options::new(PathPolicy::parse(DEFAULT).unwrap());
        let record =
            crate::derive(xml(inner).as_bytes(), &options, &Files::new(root.path()).unwrap()).unwrap();
        let kinds: Vec<NoteKind> = record.notes().iter().map(|note| note.kind).collect();
        let rules: Vec<String> =
            record.rules().iter().map(|rule| format!("{} {}", rule.target, rule.access)).collect();
        (rules, kinds)
    };
    let same = || {
        let driver = "<driver name='vfio' iommufd='yes'/>";
        let address = "<address domain='0' bus='6' slot='0x12' function='5'/>";
        let by_element = rules(&format!(
            "<devices><hostdev mode='subsystem' type='pci'>{driver}<source>{address}</source></hostdev></devices>"
        ));
        for device in ["host=06:12.5", "host=0000:06:12.5", "sysfsdev=/sys/bus/pci/devices/0000:06:12.5"] {
            let by_argument = rules(&format!(
                "<qemu:commandline><qemu:arg value='-object'/><qemu:arg value='iommufd,id=i'/>\
                 <qemu:arg value='-device'/><qemu:arg value='vfio-pci,{device},iommufd=i'/></qemu:commandline>"
            ));
            let without_iommu = |rules: &[String]| -> Vec<String> {
                rules.iter().filter(|rule| !rule.starts_with("/dev/iommu ")).cloned().collect()
            };
            assert_eq!(without_iommu(&by_argument.0), without_iommu(&by_element.0), "{device}");
            assert_eq!(by_argument.1, by_element.1, "{device}");
        }
        by_element.0
    };
    // No sysfs: every group; sysfs without the device: none; with its node and without a group: its node.
    assert!(same().contains(&"/dev/vfio/[0-9]* rw".to_owned()));
    write(root.path(), "/sys/bus/pci/devices/0000:00:01.0/vendor", "");
    assert!(!same().iter().any(|rule| rule.starts_with("/dev/vfio/")));
    write(root.path(), "/sys/bus/pci/devices/0000:06:12.5/vfio-dev/vfio3/dev", "");
    assert!(same().contains(&"/dev/vfio/devices/vfio3 rw".to_owned()));
}
