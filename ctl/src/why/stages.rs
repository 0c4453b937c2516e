//! Where policy decides on the way, and what it says there.

use std::net::IpAddr;

use margay_model::{AnyResource, Key, Kind};
use margay_policy::evaluator::{
    Decision, Direction, HostStage, Packet, Place, State, Step, Verdict, decide,
};
use margay_policy::{PolicyId, TierDefault};
use serde::Serialize;

use super::ends::{End, addresses_of, node_spec};
use super::{Route, World, failsafes, setting};

/// A place where policy decides.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The node.
    pub node: String,
    /// The endpoint and the chain, for people.
    pub place: String,
    /// `egress` or `ingress`.
    pub direction: &'static str,
    /// What has to hold for the packet to pass here, where the datastore does not say whether it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// `Allow`, `Deny`, or `GoesOn`.
    pub verdict: &'static str,
    /// What bears on the packet, in order; the last decides.
    pub steps: Vec<String>,
    /// What would become of it if all staged policies were in force, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    #[serde(skip)]
    last: Option<Step>,
    #[serde(skip)]
    endpoint: String,
}

/// What would become of a packet if all staged policies were in force.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Staged {
    /// `Allow`, `Deny`, or `GoesOn`.
    pub verdict: &'static str,
    /// What would bear on the packet.
    pub steps: Vec<String>,
}

impl Stage {
    pub(super) fn denies(&self) -> bool {
        self.verdict == DENY
    }

    /// What decides, for people.
    pub(super) fn reason(&self) -> String {
        let last = self
            .steps
            .last()
            .map_or("nothing has decided", String::as_str);
        let reason = format!(
            "{} of {} on node {}: {last}",
            self.direction, self.place, self.node
        );
        match &self.condition {
            Some(condition) => format!("{reason} ({condition})"),
            None => reason,
        }
    }

    /// What the user can do where it denies.
    pub(super) fn advice(&self, world: &World) -> String {
        let (direction, endpoint) = (self.direction, &self.endpoint);
        match &self.last {
            Some(Step::Policy {
                policy,
                rule: Some(rule),
                ..
            }) => format!(
                "change {direction} rule {rule} of {policy}, or let a rule or a policy before it allow this"
            ),
            Some(Step::Policy { policy, .. }) => {
                format!("correct {policy}: it denies everything until it can be understood")
            }
            Some(Step::EndOfTier { tier, .. }) => {
                let key = Key::resource(Kind::Tier, tier);
                if tier != "default" && !world.state.resources.contains_key(&key) {
                    return format!("create the Tier {tier}: one that does not exist denies");
                }
                format!(
                    "allow this by an {direction} rule of a policy of tier {tier} that selects {endpoint}, \
                     or give the tier the defaultAction Pass"
                )
            }
            Some(Step::Profile {
                profile,
                rule: None,
                ..
            }) => format!("create or correct the Profile {profile}, or take it from {endpoint}"),
            Some(Step::Profile { profile, .. }) => {
                format!("change the Profile {profile}, or let a policy allow this")
            }
            Some(Step::Nothing) => format!(
                "give {endpoint} a profile that allows this, such as projectcalico-default-allow, or a \
                 policy that does"
            ),
            Some(Step::Failsafe) | None => HOST_ACTION_ADVICE.to_owned(),
        }
    }
}

/// Where policy decides, in the order of the way.
pub(super) fn stages(
    world: &mut World,
    source: &End,
    destination: &End,
    packet: &Packet,
    route: &Route,
) -> Vec<Stage> {
    let near = source.node.is_some() && source.node == destination.node;
    let mut stages = Vec::new();
    if let (Some(id), Some(node)) = (&source.endpoint, &source.node) {
        let place = Place::Workload(id.clone());
        stages.extend(stage(world, node, &place, Direction::Egress, packet, None));
        if near && destination.host {
            stages.push(to_own_host(&world.state, node, &destination.name));
        }
    }
    if !near {
        leaving(world, source, packet, route, &mut stages);
        arriving(world, destination, packet, route, &mut stages);
    }
    // What a host's own processes send to its workloads passes no chain of policy.
    if let (Some(id), Some(node)) = (&destination.endpoint, &destination.node)
        && !(near && source.host)
    {
        let place = Place::Workload(id.clone());
        stages.extend(stage(world, node, &place, Direction::Ingress, packet, None));
    }
    stages
}

