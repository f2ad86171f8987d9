//! The guest's root file system and kernel, made once from packages and kept in target/guest/SUITE.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::cpio::{Attributes, Writer};
use super::{Suite, kernel, packages};
use crate::report::say;
use crate::{process, workspace};

/// Counts up with every change to what this module makes of the same packages.
const BUILDER: u32 = 1;

/// Left out of the image: nothing in a test needs it, and the kernel unpacks all of it at every boot.
const DROPPED: &[&str] = &[
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/locale/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/bash-completion/",
    "usr/share/zsh/",
    "usr/share/icons/",
    "usr/share/perl/",
    "usr/share/i18n/",
    "usr/share/iso-codes/",
    "usr/share/xml/",
    "usr/share/X11/locale/",
    "usr/share/vulkan/",
    "usr/share/gdb/",
    "usr/lib/udev/hwdb.d/",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/gconv/",
    "usr/bin/perl",
    "usr/bin/qemu-system-i386",
    "boot/",
];

/// Kernel modules that are kept; every boot does without, a case loads those that it needs.
const MODULES: &[&str] = &[
    // network cards
    "bridge",
    "dummy",
    "llc",
    "macvlan",
    "macvtap",
    "stp",
    "tap",
    "tun",
    "veth",
    "vhost",
    "vhost_iotlb",
    "vhost_net",
    // sockets between host and guest
    "vhost_vsock",
    "vmw_vsock_virtio_transport_common",
    "vsock",
    // KVM, on the processor that QEMU emulates
    "ccp",
    "irqbypass",
    "kvm",
    "kvm-amd",
    // block devices
    "loop",
    // sound
    "snd",
    "snd-dummy",
    "snd-pcm",
    "snd-timer",
    "soundcore",
    // input devices
    "evdev",
    "hid",
    "hid-generic",
    "usbhid",
    // a USB device without hardware, and those of the machine
    "configfs",
    "dummy_hcd",
    "libcomposite",
    "udc-core",
    "usb-common",
    "usb_f_ss_lb",
    "usbcore",
    "xhci-hcd",
    "xhci-pci",
    // VFIO
    "vfio",
    "vfio-pci",
    "vfio-pci-core",
    "vfio_iommu_type1",
    "vfio_virqfd",
    // a render node without hardware
    "drm",
    "drm_kms_helper",
    "drm_shmem_helper",
    "vgem",
    // containers
    "fuse",
];

/// A guest's kernel and root file system.
#[derive(Debug)]
pub(crate) struct Image {
    /// ELF kernel.
    pub(crate) kernel: PathBuf,
    /// The root file system: a newc archive.
    pub(crate) root: PathBuf,
}

