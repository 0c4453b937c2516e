//! STATUS: whether an ADD would succeed now.

use margay_call::{
    Hints, datastore_ready, from_ipam, from_kube, from_store, not_available, now, open, request,
};
use margay_cni::error::Error;
use margay_cni::{Command, Request};
use margay_ipam_core::Allocator;
use margay_model::{Key, Kind};
use margay_plugin::{Delegate, progress};
use margay_store::Store;

use crate::config::{Config, Ipam};

/// Carries out a STATUS.
///
/// # Errors
/// Code 50 with the reason, or the delegate's error.
pub(crate) async fn run(config: &Config, call: &Request) -> Result<(), Error> {
    config.mtu()?;
    let node = config.shared.node.name().map_err(not_available)?;
    if config.kubernetes.describes_pods {
        let mut client = config.kubernetes.client().map_err(not_available)?;
        progress("waiting for the Kubernetes API server");
        let answered = client.ping().await;
        answered.map_err(|error| not_available(from_kube(&error)))?;
    }
    let store = open(&config.shared)?;
    progress(format!("waiting for {}", store.describe()));
    let cluster = store
        .get(&Key::resource(Kind::ClusterInformation, "default"))
        .await
        .map_err(|error| not_available(from_store(&error)))?;
    datastore_ready(cluster.as_ref()).map_err(not_available)?;
    match &config.ipam {
        Ipam::Own => {
            let hints = Hints::of(call.conf.raw(), &node).read();
            let wanted = request(call, &node, hints, now())?;
            let could = Allocator::new(&store).could_assign(&wanted).await;
            could.map_err(|error| not_available(from_ipam(&error)))
        }
        Ipam::Delegate(plugin) => Delegate::find(plugin, call)?
            .call(call, Command::Status)
            .map(|_| ()),
    }
}
