//! What a user wants of things that can be switched off one by one: kinds of notifications, numbers on the
//! badge. An option of the user, serialized as PHP does.

use crate::php::{self, Value};

/// Names with yes or no, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes(Vec<(String, bool)>);

impl Wishes {
    /// Reads an option; what makes no sense is no wish.
    pub(crate) fn read(option: &str) -> Self {
        let Ok(Value::Array(entries)) = php::unserialize(option) else { return Self::default() };
        let entry =
            |(name, value): (Value, Value)| Some((name.to_text()?, value == Value::Bool(true)));
        Self(entries.into_iter().filter_map(entry).collect())
    }

    /// The text of the option.
    pub(crate) fn to_text(&self) -> String {
        let entries =
            self.iter().map(|(name, is_wanted)| (Value::text(name), Value::Bool(is_wanted)));
        Value::Array(entries.collect()).serialize()
    }

    /// Whether `name` is wanted, if the user said so.
    pub(crate) fn get(&self, name: &str) -> Option<bool> {
        self.iter().find(|(known, _)| *known == name).map(|(_, is_wanted)| is_wanted)
    }

    /// Notes whether `name` is wanted.
    pub(crate) fn set(&mut self, name: &str, is_wanted: bool) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = is_wanted,
            None => self.0.push((name.to_owned(), is_wanted)),
        }
    }

    /// Notes the default of `name`, unless the user said otherwise.
    pub(crate) fn set_default(&mut self, name: &str, is_wanted: bool) {
        if self.get(name).is_none() {
            self.set(name, is_wanted);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|(name, is_wanted)| (name.as_str(), *is_wanted))
    }
}

/// How a kind of notifications of a module is called among wishes.
pub(crate) fn kind_name(module_id: &str, kind: &str) -> String {
    format!("{module_id}|{kind}")
}

/// `true`, `Y`, `1`, or their opposites: the text of a JSON value.
pub(crate) fn yes_or_no(json: &str) -> Option<bool> {
    match json.trim_matches('"').to_ascii_lowercase().as_str() {
        "true" | "1" | "y" => Some(true),
        "false" | "0" | "n" | "" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_as_they_were_written_and_nonsense_is_none() {
        let mut wishes = Wishes::default();
        wishes.set(&kind_name("im", "like"), true);
        wishes.set("im|message", true);
        wishes.set("im|message", false);
        wishes.set_default("im|message", true);
        wishes.set_default("im|call", true);
        let read = Wishes::read(&wishes.to_text());
        assert_eq!(read, wishes);
        assert_eq!((read.get("im|like"), read.get("im|message")), (Some(true), Some(false)));
        assert_eq!((read.get("im|call"), read.get("none"), read.len()), (Some(true), None, 3));
        assert_eq!(Wishes::read("i:1;"), Wishes::default());
        assert_eq!(Wishes::read("nonsense"), Wishes::default());
    }
}
