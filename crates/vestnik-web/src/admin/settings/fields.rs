//! The fields of the settings page, each by its rule.

use maud::{Markup, html};
use vestnik_core::sign::Algorithm;
use vestnik_service::option::{Key, Source};
use vestnik_service::settings::{
    self, FieldState, KeyStrength, Needs, Problem, Rule, Section, ServerChoice, Situation,
};

use super::super::Admin;
use super::super::page::{self, Tone, Viewer};
use super::super::text::{self, Text};
use super::{Facts, Sent};

const GENERATIONS: [(i64, Text); 5] = [
    (5, text::SOFTWARE_5),
    (4, text::SOFTWARE_4),
    (3, text::SOFTWARE_3),
    (2, text::SOFTWARE_2),
    (1, text::SOFTWARE_1),
];
/// The older two are served for the sake of old sites alone.
const OUTDATED_UP_TO: i64 = 3;
const COURSE_LESSON: &str =
    "https://dev.1c-bitrix.ru/learning/course/index.php?COURSE_ID=41&LESSON_ID=";
const COURSE_LESSON_EN: &str =
    "https://training.bitrix24.com/support/training/course/index.php?COURSE_ID=";

/// Sites whose addresses are shown below a path at most.
const PREVIEWS_MAX: usize = 5;

pub(super) struct Fields<'a> {
    pub(super) viewer: &'a Viewer<'a>,
    pub(super) facts: &'a Facts,
    pub(super) sent: &'a Sent<'a>,
    pub(super) situation: Situation,
    pub(super) admin: &'a Admin,
}

const fn label(key: Key) -> Text {
    match key {
        Key::Push => text::PUSH,
        Key::PushMessagePerHit => text::PUSH_PER_HIT,
        Key::Guest => text::GUEST,
        Key::PathToPublish => text::PATH_TO_PUBLISH,
        Key::PathToJsonRpc => text::PATH_TO_JSON_RPC,
        Key::SignatureAlgo => text::SIGNATURE_ALGO,
        Key::PathToPublishWeb => text::PUBLISH_WEB,
        Key::PathToPublishWebSecure => text::PUBLISH_WEB_SECURE,
        Key::PathToModernListener => text::LISTENER,
        Key::PathToModernListenerSecure => text::LISTENER_SECURE,
        Key::Websocket => text::WEBSOCKET,
        Key::PathToWebsocket => text::PATH_WEBSOCKET,
        Key::PathToWebsocketSecure => text::PATH_WEBSOCKET_SECURE,
        Key::NginxCommandPerHit => text::COMMANDS_PER_HIT,
        Key::PathToListener => text::OLD_LISTENER,
        Key::PathToListenerSecure => text::OLD_LISTENER_SECURE,
        Key::PathToMobileListener => text::MOBILE_LISTENER,
        Key::PathToMobileListenerSecure => text::MOBILE_LISTENER_SECURE,
        Key::NginxHeaders => text::HEADERS,
        _ => text::SIGNATURE_KEY,
    }
}

const fn needs(needs: Needs) -> Option<&'static str> {
    match needs {
        Needs::Nothing => None,
        Needs::Push => Some("push"),
        Needs::WebSocket => Some("websocket"),
    }
}

/// A choice or generation list as a script reads it.
fn words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(" ")
}

