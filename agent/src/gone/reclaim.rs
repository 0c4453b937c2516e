//! The task that gives back what nodes that are gone held.

use std::time::Duration;

use margay_ipam_core::audit::{Allocation, allocations};
use margay_ipam_core::detach::addresses_of;
use margay_ipam_core::release::Address;
use margay_ipam_core::{Allocator, Detach, IpamError, handle};
use margay_model::ipam::Block;
use margay_model::key::Owner;
use margay_model::names::EndpointName;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::{Key, Kind, Prefix};
use margay_store::follow::{Event, Follower, Options, Update};
use margay_store::{
    Answer, Batch, Condition, Entry, MAX_OPS, Op, Read, Revision, Store, StoreError, Write,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::{Declaration, Gone, Members};
use crate::identity;
use crate::metrics::{Metrics, figure};
use crate::report::Status;
use crate::standing::settings::NO_REGION;
use crate::{standing, sync};

/// The task, with what it is given.
#[derive(Debug)]
pub struct Reclaim<S> {
    /// The store.
    pub store: S,
    /// This node's name.
    pub node: String,
    /// How long a silent node is waited for that nobody declares gone; never where `None`.
    pub patience: Option<Duration>,
    /// Figures.
    pub metrics: Metrics,
    /// Where what is held back is shown.
    pub status: watch::Sender<Status>,
}

/// Nodes other than `me` that will be given back, in words; changes nothing.
///
/// # Errors
/// The store failed.
pub async fn foretell(
    store: &impl Store,
    me: &str,
    patience: Option<Duration>,
) -> Result<String, StoreError> {
    let mut members = Members::default();
    let reads = Members::prefixes().map(Read::List);
    let snapshot = store.read_many(&reads).await?;
    let entries = snapshot.answers.into_iter().flat_map(|it| it.entries);
    let updates: Vec<Update> = entries.map(Update::Put).collect();
    members.update(&updates, snapshot.revision, Instant::now());
    Ok(members.foretell(me, patience))
}

/// What became of a node's leavings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    endpoints: usize,
    addresses: usize,
    blocks: usize,
}