/// The image of a suite: the one that is kept, or a new one.
///
/// `refresh` makes a new one from the packages that are current now.
///
/// # Errors
/// The packages cannot be had, or the disk is full.
pub(crate) fn image(suite: Suite, refresh: bool) -> Result<Image> {
    let dir = workspace::scratch(&format!("guest/{}", suite.name()))?;
    // Two tasks at once must not make the same image.
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    let kept = dir.join(format!("image-{}", key(suite)));
    if refresh || !kept.is_dir() {
        let started = std::time::Instant::now();
        say!("{}: making the guest's image (once)", suite.name())?;
        let debs = packages::fetch(suite, &dir.join("apt"))?;
        let new = dir.join("image.new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir(&new)?;
        build(&debs, &new)?;
        for old in fs::read_dir(&dir)? {
            let old = old?.path();
            if old.file_name().is_some_and(|name| name.to_string_lossy().starts_with("image-")) {
                fs::remove_dir_all(old)?;
            }
        }
        fs::rename(&new, &kept)?;
        say!("{}: {} packages in {} s", suite.name(), debs.len(), started.elapsed().as_secs())?;
    }
    Ok(Image { kernel: kept.join("vmlinux"), root: kept.join("root.cpio") })
}

/// What decides whether a kept image is the one that would be made, but for newer versions of packages.
fn key(suite: Suite) -> String {
    let mut hash = Sha256::new();
    hash.update(BUILDER.to_le_bytes());
    for word in packages::wanted(suite).chain(DROPPED.iter().chain(MODULES).copied()) {
        hash.update(word);
        hash.update([0]);
    }
    for (path, text) in FILES {
        hash.update(path);
        hash.update([0]);
        hash.update(text);
    }
    let mut key = format!("{:x}", hash.finalize());
    key.truncate(12);
    key
}

fn build(debs: &[PathBuf], dir: &Path) -> Result<()> {
    let root = File::create(dir.join("root.cpio"))?;
    let mut archive = Writer::new(BufWriter::with_capacity(1 << 20, root));
    base(&mut archive)?;
    let mut vmlinuz = None;
    unpacked(debs, |deb, data| {
        merge(&mut archive, &data, &mut vmlinuz).with_context(|| format!("cannot merge {}", deb.display()))
    })?;
    made(&mut archive)?;
    archive.finish()?;
    let vmlinuz = vmlinuz.context("no package had a kernel")?;
    fs::write(dir.join("vmlinux"), kernel::unpack(&vmlinuz)?)?;
    let mut list = File::create(dir.join("packages.txt"))?;
    for deb in debs {
        writeln!(list, "{}", deb.file_name().unwrap_or_default().to_string_lossy())?;
    }
    Ok(())
}

/// Gives each package's data archive to `merge`, in order, while the next ones are being decompressed.
fn unpacked(debs: &[PathBuf], mut merge: impl FnMut(&Path, Vec<u8>) -> Result<()>) -> Result<()> {
    const WORKERS: usize = 2;
    std::thread::scope(|scope| {
        let mut queues = Vec::new();
        for worker in 0..WORKERS {
            let (sender, queue) = mpsc::sync_channel(4);
            queues.push(queue);
            scope.spawn(move || {
                for deb in debs.iter().skip(worker).step_by(WORKERS) {
                    let data = process::output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb));
                    if sender.send(data).is_err() {
                        break;
                    }
                }
            });
        }
        for (deb, queue) in debs.iter().zip(queues.iter().cycle()) {
            merge(deb, queue.recv().context("a decompressing thread ended")??)?;
        }
        Ok(())
    })
}

/// The layout that must be there before any package: merged /usr, and /var's links into /run, which
/// base-files ships as directories.
fn base(archive: &mut Writer<impl Write>) -> Result<()> {
    for top in ["bin", "sbin", "lib", "lib64"] {
        archive.directory(&format!("usr/{top}"), Attributes::root(0o755))?;
        archive.symlink(top, &format!("usr/{top}"))?;
    }
    archive.symlink("var/run", "/run")?;
    archive.symlink("var/lock", "/run/lock")?;
    for dir in ["proc", "sys", "dev", "run", "root", "tmp"] {
        archive.directory(dir, Attributes::root(0o755))?;
    }
    Ok(())
}

/// Copies one package's data archive, and takes the kernel out of it.
fn merge(archive: &mut Writer<impl Write>, data: &[u8], vmlinuz: &mut Option<Vec<u8>>) -> Result<()> {
    let mut tar = tar::Archive::new(data);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_str().context("a path is not UTF-8")?.to_owned();
        let path = merged(&path);
        if path.starts_with("boot/vmlinuz-") {
            let mut kernel = Vec::new();
            entry.read_to_end(&mut kernel)?;
            *vmlinuz = Some(kernel);
            continue;
        }
        if matches!(path.as_str(), "" | "bin" | "sbin" | "lib" | "lib64" | "var/run" | "var/lock")
            || is_dropped(&path)
        {
            continue;
        }
        let header = entry.header();
        let kind = header.entry_type();
        let attributes = Attributes {
            mode: header.mode()? & 0o7777,
            uid: u32::try_from(header.uid()?)?,
            gid: u32::try_from(header.gid()?)?,
            mtime: u32::try_from(header.mtime()?).unwrap_or(0),
        };
        match kind {
            EntryType::Directory => archive.directory(path.trim_end_matches('/'), attributes)?,
            EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                archive.file(&path, attributes, &content)?;
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name()?.context("a link has no target")?;
                let target = target.to_str().context("a link's target is not UTF-8")?;
                if kind == EntryType::Symlink {
                    archive.symlink(&path, target)?;
                } else {
                    // A second name for one file: as a link it serves here just as well.
                    archive.symlink(&path, &format!("/{}", merged(target)))?;
                }
            }
            other => bail!("{path} is of a kind that is not handled: {other:?}"),
        }
    }
    Ok(())
}

