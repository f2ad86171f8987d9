//! Which processes carry a guest's label, from `/proc/PID/task/TID/attr`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aa_contract::{ProfileName, text::Printable};
use nix::unistd::{getegid, getgroups};

use crate::error::Error;

/// One thread with a guest's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name as the kernel keeps it.
    pub comm: String,
    /// The label without the mode, as in `a//&b`.
    pub label: String,
    /// What stands in brackets behind it; `mixed` for some stacks.
    pub mode: String,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, Printable(&self.comm))?;
        if self.tid != self.pid {
            write!(f, " thread {}", self.tid)?;
        }
        Ok(())
    }
}

/// Every thread that carries the label of a guest, by profile. A thread counts for a profile if its label is the
/// profile, a child of it, or a stack with either in it, in whatever policy namespace.
///
/// # Errors
/// [`Error::Host`]: `/proc` or a label in it cannot be read, or may leave processes out. A process that ended
/// meanwhile is none.
pub fn scan(proc: &Path) -> Result<BTreeMap<ProfileName, Vec<Task>>, Error> {
    if let Some(options) = hides(proc).map_err(Error::host(proc))? {
        let text = format!(
            "it is mounted with {options} and may leave out processes, so nobody knows who carries what"
        );
        return Err(Error::host(proc)(io::Error::other(text)));
    }
    let mut found: BTreeMap<ProfileName, Vec<Task>> = BTreeMap::new();
    for entry in fs::read_dir(proc).map_err(Error::host(proc))? {
        let entry = entry.map_err(Error::host(proc))?;
        let Some(pid) = number(&entry.file_name()) else { continue };
        for (tid, path) in threads(&entry.path())? {
            let Some(text) = read_label(&path).map_err(Error::host(&path))? else { continue };
            let (label, mode) = split(&text);
            let mut names: Vec<ProfileName> = guests(label).collect();
            if names.is_empty() {
                continue;
            }
            let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
            let task = Task {
                pid,
                tid,
                comm: comm.trim_end_matches('\n').to_owned(),
                label: label.to_owned(),
                mode: mode.to_owned(),
            };
            names.sort_unstable();
            names.dedup();
            for name in names {
                found.entry(name).or_default().push(task.clone());
            }
        }
    }
    for tasks in found.values_mut() {
        tasks.sort_by_key(|task| (task.pid, task.tid));
    }
    Ok(found)
}

/// The threads of a process and their directories; none if it ended.
pub(crate) fn threads(process: &Path) -> Result<Vec<(u32, PathBuf)>, Error> {
    let directory = process.join("task");
    let Some(list) = unless_gone(fs::read_dir(&directory)).map_err(Error::host(&directory))? else {
        return Ok(Vec::new());
    };
    let mut threads = Vec::new();
    for thread in list {
        let Some(thread) = unless_gone(thread).map_err(Error::host(&directory))? else { break };
        if let Some(tid) = number(&thread.file_name()) {
            threads.push((tid, thread.path()));
        }
    }
    Ok(threads)
}

/// The mount options by which this procfs may leave out processes; `None` if it shows all (kernel:
/// Documentation/filesystems/proc.rst, `hidepid=`). With `hidepid=1` all are listed, and reading them fails.
///
/// It leaves out whom this process may not trace, unless that is of the group `gid=`. A process under an AppArmor
/// profile is never sure that it may trace: the other's profile has a say in it as well.
fn hides(proc: &Path) -> io::Result<Option<String>> {
    let Some(mounts) = unless_gone(fs::read_to_string(proc.join("self/mountinfo")))? else { return Ok(None) };
    let Some(options) = mounts.lines().rev().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        (Path::new(mount.split(' ').nth(4)?) == proc).then(|| file_system.split(' ').nth(2))?
    }) else {
        return Ok(None);
    };
    let value =
        |name: &str| options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    let group = value("gid").map_or(Some(0), |gid| gid.parse().ok());
    let in_group = || group.is_some_and(|gid| getegid().as_raw() == gid || is_group(gid));
    let is_shown = match value("hidepid") {
        Some("2" | "invisible") => in_group(),
        Some("4" | "ptraceable") => false,
        _ => true,
    };
    if is_shown || may_trace_all(proc)? { Ok(None) } else { Ok(Some(options.to_owned())) }
}

fn is_group(gid: u32) -> bool {
    getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid))
}

fn may_trace_all(proc: &Path) -> io::Result<bool> {
    const CAP_SYS_PTRACE: u32 = 19;
    let status = fs::read_to_string(proc.join("self/status"))?;
    let capable = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .is_some_and(|set| set >> CAP_SYS_PTRACE & 1 == 1);
    Ok(capable && read_label(&proc.join("thread-self"))?.is_none_or(|label| label == "unconfined"))
}

