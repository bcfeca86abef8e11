//! The settings page and the world: connected clients, the cloud, the check of the connection.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use vestnik_core::ChannelId;
use vestnik_service::config::ConfigRequest;
use vestnik_service::option::Key;

use crate::admin::{GENERATED_KEY, signed_in};
use crate::browser::{Browser, Page};
use crate::clients::{Client, Kind, slow};
use crate::raw;
use crate::server::TestServer;
use crate::settings_rows::with_tenant;

/// Options that describe the server itself, as the button of the page fills them in.
fn own_options(server: &TestServer, generation: &str) -> Vec<(Key, String)> {
    let at = server.address();
    let mut options = vec![
        (Key::Nginx, "Y".to_owned()),
        (Key::NginxVersion, generation.to_owned()),
        (Key::PathToPublish, format!("http://{at}/bitrix/pub/")),
        (Key::PathToJsonRpc, format!("http://{at}/bitrix/api/")),
        (Key::PathToPublishWeb, format!("http://{at}/bitrix/pubweb/")),
        (Key::PathToModernListener, format!("http://{at}/bitrix/sub/")),
        (Key::PathToWebsocket, format!("ws://{at}/bitrix/subws/")),
    ];
    let key = std::fs::read_to_string(server.data().join("signature.key")).unwrap();
    options.push((Key::SignatureKey, key.trim().to_owned()));
    options
}

/// The configuration of user 7 with the server of this generation, and the id of the shared channel.
fn configured(server: &TestServer, generation: &str) -> (Value, ChannelId) {
    let options = own_options(server, generation);
    with_tenant(server, async |tenant| {
        let changes: Vec<_> =
            options.iter().map(|(key, value)| (*key, Some(value.as_str()))).collect();
        tenant.set_options("", &changes).await.unwrap();
        let request = ConfigRequest { user: 7, host: "portal.test", ..ConfigRequest::default() };
        let config = tenant.client_config(&request).await.unwrap().to_json();
        let shared = tenant.shared_channel().await.unwrap().id;
        (serde_json::from_str(&config).unwrap(), shared)
    })
}

/// The same as the settings of a driven client. The page is plain, so the secure addresses equal the others.
fn client_settings(config: &Value) -> Value {
    let mut server = config["server"].clone();
    for (secure, plain) in [
        ("websocket_secure", "websocket"),
        ("long_pooling_secure", "long_polling"),
        ("publish_secure", "publish"),
    ] {
        server[secure] = server[plain].clone();
    }
    let mut channels = config["channels"].clone();
    for channel in ["shared", "private"] {
        for date in ["start", "end"] {
            if let Some(channel) = channels[channel].as_object_mut() {
                channel.remove(date);
            }
        }
    }
    let mut settings = json!({"userId": 7, "server": server, "channels": channels});
    if !config["jwt"].is_null() {
        settings["jwt"] = config["jwt"].clone();
    }
    settings
}

fn publish_numbers(server: &TestServer, channel: ChannelId, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let body = json!({"module_id": "im", "command": "test", "params": {"n": n}}).to_string();
        let answer = raw::publish(server.address(), &channel.to_string(), 3600, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn expect_numbers(client: &mut Client, numbers: std::ops::Range<u64>) {
    let received: Vec<u64> = numbers
        .clone()
        .map(|_| client.expect_named("message")["params"]["n"].as_u64().expect("a number"))
        .collect();
    assert_eq!(received, numbers.collect::<Vec<_>>(), "in order, once each");
}

#[test]
fn s_050_s_058_a_connected_client_moves_to_another_generation_and_loses_nothing() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[GENERATED_KEY]), Browser::start());
    crate::module::ready(&server);
    let (config5, _) = configured(&server, "5");
    let (config4, shared) = configured(&server, "4");
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    page.until("(await (await fetch('/admin/settings')).text()).includes('option value=\"personal\" selected')");
    for kind in [Kind::Node, Kind::Chromium] {
        page.go("/admin/settings");
        page.click("[name=nginx_version][value='4']");
        page.follow("button[value=Save]");
        let mut client = Client::start(kind, &client_settings(&config4));
        client.expect_named("connected");
        publish_numbers(&server, shared, 0..5);
        // What the site answers from now on is what the page is about to save.
        client.send(json!({"do": "configure", "settings": client_settings(&config5)}));
        page.click("[name=nginx_version][value='5']");
        page.follow("button[value=Save]");
        publish_numbers(&server, shared, 5..10);
        let moved = client.expect(|it| {
            it["event"] == "url"
                && it["url"].as_str().is_some_and(|url| url.contains("jsonRpc=true"))
        });
        assert!(moved["url"].as_str().unwrap().contains("token="), "{kind:?}: {moved}");
        publish_numbers(&server, shared, 10..15);
        expect_numbers(&mut client, 0..15);
        client.stop();
    }
    // S-58: guests have channels of their own once they are switched on.
    let guest = |server: &TestServer| {
        with_tenant(server, async |tenant| {
            let kind = vestnik_service::channel::ChannelKind::Private;
            tenant.channel(-5, &kind).await.map(|it| it.id).ok()
        })
    };
    assert_eq!(guest(&server), None);
    page.click("#guest");
    page.follow("button[value=Save]");
    assert!(guest(&server).is_some());
}

