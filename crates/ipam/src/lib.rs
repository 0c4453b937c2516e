//! Block, affinity and handle algebra, and the allocator over a store.
