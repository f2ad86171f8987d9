use std::cell::RefCell;
use std::collections::BTreeMap;

use super::super::ReadAt;
use super::super::files::{FileInfo, FileKind};
use super::super::tests::{qcow2, qed, vmdk_descriptor};
use super::*;

/// Files in memory; which were opened is recorded.
#[derive(Default)]
struct Fake {
    files: BTreeMap<String, Result<Vec<u8>, OpenError>>,
    links: BTreeMap<String, String>,
    sockets: Vec<String>,
    opened: RefCell<Vec<String>>,
}

impl Fake {
    fn with(mut self, path: &str, bytes: Vec<u8>) -> Self {
        self.files.insert(path.to_owned(), Ok(bytes));
        self
    }

    fn fails(mut self, path: &str, error: OpenError) -> Self {
        self.files.insert(path.to_owned(), Err(error));
        self
    }

    fn link(mut self, path: &str, to: &str) -> Self {
        self.links.insert(path.to_owned(), to.to_owned());
        self
    }

    fn socket(mut self, path: &str) -> Self {
        self.sockets.push(path.to_owned());
        self
    }

    fn target<'a>(&'a self, path: &'a str) -> &'a str {
        self.links.get(path).map_or(path, String::as_str)
    }

    fn walk(&self, path: &str, format: Format) -> Result<Chain, ChainError> {
        let top = TopImage { path, format: Some(format), readonly: false, said: Said::default() };
        walk(self, &|named: Named<'_>| Ok(self.target(named.path).to_owned()), top, LIMIT)
    }
}

impl ImageHost for Fake {
    fn stat(&self, path: &str) -> Result<FileInfo, OpenError> {
        assert!(!self.links.contains_key(path), "{path} is asked for by the name of a link");
        let place = self.files.keys().position(|known| known == path).ok_or(OpenError::Missing)?;
        match &self.files[path] {
            Err(error) if *error != OpenError::Denied => Err(error.clone()),
            _ => Ok(FileInfo { kind: FileKind::Regular, identity: Identity::Inode(1, place as u64) }),
        }
    }

    fn open(&self, path: &str) -> Result<Box<dyn ReadAt>, OpenError> {
        assert!(!self.links.contains_key(path), "{path} is opened by the name of a link");
        self.opened.borrow_mut().push(path.to_owned());
        let bytes = self.files.get(path).ok_or(OpenError::Missing)?.clone()?;
        Ok(Box::new(bytes))
    }

