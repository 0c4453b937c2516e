//! The base chains: where packets come in, and what holds for every endpoint.

use margay_model::{Cidr, Family};
use margay_policy::Failsafe;

use super::class::{ANSWERS_IN, ANSWERS_OUT, FAILSAFE_IN, FAILSAFE_OUT};
use super::denial;
use super::endpoint::{
    self, CONNECTIONS_FROM, CONNECTIONS_TO, MAC_CHECKED, MACS, RATE_FROM, RATE_TO,
};
use super::host::{self, Wildcards};
use super::interval;
use super::rule::port_set;
use super::settings::{Direction, EndpointToHost, ICMPV6, Node, SCTP, Settings, TCP, UDP};
use crate::datatype::{CT_ESTABLISHED, CT_INVALID, CT_RELATED, CT_UNTRACKED};
use crate::{
    Base, Chain, ChainKind, DataType, Element, Field, Hook, Key, Rule, Set, Side, Statement, Table,
    Verdict,
};

/// The sets that never change.
pub(super) fn add_sets(settings: &Settings, table: &mut Table) {
    let invalid = settings
        .drop_invalid
        .then(|| Verdict::Goto(INVALID.to_owned()));
    let accepted = [CT_ESTABLISHED, CT_RELATED].map(|state| (state, Some(Verdict::Accept)));
    let workload = accepted
        .clone()
        .into_iter()
        .chain([(CT_INVALID, invalid.clone())]);
    table.put_set(STATES, states(workload));
    // Untracked packets of workloads are new; a host endpoint's own untracked policy is asked
    // before, so that others' untracked packets come no further than with `Allow`.
    let untracked = [(CT_UNTRACKED, Some(Verdict::Accept)), (CT_INVALID, invalid)];
    table.put_set(
        HOST_STATES,
        states(accepted.clone().into_iter().chain(untracked)),
    );
    table.put_set(ACCEPTED_STATES, states(accepted));
    let nd = Set::new([DataType::Icmpv6Type]).commented("neighbour and listener discovery");
    table.put_set(ND, nd.with(ND_TYPES.iter().map(|kind| Key::of([*kind]))));
    let nd = Set::new([DataType::Icmpv6Type]).commented("the same, and what routers send");
    let types = ND_TYPES.iter().chain(&ROUTER_TYPES);
    table.put_set(HOST_ND, nd.with(types.map(|kind| Key::of([*kind]))));
    for (name, failsafe) in [
        (FAILSAFE_IN, &settings.failsafes.inbound),
        (FAILSAFE_OUT, &settings.failsafes.outbound),
    ] {
        let open = failsafe.iter().filter(|failsafe| failsafe.net.is_none());
        let ports = open.map(|failsafe| (failsafe.protocol, failsafe.port, failsafe.port));
        table.put_set(name, port_set(ports));
    }
    host::add_sets(table);
}

/// The nodes whose tunnels no policy of host endpoints cuts.
pub(super) fn put_tunnel_peers(node: &Node, table: &mut Table) {
    for family in [Family::V4, Family::V6] {
        let peers = node.tunnel_peers.iter();
        let peers = peers.filter(|address| Family::of(**address) == family);
        let set = Set::new([DataType::address(family)]).commented("nodes with VXLAN");
        let set = set.with(peers.map(|address| Key::of(interval::octets(*address))));
        table.put_set(tunnel_peers(family), set);
    }
}

fn tunnel_peers(family: Family) -> &'static str {
    match family {
        Family::V4 => "tunnel-peers4",
        Family::V6 => "tunnel-peers6",
    }
}

/// VXLAN between nodes, which carries what policy has been asked about already.
fn tunnelled(settings: &Settings, side: Side) -> impl Iterator<Item = Rule> {
    let port = settings.vxlan_port.to_be_bytes();
    [Family::V4, Family::V6].into_iter().map(move |family| {
        let statements = [
            Statement::Family(family),
            Statement::protocol(UDP),
            Statement::is(Field::Port(Side::Destination), port),
            Statement::within([Field::Address(side, family)], tunnel_peers(family)),
        ];
        Rule::new(statements).then(Verdict::Accept)
    })
}