pub(crate) fn number(name: &std::ffi::OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// ENOENT, and ESRCH, which `/proc` gives for a process that ended after the open.
pub(crate) fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    const ESRCH: i32 = 3;
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The label as the kernel writes it; `None` if the thread ended or the kernel labels nothing.
fn read_label(task: &Path) -> io::Result<Option<String>> {
    // EINVAL: attr/current belongs to another security module, and that of AppArmor is not there.
    const EINVAL: i32 = 22;
    for file in ["attr/apparmor/current", "attr/current"] {
        match unless_gone(fs::read(task.join(file))) {
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes);
                return Ok(Some(text.trim_end_matches(['\n', '\0']).to_owned()));
            }
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// A label and its mode: `a//&b (enforce)`.
fn split(text: &str) -> (&str, &str) {
    text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")).unwrap_or((text, ""))
}

/// The guests' profiles in a label.
fn guests(label: &str) -> impl Iterator<Item = ProfileName> + '_ {
    label.split("//&").filter_map(|component| {
        // `:ns:profile` and `:ns://profile`
        let local = match component.strip_prefix(':') {
            Some(rest) => rest.rsplit_once(':').map_or(rest, |(_, name)| name),
            None => component,
        };
        let local = local.strip_prefix("//").unwrap_or(local);
        let parent = local.split_once("//").map_or(local, |(parent, _)| parent);
        parent.parse().ok()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::tests::NAME;

    /// Puts a thread into a tree like `/proc`.
    pub(crate) fn put(proc: &Path, pid: u32, tid: u32, label: &str) {
        let task = proc.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(task.join("attr/apparmor")).unwrap();
        fs::write(task.join("attr/apparmor/current"), format!("{label}\n")).unwrap();
        fs::write(task.join("comm"), "qemu-system-x86\n").unwrap();
    }

    #[test]
    fn labels_count_as_themselves_as_parents_and_in_stacks_and_namespaces() {
        let counts = |label: &str| guests(split(label).0).any(|name| name.to_string() == NAME);
        for label in [
            format!("{NAME} (enforce)"),
            NAME.to_owned(),
            format!("{NAME}//passt (enforce)"),
            format!("unconfined//&{NAME} (mixed)"),
            format!("{NAME}//&:user:x (enforce)"),
            format!(":user:{NAME} (enforce)"),
            format!(":user://{NAME}//passt (enforce)"),
            format!(":a:b//&:c://{NAME} (enforce)"),
        ] {
            assert!(counts(&label), "{label}");
        }
        for label in [
            "unconfined".to_owned(),
            format!("x{NAME} (enforce)"),
            format!("{NAME}0 (enforce)"),
            format!("other//{NAME} (enforce)"),
            String::new(),
        ] {
            assert!(!counts(&label), "{label}");
        }
    }

    #[test]
    fn every_thread_is_looked_at() {
        let proc = tempfile::tempdir().unwrap();
        put(proc.path(), 7, 7, "unconfined");
        put(proc.path(), 7, 9, &format!("{NAME} (enforce)"));
        put(proc.path(), 8, 8, "unconfined");
        fs::create_dir_all(proc.path().join("self/task/1")).unwrap();
        // A thread that ended between the listing and the read.
        fs::create_dir_all(proc.path().join("11/task/11")).unwrap();
        let found = scan(proc.path()).unwrap();
        assert_eq!(found.len(), 1);
        let tasks = &found[&NAME.parse().unwrap()];
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0].to_string(), "process 7 (qemu-system-x86) thread 9");
        assert_eq!(tasks[0].mode, "enforce");
        assert!(scan(&proc.path().join("none")).is_err());
    }

    #[test]
    fn the_older_attribute_serves_where_the_newer_is_missing() {
        let proc = tempfile::tempdir().unwrap();
        let attr = proc.path().join("5/task/5/attr");
        fs::create_dir_all(&attr).unwrap();
        fs::write(attr.join("current"), format!("{NAME} (complain)\n")).unwrap();
        assert_eq!(scan(proc.path()).unwrap()[&NAME.parse().unwrap()][0].mode, "complain");
    }

    #[test]
    fn a_procfs_that_hides_processes_is_believed_only_by_who_sees_all() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        fs::create_dir(proc.join("self")).unwrap();
        let hides = |options: &str, label: &str, capabilities: &str| {
            let line =
                |options| format!("24 1 0:22 / {} rw shared:1 - proc proc {options}\n", proc.display());
            // What is mounted later lies above.
            fs::write(proc.join("self/mountinfo"), line("rw,hidepid=4") + &line(options)).unwrap();
            fs::write(proc.join("self/status"), format!("CapEff:\t{capabilities}\n")).unwrap();
            let attr = proc.join("thread-self/attr");
            fs::create_dir_all(&attr).unwrap();
            fs::write(attr.join("current"), format!("{label}\n")).unwrap();
            scan(proc).is_err()
        };
        let (all, none) = ("000001ffffffffff", "0000000200000004");
        let ours = format!("rw,hidepid=invisible,gid={}", getegid());
        for shown in ["rw", "rw,hidepid=0", "rw,hidepid=off", "rw,hidepid=1", &ours] {
            assert!(!hides(shown, "aa-load (enforce)", none), "{shown}");
        }
        for hidden in
            ["rw,hidepid=2,gid=4194304", "rw,hidepid=invisible,gid=4194304", "rw,hidepid=ptraceable"]
        {
            assert!(hides(hidden, "aa-load (enforce)", all), "{hidden}");
            assert!(hides(hidden, "unconfined", none), "{hidden}");
            assert!(!hides(hidden, "unconfined", all), "{hidden}");
        }
    }
}
