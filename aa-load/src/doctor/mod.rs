//! Whether this host can confine guests at all, and what is in the way.

mod release;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aa_contract::text::strip_os_code;
use serde::Serialize;

use crate::cache;
use crate::error::Error;
use crate::features;
use crate::kernel::{self, Kernel};
use crate::load::Options;
use crate::parameters;
use crate::parser::Parser;
use crate::tasks;
use crate::trust;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, but slower or less safely.
    Warning,
    /// It cannot work.
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub state: State,
    /// In words, printable.
    pub detail: String,
}

/// The security model, in the words of libvirt's capabilities (`<secmodel>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecurityModel {
    /// `apparmor`
    pub model: &'static str,
    /// The domain of interpretation: AppArmor has one, `0`.
    pub doi: &'static str,
}

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of this output; 1.
    pub version: u32,
    /// Absent where AppArmor is off: libvirt reports none there.
    pub secmodel: Option<SecurityModel>,
    /// Whether nothing failed.
    pub ok: bool,
    /// Each check.
    pub checks: Vec<Check>,
}

impl Check {
    fn of(name: &'static str, (state, detail): (State, String)) -> Self {
        Self { name, state, detail }
    }
}

/// Paths that only the doctor looks at.
#[derive(Debug, Clone)]
pub struct Paths {
    /// AppArmor's parameters.
    pub parameters: PathBuf,
    /// The directories of PATH, searched for other programs called aa-load.
    pub search: Vec<PathBuf>,
    /// The directory of guests' profiles.
    pub profiles: PathBuf,
}

/// Looks at everything.
pub fn examine(options: &Options, paths: &Paths) -> Report {
    let kernel = Kernel::open(&options.securityfs);
    let held = kernel.as_ref().ok();
    let checks = [
        Some(Check::of("kernel", enabled(&paths.parameters))),
        Some(Check::of("mode", mode(&paths.parameters))),
        Some(Check::of("securityfs", securityfs(&kernel))),
        Some(Check::of("privilege", privilege(&options.proc))),
        Some(Check::of("policy lock", lock(&paths.parameters))),
        Some(Check::of("parser", parser(options))),
        held.map(|kernel| Check::of("features", kernel_features(kernel))),
        held.map(|kernel| Check::of("namespace", namespace(kernel))),
        Some(Check::of("policy features", policy_features(options))),
        Some(Check::of("abstractions", owned(&options.base))),
        Some(Check::of("profiles", profiles(&paths.profiles))),
        Some(Check::of("cache", cached(options.cache.as_deref()))),
        held.map(|kernel| Check::of("own profiles", cages(kernel))),
        Some(Check::of("landlock", release::landlock(&options.securityfs, &options.proc))),
        Some(Check::of("kernel flaws", release::flaws(&options.proc))),
        Some(Check::of("aa-load", namesake(&paths.search))),
    ];
    let checks: Vec<Check> = checks.into_iter().flatten().collect();
    let is_on = held.is_some() && checks.first().is_some_and(|check| check.state == State::Ok);
    let secmodel = is_on.then_some(SecurityModel { model: "apparmor", doi: "0" });
    let ok = checks.iter().all(|check| check.state != State::Failed);
    Report { version: 1, secmodel, ok, checks }
}

/// Whether AppArmor is on. A kernel without it has no such parameter.
fn enabled(parameters: &Path) -> (State, String) {
    match parameters::read(parameters, "enabled") {
        Ok(enabled) if enabled == "Y" => (State::Ok, "AppArmor is on".into()),
        Ok(_) => {
            (State::Failed, format!("AppArmor is off ({} is not Y)", parameters.join("enabled").display()))
        }
        Err(error) => (State::Failed, format!("AppArmor is not built in, or cannot be asked: {error}")),
    }
}

fn securityfs(kernel: &Result<Kernel, Error>) -> (State, String) {
    match kernel {
        Ok(kernel) => (State::Ok, kernel.root().display().to_string()),
        Err(error) => (State::Failed, error.to_string()),
    }
}