fn states(states: impl IntoIterator<Item = (u32, Option<Verdict>)>) -> Set {
    let mut set = Set::verdicts([DataType::CtState]);
    for (state, verdict) in states {
        if let Some(verdict) = verdict {
            set.elements
                .insert(Key::of(state.to_ne_bytes()), Element::verdict(verdict));
        }
    }
    set
}

/// The chains. Those of host endpoints are there only if `wildcards` says which claims every
/// interface, if any: packets need not pass chains that decide nothing.
pub(super) fn put_chains(settings: &Settings, wildcards: Option<&Wildcards>, table: &mut Table) {
    put_invalid(settings, table);
    put_raw(settings, wildcards, table);
    put_forward(settings, table);
    put_local(settings, table);
    put_failsafe(settings, table);
    match wildcards {
        Some(wildcards) => put_hosts(settings, wildcards, table),
        None => HOST_CHAINS
            .iter()
            .for_each(|chain| table.remove_chain(chain)),
    }
}

fn put_invalid(settings: &Settings, table: &mut Table) {
    let rule = Rule::new([Statement::Counter]).then(Verdict::Drop);
    let chain = Chain::regular([rule.commented("invalid state of connection")]);
    denial::put_chain(settings, None, INVALID, chain, table);
}

/// Before connection tracking: what nobody may send, and host endpoints' untracked policy.
fn put_raw(settings: &Settings, wildcards: Option<&Wildcards>, table: &mut Table) {
    let mut raw = Vec::new();
    if let Some(gateway) = settings.gateway {
        let to = Field::Address(Side::Destination, Family::V4);
        let is_gateway = Statement::is(to, gateway.octets());
        let what = [Statement::Family(Family::V4), is_gateway];
        // Its route leads to lo: a packet would go round until its time to live is spent.
        raw.push(dropped(what, "the workloads' gateway is nobody's address"));
    }
    raw.extend(limited(table, Field::InInterface, RATE_FROM));
    raw.extend(each_prefix(
        settings,
        Field::InInterface,
        &Verdict::Jump(SENT.to_owned()),
    ));
    if let Some(wildcards) = wildcards {
        // What the host's own chains let pass later must get there.
        raw.extend(tunnelled(settings, Side::Source));
        let wildcard = wildcards.raw_from.as_deref();
        raw.extend(host::dispatch(host::RAW_FROM, wildcard, Field::InInterface));
    }
    let raw = Chain::base(Base::filter(Hook::Prerouting, RAW), raw);
    denial::put_chain(settings, None, "raw-pre", raw, table);
    put_sent(settings, table);
}

/// What a workload may send at all.
fn put_sent(settings: &Settings, table: &mut Table) {
    let interface = Field::InInterface;
    let port = |side, port: u16| Statement::is(Field::Port(side), port.to_be_bytes());
    let v6 = Statement::Family(Family::V6);
    let icmpv6 = |kind: u8| {
        let kind = Statement::is(Field::IcmpType(Family::V6), [kind]);
        [v6.clone(), Statement::protocol(ICMPV6), kind]
    };
    let mac = [
        Statement::within([interface], MAC_CHECKED),
        Statement::is(Field::EthernetIn, ETHERNET.to_ne_bytes()),
        Statement::without([interface, Field::SourceMac], MACS),
    ];
    let dhcp4 = [
        Statement::Family(Family::V4),
        Statement::protocol(UDP),
        port(Side::Source, 67),
        port(Side::Destination, 68),
    ];
    let dhcp6 = [
        v6.clone(),
        Statement::protocol(UDP),
        port(Side::Source, 547),
        port(Side::Destination, 546),
    ];
    let mut rules = vec![
        dropped(mac, "spoofed MAC address"),
        dropped(dhcp4, "DHCP server in a workload"),
        dropped(dhcp6, "DHCPv6 server in a workload"),
        dropped(
            icmpv6(ROUTER_ADVERTISEMENT),
            "router advertisement from a workload",
        ),
        dropped(icmpv6(REDIRECT), "redirect from a workload"),
    ];
    for family in [Family::V4, Family::V6] {
        let source = Field::Address(Side::Source, family);
        for set in [endpoint::sources(family), endpoint::spoofable(family)] {
            let known = Statement::within([interface, source], set);
            rules.push(Rule::new([Statement::Family(family), known]).then(Verdict::Accept));
        }
    }
    for prefix in [LINK_LOCAL, UNSPECIFIED] {
        // invariant: both are prefixes.
        let Ok(prefix) = prefix.parse::<Cidr>() else {
            continue;
        };
        let from = Statement::Prefix {
            side: Side::Source,
            prefix,
            negated: false,
        };
        let nd = nd_statements(ND);
        let statements: Vec<_> = nd.into_iter().chain([from]).collect();
        rules.push(Rule::new(statements).then(Verdict::Accept));
    }
    rules.push(dropped([], "spoofed source address"));
    let chain = Chain::regular(rules).commented("what workloads may send at all");
    denial::put_chain(settings, Some(Direction::Egress), SENT, chain, table);
}