    fn find_socket(&self, path: &str) -> Result<(), OpenError> {
        assert!(!self.links.contains_key(path), "{path} is asked for by the name of a link");
        match (self.sockets.iter().any(|socket| socket == path), self.files.contains_key(path)) {
            (true, _) => Ok(()),
            (false, true) => Err(OpenError::NotASocket),
            (false, false) => Err(OpenError::Missing),
        }
    }
}

/// Permits every path, and none is a link.
#[expect(clippy::unnecessary_wraps, reason = "it is a `Permit`")]
fn all(named: Named<'_>) -> Result<String, String> {
    Ok(named.path.to_owned())
}

fn listed(chain: &Chain) -> Vec<(u32, LayerKind, &str, String)> {
    chain
        .layers
        .iter()
        .map(|layer| (layer.depth, layer.kind, layer.path.as_str(), layer.access.to_string()))
        .collect()
}

fn problems(chain: &Chain) -> Vec<(u32, &str, &Problem)> {
    chain.notes.iter().map(|note| (note.depth, note.path.as_str(), &note.problem)).collect()
}

#[test]
fn a_raw_image_is_never_opened() {
    // The guest has written a qcow2 header that names a secret.
    let host = Fake::default().with("/d", qcow2(3, Some(("/etc/shadow", Some("raw"))), None));
    for format in [None, Some(Format::Raw), Some(Format::Luks)] {
        let top = TopImage { path: "/d", format, readonly: false, said: Said::default() };
        assert_eq!(walk(&host, &all, top, LIMIT), Ok(Chain::default()));
    }
    assert!(host.opened.borrow().is_empty());
    // Nor is it as a backing file, declared or taken for raw.
    for (declared, notes) in [("raw", 0), ("host_device", 1)] {
        let host = Fake::default()
            .with("/d", qcow2(3, Some(("/etc/shadow", Some("raw"))), None))
            .with("/t", qcow2(3, Some(("d", Some(declared))), None));
        let chain = host.walk("/t", Format::Qcow2).unwrap();
        assert_eq!(listed(&chain), [(1, LayerKind::Backing, "/d", "rk".to_owned())]);
        assert_eq!(chain.notes.len(), notes, "{declared}");
        assert_eq!(*host.opened.borrow(), ["/t"]);
    }
}

#[test]
fn what_an_undeclared_image_names_is_not_granted() {
    for bytes in [
        qcow2(3, Some(("/etc/shadow", Some("raw"))), None),
        qcow2(3, None, Some("/etc/shadow")),
        qed(Some(("/etc/shadow", true))),
        qcow2(3, None, None),
    ] {
        let host = Fake::default().with("/d", bytes).with("/t", qcow2(3, Some(("d", None)), None));
        let chain = host.walk("/t", Format::Qcow2).unwrap();
        assert_eq!(listed(&chain), [(1, LayerKind::Backing, "/d", "rk".to_owned())]);
        assert!(matches!(problems(&chain)[..], [(1, "/d", Problem::FormatAbsent { .. })]));
    }
    // The twin: with the format declared they are.
    let host = Fake::default()
        .with("/d", qcow2(3, Some(("/b", Some("raw"))), None))
        .with("/b", Vec::new())
        .with("/t", qcow2(3, Some(("d", Some("qcow2"))), None));
    let chain = host.walk("/t", Format::Qcow2).unwrap();
    assert_eq!(listed(&chain).last(), Some(&(2, LayerKind::Backing, "/b", "rk".to_owned())));
    assert!(chain.notes.is_empty());
}

#[test]
fn qed_says_that_its_backing_file_is_not_raw() {
    let below = qcow2(2, Some(("/b", Some("raw"))), None);
    for (raw, depth) in [(false, 2), (true, 1)] {
        let host = Fake::default()
            .with("/t", qed(Some(("/m", raw))))
            .with("/m", below.clone())
            .with("/b", Vec::new());
        let chain = host.walk("/t", Format::Qed).unwrap();
        assert_eq!(chain.layers.last().map(|layer| layer.depth), Some(depth));
        assert!(chain.notes.is_empty());
    }
}

#[test]
fn data_files_and_extents_follow_the_top() {
    let host = Fake::default()
        .with("/v/t", qcow2(3, Some(("m", Some("qcow2"))), Some("t.data")))
        .with("/v/m", qcow2(3, None, Some("m.data")))
        .with("/v/t.data", Vec::new())
        .with("/v/m.data", Vec::new());
    for (readonly, access) in [(false, "rwk"), (true, "rk")] {
        let top = TopImage { path: "/v/t", format: Some(Format::Qcow2), readonly, said: Said::default() };
        let chain = walk(&host, &all, top, LIMIT).unwrap();
        assert_eq!(
            listed(&chain),
            [
                (0, LayerKind::DataFile, "/v/t.data", access.to_owned()),
                (1, LayerKind::Backing, "/v/m", "rk".to_owned()),
                (1, LayerKind::DataFile, "/v/m.data", "rk".to_owned()),
            ]
        );
        assert!(chain.notes.is_empty());
    }
    let host = Fake::default()
        .with("/v/t", vmdk_descriptor(Some("p"), &["t-f1", "/x/t-f2"]))
        .with("/v/p", vmdk_descriptor(None, &["p-f1"]));
    let chain = host.walk("/v/t", Format::Vmdk).unwrap();
    let paths: Vec<&str> = chain.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, ["/v/t-f1", "/x/t-f2", "/v/p", "/v/p-f1"]);
    assert_eq!(chain.notes.len(), 3, "the extents are missing, and listed all the same");
}

