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
