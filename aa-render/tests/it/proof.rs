//! What is granted is the path and nothing else, by the automaton that the real parser makes of it: the paths that
//! it accepts are listed, so that not one byte can be more or less.

use std::collections::BTreeSet;
use std::fs;

use aa_contract::{LiteralPath, Mode, Rule};
use aa_render::profile_text::ProfileText;
use aa_tests::compiled::{FileDfa, READ, WRITE, compile, compile_text};
use aa_tests::numbers::Numbers;
use proptest::prelude::*;

use crate::support::{PROFILE, Place, record, rule, run};

/// Most rules in one profile: more take the parser longer than one by one.
const BATCH: usize = 500;

/// The rules for these paths, compiled, accept these paths; those that are no normal path are left out.
fn prove(paths: impl IntoIterator<Item = String>) -> usize {
    let paths: Vec<String> =
        paths.into_iter().filter(|path| LiteralPath::new(path.as_str()).is_ok()).collect();
    for batch in paths.chunks(BATCH) {
        let mut text = String::from("profile x {\n");
        for path in batch {
            let rule: Rule = serde_json::from_str(&rule(path, "r")).unwrap();
            aa_contract::syntax::write_rule(&rule, &mut text);
        }
        text.push_str("}\n");
        same(&FileDfa::of(&compile_text(&text).unwrap()), batch);
    }
    paths.len()
}

/// The automaton accepts exactly these.
#[track_caller]
fn same(file: &FileDfa, paths: &[String]) {
    let accepted = file.paths().expect("a pattern");
    let wanted: BTreeSet<Vec<u8>> = paths.iter().map(|path| path.clone().into_bytes()).collect();
    let shown = |paths: BTreeSet<&Vec<u8>>| -> Vec<String> {
        paths.into_iter().map(|path| path.escape_ascii().to_string()).collect()
    };
    let (more, less) = (accepted.difference(&wanted).collect(), wanted.difference(&accepted).collect());
    assert_eq!((shown(more), shown(less)), (Vec::new(), Vec::new()));
}

/// The characters of one byte.
fn ascii() -> impl Iterator<Item = char> {
    (1..=127u8).map(char::from)
}