/// Why a node's leavings stay for now.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("its agent is back")]
    Back,
    #[error("Calico's Felix, or an agent in its form, has reported from it a moment ago ({0})")]
    Felix(Key),
    #[error("{key} was written at revision {revision}, later than that")]
    Written { key: Key, revision: Revision },
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S: Store + Clone + 'static> Reclaim<S> {
    /// Watches the cluster's nodes, until `stop` changes. A change of `accept` is an operator's word that what is
    /// held back may go.
    pub async fn run(
        self,
        seed: u64,
        mut accept: watch::Receiver<u64>,
        mut stop: watch::Receiver<bool>,
    ) {
        let options = Options {
            seed,
            ..Options::default()
        };
        let mut follower = Follower::new(self.store.clone(), Members::prefixes(), options);
        let mut members = Members::default();
        let (mut unbroken, mut confirmed, mut held) = (false, false, None);
        let mut next = Instant::now() + PAUSE;
        accept.mark_unchanged();
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => return,
                event = follower.next() => match event {
                    Event::Synced { revision, updates } => {
                        unbroken = true;
                        members.update(&updates, revision, Instant::now());
                    }
                    Event::Changed { revision, updates } => {
                        members.update(&updates, revision, Instant::now());
                    }
                    doubtful => {
                        unbroken = false;
                        members.forget();
                        if let Some(reason) = sync::held(&doubtful) {
                            warn!("{reason}; no node is judged");
                        }
                    }
                },
                changed = accept.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    follower.accept();
                    confirmed = held.is_some();
                }
                () = tokio::time::sleep_until(next) => {
                    if unbroken {
                        held = self.look(&mut members, held, confirmed).await;
                        confirmed = false;
                    }
                    next = Instant::now() + PAUSE;
                }
            }
        }
    }

    /// Judges once, and gives back what is due; why others are held.
    async fn look(
        &self,
        members: &mut Members,
        before: Option<String>,
        confirmed: bool,
    ) -> Option<String> {
        let verdict = members.judge(self.patience, Instant::now(), confirmed);
        let (metrics, silent) = (&self.metrics, members.silent());
        metrics.silent_nodes.set(figure(silent));
        metrics.gone_held.set(figure(verdict.held.iter().count()));
        if verdict.held != before {
            if let Some(reason) = &verdict.held {
                error!(
                    "{reason}: suspiciously many; nothing of theirs is given back until they are fewer, or \
                     SIGUSR1 tells this process that they are"
                );
            }
            let shown = verdict.held.clone();
            self.status.send_modify(|status| status.gone_held = shown);
        }
        if members.is_first(&self.node) {
            for gone in &verdict.due {
                self.give_back(members, gone).await;
            }
        }
        verdict.held
    }

    async fn give_back(&self, members: &mut Members, gone: &Gone) {
        match self.try_give_back(gone).await {
            Ok(done) => {
                self.metrics.reclaimed_nodes.inc();
                info!(
                    endpoints = done.endpoints,
                    addresses = done.addresses,
                    blocks = done.blocks,
                    "{gone}; what it held was given back"
                );
            }
            Err(Refusal::Written { key, revision }) => {
                info!("{gone}; but {key} was written since, so it is watched anew");
                members.restart(&gone.node, revision, Instant::now());
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Ipam(_) | Refusal::Store(_)) {
                    self.metrics.cleanup_failures.inc();
                }
                warn!("{gone}; what it held stays for now: {refusal}");
            }
        }
    }

    async fn try_give_back(&self, gone: &Gone) -> Result<Done, Refusal> {
        let node = &gone.node;
        self.is_gone(node).await?;
        let endpoints = self.endpoints(node).await?;
        let by_operator = matches!(gone.declaration, Declaration::Operator(_));
        let written = endpoints
            .iter()
            .find(|entry| entry.revision > gone.revision);
        if let Some(entry) = written.filter(|_| !by_operator) {
            return Err(Refusal::Written {
                key: entry.key.clone(),
                revision: entry.revision,
            });
        }
        let mut done = Done::default();
        for entry in endpoints {
            done.addresses += self.detach(node, &entry).await?;
            done.endpoints += 1;
            sleep(BETWEEN).await;
        }
        let page = self.store.list(&Prefix::Blocks).await?;
        let blocks: Vec<Block> = page
            .entries
            .iter()
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
            .collect();
        for block in &blocks {
            done.addresses += self.release(node, block).await?;
        }
        done.blocks = self.give_up(node, &blocks).await?;
        self.forget(gone, by_operator).await?;
        Ok(done)
    }

    /// Looks once more, in the store as it is now.
    async fn is_gone(&self, node: &str) -> Result<(), Refusal> {
        let felix = Key::AgentStatus {
            region: NO_REGION.to_owned(),
            host: node.to_owned(),
        };
        let reads = [
            Read::Exists(Key::NodeLease(node.to_owned())),
            Read::Exists(felix.clone()),
        ];
        let snapshot = self.store.read_many(&reads).await?;
        let mut found = snapshot.answers.iter().map(|it| !it.entries.is_empty());
        match (found.next(), found.next()) {
            (Some(true), _) => Err(Refusal::Back),
            (_, Some(true)) => Err(Refusal::Felix(felix)),
            _ => Ok(()),
        }
    }

    async fn endpoints(&self, node: &str) -> Result<Vec<Entry>, Refusal> {
        let prefix = Prefix::Resources(Kind::WorkloadEndpoint);
        let mut entries = self.store.list(&prefix).await?.entries;
        entries.retain(|entry| match &entry.key {
            Key::Resource { name, .. } => {
                EndpointName::parse(name).is_some_and(|name| name.node == node)
            }
            _ => false,
        });
        Ok(entries)
    }

    /// Takes out an endpoint with its addresses; how many they were.
    async fn detach(&self, node: &str, entry: &Entry) -> Result<usize, Refusal> {
        let Ok(endpoint) = WorkloadEndpoint::decode(&entry.value) else {
            warn!(key = %entry.key, "a record of a node that is gone cannot be read; it is left to people");
            return Ok(0);
        };
        let allocator = Allocator::new(&self.store);
        let container = endpoint.spec.container_id.clone().unwrap_or_default();
        let own = format!(".{container}");
        let holders = allocator.holders(&addresses_of(&endpoint)).await?;
        let held = holders
            .into_values()
            .filter_map(|attribute| attribute.handle_id)
            .find(|id| handle::id(id).ends_with(&own));
        let detach = Detach {
            node: node.to_owned(),
            container_id: container,
            ifname: endpoint.spec.endpoint.unwrap_or_default(),
            handle: held.unwrap_or_else(|| format!("none{own}")),
            legacy_handle: None,
            endpoint: Some(entry.key.clone()),
            endpoint_at: Some(entry.revision),
            assigned_at: None,
            unless: Some(Key::NodeLease(node.to_owned())),
            hints: Vec::new(),
            now: identity::now(),
        };
        let done = allocator.detach(&detach, &|| true).await?;
        info!(key = %entry.key, node, gave_back = ?done.addresses, "an endpoint of a node that is gone");
        Ok(done.addresses.len())
    }

    /// Gives back what is left of the node's in a block; how many addresses.
    async fn release(&self, node: &str, block: &Block) -> Result<usize, Refusal> {
        let is_of_node = |allocation: &Allocation| {
            allocation.owner.get("node").map(String::as_str) == Some(node)
        };
        let wanted: Vec<Address> = allocations(std::slice::from_ref(block))
            .filter(is_of_node)
            .map(|allocation| Address {
                address: allocation.address,
                handle: allocation.handle,
                sequence_number: allocation.sequence_number,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(0);
        }
        self.is_gone(node).await?;
        let allocator = Allocator::new(&self.store);
        let done = allocator
            .release_addresses(&wanted, identity::now())
            .await?;
        info!(block = %block.cidr, node, gave_back = ?done.released, "addresses of a node that is gone");
        sleep(BETWEEN).await;
        Ok(done.released.len())
    }

    /// Ends the node's claims to blocks, also those without an affinity; how many.
    async fn give_up(&self, node: &str, blocks: &[Block]) -> Result<usize, Refusal> {
        let owner = Owner::Host(node.to_owned());
        let claims = self.store.list(&Prefix::Affinities(owner.clone())).await?;
        let mut cidrs: Vec<_> = claims
            .entries
            .iter()
            .filter_map(|entry| match entry.key {
                Key::Affinity(_, cidr) => Some(cidr),
                _ => None,
            })
            .collect();
        let own = owner.affinity();
        let owned = blocks
            .iter()
            .filter(|block| block.affinity.as_ref() == Some(&own));
        cidrs.extend(owned.map(|block| block.cidr));
        cidrs.sort();
        cidrs.dedup();
        for cidr in &cidrs {
            self.is_gone(node).await?;
            Allocator::new(&self.store)
                .release_affinity(&owner, *cidr)
                .await?;
            info!(block = %cidr, node, "a block of a node that is gone");
            sleep(BETWEEN).await;
        }
        Ok(cidrs.len())
    }

    /// Forgets the node itself; its Node resource only where an operator declared it gone.
    async fn forget(&self, gone: &Gone, by_operator: bool) -> Result<(), Refusal> {
        let node = &gone.node;
        let mut reads = vec![
            Read::Get(Key::Membership(node.clone())),
            Read::Get(Key::IpamHost(node.clone())),
        ];
        if by_operator {
            reads.push(Read::Get(Key::resource(Kind::Node, node.clone())));
        }
        let answers = self.store.read_many(&reads).await?.answers.into_iter();
        let mut batch = Batch::of([Write {
            key: Key::NodeLease(node.clone()),
            condition: Condition::Absent,
            op: Op::Check,
        }]);
        for entry in answers.filter_map(Answer::into_entry) {
            batch.push(Write::delete(entry.key, entry.revision));
        }
        self.forget_statuses(node).await?;
        // What has changed meanwhile stays until the next look.
        self.store.commit(&batch).await?;
        Ok(())
    }
}

