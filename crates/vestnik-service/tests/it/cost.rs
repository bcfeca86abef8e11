//! What calls cost: a configuration comes from memory. The figure is printed, not judged: the test runs
//! on slow machines too.

use std::time::Instant;

use vestnik_service::config::ConfigRequest;

use crate::fixture::Fixture;

#[tokio::test]
async fn a_configuration_is_put_together_from_memory() {
    const CALLS: u32 = 2000;
    let fixture = Fixture::example("5").await;
    let request = ConfigRequest { user: 1, host: "example.test", ..ConfigRequest::default() };
    drop(fixture.tenant.client_config(&request).await.unwrap());
    // Without its database it still answers: nothing of it is read each time.
    fixture.service.database().close().await;
    let begin = Instant::now();
    for _ in 0..CALLS {
        assert!(fixture.tenant.client_config(&request).await.unwrap().to_json().len() > 1000);
    }
    println!("time of a configuration: {:?}", begin.elapsed() / CALLS);
}

#[tokio::test]
async fn who_the_first_tenant_is_comes_from_memory() {
    let fixture = Fixture::example("5").await;
    let tenant = fixture.service.default_tenant().await.unwrap();
    // Every signed call asks; without its database it still answers.
    fixture.service.database().close().await;
    let again = fixture.service.default_tenant().await.unwrap();
    assert_eq!((again.id(), again.host_id()), (1, tenant.host_id()));
}

#[tokio::test]
async fn an_event_is_addressed_from_memory() {
    use crate::rest::{Stage, call};
    let fixture = Fixture::example("4").await;
    let stage = Stage::default();
    for (users, calls) in [(1, 2000), (1000, 50)] {
        let list: Vec<i64> = (1..=users).collect();
        let event = serde_json::json!({"recipients": {"users": list}, "module_id": "im",
            "command": "message", "params": {"id": 7, "text": "x".repeat(100)}});
        // The channels are made, and then remembered.
        call(&fixture, &stage, "pull.event.add", event.clone()).await.unwrap();
        let begin = Instant::now();
        for _ in 0..calls {
            call(&fixture, &stage, "pull.event.add", event.clone()).await.unwrap();
        }
        println!("time of an event to {users} users: {:?}", begin.elapsed() / calls);
    }
    let ask = serde_json::json!({"USER_ID": 1, "HOST": "example.test"});
    let begin = Instant::now();
    for _ in 0..2000 {
        call(&fixture, &stage, "pull.config.get", ask.clone()).await.unwrap();
    }
    println!("time of pull.config.get: {:?}", begin.elapsed() / 2000);
}
