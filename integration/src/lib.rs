//! Black-box tests: real programs in network namespaces.
