//! Whole configurations: files, environment and flags in, a checked value or problems out.

use std::time::Duration;

use super::*;
use vestnik_core::date;

const GOOD_KEY: &str = "0123456789abcdef0123456789abcdef";
const SAMPLE_KEY: &str = "89133c4cb836aa3c5c505be2ad09cb6dc3d5695fc300f28ac5409d955146286b596d3151b4dbd983a7ecedcfde8e9f7e8e14e7ec173a2d8c977f90772fb1ba42";

/// Sources that are made piece by piece; files live in a folder that vanishes with it.
struct Case {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new() -> Self {
        let sources = Sources { data_dir: "data".into(), ..Sources::default() };
        Self { folder: tempfile::tempdir().unwrap(), sources }
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.sources.files.push(path);
        self
    }

    fn fixture(mut self, name: &str) -> Self {
        self.sources.files.push(fixture(name));
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, path: &str, value: &str) -> Self {
        self.sources.flags.push((path.into(), value.into()));
        self
    }

    #[track_caller]
    fn load(&self) -> (Config, Vec<Warning>) {
        Config::load(&self.sources).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The problems as printed, without the folder of the files.
    #[track_caller]
    fn problems(&self) -> String {
        let errors = Config::load(&self.sources).expect_err("this must not load");
        errors.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(name)
}

fn toml(text: &str) -> Case {
    Case::new().file("vestnik.toml", text)
}

/// A JSON file with one listener on loopback and `rest` besides.
fn json(rest: &str) -> Case {
    Case::new().file("push-server.json", &json_text("127.0.0.1", rest))
}

fn json_text(hostname: &str, rest: &str) -> String {
    let comma = if rest.is_empty() { "" } else { "," };
    format!(
        r#"{{"servers":[{{"port":8010,"hostname":"{hostname}","routes":{{"pub":"/pub/","sub":"/sub/"}}}}]{comma}{rest}}}"#
    )
}

fn has(warnings: &[Warning], path: &str, part: &str) -> bool {
    warnings.iter().any(|it| it.path == path && it.text.contains(part))
}

#[test]
fn without_a_source_every_option_has_the_default_of_the_table() {
    let (config, warnings) = Case::new().load();
    assert_eq!(warnings, []);
    assert_eq!(config.data_dir, Path::new("data"));
    assert_eq!(config.missing_expiry, MissingExpiry::Volatile);
    let [listener] = config.server.listeners.as_slice() else { panic!("one listener") };
    assert_eq!(listener.address, "0.0.0.0:8895".parse().unwrap());
    assert_eq!((listener.backlog, &listener.routes), (1024, &Routes::Standard));
    assert!((1..=64).contains(&config.server.shards));
    assert_eq!(config.server.public_url, None);
    assert_eq!(config.server.drain_per_10000, Duration::from_secs(10));
    let file = Path::new("data").join("signature.key");
    assert!(
        matches!(&config.security.keys, KeySource::File { path, generate: true } if *path == file)
    );
    assert_eq!(config.security.algorithm, Algorithm::Sha1);
    let timing = &config.timing;
    assert_eq!([timing.text_ping, timing.text_silence], [9, 60].map(Duration::from_secs));
    assert_eq!(timing.token_grace, Duration::from_secs(86_400));
    assert_eq!(config.limits.connections_per_user, 500);
    assert!(!config.guests_write_to_users);
    assert_eq!(config.limits.payload_bytes, 1_048_576);
    assert_eq!(config.limits.trusted_payload_bytes, 16 * 1_048_576);
    assert_eq!(config.limits.connections_per_address, config.limits.connections);
    assert_eq!(config.timing.poll, Duration::from_secs(40));
    assert_eq!(config.history.sync, HistorySync::Always);
    assert_eq!(config.history.message_ttl, Duration::from_secs(86_400));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Text));
}

#[test]
fn the_documentation_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/options.md");
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == options_page(),
        "docs/options.md is stale: run `cargo run -- check --options > docs/options.md`"
    );
}

#[test]
fn the_packaged_example_loads_and_every_line_of_it_is_a_valid_option() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/vestnik.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, warnings) = toml(&text).load();
    assert_eq!(warnings, []);
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(option) if !option.starts_with(' ') || option.starts_with("    ") => option,
            _ => line,
        })
        // Stands beside `keys`, which excludes it.
        .filter(|line| !line.starts_with("key_file"))
        .map(|line| format!("{line}\n"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path(), "example.com");
    let path = |kind: &str| folder.path().join(format!("example.com.{kind}")).display().to_string();
    let uncommented = uncommented
        .replace("/etc/letsencrypt/live/example.com/fullchain.pem", &path("crt"))
        .replace("/etc/letsencrypt/live/example.com/privkey.pem", &path("key"));
    let (config, _) = toml(&uncommented).load();
    assert_eq!((config.certificates.len(), config.server.listeners.len()), (1, 2));
    assert!(
        matches!(config.security.keys, KeySource::Configured { shown, .. } if shown.len() == 2)
    );
}

#[test]
fn a_later_source_wins_default_file_environment_flag() {
    let case = toml("[timing]\npoll = \"30s\"\nping = \"60s\"\nhead = \"5s\"\n")
        .variable("VESTNIK_TIMING_PING", "61s")
        .variable("VESTNIK_TIMING_HEAD", "6s")
        .flag("timing.head", "7s");
    let timing = case.load().0.timing;
    assert_eq!(timing.body, Duration::from_secs(20));
    assert_eq!(timing.poll, Duration::from_secs(30));
    assert_eq!(timing.ping, Duration::from_secs(61));
    assert_eq!(timing.head, Duration::from_secs(7));
    let two = toml("generation = 3\n").file("second.toml", "generation = 4\n");
    assert_eq!(two.load().0.missing_expiry, MissingExpiry::Volatile);
}

