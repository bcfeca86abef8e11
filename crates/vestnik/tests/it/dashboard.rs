//! The overview, the connections and the lists: what administrators see and do beside the settings.

use serde_json::json;

use crate::admin::{command, signed_in};
use crate::browser::{Browser, Page};
use crate::clients::slow;
use crate::raw;
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;

fn start(access: &str, path: &str) -> (TestServer, Browser, Page) {
    let (server, browser) = (TestServer::with_module(&[]), Browser::start());
    let page = signed_in(&browser, &server, access, path, "en");
    (server, browser, page)
}

#[test]
fn the_overview_shows_what_the_server_does() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start("R", "/admin/");
    page.until("document.querySelectorAll('.chart canvas').length === 4");
    let mut subscriber =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", Pair::new(7).signed()));
    let body = json!({"module_id": "im", "command": "hello", "params": {}}).to_string();
    for _ in 0..5 {
        let channel = Pair::new(7).private.to_string();
        assert_eq!(raw::publish(server.address(), &channel, 60, &body).status, 200);
    }
    subscriber.next_text();
    page.until("document.querySelector('#figure-connections').textContent === '1'");
    page.until("document.querySelector('#figure-latency-more').textContent.includes('ms') || document.querySelector('#figure-delivered-more').textContent === 'Σ 5'");
    page.until("document.querySelector('#figure-history').textContent === '5'");
    page.until("document.querySelector('#table-forms tbody').innerText.includes('WebSocket')");
    page.until("document.querySelector('#table-top tbody').innerText.includes('…')");
    page.until("document.querySelector('#table-nodes tbody').rows.length === 1");
    page.until("Number(document.body.dataset.samples) >= 3");
    assert!(page.text("#engine-health").contains("reachable"));
    let whole = Pair::new(7).private.to_string();
    assert!(!page.text_of("document.body.innerText").contains(&whole), "whole ids are passwords");
    // Somebody who reloads sees the same minutes.
    let before = page.run("return Number(document.body.dataset.samples)").as_u64().unwrap();
    page.go("/admin/");
    page.until(&format!("Number(document.body.dataset.samples) >= {before}"));
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn connections_are_found_told_something_and_closed() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start("W", "/admin/connections");
    let mut subscriber =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", Pair::new(7).signed()));
    let channel = Pair::new(7).private;
    let body =
        json!({"module_id": "im", "command": "secret", "params": {"text": "not to be seen"}})
            .to_string();
    assert_eq!(raw::publish(server.address(), &channel.to_string(), 60, &body).status, 200);
    assert!(subscriber.next_text().to_string().contains("not to be seen"));
    page.enter("[name=find]", &format!("{channel}.aabb"));
    page.follow("[role=search] button");
    assert!(page.text("#connections tbody").contains("127.0.0.1"));
    let sent = page.text("#sent tbody");
    assert!(sent.contains("im.secret") && sent.contains(&body.len().to_string()), "{sent}");
    assert!(
        !page.text_of("document.body.innerText").contains("not to be seen"),
        "bodies are private"
    );
    page.enter("[name=text]", "hello there");
    page.follow("[action='/admin/connections/send'] button");
    assert!(page.text(".notice").contains("was sent"));
    let heard = subscriber.next_text().to_string();
    assert!(heard.contains("hello there") && heard.contains("\"command\":\"test\""), "{heard}");
    page.follow("[action='/admin/connections/disconnect'] button");
    assert!(page.text(".notice").contains("was closed"));
    assert_eq!(subscriber.close_reason().0, 1001);
    page.go("/admin/connections?find=nobody");
    assert!(page.is_visible("[role=alert]"));
    page.is_accessible();
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn sites_modules_and_administrators_are_kept_and_every_deed_is_written_down() {
    if !slow() {
        return;
    }
    let (server, browser, page) = start("W", "/admin/sites");
    let form = |action: &str| format!("form[action='{action}']");
    page.enter(&format!("{} [name=id]", form("/admin/sites")), "s1");
    page.enter(&format!("{} [name=name]", form("/admin/sites")), "<b>Portal</b>");
    page.enter(&format!("{} [name=server_name]", form("/admin/sites")), "portal.example");
    page.follow(&format!("{} > button", form("/admin/sites")));
    assert!(page.text("#sites tbody").contains("<b>Portal</b>"), "as text, not as markup");
    page.enter(&format!("{} [name=id]", form("/admin/modules")), "im");
    page.follow(&format!("{} > button", form("/admin/modules")));
    assert!(page.text("#modules tbody").contains("im"));
    page.go("/admin/settings");
    assert_eq!(page.text("#module-status .pill"), "Active");
    page.go("/admin/sites");
    page.follow(&format!("#modules {} button", form("/admin/modules/delete")));
    assert!(!page.holds("document.querySelector('#modules')"));

    page.go("/admin/administrators");
    page.enter("form[action='/admin/administrators'] [name=login]", "alice");
    page.follow("form[action='/admin/administrators'] > button");
    let password = page.text("#new-password");
    let other = browser.page(server.address());
    other.go("/admin/login?lang=en");
    crate::admin::sign_in(&other, "alice", &password);
    other.go("/admin/sites");
    assert!(other.is_disabled("form[action='/admin/sites'] > button"), "she has the right R");
    page.go("/admin/administrators");
    page.leave("document.querySelector('[value=alice]').form.submit()");
    other.go("/admin/sites");
    assert!(other.path().starts_with("/admin/login"), "who is removed is signed out");
    assert!(!command(&server, &["admin", "list"], "").stdout.is_empty());

    page.go("/admin/secrets");
    page.enter("form[action='/admin/secrets'] [name=name]", "shop <1>");
    page.follow("form[action='/admin/secrets'] > button");
    let secret = page.text("#new-secret");
    assert!(page.text("#secrets tbody").contains("shop <1>"));
    let status = || {
        let none = serde_json::json!({});
        crate::module::call_with(&server, &secret, "pull.module.status", &none).status
    };
    assert_eq!(status(), 200, "a back end may call with it");
    page.go("/admin/secrets");
    assert!(!page.holds("document.querySelector('#new-secret')"), "it is shown once");
    page.follow("#secrets form[action='/admin/secrets/delete'] button");
    assert_eq!(status(), 401);

    page.go("/admin/audit");
    let log = page.text("#audit tbody");
    for deed in [
        "site.save",
        "module.save",
        "module.delete",
        "administrator.save",
        "administrator.delete",
        "secret.add",
        "secret.delete",
        "sign-in",
    ] {
        assert!(log.contains(deed), "{deed}: {log}");
    }
    page.go("/admin/tenants");
    assert!(page.text("#tenants tbody").contains("default"));
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn all_pages_can_be_used_by_everybody_at_every_size() {
    if !slow() {
        return;
    }
    let (server, _browser, page) = start("W", "/admin/");
    crate::settings_rows::populate(&server);
    let _subscriber =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", Pair::new(7).signed()));
    for (path, name) in [
        ("/admin/", "overview"),
        ("/admin/connections", "connections"),
        ("/admin/sites", "sites"),
        ("/admin/tenants", "tenants"),
        ("/admin/secrets", "secrets"),
        ("/admin/administrators", "administrators"),
        ("/admin/audit", "audit"),
    ] {
        for (language, scheme, width) in [
            ("en", "light", 1440),
            ("ru", "dark", 1440),
            ("ru", "light", 1024),
            ("en", "dark", 390),
            ("ru", "light", 390),
        ] {
            page.look(width, scheme);
            page.go(&format!("{path}?lang={language}"));
            if path == "/admin/" {
                page.until("Number(document.body.dataset.samples) >= 2");
            }
            let overflow = page.run("return document.documentElement.scrollWidth - innerWidth");
            assert!(overflow.as_i64().unwrap() <= 0, "{path} {width}: {overflow} pixels too wide");
            page.screenshot(&format!("{name}-{language}-{scheme}-{width}"));
            page.is_accessible();
        }
    }
    assert_eq!(page.complaints(), Vec::<String>::new());
}
