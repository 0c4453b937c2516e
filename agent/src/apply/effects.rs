//! What a comparison does beside changing routes: settings, files, words and figures.

use std::collections::BTreeSet;
use std::net::IpAddr;

use margay_model::Key;
use margay_netlink::Interfaces;
use margay_nft::Conntrack;
use margay_route::{Plan, RouteKey};
use tracing::{debug, error, info, warn};

use super::Engine;
use crate::calculate::{Origin, Picture};
use crate::files;
use crate::metrics::figure;
use crate::plan::{RouteWords, Words};
use crate::report::stands;
use crate::state::Block;

impl Engine {
    /// Deletes the connections that the kernel tracks for addresses which no endpoint of this node has any more
    /// (D11): whoever gets such an address next shall not get the answers to them.
    pub(super) async fn forget_connections(&mut self) {
        self.forget_at = None;
        let vacated: Vec<IpAddr> = self.state.take_vacated().into_iter().collect();
        if vacated.is_empty() {
            return;
        }
        let namespace = self.parts.netlink.namespace().clone();
        let addresses = vacated.clone();
        // The kernel may have a long table to walk.
        let forget = move || Conntrack::open(&namespace)?.forget(&addresses);
        let metrics = &self.parts.metrics;
        match tokio::task::spawn_blocking(forget).await {
            Ok(Ok(0)) => debug!(?vacated, "no connections are tracked"),
            Ok(Ok(count)) => {
                metrics.forgotten.inc_by(count as u64);
                info!(?vacated, count, "tracked connections are deleted");
            }
            Ok(Err(failed)) => {
                metrics.forget_failures.inc();
                warn!(?vacated, error = %failed, "tracked connections cannot be deleted");
            }
            Err(failed) => {
                metrics.forget_failures.inc();
                warn!(?vacated, error = %failed, "deleting tracked connections broke off");
            }
        }
    }

    /// Logs what will be done and what is odd; each oddity once while it lasts.
    pub(super) fn tell(&mut self, picture: &Picture, planned: &Plan, withheld: usize) {
        for step in &planned.steps {
            info!("{}", Words { step, picture });
        }
        for problem in picture.problems.difference(&self.told.problems) {
            warn!("{problem}");
        }
        self.told.problems.clone_from(&picture.problems);
        let unreachable: BTreeSet<String> = picture
            .unreachable
            .iter()
            .map(|dark| format!("node {} cannot be reached: {}", dark.node, dark.reason))
            .collect();
        for text in unreachable.difference(&self.told.unreachable) {
            warn!("{text}");
        }
        self.told.unreachable = unreachable;
        let mut conflicts = BTreeSet::new();
        for conflict in &planned.conflicts {
            let key = conflict.desired.key();
            if !self.told.conflicts.contains(&key) {
                warn!(
                    "route {} is not added: somebody else's {} is there",
                    RouteWords(&conflict.desired),
                    RouteWords(&conflict.holder)
                );
            }
            conflicts.insert(key);
        }
        self.told.conflicts = conflicts;
        if withheld > 0 && self.told.withheld == 0 {
            error!(
                "{withheld} routes in the kernel are unknown to the datastore, most of those an earlier run \
                 made; they stay until the datastore knows them again, or SIGUSR1 tells this process that \
                 they may go"
            );
        }
        self.told.withheld = withheld;
        let metrics = &self.parts.metrics;
        metrics.conflicts.set(figure(planned.conflicts.len()));
        metrics.problems.set(figure(picture.problems.len()));
        metrics.unreachable.set(figure(picture.unreachable.len()));
        metrics.withheld.set(figure(withheld));
    }

