//! `vestnik import` as an administrator types it.

use std::path::Path;
use std::process::{Command, Output};

use crate::database_server::{mariadb, postgres};

const SITE: &str = "
CREATE TABLE b_option (MODULE_ID VARCHAR(50) NOT NULL, NAME VARCHAR(100) NOT NULL, VALUE TEXT, DESCRIPTION VARCHAR(255), SITE_ID CHAR(2), PRIMARY KEY (MODULE_ID, NAME));
CREATE TABLE b_pull_channel (ID INT PRIMARY KEY, USER_ID INT NOT NULL, CHANNEL_TYPE VARCHAR(255), CHANNEL_ID VARCHAR(50) NOT NULL, CHANNEL_PUBLIC_ID VARCHAR(50), LAST_ID INT, DATE_CREATE TIMESTAMP NOT NULL);
INSERT INTO b_option (MODULE_ID, NAME, VALUE) VALUES ('pull', 'nginx', 'Y'), ('pull', 'signature_key', 'a very secret key of a site'), ('pull', 'host_id', 'site1');
INSERT INTO b_pull_channel VALUES (1, 7, 'private', '00112233445566778899aabbccddeeff', 'ffeeddccbbaa99887766554433221100', 0, now()), (2, 8, 'private', 'x', '', 0, now());
";

/// Runs an import into the module of a data folder.
fn import(data: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["import", "bitrix-db", "--data-dir"])
        .arg(data)
        .args(arguments)
        .output();
    let Output { status, stdout, stderr } = output.expect("it is built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

/// A line of the report, its words.
fn counts<'a>(report: &'a str, name: &str) -> Vec<&'a str> {
    let line = report.lines().find(|line| line.trim_start().starts_with(name));
    line.unwrap_or_else(|| panic!("{name}: {report}")).split_whitespace().skip(1).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn a_dry_run_tells_and_changes_nothing_and_a_second_run_finds_nothing_to_do() {
    let runtime = runtime();
    let Some((server, admin)) = runtime.block_on(postgres()) else { return };
    server.script("postgres", "CREATE DATABASE site;");
    server.script("site", SITE);
    let data = tempfile::tempdir().expect("a folder");
    // The address of the database, and an option, are in the site's own file.
    let address = admin.address.expose().replace("/postgres", "/site");
    let host = address.split(['@', '/']).nth(3).expect("a host").replace("%2F", "/");
    let settings = data.path().join("settings.php");
    let text = format!(
        "<?php return ['connections' => ['value' => ['default' => ['className' => 'PgsqlConnection', 'host' => '{host}', \
         'database' => 'site', 'login' => 'test', 'password' => '']]], 'pull' => ['value' => ['push' => 'Y']]];"
    );
    std::fs::write(&settings, text).expect("written");
    let settings = settings.to_str().expect("text");
    let home = data.path().join("home");

    let (code, report, errors) = import(&home, &["--settings", settings, "--dry-run"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(report.contains("everything would go to the tenant site1 (new)"), "{report}");
    assert!(report.contains("nothing was changed"), "{report}");
    assert_eq!(counts(&report, "options"), ["3", "3", "0", "0", "0", "0"]);
    assert_eq!(counts(&report, "channels"), ["2", "1", "0", "0", "0", "1"]);
    assert_eq!(counts(&report, "signature_key"), ["***", "new"]);
    assert!(report.contains("watches: the site has no table b_pull_watch"), "{report}");
    assert!(!report.contains("secret") && !errors.contains("secret"), "{report}{errors}");
    assert!(!home.join("module.db").exists(), "it was a dry run");

    let (code, report, errors) = import(&home, &["--settings", settings]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(counts(&report, "channels"), ["2", "1", "0", "0", "0", "1"]);
    assert!(home.join("module.db").exists());
    for arguments in [&["--settings", settings][..], &["--settings", settings, "--dry-run"]] {
        let (code, report, errors) = import(&home, arguments);
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(counts(&report, "options"), ["3", "0", "0", "3", "0", "0"]);
        assert_eq!(counts(&report, "channels"), ["2", "0", "0", "1", "0", "1"]);
    }
    // What was taken over under a name of its own stays where it is.
    let (code, report, _) = import(&home, &["--from", &address, "--tenant", "other"]);
    assert!(code == Some(0) && report.contains("the tenant other (new)"), "{report}");
}

#[test]
fn what_an_import_cannot_do_is_said_with_a_hint() {
    let data = tempfile::tempdir().expect("a folder");
    let broken = data.path().join("broken.php");
    std::fs::write(&broken, "<?php return ['pull' => getenv('PULL')];").expect("written");
    let broken = broken.to_str().expect("text");
    let nothing = "--from";
    for (arguments, what, hint) in [
        (&[][..], "no database to import from", "give --from"),
        (&[nothing, "sqlite:x"], "one of MySQL, MariaDB or PostgreSQL", "give --from"),
        (&[nothing, "postgres://a:b@127.0.0.1:1/c"], "cannot be read", "nobody answers"),
        (&["--settings", broken], "is not understood", "nothing is executed"),
        (&["--settings", "/no/such/file"], "cannot be read", "may read the site's files"),
        (
            &[nothing, "mysql://x", "--set", "module.enabled=false"],
            "switched off",
            "module.enabled",
        ),
    ] {
        let (code, report, errors) = import(data.path(), arguments);
        assert_eq!(code, Some(1), "{report}{errors}");
        assert!(errors.contains(what) && errors.contains(hint), "{arguments:?}: {errors}");
    }
    let runtime = runtime();
    let Some((server, admin)) = runtime.block_on(mariadb()) else { return };
    server.script("test", "CREATE USER reader@localhost IDENTIFIED BY 'right';");
    let wrong = admin.address.expose().replace("root@", "reader:wrong@");
    let (code, _, errors) = import(data.path(), &["--from", &wrong]);
    assert!(code == Some(1) && errors.contains("hint: check user and password"), "{errors}");
    assert!(!errors.contains("wrong@"), "{errors}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["import", "bitrix-db", "--from", "-", "--data-dir"])
        .arg(data.path())
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it is built");
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, admin.address.expose().as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // The tests' own empty database is none of a site.
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("no table b_option") && errors.contains("last part of the address"),
        "{errors}"
    );
}