/// Whether this file of a package is left out.
fn is_dropped(path: &str) -> bool {
    if path.starts_with("usr/lib/modules/") {
        let name = path.rsplit('/').next().unwrap_or_default();
        return !name.split('.').next().is_some_and(|module| MODULES.contains(&module));
    }
    DROPPED.iter().any(|dropped| path.starts_with(dropped))
}

/// A path of a package, below the root, with merged /usr.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_start_matches('/').trim_end_matches('/');
    for top in ["bin/", "sbin/", "lib/", "lib64/"] {
        if path.starts_with(top) {
            return format!("usr/{path}");
        }
    }
    path.to_owned()
}

/// What the packages' maintainer scripts would make, as far as it is needed.
fn made(archive: &mut Writer<impl Write>) -> Result<()> {
    for (path, text) in FILES {
        archive.file(path, Attributes::root(0o644), text.as_bytes())?;
    }
    for (path, target) in [("usr/bin/awk", "gawk"), ("usr/bin/sh", "dash"), ("etc/mtab", "/proc/self/mounts")]
    {
        archive.symlink(path, target)?;
    }
    for dir in
        ["var/lib/libvirt/images", "var/log/libvirt/qemu", "var/lib/libvirt/qemu", "var/cache/apparmor"]
    {
        archive.directory(dir, Attributes::root(0o755))?;
    }
    Ok(())
}

/// Files of the image. Accounts have the numbers that Debian's libvirt packages give them; the three files
/// below local/ are included without «if exists» by the profiles of Debian 12.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
         messagebus:x:100:100::/nonexistent:/usr/sbin/nologin\n\
         libvirt-dnsmasq:x:101:101::/var/lib/libvirt/dnsmasq:/usr/sbin/nologin\n\
         swtpm:x:102:102::/var/lib/swtpm:/usr/sbin/nologin\n\
         tss:x:103:103::/var/lib/tpm:/usr/sbin/nologin\n\
         libvirt-qemu:x:64055:994:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin\n\
         user:x:1000:1000:An ordinary user:/home/user:/bin/bash\n",
    ),
    (
        "etc/group",
        "root:x:0:\ntty:x:5:\ndisk:x:6:\nnogroup:x:65534:\nmessagebus:x:100:\nlibvirt-dnsmasq:x:101:\nswtpm:x:102:\n\
         tss:x:103:\nkvm:x:994:\nlibvirt:x:995:\nlibvirt-qemu:x:64055:libvirt-qemu\nuser:x:1000:\n",
    ),
    ("etc/shadow", "root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("etc/hosts", "127.0.0.1 localhost guest\n"),
    ("etc/hostname", "guest\n"),
    ("etc/machine-id", "6f2d3c1be0e44d5e9a3b7a1f5c0d9e11\n"),
    ("etc/apparmor.d/local/usr.sbin.libvirtd", ""),
    ("etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper", ""),
    ("etc/apparmor.d/local/abstractions/libvirt-qemu", ""),
    ("etc/apparmor.d/local/abstractions/libvirt-lxc", ""),
    // A dpkg that knows of no package.
    ("var/lib/dpkg/status", ""),
    ("var/lib/dpkg/available", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_modules_only_those_named_are_kept() {
        let module = |name: &str| format!("usr/lib/modules/6.1.0-56-amd64/kernel/drivers/net/{name}");
        assert!(!is_dropped(&module("tun.ko")) && !is_dropped(&module("tun.ko.xz")));
        assert!(is_dropped(&module("tunnel.ko")) && is_dropped("usr/share/doc/apt/copyright"));
        assert!(!is_dropped("usr/lib/modules-load.d/modules.conf"));
    }
}
