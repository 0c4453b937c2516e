//! The CNI specification as types: requests, results of each version, errors, delegation.
