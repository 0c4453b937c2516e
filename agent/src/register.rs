//! The node's record: created, or changed where it says something else than what is so.

use ipnetwork::IpNetwork;
use margay_model::membership::Membership;
use margay_model::resource::cluster::{Node, NodeAddress, NodeSpec};
use margay_model::time::Timestamp;
use margay_model::{Family, Key, Kind, Metadata, uid};
use margay_store::{Batch, Outcome, Revision, Store, Write};
use serde_json::{Value, json};

use crate::error::AgentError;

/// What the record should say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The IPv4 address with its network's prefix length.
    pub v4: Option<IpNetwork>,
    /// The IPv6 address with its network's prefix length.
    pub v6: Option<IpNetwork>,
    /// The AS number; `None` leaves what is recorded.
    pub as_number: Option<u32>,
}

/// A node's record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    node: Node,
    revision: Revision,
}

/// What registering did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// There was no record.
    Created,
    /// The record said something else.
    Updated,
    /// The record said so already.
    Unchanged,
}

impl Recorded {
    /// The address of a family that the record says; `None` where it says none or nonsense.
    pub fn address(&self, family: Family) -> Option<IpNetwork> {
        let bgp = self.node.spec.bgp.as_ref()?;
        let text = match family {
            Family::V4 => bgp.ipv4_address.as_ref()?,
            Family::V6 => bgp.ipv6_address.as_ref()?,
        };
        let network: IpNetwork = text.parse().ok()?;
        (Family::of(network.ip()) == family).then_some(network)
    }
}

/// Reads the record of a node.
///
/// # Errors
/// The store failed, or the record is no node.
pub async fn recorded(store: &impl Store, name: &str) -> Result<Option<Recorded>, AgentError> {
    let key = Key::resource(Kind::Node, name);
    let Some(entry) = store.get(&key).await? else {
        return Ok(None);
    };
    match Node::decode(&entry.value) {
        Ok(node) => Ok(Some(Recorded {
            node,
            revision: entry.revision,
        })),
        Err(error) => Err(AgentError::Object {
            key: key.to_string(),
            reason: error.to_string(),
        }),
    }
}

/// Makes the record of a node say these facts and leaves all else in it alone.
///
/// # Errors
/// The store failed, the record is no node, or it kept changing.
pub async fn register(
    store: &impl Store,
    name: &str,
    facts: &Facts,
    now: Timestamp,
    random: [u8; 16],
) -> Result<Registered, AgentError> {
    let key = Key::resource(Kind::Node, name);
    let encoded = |node: &Node| {
        node.encode().map_err(|error| AgentError::Object {
            key: key.to_string(),
            reason: error.to_string(),
        })
    };
    for _ in 0..ATTEMPTS {
        let (write, done) = match recorded(store, name).await? {
            None => {
                let node = amended(new(name, now, random), facts);
                (
                    Write::create(key.clone(), encoded(&node)?),
                    Registered::Created,
                )
            }
            Some(recorded) => {
                let node = amended(recorded.node.clone(), facts);
                if node == recorded.node {
                    return Ok(Registered::Unchanged);
                }
                let value = encoded(&node)?;
                (
                    Write::update(key.clone(), value, recorded.revision),
                    Registered::Updated,
                )
            }
        };
        if let Outcome::Committed(_) = store.commit(&Batch::of([write])).await? {
            return Ok(done);
        }
    }
    Err(AgentError::Contended {
        key: key.to_string(),
    })
}

fn new(name: &str, now: Timestamp, random: [u8; 16]) -> Node {
    let mut metadata = Metadata::named(name);
    metadata.uid = Some(uid::from_random(random));
    metadata.creation_timestamp = Some(now.rfc3339());
    Node::new(metadata, NodeSpec::default())
}

/// The record with these facts in it.
fn amended(mut node: Node, facts: &Facts) -> Node {
    let mut bgp = node.spec.bgp.take().unwrap_or_default();
    bgp.ipv4_address = facts.v4.map(|network| network.to_string());
    bgp.ipv6_address = facts.v6.map(|network| network.to_string());
    if let Some(number) = facts.as_number {
        let said = bgp.as_number.as_ref().and_then(Value::as_u64);
        if said != Some(number.into()) {
            bgp.as_number = Some(json!(number));
        }
    }
    // An empty object is not valid there.
    let says_something = bgp != margay_model::resource::cluster::NodeBgp::default();
    node.spec.bgp = says_something.then_some(bgp);
    let networks: Vec<String> = facts
        .v4
        .iter()
        .chain(&facts.v6)
        .map(IpNetwork::to_string)
        .collect();
    let is_own = |address: &NodeAddress| address.kind.as_deref() == Some(NODE_IP);
    let own = node.spec.addresses.iter().filter(|address| is_own(address));
    if !own.map(|address| &address.address).eq(&networks) {
        node.spec.addresses.retain(|address| !is_own(address));
        let own = networks.into_iter().map(|address| NodeAddress {
            address,
            kind: Some(NODE_IP.to_owned()),
            ..NodeAddress::default()
        });
        node.spec.addresses.splice(0..0, own);
    }
    node
}

