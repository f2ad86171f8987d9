use super::*;

const PARENT: &str = "/srv/vm/top.qcow2";

fn source(text: &str) -> Result<Source, NameError> {
    parse(text, PARENT).map(|node| node.source)
}

fn path(text: &str) -> Source {
    Source::File(text.to_owned())
}

fn fat(path: &str, is_written: bool) -> Source {
    Source::Directory { path: path.to_owned(), is_written }
}

fn remote(protocol: &'static str, sockets: &[&str], configs: &[&str]) -> Source {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Source::Remote(Remote { protocol, sockets: own(sockets), configs: own(configs) })
}

#[test]
fn file_names_lie_beside_the_parent_as_named() {
    for (text, wanted) in [
        ("/a/b", "/a/b"),
        ("b.qcow2", "/srv/vm/b.qcow2"),
        ("../b", "/srv/vm/../b"),
        ("./a:b", "/srv/vm/./a:b"),
        ("dir/a:b", "/srv/vm/dir/a:b"),
        ("*", "/srv/vm/*"),
        ("file:/x", "/x"),
        ("file:///x%20y", "/x%20y"),
        ("host_device:/dev/sda", "/dev/sda"),
    ] {
        assert_eq!(source(text), Ok(path(wanted)), "{text}");
    }
}

#[test]
fn what_cannot_be_told_is_an_error() {
    for text in [
        "file:x",
        "file://localhost/x",
        "file://x/y",
        "fat:rel",
        "nbd:unix:rel",
        "nbd+unix:///e",
        "nbd+unix:///e?socket=rel",
        "nbd+unix:///e?socket=%zz",
        "nbd+unix:///e?socket=%2",
        "nbd+unix:///e?socket=%ff",
        "rbd:p/i:conf=rel",
        "blkdebug:x:y",
        "C:\\disk.img",
        "made-up://x",
        "json:",
        "json:[]",
        "json:{",
        "json:{}",
        r#"json:{"file":"node-name"}"#,
        r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/x"},"backing":"node-name"}"#,
        r#"json:{"driver":"file","filename":"rel"}"#,
        r#"json:{"driver":"file"}"#,
        r#"json:{"driver":1}"#,
        r#"json:{"driver":"quorum","children":[]}"#,
        r#"json:{"file":{"driver":"file","filename":"/a"},"file.filename":"/b"}"#,
        r#"json:{"driver":"qcow2","file":{"driver":"vmdk","file":{"driver":"file","filename":"/x"}}}"#,
        r#"json:{"driver":"nbd","server":{"type":"unix"}}"#,
    ] {
        assert!(source(text).is_err(), "{text}: {:?}", source(text));
    }
    assert_eq!(source(&"a".repeat(MAX_TEXT + 1)), Err(NameError::TooLong));
}

