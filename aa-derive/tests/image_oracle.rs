//! What the header reader finds in images made by `qemu-img`, against what `qemu-img info` says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code outside of test functions"
)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use aa_derive::host::{self, Host};
use aa_derive::image::{
    self, Chain, ChainError, Files, Format, HeaderError, LIMIT, LayerKind, Problem, Said, TopImage, walk,
};
use serde_json::Value;

/// A directory with images in it.
struct Images(tempfile::TempDir);

impl Images {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn raw(&self, name: &str) {
        std::fs::write(self.path(name), vec![0; 1 << 20]).unwrap();
    }

    /// `qemu-img create -f FORMAT`, with the other arguments between that and the name.
    fn create(&self, format: &str, name: &str, args: &[&str]) {
        let path = self.path(name);
        let has_backing = args.contains(&"-b");
        let mut all = vec!["create", "-q", "-f", format];
        all.extend_from_slice(args);
        all.push(&path);
        if !has_backing || args.contains(&"-u") {
            all.push("1M");
        }
        qemu_img(&all);
    }

    fn chain(&self, format: &str, name: &str) -> Result<Chain, ChainError> {
        let path = self.path(name);
        let format = Format::from_name(format);
        let top = TopImage { path: &path, format, readonly: false, said: Said::default() };
        let host = host::Files::new("/").unwrap();
        let permit = |named: image::Named<'_>| {
            host.resolve(named.path).map(|real| real.path).map_err(|error| error.to_string())
        };
        walk(&Files::new("/").unwrap(), &permit, top, LIMIT)
    }

    /// Compares everything that both sides say of one image; `notes` is how many notes ours has.
    fn same(&self, format: &str, name: &str, notes: usize) {
        let chain = self.chain(format, name).unwrap();
        assert_eq!(ours(&chain), theirs(&self.path(name)), "{format} {name}");
        assert_eq!(chain.notes.len(), notes, "{format} {name}: {:?}", chain.notes);
    }
}

