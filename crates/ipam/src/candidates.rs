//! In which order a node looks through a pool's blocks.

use margay_model::Cidr;

/// The pool's blocks of prefix length `size`, beginning at a place that depends on the node, so that
/// nodes seldom reach for the same block at once. Lazy: an IPv6 pool may have 2^60 blocks.
pub fn blocks(pool: Cidr, size: u8, node: &str) -> impl Iterator<Item = Cidr> {
    let bits = size.saturating_sub(pool.length());
    let count = 1u128 << bits.min(127);
    let step = 1u128 << (pool.family().width().saturating_sub(size)).min(127);
    let start = if size < pool.length() {
        0
    } else {
        fnv1a(node) % count
    };
    let count = if size < pool.length() { 0 } else { count };
    (0..count).filter_map(move |index| {
        let address = pool.nth(((start + index) % count) * step)?;
        Cidr::new(address, size)
    })
}

/// The block of prefix length `size` that holds the address.
pub fn block_of(address: std::net::IpAddr, size: u8) -> Option<Cidr> {
    Cidr::new(address, size)
}

/// FNV-1a, 64 bit, with a final mix so that names that differ in their last letter lie far apart.
fn fnv1a(text: &str) -> u128 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    u128::from(hash.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ (hash >> 29))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_block_comes_once() {
        let pool: Cidr = "10.0.0.0/22".parse().unwrap();
        let all: Vec<Cidr> = blocks(pool, 26, "n1").collect();
        assert_eq!(all.len(), 16);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 16);
        assert!(
            all.iter()
                .all(|block| pool.covers(block) && block.length() == 26)
        );
    }

    #[test]
    fn nodes_begin_at_different_places() {
        let pool: Cidr = "192.168.0.0/16".parse().unwrap();
        let starts: BTreeSet<Option<Cidr>> = (1..=50)
            .map(|n| blocks(pool, 26, &format!("node-{n}")).next())
            .collect();
        assert!(starts.len() > 40, "{} different starts of 50", starts.len());
    }

    #[test]
    fn odd_sizes() {
        let single: Cidr = "10.0.0.0/26".parse().unwrap();
        assert_eq!(blocks(single, 26, "n").collect::<Vec<_>>(), [single]);
        assert_eq!(blocks(single, 24, "n").count(), 0);
        let wide: Cidr = "fd00::/48".parse().unwrap();
        assert_eq!(blocks(wide, 122, "n").take(3).count(), 3);
    }
}
