//! The thread's own AppArmor attributes, `/proc/thread-self/attr/apparmor/{current,exec}`.
//!
//! The kernel lets a thread write only its own attributes, and a file that was opened under other
//! credentials refuses the write. Interface: the kernel's `apparmor_setprocattr`, and
//! Documentation/admin-guide/LSM/index.rst for the directory `attr/apparmor`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::fcntl::OFlag;
use nix::sys::statfs::PROC_SUPER_MAGIC;

use crate::label::Label;
use crate::mount::{Kind, Mount};
use crate::{Error, Method, Moment};

/// The root directory of a procfs has inode 1 (`PROC_ROOT_INO`).
const PROCFS: Kind = Kind { name: "procfs", magic: PROC_SUPER_MAGIC, root_inode: Some(1) };
/// Longest label read: a stack of a few names of at most a page each is far below it.
const MAX_LABEL: usize = 64 * 1024;

/// A proven procfs.
#[derive(Debug)]
pub(crate) struct ProcAttr {
    proc: Mount,
}

/// A change to ask the kernel for.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) method: Method,
    pub(crate) moment: Moment,
    /// As the kernel is to read it.
    pub(crate) name: String,
}

/// What an attribute reads.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) label: Label,
    /// The same as it was read, for messages.
    pub(crate) text: String,
}

impl ProcAttr {
    /// Opens /proc, and proves that it is the root of a procfs.
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self { proc: Mount::of_root("/proc", "proc", PROCFS)? })
    }

    /// What confines this thread now.
    pub(crate) fn current(&self) -> Result<Label, Error> {
        let (file, place) = self.attribute("current", OFlag::O_RDONLY)?;
        Ok(read_label(&file, &place)?.label)
    }

    /// Asks for the change, and reads back what came of it through the same open file.
    pub(crate) fn change(&self, write: Write, before: &Label) -> Result<Found, Error> {
        let attribute = match write.moment {
            Moment::OnExec => "exec",
            Moment::Now => "current",
        };
        let (file, place) = self.attribute(attribute, OFlag::O_RDWR)?;
        let command = write.command();
        match file.write_at(command.as_bytes(), 0) {
            Ok(written) if written == command.len() => read_label(&file, &place),
            Ok(_) => Err(Error::ShortWrite { place }),
            Err(source) => Err(Error::from_write(write, place, source, before)),
        }
    }

    /// Opens an attribute of this thread. Kernels before 5.8 have no directory of AppArmor's own;
    /// there, and only there, the directory shared by all security modules serves.
    fn attribute(&self, name: &str, flags: OFlag) -> Result<(File, String), Error> {
        let mut place = String::new();
        for directory in ["attr/apparmor", "attr"] {
            let path = format!("thread-self/{directory}/{name}");
            place = self.proc.name(&path);
            if let Some(file) = self.proc.open(&path, flags)? {
                return Ok((file, place));
            }
        }
        Err(Error::NoAttribute { place })
    }
}

impl Write {
    /// What the caller's profile must name in a `change_profile` rule to allow this.
    pub(crate) fn rule_target(&self) -> String {
        match self.method {
            Method::Stack => format!("&{}", self.name),
            Method::Replace => self.name.clone(),
        }
    }

    fn command(&self) -> String {
        let verb = match (self.method, self.moment) {
            (Method::Stack, _) => "stack",
            (Method::Replace, Moment::OnExec) => "exec",
            (Method::Replace, Moment::Now) => "changeprofile",
        };
        format!("{verb} {}", self.name)
    }
}

