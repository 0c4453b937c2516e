//! What the agent tells of itself on its socket, as `margayctl node status` reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_model::status::EndpointState;
use margay_model::{Cidr, Key};
use margay_route::{PROTOCOL_BOOT, PROTOCOL_KERNEL, Route, RouteKey, RouteKind};
use serde::Serialize;

use crate::bgp::view::BgpStatus;
use crate::calculate::{Origin, Picture, Placed, Source, Unreachable};
use crate::state::{Block, State};

/// The state of the node as its agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// What tells the machine from others.
    pub machine: String,
    /// Whether the kernel is as it should be and the node's name is held.
    pub ready: bool,
    /// Whether the store is being followed, or why not.
    pub datastore: String,
    /// The node's blocks, and those out of which it uses addresses.
    pub blocks: Vec<BlockStatus>,
    /// Routes that the agent keeps.
    pub routes: Vec<RouteStatus>,
    /// The node's endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// Nodes that cannot be reached from here.
    pub unreachable: Vec<Unreachable>,
    /// What people should look at.
    pub problems: Vec<String>,
    /// Objects in the store that cannot be used.
    pub bad_objects: Vec<BadObject>,
    /// Why dead containers' endpoints are not given back, where that is held.
    pub cleanup_held: Option<String>,
    /// Why what nodes that are gone held is not given back, where that is held.
    pub gone_held: Option<String>,
    /// BGP.
    pub bgp: BgpStatus,
    /// What is wrong with the objects that policy is made of.
    pub policy_problems: Vec<String>,
    /// Rules of other programs that can drop workloads' packets, with the remedy.
    pub other_rules: Vec<String>,
    /// Why the policy in force is not that of the datastore, if it is not.
    pub policy_refused: Option<String>,
    /// Why policy does not follow the datastore for now, where that is held back.
    pub policy_held: Option<String>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockStatus {
    /// Its prefix.
    pub cidr: Cidr,
    /// The node it belongs to.
    pub owner: Option<String>,
    /// Number of its addresses that the owner uses.
    pub local: usize,
    /// Number of its addresses that other nodes use.
    pub borrowed: usize,
}

/// A route that the agent keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    /// Its destination.
    pub destination: IpNetwork,
    /// The gateway, if it has one.
    pub via: Option<IpAddr>,
    /// The interface; none for a blackhole.
    pub interface: Option<String>,
    /// Who installed it: the kernel's name, or a number.
    pub protocol: String,
    /// Where the agent knows it from: own, store, vxlan or bgp.
    pub origin: Option<Origin>,
    /// Why it is wanted.
    pub source: String,
    /// Whether it is in the kernel.
    pub installed: bool,
}

/// An endpoint of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    /// `<orchestrator>/<namespace>/<workload>/<endpoint>`.
    pub name: String,
    /// The host end's interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `up`, `down` or `error`.
    pub state: String,
    /// Why it is not up.
    pub reason: Option<String>,
}

/// An object in the store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadObject {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
}

