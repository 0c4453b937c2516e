//! A peer as a protocol of BIRD's.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::{NextHopMode, OverLimit, PeerConfig, Policy, RemoteAs, SpeakerConfig, TtlMode};
use margay_model::Family;
use margay_model::scalar::AsNumber;

use super::filter::{Direction, Filters, Key};
use super::{Daemon, harmless, number};

/// The protocol of a peer.
///
/// # Errors
/// What the peer asks for and BIRD cannot do.
pub(super) fn protocol<'a>(
    daemon: &Daemon<'a>,
    name: &str,
    peer: &'a PeerConfig,
    filters: &mut Filters<'a>,
) -> Result<String, String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_-.:".contains(letter);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
        return Err(format!(
            "{name:?} is no name for BIRD: 1 to {NAME_MAX} letters, digits, or one of _-.:"
        ));
    }
    if peer.scope != 0 {
        return Err("sessions with link-local addresses are not made with BIRD".to_owned());
    }
    let own_as = peer.local_as.unwrap_or(daemon.speaker.asn);
    let (remote, external) = remote_as(peer.remote_as, own_as)?;
    if peer.reflector_client && external {
        return Err("only a peer of our AS can be a reflector's client".to_owned());
    }
    if peer.add_path.send > 0 {
        return Err(
            "BIRD cannot bound the number of paths it announces for a prefix; announce one"
                .to_owned(),
        );
    }
    if peer.timers.send_hold.is_some() {
        return Err("BIRD 2.0 has no send hold time; leave it out".to_owned());
    }
    let mut text = format!("\nprotocol bgp '{name}' {{\n");
    let mut say = |line: String| {
        let _ = writeln!(text, "  {line};");
    };
    if !peer.label.is_empty() {
        say(format!("description \"{}\"", harmless(&peer.label)));
    }
    let source = peer
        .source
        .map_or_else(String::new, |own| format!(" {own}"));
    say(format!("local{source} port {} as {own_as}", daemon.port));
    say(format!(
        "neighbor {} port {} {remote}",
        peer.address, peer.port
    ));
    match peer.ttl {
        TtlMode::Auto if external => say("direct".to_owned()),
        TtlMode::Auto => say("multihop".to_owned()),
        TtlMode::Multihop(hops) => say(format!("multihop {}", hops.max(1))),
        TtlMode::Security(hops) => {
            say(format!("multihop {}", hops.max(1)));
            say("ttl security on".to_owned());
        }
    }
    if daemon.own_addresses_only && peer.source.is_some() {
        say("strict bind on".to_owned());
    }
    if peer.passive {
        say("passive on".to_owned());
    }
    if peer.shutdown.is_some() {
        say("disabled".to_owned());
    }
    if let Some(password) = &peer.password {
        let octets = password.as_bytes();
        let plain = |octet: &u8| *octet >= b' ' && *octet != b'"' && *octet != 0x7f;
        match std::str::from_utf8(octets) {
            Ok(password) if octets.iter().all(plain) => say(format!("password \"{password}\"")),
            _ => {
                return Err(
                    "BIRD's file has no way to write this password: it may not hold a quotation \
                     mark or control characters"
                        .to_owned(),
                );
            }
        }
    }
    times(peer, &mut say);
    let restart = peer.graceful_restart;
    if restart.enabled {
        say("graceful restart on".to_owned());
        let time = seconds(restart.restart_time).min(RESTART_TIME_MAX);
        say(format!("graceful restart time {time}"));
        if let Some(time) = restart.long_lived {
            say("long lived graceful restart on".to_owned());
            say(format!("long lived stale time {}", seconds(time)));
        }
    } else {
        say("graceful restart off".to_owned());
    }
    if peer.allow_own_as > 0 {
        say(format!("allow local as {}", peer.allow_own_as));
    }
    if external && peer.enforce_first_as {
        say("enforce first as on".to_owned());
    }
    if peer.reflector_client {
        say("rr client".to_owned());
    }
    if !external && reflects(daemon.speaker) {
        say(format!("rr cluster id {}", daemon.speaker.cluster()));
    }
    for family in peer.families.iter() {
        text.push_str(&channel(family, peer, external, filters)?);
    }
    text.push_str("}\n");
    Ok(text)
}

