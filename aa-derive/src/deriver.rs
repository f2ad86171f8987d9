//! Collects the rules of one guest. A path out of the XML passes [`Deriver::grant`] or one of its kin, which resolve it and ask
//! the path policy; paths of the tool's own making go by [`Deriver::allow`]. Of the XML's two go by that as well: the emulator,
//! which the policy judges in its own way, and where it lies in libvirt's directory of its UUID, the state of the guest's TPM.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};

use aa_contract::path::{MAX_PATH, PathError};
use aa_contract::text::strip_os_code;
use aa_contract::{
    Access, Derived, Domain, Feature, Glob, LiteralPath, Note, NoteKind, Origin, Rule, RuleSet, Target,
};

use crate::domain::refuse;
use crate::error::{Error, Refusal};
use crate::host::{Files, Host, Kind, Resolved};
use crate::host_policy::HostPolicy;
use crate::path_policy::{Owner, Reach, Want};
use crate::sysfs::{self, UsbDevice};
use crate::xml::{Element, Pos};
use crate::{Addition, Options, image};

/// Most bytes that the names of the elements may have to which the rules lead back: each level of a chain that is written
/// out carries those above it. A thousand disks of twenty levels have a tenth.
const MAX_ORIGINS: usize = 32 << 20;

/// Where a grant comes from: an element, and the depth in its backing chain if it is not the image itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'d> {
    pub(crate) element: Element<'d>,
    pub(crate) layer: Option<u32>,
}

impl<'d> From<Element<'d>> for Place<'d> {
    fn from(element: Element<'d>) -> Self {
        Self { element, layer: None }
    }
}

impl<'d> From<&Element<'d>> for Place<'d> {
    fn from(element: &Element<'d>) -> Self {
        (*element).into()
    }
}

impl Place<'_> {
    fn origin(&self) -> Origin {
        Origin { element: self.element.path(), line: Some(self.element.pos().line), layer: self.layer }
    }

    fn refuse(&self, kind: Refusal) -> Error {
        refuse(&self.element, kind)
    }
}

/// What is asked of the path policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'s> {
    /// What the path is, for messages.
    pub(crate) what: &'static str,
    /// The path, as written.
    pub(crate) path: &'s str,
    /// What a rule would allow.
    pub(crate) access: Access,
    /// How much of the path the rule would be for.
    pub(crate) reach: Reach,
    /// The image whose header names the path, if it is not in the XML.
    pub(crate) header: Option<&'s str>,
}

impl<'s> Ask<'s> {
    pub(crate) fn file(what: &'static str, path: &'s str, access: Access) -> Self {
        Self { what, path, access, reach: Reach::File, header: None }
    }

    fn tree(what: &'static str, path: &'s str, access: Access) -> Self {
        Self { reach: Reach::Tree, ..Self::file(what, path, access) }
    }
}

/// The rules of one guest while they are collected.
#[derive(Debug)]
pub(crate) struct Deriver<'a> {
    pub(crate) host: &'a Files,
    pub(crate) options: &'a Options,
    pub(crate) domain: Domain,
    /// Id and cut name, as in libvirt's directory names.
    pub(crate) short: String,
    /// What the headers of its images have come to.
    pub(crate) headers: image::Total,
    rules: RuleSet,
    /// With the whole place, of which a record has the line.
    notes: Vec<(Pos, Note)>,
    /// How many bytes the names of the rules' elements have.
    origins: usize,
    /// The options' policy, with lines for what is mounted on this host.
    pub(crate) policy: HostPolicy<'a>,
    usb: OnceCell<Vec<UsbDevice>>,
    uses: BTreeSet<Feature>,
    /// Where paths lead: followed once, so that what is permitted and what is granted are the same.
    resolved: RefCell<HashMap<String, Resolved>>,
}

