//! Reports on this node that people asked for by a CalicoNodeStatus.

use std::collections::BTreeMap;
use std::time::Duration;

use margay_bgp::State;
use margay_model::resource::status::{
    AgentStatus, BgpStatus as BgpReport, CalicoNodeStatus, CalicoNodeStatusSpec, DaemonState,
    DaemonStatus, LearnedFrom, NodeReport, PeerKind, PeerStatus, RouteKind, RouteSource,
    RouteStatus, RoutesStatus, SessionState, StatusClass,
};
use margay_model::time::Timestamp;
use margay_model::{Family, Key, Kind, Prefix};
use margay_peering::PeerType;
use margay_store::follow::{Event, Follower, Options, Update};
use margay_store::{Batch, Store, StoreError, Write};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::bgp::view::{BgpStatus, PeerView};
use crate::calculate::Origin;
use crate::identity;
use crate::report::Status;

/// Writes reports for a node.
#[derive(Debug)]
pub struct Reporter<S> {
    /// The store.
    pub store: S,
    /// The node.
    pub node: String,
    /// What the agent knows.
    pub status: watch::Receiver<Status>,
    /// What BGP knows.
    pub bgp: watch::Receiver<BgpStatus>,
}

/// A report that is wanted.
#[derive(Debug, Clone)]
struct Wanted {
    spec: CalicoNodeStatusSpec,
    due: Instant,
}

impl<S: Store + Clone + 'static> Reporter<S> {
    /// Works until `stop` changes.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let prefix = Prefix::Resources(Kind::CalicoNodeStatus);
        let mut follower = Follower::new(self.store.clone(), [prefix], Options::default());
        let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
        loop {
            let next = wanted.values().map(|wanted| wanted.due).min();
            tokio::select! {
                _ = stop.changed() => return,
                event = follower.next() => match event {
                    Event::Synced { updates, .. } | Event::Changed { updates, .. } => {
                        for update in &updates {
                            self.heed(&mut wanted, update);
                        }
                    }
                    // Requests may come and go as people like.
                    Event::Shrunk { .. } | Event::Regressed { .. } | Event::Replaced { .. } => {
                        follower.accept();
                    }
                    Event::Lost(_) => {}
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let now = Instant::now();
                    for (key, wanted) in &mut wanted {
                        if wanted.due > now {
                            continue;
                        }
                        let period = wanted.spec.update_period_seconds.unwrap_or_default();
                        wanted.due = now + Duration::from_secs(period.max(1).into());
                        if let Err(failed) = self.write(key).await {
                            warn!(%key, error = %failed, "a report on this node is not written");
                        }
                    }
                }
            }
        }
    }

    fn heed(&self, wanted: &mut BTreeMap<Key, Wanted>, update: &Update) {
        let entry = match update {
            Update::Put(entry) => entry,
            Update::Delete(key) => {
                wanted.remove(key);
                return;
            }
        };
        let spec = match CalicoNodeStatus::decode(&entry.value) {
            Ok(object) => object.spec,
            Err(error) => {
                warn!(key = %entry.key, %error, "a CalicoNodeStatus cannot be used");
                return;
            }
        };
        if spec.node != self.node || spec.update_period_seconds.unwrap_or_default() == 0 {
            wanted.remove(&entry.key);
            return;
        }
        // The echo of a report changes nothing.
        if wanted
            .get(&entry.key)
            .is_none_or(|known| known.spec != spec)
        {
            let due = Instant::now();
            wanted.insert(entry.key.clone(), Wanted { spec, due });
        }
    }

    async fn write(&self, key: &Key) -> Result<(), StoreError> {
        let Some(entry) = self.store.get(key).await? else {
            return Ok(());
        };
        let Ok(mut object) = CalicoNodeStatus::decode(&entry.value) else {
            return Ok(());
        };
        let report = report(
            &object.spec.classes,
            &self.status.borrow(),
            &self.bgp.borrow(),
            identity::now(),
        );
        let encoded = object.set_report(&report).and_then(|()| object.encode());
        let Ok(value) = encoded else {
            return Ok(());
        };
        let write = Write::update(key.clone(), value, entry.revision);
        self.store.commit(&Batch::of([write])).await?;
        debug!(%key, "a report on this node is written");
        Ok(())
    }
}

