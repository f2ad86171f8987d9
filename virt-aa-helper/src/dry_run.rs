//! The text of a dry run, in the original's form: each file's path, then what would be in it.

use aa_contract::{ProfileName, syntax};
use aa_render::layout::file_name;
use aa_render::{Layout, Part};

use crate::plan::Plan;

/// What `-d` prints for a `-c` or `-r`; `creates` is for the former.
pub fn text(plan: &Plan, profile: ProfileName, layout: &Layout, creates: bool) -> String {
    let dir = layout.dir().display();
    let rules_name = file_name(profile, Part::Rules);
    let mut out = format!("virt-aa-helper:\n{dir}/{rules_name}\nvirt-aa-helper:\n");
    match &plan.appended {
        Some(rule) => syntax::write_rule(rule, &mut out),
        None => {
            let rules = plan.contents.rules.as_deref().unwrap_or_default();
            for line in rules.lines().filter(|line| !line.starts_with('#')) {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out.push('\n');
    if creates {
        let base = file_name(profile, Part::Base);
        let include = format!("  #include <libvirt/{rules_name}>");
        for part in [format!("{dir}/{base}"), profile.to_string(), include] {
            out.push_str("virt-aa-helper:\n");
            out.push_str(&part);
            out.push('\n');
        }
        out.push('\n');
    }
    out
}
