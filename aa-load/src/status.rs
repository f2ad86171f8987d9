//! The state of every guest: wanted, on disk, in the kernel, in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use aa_contract::text::Printable;
use aa_contract::{Grant, ProfileName, Target};
use aa_render::grants;
use serde::Serialize;

use crate::error::Error;
use crate::kernel::{InKernel, enforces};
use crate::tasks::Task;
use crate::wanted::Wanted;

/// What was found on the host, in one pass over each place.
#[derive(Debug, Default)]
pub struct Found {
    /// The definitions; absent if they cannot be read.
    pub wanted: Option<Wanted>,
    /// The profiles that have a file.
    pub on_disk: BTreeSet<ProfileName>,
    /// The profiles that have a file of temporary grants, with what is in it.
    pub grants: BTreeMap<ProfileName, Grants>,
    /// The loaded profiles.
    pub loaded: BTreeMap<ProfileName, InKernel>,
    /// The threads that carry each profile.
    pub tasks: BTreeMap<ProfileName, Vec<Task>>,
    /// The processes of each running guest that must carry its label ([`Wanted::processes`]).
    pub running: BTreeMap<ProfileName, Vec<u32>>,
    /// AppArmor's mode as a whole; absent if it cannot be read.
    pub mode: Option<String>,
}

/// One guest's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Of this output; 1.
    pub version: u32,
    /// The profile.
    pub profile: ProfileName,
    /// Whether the guest is defined; absent if definitions cannot be read.
    pub wanted: Option<bool>,
    /// Whether the profile has a file.
    pub on_disk: bool,
    /// Whether it is loaded.
    pub in_kernel: bool,
    /// The mode that the kernel holds it in.
    pub mode: Option<String>,
    /// Its children in the kernel.
    pub children: Vec<String>,
    /// Rules that were granted for a while, with the reasons.
    pub grants: Vec<Grant>,
    /// Who carries it.
    pub processes: Vec<Process>,
    /// What does not fit together.
    pub drift: Vec<&'static str>,
}

/// One process of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its main thread's name.
    pub comm: String,
    /// Its label.
    pub label: String,
    /// How many threads carry it.
    pub threads: usize,
}

/// What a file of temporary grants holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// The lines that are grants.
    pub read: Vec<Grant>,
    /// Whether all of it could be read, as aa-render would.
    pub whole: bool,
}

impl Grants {
    fn read(path: &Path) -> Self {
        let Ok(text) = fs::read_to_string(path) else { return Self::default() };
        let whole = grants::parse(&text, path).is_ok();
        let read = text.lines().filter_map(|line| grants::parse(line, path).ok()).flatten().collect();
        Self { read, whole }
    }
}

/// The profiles that have files in a directory, and the grants.
///
/// # Errors
/// [`Error::Host`]: the directory is there and cannot be read.
pub fn on_disk(directory: &Path) -> Result<(BTreeSet<ProfileName>, BTreeMap<ProfileName, Grants>), Error> {
    let (mut profiles, mut grants) = (BTreeSet::new(), BTreeMap::new());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((profiles, grants)),
        other => other.map_err(Error::host(directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::host(directory))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Ok(profile) = name.parse() {
            profiles.insert(profile);
        } else if let Some(Ok(profile)) = name.strip_suffix(".grants").map(str::parse) {
            grants.insert(profile, Grants::read(&entry.path()));
        }
    }
    Ok((profiles, grants))
}

/// The lines of all guests, or of the named ones, in order of their names.
pub fn rows(found: &Found, only: &BTreeSet<ProfileName>) -> Vec<Row> {
    let mut names = only.clone();
    if names.is_empty() {
        names.extend(found.on_disk.iter().chain(found.loaded.keys()).chain(found.tasks.keys()));
        names.extend(found.wanted.iter().flat_map(|wanted| &wanted.profiles));
    }
    names.into_iter().map(|name| row(found, name)).collect()
}

fn row(found: &Found, name: ProfileName) -> Row {
    let loaded = found.loaded.get(&name);
    let mut processes: BTreeMap<u32, Process> = BTreeMap::new();
    let tasks = found.tasks.get(&name).map(Vec::as_slice).unwrap_or_default();
    for task in tasks {
        processes
            .entry(task.pid)
            .or_insert_with(|| Process {
                pid: task.pid,
                comm: task.comm.clone(),
                label: task.label.clone(),
                threads: 0,
            })
            .threads += 1;
    }
    let wanted = found.wanted.as_ref().map(|wanted| wanted.profiles.contains(&name));
    let on_disk = found.on_disk.contains(&name);
    let running = found.running.get(&name);
    let carries = |pid: &u32| tasks.iter().any(|task| task.pid == *pid && task.is_under(name));
    let grants = found.grants.get(&name);
    let drift = [
        (grants.is_some_and(|grants| !grants.whole), "its file of temporary grants cannot be read"),
        (loaded.is_none() && !processes.is_empty(), "a process carries it, the kernel no longer holds it"),
        (running.is_some() && loaded.is_none(), "the guest runs, the profile is not in the kernel"),
        (running.is_some_and(|pids| !pids.iter().all(carries)), "the guest's process does not carry it"),
        (
            loaded.is_some() && found.mode.as_ref().is_some_and(|mode| !enforces(mode)),
            "AppArmor as a whole does not enforce",
        ),
        (loaded.is_some() && !on_disk, "in the kernel, no file"),
        (
            wanted == Some(false) && processes.is_empty() && (on_disk || loaded.is_some()),
            "no definition needs it",
        ),
    ];
    Row {
        version: 1,
        profile: name,
        wanted,
        on_disk,
        in_kernel: loaded.is_some(),
        mode: loaded.map(|held| held.entry.mode.clone()),
        children: loaded.iter().flat_map(|held| &held.children).map(|child| child.name.clone()).collect(),
        grants: grants.map(|grants| grants.read.clone()).unwrap_or_default(),
        processes: processes.into_values().collect(),
        drift: drift.into_iter().filter_map(|(is, text)| is.then_some(text)).collect(),
    }
}

