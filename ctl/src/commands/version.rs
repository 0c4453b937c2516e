//! `version`.

use anyhow::Result;
use margay_model::Kind;
use margay_model::resource::cluster::ClusterInformation;
use margay_resources::{Client, ResourceError};
use margay_store::Store;

use super::Streams;
use crate::output;
use crate::stamps::SystemStamps;

/// This program's version.
pub(super) fn client(streams: &mut Streams<'_>) -> Result<()> {
    streams.say(&format!(
        "Client Version:    {}\n",
        env!("CARGO_PKG_VERSION")
    ))
}

/// This program's version, and what the cluster says of itself.
pub(super) async fn both<S: Store>(
    connection: &Client<'_, S, SystemStamps>,
    streams: &mut Streams<'_>,
) -> Result<()> {
    client(streams)?;
    let found: Result<ClusterInformation, _> = connection
        .get(Kind::ClusterInformation, None, "default")
        .await;
    let information = match found {
        Ok(information) => output::value(&information, false)?,
        Err(ResourceError::DoesNotExist { .. }) => {
            return streams.say("Cluster Version:   unknown: the datastore is not initialised\n");
        }
        Err(error) => return Err(error.into()),
    };
    let field = |name: &str| {
        information["spec"][name]
            .as_str()
            .unwrap_or("unknown")
            .to_owned()
    };
    streams.say(&format!(
        "Cluster Version:   {}\nCluster Type:      {}\n",
        field("calicoVersion"),
        field("clusterType")
    ))
}
