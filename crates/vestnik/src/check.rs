//! `vestnik check`: what a configuration means, in plain words.

use std::io::Write;

use vestnik_core::date;
use vestnik_core::tenant::MissingExpiry;

use crate::config::{
    Acme, Config, ConfigArgs, ForwardedHeader, History, HistoryEngine, HistorySync, KeySource,
    KeySummary, Listener, LoadKeysError, LogFormat, LogLevel, Network, Routes, Sources, Warning,
    is_writable, open_files_max, options_page, show_size, show_time,
};
use crate::keygen::KeyFileError;

/// Arguments of `vestnik check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// What to check.
    #[command(flatten)]
    pub(crate) configuration: ConfigArgs,
    /// Print the page that explains every option (docs/options.md), and check nothing.
    #[arg(long)]
    pub(crate) options: bool,
}

/// Loads the configuration and tells what it means.
///
/// # Errors
/// Every problem of the configuration, and a key file that cannot be used.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.options {
        return Ok(write!(out, "{}", options_page())?);
    }
    print_check(&args.configuration.sources(), &mut out)
}

fn print_check(sources: &Sources, out: &mut impl Write) -> anyhow::Result<()> {
    let (config, mut warnings) = Config::load(sources)?;
    let files: Vec<_> = config.files.iter().map(|file| file.display().to_string()).collect();
    let files = if files.is_empty() { "no file, only defaults".into() } else { files.join(", ") };
    writeln!(out, "configuration: {files}")?;
    print_listeners(&config, out)?;
    print_certificates(&config, out)?;
    print_publishing(&config, out)?;
    print_keys(&config, out)?;
    print_history(&config.history, &config.data_dir.display().to_string(), out)?;
    print_limits(&config, out)?;
    warnings.extend(unusable_data_dir(&config));
    print_warnings(&warnings, out)?;
    // Last, so that everything else was said: this one keeps the server from starting.
    match config.security.read_keys() {
        Err(error) if !is_made_at_start(&config, &error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints each warning once, with the file or the number of files it is about: the files of a cluster
/// are alike and so are their flaws.
fn print_warnings(warnings: &[Warning], out: &mut impl Write) -> anyhow::Result<()> {
    let mut alike: Vec<(&Warning, usize)> = Vec::new();
    for warning in warnings {
        let known =
            alike.iter_mut().find(|(it, _)| it.path == warning.path && it.text == warning.text);
        match known {
            Some((_, count)) => *count += 1,
            None => alike.push((warning, 1)),
        }
    }
    match alike.len() {
        0 => return Ok(()),
        1 => writeln!(out, "1 warning:")?,
        count => writeln!(out, "{count} warnings:")?,
    }
    for (warning, count) in alike {
        let Warning { place, path, text } = warning;
        let files = if count > 1 { format!("{count} files") } else { place.to_string() };
        writeln!(out, "  {path} ({files}): {text}")?;
    }
    Ok(())
}

/// What keeps this user from keeping data where the configuration says. Only a warning: the server may
/// run as another user.
fn unusable_data_dir(config: &Config) -> Option<Warning> {
    let folder = &config.data_dir;
    let text = if folder.is_dir() {
        if is_writable(folder) {
            return None;
        }
        "this user cannot write there; the one who starts the server must".to_owned()
    } else if folder.exists() {
        "is a file: name a folder".to_owned()
    } else {
        let made_in = folder.ancestors().skip(1).find(|it| it.exists())?;
        if made_in.is_dir() && is_writable(made_in) {
            return None;
        }
        format!("this user cannot make it in {}; make it first", made_in.display())
    };
    let text = format!("{}: {text}", folder.display());
    Some(Warning { place: config.place("data_dir"), path: "data_dir".to_owned(), text })
}

/// Whether only the key is missing that the first start makes.
fn is_made_at_start(config: &Config, error: &LoadKeysError) -> bool {
    matches!(&config.security.keys, KeySource::File { generate: true, .. })
        && matches!(error, LoadKeysError::File(KeyFileError::Missing(_)))
}

fn print_listeners(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "listeners:")?;
    for listener in &config.server.listeners {
        writeln!(out, "  {}", listener_line(listener))?;
    }
    let server = &config.server;
    let url = server.public_url.as_deref().unwrap_or("not known");
    writeln!(out, "  reached by browsers at: {url}")?;
    let drain = show_time(server.drain_per_10000);
    writeln!(out, "  threads: {}; shutdown takes {drain} for 10,000 connections", server.shards)?;
    if server.cluster_mode {
        writeln!(out, "  statistics say: part of a cluster")?;
    }
    Ok(())
}

fn print_certificates(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    if !config.certificates.is_empty() {
        writeln!(out, "certificates:")?;
    }
    for certificate in &config.certificates {
        writeln!(out, "  {}", certificate.describe())?;
    }
    let Some(acme) = &config.acme else { return Ok(()) };
    let Acme { names, directory, contact, proof, folder, .. } = acme;
    writeln!(out, "certificate that is obtained and renewed automatically:")?;
    writeln!(out, "  for {}", names.join(", "))?;
    writeln!(out, "  from {directory}, contact {}", contact.as_deref().unwrap_or("none"))?;
    writeln!(out, "  proved by {}: the authority connects to port {}", proof.name(), proof.port())?;
    writeln!(out, "  kept in {}", folder.display())?;
    Ok(())
}

fn listener_line(listener: &Listener) -> String {
    let Listener { name, address, backlog, routes, proxy_protocol, .. } = listener;
    let tls = if listener.tls.is_some() { ", TLS" } else { "" };
    let proxied = if *proxy_protocol { ", PROXY header required" } else { "" };
    let routes = match routes {
        Routes::Standard => "all routes".to_owned(),
        Routes::Only(prefixes) => {
            let named = [
                ("publish", &prefixes.publish),
                ("subscribe", &prefixes.subscribe),
                ("client publish", &prefixes.rest),
                ("statistics", &prefixes.stat),
            ];
            let routes: Vec<_> = named
                .into_iter()
                .filter_map(|(what, prefix)| Some(format!("{what} {}", prefix.as_ref()?)))
                .collect();
            if routes.is_empty() { "no routes".to_owned() } else { routes.join(", ") }
        }
    };
    let name = if *name == address.to_string() { String::new() } else { format!(" ({name})") };
    format!("{address}{name}{tls}{proxied}: {routes}; backlog {backlog}")
}

fn names(networks: &[Network]) -> String {
    if networks.is_empty() {
        return "nobody".into();
    }
    networks.iter().map(Network::to_string).collect::<Vec<_>>().join(", ")
}

fn print_publishing(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let trusted = &config.trusted;
    writeln!(out, "publishing and statistics:")?;
    writeln!(out, "  allowed from {}", names(&trusted.allow))?;
    if trusted.path_secret.is_some() {
        writeln!(out, "  publishing also from anywhere with the secret in the path")?;
    }
    let header = match trusted.forwarded {
        ForwardedHeader::XForwardedFor => "X-Forwarded-For",
        ForwardedHeader::Forwarded => "Forwarded",
    };
    writeln!(out, "  {header} is believed from {}", names(&trusted.proxies))?;
    let missing = match config.missing_expiry {
        MissingExpiry::Volatile => "reaches who is connected and is not stored",
        MissingExpiry::KeepDay => "is kept for a day",
    };
    writeln!(out, "  a message without Message-Expiry {missing}")?;
    Ok(())
}

fn key_line(key: &KeySummary, signs: bool) -> String {
    let KeySummary { fingerprint, algorithm, until_s } = key;
    let until =
        until_s.map_or_else(String::new, |until_s| format!(" until {}", date::zulu(until_s)));
    let does = if signs { "signs and verifies" } else { "verifies" };
    format!("  {algorithm}, fingerprint {fingerprint}, {does}{until}")
}

fn print_keys(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let security = &config.security;
    writeln!(out, "keys:")?;
    match &security.keys {
        KeySource::Configured { shown, .. } => {
            for (index, key) in shown.iter().enumerate() {
                writeln!(out, "{}", key_line(key, index == 0))?;
            }
        }
        KeySource::Unsigned => {
            writeln!(out, "  none: bare channel ids are accepted, who knows an id may listen")?;
        }
        KeySource::File { path, .. } => {
            let path = path.display();
            match security.read_keys() {
                Ok(ring) => {
                    if let Some(key) = ring.signing_key() {
                        writeln!(out, "{}", key_line(&KeySummary::new(key, None), true))?;
                    }
                    writeln!(out, "  from {path}")?;
                }
                Err(error) if is_made_at_start(config, &error) => {
                    writeln!(out, "  {}, made at the first start in {path}", security.algorithm)?;
                }
                Err(_) => writeln!(out, "  {path} cannot be used")?,
            }
        }
    }
    Ok(())
}

fn print_history(history: &History, data_dir: &str, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "history:")?;
    match (history.engine, history.sync) {
        (HistoryEngine::Redis, _) => {
            writeln!(out, "  in redis, shared by all nodes that use the same keys there")?;
        }
        (HistoryEngine::Memory, _) => writeln!(out, "  in memory: lost when the server stops")?,
        (HistoryEngine::Disk, sync) => {
            let when = match sync {
                HistorySync::Always => {
                    "a publish is answered when its message is on disk; survives power loss".to_owned()
                }
                HistorySync::Interval(period) => format!(
                    "forced to disk every {}; a power loss costs as much, a crash nothing",
                    show_time(period)
                ),
                HistorySync::Never => {
                    "forced to disk when the system likes; a power loss costs seconds, a crash nothing"
                        .to_owned()
                }
            };
            writeln!(out, "  on disk in {data_dir}: {when}")?;
        }
    }
    writeln!(
        out,
        "  kept: {} at most, {} messages for a channel, {} in all, {}; cache {}",
        show_time(history.message_ttl),
        history.messages_per_channel,
        history.messages,
        show_size(history.bytes),
        show_size(history.cache_bytes as u64),
    )?;
    writeln!(out, "  a returning subscriber gets {} messages at most", history.replay_messages)?;
    Ok(())
}

fn print_limits(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let (limits, timing) = (&config.limits, &config.timing);
    let size = |bytes: usize| show_size(bytes as u64);
    writeln!(out, "limits:")?;
    writeln!(
        out,
        "  bodies: {}, binary publish {}; request head {}",
        size(limits.payload_bytes),
        size(limits.trusted_payload_bytes),
        size(limits.request_head_bytes),
    )?;
    writeln!(
        out,
        "  connections: {}, {} from one address, {} of one channel",
        limits.connections, limits.connections_per_address, limits.connections_per_channel,
    )?;
    if let Some(files) = open_files_max() {
        writeln!(out, "  open files, as the system allows here: {files}; each connection is one")?;
    }
    writeln!(
        out,
        "  requests: {} messages, {} channels",
        limits.messages_per_request, limits.channels_per_request,
    )?;
    writeln!(
        out,
        "  waiting: {} messages or {} for a slow connection, {} messages for a thread",
        limits.outbox_messages,
        size(limits.outbox_bytes),
        limits.inbox_messages,
    )?;
    writeln!(
        out,
        "  times: poll {}, ping {}, head {}, body {}, keep-alive {}, presence {}",
        show_time(timing.poll),
        show_time(timing.ping),
        show_time(timing.head),
        show_time(timing.body),
        show_time(timing.keep_alive),
        show_time(timing.presence_grace),
    )?;
    let level = match config.log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "JSON",
    };
    writeln!(out, "log: {level} and above to standard error, as {format}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::report;

    fn sources(flags: &[(&str, &str)], data_dir: &std::path::Path) -> Sources {
        Sources {
            flags: flags.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect(),
            data_dir: data_dir.to_owned(),
            ..Sources::default()
        }
    }

    fn printed(sources: &Sources) -> String {
        let mut out = Vec::new();
        print_check(sources, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_bare_start_is_explained_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let text = printed(&sources(&[], folder.path()));
        for part in [
            "configuration: no file, only defaults",
            "0.0.0.0:8895: all routes; backlog 1024",
            "allowed from 127.0.0.0/8, ::1",
            "sha1, made at the first start in",
            "survives power loss",
            "poll 40s, ping 2m, head 10s, body 20s, keep-alive 75s, presence 10s",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("warning"), "{text}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn keys_are_shown_by_fingerprint_only() {
        let key = "0123456789abcdef0123456789abcdef";
        let folder = tempfile::tempdir().unwrap();
        let flags = [("security.key", key), ("trusted.path_secret", "a-secret-of-the-path")];
        let text = printed(&sources(&flags, folder.path()));
        assert!(!text.contains(key) && !text.contains("a-secret-of-the-path"), "{text}");
        assert!(text.contains("sha1, fingerprint "), "{text}");
        assert!(
            text.contains("security.key (the command line): every user of this machine"),
            "{text}"
        );
        let again = printed(&sources(&flags, folder.path()));
        assert_eq!(text, again, "a fingerprint is the same each time");
    }

    #[test]
    fn a_poor_or_missing_key_file_is_the_users_to_fix() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let check = || {
            let flags = [("security.key_file", file.to_str().unwrap())];
            let error = print_check(&sources(&flags, folder.path()), &mut Vec::new()).unwrap_err();
            report(&error)
        };
        let (text, code) = check();
        assert!(text.contains("does not exist\nhint: name the server's own key"), "{text}");
        assert_eq!(code, 1);
        std::fs::write(&file, "short\n").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let (text, code) = check();
        assert!(text.contains("5 characters; a signature key has at least 32"), "{text}");
        assert_eq!(code, 1);
    }

    #[test]
    fn a_data_folder_that_cannot_be_is_warned_of() {
        let key = [("security.key", "0123456789abcdef0123456789abcdef")];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let text = printed(&sources(&key, &file));
        assert!(text.contains("file: is a file: name a folder"), "{text}");
        let text = printed(&sources(&key, &file.join("below")));
        assert!(text.contains("this user cannot make it in"), "{text}");
        let text = printed(&sources(&key, &folder.path().join("a/b")));
        assert!(!text.contains("data_dir"), "{text}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_is_odd_in_a_file_is_said_beside_its_problems() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("push-server-sub-8010.json");
        std::fs::write(&file, r#"{"nonsense": 1, "limits": {"maxPayload": -1}}"#).unwrap();
        let sources = Sources { files: vec![file], ..sources(&[], folder.path()) };
        let error = print_check(&sources, &mut Vec::new()).unwrap_err();
        let (text, code) = report(&error);
        assert_eq!(code, 1);
        assert!(text.contains("problem") && text.contains("\nwarning: "), "{text}");
        assert!(text.contains("nonsense"), "{text}");
    }

    #[test]
    fn a_wrong_configuration_exits_with_1() {
        let sources = sources(&[("history.sinc", "always")], std::path::Path::new("x"));
        let error = print_check(&sources, &mut Vec::new()).unwrap_err();
        assert_eq!(
            report(&error),
            (
                "error: 1 problem in the command line\n  history.sinc: unknown setting; did you mean `history.sync`?"
                    .into(),
                1
            )
        );
    }
}
