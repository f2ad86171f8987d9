//! The merge beside the parser: what each makes of the same files must be the same in every state.

use aa_contract::{Derived, Glob, LiteralPath, ProfileName, Rule, Target};
use aa_render::minimal;
use aa_render::template::{Template, expand_missing};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;
use crate::features::PINNED;
use crate::parser::{Compile, Parser, Version};

const UUID: &str = "a22e3930-d87a-584e-22b2-1d8950212bac";
const EMULATOR: &str = "  \"/usr/bin/qemu-system-x86_64\" rmix,\n";

/// A policy tree and a profile in it.
struct Place {
    dir: tempfile::TempDir,
    parser: Parser,
    version: Version,
    features: String,
    sources: Sources,
    cache: Cache,
    bases: Bases,
    compiles: std::cell::Cell<usize>,
}

/// What a profile is made from.
#[derive(Debug, Clone, Copy)]
enum Policy {
    Libvirt,
    Own,
    Minimal(&'static str),
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Place {
    fn new(policy: Policy) -> Self {
        let dir = aa_tests::directory_in_memory();
        let base = dir.path().join("base");
        copy(Path::new("/etc/apparmor.d"), &base);
        if let Policy::Libvirt = policy {
            let libvirts = std::env::var("AA_LIBVIRT_POLICY").unwrap_or("/etc/apparmor.d/libvirt".into());
            copy(&Path::new(&libvirts).join("../abstractions"), &base.join("abstractions"));
            fs::create_dir_all(base.join("local/abstractions")).unwrap();
            fs::write(base.join("local/abstractions/libvirt-qemu"), "").unwrap();
        }
        fs::create_dir_all(base.join("libvirt")).unwrap();
        let parser = Parser::find(None).unwrap();
        Self {
            version: parser.version().unwrap(),
            parser,
            features: fs::read_to_string(PINNED).unwrap(),
            sources: Sources::new(&base, &[]),
            cache: Cache::open(&dir.path().join("cache")).unwrap(),
            bases: Bases::default(),
            compiles: std::cell::Cell::new(0),
            dir,
        }
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    fn profile(&self, name: ProfileName, policy: Policy, rules: &str) -> Profile {
        let file = self.base().join("libvirt").join(name.to_string());
        let lines = format!("  #include <libvirt/{name}.files>\n  include if exists <libvirt/{name}.d>\n");
        let text = match policy {
            Policy::Libvirt => {
                "#include <tunables/global>\n\nprofile LIBVIRT_TEMPLATE flags=(attach_disconnected) {\n  \
                #include <abstractions/libvirt-qemu>\n}\n"
                    .to_owned()
            }
            Policy::Own => include_str!("../../../aa-render/policy/TEMPLATE.qemu").to_owned(),
            Policy::Minimal(uses) => {
                let record: Derived = aa_contract::record::parse_line(&format!(
                    r#"{{"version":1,"profile":"{name}","domain":{{"name":"t","uuid":"{}","type":"kvm","os":"hvm","emulator":"/usr/bin/qemu-system-x86_64"}},"template":"qemu","uses":[{uses}],"rules":[]}}"#,
                    name.uuid()
                ))
                .unwrap();
                minimal::template(&record)
            }
        };
        let text = Template::parse(text).unwrap().text().instantiate(&name.to_string(), &lines);
        fs::write(&file, expand_missing(&text, &self.base())).unwrap();
        fs::write(file.with_file_name(format!("{name}.files")), rules).unwrap();
        Profile { name, file }
    }

    /// By the parser alone.
    fn compile(&self, file: &Path) -> Vec<u8> {
        self.compiles.set(self.compiles.get() + 1);
        let job = Compile {
            file,
            base: &self.base(),
            include: &[],
            policy_features: Some(Path::new(PINNED)),
            kernel_features: &self.features,
        };
        self.parser.compile(&job, self.version).unwrap()
    }

    fn merge(&self, profile: &Profile) -> Result<Vec<u8>, Refused> {
        let base = self.base();
        let again = || Sources::new(&base, &[]);
        let host = Host {
            cache: &self.cache,
            sources: &self.sources,
            directory: &base,
            common: b"common",
            again: &again,
        };
        let mut compile = |text: &str| Ok(self.cache.with_text(text, |file| self.compile(file)).unwrap());
        self.bases.policy(profile, &host, &mut compile)
    }
}

/// Starts of paths that meet what the abstractions grant and deny, and one another.
const STARTS: &[&str] = &[
    "/",
    "/dev/null",
    "/dev/",
    "/dev/kv",
    "/dev/net/tun",
    "/dev/shm/",
    "/dev/shm/lttng-ust-wait-5",
    "/dev/vfio/",
    "/etc/",
    "/etc/ceph/",
    "/etc/ld.so.cache",
    "/proc/1/cmdline",
    "/proc/sys/",
    "/proc/",
    "/sys/bus/",
    "/sys/devices/pci/",
    "/usr/share/qemu/",
    "/usr/share/",
    "/usr/lib/x86_64-linux-gnu/",
    "/usr/bin/",
    "/usr/bin/qemu-system-x86_64",
    "/usr/bin/qemu-system-x86",
    "/run/qemu/",
    "/run/qemu/a/",
    "/var/run/qemu/a/b.s",
    "/run/shm/lttng-ust-wait-",
    "/tmp/",
    "/var/lib/libvirt/.cache/",
    "/var/lib/libvirt/images/",
    "/var/lib/libvirt/images/a-rather-long-shared-prefix-",
    "/var/lib/libvirt/images/a-rather-long-shared-prefix-of-paths-with-a-number-",
    "/srv/ä/",
    "/home/u/.Xauthority",
];

const ENDS: &[&str] = &[
    "",
    "a",
    "ab",
    "disk.img",
    "b.so",
    "o",
    "*",
    "a*b?[c]{d,e}",
    "\"^\\",
    "\u{e9}\u{fc}\u{4e2d}",
    "\n\t\u{1}\u{7f}",
    "x/",
    "x/y/z",
    "0000:00:01.0/config",
    "kvm",
    "m",
    "#include <a>",
    "@{HOME}",
    "lib.so.1",
    ",",
    "..a",
    "cmdline",
];

fn target() -> impl Strategy<Value = (Target, usize)> {
    let index = any::<prop::sample::Index>();
    (index, any::<prop::sample::Index>(), any::<Option<u8>>(), 0..10_usize).prop_filter_map(
        "not a path",
        |(start, end, byte, extent)| {
            let byte = byte.map(|byte| byte % 128).filter(|byte| *byte != 0).map(char::from);
            let path =
                [start.get(STARTS), *end.get(ENDS), &byte.map(String::from).unwrap_or_default()].concat();
            let path = LiteralPath::new(path).ok()?;
            Some(match extent {
                0 | 1 => (Target::Glob(Glob::below(&path, "{,**}").ok()?), 1),
                2 => (Target::Glob(Glob::below(&path, "**").ok()?), 2),
                _ => (Target::Path(path), 0),
            })
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let access = prop::sample::select(vec![
        "r", "w", "a", "k", "m", "rw", "rk", "rwk", "rm", "ra", "rak", "wm", "rwkm", "ak",
    ]);
    let rule = (target(), access).prop_map(|((target, _), access)| Rule {
        target,
        access: access.parse().unwrap(),
        deny: false,
        owner: false,
        audit: false,
        origin: None,
    });
    prop::collection::vec(rule, 1..16)
}

fn lines(rules: &[Rule]) -> String {
    let mut text = String::from("# Made for a test.\n");
    text.push_str(EMULATOR);
    for rule in rules {
        aa_contract::syntax::write_rule(rule, &mut text);
    }
    text
}

#[test]
#[ignore = "needs apparmor_parser and libvirt's templates"]
fn a_base_serves_until_something_it_is_made_from_changes() {
    let policy = Policy::Libvirt;
    let place = Place::new(policy);
    let count = std::cell::Cell::new(0);
    let equal = |uuid: &str, rules: &str, compiles: bool| {
        let name: ProfileName = format!("libvirt-{uuid}").parse().unwrap();
        let profile = place.profile(name, policy, rules);
        let before = place.compiles.get();
        let own = place.merge(&profile).unwrap();
        assert_eq!(place.compiles.get() != before, compiles, "{rules}");
        count.set(count.get() + usize::from(compiles));
        let parsers = place.compile(&profile.file);
        assert!(stream::same(&stream::parse(&own).unwrap(), &stream::parse(&parsers).unwrap()));
    };
    let disk = "  \"/var/lib/libvirt/images/a.img\" rwk,\n";
    equal(UUID, disk, true);
    equal("b22e3930-d87a-584e-22b2-1d8950212bac", "  \"/srv/b\" rwk,\n", false);
    // Another emulator, and the first again.
    equal(UUID, &format!("{EMULATOR}{disk}"), true);
    equal(UUID, disk, false);
    let local = place.base().join("local/abstractions/libvirt-qemu");
    fs::write(&local, "  /srv/local r,\n").unwrap();
    equal(UUID, disk, true);
    fs::write(&local, "").unwrap();
    equal(UUID, disk, false);
    // Another process has only the cache, and a garbled entry is none.
    let bases = |place: &Place| {
        let entries =
            fs::read_dir(place.dir.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_str().unwrap().contains("/base-")).collect::<Vec<_>>()
    };
    assert_eq!(bases(&place).len(), count.get());
    for path in bases(&place) {
        let mut bytes = fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let other = Place { bases: Bases::default(), ..place };
    let profile = other.profile(format!("libvirt-{UUID}").parse().unwrap(), policy, disk);
    let before = other.compiles.get();
    other.merge(&profile).unwrap();
    assert_ne!(other.compiles.get(), before);
    let third = Place { bases: Bases::default(), ..other };
    let before = third.compiles.get();
    third.merge(&profile).unwrap();
    assert_eq!(third.compiles.get(), before);
}

#[test]
#[ignore = "needs apparmor_parser and libvirt's templates"]
fn what_is_not_known_is_left_to_the_parser() {
    let policy = Policy::Libvirt;
    let place = Place::new(policy);
    let name: ProfileName = format!("libvirt-{UUID}").parse().unwrap();
    let merge = |rules: &str| place.merge(&place.profile(name, policy, rules)).map(drop);
    let why = |rules: &str| merge(rules).unwrap_err().0;
    merge("").unwrap();
    merge("  \"/run/qemu/a/{,**}\" r,\n").unwrap();
    for rule in ["\"/run/qemu/a/b.so\" rw,", "\"/var/run/qemu/{,**}\" rw,", "\"/run/qemu/a/b.so\" a,"] {
        assert!(why(rule).contains("audit deny"), "{rule}");
    }
    assert!(why("  deny \"/srv/x\" w,\n").contains("not merged"));
    // What is there for this guest alone.
    let own = place.base().join(format!("libvirt/{name}.d"));
    fs::create_dir(&own).unwrap();
    merge("").unwrap();
    fs::write(own.join("more"), "  /srv/more r,\n").unwrap();
    assert!(why("").contains("this guest alone"));
    fs::remove_dir_all(own).unwrap();
    merge("").unwrap();
    let forced = place.base().join(format!("force-complain/{name}"));
    std::os::unix::fs::symlink("/dev/null", &forced).unwrap();
    assert!(why("").contains("complain"));
    fs::remove_file(forced).unwrap();
    // The rules file taken in twice, not at all, in a profile within, or on a line with something else.
    let whole = place.profile(name, policy, "  \"/srv/x\" r,\n");
    let text = fs::read_to_string(&whole.file).unwrap();
    let line = format!("  #include <libvirt/{name}.files>\n");
    for (other, part) in [
        (text.replace(&line, &line.repeat(2)), "usual way"),
        (text.replace(&line, ""), "usual way"),
        (text.replace(&line, &format!("  /y r, {}", line.trim_start())), "usual way"),
        (text.replace(&line, &format!("  profile within {{\n{line}  }}\n")), "two things"),
        (text.replace(&line, &format!("  /{}/{} r,\n{line}", name::ONE, name::OTHER)), "is used here"),
        (text.replace(&line, &format!("  audit deny /x w, /y r,\n{line}")), "audit"),
        (text.replace(&line, &format!("  #include <abi/3.0>\n{line}")), "audit"),
        (format!("alias /srv/ -> /mnt/,\n{text}"), "alias"),
    ] {
        fs::write(&whole.file, other).unwrap();
        let Refused(why) = place.merge(&whole).unwrap_err();
        assert!(why.contains(part), "{part}: {why}");
    }
    fs::write(&whole.file, text).unwrap();
    place.merge(&whole).unwrap();
}

/// How many sets of rules are tried against the parser.
fn sets() -> u32 {
    std::env::var("AA_MERGE_SETS").ok().and_then(|sets| sets.parse().ok()).unwrap_or(200)
}

/// Every set of rules gives the parser's automata, for any name, and one base serves all of them.
fn proven(policy: Policy) {
    let place = Place::new(policy);
    let (mut merged, mut refused) = (std::cell::Cell::new(0_u32), std::cell::Cell::new(0_u32));
    let bases = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(Config { cases: sets(), failure_persistence: None, ..Config::default() });
    let result = runner.run(&(rules(), any::<[u8; 16]>()), |(rules, uuid)| {
        let name = ProfileName::new(aa_contract::Uuid::from_bytes(uuid));
        let profile = place.profile(name, policy, &lines(&rules));
        let before = place.compiles.get();
        let policy = place.merge(&profile);
        // The first set makes the base, also one that is refused.
        bases.set(bases.get() + usize::from(place.compiles.get() != before));
        let policy = match policy {
            Ok(policy) => policy,
            Err(Refused(why)) if why.contains("audit deny") => {
                refused.set(refused.get() + 1);
                return Ok(());
            }
            Err(Refused(why)) => return Err(TestCaseError::fail(why.into_owned())),
        };
        let parsers = place.compile(&profile.file);
        let own = stream::parse(&policy).unwrap();
        prop_assert!(stream::same(&own, &stream::parse(&parsers).unwrap()), "{}", lines(&rules));
        merged.set(merged.get() + 1);
        for suffix in ["", ".files"] {
            fs::remove_file(profile.file.with_file_name(format!("{name}{suffix}"))).unwrap();
        }
        Ok(())
    });
    result.unwrap();
    let (merged, refused) = (*merged.get_mut(), *refused.get_mut());
    eprintln!("{policy:?}: {merged} equal, {refused} left to the parser");
    assert_eq!(bases.get(), 1);
    assert!(merged > sets() / 2 && merged + refused == sets());
}

#[test]
#[ignore = "needs apparmor_parser and libvirt's templates"]
fn with_libvirts_abstraction_it_is_what_the_parser_makes() {
    proven(Policy::Libvirt);
}

#[test]
#[ignore = "needs apparmor_parser"]
fn with_our_abstraction_it_is_what_the_parser_makes() {
    proven(Policy::Own);
}

#[test]
#[ignore = "needs apparmor_parser"]
fn with_a_minimal_profile_it_is_what_the_parser_makes() {
    proven(Policy::Minimal("\"kvm\",\"disk\",\"vnc\""));
}

#[test]
#[ignore = "needs apparmor_parser"]
fn with_a_profile_within_it_is_what_the_parser_makes() {
    proven(Policy::Minimal("\"kvm\",\"disk\",\"passt\",\"swtpm\",\"vfio\",\"usb\",\"gl\""));
}
