//! The kernel's side: network namespaces, rtnetlink, conntrack, interface settings; applies the plans of endpoint and route.
//!
//! It decides nothing: what is to be set comes as a value from `margay-endpoint` or
//! `margay-route`, and what is found goes back as one. Everything needs a tokio runtime, of either
//! kind, with I/O enabled.
//!
//! ```no_run
//! use margay_netlink::{Namespace, Netlink, endpoint};
//! # async fn add(plan: &margay_endpoint::EndpointPlan) -> Result<(), margay_netlink::Error> {
//! let host = Netlink::current()?;
//! let container = Namespace::open("/run/netns/example")?;
//! let applied = endpoint::setup(plan, &host, &container).await?;
//! println!("{} has index {}", plan.veth.host_name, applied.host_ifindex);
//! # Ok(())
//! # }
//! ```

mod address;
mod batch;
pub mod endpoint;
mod error;
mod link;
mod message;
pub mod monitor;
mod namespace;
mod neighbour;
pub mod netfilter;
mod pair;
mod route;
pub mod shaping;
mod socket;
mod sysctl;
pub mod table;
pub mod tcp;
pub mod tunnel;

pub use error::{Error, Facility, RequestError, Result};
pub use link::{Interfaces, Link};
pub use namespace::Namespace;
pub use pair::Namespaces;
pub use route::RouteFilter;
pub use socket::Netlink;
