//! The benchmark in its smallest form: that it runs, checks what it gets, and says so.

use std::process::Command;

#[test]
fn the_benchmark_measures_every_part_and_prints_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "20", "--repeat", "1", "--json"])
        .output()
        .expect("it is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figures = figures.as_array().expect("a list");
    assert!(figures.len() >= 20, "{figures:?}");
    let is_measured = |name: &str| figures.iter().any(|figure| figure["name"] == name);
    assert!(is_measured("module, event to one user"), "{figures:?}");
    for figure in figures {
        let median = figure["median"].as_f64().expect("a number");
        assert!(median.is_finite() && median >= 0.0, "{figure}");
    }
}

#[test]
fn the_benchmark_measures_json_frames_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "20", "--repeat", "1", "--json", "--generation", "5"])
        .args(["--only", "idle,fan-out,burst,replay,latency,publish,storm"])
        .output()
        .expect("it is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(figures.as_array().expect("a list").len() >= 12, "{figures:?}");
}

#[test]
fn a_wrong_key_is_said_instead_of_measured() {
    let server = crate::server::TestServer::start();
    let (subscribe, publish) = (
        format!("ws://{}/bitrix/subws/", server.address()),
        format!("http://{}/bitrix/pub/", server.address()),
    );
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "2", "--only", "idle", "--key", "wrong"])
        .args(["--subscribe", &subscribe, "--publish", &publish])
        .output()
        .expect("it is built");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("could connect") && said.contains("check that the key fits"), "{said}");
}
