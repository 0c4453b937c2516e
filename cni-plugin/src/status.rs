//! STATUS: whether an ADD would succeed now.

use margay_call::{could_assign, could_record, from_kube, not_available, open};
use margay_cni::error::Error;
use margay_cni::{Command, Request};
use margay_plugin::{Delegate, progress};

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
    match &config.ipam {
        Ipam::Own => could_assign(call, &store, &node).await,
        Ipam::Delegate(plugin) => {
            could_record(&store).await?;
            Delegate::find(plugin, call)?
                .call(call, Command::Status)
                .map(|_| ())
        }
    }
}