/// What passes through: each workload's egress, then each workload's ingress.
fn put_forward(settings: &Settings, table: &mut Table) {
    let (iif, oif) = (Field::InInterface, Field::OutInterface);
    let mut from = vec![Rule::new([Statement::dispatch([Field::CtState], STATES)])];
    from.extend(limited(table, iif, CONNECTIONS_FROM));
    from.push(Rule::new([Statement::dispatch([iif], endpoint::FROM)]));
    from.extend(unknown(settings, iif));
    let from = Chain::base(Base::filter(Hook::Forward, -5), from);
    denial::put_chain(settings, Some(Direction::Egress), "fwd-from", from, table);
    let mut to: Vec<_> = limited(table, oif, RATE_TO).into_iter().collect();
    to.push(Rule::new([Statement::dispatch([Field::CtState], STATES)]));
    to.extend(limited(table, oif, CONNECTIONS_TO));
    to.push(Rule::new([Statement::dispatch([oif], endpoint::TO)]));
    to.extend(unknown(settings, oif));
    let to = Chain::base(Base::filter(Hook::Forward, -4), to);
    denial::put_chain(settings, Some(Direction::Ingress), "fwd-to", to, table);
}

/// What workloads send to the host itself.
fn put_local(settings: &Settings, table: &mut Table) {
    let iif = Field::InInterface;
    let nd = || Rule::new(nd_statements(ND)).then(Verdict::Accept);
    let mut from = vec![
        Rule::new([Statement::dispatch([Field::CtState], STATES)]),
        nd(),
    ];
    from.extend(limited(table, iif, CONNECTIONS_FROM));
    from.push(Rule::new([Statement::dispatch([iif], endpoint::FROM)]));
    from.extend(unknown(settings, iif));
    let from = Chain::base(Base::filter(Hook::Input, -5), from);
    denial::put_chain(settings, Some(Direction::Egress), "in-from", from, table);
    let to_host = each_prefix(settings, iif, &Verdict::Jump(TO_HOST.to_owned()));
    table.put_chain(
        "in-host",
        Chain::base(Base::filter(Hook::Input, -4), to_host),
    );
    let action = match settings.endpoint_to_host {
        EndpointToHost::Accept => Rule::default().then(Verdict::Accept),
        EndpointToHost::Drop => dropped([], "workload to host: defaultEndpointToHostAction"),
    };
    let states = Rule::new([Statement::dispatch([Field::CtState], STATES)]);
    let to_host = Chain::regular([states, nd(), action]);
    denial::put_chain(settings, Some(Direction::Egress), TO_HOST, to_host, table);
}

