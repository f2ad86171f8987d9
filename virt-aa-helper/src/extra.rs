//! The argument of `-f` and `-F`.

use aa_contract::{Glob, LiteralPath, Target};
use aa_derive::host::{Files, Host as _};
use aa_derive::host_policy::HostPolicy;
use aa_derive::path_policy::{Owner, PathPolicy, Reach, Want};

use crate::appended::Appended;
use crate::error::Error;

/// The one pattern that libvirtd adds to a path: the directory and everything below it, where it labels a
/// directory with its subtree. Everything before it is literal.
const SUBTREE: &str = "{,**}";

/// Whether libvirtd labels such a directory with its subtree: only those that it makes for one guest, which are called
/// by its id and name, and what is directly in them (libvirt: `virDomainDefGetShortName`). Behind any other directory
/// the pattern is a file's name, which a disk or a socket may well have.
fn is_of_guest(dir: &str, owner: Owner<'_>) -> bool {
    let short = owner.short_name();
    let mut components = dir.rsplit('/').filter(|component| !component.is_empty());
    components
        .by_ref()
        .take(2)
        .any(|component| component.strip_prefix("domain-").unwrap_or(component) == short)
}

/// What an argument of `-f` or `-F` grants: `wanted` says how much of it, and the path policy whether that may be.
///
/// # Errors
/// It is no absolute path, leads nowhere, or is restricted.
pub fn judged(
    argument: &str,
    wanted: impl FnOnce(Target) -> Appended,
    policy: &PathPolicy,
    owner: Owner<'_>,
    files: &Files,
) -> Result<Appended, Error> {
    let dir = argument.strip_suffix(SUBTREE).filter(|dir| dir.ends_with('/') && is_of_guest(dir, owner));
    let path = dir.unwrap_or(argument);
    // A path that is not normal is made so below; one that is none is refused here.
    if !path.starts_with('/') || path.contains('\0') {
        LiteralPath::new(path)?;
    }
    let resolved =
        files.resolve(path).map_err(|source| Error::Unresolvable { path: argument.to_owned(), source })?.path;
    if resolved == "/" {
        return Err(Error::Root(argument.to_owned()));
    }
    let literal = LiteralPath::new(resolved.as_str())?;
    let (reach, appended) = match dir {
        Some(_) => (Reach::Tree, wanted(Target::Glob(Glob::below(&literal, SUBTREE)?))),
        None => (Reach::File, wanted(Target::Path(literal))),
    };
    let verdict =
        HostPolicy::new(policy, files).check(&resolved, reach, Want::from(appended.rule.access), owner);
    match verdict {
        Ok(()) => Ok(appended),
        Err(restriction) => Err(Error::Restricted {
            path: argument.to_owned(),
            resolved,
            restriction: restriction.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aa_contract::Rule;
    use aa_derive::path_policy;

    /// What is granted to a guest with these rules.
    fn read_with(argument: &str, derived: &[Rule]) -> Result<Appended, String> {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path()).unwrap();
        let policy = PathPolicy::parse(path_policy::DEFAULT).unwrap();
        let owner = Owner { id: Some(1), name: "t1" };
        let wanted = |target| Appended::new(target, derived, |_| false);
        judged(argument, wanted, &policy, owner, &files).map_err(|error| error.to_string())
    }

    fn read(argument: &str) -> Result<Target, String> {
        read_with(argument, &[]).map(|appended| appended.rule.target)
    }

    fn glob(pattern: &str) -> Target {
        Target::Glob(Glob::new(pattern).unwrap())
    }

    fn path(path: &str) -> Target {
        Target::Path(LiteralPath::new(path).unwrap())
    }

    #[test]
    fn only_the_suffix_that_libvirtd_adds_is_a_pattern() {
        let own = "/var/lib/libvirt/qemu/domain-1-t1/{,**}";
        assert_eq!(read(own), Ok(glob(own)));
        assert_eq!(read("/srv/a*/1-t1/{,**}"), Ok(glob("/srv/a\\052/1-t1/{,**}")));
        assert_eq!(
            read("/srv/domain-1-t1/pr-helper0.sock/{,**}"),
            Ok(glob("/srv/domain-1-t1/pr-helper0.sock/{,**}"))
        );
        for literal in ["/srv/a*", "/srv/**", "/srv/{a,b}", "/srv/{,**}x", "/srv/x{,**}"] {
            assert_eq!(read(literal), Ok(path(literal)));
        }
        // A file may be called so: of another directory it is that one file.
        for literal in
            ["/srv/{,**}", "/srv/1-t2/{,**}", "/srv/2-t1/{,**}", "/1-t1/a/b/{,**}", "/srv/1-t1x/{,**}"]
        {
            assert_eq!(read(literal), Ok(path(literal)));
        }
        assert_eq!(read("/srv//./x/../a.img"), Ok(path("/srv/a.img")));
    }

    /// As under libvirt's own profile of the helper, which may not read the list of mounts.
    #[test]
    fn where_mounts_cannot_be_read_no_huge_pages_but_the_guests_own_are_granted() {
        let own = "/huge/libvirt/qemu/1-t1/{,**}";
        assert_eq!(read(own), Ok(glob(own)));
        for anothers in ["/huge/libvirt/qemu/2-t2/{,**}", "/huge/libvirt/qemu/2-t2/x"] {
            let error = read(anothers).unwrap_err();
            assert!(error.ends_with("(mounts that cannot be read: own **/libvirt/qemu/*)"), "{error}");
        }
    }

    #[test]
    fn what_is_no_path_or_restricted_is_refused() {
        for bad in ["", "rel", "/", "/1-t1/../{,**}", "rel/1-t1/{,**}", "/..", "/a\0b"] {
            assert!(read(bad).is_err(), "{bad:?} {:?}", read(bad));
        }
        let error = read("/etc/shadow").unwrap_err();
        assert!(error.contains("\"/etc/shadow\"") && error.contains("refuse /etc"), "{error}");
        // Another guest's directory, by its id or by its name.
        for other in ["/var/lib/libvirt/qemu/domain-2-t1/{,**}", "/var/lib/libvirt/qemu/domain-1-t2/x"] {
            assert!(read(other).is_err(), "{other}");
        }
        // Another guest's huge pages.
        let own = "/dev/hugepages/libvirt/qemu/1-t1/{,**}";
        assert_eq!(read(own), Ok(glob(own)));
        assert!(read("/dev/hugepages/libvirt/qemu/2-t2/x").is_err());
        // A directory in which everything is restricted.
        assert!(read("/usr/lib/1-t1/{,**}").is_err());
    }

    #[test]
    fn what_may_be_read_only_is_granted_for_reading_and_no_more() {
        let path = "/boot/grml/grml64.iso";
        let rules = |access: &str| -> Vec<Rule> {
            serde_json::from_str(&format!(
                r#"[{{"path":"{path}","access":"{access}","origin":{{"element":"devices/disk[2]/source"}}}}]"#
            ))
            .unwrap()
        };
        let medium = read_with(path, &rules("rk")).unwrap();
        assert_eq!(medium.rule.access.to_string(), "rk");
        // The twins: one that is written, and one that the XML does not name.
        for derived in [rules("rwk"), Vec::new()] {
            let error = read_with(path, &derived).unwrap_err();
            assert!(error.contains("read /boot"), "{error}");
        }
        // What is refused is refused for reading too.
        let shadow = rules("rk")
            .into_iter()
            .map(|rule| Rule { target: Target::Path(LiteralPath::new("/etc/shadow").unwrap()), ..rule });
        assert!(read_with("/etc/shadow", &shadow.collect::<Vec<_>>()).is_err());
    }
}