impl Status {
    /// Takes over what store and calculation say; `missing` are the routes that are not in the kernel, `stands` how
    /// endpoints stand.
    pub fn describe(
        &mut self,
        state: &State,
        picture: &Picture,
        missing: &BTreeSet<RouteKey>,
        stands: &Stands,
    ) {
        state.node().clone_into(&mut self.node);
        let node = state.node();
        let concerns = |block: &&Block| {
            block.node.as_deref() == Some(node) || block.borrowed.values().any(|user| user == node)
        };
        let blocks = state.blocks().iter().filter(|(_, block)| concerns(block));
        self.blocks = blocks
            .map(|(cidr, block)| BlockStatus {
                cidr: *cidr,
                owner: block.node.clone(),
                local: block.used - block.borrowed.len(),
                borrowed: block.borrowed.len(),
            })
            .collect();
        let view = |route: &Route, origin, source, installed| {
            let hop = match &route.kind {
                RouteKind::Unicast { via } => via.first(),
                _ => None,
            };
            RouteStatus {
                destination: route.dst,
                via: hop.and_then(|hop| hop.gateway),
                interface: hop.map(|hop| hop.interface.clone()),
                protocol: protocol(route.protocol),
                origin,
                source,
                installed,
            }
        };
        let kept = picture.desired.routes().map(|route| {
            let key = route.key();
            let source = picture.sources.get(&key);
            let words = source.map(ToString::to_string).unwrap_or_default();
            let installed = !missing.contains(&key);
            view(route, source.map(Source::origin), words, installed)
        });
        let elsewhere = picture.elsewhere.iter().map(|route| {
            let words = "announced by a BGP peer, kept by BIRD".to_owned();
            view(route, Some(Origin::Bgp), words, true)
        });
        self.routes = kept.chain(elsewhere).collect();
        self.endpoints = state
            .endpoints()
            .iter()
            .map(|(key, endpoint)| {
                let (state, reason) = match stands.get(key) {
                    Some((state, reason)) => (state.as_str().to_owned(), reason.clone()),
                    None => (EndpointState::Down.as_str().to_owned(), None),
                };
                EndpointStatus {
                    name: endpoint.to_string(),
                    interface: endpoint.interface.clone(),
                    addresses: endpoint.addresses.iter().copied().collect(),
                    state,
                    reason,
                }
            })
            .collect();
        self.unreachable.clone_from(&picture.unreachable);
        self.problems = picture.problems.iter().map(ToString::to_string).collect();
        let bad = state.bad().iter();
        self.bad_objects = bad
            .map(|(key, reason)| BadObject {
                key: key.to_string(),
                reason: reason.clone(),
            })
            .collect();
    }
}

/// How this node's endpoints stand, and why those that are not up are not.
pub type Stands = BTreeMap<Key, (EndpointState, Option<String>)>;

/// How endpoints stand: `missing` are the routes that are not in the kernel, `in_force` says of which policy is, and
/// `refused` why the kernel has not taken it.
pub fn stands(
    state: &State,
    picture: &Picture,
    missing: &BTreeSet<RouteKey>,
    in_force: impl Fn(&Key) -> bool,
    refused: Option<&str>,
) -> Stands {
    let keys = state.endpoints().keys();
    keys.map(|key| {
        let stand = match stand(picture.endpoints.get(key), missing) {
            (EndpointState::Up, _) if !in_force(key) => match refused {
                Some(reason) => {
                    let reason = format!("its policy cannot be put in force: {reason}");
                    (EndpointState::Error, Some(reason))
                }
                None => {
                    let reason = "waiting for its policy to be in force".to_owned();
                    (EndpointState::Down, Some(reason))
                }
            },
            stand => stand,
        };
        (key.clone(), stand)
    })
    .collect()
}

fn stand(placed: Option<&Placed>, missing: &BTreeSet<RouteKey>) -> (EndpointState, Option<String>) {
    use EndpointState::{Down, Error, Up};
    let Some(placed) = placed else {
        return (Down, Some("it is new".to_owned()));
    };
    match &placed.hindrance {
        Some(hindrance) if hindrance.is_error() => (Error, Some(hindrance.to_string())),
        Some(hindrance) => (Down, Some(hindrance.to_string())),
        None if placed.routes.iter().any(|route| missing.contains(route)) => {
            (Error, Some("its route is not in the kernel".to_owned()))
        }
        None => (Up, None),
    }
}

