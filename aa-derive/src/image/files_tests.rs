use std::os::unix::fs::symlink;

use nix::unistd::mkfifo;

use super::*;

#[test]
fn links_stay_below_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("srv")).unwrap();
    fs::write(at("srv/image"), b"0123456789").unwrap();
    symlink("/srv/image", at("srv/absolute")).unwrap();
    symlink("../../../../srv/image", at("srv/above")).unwrap();
    symlink("/etc/passwd", at("srv/outside")).unwrap();
    let files = Files::new(dir.path()).unwrap();
    let whole = files.stat("/srv/image").unwrap();
    for path in ["/srv/image", "/srv/absolute", "/srv/above", "/srv/../srv/./image"] {
        assert_eq!(files.stat(path), Ok(whole));
        let image = files.open(path).unwrap();
        assert_eq!(image.size(), 10);
        assert_eq!(image.read_at(8, 100).unwrap(), b"89");
        assert_eq!(image.read_at(u64::MAX, 100).unwrap(), b"");
    }
    assert_eq!(files.stat("/srv/outside"), Err(OpenError::Missing));
    assert_eq!(files.stat("/srv/image/x"), Err(OpenError::Missing));
    assert!(matches!(files.stat("/a\0b"), Err(OpenError::Nul(_))));
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
