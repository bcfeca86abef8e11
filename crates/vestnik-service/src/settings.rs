//! The rules of the settings page (settings-page.md): which field there is for which server, what it
//! takes, and what saving does. Free of HTTP; pages, REST and the command line go through it.

mod save;

pub use save::{Registration, Saved};

use std::collections::BTreeMap;

use crate::option::{Generation, Key, Options, Source};
use crate::php;

/// Keys are called weak below this, in characters.
pub const KEY_CHARACTERS_MIN: usize = 32;

/// Field S-06: which queue server is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerChoice {
    /// None: `N`.
    Nothing,
    /// Bitrix' own: `shared`.
    Cloud,
    /// One that the administrator has set up: `personal`.
    Local,
}

impl ServerChoice {
    /// All, in the order of the list.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Cloud, Self::Local];

    /// Its value in the form.
    #[must_use]
    pub const fn value(self) -> &'static str {
        match self {
            Self::Nothing => "N",
            Self::Cloud => "shared",
            Self::Local => "personal",
        }
    }

    /// The choice with this value; anything unknown is a local server, as on the original page.
    #[must_use]
    pub fn of_value(value: &str) -> Self {
        Self::ALL.into_iter().find(|choice| choice.value() == value).unwrap_or(Self::Local)
    }

    /// The choice that options stand for: the cloud also while it is not registered (S-06).
    #[must_use]
    pub fn of(options: &Options) -> Self {
        match (options.is_cloud(), options.is_on(Key::Nginx)) {
            (true, _) => Self::Cloud,
            (false, true) => Self::Local,
            (false, false) => Self::Nothing,
        }
    }
}

/// What decides which fields there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The server chosen.
    pub choice: ServerChoice,
    /// Its generation.
    pub generation: Generation,
    /// Whether the switch S-27 is on.
    pub has_websocket: bool,
    /// Whether the switch S-03 is on.
    pub has_push: bool,
}

impl Situation {
    /// The one that options stand for.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let generation = generation_to_offer(options);
        Self {
            choice: ServerChoice::of(options),
            generation,
            has_websocket: websocket_in_force(generation, options.is_on(Key::Websocket)),
            has_push: options.is_push_on(),
        }
    }
}

/// The generation a page begins with: what is stored, but never the built-in 2, which nobody chose
/// (S-54).
#[must_use]
pub fn generation_to_offer(options: &Options) -> Generation {
    match options.source(Key::NginxVersion) {
        Source::BuiltIn => Generation::Four,
        _ => options.stored_generation(),
    }
}

/// Whether WebSockets are used when the switch S-27 is `is_on`.
#[must_use]
pub const fn websocket_in_force(generation: Generation, is_on: bool) -> bool {
    match generation {
        Generation::One => false,
        Generation::Two => is_on,
        Generation::Three | Generation::Four | Generation::Five => true,
    }
}

/// What can be done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldState {
    /// It is not there.
    Hidden,
    /// It is shown and cannot be changed.
    Disabled,
    /// It can be changed.
    Enabled,
}

/// Part of the page that a field stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Common part, §2.1.
    Common,
    /// Which generation, §2.4.
    Software,
    /// Where the site publishes.
    ServerPublish,
    /// Where clients publish.
    ClientPublish,
    /// Where browsers listen.
    Reading,
    /// Where browsers with WebSockets listen.
    WebSocket,
    /// Sites, §2.5.
    Sites,
    /// Fields of older pages, §2.7.
    Outdated,
}

/// Another switch that a field follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// None.
    Nothing,
    /// S-03.
    Push,
    /// S-27, as it is in force.
    WebSocket,
}

/// When a field is there and can be changed.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The option it stores.
    pub key: Key,
    /// Where it stands.
    pub section: Section,
    /// The choices with which it is shown.
    pub choices: &'static [ServerChoice],
    /// The generations, by number, with which it can be changed.
    pub generations: &'static [i64],
    /// The switch it follows.
    pub needs: Needs,
}

const LOCAL: &[ServerChoice] = &[ServerChoice::Local];
const ANY: &[i64] = &[1, 2, 3, 4, 5];

