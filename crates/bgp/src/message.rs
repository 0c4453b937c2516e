//! BGP's messages on the wire.

mod capability;
mod notification;

pub use capability::{AddPathMode, Capability, GracefulFamily, LongLivedFamily};
pub use notification::{Code, Notification};
