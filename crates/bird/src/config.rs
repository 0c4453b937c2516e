//! The configuration of a BIRD.

mod expression;
mod filter;
mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use margay_bgp::policy::PrefixSet;
use margay_bgp::{LocalRoute, Origin, SpeakerConfig};
use margay_model::{Cidr, Family};

use filter::Filters;

/// What a BIRD is to do.
#[derive(Debug, Clone, Copy)]
pub struct Daemon<'a> {
    /// Identity, peers and policies.
    pub speaker: &'a SpeakerConfig,
    /// Own routes.
    pub routes: &'a BTreeMap<Cidr, LocalRoute>,
    /// The TCP port on which connections are awaited.
    pub port: u16,
    /// Whether they are awaited on the node's own addresses only.
    pub own_addresses_only: bool,
    /// Kernel priority of learned routes, IPv4 and IPv6.
    pub priorities: (u32, u32),
    /// Prefixes that others than BIRD route in the kernel, or that are not to be routed; BIRD leaves them
    /// out.
    pub spared: &'a PrefixSet,
    /// Workloads with which the node has sessions: the kernel's routes to them lead to next hops.
    pub workloads: &'a BTreeSet<IpAddr>,
    /// Whether the kernel's routes stay when BIRD ends.
    pub persist: bool,
}

/// A configuration, and what could not be put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The file's text. It holds passwords.
    pub text: String,
    /// Peers that are left out, by name, with what BIRD cannot do for them.
    pub left_out: BTreeMap<String, String>,
}

/// The whole configuration. The same arguments give the same text.
#[must_use]
pub fn configuration(daemon: &Daemon<'_>) -> Configuration {
    let speaker = daemon.speaker;
    let mut filters = Filters::new(daemon);
    let mut left_out = BTreeMap::new();
    let mut peers = String::new();
    let mut used = [speaker.address_v4.is_some(), speaker.address_v6.is_some()];
    for (name, peer) in &speaker.peers {
        match peer::protocol(daemon, name, peer, &mut filters) {
            Ok(text) => {
                used[0] |= peer.families.v4;
                used[1] |= peer.families.v6 || peer.extended_next_hop;
                peers.push_str(&text);
            }
            Err(reason) => {
                left_out.insert(name.clone(), reason);
            }
        }
    }
    for name in speaker.ranges.keys() {
        let reason = "ranges of dynamic peers are not made with BIRD; name the peers".to_owned();
        left_out.insert(name.clone(), reason);
    }
    let mut text = base(speaker);
    for (family, _) in FAMILIES.into_iter().zip(used).filter(|(_, used)| *used) {
        text.push_str(&tables(daemon, family));
    }
    text.push_str(&filters.text);
    text.push_str(&peers);
    Configuration { text, left_out }
}

fn base(speaker: &SpeakerConfig) -> String {
    // Times are told so that they can be read without knowing the time zone.
    format!(
        "# Written by margay-agent; changes are lost.\n\
         log stderr {{ warning, error, fatal, bug, auth }};\n\
         router id {};\n\
         graceful restart wait {};\n\
         timeformat protocol \"%FT%TZ\";\n\
         timeformat route \"%FT%TZ\";\n\
         attribute int {TAG};\n\
         attribute int {PRIORITY};\n\
         protocol device margay_device {{ scan time 10; }}\n",
        speaker.router_id,
        speaker.deferral.as_secs().clamp(1, 10),
    )
}

