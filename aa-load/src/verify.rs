//! Whether guests are confined as they should be.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aa_contract::{Loaded, Mode, ProfileName};

use crate::error::Error;
use crate::kernel::enforces;
use crate::status::Found;
use crate::tasks::{self, Process, Task, command_lines, enters, of_uuid, processes, threads, words};

/// What runs of guests, as one look at all processes tells.
#[derive(Debug, Default)]
pub struct Running {
    /// The processes that [`hypervisors`] finds.
    pub hypervisors: BTreeMap<ProfileName, Vec<u32>>,
    /// The processes of each control group that libvirt has made for a guest.
    groups: BTreeMap<String, Vec<u32>>,
}

impl Running {
    /// Looks at all processes.
    ///
    /// # Errors
    /// As [`hypervisors`].
    pub fn look(proc: &Path) -> Result<Self, Error> {
        let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for process in processes(proc)? {
            let Process { pid, directory } = process?;
            if let Some(group) = group(&directory)? {
                groups.entry(group).or_default().push(pid);
            }
        }
        Ok(Self { hypervisors: hypervisors(proc)?, groups })
    }

    /// What libvirt runs beside a guest's main process: all that is in the guest's control group.
    fn beside(&self, process: &Path) -> Result<&[u32], Error> {
        let group = group(process)?;
        Ok(group.and_then(|group| self.groups.get(&group)).map_or(&[], Vec::as_slice))
    }
}

/// The control group that libvirt has made for the guest whose process this is, and in which it puts what it starts
/// for that: `machine-qemu\x2d1\x2dname.scope` by systemd, `qemu-1-name.libvirt-qemu` without. Of the first hierarchy
/// alone, the only one where control groups are of version 2 (cgroups(7), «/proc/pid/cgroup»).
fn group(process: &Path) -> Result<Option<String>, Error> {
    let path = process.join("cgroup");
    let text = tasks::read(&path).map_err(Error::host(&path))?.unwrap_or_default();
    let is_own = |part: &str| {
        part.strip_suffix(".scope").is_some_and(|part| part.starts_with("machine-qemu"))
            || part.ends_with(".libvirt-qemu")
    };
    Ok(text.lines().find_map(|line| {
        let parts: Vec<&str> = line.strip_prefix("0::")?.split('/').collect();
        let end = parts.iter().position(|part| is_own(part))?;
        parts.get(..=end).map(|parts| parts.join("/"))
    }))
}

/// Every process whose command line has `-uuid` and a UUID behind it, as QEMU's has, and that root or the account of
/// a service has started: what an ordinary user's says of itself proves nothing. QEMU takes `--uuid` too, and so does
/// many a tool that is about a guest: with that one, what is known to be another program is none. What calls aa-confine
/// is not the guest but on its way there.
///
/// # Errors
/// [`Error::Host`]: `/proc`, a command line or a user in it cannot be read. A process that ended meanwhile is none.
pub fn hypervisors(proc: &Path) -> Result<BTreeMap<ProfileName, Vec<u32>>, Error> {
    let mut found: BTreeMap<ProfileName, Vec<u32>> = BTreeMap::new();
    for process in command_lines(proc)? {
        let (Process { pid, directory }, line) = process?;
        let mut names = named(&line, &directory);
        if names.is_empty() || !is_of_a_service(&directory)? {
            continue;
        }
        if let Some(entered) = enters(&line) {
            names.remove(&entered);
        }
        for name in names {
            found.entry(name).or_default().push(pid);
        }
    }
    Ok(found)
}

/// The guests whose UUIDs stand behind `-uuid` on a process's command line, which may be of any length and anybody's.
fn named(line: &[u8], process: &Path) -> BTreeSet<ProfileName> {
    let is_qemus = LazyCell::new(|| !is_another_program(process));
    let mut words = words(line);
    let mut names = BTreeSet::new();
    while let Some(word) = words.next() {
        if word == b"-uuid" || word == b"--uuid" && *is_qemus {
            names.extend(words.next().and_then(of_uuid));
        }
    }
    names
}

