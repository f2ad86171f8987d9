//! Real domains, changed: elements taken out, doubled or taken over from another domain, and values exchanged for
//! others that stand in the same place somewhere. What comes out is well-formed.

use std::collections::BTreeMap;
use std::ops::Range;

use aa_tests::numbers::Numbers;

/// Values that are wrong, hostile or rare anywhere.
const VALUES: [&str; 17] = [
    "",
    "/",
    "/etc/shadow",
    "/srv/images/../../etc/shadow",
    "/usr/share/OVMF/OVMF_VARS.fd",
    "/var/lib/libvirt/qemu/domain-42-neighbour/monitor.sock",
    "/run/libvirt/virtqemud-sock",
    "/srv/a b/[x]*{y}?",
    "/srv/a/",
    "//srv//a/./b",
    "relative/path",
    "@{HOME}/x",
    "-1",
    "4294967296",
    "no",
    "unix",
    "file",
];

/// Domains to change and to take from.
#[derive(Debug, Default)]
pub(super) struct Herd {
    domains: Vec<String>,
    /// Values by the name of their attribute or element.
    values: BTreeMap<String, Vec<String>>,
    /// Devices and other elements, whole.
    elements: Vec<String>,
}

/// What a document is made of.
#[derive(Debug, Default)]
struct Places {
    /// Elements within the outermost, with all that is in them, by name.
    elements: Vec<(String, Range<usize>)>,
    /// Values of attributes and texts of elements, by name.
    values: Vec<(String, Range<usize>)>,
    /// Where `</devices>` stands.
    devices_end: Option<usize>,
}

impl Herd {
    /// Takes a domain in; other documents are passed over.
    pub(super) fn add(&mut self, xml: &str) {
        let places = places(xml);
        if !xml.contains("<domain ") || !xml.contains("<uuid>") || places.devices_end.is_none() {
            return;
        }
        for (name, range) in &places.values {
            let value = xml.get(range.clone()).unwrap_or_default().to_owned();
            let known = self.values.entry(name.clone()).or_default();
            if !known.contains(&value) {
                known.push(value);
            }
        }
        let elements = places.elements.iter().filter_map(|(_, range)| xml.get(range.clone()));
        self.elements.extend(elements.filter(|element| element.len() < 2000).map(str::to_owned));
        self.domains.push(xml.to_owned());
    }

    pub(super) fn len(&self) -> usize {
        self.domains.len()
    }

    /// One of the domains with a few changes.
    pub(super) fn changed(&self, numbers: &mut Numbers) -> Option<String> {
        let mut xml = numbers.one(&self.domains)?.clone();
        for _ in 0..=numbers.below(3) {
            self.change(&mut xml, numbers);
        }
        Some(xml)
    }

    fn change(&self, xml: &mut String, numbers: &mut Numbers) {
        let places = places(xml);
        match numbers.below(6) {
            0 => {
                if let Some((_, range)) = numbers.one(&places.elements) {
                    xml.replace_range(range.clone(), "");
                }
            }
            1 => {
                if let Some((_, range)) = numbers.one(&places.elements) {
                    let again = xml.get(range.clone()).unwrap_or_default().to_owned();
                    xml.insert_str(range.end, &again);
                }
            }
            2 => {
                if let (Some(at), Some(element)) = (places.devices_end, numbers.one(&self.elements)) {
                    xml.insert_str(at, element);
                }
            }
            _ => {
                if let Some((name, range)) = numbers.one(&places.values) {
                    let alike = self.values.get(name).map_or(&[][..], Vec::as_slice);
                    let strange = numbers.below(4) == 0 || alike.is_empty();
                    let value = if strange { None } else { numbers.one(alike).map(String::as_str) };
                    let value = value.or_else(|| numbers.one(&VALUES).copied()).unwrap_or_default();
                    xml.replace_range(range.clone(), value);
                }
            }
        }
    }
}

/// Finds the places of a well-formed document without comments in odd places; of another, some.
fn places(xml: &str) -> Places {
    let mut places = Places::default();
    let mut open: Vec<(&str, usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(start) = xml.get(at..).and_then(|rest| rest.find('<')).map(|start| at + start) {
        let rest = xml.get(start..).unwrap_or_default();
        let ends = if rest.starts_with("<!--") { "-->" } else { ">" };
        let Some(length) = rest.find(ends) else { return places };
        let end = start + length + ends.len();
        let tag = xml.get(start + 1..end - 1).unwrap_or_default();
        if let Some(name) = tag.strip_prefix('/') {
            if name.trim() == "devices" {
                places.devices_end = Some(start);
            }
            if let Some((name, from, inside)) = open.pop() {
                let has_children = xml.get(inside..start).unwrap_or_default().contains('<');
                if !has_children && inside < start && !matches!(name, "uuid") {
                    places.values.push((name.to_owned(), inside..start));
                }
                if !open.is_empty() && !matches!(name, "uuid" | "name" | "devices") {
                    places.elements.push((name.to_owned(), from..end));
                }
            }
        } else if !tag.starts_with(['!', '?']) {
            let name = tag.split([' ', '\n', '\t', '/']).next().unwrap_or_default();
            attributes(tag, start + 1, &mut places.values);
            if tag.ends_with('/') {
                if !open.is_empty() {
                    places.elements.push((name.to_owned(), start..end));
                }
            } else {
                open.push((name, start, end));
            }
        }
        at = end;
    }
    places
}

/// The values in a tag that starts at `base`.
fn attributes(tag: &str, base: usize, values: &mut Vec<(String, Range<usize>)>) {
    let mut at = 0;
    while let Some(equals) = tag.get(at..).and_then(|rest| rest.find('=')).map(|equals| at + equals) {
        let name = tag.get(at..equals).unwrap_or_default().split_whitespace().last().unwrap_or_default();
        let rest = tag.get(equals + 1..).unwrap_or_default();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return };
        let Some(length) = rest.get(1..).and_then(|rest| rest.find(quote)) else { return };
        let start = equals + 2;
        if !name.starts_with("xmlns") {
            values.push((name.to_owned(), base + start..base + start + length));
        }
        at = start + length + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='kvm'>\n<name>a</name><uuid>u</uuid><devices><disk type=\"file\"><source file='/a'/></disk></devices></domain>";

    #[test]
    fn places_are_found() {
        let places = places(XML);
        let text = |range: &Range<usize>| XML.get(range.clone()).unwrap();
        let values: Vec<(&str, &str)> =
            places.values.iter().map(|(name, range)| (name.as_str(), text(range))).collect();
        assert_eq!(values, [("type", "kvm"), ("name", "a"), ("type", "file"), ("file", "/a")]);
        let elements: Vec<&str> = places.elements.iter().map(|(_, range)| text(range)).collect();
        assert_eq!(elements, ["<source file='/a'/>", "<disk type=\"file\"><source file='/a'/></disk>"]);
        assert!(XML.get(places.devices_end.unwrap()..).unwrap().starts_with("</devices>"));
    }

    #[test]
    fn changes_differ_and_keep_the_document_whole() {
        let mut herd = Herd::default();
        herd.add(XML);
        herd.add("<network><uuid>u</uuid></network>");
        assert_eq!(herd.len(), 1);
        let mut numbers = Numbers::new(1);
        let changed: std::collections::BTreeSet<String> =
            (0..200).filter_map(|_| herd.changed(&mut numbers)).collect();
        assert!(changed.len() > 20, "{}", changed.len());
        assert!(changed.iter().all(|xml| xml.contains("<uuid>u</uuid>") && xml.ends_with("</domain>")));
    }
}
