//! The life of a guest's profile, and everything that goes wrong in it.

use std::fs;
use std::time::Duration;

use crate::tree::{NAME, Tree, guest, qcow2};

const A: &str = "\"/srv/a.img\" rwk,";

#[test]
fn create_replace_delete() {
    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    tree.call(&["-c"], &xml).unwrap();
    assert_eq!(tree.names(), [NAME.to_owned(), format!("{NAME}.files")]);
    assert!(tree.rules().contains(&A.to_owned()));
    assert!(tree.text("").unwrap().contains(&format!("profile {NAME} ")));
    let file = tree.file("").display().to_string();
    // Not -a: a crash may have left it in the kernel.
    assert_eq!(tree.parser_calls(), [format!("-r -K -j0 {file}")]);
    // What a person wrote into the base profile stays.
    let mine = format!("{}# mine\n", tree.text("").unwrap());
    fs::write(tree.file(""), &mine).unwrap();
    tree.call(&["-r"], &guest(1, &["/srv/b.img"])).unwrap();
    assert!(!tree.rules().contains(&A.to_owned()));
    assert_eq!(tree.text("").as_deref(), Some(mine.as_str()));
    assert_eq!(tree.parser_calls(), [format!("-r -K -j0 {file}")]);
    tree.call(&["-R"], "").unwrap();
    assert!(tree.text(".files").is_some());
    tree.call(&["-D"], "").unwrap();
    assert_eq!(tree.names(), [NAME]);
    assert_eq!(tree.parser_calls(), ["-R -K -j0", "-R -K -j0"]);
}

#[test]
fn flags_go_by_the_parsers_generation() {
    for (release, flags) in [("3.0.8", "-O no-expr-simplify "), ("4.1.0", "")] {
        let tree = Tree::new();
        tree.parser_is(release);
        tree.call(&["-c"], &guest(1, &[])).unwrap();
        tree.call(&["-r"], &guest(1, &["/srv/a.img"])).unwrap();
        let file = tree.file("").display().to_string();
        let call = format!("-r -K -j0 {flags}{file}");
        assert_eq!(tree.parser_calls(), [call.clone(), call], "{release}");
    }
}

#[test]
fn a_mode_that_does_not_fit_changes_nothing() {
    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    for mode in ["-r", "-a", "-R", "-D"] {
        assert!(tree.refused(&[mode], &xml).contains("does not exist"), "{mode}");
    }
    assert!(tree.names().is_empty());
    tree.call(&["-c"], &xml).unwrap();
    let before = tree.text(".files");
    assert!(tree.refused(&["-c"], &guest(1, &["/srv/b.img"])).contains("exists"));
    assert_eq!(tree.text(".files"), before);
    assert_eq!(tree.parser_calls().len(), 1);
}

#[test]
fn what_is_refused_is_named_and_leaves_nothing() {
    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    let other = xml.replace("a22e3930", "b22e3930");
    let too_large = format!("{xml}{}", " ".repeat(10 * 1024 * 1024));
    for (bad, why) in [
        (guest(1, &["/etc/shadow"]), "/etc is restricted (path policy line "),
        (other, "the XML is of libvirt-b22e3930"),
        (xml.replace("hvm", "hvm_invalid"), "os type \"hvm_invalid\""),
        (xml.replace("<name>t1", "<name>t*"), "domain name"),
        (xml.replace("<name>t1</name>", ""), "no name"),
        (xml.replace("</devices>", ""), ""),
        (too_large, "larger than 10 MiB"),
        (String::new(), ""),
    ] {
        let error = tree.refused(&["-c"], &bad);
        assert!(error.contains(why), "{error}");
    }
    for name in ["libvirt-a22e3930", "a22e3930-d87a-584e-22b2-1d8950212bac", &format!("{NAME}//x"), "../x"] {
        assert!(tree.refused(&["-u", name, "-c"], &xml).contains("invalid UUID"), "{name}");
    }
    assert!(tree.names().is_empty());
    assert!(tree.parser_calls().is_empty());
}

