//! What goes on beside Docker's calls: labels, and what unclean ends left.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_store::{Batch, Outcome, Revision, Store, Write};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{Driver, now};
use crate::docker::Container;
use crate::error::{DriverError, Result};
use crate::kernel;
use crate::labels::Taken;
use crate::record::{self, CONTAINER_ANNOTATION, damaged};
use crate::stale::{self, Evidence, Verdict};

impl Driver {
    /// Waits until Docker knows to which container an endpoint belongs, and notes it with the container's labels.
    /// Docker's calls do not say; and it tells nobody before it has done with the container itself.
    pub(crate) async fn describe(self: Arc<Self>, id: String) {
        let Some(docker) = &self.docker else { return };
        for pause in DESCRIBE {
            sleep(pause).await;
            let containers = docker.containers().await.unwrap_or_default();
            let Some(container) = containers.iter().find(|one| one.endpoints.contains(&id)) else {
                continue;
            };
            if let Err(error) = self.note_container(&id, container).await {
                warn!(endpoint = id, %error, "the container's labels are not taken over");
            }
            return;
        }
        debug!(endpoint = id, "Docker names no container of this endpoint");
    }

    async fn note_container(&self, id: &str, container: &Container) -> Result<()> {
        let taken = Taken::from(&container.labels, &self.config.label_prefixes);
        for (label, reason) in &taken.refused {
            warn!(container = container.name, label, reason, "label left out");
        }
        for _ in 0..MOST_ATTEMPTS {
            let (mut endpoint, revision) = self.endpoint(id).await?;
            let before = endpoint.clone();
            endpoint.spec.container_id = Some(container.id.clone());
            endpoint
                .metadata
                .annotations
                .insert(CONTAINER_ANNOTATION.to_owned(), container.name.clone());
            endpoint.metadata.labels.extend(taken.labels.clone());
            if endpoint == before || self.rewrite(&endpoint, revision).await? {
                return Ok(());
            }
        }
        let key = record::key(&self.node, id)?;
        Err(DriverError::Contention(Box::new(key)))
    }

    /// Writes a record that was read at this revision; `false` when it has another by now.
    async fn rewrite(&self, endpoint: &WorkloadEndpoint, revision: Revision) -> Result<bool> {
        let key = endpoint.key();
        let value = endpoint.encode().map_err(|error| damaged(&key, &error))?;
        let batch = Batch::of([Write::update(key, value, revision)]);
        Ok(matches!(
            self.store.commit(&batch).await?,
            Outcome::Committed(_)
        ))
    }

    /// Frees an address that somebody asks for by name, if only a dead endpoint of this node holds it: a container
    /// that is started again after a crash wants the address that it had.
    pub(crate) async fn take_from_dead(&self, address: IpAddr) -> Result<bool> {
        let interfaces = self.host()?.interfaces().await?;
        let endpoints = self.endpoints().await?;
        let holder = endpoints.iter().find(|(_, endpoint, _)| {
            margay_ipam_core::detach::addresses_of(endpoint).contains(&address)
        });
        let Some((id, endpoint, revision)) = holder else {
            return Ok(false);
        };
        let evidence = Evidence {
            interfaces: &interfaces,
            docker: None,
            suspicious: false,
        };
        let grace = stale::FLEETING.min(self.config.grace);
        if stale::judge(id, endpoint, &evidence, now(), grace) != Verdict::Dead {
            return Ok(false);
        }
        self.take_down(id).await?;
        Ok(self.remove_in_turn(id, Some(*revision)).await?.is_some())
    }

    /// Looks again and again for what unclean ends left, and returns it. Never ends.
    pub async fn clean_up(self: Arc<Self>) {
        loop {
            if let Err(error) = self.look().await {
                warn!(%error, "looking for what dead containers left");
            }
            sleep(BETWEEN_LOOKS.min(self.config.grace.max(SHORTEST))).await;
        }
    }

