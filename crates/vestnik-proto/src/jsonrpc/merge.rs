//! `params` ← additions: what a site of generation 5 leaves to the server (json-rpc.md §4.5).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::body::{member, members, raw_members};

/// The body as one user gets it: `params` with the members of `addition` merged in. Both are JSON
/// objects; a body that has no place for the addition stays as it is.
#[must_use]
pub fn merged(body: &Bytes, addition: &Bytes) -> Bytes {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let addition = std::str::from_utf8(addition).unwrap_or_default();
    match with_params(text, addition) {
        Some(merged) => Bytes::from(merged),
        None => body.clone(),
    }
}

/// `body` with the members of the object `addition` in its `params`: shallow, a member of the addition
/// in the place of an equal one. `None` when there is nothing to merge, or no place for it: params that
/// are a list with elements, or no container at all.
pub(super) fn with_params(body: &str, addition: &str) -> Option<String> {
    raw_members(addition).next()?;
    let Some(params) = member(body, "params") else {
        let rest = body.trim_ascii_start().strip_prefix('{')?;
        let comma = if raw_members(body).next().is_none() { "" } else { "," };
        return Some(format!(r#"{{"params":{}{comma}{rest}"#, addition.trim_ascii()));
    };
    let is_empty_list = params.strip_prefix('[').is_some_and(|rest| rest.trim_ascii() == "]");
    let merged = if is_empty_list || params == "null" {
        addition.trim_ascii().to_owned()
    } else if params.starts_with('{') {
        objects(params, addition)
    } else {
        return None;
    };
    let at = params.as_ptr() as usize - body.as_ptr() as usize;
    Some([&body[..at], &merged, &body[at + params.len()..]].concat())
}

/// Two objects as one.
fn objects(first: &str, second: &str) -> String {
    let mut places = HashMap::new();
    let mut all: Vec<(&str, &str)> = Vec::new();
    for ((literal, value), (key, _)) in
        [first, second].into_iter().flat_map(|object| raw_members(object).zip(members(object)))
    {
        match places.get(&key) {
            Some(&at) => all[at] = (literal, value),
            None => {
                places.insert(key, all.len());
                all.push((literal, value));
            }
        }
    }
    written(all.into_iter())
}

/// The object `object` without the members whose names are in `names`; `None` when none are left.
pub(super) fn without(object: &str, names: &HashSet<Cow<'_, str>>) -> Option<String> {
    let mut kept = raw_members(object)
        .zip(members(object))
        .filter(|(_, (key, _))| !names.contains(key))
        .map(|(raw, _)| raw)
        .peekable();
    kept.peek()?;
    Some(written(kept))
}

fn written<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut object = String::from("{");
    for (index, (literal, value)) in members.enumerate() {
        if index > 0 {
            object.push(',');
        }
        object.push_str(literal);
        object.push(':');
        object.push_str(value);
    }
    object.push('}');
    object
}