/// Notes that an agent runs on the node, which takes back that it were gone.
///
/// # Errors
/// The store failed, or the note keeps changing.
pub async fn join(store: &impl Store, node: &str, machine_id: &str) -> Result<(), AgentError> {
    let key = Key::Membership(node.to_owned());
    for _ in 0..ATTEMPTS {
        let held = store.get(&key).await?;
        let known: Option<Membership> = held
            .as_ref()
            .and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let wanted = Membership {
            machine_id: machine_id.to_owned(),
            gone: None,
            extra: known.clone().unwrap_or_default().extra,
        };
        if known.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let value = serde_json::to_vec(&wanted).map_err(|error| AgentError::Object {
            key: key.to_string(),
            reason: error.to_string(),
        })?;
        let write = match held {
            None => Write::create(key.clone(), value),
            Some(entry) => Write::update(key.clone(), value, entry.revision),
        };
        if let Outcome::Committed(_) = store.commit(&Batch::of([write])).await? {
            return Ok(());
        }
    }
    Err(AgentError::Contended {
        key: key.to_string(),
    })
}

/// The type of the addresses that calico/node writes.
const NODE_IP: &str = "CalicoNodeIP";

const ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use margay_store::memory::Memory;

    use super::*;

    const NOW: Timestamp = Timestamp {
        seconds: 1_795_393_500,
        nanos: 0,
    };

    fn facts(v4: &str) -> Facts {
        Facts {
            v4: Some(v4.parse().unwrap()),
            v6: None,
            as_number: None,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    async fn stored(store: &Memory) -> Value {
        let entry = store
            .get(&Key::resource(Kind::Node, "n1"))
            .await
            .unwrap()
            .unwrap();
        serde_json::from_slice(&entry.value).unwrap()
    }

    #[test]
    fn a_record_is_created_once_and_then_left_alone() {
        run(async {
            let store = Memory::new();
            let store = &store;
            let register =
                |facts| async move { register(store, "n1", &facts, NOW, [7; 16]).await.unwrap() };
            assert_eq!(register(facts("10.0.0.1/24")).await, Registered::Created);
            let node = stored(store).await;
            assert_eq!(
                node["spec"],
                json!({"bgp": {"ipv4Address": "10.0.0.1/24"},
                    "addresses": [{"address": "10.0.0.1/24", "type": "CalicoNodeIP"}]})
            );
            assert_eq!(node["metadata"]["creationTimestamp"], json!(NOW.rfc3339()));
            assert!(node["metadata"].get("labels").is_none());
            let revision = store.revision();
            assert_eq!(register(facts("10.0.0.1/24")).await, Registered::Unchanged);
            assert_eq!(store.revision(), revision);
            assert_eq!(register(facts("10.0.0.2/24")).await, Registered::Updated);
            assert_eq!(stored(store).await["metadata"], node["metadata"]);
        });
    }

    #[test]
    fn what_others_wrote_stays() {
        run(async {
            let store = Memory::new();
            let value = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": "n1", "labels": {"rack": "r1"}, "creationTimestamp": null},
                "spec": {"bgp": {"asNumber": 64513, "ipv4Address": "10.0.0.9/24", "ipv4IPIPTunnelAddr": "192.168.0.1", "novel": 1},
                    "addresses": [{"address": "10.0.0.9", "type": "InternalIP"}, {"address": "10.0.0.9/24", "type": "CalicoNodeIP"}],
                    "orchRefs": [{"nodeName": "n1", "orchestrator": "k8s"}]},
                "status": {"podCIDRs": ["10.1.0.0/24"]}});
            store.put_raw(
                "/calico/resources/v3/projectcalico.org/nodes/n1",
                value.to_string().as_bytes(),
            );
            register(&store, "n1", &facts("10.0.0.1/24"), NOW, [7; 16])
                .await
                .unwrap();
            let mut expected = value;
            expected["spec"]["bgp"]["ipv4Address"] = json!("10.0.0.1/24");
            expected["spec"]["addresses"] = json!([{"address": "10.0.0.1/24", "type": "CalicoNodeIP"}, {"address": "10.0.0.9", "type": "InternalIP"}]);
            assert_eq!(stored(&store).await, expected);
            let with_as = Facts {
                as_number: Some(64600),
                ..facts("10.0.0.1/24")
            };
            register(&store, "n1", &with_as, NOW, [7; 16])
                .await
                .unwrap();
            assert_eq!(
                stored(&store).await["spec"]["bgp"]["asNumber"],
                json!(64600)
            );
        });
    }

    #[test]
    fn recorded_addresses_are_read_back() {
        run(async {
            let store = Memory::new();
            assert!(recorded(&store, "n1").await.unwrap().is_none());
            let both = Facts {
                v6: Some("fd00::1/64".parse().unwrap()),
                ..facts("10.0.0.1/24")
            };
            register(&store, "n1", &both, NOW, [7; 16]).await.unwrap();
            let read = recorded(&store, "n1").await.unwrap().unwrap();
            assert_eq!(read.address(Family::V4), both.v4);
            assert_eq!(read.address(Family::V6), both.v6);
            store.put_raw("/calico/resources/v3/projectcalico.org/nodes/n1", b"[]");
            assert!(recorded(&store, "n1").await.is_err());
        });
    }
}
