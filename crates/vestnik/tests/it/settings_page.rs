//! The settings page: what saving does, who may, and what connected clients see of it
//! (settings-page.md §4 to §7).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use serde_json::json;
use vestnik_service::audit::AuditEntry;
use vestnik_service::option::{Key, Source};

use crate::admin::{GENERATED_KEY, PASSWORD, administrator, sign_in, signed_in};
use crate::browser::{Browser, Page};
use crate::clients::slow;
use crate::module;
use crate::server::TestServer;
use crate::settings_rows::{populate, with_tenant};

/// The value of an option now, and where it comes from.
fn option(server: &TestServer, key: Key) -> (String, Source) {
    with_tenant(server, async |tenant| {
        let options = tenant.options("").await.unwrap();
        (options.text(key).to_owned(), options.source(key))
    })
}

fn value(server: &TestServer, key: Key) -> String {
    option(server, key).0
}

fn audit(server: &TestServer) -> Vec<AuditEntry> {
    with_tenant(server, async |tenant| tenant.audit().await.unwrap())
}

fn save(page: &Page) {
    page.follow("button[value=Save]");
}

fn start(settings: &[&str]) -> (TestServer, Browser, Page) {
    let (server, browser) = (TestServer::with_module(settings), Browser::start());
    crate::module::without_queue_server(&server);
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    (server, browser, page)
}

#[test]
fn s_033_s_034_s_035_s_049_s_051_s_054_saving_resetting_and_defaults_do_what_they_say() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start(&[GENERATED_KEY]);
    let generated = page.value("#signature_key");
    assert_eq!(generated.len(), 64, "the key of the first start is shown");
    let source = |page: &Page, key: &str| page.text(&format!("[data-source={key}]"));
    page.enter("#push_server_mode", "personal");
    assert_eq!(source(&page, "signature_key"), "generated at the first start");
    assert_eq!(source(&page, "path_to_publish"), "built-in");
    // S-34: only the browser forgets.
    page.enter("#path_to_publish", "http://192.0.2.1:8895/bitrix/pub/");
    assert!(page.is_visible("#unsaved"));
    page.click("button[type=reset]");
    page.until(
        "document.querySelector('#path_to_publish').value === 'http://127.0.0.1:8895/bitrix/pub/'",
    );
    page.until("!document.querySelector('#unsaved').checkVisibility()");
    assert_eq!(page.value("#push_server_mode"), "N");
    // S-33, S-54: nobody has clicked a generation.
    page.enter("#push_server_mode", "personal");
    page.enter("#path_to_publish", "http://192.0.2.1:8895/bitrix/pub/");
    save(&page);
    assert!(
        page.path().contains("done=saved") && page.is_visible(".notice.good"),
        "{}",
        page.path()
    );
    assert_eq!(value(&server, Key::Nginx), "Y");
    assert_eq!(option(&server, Key::NginxVersion), ("4".into(), Source::Database));
    assert_eq!(option(&server, Key::PathToPublish).1, Source::Database);
    assert_eq!(source(&page, "path_to_publish"), "database");
    assert_eq!(page.text("#server-state .pill.good"), "reachable", "S-64");
    // S-51: every save counts, also one that changes nothing.
    let first: i64 = value(&server, Key::ConfigTimestamp).parse().unwrap();
    assert!(first > 0);
    save(&page);
    let second: i64 = value(&server, Key::ConfigTimestamp).parse().unwrap();
    assert!(second > first);
    // S-35.
    page.click("#defaults");
    assert!(page.holds("document.querySelector('#defaults-dialog').open"));
    page.key("Escape");
    page.until("!document.querySelector('#defaults-dialog').open");
    page.click("#defaults");
    page.follow("#defaults-dialog button.danger");
    assert_eq!(option(&server, Key::PathToPublish).1, Source::BuiltIn);
    assert_eq!(value(&server, Key::Nginx), "N");
    let third: i64 = value(&server, Key::ConfigTimestamp).parse().unwrap();
    assert!(third > second);
    assert_eq!(page.value("#signature_key"), generated, "the key of the first start is back");
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn s_052_s_053_s_055_wrong_values_are_refused_beside_their_fields() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start(&[GENERATED_KEY]);
    page.enter("#push_server_mode", "personal");
    page.click("#push");
    for (field, bad, words) in [
        ("path_to_publish", "127.0.0.1/pub/", "begins with http://"),
        ("path_to_websocket", "http://a/", "begins with ws://"),
        ("push_message_per_hit", "10001", "from 0 to 10000"),
    ] {
        let good = page.value(&format!("#{field}"));
        page.enter(&format!("#{field}"), bad);
        let error = format!("#{field}-error");
        assert!(page.text(&error).contains(words), "live: {field}");
        page.click("button[value=Save]");
        assert_eq!(page.path(), "/admin/settings", "the script does not send it");
        // The server does not trust the script.
        page.leave("HTMLFormElement.prototype.submit.call(document.querySelector('#settings'))");
        assert!(page.is_visible(".notice.bad"), "{field}");
        assert!(page.text(&error).contains(words), "from the server: {field}");
        assert_eq!(page.value(&format!("#{field}")), bad, "what was entered stays");
        page.enter(&format!("#{field}"), &good);
    }
    assert_eq!(value(&server, Key::Nginx), "N", "nothing was saved");
    // S-53.
    page.enter("#signature_key", "");
    page.click("button[value=Save]");
    assert_eq!(value(&server, Key::Nginx), "N");
    assert!(page.is_visible("#key-confirm") && page.is_visible("#signature_key-missing"));
    page.leave("HTMLFormElement.prototype.submit.call(document.querySelector('#settings'))");
    assert!(page.text("#signature_key-error").contains("need a key"));
    page.enter("#signature_key", "short");
    assert!(page.text("#key-strength").starts_with("weak"));
    page.click("#key-generate");
    let made = page.value("#signature_key");
    assert!(made.len() == 64 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    assert_eq!(page.text("#key-strength"), "strong key");
    save(&page);
    assert_eq!(value(&server, Key::SignatureKey), made);
    page.enter("#signature_key", "short but there");
    save(&page);
    assert!(page.text(".notice.warning").contains("weak key"));
    page.enter("#signature_key", "");
    page.click("#key-confirm input");
    save(&page);
    assert!(page.text(".notice.warning").contains("without a key"));
    assert_eq!(option(&server, Key::SignatureKey), (String::new(), Source::Database));
    // An empty path goes back to the default.
    page.enter("#path_to_publish", "http://192.0.2.1/pub/");
    page.click("#key-generate");
    save(&page);
    assert_eq!(option(&server, Key::PathToPublish).1, Source::Database);
    page.enter("#path_to_publish", "");
    save(&page);
    assert_eq!(option(&server, Key::PathToPublish).1, Source::BuiltIn);
}