#[test]
fn a_parser_that_fails_or_dies_leaves_the_old_state() {
    for fails in ["exit 1", "exit 243", "kill -9 $$", "kill -SEGV $$"] {
        let tree = Tree::new();
        let xml = guest(1, &["/srv/a.img"]);
        tree.parser_does(fails);
        tree.call(&["-c"], &xml).unwrap_err();
        assert!(tree.names().is_empty(), "{fails}: {:?}", tree.names());
        tree.parser_does("");
        tree.call(&["-c"], &xml).unwrap();
        tree.call(&["-r", "-F", "/srv/hot.img"], &xml).unwrap();
        let before = tree.rules();
        tree.parser_does(fails);
        tree.call(&["-r"], &guest(1, &["/srv/b.img"])).unwrap_err();
        tree.call(&["-r", "-F", "/srv/c.img"], &xml).unwrap_err();
        tree.call(&["-D"], "").unwrap_err();
        assert_eq!(tree.rules(), before, "{fails}");
        // The parser may have loaded before it failed, so what is granted already is loaded again, once.
        tree.parser_does("");
        tree.parser_calls();
        for loads in [1, 0] {
            tree.call(&["-r", "-F", "/srv/hot.img"], &xml).unwrap();
            assert_eq!(tree.parser_calls().len(), loads, "{fails}");
        }
        // The next one that works has lost nothing.
        tree.call(&["-r", "-F", "/srv/d.img"], &xml).unwrap();
        for path in ["a", "hot", "d"] {
            assert!(tree.rules().contains(&format!("\"/srv/{path}.img\" rwk,")), "{path}");
        }
        assert!(!tree.rules().contains(&"\"/srv/c.img\" rwk,".to_owned()));
    }
}

#[test]
fn a_parser_that_hangs_or_never_stops_talking_is_ended() {
    for (time, does, why) in [
        (1, "sleep 100", "was ended after 1 seconds"),
        (60, "while :; do head -c 1000000 /dev/zero; done", "was ended after writing"),
        (60, "head -c 30000000 /dev/zero >&2; exit 1", "refused"),
    ] {
        let mut tree = Tree::new();
        tree.host.parser_time = Duration::from_secs(time);
        let (one, two) = (guest(1, &["/srv/a.img"]), guest(1, &["/srv/b.img"]));
        tree.call(&["-c"], &one).unwrap();
        let before = tree.rules();
        tree.parser_does(does);
        let error = tree.refused(&["-r"], &two);
        assert!(error.contains(why) && error.len() < 20_000, "{error}");
        assert_eq!(tree.rules(), before);
        tree.parser_does("");
        tree.call(&["-r"], &two).unwrap();
        assert_ne!(tree.rules(), before);
    }
}

#[test]
fn unloading_what_is_not_loaded_is_done() {
    for status in [254, 234] {
        let tree = Tree::new();
        tree.call(&["-c"], &guest(1, &[])).unwrap();
        tree.parser_does(&format!("exit {status}"));
        tree.call(&["-R"], "").unwrap();
        tree.call(&["-D"], "").unwrap();
        assert_eq!(tree.names(), [NAME]);
    }
}

#[test]
fn a_dry_run_changes_nothing_in_any_mode() {
    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    let text = tree.call(&["-d", "-c"], &xml).unwrap();
    let dir = tree.profiles().display();
    assert!(text.contains(&format!("virt-aa-helper:\n{dir}/{NAME}.files\nvirt-aa-helper:\n  \"/")), "{text}");
    assert!(text.contains(&format!("  {A}\n")), "{text}");
    let end = format!(
        "\n\nvirt-aa-helper:\n{dir}/{NAME}\nvirt-aa-helper:\n{NAME}\nvirt-aa-helper:\n  #include <libvirt/{NAME}.files>\n\n"
    );
    assert!(text.ends_with(&end), "{text}");
    let append = tree.call(&["-d", "-r", "-F", "/srv/x"], &xml).unwrap();
    assert!(append.ends_with("virt-aa-helper:\n  \"/srv/x\" rwk,\n\n"), "{append}");
    assert!(tree.names().is_empty());
    tree.call(&["-c"], &xml).unwrap();
    tree.parser_calls();
    let before = tree.text(".files");
    for mode in ["-r", "-R", "-D", "-a"] {
        tree.call(&["-d", mode], &guest(1, &["/srv/b.img"])).unwrap();
    }
    assert_eq!(tree.text(".files"), before);
    assert!(tree.parser_calls().is_empty());
}

