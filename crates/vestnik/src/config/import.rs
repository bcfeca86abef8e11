//! Files of the originals, `push-server-*.json`, taken as they are (README D22, queue-server.md §2).
//!
//! One or several of them become listeners and settings of one process. Whatever has another effect
//! here than there is a warning; what would be dangerous or wrong without saying is an error.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::certificates::{self, LoadedCertificate};
use super::layer::{Layers, Place, Problem, Rank};
use super::table::Setting;
use super::value::{Raw, Typing, WrittenCertificate, nearest};
use super::{Listener, RoutePrefixes, Routes, Warning};
use vestnik_server::Network;

/// What becomes of a key of the originals.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    /// It counts; the sentence says as what.
    Used(&'static str),
    /// It makes no difference here, so there is nothing to warn of.
    Harmless(&'static str),
    /// It has no effect, which deserves a warning: the sentence.
    Ignored(&'static str),
}

use Effect::{Harmless, Ignored, Used};

const NOT_IN_STATISTICS: &str = "has no effect: statistics of this version are always up to date";
const CLOUD_ONLY: &str = "has no effect: only cloud mode uses it, which is not available yet";
const SUITE_ONLY: &str = "only the original test suite reads it";
const OF_CACHE: &str = "has no effect: expired messages are always removed";
const LOGGED_TO_STANDARD_ERROR: &str = "has no effect: the log goes to standard error";

/// Every key of the originals (queue-server.md §2.1), in the order of the documentation.
pub(crate) const KEYS: &[(&str, Effect)] = &[
    ("servers", Used("listeners, each with its own routes")),
    ("servers.name", Used("name of the listener in the log")),
    ("servers.port", Used("port; a number or text")),
    ("servers.hostname", Used("address to listen on; absent: all IPv4 interfaces")),
    ("servers.backlog", Used("connections the system may queue")),
    ("servers.path", Used("refused: unix sockets are not available yet")),
    ("servers.maxPayload", Ignored("was never read, here neither; use `limits.maxPayload`")),
    ("servers.ssl", Used("TLS on this listener, with its own certificate")),
    ("servers.ssl.key", Used("file of the private key, PEM")),
    ("servers.ssl.cert", Used("file of the certificate and its chain, PEM")),
    ("servers.ssl.ciphers", Ignored("has no effect: TLS 1.2 and 1.3 with safe ciphers alone")),
    ("servers.ssl.dhparam", Ignored("has no effect: keys are agreed on by elliptic curves")),
    (
        "servers.ssl.honorCipherOrder",
        Ignored("has no effect: the server chooses among safe ciphers"),
    ),
    ("servers.routes", Used("path prefixes the listener answers; all others are 404")),
    ("servers.routes.pub", Used("publishing and presence")),
    ("servers.routes.sub", Used("long poll and WebSocket")),
    ("servers.routes.rest", Used("publishing by clients")),
    ("servers.routes.stat", Used("statistics")),
    ("servers.routes.register", Ignored("answers 404: cloud mode is not available yet")),
    ("servers.routes.systemctl", Ignored("answers 404: cloud mode is not available yet")),
    ("publishMode", Used("implies `clusterMode`")),
    ("clusterMode", Used("shown in statistics; all files given become one process")),
    ("processUniqueId", Harmless("names a process in Redis")),
    ("security", Used("signatures")),
    ("security.key", Used("`security.key`; absent or empty in all files: `security.unsigned`")),
    ("security.algo", Used("`security.algorithm`")),
    ("storage", Used("see below; a file that says where Redis is has `history.engine` = `redis`")),
    ("storage.type", Used("`memory`: history is kept on disk, which is warned of")),
    ("storage.socket", Used("`redis.address`; `redis.layout` becomes `push-server`")),
    ("storage.host", Used("`redis.address`")),
    ("storage.port", Used("`redis.address`; a number or text")),
    ("storage.messageTTL", Used("`history.message_ttl`, at most 86400 seconds")),
    (
        "storage.channelTTL",
        Used("warned of unless 86400: a channel is kept as long as its newest message"),
    ),
    ("storage.onlineTTL", Used("warned of unless 120: presence follows connections")),
    ("storage.onlineDelta", Used("warned of unless 10: presence follows connections")),
    ("storage.statTLLMsec", Ignored(NOT_IN_STATISTICS)),
    ("storage.statDeltaMsec", Ignored(NOT_IN_STATISTICS)),
    ("storage.cleanup", Ignored(OF_CACHE)),
    ("storage.cleanupInterval", Ignored(OF_CACHE)),
    ("limits", Used("see below")),
    ("limits.maxPayload", Used("`limits.max_payload`")),
    ("limits.maxConnPerChannel", Used("`limits.connections_per_channel`")),
    ("limits.maxMessagesPerRequest", Used("`limits.messages_per_request`")),
    ("limits.maxChannelsPerRequest", Used("`limits.channels_per_request`")),
    (
        "limits.maxRequestsPerSecond",
        Ignored(
            "was never read by the originals and has no effect here: requests are not limited by rate",
        ),
    ),
    ("debug", Used("see below")),
    ("debug.folderName", Used("warned of: the log goes to standard error")),
    ("debug.ip", Used("warned of unless empty: use `log.level = \"debug\"`")),
    ("debug.trustProxy", Harmless("concerns only `debug.ip`")),
    ("debug.logMaxSize", Ignored(LOGGED_TO_STANDARD_ERROR)),
    (
        "debug.testConnectionKey",
        Ignored("has no effect: refused requests are logged whatever they contain"),
    ),
    (
        "duplicatePub",
        Ignored(
            "has no effect: accepted messages are not repeated to another server by this version",
        ),
    ),
    ("cloudMode", Used("refused if true: cloud mode is not available yet")),
    ("trustClients", Used("refused if false: cloud mode is not available yet")),
    ("licenseServer", Ignored(CLOUD_ONLY)),
    ("licenseStorage", Ignored(CLOUD_ONLY)),
    ("dataDir", Ignored("has no effect: it was the place of cloud data; use `data_dir`")),
    ("test", Harmless(SUITE_ONLY)),
    ("disabledTests", Harmless(SUITE_ONLY)),
];

/// Keys whose content is of no interest once the key itself was judged.
const CLOSED: [&str; 4] = ["duplicatePub", "licenseStorage", "test", "disabledTests"];

/// Spellings of the official templates that the originals never read (queue-server.md §2.2).
const MISSPELT: [(&str, &str); 3] = [
    ("storage.messageTLL", "messageTTL"),
    ("storage.channelTLL", "channelTTL"),
    ("storage.onlineTLL", "onlineTTL"),
];

/// Limits of the originals and ours.
const LIMITS: [(&str, &str); 4] = [
    ("maxPayload", "limits.max_payload"),
    ("maxConnPerChannel", "limits.connections_per_channel"),
    ("maxMessagesPerRequest", "limits.messages_per_request"),
    ("maxChannelsPerRequest", "limits.channels_per_request"),
];

/// What all JSON files of one run add up to.
#[derive(Default)]
pub(crate) struct Imported {
    /// Their listeners, in order.
    pub(crate) listeners: Vec<Listener>,
    /// The certificates of their listeners.
    pub(crate) certificates: Vec<LoadedCertificate>,
    /// Whether one of them is a process of a cluster.
    pub(crate) cluster_mode: bool,
    /// Members of `limits` that mean nothing here; statistics repeat them.
    pub(crate) other_limits: Map<String, Json>,
    /// What keeps the program from starting.
    pub(crate) problems: Vec<Problem>,
    /// What is different here.
    pub(crate) warnings: Vec<Warning>,
}

/// Reads JSON files one after the other.
#[derive(Default)]
pub(crate) struct Import {
    result: Imported,
    /// The first JSON file, which general warnings name.
    first: Option<PathBuf>,
    /// Settings, what the first file that had them said, and which file that was.
    said: BTreeMap<&'static str, (Raw, PathBuf)>,
    keyless: Vec<PathBuf>,
    redis: Option<(PathBuf, String)>,
}

impl Import {
    /// Takes `text`, the content of `file`, into account.
    pub(crate) fn read(&mut self, layers: &mut Layers, file: &Path, text: &str) {
        let object = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
            Ok(Json::Object(object)) => object,
            Ok(_) => return self.problem(file, "", "is JSON, but not an object with `servers`"),
            Err(error) => {
                let template = ["__PORT__", "__SECURITY_KEY__", "__IP_LIST__"]
                    .iter()
                    .any(|it| text.contains(it));
                let hint = if template {
                    "; it is the template, give the file that was generated from it"
                } else {
                    ""
                };
                return self.problem(file, "", format!("is not JSON: {error}{hint}"));
            }
        };
        self.first.get_or_insert_with(|| file.to_owned());
        self.judge_keys(file, &object, "", "");
        let publish_mode = self.is_true(file, &object, "publishMode");
        self.result.cluster_mode |= publish_mode | self.is_true(file, &object, "clusterMode");
        self.refuse_cloud(file, &object);
        self.servers(file, &object, publish_mode);
        let [security, storage, limits, debug] =
            ["security", "storage", "limits", "debug"].map(|it| self.block(file, &object, it));
        self.security(layers, file, security);
        self.storage(layers, file, storage);
        self.limits(layers, file, limits);
        self.debug(file, debug);
    }

    fn problem(&mut self, file: &Path, path: &str, text: impl Into<String>) {
        self.result.problems.push(Problem::new(Place::File(file.to_owned(), None), path, text));
    }

    fn warn(&mut self, file: &Path, path: &str, text: impl Into<String>) {
        let place = Place::File(file.to_owned(), None);
        self.result.warnings.push(Warning { place, path: path.to_owned(), text: text.into() });
    }

    /// Warns of keys that are unknown, misspelt or without effect. `known` is `shown` without the
    /// positions in lists.
    fn judge_keys(&mut self, file: &Path, object: &Map<String, Json>, shown: &str, known: &str) {
        let join = |start: &str, name: &str| {
            if start.is_empty() { name.to_owned() } else { format!("{start}.{name}") }
        };
        for (name, value) in object {
            let (shown, path) = (join(shown, name), join(known, name));
            if let Some((_, meant)) = MISSPELT.iter().find(|(misspelt, _)| *misspelt == path) {
                self.warn(file, &shown, misspelt(meant));
                continue;
            }
            let effect = KEYS.iter().find(|(key, _)| *key == path).map(|(_, effect)| *effect);
            match effect {
                None => {
                    let siblings = KEYS.iter().filter_map(|(key, _)| {
                        let name = if known.is_empty() {
                            key
                        } else {
                            key.strip_prefix(known)?.strip_prefix('.')?
                        };
                        (!name.contains('.')).then_some(name)
                    });
                    let meant = nearest(name, siblings)
                        .map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
                    self.warn(file, &shown, format!("unknown key, ignored{meant}"));
                }
                Some(_) if value.is_null() => {}
                Some(Ignored(sentence)) => self.warn(file, &shown, sentence),
                Some(Used(_) | Harmless(_)) => {}
            }
            if effect.is_none() || CLOSED.contains(&path.as_str()) {
                continue;
            }
            match value {
                Json::Object(inner) => self.judge_keys(file, inner, &shown, &path),
                Json::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let Json::Object(inner) = item {
                            self.judge_keys(file, inner, &format!("{shown}[{index}]"), &path);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// A flag of the originals; anything but true and false is an error, because JavaScript would
    /// take the text "false" for true.
    fn is_true(&mut self, file: &Path, object: &Map<String, Json>, name: &str) -> bool {
        match object.get(name) {
            None | Some(Json::Null | Json::Bool(false)) => false,
            Some(Json::Bool(true)) => true,
            Some(_) => {
                self.problem(file, name, "must be true or false");
                false
            }
        }
    }

    /// `trustClients`, if given, wins over `cloudMode` (queue-server.md §2.1).
    fn refuse_cloud(&mut self, file: &Path, object: &Map<String, Json>) {
        const TEXT: &str = "cloud mode is not available yet in this version";
        let trusts = self.is_true(file, object, "trustClients");
        let cloud = self.is_true(file, object, "cloudMode");
        match object.get("trustClients") {
            Some(Json::Bool(_)) if trusts => {}
            Some(Json::Bool(_)) => self.problem(file, "trustClients", TEXT),
            _ if cloud => self.problem(file, "cloudMode", TEXT),
            _ => {}
        }
    }

    /// The block `name`. One that is no object is an error: without its key a server would accept
    /// every id.
    fn block<'json>(
        &mut self,
        file: &Path,
        object: &'json Map<String, Json>,
        name: &str,
    ) -> Option<&'json Map<String, Json>> {
        match object.get(name) {
            None | Some(Json::Null) => None,
            Some(Json::Object(block)) => Some(block),
            Some(_) => {
                self.problem(file, name, "must be an object");
                None
            }
        }
    }

    fn servers(&mut self, file: &Path, object: &Map<String, Json>, publish_mode: bool) {
        let Some(Json::Array(servers)) = object.get("servers") else {
            let text = "is missing; this is not a configuration of the push server";
            return self.problem(file, "servers", text);
        };
        if servers.is_empty() {
            self.problem(file, "servers", "must have at least one entry");
        }
        for (index, server) in servers.iter().enumerate() {
            let path = format!("servers[{index}]");
            match server {
                Json::Object(server) => self.server(file, &path, server, publish_mode),
                _ => self.problem(file, &path, "must be an object with `port` and `routes`"),
            }
        }
    }

    fn server(&mut self, file: &Path, path: &str, server: &Map<String, Json>, publish_mode: bool) {
        let tls = self.ssl(file, &format!("{path}.ssl"), server);
        if is_given(server, "path") {
            let text = "unix sockets are not available yet in this version; give a `port`";
            return self.problem(file, &format!("{path}.path"), text);
        }
        let routes = self.routes(file, path, server, publish_mode);
        let Some(port) = server.get("port").and_then(whole).and_then(|it| u16::try_from(it).ok())
        else {
            return self.problem(file, &format!("{path}.port"), "must be a port, 0 to 65535");
        };
        let backlog = match server.get("backlog").filter(|it| !it.is_null()) {
            None => 1024,
            Some(written) => match whole(written).and_then(|it| u32::try_from(it).ok()) {
                Some(backlog @ 1..=65_535) => backlog,
                _ => return self.problem(file, &format!("{path}.backlog"), "must be 1 to 65535"),
            },
        };
        let hostname = match server.get("hostname") {
            None | Some(Json::Null) => "",
            Some(Json::String(hostname)) => hostname,
            Some(_) => return self.problem(file, &format!("{path}.hostname"), "must be text"),
        };
        if hostname.is_empty() {
            self.warn(file, path, "has no `hostname`: listens on all IPv4 interfaces");
        }
        let address = match bind_address(hostname, port) {
            Ok(address) => address,
            Err(text) => return self.problem(file, &format!("{path}.hostname"), text),
        };
        let name = server.get("name").and_then(Json::as_str);
        let name = name.map_or_else(|| address.to_string(), str::to_owned);
        self.result.listeners.push(Listener {
            name,
            address,
            backlog,
            routes: Routes::Only(routes),
            tls,
            proxy_protocol: false,
            inherited: None,
        });
    }

    /// The certificate of a listener with a block `ssl`, read at once.
    fn ssl(
        &mut self,
        file: &Path,
        path: &str,
        server: &Map<String, Json>,
    ) -> Option<Vec<WrittenCertificate>> {
        let written = server.get("ssl").filter(|it| !it.is_null())?;
        let Json::Object(written) = written else {
            self.problem(file, path, "must be an object with `key` and `cert`");
            return None;
        };
        let mut named = |name: &str| match written.get(name).and_then(Json::as_str) {
            Some(named) if !named.is_empty() => Some(certificates::place(file, named)),
            _ => {
                self.problem(file, &format!("{path}.{name}"), "must be the path of a PEM file");
                None
            }
        };
        let (key, certificate) = (named("key"), named("cert"));
        let files = WrittenCertificate { certificate: certificate?, key: key? };
        match certificates::load(&files) {
            Ok(certificate) => self.result.certificates.push(certificate),
            Err(text) => self.problem(file, path, text),
        }
        Some(vec![files])
    }

    fn routes(
        &mut self,
        file: &Path,
        path: &str,
        server: &Map<String, Json>,
        publish_mode: bool,
    ) -> RoutePrefixes {
        let path = format!("{path}.routes");
        let Some(Json::Object(routes)) = server.get("routes") else {
            self.problem(file, &path, "is missing; without routes everything is answered with 404");
            return RoutePrefixes::default();
        };
        let mut prefix = |name: &str| match routes.get(name) {
            None | Some(Json::Null) => None,
            Some(Json::String(prefix)) if prefix.starts_with('/') && prefix.is_ascii() => {
                Some(prefix.clone())
            }
            Some(_) => {
                let text = "must be a path that begins with `/`, such as /bitrix/sub/";
                self.problem(file, &format!("{path}.{name}"), text);
                None
            }
        };
        let prefixes = RoutePrefixes {
            publish: prefix("pub"),
            subscribe: prefix("sub"),
            rest: prefix("rest"),
            stat: prefix("stat"),
        };
        if publish_mode && prefixes.subscribe.is_some() {
            let text =
                "subscribers of a `publishMode` process got nothing; here they get everything";
            self.warn(file, &format!("{path}.sub"), text);
        }
        prefixes
    }

    /// Sets one of our settings; a second file that says otherwise is a conflict.
    fn set(&mut self, layers: &mut Layers, file: &Path, from: &str, to: &'static str, raw: Raw) {
        let setting = Setting::find(to).expect("settings that are imported stand in the table");
        if let Some((said, by)) = self.said.get(to) {
            if *said != raw {
                let text = format!("differs from {}; one process has one value", by.display());
                self.problem(file, from, text);
            }
            return;
        }
        let place = Place::File(file.to_owned(), None);
        if let Err(problems) = layers.set(setting, &raw, Typing::Strict, Rank::File, &place) {
            problems.into_iter().for_each(|problem| self.problem(file, from, problem.text));
        }
        self.said.insert(to, (raw, file.to_owned()));
    }

    fn security(&mut self, layers: &mut Layers, file: &Path, security: Option<&Map<String, Json>>) {
        match security.and_then(|it| it.get("key")) {
            None | Some(Json::Null) => self.keyless.push(file.to_owned()),
            Some(Json::String(key)) if key.is_empty() => self.keyless.push(file.to_owned()),
            Some(Json::String(key)) => {
                self.set(layers, file, "security.key", "security.key", Raw::Text(key.clone()));
            }
            Some(_) => self.problem(file, "security.key", "must be text"),
        }
        match security.and_then(|it| it.get("algo")) {
            None | Some(Json::Null) => {}
            Some(Json::String(name)) => {
                let raw = Raw::Text(name.to_ascii_lowercase());
                self.set(layers, file, "security.algo", "security.algorithm", raw);
            }
            Some(_) => self.problem(file, "security.algo", "must be text"),
        }
    }

    fn storage(&mut self, layers: &mut Layers, file: &Path, storage: Option<&Map<String, Json>>) {
        let empty = Map::new();
        let storage = storage.unwrap_or(&empty);
        let kind = storage.get("type").and_then(Json::as_str).unwrap_or("redis");
        if kind == "memory" {
            let text = "`memory` counted only in Push server 1.0, and history is kept on disk here; set history.engine=memory to keep it in memory";
            self.warn(file, "storage.type", text);
        } else if let Some(address) = redis_address(storage) {
            match &self.redis {
                None => self.redis = Some((file.to_owned(), address)),
                Some((by, first)) if *first != address => {
                    let text = format!(
                        "another Redis ({address}) than in {} ({first}); one process has one",
                        by.display()
                    );
                    self.problem(file, "storage", text);
                }
                Some(_) => {}
            }
        }
        if let Some(port) = storage.get("port")
            && !port.is_null()
            && whole(port).is_none_or(|it| u16::try_from(it).is_err())
        {
            self.warn(file, "storage.port", "is not a port");
        }
        match storage.get("messageTTL").map(|it| (it, whole(it))) {
            None | Some((Json::Null, _)) => {}
            Some((_, Some(seconds))) => {
                if seconds > 86_400 {
                    self.warn(
                        file,
                        "storage.messageTTL",
                        "over 86400 seconds; messages are kept for 24 hours at most",
                    );
                }
                let raw = Raw::Text(format!("{}s", seconds.min(86_400)));
                self.set(layers, file, "storage.messageTTL", "history.message_ttl", raw);
            }
            Some(_) => {
                self.problem(file, "storage.messageTTL", "must be a whole number of seconds")
            }
        }
        for (name, usual, sentence) in [
            (
                "channelTTL",
                86_400,
                "has no effect: a channel is kept as long as its newest message",
            ),
            (
                "onlineTTL",
                120,
                "has no effect: presence follows connections and ends within seconds",
            ),
            (
                "onlineDelta",
                10,
                "has no effect: presence follows connections and ends within seconds",
            ),
        ] {
            let written = storage.get(name).filter(|it| !it.is_null());
            if written.is_some_and(|it| whole(it) != Some(usual)) {
                self.warn(file, &format!("storage.{name}"), sentence);
            }
        }
    }

    fn limits(&mut self, layers: &mut Layers, file: &Path, limits: Option<&Map<String, Json>>) {
        for (name, value) in limits.into_iter().flatten() {
            if LIMITS.iter().all(|(known, _)| known != name) {
                self.result.other_limits.entry(name).or_insert_with(|| value.clone());
            }
        }
        for (name, to) in LIMITS {
            let from = format!("limits.{name}");
            match limits.and_then(|it| it.get(name)).map(|it| (it, whole(it))) {
                None | Some((Json::Null, _)) => {}
                Some((_, Some(number))) => {
                    self.set(layers, file, &from, to, Raw::Integer(number.into()));
                }
                Some(_) => self.problem(file, &from, "must be a whole number"),
            }
        }
    }

    fn debug(&mut self, file: &Path, debug: Option<&Map<String, Json>>) {
        let Some(debug) = debug else { return };
        if let Some(folder) = debug.get("folderName").and_then(Json::as_str) {
            let missing = if Path::new(folder).is_dir() {
                ""
            } else {
                " (the folder does not exist, which does not matter)"
            };
            self.warn(file, "debug.folderName", format!("{LOGGED_TO_STANDARD_ERROR}{missing}"));
        }
        if debug.get("ip").and_then(Json::as_array).is_some_and(|it| !it.is_empty()) {
            self.warn(file, "debug.ip", "has no effect: use log.level=debug to trace connections");
        }
    }

    /// Closes the import once all other layers were read: what JSON files mean without saying it,
    /// and what is odd about all of them together. Without a JSON file nothing happens.
    pub(crate) fn finish(mut self, layers: &mut Layers) -> Imported {
        let Some(first) = self.first.clone() else { return self.result };
        self.imply_redis(layers);
        self.imply_trust(layers, &first);
        self.imply_unsigned(layers, &first);
        self.check_roles(layers, &first);
        self.result
    }

    fn imply(&mut self, layers: &mut Layers, file: &Path, path: &str, raw: &Raw) {
        let setting = Setting::find(path).expect("settings that are implied stand in the table");
        let place = Place::File(file.to_owned(), None);
        let set = layers.set(setting, raw, Typing::Strict, Rank::Implied, &place);
        self.result.problems.extend(set.err().into_iter().flatten());
    }

    /// A file that says where Redis is means that its history is there (README D22), as the processes
    /// beside it expect; one that does not keeps it on disk.
    fn imply_redis(&mut self, layers: &mut Layers) {
        let Some((file, address)) = self.redis.take() else { return };
        match (layers.rank("history.engine"), layers.text("history.engine")) {
            (Rank::Default, _) => {
                self.imply(layers, &file, "history.engine", &Raw::Text("redis".to_owned()));
                self.warn(&file, "storage", format!(
                    "history is kept in Redis ({address}), with the keys of Push server 2.0, whose processes may run beside; without it nothing can be published. Set history.engine=disk if this process is to serve alone and without Redis"
                ));
            }
            (_, "redis") => {}
            (_, _) => {
                self.warn(&file, "storage", format!(
                    "Redis ({address}) is not used, as history.engine says: messages published to other processes are not seen"
                ));
                return;
            }
        }
        for (path, value) in [("redis.layout", "push-server"), ("redis.address", &*address)] {
            if layers.rank(path) == Rank::Default {
                self.imply(layers, &file, path, &Raw::Text(value.to_owned()));
            }
        }
    }

    /// So the originals worked; their suite publishes from loopback with a foreign header (D15).
    fn imply_trust(&mut self, layers: &mut Layers, first: &Path) {
        if layers.rank("trusted.allow") == Rank::Default {
            let networks: Vec<_> = Network::LOCAL.iter().map(Network::to_string).collect();
            self.warn(first, "trusted.allow", format!(
                "not in the file: publishing and statistics are open to {}; the original was open to everybody",
                networks.join(", ")
            ));
            let raw = Raw::List(networks.into_iter().map(Raw::Text).collect());
            self.imply(layers, first, "trusted.allow", &raw);
        }
        self.imply(layers, first, "trusted.proxies", &Raw::List(Vec::new()));
    }

    fn imply_unsigned(&mut self, layers: &mut Layers, first: &Path) {
        let has_key = ["security.key", "security.keys", "security.key_file"]
            .iter()
            .any(|path| layers.rank(path) > Rank::Default);
        if has_key && self.said.contains_key("security.key") {
            for file in std::mem::take(&mut self.keyless) {
                self.warn(&file, "security.key", "is missing; the key of the other files applies");
            }
        }
        if !has_key && layers.rank("security.unsigned") == Rank::Default {
            let text = "is missing: bare channel ids are accepted, as in the original; who knows an id may listen";
            self.warn(first, "security.key", text);
            self.imply(layers, first, "security.unsigned", &Raw::Flag(true));
        }
    }

    /// A process of a cluster alone is half a server here, because there is no Redis between them.
    fn check_roles(&mut self, layers: &Layers, first: &Path) {
        if layers.rank("server.listen") > Rank::Default || self.result.listeners.is_empty() {
            return;
        }
        let any = |has: fn(&RoutePrefixes) -> bool| {
            self.result.listeners.iter().any(|listener| match &listener.routes {
                Routes::Standard => true,
                Routes::Only(prefixes) => has(prefixes),
            })
        };
        let (publish, subscribe) =
            (any(|it| it.publish.is_some()), any(|it| it.subscribe.is_some()));
        if !publish {
            let text = "no listener has a `pub` route: nothing can be published; give the pub files too, or their folder";
            self.warn(first, "servers", text);
        }
        if !subscribe {
            let text = "no listener has a `sub` route: nobody can listen; give the sub files too, or their folder";
            self.warn(first, "servers", text);
        }
    }
}

fn misspelt(meant: &str) -> String {
    let in_force = match meant {
        "messageTTL" => "messages are kept for 24 hours at most",
        "channelTTL" => "a channel is kept as long as its newest message",
        _ => "presence follows connections",
    };
    format!("the originals read `{meant}` and never this spelling, so it is ignored: {in_force}")
}

fn is_given(object: &Map<String, Json>, name: &str) -> bool {
    object.get(name).is_some_and(|it| !it.is_null())
}

/// A whole number, also written as text or with a fraction of zero.
fn whole(value: &Json) -> Option<u64> {
    match value {
        Json::String(text) => text.trim().parse().ok(),
        // Exact: such numbers print without a fraction.
        Json::Number(number) => {
            number.as_u64().or_else(|| format!("{}", number.as_f64()?).parse().ok())
        }
        _ => None,
    }
}

fn redis_address(storage: &Map<String, Json>) -> Option<String> {
    if let Some(socket) = storage.get("socket").and_then(Json::as_str) {
        return Some(format!("unix:{socket}"));
    }
    let (host, port) = (storage.get("host"), storage.get("port"));
    if [host, port].iter().all(|it| it.is_none_or(Json::is_null)) {
        return None;
    }
    let host = host.and_then(Json::as_str).unwrap_or("127.0.0.1");
    let port = port.and_then(whole).unwrap_or(6379);
    // An address of IPv6 has colons of its own.
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// The address of `hostname`, which the original of the newest edition ignored (W-43); empty means
/// all IPv4 interfaces.
fn bind_address(hostname: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = hostname.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    }
    if bare == "localhost" {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    (bare, port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| format!("`{hostname}` is neither an address nor a name that is known here"))
}
