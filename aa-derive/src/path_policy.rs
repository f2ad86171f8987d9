//! What may never be granted, as data: a list of prefixes, in `policy/paths.policy` or a file of the user's.

use std::fmt;

use aa_contract::Access;
use aa_contract::text::Printable;
use thiserror::Error;

use crate::host_policy::OF_GUESTS;
use crate::mounts::HugePages;

/// The policy that is used where the user gives none.
pub const DEFAULT: &str = include_str!("../policy/paths.policy");

/// What a line of the policy says of the paths below its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Refuse,
    Read,
    Run,
    Own,
    Single,
    Allow,
}

/// One line of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    verb: Verb,
    /// The prefix, without the `*` at its end; where the line holds anywhere, that behind its `**`.
    prefix: String,
    /// Whether the prefix may begin at any slash of a path.
    anywhere: bool,
    /// Whether the prefix may end within a path component.
    open: bool,
    /// What stands behind the `*`, which then is the guest's name; only of `own` lines.
    end: String,
    /// Line number in the policy, from 1; none of what is known of the host, or is not.
    number: Option<usize>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "line {number}: ")?,
            None if self.anywhere => f.write_str("mounts that cannot be read: ")?,
            None => f.write_str("a mount of huge pages: ")?,
        }
        let verb = match self.verb {
            Verb::Refuse => "refuse",
            Verb::Read => "read",
            Verb::Run => "run",
            Verb::Own => "own",
            Verb::Single => "single",
            Verb::Allow => "allow",
        };
        write!(f, "{verb} {}", self.paths())
    }
}

/// Why a path may not be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restriction {
    /// What the policy says of the path, as `/etc is restricted`.
    pub reason: String,
    /// Where it says so, as `path policy line 24: refuse /etc`.
    pub line: String,
    /// Whether the path is kept for another guest.
    pub another_guests: bool,
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.line)
    }
}

impl Line {
    /// The paths that the line is about, as the policy writes them.
    fn paths(&self) -> String {
        let star = if self.open { "*" } else { "" };
        let stars = if self.anywhere { "**" } else { "" };
        format!("{stars}{}{star}{}", Printable(&self.prefix), Printable(&self.end))
    }

    /// What the line says of these paths where it refuses one.
    fn reason(&self) -> String {
        let paths = self.paths();
        match self.verb {
            Verb::Refuse => format!("{paths} is restricted"),
            Verb::Read | Verb::Run => format!("{paths} may only be read"),
            Verb::Own => format!("{paths} is each one guest's own"),
            Verb::Single => format!("{paths} is granted file by file"),
            Verb::Allow => format!("{paths} is allowed"),
        }
    }

    /// What of `path` lies behind the prefix, if the prefix matches.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.anywhere { self.rests(path).next() } else { self.rest_at(path) }
    }

    /// The same for each place in `path` where a prefix that may begin anywhere matches.
    fn rests<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        path.match_indices('/').filter_map(|(at, _)| self.rest_at(path.get(at..)?))
    }

    /// Whether a path that lies so behind the prefix is refused.
    fn refuses(&self, rest: &str, want: Want, owner: Owner<'_>) -> bool {
        match self.verb {
            Verb::Refuse => true,
            Verb::Read => want != Want::Read,
            Verb::Run => want == Want::Write,
            // Where nobody knows what is mounted there, only what is called as a guest's is taken for one's.
            Verb::Own if self.anywhere => is_of_a_guest(rest) && !owner.owns(rest, false),
            Verb::Own => self.end.is_empty() && !owner.owns(rest, !self.prefix.ends_with('/')),
            Verb::Single | Verb::Allow => false,
        }
    }

    /// The same of a path that must begin with the prefix.
    fn rest_at<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.prefix.as_str())?;
        (self.open || rest.is_empty() || rest.starts_with('/') || self.prefix == "/").then_some(rest)
    }

    /// As [`Line::rest`], but a line with an end is only for the file that carries the guest's name.
    fn rest_for<'p>(&self, path: &'p str, owner: Owner<'_>) -> Option<&'p str> {
        let rest = self.rest(path)?;
        (self.end.is_empty() || rest.strip_suffix(self.end.as_str()) == Some(owner.name)).then_some(rest)
    }

    /// Whether both are of the same paths.
    fn stands_for(&self, other: &Self) -> bool {
        let of = |line: &Self| (line.anywhere, line.open);
        of(self) == of(other) && self.prefix == other.prefix && self.end == other.end
    }

    /// Whether something that the prefix matches lies below the directory; of one that may begin anywhere, directly in it.
    fn is_below(&self, dir: &str) -> bool {
        if self.anywhere {
            return dir.ends_with(self.prefix.trim_end_matches('/'));
        }
        dir == "/"
            || self.prefix.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// How much of a path is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The file itself.
    File,
    /// A directory with everything below it.
    Tree,
}

