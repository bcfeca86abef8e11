//! Layers of settings: defaults, files, environment, flags; the later one wins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::{FOREIGN_VARIABLES, SETTINGS, Setting, VARIABLE_PREFIX};
use super::value::{Raw, Typing, Value, nearest, unknown_name};

/// Which layer a value comes from; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The table of settings.
    Default,
    /// What an imported JSON file means without saying it.
    Implied,
    /// A file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

/// Where a value, a problem or a warning comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The table of settings, or the settings as a whole.
    Settings,
    /// A line of a file, if known.
    File(PathBuf, Option<usize>),
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("the settings"),
            Self::File(path, _) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("the environment"),
            Self::Flag => f.write_str("the command line"),
        }
    }
}

/// Something that keeps the program from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was written.
    pub(crate) place: Place,
    /// The path of the setting; empty: the place as a whole.
    pub(crate) path: String,
    /// What is wrong and what to do.
    pub(crate) text: String,
}

impl Problem {
    pub(crate) fn new(place: Place, path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place, path: path.into(), text: text.into() }
    }
}

struct Entry {
    value: Value,
    rank: Rank,
    place: Place,
}

/// The value of every setting, and where it comes from.
pub(crate) struct Layers {
    entries: BTreeMap<&'static str, Entry>,
}

impl fmt::Debug for Layers {
    /// Shows no values: keys and secrets are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layers")
    }
}

impl Layers {
    /// The defaults of the table.
    pub(crate) fn defaults() -> Self {
        let mut entries = BTreeMap::new();
        for setting in SETTINGS {
            let value = default_of(setting);
            entries
                .insert(setting.path, Entry { value, rank: Rank::Default, place: Place::Settings });
        }
        Self { entries }
    }

    /// Sets `setting` unless a later layer already did.
    pub(crate) fn set(
        &mut self,
        setting: &'static Setting,
        raw: &Raw,
        typing: Typing,
        rank: Rank,
        place: &Place,
    ) -> Result<(), Vec<Problem>> {
        let value = setting.kind.parse(raw, typing).map_err(|texts| {
            texts
                .into_iter()
                .map(|text| Problem::new(place.clone(), setting.path, text))
                .collect::<Vec<_>>()
        })?;
        let entry = self.entry(setting.path);
        if entry.rank <= rank {
            let place = place.clone();
            self.entries.insert(setting.path, Entry { value, rank, place });
        }
        Ok(())
    }

    fn entry(&self, path: &str) -> &Entry {
        self.entries
            .get(path)
            .expect("only paths of the table are asked for, and all have a default")
    }

    /// The settings that have another value than in `before`.
    pub(crate) fn changed_from(&self, before: &Self) -> Vec<&'static Setting> {
        SETTINGS.iter().filter(|it| self.value(it.path) != before.value(it.path)).collect()
    }

    /// The layer that set `path`.
    pub(crate) fn rank(&self, path: &str) -> Rank {
        self.entry(path).rank
    }

    /// Where `path` was set.
    pub(crate) fn place(&self, path: &str) -> Place {
        self.entry(path).place.clone()
    }

    /// The checked value of `path`.
    pub(crate) fn value(&self, path: &str) -> &Value {
        &self.entry(path).value
    }

    /// The text of a text, secret or choice.
    pub(crate) fn text(&self, path: &str) -> &str {
        match self.value(path) {
            Value::Text(text) => text,
            _ => unreachable!("{path} is a text in the table"),
        }
    }

    /// Whether a flag is set.
    pub(crate) fn flag(&self, path: &str) -> bool {
        matches!(self.value(path), Value::Flag(true))
    }

    /// A count or a size in bytes.
    pub(crate) fn number(&self, path: &str) -> u64 {
        match self.value(path) {
            Value::Number(number) => *number,
            _ => unreachable!("{path} is a number in the table"),
        }
    }

    /// A count or a size that fits into memory.
    pub(crate) fn amount(&self, path: &str) -> usize {
        usize::try_from(self.number(path)).unwrap_or(usize::MAX)
    }

    /// A duration.
    pub(crate) fn time(&self, path: &str) -> Duration {
        match self.value(path) {
            Value::Time(time) => *time,
            _ => unreachable!("{path} is a duration in the table"),
        }
    }
}

/// The default of `setting`; one that is worked out at start is an empty text here.
fn default_of(setting: &'static Setting) -> Value {
    let written = if setting.default.is_empty() { "\"\"" } else { setting.default };
    let parsed =
        DeValue::parse(written).expect("the defaults of the table are TOML; a test reads all");
    let raw = raw_of(parsed.get_ref(), written);
    setting
        .kind
        .parse(&raw, Typing::Strict)
        .expect("the defaults of the table are valid; a test reads all")
}

/// The line of byte `offset`, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn raw_of(value: &DeValue<'_>, text: &str) -> Raw {
    match value {
        DeValue::String(value) => Raw::Text(value.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number that is too large"), Raw::Integer),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Boolean(value) => Raw::Flag(*value),
        DeValue::Datetime(date) => Raw::Date(date.to_string()),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| raw_of(item.get_ref(), text)).collect())
        }
        DeValue::Table(table) => Raw::Table(
            table
                .iter()
                .map(|(key, value)| {
                    let line = line_of(text, key.span().start);
                    (key.get_ref().to_string(), Some(line), raw_of(value.get_ref(), text))
                })
                .collect(),
        ),
    }
}