#[test]
fn s_011_s_018_s_060_only_who_may_write_changes_anything_and_it_is_written_down() {
    if !slow() {
        return;
    }
    let (server, browser, page) = start(&[GENERATED_KEY]);
    page.enter("#push_server_mode", "personal");
    page.click("#key-generate");
    save(&page);
    let key = value(&server, Key::SignatureKey);
    let entries = audit(&server);
    let of_key = entries.iter().find(|it| it.name == "signature_key").unwrap();
    assert_eq!((&*of_key.login, &*of_key.new), ("tester-w", "•••••• (64)"));
    assert!(!format!("{entries:?}").contains(&key), "the key is masked");
    assert!(entries.iter().any(|it| it.name == "nginx" && it.old == "N" && it.new == "Y"));

    let reader = signed_in(&browser, &server, "R", "/admin/settings", "en");
    for control in ["button[value=Save]", "#defaults", "#path_to_publish", "#push_server_mode"] {
        assert!(reader.is_disabled(control), "{control}");
    }
    assert!(!reader.holds("document.querySelector('button[value=Register]')"), "S-11");
    let text = reader.text_of("document.documentElement.outerHTML");
    assert!(!text.contains(&key), "a reader does not see the key");
    let forged = |page: &Page, address: &str, form_key: &str| {
        let script = format!(
            "return (await fetch('{address}', {{ method: 'POST', redirect: 'manual',
                body: new URLSearchParams({{ form_key: {form_key}, push_server_mode: 'N', push_message_per_hit: '1' }}) }})).status"
        );
        page.run(&script)
    };
    let own = "document.body.dataset.formKey";
    for address in ["/admin/settings", "/admin/settings/defaults"] {
        assert_eq!(forged(&reader, address, own), json!(403), "{address}: right R");
        assert_eq!(forged(&page, address, "'0'.repeat(64)"), json!(403), "{address}: foreign form");
    }
    assert_eq!(value(&server, Key::Nginx), "Y", "nothing was changed");
}

#[test]
fn a_key_of_the_configuration_is_shown_as_pinned() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start(&[]);
    page.enter("#push_server_mode", "personal");
    assert!(page.is_disabled("#signature_key"));
    assert_eq!(page.text("[data-source=signature_key]"), "set in the configuration of the server");
    save(&page);
    assert_eq!(
        option(&server, Key::SignatureKey).1,
        Source::BuiltIn,
        "the database knows nothing of it"
    );
}

