//! aa-derive when the system fails it. It writes nothing but its output: one whole record or none.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use aa_tests::strace::{self, Fault, in_each_call_and_look};
use serde_json::Value;

use crate::tools::{derive, output, testqemu, tool};

/// Judges an output: empty, or the record; and the status must say which.
fn check(what: &str, status: Option<i32>, stdout: &str, stderr: &str, record: &str) {
    assert!(stdout.is_empty() || stdout == record, "{what}: {stdout}");
    match status {
        Some(0) => assert_eq!(stdout, record, "{what}"),
        // 127: not even its libraries could be loaded.
        Some(status) => {
            assert!([1, 3, 127].contains(&status) && !stderr.is_empty(), "{what}: {status} {stderr}");
        }
        None => {}
    }
}

/// Whether a record that was written in spite of a fault says so: a note that the undisturbed one has not, wherever a rule is missing
/// or another than there.
fn is_told(record: &str, undisturbed: &str) -> bool {
    let [record, undisturbed] =
        [record, undisturbed].map(|text| serde_json::from_str::<Value>(text).unwrap());
    let notes = |record: &Value| record["notes"].as_array().cloned().unwrap_or_default();
    let known = notes(&undisturbed);
    notes(&record).iter().any(|note| !known.contains(note))
        || ["rules", "uses"].iter().all(|key| record.get(key) == undisturbed.get(key))
}

/// Derives `xml` with each fault in each call, also in those that only look. What is written is the undisturbed record, or one that
/// says in a note what could not be seen.
fn in_every_call(derive: &Command, xml: &str) {
    let record = strace::run(derive, None, xml).stdout;
    assert!(record.ends_with("}\n"));
    let errors = ["EIO", "ENOMEM", "EINTR", "ENOSPC"].map(Fault::Error);
    for fault in errors.into_iter().chain(["TERM", "KILL"].map(Fault::Signal)) {
        let hits = in_each_call_and_look(fault, |expression| {
            let run = strace::run(derive, expression, xml);
            let is_whole = run.status == Some(0) && run.stdout.ends_with("}\n");
            if !is_whole || !is_told(&run.stdout, &record) {
                check(&format!("{fault:?} {expression:?}"), run.status, &run.stdout, &run.stderr, &record);
            }
            run
        });
        assert!(hits > 20, "{fault:?}: only {hits} faults");
    }
}

#[test]
#[ignore = "needs strace"]
fn a_fault_in_any_call_gives_a_whole_record_or_none() {
    in_every_call(&derive(), &testqemu());
}

/// An overlay on an overlay on a raw image, each read in the header of the one above it.
#[test]
#[ignore = "needs strace and qemu-img"]
fn a_fault_while_headers_are_read_loses_no_image_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
    let [raw, base, top] = ["raw.img", "base.qcow2", "top.qcow2"].map(at);
    let create = |arguments: &[&str]| {
        output(Command::new("qemu-img").args(["create", "-q", "-f"]).args(arguments), "");
    };
    create(&["raw", &raw, "1M"]);
    create(&["qcow2", "-b", &raw, "-F", "raw", &base]);
    create(&["qcow2", "-b", &base, "-F", "qcow2", &top]);
    let xml = testqemu().replace(
        "<source file='/var/lib/libvirt/images/testqemu.img'/>",
        &format!("<driver type='qcow2'/><source file='{top}'/>"),
    );
    let record = output(&mut tool("aa-derive"), &xml);
    for image in [&raw, &base, &top] {
        assert!(record.contains(&format!("{{\"path\":\"{image}\"")), "{image}: {record}");
    }
    in_every_call(&tool("aa-derive"), &xml);
    // Before Linux 5.6, and under a filter that does not know it, there is no openat2(2).
    for error in ["ENOSYS", "EPERM"] {
        let run = strace::run(&tool("aa-derive"), [format!("inject=openat2:error={error}").as_str()], &xml);
        assert!(run.was_hit(), "{error}");
        assert_eq!((run.status, run.stdout.as_str()), (Some(0), record.as_str()), "{error}: {}", run.stderr);
    }
}

/// Devices whose nodes the host tells: a PCI card, a USB device by its product, a render node, huge pages, a macvtap.
#[test]
#[ignore = "needs strace"]
fn a_fault_while_the_host_is_looked_at_loses_no_device_in_silence() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let card = "sys/devices/pci0000:00/0000:00:02.0";
    for file in ["config", "resource0", "rom", "vfio-dev/vfio0/dev"] {
        write(&format!("{card}/{file}"), "");
    }
    fs::create_dir_all(root.path().join("sys/kernel/iommu_groups/7")).unwrap();
    fs::create_dir_all(root.path().join("sys/bus/pci/devices")).unwrap();
    symlink("../../../kernel/iommu_groups/7", root.path().join(card).join("iommu_group")).unwrap();
    symlink("../../../devices/pci0000:00/0000:00:02.0", root.path().join("sys/bus/pci/devices/0000:00:02.0"))
        .unwrap();
    for (file, text) in [("busnum", "1"), ("devnum", "5"), ("idVendor", "1234"), ("idProduct", "abcd")] {
        write(&format!("sys/bus/usb/devices/1-1/{file}"), text);
    }
    write("sys/class/net/macvtap0/ifindex", "9");
    write("dev/dri/renderD128", "");
    write("proc/mounts", "none /hugepages hugetlbfs rw 0 0\n");
    let xml = testqemu()
        .replace("<os>", "<memoryBacking><hugepages/></memoryBacking><os>")
        .replace(
            "</devices>",
            "<hostdev mode='subsystem' type='pci'><driver iommufd='yes'/><source><address domain='0' bus='0' slot='2' function='0'/></source></hostdev>\
             <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xabcd'/></source></hostdev>\
             <graphics type='egl-headless'/>\
             <interface type='direct'><source dev='eth0'/><target dev='macvtap0'/></interface></devices>",
        );
    let mut derive = tool("aa-derive");
    derive.arg("--root").arg(root.path());
    let record = output(&mut derive, &xml);
    for path in [
        "/dev/vfio/7",
        "/dev/vfio/devices/vfio0",
        "/sys/devices/pci0000:00/0000:00:02.0/config",
        "/dev/bus/usb/001/005",
        "/dev/dri/renderD128",
        "/hugepages/libvirt/qemu/3-testqemu/{,**}",
        "/dev/tap9",
    ] {
        assert!(record.contains(&format!("\"{path}\"")), "{path}: {record}");
    }
    in_every_call(&derive, &xml);
}

#[test]
fn out_of_memory_it_gives_a_whole_record_or_none() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/domains/testqemu.xml");
    let derive = |limit: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit} exec \"$@\""), "sh"]);
        command.arg(tool("aa-derive").get_program()).arg(fixture).stdin(Stdio::null()).output().unwrap()
    };
    let record = String::from_utf8(derive("").stdout).unwrap();
    let mut failed = 0;
    for kib in (1024..).step_by(256) {
        let output = derive(&format!("ulimit -v {kib} &&"));
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        check(&format!("{kib} KiB"), output.status.code(), &stdout, &stderr, &record);
        if output.status.success() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 2, "only {failed} limits were too small");
}