#[test]
fn all_problems_are_told_at_once_with_path_line_and_nearest_name() {
    let case = toml(concat!(
        "data_dri = \"x\"\n[limits]\noutbox_messages = 0\noutbox_mesages = 5\n",
        "[timing]\npoll = 40\nmax_payload = \"1MiB\"\n[histroy]\nsync = \"always\"\n"
    ))
    .variable("VESTNIK_HISTORY_SINC", "always")
    .variable("VESTNIK_LOG_LEVEL", "loud")
    .flag("sync", "always");
    assert_eq!(
        case.problems(),
        "6 problems in vestnik.toml\n\
         \x20 data_dri (line 1): unknown key; did you mean `data_dir`?\n\
         \x20 limits.outbox_messages (line 3): must be 1 to 10000, got 0\n\
         \x20 limits.outbox_mesages (line 4): unknown key; did you mean `outbox_messages`?\n\
         \x20 timing.poll (line 6): 40 needs a unit, such as \"40s\"\n\
         \x20 timing.max_payload (line 7): unknown key; did you mean `limits.max_payload`?\n\
         \x20 histroy (line 8): unknown section; did you mean `history`?\n\
         2 problems in the environment\n\
         \x20 VESTNIK_HISTORY_SINC: unknown variable; did you mean `VESTNIK_HISTORY_SYNC`?\n\
         \x20 VESTNIK_LOG_LEVEL: must be one of error, warn, info, debug, trace, got `loud`\n\
         1 problem in the command line\n\
         \x20 sync: unknown setting; did you mean `history.sync`?"
    );
}

#[test]
fn malformed_and_missing_files_are_problems_with_their_place() {
    let malformed = toml("generation = 4\n[log\nlevel = 1\n").problems();
    assert!(malformed.contains("vestnik.toml\n  line 2: "), "{malformed}");
    let mut missing = Case::new();
    missing.sources.files.push("no-such.toml".into());
    assert!(missing.problems().starts_with("1 problem in no-such.toml\n  cannot be read: "));
    assert!(toml("limits = 5\n").problems().contains("limits (line 1): is a section"));
    assert!(toml("generation = 6\n").problems().contains("must be one of 3, 4, 5, got `6`"));
}

#[test]
fn variables_of_container_platforms_and_of_others_are_not_ours() {
    let case = Case::new()
        .variable("VESTNIK_SERVICE_HOST", "10.0.0.1")
        .variable("VESTNIK_PORT_8895_TCP", "tcp://10.0.0.1:8895")
        .variable("PATH", "/bin")
        .variable("VESTNIK_TRUSTED_ALLOW", "10.0.0.0/8, ::1");
    assert_eq!(names(&case.load().0.trusted.allow), ["10.0.0.0/8", "::1"]);
    let mangled = case.variable("VESTNIK_SECURITY_KEY", &format!("{GOOD_KEY}\u{fffd}"));
    assert!(mangled.problems().contains("VESTNIK_SECURITY_KEY: is not UTF-8 text"));
}

fn names(networks: &[Network]) -> Vec<String> {
    networks.iter().map(Network::to_string).collect()
}

#[test]
fn ranges_that_hang_together_are_checked_together() {
    let low = toml("[limits]\nmax_payload = \"2MiB\"\nmax_trusted_payload = \"1MiB\"\n").problems();
    assert!(low.contains("limits.max_trusted_payload (line 3): must not be below"), "{low}");
    let (config, warnings) = toml("[limits]\nmax_payload = \"32MiB\"\n").load();
    assert_eq!(config.limits.trusted_payload_bytes, config.limits.payload_bytes);
    assert!(has(&warnings, "limits.outbox_bytes", "slow for one large message"));
    let twice = toml("[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n").problems();
    assert!(twice.contains("127.0.0.1:1 is listened on twice"), "{twice}");
    assert!(toml("[server]\nlisten = []\n").problems().contains("at least one address"));
    let (config, _) = toml("[limits]\nconnections_per_address = 7\n").load();
    assert_eq!(config.limits.connections_per_address, 7);
}

#[test]
fn k_070_a_poll_is_answered_within_60_seconds() {
    assert!(toml("[timing]\npoll = \"60s\"\n").problems().contains("must be 1s to 59s, got 1m"));
}

#[test]
fn w_036_redis_is_reached_as_configured_and_mistakes_are_told() {
    use vestnik_hub::engine::{Address, Layout, Topology};
    let text = "[history]\nengine = \"redis\"\n[redis]\naddress = \"unix:/run/redis.sock\"\nprefix = \"test\"\ndatabase = 3\n";
    let (config, _) = toml(text).load();
    let access = &config.redis.access;
    let Topology::Standalone(Address::Unix(path)) = &access.topology else { panic!("a socket") };
    assert_eq!((path.to_str(), access.database), (Some("/run/redis.sock"), 3));
    assert_eq!(config.redis.layout, Layout::Own("test".to_owned()));
    for (section, problem) in [
        ("address = \"nowhere\"", "redis.address (line 4): must be `host:port`"),
        ("address = \"a:1,b:2\"", "names several servers"),
        ("prefix = \"{x}\"", "redis.prefix (line 4): must be 1 to 64"),
        (
            "topology = \"cluster\"\nlayout = \"push-server\"",
            "redis.layout (line 5): `push-server`",
        ),
        ("topology = \"cluster\"\ndatabase = 1", "redis.database (line 5): a cluster"),
        ("tls = true\ntls_authorities = \"/no/file\"", "redis.tls_authorities (line 5): cannot"),
    ] {
        let text = toml(&format!("[history]\nengine = \"redis\"\n[redis]\n{section}\n")).problems();
        assert!(text.contains(problem), "{text}");
    }
}