#[test]
fn a_terminals_path_is_granted_and_no_other_of_its_kind() {
    let tree = Tree::new();
    let rules = |path: &str| {
        let pty = format!("<parallel type='pty'><source path='{path}'/></parallel></devices>");
        let xml = guest(1, &[]).replace("</devices>", &pty);
        let text = tree.call(&["-d", "-r"], &xml).unwrap();
        text.lines().any(|line| line == format!("  \"{path}\" rw,"))
    };
    tree.call(&["-c"], &guest(1, &[])).unwrap();
    assert!(rules("/dev/pts/0"));
    assert!(!rules("/dev/tty1"));
    assert!(!rules("/srv/pts"));
}

#[test]
fn a_volume_is_the_file_that_its_pool_says() {
    let tree = Tree::new();
    let pools = tree.host.root.join("etc/libvirt/storage");
    fs::create_dir_all(&pools).unwrap();
    let call = |pool: &str, volume: &str| {
        let source =
            format!("<disk type='volume'><source pool='{pool}' volume='{volume}'/></disk></devices>");
        tree.call(&["-d", "-r"], &guest(1, &[]).replace("</devices>", &source))
    };
    tree.call(&["-c"], &guest(1, &[])).unwrap();
    let define = |name: &str, target: &str| {
        let xml =
            format!("<pool type='dir'><name>{name}</name><target><path>{target}</path></target></pool>");
        fs::write(pools.join(format!("{name}.xml")), xml).unwrap();
    };
    define("p", "/srv/pool");
    assert!(call("p", "v").unwrap().contains("\n  \"/srv/pool/v\" rwk,\n"));
    assert!(call("p", "..").unwrap_err().to_string().contains("a volume's name"));
    // A pool that is not known: no rule, and a word about it. It may be one that needs none.
    let said = call("other", "v").unwrap();
    assert!(said.contains("no pool of that name is known") && !said.contains("/v\""), "{said}");
    // Nor does a broken definition keep a guest from its files.
    fs::write(pools.join("broken.xml"), "<pool").unwrap();
    let said = call("p", "v").unwrap();
    assert!(said.contains("warning: ") && said.contains("broken.xml:1:"), "{said}");
    assert!(said.contains("\n  \"/srv/pool/v\" rwk,\n"), "{said}");
}

#[test]
fn what_adds_nothing_loads_nothing() {
    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    let own = ["/var/lib/libvirt/qemu/domain-1-t1/{,**}", "/var/lib/libvirt/qemu/domain-1-t1/master-key.aes"];
    tree.call(&["-c"], &xml).unwrap();
    assert_eq!(tree.parser_calls().len(), 1);
    for path in own {
        tree.call(&["-r", "-F", path], &xml).unwrap();
    }
    assert!(tree.parser_calls().is_empty());
    // The twins: a new path; files that someone changed since; after an unload; a plain -r, which may be a start.
    let loads = |options: &[&str]| {
        tree.call(options, &xml).unwrap();
        tree.parser_calls().len()
    };
    assert_eq!(loads(&["-r", "-F", "/srv/new.img"]), 1);
    assert_eq!(loads(&["-r", "-F", "/srv/new.img"]), 0);
    fs::write(tree.file(""), format!("{}\n", tree.text("").unwrap())).unwrap();
    assert_eq!(loads(&["-r", "-F", own[0]]), 1);
    assert_eq!(loads(&["-R"]), 1);
    assert_eq!(loads(&["-r", "-F", own[0]]), 1);
    assert_eq!(loads(&["-r"]), 1);
}

