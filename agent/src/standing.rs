//! How endpoints and the agent stand, written to the datastore in the form in which Felix writes it.
//!
//! OpenStack's plugin reads it: whether a port works, and whether a node's agent is alive.

pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use margay_model::status::{AgentReport, EndpointState, EndpointStatus};
use margay_model::{Key, Prefix};
use margay_store::{Batch, Condition, LeaseId, MAX_OPS, Op, Store, StoreError, Write};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use self::settings::StandingSettings;
use crate::identity;
use crate::metrics::Metrics;

/// What is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// How it is told.
    pub settings: StandingSettings,
    /// The state of each endpoint of the node, by the key of its status.
    pub endpoints: BTreeMap<Key, EndpointState>,
}

/// Writes it.
#[derive(Debug)]
pub struct Reporter<S> {
    /// The store.
    pub store: S,
    /// The node.
    pub node: String,
    /// What is to be told; `None` before the node has been looked at.
    pub standing: watch::Receiver<Option<Standing>>,
    /// Figures.
    pub metrics: Metrics,
}

/// What has been written.
#[derive(Debug)]
struct Written {
    begun: Instant,
    /// What the store has of endpoints; `None` where that has to be read.
    endpoints: Option<BTreeMap<Key, EndpointState>>,
    /// Whether there is none of the agent itself yet.
    first: bool,
    /// The lease of the agent's own, and for how long it is.
    lease: Option<(LeaseId, Duration)>,
}

impl<S: Store> Reporter<S> {
    /// Works until `stop` changes.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut written = Written {
            begun: Instant::now(),
            endpoints: None,
            first: true,
            lease: None,
        };
        let (mut write_at, mut report_at) = (None, None);
        let mut resync_at = Instant::now();
        loop {
            let told = self.standing.borrow().clone();
            let pause = told.as_ref().map(|told| told.settings.delay.max(LEAST));
            tokio::select! {
                _ = stop.changed() => return,
                changed = self.standing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = Instant::now();
                    let told = self.standing.borrow_and_update().clone();
                    let delay = told.as_ref().map(|told| told.settings.delay.max(LEAST));
                    // What flaps meanwhile is written once.
                    let soon = delay.map(|delay| now + delay);
                    write_at = match (write_at, soon) {
                        (Some(set), Some(soon)) => Some(soon.min(set)),
                        (set, soon) => set.or(soon),
                    };
                    let interval = told.and_then(|told| told.settings.interval);
                    report_at = interval.map(|interval| {
                        report_at.map_or(now, |at: Instant| at.min(now + interval))
                    });
                }
                () = at(write_at) => {
                    let (Some(told), Some(pause)) = (&told, pause) else {
                        continue;
                    };
                    let now = Instant::now();
                    if now >= resync_at {
                        written.endpoints = written.endpoints.take().filter(|_| !told.settings.endpoints);
                        resync_at = now + pause * RESYNC;
                    }
                    write_at = match self.write(told, &mut written).await {
                        Ok(true) if told.settings.endpoints => Some(resync_at),
                        Ok(true) => None,
                        Ok(false) => Some(Instant::now() + pause),
                        Err(failed) => {
                            self.refused("the status of endpoints", &failed);
                            // Some of it may have been written.
                            written.endpoints = None;
                            Some(Instant::now() + RETRY.max(pause))
                        }
                    };
                }
                () = at(report_at) => {
                    let Some((told, interval)) = told.as_ref().and_then(|told| Some((told, told.settings.interval?)))
                    else {
                        report_at = None;
                        continue;
                    };
                    if let Err(failed) = self.report(told, &mut written).await {
                        self.refused("the agent's own status", &failed);
                        written.lease = None;
                    }
                    report_at = Some(Instant::now() + interval);
                }
            }
        }
    }

    /// Brings the store nearer to what is to be told, by one commit; whether it tells that now.
    async fn write(&self, told: &Standing, written: &mut Written) -> Result<bool, StoreError> {
        let nothing = BTreeMap::new();
        let wanted = match told.settings.endpoints {
            true => &told.endpoints,
            false => &nothing,
        };
        let known = match (&mut written.endpoints, told.settings.endpoints) {
            (Some(known), _) => known,
            // What others have written is not ours to delete, unless we are asked to write.
            (None, false) => return Ok(true),
            (unknown, true) => unknown.insert(self.found(&told.settings.region).await?),
        };
        let keys: BTreeSet<Key> = known.keys().chain(wanted.keys()).cloned().collect();
        let mut differing = keys
            .into_iter()
            .filter(|key| known.get(key) != wanted.get(key));
        let some: Vec<Key> = differing.by_ref().take(MAX_OPS).collect();
        let all = differing.next().is_none();
        if some.is_empty() {
            return Ok(true);
        }
        let writes = some.iter().map(|key| Write {
            key: key.clone(),
            condition: Condition::Any,
            op: match wanted.get(key) {
                Some(state) => Op::Put(json(&EndpointStatus::new(state.clone())), None),
                None => Op::Delete,
            },
        });
        self.store.commit(&Batch::of(writes)).await?;
        self.metrics.standing_writes.inc_by(some.len() as u64);
        for key in some {
            match wanted.get(&key) {
                Some(state) => {
                    info!(%key, state = state.as_str(), "the status of an endpoint is written");
                    known.insert(key, state.clone());
                }
                None => {
                    info!(%key, "the status of an endpoint is removed");
                    known.remove(&key);
                }
            }
        }
        Ok(all)
    }

    /// What the store has of this node's endpoints.
    async fn found(&self, region: &str) -> Result<BTreeMap<Key, EndpointState>, StoreError> {
        let mut found = BTreeMap::new();
        for prefix in prefixes(&self.node, region) {
            for entry in self.store.list(&prefix).await?.entries {
                let status = serde_json::from_slice::<EndpointStatus>(&entry.value);
                // What cannot be read is written anew, or removed.
                let unknown = |_| EndpointState::Other(String::new());
                let state = status.map_or_else(unknown, |status| status.status);
                found.insert(entry.key, state);
            }
        }
        Ok(found)
    }

    /// Writes that the agent is alive: under a lease, and beyond it.
    async fn report(&self, told: &Standing, written: &mut Written) -> Result<(), StoreError> {
        let ttl = told.settings.ttl;
        let lease = match written.lease {
            Some((lease, of)) if of == ttl && self.store.keep_alive(lease).await? => lease,
            _ => {
                let lease = self.store.grant_lease(ttl).await?;
                written.lease = Some((lease, ttl));
                lease
            }
        };
        let report = AgentReport {
            time: identity::now().rfc3339(),
            uptime: written.begun.elapsed().as_secs_f64(),
            first_update: written.first,
            ..AgentReport::default()
        };
        let (region, host) = (told.settings.region.clone(), self.node.clone());
        let active = Key::AgentStatus {
            region: region.clone(),
            host: host.clone(),
        };
        let last = Key::LastAgentStatus { region, host };
        let put = |key, lease| Write {
            key,
            condition: Condition::Any,
            op: Op::Put(json(&report), lease),
        };
        let batch = Batch::of([put(active, Some(lease)), put(last, None)]);
        self.store.commit(&batch).await?;
        written.first = false;
        Ok(())
    }

    fn refused(&self, what: &str, failed: &StoreError) {
        self.metrics.standing_failures.inc();
        warn!(error = %failed, "{what} cannot be written to the datastore; it is tried again");
    }
}

