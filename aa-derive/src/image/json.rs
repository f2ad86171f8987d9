//! `json:{…}` as the name of a backing file: QEMU's block device options (`qapi/block-core.json`,
//! `BlockdevOptions`), nested or flattened with dots.

use serde_json::{Map, Value};

use super::Format;
use super::backing::{NameError, Node, Override, Remote, Source, host_path, network};

type Object = Map<String, Value>;

/// Deepest nesting of nodes or of dotted keys; real names have two or three.
pub(crate) const MAX_DEPTH: u8 = 16;
/// Filters that pass the bytes of their `file` on.
pub(crate) const FILTERS: [&str; 4] = ["copy-on-read", "throttle", "preallocate", "compress"];

/// Reads the text after `json:`.
pub(super) fn parse(text: &str) -> Result<Node, NameError> {
    let object: Object = serde_json::from_str(text).map_err(|error| NameError::Json(error.to_string()))?;
    node(&nest(object)?, MAX_DEPTH)
}

/// Undoes the flattening: `{"file.driver": x}` is `{"file": {"driver": x}}`.
fn nest(flat: Object) -> Result<Object, NameError> {
    let mut nested = Object::new();
    for (key, value) in flat {
        let value = match value {
            Value::Object(inner) => Value::Object(nest(inner)?),
            other => other,
        };
        let parts: Vec<&str> = key.split('.').collect();
        if parts.len() > usize::from(MAX_DEPTH) {
            return Err(NameError::Shape("a dotted key of a json: name nests too deep"));
        }
        insert(&mut nested, &parts, value)?;
    }
    Ok(nested)
}

fn insert(object: &mut Object, parts: &[&str], value: Value) -> Result<(), NameError> {
    const TWICE: NameError = NameError::Shape("a key of a json: name is given twice");
    let Some((first, rest)) = parts.split_first() else { return Err(TWICE) };
    match (object.get_mut(*first), rest.is_empty()) {
        (None, true) => {
            object.insert((*first).to_owned(), value);
            Ok(())
        }
        (None, false) => {
            let mut inner = Object::new();
            insert(&mut inner, rest, value)?;
            object.insert((*first).to_owned(), Value::Object(inner));
            Ok(())
        }
        (Some(Value::Object(inner)), false) => insert(inner, rest, value),
        (Some(Value::Object(inner)), true) => {
            let Value::Object(more) = value else { return Err(TWICE) };
            more.into_iter().try_for_each(|(key, value)| insert(inner, &[key.as_str()], value))
        }
        (Some(_), _) => Err(TWICE),
    }
}

/// Reads one node of the tree, with everything below it.
fn node(object: &Object, depth: u8) -> Result<Node, NameError> {
    let depth = depth.checked_sub(1).ok_or(NameError::Shape("the nodes of a json: name nest too deep"))?;
    let Some(driver) = text(object, "driver")? else {
        // The format is left to whoever opens it: the header that has the name may say it.
        return child(object, "file", depth)?
            .ok_or(NameError::Shape("a json: name has neither driver nor file"));
    };
    if let Some(format) = Format::from_name(driver) {
        return format_node(object, format, depth);
    }
    if FILTERS.contains(&driver) {
        return child(object, "file", depth)?.ok_or(NameError::Shape("a filter of a json: name has no file"));
    }
    let source = protocol(object, driver)?;
    Ok(Node::plain(source))
}

fn format_node(object: &Object, format: Format, depth: u8) -> Result<Node, NameError> {
    let inner =
        child(object, "file", depth)?.ok_or(NameError::Shape("a format of a json: name has no file"))?;
    let sliced = inner.sliced || format == Format::Raw && !is_whole(object);
    // Raw above another format passes that format's content on.
    if format == Format::Raw && inner.format.is_some() {
        return Ok(Node { sliced, ..inner });
    }
    if inner.format.is_some_and(|format| format != Format::Raw) {
        return Err(NameError::Shape("a json: name has one image format inside of another"));
    }
    let backing = match object.get("backing") {
        None => Override::Header,
        Some(Value::Null) => Override::Nothing,
        Some(Value::Object(below)) => Override::Node(Box::new(node(below, depth)?)),
        Some(_) => return Err(BY_NAME),
    };
    let data_file = match child(object, "data-file", depth)? {
        None => Override::Header,
        Some(data) => Override::Node(Box::new(data)),
    };
    Ok(Node { format: Some(format), source: inner.source, sliced, backing, data_file })
}