fn kernel_features(kernel: &Kernel) -> (State, String) {
    match features::read_tree(&kernel.features()) {
        Ok(text) if text.contains("set_load") => (State::Ok, "read from the kernel".into()),
        Ok(_) => (State::Warning, "the kernel takes no sets of profiles: no --direct".into()),
        Err(error) => {
            let told = strip_os_code(&error);
            (State::Failed, format!("the kernel's features cannot be read: {told}"))
        }
    }
}

fn namespace(kernel: &Kernel) -> (State, String) {
    let told =
        |file: &str| fs::read_to_string(kernel.root().join(file)).ok().map(|text| text.trim().to_owned());
    match (told(".ns_name"), told(".ns_level")) {
        (Some(name), Some(level)) if level == "0" => (State::Ok, name),
        (Some(name), Some(level)) => (
            State::Warning,
            format!("{name} at level {level}: the host's own policy is not what is changed here"),
        ),
        _ => (State::Warning, "the kernel does not tell its policy namespace".into()),
    }
}

fn policy_features(options: &Options) -> (State, String) {
    let pinned = options.policy_features.clone().unwrap_or_else(|| features::PINNED.into());
    if pinned.is_file() {
        (State::Ok, pinned.display().to_string())
    } else {
        (State::Warning, format!("{} is missing: the kernel's own are used", pinned.display()))
    }
}

fn cached(directory: Option<&Path>) -> (State, String) {
    let Some(directory) = directory else { return (State::Warning, "not used".into()) };
    match cache::check(directory) {
        Ok(()) => (State::Ok, directory.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (State::Ok, format!("{} is made when needed", directory.display()))
        }
        Err(error) => {
            (State::Warning, format!("{} is not used: {}", directory.display(), strip_os_code(&error)))
        }
    }
}

/// AppArmor's mode as a whole: in one that does not enforce, no profile does.
fn mode(parameters: &Path) -> (State, String) {
    match parameters::mode(parameters) {
        Ok(mode) if kernel::enforces(&mode) => (State::Ok, mode),
        Ok(mode) => (State::Failed, format!("every profile is in mode {mode}, whatever it says itself")),
        Err(error) => (State::Failed, error.to_string()),
    }
}

/// Whether the kernel takes policy at all until it is booted again.
fn lock(parameters: &Path) -> (State, String) {
    match parameters::read(parameters, "lock_policy") {
        Ok(locked) if locked == "N" => (State::Ok, "policy can be changed".into()),
        Ok(_) => (State::Failed, "policy is locked until the next boot (apparmor.lock_policy)".into()),
        Err(error) => (State::Failed, error.to_string()),
    }
}

/// `CAP_MAC_ADMIN` in the effective set, and root: the kernel asks for both.
fn privilege(proc: &Path) -> (State, String) {
    const CAP_MAC_ADMIN: u32 = 33;
    let status = tasks::read(&proc.join("self/status")).ok().flatten().unwrap_or_default();
    let root = tasks::field(&status, "Uid:").and_then(|text| text.split_whitespace().nth(1)) == Some("0");
    match (tasks::is_capable(&status, CAP_MAC_ADMIN), root) {
        (true, true) => (State::Ok, "root with CAP_MAC_ADMIN".into()),
        (false, true) => (State::Failed, "root, but without CAP_MAC_ADMIN".into()),
        (_, false) => (State::Failed, "not root: nothing can be loaded or removed (status works)".into()),
    }
}

fn parser(options: &Options) -> (State, String) {
    let version = Parser::find(options.parser.as_deref()).and_then(|parser| {
        let version = parser.with_time(options.time).version()?;
        Ok((Parser::find(options.parser.as_deref())?, version))
    });
    match version {
        Ok((parser, version)) => {
            let note = if version.knows_perms_tables() {
                ""
            } else {
                "; perms tables are kept out, since it gets them wrong"
            };
            (State::Ok, format!("{} {version}{note}", parser.path().display()))
        }
        Err(error) => (State::Failed, error.to_string()),
    }
}