/// As `ip route` names it without further configuration.
fn protocol(number: u8) -> String {
    match number {
        PROTOCOL_KERNEL => "kernel".to_owned(),
        PROTOCOL_BOOT => "boot".to_owned(),
        4 => "static".to_owned(),
        margay_bird::KERNEL_PROTOCOL => "bird".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use margay_model::Kind;
    use margay_store::{Entry, Revision};
    use serde_json::{Value, json};

    use super::*;
    use crate::calculate::{Learned, Local, calculate};
    use crate::state::Settings;

    fn put(state: &mut State, key: Key, value: &Value) {
        let value = value.to_string().into_bytes();
        state.put(&Entry {
            key,
            value,
            revision: Revision(1),
            lease: None,
        });
    }

    #[test]
    fn endpoints_blocks_and_routes_are_told_as_they_are() {
        let mut state = State::new("n1");
        let block = |cidr: &str, owner: &str, users: [&str; 2]| {
            let attributes: Vec<Value> = users
                .iter()
                .map(|user| json!({"secondary": {"node": user}}))
                .collect();
            json!({"cidr": cidr, "affinity": owner, "allocations": [0, 1], "unallocated": [],
                "attributes": attributes})
        };
        for (cidr, owner, users) in [
            ("10.0.0.0/31", "host:n1", ["n1", "n2"]),
            ("10.0.0.2/31", "host:n2", ["n1", "n2"]),
            ("10.0.0.4/31", "host:n2", ["n3", "n2"]),
        ] {
            put(
                &mut state,
                Key::Block(cidr.parse().unwrap()),
                &block(cidr, owner, users),
            );
        }
        for (id, interface, address) in [
            ("a", "cali1", "10.0.0.0/32"),
            ("b", "cali2", "10.0.0.2/32"),
            ("c", "cali9", "10.0.0.9/32"),
            ("d", "eth0", "10.0.0.8/32"),
        ] {
            let name = format!("n1-cni-{id}-eth0");
            let spec = json!({"interfaceName": interface, "ipNetworks": [address]});
            let key = Key::namespaced(Kind::WorkloadEndpoint, "default", name);
            put(
                &mut state,
                key,
                &json!({"kind": "WorkloadEndpoint", "metadata": {}, "spec": spec}),
            );
        }
        let local = Local {
            workloads: ["cali1", "cali2"].map(str::to_owned).into(),
            gateway_routed: true,
            ..Local::default()
        };
        let picture = calculate(&state, &Settings::default(), &local, &Learned::default());
        let missing: BTreeSet<RouteKey> = picture
            .desired
            .routes()
            .filter(|route| route.interfaces().any(|name| name == "cali2"))
            .map(Route::key)
            .collect();
        let mut status = Status::default();
        let told = |forced: bool, refused: Option<&str>| {
            let stands = stands(&state, &picture, &missing, |_| forced, refused);
            let states = stands.into_values();
            states
                .map(|(state, reason)| (state.as_str().to_owned(), reason))
                .collect::<Vec<_>>()
        };
        // Without its policy none is up, and those that are not up for another reason stay as they are.
        let (with, without) = (told(true, None), told(false, None));
        assert_eq!(
            without[0],
            (
                "down".to_owned(),
                Some("waiting for its policy to be in force".to_owned())
            )
        );
        assert_eq!(with[1..], without[1..]);
        assert_eq!(told(false, Some("no"))[0].0, "error");
        let stands = stands(&state, &picture, &missing, |_| true, None);
        status.describe(&state, &picture, &missing, &stands);
        let told = json!(status);
        assert_eq!(
            told["blocks"],
            json!([
                {"cidr": "10.0.0.0/31", "owner": "n1", "local": 1, "borrowed": 1},
                {"cidr": "10.0.0.2/31", "owner": "n2", "local": 1, "borrowed": 1}
            ])
        );
        let states: Vec<&str> = status
            .endpoints
            .iter()
            .map(|endpoint| endpoint.state.as_str())
            .collect();
        assert_eq!(states, ["up", "error", "down", "error"]);
        assert_eq!(
            told["endpoints"][2]["reason"],
            "waiting for cali9 to come up"
        );
        assert_eq!(
            told["routes"][1],
            json!({"destination": "10.0.0.0/32", "via": null, "interface": "cali1",
                "protocol": "boot", "origin": "own", "source": "endpoint cni/default/a/eth0", "installed": true})
        );
        assert_eq!(told["routes"][2]["installed"], json!(false));
        assert_eq!(told["unreachable"][0]["node"], "n2");
    }
}