fn remote_as(remote: RemoteAs, own: AsNumber) -> Result<(String, bool), String> {
    match remote {
        RemoteAs::Is(asn) => Ok((format!("as {asn}"), asn != own)),
        RemoteAs::External => Ok(("external".to_owned(), true)),
        RemoteAs::Internal => Ok(("internal".to_owned(), false)),
        RemoteAs::Any => Err("BIRD must know whether the peer is of our AS; say which".to_owned()),
    }
}

fn reflects(speaker: &SpeakerConfig) -> bool {
    speaker.peers.values().any(|peer| peer.reflector_client)
}

fn times(peer: &PeerConfig, say: &mut impl FnMut(String)) {
    let times = peer.timers;
    say(format!("hold time {}", seconds(times.hold)));
    if let Some(time) = times.keepalive {
        say(format!("keepalive time {}", seconds(time).max(1)));
    }
    say("connect delay time 1".to_owned());
    let retry = seconds(times.connect_retry).max(1);
    say(format!("connect retry time {retry}"));
    let (first, last) = (
        seconds(times.error_wait).max(1),
        seconds(times.error_wait_max),
    );
    say(format!("error wait time {first}, {}", last.max(first)));
}

/// The routes of a family. What is received and sent is kept as it is, so that people can see it and a
/// changed filter asks the peer for nothing.
fn channel<'a>(
    family: Family,
    peer: &'a PeerConfig,
    external: bool,
    filters: &mut Filters<'a>,
) -> Result<String, String> {
    let v = number(family);
    let mut text = format!("  ipv{v} {{\n");
    let mut say = |line: String| {
        let _ = writeln!(text, "    {line};");
    };
    let mut filter = |policy: &'a Option<Arc<Policy>>, direction| match policy {
        // RFC 8212: nothing without policy, but within the AS.
        None if external => Ok("none".to_owned()),
        None => Ok(match direction {
            Direction::Import => "all".to_owned(),
            Direction::Export => "where source = RTS_BGP || source = RTS_STATIC".to_owned(),
        }),
        Some(policy) => filters
            .name(Key {
                policy,
                direction,
                family,
                external,
                next_hop: peer.next_hop,
            })
            .map(|name| format!("filter {name}")),
    };
    say(format!(
        "import {}",
        filter(&peer.import, Direction::Import)?
    ));
    say(format!(
        "export {}",
        filter(&peer.export, Direction::Export)?
    ));
    say("import keep filtered on".to_owned());
    say("import table on".to_owned());
    say("export table on".to_owned());
    say(format!("igp table margay_igp{v}"));
    say("gateway recursive".to_owned());
    match peer.next_hop {
        NextHopMode::Auto if external => say("next hop self on".to_owned()),
        NextHopMode::Auto => {}
        NextHopMode::Own => say("next hop self on".to_owned()),
        NextHopMode::Keep => say("next hop keep on".to_owned()),
    }
    if peer.add_path.receive {
        say("add paths rx".to_owned());
    }
    if peer.extended_next_hop && family == Family::V4 {
        say("extended next hop on".to_owned());
        say("igp table margay_igp6".to_owned());
    }
    if let Some(most) = peer.max_prefixes.get(family) {
        let action = match most.over {
            OverLimit::Discard => "block",
            OverLimit::Stop { restart: Some(_) } => "restart",
            OverLimit::Stop { restart: None } => "disable",
        };
        say(format!("receive limit {} action {action}", most.limit));
    }
    text.push_str("  };\n");
    Ok(text)
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The longest name of BIRD's (`SYM_MAX_LEN`, with its end).
const NAME_MAX: usize = 63;
/// What the capability has room for (RFC 4724 §3).
const RESTART_TIME_MAX: u64 = 4095;