/// Whether nobody else can change a directory whose files become policy, by what a load asks of it.
fn owned(directory: &Path) -> (State, String) {
    match trust::directory(directory) {
        Ok(_) => (State::Ok, directory.display().to_string()),
        Err(problem) => (State::Failed, Error::from(problem).to_string()),
    }
}

/// The directory of guests' profiles, which aa-render makes if only its last component is missing.
fn profiles(directory: &Path) -> (State, String) {
    let missing = directory.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    match directory.parent().filter(|_| missing).map(owned) {
        Some((State::Ok, _)) => (State::Ok, format!("{} is made when needed", directory.display())),
        Some(failed) => failed,
        None => owned(directory),
    }
}

/// Whether the tools' own profiles are loaded and enforced.
fn cages(kernel: &Kernel) -> (State, String) {
    let loaded = match read(&kernel.root().join("profiles")) {
        Ok(loaded) => loaded,
        Err(error) => return (State::Warning, format!("not known: {error}")),
    };
    let missing: Vec<&str> = ["aa-derive", "aa-render", "aa-load", "aa-confine"]
        .into_iter()
        .filter(|tool| {
            let is_caged = |line| {
                let (name, mode) = tasks::split(line);
                name == *tool && kernel::enforces(mode)
            };
            !loaded.lines().any(is_caged)
        })
        .collect();
    if missing.is_empty() {
        return (State::Ok, "in force".into());
    }
    (State::Warning, format!("not in force for {}", missing.join(", ")))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::host(path))
}

/// AppArmor 4 and later install another program of this name.
fn namesake(path: &[PathBuf]) -> (State, String) {
    let own = std::env::current_exe().and_then(fs::canonicalize).ok();
    let found = path.iter().map(|directory| directory.join("aa-load")).find(|program| program.is_file());
    match found {
        Some(program) if fs::canonicalize(&program).ok() == own => {
            (State::Ok, "the name on PATH is this program".into())
        }
        Some(program) => (
            State::Warning,
            format!(
                "{} is AppArmor's own program of that name; call this one by its path",
                program.display()
            ),
        ),
        None => (State::Ok, "no other program of this name on PATH".into()),
    }
}