#[test]
fn a_public_url_is_a_scheme_and_a_host() {
    let url = |url: &str| toml(&format!("[server]\npublic_url = \"{url}\"\n"));
    let (config, _) = url("https://example.com/").load();
    assert_eq!(config.server.public_url.as_deref(), Some("https://example.com"));
    for bad in ["example.com", "https://", "https://a/b", "ftp://a", "https://user@a"] {
        assert!(url(bad).problems().contains("must be a scheme and a host"), "{bad}");
    }
}

#[test]
fn a_path_secret_is_long_and_fits_into_a_path() {
    let secret = |text: &str| toml(&format!("[trusted]\npath_secret = \"{text}\"\n"));
    let (config, _) = secret("a-good_secret-0123").load();
    assert_eq!(config.trusted.path_secret.unwrap().expose(), "a-good_secret-0123");
    for bad in ["short", "with/a/slash/in/the/middle", "with spaces in the middle"] {
        let text = secret(bad).problems();
        assert!(text.contains("16 to 128 characters") && !text.contains(bad), "{text}");
    }
}

#[test]
fn trusting_everybody_is_warned_of() {
    let (_, warnings) = toml("[trusted]\nallow = [\"0.0.0.0/0\"]\nproxies = [\"::/0\"]\n").load();
    assert!(has(&warnings, "trusted.allow", "everybody may publish"));
    assert!(has(&warnings, "trusted.proxies", "any address"));
}

#[test]
fn up_to_four_keys_are_held_and_the_single_one_signs() {
    let text = format!(
        "[security]\nkey = \"{GOOD_KEY}\"\nkeys = [{{ key = \"{GOOD_KEY}-2\", algorithm = \"sha256\", until = 2030-12-31 }}]\n"
    );
    let (config, _) = toml(&text).load();
    let KeySource::Configured { ring, shown } = config.security.keys else { panic!("keys") };
    assert_eq!(ring.signing_key().unwrap().secret().expose(), GOOD_KEY);
    assert_eq!(
        (shown[1].algorithm, shown[1].until_s.map(date::zulu).as_deref()),
        (Algorithm::Sha256, Some("2030-12-31T23:59:59Z"))
    );
    let five =
        format!("[security]\nkeys = [{}]\n", format!("{{ key = \"{GOOD_KEY}\" }},").repeat(5));
    assert!(toml(&five).problems().contains("5 signature keys, at most 4"), "{five}");
    let wrong = toml("[security]\nkeys = [{ kye = \"x\" }, { key = \"\" }, 5]\n").problems();
    assert!(wrong.contains("key 1: unknown key; did you mean `key`?"), "{wrong}");
    assert!(wrong.contains("key 2: `key` is missing or empty"), "{wrong}");
    assert!(wrong.contains("key 3: must be a table"), "{wrong}");
}

#[test]
fn weak_and_published_keys_are_refused_and_never_printed() {
    let key = |key: &str, rest: &str| toml(&format!("[security]\nkey = \"{key}\"\n{rest}"));
    let weak = key("a short secret", "").problems();
    assert!(weak.contains("security.key (line 2): 14 characters; a signature key has at least 32"));
    assert!(!weak.contains("a short secret"));
    let (_, warnings) = key("a short secret", "allow_weak_key = true\n").load();
    assert!(has(&warnings, "security.key", "14 characters"));
    let published = key(SAMPLE_KEY, "").problems();
    assert!(published.contains("was published") && !published.contains(SAMPLE_KEY));
    let loopback = key(SAMPLE_KEY, "[server]\nlisten = [\"127.0.0.1:1\", \"[::1]:1\"]\n");
    assert!(has(&loopback.load().1, "security.key", "was published"));
    let (_, warnings) = key(SAMPLE_KEY, "").flag("security.allow_weak_key", "true").load();
    assert!(has(&warnings, "security.key", "was published"));
}

#[test]
fn a_key_and_a_key_file_exclude_each_other_but_a_later_source_wins() {
    let file = "[security]\nkey_file = \"k\"\n";
    let both = toml(&format!("{file}key = \"{GOOD_KEY}\"\n")).problems();
    assert!(both.contains("security.key_file (line 2): cannot be set together"), "{both}");
    let by_variable = toml(file).variable("VESTNIK_SECURITY_KEY", GOOD_KEY);
    assert!(matches!(by_variable.load().0.security.keys, KeySource::Configured { .. }));
    let text = format!("[security]\nkey = \"{GOOD_KEY}\"\n");
    let by_flag = toml(&text).flag("security.key_file", "k");
    assert!(matches!(
        by_flag.load().0.security.keys,
        KeySource::File { generate: false, path } if path == Path::new("k")
    ));
}

