//! The one table of settings: names, kinds, defaults and their reasons. The defaults of the
//! program and `docs/options.md` are both made from it.

use super::value::Kind;

/// One setting of `vestnik.toml`.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its path in the file: `history.sync`.
    pub(crate) path: &'static str,
    /// What it takes.
    pub(crate) kind: Kind,
    /// Its default, as it would be written in the file; empty: worked out at start, see `about`.
    pub(crate) default: &'static str,
    /// What it does, one or two sentences.
    pub(crate) about: &'static str,
    /// Why the default is what it is, or which specification item asks for it.
    pub(crate) origin: &'static str,
}

impl Setting {
    /// The setting at `path`.
    pub(crate) fn find(path: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.path == path)
    }

    /// The environment variable that sets it: the path in upper case behind `VESTNIK_`, with `_`
    /// for the dot.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }
}

/// What all environment variables of the program begin with.
pub(crate) const VARIABLE_PREFIX: &str = "VESTNIK_";

/// Beginnings of variables that container platforms set by themselves for a service that is named
/// `vestnik` (`VESTNIK_SERVICE_HOST`, `VESTNIK_PORT_8895_TCP`); no setting begins like that.
pub(crate) const FOREIGN_VARIABLES: [&str; 2] = ["VESTNIK_SERVICE_", "VESTNIK_PORT"];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

macro_rules! settings {
    ($($path:literal, $kind:expr, $default:literal, $about:literal, $origin:literal;)*) => {
        /// Every setting, in the order of the documentation.
        pub(crate) const SETTINGS: &[Setting] = &[$(Setting {
            path: $path, kind: $kind, default: $default, about: $about, origin: $origin,
        }),*];
    };
}

