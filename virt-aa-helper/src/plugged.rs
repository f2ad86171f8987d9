//! The image that libvirtd is plugging in, and the layers below it.
//!
//! libvirtd labels an image with its whole chain, one `-F` for each file from the top down, before the XML has the
//! disk. The layers are only read, whoever else they are the base of. A block job asks for the file that it
//! writes by the same `-F`; what tells the two apart is the image that was named before.

use std::collections::BTreeSet;

use aa_contract::{LiteralPath, Rule, Target};
use aa_derive::host::{Files, Host as _};
use aa_derive::image::{self, Format, ImageHost as _, LayerKind, Reader, Said, TopImage, Total};
use aa_derive::path_policy::{Owner, PathPolicy, Want};
use serde::{Deserialize, Serialize};

use crate::appended::find;

/// The last image that `-F` named and that was no layer of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugged {
    /// Where it is.
    pub image: LiteralPath,
    /// Whether the XML had it as the medium of a drive by then, as when one medium takes the place of another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_medium: bool,
}

impl Plugged {
    /// What a file that `-F` names may be, given the rules of the XML at that time: anything but a layer there,
    /// which a block job is about to write, and what the XML declares raw. That has nothing below it, and what looks like
    /// a header in it the guest has written.
    pub fn new(target: &Target, derived: &[Rule], is_raw: impl FnOnce(&str) -> bool) -> Option<Self> {
        let Target::Path(image) = target else { return None };
        if is_raw(image.as_str()) {
            return None;
        }
        let named = find(derived, target);
        let is_layer = |rule: &Rule| rule.origin.as_ref().is_some_and(|origin| origin.layer.is_some());
        if named.is_some_and(is_layer) {
            return None;
        }
        Some(Self { image: image.clone(), is_medium: named.is_some() })
    }

    /// Whether `target` lies below the image and is only read there. Not so if the XML has taken the image in
    /// since: then it is plugged in, or was a snapshot's, and what comes now is a block job.
    ///
    /// The headers are believed although nobody has declared their formats: libvirtd names a disk before its XML does. A
    /// guest that had written one would lose by it, since what comes of it is less than libvirtd asked for. Of a chain
    /// that is too long to be one only what was found before is known.
    pub fn has_below(
        &self,
        target: &Target,
        derived: &[Rule],
        policy: &PathPolicy,
        owner: Owner<'_>,
        files: &Files,
    ) -> bool {
        let Target::Path(path) = target else { return false };
        if !self.is_medium && find(derived, &Target::Path(self.image.clone())).is_some() {
            return false;
        }
        let resolve = |path: &str| files.resolve(path).map(|resolved| resolved.path);
        let judged = |path: &str| -> Result<String, String> {
            let path = resolve(path).map_err(|error| error.to_string())?;
            policy.check(&path, Want::Read, owner).map_err(ToString::to_string)?;
            Ok(path)
        };
        let mut found = None;
        let mut total = Total::default();
        let mut seen = BTreeSet::new();
        let mut images = vec![self.image.as_str().to_owned()];
        // A walk ends at a layer whose format the one above does not declare; the disk that is plugged in may.
        while let Some(image) = images.pop() {
            if !seen.insert(image.clone()) {
                continue;
            }
            let Some(format) = judged(&image).ok().and_then(|judged| format_of(files, &judged)) else {
                continue;
            };
            let top = TopImage { path: &image, format: Some(format), readonly: false, said: Said::default() };
            let walked = image::walk(files.images(), &|named| judged(named.path), top, image::LIMIT);
            let Ok(chain) = walked.and_then(|chain| total.add(&chain).map(|()| chain)) else { break };
            for layer in chain.layers {
                let Ok(at) = resolve(&layer.path) else { continue };
                if at == path.as_str() {
                    *found.get_or_insert(false) |= layer.access.writes();
                }
                if layer.kind == LayerKind::Backing {
                    images.push(at);
                }
            }
        }
        found == Some(false)
    }
}

fn format_of(files: &Files, image: &str) -> Option<Format> {
    let opened = files.images().open(image).ok()?;
    image::detect(&mut Reader::new(&*opened)).ok()
}