#[test]
fn deep_json_is_an_error() {
    let keys = vec!["a"; 17].join(".");
    assert!(source(&format!("json:{{\"{keys}\":1}}")).is_err());
    let nested = format!("json:{}{}", r#"{"driver":"raw","file":"#.repeat(100), "}".repeat(100));
    assert!(source(&nested).is_err());
    let filters = format!(
        "json:{}{}{}",
        r#"{"driver":"throttle","file":"#.repeat(40),
        r#"{"driver":"file","filename":"/x"}"#,
        "}".repeat(40)
    );
    assert!(source(&filters).is_err());
    assert!(source(&format!("json:{}", "{\"a\":".repeat(2000))).is_err());
}

#[test]
fn protocols_give_their_sockets_and_configuration() {
    for (text, wanted) in [
        ("nbd:unix:/run/x:y.sock:exportname=e", remote("nbd", &["/run/x:y.sock"], &[])),
        ("nbd:host:10809", remote("nbd", &[], &[])),
        ("nbd://host/e?socket=/x", remote("nbd", &[], &[])),
        ("nbd+unix:///e?socket=/run/a%20b", remote("nbd", &["/run/a b"], &[])),
        ("gluster+unix:///v/i?debug=1&socket=/run/g", remote("gluster", &["/run/g"], &[])),
        ("https://host/x:y", remote("https", &[], &[])),
        ("rbd:pool/image", remote("rbd", &[], &[])),
        (r"rbd:p/i@s:id=a:mon_host=h\:1:conf=/etc/c\:eph.conf", remote("rbd", &[], &["/etc/c:eph.conf"])),
        ("rbd:p/i:keyring=/etc/k", remote("rbd", &[], &["/etc/k"])),
        (
            r#"json:{"driver":"nbd","server.type":"unix","server.path":"/run/s"}"#,
            remote("nbd", &["/run/s"], &[]),
        ),
        (r#"json:{"driver":"nbd","server":{"type":"inet","host":"h","port":"1"}}"#, remote("nbd", &[], &[])),
        (
            r#"json:{"driver":"nbd","server":{"type":"unix","path":"x","abstract":true}}"#,
            remote("nbd", &[], &[]),
        ),
        (r#"json:{"file":{"driver":"nbd","path":"/run/s"}}"#, remote("nbd", &["/run/s"], &[])),
        (
            r#"json:{"file.driver":"gluster","file.server.0.type":"unix","file.server.0.socket":"/g",
               "file.server.1.type":"tcp"}"#,
            remote("gluster", &["/g"], &[]),
        ),
        (
            r#"json:{"driver":"gluster","server":[{"type":"unix","path":"/g"}]}"#,
            remote("gluster", &["/g"], &[]),
        ),
        (r#"json:{"driver":"rbd","pool":"p","image":"i","conf":"/c"}"#, remote("rbd", &[], &["/c"])),
        (r#"json:{"driver":"https","url":"https://h/x"}"#, remote("https", &[], &[])),
        (r#"json:{"driver":"nvme","device":"0000:01:00.0"}"#, Source::Nvme("0000:01:00.0".to_owned())),
        ("nvme://0000:01:00.0/1", Source::Nvme("0000:01:00.0".to_owned())),
        ("null-co://", Source::Null),
        ("fat:/srv/dir", fat("/srv/dir", false)),
        ("fat:rw:/srv/dir", fat("/srv/dir", true)),
        ("fat:floppy:32:rw:/srv/dir", fat("/srv/dir", true)),
        (r#"json:{"driver":"vvfat","dir":"/d"}"#, fat("/d", false)),
        (r#"json:{"driver":"vvfat","dir":"/d","rw":true}"#, fat("/d", true)),
        (r#"json:{"driver":"vvfat","dir":"/d","rw":"on"}"#, fat("/d", true)),
        (r#"json:{"driver":"vvfat","dir":"/d","rw":false}"#, fat("/d", false)),
    ] {
        assert_eq!(source(text), Ok(wanted), "{text}");
    }
}

#[test]
fn json_formats_nest_and_override() {
    let node =
        parse(r#"json:{"driver":"qcow2","file":{"driver":"host_device","filename":"/dev/x"}}"#, PARENT);
    let qcow2 = Node { format: Some(Format::Qcow2), ..Node::file("/dev/x") };
    assert_eq!(node, Ok(qcow2.clone()));

    let through = r#"json:{"driver":"raw","file":{"driver":"qcow2","file":{"driver":"throttle","file":
        {"driver":"host_device","filename":"/dev/x"}}}}"#;
    assert_eq!(parse(through, PARENT), Ok(qcow2.clone()));

    let ends = r#"json:{"file.filename":"/dev/x","file.driver":"file","driver":"qcow2","backing":null}"#;
    assert_eq!(parse(ends, PARENT), Ok(Node { backing: Override::Nothing, ..qcow2.clone() }));

    let whole = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/dev/x"},
        "data-file":{"driver":"file","filename":"/d"},
        "backing":{"driver":"raw","offset":0,"file":{"driver":"file","filename":"/b"}}}"#;
    let below = Node { format: Some(Format::Raw), ..Node::file("/b") };
    let wanted = Node {
        data_file: Override::Node(Box::new(Node::file("/d"))),
        backing: Override::Node(Box::new(below.clone())),
        ..qcow2
    };
    assert_eq!(parse(whole, PARENT), Ok(wanted));

    for slice in [r#""offset":512"#, r#""offset":"512""#] {
        let text = format!(r#"json:{{"driver":"raw",{slice},"file":{{"driver":"file","filename":"/b"}}}}"#);
        assert_eq!(parse(&text, PARENT), Ok(Node { sliced: true, ..below.clone() }));
    }
}
