//! A strict element tree over quick-xml, with the place of every element.
//!
//! quick-xml's event loop takes truncated input, a second root, text around the root, a DTD,
//! illegal characters and more; here each of these is an error with line and column. Text that
//! entities or CDATA split comes back whole. There is no input or output here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aa_contract::text::Printable;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, XmlVersion};
use thiserror::Error;

/// Largest document, in bytes: the limit of libvirt's own helper (virt-aa-helper reads 10 MiB).
pub const MAX_BYTES: usize = 10 * 1024 * 1024;
/// Deepest nesting: room for a backing chain of 200 written out in full.
const MAX_DEPTH: usize = 1024;
/// Most elements: as many as the largest document has of forty bytes each. Each takes some two hundred bytes of memory.
const MAX_ELEMENTS: usize = 256 * 1024;
/// Most attributes of one element.
const MAX_ATTRIBUTES: usize = 256;
/// Longest name of a namespace, in bytes: each attribute with a prefix is compared by it. Libvirt's own have fifty.
const MAX_NAMESPACE: usize = 256;

/// The namespace of libvirt's QEMU pass-through elements (libvirt: `drvqemu`, «Pass-through of arbitrary QEMU commands»).
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// A place in a document: line and column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a document was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct XmlError {
    /// Where in the document.
    pub pos: Pos,
    /// What is wrong.
    pub kind: XmlErrorKind,
}

/// What can be wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum XmlErrorKind {
    #[error("the input is empty")]
    Empty,
    #[error("the input is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the input is not UTF-8")]
    NotUtf8,
    #[error("the encoding \"{}\" is not read here: use UTF-8", Printable(.0))]
    Encoding(String),
    #[error("character U+{0:04X} is not allowed in XML")]
    IllegalCharacter(u32),
    #[error("{}", Printable(.0))]
    Syntax(String),
    #[error("the input ends inside element <{}>", Printable(.0))]
    Truncated(String),
    #[error("there is a second root element")]
    SecondRoot,
    #[error("there is text outside the root element")]
    StrayText,
    #[error("a document type declaration is not allowed")]
    Doctype,
    #[error("entity &{}; is not defined", Printable(.0))]
    UndefinedEntity(String),
    #[error("namespace prefix \"{}\" is not bound", Printable(.0))]
    UnboundPrefix(String),
    #[error("\"{}\" is not an XML name", Printable(.0))]
    BadName(String),
    #[error("attribute \"{}\" stands twice", Printable(.0))]
    DuplicateAttribute(String),
    #[error("elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("there are more than {MAX_ELEMENTS} elements")]
    TooManyElements,
    #[error("an element has more than {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
    #[error("the name of a namespace is longer than {MAX_NAMESPACE} bytes")]
    NamespaceTooLong,
}

/// The namespaces that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Namespace {
    None,
    Qemu,
    Other,
}

/// A parsed document. Elements live in one vector, so dropping a deep tree needs no deep stack.
#[derive(Debug)]
pub struct Document<'i> {
    elements: Vec<Data<'i>>,
}

#[derive(Debug)]
struct Data<'i> {
    name: &'i str,
    namespace: Namespace,
    attributes: Vec<(&'i str, Cow<'i, str>)>,
    text: Cow<'i, str>,
    children: Vec<usize>,
    parent: Option<usize>,
    /// Position among the siblings of the same name, from 1.
    index: u32,
    pos: Pos,
}

/// One element of a document.
#[derive(Debug, Clone, Copy)]
pub struct Element<'d> {
    document: &'d Document<'d>,
    id: usize,
}

impl<'d> Element<'d> {
    #[expect(clippy::indexing_slicing, reason = "ids are made only by the document that holds them")]
    fn data(&self) -> &'d Data<'d> {
        &self.document.elements[self.id]
    }