#[test]
fn two_browsers_at_once_do_not_lose_what_the_other_has_saved() {
    if !slow() {
        return;
    }
    let (server, browser, first) = start(&[GENERATED_KEY]);
    populate(&server);
    let second = browser.page(server.address());
    second.go("/admin/login?lang=ru");
    administrator(&server, "second", "W");
    sign_in(&second, "second", PASSWORD);
    second.go("/admin/settings");
    first.enter("#push_server_mode", "personal");
    first.enter("#path_to_publish", "http://192.0.2.1/pub/");
    save(&first);
    // The second has still the old page, changes something else and saves it.
    second.click("#push");
    second.enter("#push_server_mode", "personal");
    save(&second);
    assert_eq!(value(&server, Key::Push), "Y");
    first.go("/admin/settings");
    assert!(first.holds("document.querySelector('#push').checked"), "the first sees it at once");
    let logins: Vec<_> = audit(&server).into_iter().map(|it| it.login).collect();
    assert!(logins.contains(&"tester-w".to_owned()) && logins.contains(&"second".to_owned()));
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_form_costs_nothing_that_was_entered() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start(&[GENERATED_KEY]);
    page.enter("#push_server_mode", "personal");
    page.enter("#path_to_publish", "http://192.0.2.7/pub/");
    with_tenant(&server, async |tenant| {
        // What the clock does after hours.
        let access = vestnik_service::administrator::Access::Write;
        tenant.service().save_administrator("tester-w", PASSWORD, access).await.unwrap();
    });
    save(&page);
    assert!(page.text(".notice").contains("session has ended"), "{}", page.path());
    sign_in(&page, "tester-w", PASSWORD);
    assert!(page.text(".notice.warning").contains("not saved yet"));
    assert_eq!(page.value("#path_to_publish"), "http://192.0.2.7/pub/");
    assert_eq!(page.value("#push_server_mode"), "personal");
    assert_eq!(value(&server, Key::Nginx), "N");
    save(&page);
    assert_eq!(value(&server, Key::PathToPublish), "http://192.0.2.7/pub/");
}

#[test]
fn a_changed_key_counts_for_the_server_at_once_and_after_a_restart_and_a_reload() {
    let server = TestServer::with_module(&[GENERATED_KEY]);
    module::ready(&server);
    let signed = |key: &str| {
        let key = vestnik_core::sign::Key::new(
            vestnik_core::Secret::new(key.to_owned()),
            vestnik_core::sign::Algorithm::Sha1,
            None,
        );
        let id = "0123456789abcdef0123456789abcdef";
        format!("{id}.{}", key.sign(&[id.as_bytes()]))
    };
    // A handshake that is refused says so at once; one that is good is answered with 101.
    let opens = |server: &TestServer, key: &str| {
        let request = format!(
            "GET /bitrix/subws/?CHANNEL_ID={} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            signed(key)
        );
        crate::raw::exchange(server.address(), request).status == 101
    };
    let generated = std::fs::read_to_string(server.data().join("signature.key")).unwrap();
    let (generated, new) = (generated.trim().to_owned(), "k".repeat(20) + "0123456789abcdef");
    assert!(opens(&server, &generated) && !opens(&server, &new));
    crate::settings_rows::set(&server, &[&format!("signature_key={new}")]);
    crate::observe::until("the key of the page is in force", || opens(&server, &new));
    assert!(opens(&server, &generated), "the generated one stays valid beside it");
    server.signal("HUP");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(opens(&server, &new), "a reload leaves it in force");
    let server = server.stop_and_restart();
    crate::observe::until("after a restart, too", || opens(&server, &new));
}

#[test]
fn pages_can_be_used_by_everybody_at_every_size() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start(&[GENERATED_KEY]);
    populate(&server);
    for language in ["en", "ru"] {
        for scheme in ["light", "dark"] {
            for width in [1440, 1024, 390] {
                page.look(width, scheme);
                page.go(&format!("/admin/settings?lang={language}"));
                page.enter("#push_server_mode", "personal");
                page.click("#outdated-card summary");
                let overflow = page.run("return document.documentElement.scrollWidth - innerWidth");
                assert!(overflow.as_i64().unwrap() <= 0, "{width}: {overflow} pixels too wide");
                page.screenshot(&format!("settings-{language}-{scheme}-{width}"));
            }
            page.is_accessible();
            page.enter("#push_server_mode", "shared");
            page.is_accessible();
        }
    }
    // By keys alone: the first stop skips the menu, and every control has a name.
    page.go("/admin/settings?lang=en");
    page.key("Tab");
    assert_eq!(page.text_of("document.activeElement.className"), "skip");
    assert_eq!(page.complaints(), Vec::<String>::new());
}