#[test]
fn a_grant_lasts_as_long_as_it_is_needed() {
    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    tree.call(&["-c"], &xml).unwrap();
    let kept = ["/dev/userfaultfd", "/dev/net/tun", "/dev/tap4", "/srv/memory/1-t1/{,**}"];
    let dropped = ["/srv/hot.img", "/dev/sdx", "/var/cache/libvirt/qemu/qemu.screendump.x"];
    for path in kept.iter().chain(&dropped) {
        tree.call(&["-r", "-F", path], &xml).unwrap();
        assert!(tree.rules().contains(&format!("\"{path}\" rwk,")), "{path}");
    }
    tree.call(&["-r"], &xml).unwrap();
    for path in kept {
        assert!(tree.rules().contains(&format!("\"{path}\" rwk,")), "{path}");
    }
    for path in dropped {
        assert!(!tree.rules().contains(&format!("\"{path}\" rwk,")), "{path}");
    }
    // Another run of the guest starts from nothing, even if the last one was not cleaned up.
    tree.call(&["-r"], &guest(2, &["/srv/a.img"])).unwrap();
    assert!(!tree.rules().iter().any(|rule| rule.contains("userfaultfd") || rule.contains("memory")));
}

#[test]
fn a_host_that_was_started_again_counts_from_one_again() {
    let tree = Tree::new();
    let running = guest(1, &["/srv/a.img"]);
    // libvirtd names devices after it has asked for the first profile; a name of the user's is there before.
    let starting = running.replace("<alias name='usb'/>", "<alias name='ua-mine'/>");
    tree.call(&["-c"], &starting).unwrap();
    let tap = "\"/dev/tap4\" rwk,".to_owned();
    tree.call(&["-r", "-F", "/dev/tap4"], &running).unwrap();
    tree.call(&["-r"], &running).unwrap();
    assert!(tree.rules().contains(&tap));
    // The host crashed: nobody has called -D, and the id is the same.
    tree.call(&["-r"], &starting).unwrap();
    assert!(!tree.rules().contains(&tap));
    tree.call(&["-r", "-F", "/srv/hot.img"], &running).unwrap();
    assert!(!tree.rules().contains(&tap) && tree.rules().contains(&A.to_owned()));
}

#[test]
fn what_aa_render_grants_meanwhile_makes_nobody_forget() {
    use aa_contract::{Access, Reason, Target};
    use aa_render::grants::Change;
    use aa_render::{Renderer, Settings, Store, Sync, template::Source};

    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    tree.call(&["-c"], &xml).unwrap();
    let appended = ["/dev/userfaultfd", "/srv/hot.img"];
    for path in appended {
        tree.call(&["-r", "-F", path], &xml).unwrap();
    }
    let layout = &tree.host.layout;
    let target = Target::Path("/srv/backup.img".to_owned().try_into().unwrap());
    let add =
        Change::Add { target: target.clone(), access: Access::RWK, reason: Reason::new("backup").unwrap() };
    let profile = NAME.parse().unwrap();
    let renderer = Renderer::new(layout.clone(), Source::Host, Settings::default());
    let store = Store::open(layout, Sync::Required).unwrap();
    let grant = |change: &Change| {
        let locked = store.lock(profile).unwrap();
        let old = locked.read().unwrap();
        locked.write(&old, &renderer.plan_grant(&old, profile, change).unwrap()).unwrap();
    };
    grant(&add);
    tree.call(&["-r", "-F", "/srv/second.img"], &xml).unwrap();
    for path in appended.iter().chain(&["/srv/second.img", "/srv/backup.img"]) {
        assert!(tree.rules().contains(&format!("\"{path}\" rwk,")), "{path}");
    }
    grant(&Change::Drop { target });
    tree.call(&["-r"], &xml).unwrap();
    assert!(tree.rules().contains(&"\"/dev/userfaultfd\" rwk,".to_owned()));
    assert!(!tree.rules().iter().any(|rule| rule.contains("backup") || rule.contains("hot")));
}

/// A guest's overlay on a base that it shares with others.
const GOLDEN: &str = "/var/lib/libvirt/images/golden.qcow2";