settings! {
    "data_dir", Kind::Text, "",
    "Folder of everything the server keeps: history, generated key. Default: `$STATE_DIRECTORY` if set (systemd sets it), else `/var/lib/vestnik` if it exists and can be written, else `./vestnik-data`.",
    "works as a service, in a container and from a checkout without an argument";
    "generation", Kind::Choice(&["3", "4", "5"]), "4",
    "Generation of the sites that publish. 3: a message without `Message-Expiry` is kept for a day; 4 and 5: it reaches who is connected and is not stored. Sites of generation 5 are served with each of them.",
    "README D5: PHP before 16.0 never sends the header";

    "server.listen", Kind::Addresses, "[\"0.0.0.0:8895\"]",
    "Addresses to listen on, each with all routes. `[::]:8895` takes IPv6 too. With imported JSON files the default does not apply, and what is set here is opened besides their listeners.",
    "README D1: PHP's built-in `path_to_publish` is port 8895";
    "server.listen_tls", Kind::Addresses, "[]",
    "Addresses to listen on with TLS (https, wss), each with all routes and the certificates of `tls.certificates`.",
    "none without a certificate; `0.0.0.0:8894` is the port of the originals' nginx for TLS";
    "server.proxy_protocol", Kind::Addresses, "[]",
    "Those of `server.listen` and `server.listen_tls` whose connections begin with a PROXY header (version 1 or 2). They are taken from `trusted.proxies` alone, and the address in the header counts as the caller's.",
    "haproxy, `doc/proxy-protocol.txt`; README D15: believed from known proxies only";
    "server.watch", Kind::Time(0, HOUR), "\"5s\"",
    "How often the files of the configuration, keys and certificates are looked at; a change is put in force once they stay the same from one look to the next. 0: only on SIGHUP.",
    "design.md §3.6: renewed certificates without anybody's help";
    "server.shards", Kind::Count(0, 64), "0",
    "Threads that serve connections; 0: one per core, at most 64.",
    "design.md §2: one shard per core";
    "server.backlog", Kind::Count(1, 65_535), "1024",
    "Connections the system may queue before they are accepted.",
    "the originals' templates";
    "server.public_url", Kind::Text, "\"\"",
    "Address at which browsers reach the server, such as `https://example.com`; used in advice that is printed, never for routing. Empty: not known.",
    "only the administrator knows what stands in front";
    "server.drain", Kind::Time(0, 10 * MINUTE), "\"10s\"",
    "Time over which 10,000 connections are closed at shutdown, so that their clients do not all return at once; fewer take their share of it.",
    "clients.md K-042";
    "server.compression", Kind::Flag, "false",
    "Compress WebSocket messages (permessage-deflate) for clients that offer it, once for all of them. Saves traffic, costs processor time and 50 KB or so per message from a client; leave it off behind a proxy that compresses.",
    "queue-server.md W-40, Q-104: the originals never compress";

    "security.key", Kind::Secret, "\"\"",
    "Signature key, shared with the site's option `signature_key`; at least 32 characters. Empty: `security.keys` or `security.key_file`.",
    "README D16";
    "security.keys", Kind::Keys, "[]",
    "Several keys, for a change without a gap: the first signs, all verify; `security.key`, if set, is the first. At most 4. `until`: a date or a time after which a key is void.",
    "README D16";
    "security.key_file", Kind::Text, "\"\"",
    "File that holds the key, readable by its owner only. Empty: `<data_dir>/signature.key`, which is generated at the first start; a file named here must exist (`vestnik keygen --output`).",
    "no start without a key, and no new key by a slip in a name";
    "security.algorithm", Kind::Choice(&["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]), "\"sha1\"",
    "Signature algorithm of keys that name none; the site's option `signature_algo`.",
    "queue-server.md §3.2: the default of PHP";
    "security.allow_weak_key", Kind::Flag, "false",
    "Accept keys shorter than 32 characters and keys that were published in documentation or test suites.",
    "README D16; only for tests";
    "security.unsigned", Kind::Flag, "false",
    "Run without a key and accept bare channel ids: who knows an id may listen. Refused together with a key.",
    "queue-server.md Q-011, README D3; never by accident";

    "security.guests_write_to_users", Kind::Flag, "false",
    "Generation 5: let clients that are not signed in write to users by their numbers, not only to signed public channels.",
    "json-rpc.md §7; nothing in a guest's token says whom it may write to";

    "tls.certificates", Kind::Certificates, "[]",
    "Certificates for `server.listen_tls`, PEM files, chain first: the one whose names contain what the client asks for answers, else the first. `key` may be left out when it is in the same file. In the environment and on the command line: `certificate:key,certificate:key`.",
    "names come from the certificate itself, so that they cannot differ";

    "acme.names", Kind::Hosts, "[]",
    "Names to get a certificate for, and to renew it (ACME, RFC 8555): one certificate for all of them, used by `server.listen_tls` behind those of `tls.certificates`. Empty: none.",
    "whether the names lead here only the administrator knows";
    "acme.accept_terms", Kind::Flag, "false",
    "Whether you accept the terms of service of the authority in `acme.directory`; required.",
    "RFC 8555 §7.3: nobody can accept them for you";
    "acme.contact", Kind::Text, "\"\"",
    "Mail address that the authority gets for its notices. Empty: none.",
    "RFC 8555 §7.3: optional";
    "acme.directory", Kind::Text, "\"https://acme-v02.api.letsencrypt.org/directory\"",
    "Directory of the authority. Let's Encrypt's for trying out is `https://acme-staging-v02.api.letsencrypt.org/directory`. The account and the certificate are kept for each of them in `<data_dir>/acme`.",
    "free of charge and trusted by every browser";
    "acme.authorities", Kind::Text, "\"\"",
    "File with certificates, PEM, that the directory's own one is checked with instead of the public authorities.",
    "authorities of a company";
    "acme.challenge", Kind::Choice(&["auto", "http-01", "tls-alpn-01"]), "\"auto\"",
    "How the authority sees that the names lead here: by a request to port 80 (`http-01`; any listener without TLS answers) or by a handshake at port 443 (`tls-alpn-01`; any with TLS). `auto`: `http-01` if something listens at port 80, else `tls-alpn-01`.",
    "RFC 8555 §8.3, RFC 8737: the authority connects to these ports only, forwarded ones will do";

    "trusted.allow", Kind::Networks, "[\"127.0.0.0/8\", \"::1\"]",
    "Networks whose callers may publish and read statistics.",
    "README D15";
    "trusted.proxies", Kind::Networks, "[\"127.0.0.0/8\", \"::1\"]",
    "Networks of reverse proxies whose word on the caller's address is believed (`trusted.forwarded`, `server.proxy_protocol`). Empty: nobody's.",
    "README D15: a proxy that forwards `/bitrix/pub/` by mistake opens nothing";
    "trusted.forwarded", Kind::Choice(&["x-forwarded-for", "forwarded"]), "\"x-forwarded-for\"",
    "Header in which proxies name the caller: `x-forwarded-for`, or `forwarded` (RFC 7239). The other one is ignored.",
    "README D15; a proxy passes the other one on as the client wrote it, so only one may be believed";
    "trusted.path_secret", Kind::Secret, "\"\"",
    "Secret path segment that admits publishers from anywhere: `http://host:8895/bitrix/pub/<secret>/`; 16 to 128 characters of `A-Z a-z 0-9 _ -`. Empty: none.",
    "README D15, queue-server.md Q-186: works with every PHP";

    "limits.max_payload", Kind::Size(1, 256 * MIB), "\"1MiB\"",
    "Largest body of a text publish or a client's request, and largest WebSocket message.",
    "queue-server.md §11";
    "limits.max_trusted_payload", Kind::Size(1, GIB), "\"16MiB\"",
    "Largest body of a binary publish and of a site's JSON-RPC; not below `limits.max_payload`.",
    "README D18: PHP sends more than 1 MiB";
    "limits.connections_per_channel", Kind::Count(1, 1_000_000), "100",
    "Connections of one private channel with a public id, over all nodes with `redis.layout = \"own\"`; one more closes the oldest.",
    "queue-server.md §11, README D12";
    "limits.connections_per_user", Kind::Count(1, 1_000_000), "500",
    "Connections of one user of generation 5 at this node; one more is closed after 3 s.",
    "json-rpc.md §11";
    "limits.messages_per_request", Kind::Count(1, 100_000), "100",
    "Messages in one binary request.",
    "queue-server.md §11";
    "limits.channels_per_request", Kind::Count(1, 100_000), "100",
    "Receivers of one message and channels of one presence request.",
    "queue-server.md §11";
    "limits.connections", Kind::Count(1, 10_000_000), "200000",
    "Subscribers of the whole process, and as many other connections of strangers; one more is closed. Connections of `trusted.allow` and of proxies are not counted among the latter. The system's limit of open files must be higher.",
    "about 300 MB of memory at 1.5 KB for each (design.md §2)";
    "limits.connections_per_address", Kind::Count(0, 10_000_000), "0",
    "Connections from one address (of IPv6 from one network of 64 bits); 0: no limit but `limits.connections`. Leave it at 0 behind a proxy that is not in `trusted.proxies`, because all connections then come from one address.",
    "offices share an address; README D12";
    "limits.subscriptions_per_second", Kind::Count(0, 1_000_000), "0",
    "Connections and polls a second from one address (of IPv6 from one network of 64 bits); ten seconds' worth may come at once. One more gets 4029 or 429 after 3 s, as with too many connections. 0: no limit. Networks of `trusted.allow` are not limited. An office, or a mobile operator, is one address: after a restart all of its tabs come back at once.",
    "queue-server.md W-28; off, since a limit that fits every site does not exist";
    "limits.publishes_per_second", Kind::Count(0, 1_000_000), "0",
    "Publishes a second from one address, of clients and of sites that publish with `trusted.path_secret` or a signature; ten seconds' worth may come at once. One more gets 429, a site of generation 5 gets 503 and sends its messages again; a WebSocket of generation 4 is closed with 1013, one of generation 5 gets an error. 0: no limit. Networks of `trusted.allow` are not limited.",
    "queue-server.md W-28; off, because a site that publishes much would lose messages";
    "limits.memory", Kind::Size(0, 1 << 50), "0",
    "Memory of the process above which no new connections and messages are taken (503), until it is a tenth below; messages that `history.engine = \"memory\"` keeps leave early, too. Request bodies of everybody who is not trusted may take a quarter of it together. 0: no limit, and 256 MiB of such bodies. Set it below the limit of the container or the service, at which the system ends the process.",
    "who is connected stays connected";
    "limits.request_head", Kind::Size(KIB, MIB), "\"16KiB\"",
    "Largest head of a request: line and headers.",
    "README D18";
    "limits.outbox_messages", Kind::Count(1, 10_000), "1000",
    "Messages that may wait for a slow connection before it is closed; it returns and gets them from the history.",
    "design.md §2";
    "limits.outbox_bytes", Kind::Size(64 * KIB, GIB), "\"8MiB\"",
    "Memory that may wait for a slow connection before it is closed: bodies of messages, each with the encoded form that is written. Who comes back to more is given as much and closed, to come back for the rest.",
    "queue-server.md Q-188: four messages of the largest size";
    "limits.inbox_messages", Kind::Count(1024, 1_048_576), "65536",
    "Messages that may wait for one shard before publishers are refused; they are slowed down long before.",
    "design.md §2: one bounded queue per shard";

    "timing.poll", Kind::Time(SECOND, 59 * SECOND), "\"40s\"",
    "How long a long poll without news is held.",
    "clients.md K-070: clients give up after 60 s";
    "timing.ping", Kind::Time(SECOND, HOUR), "\"120s\"",
    "Period of WebSocket pings; a connection that did not answer by the next one is dropped.",
    "queue-server.md §11, README D14";
    "timing.text_ping", Kind::Time(SECOND, 10 * SECOND), "\"9s\"",
    "Period of the text pings of generation 5. Mobile clients get twice as many.",
    "json-rpc.md §6.3: clients give up after 20 s, mobile ones after 10 s";
    "timing.text_silence", Kind::Time(SECOND, HOUR), "\"60s\"",
    "A connection of generation 5 that says nothing for this long, not even `pong`, is dropped.",
    "json-rpc.md §6.3";
    "timing.token_grace", Kind::Time(0, 365 * 24 * HOUR), "\"24h\"",
    "How long a connection may outlive its token (generation 5); clients change it by themselves.",
    "json-rpc.md §5.4: closing all tabs of a user at once gains nothing";
    "timing.body", Kind::Time(SECOND, 10 * MINUTE), "\"20s\"",
    "Silence after which an unfinished request body is given up.",
    "queue-server.md Q-032";
    "timing.head", Kind::Time(SECOND, 10 * MINUTE), "\"10s\"",
    "Time for the head of a request.",
    "a connection that says nothing is not kept";
    "timing.keep_alive", Kind::Time(SECOND, HOUR), "\"75s\"",
    "How long an idle HTTP connection is kept for the next request.",
    "longer than the 60 s of nginx, so that the proxy closes first";
    "timing.presence_grace", Kind::Time(0, 5 * MINUTE), "\"10s\"",
    "How long a channel stays online after the answer of a long poll, and a user of generation 5 after the last connection.",
    "README D13";

    "history.engine", Kind::Choice(&["disk", "memory", "redis"]), "\"disk\"",
    "Where messages with an expiry are kept: `disk` survives a restart, `memory` does not, `redis` shares it between several nodes (section `redis`).",
    "design.md §4";
    "history.sync", Kind::Choice(&["always", "interval", "never"]), "\"always\"",
    "When messages are forced to disk: before a publish is answered, every `history.sync_interval`, or when the system likes.",
    "design.md §3";
    "history.sync_interval", Kind::Time(1, MINUTE), "\"100ms\"",
    "Period of `history.sync = \"interval\"`: what a power loss may cost.",
    "design.md §3";
    "history.message_ttl", Kind::Time(SECOND, 24 * HOUR), "\"24h\"",
    "Longest time a message is kept, whatever its publisher asks for.",
    "queue-server.md §2.1, README D5";
    "history.messages_per_channel", Kind::Count(1, 100_000), "1000",
    "Messages kept for one channel, oldest out first.",
    "queue-server.md Q-195";
    "history.messages", Kind::Count(1, 1_000_000_000), "1000000",
    "Messages kept in all, oldest out first.",
    "bounded memory: the index takes about 100 bytes for each";
    "history.bytes", Kind::Size(MIB, 16 * 1024 * GIB), "\"1GiB\"",
    "Bytes of the history on disk, or in memory for that engine, oldest out first.",
    "a full disk must not stop the site";
    "history.cache_bytes", Kind::Size(0, 64 * GIB), "\"16MiB\"",
    "Memory for recently read or written messages of the disk engine.",
    "returning clients ask for the newest messages";
    "history.replay_messages", Kind::Count(1, 100_000), "1000",
    "Messages a returning subscriber gets at most.",
    "queue-server.md Q-195";

    "redis.topology", Kind::Choice(&["standalone", "sentinel", "cluster"]), "\"standalone\"",
    "How the servers of `redis.address` are arranged: one server, sentinels of a group, or nodes of a cluster. All keys are in one slot of a cluster.",
    "one server is what the originals use";
    "redis.address", Kind::Text, "\"127.0.0.1:6379\"",
    "Where Redis or Valkey (6 or later) is: `host:port` or `unix:/path`; several sentinels or nodes of a cluster separated by commas.",
    "queue-server.md §2.1";
    "redis.master", Kind::Text, "\"mymaster\"",
    "Name of the group that the sentinels watch.",
    "the name in the sample configuration of Redis";
    "redis.username", Kind::Text, "\"\"",
    "User of the access control list. Empty: `default`.",
    "queue-server.md W-36: the originals cannot";
    "redis.password", Kind::Secret, "\"\"",
    "Password of that user. Empty: none.",
    "queue-server.md W-36: the originals cannot";
    "redis.sentinel_password", Kind::Secret, "\"\"",
    "Password of the sentinels. Empty: none.",
    "sentinels have one of their own";
    "redis.database", Kind::Count(0, 10_000), "0",
    "Number of the database; 0 in a cluster.",
    "the only one the originals use";
    "redis.tls", Kind::Flag, "false",
    "Encrypt the connections to Redis and to sentinels.",
    "most servers are on the same machine or network";
    "redis.tls_authorities", Kind::Text, "\"\"",
    "File with certificates of authorities, PEM, that are trusted instead of those of the system.",
    "private authorities are usual for Redis";
    "redis.layout", Kind::Choice(&["own", "push-server"]), "\"own\"",
    "`push-server`: keys and announcements of Push server 2.0, whose processes may run on the same Redis. `own`: behind `redis.prefix`, for vestnik alone, also in a cluster.",
    "queue-server.md §8, W-36";
    "redis.prefix", Kind::Text, "\"vestnik\"",
    "What all keys of `redis.layout = \"own\"` begin with, in braces: 1 to 64 of `A-Z a-z 0-9 _ - . :`. All nodes of one installation have the same.",
    "queue-server.md W-36: two installations share one Redis";
    "redis.timeout", Kind::Time(100, MINUTE), "\"2s\"",
    "A server that does not answer for this long is given up, and looked for again.",
    "longer than a fork of a large server takes, shorter than a reader's patience";

    "module.enabled", Kind::Flag, "true",
    "Serve the module too: settings page, channels, events, watches and configuration of clients for back ends in any language, at `/module/` and `/admin/`.",
    "module.md §21; beside a site that has the module in PHP it does nothing by itself";
    "module.database", Kind::Secret, "\"\"",
    "Database of the module: `sqlite:<path>`, `postgres://user:password@host/name` or `mysql://user:password@host/name`. Empty: the file `<data_dir>/module.db`. Until it can be reached the module answers 503 and the queue server works without it.",
    "design.md §4";
    "module.tls_authorities", Kind::Text, "\"\"",
    "File with certificates of authorities, PEM, that are trusted beside the public ones when the module speaks https to queue servers, back ends and the cloud.",
    "module.md X-08: certificates are always checked";
    "module.cloud_directory", Kind::Text, "\"\"",
    "Where the list of cloud servers is, for example a cloud of one's own. Empty: Bitrix' own, by the option `region` of the tenant.",
    "module.md §11";
    "module.open_to_trusted", Kind::Flag, "false",
    "Let programs at addresses of `trusted.allow` call the operations of a back end for the default tenant without a signature or secret; settings are never open. Off, every call needs a proof.",
    "module.md §21, README D15: a proxy on the same machine that hides its callers would open it to the world";


    "admin.session_lifetime", Kind::Time(2 * SECOND, 30 * 24 * HOUR), "\"12h\"",
    "An administrator who has done nothing for this long has to sign in again.",
    "a working day";
    "admin.proxy_user_header", Kind::Text, "\"\"",
    "Header in which a proxy of `trusted.proxies` names who asks, such as `X-Remote-User`: they need no password at `/admin/`. The proxy must replace what clients send in it. Empty: nobody is believed.",
    "sign-on of a company in front of the pages";
    "admin.show_bodies", Kind::Flag, "false",
    "Show administrators what messages say, not only ids, types and sizes.",
    "messages are private";

    "log.level", Kind::Choice(&["error", "warn", "info", "debug", "trace"]), "\"info\"",
    "Least important lines that are written to standard error.",
    "style.md §7";
    "log.format", Kind::Choice(&["text", "json"]), "\"text\"",
    "`text` for people and the journal, `json` for collectors.",
    "style.md §7";
}

/// Settings that a running server takes over when they change; a path that ends in a dot stands for
/// its section. All others count from the next start.
const LIVE: &[&str] = &[
    "generation",
    "server.public_url",
    "server.drain",
    "server.compression",
    "security.",
    "tls.",
    "acme.",
    "trusted.",
    "limits.",
    "timing.",
    "history.message_ttl",
    "log.level",
];

/// What of the sections in [`LIVE`] is built into the running parts.
const NOT_LIVE: &[&str] = &["limits.inbox_messages", "timing.presence_grace"];

impl Setting {
    /// Whether a running server takes over a change of it.
    pub(crate) fn is_live(&self) -> bool {
        let listed = LIVE
            .iter()
            .any(|it| *it == self.path || (it.ends_with('.') && self.path.starts_with(it)));
        listed && !NOT_LIVE.contains(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths_and_variables_are_unique_and_free_of_foreign_ones() {
        let paths: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.path).collect();
        let variables: BTreeSet<_> = SETTINGS.iter().map(Setting::variable).collect();
        assert_eq!(paths.len(), SETTINGS.len());
        assert_eq!(variables.len(), SETTINGS.len());
        for variable in &variables {
            assert!(FOREIGN_VARIABLES.iter().all(|it| !variable.starts_with(it)), "{variable}");
        }
        assert!(variables.contains("VESTNIK_HISTORY_SYNC"));
    }

    #[test]
    fn what_is_live_names_settings_that_exist() {
        for path in LIVE.iter().chain(NOT_LIVE) {
            let exists = SETTINGS.iter().any(|it| it.path == *path || it.path.starts_with(path));
            assert!(exists, "{path}");
        }
        let live = |path| Setting::find(path).unwrap().is_live();
        assert!(live("trusted.allow") && live("log.level") && !live("log.format"));
        assert!(!live("server.listen") && !live("limits.inbox_messages"));
    }

    #[test]
    fn every_setting_is_told_in_sentences_with_an_origin() {
        for Setting { path, about, origin, .. } in SETTINGS {
            assert!(about.ends_with('.'), "{path}");
            assert!(!origin.is_empty() && !origin.ends_with('.'), "{path}");
        }
    }
}