fn leaving(
    world: &mut World,
    source: &End,
    packet: &Packet,
    route: &Route,
    stages: &mut Vec<Stage>,
) {
    let Some(node) = &source.node else {
        return;
    };
    for host in hosts(world, node, route) {
        let chains: &[HostStage] = if source.host {
            &[HostStage::Untracked, HostStage::Normal]
        } else {
            &[HostStage::Forward]
        };
        pass(
            world,
            node,
            &host,
            chains,
            Direction::Egress,
            packet,
            stages,
        );
    }
}

fn arriving(
    world: &mut World,
    destination: &End,
    packet: &Packet,
    route: &Route,
    stages: &mut Vec<Stage>,
) {
    let Some(node) = &destination.node else {
        return;
    };
    for host in hosts(world, node, route) {
        let last = if destination.host {
            HostStage::Normal
        } else {
            HostStage::Forward
        };
        let chains = [HostStage::Untracked, HostStage::PreDnat, last];
        pass(
            world,
            node,
            &host,
            &chains,
            Direction::Ingress,
            packet,
            stages,
        );
    }
}

/// Goes through chains of a host endpoint until one decides for all of them.
fn pass(
    world: &mut World,
    node: &str,
    host: &HostEnd,
    chains: &[HostStage],
    direction: Direction,
    packet: &Packet,
    stages: &mut Vec<Stage>,
) {
    for chain in chains {
        let place = Place::Host(host.name.clone(), *chain);
        let Some(found) = stage(
            world,
            node,
            &place,
            direction,
            packet,
            host.condition.clone(),
        ) else {
            continue;
        };
        let early = matches!(chain, HostStage::Untracked | HostStage::PreDnat);
        let silent = found.steps.len() <= 1 && found.last == Some(Step::Nothing);
        let accepted = early && found.verdict == ALLOW;
        // A chain in which nothing is said is not worth a line.
        if found.denies() || !silent || found.staged.is_some() {
            stages.push(found);
        }
        if accepted {
            return;
        }
    }
}

/// A host endpoint that a packet between nodes may pass.
struct HostEnd {
    name: String,
    condition: Option<String>,
}

/// The host endpoints of a node by which packets leave and arrive.
///
/// Those that claim the interface with the node's address are sure; others by name may be passed. The one for
/// every interface has what no other claims. Of packets in a tunnel only that one sees what is inside.
fn hosts(world: &World, node: &str, route: &Route) -> Vec<HostEnd> {
    let spec = node_spec(world, node);
    let addresses: Vec<IpAddr> = spec.map(addresses_of).unwrap_or_default();
    let mut interfaces = spec.iter().flat_map(|spec| &spec.interfaces);
    let uplink = interfaces.find(|interface| {
        let mut own = interface.addresses.iter();
        own.any(|text| {
            let bare = text.split('/').next().unwrap_or_default();
            bare.parse()
                .is_ok_and(|address| addresses.contains(&address))
        })
    });
    let mut wildcard = None;
    let mut sure = Vec::new();
    let mut perhaps = Vec::new();
    for resource in world.state.resources.values() {
        let AnyResource::HostEndpoint(endpoint) = resource else {
            continue;
        };
        if endpoint.spec.node != node {
            continue;
        }
        let name = endpoint.metadata.name.clone();
        let interface = endpoint.spec.interface_name.as_str();
        let expected: Vec<IpAddr> = endpoint
            .spec
            .expected_ips
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        match interface {
            "*" => wildcard = wildcard.or(Some(name)),
            "" if expected.iter().any(|ip| addresses.contains(ip)) => sure.push(name),
            "" => perhaps.push((
                name,
                format!("if it passes the interface with {expected:?}"),
            )),
            named => match uplink {
                Some(uplink) if uplink.name == named => sure.push(name),
                _ => perhaps.push((name, format!("if it passes {named}"))),
            },
        }
    }
    let certain = |name| HostEnd {
        name,
        condition: None,
    };
    if route.is_encapsulated() {
        return wildcard.into_iter().map(certain).collect();
    }
    if let Some(name) = sure.into_iter().next() {
        return vec![certain(name)];
    }
    let mut found: Vec<HostEnd> = Vec::new();
    let none_other = perhaps.is_empty();
    for (name, condition) in perhaps {
        found.push(HostEnd {
            name,
            condition: Some(condition),
        });
    }
    found.extend(wildcard.map(|name| {
        HostEnd {
            name,
            condition: (!none_other)
                .then(|| "if it passes an interface that no other host endpoint has".to_owned()),
        }
    }));
    found
}

