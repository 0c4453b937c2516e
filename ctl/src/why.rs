//! Why a connection is made or not: the whole way of its first packet, as the datastore has it.
//!
//! Values in, values out. What is said holds once the agents have put in force what is stored.

mod ends;
mod route;
mod stages;
mod text;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use margay_model::ipam::Block;
use margay_model::{AnyResource, Family, Key, Kind};
use margay_policy::evaluator::{Packet, State};
use margay_policy::{Calculator, Failsafe, Failsafes};
use serde::Serialize;
use serde_json::Value;

pub use self::ends::End;
pub use self::route::{Mtu, Route};
pub use self::stages::Stage;
pub use self::text::text;

/// What is stored.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// What decides.
    pub state: State,
    /// The blocks of addresses.
    pub blocks: Vec<Block>,
    /// Values that cannot be read, by key.
    pub unreadable: BTreeMap<Key, Vec<u8>>,
    /// This node's name and its workloads' MTU in bytes, where an agent runs here.
    pub here: Option<(String, u32)>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who begins the connection, as the user names it.
    pub source: String,
    /// To whom.
    pub destination: String,
    /// The protocol: a name or a number.
    pub protocol: String,
    /// The destination port; of ICMP, the type and the code: `8` or `8/0`.
    pub port: Option<String>,
    /// The source port.
    pub source_port: u16,
}

/// What becomes of the packet, and why.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Whence.
    pub source: End,
    /// Whither.
    pub destination: End,
    /// The protocol, with port or type.
    pub protocol: String,
    /// `Allow` or `Deny`.
    pub verdict: &'static str,
    /// What decides.
    pub decided_by: String,
    /// What the user can do.
    pub advice: Option<String>,
    /// Where policy decides, in the order of the way; what comes after a denial is not reached.
    pub stages: Vec<Stage>,
    /// The way to the destination.
    pub route: Route,
    /// What is wrong with objects that bear on the nodes of both ends, and what could not be told.
    pub notes: Vec<String>,
}

/// Answers a question.
///
/// # Errors
/// What the user names does not exist, is ambiguous or does not fit together.
pub fn why(world: &mut World, question: &Question) -> Result<Answer> {
    let (protocol, port, icmp, words) = protocol(question)?;
    let sources = ends::find(world, &question.source)?;
    let destinations = ends::find(world, &question.destination)?;
    let wanted = match protocol {
        ICMP => Some(Family::V4),
        ICMPV6 => Some(Family::V6),
        _ => None,
    };
    let families = [Family::V4, Family::V6];
    let mut fitting = families
        .into_iter()
        .filter(|family| wanted.is_none_or(|wanted| wanted == *family))
        .filter_map(|family| Some((sources.of(family)?, destinations.of(family)?)));
    let Some((source, destination)) = fitting.next() else {
        bail!(
            "{} and {} have no addresses of one family that {words} can use; name addresses",
            question.source,
            question.destination,
        );
    };
    let packet = Packet {
        source: source.address,
        destination: destination.address,
        protocol,
        source_port: if has_ports(protocol) {
            question.source_port
        } else {
            0
        },
        destination_port: port,
        icmp: icmp.map(|(kind, code)| match (kind, protocol) {
            (None, ICMPV6) => (ECHO_REQUEST_V6, code),
            (None, _) => (ECHO_REQUEST, code),
            (Some(kind), _) => (kind, code),
        }),
    };
    let route = route::route(world, &source, &destination);
    let stages = stages::stages(world, &source, &destination, &packet, &route);
    let denied = stages.iter().position(|stage| stage.denies());
    let (verdict, decided_by, advice) = match denied {
        Some(at) => ("Deny", stages[at].reason(), Some(stages[at].advice(world))),
        None => ("Allow", allowing(&stages), route.advice.clone()),
    };
    let mut notes = notes(world, &source, &destination);
    if stages.iter().any(|stage| stage.condition.is_some()) {
        notes.push(
            "which interfaces of a node a packet passes is not in the datastore; where it says \
             \"if\", look with `ip route get`"
                .to_owned(),
        );
    }
    Ok(Answer {
        source,
        destination,
        protocol: words,
        verdict,
        decided_by,
        advice,
        stages,
        route,
        notes,
    })
}

/// What lets the packet through.
fn allowing(stages: &[Stage]) -> String {
    let reasons: Vec<String> = stages.iter().map(Stage::reason).collect();
    if reasons.is_empty() {
        "no policy is asked on this way".to_owned()
    } else {
        reasons.join("; ")
    }
}

/// What is wrong with objects, seen from the nodes of both ends.
fn notes(world: &World, source: &End, destination: &End) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let mut nodes: Vec<&str> = [source, destination]
        .into_iter()
        .filter_map(|end| end.node.as_deref())
        .collect();
    nodes.dedup();
    for node in nodes {
        let mut calculator = Calculator::new(node);
        for (key, resource) in &world.state.resources {
            calculator.update(key, Some(resource));
        }
        for (key, value) in &world.unreadable {
            calculator.update_bytes(key, Some(value));
        }
        calculator.flush();
        for condition in calculator.conditions() {
            let note = format!("{}: {}", condition.key, condition.problem);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

/// A field of a node's FelixConfiguration: its own, or that of all.
fn setting<'w>(state: &'w State, node: &str, field: &str) -> Option<&'w Value> {
    [format!("node.{node}"), "default".to_owned()]
        .into_iter()
        .find_map(|name| {
            let key = Key::resource(Kind::FelixConfiguration, name);
            match state.resources.get(&key) {
                Some(AnyResource::FelixConfiguration(felix)) => felix.spec.get(field),
                _ => None,
            }
        })
}

/// The ports of a node that stay open.
fn failsafes(state: &State, node: &str) -> Failsafes {
    let usual = Failsafes::default();
    let list =
        |field| setting(state, node, field).and_then(|value| Failsafe::from_value(value).ok());
    Failsafes {
        inbound: list("failsafeInboundHostPorts").unwrap_or(usual.inbound),
        outbound: list("failsafeOutboundHostPorts").unwrap_or(usual.outbound),
    }
}

/// Protocol number, destination port, ICMP type and code, and words for them.
type Asked = (u8, u16, Option<(Option<u8>, u8)>, String);

fn protocol(question: &Question) -> Result<Asked> {
    let name = &question.protocol;
    let Some(number) = margay_model::scalar::Protocol::parse(name)
        .number()
        .filter(|number| *number != 0)
    else {
        bail!("{name:?} is no protocol: give tcp, udp, sctp, icmp, icmpv6 or a number");
    };
    let port = question.port.as_deref();
    let words = match port {
        Some(port) => format!("{} {port}", name.to_lowercase()),
        None => name.to_lowercase(),
    };
    if matches!(number, ICMP | ICMPV6) {
        let asked = match port {
            None => (None, 0),
            Some(text) => {
                let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
                match (kind.parse(), code.parse()) {
                    (Ok(kind), Ok(code)) => (Some(kind), code),
                    _ => bail!("{text:?} is no type of ICMP: give TYPE or TYPE/CODE, such as 8/0"),
                }
            }
        };
        return Ok((number, 0, Some(asked), words));
    }
    let port = match (has_ports(number), port) {
        (true, Some(text)) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => bail!("{text:?} is no port: give a number from 1 to 65535"),
        },
        (true, None) => bail!("{name} needs a destination port"),
        (false, Some(_)) => bail!("{name} has no ports; leave the port out"),
        (false, None) => 0,
    };
    Ok((number, port, None, words))
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