impl<'a> Deriver<'a> {
    pub(crate) fn new(domain: Domain, options: &'a Options, host: &'a Files) -> Self {
        let short = Owner { id: domain.id, name: domain.name.as_str() }.short_name();
        Self {
            host,
            options,
            domain,
            short,
            headers: image::Total::default(),
            rules: RuleSet::default(),
            notes: Vec::new(),
            origins: 0,
            policy: HostPolicy::new(&options.policy, host),
            usb: OnceCell::new(),
            uses: BTreeSet::new(),
            resolved: RefCell::default(),
        }
    }

    /// The guest uses a feature that needs more than its own files.
    pub(crate) fn uses(&mut self, feature: Feature) {
        self.uses.insert(feature);
    }

    /// Says something that a person should know.
    pub(crate) fn note(&mut self, kind: NoteKind, at: &Element<'_>, text: impl Into<String>) {
        let note = Note { kind, text: text.into(), line: Some(at.pos().line) };
        self.notes.push((at.pos(), note));
    }

    /// The USB devices of the host: looked for once, since a domain may have very many of them.
    pub(crate) fn usb_devices(&self) -> &[UsbDevice] {
        self.usb.get_or_init(|| sysfs::usb_devices(self.host))
    }

    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner { id: self.domain.id, name: self.domain.name.as_str() }
    }

    /// Checks a path out of the XML and follows its links.
    ///
    /// # Errors
    /// Not absolute, or its links lead nowhere.
    pub(crate) fn resolve(
        &self,
        place: Place<'_>,
        what: &'static str,
        path: &str,
    ) -> Result<Resolved, Error> {
        self.follow(what, path).map_err(|kind| place.refuse(kind))
    }

    fn follow(&self, what: &'static str, path: &str) -> Result<Resolved, Refusal> {
        // Trailing and doubled slashes and dot components are the same file to the kernel.
        if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_PATH {
            let error = LiteralPath::new(path).err().unwrap_or(PathError::Relative(path.to_owned()));
            return Err(Refusal::Path { what, error });
        }
        if let Some(resolved) = self.resolved.borrow().get(path) {
            return Ok(resolved.clone());
        }
        let resolved = self.host.resolve(path).map_err(|error| Refusal::Unresolvable {
            what,
            path: path.to_owned(),
            reason: strip_os_code(&error),
        })?;
        self.resolved.borrow_mut().insert(path.to_owned(), resolved.clone());
        Ok(resolved)
    }

    /// Asks the path policy for a path whose links lead to `resolved`. `asker` is the element or option.
    fn judge(&self, asker: impl FnOnce() -> String, ask: Ask<'_>, resolved: &str) -> Result<(), Refusal> {
        let Ask { what, path, access, reach, header } = ask;
        if resolved == "/" && reach == Reach::File {
            return Err(Refusal::WrongKind { what, path: path.to_owned(), kind: Kind::Directory });
        }
        let verdict = self.policy.check(resolved, reach, Want::from(access), self.owner());
        verdict.map_err(|restriction| Refusal::Restricted {
            what,
            path: path.to_owned(),
            resolved: resolved.to_owned(),
            header: header.map(str::to_owned),
            asker: asker(),
            access: access.to_string(),
            restriction: Box::new(restriction),
        })
    }

    /// Whether a rule lets the guest write the file, as far as the rules go by now.
    pub(crate) fn is_written(&self, path: &str) -> bool {
        LiteralPath::new(path).is_ok_and(|path| self.rules.writes(&path))
    }

    /// Whether a program may be the domain's emulator.
    pub(crate) fn is_emulator(&self, path: &str, resolved: &str) -> bool {
        self.policy.is_emulator(path, resolved, self.owner())
    }

    /// Follows the links of a path out of the XML and asks the path policy. Says where it leads, which may be granted.
    ///
    /// # Errors
    /// As [`Deriver::grant`].
    pub(crate) fn permit(&self, place: Place<'_>, ask: Ask<'_>) -> Result<Resolved, Error> {
        let resolved = self.resolve(place, ask.what, ask.path)?;
        let asker = || place.element.path();
        self.judge(asker, ask, &resolved.path).map_err(|kind| place.refuse(kind))?;
        Ok(resolved)
    }

    /// Adds a rule of the caller's. A pattern is the caller's own word; a path is judged like one of the XML.
    ///
    /// # Errors
    /// As [`Deriver::grant`].
    pub(crate) fn add(&mut self, addition: &Addition) -> Result<(), Refusal> {
        let (what, option) = ("added file", addition.option);
        let target = match &addition.target {
            Target::Glob(glob) => Target::Glob(glob.clone()),
            Target::Path(path) => {
                let resolved = self.follow(what, path.as_str())?.path;
                let ask = Ask::file(what, path.as_str(), addition.access);
                self.judge(|| option.to_owned(), ask, &resolved)?;
                Target::Path(LiteralPath::new(resolved).map_err(|error| Refusal::Path { what, error })?)
            }
        };
        let origin = Origin { element: option.to_owned(), line: None, layer: None };
        self.add_rule(Rule::allow(target, addition.access, origin))
    }

    /// Grants a path out of the XML, with its links followed and the path policy asked. Says what is there.
    ///
    /// # Errors
    /// The path is not absolute, cannot be resolved, or is restricted.
    pub(crate) fn grant<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        path: &str,
        access: Access,
    ) -> Result<Kind, Error> {
        let place = place.into();
        let resolved = self.permit(place, Ask::file(what, path, access))?;
        self.insert_path(place, what, &resolved.path, access)?;
        Ok(resolved.kind)
    }

    /// Denies writing to a path that is only read. A later rule cannot undo it (see `Options::deny_readonly`).
    ///
    /// # Errors
    /// As [`Deriver::grant`].
    pub(crate) fn deny_write(&mut self, place: Place<'_>, path: &str) -> Result<(), Error> {
        let what = "denied file";
        let path = literal(place, what, &self.resolve(place, what, path)?.path)?;
        let rule = Rule { deny: true, ..Rule::allow(Target::Path(path), Access::W, place.origin()) };
        self.add_rule(rule).map_err(|kind| place.refuse(kind))
    }

    /// Grants a directory out of the XML with everything below it: `DIR/` for reading, `DIR/**` as asked.
    ///
    /// # Errors
    /// As [`Deriver::grant`]; also where something below the directory is restricted.
    pub(crate) fn grant_tree<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        dir: &str,
        access: Access,
    ) -> Result<Kind, Error> {
        let place = place.into();
        let resolved = self.permit(place, Ask::tree(what, dir, access))?;
        let dir = literal(place, what, &resolved.path)?.as_directory();
        self.insert_path(place, what, dir.as_str(), Access::R)?;
        self.insert_below(place, what, &dir, "**", access)?;
        Ok(resolved.kind)
    }

    /// Grants part of what is below a directory out of the XML: `suffix` is a constant such as `{,*}`.
    ///
    /// # Errors
    /// As [`Deriver::grant_tree`].
    pub(crate) fn grant_directory<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        dir: &str,
        suffix: &'static str,
        access: Access,
    ) -> Result<(), Error> {
        let place = place.into();
        let resolved = self.permit(place, Ask::tree(what, dir, access))?;
        self.insert_below(place, what, &literal(place, what, &resolved.path)?, suffix, access)
    }

    /// Grants what is directly in a directory out of the XML and is called so at the beginning: `start` is a constant.
    ///
    /// # Errors
    /// As [`Deriver::grant`]; also where what is called so is restricted.
    pub(crate) fn grant_called<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        dir: &str,
        start: &'static str,
        access: Access,
    ) -> Result<(), Error> {
        let place = place.into();
        let ask = Ask::file(what, dir, access);
        let resolved = self.permit(place, ask)?.path;
        let path = format!("{}{start}", literal(place, what, &resolved)?.as_directory());
        self.judge(|| place.element.path(), ask, &path).map_err(|kind| place.refuse(kind))?;
        self.allow_behind(place, what, &path, "*", access)
    }

    /// Grants a path of the tool's own making (a device node, a socket that libvirt names), as it is.
    ///
    /// # Errors
    /// A name in it makes the path longer than Linux takes.
    pub(crate) fn allow<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        path: &str,
        access: Access,
    ) -> Result<(), Error> {
        self.insert_path(place.into(), what, path, access)
    }

    /// Grants what lies below a directory of the tool's own making: `suffix` is a constant such as `**` or `{,**}`.
    ///
    /// # Errors
    /// As [`Deriver::allow`].
    pub(crate) fn allow_below<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        dir: &str,
        suffix: &'static str,
        access: Access,
    ) -> Result<(), Error> {
        let place = place.into();
        let dir = literal(place, what, dir)?;
        self.insert_below(place, what, &dir, suffix, access)
    }

    /// Grants what starts with a name of the tool's own making: `suffix` is a constant such as `[0-9]*`.
    ///
    /// # Errors
    /// As [`Deriver::allow`].
    pub(crate) fn allow_behind<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        prefix: &str,
        suffix: &'static str,
        access: Access,
    ) -> Result<(), Error> {
        let place = place.into();
        let prefix = literal(place, what, prefix)?;
        let glob =
            Glob::behind(&prefix, suffix).map_err(|error| place.refuse(Refusal::Path { what, error }))?;
        self.insert(place, Target::Glob(glob), access)
    }

    /// Grants a constant pattern.
    ///
    /// # Errors
    /// Never for a well-formed constant.
    pub(crate) fn allow_glob<'d>(
        &mut self,
        place: impl Into<Place<'d>>,
        what: &'static str,
        glob: &'static str,
        access: Access,
    ) -> Result<(), Error> {
        let place = place.into();
        let glob = Glob::new(glob).map_err(|error| place.refuse(Refusal::Path { what, error }))?;
        self.insert(place, Target::Glob(glob), access)
    }

    fn insert_path(
        &mut self,
        place: Place<'_>,
        what: &'static str,
        path: &str,
        access: Access,
    ) -> Result<(), Error> {
        let path = literal(place, what, path)?;
        self.insert(place, Target::Path(path), access)
    }

    fn insert_below(
        &mut self,
        place: Place<'_>,
        what: &'static str,
        dir: &LiteralPath,
        suffix: &str,
        access: Access,
    ) -> Result<(), Error> {
        let glob = Glob::below(dir, suffix).map_err(|error| place.refuse(Refusal::Path { what, error }))?;
        self.insert(place, Target::Glob(glob), access)
    }

    fn insert(&mut self, place: Place<'_>, target: Target, access: Access) -> Result<(), Error> {
        let origin = place.origin();
        self.origins = self.origins.saturating_add(origin.element.len());
        if self.origins > MAX_ORIGINS {
            return Err(place.refuse(Refusal::TooDeep { limit: MAX_ORIGINS >> 20 }));
        }
        self.add_rule(Rule::allow(target, access, origin)).map_err(|kind| place.refuse(kind))
    }

    /// Adds a finished rule.
    fn add_rule(&mut self, rule: Rule) -> Result<(), Refusal> {
        self.rules.insert(rule).map(drop).map_err(|conflict| Refusal::Exec(conflict.to_string()))
    }

    /// The record.
    pub(crate) fn finish(self) -> Derived {
        let notes = self.notes.into_iter().map(|(_, note)| note).collect();
        Derived::new(self.domain, self.uses.into_iter().collect(), self.rules, notes)
    }

    /// The notes so far, each with its place.
    pub(crate) fn notes(&self) -> &[(Pos, Note)] {
        &self.notes
    }
}

fn literal(place: Place<'_>, what: &'static str, path: &str) -> Result<LiteralPath, Error> {
    LiteralPath::new(path).map_err(|error| place.refuse(Refusal::Path { what, error }))
}