/// The host's own traffic with the network, and what passes through from and to the network.
fn put_hosts(settings: &Settings, wildcards: &Wildcards, table: &mut Table) {
    let (iif, oif) = (Field::InInterface, Field::OutInterface);
    let mut put = |chain: &str, base: Base, field, map, wildcard: &Option<String>, states| {
        let mut rules = each_prefix(settings, field, &Verdict::Accept);
        // What policy before destination translation has accepted, the ingress need not decide.
        if matches!(map, host::IN | host::FWD_FROM) {
            rules.push(accepted_before(settings));
        }
        if let Some(states) = states {
            rules.push(Rule::new([Statement::dispatch([Field::CtState], states)]));
        }
        match map {
            host::IN | host::PRE_DNAT => rules.extend(tunnelled(settings, Side::Source)),
            host::OUT | host::RAW_TO => rules.extend(tunnelled(settings, Side::Destination)),
            _ => {}
        }
        rules.extend(host::dispatch(map, wildcard.as_deref(), field));
        table.put_chain(chain, Chain::base(base, rules));
    };
    let [raw_out, pre_dnat, fwd_from, fwd_to, input, output] = HOST_CHAINS;
    let (states, accepted) = (Some(HOST_STATES), Some(ACCEPTED_STATES));
    let base = Base::filter;
    let w = wildcards;
    put(
        raw_out,
        base(Hook::Output, RAW),
        oif,
        host::RAW_TO,
        &w.raw_to,
        None,
    );
    let before_dnat = base(Hook::Prerouting, PRE_DNAT);
    put(
        pre_dnat,
        before_dnat,
        iif,
        host::PRE_DNAT,
        &w.pre_dnat,
        accepted,
    );
    put(
        fwd_from,
        base(Hook::Forward, -6),
        iif,
        host::FWD_FROM,
        &w.fwd_from,
        states,
    );
    put(
        fwd_to,
        base(Hook::Forward, -3),
        oif,
        host::FWD_TO,
        &w.fwd_to,
        states,
    );
    put(
        input,
        base(Hook::Input, -3),
        iif,
        host::IN,
        &w.to_host,
        states,
    );
    put(
        output,
        base(Hook::Output, -5),
        oif,
        host::OUT,
        &w.from_host,
        states,
    );
}

fn put_failsafe(settings: &Settings, table: &mut Table) {
    let (near, far) = (Side::Source, Side::Destination);
    let (incoming, outgoing) = (&settings.failsafes.inbound, &settings.failsafes.outbound);
    for (chain, set, failsafe, port, address) in [
        (FAILSAFE_IN, FAILSAFE_IN, incoming, far, near),
        (FAILSAFE_OUT, FAILSAFE_OUT, outgoing, far, far),
        (ANSWERS_IN, FAILSAFE_OUT, outgoing, near, near),
        (ANSWERS_OUT, FAILSAFE_IN, incoming, near, far),
    ] {
        let all = Statement::within([Field::Protocol, Field::Port(port)], set);
        let all = Rule::new([all, Statement::Counter]).then(Verdict::Accept);
        let some = failsafe
            .iter()
            .filter_map(|failsafe| one(failsafe, port, address));
        // Without its neighbours an IPv6 host has no network at all.
        let nd = Rule::new(nd_statements(HOST_ND)).then(Verdict::Accept);
        let rules = [all.commented("failsafe"), nd].into_iter().chain(some);
        table.put_chain(chain, Chain::regular(rules));
    }
}

/// A port that is open to a prefix only.
fn one(failsafe: &Failsafe, port: Side, address: Side) -> Option<Rule> {
    let prefix = failsafe.net?;
    let rule = Rule::new([
        Statement::Family(prefix.family()),
        Statement::Prefix {
            side: address,
            prefix,
            negated: false,
        },
        Statement::protocol(failsafe.protocol),
        Statement::is(Field::Port(port), failsafe.port.to_be_bytes()),
        Statement::Counter,
    ]);
    Some(rule.then(Verdict::Accept).commented("failsafe"))
}

/// Source translation for what leaves the pools.
pub(super) fn put_nat(node: &Node, table: &mut Table) {
    let mut rules = Vec::new();
    for family in [Family::V4, Family::V6] {
        let digit = super::names::digit(family);
        let nat = node
            .pools
            .iter()
            .filter(|pool| pool.nat_outgoing)
            .map(|pool| &pool.cidr);
        let inside = node.pools.iter().map(|pool| &pool.cidr);
        let excluded = inside.chain(&node.nat.excluded);
        let nets = || Set::new([DataType::address(family)]).with_intervals();
        let (from, to) = (format!("nat-from{digit}"), format!("nat-not-to{digit}"));
        table.put_set(&from, nets().with(interval::keys(nat, family)));
        table.put_set(&to, nets().with(interval::keys(excluded, family)));
        if table.sets()[&from].elements.is_empty() {
            continue;
        }
        let leaving = [
            Statement::Family(family),
            Statement::within([Field::Address(Side::Source, family)], &from),
            Statement::without([Field::Address(Side::Destination, family)], &to),
        ];
        let address = node
            .nat
            .addresses
            .iter()
            .find(|address| Family::of(**address) == family);
        let translation = |ports| match address {
            Some(address) => Statement::SourceNat {
                address: *address,
                ports,
            },
            None => Statement::Masquerade { ports },
        };
        let with_ports = node.nat.ports.iter().flat_map(|ports| {
            [TCP, UDP, SCTP].map(|protocol| (Some(Statement::protocol(protocol)), Some(*ports)))
        });
        for (protocol, ports) in with_ports.chain([(None, None)]) {
            let statements = leaving.iter().cloned().chain(protocol);
            let end = [Statement::Counter, translation(ports)];
            let statements: Vec<_> = statements.chain(end).collect();
            rules.push(Rule::new(statements).commented("natOutgoing"));
        }
    }
    // A base chain of translation makes every new connection dearer, also where it has no rules.
    if rules.is_empty() {
        table.remove_chain(NAT);
        return;
    }
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: AFTER_SRCNAT,
    };
    table.put_chain(NAT, Chain::base(base, rules));
}

