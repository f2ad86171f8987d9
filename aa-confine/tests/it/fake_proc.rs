//! A /proc that is not the kernel's. Each case has a mount namespace of its own, made by unshare(1).

use std::process::{Command, Output};

use snapbox::cmd::cargo_bin;

/// Runs a shell script as root in a new mount namespace, in an empty directory `$FAKE`; `$0` is aa-confine.
fn in_mount_namespace(script: &str) -> (Output, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-euc", script])
        .arg(cargo_bin!("aa-confine"))
        .env("FAKE", directory.path())
        .output()
        .unwrap();
    (output, directory)
}

fn refuses(script: &str, reason: &str) {
    let (run, directory) = in_mount_namespace(script);
    let message = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(125), "{message}");
    assert!(message.starts_with("aa-confine: ") && message.contains(reason), "{message}");
    assert!(!directory.path().join("trace").exists(), "the command was executed");
}

#[test]
#[ignore = "needs root"]
fn the_real_proc_gets_past_the_check() {
    // The twin of the refusals: without the fake the next question is reached.
    let (run, _directory) =
        in_mount_namespace(r#"exec "$0" --profile no-such-profile -- touch "$FAKE/trace""#);
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(message.contains("AppArmor is") || message.contains("is not loaded"), "{message}");
}

#[test]
#[ignore = "needs root"]
fn a_tmpfs_over_proc() {
    // Its files read just as the kernel's would after the change.
    refuses(
        r#"
        mount -t tmpfs none /proc
        mkdir -p /proc/1/task/1/attr/apparmor
        ln -s 1/task/1 /proc/thread-self
        for file in exec current apparmor/exec apparmor/current; do
            echo "vm (enforce)" > /proc/1/task/1/attr/$file
        done
        exec "$0" --profile vm -- touch "$FAKE/trace""#,
        "/proc: not procfs",
    );
}

#[test]
#[ignore = "needs root"]
fn a_part_of_procfs_over_proc() {
    refuses(
        r#"
        mount --bind /proc/1 /proc
        exec "$0" --profile vm -- touch "$FAKE/trace""#,
        "/proc: not the root of a procfs",
    );
}

#[test]
#[ignore = "needs root"]
fn a_link_in_place_of_proc() {
    refuses(
        r#"
        mkdir "$FAKE/root"
        mount -t tmpfs none "$FAKE/root"
        cd "$FAKE/root"
        for directory in bin lib lib64 usr sys; do
            if [ -e /$directory ]; then mkdir $directory; mount --rbind /$directory $directory; fi
        done
        mkdir kernel
        mount -t proc proc kernel
        ln -s kernel proc
        cp "$0" aa-confine
        exec chroot . /aa-confine --profile vm -- touch /trace"#,
        "/proc: not a directory but a link",
    );
}
