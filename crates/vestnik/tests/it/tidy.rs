//! Rules of the house that no compiler checks: who may depend on whom, sizes, names, and that words
//! about the program are true.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use vestnik_proto::quirks::Quirk;

/// Crates of the workspace and the ones of it each may use. A new arrow is a change of the design.
const ARROWS: [(&str, &[&str]); 9] = [
    ("vestnik-core", &[]),
    ("vestnik-proto", &["vestnik-core"]),
    ("vestnik-hub", &["vestnik-core"]),
    ("vestnik-push", &["vestnik-core"]),
    ("vestnik-publisher", &["vestnik-core", "vestnik-proto"]),
    ("vestnik-service", &["vestnik-core", "vestnik-push"]),
    (
        "vestnik-server",
        &["vestnik-core", "vestnik-proto", "vestnik-hub", "vestnik-push", "vestnik-service"],
    ),
    (
        "vestnik-web",
        &["vestnik-core", "vestnik-hub", "vestnik-publisher", "vestnik-server", "vestnik-service"],
    ),
    (
        "vestnik",
        &[
            "vestnik-web",
            "vestnik-core",
            "vestnik-proto",
            "vestnik-hub",
            "vestnik-push",
            "vestnik-service",
            "vestnik-publisher",
            "vestnik-server",
        ],
    ),
];

/// Libraries and the only crates that may use them.
const KEPT_TO: [(&str, &[&str]); 9] = [
    ("anyhow", &["vestnik"]),
    ("clap", &["vestnik"]),
    ("toml", &["vestnik"]),
    ("hyper", &["vestnik", "vestnik-server", "vestnik-push", "vestnik-publisher"]),
    // The bench of the program stands on bare sockets.
    ("mio", &["vestnik", "vestnik-server"]),
    // The bench writes and reads messages of the schema itself.
    ("prost", &["vestnik", "vestnik-proto"]),
    (
        "serde_json",
        &[
            "vestnik",
            "vestnik-server",
            "vestnik-proto",
            "vestnik-push",
            "vestnik-service",
            "vestnik-web",
        ],
    ),
    ("sqlx", &["vestnik-service"]),
    (
        "tokio",
        &[
            "vestnik",
            "vestnik-server",
            "vestnik-hub",
            "vestnik-push",
            "vestnik-publisher",
            "vestnik-service",
            "vestnik-web",
        ],
    ),
];

const LINES_OF_A_FILE_MAX: usize = 1200;
const LINES_OF_A_FUNCTION_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is there")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The entries of a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("it is read").path()).collect()
}

/// All Rust files below a folder, those of builds aside.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The Rust files of the program and its fuzzer, with their texts.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let files = ["crates", "fuzz/src"].map(|folder| rust_files(&root.join(folder))).concat();
    assert!(files.len() > 50, "the files are found");
    let name = |path: &Path| path.strip_prefix(&root).expect("below it").display().to_string();
    files.iter().map(|path| (name(path), read(path))).collect()
}

/// Names and manifests of the crates.
fn crates() -> Vec<(String, toml::Table)> {
    let manifests = entries(&root().join("crates")).into_iter().map(|folder| {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        (name, read(&folder.join("Cargo.toml")).parse().expect("TOML"))
    });
    manifests.collect()
}

/// Names below a heading of a manifest.
fn names(manifest: &toml::Table, heading: &str) -> BTreeSet<String> {
    let table = manifest.get(heading).and_then(toml::Value::as_table);
    table.into_iter().flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn crates_depend_on_each_other_only_along_the_allowed_arrows() {
    for (name, manifest) in crates() {
        let allowed = ARROWS.iter().find(|(known, _)| *known == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} has no place in the table"));
        for heading in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for used in names(&manifest, heading).iter().filter(|name| name.starts_with("vestnik"))
            {
                assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
            }
        }
    }
}

#[test]
fn libraries_stay_in_the_crates_they_are_for() {
    for (name, manifest) in crates() {
        let used = names(&manifest, "dependencies");
        for (library, allowed) in KEPT_TO {
            assert!(
                !used.contains(library) || allowed.contains(&name.as_str()),
                "{name} must not use {library}"
            );
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace_which_forbid_unsafe_code() {
    let workspace: toml::Table = read(&root().join("Cargo.toml")).parse().expect("TOML");
    let lints = &workspace["workspace"]["lints"];
    assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for (name, manifest) in crates() {
        if name == "vestnik-server" {
            // The same but for one call of the allocator.
            let mut own = manifest["lints"].clone();
            assert_eq!(own["rust"]["unsafe_code"].as_str(), Some("deny"));
            own["rust"]["unsafe_code"] = "forbid".into();
            assert_eq!(&own, lints, "{name}");
        } else {
            assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{name}");
        }
    }
}

#[test]
fn unsafe_code_is_one_call_of_the_allocator() {
    // Not in one piece, or this file would have it too.
    let allowed = ["(unsafe", "_code"].concat();
    let with = sources().into_iter().filter(|(_, text)| text.contains(&allowed));
    let names: Vec<_> = with.map(|(name, _)| name).collect();
    assert!(
        matches!(&names[..], [name] if name.ends_with("vestnik-server/src/allocator.rs")),
        "{names:?}"
    );
}

#[test]
fn the_changelog_has_a_place_for_what_is_not_released() {
    let changelog = read(&root().join("CHANGELOG.md"));
    let heading = changelog.lines().find(|line| line.starts_with("## "));
    assert_eq!(heading, Some("## Unreleased"), "it comes first");
}

#[test]
fn files_stay_small_and_have_names_that_say_something() {
    const VAGUE: [&str; 6] =
        ["mod.rs", "util.rs", "common.rs", "helpers.rs", "types.rs", "models.rs"];
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_OF_A_FILE_MAX, "{name} has {lines} lines");
        let file = name.rsplit('/').next().expect("a name");
        assert!(!VAGUE.contains(&file) && file != "utils.rs", "{name}");
    }
}

/// Functions of formatted code: name, line of its start, number of lines.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        for (end, line) in lines.iter().enumerate().skip(start) {
            let is_short = end == start && line.ends_with('}');
            // The end of a declaration without a body stands before any line of one.
            let is_declaration =
                line.ends_with(';') && !lines[start..end].iter().any(|l| l.ends_with('{'));
            if is_short || is_declaration {
                break;
            }
            if *line == closing {
                functions.push((name.to_owned(), start + 1, end - start + 1));
                break;
            }
        }
    }
    functions
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.strip_prefix("fn ")?.split(['(', '<']).next()
}

