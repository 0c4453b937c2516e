//! Published ports: what the kernel must do, compared with what it does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use margay_netlink::Interfaces;
use margay_nft::Nft;
use margay_ruleset::{Batch, Operation, Table, plan};
use tracing::{info, warn};

use super::{Driver, check_id};
use crate::error::{DriverError, Result};
use crate::ports::{PortMap, TABLE, published};
use crate::protocol::EndpointCall;

impl Driver {
    /// `NetworkDriver.ProgramExternalConnectivity`: the ports of the endpoint's record lead to it from now on.
    ///
    /// # Errors
    /// The kernel or the store refused.
    pub async fn publish(&self, call: &EndpointCall) -> Result<()> {
        let id = check_id("EndpointID", &call.endpoint_id)?;
        if self.publishes(id).await? {
            self.apply_ports(None).await?;
        }
        Ok(())
    }

    /// `NetworkDriver.RevokeExternalConnectivity`: they do no more.
    ///
    /// # Errors
    /// The kernel refused. With the store away the clean-up does it later.
    pub async fn revoke(&self, call: &EndpointCall) -> Result<()> {
        let id = check_id("EndpointID", &call.endpoint_id)?;
        match self.publishes(id).await {
            Ok(true) => self.apply_ports(Some(id)).await,
            Err(error) if error.is_store_away() => {
                warn!(endpoint = id, %error, "its ports are closed later");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    async fn publishes(&self, id: &str) -> Result<bool> {
        match self.endpoint(id).await {
            Ok((endpoint, _)) => Ok(published(&endpoint).next().is_some()),
            Err(DriverError::UnknownEndpoint { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel's table what follows from the records of the node's endpoints, `but` one.
    pub(crate) async fn apply_ports(&self, but: Option<&str>) -> Result<()> {
        let endpoints = self.endpoints().await?;
        let others = endpoints.iter().filter(|(id, ..)| but != Some(id.as_str()));
        let map = PortMap::of(others.map(|(_, endpoint, _)| endpoint));
        for conflict in &map.conflicts {
            warn!(
                port = conflict.port,
                protocol = conflict.transport.name(),
                "two endpoints publish the same port"
            );
        }
        let table = if map.forwards.is_empty() {
            None
        } else {
            let locals = locals(&self.host()?.interfaces().await?);
            Some(map.table(&locals))
        };
        let applied = tokio::task::spawn_blocking(move || apply(table.as_ref())).await;
        // Only a panic of the closure could be an error here.
        applied.unwrap_or(Ok(()))
    }
}

fn apply(table: Option<&Table>) -> Result<()> {
    let mut nft = Nft::current()?;
    let observed = nft.observe(TABLE)?;
    let batch = match table {
        Some(table) => plan(table, &observed),
        None if observed.table.is_none() => return Ok(()),
        None => Batch {
            table: TABLE.to_owned(),
            operations: vec![Operation::DeleteTable],
        },
    };
    if !batch.is_empty() {
        nft.apply(&batch)?;
        info!(
            operations = batch.operations.len(),
            "published ports changed"
        );
    }
    Ok(())
}

/// The host's own addresses at which it publishes: neither its loopback's, nor those of one link alone.
fn locals(interfaces: &Interfaces) -> BTreeSet<IpAddr> {
    let of_one_link = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    interfaces
        .iter()
        .flat_map(|link| &link.addresses)
        .map(ipnetwork::IpNetwork::ip)
        .filter(|address| !address.is_loopback() && !of_one_link(address))
        .collect()
}
