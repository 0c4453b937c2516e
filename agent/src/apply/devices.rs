//! What a comparison does about devices: tunnels' own, and the MTU of workloads' pairs.

use margay_netlink::{Interfaces, Link, Namespaces, tunnel};
use margay_route::{DeviceStep, plan_vxlan};
use tracing::{info, warn};

use super::Engine;
use crate::calculate::Picture;
use crate::plan::{self, DeviceWords};
use crate::tunnel_address::Wish;

impl Engine {
    /// Tells of which pools the addresses of tunnels' devices are to be, once that is known.
    pub(super) fn wish_for_tunnels(&self) {
        if !self.followed {
            return;
        }
        let wish = Wish::of(&self.state, &self.settings);
        self.parts.tunnel_wish.send_if_modified(|now| {
            let new = *now != wish;
            *now = wish;
            new
        });
    }

    /// Makes the tunnels' devices as they should be. Whether there was something to do, and what was
    /// left undone.
    pub(super) async fn make_devices(
        &self,
        picture: &Picture,
        interfaces: &Interfaces,
    ) -> (bool, Option<String>) {
        let mut steps = plan_vxlan(&picture.devices, &tunnel::observe(interfaces));
        if !self.trusted {
            // What an earlier run made may still be right.
            let devices = &picture.devices;
            steps.retain(|step| match step {
                DeviceStep::Delete { name } => devices.iter().any(|vxlan| vxlan.name == *name),
                _ => true,
            });
        }
        (!steps.is_empty(), self.take(&steps).await)
    }

    /// Gives workloads' interfaces the addresses that BGP presents to them, and takes those of before; what
    /// failed.
    pub(super) async fn present(
        &mut self,
        picture: &Picture,
        interfaces: &Interfaces,
    ) -> Option<String> {
        let wanted = picture.presented.values().flatten();
        self.presented.extend(wanted.copied());
        let prefixes = &self.settings.interface_prefixes;
        let is_workload = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let steps = plan::present(&picture.presented, &self.presented, interfaces, is_workload);
        self.take(&steps).await
    }

    /// Takes steps on devices, each in any case; what failed last.
    async fn take(&self, steps: &[DeviceStep]) -> Option<String> {
        let mut undone = None;
        for step in steps {
            info!("{}", DeviceWords(step));
            if let Err(failed) = tunnel::apply(&self.parts.netlink, step).await {
                warn!(error = %failed, "the kernel refused a step");
                self.parts.metrics.failures.inc();
                undone = Some(failed.to_string());
            }
        }
        undone
    }

    /// Gives workloads that have an MTU of before the one of now; what failed.
    ///
    /// A workload with another MTU than any that was written got it from its network's
    /// configuration, and keeps it.
    pub(super) async fn push_mtu(
        &self,
        picture: &Picture,
        interfaces: &Interfaces,
    ) -> Option<String> {
        let mtu = picture.mtu?;
        let endpoints = self.state.endpoints().values();
        let stale: Vec<&Link> = endpoints
            .filter_map(|endpoint| interfaces.by_name(&endpoint.interface))
            .filter(|link| link.kind.as_deref() == Some("veth"))
            .filter(|link| link.mtu != mtu && self.former_mtus.contains(&link.mtu))
            .collect();
        if stale.is_empty() {
            return None;
        }
        let netlink = &self.parts.netlink;
        let namespaces = Namespaces::find(netlink).await;
        let mut undone = None;
        for link in stale {
            match namespaces.set_mtu(netlink, link, mtu).await {
                Ok(()) => {
                    info!(
                        interface = link.name,
                        from = link.mtu,
                        to = mtu,
                        "MTU changed"
                    );
                }
                Err(failed) => {
                    warn!(error = %failed, interface = link.name, "the MTU cannot be changed");
                    undone = Some(failed.to_string());
                }
            }
        }
        undone
    }
}
