//! The answer to `show protocols all`.

use std::net::{IpAddr, Ipv4Addr};

use margay_bgp::message::{AddPathMode, GracefulFamily, LongLivedFamily};
use margay_bgp::{Capability, State};
use margay_model::Family;
use margay_model::scalar::AsNumber;

use crate::reply::Reply;

/// A protocol of BIRD's.
#[derive(Debug, Clone, PartialEq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// `BGP`, `Kernel` and the like.
    pub kind: String,
    /// Its state.
    pub state: ProtocolState,
    /// Since when it is in this state, as RFC 3339 has it.
    pub since: String,
    /// What it says of itself.
    pub info: String,
    /// The session, where it is one of BGP.
    pub session: Option<Session>,
    /// Its channels.
    pub channels: Vec<Channel>,
}

/// The state of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolState {
    /// It works.
    Up,
    /// It is about to.
    Starting,
    /// It does not.
    Down,
}

/// A BGP session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Session {
    /// Its state; `None` if it is down altogether.
    pub state: Option<State>,
    /// The peer's address.
    pub address: Option<IpAddr>,
    /// Our address.
    pub source: Option<IpAddr>,
    /// The peer's AS, once it is known.
    pub remote_as: Option<AsNumber>,
    /// Our AS on the session.
    pub local_as: Option<AsNumber>,
    /// The peer's BGP identifier, once it is known.
    pub router_id: Option<Ipv4Addr>,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
    /// The hold time in seconds.
    pub hold: u64,
    /// The interval of keepalives in seconds.
    pub keepalive: u64,
    /// Whether routes are kept while the peer restarts.
    pub restarting: bool,
    /// What we announced.
    pub local: Vec<Capability>,
    /// What the peer announced.
    pub remote: Vec<Capability>,
}

/// A channel of a protocol: its routes of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// The family.
    pub family: Family,
    /// Whether it is up.
    pub up: bool,
    /// Routes taken.
    pub imported: u32,
    /// Routes that the import filter rejects.
    pub filtered: u32,
    /// Routes announced.
    pub exported: u32,
    /// Routes that are the best.
    pub preferred: u32,
}

/// Reads an answer; lines that are not known are passed over.
#[must_use]
pub fn protocols(reply: &Reply) -> Vec<Protocol> {
    let mut reader = Reader::default();
    for (code, line) in &reply.lines {
        match *code {
            SUMMARY => reader.summary(line),
            DETAIL => reader.detail(line),
            _ => {}
        }
    }
    reader.protocols
}

#[derive(Default)]
struct Reader {
    protocols: Vec<Protocol>,
    /// Whose capabilities are being told, and which one.
    side: Option<Side>,
    part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Local,
    Remote,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Other,
    Multiprotocol,
    Graceful,
    AddPath,
    LongLived,
}

impl Reader {
    fn summary(&mut self, line: &str) {
        self.side = None;
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (name, kind, _table, state, since) = (word(), word(), word(), word(), word());
        if name.is_empty() {
            return;
        }
        let info = words.collect::<Vec<_>>().join(" ");
        let session = (kind == "BGP").then(Session::default);
        self.protocols.push(Protocol {
            name,
            kind,
            state: match state.as_str() {
                "up" => ProtocolState::Up,
                "start" => ProtocolState::Starting,
                _ => ProtocolState::Down,
            },
            since,
            info,
            session,
            channels: Vec::new(),
        });
    }

    fn detail(&mut self, line: &str) {
        let Some(protocol) = self.protocols.last_mut() else {
            return;
        };
        let line = line.trim();
        if let Some(channel) = line.strip_prefix("Channel ") {
            self.side = None;
            let family = match channel {
                "ipv4" => Family::V4,
                "ipv6" => Family::V6,
                _ => return,
            };
            protocol.channels.push(Channel {
                family,
                up: false,
                imported: 0,
                filtered: 0,
                exported: 0,
                preferred: 0,
            });
            return;
        }
        match line {
            "Local capabilities" => return self.begin(Side::Local),
            "Neighbor capabilities" => return self.begin(Side::Remote),
            _ => {}
        }
        let (name, value) = match line.split_once(':') {
            Some((name, value)) => (name, value.trim()),
            None => (line, ""),
        };
        if let Some(channel) = protocol.channels.last_mut() {
            return of_channel(channel, name, value);
        }
        let Some(session) = protocol.session.as_mut() else {
            return;
        };
        if of_session(session, name, value) {
            self.side = None;
        } else if let Some(side) = self.side {
            let asn = match side {
                Side::Local => session.local_as,
                Side::Remote => session.remote_as,
            };
            let list = match side {
                Side::Local => &mut session.local,
                Side::Remote => &mut session.remote,
            };
            capability(list, &mut self.part, name, value, asn);
        }
    }

    fn begin(&mut self, side: Side) {
        self.side = Some(side);
        self.part = Part::Other;
    }
}

