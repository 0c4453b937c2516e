//! The log of packets that policy denies, and that rules `Log` match: who spoke to whom, and which rule it was.
//!
//! The kernel sends the first bytes of such packets, within limits of its own. They are gathered for a moment and
//! counted; then one line tells of each connection. What is beyond the budget is dropped by the kernel and counted.

mod gather;
mod label;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use margay_netlink::Namespace;
use margay_netlink::netfilter::{self, PacketLog};
use margay_ruleset::compile;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use self::gather::{Event, Gathered};
use self::label::Verdict;
use crate::metrics::Metrics;

/// Writes the log.
#[derive(Debug)]
pub struct Scribe {
    /// Where packets are logged.
    pub namespace: Namespace,
    /// Who knows whose addresses are.
    pub ask: mpsc::Sender<Question>,
    /// Figures.
    pub metrics: Metrics,
}

/// A question for the names of addresses.
#[derive(Debug)]
pub struct Question {
    /// The addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// What is known of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whose they are, where that is known: `<namespace>/<workload>`, or `<kind>/<name>` of what is no workload.
    pub names: BTreeMap<IpAddr, String>,
    /// What lines about rules `Log` begin with (`logPrefix`).
    pub prefix: String,
}

/// Why following the log ended.
enum End {
    Stopped,
    Broken(netfilter::Error),
}

impl Scribe {
    /// Works until `stop` changes.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let group = compile::Settings::default().log.group;
        let mut refused = false;
        loop {
            let failed = match PacketLog::open(&self.namespace, group).await {
                Ok(log) => {
                    refused = false;
                    match self.follow(log, &mut stop).await {
                        End::Stopped => return,
                        End::Broken(failed) => failed,
                    }
                }
                Err(failed) => failed,
            };
            if !std::mem::replace(&mut refused, true) {
                warn!(
                    error = crate::error::whole(&failed),
                    "packets that policy logs cannot be read, and no line tells of them; does another program \
                     listen to group {group} of nfnetlink_log?"
                );
            }
            tokio::select! {
                _ = stop.changed() => return,
                () = sleep(RETRY) => {}
            }
        }
    }

    async fn follow(&self, mut log: PacketLog, stop: &mut watch::Receiver<bool>) -> End {
        let mut gathered = Gathered::default();
        // Set by the first packet.
        let mut end: Option<Instant> = None;
        loop {
            let over = gathered.read >= MOST_PACKETS;
            tokio::select! {
                _ = stop.changed() => return End::Stopped,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    self.tell(&std::mem::take(&mut gathered)).await;
                    end = None;
                }
                read = log.read(), if !over => match read {
                    Ok(read) => {
                        gathered.take(read, MOST_LINES);
                        end = end.or_else(|| Some(Instant::now() + MOMENT));
                    }
                    Err(failed) => return End::Broken(failed),
                },
            }
        }
    }

    /// Writes the lines of a moment.
    async fn tell(&self, gathered: &Gathered) {
        for (event, count) in &gathered.events {
            let label = &event.label;
            let labels = [
                ("verdict", label.verdict.word().to_owned()),
                ("reason", label.cause.to_string()),
            ];
            let figure = self.metrics.logged_packets.get_or_create(&labels);
            figure.inc_by(*count);
        }
        if gathered.lost > 0 {
            self.metrics.lost_packets.inc_by(gathered.lost);
            info!(
                packets = gathered.lost,
                "no line tells of these logged packets: there are too many"
            );
        }
        if gathered.events.is_empty() {
            return;
        }
        let answer = self.whose(gathered.addresses()).await;
        for (event, count) in &gathered.events {
            line(event, *count, &answer);
        }
    }

    /// Whose the addresses are; nobody's, if nobody answers.
    async fn whose(&self, addresses: BTreeSet<IpAddr>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let question = Question { addresses, answer };
        let asked = async {
            // Without one that takes the question the answer never comes, and that is seen here.
            let _ = self.ask.send(question).await;
            answered.await
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer,
            _ => Answer::default(),
        }
    }
}

fn line(event: &Event, packets: u64, answer: &Answer) {
    let label = &event.label;
    let name = |address: &IpAddr| answer.names.get(address).map(String::as_str);
    let (policy, rule) = label.cause.rule().unzip();
    let (kind, code) = event.icmp.unzip();
    let words = match label.verdict {
        Verdict::Denied => "denied",
        Verdict::Logged => answer.prefix.as_str(),
    };
    info!(
        verdict = label.verdict.word(),
        reason = %label.cause,
        direction = label.direction,
        tier = label.cause.tier(),
        policy,
        rule,
        source = name(&event.source),
        source_address = %event.source,
        destination = name(&event.destination),
        destination_address = %event.destination,
        protocol = protocol(event.protocol),
        port = event.port,
        icmp_type = kind,
        icmp_code = code,
        packets,
        "{words}"
    );
}

/// As rules of policy name it.
fn protocol(number: u8) -> String {
    let known = match number {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        132 => "SCTP",
        136 => "UDPLite",
        _ => return number.to_string(),
    };
    known.to_owned()
}

/// For so long packets are gathered.
const MOMENT: Duration = Duration::from_secs(1);
/// So many packets are read in a moment; the kernel drops what it cannot keep of the others.
const MOST_PACKETS: usize = 2000;
/// So many lines are written in a moment.
const MOST_LINES: usize = 200;
/// How long names are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until it is tried again to listen.
const RETRY: Duration = Duration::from_secs(30);
