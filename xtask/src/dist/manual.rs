//! A tool's manual page, made from its command line.

use std::fmt::Write as _;

use anyhow::Result;
use clap_mangen::Man;

/// The page in roff: the parts that `clap_mangen` makes, and by hand those that it does not make so that they can be
/// copied from: the synopsis, examples and exit statuses.
pub(super) fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let name = command.get_name();
    let man = Man::new(command.clone()).section("8").manual("aa-svirt");
    let (preface, sections) = after(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.extend(synopsis(name, &command.clone().render_usage().to_string()).into_bytes());
    man.render_description_section(&mut page)?;
    page.extend(preface.into_bytes());
    man.render_options_section(&mut page)?;
    page.extend(sections.into_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// `Usage: NAME …`, which is not hyphenated.
fn synopsis(name: &str, usage: &str) -> String {
    let words = usage.trim_start_matches("Usage: ");
    let words = words.strip_prefix(name).unwrap_or(words);
    format!(".SH SYNOPSIS\n.nh\n\\fB{}\\fR{}\n.hy\n", text(name), text(words))
}

/// What stands below the options of `--help`: text before the first heading, and a section for each heading, whose lines
/// stay as they are.
fn after(command: &clap::Command) -> (String, String) {
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let (mut preface, mut sections) = (String::new(), String::new());
    for block in help.split("\n\n") {
        let heading = block.lines().next().filter(|line| line.ends_with(':') && !line.starts_with(' '));
        if let Some(heading) = heading {
            let heading = heading.trim_end_matches(':').to_uppercase();
            let lines =
                block.lines().skip(1).map(|line| text(line.strip_prefix("  ").unwrap_or(line)) + "\n");
            // Writing to a string cannot fail.
            let _ok = write!(sections, ".SH \"{heading}\"\n.nf\n{}.fi\n", lines.collect::<String>());
        } else {
            let to = if sections.is_empty() { &mut preface } else { &mut sections };
            let _ok = write!(to, ".PP\n{}\n", text(block));
        }
    }
    (preface, sections)
}

/// Text that comes out letter by letter: no request, no escape, and no typographic dashes and quotes.
fn text(plain: &str) -> String {
    let mut out = String::new();
    for line in plain.split_inclusive('\n') {
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        for letter in line.chars() {
            match letter {
                '\\' => out.push_str("\\(rs"),
                '-' => out.push_str("\\-"),
                '\'' => out.push_str("\\(aq"),
                '`' => out.push_str("\\(ga"),
                '^' => out.push_str("\\(ha"),
                '~' => out.push_str("\\(ti"),
                other => out.push(other),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;

    #[test]
    fn text_comes_out_as_it_is() {
        assert_eq!(text(".x -y\n'z' \\ ^~`"), "\\&.x \\-y\n\\&\\(aqz\\(aq \\(rs \\(ha\\(ti\\(ga");
    }

    #[test]
    fn a_page_has_the_usage_and_the_examples_line_by_line() {
        let command = Command::new("tool")
            .version("1")
            .about("Does it")
            .arg(Arg::new("dir").long("dir").value_name("DIR").help("Where"))
            .arg(
                Arg::new("command").last(true).required(true).action(ArgAction::Append).value_name("COMMAND"),
            )
            .after_help(
                "Before.\n\nExamples:\n  tool -- a\n      indented\n\nBehind.\n\nExit status:\n  0  done",
            );
        let page = String::from_utf8(page(&command).unwrap()).unwrap();
        assert!(
            page.contains(".SH SYNOPSIS\n.nh\n\\fBtool\\fR [OPTIONS] \\-\\- <COMMAND>...\n.hy\n"),
            "{page}"
        );
        let preface = page.find(".PP\nBefore.\n").unwrap();
        let options = page.find("\\-\\-dir").unwrap();
        let examples =
            page.find(".SH \"EXAMPLES\"\n.nf\ntool \\-\\- a\n    indented\n.fi\n.PP\nBehind.\n").unwrap();
        let statuses = page.find(".SH \"EXIT STATUS\"\n.nf\n0  done\n.fi\n").unwrap();
        assert!(preface < options && options < examples && examples < statuses, "{page}");
        assert!(!page.contains("EXTRA"), "{page}");
    }
}
