//! Which pools a workload may use, and why not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_model::resource::pool::{AllowedUse, AssignmentMode, IPPool};
use margay_model::{Cidr, Family};
use margay_selector::Selector;

use crate::error::{PoolRefusal, Refusal};

/// A pool as the allocator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its prefix.
    pub cidr: Cidr,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// Whether it gives new addresses.
    pub disabled: bool,
    node_selector: String,
    namespace_selector: String,
    allowed_uses: Vec<AllowedUse>,
    manual: bool,
}

/// Whom pools are chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Chooser<'a> {
    /// Labels of the node.
    pub node_labels: &'a BTreeMap<String, String>,
    /// Labels of the namespace, where there is one that has labels.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// What the address is for.
    pub purpose: AllowedUse,
}

impl Pool {
    /// Reads a pool resource; `None` when its prefix or block size makes no sense.
    pub fn from_resource(resource: &IPPool) -> Option<Self> {
        let spec = &resource.spec;
        let cidr: Cidr = spec.cidr.parse().ok()?;
        let default = match cidr.family() {
            Family::V4 => DEFAULT_BLOCK_V4,
            Family::V6 => DEFAULT_BLOCK_V6,
        };
        let block_size = spec.block_size.filter(|size| *size != 0).unwrap_or(default);
        if block_size > cidr.family().width() {
            return None;
        }
        Some(Self {
            name: resource.metadata.name.clone(),
            cidr,
            block_size,
            disabled: spec.disabled,
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            namespace_selector: spec.namespace_selector.clone().unwrap_or_default(),
            allowed_uses: spec.allowed_uses.clone(),
            manual: spec.assignment_mode == Some(AssignmentMode::Manual),
        })
    }

    /// Why the pool may not serve `chooser` when nobody asked for a pool; `None` when it may.
    pub fn refusal(&self, chooser: &Chooser<'_>) -> Option<Refusal> {
        if self.disabled {
            return Some(Refusal::Disabled);
        }
        if self.manual {
            return Some(Refusal::Manual);
        }
        match self.selects_node(chooser.node_labels) {
            Err(reason) => return Some(Refusal::Unreadable(reason)),
            Ok(false) => return Some(Refusal::NodeSelector(self.node_selector.clone())),
            Ok(true) => {}
        }
        match self.selects_namespace(chooser.namespace_labels) {
            Err(reason) => return Some(Refusal::Unreadable(reason)),
            Ok(false) => return Some(Refusal::NamespaceSelector(self.namespace_selector.clone())),
            Ok(true) => {}
        }
        self.refusal_when_asked(chooser.purpose)
    }

    /// Why the pool may not serve even those who ask for it.
    pub fn refusal_when_asked(&self, purpose: AllowedUse) -> Option<Refusal> {
        if self.disabled {
            return Some(Refusal::Disabled);
        }
        (!self.allows(purpose)).then(|| Refusal::Use {
            wanted: use_name(purpose),
        })
    }

    /// Whether the pool's node selector admits a node with these labels.
    ///
    /// # Errors
    /// The selector cannot be read.
    pub fn selects_node(&self, labels: &BTreeMap<String, String>) -> Result<bool, String> {
        matches(&self.node_selector, labels)
    }

    /// Number of blocks, saturating.
    pub fn blocks(&self) -> u128 {
        1u128 << self.block_size.saturating_sub(self.cidr.length()).min(127)
    }

    /// A refusal of this pool.
    pub fn refuse(&self, refusal: Refusal) -> PoolRefusal {
        PoolRefusal {
            pool: self.name.clone(),
            cidr: self.cidr,
            refusal,
        }
    }

    /// The block of this pool that holds `address`.
    pub fn block_of(&self, address: IpAddr) -> Option<Cidr> {
        self.cidr
            .contains(address)
            .then(|| Cidr::new(address, self.block_size))
            .flatten()
    }

    /// A selector of everything also admits a workload without a namespace.
    fn selects_namespace(&self, labels: Option<&BTreeMap<String, String>>) -> Result<bool, String> {
        let selector =
            Selector::parse(&self.namespace_selector).map_err(|error| error.to_string())?;
        Ok(selector.is_all() || labels.is_some_and(|labels| selector.matches(labels)))
    }

    /// An empty list stands for the default, workloads and tunnels.
    fn allows(&self, purpose: AllowedUse) -> bool {
        if self.allowed_uses.is_empty() {
            return purpose != AllowedUse::LoadBalancer;
        }
        self.allowed_uses.contains(&purpose)
    }
}

fn matches(selector: &str, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    let selector = Selector::parse(selector).map_err(|error| error.to_string())?;
    Ok(selector.matches(labels))
}

fn use_name(purpose: AllowedUse) -> &'static str {
    match purpose {
        AllowedUse::Workload => "Workload",
        AllowedUse::Tunnel => "Tunnel",
        AllowedUse::LoadBalancer => "LoadBalancer",
    }
}

const DEFAULT_BLOCK_V4: u8 = 26;
const DEFAULT_BLOCK_V6: u8 = 122;

#[cfg(test)]
mod tests {
    use margay_model::Metadata;
    use margay_model::resource::pool::IPPoolSpec;

    use super::*;

    fn pool(change: impl FnOnce(&mut IPPoolSpec)) -> Pool {
        let mut spec = IPPoolSpec {
            cidr: "10.0.0.0/16".into(),
            ..IPPoolSpec::default()
        };
        change(&mut spec);
        Pool::from_resource(&IPPool::new(Metadata::named("p"), spec)).unwrap()
    }

    fn refusal(pool: &Pool) -> Option<Refusal> {
        let labels = BTreeMap::from([("rack".to_owned(), "r1".to_owned())]);
        pool.refusal(&Chooser {
            node_labels: &labels,
            namespace_labels: None,
            purpose: AllowedUse::Workload,
        })
    }

    #[test]
    fn reasons() {
        assert_eq!(refusal(&pool(|_| {})), None);
        assert_eq!(
            refusal(&pool(|p| p.disabled = true)),
            Some(Refusal::Disabled)
        );
        assert_eq!(
            refusal(&pool(|p| p.assignment_mode = Some(AssignmentMode::Manual))),
            Some(Refusal::Manual)
        );
        assert_eq!(
            refusal(&pool(|p| p.node_selector = Some("rack == 'r1'".into()))),
            None
        );
        assert!(matches!(
            refusal(&pool(|p| p.node_selector = Some("rack == 'r2'".into()))),
            Some(Refusal::NodeSelector(_))
        ));
        assert!(matches!(
            refusal(&pool(|p| p.namespace_selector = Some("has(x)".into()))),
            Some(Refusal::NamespaceSelector(_))
        ));
        assert_eq!(
            refusal(&pool(|p| p.namespace_selector = Some("all()".into()))),
            None
        );
        assert!(matches!(
            refusal(&pool(|p| p.node_selector = Some("rack ==".into()))),
            Some(Refusal::Unreadable(_))
        ));
        assert!(matches!(
            refusal(&pool(|p| p.allowed_uses = vec![AllowedUse::Tunnel])),
            Some(Refusal::Use { .. })
        ));
    }
}