const fn rule(
    key: Key,
    section: Section,
    choices: &'static [ServerChoice],
    generations: &'static [i64],
    needs: Needs,
) -> Rule {
    Rule { key, section, choices, generations, needs }
}

/// Every field, in the order of the page (settings-page.md §3). The page script reads the same table
/// out of the page, so that both agree (S-48).
pub const RULES: [Rule; 22] = [
    rule(Key::Push, Section::Common, &ServerChoice::ALL, ANY, Needs::Nothing),
    rule(Key::PushMessagePerHit, Section::Common, &ServerChoice::ALL, ANY, Needs::Push),
    rule(Key::Guest, Section::Common, &ServerChoice::ALL, ANY, Needs::Nothing),
    rule(Key::NginxVersion, Section::Software, LOCAL, ANY, Needs::Nothing),
    rule(Key::PathToPublish, Section::ServerPublish, LOCAL, ANY, Needs::Nothing),
    rule(Key::PathToJsonRpc, Section::ServerPublish, LOCAL, &[1, 2, 3, 5], Needs::Nothing),
    rule(Key::SignatureKey, Section::ServerPublish, LOCAL, &[3, 4, 5], Needs::Nothing),
    rule(Key::SignatureAlgo, Section::ServerPublish, LOCAL, &[3, 4, 5], Needs::Nothing),
    rule(Key::PathToPublishWeb, Section::ClientPublish, LOCAL, &[4, 5], Needs::Nothing),
    rule(Key::PathToPublishWebSecure, Section::ClientPublish, LOCAL, &[4, 5], Needs::Nothing),
    rule(Key::PathToModernListener, Section::Reading, LOCAL, ANY, Needs::Nothing),
    rule(Key::PathToModernListenerSecure, Section::Reading, LOCAL, ANY, Needs::Nothing),
    rule(Key::Websocket, Section::WebSocket, LOCAL, &[2], Needs::Nothing),
    rule(Key::PathToWebsocket, Section::WebSocket, LOCAL, ANY, Needs::WebSocket),
    rule(Key::PathToWebsocketSecure, Section::WebSocket, LOCAL, ANY, Needs::WebSocket),
    rule(
        Key::ExcludeSites,
        Section::Sites,
        &[ServerChoice::Cloud, ServerChoice::Local],
        ANY,
        Needs::Nothing,
    ),
    rule(Key::NginxCommandPerHit, Section::Outdated, LOCAL, &[2, 3, 4], Needs::Nothing),
    rule(Key::PathToListener, Section::Outdated, LOCAL, ANY, Needs::Nothing),
    rule(Key::PathToListenerSecure, Section::Outdated, LOCAL, ANY, Needs::Nothing),
    rule(Key::PathToMobileListener, Section::Outdated, LOCAL, ANY, Needs::Nothing),
    rule(Key::PathToMobileListenerSecure, Section::Outdated, LOCAL, ANY, Needs::Nothing),
    rule(Key::NginxHeaders, Section::Outdated, LOCAL, &[1, 2], Needs::Nothing),
];

impl Rule {
    /// The rule of an option; `None` when the page has no field for it.
    #[must_use]
    pub fn of(key: Key) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.key == key)
    }

    /// What can be done with the field.
    #[must_use]
    pub fn state(&self, situation: &Situation) -> FieldState {
        if !self.choices.contains(&situation.choice) {
            return FieldState::Hidden;
        }
        let follows = match self.needs {
            Needs::Nothing => true,
            Needs::Push => situation.has_push,
            Needs::WebSocket => situation.has_websocket,
        };
        // Fields outside the block of the local server do not ask for its generation.
        let fits =
            self.choices != LOCAL || self.generations.contains(&situation.generation.number());
        if follows && fits { FieldState::Enabled } else { FieldState::Disabled }
    }
}

/// What a browser has sent: names and values, in order.
#[derive(Clone, Debug, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// The form with these fields.
    #[must_use]
    pub const fn new(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }

    /// The value of `name`; of several the last.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn is_checked(&self, key: Key) -> bool {
        self.get(key.name()) == Some("Y")
    }
}

