//! A short run of every target: its seeds, among which is every input that was ever a finding, and a fixed
//! number of changed ones. The same each time; `cargo xtask fuzz` is what searches.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first thing that goes wrong"
)]

use std::path::{Path, PathBuf};

use aa_tests::numbers::Numbers;
use fuzz_targets::TARGETS;

/// Changed inputs for each target.
const ROUNDS: usize = 1_000;
/// Longest of them, in bytes.
const LONGEST: usize = 16 * 1024;

/// One seed with a few pieces changed, taken out, doubled, or put in from another seed or from what formats
/// and patterns are made of.
fn changed(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
    const PIECES: [&[u8]; 16] = [
        b"\0",
        b"\n",
        b"/",
        b"..",
        b"'",
        b"\"",
        b"*",
        b"{,**}",
        b"@{HOME}",
        b"\\052",
        b"&#42;",
        b"<",
        b"]]>",
        b"/etc/shadow",
        b"\xff\xff\xff\xff",
        b"\x80",
    ];
    let mut input = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(4) {
        let range = numbers.range(input.len(), 32);
        let piece = match numbers.below(5) {
            0 => Vec::new(),
            1 => PIECES[numbers.below(PIECES.len())].to_vec(),
            2 => {
                let other = &seeds[numbers.below(seeds.len())];
                other[numbers.range(other.len(), 32)].to_vec()
            }
            3 => input[range.clone()].repeat(2),
            _ => input[range.clone()].iter().map(|byte| byte ^ (1 << numbers.below(8))).collect(),
        };
        input.splice(range, piece);
    }
    input.truncate(LONGEST);
    input
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

#[test]
fn seeds_and_what_is_near_them_hold_every_promise() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || {
                let seeds = seeds(target.name);
                assert!(!seeds.is_empty(), "{}", target.name);
                for (file, bytes) in &seeds {
                    let ends = std::panic::catch_unwind(|| (target.run)(bytes));
                    assert!(ends.is_ok(), "{}", file.display());
                }
                let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, bytes)| bytes).collect();
                let mut numbers = Numbers::new(0x9e37_79b9_7f4a_7c15);
                for _ in 0..ROUNDS {
                    let input = changed(&mut numbers, &seeds);
                    let ends = std::panic::catch_unwind(|| (target.run)(&input));
                    assert!(ends.is_ok(), "{}: \"{}\"", target.name, input.escape_ascii());
                }
            });
        }
    });
}
