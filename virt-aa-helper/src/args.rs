//! The command line of libvirt's helper, as `getopt_long(3)` reads it: short options may stand together, long
//! ones may be cut as long as one is meant, the last mode holds, operands are passed over.
//!
//! `--add-file` and `--append-file` take an argument, as the original's help says and its code does not.

use std::ffi::OsString;

use crate::error::Error;

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: virt-aa-helper MODE [OPTION]... < DOMAIN.xml

Makes, changes and removes the AppArmor profile of a libvirt guest; libvirtd runs it.

Modes (the last one given holds):
  -c, --create             make the profile from its template and the XML, and load it
  -r, --replace            bring the rules up to the XML, and load the profile in the old one's place
  -a, --add                load the profile as it is on disk
  -R, --remove             unload the profile
  -D, --delete             unload the profile and remove its rules file
Options:
  -u, --uuid NAME          the profile's name, libvirt-<uuid> (needed)
  -d, --dryrun             print what would be written; write, load and unload nothing
  -f, --add-file FILE      also grant FILE, beside what the XML names
  -F, --append-file FILE   also grant FILE, beside what is granted already; the suffix /{,**} means \"everything
                           below\" only for the guest's own directories, and is part of the file's name elsewhere
  -h, --help               print this

Examples:
  virt-aa-helper --create --uuid libvirt-a22e3930-d87a-584e-22b2-1d8950212bac < vm.xml
  virt-aa-helper --dryrun --replace --uuid libvirt-a22e3930-d87a-584e-22b2-1d8950212bac < vm.xml

Exit status:
  0  done
  1  refused or failed, and standard error says why: the files are as they were; so is the kernel's policy,
     unless it was the parser that failed or was ended: then the next call loads it again
";

/// What to do with the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the options' own words")]
pub enum Mode {
    Add,
    Create,
    Replace,
    Remove,
    Delete,
    Help,
}

/// A file to grant as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// `-f`: beside the XML's.
    Add(String),
    /// `-F`: beside everything granted so far.
    Append(String),
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// The mode.
    pub mode: Mode,
    /// `-d`
    pub dry_run: bool,
    /// `-u`, unchecked
    pub name: Option<String>,
    /// `-f` or `-F`, the last of them
    pub extra: Option<Extra>,
}

/// Long name, letter, whether an argument follows.
const OPTIONS: [(&str, char, bool); 10] = [
    ("add", 'a', false),
    ("create", 'c', false),
    ("dryrun", 'd', false),
    ("delete", 'D', false),
    ("add-file", 'f', true),
    ("append-file", 'F', true),
    ("help", 'h', false),
    ("replace", 'r', false),
    ("remove", 'R', false),
    ("uuid", 'u', true),
];

/// Reads a command line, without the program's name.
///
/// # Errors
/// [`Error::Option`], [`Error::Argument`], [`Error::NotText`], [`Error::NoMode`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, Error> {
    let mut args = args.into_iter();
    let mut mode = None;
    let mut parsed = Args { mode: Mode::Help, dry_run: false, name: None, extra: None };
    while let Some(arg) = args.next() {
        let arg = text(arg)?;
        if arg == "--" {
            break;
        }
        for (letter, value) in options_of(&arg, &mut args)? {
            match letter {
                'a' => mode = Some(Mode::Add),
                'c' => mode = Some(Mode::Create),
                'r' => mode = Some(Mode::Replace),
                'R' => mode = Some(Mode::Remove),
                'D' => mode = Some(Mode::Delete),
                'd' => parsed.dry_run = true,
                'f' => parsed.extra = Some(Extra::Add(value)),
                'F' => parsed.extra = Some(Extra::Append(value)),
                'u' => parsed.name = Some(value),
                _ => return Ok(Args { mode: Mode::Help, ..parsed }),
            }
        }
    }
    Ok(Args { mode: mode.ok_or(Error::NoMode)?, ..parsed })
}

/// The options in one argument, with their own arguments; none if it is an operand.
fn options_of(arg: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<Vec<(char, String)>, Error> {
    if let Some(long) = arg.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let (letter, takes) = find_long(name)?;
        let value = match (takes, value) {
            (false, Some(_)) => return Err(Error::Option(arg.to_owned())),
            (true, None) => next(rest, arg)?,
            (_, value) => value.unwrap_or_default(),
        };
        return Ok(vec![(letter, value)]);
    }
    let mut options = Vec::new();
    let mut letters = arg.strip_prefix('-').unwrap_or_default().chars();
    while let Some(letter) = letters.next() {
        let (.., takes) = OPTIONS
            .iter()
            .find(|(_, short, _)| *short == letter)
            .ok_or_else(|| Error::Option(format!("-{letter}")))?;
        if *takes {
            let attached = letters.as_str();
            let value =
                if attached.is_empty() { next(rest, &format!("-{letter}"))? } else { attached.to_owned() };
            options.push((letter, value));
            break;
        }
        options.push((letter, String::new()));
    }
    Ok(options)
}

fn find_long(name: &str) -> Result<(char, bool), Error> {
    if let Some((_, letter, takes)) = OPTIONS.iter().find(|(long, ..)| *long == name) {
        return Ok((*letter, *takes));
    }
    let mut cut = OPTIONS.iter().filter(|(long, ..)| !name.is_empty() && long.starts_with(name));
    match (cut.next(), cut.next()) {
        (Some((_, letter, takes)), None) => Ok((*letter, *takes)),
        _ => Err(Error::Option(format!("--{name}"))),
    }
}

fn next(args: &mut impl Iterator<Item = OsString>, option: &str) -> Result<String, Error> {
    text(args.next().ok_or_else(|| Error::Argument(option.to_owned()))?)
}

fn text(arg: OsString) -> Result<String, Error> {
    arg.into_string().map_err(|arg| Error::NotText(arg.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, String> {
        parse(line.split(' ').filter(|arg| !arg.is_empty()).map(OsString::from))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn as_libvirtd_calls_it() {
        let extra = Some(Extra::Append("/x/{,**}".into()));
        let name = Some("libvirt-1".to_owned());
        let args = Args { mode: Mode::Replace, dry_run: false, name, extra };
        for line in [
            "-r -u libvirt-1 -F /x/{,**}",
            "-rulibvirt-1 -F/x/{,**}",
            "--rep --uuid=libvirt-1 --append-file /x/{,**} operand",
        ] {
            assert_eq!(read(line).unwrap(), args, "{line}");
        }
    }

    #[test]
    fn the_last_mode_holds_and_what_follows_two_dashes_is_no_option() {
        assert_eq!(read("-c -R").unwrap().mode, Mode::Remove);
        assert_eq!(read("-R -dc").unwrap().mode, Mode::Create);
        assert!(read("-R -dc").unwrap().dry_run);
        assert!(!read("-R -- -d").unwrap().dry_run);
        assert_eq!(read("-c -h -z").unwrap().mode, Mode::Help);
        assert_eq!(read("-f /a -F /b -c").unwrap().extra, Some(Extra::Append("/b".into())));
        assert_eq!(read("-c --add-file=/a").unwrap().extra, Some(Extra::Add("/a".into())));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for line in
            ["", "-d", "-z", "-A", "-p 0 -r", "-c -n foo", "-c -u", "-c --re", "--create=x", "-c --=", "-cH"]
        {
            assert!(read(line).is_err(), "{line}");
        }
        assert!(read("-c -p").unwrap_err().contains("\"-p\""));
    }
}
