//! The etcd v3 backend of the store.
