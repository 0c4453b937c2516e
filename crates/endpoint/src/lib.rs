//! The life of a workload endpoint: its record, veth pair, addresses, routes and neighbours as a plan.
//!
//! Values in, values out: [`EndpointPlan::new`] turns an [`EndpointSpec`] into everything that has
//! to be set on both ends of the pair, and [`verify`] compares what CHECK [`Expected`] with what
//! was [`Observed`]. Applying and observing belong to `margay-netlink`.

mod check;
mod mark;
mod names;
mod plan;
pub mod shaping;

pub use check::{End, Expected, ExpectedEnd, Interface, Observed, Problem, verify};
pub use mark::Mark;
pub use names::{DEFAULT_PREFIX, NameError, Workload, host_interface, is_valid_interface_name};
pub use plan::{
    Address, EndpointPlan, EndpointSpec, Side, SpecError, Sysctl, VethPair, container_routes,
};