/// What is wanted of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// To read it.
    Read,
    /// To change it.
    Write,
    /// To execute it as the emulator.
    Run,
}

impl From<Access> for Want {
    fn from(access: Access) -> Self {
        if access.writes() {
            Self::Write
        } else if access.exec().is_some() {
            Self::Run
        } else {
            Self::Read
        }
    }
}

/// How many characters of a guest's name libvirt puts into the names of its directories.
const CUT: usize = 20;

/// The names that make a path this guest's own, as libvirt builds them into directory names.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The domain's id, if it runs.
    pub id: Option<i32>,
    /// The domain's name.
    pub name: &'a str,
}

impl Owner<'_> {
    /// The guest's name as libvirt builds it into directories: the id, or -1, and the first 20 characters of the
    /// name (libvirt: `virDomainDefGetShortName`). libvirt makes none for a guest that does not run.
    pub fn short_name(&self) -> String {
        format!("{}-{}", self.running().unwrap_or(-1), self.cut_name())
    }

    /// The id of a guest that runs.
    fn running(&self) -> Option<i32> {
        self.id.filter(|id| *id >= 0)
    }

    fn cut_name(&self) -> String {
        self.name.chars().take(CUT).collect()
    }

    /// Whether a file that libvirt calls by this guest's name alone could be one that it keeps for another guest's helper,
    /// which it calls ID-NAME, a dash and what the helper is for.
    pub fn is_called_as_anothers_helper(&self) -> bool {
        numbered(self.name).is_some_and(|(number, rest)| {
            let is_own = self.running().is_some_and(|id| number == id.to_string());
            !is_own && rest.char_indices().skip(1).any(|(_, c)| c == '-')
        })
    }

    /// Whether the rest of a path behind an `own` prefix starts with this guest's id and name; or, where a word stands before
    /// it in the component, is the name alone, as libvirt called its directories before it put the id there. By itself a
    /// name is no proof: in a directory of files whose names people choose it could be what another guest's file is called.
    fn owns(&self, rest: &str, behind_word: bool) -> bool {
        let component = rest.split('/').next().unwrap_or_default();
        let Some((number, name)) = numbered(component) else {
            return behind_word && component == self.name;
        };
        match self.running() {
            // Two guests that run have two ids, so that whatever is behind the name is this guest's. A guest that is
            // called as another one's directory does not own it.
            Some(id) => {
                let behind = name.strip_prefix(self.cut_name().as_str());
                number == id.to_string()
                    && behind.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            }
            // Without an id, a name that is or was cut could be a longer one's of a guest that runs.
            None if number == "-1" => name == self.cut_name(),
            None => name == self.name && name.chars().count() < CUT,
        }
    }
}

/// The number of a component `NUMBER-REST`, with its sign, and the rest.
fn numbered(component: &str) -> Option<(String, &str)> {
    let (sign, digits) = component.strip_prefix('-').map_or(("", component), |rest| ("-", rest));
    let (digits, rest) = digits.split_once('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (format!("{sign}{digits}"), rest))
}

/// Whether the first component of a path is called by an id and a name.
fn is_of_a_guest(path: &str) -> bool {
    numbered(path.split('/').next().unwrap_or_default()).is_some()
}

/// Why a policy file was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct PolicyError {
    /// Line number, from 1.
    pub line: usize,
    reason: &'static str,
}

/// The whole policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPolicy {
    /// The file that it was read from, if it is not the built-in one.
    file: Option<String>,
    /// Longest prefix first, so that the first match holds.
    lines: Vec<Line>,
    /// Those of no place of their own, each of which must let a path through besides.
    anywhere: Vec<Line>,
}