#[test]
fn bare_ids_are_accepted_only_when_asked_for_and_without_a_key() {
    let (config, _) = toml("[security]\nunsigned = true\n").load();
    assert!(matches!(config.security.keys, KeySource::Unsigned));
    assert!(config.security.read_keys().unwrap().is_empty());
    for key in [format!("key = \"{GOOD_KEY}\""), "key_file = \"k\"".into()] {
        let text = toml(&format!("[security]\nunsigned = true\n{key}\n")).problems();
        assert!(text.contains("security.unsigned (line 2): a server with a key"), "{text}");
    }
}

#[test]
fn the_default_key_is_made_at_the_first_start_and_a_poor_one_in_its_place_refused() {
    let mut case = Case::new();
    case.sources.data_dir = case.folder.path().join("data");
    let security = case.load().0.security;
    let missing = security.read_keys().unwrap_err();
    assert!(matches!(missing, LoadKeysError::File(crate::keygen::KeyFileError::Missing(_))));
    let secret = |ring: &KeyRing| ring.signing_key().unwrap().secret().expose().clone();
    let made = secret(&security.load_keys().unwrap());
    assert_eq!(secret(&security.load_keys().unwrap()), made);
    assert_eq!(secret(&security.read_keys().unwrap()), made);
    std::fs::write(case.sources.data_dir.join("signature.key"), SAMPLE_KEY).unwrap();
    assert!(matches!(
        security.load_keys().unwrap_err(),
        LoadKeysError::Poor { poor: PoorKey::Published, .. }
    ));
}

#[test]
fn the_default_data_folder_is_systemds_then_the_systems_then_here() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let by_systemd = default_data_dir(Some("/state/one:/state/two".into()), folder.path());
    assert_eq!(by_systemd, Path::new("/state/one"));
    assert_eq!(default_data_dir(None, folder.path()), folder.path());
    assert_eq!(default_data_dir(Some("".into()), &missing), Path::new("vestnik-data"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the test for writing leaves nothing");
}

#[test]
fn direct_flags_are_settings_and_set_needs_an_equals_sign() {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        configuration: ConfigArgs,
    }
    let parse = |words: &[&str]| Arguments::try_parse_from([&["vestnik"], words].concat());
    let arguments = parse(&[
        "--set",
        "history.sync=never",
        "--listen",
        "127.0.0.1:1",
        "--listen",
        "127.0.0.1:2",
        "--log",
        "debug",
        "--data-dir",
        "d",
        "--allow-weak-key",
    ])
    .unwrap();
    let sources = Sources { environment: Vec::new(), ..arguments.configuration.sources() };
    let (config, _) = Config::load(&sources).unwrap();
    assert_eq!(config.history.sync, HistorySync::Never);
    assert_eq!(config.server.listeners.len(), 2);
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.data_dir, Path::new("d"));
    assert!(config.security.strictness.weak_allowed);
    assert!(parse(&["--set", "history.sync"]).is_err());
}

#[test]
fn q_164_every_shipped_template_is_accepted() {
    for edition in ["g3", "g4", "g4n", "container"] {
        for (role, port) in [("sub", 8010), ("pub", 9010)] {
            let case = Case::new().fixture(&format!("{edition}/push-server-{role}-{port}.json"));
            let (config, warnings) = case.load();
            let [listener] = config.server.listeners.as_slice() else { panic!("one listener") };
            assert_eq!(
                (listener.name.as_str(), listener.address.port()),
                (&*format!("{role}-{port}"), port)
            );
            assert_eq!(listener.backlog, 1024);
            let Routes::Only(routes) = &listener.routes else { panic!("its own routes") };
            let subscribe = (role == "sub").then(|| "/bitrix/subws/".to_owned());
            let publish = (role == "pub").then(|| "/bitrix/pub/".to_owned());
            assert_eq!((&routes.subscribe, &routes.publish), (&subscribe, &publish));
            assert_eq!(routes.stat.is_some(), role == "pub");
            assert_eq!(routes.rest.is_some(), role == "pub" && edition != "g3");
            for (misspelt, meant) in [
                ("messageTLL", "messageTTL"),
                ("channelTLL", "channelTTL"),
                ("onlineTLL", "onlineTTL"),
            ] {
                assert!(has(&warnings, &format!("storage.{misspelt}"), meant), "{edition} {role}");
            }
            let rate = has(&warnings, "limits.maxRequestsPerSecond", "no effect");
            assert_eq!(rate, role == "pub" && edition != "g3");
            assert!(warnings.iter().all(|it| !it.text.contains("unknown key")), "{warnings:?}");
        }
    }
}

#[test]
fn q_164_the_sample_of_a_single_process_is_accepted() {
    let (config, warnings) = Case::new().fixture("sample/config.json").load();
    let [listener] = config.server.listeners.as_slice() else { panic!("one listener") };
    assert_eq!(listener.address, "0.0.0.0:1337".parse().unwrap());
    assert_eq!(listener.backlog, 20_000);
    assert!(!config.server.cluster_mode);
    assert!(has(&warnings, "servers[0]", "all IPv4 interfaces"));
}

#[test]
fn a_folder_of_files_becomes_one_process_and_templates_are_passed_over() {
    let (config, warnings) = Case::new().fixture("cluster").load();
    let ports: Vec<_> = config.server.listeners.iter().map(|it| it.address.port()).collect();
    assert_eq!(ports, [9010, 9011, 8010, 8011, 8012]);
    assert_eq!(config.files.len(), 5);
    assert!(config.server.cluster_mode);
    assert!(warnings.iter().all(|it| it.path != "servers"), "no role is missing");
    let template = Case::new().fixture("cluster/push-server-sub-__PORT__.json").problems();
    assert!(template.contains("it is the template"), "{template}");
    let mut empty = Case::new();
    empty.sources.files.push(empty.folder.path().to_owned());
    assert!(empty.problems().contains("no .toml or .json file"));
}

