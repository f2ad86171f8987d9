//! What the tools tell people: where several stand in a pipe, each message is to arrive whole.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::tools::tool;

/// What a tool that fails writes to standard error, write by write, as lines.
///
/// A datagram socket keeps apart what was written in separate calls, as a pipe that others write to does not.
fn writes(command: &mut Command) -> Vec<String> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A datagram of no length marks the end, which such a socket does not tell.
    let end = theirs.try_clone().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(theirs));
    assert!(!command.status().unwrap().success(), "{command:?}");
    end.send(b"").unwrap();
    let mut buffer = [0; 4096];
    std::iter::from_fn(|| {
        let length = ours.recv(&mut buffer).unwrap();
        (length > 0).then(|| str::from_utf8(buffer.get(..length).unwrap()).unwrap().to_owned())
    })
    .collect()
}

#[test]
fn a_message_is_one_write() {
    let missing = "/nonexistent/a\u{1b}b";
    for (name, args) in [
        ("aa-derive", &[missing, missing][..]),
        ("aa-render", &["--dir", missing]),
        ("aa-load", &["add", missing]),
        ("aa-confine", &["--profile", "no-such", "--", "/bin/true"]),
        ("virt-aa-helper", &["-c", "-u", "no-uuid"]),
    ] {
        let writes = writes(tool(name).args(args));
        assert!(!writes.is_empty(), "{name} says nothing");
        for text in &writes {
            assert!(text.starts_with(&format!("{name}: ")), "{name}: {writes:?}");
            assert!(text.ends_with('\n'), "{name}: {writes:?}");
        }
    }
}
