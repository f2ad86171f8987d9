//! Which processes carry a guest's label, from `/proc/PID/task/TID/attr`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aa_contract::{ProfileName, text::Printable};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, getgroups};

use crate::error::Error;
use crate::kernel::Kernel;

/// One thread with a guest's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name as the kernel keeps it.
    pub comm: String,
    /// The label without the mode, as in `a//&b`; of an aa-confine, what it is about to enter.
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

impl Task {
    /// Whether the profile or a child of it confines the thread: one of this policy namespace, not its namesake in another.
    pub(crate) fn is_under(&self, name: ProfileName) -> bool {
        guests(&self.label).any(|(namespace, profile)| namespace.is_empty() && profile == name)
    }
}

/// Every thread that carries the label of a guest, by profile. A thread counts for a profile if its label is the
/// profile, a child of it, or a stack with either in it, in whatever policy namespace.
///
/// # Errors
/// [`Error::Host`]: `/proc` or a label in it cannot be read, or may leave processes out. A process that ended
/// meanwhile is none.
pub fn scan(kernel: &Kernel, proc: &Path) -> Result<BTreeMap<ProfileName, Vec<Task>>, Error> {
    if let Some(problem) = leaves_out(kernel, proc).map_err(Error::host(proc))? {
        let text = format!("{problem}, so nobody knows who carries what");
        return Err(Error::host(proc)(io::Error::other(text)));
    }
    let mut found: BTreeMap<ProfileName, Vec<Task>> = BTreeMap::new();
    for process in processes(proc)? {
        let Process { pid, directory } = process?;
        for (tid, path) in threads(&directory)? {
            let Some(text) = read_label(&path).map_err(Error::host(&path))? else { continue };
            let mut names: Vec<ProfileName> = guests(split(&text).0).map(|(_, name)| name).collect();
            if names.is_empty() {
                continue;
            }
            let task = task(pid, tid, &path, &text);
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

/// Every thread that would be unconfined if the profile went: who carries it, and each aa-confine that is about to
/// execute something under it. The kernel tells nobody what another process has asked for at its next exec, and that
/// becomes `unconfined` with the profile; so the command line is believed. Whoever writes one could as well enter the
/// profile. Not believed is that of who waits for this very call: aa-confine starts nothing beside itself, so a process
/// with others below it is none, but may be what runs one and then aa-load (`with-guest aa-confine --uuid …`).
///
/// # Errors
/// As [`scan`].
pub fn in_use(kernel: &Kernel, proc: &Path) -> Result<BTreeMap<ProfileName, Vec<Task>>, Error> {
    // Before the labels: who executes between the two looks carries one by the second.
    let mut found: BTreeMap<ProfileName, Vec<Task>> = BTreeMap::new();
    let waiting = this_and_above(proc)?;
    for process in command_lines(proc)? {
        let (Process { pid, directory }, line) = process?;
        if let Some(target) = target(&line)
            && let Some(name) = of_profile(&target)
            && !waiting.contains(&pid)
        {
            let path = directory.join(format!("task/{pid}"));
            found.entry(name).or_default().push(task(pid, pid, &path, &target));
        }
    }
    for (name, tasks) in scan(kernel, proc)? {
        found.entry(name).or_default().extend(tasks);
    }
    Ok(found)
}

/// A thread as it is now; `None` if it ended or the kernel labels nothing.
pub(crate) fn look(pid: u32, tid: u32, path: &Path) -> Result<Option<Task>, Error> {
    let text = read_label(path).map_err(Error::host(path))?;
    Ok(text.map(|text| task(pid, tid, path, &text)))
}

fn task(pid: u32, tid: u32, path: &Path, text: &str) -> Task {
    let (label, mode) = split(text);
    let comm = read(&path.join("comm")).ok().flatten().unwrap_or_default();
    let comm = comm.trim_end_matches('\n').to_owned();
    Task { pid, tid, comm, label: label.to_owned(), mode: mode.to_owned() }
}

/// A process and its directory.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) directory: PathBuf,
}

pub(crate) fn processes(proc: &Path) -> Result<impl Iterator<Item = Result<Process, Error>>, Error> {
    let entries = fs::read_dir(proc).map_err(Error::host(proc))?;
    Ok(entries.filter_map(move |entry| match entry {
        Ok(entry) => number(&entry.file_name()).map(|pid| Ok(Process { pid, directory: entry.path() })),
        Err(error) => Some(Err(Error::host(proc)(error))),
    }))
}

/// Bytes of a command line that are read: an exec has no more of arguments and environment together (execve(2)). What a
/// process makes of its own afterwards may be of any length, and what is behind these was in no exec.
const LONGEST_LINE: u64 = 6 << 20;

/// The processes and their command lines. One that ended meanwhile is none.
pub(crate) fn command_lines(
    proc: &Path,
) -> Result<impl Iterator<Item = Result<(Process, Vec<u8>), Error>>, Error> {
    Ok(processes(proc)?.filter_map(|process| {
        let read = |process: Process| {
            let line = command_line(&process.directory)?;
            Ok(line.map(|line| (process, line)))
        };
        process.and_then(read).transpose()
    }))
}

/// A process's command line; `None` if it ended.
pub(crate) fn command_line(process: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = process.join("cmdline");
    let mut line = Vec::new();
    let length = fs::File::open(&path).and_then(|file| file.take(LONGEST_LINE).read_to_end(&mut line));
    unless_gone(length.map(|_| line)).map_err(Error::host(&path))
}

/// The words of a command line.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == 0)
}

/// The guest into whose profile a command line goes by aa-confine.
pub(crate) fn enters(line: &[u8]) -> Option<ProfileName> {
    of_profile(&target(line)?)
}

/// The profile in full into which a command line goes by aa-confine, itself or behind others (`setpriv … aa-confine …`).
fn target(line: &[u8]) -> Option<String> {
    let is_program =
        |word: &[u8]| Path::new(OsStr::from_bytes(word)).file_name() == Some(OsStr::new("aa-confine"));
    let mut options =
        words(line).skip_while(|word| !is_program(word)).skip(1).take_while(|word| *word != b"--");
    while let Some(word) = options.next() {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let option = parts.next()?;
        let mut value = || parts.next().or_else(|| options.next());
        match option {
            b"--uuid" => return Some(of_uuid(value()?)?.to_string()),
            b"--profile" => return value().map(|name| String::from_utf8_lossy(name).into_owned()),
            _ => {}
        }
    }
    None
}

/// The profile of the guest with this UUID, however that is spelt.
pub(crate) fn of_uuid(uuid: &[u8]) -> Option<ProfileName> {
    format!("libvirt-{}", std::str::from_utf8(uuid).ok()?.to_lowercase()).parse().ok()
}

/// The guest's profile that a full name belongs to: itself, or its parent.
fn of_profile(name: &str) -> Option<ProfileName> {
    name.split_once("//").map_or(name, |(parent, _)| parent).parse().ok()
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

/// Why this procfs may leave out processes; `None` if it shows all.
fn leaves_out(kernel: &Kernel, proc: &Path) -> io::Result<Option<String>> {
    let is_procfs = statfs(proc)?.filesystem_type() == PROC_SUPER_MAGIC;
    if !is_root(proc, is_procfs, fs::metadata(proc)?.ino()) {
        return Ok(Some("it is not the root of a procfs".to_owned()));
    }
    if let Some(options) = hides(proc)? {
        return Ok(Some(format!("it is mounted with {options} and may leave out processes")));
    }
    if is_procfs && is_hosts(kernel) && !shows_the_host(proc) {
        let text = "it may be of another PID namespace than the host's, and leave out processes";
        return Ok(Some(text.to_owned()));
    }
    Ok(None)
}

/// Whether a directory of this kind and inode may stand for procfs. Where Linux mounts it, an empty directory or another
/// file system would be a host without processes; elsewhere it is the word of who named the place.
fn is_root(proc: &Path, is_procfs: bool, inode: u64) -> bool {
    // The kernel's PROC_ROOT_INO: a directory within procfs has processes of its own, or none.
    const ROOT: u64 = 1;
    if is_procfs { inode == ROOT } else { proc != Path::new("/proc") }
}

/// Whether policy is the host's own, for all that is known. A container with a policy namespace to itself has its own
/// processes too.
fn is_hosts(kernel: &Kernel) -> bool {
    fs::read_to_string(kernel.root().join(".ns_level")).map_or(true, |level| level.trim_end() == "0")
}

/// Whether a procfs is that of the initial PID namespace, the only one that has all processes in it.
fn shows_the_host(proc: &Path) -> bool {
    // By the number that the kernel gives it (PROC_PID_INIT_INO). No other procfs shows a process of that namespace;
    // the first one serves where this one is in another. What may not be asked is not known, and counts as no.
    const INITIAL: &str = "pid:[4026531836]";
    ["self", "1"].iter().any(|process| {
        fs::read_link(proc.join(process).join("ns/pid")).is_ok_and(|link| link == Path::new(INITIAL))
    })
}

/// The mount options by which this procfs may leave out processes; `None` if it shows all (kernel:
/// Documentation/filesystems/proc.rst, `hidepid=`). With `hidepid=1` all are listed, and reading them fails.
///
/// It leaves out whom this process may not trace, unless that is of the group `gid=`. A process under an AppArmor
/// profile is never sure that it may trace: the other's profile has a say in it as well.
fn hides(proc: &Path) -> io::Result<Option<String>> {
    let Some(mounts) = read(&proc.join("self/mountinfo"))? else { return Ok(None) };
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
    let status = read(&proc.join("self/status"))?.unwrap_or_default();
    Ok(is_capable(&status, CAP_SYS_PTRACE)
        && read_label(&proc.join("thread-self"))?.is_none_or(|label| label == "unconfined"))
}

/// The children of some processes.
///
/// # Errors
/// [`Error::Host`]: `/proc` or a process's status in it cannot be read.
pub(crate) fn children(proc: &Path, parents: &BTreeSet<u32>) -> Result<BTreeMap<u32, Vec<u32>>, Error> {
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    if parents.is_empty() {
        return Ok(found);
    }
    for process in processes(proc)? {
        let Process { pid, directory } = process?;
        if let Some(parent) = parent(&directory)?.filter(|parent| parents.contains(parent)) {
            found.entry(parent).or_default().push(pid);
        }
    }
    Ok(found)
}

/// This process, its parent, and so on, as far as this procfs has them.
fn this_and_above(proc: &Path) -> Result<BTreeSet<u32>, Error> {
    let mut found = BTreeSet::new();
    let mut next = fs::read_link(proc.join("self")).ok().and_then(|link| number(link.as_os_str()));
    while let Some(pid) = next
        && found.insert(pid)
    {
        next = parent(&proc.join(pid.to_string()))?;
    }
    Ok(found)
}

/// Who a process's parent is; `None` if the process ended.
fn parent(process: &Path) -> Result<Option<u32>, Error> {
    Ok(status(process)?.and_then(|status| field(&status, "PPid:")?.parse().ok()))
}

/// What the kernel tells of a process, a field a line; `None` if it ended.
pub(crate) fn status(process: &Path) -> Result<Option<String>, Error> {
    let path = process.join("status");
    read(&path).map_err(Error::host(&path))
}

/// A line of a process's `status`. Nobody's name in it is another line: the kernel writes a line's end as `\n`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether a process's effective set has a capability, by its number (`capabilities(7)`).
pub(crate) fn is_capable(status: &str, capability: u32) -> bool {
    field(status, "CapEff:")
        .and_then(|set| u64::from_str_radix(set, 16).ok())
        .is_some_and(|set| set >> capability & 1 == 1)
}

pub(crate) fn number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// A file of procfs that the kernel keeps short; nothing if it is not there. Names in it are anybody's bytes, and what is no
/// UTF-8 of them is replaced: no such name is compared with anything.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    Ok(unless_gone(fs::read(path))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
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
        match read(&task.join(file)) {
            Ok(Some(text)) => return Ok(Some(text.trim_end_matches(['\n', '\0']).to_owned())),
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// A label, or a profile's name, and its mode: `a//&b (enforce)`.
pub(crate) fn split(text: &str) -> (&str, &str) {
    text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")).unwrap_or((text, ""))
}

/// The guests' profiles in a label, each behind its policy namespace, which is empty for the reader's own.
fn guests(label: &str) -> impl Iterator<Item = (&str, ProfileName)> {
    // The kernel tells a namespace where it changes: the next component without one is in the same.
    let mut namespace = "";
    label.split("//&").filter_map(move |component| {
        // `:ns:profile` and `:ns://profile`; to the kernel a namespace's name ends at its first colon.
        let name = match component.strip_prefix(':') {
            Some(rest) => {
                let (of, name) = rest.split_once(':').unwrap_or((rest, rest));
                namespace = of;
                name.strip_prefix("//").unwrap_or(name)
            }
            None => component,
        };
        Some((namespace, of_profile(name)?))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::tests::{NAME, tree};

    /// A tree like a host's procfs and its policy, to be looked at.
    fn host() -> (tempfile::TempDir, Kernel, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let proc = root.path().join("proc");
        fs::create_dir(&proc).unwrap();
        (root, kernel, proc)
    }

    /// Puts a thread into a tree like `/proc`.
    pub(crate) fn put(proc: &Path, pid: u32, tid: u32, label: &str) {
        let task = proc.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(task.join("attr/apparmor")).unwrap();
        fs::write(task.join("attr/apparmor/current"), format!("{label}\n")).unwrap();
        fs::write(task.join("comm"), "qemu-system-x86\n").unwrap();
    }

    #[test]
    fn labels_count_as_themselves_as_parents_and_in_stacks_and_namespaces() {
        let counts = |label: &str| guests(split(label).0).any(|(_, name)| name.to_string() == NAME);
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
            format!(":ns:a:{NAME} (enforce)"),
            String::new(),
        ] {
            assert!(!counts(&label), "{label}");
        }
    }

    #[test]
    fn every_thread_is_looked_at() {
        let (_root, kernel, proc) = host();
        put(&proc, 7, 7, "unconfined");
        put(&proc, 7, 9, &format!("{NAME} (enforce)"));
        put(&proc, 8, 8, "unconfined");
        fs::create_dir_all(proc.join("self/task/1")).unwrap();
        // A thread that ended between the listing and the read.
        fs::create_dir_all(proc.join("11/task/11")).unwrap();
        let found = scan(&kernel, &proc).unwrap();
        assert_eq!(found.len(), 1);
        let tasks = &found[&NAME.parse().unwrap()];
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0].to_string(), "process 7 (qemu-system-x86) thread 9");
        assert_eq!(tasks[0].mode, "enforce");
        assert!(scan(&kernel, &proc.join("none")).is_err());
    }

    #[test]
    fn a_name_of_any_bytes_is_in_nobodys_way() {
        let (_root, kernel, proc) = host();
        put(&proc, 7, 7, &format!("{NAME} (enforce)"));
        fs::write(proc.join("7/task/7/comm"), b"\xff\n").unwrap();
        fs::create_dir(proc.join("self")).unwrap();
        // Another's mount, and that of this tree.
        let mounts = [b"30 1 0:30 / /mnt/\xff rw - fuse x rw\n".to_vec(), {
            format!("24 1 0:22 / {} rw - proc proc rw\n", proc.display()).into_bytes()
        }];
        fs::write(proc.join("self/mountinfo"), mounts.concat()).unwrap();
        let tasks = scan(&kernel, &proc).unwrap().remove(&NAME.parse().unwrap()).unwrap();
        assert_eq!(tasks[0].to_string(), "process 7 (\u{fffd})");
        // The twin: what hides is seen behind such a name, too.
        let hidden = String::from_utf8_lossy(&mounts[1]).replace(" proc rw", " proc rw,hidepid=4");
        fs::write(proc.join("self/mountinfo"), [&mounts[0], hidden.as_bytes()].concat()).unwrap();
        fs::write(proc.join("self/status"), b"Name:\t\xff\nCapEff:\t0\n").unwrap();
        assert!(scan(&kernel, &proc).is_err());
    }

    #[test]
    fn a_command_line_of_any_length_costs_no_more_than_an_exec_can_have() {
        let (_root, kernel, proc) = host();
        put(&proc, 7, 7, "unconfined");
        let line = proc.join("7/cmdline");
        fs::write(&line, format!("aa-confine\0--profile\0{NAME}\0--\0true\0")).unwrap();
        // A hole in a file takes no room, and reading it whole would take all memory.
        fs::File::options().write(true).open(&line).unwrap().set_len(1 << 40).unwrap();
        let (_, read) = command_lines(&proc).unwrap().next().unwrap().unwrap();
        assert_eq!(read.len() as u64, LONGEST_LINE);
        assert!(in_use(&kernel, &proc).unwrap().contains_key(&NAME.parse().unwrap()));
    }

    #[test]
    fn where_procfs_is_mounted_nothing_else_is_believed() {
        let (usual, given) = (Path::new("/proc"), Path::new("/elsewhere"));
        for proc in [usual, Path::new("/proc/"), given] {
            assert!(is_root(proc, true, 1), "{proc:?}");
            // As of /proc/sys.
            assert!(!is_root(proc, true, 4_026_531_854), "{proc:?}");
        }
        assert!(!is_root(usual, false, 1) && !is_root(Path::new("/proc/"), false, 2));
        assert!(is_root(given, false, 2));
    }

    #[test]
    fn the_older_attribute_serves_where_the_newer_is_missing() {
        let (_root, kernel, proc) = host();
        let attr = proc.join("5/task/5/attr");
        fs::create_dir_all(&attr).unwrap();
        fs::write(attr.join("current"), format!("{NAME} (complain)\n")).unwrap();
        assert_eq!(scan(&kernel, &proc).unwrap()[&NAME.parse().unwrap()][0].mode, "complain");
    }

    #[test]
    fn a_procfs_that_hides_processes_is_believed_only_by_who_sees_all() {
        let (_root, kernel, proc) = host();
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
            scan(&kernel, &proc).is_err()
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

    #[test]
    fn only_the_initial_pid_namespace_has_all_processes() {
        use std::os::unix::fs::symlink;
        let (_root, kernel, proc) = host();
        let link = |process: &str, namespace: &str| {
            let directory = proc.join(process).join("ns");
            fs::create_dir_all(&directory).unwrap();
            let _ = fs::remove_file(directory.join("pid"));
            symlink(namespace, directory.join("pid")).unwrap();
        };
        assert!(!shows_the_host(&proc), "nothing is known");
        link("1", "pid:[4026532177]");
        assert!(!shows_the_host(&proc));
        // This process is in a namespace of its own, and looks at the host's procfs.
        link("self", "pid:[4026532177]");
        link("1", "pid:[4026531836]");
        assert!(shows_the_host(&proc));
        // It may not look at the first one.
        fs::remove_dir_all(proc.join("1")).unwrap();
        assert!(!shows_the_host(&proc));
        link("self", "pid:[4026531836]");
        assert!(shows_the_host(&proc));
        // A container's own policy; what does not tell is the host's.
        for (level, hosts) in [("0\n", true), ("1\n", false)] {
            fs::write(kernel.root().join(".ns_level"), level).unwrap();
            assert_eq!(is_hosts(&kernel), hosts);
        }
        fs::remove_file(kernel.root().join(".ns_level")).unwrap();
        assert!(is_hosts(&kernel));
    }

    #[test]
    fn a_namesake_in_another_namespace_is_in_use_and_confines_nobody_here() {
        let name: ProfileName = NAME.parse().unwrap();
        let is_under = |label: &str| {
            let task = Task { pid: 1, tid: 1, comm: String::new(), label: label.into(), mode: String::new() };
            task.is_under(name)
        };
        for label in [NAME.to_owned(), format!("{NAME}//passt"), format!("{NAME}//&:other:vm")] {
            assert!(is_under(&label), "{label}");
        }
        for label in [
            format!(":other:{NAME}"),
            format!(":other://{NAME}//passt"),
            format!("unconfined//&:other:{NAME}"),
            format!(":other:{NAME}//&:a:b"),
            // The second is in the namespace of the first.
            format!(":other:a//&{NAME}"),
        ] {
            assert!(!is_under(&label), "{label}");
            assert!(guests(&label).any(|(_, found)| found == name), "{label}");
        }
    }

    #[test]
    fn an_aa_confine_that_is_about_to_execute_is_known_by_its_command_line() {
        let uuid = NAME.strip_prefix("libvirt-").unwrap();
        let enters = |line: &str| {
            let line = line.replace("UUID", uuid).replace("NAME", NAME).replace(' ', "\0");
            enters(line.as_bytes()).is_some_and(|name| name.to_string() == NAME)
        };
        for line in [
            "aa-confine --uuid UUID -- qemu",
            "/usr/lib/aa-svirt/bin/aa-confine --uuid=UUID --now -- qemu",
            "aa-confine --stack --namespace vms --profile NAME -- qemu",
            "aa-confine --profile=NAME//passt -- qemu",
            "setpriv --reuid qemu -- /x/aa-confine --uuid UUID -- qemu -uuid UUID",
        ] {
            assert!(enters(line), "{line}");
        }
        assert!(enters(&format!("aa-confine --uuid {} -- qemu", uuid.to_uppercase())));
        for line in [
            "",
            "aa-confine",
            "aa-confine --uuid",
            "aa-confine --profile other -- aa-confine --uuid UUID",
            "qemu -uuid UUID",
            "aa-render --uuid UUID",
            "not-aa-confine --uuid UUID -- qemu",
        ] {
            assert!(!enters(line), "{line}");
        }
        let (_root, kernel, proc) = host();
        put(&proc, 7, 7, "unconfined");
        fs::write(proc.join("7/cmdline"), format!("aa-confine\0--uuid\0{uuid}\0--\0true\0")).unwrap();
        fs::write(proc.join("7/task/7/comm"), "aa-confine\n").unwrap();
        put(&proc, 8, 8, &format!("{NAME} (enforce)"));
        let found = in_use(&kernel, &proc).unwrap();
        let shown: Vec<String> = found[&NAME.parse().unwrap()].iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["process 7 (aa-confine)", "process 8 (qemu-system-x86)"]);
        // Who carries it is another question.
        assert_eq!(scan(&kernel, &proc).unwrap()[&NAME.parse().unwrap()].len(), 1);
    }
}