/// Name of the field S-06.
pub const CHOICE: &str = "push_server_mode";
/// Name of the field S-10.
pub const CLOUD_HOST: &str = "cloud_server_hostname";
/// Name of the list S-31 in the form.
pub const EXCLUDED: &str = "exclude_sites[]";
/// Present when the list S-31 was on the page, so that selecting nothing clears it (S-56).
pub const EXCLUDED_SHOWN: &str = "exclude_sites_shown";
/// `Y`: an empty key is meant (S-53).
pub const EMPTY_KEY_CONFIRMED: &str = "confirm_empty_key";

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// An http or https address whose path ends with `/` is wanted.
    Address,
    /// The same with ws or wss.
    SocketAddress,
    /// A whole number from the first to the second is wanted.
    Number(i64, i64),
    /// The value is not one of those offered.
    Choice,
    /// It is too long.
    Length,
    /// Generations 4 and 5 need a key.
    EmptyKey,
    /// The configuration says what it is.
    Pinned,
}

/// What is odd and does not hinder saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The key is shorter than [`KEY_CHARACTERS_MIN`].
    WeakKey,
    /// There is no key; it was confirmed.
    EmptyKey,
    /// The generation is outdated.
    Outdated,
}

/// How good a key is (S-53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStrength {
    /// There is none.
    Missing,
    /// Under [`KEY_CHARACTERS_MIN`] characters, or of few different ones.
    Weak,
    /// Good.
    Strong,
}

impl KeyStrength {
    /// The strength of `key`.
    #[must_use]
    pub fn of(key: &str) -> Self {
        const DIFFERENT_MIN: usize = 8;
        let mut letters: Vec<char> = key.chars().collect();
        let length = letters.len();
        letters.sort_unstable();
        letters.dedup();
        match length {
            0 => Self::Missing,
            KEY_CHARACTERS_MIN.. if letters.len() >= DIFFERENT_MIN => Self::Strong,
            _ => Self::Weak,
        }
    }
}

/// What saving a form would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The server chosen.
    pub choice: ServerChoice,
    /// Options that change; `None`: the value is taken away, so that the next source counts.
    pub changes: Vec<(Key, Option<String>)>,
    /// The cloud server to register at first; an empty name: the cloud chooses. Nothing is saved
    /// when that fails (S-59).
    pub registers_at: Option<String>,
    /// What the administrator should know.
    pub warnings: Vec<Warning>,
}

impl Plan {
    /// Whether clients are reached another way afterwards, so that those of the old way must be told
    /// through it (S-50).
    #[must_use]
    pub fn changes_way(&self) -> bool {
        const WAY: [Key; 8] = [
            Key::Nginx,
            Key::ServerMode,
            Key::NginxVersion,
            Key::PathToPublish,
            Key::PathToJsonRpc,
            Key::SignatureKey,
            Key::SignatureAlgo,
            Key::SharedServerAddress,
        ];
        self.changes.iter().any(|(key, _)| WAY.contains(key))
    }
}

/// The situation that a form describes.
#[must_use]
pub fn situation_of(options: &Options, form: &Form) -> Situation {
    let choice = form.get(CHOICE).map_or_else(|| ServerChoice::of(options), ServerChoice::of_value);
    let posted = form.get(Key::NginxVersion.name()).map(php::intval);
    let generation = posted
        .filter(|number| ANY.contains(number))
        .map_or_else(|| generation_to_offer(options), Generation::numbered);
    let is_on = match generation {
        Generation::Two => form.is_checked(Key::Websocket),
        _ => false,
    };
    Situation {
        choice,
        generation,
        has_websocket: websocket_in_force(generation, is_on),
        has_push: form.is_checked(Key::Push),
    }
}

