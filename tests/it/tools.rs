//! The built tools, and pipes of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A tool of the workspace, beside this test in the target directory.
pub(crate) fn tool(name: &str) -> Command {
    let this = std::env::current_exe().unwrap();
    let path: PathBuf = this.parent().and_then(|deps| deps.parent()).unwrap().join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace`", path.display());
    Command::new(path)
}

/// A host that has nothing: not what a path is on the machine of the test, nor what policy it has.
pub(crate) fn bare_host() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bare-host");
    std::fs::create_dir_all(&root).unwrap();
    root
}

/// aa-derive, on a host that has nothing.
pub(crate) fn derive() -> Command {
    let mut derive = tool("aa-derive");
    derive.arg("--root").arg(bare_host());
    derive
}

/// aa-render, on a host that has no policy, with this profile directory.
pub(crate) fn render(dir: &Path) -> Command {
    let mut render = tool("aa-render");
    render.arg("--base").arg(bare_host()).arg("--dir").arg(dir);
    render
}

/// aa-render that prints a profile whole, on a host that has no policy.
pub(crate) fn render_whole() -> Command {
    let mut render = render(&bare_host());
    render.arg("--stdout");
    render
}

/// Runs a program on `input`.
pub(crate) fn run(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A tool that refuses early need not read all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Runs a program that must succeed, and gives its standard output.
pub(crate) fn output(command: &mut Command, input: &str) -> String {
    let output = run(command, input);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The text as XML takes it, every character as its number.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().map(|c| format!("&#{};", u32::from(c))).collect::<Vec<_>>().concat()
}

/// The example that libvirt's documentation of its AppArmor driver uses.
pub(crate) fn testqemu() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/domains/testqemu.xml");
    std::fs::read_to_string(path).unwrap()
}