fn accepted_before(settings: &Settings) -> Rule {
    let mask = settings.marks.accepted;
    let marked = Statement::Marked { mask, value: mask };
    let clear = Statement::SetMark { mask, value: 0 };
    Rule::new([marked, clear]).then(Verdict::Accept)
}

fn nd_statements(types: &str) -> Vec<Statement> {
    vec![
        Statement::Family(Family::V6),
        Statement::protocol(ICMPV6),
        Statement::within([Field::IcmpType(Family::V6)], types),
    ]
}

/// One rule for each prefix of workloads' interfaces.
fn each_prefix(settings: &Settings, field: Field, verdict: &Verdict) -> Vec<Rule> {
    let prefixes = settings.workload_prefixes.iter();
    let rules = prefixes.map(|prefix| {
        let interface = Statement::Interface {
            field,
            prefix: prefix.clone(),
            negated: false,
        };
        Rule::new([interface]).then(verdict.clone())
    });
    rules.collect()
}

/// What looks for the limit of an interface, where any has one.
fn limited(table: &Table, field: Field, map: &str) -> Option<Rule> {
    let any = !table.sets()[map].elements.is_empty();
    any.then(|| Rule::new([Statement::dispatch([field], map)]))
}

/// An interface of a workload that has no policy yet, or no longer.
fn unknown(settings: &Settings, field: Field) -> Vec<Rule> {
    let mut rules = each_prefix(settings, field, &Verdict::Drop);
    for rule in &mut rules {
        rule.statements.insert(1, Statement::Counter);
        *rule = std::mem::take(rule).commented("no policy for this interface");
    }
    rules
}

fn dropped(statements: impl IntoIterator<Item = Statement>, comment: &str) -> Rule {
    let statements: Vec<_> = statements.into_iter().chain([Statement::Counter]).collect();
    Rule::new(statements).then(Verdict::Drop).commented(comment)
}

/// The base chains that are there for host endpoints only.
const HOST_CHAINS: [&str; 6] = [
    "raw-out",
    "pre-dnat",
    "fwd-hep-from",
    "fwd-hep-to",
    "in-hep",
    "out-hep",
];

/// Chains and sets that are always there, by what they are for.
pub(super) const SENT: &str = "sent";
pub(super) const TO_HOST: &str = "to-host";
pub(super) const INVALID: &str = "invalid";
pub(super) const NAT: &str = "nat-post";
const STATES: &str = "states";
const HOST_STATES: &str = "host-states";
const ACCEPTED_STATES: &str = "accepted-states";
const ND: &str = "nd";
const HOST_ND: &str = "host-nd";

// linux/netfilter_ipv4.h: NF_IP_PRI_*. Behind connection tracking, before others' translation;
// and behind kube-proxy's.
const RAW: i32 = -300;
const PRE_DNAT: i32 = -110;
const AFTER_SRCNAT: i32 = 110;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
// RFC 4861, RFC 2710, RFC 3810.
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
const ND_TYPES: [u8; 6] = [131, 132, 133, 135, 136, 143];
const ROUTER_TYPES: [u8; 2] = [130, ROUTER_ADVERTISEMENT];
const LINK_LOCAL: &str = "fe80::/10";
const UNSPECIFIED: &str = "::/128";