#[test]
fn functions_fit_on_a_screen_or_two() {
    let mut count = 0;
    for (name, text) in sources() {
        for (function, line, lines) in functions(&text) {
            assert!(
                lines <= LINES_OF_A_FUNCTION_MAX,
                "{name}:{line}: `{function}` has {lines} lines"
            );
            count += 1;
        }
    }
    assert!(count > 500, "functions are found: {count}");
}

#[test]
fn the_length_of_a_function_is_measured_to_its_own_closing_brace() {
    let text = "impl A {\n    pub(crate) async fn one<T>(\n        a: T,\n    ) {\n        if a {\n        \
                }\n    }\n\n    fn short() {}\n    fn declared();\n}\n\nfn two() {\n}\n";
    assert_eq!(functions(text), [("one".into(), 2, 6), ("two".into(), 13, 2)]);
}

#[test]
fn nothing_is_left_for_later_and_tests_are_named_by_sentences() {
    // Put together here, so that this file does not hold them.
    let later = [["TO", "DO"], ["FIX", "ME"], ["todo", "!("], ["unimplemented", "!("]];
    let later = later.map(|parts| parts.concat());
    let prefix = ["fn ", "test_"].concat();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for word in &later {
                assert!(!line.contains(word.as_str()), "{name}:{}: {word}", number + 1);
            }
            assert!(!line.contains(&prefix), "{name}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn every_quirk_is_replayed_by_the_conformance_suite() {
    // One needs a hundred connections, the other a server without a key.
    const ELSEWHERE: [Quirk; 2] = [Quirk::EvictionWithoutDot, Quirk::FortyDigitsWithoutKey];
    let files = entries(&root().join("crates/vestnik/conformance"));
    let heads: Vec<String> = files
        .iter()
        .flat_map(|path| read(path).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.starts_with("# "))
        .collect();
    for quirk in Quirk::ALL {
        let name = format!("quirks/{}", quirk.name());
        let is_there = heads.iter().any(|head| head.split(' ').any(|word| word == name));
        assert_eq!(is_there, !ELSEWHERE.contains(&quirk), "{name}");
    }
}

#[test]
fn every_target_of_the_fuzzer_has_a_corpus_and_is_run() {
    let fuzz = root().join("fuzz");
    let script = read(&fuzz.join("run"));
    let list = script.split("ALL=(").nth(1).and_then(|rest| rest.split(')').next());
    let run: BTreeSet<&str> = list.expect("the list of targets").split_whitespace().collect();
    let corpora: BTreeSet<String> = entries(&fuzz.join("corpus"))
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        // Those of the configuration are replayed by its own test.
        .filter(|name| !name.starts_with("config_"))
        .collect();
    assert_eq!(run, corpora.iter().map(String::as_str).collect());
}

/// Code in a text of Markdown: lines of fenced blocks, and what stands between backticks.
fn code(markdown: &str) -> Vec<String> {
    let mut code = Vec::new();
    let mut is_fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            code.push(line.to_owned());
        } else {
            code.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    code
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik")).args(command).arg("--help").output();
    let output = output.expect("it is built");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn commands_and_flags_that_the_documents_show_exist() {
    let commands: BTreeSet<String> = help(&[])
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert!(commands.contains("serve"), "{commands:?}");
    let root = root();
    let mut pages = entries(&root.join("docs"));
    pages.push(root.join("README.md"));
    let mut seen = BTreeSet::new();
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md")) {
        for line in code(&read(page)) {
            // Behind each `vestnik ` stands a command, as far as it is one word in small letters.
            for call in line.split("vestnik ").skip(1) {
                let mut words = call.split_whitespace().peekable();
                let word = words.next().unwrap_or_default();
                if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
                    continue;
                }
                let page = page.display();
                assert!(commands.contains(word), "{page}: there is no `vestnik {word}`: {line}");
                let mut command = vec![word];
                // Some commands have commands of their own.
                if help(&command).contains("Commands:") {
                    command.extend(words.next_if(|next| !next.starts_with("--")));
                }
                let help = help(&command);
                for flag in words.filter_map(|word| word.strip_prefix("--")) {
                    let flag = flag.split(['=', '"', ')', '`', ',', ';', ']']).next();
                    let flag = format!("--{}", flag.expect("a first part"));
                    let is_there =
                        help.split_whitespace().any(|found| found.trim_end_matches(',') == flag);
                    assert!(is_there, "{page}: `vestnik {word}` has no {flag}: {line}");
                }
                seen.insert(word.to_owned());
            }
        }
    }
    for command in ["serve", "publish", "listen", "sign", "check", "keygen", "conformance"] {
        assert!(seen.contains(command), "no document shows `vestnik {command}`");
    }
}