    /// Local name, whatever the namespace: see [`Element::is_plain`].
    pub fn name(&self) -> &'d str {
        self.data().name
    }

    /// Whether this is an element in no namespace, as all of libvirt's are but those of its QEMU pass-through.
    pub fn is_plain(&self) -> bool {
        self.data().namespace == Namespace::None
    }

    /// Whether this is `name` in libvirt's QEMU namespace.
    pub fn is_qemu(&self, name: &str) -> bool {
        self.data().namespace == Namespace::Qemu && self.data().name == name
    }

    /// Value of an attribute in no namespace.
    pub fn attr(&self, name: &str) -> Option<&'d str> {
        self.data().attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value)
    }

    /// The element's own text, of all its pieces.
    pub fn text(&self) -> &'d str {
        &self.data().text
    }

    /// Every child element.
    pub fn elements(&self) -> impl Iterator<Item = Element<'d>> + use<'d> {
        let document = self.document;
        self.data().children.iter().map(move |&id| Element { document, id })
    }

    /// The children of this name, in no namespace.
    pub fn children(&self, name: &'static str) -> impl Iterator<Item = Element<'d>> + use<'d> {
        self.elements().filter(move |child| child.is_plain() && child.name() == name)
    }

    /// The first child of this name, in no namespace.
    pub fn child(&self, name: &'static str) -> Option<Element<'d>> {
        self.children(name).next()
    }

    /// The first element at the end of a path of names, as libvirt's path expressions find it: also in the second of two elements
    /// on the way.
    pub fn at(&self, path: &[&'static str]) -> Option<Element<'d>> {
        match path {
            [] => Some(*self),
            [name, rest @ ..] => self.children(name).find_map(|child| child.at(rest)),
        }
    }

    /// Where the element starts.
    pub fn pos(&self) -> Pos {
        self.data().pos
    }

    /// Path from below the root, as in `devices/disk[1]/source`. Devices always carry their
    /// position among those of the same name; other elements do from the second on.
    pub fn path(&self) -> String {
        let mut parts = Vec::new();
        let mut at = *self;
        while let Some(parent) = at.data().parent.map(|id| Element { document: self.document, id }) {
            let index = at.data().index;
            let name = match at.data().namespace {
                Namespace::None => at.name().to_owned(),
                Namespace::Qemu => format!("qemu:{}", at.name()),
                Namespace::Other => format!("?:{}", at.name()),
            };
            parts.push(if index > 1 || parent.name() == "devices" {
                format!("{name}[{index}]")
            } else {
                name
            });
            at = parent;
        }
        parts.reverse();
        parts.join("/")
    }
}

impl<'i> Document<'i> {
    /// Parses a whole document.
    ///
    /// # Errors
    /// [`XmlError`]: the document is not well-formed XML 1.0 with namespaces, has a DTD, or is over a limit.
    pub fn parse(bytes: &'i [u8]) -> Result<Self, XmlError> {
        let start = Pos { line: 1, column: 1 };
        if bytes.len() > MAX_BYTES {
            return Err(XmlError { pos: start, kind: XmlErrorKind::TooLarge });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            XmlError { pos: place(&String::from_utf8_lossy(valid)), kind: XmlErrorKind::NotUtf8 }
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_ascii().is_empty() {
            return Err(XmlError { pos: start, kind: XmlErrorKind::Empty });
        }
        if let Some((offset, c)) = text.char_indices().find(|(_, c)| !is_xml_char(*c)) {
            let pos = place(text.get(..offset).unwrap_or_default());
            return Err(XmlError { pos, kind: XmlErrorKind::IllegalCharacter(u32::from(c)) });
        }
        Builder::new(text).run()
    }

    /// The root element.
    pub fn root(&'i self) -> Element<'i> {
        Element { document: self, id: 0 }
    }
}

/// Line and column just behind `before`.
fn place(before: &str) -> Pos {
    let mut cursor = Cursor::default();
    cursor.advance(before);
    cursor.pos
}

/// Walks the text once, in step with the reader.
#[derive(Debug)]
struct Cursor {
    offset: usize,
    pos: Pos,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { offset: 0, pos: Pos { line: 1, column: 1 } }
    }
}

impl Cursor {
    fn advance(&mut self, piece: &str) {
        self.offset += piece.len();
        for byte in piece.bytes() {
            if byte == b'\n' {
                self.pos.line = self.pos.line.saturating_add(1);
                self.pos.column = 1;
            } else if !is_continuation(byte) {
                self.pos.column = self.pos.column.saturating_add(1);
            }
        }
    }
}

/// Whether a byte of UTF-8 is not the first of its character.
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// An element that is not closed yet.
struct Open<'i> {
    id: usize,
    /// How many children of each name it has so far.
    counts: BTreeMap<(Namespace, &'i str), u32>,
}

struct Builder<'i> {
    text: &'i str,
    reader: NsReader<&'i [u8]>,
    cursor: Cursor,
    elements: Vec<Data<'i>>,
    open: Vec<Open<'i>>,
    root_closed: bool,
}

impl<'i> Builder<'i> {
    fn new(text: &'i str) -> Self {
        let mut reader = NsReader::from_str(text);
        reader.config_mut().check_comments = true;
        Self {
            text,
            reader,
            cursor: Cursor::default(),
            elements: Vec::new(),
            open: Vec::new(),
            root_closed: false,
        }
    }

    fn fail<T>(&self, kind: XmlErrorKind) -> Result<T, XmlError> {
        Err(XmlError { pos: self.cursor.pos, kind })
    }

    fn syntax<T>(&self, message: impl fmt::Display) -> Result<T, XmlError> {
        self.fail(XmlErrorKind::Syntax(message.to_string()))
    }

    /// Moves the cursor to a byte offset of the text.
    fn move_to(&mut self, offset: u64) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(piece) = self.text.get(self.cursor.offset..offset) {
            self.cursor.advance(piece);
        }
    }

    fn run(mut self) -> Result<Document<'i>, XmlError> {
        loop {
            let start = self.reader.buffer_position();
            self.move_to(start);
            let (namespace, event) = match self.reader.read_resolved_event() {
                Ok((ResolveResult::Unbound, event)) => (Ok(Namespace::None), event),
                Ok((ResolveResult::Bound(uri), event)) if uri.0 == QEMU_NAMESPACE => {
                    (Ok(Namespace::Qemu), event)
                }
                Ok((ResolveResult::Bound(uri), event)) if uri.0.is_empty() => (Ok(Namespace::None), event),
                Ok((ResolveResult::Bound(_), event)) => (Ok(Namespace::Other), event),
                Ok((ResolveResult::Unknown(prefix), event)) => (Err(prefix.clone()), event),
                Err(error) => {
                    self.move_to(self.reader.error_position());
                    return self.syntax(error);
                }
            };
            let namespace = match namespace {
                Ok(namespace) => namespace,
                Err(prefix) => return self.fail(XmlErrorKind::UnboundPrefix(prefix)),
            };
            match event {
                Event::Start(tag) => self.open_element(&tag, namespace)?,
                Event::Empty(tag) => {
                    self.open_element(&tag, namespace)?;
                    self.close_element();
                }
                Event::End(_) => self.close_element(),
                Event::Text(piece) => {
                    let raw = piece.xml10_content();
                    if raw.contains("]]>") {
                        return self.syntax("\"]]>\" stands in text");
                    }
                    self.push_text(raw)?;
                }
                Event::CData(piece) => {
                    if self.open.is_empty() {
                        return self.fail(XmlErrorKind::StrayText);
                    }
                    self.push_text(piece.xml10_content())?;
                }
                Event::GeneralRef(reference) => {
                    if self.open.is_empty() {
                        return self.fail(XmlErrorKind::StrayText);
                    }
                    let c = self.resolve(&reference)?;
                    self.push_text(c.to_string().into())?;
                }
                Event::Decl(declaration) => {
                    if start != 0 {
                        return self.syntax("the XML declaration is not at the start");
                    }
                    if let Some(encoding) = declaration.encoding() {
                        let encoding = encoding.or_else(|error| self.syntax(error))?;
                        if !encoding.eq_ignore_ascii_case("utf-8")
                            && !encoding.eq_ignore_ascii_case("us-ascii")
                        {
                            return self.fail(XmlErrorKind::Encoding(encoding.into_owned()));
                        }
                    }
                    if !declaration.version().is_ok_and(|version| version == "1.0") {
                        return self.syntax("only XML 1.0 is read here");
                    }
                }
                Event::DocType(_) => return self.fail(XmlErrorKind::Doctype),
                Event::PI(instruction) => {
                    if instruction.target().eq_ignore_ascii_case("xml") {
                        return self.syntax("a processing instruction cannot be called xml");
                    }
                }
                Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        if let Some(open) = self.open.last() {
            let name = self.elements.get(open.id).map_or("", |data| data.name).to_owned();
            return self.fail(XmlErrorKind::Truncated(name));
        }
        if self.elements.is_empty() {
            return self.fail(XmlErrorKind::Empty);
        }
        Ok(Document { elements: self.elements })
    }

    fn open_element(&mut self, tag: &BytesStart<'_>, namespace: Namespace) -> Result<(), XmlError> {
        if self.root_closed {
            return self.fail(XmlErrorKind::SecondRoot);
        }
        if self.open.len() >= MAX_DEPTH {
            return self.fail(XmlErrorKind::TooDeep);
        }
        if self.elements.len() == MAX_ELEMENTS {
            return self.fail(XmlErrorKind::TooManyElements);
        }
        let Some(full) = self.borrow(tag.name().0) else {
            return self.syntax("an element starts in an unexpected place");
        };
        self.check_name(full)?;
        let attributes = self.attributes(tag)?;
        let name = full.rsplit_once(':').map_or(full, |(_, local)| local);
        let parent = self.open.last().map(|open| open.id);
        let id = self.elements.len();
        let mut index = 1;
        if let Some(open) = self.open.last_mut() {
            let count = open.counts.entry((namespace, name)).or_default();
            *count = count.saturating_add(1);
            index = *count;
        }
        self.elements.push(Data {
            name,
            namespace,
            attributes,
            text: Cow::default(),
            children: Vec::new(),
            parent,
            index,
            pos: self.cursor.pos,
        });
        if let Some(data) = parent.and_then(|parent| self.elements.get_mut(parent)) {
            data.children.push(id);
        }
        self.open.push(Open { id, counts: BTreeMap::new() });
        Ok(())
    }

    fn close_element(&mut self) {
        self.open.pop();
        self.root_closed = self.open.is_empty();
    }

    fn push_text(&mut self, piece: Cow<'i, str>) -> Result<(), XmlError> {
        match self.open.last().and_then(|open| self.elements.get_mut(open.id)) {
            Some(data) => data.text += piece,
            None if piece.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n')) => {}
            None => return self.fail(XmlErrorKind::StrayText),
        }
        Ok(())
    }

    fn attributes(&self, tag: &BytesStart<'_>) -> Result<Vec<(&'i str, Cow<'i, str>)>, XmlError> {
        if !attributes_are_apart(tag.attributes_raw()) {
            return self.syntax("attributes must stand apart");
        }
        let mut attributes = Vec::new();
        let mut seen = BTreeSet::new();
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.or_else(|error| self.syntax(error))?;
            if seen.len() == MAX_ATTRIBUTES {
                return self.fail(XmlErrorKind::TooManyAttributes);
            }
            let key = attribute.key.0;
            self.check_name(key)?;
            if attribute.value.contains('<') {
                return self.syntax("\"<\" stands in an attribute value");
            }
            let value = match attribute.normalized_value(XmlVersion::Explicit1_0) {
                Ok(value) => self.borrow(&value).map_or_else(|| value.into_owned().into(), Cow::Borrowed),
                Err(quick_xml::Error::Escape(quick_xml::escape::EscapeError::UnrecognizedEntity(
                    _,
                    name,
                ))) => {
                    return self.fail(XmlErrorKind::UndefinedEntity(name));
                }
                Err(error) => return self.syntax(error),
            };
            if let Some(c) = value.chars().find(|c| !is_xml_char(*c)) {
                return self.fail(XmlErrorKind::IllegalCharacter(u32::from(c)));
            }
            let is_binding = attribute.key.as_namespace_binding().is_some();
            if is_binding && attribute.value.len() > MAX_NAMESPACE {
                return self.fail(XmlErrorKind::NamespaceTooLong);
            }
            let (resolved, local) = self.reader.resolver().resolve_attribute(attribute.key);
            let namespace = match resolved {
                ResolveResult::Unbound => "",
                ResolveResult::Bound(uri) => uri.0,
                ResolveResult::Unknown(prefix) => {
                    return self.fail(XmlErrorKind::UnboundPrefix(prefix.clone()));
                }
            };
            if !seen.insert((local.into_inner(), namespace)) {
                return self.fail(XmlErrorKind::DuplicateAttribute(key.to_owned()));
            }
            if namespace.is_empty() && !is_binding {
                let Some(key) = self.borrow(key) else {
                    return self.syntax("an attribute starts in an unexpected place");
                };
                attributes.push((key, value));
            }
        }
        Ok(attributes)
    }

    /// The same characters, borrowed from the text that the reader hands out pieces of.
    fn borrow(&self, piece: &str) -> Option<&'i str> {
        let at = piece.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        self.text.get(at..at.checked_add(piece.len())?).filter(|found| *found == piece)
    }

    fn resolve(&self, reference: &BytesRef<'_>) -> Result<char, XmlError> {
        if reference.is_char_ref() {
            return match reference.resolve_char_ref() {
                Ok(Some(c)) if is_xml_char(c) => Ok(c),
                Ok(Some(c)) => self.fail(XmlErrorKind::IllegalCharacter(u32::from(c))),
                Ok(None) => self.syntax("not a character reference"),
                Err(error) => self.syntax(error),
            };
        }
        match &*reference.xml10_content() {
            "amp" => Ok('&'),
            "lt" => Ok('<'),
            "gt" => Ok('>'),
            "quot" => Ok('"'),
            "apos" => Ok('\''),
            other => self.fail(XmlErrorKind::UndefinedEntity(other.to_owned())),
        }
    }

    fn check_name(&self, name: &str) -> Result<(), XmlError> {
        let ok = |part: &str| {
            let mut chars = part.chars();
            chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && chars.all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '\u{b7}'))
        };
        let good = match name.split_once(':') {
            Some((prefix, local)) => ok(prefix) && ok(local),
            None => ok(name),
        };
        if good { Ok(()) } else { self.fail(XmlErrorKind::BadName(name.to_owned())) }
    }
}