impl<S: Store> Reclaim<S> {
    /// Removes what the node's agent has told of its endpoints and of itself.
    async fn forget_statuses(&self, node: &str) -> Result<(), Refusal> {
        let last = Key::LastAgentStatus {
            region: NO_REGION.to_owned(),
            host: node.to_owned(),
        };
        let mut entries: Vec<Entry> = self.store.get(&last).await?.into_iter().collect();
        for prefix in standing::prefixes(node, NO_REGION) {
            entries.extend(self.store.list(&prefix).await?.entries);
        }
        for some in entries.chunks(MAX_OPS - 1) {
            let mut batch = Batch::of([Write {
                key: Key::NodeLease(node.to_owned()),
                condition: Condition::Absent,
                op: Op::Check,
            }]);
            for entry in some {
                batch.push(Write::delete(entry.key.clone(), entry.revision));
            }
            self.store.commit(&batch).await?;
        }
        Ok(())
    }
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two commits: the store has others to serve.
const BETWEEN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use margay_ipam_core::{Assignment, NoCompanion, Request, Want};
    use margay_model::resource::cluster::{ClusterInformation, Node};
    use margay_model::resource::endpoint::WorkloadEndpointSpec;
    use margay_model::resource::pool::{AllowedUse, IPPool};
    use margay_model::{Family, Metadata};
    use margay_store::memory::Memory;
    use margay_telemetry::metrics::registry;
    use serde_json::json;