/// Writes the lines as a table for people.
///
/// # Errors
/// What the output said.
pub fn table(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:<44}  {:<6}  {:<4}  {:<10}  {:<6}  PROCESSES",
        "PROFILE", "WANTED", "DISK", "KERNEL", "GRANTS"
    )?;
    let yes = |yes| if yes { "yes" } else { "-" };
    for row in rows {
        let processes: Vec<String> = row.processes.iter().map(|process| process.pid.to_string()).collect();
        let processes = if processes.is_empty() { "-".to_owned() } else { processes.join(" ") };
        let mode = row.mode.as_deref().unwrap_or("-");
        let wanted = row.wanted.map_or("?", yes);
        let grants = if row.grants.is_empty() { "-".to_owned() } else { row.grants.len().to_string() };
        writeln!(
            out,
            "{:<44}  {wanted:<6}  {:<4}  {mode:<10}  {grants:<6}  {processes}",
            row.profile.to_string(),
            yes(row.on_disk)
        )?;
        for grant in &row.grants {
            let Grant { rule, reason, .. } = grant;
            let path = match &rule.target {
                Target::Path(path) => path.as_str(),
                Target::Glob(glob) => glob.as_str(),
            };
            writeln!(out, "    + {} {}: {}", Printable(path), rule.access, Printable(reason.as_str()))?;
        }
        for drift in &row.drift {
            writeln!(out, "    ! {drift}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::{NAME, put, tree};

    #[test]
    fn a_line_tells_what_fits_and_what_does_not() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let name: ProfileName = NAME.parse().unwrap();
        put(&kernel, &format!("{NAME}.1"), NAME, "complain", None);
        let disk = root.path().join("disk");
        fs::create_dir(&disk).unwrap();
        for file in [NAME.to_owned(), format!("{NAME}.files"), "TEMPLATE.qemu".to_owned()] {
            fs::write(disk.join(file), "").unwrap();
        }
        let grants_file = disk.join(format!("{NAME}.grants"));
        let grant =
            |path| format!(r#"{{"version":1,"rule":{{"path":"{path}","access":"rw"}},"reason":"nightly"}}"#);
        fs::write(&grants_file, format!("{}\n{}\n", grant("/srv/a"), grant("/srv/b"))).unwrap();
        let proc = root.path().join("proc");
        crate::tasks::tests::put(&proc, 5, 5, &format!("{NAME} (complain)"));
        crate::tasks::tests::put(&proc, 5, 6, &format!("{NAME} (complain)"));
        let (on_disk, grants) = on_disk(&disk).unwrap();
        let mut found = Found {
            wanted: Some(Wanted { profiles: [name].into(), ..Wanted::default() }),
            running: [(name, vec![5])].into(),
            on_disk,
            grants,
            loaded: kernel.list().unwrap(),
            tasks: crate::tasks::scan(&kernel, &proc).unwrap(),
            mode: Some("enforce".to_owned()),
        };
        let all = BTreeSet::new();
        let row = rows(&found, &all).remove(0);
        assert_eq!((row.wanted, row.on_disk, row.in_kernel, row.grants.len()), (Some(true), true, true, 2));
        assert_eq!((row.mode.as_deref(), row.processes[0].threads), (Some("complain"), 2));
        assert!(row.drift.is_empty(), "{:?}", row.drift);
        let mut text = Vec::new();
        table(&[row], &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("complain    2       5\n    + /srv/a rw: nightly"), "{text}");
        assert!(text.contains("    + /srv/b rw: nightly"), "{text}");
        // What aa-render takes for none, here too.
        let denial = grant("/srv/b").replace("\"access\"", "\"deny\":true,\"access\"");
        for other in ["rubbish", "# by hand", "", &denial] {
            fs::write(&grants_file, format!("{}\n{other}\n", grant("/srv/a"))).unwrap();
            found.grants = self::on_disk(&disk).unwrap().1;
            let row = rows(&found, &all).remove(0);
            let told = vec!["its file of temporary grants cannot be read"];
            assert_eq!((row.grants.len(), row.drift), (1, told), "{other}");
        }
        found.mode = Some("complain".to_owned());
        let is_told =
            |found: &Found| rows(found, &all)[0].drift.contains(&"AppArmor as a whole does not enforce");
        assert!(is_told(&found));
        found.mode = Some("kill".to_owned());
        assert!(!is_told(&found));
        // Who may not read it is told nothing.
        found.mode = None;
        found.grants.clear();
        found.tasks.clear();
        found.on_disk.clear();
        let row = rows(&found, &all).remove(0);
        assert_eq!(row.drift, ["the guest's process does not carry it", "in the kernel, no file"]);
        // Each of a container's processes.
        found.tasks = crate::tasks::scan(&kernel, &proc).unwrap();
        for (pids, is_told) in [(vec![5], false), (vec![5, 9], true)] {
            found.running = [(name, pids)].into();
            let drift = rows(&found, &all).remove(0).drift;
            assert_eq!(drift.contains(&"the guest's process does not carry it"), is_told, "{drift:?}");
        }
        found.running.clear();
        found.tasks.clear();
        found.wanted = Some(Wanted::default());
        assert!(rows(&found, &all)[0].drift.contains(&"no definition needs it"));
    }
}
