//! `<seclabel>` of the domain: what it says of AppArmor (libvirt: `formatdomain`, «Security label»).
//!
//! Rules are made for the profile of the guest's UUID in any case, since that is the one that
//! libvirt enters whatever the label says; what the label changes is named. A label of one source alone
//! is read with that source.

use aa_contract::{NoteKind, ProfileName};

use crate::deriver::Deriver;
use crate::domain::refuse;
use crate::error::{Error, Refusal};
use crate::xml::Element;

/// The other security models of libvirt, whose labels say nothing of AppArmor.
const OTHER_MODELS: [&str; 3] = ["selinux", "dac", "none"];

pub(crate) fn derive(deriver: &mut Deriver<'_>, root: &Element<'_>) -> Result<(), Error> {
    let mut seen = false;
    for label in root.children("seclabel") {
        match label.attr("model") {
            Some("apparmor") if std::mem::replace(&mut seen, true) => {
                return Err(refuse(
                    &label,
                    Refusal::Value { what: "second security label of model", value: "apparmor".to_owned() },
                ));
            }
            Some("apparmor") => apparmor(deriver, &label)?,
            Some(model) if OTHER_MODELS.contains(&model) => {}
            Some(model) => deriver.note(
                NoteKind::Seclabel,
                &label,
                format!("security model \"{model}\" is not known here: its label is not looked at"),
            ),
            // libvirt takes it for the host's first model, which may be another.
            None => unnamed(deriver, &label),
        }
    }
    Ok(())
}

/// Whether the guest's label is that it is not to be confined. One that says so and one that says otherwise are none.
pub(crate) fn asks_for_no_profile(root: &Element<'_>) -> bool {
    let ours = |label: &Element<'_>| label.attr("model").is_none_or(|model| model == "apparmor");
    let mut labels = root.children("seclabel").filter(ours).peekable();
    labels.peek().is_some() && labels.all(|label| label.attr("type") == Some("none"))
}

/// Whether a source's own label of AppArmor's says not to touch it, which a note says.
pub(crate) fn leaves_alone(deriver: &mut Deriver<'_>, source: &Element<'_>) -> bool {
    let says_so =
        |label: &Element<'_>| label.attr("model") == Some("apparmor") && label.attr("relabel") == Some("no");
    let leaves_alone = source.children("seclabel").any(|label| says_so(&label));
    if leaves_alone {
        let text = "no rule is made: the source's <seclabel model='apparmor'> says relabel='no'";
        deriver.note(NoteKind::Seclabel, source, text);
    }
    leaves_alone
}

/// A label that names no model.
fn unnamed(deriver: &mut Deriver<'_>, label: &Element<'_>) {
    match label.attr("type") {
        Some("none") => unconfined(deriver, label),
        Some("static") => {
            let text = "a static label of no model: libvirt takes it for the host's first model";
            deriver.note(NoteKind::Seclabel, label, text);
        }
        _ => {}
    }
}

fn unconfined(deriver: &mut Deriver<'_>, label: &Element<'_>) {
    let text = "the guest asks not to be confined (type='none'): the rules are made all the same, and hold if its profile is entered";
    deriver.note(NoteKind::Seclabel, label, text);
}