    use super::*;

    fn store() -> Memory {
        let store = Memory::new();
        let cluster = ClusterInformation::new(Metadata::named("default"), Default::default());
        store.put_raw(&cluster.key().path(), &cluster.encode().unwrap());
        let mut pool = IPPool::new(Metadata::named("p"), Default::default());
        pool.spec.cidr = "10.0.0.0/24".to_owned();
        store.put_raw(&pool.key().path(), &pool.encode().unwrap());
        for name in ["n1", "n2"] {
            let node = Node::new(Metadata::named(name), Default::default());
            store.put_raw(&node.key().path(), &node.encode().unwrap());
            let key = Key::Membership(name.to_owned());
            store.put_raw(
                &key.path(),
                json!({"machineId": "m"}).to_string().as_bytes(),
            );
        }
        store
    }

    /// A container on a node, with an endpoint or without.
    async fn container(store: &Memory, node: &str, id: &str, with_endpoint: bool) {
        let request = Request {
            node: node.to_owned(),
            handle: format!("net.{id}"),
            interface: "eth0".to_owned(),
            owner: Default::default(),
            wants: vec![Want::Auto {
                family: Family::V4,
                pools: Vec::new(),
            }],
            purpose: AllowedUse::Workload,
            max_blocks: None,
            namespace_labels: None,
            hints: Vec::new(),
            quarantine: Default::default(),
            now: identity::now(),
        };
        let made = Allocator::new(store)
            .assign(&request, &mut NoCompanion)
            .await;
        let Assignment::Made { assigned, .. } = made.unwrap() else {
            panic!("stopped")
        };
        if with_endpoint {
            let name = format!("{node}-cni-{id}-eth0");
            let spec = WorkloadEndpointSpec {
                container_id: Some(id.to_owned()),
                endpoint: Some("eth0".to_owned()),
                ip_networks: vec![format!("{}/32", assigned[0].address)],
                ..WorkloadEndpointSpec::default()
            };
            let endpoint = WorkloadEndpoint::new(Metadata::namespaced("default", name), spec);
            store.put_raw(&endpoint.key().path(), &endpoint.encode().unwrap());
        }
    }

