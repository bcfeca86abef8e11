//! The rows of the settings page: their words in both languages, and when each can be used
//! (settings-page.md §2, §3).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use crate::admin::{GENERATED_KEY, command, signed_in};
use crate::browser::{Browser, Page, quoted};
use crate::clients::slow;
use crate::server::TestServer;

/// Makes a site and a module, as a back end would, in the database of the server.
pub(crate) fn with_tenant<T>(
    server: &TestServer,
    act: impl AsyncFnOnce(vestnik_service::Tenant) -> T,
) -> T {
    let address = format!("sqlite:{}", server.data().join("module.db").display());
    let options = vestnik_service::DatabaseOptions::new(address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = vestnik_core::Clock::System;
        let (service, _notices) = vestnik_service::Service::open(&options, clock).await.unwrap();
        let done = act(service.default_tenant().await.unwrap()).await;
        service.database().close().await;
        done
    })
}

fn site(id: &str) -> vestnik_service::site::Site {
    vestnik_service::site::Site {
        id: id.to_owned(),
        name: format!("Site {id}"),
        server_name: format!("{id}.example.test"),
        is_active: true,
    }
}

/// Two sites and two modules that want push.
pub(crate) fn populate(server: &TestServer) {
    with_tenant(server, async |tenant| {
        for id in ["s1", "s2"] {
            tenant.save_site(&site(id)).await.unwrap();
        }
        for module_id in ["im", "tasks"] {
            let module = vestnik_service::site::ModuleUse {
                module_id: module_id.to_owned(),
                is_for_admin: false,
                is_for_public: true,
            };
            tenant.register_module(&module).await.unwrap();
        }
    });
}