/// An image of these, or an overlay on another.
fn image(tree: &Tree, name: &str, below: &str) -> String {
    let path = format!("/var/lib/libvirt/images/{name}");
    fs::write(tree.host.root.join(path.trim_start_matches('/')), qcow2(below)).unwrap();
    path
}

/// The guest with qcow2 images for its disks, each with the layers below it.
fn overlays(chains: &[&[&str]]) -> String {
    let disk = |chain: &&[&str]| {
        let mut layers = "<backingStore/>".to_owned();
        for layer in chain[1..].iter().rev() {
            layers = format!(
                "<backingStore type='file'><format type='qcow2'/><source file='{layer}'/>{layers}</backingStore>"
            );
        }
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>{layers}</disk>",
            chain[0]
        )
    };
    let disks: Vec<String> = chains.iter().map(disk).collect();
    guest(1, &[]).replace("</devices>", &format!("{}</devices>", disks.concat()))
}

fn access_of(tree: &Tree, path: &str) -> String {
    let head = format!("\"{path}\" ");
    let rules = tree.rules();
    let access = rules.iter().find_map(|rule| rule.strip_prefix(head.as_str())?.strip_suffix(','));
    access.unwrap_or_default().to_owned()
}

#[test]
fn the_layers_of_what_is_plugged_in_are_only_read() {
    for layers in [&[][..], &["mid.qcow2"]] {
        let tree = Tree::new();
        image(&tree, "golden.qcow2", "");
        let mut chain = vec![GOLDEN.to_owned()];
        for name in layers.iter().chain(&["b.qcow2"]) {
            chain.insert(0, image(&tree, name, &chain[0]));
        }
        let a = image(&tree, "a.qcow2", GOLDEN);
        let before = overlays(&[&[&a, GOLDEN]]);
        tree.call(&["-c"], &before).unwrap();
        // libvirtd's order: from the top down, and the XML has the disk only when QEMU has it.
        for path in &chain {
            tree.call(&["-r", "-F", path], &before).unwrap();
        }
        let check = |tree: &Tree| {
            for layer in &chain[1..] {
                assert_eq!(access_of(tree, layer), "rk", "{layer}");
            }
            assert_eq!(access_of(tree, &chain[0]), "rwk");
        };
        check(&tree);
        let names: Vec<&str> = chain.iter().map(String::as_str).collect();
        let both = overlays(&[&[&a, GOLDEN], &names]);
        tree.call(&["-r", "-F", "/srv/other.img"], &both).unwrap();
        check(&tree);
        tree.call(&["-r"], &both).unwrap();
        check(&tree);
        // Unplugged.
        tree.call(&["-r"], &before).unwrap();
        assert_eq!((access_of(&tree, GOLDEN).as_str(), access_of(&tree, &chain[0]).as_str()), ("rk", ""));
    }
}

#[test]
fn a_medium_with_layers_writes_none_of_them() {
    let tree = Tree::new();
    image(&tree, "golden.qcow2", "");
    let medium = image(&tree, "medium.qcow2", GOLDEN);
    tree.call(&["-c"], &guest(1, &[])).unwrap();
    // Here the XML has it before it is labelled.
    let xml = overlays(&[&[&medium, GOLDEN]]);
    for path in [medium.as_str(), GOLDEN] {
        tree.call(&["-r", "-F", path], &xml).unwrap();
    }
    assert_eq!((access_of(&tree, &medium).as_str(), access_of(&tree, GOLDEN).as_str()), ("rwk", "rk"));
}

/// The guest writes its floppy disk, and so may have written a header there that names a disk to come.
#[test]
fn what_a_raw_medium_says_is_no_layer() {
    let tree = Tree::new();
    image(&tree, "golden.qcow2", "");
    let medium = image(&tree, "medium.img", GOLDEN);
    tree.call(&["-c"], &guest(1, &[])).unwrap();
    for driver in ["<driver type='raw'/>", ""] {
        let disk = format!(
            "<disk type='file' device='floppy'>{driver}<source file='/var/lib/libvirt/images/./medium.img'/></disk></devices>"
        );
        let xml = guest(1, &[]).replace("</devices>", &disk);
        for path in [medium.as_str(), GOLDEN] {
            tree.call(&["-r", "-F", path], &xml).unwrap();
        }
        assert_eq!((access_of(&tree, &medium).as_str(), access_of(&tree, GOLDEN).as_str()), ("rwk", "rwk"));
        tree.call(&["-r"], &guest(1, &[])).unwrap();
    }
}

