//! What a cluster's store holds from the beginning, and its first pools.

use margay_model::resource::cluster::ClusterInformation;
use margay_model::resource::pool::{AllowedUse, AssignmentMode, IPPoolSpec};
use margay_model::time::Timestamp;
use margay_model::{Family, Key, Kind};
use margay_resources::{Client, Stamps};
use margay_store::{Batch, Outcome, Store, Write};
use tracing::info;

use crate::config::DefaultPool;
use crate::error::AgentError;
use crate::identity;

/// Times and random numbers of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineStamps;

impl Stamps for MachineStamps {
    fn now(&self) -> Timestamp {
        identity::now()
    }

    fn random(&self) -> [u8; 16] {
        identity::random()
    }
}

/// Writes what every cluster has, the first pools where there never was one, and the words of the
/// cluster's type that are missing.
///
/// # Errors
/// The store failed, or a pool is not valid.
pub async fn initialise(
    store: &impl Store,
    pools: &[DefaultPool],
    cluster_type: &[String],
) -> Result<(), AgentError> {
    let client = Client::new(store, MachineStamps);
    client.ensure_initialized().await?;
    let of = |family| {
        let pool = pools.iter().find(|pool| pool.cidr.family() == family)?;
        Some(specification(pool))
    };
    for pool in client
        .ensure_default_pools(of(Family::V4), of(Family::V6))
        .await?
    {
        info!(
            pool = pool.metadata.name,
            cidr = pool.spec.cidr,
            "made the cluster's first pool"
        );
    }
    add_to_type(store, cluster_type).await
}

fn specification(pool: &DefaultPool) -> IPPoolSpec {
    IPPoolSpec {
        cidr: pool.cidr.to_string(),
        vxlan_mode: Some(pool.vxlan),
        ipip_mode: Some(pool.ipip),
        nat_outgoing: pool.nat_outgoing,
        block_size: Some(pool.block_size),
        node_selector: Some(pool.node_selector.clone()),
        allowed_uses: vec![AllowedUse::Workload, AllowedUse::Tunnel],
        assignment_mode: Some(AssignmentMode::Automatic),
        ..IPPoolSpec::default()
    }
}

async fn add_to_type(store: &impl Store, words: &[String]) -> Result<(), AgentError> {
    let key = Key::resource(Kind::ClusterInformation, "default");
    let bad = |error: serde_json::Error| AgentError::Object {
        key: key.to_string(),
        reason: error.to_string(),
    };
    for _ in 0..ATTEMPTS {
        let Some(entry) = store.get(&key).await? else {
            return Ok(());
        };
        let mut information = ClusterInformation::decode(&entry.value).map_err(bad)?;
        let said = information.spec.cluster_type.clone().unwrap_or_default();
        let wanted = joined(&said, words);
        if wanted == said {
            return Ok(());
        }
        information.spec.cluster_type = Some(wanted);
        let value = information.encode().map_err(bad)?;
        let batch = Batch::of([Write::update(key.clone(), value, entry.revision)]);
        if let Outcome::Committed(_) = store.commit(&batch).await? {
            return Ok(());
        }
    }
    Err(AgentError::Contended {
        key: key.to_string(),
    })
}

/// The comma-separated words with those added that are missing.
fn joined(said: &str, words: &[String]) -> String {
    let mut all: Vec<&str> = said.split(',').filter(|word| !word.is_empty()).collect();
    for word in words {
        if !all.contains(&word.as_str()) {
            all.push(word);
        }
    }
    all.join(",")
}

const ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use margay_model::Prefix;
    use margay_model::resource::pool::EncapMode;
    use margay_store::memory::Memory;
    use serde_json::{Value, json};

    use super::*;

    fn pool() -> DefaultPool {
        DefaultPool {
            name: "default-ipv4-ippool",
            cidr: "192.168.0.0/16".parse().unwrap(),
            block_size: 26,
            nat_outgoing: true,
            ipip: EncapMode::Never,
            vxlan: EncapMode::Never,
            node_selector: "all()".to_owned(),
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    async fn value(store: &Memory, kind: Kind, name: &str) -> Value {
        let entry = store
            .get(&Key::resource(kind, name))
            .await
            .unwrap()
            .unwrap();
        serde_json::from_slice(&entry.value).unwrap()
    }

    #[test]
    fn an_empty_store_gets_its_first_pool_once_and_for_all() {
        run(async {
            let store = Memory::new();
            let words = ["bgp".to_owned(), "mesos".to_owned()];
            initialise(&store, &[pool()], &words).await.unwrap();
            let made = value(&store, Kind::IPPool, "default-ipv4-ippool").await;
            assert_eq!(
                made["spec"],
                json!({"cidr": "192.168.0.0/16", "vxlanMode": "Never", "ipipMode": "Never",
                    "natOutgoing": true, "blockSize": 26, "nodeSelector": "all()",
                    "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic"})
            );
            let information = value(&store, Kind::ClusterInformation, "default").await;
            assert_eq!(information["spec"]["clusterType"], "bgp,mesos");
            let revision = store.revision();
            initialise(&store, &[pool()], &words[..1]).await.unwrap();
            assert_eq!(store.revision(), revision);

            let key = Key::resource(Kind::IPPool, "default-ipv4-ippool");
            store
                .commit(&Batch::of([Write::delete_any(key)]))
                .await
                .unwrap();
            initialise(&store, &[pool()], &[]).await.unwrap();
            let left = store.list(&Prefix::Resources(Kind::IPPool)).await.unwrap();
            assert!(left.entries.is_empty());
        });
    }

    #[test]
    fn words_are_added_to_what_is_said() {
        let words = |list: &[&str]| {
            list.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(joined("", &words(&["bgp"])), "bgp");
        assert_eq!(joined("k8s,bgp", &words(&["bgp", "x"])), "k8s,bgp,x");
        assert_eq!(joined("k8s", &[]), "k8s");
    }
}
