use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

#[test]
fn no_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let at = |name: &str| real.join(name);
    fs::create_dir(at("srv")).unwrap();
    fs::write(at("srv/image"), b"0123456789").unwrap();
    symlink("/srv/image", at("srv/absolute")).unwrap();
    symlink("image", at("srv/relative")).unwrap();
    symlink("/etc/passwd", at("srv/outside")).unwrap();
    symlink("srv", at("linked")).unwrap();
    for (files, below) in
        [(Files::new(&real).unwrap(), ""), (Files::new("/").unwrap(), real.to_str().unwrap())]
    {
        let path = |name: &str| format!("{below}{name}");
        let whole = files.stat(&path("/srv/image")).unwrap();
        for name in ["/srv/image", "/srv/../srv/./image"] {
            assert_eq!(files.stat(&path(name)), Ok(whole));
            let image = files.open(&path(name)).unwrap();
            assert_eq!(image.size(), 10);
            assert_eq!(image.read_at(8, 100).unwrap(), b"89");
            assert_eq!(image.read_at(u64::MAX, 100).unwrap(), b"");
        }
        // Whoever judged a path followed its links: these were put there since.
        for name in ["/srv/absolute", "/srv/relative", "/srv/outside", "/linked/image"] {
            assert!(matches!(files.stat(&path(name)), Err(OpenError::Host(_))), "{name}");
            assert!(matches!(files.open(&path(name)), Err(OpenError::Host(_))), "{name}");
        }
        assert_eq!(files.stat(&path("/srv/none")), Err(OpenError::Missing));
        assert_eq!(files.stat(&path("/srv/image/x")), Err(OpenError::Missing));
        assert!(matches!(files.stat(&path("/a\0b")), Err(OpenError::Nul(_))));
    }
    assert!(Files::new(&real).unwrap().stat("/../../srv/image").is_ok(), "above the root is the root");
}

/// Without openat2(2) the same files are opened, and the same are not.
#[test]
fn going_component_by_component_leads_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    fs::create_dir(real.join("srv")).unwrap();
    fs::write(real.join("srv/image"), b"0123456789").unwrap();
    symlink("image", real.join("srv/link")).unwrap();
    symlink("srv", real.join("linked")).unwrap();
    symlink("/", real.join("root")).unwrap();
    for (files, below) in
        [(Files::new(&real).unwrap(), ""), (Files::new("/").unwrap(), real.to_str().unwrap())]
    {
        let inode = |file: Result<File, OpenError>| file.map(|file| file.metadata().unwrap().ino());
        for flags in [OFlag::O_PATH, OFlag::O_RDONLY | OFlag::O_NONBLOCK] {
            for path in [
                "/srv/image",
                "/srv//./image",
                "/srv",
                "/srv/",
                "/",
                "/none",
                "/srv/none/x",
                "/srv/image/x",
                "/srv/link",
                "/linked",
                "/linked/image",
                "/root/srv/image",
            ] {
                let path = format!("{below}{path}");
                let walked = files.walk(&path, flags | OFlag::O_CLOEXEC);
                let walked = walked.map(File::from).map_err(OpenError::from);
                assert_eq!(inode(walked), inode(files.open_with(&path, flags)), "{path} {flags:?}");
            }
            let up = files.walk(&format!("{below}/srv/../srv/image"), flags | OFlag::O_CLOEXEC);
            assert_eq!(up.err(), Some(Errno::ELOOP));
        }
    }
}

#[test]
fn what_is_no_image_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let files = Files::new("/").unwrap();
    // Opening the FIFO for reading would wait for ever.
    for (path, wanted) in [
        (fifo.to_str().unwrap(), OpenError::NotAnImage),
        (socket.to_str().unwrap(), OpenError::NotAnImage),
        ("/dev/null", OpenError::NotAnImage),
        ("/dev/tty", OpenError::NotAnImage),
        ("/", OpenError::Directory),
    ] {
        assert_eq!(files.stat(path), Err(wanted.clone()), "{path}");
        assert_eq!(files.open(path).err(), Some(wanted), "{path}");
    }
}

#[test]
fn a_socket_is_told_from_all_else() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    fs::write(real.join("file"), "").unwrap();
    mkfifo(&real.join("fifo"), Mode::S_IRUSR).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(real.join("socket")).unwrap();
    symlink("socket", real.join("link")).unwrap();
    for (files, below) in
        [(Files::new(&real).unwrap(), ""), (Files::new("/").unwrap(), real.to_str().unwrap())]
    {
        let find = |name: &str| files.find_socket(&format!("{below}/{name}"));
        assert_eq!(find("socket"), Ok(()));
        assert_eq!(find("file"), Err(OpenError::NotASocket));
        assert_eq!(find("fifo"), Err(OpenError::NotASocket));
        assert_eq!(find("none"), Err(OpenError::Missing));
        assert!(matches!(find("link"), Err(OpenError::Host(_))));
    }
    assert_eq!(Files::new("/").unwrap().find_socket("/dev/null"), Err(OpenError::NotASocket));
}

#[test]
fn only_a_path_without_links_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // The way to the directory itself must have none.
    let real = dir.path().canonicalize().unwrap();
    fs::create_dir(real.join("srv")).unwrap();
    fs::write(real.join("srv/image"), "").unwrap();
    symlink("image", real.join("srv/link")).unwrap();
    symlink("srv", real.join("linked")).unwrap();
    for (files, below) in
        [(Files::new(&real).unwrap(), ""), (Files::new("/").unwrap(), real.to_str().unwrap())]
    {
        let at_end_of = |path: &str| files.at_end_of(&format!("{below}{path}"));
        assert!(at_end_of("/srv/image").is_some_and(|file_type| file_type.is_file()));
        assert!(at_end_of("/srv").is_some_and(|file_type| file_type.is_dir()));
        for path in ["/srv/link", "/linked/image", "/linked", "/srv/none", "/srv/image/x"] {
            assert_eq!(at_end_of(path), None, "{path}");
        }
    }
}
