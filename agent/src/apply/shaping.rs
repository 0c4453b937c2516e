//! What a comparison does about bandwidth limits.

use std::collections::{BTreeMap, BTreeSet};

use margay_endpoint::shaping::{Desired, Step, is_device, plan};
use margay_netlink::{Interfaces, Netlink, shaping};
use tracing::{info, warn};

use super::Engine;
use crate::state::State;

impl Engine {
    /// Makes the bandwidth limits of workloads' interfaces as their records say; what was left undone.
    pub(super) async fn shape(
        &mut self,
        interfaces: &Interfaces,
    ) -> Result<Option<String>, margay_netlink::Error> {
        let wanted = wants_limits(&self.state) || interfaces.iter().any(|it| is_device(&it.name));
        if !wanted && !self.shaped {
            return Ok(None);
        }
        let mut undone = None;
        let mut hindered = BTreeSet::new();
        for step in steps(&self.parts.netlink, &self.state, interfaces).await? {
            if hindered.contains(step.subject()) {
                continue;
            }
            info!("{step}");
            if let Err(failed) = shaping::apply(&self.parts.netlink, &step).await {
                hindered.insert(step.subject().to_owned());
                // It went meanwhile, and the kernel tells of that.
                if let margay_netlink::Error::LinkMissing { .. } = failed {
                    continue;
                }
                warn!(error = %failed, "the kernel refused a step");
                self.parts.metrics.failures.inc();
                undone = Some(failed.to_string());
            }
        }
        self.shaped = wanted || undone.is_some();
        Ok(undone)
    }
}

/// What makes the limits in the kernel those that this node's endpoints record.
///
/// # Errors
/// The kernel cannot be read.
pub(crate) async fn steps(
    netlink: &Netlink,
    state: &State,
    interfaces: &Interfaces,
) -> Result<Vec<Step>, margay_netlink::Error> {
    let desired: BTreeMap<String, Desired> = state
        .endpoints()
        .values()
        .filter_map(|endpoint| {
            let link = interfaces.by_name(&endpoint.interface)?;
            let desired = Desired {
                bandwidth: endpoint.bandwidth,
                mtu: link.mtu,
            };
            Some((link.name.clone(), desired))
        })
        .collect();
    let present = interfaces.iter().map(|link| link.name.clone()).collect();
    let observed = shaping::observe(netlink, interfaces).await?;
    Ok(plan(&desired, &present, &observed))
}

fn wants_limits(state: &State) -> bool {
    let mut endpoints = state.endpoints().values();
    endpoints.any(|endpoint| !endpoint.bandwidth.is_unlimited())
}
