//! From a record, and what is on disk, to what should be on disk.

use std::cell::OnceCell;
use std::path::Path;

use aa_contract::{Derived, Mode, ProfileName, Rendered, RuleSet, TemplateKind};

use crate::error::Error;
use crate::grants::{self, Change};
use crate::layout::{Layout, Part};
use crate::minimal;
use crate::profile_text::ProfileText;
use crate::rules_file;
use crate::store::Contents;
use crate::template::{self, Source, Template};
use aa_contract::syntax;

/// How profiles are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Keep the rules that the rules file already has.
    pub append: bool,
    /// The mode to set; without it an existing base profile keeps its own.
    pub mode: Option<Mode>,
    /// Make the base profile again even if there is one; its mode stays.
    pub renew: bool,
    /// Build the base profile from what the guest uses, not from a template.
    pub minimal: bool,
}

/// Makes the texts of profiles. Reads templates and abstractions; writes nothing.
#[derive(Debug)]
pub struct Renderer {
    layout: Layout,
    source: Source,
    settings: Settings,
    qemu: OnceCell<Template>,
    lxc: OnceCell<Template>,
}

impl Renderer {
    /// A renderer for profiles that will stand in `layout`'s directory.
    pub fn new(layout: Layout, source: Source, settings: Settings) -> Self {
        Self { layout, source, settings, qemu: OnceCell::new(), lxc: OnceCell::new() }
    }

    /// The directories that this renderer writes for.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the profile's files should hold, given what they hold now.
    ///
    /// # Errors
    /// [`Error`]: the template, or a file that is to be kept or merged, is not usable.
    pub fn plan(&self, old: &Contents, record: &Derived) -> Result<Contents, Error> {
        let profile = record.profile();
        let base = self.plan_base(old.base.as_deref(), record)?;
        let granted = self.read_grants(old, profile)?;
        let header = rules_file::header(&record.domain().name);
        let memo = old.rules.as_deref().and_then(rules_file::memo);
        let merged;
        let rules = match &old.rules {
            Some(text) if self.settings.append => {
                let mut set = self.read_rules(text, profile)?.rules;
                merge(&mut set, record)?;
                merged = set.into_rules();
                &merged
            }
            _ => record.rules(),
        };
        grants::check(&granted, rules)?;
        let rules = rules_file::write(&header, memo, rules, &granted);
        Ok(Contents { base: Some(base), rules: Some(rules), grants: old.grants.clone() })
    }

    /// What the profile's files should hold once `change` is made to its grants. A rules file that
    /// is not there is left to the next record.
    ///
    /// # Errors
    /// [`Error`]: the grants or the rules file cannot be read back, there is no such grant, or the rules deny it.
    pub fn plan_grant(
        &self,
        old: &Contents,
        profile: ProfileName,
        change: &Change,
    ) -> Result<Contents, Error> {
        let granted = grants::apply(self.read_grants(old, profile)?, change)?;
        let rules = match &old.rules {
            Some(text) => {
                let file = self.read_rules(text, profile)?;
                let rules = file.rules.into_rules();
                grants::check(&granted, &rules)?;
                grants::check_change(change, &rules)?;
                Some(rules_file::write(&file.header, rules_file::memo(text), &rules, &granted))
            }
            None => None,
        };
        Ok(Contents { base: old.base.clone(), rules, grants: grants::write(&granted) })
    }

    /// The profile with its rules in it and every abstraction of this project that the host lacks;
    /// neither grants nor drop-in directories, which belong to files.
    ///
    /// # Errors
    /// [`Error`]: the template is not usable.
    pub fn standalone(&self, record: &Derived) -> Result<String, Error> {
        let mut rules = String::new();
        for rule in record.rules() {
            syntax::write_rule(rule, &mut rules);
        }
        let text = self.instantiate(record, self.settings.minimal, &rules)?;
        self.with_mode(text, record.profile(), self.settings.mode)
    }

    /// Whether the base profile of `contents` takes in a file or directory. One that libvirt made, or that its user
    /// changed, may not even the rules file; then none of the rules is in force.
    pub fn base_includes(&self, contents: &Contents, profile: ProfileName, name: &str) -> bool {
        let base = contents.base.as_deref().unwrap_or_default();
        ProfileText::parse(base, &profile.to_string()).is_ok_and(|base| base.includes(name))
    }

