//! Says what one profile allows on files and another does not, by what the parser made of them: one path for each
//! difference. Status 0 if there is none, 1 if there is any.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use aa_tests::compiled::{FileDfa, compile};

fn main() -> ExitCode {
    match run() {
        Ok(covered) => ExitCode::from(u8::from(!covered)),
        Err(error) => {
            drop(writeln!(io::stderr(), "covers: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Arguments: the profile that must cover, and the one that it is to cover.
fn run() -> Result<bool, String> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [covering, covered] = files.as_slice() else { return Err("COVERING COVERED".to_owned()) };
    let file_rules = |file: &String| Ok::<_, String>(FileDfa::of(&compile(Path::new(file))?));
    let beyond = file_rules(covered)?.beyond(&file_rules(covering)?);
    for (path, letters) in &beyond {
        writeln!(io::stdout(), "{letters} {}", path.escape_ascii()).map_err(|error| error.to_string())?;
    }
    Ok(beyond.is_empty())
}
