//! `ipam show`.

use std::net::IpAddr;

use margay_ipam_core::audit::{self, Usage};
use margay_ipam_core::block;
use margay_model::ipam::IpamConfig;

use crate::inventory::Stock;
use crate::table::framed;

/// How full the pools are, and their blocks.
pub(super) fn usage(stock: &Stock, blocks: bool) -> String {
    let inventory = &stock.inventory;
    let mut rows = Vec::new();
    for pool in audit::usage(&inventory.pools, &inventory.blocks, &stock.reserved) {
        rows.push(usage_row("IP Pool", &pool));
        if blocks {
            rows.extend(pool.blocks.iter().map(|block| usage_row("Block", block)));
        }
    }
    framed(
        &["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"],
        &rows,
    )
}

fn usage_row(grouping: &str, usage: &Usage) -> Vec<String> {
    vec![
        grouping.to_owned(),
        usage.cidr.to_string(),
        count(usage.total),
        share(usage.in_use, usage.total),
        share(usage.free(), usage.total),
    ]
}

/// A number; in powers of ten where it is longer than a column.
fn count(number: u128) -> String {
    if number < 1_000_000_000_000 {
        return number.to_string();
    }
    let digits = number.to_string();
    format!("{}.{}e+{}", &digits[..1], &digits[1..5], digits.len() - 1)
}

fn share(part: u128, total: u128) -> String {
    // Rounded to the nearest; for large totals both are shortened first, which no percent sees.
    let shift = 128 - total.leading_zeros().min(128);
    let shift = shift.saturating_sub(64);
    let (small, all) = (part >> shift, (total >> shift).max(1));
    format!(
        "{} ({}%)",
        count(part),
        (small * 200 / all).div_ceil(2).min(100)
    )
}

/// Addresses used by other nodes than their blocks' owners.
pub(super) fn borrowed(stock: &Stock) -> String {
    let blocks = &stock.inventory.blocks;
    let rows: Vec<Vec<String>> = audit::borrowed(blocks)
        .into_iter()
        .map(|borrowed| {
            let attributes = attributes(stock, borrowed.address);
            let field = |name: &str| {
                let found = attributes.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            let workload = match (field("namespace"), field("pod")) {
                (_, pod) if pod.is_empty() => borrowed.handle.clone().unwrap_or_default(),
                (namespace, pod) => format!("{namespace}/{pod}"),
            };
            let owner = borrowed.owner.unwrap_or_default();
            vec![
                borrowed.address.to_string(),
                borrowed.borrower,
                borrowed.block.to_string(),
                owner.strip_prefix("host:").unwrap_or(&owner).to_owned(),
                if field("type").is_empty() {
                    "pod".to_owned()
                } else {
                    field("type")
                },
                workload,
            ]
        })
        .collect();
    framed(
        &[
            "IP",
            "BORROWING-NODE",
            "BLOCK",
            "BLOCK OWNER",
            "TYPE",
            "ALLOCATED-TO",
        ],
        &rows,
    )
}

/// Who holds an address.
pub(super) fn address(stock: &Stock, address: IpAddr) -> String {
    let inventory = &stock.inventory;
    let blocks = inventory.blocks.iter();
    let held = blocks
        .filter_map(|held| block::attribute(held, address))
        .next();
    let Some(attribute) = held else {
        let pool = inventory
            .pools
            .iter()
            .find(|pool| pool.cidr.contains(address));
        let place = match pool {
            Some(pool) => format!("it lies in pool {} ({})", pool.name, pool.cidr),
            None => "it lies in no pool".to_owned(),
        };
        return format!("{address} is not assigned; {place}\n");
    };
    let mut out = format!("IP {address} is in use\nAttributes:\n");
    if let Some(handle) = &attribute.handle_id {
        out.push_str(&format!("  handle: {handle}\n"));
    }
    for (name, value) in attributes(stock, address) {
        out.push_str(&format!("  {name}: {value}\n"));
    }
    for user in inventory.used.get(&address).into_iter().flatten() {
        out.push_str(&format!("  used by: {user}\n"));
    }
    out
}

fn attributes(stock: &Stock, address: IpAddr) -> Vec<(String, String)> {
    let blocks = stock.inventory.blocks.iter();
    let held = blocks
        .filter_map(|held| block::attribute(held, address))
        .next();
    held.map(|attribute| attribute.secondary.clone().into_iter().collect())
        .unwrap_or_default()
}

/// The allocator's configuration.
pub(super) fn configuration(config: &IpamConfig) -> String {
    let rows = [
        ("StrictAffinity", config.strict_affinity.to_string()),
        (
            "AutoAllocateBlocks",
            config.auto_allocate_blocks.to_string(),
        ),
        ("MaxBlocksPerHost", config.max_blocks_per_host.to_string()),
        ("IPCooldownSeconds", config.ip_cooldown_seconds.to_string()),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    framed(&["PROPERTY", "VALUE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (part, total, text) in [
            (0, 65_536, "0 (0%)"),
            (1, 64, "1 (2%)"),
            (64, 64, "64 (100%)"),
            (0, 0, "0 (0%)"),
            (1 << 64, 1 << 64, "1.8446e+19 (100%)"),
            (u128::MAX, u128::MAX, "3.4028e+38 (100%)"),
        ] {
            assert_eq!(share(part, total), text);
        }
    }
}
