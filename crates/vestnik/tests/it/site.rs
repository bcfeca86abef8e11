//! The example site in a real browser: two users and a guest, and a PHP script that publishes to them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::back_end::server_and_secret;
use crate::clients::{self, slow};
use crate::database_server::postgres;
use crate::server::TestServer;

/// The back end of the example, ended when dropped.
struct Site {
    child: Child,
    url: String,
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

impl Site {
    fn start(server: &TestServer, secret: &str) -> Self {
        let sdk = clients::folder().join("node_modules/@bitrix24/b24jssdk/dist/umd/index.min.js");
        let mut child = Command::new("node")
            .arg(root().join("examples/site/server.mjs"))
            .env("VESTNIK_URL", format!("http://{}", server.address()))
            .env("VESTNIK_SECRET", secret)
            .env("SDK", sdk)
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("it says where it is");
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let site = Self { child, url };
        assert!(site.url.starts_with("http://127.0.0.1:"), "{line}");
        site
    }
}

fn tell_the_story(settings: &[&str]) {
    let (server, secret) = server_and_secret(settings);
    let site = Site::start(&server, &secret);
    let output = Command::new("node")
        .arg(clients::folder().join("site-story.mjs"))
        .args([&site.url, "php"])
        .arg(root().join("clients/php/tests/site.php"))
        .env("VESTNIK_URL", format!("http://{}", server.address()))
        .env("VESTNIK_SECRET", &secret)
        .output()
        .expect("node is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn two_users_and_a_guest_chat_on_the_example_site_over_sqlite() {
    if slow() {
        tell_the_story(&[]);
    }
}

#[test]
fn two_users_and_a_guest_chat_on_the_example_site_over_postgresql() {
    if !slow() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let database = runtime.expect("a runtime").block_on(postgres());
    let (_server, options) = database.expect("the full run has PostgreSQL");
    tell_the_story(&[&format!("module.database={}", options.address.expose())]);
}