#[test]
fn what_cannot_be_opened_is_listed_and_what_is_no_image_is_not() {
    for (error, kept) in [
        (OpenError::Missing, true),
        (OpenError::Denied, true),
        (OpenError::Host("x".to_owned()), true),
        (OpenError::Directory, false),
        (OpenError::NotAnImage, false),
    ] {
        let top = qcow2(3, Some(("/b", Some("qcow2"))), None);
        let host = Fake::default().with("/t", top).fails("/b", error.clone());
        let chain = host.walk("/t", Format::Qcow2).unwrap();
        assert_eq!(!chain.layers.is_empty(), kept, "{error}");
        assert_eq!(problems(&chain), [(1, "/b", &Problem::Open(error))]);
    }
    // The top is not listed, but named.
    let chain = Fake::default().walk("/t", Format::Qcow2).unwrap();
    assert_eq!(problems(&chain), [(0, "/t", &Problem::Open(OpenError::Missing))]);
    assert_eq!(chain.notes[0].kind(), NoteKind::MissingFile);
    assert_eq!(chain.notes[0].to_string(), "image layer 0 \"/t\": does not exist");
}

#[test]
fn a_declared_format_is_checked() {
    let host = Fake::default().with("/t", qed(None));
    let chain = host.walk("/t", Format::Qcow2).unwrap();
    let wanted = Problem::Header(HeaderError::Magic { declared: Format::Qcow2, found: Some(Format::Qed) });
    assert_eq!(problems(&chain), [(0, "/t", &wanted)]);
}

#[test]
fn a_refused_path_is_neither_opened_nor_listed() {
    let host = Fake::default()
        .with("/t", qcow2(3, Some(("/etc/shadow", Some("qcow2"))), Some("/etc/key")))
        .with("/etc/shadow", qcow2(3, Some(("/b", Some("raw"))), None));
    let permit = |named: Named<'_>| {
        if named.path.starts_with("/etc/") { Err("restricted".to_owned()) } else { all(named) }
    };
    let top = TopImage { path: "/t", format: Some(Format::Qcow2), readonly: false, said: Said::default() };
    let chain = walk(&host, &permit, top, LIMIT).unwrap();
    assert!(chain.layers.is_empty());
    assert!(chain.notes.iter().all(|note| matches!(note.problem, Problem::Refused(_))));
    assert_eq!(chain.notes.len(), 2);
    assert_eq!(*host.opened.borrow(), ["/t"]);
}

/// Who judges a path is told what it would be, how much is asked for, and where it is named.
#[test]
fn what_is_asked_for_comes_with_who_names_it() {
    let json = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/b"},"data-file":
        {"driver":"file","filename":"/bd"},"backing":{"driver":"file","filename":"/c"}}"#;
    let host = Fake::default()
        .with("/t", qcow2(3, Some((json, None)), Some("/td")))
        .with("/b", qcow2(3, Some(("/no", Some("raw"))), Some("/nod")))
        .with("/c", Vec::new());
    let asked = RefCell::new(Vec::new());
    let permit = |named: Named<'_>| {
        let Named { path, kind, access, by } = named;
        asked.borrow_mut().push((path.to_owned(), kind, access.to_string(), by.to_owned()));
        all(named)
    };
    let top = TopImage { path: "/t", format: Some(Format::Qcow2), readonly: false, said: Said::default() };
    walk(&host, &permit, top, LIMIT).unwrap();
    let expected = [
        ("/t", None, "rk", ""),
        ("/td", Some(LayerKind::DataFile), "rwk", "/t"),
        ("/b", Some(LayerKind::Backing), "rk", "/t"),
        ("/bd", Some(LayerKind::DataFile), "rk", "/t"),
        ("/c", Some(LayerKind::Backing), "rk", "/t"),
    ];
    let expected =
        expected.map(|(path, kind, access, by)| (path.to_owned(), kind, access.to_owned(), by.to_owned()));
    assert_eq!(*asked.borrow(), expected);
}

#[test]
fn loops_are_found_whatever_the_names() {
    let a = qcow2(3, Some(("b", Some("qcow2"))), None);
    let b = qcow2(3, Some(("./x/../link", Some("qcow2"))), None);
    let host = Fake::default().with("/v/a", a.clone()).with("/v/b", b).link("/v/./x/../link", "/v/a");
    let looped = ChainError::Loop { path: "/v/./x/../link".to_owned(), depth: 2 };
    assert_eq!(host.walk("/v/a", Format::Qcow2), Err(looped));
    let own = Fake::default().with("/v/b", a);
    assert!(matches!(own.walk("/v/b", Format::Qcow2), Err(ChainError::Loop { depth: 1, .. })));
}