/// Two images that name each other are none that QEMU opens: what is plugged in after them is no layer of theirs.
#[test]
fn below_a_chain_that_is_none_nothing_is_only_read() {
    let tree = Tree::new();
    tree.call(&["-c"], &guest(1, &[])).unwrap();
    let other = image(&tree, "other.qcow2", "/var/lib/libvirt/images/loop.qcow2");
    let image = image(&tree, "loop.qcow2", &other);
    for path in [image.as_str(), "/srv/a.img"] {
        tree.call(&["-r", "-F", path], &guest(1, &[])).unwrap();
    }
    assert!(tree.rules().contains(&A.to_owned()));
}

/// The twins: what a block job writes is named by the same option.
#[test]
fn a_block_job_writes_the_layer_that_it_names() {
    let tree = Tree::new();
    image(&tree, "golden.qcow2", "");
    let a = image(&tree, "a.qcow2", GOLDEN);
    tree.call(&["-c"], &overlays(&[&[&a, GOLDEN]])).unwrap();
    // Right after a snapshot, whose overlay names the layer.
    let snapshot = image(&tree, "a.s1", &a);
    tree.call(&["-r", "-F", &snapshot], &overlays(&[&[&a, GOLDEN]])).unwrap();
    let with_snapshot = overlays(&[&[&snapshot, &a, GOLDEN]]);
    tree.call(&["-r", "-F", &a], &with_snapshot).unwrap();
    assert_eq!(access_of(&tree, &a), "rwk");
    tree.call(&["-r", "-F", GOLDEN], &with_snapshot).unwrap();
    assert_eq!(access_of(&tree, GOLDEN), "rwk");
    // Until the XML drops it, other changes of the guest do not cut the job off.
    tree.call(&["-r"], &with_snapshot).unwrap();
    assert_eq!(access_of(&tree, GOLDEN), "rwk");
    // A disk that was plugged in, committed into its base.
    let b = image(&tree, "b.qcow2", GOLDEN);
    let tree_of_b = overlays(&[&[&b, GOLDEN]]);
    tree.call(&["-r"], &guest(1, &[])).unwrap();
    for path in [b.as_str(), GOLDEN] {
        tree.call(&["-r", "-F", path], &guest(1, &[])).unwrap();
    }
    assert_eq!(access_of(&tree, GOLDEN), "rk");
    tree.call(&["-r", "-F", GOLDEN], &tree_of_b).unwrap();
    assert_eq!(access_of(&tree, GOLDEN), "rwk");
}

#[test]
fn what_is_only_read_is_judged_for_reading() {
    let tree = Tree::new();
    let medium = |readonly: &str| {
        let disk = format!(
            "<disk type='file' device='disk'><driver type='raw'/><source file='/boot/grml/grml64.iso'/>{readonly}</disk>"
        );
        guest(1, &[]).replace("</devices>", &format!("{disk}</devices>"))
    };
    tree.call(&["-c"], &guest(1, &[])).unwrap();
    let append = ["-r", "-F", "/boot/grml/grml64.iso"];
    assert!(tree.refused(&append, &guest(1, &[])).contains("read /boot"));
    assert!(tree.refused(&append, &medium("")).contains("read /boot"));
    tree.call(&append, &medium("<readonly/>")).unwrap();
    assert_eq!(access_of(&tree, "/boot/grml/grml64.iso"), "rk");
}

