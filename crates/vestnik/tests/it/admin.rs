//! Who gets into the pages of administrators, and how the pages behave as a whole.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::browser::{Browser, Page, quoted};
use crate::clients::slow;
use crate::module;
use crate::raw;
use crate::server::TestServer;

/// The password that tests give.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A setting that says nothing: with it a test server makes a key of its own, which the page may change.
pub(crate) const GENERATED_KEY: &str = "security.algorithm=sha1";

/// Runs a command on the data of a server.
pub(crate) fn command(server: &TestServer, words: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
    // The key of the tests is a published one, and the command listens at no loopback address.
    command.args(words).arg("--allow-weak-key").arg("--data-dir").arg(server.data());
    for setting in server.settings() {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is built");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that reads nothing may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Gives an administrator the password of the tests.
pub(crate) fn administrator(server: &TestServer, login: &str, access: &str) {
    let words = ["admin", "password", login, "--access", access, "--stdin"];
    let output = command(server, &words, PASSWORD);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Signs in on the page that asks for it.
pub(crate) fn sign_in(page: &Page, login: &str, password: &str) {
    page.leave(&format!(
        "document.querySelector('[name=login]').value = {};
         document.querySelector('[name=password]').value = {};
         document.querySelector('button.primary').click()",
        quoted(login),
        quoted(password)
    ));
}

/// A page of an administrator with this right, at `path`, in this language.
pub(crate) fn signed_in(
    browser: &Browser,
    server: &TestServer,
    access: &str,
    path: &str,
    language: &str,
) -> Page {
    module::ready(server);
    let login = format!("tester-{}", access.to_lowercase());
    administrator(server, &login, access);
    let page = browser.page(server.address());
    page.go(&format!("/admin/login?lang={language}"));
    sign_in(&page, &login, PASSWORD);
    page.go(path);
    page
}

#[test]
fn the_first_password_is_printed_once_and_opens_the_pages() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let read_until = |child: &mut std::process::Child, mark: &str| {
        use std::io::BufRead as _;
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        for line in lines.map_while(Result::ok) {
            text += &line;
            text.push('\n');
            if line.contains(mark) {
                break;
            }
        }
        text
    };
    let mut child = start();
    let text = read_until(&mut child, "shown once");
    let password = text.lines().find_map(|line| line.trim().strip_prefix("password"));
    let password = password.expect("it is printed").trim().to_owned();
    let page = text.lines().find_map(|line| line.split_once("dashboard: http://"));
    let (address, _) = page.expect("the page is named").1.split_once('/').unwrap();
    let body = format!("login=admin&password={password}");
    let form = &["Content-Type: application/x-www-form-urlencoded"];
    let answer = raw::post(address.parse().unwrap(), "/admin/login", form, body.as_bytes());
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("Set-Cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/admin/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "the line is not encrypted: {cookie}");
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&password), "it is in no log");
    // A second start prints none: what would be its mark comes never, so the summary is read to its end.
    let mut again = start();
    let text = read_until(&mut again, "Try it:");
    again.kill().unwrap();
    again.wait().unwrap();
    assert!(!text.contains("password"), "{text}");
}

#[test]
fn wrong_passwords_are_refused_and_soon_not_even_tried() {
    let server = TestServer::with_module(&[]);
    module::ready(&server);
    administrator(&server, "somebody", "W");
    let form = &["Content-Type: application/x-www-form-urlencoded"];
    let try_in =
        |body: &str| raw::post(server.address(), "/admin/login", form, body.as_bytes()).status;
    assert_eq!(try_in("login=somebody&password=wrong"), 401);
    assert_eq!(try_in("login=nobody&password=wrong"), 401);
    let good = format!("login=somebody&password={}", PASSWORD.replace(' ', "+"));
    assert_eq!(try_in(&good), 303, "a right one clears what was counted");
    for _ in 0..10 {
        assert_eq!(try_in("login=somebody&password=wrong"), 401);
    }
    assert_eq!(try_in(&good), 429);
    let foreign = &[form[0], "Sec-Fetch-Site: cross-site"];
    let answer = raw::post(server.address(), "/admin/login", foreign, good.as_bytes());
    assert_eq!(answer.status, 403);
}

#[test]
fn the_root_leads_to_the_pages_and_they_ask_who_you_are() {
    let server = TestServer::with_module(&[]);
    module::ready(&server);
    let root = raw::get(server.address(), "/");
    assert_eq!((root.status, root.header("Location")), (302, Some("/admin/")));
    let page = raw::get(server.address(), "/admin/settings");
    assert_eq!(page.status, 303);
    assert_eq!(page.header("Location"), Some("/admin/login?next=%2Fadmin%2Fsettings"));
    let sign_in = raw::get(server.address(), "/admin/login");
    let policy = sign_in.header("Content-Security-Policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(sign_in.header("Cache-Control"), Some("no-store"));
    assert!(!sign_in.text().contains("<style") && !sign_in.text().contains(" style="));
}

#[test]
fn a_known_proxy_says_who_asks_and_nobody_else_does() {
    let header = "X-Remote-User: boss";
    let server = TestServer::with_module(&["admin.proxy_user_header=X-Remote-User"]);
    module::ready(&server);
    let refused = raw::get_with(server.address(), "/admin/settings", &[header]);
    assert_eq!(refused.status, 403, "there is no such administrator");
    administrator(&server, "boss", "R");
    let answer = raw::get_with(server.address(), "/admin/settings", &[header]);
    assert_eq!(answer.status, 200, "the loopback is a known proxy");
    assert!(answer.text().contains("boss"));
    let strict = TestServer::with_module(&[
        "admin.proxy_user_header=X-Remote-User",
        "trusted.proxies=192.0.2.1",
    ]);
    module::ready(&strict);
    administrator(&strict, "boss", "W");
    let answer = raw::get_with(strict.address(), "/admin/settings", &[header]);
    assert_eq!(answer.status, 303, "anybody could send the header");
}

#[test]
fn administrators_are_kept_on_the_command_line() {
    let server = TestServer::with_module(&[]);
    module::ready(&server);
    administrator(&server, "reader", "R");
    let run = |words: &[&str]| command(&server, words, "");
    let list = String::from_utf8(run(&["admin", "list"]).stdout).unwrap();
    assert!(list.contains("R  reader") && list.contains("W  admin"), "{list}");
    let last = run(&["admin", "remove", "admin"]);
    let said = String::from_utf8_lossy(&last.stderr).into_owned();
    assert!(!last.status.success() && said.contains("last administrator"), "{said}");
    assert!(run(&["admin", "remove", "reader"]).status.success());
    let made = String::from_utf8(run(&["admin", "password", "reader"]).stdout).unwrap();
    assert!(made.contains("password  ") && made.contains("right     W"), "{made}");
    let short = command(&server, &["admin", "password", "reader", "--stdin"], "short");
    assert!(String::from_utf8_lossy(&short.stderr).contains("a password has"));
}

#[test]
fn options_are_kept_on_the_command_line_by_the_rules_of_the_page() {
    let server = TestServer::with_module(&[GENERATED_KEY]);
    module::without_queue_server(&server);
    let run = |words: &[&str]| command(&server, words, "");
    let text = |words: &[&str]| String::from_utf8(run(words).stdout).unwrap();
    let key = "0123456789abcdef0123456789abcdef";
    let set = text(&["options", "set", "nginx=Y", &format!("signature_key={key}")]);
    assert!(set.contains("changed: nginx, signature_key") && set.contains("5 seconds"), "{set}");
    let get = text(&["options", "get", "nginx", "signature_key", "push"]);
    assert_eq!(
        get,
        "nginx = Y  # database\nsignature_key = •••••• (32)  # database\npush = N  # built-in\n"
    );
    let refused = run(&["options", "set", "signature_key=", "path_to_publish=x"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("signature_key must not be empty") && said.contains("path_to_publish takes"),
        "{said}"
    );
    let unknown = run(&["options", "get", "nginx_verson"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean `nginx_version`?"));
    assert!(text(&["options", "defaults"]).contains("changed: "));
    assert!(text(&["options", "get", "nginx"]).starts_with("nginx = N  # built-in"));
}

#[test]
fn languages_and_colours_are_chosen_and_kept() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[]), Browser::start());
    let page = signed_in(&browser, &server, "W", "/admin/settings", "ru");
    assert_eq!(page.text("h1"), "Настройка параметров модуля");
    page.follow("a[hreflang=en]");
    assert_eq!(page.text("h1"), "Module Settings");
    page.go("/admin/settings");
    assert_eq!(page.text("h1"), "Module Settings", "it is kept");
    let background = || page.text_of("getComputedStyle(document.body).backgroundColor");
    page.look(0, "light");
    let light = background();
    page.look(0, "dark");
    let dark = background();
    assert_ne!(light, dark, "the system's choice");
    page.click("[data-theme-choice=light]");
    assert_eq!(background(), light);
    page.go("/admin/settings");
    assert_eq!(background(), light, "it is kept");
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn a_session_ends_by_signing_out_and_its_cookie_is_of_no_more_use() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[]), Browser::start());
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    let cookies = page.cookies();
    let session = cookies.iter().find(|it| it["name"] == "vestnik_session").unwrap();
    assert_eq!((&session["httpOnly"], &session["sameSite"]), (&json!(true), &json!("Strict")));
    let kept = format!("Cookie: vestnik_session={}", session["value"].as_str().unwrap());
    let with_cookie = || raw::get_with(server.address(), "/admin/settings", &[&kept]).status;
    assert_eq!(with_cookie(), 200);
    page.follow(".who button");
    assert!(page.path().starts_with("/admin/login"));
    assert_eq!(with_cookie(), 303);
}