fn run(args: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new("qemu-img").args(args).output().unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Runs `qemu-img`, which must succeed.
///
/// Making a LUKS image measures how long the key derivation takes, and fails where the clock of CPU time is
/// too coarse for that; only this failure, of the tool and not of what is tested, is tried again.
fn qemu_img(args: &[&str]) -> Vec<u8> {
    for _ in 0..100 {
        match run(args) {
            Ok(output) => return output,
            Err(error) if error.contains("Unable to get accurate CPU usage") => {}
            Err(error) => panic!("qemu-img {args:?}: {error}"),
        }
    }
    panic!("qemu-img {args:?}: the clock of CPU time is too coarse here to make a LUKS image");
}

/// Depth, kind, path.
type Named = (usize, LayerKind, String);

fn ours(chain: &Chain) -> Vec<Named> {
    let depth = |layer: u32| usize::try_from(layer).unwrap();
    let mut all: Vec<Named> =
        chain.layers.iter().map(|layer| (depth(layer.depth), layer.kind, layer.path.clone())).collect();
    all.sort();
    all
}

/// The images below the top, their data files and their extents, as `qemu-img` opens them.
fn theirs(top: &str) -> Vec<Named> {
    let text = qemu_img(&["info", "--backing-chain", "--output=json", top]);
    let chain: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let mut all = Vec::new();
    for (depth, image) in chain.iter().enumerate() {
        let path = image["filename"].as_str().unwrap();
        // `file:///x` is the path `///x` there.
        let path = format!("/{}", path.trim_start_matches('/'));
        let data = &image["format-specific"]["data"];
        if let Some(name) = data["data-file"].as_str() {
            let dir = Path::new(&path).parent().unwrap();
            all.push((depth, LayerKind::DataFile, dir.join(name).to_str().unwrap().to_owned()));
        }
        for extent in data["extents"].as_array().into_iter().flatten() {
            let extent = extent["filename"].as_str().unwrap();
            if extent != path {
                all.push((depth, LayerKind::Extent, extent.to_owned()));
            }
        }
        if depth > 0 {
            all.push((depth, LayerKind::Backing, path));
        }
    }
    all.sort();
    all
}

#[test]
#[ignore = "needs qemu-img"]
fn single_images_in_each_format_and_option() {
    let images = Images::new();
    images.raw("b.raw");
    let secret = ["--object", "secret,id=s,data=secret"];
    let cases: &[(&str, &[&str])] = &[
        ("raw", &[]),
        ("qcow", &[]),
        ("qcow2", &["-o", "compat=0.10"]),
        ("qcow2", &["-o", "compat=1.1"]),
        ("qcow2", &["-o", "cluster_size=512"]),
        ("qcow2", &["-o", "cluster_size=2M"]),
        ("qcow2", &["-o", "extended_l2=on,cluster_size=64k"]),
        ("qcow2", &["-o", "compression_type=zstd"]),
        ("qcow2", &["-o", "lazy_refcounts=on,refcount_bits=1"]),
        ("qcow2", &["-o", "preallocation=full"]),
        (
            "qcow2",
            &[secret[0], secret[1], "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200"],
        ),
        ("luks", &[secret[0], secret[1], "-o", "key-secret=s,iter-time=200"]),
        ("qed", &[]),
        ("vmdk", &["-o", "subformat=monolithicSparse"]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
        ("vmdk", &["-o", "compat6=on"]),
        ("vpc", &["-o", "subformat=dynamic"]),
        ("vpc", &["-o", "subformat=fixed"]),
        ("vdi", &[]),
        ("vdi", &["-o", "static=on"]),
        ("vhdx", &["-o", "subformat=dynamic"]),
        ("vhdx", &["-o", "subformat=fixed"]),
        ("parallels", &[]),
    ];
    for (number, (format, args)) in cases.iter().enumerate() {
        let name = format!("{number}.{format}");
        images.create(format, &name, args);
        images.same(format, &name, 0);
        let chain = images.chain(format, &name).unwrap();
        assert_eq!(chain, Chain { read: chain.read, ..Chain::default() }, "{format} {args:?}");
        // The twin: the same bytes declared as another format are an error, not a guess.
        let wrong = if *format == "qed" { "qcow2" } else { "qed" };
        let chain = images.chain(wrong, &name).unwrap();
        let problem = &chain.notes.first().unwrap().problem;
        assert!(matches!(problem, Problem::Header(HeaderError::Magic { .. })), "{problem}");
    }
}

#[test]
#[ignore = "needs qemu-img"]
fn backing_files_in_each_format_and_option() {
    let images = Images::new();
    images.raw("b.raw");
    for format in ["qcow2", "vpc", "vdi", "vhdx", "parallels", "vmdk"] {
        images.create(format, &format!("b.{format}"), &[]);
    }
    for (number, options) in [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=1k",
        "cluster_size=4k",
        "cluster_size=2M",
        "extended_l2=on",
        "data_file=DATA",
        "cluster_size=512,data_file=DATA",
    ]
    .iter()
    .enumerate()
    {
        for below in ["raw", "qcow2", "vpc", "vdi", "vhdx", "parallels", "vmdk"] {
            let name = format!("{number}-{below}.qcow2");
            // The data file is made in the working directory unless its path is absolute.
            let options = options.replace("DATA", &images.path(&format!("{name}.data")));
            images.create("qcow2", &name, &["-o", &options, "-b", &format!("b.{below}"), "-F", below]);
            images.same("qcow2", &name, 0);
        }
    }
    for (options, name) in [("data_file=DATA,data_file_raw=on", "raw"), ("data_file=DATA", "plain")] {
        let options = options.replace("DATA", &images.path(&format!("{name}.data")));
        images.create("qcow2", name, &["-o", &options]);
        images.same("qcow2", name, 0);
        assert_eq!(images.chain("qcow2", name).unwrap().layers.len(), 1);
    }
    images.create("qed", "t.qed", &["-b", "b.raw", "-F", "raw"]);
    images.same("qed", "t.qed", 0);
    images.create("qed", "t2.qed", &["-b", "b.qcow2", "-F", "qcow2"]);
    images.same("qed", "t2.qed", 0);
    // qcow cannot say the format: a note, whatever it was made with.
    images.create("qcow", "t.qcow", &["-b", "b.raw", "-F", "raw"]);
    images.same("qcow", "t.qcow", 1);
    // The other ways to write the name of a file.
    for (number, name) in [
        images.path("b.raw"),
        format!("file:{}", images.path("b.raw")),
        format!("file://{}", images.path("b.raw")),
        format!(
            "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}",
            images.path("b.raw")
        ),
        format!("json:{{\"file.driver\":\"file\",\"file.filename\":\"{}\"}}", images.path("b.raw")),
        format!("{}b.raw", "./".repeat(509)),
    ]
    .iter()
    .enumerate()
    {
        let top = format!("name-{number}.qcow2");
        images.create("qcow2", &top, &["-b", name, "-F", "raw"]);
        images.same("qcow2", &top, 0);
    }
    let too_long = format!("{}b.raw", "./".repeat(510));
    let top = images.path("too-long.qcow2");
    assert!(run(&["create", "-q", "-f", "qcow2", "-u", "-b", &too_long, "-F", "raw", &top, "1M"]).is_err());
}

#[test]
#[ignore = "needs qemu-img"]
fn vmdk_extents() {
    let images = Images::new();
    for subformat in ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"] {
        let name = format!("{subformat}.vmdk");
        let options = format!("subformat={subformat}");
        qemu_img(&["create", "-q", "-f", "vmdk", "-o", &options, &images.path(&name), "5G"]);
        images.same("vmdk", &name, 0);
        let extents = if subformat == "monolithicFlat" { 1 } else { 3 };
        assert_eq!(images.chain("vmdk", &name).unwrap().layers.len(), extents);
    }
}

#[test]
#[ignore = "needs qemu-img"]
fn chains_of_four_with_relative_names_and_linked_directories() {
    let images = Images::new();
    for dir in ["a", "b", "a/c"] {
        std::fs::create_dir(images.path(dir)).unwrap();
    }
    symlink("a", images.path("link")).unwrap();
    symlink(images.path("b"), images.path("a/c/absolute")).unwrap();

    images.raw("b/base.raw");
    images.create("qcow2", "b/one.qcow2", &["-b", "base.raw", "-F", "raw"]);
    images.create("qed", "a/two.qed", &["-b", "../b/one.qcow2", "-F", "qcow2"]);
    images.create("qcow2", "a/c/three.qcow2", &["-b", "../two.qed", "-F", "qed"]);
    images.create("qcow2", "top.qcow2", &["-b", "link/c/three.qcow2", "-F", "qcow2"]);
    for (name, depth) in [("top.qcow2", 4), ("a/c/three.qcow2", 3), ("link/c/three.qcow2", 3)] {
        images.same("qcow2", name, 0);
        assert_eq!(images.chain("qcow2", name).unwrap().layers.len(), depth);
    }

    images.create("vmdk", "b/base.vmdk", &["-o", "subformat=monolithicSparse"]);
    images.create("vmdk", "b/one.vmdk", &["-b", "base.vmdk", "-F", "vmdk"]);
    let sparse = ["-o", "subformat=twoGbMaxExtentSparse", "-b", "../b/one.vmdk", "-F", "vmdk"];
    images.create("vmdk", "a/two.vmdk", &sparse);
    images.create("vmdk", "a/c/three.vmdk", &["-b", "../two.vmdk", "-F", "vmdk"]);
    images.create("qcow2", "vmdk-top.qcow2", &["-b", "a/c/three.vmdk", "-F", "vmdk"]);
    images.same("vmdk", "a/c/three.vmdk", 0);
    images.same("qcow2", "vmdk-top.qcow2", 0);

    let data = images.path("b/data");
    images.create(
        "qcow2",
        "b/with-data.qcow2",
        &["-o", &format!("data_file={data}"), "-b", "base.raw", "-F", "raw"],
    );
    images.create("qcow2", "over.qcow2", &["-b", "a/c/absolute/with-data.qcow2", "-F", "qcow2"]);
    images.same("qcow2", "over.qcow2", 0);

    // A top that is a link: the relative name lies beside the link, where there is nothing.
    symlink(images.path("b/one.qcow2"), images.path("moved.qcow2")).unwrap();
    let chain = images.chain("qcow2", "moved.qcow2").unwrap();
    assert_eq!(ours(&chain), [(1, LayerKind::Backing, images.path("base.raw"))]);
    assert_eq!(chain.notes.len(), 1);
    assert!(run(&["info", "--backing-chain", &images.path("moved.qcow2")]).unwrap_err().contains("base.raw"));
}

#[test]
#[ignore = "needs qemu-img"]
fn undeclared_formats_stop_here_and_not_there() {
    let images = Images::new();
    images.raw("secret");
    images.create("qcow2", "b.qcow2", &["-b", "secret", "-F", "raw"]);
    images.create("qcow2", "t.qcow2", &["-b", "b.qcow2", "-F", "qcow2"]);
    images.same("qcow2", "t.qcow2", 0);
    // The extension with the format becomes one that nobody knows.
    let mut bytes = std::fs::read(images.path("t.qcow2")).unwrap();
    let format = [0xe2, 0x79, 0x2a, 0xca];
    let at = bytes.windows(4).position(|window| window == format).unwrap();
    bytes[at..at + 4].copy_from_slice(&[0x12; 4]);
    std::fs::write(images.path("t.qcow2"), bytes).unwrap();
    let chain = images.chain("qcow2", "t.qcow2").unwrap();
    assert_eq!(ours(&chain), [(1, LayerKind::Backing, images.path("b.qcow2"))]);
    assert!(matches!(chain.notes[0].problem, Problem::FormatAbsent { found: Format::Qcow2 }));
    assert!(theirs(&images.path("t.qcow2")).iter().any(|(_, _, path)| *path == images.path("secret")));
}

#[test]
#[ignore = "needs qemu-img"]
fn a_loop_is_refused_by_both() {
    let images = Images::new();
    images.create("qcow2", "a", &[]);
    images.create("qcow2", "b", &["-b", "a", "-F", "qcow2"]);
    qemu_img(&["rebase", "-u", "-f", "qcow2", "-b", "b", "-F", "qcow2", &images.path("a")]);
    assert!(matches!(images.chain("qcow2", "a"), Err(ChainError::Loop { depth: 2, .. })));
    assert!(run(&["info", "--backing-chain", &images.path("a")]).is_err());
}

#[test]
#[ignore = "needs qemu-img"]
fn names_over_a_network_give_their_sockets() {
    let images = Images::new();
    let socket = images.path("x.sock");
    // Nobody listens, so that QEMU says where it tried to connect.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    for (number, name) in [
        format!("nbd:unix:{socket}:exportname=e"),
        format!("nbd+unix:///e?socket={socket}"),
        format!(r#"json:{{"driver":"nbd","server":{{"type":"unix","path":"{socket}"}}}}"#),
        format!(r#"json:{{"driver":"raw","file":{{"driver":"nbd","server.type":"unix","server.path":"{socket}"}}}}"#),
    ]
    .iter()
    .enumerate()
    {
        let top = format!("{number}.qcow2");
        images.create("qcow2", &top, &["-u", "-b", name, "-F", "raw"]);
        let chain = images.chain("qcow2", &top).unwrap();
        assert_eq!(ours(&chain), [(1, LayerKind::Socket, socket.clone())], "{name}");
        assert!(chain.notes.is_empty());
        // QEMU tries that very socket.
        let error = run(&["info", "--backing-chain", &images.path(&top)]).unwrap_err();
        assert!(error.contains(&socket), "{name}: {error}");
    }
}