#[test]
fn what_the_xml_has_got_since_is_granted_with_the_next_file() {
    let tree = Tree::new();
    tree.call(&["-c"], &guest(1, &["/srv/a.img"])).unwrap();
    tree.call(&["-r", "-F", "/srv/hot.img"], &guest(1, &["/srv/b.img"])).unwrap();
    // Only an update takes anything away.
    for path in ["/srv/a.img", "/srv/b.img", "/srv/hot.img"] {
        assert_eq!(access_of(&tree, path), "rwk", "{path}");
    }
    // Also if the file itself is granted already.
    tree.parser_calls();
    tree.call(&["-r", "-F", "/srv/hot.img"], &guest(1, &["/srv/c.img"])).unwrap();
    assert_eq!((access_of(&tree, "/srv/c.img").as_str(), tree.parser_calls().len()), ("rwk", 1));
    tree.call(&["-r"], &guest(1, &["/srv/c.img"])).unwrap();
    assert_eq!(access_of(&tree, "/srv/a.img") + &access_of(&tree, "/srv/b.img"), "");
}

/// A guest with a minimal profile, and its XML.
fn minimal_guest() -> (Tree, String, aa_render::Contents) {
    use aa_derive::host::Files;
    use aa_derive::path_policy::{DEFAULT, PathPolicy};
    use aa_derive::{Options, derive};
    use aa_render::{Contents, Renderer, Settings, Store, Sync, template::Source};

    let tree = Tree::new();
    let xml = guest(1, &[]);
    let options = Options::new(PathPolicy::parse(DEFAULT).unwrap());
    let record = derive(xml.as_bytes(), &options, &Files::new(&tree.host.root).unwrap()).unwrap();
    let settings = Settings { minimal: true, ..Settings::default() };
    let renderer = Renderer::new(tree.host.layout.clone(), Source::Host, settings);
    let minimal = renderer.plan(&Contents::default(), &record).unwrap();
    let store = Store::open(&tree.host.layout, Sync::Required).unwrap();
    store.lock(NAME.parse().unwrap()).unwrap().write(&Contents::default(), &minimal).unwrap();
    tree.call(&["-r"], &xml).unwrap();
    assert_eq!(tree.text(""), minimal.base);
    (tree, xml, minimal)
}

#[test]
fn a_minimal_profile_follows_what_is_plugged_in() {
    let (tree, xml, minimal) = minimal_guest();
    let usb = "<hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>";
    tree.call(&["-r"], &xml.replace("</devices>", &format!("{usb}</devices>"))).unwrap();
    assert!(tree.text("").unwrap().contains("network netlink raw,"));
    tree.call(&["-r"], &xml).unwrap();
    assert_eq!(tree.text(""), minimal.base);
}

/// libvirtd names the node before the XML has the device.
#[test]
fn a_node_that_is_plugged_in_brings_what_its_device_needs() {
    for (node, fragment, rule) in [
        ("/dev/vfio/12", "/sys/kernel/iommu_groups/{,**} r,", "\"/dev/vfio/vfio\" rw,"),
        ("/dev/bus/usb/001/002", "network netlink raw,", ""),
        ("/dev/net/tun", "/sys/module/vhost/parameters/max_mem_regions r,", "\"/dev/vhost-net\" rw,"),
        (
            "/sys/kernel/config/target/vhost/naa.5123456789abcde0",
            "/sys/module/vhost/parameters/max_mem_regions r,",
            "\"/dev/vhost-scsi\" rw,",
        ),
        ("/srv/first-disk.img", "/sys/devices/virtual/block/*/dm/uuid r,", ""),
    ] {
        let (tree, xml, minimal) = minimal_guest();
        assert!(!minimal.base.as_ref().unwrap().contains(fragment), "{node}");
        tree.call(&["-r", "-F", node], &xml).unwrap();
        assert!(tree.text("").unwrap().contains(fragment), "{node}");
        assert!(rule.is_empty() || tree.rules().contains(&rule.to_owned()), "{node}");
        // As long as the node itself.
        let (tap, other) = ("/dev/net/tun", "/srv/other.img");
        tree.call(&["-r", "-F", other], &xml).unwrap();
        assert!(tree.text("").unwrap().contains(fragment), "{node}");
        tree.call(&["-r"], &xml).unwrap();
        assert_eq!(tree.text("").unwrap().contains(fragment), node == tap, "{node}");
        assert!(node == tap || !tree.rules().contains(&rule.to_owned()), "{node}");
        // The twin: what needs nothing brings nothing.
        let (tree, xml, minimal) = minimal_guest();
        tree.call(&["-r", "-F", "/dev/userfaultfd"], &xml).unwrap();
        assert_eq!(tree.text(""), minimal.base);
    }
}

