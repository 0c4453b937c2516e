//! Connections that policy no longer allows are cut, where operators ask for it.
//!
//! Established connections pass policy unasked. So after a change the kernel is asked for the connections of the
//! endpoints on which the change bears, each is judged as if it began now, and those that would be denied are
//! forgotten: their next packet is a first one. That is slow where much is tracked, so it has a task of its own,
//! which knows no more than an excerpt of what is in force.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use margay_netlink::Namespace;
use margay_nft::Conntrack;
use margay_nft::conntrack::Flow;
use margay_policy::evaluator::{Direction, Packet, Place, Verdict};
use margay_policy::{Desired, Failsafes, judge};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use crate::metrics::Metrics;

/// What is judged anew, and by what.
#[derive(Debug, Clone, Default)]
pub(super) struct Job {
    /// The endpoints, with all that bears on them.
    pub(super) excerpt: Desired,
    /// The node's own addresses: what it sends to its workloads is not asked about.
    pub(super) own: BTreeSet<IpAddr>,
}

/// Starts the task; it ends when the sender is dropped.
pub(super) fn start(namespace: Namespace, metrics: Metrics) -> mpsc::UnboundedSender<Job> {
    let (ask, mut jobs) = mpsc::unbounded_channel::<Job>();
    tokio::spawn(async move {
        while let Some(mut job) = jobs.recv().await {
            // Changes come in flocks.
            tokio::time::sleep(SETTLE).await;
            while let Ok(later) = jobs.try_recv() {
                job.supersede(later);
            }
            let namespace = namespace.clone();
            let endpoints = job.excerpt.workloads.len();
            match spawn_blocking(move || cut(&namespace, &job)).await {
                Ok(Ok(0)) => debug!(endpoints, "policy allows all connections"),
                Ok(Ok(count)) => {
                    metrics.cut_connections.inc_by(count as u64);
                    info!(
                        endpoints,
                        count, "connections that policy denies now are cut"
                    );
                }
                Ok(Err(failed)) => {
                    metrics.cut_failures.inc();
                    warn!(
                        error = crate::error::whole(&failed),
                        "connections that policy denies now cannot be cut"
                    );
                }
                Err(failed) => {
                    metrics.cut_failures.inc();
                    warn!(error = %failed, "cutting connections broke off");
                }
            }
        }
    });
    ask
}

impl Job {
    /// Takes in a later one, whose word counts where both have one.
    fn supersede(&mut self, later: Self) {
        self.excerpt.sets.extend(later.excerpt.sets);
        self.excerpt.policies.extend(later.excerpt.policies);
        self.excerpt.profiles.extend(later.excerpt.profiles);
        self.excerpt.workloads.extend(later.excerpt.workloads);
        self.own = later.own;
    }

    /// Whether nobody denies a connection's first packet, as it is after destination and before source translation.
    fn allows(&self, packet: &Packet) -> bool {
        let decided = |address: IpAddr, direction| {
            let workloads = self.excerpt.workloads.iter();
            let mut here = workloads.filter(|(_, workload)| workload.addresses.contains(&address));
            here.next().is_none_or(|(id, _)| {
                let place = Place::Workload(id.clone());
                let verdict = judge(
                    &self.excerpt,
                    &Failsafes::default(),
                    &place,
                    direction,
                    packet,
                );
                verdict != Some(Verdict::Deny)
            })
        };
        decided(packet.source, Direction::Egress)
            && (self.own.contains(&packet.source)
                || decided(packet.destination, Direction::Ingress))
    }
}

/// Deletes the entries of connections that are denied now; returns how many there were.
fn cut(namespace: &Namespace, job: &Job) -> margay_nft::Result<usize> {
    let workloads = job.excerpt.workloads.values();
    let addresses: Vec<IpAddr> = workloads
        .flat_map(|workload| workload.addresses.iter().copied())
        .collect();
    if addresses.is_empty() {
        return Ok(0);
    }
    let mut conntrack = Conntrack::open(namespace)?;
    let mut flows = conntrack.flows(&addresses)?;
    flows.retain(|flow| !job.allows(&first_packet(flow)));
    conntrack.delete(&flows)
}

/// A connection's first packet as policy has met it.
fn first_packet(flow: &Flow) -> Packet {
    let (original, reply) = (&flow.original, &flow.reply);
    Packet {
        source: original.source,
        destination: reply.source,
        protocol: original.protocol,
        source_port: original.source_port.unwrap_or_default(),
        destination_port: reply.source_port.unwrap_or_default(),
        icmp: match original.protocol {
            ICMP => Some((ECHO_REQUEST, 0)),
            ICMPV6 => Some((ECHO_REQUEST_V6, 0)),
            _ => None,
        },
    }
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// RFC 792 and RFC 4443; others are tracked rarely.
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const SETTLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use margay_model::Key;
    use margay_policy::Calculator;
    use serde_json::json;

    use super::*;

    fn key(kind: &str, name: &str) -> Key {
        let text = format!("/calico/resources/v3/projectcalico.org/{kind}/{name}");
        Key::parse(&text).unwrap()
    }

    /// A workload with a policy that allows what comes to port 80 only.
    fn job() -> Job {
        let mut calculator = Calculator::new("n1");
        for (key, value) in [
            (
                key("workloadendpoints", "default/n1-cni-a-eth0"),
                json!({"kind": "WorkloadEndpoint", "spec": {"interfaceName": "cali1",
                    "ipNetworks": ["10.65.0.2/32"], "profiles": ["projectcalico-default-allow"]}}),
            ),
            (
                key("globalnetworkpolicies", "default.p"),
                json!({"kind": "GlobalNetworkPolicy", "spec": {"types": ["Ingress"], "ingress": [
                    {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}]}}),
            ),
        ] {
            calculator.update_bytes(&key, Some(value.to_string().as_bytes()));
        }
        let mut desired = Desired::default();
        desired.apply(calculator.flush());
        let excerpt = desired.excerpt(desired.workloads.keys());
        assert_eq!(excerpt, desired, "all of it bears on the only workload");
        Job {
            excerpt,
            own: BTreeSet::from(["172.31.0.1".parse().unwrap()]),
        }
    }

    #[test]
    fn connections_are_judged_by_both_ends() {
        let job = job();
        for (source, destination, port, allowed) in [
            ("10.65.0.9", "10.65.0.2", 80, true),
            ("10.65.0.9", "10.65.0.2", 81, false),
            // Its own, and the node's.
            ("10.65.0.2", "10.65.0.9", 81, true),
            ("172.31.0.1", "10.65.0.2", 81, true),
            // None of the endpoints that the change bears on.
            ("10.65.0.9", "10.65.0.8", 81, true),
        ] {
            let packet = Packet {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: 6,
                source_port: 40000,
                destination_port: port,
                icmp: None,
            };
            assert_eq!(job.allows(&packet), allowed, "{packet:?}");
        }
    }
}