impl PathPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`]: a line is not a verb and an absolute prefix, or a prefix stands twice.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut lines: Vec<Line> = Vec::new();
        for (number, text) in (1..).zip(text.lines()) {
            let fail = |reason| PolicyError { line: number, reason };
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (verb, prefix) =
                text.split_once(char::is_whitespace).ok_or_else(|| fail("a line is a verb and a prefix"))?;
            let verb = match verb {
                "refuse" => Verb::Refuse,
                "read" => Verb::Read,
                "run" => Verb::Run,
                "own" => Verb::Own,
                "single" => Verb::Single,
                "allow" => Verb::Allow,
                _ => return Err(fail("the verbs are refuse, read, run, own, single and allow")),
            };
            let (anywhere, prefix) = match prefix.trim().strip_prefix("**") {
                Some(prefix) => (true, prefix),
                None => (false, prefix),
            };
            if anywhere && (prefix == "/" || !matches!(verb, Verb::Refuse | Verb::Read)) {
                return Err(fail("only of refuse and read lines a prefix may begin with **, and it goes on"));
            }
            let (prefix, end) = match prefix.trim().split_once('*') {
                Some((prefix, end)) => (prefix, Some(end)),
                None => (prefix.trim(), None),
            };
            let (open, end) = (end.is_some(), end.unwrap_or_default());
            if aa_contract::LiteralPath::new(prefix).is_err() || end.contains(['*', '/']) {
                return Err(fail(
                    "a prefix is an absolute, normal path, with a * only in its last component, or ** before it",
                ));
            }
            if !end.is_empty() && verb != Verb::Own {
                return Err(fail("only of own lines may something stand behind the *"));
            }
            if verb == Verb::Own && !open {
                return Err(fail("an own line has a * where the guest's id and name or its name stand"));
            }
            let prefix = if open || prefix == "/" { prefix } else { prefix.trim_end_matches('/') };
            let (prefix, end) = (prefix.to_owned(), end.to_owned());
            let line = Line { verb, prefix, anywhere, open, end, number: Some(number) };
            if lines.iter().any(|other| other.stands_for(&line)) {
                return Err(fail("the prefix stands twice"));
            }
            lines.push(line);
        }
        let (anywhere, lines) = lines.into_iter().partition(|line| line.anywhere);
        Ok(Self { file: None, lines, anywhere }.sorted())
    }

    /// The same, told as that of a file.
    #[must_use]
    pub fn of_file(self, file: String) -> Self {
        Self { file: Some(file), ..self }
    }

    fn sorted(mut self) -> Self {
        self.lines.sort_by_key(|line| std::cmp::Reverse((line.prefix.len(), !line.open, line.end.len())));
        self
    }

    /// This policy for a host on which huge pages are mounted here: libvirt's directories there are each one guest's. Where
    /// that is not known, so is whatever is called as one of these.
    #[must_use]
    pub fn with(&self, mounts: Option<&HugePages>) -> Self {
        let mut policy = self.clone();
        let own = |prefix, anywhere| {
            let end = String::new();
            Line { verb: Verb::Own, prefix, anywhere, open: true, end, number: None }
        };
        let Some(mounts) = mounts else {
            policy.anywhere.push(own(OF_GUESTS.to_owned(), true));
            return policy;
        };
        for prefix in mounts.of_guests() {
            let line = own(prefix, false);
            if !policy.lines.iter().any(|other| other.stands_for(&line)) {
                policy.lines.push(line);
            }
        }
        policy.sorted()
    }

    /// What a line of this policy says, for people.
    pub fn restriction(&self, line: &Line) -> Restriction {
        let place = match (line.number, &self.file) {
            (None, _) => line.to_string(),
            (Some(_), None) => format!("path policy {line}"),
            (Some(_), Some(file)) => format!("path policy {}, {line}", Printable(file)),
        };
        Restriction { reason: line.reason(), line: place, another_guests: line.verb == Verb::Own }
    }

    /// Whether so much of a path may be granted.
    ///
    /// # Errors
    /// The line that refuses it.
    pub fn judge(&self, path: &str, reach: Reach, want: Want, owner: Owner<'_>) -> Result<(), &Line> {
        match reach {
            Reach::File => self.check(path, want, owner),
            Reach::Tree => self.check_tree(path, want, owner),
        }
    }

    /// Whether one path may be granted.
    ///
    /// # Errors
    /// The line that refuses it.
    pub fn check(&self, path: &str, want: Want, owner: Owner<'_>) -> Result<(), &Line> {
        let anywhere = self.anywhere.iter().flat_map(|line| line.rests(path).map(move |rest| (line, rest)));
        let mut all = anywhere.chain(self.line_for(path, owner));
        match all.find(|(line, rest)| line.refuses(rest, want, owner)) {
            Some((line, _)) => Err(line),
            None => Ok(()),
        }
    }

    /// The line that holds for a path, and what of the path lies behind its prefix.
    fn line_for<'p>(&self, path: &'p str, owner: Owner<'_>) -> Option<(&Line, &'p str)> {
        self.lines.iter().find_map(|line| Some((line, line.rest_for(path, owner)?)))
    }

    /// Whether a program may be the domain's emulator: by its path, or by that of a link to it, a `run` line knows it; or
    /// no line speaks of it, as of one that was built below `/opt`.
    pub fn is_emulator(&self, path: &str, resolved: &str, owner: Owner<'_>) -> bool {
        let refuses = |line: &Line| line.rests(resolved).any(|rest| line.refuses(rest, Want::Run, owner));
        if self.anywhere.iter().any(|line| line.verb != Verb::Read && refuses(line)) {
            return false;
        }
        let verb = |path| self.line_for(path, owner).map(|(line, _)| line.verb);
        match verb(resolved) {
            Some(Verb::Run) | None => true,
            Some(Verb::Read) => verb(path) == Some(Verb::Run),
            Some(_) => false,
        }
    }

    /// Whether a directory may be granted with everything below it.
    ///
    /// # Errors
    /// The line that refuses it.
    pub fn check_tree(&self, dir: &str, want: Want, owner: Owner<'_>) -> Result<(), &Line> {
        let dir = if dir == "/" { dir } else { dir.trim_end_matches('/') };
        self.check(dir, want, owner)?;
        if let Some((line, _)) = self.line_for(dir, owner).filter(|(line, _)| line.verb == Verb::Single) {
            return Err(line);
        }
        let refuses = |line: &&Line| match line.verb {
            Verb::Refuse | Verb::Own | Verb::Single => true,
            Verb::Read | Verb::Run => want != Want::Read,
            Verb::Allow => false,
        };
        let below = self.lines.iter().filter(|line| line.is_below(dir) && line.rest(dir).is_none());
        let unknown = self.anywhere.iter().filter(|line| line.verb == Verb::Own && line.is_below(dir));
        match below.chain(unknown).find(refuses) {
            Some(line) => Err(line),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'static> = Owner { id: Some(7), name: "guest" };

    fn policy() -> PathPolicy {
        PathPolicy::parse(DEFAULT).unwrap()
    }

    #[test]
    fn the_system_is_refused_and_images_are_not() {
        let policy = policy();
        for refused in [
            "/etc/shadow",
            "/etc",
            "/bin/sh",
            "/lib/x",
            "/lib64/x",
            "/usr/lib/x",
            "/usr/lib64/x",
            "/usr/share/x",
            "/proc/1/mem",
            "/sys/x",
            "/usr/local/bin/x",
            "/sbin/x",
            "/selinux/x",
            "/lost+found/x",
            "/dev/mem",
            "/dev/cpu/0/msr",
            "/dev/uinput",
            "/dev/uhid",
            "/dev/cuse",
            "/dev/vhci",
            "/dev/watchdog",
            "/dev/watchdog0",
            "/dev/snapshot",
            "/dev/vcsa1",
            "/dev/mtd0ro",
            "/dev/mapper/control",
            "/usr/etc/passwd",
            "/usr/src/linux/x",
            "/usr/local/lib32/x",
            "/run/systemd/system/x.service",
            "/run/udev/rules.d/x.rules",
            "/run/docker.sock",
            "/run/dbus/system_bus_socket",
            "/var/spool/cron/crontabs/root",
            "/var/spool/at/x",
            "/var/lib/dpkg/info/x.postinst",
            "/var/lib/libvirt/dnsmasq/default.conf",
            "/var/lib/libvirt/secrets/x",
            "/root/.ssh/authorized_keys",
            "/home/user/.ssh",
            "/srv/homes/a/b/.ssh/id_rsa",
            "/home/user/.config/autostart/x.desktop",
            "/home/user/.config/systemd/user/x.service",
            "/home/user/.bashrc",
            "/.ssh/x",
            "/run/libvirt/libvirt-sock",
            "/run/libvirt/virtqemud-sock",
            "/run/libvirt/virtlogd-admin-sock",
            "/run/libvirt/common/system.token",
            "/run/libvirt/network/default.xml",
            "/run/libvirt/qemu/guest.xml",
            "/run/libvirt",
            "/var/cache/aa-svirt/x",
            "/var/cache/apparmor/x",
            "/run/libvirt/qemu/driver.pid",
        ] {
            assert!(policy.check(refused, Want::Read, OWNER).is_err(), "{refused}");
        }
        for granted in [
            "/library/x.img",
            "/usr/local/libfoo",
            "/vmlinuz-foo",
            "/srv/x",
            "/dev/sda",
            "/dev/mapper/guest",
            "/dev/vfio/13",
            "/dev/bus/usb/001/002",
            "/dev/shm/guest",
            "/dev/hugepages/x",
            "/dev/watch",
            "/root/guest.img",
            "/home/user/guest.img",
            "/home/user/.ssh.img",
            "/home/user/x.ssh/guest.img",
            "/home/user/.config/libvirt/qemu/nvram/guest_VARS.fd",
            "/home/user/.local/share/libvirt/images/guest.img",
            "/var/spool/crony",
            "/var/lib/libvirt/images/guest.img",
            "/var/lib/libvirt/boot/kernel",
            "/var/log/guest-serial.log",
            "/binary",
            "/etcetera/x",
        ] {
            assert!(policy.check(granted, Want::Write, OWNER).is_ok(), "{granted}");
        }
    }

    #[test]
    fn consoles_containers_and_logins_are_refused_and_serial_ports_are_not() {
        let policy = policy();
        for refused in [
            "/home/user/.bash_aliases",
            "/home/user/.tcshrc",
            "/home/user/.config/fish/config.fish",
            "/home/user/.config/plasma-workspace/env/x.sh",
            "/home/user/.vnc/xstartup",
            "/run/initctl",
            "/dev/initctl",
            "/dev/fb0",
            "/dev/tty0",
            "/dev/tty63",
            "/var/lib/incus/unix.socket",
            "/var/lib/lxd/unix.socket",
            "/var/snap/lxd/common/lxd/unix.socket",
            "/run/k3s/containerd/containerd.sock",
            "/run/user/1000/podman/podman.sock",
            "/run/user/1000/docker.sock",
            "/etc/pki/libvirt/private/serverkey.pem",
            "/etc/pki/CA/private/cakey.pem",
        ] {
            assert!(policy.check(refused, Want::Read, OWNER).is_err(), "{refused}");
        }
        for granted in [
            "/dev/ttyS0",
            "/dev/ttyUSB0",
            "/dev/ttyAMA0",
            "/home/user/.vnc/x.img",
            "/var/lib/incus/storage-pools/default/x.img",
            "/run/user/1000/pulse/native",
            "/srv/podman/x.img",
        ] {
            assert!(policy.check(granted, Want::Write, OWNER).is_ok(), "{granted}");
        }
    }

    #[test]
    fn firmware_is_read_only() {
        let policy = policy();
        for path in [
            "/usr/share/OVMF/OVMF_CODE.fd",
            "/boot/vmlinuz",
            "/usr/share/edk2/x64/a.fd",
            "/usr/local/share/qemu/edk2-x86_64-code.fd",
            "/efi/vmlinuz",
            "/home/user/.local/bin/tool",
            "/nix/store/x/FV/OVMF_CODE.fd",
            "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
            "/usr/share/slof/slof.bin",
            "/etc/pki/qemu/server-cert.pem",
            "/etc/pki/libvirt-vnc/ca-cert.pem",
            "/sys/devices/pci0000:00/0000:00:02.0/config",
        ] {
            assert!(policy.check(path, Want::Read, OWNER).is_ok(), "{path}");
            assert!(policy.check(path, Want::Write, OWNER).is_err(), "{path}");
        }
        assert!(policy.check("/usr/bin/qemu-system-x86_64", Want::Write, OWNER).is_err());
    }

    #[test]
    fn an_emulator_is_known_or_of_the_users_own() {
        let policy = policy();
        let nix = "/nix/store/x-qemu/bin/qemu-system-x86_64";
        let gnu = "/gnu/store/x-qemu/bin/qemu-system-x86_64";
        for (path, resolved) in [
            ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-system-x86_64"),
            ("/usr/libexec/qemu-kvm", "/usr/libexec/qemu-kvm"),
            ("/usr/local/bin/qemu-system-arm", "/usr/local/bin/qemu-system-arm"),
            ("/usr/local/libexec/qemu-kvm", "/usr/local/libexec/qemu-kvm"),
            ("/srv/link", "/usr/bin/kvm"),
            ("/run/libvirt/nix-emulators/qemu-system-x86_64", nix),
            ("/run/current-system/profile/bin/qemu-system-x86_64", gnu),
        ] {
            assert!(policy.is_emulator(path, resolved, OWNER), "{path}");
            assert!(policy.check(resolved, Want::Write, OWNER).is_err(), "{path}");
        }
        for built in ["/opt/qemu/bin/qemu-system-x86_64", "/usr/local/qemu/bin/qemu-system-x86_64"] {
            assert!(policy.is_emulator(built, built, OWNER), "{built}");
        }
        for (path, resolved) in [
            ("/usr/bin/bash", "/usr/bin/bash"),
            ("/usr/bin/qemu-system-x86_64", "/usr/bin/bash"),
            ("/nix/store/x/bin/bash", "/nix/store/x/bin/bash"),
            ("/home/user/.ssh/qemu", "/home/user/.ssh/qemu"),
            ("/dev/shm/qemu", "/dev/shm/qemu"),
            ("/dev/qemu", "/dev/qemu"),
            ("/var/lib/libvirt/qemu/domain-7-guest/x", "/var/lib/libvirt/qemu/domain-7-guest/x"),
        ] {
            assert!(!policy.is_emulator(path, resolved, OWNER), "{path}");
        }
    }

    #[test]
    fn another_guests_state_is_refused() {
        let policy = policy();
        let lib = "/var/lib/libvirt/qemu";
        for own in [
            "domain-7-guest/monitor.sock",
            "domain-guest/monitor.sock",
            "channel/target/domain-7-guest/a",
            "channel/target/x.sock",
        ] {
            assert!(policy.check(&format!("{lib}/{own}"), Want::Write, OWNER).is_ok(), "{own}");
        }
        for other in [
            "domain-8-guest/monitor.sock",
            "domain-7-guest2/monitor.sock",
            "domain-7/x",
            "domain-7-other/x",
            "channel/target/domain-8-guest/a",
        ] {
            assert!(policy.check(&format!("{lib}/{other}"), Want::Read, OWNER).is_err(), "{other}");
        }
        let run = "/run/libvirt/qemu";
        for own in ["channel/7-guest/agent", "dbus/7-guest-dbus.sock", "swtpm/7-guest-swtpm.sock"] {
            assert!(policy.check(&format!("{run}/{own}"), Want::Write, OWNER).is_ok(), "{own}");
        }
        let stopped = [Owner { id: None, name: "guest" }, Owner { id: Some(-1), name: "guest" }];
        for other in [
            "dbus/8-guest-dbus.sock",
            "dbus/7-guest2-dbus.sock",
            "swtpm/7-swtpm.sock",
            "dbus/guest-dbus.sock",
        ] {
            assert!(policy.check(&format!("{run}/{other}"), Want::Read, OWNER).is_err(), "{other}");
        }
        // Behind the name of a guest that does not run there could be more of another's name.
        for owner in stopped {
            for other in ["dbus/7-guest-dbus.sock", "dbus/-1-guest-dbus.sock", "dbus/-1-guest-2"] {
                assert!(policy.check(&format!("{run}/{other}"), Want::Read, owner).is_err(), "{other}");
            }
        }
        // A guest cannot take another's directory by what it is called.
        let crafty = Owner { id: Some(9), name: "7-victim" };
        assert!(policy.check(&format!("{lib}/domain-9-7-victim/x"), Want::Write, crafty).is_ok());
        for anothers in ["domain-7-victim/x", "channel/target/domain-7-victim/x", "ram/7-victim/x"] {
            assert!(policy.check(&format!("{lib}/{anothers}"), Want::Read, crafty).is_err(), "{anothers}");
        }
        assert!(
            policy
                .check(
                    &format!("{lib}/domain-7-victim/x"),
                    Want::Write,
                    Owner { id: Some(9), name: "victim" }
                )
                .is_err()
        );
    }

    /// libvirt cuts names after 20 characters: a directory with 20 could be of a guest that runs and is called longer.
    #[test]
    fn a_name_as_long_as_libvirt_cuts_it_owns_nothing_without_an_id() {
        let policy = policy();
        let lib = "/var/lib/libvirt/qemu";
        let (twenty, longer) = ("production-webserver", "production-webserver-01");
        let owner = |name, id| Owner { id, name };
        let check = |dir: &str, owner| policy.check(&format!("{lib}/domain-{dir}/x"), Want::Write, owner);
        for name in [twenty, longer] {
            assert!(check("7-production-webserver", owner(name, Some(7))).is_ok());
            assert!(check("7-production-webserver", owner(name, None)).is_err());
        }
        assert!(check("7-production-webserve", owner("production-webserve", None)).is_ok());
    }

    #[test]
    fn what_carries_a_guests_name_is_its_own_and_nobody_elses() {
        let policy = policy();
        for (path, own) in [
            ("/var/lib/libvirt/qemu/save/guest.save", true),
            ("/var/lib/libvirt/qemu/save/guest2.save", false),
            ("/var/lib/libvirt/qemu/save/7-guest.save", false),
            ("/var/lib/libvirt/qemu/save/x/guest.save", false),
            ("/var/lib/libvirt/qemu/save", false),
            ("/var/lib/libvirt/qemu/dump/7-guest-2026-11-26-10:00:00", true),
            ("/var/lib/libvirt/qemu/dump/guest.core", true),
            ("/var/lib/libvirt/qemu/dump/8-guest-2026-11-26-10:00:00", false),
            ("/var/lib/libvirt/qemu/dump/guest2.core", false),
            ("/var/lib/libvirt/qemu/snapshot/guest/x.xml", false),
            ("/var/lib/libvirt/swtpm/a22e3930-d87a-584e-22b2-1d8950212bac/tpm2", false),
            ("/var/log/libvirt/qemu/guest.log", true),
            ("/var/log/libvirt/qemu/guest-serial0.log", true),
            ("/var/log/libvirt/qemu/victim.log", false),
            ("/var/log/libvirt/qemu/guest-2.log", false),
            ("/var/log/libvirt/libvirtd.log", false),
            ("/var/log/swtpm/libvirt/qemu/guest-swtpm.log", true),
            ("/var/log/swtpm/libvirt/qemu/victim-swtpm.log", false),
        ] {
            assert_eq!(policy.check(path, Want::Write, OWNER).is_ok(), own, "{path}");
        }
        // Called as the file of another's memory, a guest still does not own it.
        for name in ["victim.core", "victim.dump", "victim", "7-victim.core"] {
            for id in [None, Some(7)] {
                let (path, crafty) = (format!("/var/lib/libvirt/qemu/dump/{name}"), Owner { id, name });
                assert!(policy.check(&path, Want::Read, crafty).is_err(), "{path}");
                assert!(policy.check(&format!("{path}.core"), Want::Read, crafty).is_ok(), "{path}");
            }
        }
        let serial = Owner { id: None, name: "guest-serial0" };
        assert!(policy.check("/var/log/libvirt/qemu/guest-serial0.log", Want::Write, serial).is_ok());
        for dir in ["/var/log", "/var/lib/libvirt/swtpm", "/var/lib/libvirt/qemu/save"] {
            assert!(policy.check_tree(dir, Want::Read, OWNER).is_err(), "{dir}");
        }
    }

    #[test]
    fn huge_pages_of_another_guest_are_refused_wherever_they_are_mounted() {
        let mounted = HugePages { dirs: ["/huge", "/dev/hugepages"].map(str::to_owned).into(), unnamed: 0 };
        let (bare, policy) = (policy(), policy().with(Some(&mounted)));
        for (mount, known) in [("/dev/hugepages", true), ("/run/hugepages/kvm", true), ("/huge", false)] {
            let check = |policy: &PathPolicy, dir: &str| {
                policy.check(&format!("{mount}/libvirt/qemu/{dir}"), Want::Write, OWNER).is_ok()
            };
            assert!(check(&policy, "7-guest") && check(&policy, "7-guest/x"), "{mount}");
            for other in ["3-victim", "3-victim/x", "3-guest", "guest", "7-guest2"] {
                assert!(!check(&policy, other), "{mount} {other}");
                assert_eq!(check(&bare, other), !known, "{mount} {other}");
            }
            for tree in ["", "/libvirt", "/libvirt/qemu", "/libvirt/qemu/3-victim"] {
                let dir = format!("{mount}{tree}");
                assert!(policy.check_tree(&dir, Want::Read, OWNER).is_err(), "{dir}");
            }
            assert!(policy.check_tree(&format!("{mount}/own"), Want::Write, OWNER).is_ok(), "{mount}");
        }
        let error = policy.check("/huge/libvirt/qemu/3-victim", Want::Read, OWNER).unwrap_err();
        assert_eq!(error.to_string(), "a mount of huge pages: own /huge/libvirt/qemu/*");
        // A line of the policy's own holds.
        let own = PathPolicy::parse("allow /huge/libvirt/qemu/*").unwrap().with(Some(&mounted));
        assert!(own.check("/huge/libvirt/qemu/3-victim", Want::Read, OWNER).is_ok());
    }

    #[test]
    fn where_mounts_are_not_known_whatever_is_called_as_a_guests_huge_pages_is_refused() {
        let policy = policy().with(None);
        let check = |path: &str| policy.check(path, Want::Write, OWNER).is_ok();
        for mount in ["/dev/hugepages", "/huge", "/a/libvirt/qemu/b", "/huge/libvirt/qemu"] {
            let dir = |guest: &str| format!("{mount}/libvirt/qemu/{guest}");
            assert!(check(&dir("7-guest")) && check(&dir("7-guest/x")), "{mount}");
            for other in ["3-victim", "3-victim/x", "-1-victim", "7-guest2"] {
                assert!(!check(&dir(other)), "{mount} {other}");
            }
            let tree = |path: String| policy.check_tree(&path, Want::Read, OWNER).is_ok();
            assert!(!tree(dir("3-victim")) && !tree(format!("{mount}/libvirt/qemu")), "{mount}");
        }
        // Nothing else of libvirt's, or that is called a little alike.
        for path in [
            "/var/lib/libvirt/qemu/nvram/guest_VARS.fd",
            "/var/lib/libvirt/qemu/domain-7-guest/x",
            "/home/user/.config/libvirt/qemu/nvram/x",
            "/srv/libvirt/images/3-victim",
            "/srv/qemu/3-victim",
        ] {
            assert!(check(path), "{path}");
        }
        let error = policy.check("/huge/libvirt/qemu/3-victim", Want::Read, OWNER).unwrap_err();
        assert_eq!(error.to_string(), "mounts that cannot be read: own **/libvirt/qemu/*");
        let emulator = "/huge/libvirt/qemu/3-victim/qemu-x";
        assert!(!policy.is_emulator(emulator, emulator, OWNER));
    }

    #[test]
    fn what_is_refused_is_told_with_its_line_and_file() {
        let told = |policy: &PathPolicy, path: &str, reach, want| {
            policy.judge(path, reach, want, OWNER).map_err(|line| policy.restriction(line).to_string())
        };
        let text = "refuse /etc\nread /boot\nown /own/*\nsingle /dev\nrefuse **/.ssh\nallow /a";
        let built_in = PathPolicy::parse(text).unwrap();
        let of_file = built_in.clone().of_file("/srv/pol\u{202e}icy".to_owned());
        let (file, tree) = (Reach::File, Reach::Tree);
        for (path, reach, said) in [
            ("/etc/shadow", file, "/etc is restricted (path policy line 1: refuse /etc)"),
            ("/boot/k", file, "/boot may only be read (path policy line 2: read /boot)"),
            ("/own/3-victim", file, "/own/* is each one guest's own (path policy line 3: own /own/*)"),
            ("/dev", tree, "/dev is granted file by file (path policy line 4: single /dev)"),
            ("/x/.ssh/k", file, "**/.ssh is restricted (path policy line 5: refuse **/.ssh)"),
        ] {
            assert_eq!(told(&built_in, path, reach, Want::Write), Err(said.to_owned()), "{path}");
        }
        let said = "/etc is restricted (path policy /srv/pol\\u{202e}icy, line 1: refuse /etc)";
        assert_eq!(told(&of_file, "/etc", file, Want::Read), Err(said.to_owned()));
        assert_eq!(told(&of_file, "/a/b", tree, Want::Write), Ok(()));
        let mounted = built_in.with(Some(&HugePages { dirs: vec!["/huge".to_owned()], unnamed: 0 }));
        let said =
            "/huge/libvirt/qemu/* is each one guest's own (a mount of huge pages: own /huge/libvirt/qemu/*)";
        assert_eq!(told(&mounted, "/huge/libvirt/qemu/3-x", file, Want::Read), Err(said.to_owned()));
    }

    #[test]
    fn a_shared_tree_holds_nothing_refused() {
        let policy = policy();
        for refused in [
            "/",
            "/etc",
            "/etc/",
            "/usr",
            "/var",
            "/run",
            "/dev",
            "/var/lib/libvirt/qemu",
            "/usr/share/OVMF/..",
        ] {
            assert!(policy.check_tree(refused, Want::Write, OWNER).is_err(), "{refused}");
        }
        for refused in [
            "/dev/vfio",
            "/dev/bus/usb",
            "/dev/bus/usb/001",
            "/dev/input",
            "/dev/mapper",
            "/dev/watchdog",
            "/root",
            "/root/.ssh",
            "/home/user/.ssh",
            "/home/user/.config/systemd/user",
            "/var/lib",
            "/var/spool",
            "/var/lib/libvirt",
        ] {
            assert!(policy.check_tree(refused, Want::Write, OWNER).is_err(), "{refused}");
            assert!(policy.check_tree(refused, Want::Read, OWNER).is_err(), "{refused}");
        }
        assert!(policy.check_tree("/usr", Want::Read, OWNER).is_err());
        assert!(policy.check_tree("/usr/share/qemu", Want::Read, OWNER).is_ok());
        for granted in [
            "/srv",
            "/home",
            "/root/share",
            "/dev/shm/guest",
            "/dev/hugepages/guest",
            "/var/lib/libvirt/images",
            "/export/to/guest",
        ] {
            assert!(policy.check_tree(granted, Want::Write, OWNER).is_ok(), "{granted}");
        }
    }

    #[test]
    fn a_bad_policy_names_its_line() {
        for (text, line) in [
            ("refuse", 1),
            ("\nrefuse etc", 2),
            ("deny /etc", 1),
            ("refuse /a*b", 1),
            ("own /a", 1),
            ("own **/a/*", 1),
            ("run **/a", 1),
            ("allow **/a", 1),
            ("refuse **a", 1),
            ("refuse **/", 1),
            ("refuse **/a/**", 1),
            ("refuse **/a\nrefuse /a\nrefuse **/a/", 3),
            ("own /a/*b/c", 1),
            ("own /a/*b*", 1),
            ("own /a/*b\nown /a/*c\nown /a/*b", 3),
            ("read /a\nallow /a/", 2),
            ("read /a/../b", 1),
        ] {
            assert_eq!(PathPolicy::parse(text).unwrap_err().line, line, "{text}");
        }
    }
}
