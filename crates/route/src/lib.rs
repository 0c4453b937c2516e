//! Routes, neighbours and tunnels: desired state, and the planner that turns a difference into steps.
//!
//! Nothing here touches the kernel. [`plan`] compares what should be ([`Desired`]) with what is
//! ([`Observed`]), changes only what [`Ownership`] claims, and returns a [`Plan`] that can be
//! printed, compared and applied.
//!
//! ```
//! use margay_route::{Desired, Observed, Ownership, PROTOCOL, Route, Step, plan};
//!
//! let mut desired = Desired::default();
//! let route = Route::on_link("10.65.0.2/32".parse()?, "cali2f648c3dc3f", PROTOCOL);
//! desired.insert_route(route.clone())?;
//! let steps = plan(&desired, &Observed::default(), &Ownership::default()).steps;
//! assert_eq!(steps, vec![Step::AddRoute(route)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod gateway;
mod interface;
mod neighbour;
mod plan;
mod resolve;
mod route;
mod state;
mod vxlan;

pub use gateway::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, gateway_answer};
pub use interface::{InterfaceAddresses, on_link};
pub use neighbour::{Mac, MacParseError, Neighbour, NeighbourKey, NeighbourKind};
pub use plan::{Conflict, Plan, Step, plan};
pub use resolve::resolve;
pub use route::{NextHop, Route, RouteError, RouteKey, RouteKind, Scope};
pub use route::{PROTOCOL, PROTOCOL_BOOT, PROTOCOL_KERNEL, TABLE_MAIN};
pub use state::{Desired, Observed, Ownership};
pub use vxlan::{DeviceStep, FdbEntry, Fixed, ObservedVxlan, Vxlan, plan_vxlan, vtep_mac};
pub use vxlan::{VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6, VXLAN_PORT, VXLAN_V4, VXLAN_V6, VXLAN_VNI};
