//! Resources of the v3 API, IPAM objects, keys, names, defaults and validation.