/// Takes in a line of a session; whether it is one.
fn of_session(session: &mut Session, name: &str, value: &str) -> bool {
    match name {
        "BGP state" => {
            session.state = match value {
                "Idle" => Some(State::Idle),
                "Connect" => Some(State::Connect),
                "Active" => Some(State::Active),
                "OpenSent" => Some(State::OpenSent),
                "OpenConfirm" => Some(State::OpenConfirm),
                "Established" => Some(State::Established),
                _ => None,
            };
        }
        "Neighbor address" => session.address = address(value),
        "Source address" => session.source = address(value),
        "Neighbor AS" => session.remote_as = number(value).map(AsNumber),
        "Local AS" => session.local_as = number(value).map(AsNumber),
        "Neighbor ID" => session.router_id = value.parse().ok(),
        "Last error" => session.last_error = Some(value.to_owned()),
        "Hold timer" => session.hold = interval(value),
        "Keepalive timer" => session.keepalive = interval(value),
        "Neighbor graceful restart active" => session.restarting = true,
        "Session" | "Description" | "Neighbor port" | "Connect delay" | "Error wait"
        | "Restart timer" | "LL stale timer" | "Neighbor range" => {}
        _ => return false,
    }
    true
}

fn of_channel(channel: &mut Channel, name: &str, value: &str) {
    match name {
        "State" => channel.up = value == "UP",
        "Routes" => {
            for item in value.split(',') {
                let mut words = item.split_whitespace();
                let count = words.next().and_then(number).unwrap_or_default();
                match words.next() {
                    Some("imported") => channel.imported = count,
                    Some("filtered") => channel.filtered = count,
                    Some("exported") => channel.exported = count,
                    Some("preferred") => channel.preferred = count,
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn capability(
    list: &mut Vec<Capability>,
    part: &mut Part,
    name: &str,
    value: &str,
    asn: Option<AsNumber>,
) {
    let families = || value.split_whitespace().filter_map(family);
    match (*part, name, list.last_mut()) {
        (Part::Multiprotocol, "AF announced", _) => {
            list.extend(families().map(Capability::Multiprotocol));
        }
        (Part::Graceful, "Restart time", Some(Capability::GracefulRestart { time, .. })) => {
            *time = value.parse().unwrap_or_default();
        }
        (
            Part::Graceful,
            "Restart recovery",
            Some(Capability::GracefulRestart { restarted, .. }),
        ) => {
            *restarted = true;
        }
        (
            Part::Graceful,
            "AF supported",
            Some(Capability::GracefulRestart { families: list, .. }),
        ) => {
            list.extend(families().map(|family| GracefulFamily {
                family,
                forwarding: false,
            }));
        }
        (
            Part::Graceful,
            "AF preserved",
            Some(Capability::GracefulRestart { families: list, .. }),
        ) => {
            for preserved in families() {
                for family in list.iter_mut().filter(|one| one.family == preserved) {
                    family.forwarding = true;
                }
            }
        }
        (Part::AddPath, "RX" | "TX", Some(Capability::AddPath(list))) => {
            let mode = match name {
                "RX" => AddPathMode::Receive,
                _ => AddPathMode::Send,
            };
            for family in families() {
                match list.iter_mut().find(|(other, _)| *other == family) {
                    Some((_, mode)) => *mode = AddPathMode::Both,
                    None => list.push((family, mode)),
                }
            }
        }
        (Part::LongLived, "LL stale time", _) => {}
        (Part::LongLived, "AF supported", Some(Capability::LongLivedRestart(list))) => {
            list.extend(families().map(|family| LongLivedFamily {
                family,
                forwarding: false,
                time: 0,
            }));
        }
        _ => {
            let (next, told) = match name {
                "Multiprotocol" => (Part::Multiprotocol, None),
                "Route refresh" => (Part::Other, Some(Capability::RouteRefresh)),
                "Extended next hop" => (Part::Other, Some(Capability::ExtendedNextHop)),
                "Graceful restart" => (
                    Part::Graceful,
                    Some(Capability::GracefulRestart {
                        restarted: false,
                        notification: false,
                        time: 0,
                        families: Vec::new(),
                    }),
                ),
                "4-octet AS numbers" => (Part::Other, asn.map(Capability::FourOctetAs)),
                "ADD-PATH" => (Part::AddPath, Some(Capability::AddPath(Vec::new()))),
                "Enhanced refresh" => (Part::Other, Some(Capability::EnhancedRefresh)),
                "Long-lived graceful restart" => (
                    Part::LongLived,
                    Some(Capability::LongLivedRestart(Vec::new())),
                ),
                _ => return,
            };
            *part = next;
            list.extend(told);
        }
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// What follows the time that is left: `76.612/90`.
fn interval(text: &str) -> u64 {
    let whole = text.split_once('/').map(|(_, whole)| whole);
    whole
        .and_then(|whole| whole.parse().ok())
        .unwrap_or_default()
}

fn family(text: &str) -> Option<Family> {
    match text {
        "ipv4" => Some(Family::V4),
        "ipv6" => Some(Family::V6),
        _ => None,
    }
}

const SUMMARY: u16 = 1002;
const DETAIL: u16 = 1006;