const BY_NAME: NameError =
    NameError::Shape("a json: name refers to a node by name, which only QEMU can resolve");

/// Whether raw options show the file from its first byte.
fn is_whole(object: &Object) -> bool {
    match object.get("offset") {
        None => true,
        Some(Value::Number(number)) => number.as_u64() == Some(0),
        Some(Value::String(number)) => number == "0",
        Some(_) => false,
    }
}

fn child(object: &Object, key: &str, depth: u8) -> Result<Option<Node>, NameError> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::Object(inner)) => node(inner, depth).map(Some),
        Some(_) => Err(BY_NAME),
    }
}

fn text<'a>(object: &'a Object, key: &str) -> Result<Option<&'a str>, NameError> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(NameError::Shape("an option of a json: name that must be text is not")),
    }
}

/// A protocol driver's options.
fn protocol(object: &Object, driver: &str) -> Result<Source, NameError> {
    let required = |key, missing| text(object, key)?.ok_or(NameError::Shape(missing));
    match driver {
        "file" | "host_device" | "host_cdrom" => {
            host_path(required("filename", "a file of a json: name has no filename")?).map(Source::File)
        }
        "vvfat" => {
            let path = host_path(required("dir", "a FAT disk of a json: name has no dir")?)?;
            Ok(Source::Directory { path, is_written: is_on(object, "rw") })
        }
        "nvme" => {
            Ok(Source::Nvme(required("device", "an NVMe disk of a json: name has no device")?.to_owned()))
        }
        "null-co" | "null-aio" => Ok(Source::Null),
        _ => {
            let protocol = network(driver).ok_or_else(|| NameError::Unknown(driver.to_owned()))?;
            let mut remote = Remote { protocol, sockets: Vec::new(), configs: Vec::new() };
            if let Some(server) = object.get("server") {
                sockets(server, &mut remote.sockets)?;
            }
            // Besides the server, NBD and sheepdog have an older form.
            let (key, list) = match protocol {
                "nbd" | "sheepdog" => ("path", &mut remote.sockets),
                "rbd" => ("conf", &mut remote.configs),
                _ => return Ok(Source::Remote(remote)),
            };
            list.extend(text(object, key)?.map(host_path).transpose()?);
            Ok(Source::Remote(remote))
        }
    }
}

/// The Unix sockets of a server, of a list of them, or of a list in flattened form (`server.0.…`).
fn sockets(server: &Value, found: &mut Vec<String>) -> Result<(), NameError> {
    let list: Vec<&Value> = match server {
        Value::Array(list) => list.iter().collect(),
        Value::Object(numbered)
            if !numbered.is_empty() && numbered.keys().all(|key| key.bytes().all(|b| b.is_ascii_digit())) =>
        {
            numbered.values().collect()
        }
        one => vec![one],
    };
    for one in list {
        // Any other shape is a TCP address in an older notation: no file.
        let Value::Object(address) = one else { continue };
        // An abstract socket has no file.
        if text(address, "type")? != Some("unix") || is_on(address, "abstract") {
            continue;
        }
        let path = match text(address, "path")? {
            Some(path) => path,
            None => text(address, "socket")?.ok_or(NameError::Shape("a Unix server has no path"))?,
        };
        found.push(host_path(path)?);
    }
    Ok(())
}

/// Whether an option is switched on.
fn is_on(object: &Object, key: &str) -> bool {
    match object.get(key) {
        Some(Value::Bool(yes)) => *yes,
        Some(Value::String(yes)) => matches!(yes.as_str(), "on" | "yes" | "true"),
        _ => false,
    }
}
