//! The life of a workload endpoint: its record, veth pair, addresses, routes and neighbours as a plan.