/// Lays the TOML `text` of `file` over `layers`; all problems at once.
pub(crate) fn read_toml(layers: &mut Layers, file: &Path, text: &str) -> Vec<Problem> {
    let (table, errors): (Spanned<DeTable<'_>>, _) = DeTable::parse_recoverable(text);
    let mut problems: Vec<_> = errors
        .iter()
        .map(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            Problem::new(Place::File(file.to_owned(), line), "", error.message())
        })
        .collect();
    if !problems.is_empty() {
        // What could not be read would look like keys that are missing or misplaced.
        return problems;
    }
    for (name, line, raw) in table_fields(table.get_ref(), text) {
        let place = Place::File(file.to_owned(), Some(line));
        let section =
            SETTINGS.iter().any(|it| it.path.split_once('.').is_some_and(|(it, _)| it == name));
        match (Setting::find(&name), raw) {
            (Some(setting), raw) => {
                let set = layers.set(setting, &raw, Typing::Strict, Rank::File, &place);
                problems.extend(set.err().into_iter().flatten());
            }
            (None, Raw::Table(fields)) if section => {
                read_section(layers, file, &name, fields, &mut problems);
            }
            (None, _) if section => {
                problems.push(Problem::new(place, &name, format!("is a section: write [{name}]")));
            }
            (None, raw) => problems.push(unknown_at_top(place, &name, &raw)),
        }
    }
    problems
}

fn table_fields(table: &DeTable<'_>, text: &str) -> Vec<(String, usize, Raw)> {
    let mut fields: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let line = line_of(text, key.span().start);
            (key.get_ref().to_string(), line, raw_of(value.get_ref(), text))
        })
        .collect();
    fields.sort_by_key(|(_, line, _)| *line);
    fields
}

fn read_section(
    layers: &mut Layers,
    file: &Path,
    section: &str,
    mut fields: Vec<(String, Option<usize>, Raw)>,
    problems: &mut Vec<Problem>,
) {
    fields.sort_by_key(|(_, line, _)| *line);
    for (name, line, raw) in fields {
        let place = Place::File(file.to_owned(), line);
        let path = format!("{section}.{name}");
        if let Some(setting) = Setting::find(&path) {
            let set = layers.set(setting, &raw, Typing::Strict, Rank::File, &place);
            problems.extend(set.err().into_iter().flatten());
            continue;
        }
        let known =
            SETTINGS.iter().filter_map(|it| it.path.strip_prefix(section)?.strip_prefix('.'));
        let text = nearest(&name, known).map_or_else(
            || match elsewhere(&name) {
                Some(path) => format!("unknown key; did you mean `{path}`?"),
                None => "unknown key".to_owned(),
            },
            |name| format!("unknown key; did you mean `{name}`?"),
        );
        problems.push(Problem::new(place, path, text));
    }
}

/// The setting of another section that is called `name`.
fn elsewhere(name: &str) -> Option<&'static str> {
    SETTINGS.iter().map(|setting| setting.path).find(|path| path.rsplit('.').next() == Some(name))
}

fn unknown_at_top(place: Place, name: &str, raw: &Raw) -> Problem {
    let sections =
        SETTINGS.iter().filter_map(|setting| setting.path.split_once('.')).map(|(it, _)| it);
    let top = SETTINGS.iter().map(|setting| setting.path).filter(|path| !path.contains('.'));
    let text = match raw {
        Raw::Table(_) => unknown_name("section", name, sections),
        _ => match nearest(name, top).or_else(|| elsewhere(name)) {
            Some(path) => format!("unknown key; did you mean `{path}`?"),
            None => "unknown key".to_owned(),
        },
    };
    Problem::new(place, name, text)
}

/// Lays the variables of the environment over `layers`. Names that do not begin with `VESTNIK_`
/// are not ours.
pub(crate) fn read_environment(
    layers: &mut Layers,
    variables: &[(String, String)],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, written) in variables {
        let foreign = FOREIGN_VARIABLES.iter().any(|start| name.starts_with(start));
        if !name.starts_with(VARIABLE_PREFIX) || foreign {
            continue;
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == *name) else {
            let known: Vec<_> = SETTINGS.iter().map(Setting::variable).collect();
            let text = unknown_name("variable", name, known.iter().map(String::as_str));
            problems.push(Problem::new(Place::Environment, name, text));
            continue;
        };
        if written.contains('\u{fffd}') {
            // The environment was read with this mark in place of what is not text; a secret that
            // was changed so would refuse every client.
            problems.push(Problem::new(Place::Environment, name, "is not UTF-8 text"));
            continue;
        }
        let raw = Raw::Text(written.clone());
        let set = layers.set(setting, &raw, Typing::Text, Rank::Environment, &Place::Environment);
        problems.extend(
            set.err()
                .into_iter()
                .flatten()
                .map(|problem| Problem { path: name.clone(), ..problem }),
        );
    }
    problems
}

/// Lays `path=value` pairs of the command line over `layers`.
pub(crate) fn read_flags(layers: &mut Layers, flags: &[(String, String)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, written) in flags {
        let Some(setting) = Setting::find(path) else {
            let text = match nearest(path, SETTINGS.iter().map(|it| it.path))
                .or_else(|| elsewhere(path))
            {
                Some(path) => format!("unknown setting; did you mean `{path}`?"),
                None => "unknown setting".to_owned(),
            };
            problems.push(Problem::new(Place::Flag, path, text));
            continue;
        };
        let raw = Raw::Text(written.clone());
        let set = layers.set(setting, &raw, Typing::Text, Rank::Flag, &Place::Flag);
        problems.extend(set.err().into_iter().flatten());
    }
    problems
}