/// A report of these classes.
fn report(classes: &[StatusClass], status: &Status, bgp: &BgpStatus, now: Timestamp) -> NodeReport {
    let mut report = NodeReport {
        last_updated: Some(now.rfc3339()),
        ..NodeReport::default()
    };
    if classes.contains(&StatusClass::Agent) {
        let daemon = DaemonStatus {
            state: if status.ready {
                DaemonState::Ready
            } else {
                DaemonState::NotReady
            },
            version: concat!("margay-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
            router_id: bgp.router_id.clone().unwrap_or_default(),
            ..DaemonStatus::default()
        };
        report.agent = AgentStatus {
            v4: daemon.clone(),
            v6: daemon,
            ..AgentStatus::default()
        };
    }
    if classes.contains(&StatusClass::Bgp) {
        let count = |family, up: bool| {
            let peers = bgp.of(family);
            let sum = peers.filter(|peer| (peer.state == State::Established) == up);
            u32::try_from(sum.count()).unwrap_or(u32::MAX)
        };
        report.bgp = BgpReport {
            established_v4: count(Family::V4, true),
            not_established_v4: count(Family::V4, false),
            established_v6: count(Family::V6, true),
            not_established_v6: count(Family::V6, false),
            peers_v4: bgp.of(Family::V4).map(peer).collect(),
            peers_v6: bgp.of(Family::V6).map(peer).collect(),
            ..BgpReport::default()
        };
    }
    if classes.contains(&StatusClass::Routes) {
        let of = |ipv4: bool| {
            let routes = status.routes.iter();
            let routes = routes.filter(|route| route.destination.is_ipv4() == ipv4);
            routes.map(|told| route(told, bgp)).collect()
        };
        report.routes = RoutesStatus {
            v4: of(true),
            v6: of(false),
            ..RoutesStatus::default()
        };
    }
    report
}

fn peer(peer: &PeerView) -> PeerStatus {
    PeerStatus {
        peer_ip: peer.address.to_string(),
        kind: match peer.kind {
            Some(PeerType::Mesh) => PeerKind::NodeMesh,
            Some(PeerType::Node | PeerType::Workload) => PeerKind::NodePeer,
            Some(PeerType::Global) | None => PeerKind::GlobalPeer,
        },
        state: match peer.state {
            State::Idle => SessionState::Idle,
            State::Connect => SessionState::Connect,
            State::Active => SessionState::Active,
            State::OpenSent => SessionState::OpenSent,
            State::OpenConfirm => SessionState::OpenConfirm,
            State::Established => SessionState::Established,
        },
        since: peer.since.clone(),
        ..PeerStatus::default()
    }
}

fn route(told: &crate::report::RouteStatus, bgp: &BgpStatus) -> RouteStatus {
    let peer = told.source.strip_prefix("announced by ");
    let peer = peer.and_then(|name| bgp.peers.iter().find(|peer| peer.name == name));
    let source = match (told.origin, peer.and_then(|peer| peer.kind)) {
        (Some(Origin::Bgp), Some(PeerType::Mesh)) => RouteSource::NodeMesh,
        (Some(Origin::Bgp), _) => RouteSource::BGPPeer,
        (Some(Origin::Own), _) => RouteSource::Direct,
        _ => RouteSource::Static,
    };
    RouteStatus {
        kind: if told.installed {
            RouteKind::Fib
        } else {
            RouteKind::Rib
        },
        destination: told.destination.to_string(),
        gateway: told.via.map_or_else(String::new, |via| via.to_string()),
        interface: told.interface.clone().unwrap_or_default(),
        learned_from: LearnedFrom {
            source_type: source,
            peer_ip: peer.map_or_else(String::new, |peer| peer.address.to_string()),
            ..LearnedFrom::default()
        },
        ..RouteStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use margay_store::memory::Memory;
    use serde_json::{Value, json};

    use super::*;
    use crate::bgp::view::tests::{NOW, peer as view};

    fn bgp() -> BgpStatus {
        BgpStatus {
            router_id: Some("10.0.0.1".to_owned()),
            peers: vec![view("Mesh_10_0_0_2", State::Established)],
            ..BgpStatus::default()
        }
    }

    fn status() -> Status {
        Status {
            ready: true,
            routes: vec![crate::report::RouteStatus {
                destination: "192.168.1.0/26".parse().unwrap(),
                via: Some("10.0.0.2".parse().unwrap()),
                interface: Some("eth0".to_owned()),
                protocol: "80".to_owned(),
                origin: Some(Origin::Bgp),
                source: "announced by Mesh_10_0_0_2".to_owned(),
                installed: true,
            }],
            ..Status::default()
        }
    }

    #[test]
    fn a_report_has_the_classes_that_were_asked_for() {
        let all = [StatusClass::Agent, StatusClass::Bgp, StatusClass::Routes];
        let told = serde_json::to_value(report(&all, &status(), &bgp(), NOW)).unwrap();
        assert_eq!(told["lastUpdated"], "2026-11-23T08:30:00Z");
        assert_eq!(told["agent"]["birdV4"]["state"], "Ready");
        assert_eq!(told["bgp"]["numberEstablishedV4"], 1);
        assert_eq!(
            told["bgp"]["peersV4"][0],
            json!({"peerIP": "10.0.0.2", "type": "NodeMesh", "state": "Established",
                "since": "2026-11-23T08:25:00Z"})
        );
        assert_eq!(
            told["routes"]["routesV4"][0],
            json!({"type": "FIB", "destination": "192.168.1.0/26", "gateway": "10.0.0.2", "interface": "eth0",
                "learnedFrom": {"sourceType": "NodeMesh", "peerIP": "10.0.0.2"}})
        );
        let less = report(&all[..1], &status(), &bgp(), NOW);
        assert!(less.bgp.peers_v4.is_empty() && less.routes.v4.is_empty());
    }

    #[tokio::test]
    async fn who_asks_gets_reports() {
        let store = Memory::new();
        let path = "/calico/resources/v3/projectcalico.org/caliconodestatuses/one";
        let object = json!({"kind": "CalicoNodeStatus", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "one"},
            "spec": {"node": "n1", "classes": ["BGP"], "updatePeriodSeconds": 1}});
        store.put_raw(path, object.to_string().as_bytes());
        let (stop, stopped) = watch::channel(false);
        let reporter = Reporter {
            store: store.clone(),
            node: "n1".to_owned(),
            status: watch::channel(status()).1,
            bgp: watch::channel(bgp()).1,
        };
        let task = tokio::spawn(reporter.run(stopped));
        let key = Key::resource(Kind::CalicoNodeStatus, "one");
        loop {
            let entry = store.get(&key).await.unwrap().unwrap();
            let value: Value = serde_json::from_slice(&entry.value).unwrap();
            if value["status"]["bgp"]["numberEstablishedV4"] == 1 {
                assert_eq!(value["spec"], object["spec"]);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.send(true).unwrap();
        task.await.unwrap();
    }
}
