//! The store: keys, revisions, conditional batches and watches, with a deterministic in-memory store and the contract tests.