fn read_label(file: &File, place: &str) -> Result<Found, Error> {
    let not_read = |source| Error::NotReadBack { place: place.to_owned(), source };
    let mut bytes = vec![0; MAX_LABEL];
    let mut length = 0;
    while let Some(free) = bytes.get_mut(length..).filter(|free| !free.is_empty()) {
        match file.read_at(free, length as u64).map_err(not_read)? {
            0 => break,
            read => length += read,
        }
    }
    bytes.truncate(length);
    let text = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
    let label =
        std::str::from_utf8(&bytes).ok().filter(|_| length < MAX_LABEL).and_then(|text| text.parse().ok());
    match label {
        Some(label) => Ok(Found { label, text }),
        None => Err(Error::NotLabel { place: place.to_owned(), text }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// A tree like /proc's; the files are plain ones, so a write stays in them as it is.
    fn tree(root: &Path, files: &[(&str, &str)]) -> ProcAttr {
        symlink("7/task/7", root.join("thread-self")).unwrap();
        for (path, text) in files {
            let file = root.join("7/task/7").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        ProcAttr { proc: Mount::of_test(root) }
    }

    fn write(method: Method, moment: Moment) -> Write {
        Write { method, moment, name: "vm".to_owned() }
    }

    fn unconfined() -> Label {
        "unconfined".parse().unwrap()
    }

    #[test]
    fn each_change_is_one_command_in_one_attribute() {
        for (method, moment, attribute, command) in [
            (Method::Replace, Moment::OnExec, "exec", "exec vm"),
            (Method::Replace, Moment::Now, "current", "changeprofile vm"),
            (Method::Stack, Moment::OnExec, "exec", "stack vm"),
            (Method::Stack, Moment::Now, "current", "stack vm"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let files = [
                ("attr/apparmor/exec", ""),
                ("attr/apparmor/current", ""),
                ("attr/exec", ""),
                ("attr/current", ""),
            ];
            let attributes = tree(root.path(), &files);
            // A file that keeps what was written reads back the command, which is not the label.
            let found = attributes.change(write(method, moment), &unconfined()).unwrap();
            assert_eq!(found.text, command);
            for (path, _) in files {
                let expected = if path == format!("attr/apparmor/{attribute}") { command } else { "" };
                assert_eq!(
                    fs::read_to_string(root.path().join("thread-self").join(path)).unwrap(),
                    expected,
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn the_shared_directory_serves_only_where_there_is_no_other() {
        let root = tempfile::tempdir().unwrap();
        let old = tree(root.path(), &[("attr/current", "unconfined\n")]);
        assert_eq!(old.current().unwrap(), "unconfined".parse().unwrap());

        let root = tempfile::tempdir().unwrap();
        let both = tree(
            root.path(),
            &[("attr/current", "unconfined\n"), ("attr/apparmor/current", "vm (enforce)\n")],
        );
        assert_eq!(both.current().unwrap(), "vm (enforce)".parse().unwrap());

        let root = tempfile::tempdir().unwrap();
        let broken = tree(root.path(), &[("attr/current", "unconfined\n")]);
        symlink("/etc", root.path().join("7/task/7/attr/apparmor")).unwrap();
        let refused = broken.current().unwrap_err();
        assert!(matches!(refused, Error::Covered { .. }), "{refused}");

        let root = tempfile::tempdir().unwrap();
        let none = tree(root.path(), &[]).current().unwrap_err();
        assert!(matches!(none, Error::NoAttribute { .. }), "{none}");
    }

    #[test]
    fn an_attribute_that_is_a_link_is_not_written() {
        let root = tempfile::tempdir().unwrap();
        let attributes = tree(root.path(), &[("attr/apparmor/swallow", "")]);
        symlink("swallow", root.path().join("7/task/7/attr/apparmor/exec")).unwrap();
        let refused = attributes.change(write(Method::Replace, Moment::OnExec), &unconfined()).unwrap_err();
        assert!(matches!(refused, Error::Covered { .. }), "{refused}");
        assert_eq!(fs::read_to_string(root.path().join("7/task/7/attr/apparmor/swallow")).unwrap(), "");
    }

    #[test]
    fn what_is_no_label_is_not_read_as_one() {
        for text in ["", "\n", "//&"] {
            let root = tempfile::tempdir().unwrap();
            let refused = tree(root.path(), &[("attr/current", text)]).current().unwrap_err();
            assert!(matches!(refused, Error::NotLabel { .. }), "{text:?}: {refused}");
        }
        let root = tempfile::tempdir().unwrap();
        let endless = "x".repeat(MAX_LABEL);
        let refused = tree(root.path(), &[("attr/current", &endless)]).current().unwrap_err();
        assert!(matches!(refused, Error::NotLabel { .. }));
    }
}