    /// Writes the settings of the machine and of interfaces that lack them; what failed.
    pub(super) fn configure(
        &mut self,
        picture: &Picture,
        interfaces: &Interfaces,
    ) -> Option<String> {
        let namespace = self.parts.netlink.namespace().clone();
        let mut undone = None;
        let thorough = std::mem::take(&mut self.thorough);
        if thorough {
            self.configured.clear();
        }
        if let Err(failed) = namespace.write_sysctls(&picture.host_settings) {
            warn!(error = %failed, "a setting of the machine cannot be written");
            undone = Some(failed.to_string());
        }
        for (name, settings) in &picture.settings {
            let Some(link) = interfaces.by_name(name) else {
                continue;
            };
            if self.configured.get(&link.index) == Some(settings) {
                continue;
            }
            match namespace.write_sysctls(settings) {
                Ok(()) => {
                    debug!(interface = name, "settings written");
                    self.configured.insert(link.index, settings.clone());
                }
                Err(failed) => {
                    warn!(error = %failed, interface = name, "a setting cannot be written");
                    undone = Some(failed.to_string());
                }
            }
        }
        undone
    }

    pub(super) fn write_status_files(
        &mut self,
        picture: &Picture,
        missing: &BTreeSet<RouteKey>,
    ) -> Option<String> {
        let files = self.files.as_mut()?;
        let state = &self.state;
        let up = picture.endpoints.iter().filter_map(|(key, placed)| {
            let works = !placed.routes.is_empty()
                && placed.hindrance.is_none()
                && self.enforcer.is_in_force(key)
                && !placed.routes.iter().any(|route| missing.contains(route));
            works.then(|| state.endpoints().get(key)).flatten()
        });
        let failures = files.set(up).err()?;
        let mut last = None;
        for (path, failed) in failures {
            warn!(path = %path.display(), error = %failed, "an endpoint-status file is not as it should be");
            self.parts.metrics.status_file_failures.inc();
            last = Some(format!("{}: {failed}", path.display()));
        }
        last
    }

    pub(super) fn write_mtu(&mut self, picture: &Picture) -> Option<String> {
        let mtu = picture.mtu?;
        let path = self.parts.config.state_dir.join("mtu");
        if let Ok(former) = std::fs::read_to_string(&path) {
            self.former_mtus.extend(former.trim().parse::<u32>());
        }
        match files::write(&path, &mtu.to_string()) {
            Ok(written) => {
                if written {
                    info!(mtu, path = %path.display(), "the workloads' MTU is written");
                }
                self.parts.metrics.mtu.set(mtu.into());
                None
            }
            Err(failed) => {
                warn!(path = %path.display(), error = %failed, "the MTU cannot be written");
                Some(format!("{}: {failed}", path.display()))
            }
        }
    }

    pub(super) fn show(
        &mut self,
        picture: &Picture,
        missing: &BTreeSet<RouteKey>,
        interfaces: &Interfaces,
        undone: Option<&str>,
    ) {
        let metrics = &self.parts.metrics;
        let own = |block: &&Block| block.node.as_deref() == Some(self.state.node());
        metrics
            .local_endpoints
            .set(figure(self.state.endpoints().len()));
        metrics.hosts.set(figure(self.state.nodes().len()));
        metrics
            .own_blocks
            .set(figure(self.state.blocks().values().filter(own).count()));
        metrics
            .routes
            .set(figure(picture.desired.routes().count() - missing.len()));
        for origin in [Origin::Own, Origin::Store, Origin::Vxlan, Origin::Bgp] {
            let sources = picture.sources.values();
            let mut count = sources.filter(|source| source.origin() == origin).count();
            if origin == Origin::Bgp {
                count += picture.elsewhere.len();
            }
            let label = [("origin", origin.word())];
            metrics.rib_routes.get_or_create(&label).set(figure(count));
        }
        metrics.unresolved.set(figure(picture.unresolved.len()));
        metrics
            .neighbours
            .set(figure(picture.desired.neighbours().count()));
        self.parts.kernel.ready(
            true,
            undone.unwrap_or("routes and neighbours are as they should be"),
        );
        let refused = self.parts.status.borrow().policy_refused.clone();
        let in_force = |key: &Key| self.enforcer.is_in_force(key);
        let stands = stands(&self.state, picture, missing, in_force, refused.as_deref());
        let mut placed = picture.endpoints.iter();
        self.awaiting = placed.any(|(key, placed)| placed.hindrance.is_none() && !in_force(key));
        self.parts.status.send_modify(|status| {
            status.describe(&self.state, picture, missing, &stands);
            status.ready = true;
        });
        self.publish(&stands, refused.is_some(), interfaces);
    }
}