/// Whether no ordinary user has started a process; not so if it ended. What cannot be asked is no proof of that.
fn is_of_a_service(process: &Path) -> Result<bool, Error> {
    let Some(status) = tasks::status(process)? else { return Ok(false) };
    // The real user: a set-user-ID program has another effective one. Some take that for their real one too, as sudo
    // does while it waits for a password.
    let is_set_user_id = fs::metadata(process.join("exe")).is_ok_and(|program| program.mode() & 0o4000 != 0);
    Ok(!is_set_user_id && real_user(&status).is_none_or(|user| !is_ordinary(user)))
}

fn real_user(status: &str) -> Option<u32> {
    tasks::field(status, "Uid:")?.split_whitespace().next()?.parse().ok()
}

/// Whether a process executes what is not called as QEMU's programs are. What may not be asked is no proof of that.
fn is_another_program(process: &Path) -> bool {
    fs::read_link(process.join("exe")).is_ok_and(|program| {
        let name = program.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
        !name.starts_with("qemu") && name != "kvm"
    })
}

/// Accounts of people, `nobody`, and what people have for their containers, by Debian's policy (9.2.2) and
/// login.defs: all but those of the system and of its packages (libvirt-qemu is 64055).
fn is_ordinary(user: u32) -> bool {
    !matches!(user, 0..=999 | 60_000..=65_533)
}

/// Every guest that there is anything of: a file, a loaded profile, a process.
pub fn all(found: &Found, running: &Running) -> BTreeSet<ProfileName> {
    let names = found.on_disk.iter().chain(found.loaded.keys()).chain(found.running.keys());
    names.chain(running.hypervisors.keys()).copied().collect()
}

/// Checks one guest: the profile is loaded, in enforce mode, as AppArmor is as a whole, and so is every process that is
/// known to be the guest's, with all of its threads. What libvirt runs beside it is confined, by the guest's profile or by
/// its own.
///
/// # Errors
/// [`Error::NotLoaded`], or [`Error::Unverified`] with what is not as it should be; [`Error::Host`]: the threads of a
/// process cannot be looked at.
pub fn verify(name: ProfileName, found: &Found, running: &Running, proc: &Path) -> Result<Loaded, Error> {
    let held = found.loaded.get(&name).ok_or(Error::NotLoaded)?;
    let mode = found.mode.as_deref().unwrap_or("not known");
    if !enforces(mode) {
        return Err(Error::Unverified(format!("AppArmor as a whole is in mode {mode}, not enforce")));
    }
    if !matches!(held.entry.record_mode(), Ok(Mode::Enforce)) {
        return Err(Error::Unverified(format!("in mode {}, not enforce", held.entry.mode)));
    }
    let tasks = found.tasks.get(&name).into_iter().flatten();
    for task in tasks.filter(|task| task.is_under(name)) {
        check_mode(task)?;
    }
    let main = found.running.get(&name).map(Vec::as_slice).unwrap_or_default();
    let hypervisors = running.hypervisors.get(&name).into_iter().flatten();
    let known: BTreeSet<u32> = main.iter().chain(hypervisors).copied().collect();
    for pid in &known {
        // Looked at again: a thread may have started since the scan.
        for (tid, path) in threads(&proc.join(pid.to_string()))? {
            match tasks::look(*pid, tid, &path)? {
                Some(task) if task.is_under(name) => check_mode(&task)?,
                None if !path.join("comm").exists() => {}
                _ => {
                    return Err(Error::Unverified(format!("process {pid} thread {tid} does not carry it")));
                }
            }
        }
    }
    for main in main {
        let beside = running.beside(&proc.join(main.to_string()))?.iter();
        for pid in beside.filter(|pid| !known.contains(pid)) {
            check_helper(*pid, &proc.join(pid.to_string()), name)?;
        }
    }
    Ok(Loaded::new(name, aa_contract::Action::Unchanged, Some(held.entry.record_mode()?)))
}