impl Fields<'_> {
    fn say(&self, text: Text) -> &'static str {
        self.viewer.say(text)
    }

    /// The value to show: as it was sent, else as it is in force.
    fn value(&self, key: Key) -> &str {
        let sent = self.sent.form.and_then(|form| form.get(key.name()));
        sent.unwrap_or_else(|| self.facts.options.text(key))
    }

    fn is_checked(&self, key: Key) -> bool {
        match self.sent.form {
            Some(form) => form.get(key.name()) == Some("Y"),
            None => self.facts.options.is_on(key),
        }
    }

    fn is_pinned(&self, key: Key) -> bool {
        self.facts.options.source(key) == Source::Pinned
    }

    fn state(&self, key: Key) -> FieldState {
        Rule::of(key).map_or(FieldState::Enabled, |rule| rule.state(&self.situation))
    }

    fn is_disabled(&self, key: Key) -> bool {
        !self.viewer.may_write() || self.is_pinned(key) || self.state(key) != FieldState::Enabled
    }

    /// Where the value in force comes from (S-49).
    fn source(&self, key: Key) -> Markup {
        let text = match self.facts.options.source(key) {
            Source::Pinned => text::SOURCE_PINNED,
            Source::Site | Source::Database => text::SOURCE_DATABASE,
            Source::File | Source::IncludeFile => text::SOURCE_FILE,
            Source::Generated => text::SOURCE_GENERATED,
            Source::BuiltIn => text::SOURCE_BUILT_IN,
        };
        html! { span.source data-source=(key.name()) { (self.say(text)) } }
    }

    fn problem(&self, key: Key) -> Option<String> {
        let problem = self.sent.problems.get(&key)?;
        Some(match problem {
            Problem::Address => self.say(text::BAD_ADDRESS).to_owned(),
            Problem::SocketAddress => self.say(text::BAD_SOCKET_ADDRESS).to_owned(),
            Problem::Number(min, max) => self
                .say(text::BAD_NUMBER)
                .replace("#MIN#", &min.to_string())
                .replace("#MAX#", &max.to_string()),
            Problem::Choice => self.say(text::BAD_CHOICE).to_owned(),
            Problem::Length => self.say(text::BAD_LENGTH).to_owned(),
            Problem::EmptyKey => self.say(text::BAD_EMPTY_KEY).to_owned(),
            Problem::Pinned => self.say(text::BAD_PINNED).to_owned(),
        })
    }

    /// A row with a label, a control, and what is to be said about it. The script reads the rule from
    /// its attributes.
    fn row(&self, key: Key, control: &Markup, hint: &Markup) -> Markup {
        let Some(rule) = Rule::of(key) else { return html! {} };
        let name = key.name();
        let problem = self.problem(key);
        html! {
            div.row data-field=(name)
                data-choices=(words(rule.choices.iter().map(|it| it.value())))
                data-generations=(words(rule.generations))
                data-needs=[needs(rule.needs)]
                data-pinned[self.is_pinned(key)]
                hidden[self.state(key) == FieldState::Hidden] {
                label for=(name) { (self.say(label(key))) }
                div.control {
                    (control)
                    p.error id={ (name) "-error" } role="alert" hidden[problem.is_none()] {
                        (problem.unwrap_or_default())
                    }
                    div.hints { (hint) (self.source(key)) }
                }
            }
        }
    }

    /// A switch.
    fn switch(&self, key: Key, is_checked: bool, hint: &Markup) -> Markup {
        let name = key.name();
        let control = html! {
            input.switch type="checkbox" role="switch" id=(name) name=(name) value="Y"
                checked[is_checked] disabled[self.is_disabled(key)]
                aria-describedby={ (name) "-error" };
        };
        self.row(key, &control, hint)
    }

    fn number(&self, key: Key, hint: Text) -> Markup {
        let name = key.name();
        let control = html! {
            input.short type="text" inputmode="numeric" id=(name) name=(name) value=(self.value(key))
                size="10" data-number="0 10000" disabled[self.is_disabled(key)]
                aria-describedby={ (name) "-error" } aria-invalid=(self.sent.problems.contains_key(&key));
        };
        self.row(key, &control, &html! { span { (self.say(hint)) } })
    }

    /// An address, with what it becomes for each site (S-32, S-62).
    fn path(&self, key: Key, kind: &str, hint: Option<Text>) -> Markup {
        let name = key.name();
        let built_in = key.default_value();
        let control = html! {
            input type="text" inputmode="url" spellcheck="false" autocomplete="off" id=(name) name=(name)
                size="40" value=(self.value(key)) placeholder=(built_in) data-address=(kind)
                disabled[self.is_disabled(key)] aria-describedby={ (name) "-error " (name) "-preview" }
                aria-invalid=(self.sent.problems.contains_key(&key));
        };
        let shown = html! {
            @if let Some(hint) = hint { span { (self.say(hint)) } }
            ul.preview id={ (name) "-preview" } data-preview-of=(name) aria-label=(self.say(text::PREVIEW)) {
                @for domain in self.domains() {
                    li { code { (self.preview(key, &domain)) } }
                }
            }
        };
        self.row(key, &control, &shown)
    }

    /// Domains of the sites that have one.
    fn domains(&self) -> Vec<String> {
        let sites = self.facts.sites.iter().filter(|site| site.is_active);
        let domains = sites.map(|site| site.server_name.clone()).filter(|it| !it.is_empty());
        domains.take(PREVIEWS_MAX).collect()
    }

    fn preview(&self, key: Key, domain: &str) -> String {
        let value = self.value(key);
        let is_secure = value.starts_with("https:") || value.starts_with("wss:");
        let port = match (self.situation.generation.number(), is_secure) {
            (1, false) => ":8893",
            (1, true) => ":8894",
            _ => "",
        };
        value.replace("#PORT#", port).replace("#DOMAIN#", domain)
    }

    pub(super) fn form(&self) -> Markup {
        html! {
            form #settings method="post" action="/admin/settings" novalidate autocomplete="off"
                data-may-write[self.viewer.may_write()] {
                (self.viewer.form_key())
                (self.common())
                (self.no_server())
                (self.cloud())
                (self.local())
                (super::connection::card(self.viewer, self.situation.choice == ServerChoice::Local))
                (self.sites())
                (self.outdated())
                (self.buttons())
            }
        }
    }

    fn common(&self) -> Markup {
        let facts = self.facts;
        let push = self.is_checked(Key::Push);
        html! {
            section.card aria-labelledby="common-title" {
                h2 #common-title { (self.say(text::NAV_SETTINGS)) }
                div.row {
                    span.label { (self.say(text::STATUS)) }
                    div.control #module-status {
                        @if facts.is_active {
                            (page::pill(Tone::Good, self.say(text::STATUS_ACTIVE)))
                        } @else {
                            (page::pill(Tone::Plain, self.say(text::STATUS_INACTIVE)))
                            div.hints { span { (self.say(text::STATUS_INACTIVE_HINT)) } }
                        }
                    }
                }
                @if facts.is_active {
                    div.row {
                        span.label { (self.say(text::USED_BY)) }
                        div.control #used-by {
                            (facts.modules.iter().map(|it| it.module_id.as_str()).collect::<Vec<_>>().join(", "))
                        }
                    }
                }
                (self.server_state())
                (self.switch(Key::Push, push, &html! {}))
                (self.number(Key::PushMessagePerHit, text::PUSH_PER_HIT_HINT))
                (self.switch(Key::Guest, self.is_checked(Key::Guest), &html! {
                    span title=(self.say(text::GUEST_HINT)) { (self.say(text::GUEST_HINT_OURS)) }
                }))
                div.row {
                    label for="push_server_mode" { (self.say(text::USE_SERVER)) }
                    div.control {
                        select #push_server_mode name=(settings::CHOICE) disabled[!self.viewer.may_write()] {
                            @for choice in ServerChoice::ALL {
                                option value=(choice.value()) selected[choice == self.situation.choice] {
                                    (self.say(match choice {
                                        ServerChoice::Nothing => text::CHOICE_NOTHING,
                                        ServerChoice::Cloud => text::CHOICE_CLOUD,
                                        ServerChoice::Local => text::CHOICE_LOCAL,
                                    }))
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// State of the queue server itself (S-64).
    fn server_state(&self) -> Markup {
        let options = &self.facts.options;
        let is_open = !matches!(options.text(Key::NginxError), "" | "N");
        html! {
            div.row {
                span.label { (self.say(text::SERVER_STATE)) }
                div.control.pills #server-state {
                    @if !options.is_server_on() {
                        (page::pill(Tone::Plain, self.say(text::SERVER_OFF)))
                    } @else {
                        @if self.facts.is_reachable {
                            (page::pill(Tone::Good, self.say(text::SERVER_REACHABLE)))
                        } @else {
                            (page::pill(Tone::Bad, self.say(text::SERVER_UNREACHABLE)))
                        }
                        (page::pill(Tone::Plain, &format!("{} {}", self.say(text::SERVER_GENERATION), options.generation().number())))
                        @if is_open {
                            (page::pill(Tone::Bad, self.say(text::BREAKER_OPEN)))
                        } @else {
                            (page::pill(Tone::Good, self.say(text::BREAKER_CLOSED)))
                        }
                    }
                    @if let Some(error) = self.admin.last_error() {
                        div.hints { span #last-error { (self.say(text::LAST_ERROR)) ": " (error) } }
                    }
                }
            }
        }
    }

    /// S-07.
    fn no_server(&self) -> Markup {
        html! {
            div #pull_disabled data-choices="N" hidden[self.situation.choice != ServerChoice::Nothing] {
                (page::notice(Tone::Warning, &html! { (self.say(text::NO_SERVER_NOTE)) }))
            }
        }
    }

    /// The block of the cloud (S-08 to S-12).
    fn cloud(&self) -> Markup {
        let options = &self.facts.options;
        let is_registered = options.is_on(Key::RegisteredOnSharedServer);
        html! {
            section.card #pull_cloud_settings data-choices="shared" aria-labelledby="cloud-title"
                hidden[self.situation.choice != ServerChoice::Cloud] {
                h2 #cloud-title { (self.say(text::CLOUD)) }
                div.row {
                    span.label { (self.say(text::CLOUD_REGISTRATION)) }
                    div.control #cloud-registration {
                        @if let Some(error) = &self.sent.cloud_error {
                            (page::pill(Tone::Bad, self.say(text::CLOUD_ERROR)))
                            p.error #cloud-error role="alert" { (self.say(text::CLOUD_ERROR)) ": " (error) }
                            div.hints { span { (self.say(text::CLOUD_KEPT)) } }
                        } @else if is_registered {
                            (page::pill(Tone::Good, self.say(text::CLOUD_ACTIVE)))
                        } @else {
                            (page::pill(Tone::Bad, self.say(text::CLOUD_INACTIVE)))
                        }
                    }
                }
                @if is_registered {
                    div.row {
                        span.label { (self.say(text::CLOUD_ADDRESS)) }
                        div.control #cloud-address { code { (options.text(Key::SharedServerAddress)) } }
                    }
                } @else {
                    div.row {
                        label for="cloud_server_hostname" { (self.say(text::CLOUD_REGISTER_AT)) }
                        div.control {
                            select #cloud_server_hostname name=(settings::CLOUD_HOST) disabled[!self.viewer.may_write()] {
                                option value="" { (self.say(text::CLOUD_AUTO)) }
                            }
                            p.error #cloud-list-error role="alert" hidden {}
                            div.hints { span #cloud-list-state hidden { (self.say(text::CLOUD_LIST_LOADING)) } }
                        }
                    }
                    @if self.viewer.may_write() {
                        div.row {
                            span.label {}
                            div.control { button.primary type="submit" name="Update" value="Register" { (self.say(text::CLOUD_REGISTER)) } }
                        }
                    }
                }
                (page::notice(Tone::Plain, &html! { (self.say(text::CLOUD_LICENCE)) }))
            }
        }
    }

    /// The block of the local server (S-13 to S-29).
    fn local(&self) -> Markup {
        let choices = ServerChoice::Local;
        html! {
            section.card #pull_local_settings data-choices=(choices.value()) aria-labelledby="local-title"
                hidden[self.situation.choice != choices] {
                div.heading {
                    h2 #local-title { (self.say(text::LOCAL)) }
                    @if self.viewer.may_write() && !self.admin.options.own_addresses.0.is_empty() {
                        button.quiet type="button" #own-addresses { (self.say(text::OWN_ADDRESSES)) }
                    }
                }
                (self.software())
                h3 { (self.say(text::SERVER_PUBLISH)) }
                (self.path(Key::PathToPublish, "http", None))
                (self.path(Key::PathToJsonRpc, "http", None))
                (self.key())
                (self.algorithm())
                h3 { (self.say(text::CLIENT_PUBLISH)) }
                (self.path(Key::PathToPublishWeb, "http", None))
                (self.path(Key::PathToPublishWebSecure, "http", Some(text::PUBLISH_WEB_NOTE)))
                h3 { (self.say(text::READING)) }
                (self.path(Key::PathToModernListener, "http", None))
                (self.path(Key::PathToModernListenerSecure, "http", Some(text::LISTENER_NOTE)))
                h3 { (self.say(text::WEBSOCKET_READING)) }
                (self.switch(Key::Websocket, self.situation.has_websocket, &self.websocket_hint()))
                (self.path(Key::PathToWebsocket, "ws", None))
                (self.path(Key::PathToWebsocketSecure, "ws", Some(text::WEBSOCKET_NOTE)))
                p.note #macros { (self.say(text::MACROS)) " " (self.say(text::EMPTY_IS_DEFAULT)) "." }
            }
        }
    }

    fn websocket_hint(&self) -> Markup {
        html! {
            span data-when-generations="3 4 5" hidden[self.situation.generation.number() < 3] { (self.say(text::WEBSOCKET_ALWAYS)) }
            span data-when-generations="2" hidden[self.situation.generation.number() != 2] { (self.say(text::WEBSOCKET_CHECK)) }
            span data-when-generations="1" hidden[self.situation.generation.number() != 1] { (self.say(text::WEBSOCKET_NEVER)) }
        }
    }

    /// S-13 and S-14, S-47.
    fn software(&self) -> Markup {
        let chosen = self.situation.generation.number();
        let is_english = self.viewer.look.language == text::Language::English;
        let lesson = if is_english {
            format!("{COURSE_LESSON_EN}178&LESSON_ID=21641")
        } else {
            format!("{COURSE_LESSON}21636")
        };
        html! {
            fieldset.row data-field="nginx_version" data-choices="personal" data-generations="1 2 3 4 5" {
                legend { (self.say(text::SOFTWARE)) }
                div.control.radios {
                    @for (number, name) in GENERATIONS {
                        label.radio {
                            input type="radio" name="nginx_version" value=(number) checked[number == chosen] disabled[!self.viewer.may_write()];
                            span { (self.say(name)) }
                            @if number == 5 { (page::pill(Tone::Plain, self.say(text::SOFTWARE_JSON_RPC))) }
                            @if number == 4 { (page::pill(Tone::Good, self.say(text::SOFTWARE_RECOMMENDED))) }
                            @if number <= OUTDATED_UP_TO { (page::pill(Tone::Warning, self.say(text::OUTDATED))) }
                        }
                    }
                    p.error id="nginx_version-error" role="alert" hidden[self.problem(Key::NginxVersion).is_none()] { (self.problem(Key::NginxVersion).unwrap_or_default()) }
                    p.hint data-when-generations="1" hidden[chosen != 1] { (self.say(text::OUTDATED_1_NOTE)) }
                    div.hints {
                        span #outdated-note {
                            (self.say(text::OUTDATED_NOTE)) " "
                            a href=(lesson) rel="noreferrer noopener" target="_blank" { (self.say(text::OUTDATED_MORE)) }
                        }
                        (self.source(Key::NginxVersion))
                    }
                }
            }
        }
    }

    /// S-18, S-19, S-53.
    fn key(&self) -> Markup {
        let key = Key::SignatureKey;
        let value = if self.viewer.may_write() { self.value(key) } else { "" };
        let strength = KeyStrength::of(self.value(key));
        let is_needed = self.situation.generation.number() >= 4;
        let is_missing = is_needed && strength == KeyStrength::Missing;
        let control = html! {
            div.joined {
                input type="password" id="signature_key" name="signature_key" size="40" value=(value)
                    autocomplete="off" spellcheck="false" data-key
                    placeholder=[(!self.viewer.may_write() && strength != KeyStrength::Missing).then_some("••••••••")]
                    disabled[self.is_disabled(key)] aria-describedby="signature_key-error signature_key-missing key-strength"
                    aria-invalid=(self.sent.problems.contains_key(&key));
                @if self.viewer.may_write() {
                    button type="button" #key-show aria-pressed="false" data-other=(self.say(text::KEY_HIDE)) { (self.say(text::KEY_SHOW)) }
                    button type="button" #key-copy data-done=(self.say(text::KEY_COPIED)) { (self.say(text::KEY_COPY)) }
                    button type="button" #key-generate disabled[self.is_disabled(key)] { (self.say(text::KEY_GENERATE)) }
                }
            }
            p.error.strong id="signature_key-missing" hidden[!is_missing] { (self.say(text::SIGNATURE_KEY_MISSING)) }
            label.check #key-confirm hidden[!is_missing] {
                input type="checkbox" name=(settings::EMPTY_KEY_CONFIRMED) value="Y" disabled[!self.viewer.may_write()];
                span { (self.say(text::KEY_EMPTY_CONFIRM)) }
            }
        };
        let hint = html! {
            span #key-strength data-strong=(self.say(text::KEY_STRONG)) data-weak=(self.say(text::KEY_WEAK)) aria-live="polite" {
                (match strength {
                    KeyStrength::Missing => "",
                    KeyStrength::Weak => self.say(text::KEY_WEAK),
                    KeyStrength::Strong => self.say(text::KEY_STRONG),
                })
            }
            @if self.is_pinned(key) { span { (self.say(text::SOURCE_PINNED_HINT)) } }
            @else if self.viewer.may_write() { span { (self.say(text::SIGNATURE_KEY_HINT)) } }
            @else { span { (self.say(text::KEY_SECRET)) } }
        };
        self.row(key, &control, &hint)
    }

    fn algorithm(&self) -> Markup {
        let key = Key::SignatureAlgo;
        let control = html! {
            select.short id="signature_algo" name="signature_algo" disabled[self.is_disabled(key)] aria-describedby="signature_algo-error" {
                @for algorithm in Algorithm::ALL {
                    option value=(algorithm.name()) selected[algorithm.name() == self.value(key)] { (algorithm.name()) }
                }
            }
        };
        self.row(key, &control, &html! {})
    }

    /// S-30, S-31, S-56.
    fn sites(&self) -> Markup {
        let excluded: Vec<&str> = match self.sent.form {
            Some(form) => form.all(settings::EXCLUDED).collect(),
            None => self.facts.options.excluded_sites().collect(),
        };
        let active: Vec<_> = self.facts.sites.iter().filter(|site| site.is_active).collect();
        if active.len() < 2 && excluded.is_empty() {
            return html! {};
        }
        let is_hidden = self.state(Key::ExcludeSites) == FieldState::Hidden;
        html! {
            section.card #exclude-card data-choices="shared personal" aria-labelledby="exclude-title" hidden[is_hidden] {
                h2 #exclude-title { (self.say(text::EXCLUDE)) }
                input type="hidden" name=(settings::EXCLUDED_SHOWN) value="1";
                fieldset.row data-field="exclude_sites" data-choices="shared personal" data-generations="1 2 3 4 5" {
                    legend { (self.say(text::EXCLUDE_SITES)) }
                    div.control.checks #exclude_sites {
                        @for site in &active {
                            label.check {
                                input type="checkbox" name=(settings::EXCLUDED) value=(site.id)
                                    checked[excluded.contains(&site.id.as_str())] disabled[!self.viewer.may_write()];
                                span { (site.name) " [" (site.id) "]" }
                            }
                        }
                        @for id in excluded.iter().filter(|id| !active.iter().any(|site| site.id == **id)) {
                            label.check {
                                input type="checkbox" name=(settings::EXCLUDED) value=(id) checked disabled[!self.viewer.may_write()];
                                span { "[" (id) "]" }
                            }
                        }
                        div.hints { span { (self.say(text::EXCLUDE_HINT)) } (self.source(Key::ExcludeSites)) }
                    }
                }
            }
        }
    }

    /// Fields of older pages (S-38 to S-45).
    fn outdated(&self) -> Markup {
        let keys = settings::RULES.iter().filter(|rule| rule.section == Section::Outdated);
        let has_problem = keys.clone().any(|rule| self.sent.problems.contains_key(&rule.key));
        html! {
            details.card #outdated-card data-choices="personal" hidden[self.situation.choice != ServerChoice::Local] open[has_problem] {
                summary { h2 { (self.say(text::OUTDATED_SERVERS)) } p { (self.say(text::OUTDATED_LEAD)) } }
                div.row {
                    label for="nginx" { (self.say(text::NGINX)) }
                    div.control {
                        input.switch type="checkbox" role="switch" id="nginx" disabled checked[self.situation.choice == ServerChoice::Local];
                        div.hints { span { (self.say(text::NGINX_FOLLOWS)) } (self.source(Key::Nginx)) }
                    }
                }
                (self.number(Key::NginxCommandPerHit, text::COMMANDS_PER_HIT_HINT))
                (self.path(Key::PathToListener, "http", None))
                (self.path(Key::PathToListenerSecure, "http", None))
                (self.path(Key::PathToMobileListener, "http", None))
                (self.path(Key::PathToMobileListenerSecure, "http", Some(text::MOBILE_LISTENER_HINT)))
                (self.switch(Key::NginxHeaders, self.is_checked(Key::NginxHeaders), &html! {}))
            }
        }
    }

    fn buttons(&self) -> Markup {
        let may = self.viewer.may_write();
        let is_english = self.viewer.look.language == text::Language::English;
        let lesson = if is_english {
            format!("{COURSE_LESSON_EN}26&LESSON_ID=5144")
        } else {
            format!("{COURSE_LESSON}2033")
        };
        html! {
            div.savebar {
                button.primary type="submit" name="Update" value="Save" disabled[!may] { (self.say(text::SAVE)) }
                button type="reset" name="reset" disabled[!may] { (self.say(text::RESET)) }
                span.grow #unsaved hidden aria-live="polite" { (self.say(text::UNSAVED)) }
                button.quiet type="button" #defaults disabled[!may] data-opens="defaults-dialog" { (self.say(text::DEFAULTS)) }
            }
            p.note {
                a #documentation href=(lesson) rel="noreferrer noopener" target="_blank" { (self.say(text::DOCUMENTATION)) }
                br;
                span #editions { (self.say(text::EDITIONS)) }
            }
        }
    }

    /// What the script needs to know.
    pub(super) fn data(&self) -> Markup {
        let own: serde_json::Map<String, serde_json::Value> = self
            .admin
            .options
            .own_addresses
            .0
            .iter()
            .map(|(key, address)| (key.name().to_owned(), address.clone().into()))
            .collect();
        page::data(
            "settings-data",
            &serde_json::json!({
                "domains": self.domains(),
                "own": own,
                "address": self.say(text::BAD_ADDRESS),
                "socketAddress": self.say(text::BAD_SOCKET_ADDRESS),
                "number": self.say(text::BAD_NUMBER),
            }),
        )
    }
}
