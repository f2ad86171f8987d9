//! Tries what a tool must not do. In the guest it is put in the place of a tool, and so runs under the tool's
//! own AppArmor profile; its arguments are attempts, and it prints for each whether the kernel let it.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

fn main() -> ExitCode {
    let attempts: Vec<String> = std::env::args().skip(1).collect();
    let mut rest = attempts.as_slice();
    let mut denied = false;
    while let [attempt, after @ ..] = rest {
        rest = after;
        let outcome = match try_one(attempt, after) {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                denied = true;
                error.to_string()
            }
        };
        if writeln!(io::stdout(), "{attempt}: {outcome}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(u8::from(denied))
}

/// `VERB` or `VERB:OBJECT`; `after` is what a program that is executed is given.
fn try_one(attempt: &str, after: &[String]) -> Result<(), Box<dyn Error>> {
    let (verb, object) = attempt.split_once(':').unwrap_or((attempt, ""));
    let process = || object.parse().map(Pid::from_raw);
    match verb {
        "read" => drop(File::open(object)?.read(&mut [0])?),
        "list" => drop(std::fs::read_dir(object)?),
        // Nothing is written, so that the attempt leaves what is there as it is.
        "write" => drop(OpenOptions::new().append(true).create(true).open(object)?),
        "exec" => return Err(Command::new(object).args(after).exec().into()),
        "inet" => drop(UdpSocket::bind("127.0.0.1:0")?),
        "tcp" => drop(TcpListener::bind("127.0.0.1:0")?),
        "unix" => drop(UnixDatagram::unbound()?),
        "unix-stream" => drop(UnixStream::pair()?),
        "on-exec" => write_attribute("exec", &format!("exec {object}"))?,
        // What follows is tried under that profile.
        "now" => write_attribute("current", &format!("changeprofile {object}"))?,
        "trace" => {
            ptrace::attach(process()?)?;
            waitpid(process()?, None)?;
            ptrace::detach(process()?, None)?;
        }
        "sleep" => thread::sleep(Duration::from_secs(object.parse()?)),
        "signal" => kill(process()?, Signal::SIGCONT)?,
        "mount" => {
            mount(Some("none"), Path::new(object), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        }
        "mount-as" => mount_as(object)?,
        _ => return Err("no such attempt".into()),
    }
    Ok(())
}

/// `TYPE:HOW:FROM:DIR` by mount(2) itself, which mount(8) no longer calls everywhere; HOW is rw, ro or bind, whose type says nothing.
fn mount_as(words: &str) -> Result<(), Box<dyn Error>> {
    let [kind, how, from, dir] = *words.splitn(4, ':').collect::<Vec<_>>() else {
        return Err("TYPE:HOW:FROM:DIR".into());
    };
    let flags = match how {
        "rw" => MsFlags::empty(),
        "ro" => MsFlags::MS_RDONLY,
        "bind" => MsFlags::MS_BIND,
        _ => return Err("rw, ro or bind".into()),
    };
    Ok(mount(Some(from), Path::new(dir), Some(kind), flags, None::<&str>)?)
}

/// Asks the kernel for a change of this thread's profile.
fn write_attribute(name: &str, request: &str) -> io::Result<()> {
    let mut attribute =
        OpenOptions::new().write(true).open(format!("/proc/thread-self/attr/apparmor/{name}"))?;
    attribute.write_all(request.as_bytes())
}