    fn reclaim(store: &Memory) -> Reclaim<Memory> {
        Reclaim {
            store: store.clone(),
            node: "n1".to_owned(),
            patience: None,
            metrics: Metrics::register(&mut registry("0")),
            status: watch::channel(Status::default()).0,
        }
    }

    fn gone(store: &Memory, declaration: Declaration) -> Gone {
        Gone {
            node: "n2".to_owned(),
            machine_id: "m".to_owned(),
            declaration,
            silent: Duration::from_secs(60),
            revision: store.revision(),
        }
    }

    async fn keys(store: &Memory, prefix: Prefix) -> Vec<String> {
        let page = store.list(&prefix).await.unwrap();
        page.entries.iter().map(|entry| entry.key.path()).collect()
    }

    #[tokio::test]
    async fn all_that_a_gone_node_held_is_given_back_and_nothing_of_others() {
        let store = store();
        container(&store, "n1", "stays", true).await;
        container(&store, "n2", "a", true).await;
        container(&store, "n2", "b", false).await;
        let statuses = [
            "/calico/felix/v2/no-region/host/n2/workload/cni/default%2fa/endpoint/eth0",
            "/calico/felix/v2/no-region/host/n2/last_reported_status",
            "/calico/felix/v1/host/n2/endpoint/eth0",
        ];
        for status in statuses {
            for key in [status.to_owned(), status.replace("/n2/", "/n1/")] {
                store.put_raw(&key, b"{}");
            }
        }
        let operator = Declaration::Operator("then".to_owned());
        let done = reclaim(&store)
            .try_give_back(&gone(&store, operator))
            .await
            .unwrap();
        let all = Done {
            endpoints: 1,
            addresses: 2,
            blocks: 1,
        };
        assert_eq!(done, all);
        assert_eq!(
            keys(&store, Prefix::Handles).await,
            ["/calico/ipam/v2/handle/net.stays"]
        );
        let told = keys(&store, Prefix::Calico).await.into_iter();
        let told: Vec<String> = told.filter(|key| key.contains("/felix/")).collect();
        assert_eq!(told.len(), statuses.len(), "{told:?}");
        assert!(told.iter().all(|key| key.contains("/host/n1/")), "{told:?}");
        for prefix in [
            Prefix::Blocks,
            Prefix::HostAffinities,
            Prefix::Resources(Kind::WorkloadEndpoint),
            Prefix::Resources(Kind::Node),
            Prefix::Memberships,
        ] {
            assert_eq!(keys(&store, prefix.clone()).await.len(), 1, "{prefix}");
        }
    }

    #[tokio::test]
    async fn a_node_that_shows_life_keeps_all() {
        let store = store();
        container(&store, "n2", "a", true).await;
        let deleted = gone(&store, Declaration::Deleted);
        let reclaim = reclaim(&store);
        let refusal = async || {
            reclaim
                .try_give_back(&deleted)
                .await
                .unwrap_err()
                .to_string()
        };
        container(&store, "n2", "b", true).await;
        assert!(refusal().await.contains("written"));
        let felix = "/calico/felix/v2/no-region/host/n2/status";
        store.put_raw(felix, b"{}");
        assert!(refusal().await.contains("Felix"));
        store.put_raw("/margay/v1/node-leases/n2", b"{}");
        assert!(refusal().await.contains("back"));
        assert_eq!(
            keys(&store, Prefix::Resources(Kind::WorkloadEndpoint))
                .await
                .len(),
            2
        );
        assert_eq!(keys(&store, Prefix::Handles).await.len(), 2);
    }
}
