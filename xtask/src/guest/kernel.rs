//! The ELF kernel inside a bzImage.
//!
//! QEMU starts an ELF kernel with a PVH note directly: no firmware loader, and no decompression under
//! emulation. Offsets are from the kernel's Documentation/arch/x86/boot.rst.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Takes the ELF kernel out of a bzImage; the compression must be xz or zstd, as Debian's are.
///
/// # Errors
/// The image is not one, is compressed otherwise, or the decompressor fails.
pub(crate) fn unpack(image: &[u8]) -> Result<Vec<u8>> {
    let word = |offset: usize| -> Result<usize> {
        let bytes = image
            .get(offset..)
            .and_then(|rest| rest.first_chunk::<4>())
            .context("the kernel image is cut off")?;
        Ok(usize::try_from(u32::from_le_bytes(*bytes))?)
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("the kernel image has no setup header");
    }
    let setup_sectors = usize::from(*image.get(0x1f1).context("the kernel image is cut off")?);
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    let payload = image.get(start..start + word(0x24c)?).context("the kernel's payload is cut off")?;
    // The payload ends in four bytes of its own: the size of what it unpacks to.
    let (mut program, payload) = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let mut xz = Command::new("xz");
            xz.args(["--decompress", "--stdout", "--single-stream"]);
            (xz, payload)
        }
        [0x28, 0xb5, 0x2f, 0xfd, stream @ .., _, _, _, _] => {
            let mut zstd = Command::new("zstd");
            zstd.args(["--decompress", "--stdout", "--quiet"]);
            (zstd, payload.get(..stream.len() + 4).unwrap_or(payload))
        }
        _ => bail!("the kernel is compressed neither with xz nor with zstd"),
    };
    let output = process::filter(&mut program, payload)?;
    if !output.stdout.starts_with(b"\x7fELF") {
        bail!("{} gave no ELF kernel: {}", process::shown(&program), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