#[test]
fn two_hundred_images_and_no_more() {
    let chain_of = |images: usize| {
        (1..images).fold(Fake::default().with("/i0", qcow2(3, None, None)), |host, number| {
            let below = format!("i{}", number - 1);
            host.with(&format!("/i{number}"), qcow2(3, Some((&below, Some("qcow2"))), None))
        })
    };
    let longest = chain_of(200).walk("/i199", Format::Qcow2).unwrap();
    assert_eq!(longest.layers.len(), 199);
    for images in [201, 10_000] {
        let host = chain_of(images);
        let top = format!("/i{}", images - 1);
        assert_eq!(host.walk(&top, Format::Qcow2), Err(ChainError::TooDeep));
        assert!(host.opened.borrow().len() <= 200);
    }
}

#[test]
fn too_many_files_are_an_error() {
    let names: Vec<String> = (0..4000).map(|number| format!("e{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let host = (0..5).fold(Fake::default(), |host, number| {
        let parent = format!("v{}", number + 1);
        host.with(&format!("/v{number}"), vmdk_descriptor(Some(&parent), &names))
    });
    assert_eq!(host.walk("/v0", Format::Vmdk), Err(ChainError::TooManyFiles));

    // Names that are not understood count too.
    let names: Vec<String> = (0..4000).map(|number| format!("no:{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let host = (0..6).fold(Fake::default(), |host, number| {
        let parent = format!("v{}", number + 1);
        host.with(&format!("/v{number}"), vmdk_descriptor(Some(&parent), &names))
    });
    assert_eq!(host.walk("/v0", Format::Vmdk), Err(ChainError::TooManyFiles));
    // And those of all disks together.
    let one = Fake::default().with("/v", vmdk_descriptor(None, &names)).walk("/v", Format::Vmdk).unwrap();
    assert_eq!(one.notes.len(), 4000);
    let mut total = Total::default();
    assert_eq!([(); 5].map(|()| total.add(&one).is_ok()), [true, true, true, true, false]);
    let long = Chain { read: MAX_READ, ..Chain::default() };
    let mut total = Total::default();
    assert_eq!([(); 2].map(|()| total.add(&long)), [Ok(()), Err(ChainError::TooMuch)]);
}

#[test]
fn json_names_override_headers() {
    let host = Fake::default()
        .with(
            "/t",
            qcow2(
                3,
                Some((r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/m"}}"#, None)),
                None,
            ),
        )
        .with(
            "/m",
            qcow2(
                3,
                Some((
                    r#"json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"/n"}}"#,
                    None,
                )),
                None,
            ),
        )
        .with("/n", qcow2(3, Some(("/never", Some("raw"))), None));
    let chain = host.walk("/t", Format::Qcow2).unwrap();
    let paths: Vec<&str> = chain.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, ["/m", "/n"]);
    assert!(chain.notes.is_empty());

    let below = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/m"},"backing":
        {"driver":"raw","file":{"driver":"nbd","server":{"type":"unix","path":"/run/s"}}},
        "data-file":{"driver":"file","filename":"/data"}}"#;
    let host = Fake::default()
        .with("/t", qcow2(3, Some((below, None)), None))
        .with("/m", qcow2(3, Some(("/never", Some("raw"))), Some("/nor")))
        .with("/data", Vec::new())
        .socket("/run/s");
    let chain = host.walk("/t", Format::Qcow2).unwrap();
    assert_eq!(
        listed(&chain),
        [
            (1, LayerKind::Backing, "/m", "rk".to_owned()),
            (1, LayerKind::DataFile, "/data", "rk".to_owned()),
            (2, LayerKind::Socket, "/run/s", "rw".to_owned()),
        ]
    );
    assert_eq!(chain.protocols, ["nbd"]);
    assert!(chain.notes.is_empty());
}

