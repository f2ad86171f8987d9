//! Whether guests are confined as they should be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aa_contract::{Loaded, ProfileName};

use crate::error::Error;
use crate::status::Found;
use crate::tasks::{number, threads, unless_gone};

/// Every process whose command line has `-uuid` and a UUID behind it, as QEMU's has, whoever started it.
///
/// # Errors
/// [`Error::Host`]: `/proc` or a command line in it cannot be read. A process that ended meanwhile is none.
pub fn hypervisors(proc: &Path) -> Result<BTreeMap<ProfileName, Vec<u32>>, Error> {
    let mut found: BTreeMap<ProfileName, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir(proc).map_err(Error::host(proc))? {
        let entry = entry.map_err(Error::host(proc))?;
        let Some(pid) = number(&entry.file_name()) else { continue };
        let path = entry.path().join("cmdline");
        let Some(line) = unless_gone(fs::read(&path)).map_err(Error::host(&path))? else { continue };
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        while let Some(word) = words.next() {
            if word == "-uuid" || word == "--uuid" {
                let name =
                    words.next().and_then(|uuid| format!("libvirt-{}", uuid.to_lowercase()).parse().ok());
                if let Some(name) = name {
                    found.entry(name).or_default().push(pid);
                }
            }
        }
    }
    Ok(found)
}

/// Checks one guest: the profile is loaded, in enforce mode, and so is every process that is known to be the guest's,
/// with all of its threads.
///
/// # Errors
/// [`Error::NotLoaded`], or [`Error::Unverified`] with what is not as it should be; [`Error::Host`]: the threads of a
/// process cannot be listed.
pub fn verify(
    name: ProfileName,
    found: &Found,
    hypervisors: &BTreeMap<ProfileName, Vec<u32>>,
    proc: &Path,
) -> Result<Loaded, Error> {
    let held = found.loaded.get(&name).ok_or(Error::NotLoaded)?;
    if held.entry.mode != "enforce" {
        return Err(Error::Unverified(format!("in mode {}, not enforce", held.entry.mode)));
    }
    let tasks = found.tasks.get(&name).map(Vec::as_slice).unwrap_or_default();
    // A stack of profiles in different modes shows as mixed; this one's own mode was looked at above.
    if let Some(task) = tasks.iter().find(|task| !matches!(task.mode.as_str(), "enforce" | "mixed")) {
        return Err(Error::Unverified(format!("{task} carries it in mode {}", task.mode)));
    }
    let running = found.wanted.as_ref().and_then(|wanted| wanted.running.get(&name));
    let known = running.into_iter().chain(hypervisors.get(&name).into_iter().flatten());
    for pid in known {
        for (tid, path) in threads(&proc.join(pid.to_string()))? {
            // One that ended since the scan has no label to check.
            if !tasks.iter().any(|task| task.tid == tid) && path.join("comm").exists() {
                return Err(Error::Unverified(format!("process {pid} thread {tid} does not carry it")));
            }
        }
    }
    Ok(Loaded::new(name, aa_contract::Action::Unchanged, Some(held.entry.record_mode()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::{NAME, put, tree};
    use crate::tasks;

    #[test]
    fn each_thing_that_may_be_wrong_is_told() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let name: ProfileName = NAME.parse().unwrap();
        let proc = root.path().join("proc");
        fs::create_dir(&proc).unwrap();
        let check = || {
            let found = Found {
                loaded: kernel.list().unwrap(),
                tasks: tasks::scan(&proc).unwrap(),
                ..Found::default()
            };
            verify(name, &found, &hypervisors(&proc).unwrap(), &proc).map_err(|error| error.to_string())
        };
        let refused = |what: &str| {
            let error = check().unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        refused("not in the kernel");
        put(&kernel, &format!("{NAME}.1"), NAME, "complain", None);
        refused("complain");
        put(&kernel, &format!("{NAME}.1"), NAME, "enforce", None);
        assert!(check().is_ok());
        let uuid = NAME.strip_prefix("libvirt-").unwrap();
        tasks::tests::put(&proc, 9, 9, &format!("{NAME} (enforce)"));
        fs::write(proc.join("9/cmdline"), format!("qemu\0-uuid\0{uuid}\0")).unwrap();
        assert!(check().is_ok());
        tasks::tests::put(&proc, 9, 10, "unconfined");
        refused("process 9 thread 10 does not carry it");
        tasks::tests::put(&proc, 9, 10, &format!("{NAME} (complain)"));
        refused("thread 10 carries it in mode complain");
        fs::remove_dir_all(proc.join("9/task/10")).unwrap();
        tasks::tests::put(&proc, 9, 9, "unconfined");
        refused("process 9 thread 9");
        // What cannot be looked at may be anything.
        fs::rename(proc.join("9/task"), proc.join("9/tasks")).unwrap();
        assert!(check().is_ok(), "it is gone");
        fs::remove_file(proc.join("9/cmdline")).unwrap();
        fs::create_dir(proc.join("9/cmdline")).unwrap();
        assert!(matches!(hypervisors(&proc), Err(Error::Host { path, .. }) if path.ends_with("9/cmdline")));
    }
}