/// Sets options as the command line does.
pub(crate) fn set(server: &TestServer, options: &[&str]) {
    let words = [&["options", "set", "--allow-empty-key"], options].concat();
    let output = command(server, &words, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Words of the documentation page: English, Russian.
const WORDS: [(&str, &str); 42] = [
    ("Module status", "Состояние модуля"),
    ("Active", "Активен"),
    ("Use modules", "Используют модули"),
    (
        "Send PUSH notifications to mobile devices",
        "Отправлять PUSH уведомления на мобильные телефоны",
    ),
    (
        "Maximum number of push notifications to send simultaneously",
        "Максимальное количество push-уведомлений в пакете при отправке",
    ),
    ("Enable module for anonymous users", "Включить модуль для не авторизованных пользователей"),
    ("Use Push server", "Использовать \"Push server\""),
    ("(don't use)", "(не использовать)"),
    ("Use Bitrix cloud server", "Использовать облачный сервер \"1С-Битрикс\""),
    ("Use local server", "Использовать сервер, установленный локально"),
    (
        "Bitrix24 requires the Bitrix cloud server, or an installed and properly configured local server.",
        "Для корректной работы Bitrix24 необходимо либо установить и настроить сервер локально, либо воспользоваться облачным сервером 1С-Битрикс",
    ),
    ("Register on cloud server", "Регистрация на облачном сервере"),
    ("Inactive", "Неактивна"),
    ("Register on server", "Зарегистрироваться на сервере"),
    ("(auto select server)", "(автоматический выбор сервера)"),
    (
        "Note: a valid license is required to use cloud servers.",
        "Обратите внимание, для работы с облачным сервером требуется активная лицензия",
    ),
    ("Server software", "На сервер установлена"),
    (
        "Virtual Appliance 7.3 - 7.5 (Bitrix Push server 2.0)",
        "Виртуальная машина 7.3 - 7.5 (Bitrix Push server 2.0)",
    ),
    (
        "Bitrix Virtual Appliance 7.6 and later (Bitrix Push server 3.0)",
        "Виртуальная машина 7.6 и новее (Bitrix Push server 3.0)",
    ),
    ("(Bitrix Push server 1.0)", "Виртуальная машина 7.1 - 7.2 (Bitrix Push server 1.0)"),
    (
        "(nginx-push-stream-module 0.4.0)",
        "Виртуальная машина 4.4 и выше (nginx-push-stream-module 0.4.0)",
    ),
    (
        "(nginx-push-stream-module 0.3.4)",
        "Виртуальная машина 4.2 - 4.3 (nginx-push-stream-module 0.3.4)",
    ),
    (
        "Server versions below 2.0 are no longer supported.",
        "Версии сервера ниже 2.0 больше не поддерживаются. Используйте Bitrix Push server 2.0 и выше или подключите облачный сервер. Подробнее.",
    ),
    ("Server command publish URL", "Настройка адреса для публикации команд со стороны сервера"),
    ("Message sender path", "Путь для публикации команд"),
    ("Path for executing JSON-RPC queries", "Путь для выполнение JSON-RPC запросов"),
    ("Signature code for server interaction", "Код-подпись для взаимодействия с сервером"),
    (
        "Signature key is required to negotiate with server.",
        "Необходимо задать код-подпись для взаимодействия с сервером.",
    ),
    ("Client command publish URL", "Настройка адреса для публикации команд со стороны клиента"),
    ("Command publish URL (HTTP)", "Путь для публикации команд (HTTP)"),
    ("Command publish URL (HTTPS)", "Путь для публикации команд (HTTPS)"),
    (
        "This setting will be used with browsers lacking WebSocket support.",
        "Настройка будет использована браузерами без поддержки WebSocket.",
    ),
    ("Command reading URL for modern browsers", "Настройка адреса чтения команд для браузеров"),
    ("Message listener path (HTTP)", "Путь для чтения команд (HTTP)"),
    ("Message listener path (HTTPS)", "Путь для чтения команд (HTTPS)"),
    (
        "Command reading URL for Web Socket enabled browsers",
        "Настройка адреса чтения команд для браузеров с поддержкой WebSocket",
    ),
    ("Enable WebSocket", "Включить поддержку WebSocket"),
    ("WebSocket message listener path (HTTP)", "Путь для чтения команд через WebSocket (HTTP)"),
    (
        "This configuration is for all modern browsers. Long pooling will be used for earlier versions.",
        "Настройка будет использована всеми современными браузерами, для более ранних версий будет использована технология Long pooling.",
    ),
    ("Exclude sites", "Блокировка работы с модулем на определенных сайтах"),
    ("Don't use the module on websites", "Не использовать модуль на сайтах"),
    (
        "Maximum number of commands to send while connected to server",
        "Максимальное кол-во отправленных команд за одно подключение к серверу",
    ),
];

#[test]
#[rustfmt::skip]
fn s_001_s_002_s_014_s_015_s_020_s_023_s_026_s_030_s_036_s_037_s_046_s_061_the_rows_have_the_words_of_the_documentation() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[]), Browser::start());
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    assert_eq!(page.text("#module-status .pill"), "Inactive");
    assert!(!page.holds("document.querySelector('#used-by')"), "S-02 only when active");
    let server = TestServer::with_module(&[]);
    crate::module::ready(&server);
    populate(&server);
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    for language in ["en", "ru"] {
        page.go(&format!("/admin/settings?lang={language}"));
        assert_eq!(page.text("#used-by"), "im, tasks", "ids, in the order they registered");
        let all = page.text_of("document.body.textContent.replace(/\\s+/g, ' ')");
        for (english, russian) in WORDS {
            let wanted = if language == "en" { english } else { russian };
            assert!(all.contains(wanted), "{language}: {wanted}");
        }
    }
    let course = "document.querySelector('#documentation').href";
    assert!(page.text_of(course).contains("COURSE_ID=41&LESSON_ID=2033"), "S-36");
    assert!(page.text_of("document.querySelector('#outdated-note a').href").contains("LESSON_ID=21636"));
    assert!(page.text("#editions").contains("Стандарт, Старт"), "S-37");
    let label = |name: &str| page.text_of(&format!("document.querySelector('label[for={name}]').textContent"));
    assert_eq!(label("path_to_publish_web_secure"), "Путь для публикации команд (HTTPS)", "S-61");
    assert_eq!(page.complaints(), Vec::<String>::new());
}

