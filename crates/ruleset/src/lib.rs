//! The nftables model, the compilation of policy into it, and its planner: difference to batch.
