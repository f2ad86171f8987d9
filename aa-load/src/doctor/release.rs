//! What a kernel can do, and what is wrong with it, by its number.

use std::fs;
use std::path::Path;

use super::State;

/// Which of aa-derive's doings Landlock does not deny before a release of Linux.
const LANDLOCK_LACKS: [(Release, &str); 4] = [
    (Release(6, 2, 0), "truncating files"),
    (Release(6, 7, 0), "TCP"),
    (Release(6, 10, 0), "ioctl on devices"),
    (Release(6, 12, 0), "signals and abstract sockets"),
];

/// The nine flaws of March 2026 by which an unprivileged user can change policy or harm the kernel.
const FLAWS: &str = "AppArmor's flaws of March 2026 (CVE-2026-23268, -23269, -23403 to -23411)";
/// The first release of each stable series with all their repairs, and of all later ones (kernel.org's records of
/// those CVEs).
const REPAIRED: [Release; 5] =
    [Release(6, 6, 130), Release(6, 12, 77), Release(6, 18, 18), Release(6, 19, 8), Release(7, 0, 0)];
/// Debian's, which had them earlier (changelogs of linux in bookworm-security and trixie-security).
const REPAIRED_BY_DEBIAN: [Release; 2] = [Release(6, 1, 164), Release(6, 12, 74)];

/// A release of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Release(u32, u32, u32);

impl Release {
    /// From a text that begins with it.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
        Some(Self(numbers.next()?, numbers.next()?, numbers.next().unwrap_or_default()))
    }

    fn is_in_series_of(self, other: Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What the kernel calls itself: `osrelease` or `version` of proc(5)'s `/proc/sys/kernel`.
fn told(proc: &Path, file: &str) -> String {
    fs::read_to_string(proc.join("sys/kernel").join(file)).unwrap_or_default().trim_end().to_owned()
}

/// By the kernel's release, since only a system call of Landlock's own tells what it can.
pub(super) fn landlock(securityfs: &Path, proc: &Path) -> (State, String) {
    match super::read(&securityfs.join("lsm")) {
        Ok(list) if list.trim_end().split(',').any(|name| name == "landlock") => {}
        Ok(_) => return (State::Warning, "off: aa-derive has its AppArmor profile alone".into()),
        Err(error) => return (State::Warning, format!("not known: {error}")),
    }
    let name = told(proc, "osrelease");
    let Some(release) = Release::parse(&name) else {
        return (State::Warning, "on; what it can deny is not known".into());
    };
    let lacks: Vec<&str> =
        LANDLOCK_LACKS.iter().filter(|(since, _)| release < *since).map(|(_, what)| *what).collect();
    if lacks.is_empty() {
        return (State::Ok, "on".into());
    }
    (State::Warning, format!("on; on Linux {name} it does not deny aa-derive {}", lacks.join(", ")))
}

/// Whether the kernel's own AppArmor is known to be flawed. A distribution that repairs its kernel and leaves the number as
/// it was is told from none; the third number is then 0 (Ubuntu, Red Hat).
pub(super) fn flaws(proc: &Path) -> (State, String) {
    let (name, version) = (told(proc, "osrelease"), told(proc, "version"));
    let debians = version.split_once("Debian ").and_then(|(_, package)| Release::parse(package));
    let (release, repaired) = match debians {
        Some(release) => (Some(release), [&REPAIRED_BY_DEBIAN[..], &REPAIRED].concat()),
        None => (Release::parse(&name), REPAIRED.to_vec()),
    };
    let Some(release) = release else {
        return (State::Warning, format!("the kernel's release is not known, nor whether it has {FLAWS}"));
    };
    let in_series = repaired.iter().find(|first| release.is_in_series_of(**first));
    match in_series {
        Some(first) if release < *first && release.2 > 0 => {
            (State::Warning, format!("Linux {release} has {FLAWS}; {first} is the first without"))
        }
        _ if repaired.iter().all(|first| release >= *first)
            || in_series.is_some_and(|first| release >= *first) =>
        {
            (State::Ok, format!("Linux {release} has none of {FLAWS}"))
        }
        _ => (State::Warning, format!("whether Linux {name} has {FLAWS}, its distribution knows")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(proc: &Path, osrelease: &str, version: &str) {
        fs::create_dir_all(proc.join("sys/kernel")).unwrap();
        fs::write(proc.join("sys/kernel/osrelease"), osrelease).unwrap();
        fs::write(proc.join("sys/kernel/version"), version).unwrap();
    }

    #[test]
    fn what_a_kernel_does_not_deny_is_said() {
        let root = tempfile::tempdir().unwrap();
        let landlock = |lsm: &str, release: &str| {
            fs::write(root.path().join("lsm"), lsm).unwrap();
            tell(root.path(), release, "");
            landlock(root.path(), root.path())
        };
        assert_eq!(landlock("landlock,apparmor\n", "6.18.4").0, State::Ok);
        assert_eq!(landlock("apparmor,landlock\n", "7.0-rc1\n").0, State::Ok);
        let (state, detail) = landlock("landlock\n", "6.1.0-56-amd64\n");
        assert_eq!(state, State::Warning);
        assert!(detail.contains("6.1.0-56-amd64") && detail.contains("truncating files, TCP"), "{detail}");
        let (_, detail) = landlock("landlock\n", "6.9.1\n");
        assert!(!detail.contains("TCP") && detail.contains("signals"), "{detail}");
        assert!(landlock("lockdown,apparmor\n", "6.18.4").1.starts_with("off"));
        assert!(landlock("landlock\n", "").1.contains("not known"));
    }

    #[test]
    fn a_kernel_that_is_known_to_be_flawed_is_told() {
        let root = tempfile::tempdir().unwrap();
        let flaws = |release: &str, version: &str| {
            tell(root.path(), release, version);
            flaws(root.path())
        };
        let debian = |package: &str| format!("#1 SMP PREEMPT_DYNAMIC Debian {package} (2026-03-14)\n");
        for (release, version) in [
            ("6.1.0-44-amd64\n", debian("6.1.164-1")),
            ("6.12.74+deb13-amd64\n", debian("6.12.74-1")),
            ("6.19.11+deb14-amd64\n", debian("6.19.11-1")),
            ("6.12.77\n", String::new()),
            ("6.18.44-lts\n", "#1 SMP PREEMPT_DYNAMIC\n".to_owned()),
            ("7.0.0-14-generic\n", "#14-Ubuntu SMP\n".to_owned()),
            ("7.1.3\n", String::new()),
        ] {
            assert_eq!(flaws(release, &version).0, State::Ok, "{release}");
        }
        for (release, version) in [
            ("6.1.0-43-amd64\n", debian("6.1.162-1")),
            ("6.12.73+deb13-amd64\n", debian("6.12.73-1")),
            ("6.12.76\n", String::new()),
            ("6.18.17\n", String::new()),
        ] {
            let (state, detail) = flaws(release, &version);
            assert!(
                state == State::Warning && detail.contains("is the first without"),
                "{release}: {detail}"
            );
        }
        for release in ["6.8.0-110-generic\n", "5.14.0-570.el9\n", "6.1.170\n", "6.12.0-124.el10\n"] {
            let (state, detail) = flaws(release, "#110-Ubuntu SMP\n");
            assert!(state == State::Warning && detail.contains("distribution knows"), "{release}: {detail}");
        }
        assert!(flaws("", "").1.contains("is not known"));
    }
}