#[test]
#[ignore = "needs apparmor_parser"]
fn each_character_means_itself_in_every_place() {
    // All of one byte and all of two; of three and four one in 257, with every first byte.
    let longer = ('\u{800}'..=char::MAX).step_by(257);
    let every = ascii().chain('\u{80}'..='\u{7ff}').chain(longer);
    let proven = prove(every.flat_map(|c| {
        ["/c", "/ca", "/ac", "/abc/d", "/c/a", "/a/c"]
            .map(|path| path.replace('c', c.encode_utf8(&mut [0; 4])))
    }));
    assert!(proven > 30_000, "{proven}");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn each_pair_of_bytes_means_itself() {
    let mut proven = 0;
    for first in ascii() {
        proven +=
            prove(ascii().flat_map(|second| [format!("/{first}{second}"), format!("/a{first}{second}b/c")]));
    }
    assert!(proven > 2 * 125 * 125, "{proven}");
}

#[test]
#[ignore = "needs apparmor_parser"]
fn the_proof_would_see_a_pattern_and_a_neighbour() {
    let of = |rule: &str| FileDfa::of(&compile_text(format!("profile x {{\n  \"{rule}\" r,\n}}\n")).unwrap());
    let file = of("/a*");
    assert_eq!(file.paths(), None);
    assert_eq!((file.access(b"/ab"), file.access(b"/b")), (READ, 0));
    assert_eq!(of("/{a,b}").paths(), Some(BTreeSet::from([b"/a".to_vec(), b"/b".to_vec()])));
}

/// Pieces that mean something to the parser, between letters and arbitrary characters.
fn component() -> impl Strategy<Value = String> {
    const PIECES: [&str; 38] = [
        "*",
        "**",
        "?",
        "[",
        "]",
        "[^",
        "[a-z]",
        "{",
        "}",
        "{a,b}",
        "@{HOME}",
        "@{PROC}",
        "@",
        "\\",
        "\\\\",
        "\\052",
        "\\x2a",
        "\\n",
        "\"",
        "\" rwk,",
        "\" rwk,\n  \"",
        "}\nprofile y {",
        ",",
        "#",
        "#include <x>",
        "include <x>",
        " ",
        "\t",
        "\n",
        "\r",
        "^",
        "!",
        "$",
        "->",
        "(null)",
        "é",
        "\u{7f}",
        "\u{1}",
    ];
    let piece = prop_oneof![
        proptest::sample::select(&PIECES[..]).prop_map(str::to_owned),
        "[a-z]{1,3}",
        proptest::char::any().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(component(), 1..4)
        .prop_map(|components| format!("/{}", components.join("/")))
        .prop_filter("a normal path", |path| LiteralPath::new(path.as_str()).is_ok())
}

/// What one byte more, less or other makes of a path.
fn neighbours(path: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    for at in 0..=path.len() {
        for byte in [b'a', b'*', b'/', b'\\', 0xff] {
            all.insert([&path[..at], &[byte], &path[at..]].concat());
        }
        if let Some(byte) = path.get(at) {
            all.insert([&path[..at], &path[at + 1..]].concat());
            for bit in 0..8 {
                all.insert([&path[..at], &[byte ^ 1 << bit], &path[at + 1..]].concat());
            }
        }
    }
    all.remove(path);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    #[ignore = "needs apparmor_parser"]
    fn literals_grant_themselves_and_no_other_path(paths in proptest::collection::vec(path(), 1..40)) {
        prove(paths);
    }

    #[test]
    #[ignore = "needs apparmor_parser"]
    fn no_neighbour_is_granted(path in path()) {
        let rule: Rule = serde_json::from_str(&rule(&path, "rw")).unwrap();
        let mut text = String::from("profile x {\n");
        aa_contract::syntax::write_rule(&rule, &mut text);
        let file = FileDfa::of(&compile_text(text + "}\n").unwrap());
        prop_assert_eq!(file.access(path.as_bytes()) & (READ | WRITE), READ | WRITE);
        for neighbour in neighbours(path.as_bytes()) {
            prop_assert_eq!(file.access(&neighbour), 0, "{}", neighbour.escape_ascii());
        }
    }

    /// A template is filled, and files are merged, with whatever the record holds.
    #[test]
    #[ignore = "needs apparmor_parser"]
    fn profiles_of_hostile_records_grant_what_the_records_say(
        name in component().prop_filter("a name", |name| aa_contract::DomainName::new(name.as_str()).is_ok()),
        first in proptest::collection::vec(path(), 0..8),
        second in proptest::collection::vec(path(), 0..8),
    ) {
        let place = Place::new();
        let template = place.base().join("TEMPLATE.qemu");
        fs::write(template, "# a comment }\nprofile LIBVIRT_TEMPLATE flags=(attach_disconnected) {\n}\n").unwrap();
        let hostile = |paths: &[String]| {
            let rules: Vec<String> = paths.iter().map(|path| rule(path, "rwk")).collect();
            let name = serde_json::Value::from(name.as_str()).to_string();
            record(&rules.join(",")).replacen("\"testqemu\"", &name, 1)
        };
        let templates = place.base().to_str().unwrap();
        let (status, text, err) = run(&["--stdout", "--template-dir", templates], &hostile(&first));
        prop_assert_eq!(status, 0, "{}", err);
        one_profile(&compile_text(text).unwrap(), &first);

        let both = [first.clone(), second.clone()].concat();
        for (args, input, wanted) in [(&[][..], &first, &first), (&["--append"], &second, &both)] {
            let args: Vec<&str> = ["--template-dir", templates].iter().chain(args).copied().collect();
            let (status, _, err) = place.run(&args, &hostile(input));
            prop_assert_eq!(status, 0, "{}", err);
            one_profile(&compile(&place.file("")).unwrap(), wanted);
        }
    }
}

/// The blob is the one profile, and accepts exactly these paths.
#[track_caller]
fn one_profile(blob: &[u8], paths: &[String]) {
    let start = b"\x04\x08\0profile\0\x07\x05";
    assert_eq!(blob.windows(start.len()).filter(|window| window == start).count(), 1);
    let name = format!("{PROFILE}\0");
    assert!(blob.windows(name.len()).any(|window| window == name.as_bytes()));
    if paths.is_empty() {
        return;
    }
    same(&FileDfa::of(blob), paths);
}

/// The mode of the first profile: its flags in the tagged stream are three numbers, of which it is the second.
fn compiled_mode(blob: &[u8]) -> Mode {
    let start = b"flags\0\x07";
    let at = blob.windows(start.len()).position(|window| window == start).unwrap() + start.len();
    match blob[at + 6] {
        0 | 2 => Mode::Enforce,
        _ => Mode::Complain,
    }
}

/// Where aa-render takes a text, the parser finds the same mode and the same end of the profile in it, also after a change.
#[test]
#[ignore = "needs apparmor_parser"]
fn a_profile_is_read_as_the_parser_reads_it() {
    const GAPS: [&str; 6] = [" ", " ", "", "\n", " # (complain) {\n", "#\" {\n"];
    const HEADER: [&[&str]; 3] = [
        &[
            "",
            "",
            "/a",
            "\"/a b\"",
            "\"/a\\\\\" b\"",
            "\"/a\\\" flags=(complain) {\"",
            "/a)#\"",
            "/a{b,c}",
            "/a(complain)",
        ],
        &["", "", "xattrs=(user.a=b)", "xattrs = (user.a=\"b\")"],
        &[
            "",
            "flags=(complain)",
            "flags = ( audit , complain )",
            "(complain)",
            "(audit)",
            "flags=(kill attach_disconnected)",
            "flags=(unconfined)",
            "flags=(\"complain\")",
            "flags=(audit,#\n complain)",
            "#include <abstractions/X>\n",
        ],
    ];
    const BODY: [&str; 15] = [
        "/b{c,d} r,",
        "\"/b }\" r,",
        "\"/b\\\" }\" r,",
        "\"/b\\\\\" }\" r,",
        "/b} r,",
        "/b,}c r,",
        "/b\\} r,",
        "/b\\\n",
        "/b)#} r,",
        "# }\n",
        "file,#}\n",
        "profile \"s\"{ capability, }",
        "^s { capability, }",
        "signal (send),",
        "\n",
    ];
    let mut numbers = Numbers::new(0x9e37_79b9_7f4a_7c15);
    let mut taken = [0; 2];
    for _ in 0..1_200 {
        let mut text = String::from("profile X");
        for pieces in HEADER {
            text.push_str(numbers.one(&GAPS).unwrap());
            text.push_str(numbers.one(pieces).unwrap());
        }
        text.push_str(numbers.one(&GAPS).unwrap());
        text.push('{');
        for _ in 0..numbers.below(4) {
            text.push_str([" ", "", "\n"][numbers.below(3)]);
            text.push_str(numbers.one(&BODY).unwrap());
        }
        text.push_str([" }", "}", "\n}\n"][numbers.below(3)]);
        let Ok(profile) = ProfileText::parse(text.as_str(), "X") else { continue };
        let Ok(blob) = compile_text(&text) else { continue };
        taken[usize::from(profile.mode() == Mode::Complain)] += 1;
        assert_eq!(compiled_mode(&blob), profile.mode(), "{text}");
        for mode in [Mode::Complain, Mode::Enforce] {
            let changed = profile.with_mode(mode);
            assert_eq!(compiled_mode(&compile_text(&changed).expect(&changed)), mode, "{text}\n{changed}");
        }
        let added = profile.instantiate("X", "  \"/added\" r,\n");
        let file = FileDfa::of(&compile_text(&added).expect(&added));
        assert_eq!(file.access(b"/added") & READ, READ, "{text}\n{added}");
    }
    assert!(taken.iter().all(|count| *count > 50), "{taken:?}");
}