/// The ranges of the statuses of a node's endpoints.
pub(crate) fn prefixes(node: &str, region: &str) -> [Prefix; 2] {
    let host = node.to_owned();
    [
        Prefix::WorkloadStatuses {
            region: region.to_owned(),
            host: host.clone(),
        },
        Prefix::HostEndpointStatuses { host },
    ]
}

/// The value of a status.
fn json(status: &impl serde::Serialize) -> Vec<u8> {
    serde_json::json!(status).to_string().into_bytes()
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Between two commits at least.
const LEAST: Duration = Duration::from_millis(10);
/// As Felix: after so many delays it is looked whether the store has what was written.
const RESYNC: u32 = 180;
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use margay_store::memory::Memory;
    use margay_telemetry::metrics::registry;
    use serde_json::{Value, json};

    use super::*;

    fn workload(name: &str) -> Key {
        Key::WorkloadStatus {
            region: settings::NO_REGION.to_owned(),
            host: "n1".to_owned(),
            orchestrator: "cni".to_owned(),
            workload: format!("default/{name}"),
            endpoint: "eth0".to_owned(),
        }
    }

    fn standing(enabled: bool, endpoints: &[(Key, EndpointState)]) -> Option<Standing> {
        Some(Standing {
            settings: StandingSettings {
                endpoints: enabled,
                delay: Duration::from_millis(20),
                interval: enabled.then_some(Duration::from_millis(50)),
                ..StandingSettings::default()
            },
            endpoints: endpoints.iter().cloned().collect(),
        })
    }

    /// All that is below `/calico/felix/` beside the agent's own.
    async fn told(store: &Memory) -> BTreeMap<String, Value> {
        let entries = store.list(&Prefix::Calico).await.unwrap().entries;
        let endpoints = entries.into_iter().filter(|entry| {
            let own = matches!(
                entry.key,
                Key::AgentStatus { .. } | Key::LastAgentStatus { .. }
            );
            !own && entry.key.path().starts_with("/calico/felix/")
        });
        endpoints
            .map(|entry| {
                (
                    entry.key.path(),
                    serde_json::from_slice(&entry.value).unwrap(),
                )
            })
            .collect()
    }

    async fn eventually(store: &Memory, expected: &Value) {
        let expected: BTreeMap<String, Value> = serde_json::from_value(expected.clone()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let told = told(store).await;
            if told == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{told:#?}, not {expected:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn differences_are_written_in_felixs_form() {
        let store = Memory::new();
        let stale = "/calico/felix/v2/no-region/host/n1/workload/cni/default%2fold/endpoint/eth0";
        let other = "/calico/felix/v2/no-region/host/n2/workload/cni/default%2fa/endpoint/eth0";
        for key in [stale, other, "/calico/felix/v1/host/n1/endpoint/eth9"] {
            store.put_raw(key, br#"{"status":"up"}"#);
        }
        let (tell, standing_now) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let reporter = Reporter {
            store: store.clone(),
            node: "n1".to_owned(),
            standing: standing_now,
            metrics: Metrics::register(&mut registry("0")),
        };
        let task = tokio::spawn(reporter.run(stopped));
        let host = Key::HostEndpointStatus {
            host: "n1".to_owned(),
            name: "eth0".to_owned(),
        };
        let (a, b) = (workload("a"), workload("b"));
        tell.send(standing(
            true,
            &[
                (a.clone(), EndpointState::Up),
                (b.clone(), EndpointState::Down),
                (host.clone(), EndpointState::Error),
            ],
        ))
        .unwrap();
        let prefix = "/calico/felix/v2/no-region/host/n1/workload/cni";
        eventually(
            &store,
            &json!({
                other: {"status": "up"},
                format!("{prefix}/default%2fa/endpoint/eth0"): {"status": "up"},
                format!("{prefix}/default%2fb/endpoint/eth0"): {"status": "down"},
                "/calico/felix/v1/host/n1/endpoint/eth0": {"status": "error"},
            }),
        )
        .await;
        let before = store.get(&a).await.unwrap().unwrap().revision;
        tell.send(standing(
            true,
            &[(a.clone(), EndpointState::Up), (b, EndpointState::Up)],
        ))
        .unwrap();
        eventually(
            &store,
            &json!({
                other: {"status": "up"},
                format!("{prefix}/default%2fa/endpoint/eth0"): {"status": "up"},
                format!("{prefix}/default%2fb/endpoint/eth0"): {"status": "up"},
            }),
        )
        .await;
        let after = store.get(&a).await.unwrap().unwrap().revision;
        assert_eq!(before, after, "what has not changed is not written");

        // Of the agent itself there are two, one of them under a lease.
        let (region, host) = (settings::NO_REGION.to_owned(), "n1".to_owned());
        let (key, last) = (
            Key::AgentStatus {
                region: region.clone(),
                host: host.clone(),
            },
            Key::LastAgentStatus { region, host },
        );
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let active = store.get(&key).await.unwrap();
            let report = active
                .as_ref()
                .map(|it| serde_json::from_slice::<AgentReport>(&it.value).unwrap());
            if report.is_some_and(|report| !report.first_update && report.uptime > 0.0) {
                assert!(active.unwrap().lease.is_some());
                assert_eq!(store.get(&last).await.unwrap().unwrap().lease, None);
                break;
            }
            assert!(Instant::now() < deadline, "{active:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Turned off, it is taken back.
        tell.send(standing(false, &[(a, EndpointState::Up)]))
            .unwrap();
        eventually(&store, &json!({other: {"status": "up"}})).await;
        stop.send(true).unwrap();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_touched_where_nobody_asks() {
        let store = Memory::new();
        let stale = "/calico/felix/v2/no-region/host/n1/workload/cni/default%2fold/endpoint/eth0";
        store.put_raw(stale, br#"{"status":"up"}"#);
        let reporter = Reporter {
            store: store.clone(),
            node: "n1".to_owned(),
            standing: watch::channel(None).1,
            metrics: Metrics::register(&mut registry("0")),
        };
        let told = standing(false, &[(workload("a"), EndpointState::Up)]).unwrap();
        let mut written = Written {
            begun: Instant::now(),
            endpoints: None,
            first: true,
            lease: None,
        };
        assert!(reporter.write(&told, &mut written).await.unwrap());
        eventually(&store, &json!({stale: {"status": "up"}})).await;
    }
}
