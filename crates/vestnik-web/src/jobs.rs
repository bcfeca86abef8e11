//! Runs what is due: clean-ups, users who stay online, events that wait, and what breakers say.

use std::sync::Arc;
use std::time::Duration;

use vestnik_publisher::BreakerEvent;
use vestnik_service::job::Job;
use vestnik_service::notification::SEND_STOPPED;
use vestnik_service::{DatabaseError, Service, ServiceError, Tenant};

use crate::publishing::{Breakers, Publishers};

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(10);
const STOPPED_TEXT: &str = "Sending to the queue server was stopped for two minutes after ten errors; events wait and are sent later. Check whether the server works.";

/// Does what is due, for ever.
pub(crate) async fn run(service: Service, publishers: Arc<Publishers>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        publishers.resume().await;
        for job in Job::ALL {
            match service.claim_job(job).await {
                Ok(false) => {}
                Ok(true) => {
                    let done = work(&service, &publishers, job).await;
                    if let Err(error) = service.plan_job(job, done).await {
                        tracing::warn!(%error, job = job.name(), "a job was not planned again");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, job = job.name(), "a job cannot be claimed");
                    break;
                }
            }
        }
    }
}

/// Does one job; how much it did. What fails is tried again at the next turn.
async fn work(service: &Service, publishers: &Publishers, job: Job) -> u64 {
    let failed = |error: &dyn std::error::Error| {
        tracing::warn!(%error, job = job.name(), "a job failed");
        0
    };
    match job {
        Job::Watches => service.clean_up_watches().await.unwrap_or_else(|error| failed(&error)),
        Job::Stack => service.clean_up_stack().await.unwrap_or_else(|error| failed(&error)),
        Job::Devices => service.clean_up_devices().await.unwrap_or_else(|error| failed(&error)),
        Job::PublicIds => service.add_public_ids().await.unwrap_or_else(|error| failed(&error)),
        Job::Channels | Job::OnlineChannels | Job::Pushes => {
            let host_ids = match job {
                Job::Pushes => with_pushes(service).await.map_err(ServiceError::from),
                _ => service.host_ids().await,
            };
            let host_ids = match host_ids {
                Ok(host_ids) => host_ids,
                Err(error) => return failed(&error),
            };
            let mut done = 0;
            for host_id in host_ids {
                let tenant = match service.tenant(&host_id).await {
                    Ok(Some(tenant)) => tenant,
                    Ok(None) => continue,
                    Err(error) => return failed(&error),
                };
                done += match job {
                    Job::Pushes => match tenant.send_deferred().await {
                        Ok(count) => count,
                        Err(error) => failed(&error),
                    },
                    Job::Channels => match tenant.clean_up_channels().await {
                        Ok(count) => count as u64,
                        Err(error) => failed(&error),
                    },
                    _ => keep_online(&tenant, publishers).await,
                };
            }
            done
        }
    }
}

/// Tenants whose notifications have waited long enough. What nobody sends any more is forgotten first.
async fn with_pushes(service: &Service) -> Result<Vec<String>, DatabaseError> {
    let expired = service.clean_up_push().await?;
    if expired > 0 {
        tracing::warn!(expired, "batches of notifications expired before the gateway took them");
    }
    service.tenants_with_deferred_push().await
}

/// Notes who is connected, and tells the back end.
async fn keep_online(tenant: &Tenant, publishers: &Publishers) -> u64 {
    let online = match publishers.of(tenant).await {
        Ok(server) => match tenant.refresh_online(&*server).await {
            Ok(online) => online,
            Err(error) => {
                tracing::warn!(%error, "who is connected is not known");
                return 0;
            }
        },
        Err(error) => {
            tracing::debug!(%error, "there is no queue server to ask who is connected");
            return 0;
        }
    };
    if !online.is_empty() {
        tenant.tell_last_activity(&online).await;
    }
    online.len() as u64
}

/// Writes down what breakers say, until no more can come.
pub(crate) async fn hear_breakers(service: Service, mut said: Breakers) {
    while let Some((host_id, event)) = said.recv().await {
        let tenant = match service.tenant(&host_id).await {
            Ok(Some(tenant)) => tenant,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "what a breaker says is not written down");
                continue;
            }
        };
        let written = match event {
            BreakerEvent::Opened => {
                tracing::error!("sending to a queue server is stopped after many errors");
                tenant.tell_administrator(SEND_STOPPED, STOPPED_TEXT).await;
                tenant.notify(SEND_STOPPED, STOPPED_TEXT).await
            }
            BreakerEvent::Closed => tenant.withdraw_notification(SEND_STOPPED).await,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "what a breaker says is not written down");
        }
    }
}