fn choose(page: &Page, choice: &str) {
    page.enter("#push_server_mode", choice);
}

fn generation(page: &Page, number: u8) {
    page.click(&format!("[name=nginx_version][value='{number}']"));
}

/// `+` can be used, `-` cannot, for generations 1 to 5 as the page shows it after a click on each.
fn pattern(page: &Page, selector: &str) -> String {
    (1..=5)
        .map(|number| {
            generation(page, number);
            if page.is_disabled(selector) { '-' } else { '+' }
        })
        .collect()
}

const ENABLED: [(&str, &str); 12] = [
    ("#path_to_publish", "+++++"),
    ("#path_to_json_rpc", "+++-+"),
    ("#signature_key", "--+++"),
    ("#path_to_publish_web", "---++"),
    ("#path_to_publish_web_secure", "---++"),
    ("#path_to_modern_listener", "+++++"),
    ("#path_to_modern_listener_secure", "+++++"),
    ("#websocket", "-+---"),
    ("#path_to_websocket", "-++++"),
    ("#path_to_websocket_secure", "-++++"),
    ("#nginx_command_per_hit", "-+++-"),
    ("#nginx_headers", "++---"),
];

#[test]
#[rustfmt::skip]
fn s_013_s_016_s_017_s_018_s_021_s_022_s_024_s_025_s_027_s_028_s_029_s_039_s_044_s_047_s_048_server_and_script_agree_on_what_can_be_used() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[GENERATED_KEY]), Browser::start());
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    choose(&page, "personal");
    let offered = page.text_of("[...document.querySelectorAll('[name=nginx_version]')].map(it => it.value).join('')");
    assert_eq!(offered, "54321", "S-47: all five");
    for number in 1..=3 {
        let row = format!("document.querySelector('[name=nginx_version][value=\"{number}\"]').closest('label').textContent");
        assert!(page.text_of(&row).contains("outdated"), "{number}");
    }
    for (selector, expected) in ENABLED {
        assert_eq!(pattern(&page, selector), expected, "script: {selector}");
    }
    for (number, checked) in [(1, false), (3, true), (4, true), (5, true)] {
        generation(&page, number);
        assert_eq!(page.holds("document.querySelector('#websocket').checked"), checked, "S-27 {number}");
    }
    generation(&page, 2);
    page.run("const it = document.querySelector('#websocket'); if (it.checked) it.click()");
    assert!(page.is_disabled("#path_to_websocket"), "S-28 follows S-27");
    page.click("#websocket");
    assert!(!page.is_disabled("#path_to_websocket_secure"));
    // What the server renders for each stored generation.
    for number in 1..=5usize {
        set(&server, &["nginx=Y", &format!("nginx_version={number}"), "websocket=Y"]);
        page.until(&format!(
            "new DOMParser().parseFromString(await (await fetch('/admin/settings')).text(), 'text/html')
                .querySelector('[name=nginx_version][value=\"{number}\"]').hasAttribute('checked')"
        ));
        let states = page.text_of(&format!(
            "(parsed => {}.map(it => parsed.querySelector(it).hasAttribute('disabled') ? '-' : '+').join(''))(
                new DOMParser().parseFromString(await (await fetch('/admin/settings')).text(), 'text/html'))",
            serde_json::to_string(&ENABLED.map(|(selector, _)| selector)).unwrap()
        ));
        let expected: String = ENABLED.iter().map(|(_, it)| it.as_bytes()[number - 1] as char).collect();
        assert_eq!(states, expected, "server: generation {number}");
    }
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
#[rustfmt::skip]
fn s_003_s_004_s_005_s_006_s_007_s_019_s_031_s_038_s_040_s_041_s_042_s_043_s_045_s_056_blocks_follow_the_choice_of_the_server() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[GENERATED_KEY]), Browser::start());
    crate::module::without_queue_server(&server);
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    assert!(!page.holds("document.querySelector('#exclude-card')"), "no sites yet");
    populate(&server);
    page.go("/admin/settings");
    assert_eq!(page.value("#push_server_mode"), "N");
    for (choice, visible) in [
        ("N", "#pull_disabled"),
        ("shared", "#pull_cloud_settings"),
        ("personal", "#pull_local_settings"),
    ] {
        choose(&page, choice);
        for block in ["#pull_disabled", "#pull_cloud_settings", "#pull_local_settings"] {
            assert_eq!(page.is_visible(block), block == visible, "{choice}: {block}");
        }
        assert_eq!(page.is_visible("#exclude-card"), choice != "N", "S-56: {choice}");
        assert_eq!(page.is_visible("#outdated-card"), choice == "personal", "{choice}");
    }
    assert!(!page.is_disabled("#guest"), "S-05: a back end supplies guests");
    assert!(page.holds("document.querySelector('[data-field=guest] [title*=\"Web Analytics\"]')"));
    assert!(page.is_disabled("#push_message_per_hit"), "S-04 follows S-03");
    page.click("#push");
    assert!(!page.is_disabled("#push_message_per_hit"));
    assert_eq!(page.value("#push_message_per_hit"), "100");
    // S-19: on every key-up, for 4 and 5.
    page.enter("#signature_key", "");
    assert!(page.is_visible("#signature_key-missing"));
    generation(&page, 3);
    assert!(!page.is_visible("#signature_key-missing"));
    generation(&page, 5);
    assert!(page.is_visible("#signature_key-missing"));
    page.enter("#signature_key", "x");
    assert!(!page.is_visible("#signature_key-missing"));
    // S-38 to S-45: the rows of older pages.
    page.click("#outdated-card summary");
    for field in ["#path_to_listener", "#path_to_listener_secure", "#path_to_mobile_listener", "#path_to_mobile_listener_secure"] {
        assert!(page.is_visible(field) && !page.is_disabled(field), "{field}");
    }
    assert_eq!(page.value("#path_to_mobile_listener_secure"), "https://#DOMAIN#:8894/bitrix/sub/");
    assert!(page.holds("document.querySelector('#nginx').checked"), "S-38 follows S-06");
    generation(&page, 2);
    assert!(page.is_visible("[data-field=websocket] [data-when-generations='2']"), "S-45");
    assert_eq!(page.text("#exclude_sites label:nth-of-type(2)"), "Site s2 [s2]", "S-31");
}

#[test]
fn s_032_s_062_what_becomes_of_macros_is_shown_for_every_site() {
    if !slow() {
        return;
    }
    let (server, browser) = (TestServer::with_module(&[GENERATED_KEY]), Browser::start());
    crate::module::ready(&server);
    populate(&server);
    let page = signed_in(&browser, &server, "W", "/admin/settings", "en");
    choose(&page, "personal");
    assert!(page.text("#macros").contains("#DOMAIN#") && page.text("#macros").contains("#PORT#"));
    page.enter("#path_to_modern_listener", "http://#DOMAIN##PORT#/bitrix/sub/");
    let preview = "#path_to_modern_listener-preview";
    assert_eq!(
        page.text(preview),
        "http://s1.example.test/bitrix/sub/\nhttp://s2.example.test/bitrix/sub/"
    );
    generation(&page, 1);
    assert!(page.text(preview).starts_with("http://s1.example.test:8893/bitrix/sub/"));
    assert!(page.holds(&format!(
        "document.querySelector({}).children.length === 2",
        quoted("#path_to_publish-preview")
    )));
}
