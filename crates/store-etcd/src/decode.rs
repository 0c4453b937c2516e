//! From etcd's answers to the store's values.

use etcd_client::{KeyValue, ResponseHeader, TxnOpResponse};
use margay_model::Key;
use margay_store::{Entry, LeaseId, Revision, StoreId};

/// `None` for what is no key of ours.
pub(crate) fn entry(pair: &KeyValue) -> Option<Entry> {
    Some(Entry {
        key: key(pair)?,
        value: pair.value().to_vec(),
        revision: Revision(pair.mod_revision()),
        lease: Some(pair.lease()).filter(|lease| *lease != 0).map(LeaseId),
    })
}

pub(crate) fn key(pair: &KeyValue) -> Option<Key> {
    Key::parse(std::str::from_utf8(pair.key()).ok()?)
}

pub(crate) fn revision(header: Option<&ResponseHeader>) -> Revision {
    Revision(header.map_or(0, ResponseHeader::revision))
}

/// A cluster that is made from a backup has another id than the one that was backed up.
pub(crate) fn store(header: Option<&ResponseHeader>) -> StoreId {
    StoreId(header.map_or(0, ResponseHeader::cluster_id))
}

/// The entries of each read of a transaction; other operations have none.
pub(crate) fn ranges(answers: Vec<TxnOpResponse>) -> impl Iterator<Item = Vec<Entry>> {
    answers.into_iter().map(|answer| match answer {
        TxnOpResponse::Get(found) => found.kvs().iter().filter_map(entry).collect(),
        _ => Vec::new(),
    })
}

/// The first key after all that begin with `prefix`.
pub(crate) fn range_end(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    // What etcd takes for "to the end".
    vec![0]
}

/// The first key after `key`.
pub(crate) fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_its_last_key() {
        assert_eq!(range_end(b"/calico/".to_vec()), b"/calico0");
        assert_eq!(range_end(b"a\xff".to_vec()), b"b");
        assert_eq!(range_end(b"\xff\xff".to_vec()), [0]);
        assert_eq!(successor(b"a".to_vec()), b"a\0");
    }
}
