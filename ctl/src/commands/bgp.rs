//! `bgp`, and what `node status` shows of it.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::Streams;
use crate::agent::{self, BgpRoute, Peer};
use crate::cli::{Bgp, Form};
use crate::table::{framed, plain};

/// Shows what the agent says.
///
/// # Errors
/// It does not answer, or knows no such peer.
pub(super) async fn run(command: &Bgp, streams: &mut Streams<'_>) -> Result<()> {
    let (socket, path, output) = match command {
        Bgp::Peers { socket, output } => (socket, "/bgp/peers".to_owned(), *output),
        Bgp::Routes {
            received,
            advertised,
            socket,
            output,
        } => {
            let path = match (received, advertised) {
                (Some(peer), _) => format!("/bgp/routes/received/{peer}"),
                (None, Some(peer)) => format!("/bgp/routes/advertised/{peer}"),
                (None, None) => "/bgp/routes".to_owned(),
            };
            (socket, path, *output)
        }
    };
    let body = agent::ask(socket, &path).await?;
    let text = match (command, output) {
        (_, Form::Json) => {
            let value: serde_json::Value = serde_json::from_slice(&body).context("its answer")?;
            format!("{value:#}\n")
        }
        (Bgp::Peers { .. }, Form::Table) => {
            let told: agent::Bgp = serde_json::from_slice(&body).context("its answer")?;
            peers(&told)
        }
        (Bgp::Routes { .. }, Form::Table) => {
            let told: Vec<BgpRoute> = serde_json::from_slice(&body).context("its answer")?;
            plain(&ROUTES, &told.iter().map(route).collect::<Vec<_>>())
        }
    };
    streams.say(&text)
}

/// The peers of both families, and what is wrong with BGP's objects.
pub(super) fn peers(bgp: &agent::Bgp) -> String {
    let mut out = String::new();
    for (family, ipv4) in [("IPv4", true), ("IPv6", false)] {
        let of_family = |peer: &&Peer| {
            let address = peer.address.parse::<IpAddr>();
            address.is_ok_and(|address| address.is_ipv4() == ipv4)
        };
        let rows: Vec<Vec<String>> = bgp.peers.iter().filter(of_family).map(peer).collect();
        if rows.is_empty() {
            out.push_str(&format!(
                "\n{family} BGP status\nNo {family} peers found.\n"
            ));
        } else {
            out.push_str(&format!("\n{family} BGP status\n{}", framed(&PEERS, &rows)));
        }
    }
    let told = |peer: &&Peer| peer.state != "Established" && peer.last_error.is_some();
    for peer in bgp.peers.iter().filter(told) {
        let error = peer.last_error.as_deref().unwrap_or_default();
        out.push_str(&format!("{}: {error}\n", peer.address));
    }
    for problem in &bgp.problems {
        out.push_str(&format!("{}: {}\n", problem.object, problem.reason));
    }
    out
}

/// As calicoctl shows a peer, and the numbers of its prefixes.
fn peer(peer: &Peer) -> Vec<String> {
    let state = match peer.state.as_str() {
        "Established" => "up",
        _ => "start",
    };
    vec![
        peer.address.clone(),
        peer.kind.clone().unwrap_or_default(),
        state.to_owned(),
        peer.since
            .replace('T', " ")
            .trim_end_matches('Z')
            .to_owned(),
        peer.state.clone(),
        peer.received.to_string(),
        peer.accepted.to_string(),
        peer.advertised.to_string(),
    ]
}

fn route(route: &BgpRoute) -> Vec<String> {
    let number = |value: Option<u32>| value.map_or_else(String::new, |value| value.to_string());
    vec![
        route.prefix.clone(),
        route.next_hop.clone(),
        route.from.clone(),
        route.as_path.clone(),
        number(route.local_pref),
        number(route.med),
        route.communities.join(","),
        route.note.clone(),
    ]
}

const PEERS: [&str; 8] = [
    "PEER ADDRESS",
    "PEER TYPE",
    "STATE",
    "SINCE",
    "INFO",
    "RECEIVED",
    "ACCEPTED",
    "ADVERTISED",
];
const ROUTES: [&str; 8] = [
    "PREFIX",
    "NEXT HOP",
    "FROM",
    "AS PATH",
    "LOCAL PREF",
    "MED",
    "COMMUNITIES",
    "NOTE",
];