/// What saving `form` would do to `options`, in the order of settings-page.md §4.
///
/// # Errors
/// Every field that cannot have its value. Nothing is saved then.
pub fn plan(options: &Options, form: &Form) -> Result<Plan, BTreeMap<Key, Problem>> {
    let situation = situation_of(options, form);
    let mut planning =
        Planning { options, form, situation, changes: Vec::new(), problems: BTreeMap::new() };
    let mut registers_at = None;
    match situation.choice {
        ServerChoice::Nothing => planning.leave_servers("N"),
        ServerChoice::Cloud => {
            if !(options.is_cloud() && options.is_on(Key::RegisteredOnSharedServer)) {
                let host = form.get(CLOUD_HOST).unwrap_or_default().trim();
                registers_at = Some(host.to_owned());
            }
        }
        ServerChoice::Local => {
            planning.leave_servers("Y");
            planning.local_server();
        }
    }
    planning.switch(Key::Push);
    planning.field(Key::PushMessagePerHit);
    planning.switch(Key::Guest);
    planning.excluded_sites();
    let mut warnings = Vec::new();
    if situation.choice == ServerChoice::Local {
        planning.key(&mut warnings);
        if situation.generation < Generation::Four {
            warnings.push(Warning::Outdated);
        }
    }
    if planning.problems.is_empty() {
        let Planning { changes, .. } = planning;
        Ok(Plan { choice: situation.choice, changes, registers_at, warnings })
    } else {
        Err(planning.problems)
    }
}

