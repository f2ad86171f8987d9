//! Which documents a run is about: files, walked directories, standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aa_contract::text::strip_os_code;
use aa_derive::xml::MAX_BYTES;
use walkdir::WalkDir;

/// One document to read.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// Standard input.
    Stdin,
    /// A file that the call names.
    Named(PathBuf),
    /// A file found in a directory, where other documents than domains may lie beside.
    Found(PathBuf),
}

impl Input {
    /// The name to print before a place.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            Self::Named(path) | Self::Found(path) => path.to_string_lossy().into_owned(),
        }
    }

    /// Reads it, up to one byte over the limit, so that what is too large is seen to be.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Stdin => bounded(io::stdin().lock()),
            Self::Named(path) | Self::Found(path) => bounded(File::open(path)?),
        }
    }
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    // A usual domain in one read.
    let mut bytes = Vec::with_capacity(16 << 10);
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The documents that one argument stands for, in a stable order. Nothing but the argument itself
/// is looked at before the first is asked for.
pub(crate) fn inputs(argument: &Path) -> Box<dyn Iterator<Item = io::Result<Input>>> {
    if argument.as_os_str() == "-" {
        return Box::new(std::iter::once(Ok(Input::Stdin)));
    }
    if !argument.is_dir() {
        return Box::new(std::iter::once(Ok(Input::Named(argument.to_owned()))));
    }
    let walk = WalkDir::new(argument).follow_links(false).sort_by_file_name();
    Box::new(walk.into_iter().filter_map(|entry| {
        match entry {
            Ok(entry) => (entry.file_type().is_file()
                && entry.path().extension().is_some_and(|ext| ext == "xml"))
            .then(|| Ok(Input::Found(entry.into_path()))),
            Err(error) => Some(Err(unreadable(error))),
        }
    }))
}

/// What kept a directory from being walked, with its name.
fn unreadable(error: walkdir::Error) -> io::Error {
    match (error.path(), error.io_error()) {
        (Some(path), Some(source)) => {
            io::Error::other(format!("{}: {}", path.display(), strip_os_code(source)))
        }
        _ => error.into(),
    }
}
