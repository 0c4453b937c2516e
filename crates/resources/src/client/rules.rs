//! Rules that need to look at other objects.

use margay_model::resource::pool::IPPool;
use margay_model::{Cidr, Family, Key, Kind, Prefix, Problems};
use margay_store::{Answer, Condition, Op, Read, Store, Write};
use serde_json::{Value, json};

use super::Client;
use super::forms::{is_policy, tier_of};
use crate::error::{Id, ResourceError};
use crate::object::{Object, Stamps, fields};

impl<S: Store, T: Stamps> Client<'_, S, T> {
    /// Checks an object against the others there are. The writes given back belong into the same batch:
    /// they hold the batch up when what was looked at has changed.
    pub(super) async fn rules<O: Object>(
        &self,
        id: &Id,
        object: &O,
        stored: Option<&O>,
    ) -> Result<Vec<Write>, ResourceError> {
        match id.kind {
            Kind::IPPool if stored.is_none() => self.new_pool(id, object).await,
            Kind::BGPPeer => self.filters_exist(id, object).await,
            kind if is_policy(kind) => {
                let tier = tier_of(object);
                if stored.is_some_and(|stored| tier_of(stored) == tier) {
                    return Ok(Vec::new());
                }
                self.tier_exists(id, &tier).await
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A new pool overlaps no other, and no block of another size. Pools are created one after the other,
    /// which the marker's revision sees to.
    async fn new_pool<O: Object>(&self, id: &Id, object: &O) -> Result<Vec<Write>, ResourceError> {
        let Some((cidr, block_size)) = pool_of(object) else {
            return Ok(Vec::new());
        };
        let reads = [
            Read::List(Prefix::Resources(Kind::IPPool)),
            Read::Keys(Prefix::BlocksOf(cidr.family())),
            Read::Exists(Key::PoolMarker),
        ];
        let snapshot = self.store.read_many(&reads).await.map_err(id.store())?;
        let mut answers = snapshot.answers.into_iter();
        let pools = answers.next().unwrap_or_default();
        let blocks = answers.next().unwrap_or_default();
        let marker = answers.next().and_then(Answer::into_entry);
        let mut problems = Problems::new();
        for entry in &pools.entries {
            let Ok(other) = IPPool::decode(&entry.value) else {
                continue;
            };
            if let Ok(taken) = other.spec.cidr.parse::<Cidr>()
                && taken.overlaps(&cidr)
            {
                let name = &other.metadata.name;
                let allowed = format!("a prefix that does not overlap pool {name} ({taken})");
                problems.field("spec", |spec| spec.refuse_field("cidr", cidr, allowed));
            }
        }
        for entry in &blocks.entries {
            if let Key::Block(block) = entry.key
                && block.overlaps(&cidr)
                && block.length() != block_size
            {
                let size = block.length();
                let allowed =
                    format!("{size}, as block {block} has, which lies in the pool already");
                problems.field("spec", |spec| {
                    spec.refuse_field("blockSize", block_size, allowed);
                });
                break;
            }
        }
        problems
            .into_result()
            .map_err(|problems| id.invalid(problems))?;
        let condition = marker.map_or(Condition::Absent, |entry| Condition::At(entry.revision));
        Ok(vec![self.pool_marker(condition)])
    }

    /// The write that says that there is, or was, a pool.
    pub(super) fn pool_marker(&self, condition: Condition) -> Write {
        let value = json!({"lastPoolCreated": self.stamps.now().rfc3339()});
        Write {
            key: Key::PoolMarker,
            condition,
            op: Op::Put(value.to_string().into_bytes(), None),
        }
    }

    /// A policy's tier exists. Stores of older releases have no object for the default tier.
    async fn tier_exists(&self, id: &Id, tier: &str) -> Result<Vec<Write>, ResourceError> {
        let key = Key::resource(Kind::Tier, tier);
        match self.store.get(&key).await.map_err(id.store())? {
            Some(entry) => Ok(vec![Write::unchanged(key, entry.revision)]),
            None if tier == margay_model::policy_names::DEFAULT_TIER => Ok(Vec::new()),
            None => {
                let mut problems = Problems::new();
                problems.field("spec", |spec| {
                    spec.refuse_field("tier", tier, "the name of an existing Tier");
                });
                Err(id.invalid(problems))
            }
        }
    }

    /// The filters that a BGP peer names exist.
    async fn filters_exist<O: Object>(
        &self,
        id: &Id,
        object: &O,
    ) -> Result<Vec<Write>, ResourceError> {
        let fields = fields(object).unwrap_or_default();
        let named = fields
            .get("spec")
            .and_then(|spec| spec["filters"].as_array());
        let filters: Vec<&str> = named
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let reads: Vec<Read> = filters
            .iter()
            .map(|filter| Read::Exists(Key::resource(Kind::BGPFilter, *filter)))
            .collect();
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.store.read_many(&reads).await.map_err(id.store())?;
        let mut problems = Problems::new();
        problems.field("spec", |spec| {
            for (index, (filter, answer)) in filters.iter().zip(&snapshot.answers).enumerate() {
                if answer.entries.is_empty() {
                    let field = format!("filters[{index}]");
                    spec.refuse_field(&field, filter, "the name of an existing BGPFilter");
                }
            }
        });
        problems
            .into_result()
            .map_err(|problems| id.invalid(problems))?;
        Ok(Vec::new())
    }
}

/// A pool's prefix and the prefix length of its blocks.
fn pool_of<O: Object>(object: &O) -> Option<(Cidr, u8)> {
    let pool = IPPool::decode(&object.encode().ok()?).ok()?;
    let cidr: Cidr = pool.spec.cidr.parse().ok()?;
    let default = match cidr.family() {
        Family::V4 => 26,
        Family::V6 => 122,
    };
    Some((cidr, pool.spec.block_size.unwrap_or(default)))
}
