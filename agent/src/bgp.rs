//! BGP in the agent: what the speaker is told, what it tells, and where people see it.

pub mod backend;
pub mod bird;
pub mod order;
pub mod secrets;
pub mod task;
pub mod view;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_model::Cidr;
use margay_peering::{Endpoint, Input, Node, Peering, Pool, peering};

use crate::state::State;
use secrets::Secrets;

/// What the speaker of this node is to do, as the datastore and `secrets` say.
pub fn desired(state: &State, secrets: &mut Secrets) -> Peering {
    secrets.begin();
    let secrets = RefCell::new(secrets);
    let nodes: BTreeMap<String, Node> = state
        .nodes()
        .iter()
        .map(|(name, node)| {
            let node = Node {
                v4: node.v4.and_then(|network| v4(network.ip())),
                v6: node.v6.and_then(|network| v6(network.ip())),
                as_number: node.as_number,
                cluster_id: node.cluster_id,
                labels: node.labels.clone(),
            };
            (name.clone(), node)
        })
        .collect();
    let pools: Vec<Pool> = state
        .pools()
        .values()
        .map(|pool| Pool {
            cidr: pool.cidr,
            export: pool.export,
        })
        .collect();
    let owned = |(cidr, block): (&Cidr, &crate::state::Block)| Some((*cidr, block.node.clone()?));
    let blocks: BTreeMap<Cidr, String> = state.blocks().iter().filter_map(owned).collect();
    let borrowed: BTreeMap<IpAddr, String> = state
        .blocks()
        .values()
        .flat_map(|block| block.borrowed.clone())
        .collect();
    let endpoints: BTreeMap<String, Endpoint> = state
        .endpoints()
        .iter()
        .map(|(key, endpoint)| {
            let endpoint = Endpoint {
                addresses: endpoint.addresses.clone(),
                interface: endpoint.interface.clone(),
                labels: endpoint.labels.clone(),
            };
            (key.to_string(), endpoint)
        })
        .collect();
    peering(&Input {
        node: state.node(),
        nodes: &nodes,
        configurations: &state.bgp().configurations,
        peers: &state.bgp().peers,
        filters: &state.bgp().filters,
        pools: &pools,
        blocks: &blocks,
        borrowed: &borrowed,
        endpoints: &endpoints,
        passwords: &|reference| secrets.borrow_mut().password(reference),
    })
}

fn v4(address: IpAddr) -> Option<std::net::Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<std::net::Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use margay_model::{Key, Kind};
    use margay_store::{Entry, Revision};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn resource(kind: Kind, name: &str, labels: &Value, spec: &Value) -> Entry {
        let key = match kind {
            Kind::WorkloadEndpoint => Key::namespaced(kind, "default", name),
            kind => Key::resource(kind, name),
        };
        let metadata = json!({"name": name, "labels": labels});
        Entry {
            key,
            value: json!({"metadata": metadata, "spec": spec})
                .to_string()
                .into_bytes(),
            revision: Revision(1),
            lease: None,
        }
    }

    fn block(number: u8, owner: &str, user: Option<&str>) -> Entry {
        let cidr = format!("192.168.0.{}/30", number * 4);
        let attributes = match user {
            None => json!([]),
            Some(user) => json!([{"handle_id": "h", "secondary": {"node": user}}]),
        };
        let used = user.map(|_| 0);
        let value = json!({"cidr": cidr, "affinity": format!("host:{owner}"), "allocations": [used, null, null, null],
            "unallocated": [1, 2, 3], "attributes": attributes, "strictAffinity": false, "deleted": false});
        Entry {
            key: Key::Block(cidr.parse().unwrap()),
            value: value.to_string().into_bytes(),
            revision: Revision(1),
            lease: None,
        }
    }

    /// Objects of which BGP may depend on all, on a part or on nothing.
    fn object() -> impl Strategy<Value = Entry> {
        let node = || prop::sample::select(vec!["n1", "n2", "n3"]);
        prop_oneof![
            (node(), 1..4_u8, 0..3_u8).prop_map(|(name, last, asn)| {
                let bgp = json!({"ipv4Address": format!("10.0.0.{last}/24"), "asNumber": 64512 + u32::from(asn)});
                let mac = format!("02:00:00:00:00:0{last}");
                let spec = json!({"bgp": bgp, "vxlanTunnelMACAddr": mac});
                resource(Kind::Node, name, &json!({"rack": format!("r{last}")}), &spec)
            }),
            (0..4_u8, node(), prop::option::of(node()))
                .prop_map(|(number, owner, user)| block(number, owner, user)),
            (node(), 0..2_u8, 0..16_u8, 0..3_u8).prop_map(|(node, id, last, other)| {
                let name = format!("{node}-cni-c{id}-eth0");
                let address = format!("192.168.0.{last}/32");
                let spec = json!({"orchestrator": "cni", "node": node, "containerID": format!("c{id}"),
                    "endpoint": "eth0", "ipNetworks": [address], "interfaceName": format!("cali{}", other % 2),
                    "mac": format!("02:00:00:00:00:0{other}")});
                let labels = json!({"role": format!("r{}", other / 2)});
                resource(Kind::WorkloadEndpoint, &name, &labels, &spec)
            }),
            (any::<bool>(), any::<bool>()).prop_map(|(export, nat)| {
                let spec =
                    json!({"cidr": "192.168.0.0/24", "disableBGPExport": export, "natOutgoing": nat});
                resource(Kind::IPPool, "pool", &json!({}), &spec)
            }),
            (1..4_u8, any::<bool>()).prop_map(|(last, local)| {
                let spec = match local {
                    false => json!({"peerIP": format!("10.0.1.{last}"), "asNumber": 65001}),
                    true => json!({"localWorkloadSelector": "role == 'r0'", "asNumber": 65001}),
                };
                resource(Kind::BGPPeer, "peer", &json!({}), &spec)
            }),
            any::<bool>().prop_map(|mesh| {
                let spec = json!({"nodeToNodeMeshEnabled": mesh, "localWorkloadPeeringIPV4": "169.254.0.179"});
                resource(Kind::BGPConfiguration, "default", &json!({}), &spec)
            }),
            any::<bool>().prop_map(|ipv6| {
                let spec = json!({"ipv6Support": ipv6});
                resource(Kind::FelixConfiguration, "default", &json!({}), &spec)
            }),
        ]
    }

    proptest! {
        /// What is kept while the generation is the same is what would be worked out.
        #[test]
        fn nothing_changes_within_a_generation(
            changes in prop::collection::vec((object(), prop::bool::weighted(0.2)), 1..60)
        ) {
            let directory = std::env::temp_dir();
            let work_out = |state: &State| desired(state, &mut Secrets::new(&directory));
            let mut state = State::new("n1");
            let mut kept = work_out(&state);
            for (entry, gone) in changes {
                let before = state.bgp_generation();
                match gone {
                    true => state.delete(&entry.key),
                    false => state.put(&entry),
                };
                let now = work_out(&state);
                if state.bgp_generation() == before {
                    prop_assert_eq!(&now, &kept, "{}", entry.key);
                }
                kept = now;
            }
            prop_assert!(state.bad().is_empty(), "{:?}", state.bad());
        }
    }
}