    /// The paths that were granted and that the rules deny all the same.
    ///
    /// # Errors
    /// [`Error`]: the grants or the rules file cannot be read back.
    pub fn denied_grants(&self, contents: &Contents, profile: ProfileName) -> Result<Vec<String>, Error> {
        let granted = self.read_grants(contents, profile)?;
        let Some(rules) = contents.rules.as_deref().filter(|_| !granted.is_empty()) else {
            return Ok(Vec::new());
        };
        let rules = self.read_rules(rules, profile)?.rules.into_rules();
        Ok(grants::denied(&granted, &rules).map(|grant| grant.rule.target.to_string()).collect())
    }

    /// The record that tells aa-load of the profile.
    ///
    /// # Errors
    /// [`Error::Directory`]: the directory's name is too long.
    pub fn rendered(&self, profile: ProfileName, changed: bool) -> Result<Rendered, Error> {
        let path = |part| self.layout.path(profile, part);
        Ok(Rendered::new(profile, path(Part::Base)?, path(Part::Rules)?, changed))
    }

    fn plan_base(&self, old: Option<&str>, record: &Derived) -> Result<String, Error> {
        let profile = record.profile();
        let Settings { mode, renew, mut minimal, .. } = self.settings;
        // An empty file is what a crash of another tool leaves; there is nothing in it to keep.
        let old = old.filter(|text| !text.trim().is_empty());
        if let Some(text) = old
            && !renew
        {
            match (minimal, minimal::is_minimal(text)) {
                (true, false) => {
                    return Err(Error::NotMinimal(self.path(profile, Part::Base)?));
                }
                // It follows the guest, whoever makes the rules: what libvirtd plugs in may use what it lacks.
                (_, true) => minimal = true,
                (false, false) => return self.with_mode(text.to_owned(), profile, mode),
            }
        }
        let old_mode = old
            .and_then(|text| ProfileText::parse(text, &profile.to_string()).ok())
            .map(|profile| profile.mode());
        let text = self.instantiate(record, minimal, &self.layout.include_lines(profile))?;
        self.with_mode(text, profile, mode.or(old_mode))
    }

    /// The record's template, or a minimal one, with its name in it and `lines` at its end.
    fn instantiate(&self, record: &Derived, minimal: bool, lines: &str) -> Result<String, Error> {
        let name = record.profile().to_string();
        if !minimal {
            return Ok(self.template(record.template())?.text().instantiate(&name, lines));
        }
        let path = Path::new("minimal").to_owned();
        let template =
            Template::parse(minimal::template(record)).map_err(|source| Error::Template { path, source })?;
        Ok(template::expand_missing(&template.text().instantiate(&name, lines), self.layout.base()))
    }

    fn template(&self, kind: TemplateKind) -> Result<&Template, Error> {
        let cell = match kind {
            TemplateKind::Qemu => &self.qemu,
            TemplateKind::Lxc => &self.lxc,
        };
        if let Some(template) = cell.get() {
            return Ok(template);
        }
        let template = template::load(kind, &self.source, self.layout.base())?;
        Ok(cell.get_or_init(|| template))
    }

    /// Checks that `text` is the profile, and sets its mode.
    fn with_mode(&self, text: String, profile: ProfileName, mode: Option<Mode>) -> Result<String, Error> {
        let parsed = ProfileText::parse(text, &profile.to_string());
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(source) => return Err(Error::Base { path: self.path(profile, Part::Base)?, source }),
        };
        Ok(mode.map_or_else(|| parsed.as_str().to_owned(), |mode| parsed.with_mode(mode)))
    }

    fn read_grants(&self, old: &Contents, profile: ProfileName) -> Result<Vec<aa_contract::Grant>, Error> {
        match &old.grants {
            Some(text) => grants::parse(text, &self.path(profile, Part::Grants)?),
            None => Ok(Vec::new()),
        }
    }

    fn read_rules(&self, text: &str, profile: ProfileName) -> Result<rules_file::RulesFile, Error> {
        match rules_file::parse(text) {
            Ok(file) => Ok(file),
            Err(source) => Err(Error::Rules { path: self.path(profile, Part::Rules)?, source }),
        }
    }

    fn path(&self, profile: ProfileName, part: Part) -> Result<std::path::PathBuf, Error> {
        Ok(self.layout.path(profile, part)?.as_str().into())
    }
}

fn merge(rules: &mut RuleSet, record: &Derived) -> Result<(), Error> {
    for rule in record.rules() {
        rules.insert(rule.clone())?;
    }
    Ok(())
}
