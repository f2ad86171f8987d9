//! Takes profiles out of the kernel, by name.

use std::path::Path;

use aa_contract::{Action, Loaded, ProfileName};

use crate::error::Error;
use crate::kernel::Kernel;
use crate::tasks;

/// Whether a profile may go though a process carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    /// It stays, and the processes are named, with those that are about to carry it.
    Refuse,
    /// It goes, and they are unconfined from then on, for good.
    Force,
}

/// Removes a profile and its children.
///
/// # Errors
/// [`Error::NotLoaded`], [`Error::InUse`], [`Error::Privilege`]; [`Error::Host`] if labels cannot be read, since then nobody
/// knows whether it is in use.
pub fn remove(
    kernel: &Kernel,
    proc: &Path,
    name: ProfileName,
    in_use: InUse,
    dry_run: bool,
) -> Result<Loaded, Error> {
    if kernel.find(name)?.is_none() {
        return Err(Error::NotLoaded);
    }
    if in_use == InUse::Refuse
        && let Some(tasks) = tasks::in_use(kernel, proc)?.remove(&name)
    {
        return Err(Error::InUse(tasks));
    }
    if !dry_run {
        kernel.remove(&name.to_string())?;
    }
    Ok(Loaded::new(name, Action::Removed, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::{NAME, put, tree};
    use std::fs;

    #[test]
    fn a_profile_in_use_stays_and_its_process_is_named() {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path().join("proc");
        fs::create_dir(&proc).unwrap();
        let kernel = tree(root.path());
        let name: ProfileName = NAME.parse().unwrap();
        let written = || fs::read_to_string(kernel.root().join(".remove")).unwrap();
        let run = |in_use, dry_run| remove(&kernel, &proc, name, in_use, dry_run);
        assert!(matches!(run(InUse::Refuse, false), Err(Error::NotLoaded)));
        put(&kernel, &format!("{NAME}.1"), NAME, "enforce", None);
        tasks::tests::put(&proc, 41, 42, &format!("unconfined//&{NAME}//passt (enforce)"));
        let error = run(InUse::Refuse, false).unwrap_err().to_string();
        assert!(error.contains("process 41 (qemu-system-x86) thread 42"), "{error}");
        assert_eq!(written(), "");
        assert!(run(InUse::Force, true).is_ok());
        assert_eq!(written(), "");
        assert!(run(InUse::Force, false).is_ok());
        assert_eq!(written(), NAME);
        fs::write(kernel.root().join(".remove"), "").unwrap();
        fs::remove_dir_all(proc.join("41")).unwrap();
        // Not yet under it, but about to be.
        tasks::tests::put(&proc, 42, 42, "aa-confine (enforce)");
        let confine = format!("aa-confine\0--profile\0{NAME}\0--\0qemu\0");
        fs::write(proc.join("42/cmdline"), &confine).unwrap();
        let error = run(InUse::Refuse, false).unwrap_err().to_string();
        assert!(error.contains("process 42"), "{error}");
        assert_eq!(written(), "");
        fs::write(proc.join("42/cmdline"), confine.replace(NAME, &NAME.replacen('a', "b", 1))).unwrap();
        assert!(run(InUse::Refuse, false).is_ok());
        assert_eq!(written(), NAME);
        // Labels that cannot be read might be this one.
        fs::remove_dir_all(&proc).unwrap();
        assert!(matches!(run(InUse::Refuse, false), Err(Error::Host { .. })));
    }
}
