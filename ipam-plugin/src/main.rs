//! The CNI IPAM plugin: addresses out of the store for any network plugin.

fn main() {}