/// Writes the report for people.
///
/// # Errors
/// What the output said.
pub fn table(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for check in &report.checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "FAILED",
        };
        writeln!(out, "{state:<8} {:<16} {}", check.name, check.detail)?;
    }
    match &report.secmodel {
        Some(model) => writeln!(out, "security model {}, doi {}", model.model, model.doi),
        None => writeln!(out, "security model none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::tree;

    fn state(report: &Report, name: &str) -> State {
        report.checks.iter().find(|check| check.name == name).unwrap().state
    }

    #[test]
    fn a_host_with_and_one_without_apparmor_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        tree(root.path());
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("proc/self")).unwrap();
        fs::write(at("proc/self/status"), "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n").unwrap();
        for (name, value) in [("enabled", "Y\n"), ("mode", "enforce"), ("lock_policy", "N\n")] {
            fs::write(at(name), value).unwrap();
        }
        fs::write(at("lsm"), "lockdown,landlock,apparmor\n").unwrap();
        fs::create_dir_all(at("proc/sys/kernel")).unwrap();
        fs::write(at("proc/sys/kernel/osrelease"), "6.12.118\n").unwrap();
        let own = "aa-load (enforce)\naa-derive (enforce)\naa-confine (enforce)\naa-render (enforce)\n";
        fs::write(at("apparmor/profiles"), own).unwrap();
        fs::write(at("apparmor/.ns_name"), "root\n").unwrap();
        fs::write(at("apparmor/.ns_level"), "0\n").unwrap();
        let options = Options {
            securityfs: root.path().into(),
            proc: at("proc"),
            parser: Some(at("none")),
            cache: None,
            ..Options::default()
        };
        let paths = Paths { parameters: root.path().into(), search: vec![], profiles: at("profiles") };
        let report = examine(&options, &paths);
        for name in [
            "kernel",
            "mode",
            "securityfs",
            "privilege",
            "policy lock",
            "features",
            "namespace",
            "own profiles",
            "profiles",
            "landlock",
            "kernel flaws",
            "aa-load",
        ] {
            assert_eq!(state(&report, name), State::Ok, "{name}");
        }
        assert_eq!(state(&report, "parser"), State::Failed);
        assert!(!report.ok);
        let json = serde_json::to_string(&report.secmodel).unwrap();
        assert_eq!(json, r#"{"model":"apparmor","doi":"0"}"#);
        fs::write(at("enabled"), "N\n").unwrap();
        fs::write(at("proc/self/status"), "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\n").unwrap();
        fs::write(at("aa-load"), "").unwrap();
        let told = |report: &Report| report.checks[0].detail.clone();
        assert!(told(&examine(&options, &paths)).contains("enabled is not Y"));
        fs::remove_file(at("enabled")).unwrap();
        let report = examine(&options, &Paths { search: vec![root.path().into()], ..paths });
        assert!(told(&report).ends_with("enabled: no such file or directory"), "{}", told(&report));
        assert_eq!(report.secmodel, None);
        assert_eq!(state(&report, "kernel"), State::Failed);
        assert_eq!(state(&report, "privilege"), State::Failed);
        assert_eq!(state(&report, "aa-load"), State::Warning);
    }

    #[test]
    fn a_tool_whose_profile_is_not_in_force_is_named() {
        let root = tempfile::tempdir().unwrap();
        let kernel = tree(root.path());
        let profiles = "aa-load (complain)\naa-derive (enforce)\naa-confine (kill)\n";
        fs::write(kernel.root().join("profiles"), profiles).unwrap();
        let (state, detail) = cages(&kernel);
        assert_eq!(state, State::Warning);
        assert!(detail.ends_with("for aa-render, aa-load"), "{detail}");
    }

    #[test]
    fn a_mode_or_a_lock_that_holds_for_all_profiles_fails() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, value: &str| fs::write(dir.path().join(name), value).unwrap();
        assert_eq!((mode(dir.path()).0, lock(dir.path()).0), (State::Failed, State::Failed), "not known");
        for (value, state) in [
            ("enforce", State::Ok),
            ("kill\n", State::Ok),
            ("complain\n", State::Failed),
            ("", State::Failed),
        ] {
            put("mode", value);
            assert_eq!(mode(dir.path()).0, state, "{value}");
        }
        for (value, state) in [("N\n", State::Ok), ("Y\n", State::Failed)] {
            put("lock_policy", value);
            assert_eq!(lock(dir.path()).0, state, "{value}");
        }
        assert!(lock(dir.path()).1.contains("apparmor.lock_policy"));
    }

    #[test]
    fn a_directory_of_profiles_is_judged_as_a_load_and_a_render_judge_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode =
            |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        let state = |name: &str| profiles(&at(name)).0;
        fs::create_dir_all(at("up/d")).unwrap();
        assert_eq!(state("up/d"), State::Ok);
        assert_eq!(state("up/none"), State::Ok, "aa-render makes it");
        assert_eq!(state("none/none"), State::Failed);
        assert_eq!(owned(&at("up/none")).0, State::Failed);
        mode("up", 0o777);
        for name in ["up/d", "up/none"] {
            let (state, detail) = profiles(&at(name));
            assert_eq!(state, State::Failed, "{name}");
            assert!(detail.contains("everybody may write to it"), "{detail}");
        }
        // What is in a sticky directory stays there.
        mode("up", 0o1777);
        assert_eq!(state("up/d"), State::Ok);
        mode("up/d", 0o1777);
        assert_eq!(state("up/d"), State::Failed);
        fs::write(at("file"), "").unwrap();
        assert_eq!(state("file"), State::Failed);
    }
}