/// A cloud: its directory and its server in one, over plain HTTP.
struct Cloud {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<(u16, &'static str)>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Cloud {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(Mutex::new((200, r#"{"status":"error","error":"no licence"}"#)));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let cloud = Self { address, asked, answer, heard };
        let (asked, answer, heard) =
            (Arc::clone(&cloud.asked), Arc::clone(&cloud.answer), Arc::clone(&cloud.heard));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = vec![0; 8192];
                let Ok(read) = stream.read(&mut request) else { continue };
                let mut request = String::from_utf8_lossy(&request[..read]).into_owned();
                // A body may come in a packet of its own.
                if request.starts_with("POST") && request.ends_with("\r\n\r\n") {
                    let mut body = vec![0; 8192];
                    let read = stream.read(&mut body).unwrap_or(0);
                    request += &String::from_utf8_lossy(&body[..read]);
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let (status, body) = if request.starts_with("GET /servers") {
                    (200, format!("{address};local\nrtc2.example;ru\n"))
                } else if request.starts_with("GET /hostname") {
                    (200, address.to_string())
                } else {
                    let (status, body) = *answer.lock().unwrap();
                    (status, body.to_owned())
                };
                heard.lock().unwrap().push(request);
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        cloud
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn option(server: &TestServer, key: Key) -> String {
    with_tenant(server, async |tenant| tenant.options("").await.unwrap().text(key).to_owned())
}

#[test]
fn s_008_s_009_s_010_s_012_s_057_s_059_a_site_registers_in_the_cloud() {
    if !slow() {
        return;
    }
    let cloud = Cloud::start();
    let setting = format!("module.cloud_directory=http://{}", cloud.address);
    let (server, browser) = (TestServer::with_module(&[GENERATED_KEY, &setting]), Browser::start());
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    page.enter("#push_server_mode", "personal");
    page.follow("button[value=Save]");
    assert_eq!(cloud.asked(), 0, "S-57: nothing is asked until the block is open");
    page.enter("#push_server_mode", "shared");
    page.until("document.querySelector('#cloud_server_hostname').options.length === 3");
    assert_eq!(cloud.asked(), 1);
    let offered = page.text_of("[...document.querySelectorAll('#cloud_server_hostname option')].map(it => it.textContent).join('|')");
    assert_eq!(
        offered,
        format!("(auto select server)|{} (local)|rtc2.example (ru)", cloud.address)
    );
    assert_eq!(page.text("#cloud-registration"), "Inactive");
    // S-59: a refusal is told in its own words, and changes nothing.
    page.follow("button[value=Register]");
    assert!(page.text("#cloud-error").contains("Error: no licence"));
    assert_eq!(page.value("#push_server_mode"), "shared", "what was chosen is still there");
    assert_eq!(
        (option(&server, Key::ServerMode), option(&server, Key::Nginx)),
        ("personal".into(), "Y".into())
    );
    assert_eq!(option(&server, Key::SharedServerAddress), "");
    *cloud.answer.lock().unwrap() = (200, r#"{"securityKey":"SEC"}"#);
    page.follow("button[value=Register]");
    assert_eq!(page.text("#cloud-registration"), "Active");
    assert_eq!(page.text("#cloud-address"), cloud.address.to_string(), "chosen by the cloud");
    assert!(
        !page.holds("document.querySelector('#cloud_server_hostname')"),
        "S-10 only when not registered"
    );
    assert_eq!(option(&server, Key::SharedServerKey), "SEC");
    assert_eq!(option(&server, Key::ServerMode), "shared");
    let heard = cloud.heard.lock().unwrap().clone();
    let registered = heard.last().unwrap();
    assert!(registered.starts_with("POST /register-client/"), "{registered}");
    assert!(
        registered.contains(
            "verificationQuery=BX_LICENCE%3D9300e3d70f5eb313b91e90b11fe0bdea%26BX_TYPE%3DCP"
        ),
        "{registered}"
    );
    // A list that cannot be loaded names the address.
    let deaf =
        TestServer::with_module(&[GENERATED_KEY, "module.cloud_directory=http://127.0.0.1:1"]);
    let page = signed_in(&browser, &deaf, "W", "/admin/settings", "en");
    page.enter("#push_server_mode", "shared");
    page.until("document.querySelector('#cloud-list-error').checkVisibility()");
    assert!(page.text("#cloud-list-error").contains("http://127.0.0.1:1 is accessible"));
}

/// The steps of a check that has ended: class and text of each.
fn checked(page: &Page) -> Vec<(String, String)> {
    page.click("#check");
    page.until("document.querySelector('#check-steps').dataset.done === 'true'");
    let steps = page.run(
        "return [...document.querySelectorAll('#check-steps > li')].map(it => [it.className, it.innerText])",
    );
    serde_json::from_value(steps).unwrap()
}

#[test]
fn s_063_s_064_the_check_walks_every_path_and_names_what_fails() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[GENERATED_KEY]), Browser::start());
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    page.enter("#push_server_mode", "personal");
    page.click("#own-addresses");
    assert_eq!(page.value("#path_to_publish"), format!("http://{}/bitrix/pub/", server.address()));
    // Listeners on the loopback are meant to be behind a proxy; here there is none.
    for (field, scheme, path) in [
        ("path_to_publish_web", "http", "pubweb"),
        ("path_to_modern_listener", "http", "sub"),
        ("path_to_websocket", "ws", "subws"),
    ] {
        page.enter(
            &format!("#{field}"),
            &format!("{scheme}://{}/bitrix/{path}/", server.address()),
        );
    }
    for (field, scheme) in [
        ("path_to_publish_web_secure", "https"),
        ("path_to_modern_listener_secure", "https"),
        ("path_to_websocket_secure", "wss"),
    ] {
        page.enter(&format!("#{field}"), &format!("{scheme}://127.0.0.1:1/bitrix/x/"));
    }
    page.follow("button[value=Save]");
    let steps = checked(&page);
    let of = |name: &str| {
        steps
            .iter()
            .find(|(_, text)| text.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {steps:?}"))
    };
    for name in [
        "Signature key",
        "The site publishes",
        "Clocks agree",
        "A browser reads (HTTP)",
        "A browser reads over WebSocket (HTTP)",
        "What was missed comes later",
        "A browser publishes (HTTP)",
    ] {
        assert_eq!(of(name).0, "good", "{:?}", of(name));
    }
    for name in [
        "A browser reads (HTTPS)",
        "A browser reads over WebSocket (HTTPS)",
        "A browser publishes (HTTPS)",
    ] {
        let (class, text) = of(name);
        assert!(class == "bad" && text.contains("Nobody takes connections there"), "{text}");
    }
    // Generation 5 asks over JSON-RPC, too; and a wrong path is named with the line that mends it.
    page.click("[name=nginx_version][value='5']");
    page.enter("#path_to_json_rpc", &format!("http://{}/bitrix/api/", server.address()));
    page.enter("#path_to_modern_listener", &format!("http://{}/elsewhere/", server.address()));
    page.follow("button[value=Save]");
    let steps = checked(&page);
    let of = |name: &str| steps.iter().find(|(_, text)| text.starts_with(name)).unwrap();
    assert_eq!(of("The site asks over JSON-RPC").0, "good", "{steps:?}");
    let (class, text) = of("A browser reads (HTTP)");
    assert!(class == "bad" && text.contains("HTTP 404") && text.contains("location ~"), "{text}");
    page.is_accessible();
    assert_eq!(page.complaints().len(), 0);
}
