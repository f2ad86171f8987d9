//! aa-derive gives up what Landlock can take from it before it looks at any input, and says so where it must and cannot.

use aa_tests::strace::{self, Run};

use crate::tools::tool;

const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/domains/testqemu.xml");
/// The kernel's interface that can deny all of it (Linux 6.12).
const ALL: u32 = 6;

fn derive(option: Option<&str>, fault: Option<&str>) -> Run {
    let mut program = tool("aa-derive");
    program.args(option).arg(INPUT);
    strace::run(&program, fault, "")
}

/// The number of the kernel's interface; 0 if it has none.
fn interface(run: &Run) -> u32 {
    let asked = run.log.lines().find(|line| line.starts_with("landlock_create_ruleset(NULL, 0,")).unwrap();
    asked.rsplit_once("= ").unwrap().1.parse().unwrap_or(0)
}

/// Where in the log the first line is that these words begin and that has these in it.
fn at(run: &Run, call: &str, with: &str) -> Option<usize> {
    run.log.lines().position(|line| line.starts_with(call) && line.contains(with))
}

#[test]
#[ignore = "needs strace"]
fn it_is_in_force_before_any_input_is_read() {
    let run = derive(None, None);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    // The first line is the start of the program, with its arguments.
    let read = run.log.lines().skip(1).position(|line| line.contains(INPUT)).unwrap() + 1;
    let restricted = at(&run, "landlock_restrict_self(", " = 0");
    assert_eq!(restricted.is_some(), interface(&run) > 0, "{}", run.log);
    if let Some(restricted) = restricted {
        assert!(at(&run, "prctl(PR_SET_NO_NEW_PRIVS", " = 0").unwrap() < restricted);
        assert!(restricted < read, "{}", run.log);
        assert_eq!(at(&run, "clone", "").filter(|started| *started < restricted), None, "{}", run.log);
    }
}

#[test]
#[ignore = "needs strace"]
fn where_it_is_required_it_is_there_in_full_or_nothing_is_read() {
    let run = derive(Some("--require-sandbox"), None);
    if interface(&run) >= ALL {
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
        assert!(at(&run, "landlock_restrict_self(", " = 0").is_some());
    } else {
        refused(&run, "Landlock");
    }
}

#[test]
#[ignore = "needs strace"]
fn without_it_only_who_requires_it_is_refused() {
    let undisturbed = derive(None, None).stdout;
    for (error, says) in [("ENOSYS", "not built into this kernel"), ("EOPNOTSUPP", "but off (lsm=)")] {
        let fault = format!("inject=landlock_create_ruleset:error={error}");
        let run = derive(None, Some(&fault));
        assert_eq!((run.status, &run.stdout), (Some(0), &undisturbed), "{error}");
        refused(&derive(Some("--require-sandbox"), Some(&fault)), says);
    }
}

#[test]
#[ignore = "needs strace and Landlock"]
fn a_kernel_that_has_it_and_does_not_give_it_is_told() {
    assert!(interface(&derive(None, None)) > 0, "this kernel has no Landlock");
    for fault in [
        "landlock_create_ruleset:error=ENOMEM:when=2",
        "landlock_restrict_self:error=EPERM",
        "prctl:error=EPERM",
    ] {
        for option in [None, Some("--require-sandbox")] {
            refused(&derive(option, Some(&format!("inject={fault}"))), "Landlock: ");
        }
    }
}

/// It is the host's failure, the reason is told, and no input was looked at.
#[track_caller]
fn refused(run: &Run, says: &str) {
    assert_eq!((run.status, run.stdout.as_str()), (Some(3), ""), "{}", run.stderr);
    assert!(run.stderr.starts_with("aa-derive: ") && run.stderr.contains(says), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.log.lines().skip(1).all(|line| !line.contains(INPUT)), "{}", run.log);
}