/// To connect to a socket is to write to its path: a file that a header calls one would be the guest's to write.
#[test]
fn what_a_header_calls_a_socket_is_one_or_gets_no_rule() {
    let json = r#"json:{"driver":"raw","file":{"driver":"nbd","server":{"type":"unix","path":"/s"}}}"#;
    for name in ["nbd:unix:/s", "nbd+unix:///e?socket=/s", json] {
        for (image, kind, depth) in [
            (qcow2(3, Some((name, Some("raw"))), None), Format::Qcow2, 1),
            (qcow2(3, None, Some(name)), Format::Qcow2, 0),
            (vmdk_descriptor(None, &["nbd:unix:/s"]), Format::Vmdk, 0),
        ] {
            let host = Fake::default().with("/t", image);
            let missing = host.walk("/t", kind).unwrap();
            assert!(missing.layers.is_empty(), "{name}");
            assert_eq!(problems(&missing), [(depth, "/s", &Problem::Socket(OpenError::Missing))]);

            let host = host.with("/s", Vec::new());
            let file = host.walk("/t", kind).unwrap();
            assert!(file.layers.is_empty(), "{name}");
            assert_eq!(problems(&file), [(depth, "/s", &Problem::Socket(OpenError::NotASocket))]);
            assert_eq!(file.notes[0].kind(), NoteKind::NotCovered);

            let socket = host.link("/s", "/run/s").socket("/run/s").walk("/t", kind).unwrap();
            assert_eq!(listed(&socket), [(depth, LayerKind::Socket, "/s", "rw".to_owned())]);
            assert!(socket.notes.is_empty());
        }
    }
}

/// A directory is all that is below it: more than one name in a header may open.
#[test]
fn no_header_opens_a_directory() {
    let nested = r#"json:{"driver":"raw","file":{"driver":"vvfat","dir":"/d"}}"#;
    let below = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/m"},"backing":
        {"driver":"vvfat","dir":"/d"}}"#;
    for (name, depth) in [
        ("fat:/d", 1),
        ("fat:rw:/d", 1),
        (r#"json:{"driver":"vvfat","dir":"/d"}"#, 1),
        (nested, 1),
        (below, 2),
    ] {
        let host = Fake::default()
            .with("/t", qcow2(3, Some((name, Some("raw"))), None))
            .with("/m", qcow2(3, None, None))
            .fails("/d", OpenError::Directory);
        let chain = host.walk("/t", Format::Qcow2).unwrap();
        assert!(chain.layers.iter().all(|layer| layer.path == "/m"), "{name}: {chain:?}");
        assert_eq!(problems(&chain), [(depth, "/d", &Problem::Directory)], "{name}");
        assert_eq!(chain.notes[0].kind(), NoteKind::NotCovered);
    }
    // Nor as a data file or an extent, and one that is restricted is refused as any path.
    for (image, kind) in
        [(qcow2(3, None, Some("fat:/d")), Format::Qcow2), (vmdk_descriptor(None, &["fat:/d"]), Format::Vmdk)]
    {
        let host = Fake::default().with("/t", image);
        let chain = host.walk("/t", kind).unwrap();
        assert!(chain.layers.is_empty());
        assert_eq!(problems(&chain), [(0, "/d", &Problem::Directory)]);
        let top = TopImage { path: "/t", format: Some(kind), readonly: false, said: Said::default() };
        let permit =
            |named: Named<'_>| if named.path == "/d" { Err("restricted".to_owned()) } else { all(named) };
        let refused = walk(&host, &permit, top, LIMIT).unwrap();
        assert!(matches!(problems(&refused)[..], [(0, "/d", Problem::Refused(_))]));
    }
}

#[test]
fn what_is_not_followed_is_noted() {
    for (name, format, kind) in [
        ("nbd+unix:///e?socket=/s", Some("qcow2"), NoteKind::ChainEnds),
        ("made-up:x", Some("raw"), NoteKind::ChainEnds),
        (
            r#"json:{"driver":"raw","offset":1,"file":{"driver":"file","filename":"/e"}}"#,
            None,
            NoteKind::ChainEnds,
        ),
        ("nvme://0000:01:00.0/1", Some("raw"), NoteKind::NotCovered),
    ] {
        let host = Fake::default()
            .with("/t", qcow2(3, Some((name, format)), None))
            .with("/e", Vec::new())
            .socket("/s");
        let chain = host.walk("/t", Format::Qcow2).unwrap();
        assert_eq!(chain.notes.iter().map(ChainNote::kind).collect::<Vec<_>>(), [kind], "{name}");
    }
    let host = Fake::default().with("/t", qcow2(3, Some(("nbd:unix:/s", Some("raw"))), None)).socket("/s");
    assert!(host.walk("/t", Format::Qcow2).unwrap().notes.is_empty());
}