/// Whether each closing quote is followed by white space or the end.
fn attributes_are_apart(raw: &str) -> bool {
    let mut quote = None;
    let mut closed = false;
    for byte in raw.bytes() {
        match quote {
            Some(open) if byte == open => (quote, closed) = (None, true),
            Some(_) => {}
            None if closed && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => return false,
            None => {
                closed = false;
                if matches!(byte, b'"' | b'\'') {
                    quote = Some(byte);
                }
            }
        }
    }
    quote.is_none()
}

/// `Char` of XML 1.0, §2.2.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> XmlError {
        Document::parse(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn places_text_and_paths() {
        let text = "<?xml version='1.0' encoding='UTF-8'?>\n<!-- x -->\n<domain type='kvm'>\n  <name>a&amp;b<![CDATA[<c>]]>&#x64;</name>\n  \
                    <devices><disk/>\n<disk a='&lt;1&#10;2'><source/></disk></devices>\n</domain>\n";
        let document = Document::parse(text.as_bytes()).unwrap();
        let root = document.root();
        assert_eq!(root.attr("type"), Some("kvm"));
        assert_eq!(root.child("name").unwrap().text(), "a&b<c>d");
        assert_eq!(root.child("name").unwrap().pos(), Pos { line: 4, column: 3 });
        let disk = root.at(&["devices"]).unwrap().children("disk").nth(1).unwrap();
        assert_eq!(disk.attr("a"), Some("<1\n2"));
        assert_eq!(disk.child("source").unwrap().path(), "devices/disk[2]/source");
        assert_eq!(disk.pos(), Pos { line: 6, column: 1 });
    }

    #[test]
    fn a_path_leads_through_each_of_two_elements() {
        let text = "<domain><os/><os><nvram>1</nvram><nvram>2</nvram></os></domain>";
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.root().at(&["os", "nvram"]).unwrap().text(), "1");
        assert!(document.root().at(&["os", "loader"]).is_none());
    }

    #[test]
    fn namespaces_are_honoured() {
        let text = "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0' xmlns:x='urn:x'><q:commandline/><x:name>no</x:name>\
                    <name x:a='1' a='2'/></domain>";
        let document = Document::parse(text.as_bytes()).unwrap();
        let root = document.root();
        assert!(root.elements().next().unwrap().is_qemu("commandline"));
        assert_eq!(root.child("name").unwrap().attr("a"), Some("2"));
        assert_eq!(root.children("name").count(), 1);
        let other = Document::parse(b"<domain xmlns='urn:x'><name/></domain>").unwrap();
        assert!(other.root().child("name").is_none());
    }

    #[test]
    fn what_is_not_well_formed_is_refused_with_its_place() {
        use XmlErrorKind as K;
        for (text, line, column, kind) in [
            ("", 1, 1, K::Empty),
            (" \n ", 1, 1, K::Empty),
            ("<a>\n<b>", 2, 4, K::Truncated("b".into())),
            ("<a>\n\u{20ac}\u{1f600}é<b>", 2, 7, K::Truncated("b".into())),
            ("<a/>\n<b/>", 2, 1, K::SecondRoot),
            ("<a/>x", 1, 5, K::StrayText),
            ("x<a/>", 1, 1, K::StrayText),
            ("<a/>&amp;", 1, 5, K::StrayText),
            ("<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", 1, 1, K::Doctype),
            ("<a>&e;</a>", 1, 4, K::UndefinedEntity("e".into())),
            ("<a b='&e;'/>", 1, 1, K::UndefinedEntity("e".into())),
            ("<a>\u{1}</a>", 1, 4, K::IllegalCharacter(1)),
            ("<a>&#1;</a>", 1, 4, K::IllegalCharacter(1)),
            ("<a b='1' b='2'/>", 1, 1, K::DuplicateAttribute("b".into())),
            ("<x:a/>", 1, 1, K::UnboundPrefix("x".into())),
            ("<a x:b=''/>", 1, 1, K::UnboundPrefix("x".into())),
            ("<1a/>", 1, 1, K::BadName("1a".into())),
            ("<?xml version='1.0' encoding='latin1'?><a/>", 1, 1, K::Encoding("latin1".into())),
        ] {
            assert_eq!(error(text), XmlError { pos: Pos { line, column }, kind }, "{text}");
        }
        for text in [
            "<a></b>",
            "<a",
            "<a b>",
            "<a b=c/>",
            "<a b='1'c='2'/>",
            "<a b='<'/>",
            "<a>]]></a>",
            "<a><!-- -- --></a>",
            "</a>",
            "<a/></a>",
            " <?xml version='1.0'?><a/>",
            "<a>&</a>",
            "<a>&#xD800;</a>",
            "<a><![CDATA[x</a>",
            "<a><!-- x</a>",
            "<?xml version='1.1'?><a/>",
        ] {
            error(text);
        }
        assert_eq!(Document::parse(b"<a>\xff</a>").unwrap_err().kind, K::NotUtf8);
        assert_eq!(error(&format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000))).kind, K::TooDeep);
        assert_eq!(error(&" ".repeat(50_000_000)).kind, K::TooLarge);
    }

    /// With a comparison of each with each, the second would take minutes.
    #[test]
    fn very_many_attributes_and_elements_are_refused_and_many_siblings_counted() {
        let element = |count: usize| {
            let attributes: Vec<String> = (0..count).map(|number| format!("a{number}='x'")).collect();
            format!("<a {}/>", attributes.join(" "))
        };
        let most = element(MAX_ATTRIBUTES);
        assert_eq!(Document::parse(most.as_bytes()).unwrap().root().attr("a255"), Some("x"));
        assert_eq!(error(&element(MAX_ATTRIBUTES + 1)).kind, XmlErrorKind::TooManyAttributes);

        let siblings: Vec<String> = (0..100_000).map(|number| format!("<a{number}/><b/>")).collect();
        let text = format!("<domain>{}</domain>", siblings.concat());
        let document = Document::parse(text.as_bytes()).unwrap();
        let last: Vec<String> =
            document.root().elements().skip(199_998).map(|element| element.path()).collect();
        assert_eq!(last, ["a99999", "b[100000]"]);

        let with = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count - 1));
        assert!(Document::parse(with(MAX_ELEMENTS).as_bytes()).is_ok());
        assert_eq!(error(&with(MAX_ELEMENTS + 1)).kind, XmlErrorKind::TooManyElements);
    }

    /// Each attribute is compared with the others of its element by its namespace: one of two megabytes, and elements
    /// full of attributes in it, would take hours.
    #[test]
    fn a_namespace_with_a_very_long_name_is_refused() {
        let bound = |binding: &str, length: usize| format!("<a {binding}='{}'/>", "u".repeat(length));
        for binding in ["xmlns", "xmlns:p"] {
            assert!(Document::parse(bound(binding, MAX_NAMESPACE).as_bytes()).is_ok(), "{binding}");
            assert_eq!(error(&bound(binding, MAX_NAMESPACE + 1)).kind, XmlErrorKind::NamespaceTooLong);
        }
        // Other attributes are as long as they like.
        assert!(Document::parse(bound("b", 1 << 20).as_bytes()).is_ok());

        let full: Vec<String> = (0..MAX_ATTRIBUTES).map(|number| format!("p:a{number:03}=''")).collect();
        let full = format!("<b {}/>", full.join(" ")).repeat(1000);
        let text = |uri: &str| format!("<a xmlns:p='{uri}'>{full}</a>");
        assert!(Document::parse(text(&"u".repeat(MAX_NAMESPACE)).as_bytes()).is_ok());
        assert_eq!(error(&text(&"u".repeat(2 << 20))).kind, XmlErrorKind::NamespaceTooLong);
    }

    #[test]
    fn one_attribute_under_two_prefixes_of_one_namespace_stands_twice() {
        let text = |uri: &str| format!("<a xmlns:p='u' xmlns:q='{uri}'><b p:c='' q:c='' c=''/></a>");
        assert_eq!(error(&text("u")).kind, XmlErrorKind::DuplicateAttribute("q:c".into()));
        assert!(Document::parse(text("v").as_bytes()).is_ok());
    }

    /// The same tree as roxmltree sees: names, attributes, text.
    fn same(ours: Element<'_>, oracle: roxmltree::Node<'_, '_>) -> bool {
        let text: String =
            oracle.children().filter(roxmltree::Node::is_text).filter_map(|node| node.text()).collect();
        let children: Vec<_> = oracle.children().filter(roxmltree::Node::is_element).collect();
        ours.name() == oracle.tag_name().name()
            && ours.text() == text
            && ours.elements().count() == children.len()
            && oracle
                .attributes()
                .filter(|a| a.namespace().is_none())
                .all(|a| ours.attr(a.name()) == Some(a.value()))
            && ours.elements().zip(children).all(|(a, b)| same(a, b))
    }

    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "<a>",
            "</a>",
            "<b x='1'>",
            "</b>",
            "<c/>",
            " ",
            "\n",
            "t",
            "&amp;",
            "&#65;",
            "&x;",
            "<![CDATA[d]]>",
            "<!-- c -->",
            "<?p i?>",
            "]]>",
            "<d y=\"a&lt;&#9;b\tc\"/>",
            "é",
            "\u{1}",
            "<",
            ">",
            "'",
            "\"",
            "=",
            "/",
            "<!DOCTYPE a>",
            "<p:e xmlns:p='u'/>",
            "<p:f/>",
            "\r\n",
            "<e z='1' z='2'/>",
            "xmlns='u'",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("<a>{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// What we accept, the oracle accepts too and sees the same; so nothing slips through a lax reader.
        #[test]
        fn accepts_only_what_the_oracle_accepts(mut text in pieces(), close in any::<bool>()) {
            if close {
                text.push_str("</a>");
            }
            if let Ok(document) = Document::parse(text.as_bytes()) {
                let oracle = roxmltree::Document::parse(&text);
                prop_assert!(oracle.is_ok(), "{text:?}: {oracle:?}");
                prop_assert!(same(document.root(), oracle.unwrap().root_element()), "{text:?}");
            }
        }

        /// And the reverse: nothing that is well-formed is refused.
        #[test]
        fn accepts_what_the_oracle_accepts(mut text in pieces(), close in any::<bool>()) {
            if close {
                text.push_str("</a>");
            }
            if roxmltree::Document::parse(&text).is_ok() {
                prop_assert!(Document::parse(text.as_bytes()).is_ok(), "{text:?} {:?}", Document::parse(text.as_bytes()).err());
            }
        }
    }
}
