//! This program's own cage: once in it, no input can make the process write, execute or use TCP.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetError, RulesetStatus, Scope,
};

/// The newest of the kernel's interfaces that is used here (Linux 6.12). An older kernel denies what it can:
/// writing from 5.13 on, truncating from 6.2, TCP from 6.7, the rest from 6.12.
const NEWEST: ABI = ABI::V6;

/// Has the kernel deny this thread, and those that it starts, all that Landlock can but reading. What is
/// open already stays as it is: standard output.
///
/// The kernel asks for `no_new_privs`; a process that executes nothing loses nothing by it.
///
/// # Errors
/// The kernel has Landlock and refuses; or `required` and it cannot deny all of that.
pub(crate) fn enter(required: bool) -> Result<(), String> {
    let status = restrict().map_err(|error| format!("Landlock: {error}"))?;
    if !required || status.ruleset == RulesetStatus::FullyEnforced {
        return Ok(());
    }
    Err(match status.landlock {
        LandlockStatus::NotImplemented => "Landlock is not built into this kernel".to_owned(),
        LandlockStatus::NotEnabled => "Landlock is built into this kernel, but off (lsm=)".to_owned(),
        LandlockStatus::Available { effective_abi, .. } => format!(
            "this kernel's Landlock denies only a part of what it should (interface {effective_abi:?}, {NEWEST:?} is wanted)"
        ),
    })
}

fn restrict() -> Result<RestrictionStatus, RulesetError> {
    // Reading is not among what is denied, so it needs no rule: which files are read, the path policy says.
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(NEWEST) | AccessFs::Execute)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    /// In a thread of its own, since it cannot be undone.
    #[test]
    #[ignore = "needs Landlock"]
    fn nothing_is_written_executed_or_bound_and_everything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        let status = std::thread::scope(|scope| {
            let tried = scope.spawn(|| {
                let open = OpenOptions::new().append(true).open(&file).unwrap();
                assert!(TcpListener::bind("127.0.0.1:0").is_ok());
                let status = restrict().unwrap();
                assert_ne!(status.ruleset, RulesetStatus::NotEnforced, "no Landlock: {:?}", status.landlock);
                assert_eq!(fs::read_to_string(&file).unwrap(), "text");
                assert!(fs::read_dir(dir.path()).unwrap().count() == 1);
                let denied = |result: std::io::Result<()>| {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
                };
                denied(OpenOptions::new().write(true).open(&file).map(drop));
                denied(File::create(dir.path().join("new")).map(drop));
                denied(fs::create_dir(dir.path().join("new")));
                denied(fs::remove_file(&file));
                denied(std::os::unix::fs::symlink("file", dir.path().join("link")));
                denied(Command::new("/bin/true").status().map(drop));
                // The threads that it starts are as it is.
                std::thread::scope(|scope| {
                    scope.spawn(|| denied(File::create(dir.path().join("new")).map(drop)));
                });
                if status.ruleset == RulesetStatus::FullyEnforced {
                    denied(TcpListener::bind("127.0.0.1:0").map(drop));
                    denied(nix::unistd::truncate(&file, 0).map_err(Into::into));
                }
                // What was open before stays usable, as standard output must.
                std::io::Write::write_all(&mut &open, b"more").unwrap();
                status
            });
            tried.join().unwrap()
        });
        assert!(status.no_new_privs);
        assert_eq!(fs::read_to_string(&file).unwrap(), "textmore");
        // The twin: this thread is not confined.
        fs::write(&file, "").unwrap();
        assert!(Command::new("/bin/true").status().unwrap().success());
    }
}