/// What libvirt starts for a guest without the guest's label: their tasks are the host's.
const NOT_LABELLED: [&str; 3] = ["qemu-pr-helper", "vhost-user-gpu", "virtiofsd"];

/// Whether a process is a virtiofsd or vhost-user-gpu, which a definition may name by any path (`<binary>`): libvirt
/// starts both as root and hands each its socket as `--fd=N`. The guest's QEMU, and all that libvirt runs with a label,
/// have an account of their own, and none of them can become root's.
fn is_vhost_user(process: &Path) -> Result<bool, Error> {
    let is_socket = |word: &[u8]| {
        word.strip_prefix(b"--fd=").is_some_and(|fd| !fd.is_empty() && fd.iter().all(u8::is_ascii_digit))
    };
    let line = tasks::command_line(process)?.unwrap_or_default();
    let status = tasks::status(process)?.unwrap_or_default();
    Ok(words(&line).any(is_socket) && real_user(&status) == Some(0))
}

/// That a process beside a guest's is confined: by the guest's profile, or by that of its own program, which some
/// distributions have for swtpm and passt.
fn check_helper(pid: u32, process: &Path, name: ProfileName) -> Result<(), Error> {
    let exe = fs::read_link(process.join("exe"));
    match &exe {
        // A thread of the kernel (vhost), or one that ended: it executes nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(program) => {
            let program = program.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
            if NOT_LABELLED.contains(&program.strip_suffix(" (deleted)").unwrap_or(&program)) {
                return Ok(());
            }
        }
        // Whatever it executes, its label tells.
        Err(_) => {}
    }
    if is_vhost_user(process)? {
        return Ok(());
    }
    for (tid, path) in threads(process)? {
        match tasks::look(pid, tid, &path)? {
            Some(task) if task.is_under(name) => check_mode(&task)?,
            Some(task) if is_enforced(&task) => {}
            None if !path.join("comm").exists() => {}
            Some(task) => {
                return Err(Error::Unverified(format!("{task}, which libvirt runs for it, is not confined")));
            }
            None => {
                return Err(Error::Unverified(format!(
                    "process {pid}, which libvirt runs for it, is not confined"
                )));
            }
        }
    }
    Ok(())
}

/// That a thread's label enforces. A stack of profiles in different modes shows as mixed; the profile's own mode is
/// looked at elsewhere.
fn check_mode(task: &Task) -> Result<(), Error> {
    if is_enforced(task) {
        return Ok(());
    }
    Err(Error::Unverified(format!("{task} carries it in mode {}", task.mode)))
}