fn apparmor(deriver: &mut Deriver<'_>, label: &Element<'_>) -> Result<(), Error> {
    let bad = |value: &str| refuse(label, Refusal::Value { what: "AppArmor label", value: value.to_owned() });
    let kind = label.attr("type").unwrap_or("dynamic");
    if label.child("baselabel").is_some() {
        return Err(bad("baselabel"));
    }
    let relabel = label.attr("relabel");
    match kind {
        "none" => unconfined(deriver, label),
        "static" => {
            let own = ProfileName::new(deriver.domain.uuid).to_string();
            let wanted = label.child("label").map(|label| label.text().trim()).unwrap_or_default();
            if wanted.is_empty() {
                return Err(refuse(
                    label,
                    Refusal::Incomplete { what: "static AppArmor label", missing: "label" },
                ));
            }
            let text = if wanted == own {
                "a static label: libvirt makes no rules itself, so the profile must be loaded before the guest starts".to_owned()
            } else {
                format!(
                    "static label \"{wanted}\" is not entered: libvirt enters {own}, and the rules are for that"
                )
            };
            deriver.note(NoteKind::Seclabel, label, text);
        }
        // libvirt refuses it too: a label of its own making without its rules.
        "dynamic" if relabel == Some("no") => return Err(bad("type='dynamic' relabel='no'")),
        "dynamic" => {}
        other => return Err(bad(other)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Files;
    use crate::path_policy::{DEFAULT, PathPolicy};
    use crate::{Options, derive as derive_domain};

    /// The notes on labels, or the refusal; and that the rules are the same as without a label.
    fn notes(labels: &str) -> Result<Vec<String>, Error> {
        let root = tempfile::tempdir().unwrap();
        let host = Files::new(root.path()).unwrap();
        let options = Options::new(PathPolicy::parse(DEFAULT).unwrap());
        let xml = |labels: &str| {
            format!(
                "<domain type='kvm'><name>g</name><uuid>a22e3930-d87a-584e-22b2-1d8950212bac</uuid>\
                 <os><type>hvm</type></os>{labels}</domain>"
            )
        };
        let derived = derive_domain(xml(labels).as_bytes(), &options, &host)?;
        let plain = derive_domain(xml("").as_bytes(), &options, &host)?;
        assert_eq!(derived.rules(), plain.rules());
        Ok(derived
            .notes()
            .iter()
            .filter(|note| note.kind == NoteKind::Seclabel)
            .map(|note| note.text.clone())
            .collect())
    }

    #[test]
    fn the_usual_labels_change_nothing() {
        for labels in [
            "",
            "<seclabel type='dynamic' model='apparmor' relabel='yes'/>",
            "<seclabel type='dynamic' model='apparmor'><label>x</label></seclabel>",
            "<seclabel type='none' model='selinux'/><seclabel type='static' model='dac' relabel='no'><label>0:0</label></seclabel>",
            "<seclabel type='none' model='none'/>",
            "<seclabel type='dynamic' relabel='yes'/>",
            "<seclabel type='dynamic' model='selinux' relabel='yes'><baselabel>x</baselabel></seclabel>",
        ] {
            assert_eq!(notes(labels), Ok(Vec::new()), "{labels}");
        }
    }

    #[test]
    fn a_guest_that_asks_not_to_be_confined_is_named() {
        for labels in [
            "<seclabel type='none' model='apparmor'/>",
            "<seclabel type='none'/>",
            "<seclabel type='none' model='apparmor' relabel='no'/>",
        ] {
            let notes = notes(labels).unwrap();
            assert!(notes.len() == 1 && notes[0].contains("asks not to be confined"), "{labels}: {notes:?}");
        }
    }

    #[test]
    fn a_static_label_is_the_guests_own_or_is_named() {
        let label = |label: &str| {
            notes(&format!("<seclabel type='static' model='apparmor'><label>{label}</label></seclabel>"))
        };
        assert!(label("libvirt-a22e3930-d87a-584e-22b2-1d8950212bac").unwrap()[0].contains("must be loaded"));
        assert!(label("unconfined").unwrap()[0].contains("\"unconfined\" is not entered"));
        assert!(label("").is_err());
    }

    #[test]
    fn what_libvirt_refuses_is_refused() {
        for labels in [
            "<seclabel type='dynamic' model='apparmor'><baselabel>x</baselabel></seclabel>",
            "<seclabel type='dynamic' model='apparmor' relabel='no'/>",
            "<seclabel type='strange' model='apparmor'/>",
            "<seclabel type='none' model='apparmor'/><seclabel type='none' model='apparmor'/>",
        ] {
            assert!(notes(labels).is_err(), "{labels}");
        }
        let notes = notes("<seclabel type='dynamic' model='smack'/>").unwrap();
        assert_eq!(notes.len(), 1);
    }
}