/// The tables of a family: own routes, the machine's links and routes for next hops, the kernel.
fn tables(daemon: &Daemon<'_>, family: Family) -> String {
    let v = number(family);
    let (channel, metric) = match family {
        Family::V4 => ("ipv4", daemon.priorities.0),
        Family::V6 => ("ipv6", daemon.priorities.1),
    };
    let ways = daemon.speaker.multipath;
    let persist = if daemon.persist { "persist; " } else { "" };
    let mut text = format!("\n{channel} table margay_igp{v};\n");
    let own = daemon.routes.iter().filter(|(p, _)| p.family() == family);
    let own: Vec<String> = own.map(|(_, route)| own_route(route)).collect();
    let _ = write!(
        text,
        "protocol static margay_own{v} {{ {channel};{}}}\n\
         protocol direct margay_links{v} {{ {channel} {{ table margay_igp{v}; }}; }}\n\
         protocol pipe margay_ways{v} {{ table margay_igp{v}; peer table master{v}; \
         import where source = RTS_INHERIT; export none; }}\n",
        match own.as_slice() {
            [] => String::new(),
            own => format!("\n{}", own.concat()),
        }
    );
    let spared = expression::items(daemon.spared, family);
    let (within, without) = match spared.as_slice() {
        [] => (String::new(), String::new()),
        spared => {
            let name = format!("margay_spared{v}");
            let _ = writeln!(text, "define {name} = [ {} ];", spared.join(", "));
            (format!(" || net ~ {name}"), format!(" && net !~ {name}"))
        }
    };
    let host = family.width();
    let workloads = daemon.workloads.iter();
    let workloads = workloads.map(|address| Cidr::host(*address));
    let workloads: Vec<String> = workloads
        .filter(|single| single.family() == family)
        .map(|single| single.to_string())
        .collect();
    let workloads = match workloads.as_slice() {
        [] => String::new(),
        some => format!("if net ~ [ {} ] then accept; ", some.join(", ")),
    };
    // Of the agent's routes only those to single gateways and to workloads with sessions may lead to a
    // next hop.
    let _ = write!(
        text,
        "protocol kernel margay_kernel{v} {{\n\
         \x20 learn; {persist}scan time 2; metric {metric}; merge paths on limit {ways}; graceful restart;\n\
         \x20 {channel} {{\n\
         \x20   import filter {{ {workloads}if (krt_source = {AGENT_PROTOCOL} && net.len < {host}){within} then reject; accept; }};\n\
         \x20   export where source = RTS_BGP && dest = RTD_UNICAST{without};\n\
         \x20 }};\n}}\n",
    );
    text
}

/// An own route: packets to it are the agent's matter, BIRD only tells of it.
fn own_route(route: &LocalRoute) -> String {
    let mut said = format!("{TAG} = {};", route.tag);
    if let Some(priority) = route.priority {
        let _ = write!(said, " {PRIORITY} = {priority};");
    }
    match route.origin {
        Origin::Igp => {}
        Origin::Egp => said.push_str(" bgp_origin = ORIGIN_EGP;"),
        Origin::Incomplete => said.push_str(" bgp_origin = ORIGIN_INCOMPLETE;"),
    }
    if let Some(value) = route.local_pref {
        let _ = write!(said, " bgp_local_pref = {value};");
    }
    if let Some(value) = route.med {
        let _ = write!(said, " bgp_med = {value};");
    }
    for community in &route.communities {
        let pair = expression::pair(*community);
        let _ = write!(said, " bgp_community.add({pair});");
    }
    for community in &route.large_communities {
        let triple = expression::triple(*community);
        let _ = write!(said, " bgp_large_community.add({triple});");
    }
    if let Some(address) = route.next_hop {
        let _ = write!(said, " bgp_next_hop = {address};");
    }
    format!("  route {} blackhole {{ {said} }};\n", route.prefix)
}

/// A text within a comment or a description.
fn harmless(text: &str) -> String {
    let one = |letter: char| match letter {
        '"' | '\\' => '\'',
        letter if letter.is_control() => ' ',
        letter => letter,
    };
    text.chars().map(one).collect()
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// BIRD's protocol number of kernel routes (`RTPROT_BIRD`, `linux/rtnetlink.h`).
pub const KERNEL_PROTOCOL: u8 = 12;
/// The protocol number of the agent's routes.
const AGENT_PROTOCOL: u8 = 80;
/// The attribute with an own route's tag.
const TAG: &str = "margay_tag";
/// The attribute with an own route's kernel priority.
const PRIORITY: &str = "margay_priority";