fn is_enforced(task: &Task) -> bool {
    enforces(&task.mode) || task.mode == "mixed"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::{NAME, put, tree};

    /// Gives a process a command line and a real user.
    fn call(proc: &Path, pid: u32, line: &str, user: u32) {
        let directory = proc.join(pid.to_string());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cmdline"), line.replace(' ', "\0") + "\0").unwrap();
        // As of a set-user-ID program that this user has started.
        fs::write(directory.join("status"), format!("Name:\tx\nUid:\t{user}\t0\t0\t0\n")).unwrap();
    }

    fn uuid() -> &'static str {
        NAME.strip_prefix("libvirt-").unwrap()
    }

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
                tasks: tasks::scan(&kernel, &proc).unwrap(),
                mode: Some("enforce".to_owned()),
                ..Found::default()
            };
            verify(name, &found, &Running::look(&proc).unwrap(), &proc).map_err(|error| error.to_string())
        };
        let refused = |what: &str| {
            let error = check().unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        refused("not in the kernel");
        put(&kernel, &format!("{NAME}.1"), NAME, "complain", None);
        refused("complain");
        put(&kernel, &format!("{NAME}.1"), NAME, "unconfined", None);
        refused("unconfined");
        put(&kernel, &format!("{NAME}.1"), NAME, "kill", None);
        assert!(check().is_ok());
        put(&kernel, &format!("{NAME}.1"), NAME, "enforce", None);
        assert!(check().is_ok());
        tasks::tests::put(&proc, 9, 9, &format!("{NAME} (kill)"));
        assert!(check().is_ok());
        tasks::tests::put(&proc, 9, 9, &format!("{NAME} (enforce)"));
        call(&proc, 9, &format!("qemu -uuid {}", uuid()), 64055);
        assert!(check().is_ok());
        tasks::tests::put(&proc, 9, 10, "unconfined");
        refused("process 9 thread 10 does not carry it");
        tasks::tests::put(&proc, 9, 10, &format!("{NAME} (complain)"));
        refused("thread 10 carries it in mode complain");
        fs::remove_dir_all(proc.join("9/task/10")).unwrap();
        tasks::tests::put(&proc, 9, 9, "unconfined");
        refused("process 9 thread 9");
        // A profile of the same name elsewhere.
        tasks::tests::put(&proc, 9, 9, &format!(":other:{NAME} (enforce)"));
        refused("process 9 thread 9 does not carry it");
        // What cannot be looked at may be anything.
        fs::rename(proc.join("9/task"), proc.join("9/tasks")).unwrap();
        assert!(check().is_ok(), "it is gone");
        fs::remove_file(proc.join("9/cmdline")).unwrap();
        fs::create_dir(proc.join("9/cmdline")).unwrap();
        assert!(matches!(hypervisors(&proc), Err(Error::Host { path, .. }) if path.ends_with("9/cmdline")));
    }

    #[test]
    fn a_thread_that_starts_after_the_scan_is_looked_at_itself() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        put(&kernel, &format!("{NAME}.1"), NAME, "enforce", None);
        let name: ProfileName = NAME.parse().unwrap();
        let proc = root.path().join("proc");
        tasks::tests::put(&proc, 9, 9, &format!("{NAME} (enforce)"));
        call(&proc, 9, &format!("qemu -uuid {}", uuid()), 0);
        let found = Found {
            loaded: kernel.list().unwrap(),
            tasks: tasks::scan(&kernel, &proc).unwrap(),
            mode: Some("enforce".to_owned()),
            ..Found::default()
        };
        let check = || verify(name, &found, &Running::look(&proc).unwrap(), &proc);
        tasks::tests::put(&proc, 9, 10, &format!("{NAME} (enforce)"));
        assert!(check().is_ok());
        for label in [format!("{NAME} (complain)"), "unconfined".to_owned()] {
            tasks::tests::put(&proc, 9, 10, &label);
            assert!(check().is_err(), "{label}");
        }
        // It is there and the kernel labels nothing; it is gone.
        fs::remove_dir_all(proc.join("9/task/10/attr")).unwrap();
        assert!(check().is_err());
        fs::remove_file(proc.join("9/task/10/comm")).unwrap();
        assert!(check().is_ok());
    }

    #[test]
    fn apparmor_in_complain_mode_as_a_whole_verifies_nothing() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        put(&kernel, &format!("{NAME}.1"), NAME, "enforce", None);
        let check = |mode: Option<&str>| {
            let found =
                Found { loaded: kernel.list().unwrap(), mode: mode.map(str::to_owned), ..Found::default() };
            verify(NAME.parse().unwrap(), &found, &Running::default(), root.path()).is_ok()
        };
        assert!(check(Some("enforce")));
        // It enforces, and ends the process besides.
        assert!(check(Some("kill")));
        for mode in [Some("complain"), Some("unconfined"), Some(""), None] {
            assert!(!check(mode), "{mode:?}");
        }
    }

    #[test]
    fn what_libvirt_runs_beside_a_guest_is_confined_too() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        put(&kernel, &format!("{NAME}.1"), NAME, "enforce", None);
        let name: ProfileName = NAME.parse().unwrap();
        let proc = root.path().join("proc");
        let start = |pid: u32, program: &str, group: &str, label: &str| {
            tasks::tests::put(&proc, pid, pid, label);
            let directory = proc.join(pid.to_string());
            fs::write(directory.join("cgroup"), format!("5:cpu:/x\n0::{group}\n")).unwrap();
            let _ = fs::remove_file(directory.join("exe"));
            if !program.is_empty() {
                std::os::unix::fs::symlink(program, directory.join("exe")).unwrap();
            }
        };
        let check = || {
            let found = Found {
                loaded: kernel.list().unwrap(),
                tasks: tasks::scan(&kernel, &proc).unwrap(),
                mode: Some("enforce".to_owned()),
                running: [(name, vec![9])].into(),
                ..Found::default()
            };
            verify(name, &found, &Running::look(&proc).unwrap(), &proc).map_err(|error| error.to_string())
        };
        let own = format!("{NAME} (enforce)");
        for group in ["/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", "/x/machine/qemu-1-vm.libvirt-qemu"] {
            start(9, "/usr/bin/qemu-system-x86_64", &format!("{group}/libvirt/emulator"), &own);
            start(10, "/usr/bin/swtpm", group, "unconfined");
            let error = check().unwrap_err();
            assert!(error.contains("process 10 (qemu-system-x86), which libvirt runs for it"), "{error}");
            // Its own profile in complain mode, or one that may not be asked about.
            start(10, "/usr/bin/swtpm", &format!("{group}/libvirt"), "swtpm (complain)");
            assert!(check().is_err());
            fs::remove_dir_all(proc.join("10/task/10/attr")).unwrap();
            assert!(check().is_err());
            start(10, "/usr/bin/swtpm", group, &format!("{NAME} (complain)"));
            assert!(check().is_err());
            for label in [&own, &format!("{NAME}//passt (enforce)"), "swtpm (enforce)"] {
                start(10, "/usr/bin/swtpm", group, label);
                assert_eq!(check().map(|_| ()), Ok(()), "{label}");
            }
            // What libvirt gives no label; a thread of the kernel; another guest's, and whose name only begins so.
            for (program, other) in [
                ("/usr/libexec/virtiofsd", group.to_owned()),
                ("/usr/bin/qemu-pr-helper (deleted)", group.to_owned()),
                ("", group.to_owned()),
                ("/usr/bin/swtpm", group.replace("vm", "other")),
                ("/usr/bin/swtpm", format!("{group}x/libvirt")),
                ("/usr/bin/swtpm", "/system.slice/x.service".to_owned()),
            ] {
                start(10, program, &other, "unconfined");
                assert_eq!(check().map(|_| ()), Ok(()), "{program} {other}");
            }
            // A virtiofsd that is called otherwise; and what only says that it is one, or is another helper of root's.
            for (line, user, is_passed) in [
                ("/opt/fsd-1.2 --fd=27 -o source=/srv", 0, true),
                ("/bin/sh /opt/fsd-wrapper --fd=27", 0, true),
                ("/opt/fsd-1.2 --fd=27 -o source=/srv", 64055, false),
                ("/opt/fsd-1.2 --fd=x --fd= --fd", 0, false),
                ("/usr/bin/swtpm socket --ctrl type=unixio", 0, false),
            ] {
                start(10, "/opt/fsd-1.2", group, "unconfined");
                call(&proc, 10, line, user);
                assert_eq!(check().is_ok(), is_passed, "{line} {user}");
            }
            fs::remove_dir_all(proc.join("10")).unwrap();
        }
        // Without a group of the guest's own, as where libvirt makes none, others in it are none of its.
        for pid in [9, 10] {
            let label = if pid == 9 { &own } else { "unconfined" };
            start(pid, "/usr/bin/x", "/system.slice/libvirtd.service", label);
        }
        assert!(check().is_ok());
    }

    /// As long as an exec takes it, with another guest in each pair of words: a look at all of the line for each of them
    /// would take hours.
    #[test]
    fn a_command_line_with_a_guest_in_every_word_is_read_once() {
        let proc = tempfile::tempdir().unwrap();
        let mut line = format!("aa-confine --uuid {} --", uuid());
        for number in 0.. {
            line += &uuid().replacen("a22e3930", &format!(" --uuid {number:08x}"), 1);
            if line.len() > 6 << 20 {
                break;
            }
        }
        call(proc.path(), 9, &line, 1000);
        assert!(hypervisors(proc.path()).unwrap().is_empty(), "an ordinary user's");
        call(proc.path(), 9, &line, 0);
        let found = hypervisors(proc.path()).unwrap();
        assert!(found.len() > 140_000 && !found.contains_key(&NAME.parse().unwrap()));
    }

    #[test]
    fn the_command_line_of_an_ordinary_user_proves_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let proc = tempfile::tempdir().unwrap();
        let found = |line: &str, user| {
            call(proc.path(), 9, &line.replace("UUID", uuid()), user);
            hypervisors(proc.path()).unwrap().contains_key(&NAME.parse().unwrap())
        };
        for user in [0, 107, 999, 64055, 65533] {
            assert!(found("qemu -uuid UUID", user), "{user}");
        }
        for user in [1000, 59999, 65534, 65535, 100_000, 231_072] {
            assert!(!found("qemu -uuid UUID", user), "{user}");
        }
        assert!(found("x --uuid UUID", 0));
        // The kernel knows what it is that has such a line.
        for (program, is_found) in [
            ("/usr/bin/qemu-system-x86_64", true),
            ("/usr/libexec/qemu-kvm (deleted)", true),
            ("/usr/bin/kvm", true),
            ("/usr/lib/aa-svirt/bin/aa-render", false),
            ("/usr/bin/python3.13", false),
            ("/usr/bin/kvm-tool", false),
        ] {
            let exe = proc.path().join("9/exe");
            std::os::unix::fs::symlink(program, &exe).unwrap();
            assert_eq!(found("x --add /a --uuid UUID", 0), is_found, "{program}");
            assert!(found("x -uuid UUID", 0), "{program}");
            fs::remove_file(&exe).unwrap();
        }
        // Whoever names a process names no line of its status.
        let path = proc.path().join("9/status");
        for (status, is_found) in [
            (b"Name:\t\xff\nUid:\t0\t0\t0\t0\n".as_slice(), true),
            (b"Name:\t\xff\\nUid:\t0\nUid:\t1000\t0\t0\t0\n", false),
        ] {
            fs::write(&path, status).unwrap();
            assert_eq!(!hypervisors(proc.path()).unwrap().is_empty(), is_found);
        }
        // On its way there.
        assert!(!found("setpriv aa-confine --uuid UUID -- qemu -uuid UUID", 0));
        assert!(found("timeout 9 qemu -uuid UUID", 0));
        // Anybody may have started a set-user-ID program.
        std::os::unix::fs::symlink(proc.path().join("program"), proc.path().join("9/exe")).unwrap();
        for (mode, is_found) in [(0o755, true), (0o4755, false)] {
            fs::write(proc.path().join("program"), "").unwrap();
            fs::set_permissions(proc.path().join("program"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(found("sudo -uuid UUID", 0), is_found, "{mode:o}");
        }
        fs::remove_file(proc.path().join("9/exe")).unwrap();
        // Who has started it is not told: it may be anybody, root too. It is gone.
        fs::write(proc.path().join("9/status"), "Name:\tx\n").unwrap();
        assert!(!hypervisors(proc.path()).unwrap().is_empty());
        fs::remove_file(proc.path().join("9/status")).unwrap();
        assert!(hypervisors(proc.path()).unwrap().is_empty());
    }
}