    async fn look(self: &Arc<Self>) -> Result<()> {
        // In this order: whatever has an interface had a record before, and keeps it longer.
        let interfaces = self.host()?.interfaces().await?;
        let endpoints = self.endpoints().await?;
        let containers = match &self.docker {
            Some(docker) => docker.containers().await,
            None => None,
        };
        let in_docker = containers.as_ref().map(|containers| {
            let ids = containers.iter().flat_map(|one| one.endpoints.iter());
            ids.map(String::as_str).collect::<BTreeSet<&str>>()
        });
        let gone = endpoints
            .iter()
            .filter(|(id, endpoint, _)| !stale::is_alive(id, endpoint, &interfaces))
            .count();
        let evidence = Evidence {
            interfaces: &interfaces,
            docker: in_docker.as_ref(),
            suspicious: gone >= FEWEST_HELD && gone * 2 > endpoints.len(),
        };
        for (id, endpoint, revision) in &endpoints {
            match stale::judge(id, endpoint, &evidence, now(), self.config.grace) {
                Verdict::Dead => {
                    info!(
                        endpoint = id,
                        "its container is gone without a word; returning what it held"
                    );
                    self.take_down(id).await?;
                    self.remove(id, Some(*revision)).await?;
                }
                Verdict::Held => {
                    warn!(
                        endpoint = id,
                        "its interface is gone, like those of most others; asking Docker failed, so it stays"
                    );
                }
                Verdict::Alive | Verdict::Young => {}
            }
        }
        self.remove_strays(&interfaces, &endpoints).await?;
        self.apply_ports(None).await?;
        self.complete(&endpoints, containers.as_deref()).await;
        self.compare_networks().await
    }

    /// Removes interfaces of endpoints that are recorded no more.
    async fn remove_strays(
        &self,
        interfaces: &margay_netlink::Interfaces,
        endpoints: &[(String, WorkloadEndpoint, Revision)],
    ) -> Result<()> {
        let marked = interfaces.iter().filter_map(|link| link.alias.as_deref());
        for id in marked.filter_map(kernel::endpoint_of) {
            if !endpoints.iter().any(|(known, ..)| known == id) {
                info!(endpoint = id, "removing an interface without an endpoint");
                self.take_down(id).await?;
            }
        }
        Ok(())
    }

    /// Notes the containers of endpoints whose container is not noted yet.
    async fn complete(
        &self,
        endpoints: &[(String, WorkloadEndpoint, Revision)],
        containers: Option<&[Container]>,
    ) {
        let unknown = endpoints
            .iter()
            .filter(|(_, endpoint, _)| endpoint.spec.container_id.is_none());
        for (id, ..) in unknown {
            let mut of = containers.unwrap_or_default().iter();
            if let Some(container) = of.find(|one| one.endpoints.contains(id))
                && let Err(error) = self.note_container(id, container).await
            {
                warn!(endpoint = id, %error, "the container's labels are not taken over");
            }
        }
    }

    /// Forgets networks of this host that Docker does not know any more, and holds what the others keep from
    /// containers.
    async fn compare_networks(&self) -> Result<()> {
        let own: Vec<_> = self
            .networks()
            .await?
            .into_iter()
            .map(|(network, _)| network)
            .filter(|network| network.node.as_deref() == Some(self.node.as_str()))
            .collect();
        let known = match &self.docker {
            Some(docker) if !own.is_empty() => docker.networks().await,
            _ => None,
        };
        for network in &own {
            let young = stale::is_young(&network.created, now(), self.config.grace);
            let gone = known
                .as_ref()
                .is_some_and(|known| !known.contains(&network.id));
            if gone && !young {
                info!(
                    network = network.id,
                    name = network.name,
                    "Docker knows it no more; forgetting it"
                );
                self.forget_network(&network.id).await?;
            } else {
                self.hold_reserved(network).await?;
            }
        }
        Ok(())
    }
}

/// When Docker is asked about a new container.
const DESCRIBE: [Duration; 8] = [
    Duration::from_millis(100),
    Duration::from_millis(150),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(500);
const MOST_ATTEMPTS: u32 = 20;
/// So many endpoints at once are held back if they are more than half, as in the agent.
const FEWEST_HELD: usize = 5;