/// A card whose XML says that no back end in the kernel serves it.
#[test]
fn a_tap_that_the_xml_has_brings_no_more_than_that_says() {
    let (tree, xml, _) = minimal_guest();
    let card = "<interface type='bridge'><source bridge='br0'/><model type='e1000'/></interface></devices>";
    tree.call(&["-r", "-F", "/dev/net/tun"], &xml.replace("</devices>", card)).unwrap();
    assert!(tree.text("").unwrap().contains("/dev/net/tun rw,"));
    assert!(
        !tree.text("").unwrap().contains("vhost") && !tree.rules().iter().any(|rule| rule.contains("vhost"))
    );
}

#[test]
fn an_empty_or_foreign_rules_file_is_made_anew_from_the_xml() {
    let foreign = "# DO NOT EDIT\n  \"/srv/old.img\" rwk,\n  deny \"/srv/a.img\" w,\n";
    for damaged in ["", foreign, "  capability sys_admin,\n"] {
        let tree = Tree::new();
        let xml = guest(1, &["/srv/a.img"]);
        tree.call(&["-c"], &xml).unwrap();
        fs::write(tree.file(".files"), damaged).unwrap();
        tree.call(&["-r", "-F", "/srv/hot.img"], &xml).unwrap();
        let rules = tree.rules();
        assert!(rules.contains(&A.to_owned()) && rules.contains(&"\"/srv/hot.img\" rwk,".to_owned()));
        assert!(!rules.iter().any(|rule| rule.contains("old.img") || rule.contains("deny")), "{rules:?}");
        assert!(!rules.iter().any(|rule| rule.contains("capability")), "{rules:?}");
    }
    let tree = Tree::new();
    tree.call(&["-c"], &guest(1, &[])).unwrap();
    fs::write(tree.file(""), "").unwrap();
    tree.call(&["-r"], &guest(1, &[])).unwrap();
    assert!(tree.text("").unwrap().contains(&format!("profile {NAME} ")));
}

#[test]
fn what_is_no_path_is_not_appended() {
    let tree = Tree::new();
    let xml = guest(1, &[]);
    tree.call(&["-c"], &xml).unwrap();
    let before = tree.text(".files");
    tree.parser_calls();
    for bad in ["relative", "", "/", "/etc/shadow", "/usr/lib/1-t1/{,**}", "/run/libvirt/libvirt-sock"] {
        tree.refused(&["-r", "-F", bad], &xml);
        tree.refused(&["-r", "-f", bad], &xml);
    }
    assert_eq!(tree.text(".files"), before);
    assert!(tree.parser_calls().is_empty());
    // A glob's letters are a file's name.
    tree.call(&["-r", "-F", "/srv/*"], &xml).unwrap();
    assert!(tree.rules().contains(&"\"/srv/\\052\" rwk,".to_owned()));
}

#[test]
fn forty_at_once_lose_nothing() {
    let tree = Tree::new();
    let xml = guest(1, &["/srv/a.img"]);
    tree.call(&["-c"], &xml).unwrap();
    std::thread::scope(|scope| {
        for n in 0..40 {
            let (tree, xml) = (&tree, &xml);
            scope.spawn(move || tree.call(&["-r", "-F", &format!("/srv/hot{n}.img")], xml).unwrap());
        }
    });
    let rules = tree.rules();
    for n in 0..40 {
        assert!(rules.contains(&format!("\"/srv/hot{n}.img\" rwk,")), "{n}");
    }
    assert!(rules.contains(&A.to_owned()));
    assert_eq!(tree.names(), [NAME.to_owned(), format!("{NAME}.files")]);
}
