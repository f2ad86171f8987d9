//! Puts profiles into the kernel and reads back what it holds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aa_contract::text::strip_os_code;
use aa_contract::{Action, Loaded, ProfileName};
use aa_render::layout::POLICY_BASE;
use sha2::{Digest, Sha256};

use crate::batch;
use crate::blob;
use crate::cache::Cache;
use crate::error::{Error, ParserError};
use crate::features;
use crate::kernel::Kernel;
use crate::locks::Locks;
use crate::merge::{self, Bases, Host, Refused};
use crate::parser::{self, Compile, Parser, Version};
use crate::sources::{Sources, Sum};
use crate::tasks::{self, Task};
use crate::trust::{self, Problem};

/// Where things are and what is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    /// The parser; the installed one if absent.
    pub parser: Option<PathBuf>,
    /// AppArmor's directory, for `<...>` includes.
    pub base: PathBuf,
    /// More directories for includes.
    pub include: Vec<PathBuf>,
    /// The cache; none if absent.
    pub cache: Option<PathBuf>,
    /// What policy may use; the distribution's pinned text if absent, else the kernel's.
    pub policy_features: Option<PathBuf>,
    /// What to compile for; the running kernel's if absent.
    pub kernel_features: Option<PathBuf>,
    /// Where securityfs is mounted.
    pub securityfs: PathBuf,
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// The longest run of the parser.
    pub time: Duration,
    /// Merge guests' own rules into a base that is compiled once, where everything is of a known form; needs the cache.
    pub merge: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parser: None,
            base: POLICY_BASE.into(),
            include: Vec::new(),
            cache: Some(crate::cache::DIRECTORY.into()),
            policy_features: None,
            kernel_features: None,
            securityfs: SECURITYFS.into(),
            proc: "/proc".into(),
            dry_run: false,
            time: parser::TIME,
            merge: false,
        }
    }
}

impl Options {
    /// The same with absolute paths: the parser runs in another directory.
    fn absolute(&self) -> Result<Self, Error> {
        let mut options = self.clone();
        let paths = [&mut options.base, &mut options.securityfs].into_iter();
        let paths = paths.chain(&mut options.include).chain(&mut options.policy_features);
        for path in paths.chain(&mut options.cache) {
            *path = absolute(path)?;
        }
        Ok(options)
    }

    /// The cache, or why there is none though one was wanted. A dry run makes none.
    fn open_cache(&self) -> (Option<Cache>, Option<String>) {
        let open = if self.dry_run { Cache::look } else { Cache::open };
        match self.cache.as_deref().map(open) {
            Some(Ok(cache)) => (Some(cache), None),
            Some(Err(error)) if self.dry_run && error.kind() == io::ErrorKind::NotFound => (None, None),
            Some(Err(error)) => (None, Some(strip_os_code(&error))),
            None => (None, None),
        }
    }

    /// What to compile for, without what this release of the parser gets wrong.
    fn read_kernel_features(&self, kernel: &Kernel, version: Version) -> Result<String, Error> {
        let features = if let Some(file) = &self.kernel_features {
            std::fs::read_to_string(file).map_err(Error::host(file))?
        } else {
            let tree = kernel.features();
            features::read_tree(&tree).map_err(Error::host(&tree))?
        };
        Ok(if version.knows_perms_tables() { features } else { features::without_perms_tables(&features) })
    }

    /// What policy may use, and the file that says so, which the parser reads too; nothing if it is the kernel's.
    fn read_policy_features(&self) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
        let pinned = || Some(PathBuf::from(features::PINNED)).filter(|path| path.is_file());
        let Some(file) = self.policy_features.clone().or_else(pinned) else { return Ok(None) };
        let text = std::fs::read(&file).map_err(Error::host(&file))?;
        Ok(Some((file, text)))
    }

    /// What goes into every key of the cache besides the files.
    fn key(&self, parser: &str, version: Version, features: [&[u8]; 2]) -> Vec<u8> {
        // Another release may compile or merge otherwise, and what was merged is not what the parser alone makes.
        let release = env!("CARGO_PKG_VERSION").as_bytes();
        let way: &[u8] = if self.merge { b"merged" } else { b"whole" };
        let [kernel, policy] = features;
        let base = self.base.as_os_str().as_encoded_bytes();
        let include = self.include.iter().map(|directory| directory.as_os_str().as_encoded_bytes());
        let flags = Parser::flags(version).iter().map(|flag| flag.as_bytes());
        let parts =
            [release, way, parser.as_bytes(), kernel, policy, base, b"include"].into_iter().chain(include);
        let mut key = Vec::new();
        for part in parts.chain([b"flags".as_slice()]).chain(flags) {
            key.extend((part.len() as u64).to_le_bytes());
            key.extend(part);
        }
        key
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::host(path))
}

