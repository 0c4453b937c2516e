//! Figures of BGP, by peer.

use std::sync::atomic::Ordering;

use margay_bgp::State;
use margay_telemetry::prometheus_client::metrics::counter::Counter;
use margay_telemetry::prometheus_client::metrics::family::Family;
use margay_telemetry::prometheus_client::metrics::gauge::Gauge;
use margay_telemetry::prometheus_client::registry::{Metric, Registry};

use super::figure;
use crate::bgp::view::BgpStatus;

/// Figures of BGP, by peer; clones share the values.
#[derive(Debug, Clone)]
pub struct BgpMetrics {
    up: Family<Labels, Gauge>,
    state: Family<Labels, Gauge>,
    established: Family<Labels, Gauge>,
    flaps: Family<Labels, Counter>,
    messages: Family<Labels, Counter>,
    prefixes: Family<Labels, Gauge>,
    attribute_errors: Family<Labels, Counter>,
    problems: Gauge,
    throttled: Counter,
}

/// Labels by name.
type Labels = Vec<(&'static str, String)>;

impl BgpMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        fn put<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
            let metric = M::default();
            registry.register(name, help, metric.clone());
            metric
        }
        let r = registry;
        Self {
            up: put(
                r,
                "bgp_peer_up",
                "1 while the session with a BGP peer is established",
            ),
            state: put(
                r,
                "bgp_peer_state",
                "State of the session: 1 Idle, 2 Connect, 3 Active, 4 OpenSent, 5 OpenConfirm, 6 Established",
            ),
            established: put(
                r,
                "bgp_peer_established_seconds",
                "For how long the session has been established",
            ),
            flaps: put(
                r,
                "bgp_peer_transitions",
                "Times an established session went down",
            ),
            messages: put(r, "bgp_peer_messages", "Messages by type and direction"),
            prefixes: put(
                r,
                "bgp_peer_prefixes",
                "Prefixes by family: received, accepted, rejected, best and advertised",
            ),
            attribute_errors: put(
                r,
                "bgp_peer_7606",
                "UPDATEs with errors that ended no session (RFC 7606), by what was done",
            ),
            problems: put(
                r,
                "margay_bgp_problems",
                "BGP objects in the datastore that make no sense, and ports that cannot be had",
            ),
            throttled: put(
                r,
                "margay_bgp_throttled_connections",
                "Connections to the BGP port that were refused because too many came from one source",
            ),
        }
    }

    /// Shows peers as they are; those that are no more are shown no more.
    pub fn show(&self, status: &BgpStatus) {
        self.up.clear();
        self.state.clear();
        self.established.clear();
        self.flaps.clear();
        self.messages.clear();
        self.prefixes.clear();
        self.attribute_errors.clear();
        self.problems.set(figure(status.problems.len()));
        self.throttled
            .inner()
            .store(status.throttled, Ordering::Relaxed);
        for peer in &status.peers {
            let labels = |more: &[(&'static str, &str)]| -> Labels {
                let own = ("peer", peer.name.clone());
                let more = more
                    .iter()
                    .map(|(name, value)| (*name, (*value).to_owned()));
                std::iter::once(own).chain(more).collect()
            };
            let kind = peer.kind.map_or_else(String::new, |kind| kind.to_string());
            let is_up = peer.state == State::Established;
            self.up
                .get_or_create(&labels(&[("type", &kind)]))
                .set(i64::from(is_up));
            let state = match peer.state {
                State::Idle => 1,
                State::Connect => 2,
                State::Active => 3,
                State::OpenSent => 4,
                State::OpenConfirm => 5,
                State::Established => 6,
            };
            self.state.get_or_create(&labels(&[])).set(state);
            let age = if is_up { peer.age.as_secs() } else { 0 };
            self.established
                .get_or_create(&labels(&[]))
                .set(i64::try_from(age).unwrap_or(i64::MAX));
            let counters = &peer.detail.counters;
            count(&self.flaps, &labels(&[]), counters.flaps);
            for (direction, sums) in [("in", &counters.received), ("out", &counters.sent)] {
                for (kind, sum) in [
                    ("open", sums.open),
                    ("update", sums.update),
                    ("notification", sums.notification),
                    ("keepalive", sums.keepalive),
                    ("refresh", sums.refresh),
                ] {
                    let labels = labels(&[("type", kind), ("dir", direction)]);
                    count(&self.messages, &labels, sum);
                }
            }
            for (family, sums) in [
                ("ipv4", &peer.detail.prefixes.v4),
                ("ipv6", &peer.detail.prefixes.v6),
            ] {
                for (kind, sum) in [
                    ("received", sums.received),
                    ("accepted", sums.accepted),
                    ("rejected", sums.rejected),
                    ("best", sums.best),
                    ("advertised", sums.advertised),
                ] {
                    let labels = labels(&[("afi", family), ("kind", kind)]);
                    self.prefixes.get_or_create(&labels).set(sum.into());
                }
            }
            for (action, sum) in [
                ("treat_as_withdraw", counters.treated_as_withdraw),
                ("discard", counters.attributes_discarded),
            ] {
                let labels = labels(&[("action", action)]);
                count(&self.attribute_errors, &labels, sum);
            }
        }
    }
}

/// Has a counter say a sum that somebody else keeps.
fn count(family: &Family<Labels, Counter>, labels: &Labels, sum: u64) {
    let counter = family.get_or_create(labels);
    counter.inner().store(sum, Ordering::Relaxed);
}