#[test]
fn half_a_cluster_is_warned_of() {
    let (_, warnings) = Case::new().fixture("g4/push-server-sub-8010.json").load();
    assert!(has(&warnings, "servers", "nothing can be published"));
    let (_, warnings) = Case::new().fixture("g4/push-server-pub-9010.json").load();
    assert!(has(&warnings, "servers", "nobody can listen"));
    let case =
        Case::new().fixture("g4/push-server-sub-8010.json").flag("server.listen", "127.0.0.1:8895");
    let (config, warnings) = case.load();
    assert_eq!(config.server.listeners.len(), 2, "a listener besides the imported one");
    assert!(!has(&warnings, "servers", ""));
}

#[test]
fn q_165_ports_may_be_text() {
    let text = r#"{"servers":[{"port":"8010","hostname":"127.0.0.1","routes":{"sub":"/sub/","pub":"/pub/"}}],"storage":{"host":"redis","port":"6380"}}"#;
    let (config, warnings) = Case::new().file("a.json", text).load();
    assert_eq!(config.server.listeners[0].address, "127.0.0.1:8010".parse().unwrap());
    assert!(has(&warnings, "storage", "history is kept in Redis (redis:6380)"));
    for bad in [r#""x""#, "70000", "-1", "true", "1.5"] {
        let text = text.replace(r#""8010""#, bad);
        let text = Case::new().file("a.json", &text).problems();
        assert!(text.contains("servers[0].port: must be a port"), "{bad}");
    }
}

#[test]
fn an_imported_file_that_says_where_redis_is_uses_it_and_one_that_does_not_keeps_history_on_disk() {
    use vestnik_hub::engine::{Address, Layout, Topology};
    let file = |storage: &str| {
        let text = r#"{"servers":[{"port":8010,"routes":{"sub":"/s/","pub":"/p/"}}],"storage":"#;
        Case::new().file("a.json", &format!("{text}{storage}}}"))
    };
    let address = |config: &Config| match &config.redis.access.topology {
        Topology::Standalone(address) => address.clone(),
        other => panic!("{other:?}"),
    };
    let (config, _) = file(r#"{"type":"redis","socket":"/run/redis.sock"}"#).load();
    assert_eq!(
        (config.history.engine, &config.redis.layout),
        (HistoryEngine::Redis, &Layout::PushServer)
    );
    assert_eq!(address(&config), Address::Unix("/run/redis.sock".into()));
    let (config, _) = file(r#"{"host":"::1"}"#).load();
    assert_eq!(address(&config), Address::Tcp("::1".to_owned(), 6379));
    for storage in ["{}", r#"{"type":"redis"}"#, r#"{"type":"memory","host":"x"}"#, "null"] {
        let (config, _) = file(storage).load();
        assert_eq!(config.history.engine, HistoryEngine::Disk, "{storage}");
    }
    // What is said elsewhere counts.
    let (config, warnings) = file(r#"{"host":"x"}"#).flag("history.engine", "disk").load();
    assert_eq!(config.history.engine, HistoryEngine::Disk);
    assert!(has(&warnings, "storage", "is not used, as history.engine says"));
    let case = file(r#"{"host":"x"}"#).flag("redis.layout", "own");
    let (config, _) = case.flag("redis.address", "y:1").load();
    assert_eq!(config.history.engine, HistoryEngine::Redis);
    assert_eq!(config.redis.layout, Layout::Own("vestnik".to_owned()));
    assert_eq!(address(&config), Address::Tcp("y".to_owned(), 1));
    let other = r#"{"servers":[{"port":8011,"routes":{"sub":"/s/"}}],"storage":{"host":"y"}}"#;
    let two = file(r#"{"host":"x"}"#).file("b.json", other);
    assert!(two.problems().contains("another Redis (y:6379)"));
}

#[test]
fn every_change_of_redis_waits_for_the_next_start_and_is_named() {
    let with = |section: &str| {
        Case::new()
            .file("a.toml", &format!("[history]\nengine = \"redis\"\n[redis]\n{section}"))
            .load()
            .0
    };
    let before = with("");
    for (path, line) in [
        ("redis.address", "address = \"10.0.0.5:6379\""),
        ("redis.password", "password = \"x\""),
        ("redis.prefix", "prefix = \"x\""),
        ("redis.database", "database = 3"),
        ("redis.layout", "layout = \"push-server\""),
        ("redis.tls", "tls = true"),
    ] {
        assert_eq!(with(line).needs_restart(&before), [path]);
        assert!(with(line).changed_live(&before).is_empty());
    }
}

#[test]
fn q_166_absent_blocks_get_the_defaults() {
    let (config, warnings) = Case::new().fixture("sample/config-bare.json").load();
    assert_eq!(config.limits.payload_bytes, 1_048_576);
    assert_eq!(config.limits.connections_per_channel, 100);
    assert_eq!(config.limits.messages_per_request, 100);
    assert_eq!(config.limits.channels_per_request, 100);
    assert_eq!(config.history.message_ttl, Duration::from_secs(86_400));
    assert_eq!(config.security.algorithm, Algorithm::Sha1);
    assert!(!config.server.cluster_mode);
    assert!(matches!(config.security.keys, KeySource::Unsigned));
    assert!(has(&warnings, "security.key", "bare channel ids are accepted"));
}

#[test]
fn q_167_publish_mode_implies_cluster_mode() {
    let (config, warnings) = json(r#""publishMode":true"#).load();
    assert!(config.server.cluster_mode);
    assert!(has(&warnings, "servers[0].routes.sub", "here they get everything"));
    assert!(json(r#""clusterMode":true"#).load().0.server.cluster_mode);
    assert!(!json("").load().0.server.cluster_mode);
    assert!(
        json(r#""publishMode":"false""#).problems().contains("publishMode: must be true or false")
    );
}

#[test]
fn q_191_w_038_misspelt_and_unknown_settings_are_warned_of_and_change_nothing() {
    let (config, warnings) = json(
        r#""storage":{"messageTLL":5,"channelTLL":7,"onlineTLL":3},"limits":{"maxPaylod":9},"extra":{"a":1}"#,
    )
    .load();
    assert_eq!(config.history.message_ttl, Duration::from_secs(86_400));
    assert!(has(&warnings, "storage.messageTLL", "kept for 24 hours at most"));
    assert!(has(&warnings, "storage.onlineTLL", "presence follows connections"));
    assert!(has(&warnings, "limits.maxPaylod", "did you mean `maxPayload`?"));
    assert!(has(&warnings, "extra", "unknown key, ignored"));
    assert_eq!(config.limits.payload_bytes, 1_048_576);
}

#[test]
fn q_192_w_037_a_missing_log_folder_does_not_stop_the_server() {
    let (_, warnings) = json(r#""debug":{"folderName":"/no/such/folder"}"#).load();
    assert!(has(&warnings, "debug.folderName", "does not exist, which does not matter"));
    assert!(has(&warnings, "debug.folderName", "standard error"));
}

#[test]
fn q_196_w_043_the_configured_hostname_is_honoured() {
    let address = |hostname: &str| {
        let case = Case::new().file("a.json", &json_text(hostname, ""));
        case.load().0.server.listeners[0].address
    };
    assert_eq!(address("127.0.0.1"), "127.0.0.1:8010".parse().unwrap());
    assert_eq!(address("localhost"), "127.0.0.1:8010".parse().unwrap());
    assert_eq!(address("::1"), "[::1]:8010".parse().unwrap());
    assert_eq!(address("[::]"), "[::]:8010".parse().unwrap());
    assert_eq!(address(""), "0.0.0.0:8010".parse().unwrap());
}

#[test]
fn neither_keys_nor_secrets_are_shown_by_a_debug_print() {
    let text = format!(
        "[security]\nkey = \"{GOOD_KEY}\"\n[trusted]\npath_secret = \"the-secret-of-the-path\"\n"
    );
    let shown = format!("{:?}", toml(&text).load().0);
    assert!(!shown.contains(GOOD_KEY) && !shown.contains("the-secret-of-the-path"), "{shown}");
}

#[test]
fn settings_of_an_imported_file_count_and_later_sources_win() {
    let case = json(
        r#""security":{"key":"0123456789abcdef0123456789abcdef","algo":"SHA256"},"limits":{"maxPayload":"2097152","maxConnPerChannel":5},"storage":{"messageTTL":60}"#,
    );
    let (config, _) = case.load();
    assert_eq!(config.security.algorithm, Algorithm::Sha256);
    assert_eq!(config.limits.payload_bytes, 2_097_152);
    assert_eq!(config.limits.connections_per_channel, 5);
    assert_eq!(config.history.message_ttl, Duration::from_secs(60));
    let (config, _) = case.flag("limits.connections_per_channel", "6").load();
    assert_eq!(config.limits.connections_per_channel, 6);
    let (config, warnings) = json(r#""storage":{"messageTTL":1000000}"#).load();
    assert_eq!(config.history.message_ttl, Duration::from_secs(86_400));
    assert!(has(&warnings, "storage.messageTTL", "24 hours"));
    let zero = json(r#""limits":{"maxConnPerChannel":0}"#).problems();
    assert!(zero.contains("limits.maxConnPerChannel: must be 1 to 1000000, got 0"), "{zero}");
}

#[test]
fn an_imported_file_trusts_private_networks_and_no_proxy_unless_told() {
    let (config, warnings) = json("").load();
    assert_eq!(config.trusted.proxies, []);
    assert_eq!(config.trusted.allow, Network::LOCAL);
    assert!(has(&warnings, "trusted.allow", "the original was open to everybody"));
    let case =
        json("").file("more.toml", "[trusted]\nallow = [\"10.1.1.1\"]\nproxies = [\"10.1.1.2\"]\n");
    let (config, warnings) = case.load();
    assert_eq!(names(&config.trusted.allow), ["10.1.1.1"]);
    assert_eq!(names(&config.trusted.proxies), ["10.1.1.2"]);
    assert!(!has(&warnings, "trusted.allow", ""));
}

#[test]
fn weak_keys_of_an_imported_file_are_warned_of_and_published_ones_refused() {
    let key = |hostname: &str, key: &str| {
        Case::new()
            .file("a.json", &json_text(hostname, &format!(r#""security":{{"key":"{key}"}}"#)))
    };
    assert!(has(&key("0.0.0.0", "short").load().1, "security.key", "5 characters"));
    assert!(key("0.0.0.0", SAMPLE_KEY).problems().contains("security.key: this key was published"));
    assert!(has(&key("127.0.0.1", SAMPLE_KEY).load().1, "security.key", "was published"));
}

#[test]
fn files_that_contradict_each_other_are_refused_without_showing_keys() {
    let file = |port: u16, rest: &str| {
        format!(
            r#"{{"servers":[{{"port":{port},"hostname":"127.0.0.1","routes":{{"sub":"/sub/"}}}}],{rest}}}"#
        )
    };
    let first =
        file(1, &format!(r#""security":{{"key":"{GOOD_KEY}"}},"limits":{{"maxPayload":5}}"#));
    let second = file(
        2,
        r#""security":{"key":"another key of enough characters"},"limits":{"maxPayload":5}"#,
    );
    let text = Case::new().file("1.json", &first).file("2.json", &second).problems();
    assert!(text.contains("security.key: differs from") && text.contains("1.json"), "{text}");
    assert!(!text.contains(GOOD_KEY) && !text.contains("another key"), "{text}");
    assert!(!text.contains("maxPayload"), "{text}");
    let keyless = file(2, r#""limits":{}"#);
    let (_, warnings) = Case::new().file("1.json", &first).file("2.json", &keyless).load();
    assert!(has(&warnings, "security.key", "the key of the other files applies"));
    let same_port = Case::new().file("1.json", &first).file("2.json", &first).problems();
    assert!(same_port.contains("127.0.0.1:1 is listened on twice"), "{same_port}");
}

#[test]
fn what_is_not_available_yet_is_an_error_and_never_silent() {
    let cloud = Case::new().fixture("sample/config-cloud.json").problems();
    assert!(cloud.contains("cloudMode: cloud mode is not available yet"), "{cloud}");
    assert!(json(r#""trustClients":false"#).problems().contains("trustClients: cloud mode"));
    json(r#""cloudMode":true,"trustClients":true"#).load();
    assert!(json(r#""cloudMode":"yes""#).problems().contains("cloudMode: must be true or false"));
    let unix = r#"{"servers":[{"path":"/run/push.sock","routes":{"sub":"/sub/"}}]}"#;
    let unix = Case::new().file("a.json", unix).problems();
    assert!(unix.contains("servers[0].path: unix sockets are not available yet"), "{unix}");
    let (_, warnings) = json(r#""duplicatePub":{"hostname":"other"}"#).load();
    assert!(has(&warnings, "duplicatePub", "not repeated to another server"));
}

/// A certificate for `name` and its key in `folder`.
fn make_certificate(folder: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join(format!("{name}.crt")), made.cert.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn a_listener_with_tls_needs_certificates_that_can_be_used() {
    let none = toml("[server]\nlisten_tls = [\"127.0.0.1:1\"]\n").problems();
    assert!(none.contains("tls.certificates: must name a certificate for 127.0.0.1:1"), "{none}");
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.example.com", "b.example.com"] {
        make_certificate(folder.path(), name);
    }
    let path = |file: &str| folder.path().join(file).display().to_string();
    let written = |certificate: &str, key: &str| {
        format!(
            "[server]\nlisten_tls = [\"127.0.0.1:1\"]\nproxy_protocol = [\"127.0.0.1:1\"]\n\
             [[tls.certificates]]\ncertificate = \"{}\"\nkey = \"{}\"\n",
            path(certificate),
            path(key)
        )
    };
    let (config, warnings) = toml(&written("a.example.com.crt", "a.example.com.key")).load();
    assert_eq!(warnings, []);
    let [plain, secure] = config.server.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!((plain.scheme(), plain.proxy_protocol), ("http", false));
    assert_eq!((secure.scheme(), secure.proxy_protocol), ("https", true));
    let names: Vec<_> = config.certificates[0].certificate.names().collect();
    assert_eq!(names, ["a.example.com"]);
    assert!(config.watched_files().contains(&folder.path().join("a.example.com.key")));
    let mixed = toml(&written("a.example.com.crt", "b.example.com.key")).problems();
    assert!(mixed.contains("tls.certificates (line 4): certificate 1: the key in"), "{mixed}");
    let gone = toml(&written("a.example.com.crt", "gone")).problems();
    assert!(gone.contains(&format!("{} cannot be read", path("gone"))), "{gone}");
    let stray = Case::new().flag("server.proxy_protocol", "127.0.0.1:2").problems();
    assert!(stray.contains("server.proxy_protocol: 127.0.0.1:2 is not listened on"), "{stray}");
}

#[test]
fn a_certificate_that_is_to_be_obtained_needs_consent_and_a_way_to_prove_its_names() {
    const TERMS: &str = "accept_terms = true\n";
    let acme = |server: &str, acme: &str| {
        toml(&format!("[server]\n{server}\n[acme]\nnames = [\"push.example.com\"]\n{acme}"))
    };
    let tls = "listen_tls = [\"127.0.0.1:443\"]";
    let (config, warnings) = acme(tls, TERMS).load();
    assert_eq!(warnings, []);
    let wanted = config.acme.as_ref().unwrap();
    assert_eq!((wanted.proof, wanted.authorities.is_none()), (Proof::Handshake, true));
    assert!(wanted.folder.ends_with("acme/acme-v02_api_letsencrypt_org_directory"));
    assert!(config.watched_files().contains(&wanted.certificate()));
    let secure = config.server.listeners.last().unwrap();
    assert_eq!(secure.tls, Some(vec![wanted.files()]));
    let both = "listen = [\"127.0.0.1:80\"]\nlisten_tls = [\"127.0.0.1:443\"]";
    assert_eq!(acme(both, TERMS).load().0.acme.unwrap().proof, Proof::Request);
    let (_, warnings) = acme("listen_tls = [\"127.0.0.1:8894\"]", TERMS).load();
    assert!(has(&warnings, "acme.challenge", "nothing listens at port 443"), "{warnings:?}");
    for (server, options, part) in [
        (tls, "", "acme.accept_terms: must be true for a certificate"),
        ("", TERMS, "acme.names (line 4): are of no use: set `server.listen_tls`"),
        (tls, "accept_terms = true\ndirectory = \"http://a.test/\"\n", "begins with https://"),
        (tls, "accept_terms = true\ncontact = \"nobody\"\n", "must be one mail address"),
        (tls, "accept_terms = true\nauthorities = \"/no/file\"\n", "cannot be read"),
        (
            "listen = []\nlisten_tls = [\"127.0.0.1:443\"]",
            "accept_terms = true\nchallenge = \"http-01\"\n",
            "`http-01` needs a listener without TLS",
        ),
    ] {
        let problems = acme(server, options).problems();
        assert!(problems.contains(part), "{part}: {problems}");
    }
}

#[test]
fn an_imported_listener_with_ssl_has_the_certificate_of_its_files() {
    let text = std::fs::read_to_string(fixture("sample/config-tls.json")).unwrap();
    let missing = Case::new().file("config-tls.json", &text).problems();
    assert!(missing.contains("servers[1].ssl: config/ssl/server.crt cannot be read"), "{missing}");
    // The file stands in `config`, and its paths begin there too.
    let case = Case::new();
    let root = case.folder.path().to_owned();
    std::fs::create_dir_all(root.join("config/ssl")).unwrap();
    make_certificate(&root, "push.example.com");
    for (from, to) in [("crt", "crt"), ("key", "key")] {
        let from = root.join(format!("push.example.com.{from}"));
        std::fs::rename(from, root.join(format!("config/ssl/server.{to}"))).unwrap();
    }
    let case = case.file("config/config.json", &text);
    let (config, warnings) = case.load();
    let [plain, secure] = config.server.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!((plain.scheme(), secure.scheme()), ("http", "https"));
    assert_eq!(config.certificates.len(), 1);
    for key in ["dhparam", "honorCipherOrder"] {
        assert!(has(&warnings, &format!("servers[1].ssl.{key}"), "has no effect"), "{warnings:?}");
    }
    let broken = json(r#""limits":{}"#);
    let text = r#"{"servers":[{"port":1,"ssl":{"key":5},"routes":{"sub":"/sub/"}}]}"#;
    let problems = broken.file("a.json", text).problems();
    assert!(problems.contains("servers[0].ssl.key: must be the path"), "{problems}");
    assert!(problems.contains("servers[0].ssl.cert: must be the path"), "{problems}");
}

#[test]
fn inherited_sockets_stand_in_for_the_default_listener() {
    let socket = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = socket.local_addr().unwrap();
    let mut case = Case::new();
    case.sources.inherited =
        vec![InheritedSocket { name: "http-proxy".into(), address, socket: Arc::clone(&socket) }];
    let (config, _) = case.load();
    let [listener] = config.server.listeners.as_slice() else { panic!("one listener") };
    assert_eq!((listener.address, listener.scheme()), (address, "http"));
    assert!(listener.proxy_protocol && listener.inherited.is_some());
    let (config, _) = case.flag("server.listen", "127.0.0.1:1").load();
    assert_eq!(config.server.listeners.len(), 2);
}

#[test]
fn a_changed_configuration_says_what_counts_at_once_and_what_later() {
    let (before, _) = toml("").load();
    let (after, _) = toml(
        "[server]\nshards = 7\n[trusted]\nallow = [\"10.0.0.1\"]\n\
         [limits]\nconnections_per_address = 5\n[log]\nlevel = \"debug\"\n",
    )
    .load();
    let live = ["trusted.allow", "limits.connections_per_address", "log.level"];
    assert_eq!(after.changed_live(&before), live);
    assert_eq!(after.needs_restart(&before), ["server.shards"]);
    assert!(before.needs_restart(&before).is_empty());
    let (imported, _) = json("").load();
    let moved = json_text("127.0.0.2", "");
    let (moved, _) = Case::new().file("push-server.json", &moved).load();
    assert_eq!(moved.needs_restart(&imported), ["servers"]);
}

#[test]
fn json_that_is_no_configuration_of_the_originals_is_refused() {
    for (text, part) in [
        ("{", "is not JSON"),
        ("[]", "not an object with `servers`"),
        ("{}", "servers: is missing"),
        (r#"{"servers":[]}"#, "servers: must have at least one entry"),
        (r#"{"servers":[5]}"#, "servers[0]: must be an object"),
        (r#"{"servers":[{"port":1}]}"#, "servers[0].routes: is missing"),
        (
            r#"{"servers":[{"port":1,"routes":{"sub":"sub/"}}]}"#,
            "servers[0].routes.sub: must be a path",
        ),
        (
            r#"{"servers":[{"port":1,"routes":{},"hostname":5}]}"#,
            "servers[0].hostname: must be text",
        ),
        (r#"{"servers":[{"port":1,"routes":{},"backlog":0}]}"#, "servers[0].backlog: must be 1 to"),
        (
            r#"{"servers":[{"port":1,"routes":{}}],"security":{"key":5}}"#,
            "security.key: must be text",
        ),
        (
            r#"{"servers":[{"port":1,"routes":{}}],"security":{"algo":"crc"}}"#,
            "security.algo: must be one of",
        ),
    ] {
        let problems = Case::new().file("a.json", text).problems();
        assert!(problems.contains(part), "{text}\n{problems}");
    }
}
