//! The calls of the IPAM driver.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_ipam_core::allocator::Want;
use margay_ipam_core::pool::Pool;
use margay_ipam_core::release::Address;
use margay_ipam_core::{Allocator, Assignment, IpamError, Limits};
use margay_model::resource::pool::IPPool;
use margay_model::{Cidr, Family, Kind, Prefix};
use margay_store::Store;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{Driver, family, now, parse_address};
use crate::driver::network::reserved_handle;
use crate::error::{DriverError, Result};
use crate::network::{GLOBAL_SPACE, LOCAL_SPACE};
use crate::pool_id::PoolId;
use crate::protocol::{ADDRESS_TYPE, GATEWAY, PoolAddress, PoolAnswer, ReleasePool, RequestPool};

impl Driver {
    /// `IpamDriver.GetDefaultAddressSpaces`.
    pub fn address_spaces(&self) -> Value {
        json!({
            "LocalDefaultAddressSpace": LOCAL_SPACE,
            "GlobalDefaultAddressSpace": GLOBAL_SPACE,
        })
    }

    /// `IpamDriver.RequestPool`: finds the pool; nothing is written.
    ///
    /// # Errors
    /// No pool holds the subnet, or an option is unknown.
    pub async fn request_pool(&self, call: &RequestPool) -> Result<PoolAnswer> {
        if ![LOCAL_SPACE, GLOBAL_SPACE].contains(&call.address_space.as_str()) {
            return Err(DriverError::Malformed(format!(
                "AddressSpace {:?} is not one of this driver's",
                call.address_space
            )));
        }
        let family = family(call.v6);
        let mut asked = None;
        for (key, value) in call.options.iter().flatten() {
            if key != POOL_OPTION {
                return Err(DriverError::UnknownOption {
                    key: key.clone(),
                    known: POOL_OPTION,
                });
            }
            asked = Some(value);
        }
        let gateway = match family {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        };
        let (id, pool) = if call.pool.is_empty() && asked.is_none() {
            (PoolId::Any(family), gateway.to_owned())
        } else {
            self.named_pool(call, family, asked).await?
        };
        Ok(PoolAnswer {
            pool_id: id.to_string(),
            pool,
            // A layer-3 network has no gateway of its own; this keeps Docker from taking an address for one.
            data: BTreeMap::from([(GATEWAY, gateway.to_owned())]),
        })
    }

