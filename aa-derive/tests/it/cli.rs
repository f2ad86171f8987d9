//! aa-derive as a command: streams, statuses, messages.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::domain;

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_aa-derive"))
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A tool that refuses early need not read all of it.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn one_domain_is_one_line_and_the_same_each_time() {
    let xml = domain("<devices><disk><source file='/srv/a.img'/></disk></devices>");
    let first = run(&mut tool(), &xml);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let line = text(&first.stdout);
    assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
    assert!(line.contains(r#""profile":"libvirt-a22e3930-d87a-584e-22b2-1d8950212bac""#));
    assert!(line.contains(
        r#"{"path":"/srv/a.img","access":"rwk","origin":{"element":"devices/disk[1]/source","line":5}}"#
    ));
    assert_eq!(run(&mut tool(), &xml).stdout, first.stdout);
    assert!(first.stderr.is_empty());
}

#[test]
fn one_bad_document_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("a.xml", &domain(""));
    write("b.xml", "<domain type='kvm'>\n  <name>x</name>\n");
    write("c.xml", &domain("<devices><disk><source file='/etc/shadow'/></disk></devices>"));
    write("d.xml", &domain(""));
    write("network.xml", "<network><name>default</name></network>");
    write("not-xml.txt", "x");
    std::os::unix::fs::symlink(dir.path().join("b.xml"), dir.path().join("link.xml")).unwrap();
    let output = run(tool().arg(dir.path()), "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).lines().count(), 2);
    let errors = text(&output.stderr);
    assert_eq!(errors.lines().count(), 3, "{errors}");
    assert!(errors.contains("b.xml:3:1: the input ends inside element <domain>"), "{errors}");
    assert!(errors.contains("c.xml:5:16: disk source \"/etc/shadow\" may not be granted"), "{errors}");
    assert!(errors.contains("network.xml: passed over"), "{errors}");
}

#[test]
fn what_is_no_domain_is_refused_with_its_place() {
    let uuid = "<uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid>";
    let os = "<os><type>hvm</type></os>";
    for (xml, message) in [
        (String::new(), "stdin:1:1: the input is empty"),
        ("x".to_owned(), "stdin:1:1: there is text outside the root element"),
        ("<network/>".to_owned(), "stdin:1:1: the root element is <network>, not <domain>"),
        (format!("<domain type='kvm'>{uuid}{os}</domain>"), "the domain has no name"),
        (format!("<domain type='kvm'><name>a</name>{os}</domain>"), "the domain has no uuid"),
        (format!("<domain type='kvm'><name>a</name><uuid>1</uuid>{os}</domain>"), "\"1\" is not a UUID"),
        (format!("<domain><name>a</name>{uuid}{os}</domain>"), "the domain has no type"),
        (
            format!("<domain type='xen'><name>a</name>{uuid}{os}</domain>"),
            "domains of type \"xen\" are not confined",
        ),
        (format!("<domain type='kvm'><name>a</name>{uuid}</domain>"), "the domain has no os type"),
        (
            format!("<domain type='kvm'><name>a/b</name>{uuid}{os}</domain>"),
            "\"a/b\" cannot be a domain's name: it has a /",
        ),
        (
            format!("<domain type='kvm'><name>a&#10;b</name>{uuid}{os}</domain>"),
            "\"a\\nb\" cannot be a domain's name: it has a control character",
        ),
        (format!("<domain type='kvm'><name>..</name>{uuid}{os}</domain>"), "it names a directory"),
        (
            format!("<domain type='kvm' id='x'><name>a</name>{uuid}{os}</domain>"),
            "\"x\" is not a domain's id",
        ),
    ] {
        let output = run(&mut tool(), &xml);
        assert_eq!(output.status.code(), Some(1), "{xml}");
        assert!(output.stdout.is_empty());
        let errors = text(&output.stderr);
        assert!(
            errors.starts_with("aa-derive: stdin:")
                && errors.contains(message)
                && errors.lines().count() == 1,
            "{errors}"
        );
    }
}

#[test]
fn the_call_is_checked() {
    for args in [&["--quantum"][..], &["--add", "relative"], &["--add-glob", "/a{"]] {
        assert_eq!(run(tool().args(args), "").status.code(), Some(2), "{args:?}");
    }
    let missing = run(tool().arg("/does/not/exist.xml"), "");
    assert_eq!(missing.status.code(), Some(3));
    assert_eq!(text(&missing.stderr), "aa-derive: /does/not/exist.xml: no such file or directory\n");
    assert_eq!(run(tool().args(["--root", "/does/not/exist"]), "").status.code(), Some(3));
    let help = text(&run(tool().arg("--help"), "").stdout);
    assert!(help.contains("Examples:") && help.contains("Exit status:"));
}

#[test]
fn files_are_added_and_asked_of_the_policy() {
    let add = |value: &str| run(tool().args(["--add", value]), &domain(""));
    assert!(
        text(&add("/srv/key:r").stdout)
            .contains(r#"{"path":"/srv/key","access":"r","origin":{"element":"--add"}}"#)
    );
    assert!(text(&add("/srv/a:b1").stdout).contains(r#"{"path":"/srv/a:b1","access":"rwk""#));
    let wrong = add("/srv/a:ro");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("\"ro\" is not an access"), "{}", text(&wrong.stderr));
    assert!(text(&add("/srv/a:ro:r").stdout).contains(r#"{"path":"/srv/a:ro","access":"r""#));
    assert!(text(&add("/srv/{,**}").stdout).contains(r#""path":"/srv/{,**}""#));
    let refused = add("/etc/shadow:r");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("stdin: added file \"/etc/shadow\" may not be granted"));
    // What may be read may not be executed for that.
    assert_eq!(add("/usr/libexec/x:r").status.code(), Some(0));
    assert_eq!(add("/usr/libexec/x:rmix").status.code(), Some(1));
    let glob = run(tool().args(["--add-glob", "/srv/{,**}:r"]), &domain(""));
    assert!(text(&glob.stdout).contains(r#"{"glob":"/srv/{,**}","access":"r""#));
}

#[test]
fn the_policy_is_printed_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy");
    let printed = run(tool().arg("--print-policy"), "");
    assert_eq!(printed.status.code(), Some(0));
    fs::write(&policy, text(&printed.stdout) + "refuse /srv\n").unwrap();
    let xml = domain("<devices><disk><source file='/srv/a'/></disk></devices>");
    let with = |policy: &Path| run(tool().arg("--policy").arg(policy), &xml);
    let refused = with(&policy);
    assert_eq!(refused.status.code(), Some(1));
    let line = format!("(path policy {}, line ", policy.display());
    let said = text(&refused.stderr);
    assert!(
        said.contains(&line) && said.contains(": refuse /srv; rwk asked for by devices/disk[1]/source)"),
        "{said}"
    );
    fs::write(&policy, "refuse srv\n").unwrap();
    let bad = with(&policy);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("policy: line 1: "), "{}", text(&bad.stderr));
}

/// What gets no rule although the guest would use it is not passed over where somebody asks for strictness.
#[test]
fn strict_refuses_what_gets_no_rule() {
    for (device, why) in [
        ("<emulator>/usr/bin/bash</emulator>", "emulator \"/usr/bin/bash\" gets no rule"),
        ("<disk><source fil='/srv/a'/></disk>", "the source has no attribute \"file\""),
    ] {
        let xml = domain(&format!("<devices>{device}</devices>"));
        assert_eq!(run(&mut tool(), &xml).status.code(), Some(0), "{device}");
        let strict = run(tool().arg("--strict"), &xml);
        assert_eq!(strict.status.code(), Some(1), "{device}");
        assert!(text(&strict.stderr).contains(why), "{}", text(&strict.stderr));
    }
    let plain = domain("<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>");
    assert_eq!(run(tool().arg("--strict"), &plain).status.code(), Some(0));
}

#[test]
fn what_gets_no_rule_is_warned_of() {
    let xml = domain("<devices>\n<dsik/>\n<disk><source file='/srv/none'/></disk></devices>");
    let output = run(&mut tool(), &xml);
    assert_eq!(output.status.code(), Some(0));
    // A missing file has a rule.
    let warning = "aa-derive: stdin:6: warning: device <dsik> is not known here: no rule is made for it\n";
    assert_eq!(text(&output.stderr), warning);
    let quiet = run(tool().arg("--quiet"), &xml);
    assert_eq!((quiet.status.code(), text(&quiet.stderr).as_str()), (Some(0), ""));
    assert_eq!(quiet.stdout, output.stdout);
    // Where it is refused it is told once.
    let strict = run(tool().arg("--strict"), &xml);
    assert_eq!(text(&strict.stderr).lines().count(), 1);
    let many = run(&mut tool(), &domain(&format!("<devices>{}</devices>", "<dsik/>\n".repeat(25))));
    let lines = text(&many.stderr);
    assert_eq!(lines.lines().count(), 11);
    assert!(
        lines.ends_with("aa-derive: stdin: warning: 15 more, which are in the record's notes\n"),
        "{lines}"
    );
}

#[test]
fn who_a_guest_is_takes_no_look_at_its_files() {
    let xml = domain(
        "<devices><disk type='volume'><source pool='p' volume='v'/></disk><disk><source file='/etc/shadow'/></disk></devices>",
    );
    assert_eq!(run(&mut tool(), &xml).status.code(), Some(1));
    let output = run(tool().arg("--identify"), &xml);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    assert!(
        line.starts_with(r#"{"version":1,"profile":"libvirt-a22e3930-d87a-584e-22b2-1d8950212bac","name":"#)
    );
    assert!(line.ends_with("\"confined\":true}\n") && line.lines().count() == 1, "{line}");
    // The twins: what is no guest, and what asks for more.
    let refused = run(tool().arg("--identify"), "<pool type='dir'><name>p</name></pool>");
    assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(1), b"".as_slice()));
    assert_eq!(run(tool().args(["--identify", "--add", "/a"]), &xml).status.code(), Some(2));
}

#[test]
fn a_status_file_of_a_running_guest_is_read() {
    let xml = format!("<domstatus state='running' reason='booted' pid='1'>{}</domstatus>", domain(""));
    let output = run(&mut tool(), &xml);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("\"id\":7"));
}

#[test]
fn a_full_or_closed_output_is_status_3() {
    let output = tool()
        .stdin(Stdio::piped())
        .stdout(File::create("/dev/full").unwrap())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = output.unwrap();
    child.stdin.take().unwrap().write_all(domain("").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("standard output: "));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = tool().stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(domain("").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stderr.is_empty());
}
