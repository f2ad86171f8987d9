//! Guests to measure with, alike for both sides: domain XML as libvirtd hands it over, and the images it names.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A guest.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) uuid: String,
    pub(crate) xml: PathBuf,
}

impl Guest {
    /// The name of its profile.
    pub(crate) fn profile(&self) -> String {
        format!("libvirt-{}", self.uuid)
    }
}

/// Writes guest number `number` with these disks into `dir`.
pub(crate) fn write(dir: &Path, number: usize, disks: &[PathBuf]) -> Result<Guest> {
    let uuid = format!("{number:08x}-d87a-584e-22b2-1d8950212bac");
    let xml = dir.join(format!("{number:08}.xml"));
    fs::write(&xml, text(number, &uuid, disks))?;
    Ok(Guest { uuid, xml })
}

/// A plain server: disks, a CD drive, a network card, a serial line, an agent's channel, VNC, a source of entropy.
fn text(number: usize, uuid: &str, disks: &[PathBuf]) -> String {
    let mut text = format!(
        "<domain type='kvm' id='{id}'>
  <name>bench-{number}</name>
  <uuid>{uuid}</uuid>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <resource><partition>/machine</partition></resource>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough' check='none' migratable='on'/>
  <clock offset='utc'>
    <timer name='rtc' tickpolicy='catchup'/>
    <timer name='pit' tickpolicy='delay'/>
    <timer name='hpet' present='no'/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
",
        id = number % 1_000_000 + 1
    );
    for (index, disk) in disks.iter().enumerate() {
        let format =
            if disk.extension().is_some_and(|extension| extension == "qcow2") { "qcow2" } else { "raw" };
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}' discard='unmap'/>
      <source file='{}'/>
      <target dev='sd{}' bus='scsi'/>
    </disk>
",
            disk.display(),
            letters(index)
        );
    }
    text.push_str(
        "    <disk type='file' device='cdrom'>
      <driver name='qemu'/>
      <target dev='hda' bus='sata'/>
      <readonly/>
    </disk>
    <controller type='scsi' index='0' model='virtio-scsi'/>
    <controller type='usb' index='0' model='qemu-xhci' ports='15'/>
    <controller type='pci' index='0' model='pcie-root'/>
    <interface type='bridge'>
      <mac address='52:54:00:11:22:33'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'>
      <target type='isa-serial' port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <input type='tablet' bus='usb'/>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'>
      <listen type='address' address='127.0.0.1'/>
    </graphics>
    <video>
      <model type='virtio' heads='1' primary='yes'/>
    </video>
    <memballoon model='virtio'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>
",
    );
    text
}

/// The end of a disk's name: a to z, aa to az and so on.
fn letters(index: usize) -> String {
    let letter = u8::try_from(index % 26).map_or('a', |offset| char::from(b'a' + offset));
    if index < 26 { letter.to_string() } else { format!("{}{letter}", letters(index / 26 - 1)) }
}

/// Images in a chain: each but the last names the next as its backing file. The names of all, the top first.
pub(crate) fn chain(dir: &Path, name: &str, depth: usize) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let names: Vec<PathBuf> = (1..=depth)
        .map(|layer| {
            dir.join(if layer == 1 { format!("{name}.qcow2") } else { format!("{name}.{layer}.qcow2") })
        })
        .collect();
    for (layer, path) in names.iter().enumerate() {
        fs::write(path, qcow2(names.get(layer + 1).map(PathBuf::as_path)))?;
    }
    Ok(names)
}

/// The header of a qcow2 image (QEMU, docs/interop/qcow2.txt), version 2, of 1 GiB; it is all that anybody reads.
fn qcow2(backing: Option<&Path>) -> Vec<u8> {
    const HEADER: u32 = 72;
    const FORMAT: u32 = 0xe279_2aca;
    let name = backing.map(|path| path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let extension: &[u8] = if backing.is_some() { b"qcow2\0\0\0" } else { b"" };
    // An extension's head and text, and the end of extensions.
    let extensions = if backing.is_some() { 8 + 8 + 8 } else { 8 };
    let mut image = b"QFI\xfb".to_vec();
    image.extend(2_u32.to_be_bytes());
    let offset = if backing.is_some() { u64::from(HEADER + extensions) } else { 0 };
    image.extend(offset.to_be_bytes());
    image.extend(u32::try_from(name.len()).unwrap_or_default().to_be_bytes());
    image.extend(16_u32.to_be_bytes());
    image.extend((1_u64 << 30).to_be_bytes());
    // No encryption, one level-1 entry, and tables behind the first cluster.
    image.extend(0_u32.to_be_bytes());
    image.extend(2_u32.to_be_bytes());
    image.extend(0x3_0000_u64.to_be_bytes());
    image.extend(0x1_0000_u64.to_be_bytes());
    image.extend(1_u32.to_be_bytes());
    image.extend(0_u32.to_be_bytes());
    image.extend(0_u64.to_be_bytes());
    if backing.is_some() {
        image.extend(FORMAT.to_be_bytes());
        image.extend(5_u32.to_be_bytes());
        image.extend(extension);
    }
    image.extend([0; 8]);
    image.extend(name);
    image.resize(image.len().max(1024), 0);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_disks_go_on_after_z() {
        let names: Vec<String> = [0, 25, 26, 51, 52, 701, 702].map(letters).into();
        assert_eq!(names, ["a", "z", "aa", "az", "ba", "zz", "aaa"]);
    }

    #[test]
    fn a_chain_names_the_next_image_where_the_header_says() {
        let dir = tempfile::tempdir().unwrap();
        let chain = chain(dir.path(), "x", 3).unwrap();
        assert_eq!(chain.len(), 3);
        let top = fs::read(&chain[0]).unwrap();
        let number =
            |at: usize| usize::try_from(u32::from_be_bytes(top[at..at + 4].try_into().unwrap())).unwrap();
        let (offset, length) = (number(12), number(16));
        assert_eq!(&top[offset..offset + length], chain[1].as_os_str().as_encoded_bytes());
        assert_eq!(&fs::read(&chain[2]).unwrap()[8..20], [0; 12]);
    }
}