fn stage(
    world: &mut World,
    node: &str,
    place: &Place,
    direction: Direction,
    packet: &Packet,
    condition: Option<String>,
) -> Option<Stage> {
    let state = &mut world.state;
    state.failsafes = failsafes(state, node);
    let decision = decide(state, place, direction, packet)?;
    state.staged = true;
    let would = decide(state, place, direction, packet);
    state.staged = false;
    let steps = |decision: &Decision| decision.steps.iter().map(words).collect::<Vec<_>>();
    let staged = would
        .filter(|would| *would != decision)
        .map(|would| Staged {
            verdict: verdict(would.verdict),
            steps: steps(&would),
        });
    let (endpoint, place) = match place {
        Place::Workload(id) => (format!("the endpoint {id}"), format!("workload {id}")),
        Place::Host(name, chain) => {
            let chain = match chain {
                HostStage::Untracked => "untracked",
                HostStage::PreDnat => "before translation",
                HostStage::Forward => "forward",
                HostStage::Normal => "normal",
            };
            (
                format!("the host endpoint {name}"),
                format!("host endpoint {name} ({chain})"),
            )
        }
    };
    Some(Stage {
        node: node.to_owned(),
        place,
        direction: match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        },
        condition,
        verdict: verdict(decision.verdict),
        steps: steps(&decision),
        staged,
        last: decision.steps.last().cloned(),
        endpoint,
    })
}

/// What `defaultEndpointToHostAction` says to what a workload sends its own host.
fn to_own_host(state: &State, node: &str, name: &str) -> Stage {
    let action = setting(state, node, "defaultEndpointToHostAction")
        .and_then(|value| value.as_str())
        .unwrap_or("Drop");
    let verdict = match action.to_ascii_lowercase().as_str() {
        "accept" => ALLOW,
        "return" => GOES_ON,
        _ => DENY,
    };
    Stage {
        node: node.to_owned(),
        place: format!("{name}, from a workload of its own"),
        direction: "ingress",
        condition: None,
        verdict,
        steps: vec![format!("defaultEndpointToHostAction: {action}")],
        staged: None,
        last: None,
        endpoint: String::new(),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => ALLOW,
        Verdict::Deny => DENY,
        Verdict::GoesOn => GOES_ON,
    }
}

/// A step, for people.
fn words(step: &Step) -> String {
    let staged = |policy: &PolicyId| if policy.is_staged() { "would: " } else { "" };
    match step {
        Step::Policy { policy, .. } => format!("{}{step}", staged(policy)),
        Step::EndOfTier {
            tier,
            default: TierDefault::Deny,
        } => format!("tier {tier}: no rule matches, end of tier: Deny"),
        Step::EndOfTier { tier, .. } => format!("tier {tier}: no rule matches, end of tier: Pass"),
        Step::Nothing => "no policy and no profile has decided".to_owned(),
        other => other.to_string(),
    }
}

const ALLOW: &str = "Allow";
const DENY: &str = "Deny";
const GOES_ON: &str = "GoesOn";
const HOST_ACTION_ADVICE: &str = "set defaultEndpointToHostAction to Accept in the FelixConfiguration, \
     or to Return where rules of the host's own decide";