    async fn named_pool(
        &self,
        call: &RequestPool,
        family: Family,
        asked: Option<&String>,
    ) -> Result<(PoolId, String)> {
        let pools = self.pools(family).await?;
        let no_pool = |subnet: &str| DriverError::NoPool {
            subnet: subnet.to_owned(),
            known: pools
                .iter()
                .map(|pool| format!("{} ({})", pool.cidr, pool.name))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let subnet = match (call.pool.as_str(), asked) {
            ("", Some(name)) => {
                let found = pools.iter().find(|pool| pool.name == *name);
                found.ok_or_else(|| no_pool(name))?.cidr
            }
            (text, _) => parse_prefix("Pool", text, family)?,
        };
        let candidates = pools.iter().filter(|pool| pool.cidr.covers(&subnet));
        let mut candidates = candidates.filter(|pool| asked.is_none_or(|name| pool.name == *name));
        let pool = candidates.next().ok_or_else(|| no_pool(&call.pool))?;
        let mut range = (pool.cidr != subnet).then_some(subnet);
        if !call.sub_pool.is_empty() {
            let asked = parse_prefix("SubPool", &call.sub_pool, family)?;
            if !subnet.covers(&asked) {
                return Err(DriverError::RangeOutside {
                    range: call.sub_pool.clone(),
                    subnet: subnet.to_string(),
                });
            }
            range = (pool.cidr != asked).then_some(asked);
        }
        let id = PoolId::Pool {
            name: pool.name.clone(),
            range,
        };
        Ok((id, subnet.to_string()))
    }

    async fn pools(&self, family: Family) -> Result<Vec<Pool>> {
        let page = self.store.list(&Prefix::Resources(Kind::IPPool)).await?;
        Ok(page
            .entries
            .iter()
            .filter_map(|entry| IPPool::decode(&entry.value).ok())
            .filter_map(|pool| Pool::from_resource(&pool))
            .filter(|pool| pool.cidr.family() == family)
            .collect())
    }

    /// `IpamDriver.ReleasePool`: nothing was taken.
    ///
    /// # Errors
    /// The id is none.
    pub fn release_pool(&self, call: &ReleasePool) -> Result<()> {
        call.pool_id
            .parse::<PoolId>()
            .map(drop)
            .map_err(|error| DriverError::Malformed(error.to_string()))
    }

    /// `IpamDriver.RequestAddress`: chooses an address and keeps it. It is assigned when Docker says what for.
    ///
    /// # Errors
    /// There is none, or the one asked for is taken.
    pub async fn request_address(&self, call: &PoolAddress) -> Result<Value> {
        let pool: PoolId = call
            .pool_id
            .parse()
            .map_err(|error: crate::pool_id::BadPoolId| {
                DriverError::Malformed(error.to_string())
            })?;
        let kind = call
            .options
            .as_ref()
            .and_then(|options| options.get(ADDRESS_TYPE));
        let is_gateway = kind.is_some_and(|kind| kind == GATEWAY);
        if call.address.is_empty() && is_gateway {
            // Only asked where Docker was told of no gateway: a layer-3 network has none.
            let none = match pool.family() {
                Some(Family::V6) => "::/0",
                _ => "0.0.0.0/0",
            };
            return Ok(json!({"Address": none, "Data": {}}));
        }
        let address = if call.address.is_empty() {
            self.choose(&pool).await?
        } else {
            let address = parse_address("Address", &call.address)?;
            self.choose_exact(address).await?;
            address
        };
        Ok(json!({"Address": Cidr::host(address).to_string(), "Data": {}}))
    }

    async fn choose(&self, pool: &PoolId) -> Result<IpAddr> {
        let (want, within) = match pool {
            PoolId::Any(family) => (
                Want::Auto {
                    family: *family,
                    pools: Vec::new(),
                },
                None,
            ),
            PoolId::Pool { name, range } => {
                let family = match range {
                    Some(range) => range.family(),
                    None => self.family_of(name).await?,
                };
                let pools = vec![name.clone()];
                (Want::Auto { family, pools }, *range)
            }
        };
        let _turn = self.turn.lock().await;
        let limits = Limits {
            within,
            without: self.kept(),
        };
        let request = self.request(UNASSIGNED.to_owned(), vec![want], &[]);
        let chosen = Allocator::new(&self.store)
            .choose(&request, &limits)
            .await?;
        let Assignment::Made { assigned, hints } = chosen else {
            return Err(DriverError::NotReady("nothing was chosen"));
        };
        self.used(&hints);
        let one = assigned.first().map(|assigned| assigned.address);
        let one = one.ok_or(DriverError::NotReady("nothing was chosen"))?;
        self.keep(one);
        Ok(one)
    }

    /// Sees that one particular address can be had. What a dead container left is returned for it first.
    async fn choose_exact(&self, address: IpAddr) -> Result<()> {
        let request = || self.request(UNASSIGNED.to_owned(), vec![Want::Exact(address)], &[]);
        let _turn = self.turn.lock().await;
        let allocator = Allocator::new(&self.store);
        let limits = Limits::default();
        let mut chosen = allocator.choose(&request(), &limits).await;
        if let Err(IpamError::AddressTaken { holder, .. }) = &chosen {
            if *holder == format!("handle {}", reserved_handle(address)) {
                self.keep(address);
                return Ok(());
            }
            if self.take_from_dead(address).await? {
                chosen = allocator.choose(&request(), &limits).await;
            }
        }
        if let Assignment::Made { hints, .. } = chosen? {
            self.used(&hints);
        }
        self.keep(address);
        Ok(())
    }

    /// The family of a pool's addresses.
    async fn family_of(&self, name: &str) -> Result<Family> {
        let v4 = self.pools(Family::V4).await?;
        let is_v4 = v4.iter().any(|pool| pool.name == name);
        Ok(if is_v4 { Family::V4 } else { Family::V6 })
    }

    /// `IpamDriver.ReleaseAddress`. An address of an endpoint went with the endpoint; what is left to be returned is
    /// one that Calico's plugin assigned, which knows no handles.
    ///
    /// # Errors
    /// The call is malformed, or the store refused. With the store away the clean-up does it later.
    pub async fn release_address(&self, call: &PoolAddress) -> Result<()> {
        let address = parse_address("Address", &call.address)?;
        if address.is_unspecified() || self.let_go(address) {
            return Ok(());
        }
        match self.release_unhandled(address).await {
            Err(error) if error.is_store_away() => {
                warn!(%address, %error, "the address is given back later");
                Ok(())
            }
            done => done,
        }
    }

    async fn release_unhandled(&self, address: IpAddr) -> Result<()> {
        let _turn = self.turn.lock().await;
        let allocator = Allocator::new(&self.store);
        let holders = allocator.holders(&[address]).await?;
        let Some(holder) = holders.get(&address) else {
            return Ok(());
        };
        if holder.handle_id.is_some() || holder.released_at.is_some() {
            return Ok(());
        }
        info!(%address, "returning an address that was assigned without a handle");
        let wanted = Address {
            address,
            handle: None,
            sequence_number: None,
        };
        allocator.release_addresses(&[wanted], now()).await?;
        Ok(())
    }
}

impl PoolId {
    fn family(&self) -> Option<Family> {
        match self {
            Self::Any(family) => Some(*family),
            Self::Pool { range, .. } => range.map(|range| range.family()),
        }
    }
}

fn parse_prefix(what: &str, text: &str, family: Family) -> Result<Cidr> {
    text.parse()
        .ok()
        .filter(|cidr: &Cidr| cidr.family() == family)
        .ok_or_else(|| DriverError::Malformed(format!("{what} {text:?} is not an {family} prefix")))
}

/// `--ipam-opt` that names a pool.
const POOL_OPTION: &str = "pool";
/// No handle has this name: nothing is assigned under it.
const UNASSIGNED: &str = "docker.";