/// Checks single options that are to be set: what the form's rules say about each alone.
///
/// # Errors
/// Every option that cannot have its value.
pub fn check(
    options: &Options,
    changes: &[(Key, Option<&str>)],
    empty_key_confirmed: bool,
) -> Result<(), BTreeMap<Key, Problem>> {
    let mut problems = BTreeMap::new();
    let set = |wanted: Key| changes.iter().rev().find(|(key, _)| *key == wanted);
    for (key, value) in changes {
        let problem = match value {
            Some(value) => problem_of(options, *key, value),
            None => None,
        };
        if let Some(problem) = problem {
            problems.insert(*key, problem);
        }
    }
    let generation = match set(Key::NginxVersion) {
        Some((_, Some(value))) => Generation::numbered(php::intval(value)),
        _ => options.stored_generation(),
    };
    let is_emptied = set(Key::SignatureKey).is_some_and(|(_, value)| *value == Some(""));
    if is_emptied && generation >= Generation::Four && !empty_key_confirmed {
        problems.insert(Key::SignatureKey, Problem::EmptyKey);
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What is wrong with a value, if anything.
fn problem_of(options: &Options, key: Key, value: &str) -> Option<Problem> {
    use crate::option::Kind;
    const VALUE_BYTES_MAX: usize = 4096;
    if options.source(key) == Source::Pinned && options.text(key) != value {
        return Some(Problem::Pinned);
    }
    if value.len() > VALUE_BYTES_MAX {
        return Some(Problem::Length);
    }
    // Empty addresses go back to the default (S-52).
    if matches!(key.kind(), Kind::Address | Kind::SocketAddress) && value.is_empty() {
        return None;
    }
    if key.check(value).is_ok() {
        return None;
    }
    Some(match key.kind() {
        Kind::Address => Problem::Address,
        Kind::SocketAddress => Problem::SocketAddress,
        Kind::Number(min, max) => Problem::Number(min, max),
        Kind::Switch | Kind::Algorithm | Kind::Mode | Kind::Sites | Kind::Text | Kind::Secret => {
            Problem::Choice
        }
    })
}

/// A plan being made.
struct Planning<'a> {
    options: &'a Options,
    form: &'a Form,
    situation: Situation,
    changes: Vec<(Key, Option<String>)>,
    problems: BTreeMap<Key, Problem>,
}

impl Planning<'_> {
    /// Writes a value where it differs from the one in force.
    fn set(&mut self, key: Key, value: &str) {
        if self.options.text(key) != value {
            self.changes.push((key, Some(value.to_owned())));
        }
    }

    fn is_enabled(&self, key: Key) -> bool {
        Rule::of(key).is_some_and(|rule| rule.state(&self.situation) == FieldState::Enabled)
    }

    /// The cloud is left, and whether there is a local server.
    fn leave_servers(&mut self, is_local: &str) {
        self.set(Key::Nginx, is_local);
        self.set(Key::ServerMode, "personal");
        self.set(Key::RegisteredOnSharedServer, "N");
    }

    /// The block of the local server, in the order of settings-page.md §4.
    fn local_server(&mut self) {
        self.field(Key::SignatureKey);
        self.field(Key::SignatureAlgo);
        self.field(Key::PathToPublish);
        self.field(Key::PathToJsonRpc);
        self.field(Key::PathToModernListener);
        self.field(Key::PathToModernListenerSecure);
        self.field(Key::PathToPublishWeb);
        self.field(Key::PathToPublishWebSecure);
        self.generation();
        let is_on = self.situation.has_websocket;
        self.set(Key::Websocket, if is_on { "Y" } else { "N" });
        self.field(Key::PathToWebsocket);
        self.field(Key::PathToWebsocketSecure);
        for rule in RULES.iter().filter(|rule| rule.section == Section::Outdated) {
            if rule.key == Key::NginxHeaders {
                self.switch(rule.key);
            } else {
                self.field(rule.key);
            }
        }
    }

    /// Without a choice the generation stays; but the built-in one was never chosen (S-54).
    fn generation(&mut self) {
        let posted = self.form.get(Key::NginxVersion.name()).unwrap_or_default();
        if !posted.is_empty() && !ANY.contains(&php::intval(posted)) {
            self.problems.insert(Key::NginxVersion, Problem::Choice);
            return;
        }
        let number = self.situation.generation.number().to_string();
        // Also when it equals the built-in value: chosen is chosen.
        if self.options.source(Key::NginxVersion) == Source::BuiltIn {
            self.changes.push((Key::NginxVersion, Some(number)));
        } else {
            self.set(Key::NginxVersion, &number);
        }
    }

    /// A text: unchanged when it is absent or cannot be changed.
    fn field(&mut self, key: Key) {
        if !self.is_enabled(key) || self.options.source(key) == Source::Pinned {
            return;
        }
        let Some(value) = self.form.get(key.name()).map(str::trim) else { return };
        if let Some(problem) = problem_of(self.options, key, value) {
            self.problems.insert(key, problem);
            return;
        }
        let is_address =
            matches!(key.kind(), crate::option::Kind::Address | crate::option::Kind::SocketAddress);
        if value.is_empty() && is_address {
            if matches!(self.options.source(key), Source::Site | Source::Database) {
                self.changes.push((key, None));
            }
        } else {
            self.set(key, value);
        }
    }

    /// A switch: off when it is absent.
    fn switch(&mut self, key: Key) {
        if self.is_enabled(key) {
            self.set(key, if self.form.is_checked(key) { "Y" } else { "N" });
        }
    }

    fn excluded_sites(&mut self) {
        let is_shown = self.form.get(EXCLUDED_SHOWN).is_some();
        if !self.is_enabled(Key::ExcludeSites) || !is_shown {
            return;
        }
        let ids = self.form.all(EXCLUDED).map(str::trim).filter(|id| !id.is_empty());
        let text = serialized_sites(ids);
        if let Some(problem) = problem_of(self.options, Key::ExcludeSites, &text) {
            self.problems.insert(Key::ExcludeSites, problem);
            return;
        }
        self.set(Key::ExcludeSites, &text);
    }

    /// Judges the key that would be in force.
    fn key(&mut self, warnings: &mut Vec<Warning>) {
        if !self.is_enabled(Key::SignatureKey) {
            return;
        }
        let changed = self.changes.iter().find(|(key, _)| *key == Key::SignatureKey);
        let key = changed.map_or(self.options.text(Key::SignatureKey), |(_, value)| {
            value.as_deref().unwrap_or_default()
        });
        match KeyStrength::of(key) {
            KeyStrength::Missing if self.situation.generation < Generation::Four => {}
            KeyStrength::Missing if self.form.get(EMPTY_KEY_CONFIRMED) == Some("Y") => {
                warnings.push(Warning::EmptyKey);
            }
            KeyStrength::Missing => {
                self.problems.insert(Key::SignatureKey, Problem::EmptyKey);
            }
            KeyStrength::Weak => warnings.push(Warning::WeakKey),
            KeyStrength::Strong => {}
        }
    }
}

/// Sites in the form that the PHP module stores: a map of each id to itself.
fn serialized_sites<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut ids: Vec<&str> = ids.collect();
    let mut seen = std::collections::BTreeSet::new();
    ids.retain(|id| seen.insert(*id));
    php::Value::map(ids.into_iter().map(|id| (id, php::Value::text(id)))).serialize()
}

#[cfg(test)]
mod tests;
