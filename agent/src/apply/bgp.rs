//! What a comparison does about BGP: orders it, and hears of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::policy::PrefixSet;
use margay_peering::{Peering, Problem};
use margay_route::{Observed, PROTOCOL, Route, RouteKey};
use margay_ruleset::compile::EndpointToHost;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Engine, SETTLE};
use crate::bgp;
use crate::bgp::order::{News, Order, announceable, spared};
use crate::calculate::Picture;
use crate::plan;

impl Engine {
    /// What BGP is to do, as the store says it now.
    pub(super) fn heed_bgp(&mut self, observed: &Observed) -> Arc<Peering> {
        let peering = self.peering();
        self.learned.priorities = peering.priorities;
        self.learned.gateways.clone_from(&peering.gateways);
        self.learned.workloads.clone_from(&peering.workloads);
        let elsewhere = self.parts.config.bgp_backend.kernel_protocol();
        self.learned.elsewhere = elsewhere;
        if self.restarting.is_none() {
            let earlier = observed.routes.iter();
            let is_ours =
                |route: &&Route| route.protocol == PROTOCOL || Some(route.protocol) == elsewhere;
            let mut earlier = earlier.filter(is_ours);
            self.restarting = Some(earlier.any(plan::goes_by_gateway));
        }
        // There is nothing of before, or nobody who would tell of it.
        if self.restarting == Some(false) || peering.types.is_empty() {
            self.converged = true;
        }
        for problem in peering.problems.difference(&self.told_bgp) {
            warn!("{problem}");
        }
        self.told_bgp.clone_from(&peering.problems);
        peering
    }

    /// What BGP is to do; worked out anew only where something that it depends on changed.
    fn peering(&mut self) -> Arc<Peering> {
        let of = Basis {
            generation: self.state.bgp_generation(),
            dropped: self.settings.policy.endpoint_to_host == EndpointToHost::Drop,
        };
        let known = self.peering.as_ref();
        if let Some((_, peering)) = known.filter(|(known, _)| *known == of && !self.secrets.stale())
        {
            return Arc::clone(peering);
        }
        let mut peering = bgp::desired(&self.state, &mut self.secrets);
        if of.dropped && !peering.workloads.is_empty() {
            peering.problems.insert(Problem {
                object: "FelixConfiguration".to_owned(),
                reason: "defaultEndpointToHostAction is Drop, so workloads cannot connect to this node \
                         for BGP; set it to Accept, and bound by policy what else they may connect to"
                    .to_owned(),
            });
        }
        let earlier = known.and_then(|(_, earlier)| earlier.speaker.as_ref());
        if let (Some(speaker), Some(earlier)) = (&mut peering.speaker, earlier) {
            speaker.share_policies(earlier);
        }
        self.parts.metrics.bgp_calculations.inc();
        let peering = Arc::new(peering);
        self.peering = Some((of, Arc::clone(&peering)));
        peering
    }

    /// Takes in what the speaker tells of its table.
    pub(super) fn hear_bgp(&mut self, news: News) {
        if news.void {
            self.learned.routes.clear();
        }
        for (prefix, way) in news.ways {
            match way {
                Some(way) => self.learned.routes.insert(prefix, way),
                None => self.learned.routes.remove(&prefix),
            };
        }
        if news.converged && !self.converged {
            info!("BGP has converged; routes of an earlier run that nobody announces may go");
            self.converged = true;
        }
        self.hasten(SETTLE / 10);
    }

    /// Lets the speaker withdraw what will not stand any more, before it goes from the kernel.
    pub(super) async fn withdraw(&mut self, peering: &Peering, picture: &Picture) {
        let wanted = announceable(peering, picture, &BTreeSet::new());
        let last = self.parts.orders.borrow().clone();
        let Some(mut order) = last else {
            return;
        };
        let before = order.announced.len();
        order
            .announced
            .retain(|prefix, _| wanted.contains_key(prefix));
        if order.announced.len() == before {
            return;
        }
        order.version += 1;
        let version = order.version;
        self.parts.orders.send_replace(Some(order));
        let obeyed = self.parts.obeyed.wait_for(|obeyed| *obeyed >= version);
        if timeout(PATIENCE, obeyed).await.is_err() {
            warn!("BGP is slow to withdraw routes; they go from the kernel all the same");
        }
    }

    /// Orders what BGP is to do, now that the kernel is as it is; `missing` are routes that it lacks.
    pub(super) fn announce(
        &mut self,
        peering: Arc<Peering>,
        picture: &Picture,
        missing: &BTreeSet<RouteKey>,
    ) {
        let announced = announceable(&peering, picture, missing);
        let restarting = self.restarting.unwrap_or(false);
        let spared = match self.learned.elsewhere {
            Some(_) => spared(picture),
            None => PrefixSet::default(),
        };
        self.parts.orders.send_if_modified(|last| {
            let version = last.as_ref().map_or(0, |last| last.version);
            let mut order = Order {
                peering,
                announced,
                restarting,
                spared,
                version,
            };
            if last.as_ref().is_some_and(|last| last.is_like(&order)) {
                return false;
            }
            order.version += 1;
            *last = Some(order);
            true
        });
    }
}

/// What the peering depends on beside passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis {
    /// The state's.
    generation: u64,
    /// Whether workloads cannot connect to the node.
    dropped: bool,
}

/// How long a withdrawal is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
