//! Sites, dependent modules, tenants.

use vestnik_service::channel::ChannelKind;
use vestnik_service::option::Key;
use vestnik_service::site::{ModuleUse, Section, Site};

use crate::fixture::{Fixture, P};

fn module(id: &str, is_for_admin: bool, is_for_public: bool) -> ModuleUse {
    ModuleUse { module_id: id.into(), is_for_admin, is_for_public }
}

#[tokio::test]
async fn m_001_modules_register_and_the_last_word_of_each_counts() {
    let fixture = Fixture::new().await;
    let tenant = &fixture.tenant;
    assert!(!tenant.is_module_active("s1").await.unwrap());
    tenant.register_module(&module("im", false, true)).await.unwrap();
    tenant.register_module(&module("mobileapp", true, false)).await.unwrap();
    tenant.register_module(&module("im", false, false)).await.unwrap();
    let modules = tenant.dependent_modules().await.unwrap();
    assert_eq!(*modules, [module("im", false, false), module("mobileapp", true, false)]);
    assert!(tenant.needs_client("s1", Section::Admin).await.unwrap());
    assert!(!tenant.needs_client("s1", Section::Public).await.unwrap());
    assert!(tenant.is_module_active("s1").await.unwrap());
    tenant.unregister_module("mobileapp").await.unwrap();
    assert!(!tenant.is_module_active("s1").await.unwrap());
}

#[tokio::test]
async fn m_002_an_excluded_site_does_not_start_the_client_and_loses_nothing_else() {
    let fixture = Fixture::example("4").await;
    let tenant = &fixture.tenant;
    tenant.register_module(&module("im", true, true)).await.unwrap();
    fixture.set(&[(Key::ExcludeSites, r#"a:1:{s:2:"s2";s:2:"s2";}"#)]).await;
    assert!(tenant.needs_client("s1", Section::Public).await.unwrap());
    assert!(!tenant.needs_client("s2", Section::Public).await.unwrap());
    assert!(!tenant.is_module_active("s2").await.unwrap());
    let channel = tenant.channel(1, &ChannelKind::Private).await.unwrap();
    assert_eq!(channel.id.to_string(), P);
}

#[tokio::test]
async fn sites_are_kept_in_order_and_give_their_host_name_to_configurations() {
    let fixture = Fixture::example("4").await;
    let tenant = &fixture.tenant;
    let site = |id: &str, host: &str| Site {
        id: id.into(),
        name: format!("site {id}"),
        server_name: host.into(),
        is_active: true,
    };
    tenant.save_site(&site("s2", "two.test")).await.unwrap();
    tenant.save_site(&site("s1", "old.test")).await.unwrap();
    tenant.save_site(&site("s1", "one.test")).await.unwrap();
    assert_eq!(tenant.sites().await.unwrap(), [site("s2", "two.test"), site("s1", "one.test")]);
    let request =
        vestnik_service::config::ConfigRequest { user: 1, site: "s1", ..Default::default() };
    let json = tenant.client_config(&request).await.unwrap().to_json();
    assert!(json.contains(r#""hostname":"one.test","long_polling":"http://one.test/bitrix/sub/""#));
    tenant.delete_site("s2").await.unwrap();
    assert_eq!(tenant.sites().await.unwrap().len(), 1);
}

#[tokio::test]
async fn m_095_tenants_share_nothing() {
    let fixture = Fixture::example("4").await;
    let other = fixture.service.create_tenant("other", "another site").await.unwrap();
    assert!(!other.options("").await.unwrap().is_server_on());
    other.set_options("", &[(Key::Nginx, Some("Y"))]).await.unwrap();
    let theirs = other.channel(1, &ChannelKind::Private).await.unwrap();
    let ours = fixture.tenant.channel(1, &ChannelKind::Private).await.unwrap();
    assert_ne!(theirs.id, ours.id);
    assert!(!other.delete_channel(ours.id).await.unwrap());
    assert_ne!(other.tag_channel("t").id, fixture.tenant.tag_channel("t").id);
    other.register_module(&module("im", true, true)).await.unwrap();
    assert!(!fixture.tenant.is_module_active("").await.unwrap());
}