/// Where Linux mounts securityfs.
pub(crate) const SECURITYFS: &str = "/sys/kernel/security";

/// A profile on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// Its file.
    pub file: PathBuf,
}

/// Loads profiles: everything that is the same for all of them is looked up once.
#[derive(Debug)]
pub struct Loader {
    parser: Parser,
    version: Version,
    kernel: Kernel,
    sources: Sources,
    cache: Option<Cache>,
    /// Why there is no cache though one was wanted.
    cache_problem: Option<String>,
    /// What policy may use: the file, which the parser reads, and what was in it.
    policy_features: Option<(PathBuf, Vec<u8>)>,
    kernel_features: String,
    /// What goes into every key besides the files.
    common: Vec<u8>,
    options: Options,
    bases: Bases,
    /// Which profiles were left to the parser though merging was wanted, and why.
    refused: Mutex<Vec<(ProfileName, Refused)>>,
}

impl Loader {
    /// Looks at the host.
    ///
    /// # Errors
    /// The host cannot do it: no parser, no AppArmor, no features.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let options = options.absolute()?;
        let kernel = Kernel::open(&options.securityfs)?;
        let mut parser = Parser::find(options.parser.as_deref())?.with_time(options.time);
        if options.securityfs != Path::new(SECURITYFS) {
            parser = parser.with_interface(kernel.root().to_owned());
        }
        let (cache, cache_problem) = options.open_cache();
        let version = match &cache {
            Some(cache) => cache.version(&parser)?,
            None => parser.version()?,
        };
        let kernel_features = options.read_kernel_features(&kernel, version)?;
        let policy_features = options.read_policy_features()?;
        let policy_text = policy_features.as_ref().map_or(&[] as &[u8], |(_, text)| text);
        let features = [kernel_features.as_bytes(), policy_text];
        Ok(Self {
            common: options.key(&parser.identity()?, version, features),
            sources: Sources::new(&options.base, &options.include),
            options,
            parser,
            version,
            kernel,
            cache,
            cache_problem,
            policy_features,
            kernel_features,
            bases: Bases::default(),
            refused: Mutex::default(),
        })
    }

    /// Why there is no cache though one was asked for; without it everything works, but slower.
    pub fn cache_problem(&self) -> Option<&str> {
        self.cache_problem.as_deref()
    }

    /// Which profiles were compiled whole since the last call though merging was asked for, and why.
    pub fn take_refused(&self) -> Vec<(ProfileName, Refused)> {
        std::mem::take(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads a profile that is not loaded.
    ///
    /// # Errors
    /// [`Error::Exists`], and everything that [`Loader::replace`] gives.
    pub fn add(&self, profile: &Profile) -> Result<Loaded, Error> {
        self.load(parser::Action::Add, profile)
    }

    /// Brings the kernel's copy of a profile up to its file; if it holds exactly that, nothing is run and nothing written.
    ///
    /// # Errors
    /// The file, the parser or the kernel refused, or the host failed. The old policy stays in force, but for three:
    /// [`Error::Stale`], where the new one is loaded and only a child of the old one stays; [`Error::Unknown`], where the
    /// kernel does not tell; and [`Error::ReadBack`], where it holds something else.
    pub fn replace(&self, profile: &Profile) -> Result<Loaded, Error> {
        self.load(parser::Action::Replace, profile)
    }

    fn load(&self, action: parser::Action, profile: &Profile) -> Result<Loaded, Error> {
        // First: beside a file that is not to be loaded there may be no lock to be had.
        let Trusted { given, found } = &Trusted::of(profile)?;
        let locks = self.lock([given])?;
        let before = self.kernel.find_again(profile.name)?;
        if action == parser::Action::Add && before.is_some() {
            return Err(Error::Exists);
        }
        let policy = self.policy(found)?;
        let compiled = blob::parse(&policy)?;
        if let Some(held) = before.as_ref().filter(|held| held.is(&compiled)) {
            return Ok(Loaded::new(profile.name, Action::Unchanged, Some(held.entry.record_mode()?)));
        }
        let done = if before.is_some() { Action::Replaced } else { Action::Added };
        if self.options.dry_run {
            return Ok(Loaded::new(profile.name, done, None));
        }
        let written = self.parser.load(action, policy.clone(), locks.file()).map_err(Error::from);
        self.outcome(profile.name, done, &compiled, written)
    }

    /// Loads a whole set in one write, which the kernel takes all of or nothing.
    ///
    /// # Errors
    /// Each profile that cannot be locked or compiled has its own error in the list, and the others are loaded. What the
    /// kernel refuses, it refuses for all: each has that error.
    pub fn replace_direct(&self, profiles: &[Profile], jobs: usize) -> Vec<Result<Loaded, Error>> {
        let prepared = batch::all(jobs, profiles.iter(), |profile| self.prepare(profile));
        let locks = self.lock(prepared.iter().flatten().map(|profile| &profile.given));
        let ready = |profile: Result<Trusted, Error>| {
            let profile = profile?;
            locks.as_ref().map_err(Error::again)?;
            self.ready(&profile.found)
        };
        let results = batch::all(jobs, prepared.into_iter(), ready);
        let set: Vec<u8> = results
            .iter()
            .flatten()
            .filter(|ready| !ready.unchanged)
            .flat_map(|ready| &ready.policy)
            .copied()
            .collect();
        let written =
            if set.is_empty() || self.options.dry_run { Ok(()) } else { self.kernel.replace_set(&set) };
        let refused = written.err();
        results
            .into_iter()
            .map(|ready| {
                let Ready { name, policy, before, unchanged } = ready?;
                if unchanged {
                    return Ok(Loaded::new(
                        name,
                        Action::Unchanged,
                        before.map(|held| held.entry.record_mode()).transpose()?,
                    ));
                }
                let done = if before.is_some() { Action::Replaced } else { Action::Added };
                if self.options.dry_run {
                    return Ok(Loaded::new(name, done, None));
                }
                let written = refused.as_ref().map_or(Ok(()), |error| Err(error.again()));
                self.outcome(name, done, &blob::parse(&policy)?, written)
            })
            .collect()
    }

    /// Has the policy of one profile of a set in the cache, under its lock alone: while all of the set's are held, nothing
    /// is compiled but what changes meanwhile, or where there is no cache.
    fn prepare(&self, profile: &Profile) -> Result<Trusted, Error> {
        let profile = Trusted::of(profile)?;
        let _locks = self.lock([&profile.given])?;
        if self.cache.is_some() && !self.options.dry_run {
            self.policy(&profile.found)?;
        }
        Ok(profile)
    }

    fn ready(&self, profile: &Profile) -> Result<Ready, Error> {
        let before = self.kernel.find_again(profile.name)?;
        let policy = self.policy(profile)?;
        let compiled = blob::parse(&policy)?;
        let unchanged = before.as_ref().is_some_and(|held| held.is(&compiled));
        Ok(Ready { name: profile.name, policy, before, unchanged })
    }

    /// What a load came to. Whatever the parser says, the kernel's word counts: one that failed after it had loaded
    /// everything, or was ended then, has loaded it.
    fn outcome(
        &self,
        name: ProfileName,
        done: Action,
        compiled: &[blob::Compiled<'_>],
        written: Result<(), Error>,
    ) -> Result<Loaded, Error> {
        if let Err(error) = written {
            let refused = |error: &Error| {
                matches!(error, Error::Parser(ParserError::Exists | ParserError::Kernel { .. }))
            };
            match self.kernel.find_again(name) {
                Ok(Some(held)) if held.difference(compiled).is_none() => {
                    if matches!(error, Error::Parser(ParserError::Exists)) {
                        return Err(error);
                    }
                }
                // Without published hashes the kernel does not say that it is this policy, nor that it is not.
                Ok(Some(held)) if held.entry.hash.is_none() && !refused(&error) => {
                    return Err(Error::Unknown(Box::new(error)));
                }
                Ok(_) => return Err(error),
                Err(_) => return Err(Error::Unknown(Box::new(error))),
            }
        }
        self.read_back(name, done, compiled)
    }

    /// What the kernel holds after a load, which must be what was loaded.
    fn read_back(
        &self,
        name: ProfileName,
        done: Action,
        compiled: &[blob::Compiled<'_>],
    ) -> Result<Loaded, Error> {
        let held = self.kernel.find_again(name).map_err(|error| Error::Unknown(Box::new(error)))?;
        let held = held.ok_or_else(|| Error::ReadBack(format!("{name} is missing")))?;
        // Without published hashes only name and mode can be told.
        if held.entry.hash.is_some()
            && let Some(difference) = held.difference(compiled)
        {
            return Err(Error::ReadBack(difference));
        }
        let loaded = Loaded::new(name, done, Some(held.entry.record_mode()?));
        // One that stays is no reason to leave the others.
        let mut stays = None;
        for child in &held.children {
            if !compiled.iter().any(|profile| profile.name == child.name)
                && let Err(source) = self.remove_stale(&child.name)
            {
                stays.get_or_insert((child.name.clone(), Box::new(source)));
            }
        }
        match stays {
            Some((child, source)) => Err(Error::Stale { loaded, child, source }),
            None => Ok(loaded),
        }
    }

    /// Removes a child that the profile no longer has. The kernel keeps it otherwise, for anything to change into.
    fn remove_stale(&self, child: &str) -> Result<(), Error> {
        let carries = |task: &Task| task.label.split("//&").any(|component| component.ends_with(child));
        let in_use = tasks::in_use(&self.kernel, &self.options.proc)?;
        let tasks: Vec<Task> = in_use.into_values().flatten().filter(carries).collect();
        if !tasks.is_empty() {
            return Err(Error::Carried(tasks));
        }
        match self.kernel.remove(child) {
            Err(Error::NotLoaded) => Ok(()),
            other => other,
        }
    }

    /// The locks of these profiles; none for who only looks, since they would leave files behind.
    fn lock<'a>(&self, profiles: impl IntoIterator<Item = &'a Profile>) -> Result<Locks, Error> {
        if self.options.dry_run {
            return Ok(Locks::default());
        }
        Locks::to_load(profiles, self.cache.as_ref())
    }

    /// The compiled policy of a profile, from the cache or the parser, checked to be of this profile alone. Its file is
    /// one that [`Trusted`] has found.
    fn policy(&self, profile: &Profile) -> Result<Vec<u8>, Error> {
        if let Some(base_name) = profile.file.file_name() {
            let link = self.options.base.join("disable").join(base_name);
            if link.symlink_metadata().is_ok() {
                return Err(Error::Disabled(link));
            }
        }
        let mut key = self.key(&self.sources, profile)?;
        if let Some(cache) = &self.cache
            && let Some(policy) = cache.get(profile.name, &key)
            && Self::check(profile, &policy).is_ok()
        {
            return Ok(policy);
        }
        for _ in 0..ATTEMPTS {
            let policy = match self.merged(profile) {
                Some(policy) => policy,
                None => self.compile(&profile.file)?,
            };
            Self::check(profile, &policy)?;
            // Whether this policy is that of the files as they were, nobody knows who did not look again.
            let now = self.key(&self.fresh_sources(), profile)?;
            if now == key {
                if let Some(cache) = &self.cache {
                    // A cache that cannot be written costs time, nothing else.
                    let _ = cache.put(profile.name, &key, &policy);
                }
                return Ok(policy);
            }
            key = now;
        }
        Err(Error::Unstable)
    }

    fn compile(&self, file: &Path) -> Result<Vec<u8>, Error> {
        let job = Compile {
            file,
            base: &self.options.base,
            include: &self.options.include,
            policy_features: self.policy_features.as_ref().map(|(file, _)| file.as_path()),
            kernel_features: &self.kernel_features,
        };
        let policy = self.parser.compile(&job, self.version)?;
        // The key has the text that was read here, and the parser has read the file itself.
        match &self.policy_features {
            Some((file, text)) if std::fs::read(file).map_err(Error::host(file))? != *text => {
                Err(Error::Unstable)
            }
            _ => Ok(policy),
        }
    }

    /// The policy by a merge, if that was asked for and is possible.
    fn merged(&self, profile: &Profile) -> Option<Vec<u8>> {
        let cache = self.cache.as_ref().filter(|_| self.options.merge)?;
        let host = Host {
            cache,
            sources: &self.sources,
            directory: &self.options.base,
            common: &self.common,
            again: &|| self.fresh_sources(),
        };
        let mut compile = |text: &str| match cache.with_text(text, |file| self.compile(file)) {
            Ok(Ok(policy)) => Ok(policy),
            Ok(Err(_)) | Err(_) => Err(merge::NOT_COMPILED),
        };
        let policy = self.bases.policy(profile, &host, &mut compile);
        let policy = policy.and_then(|policy| match Self::check(profile, &policy) {
            Ok(()) => Ok(policy),
            Err(_) => Err(Refused::of("merged policy that is not of this profile alone")),
        });
        policy
            .map_err(|refused| {
                let mut list = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                list.push((profile.name, refused));
            })
            .ok()
    }

    /// A reader of the same files that remembers nothing.
    fn fresh_sources(&self) -> Sources {
        Sources::new(&self.options.base, &self.options.include)
    }

    fn key(&self, sources: &Sources, profile: &Profile) -> Result<Sum, Problem> {
        let files = sources.sum(&profile.file)?;
        Ok(Sha256::new().chain_update(&self.common).chain_update(files).finalize().into())
    }

    /// That policy is that of one profile and its children, and denies or at least tells: a record must not bring in
    /// another.
    fn check(profile: &Profile, policy: &[u8]) -> Result<(), Error> {
        let compiled = blob::parse(policy)?;
        let name = profile.name.to_string();
        let child = format!("{name}//");
        let own = compiled.iter().filter(|compiled| compiled.name == name).count();
        let mut names: Vec<&str> = compiled.iter().map(|compiled| compiled.name).collect();
        names.sort_unstable();
        names.dedup();
        let foreign =
            compiled.iter().any(|compiled| compiled.name != name && !compiled.name.starts_with(&child));
        if own != 1 || foreign || names.len() != compiled.len() {
            return Err(Error::OtherProfile { file: profile.file.clone(), found: blob::names(&compiled) });
        }
        // Whatever is done under it would not be denied; the next stage would find that out too late.
        let own = compiled.iter().find(|compiled| compiled.name == name);
        own.and_then(blob::Compiled::lax_mode).map_or(Ok(()), |mode| Err(Error::Lax(mode)))
    }
}

/// How often a compile is begun anew because its files changed meanwhile.
const ATTEMPTS: usize = 3;

/// A profile whose file nobody else can change.
struct Trusted {
    /// As it was named: its locks are there.
    given: Profile,
    /// With its file where that is once links are followed, which they are once.
    found: Profile,
}

impl Trusted {
    fn of(profile: &Profile) -> Result<Self, Problem> {
        let file = trust::file(&profile.file)?;
        Ok(Self { given: profile.clone(), found: Profile { name: profile.name, file } })
    }
}

/// A profile of a set, compiled.
struct Ready {
    name: ProfileName,
    policy: Vec<u8>,
    before: Option<crate::kernel::InKernel>,
    unchanged: bool,
}

/// Brings the kernel's copy of one profile up to its file.
///
/// # Errors
/// As [`Loader::new`] and [`Loader::replace`].
pub fn replace(options: &Options, profile: &Profile) -> Result<Loaded, Error> {
    Loader::new(options)?.replace(profile)
}

/// Loads one profile that is not loaded.
///
/// # Errors
/// As [`Loader::new`] and [`Loader::add`].
pub fn add(options: &Options, profile: &Profile) -> Result<Loaded, Error> {
    Loader::new(options)?.add(profile)
}
