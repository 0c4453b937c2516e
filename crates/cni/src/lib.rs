//! The CNI specification as types: requests, results of each version, errors, delegation.
//!
//! Everything here maps bytes and variables to values and back. The crate starts no process, opens
//! no file and reads no clock; `margay-plugin` does those for it. Each parser takes arbitrary input
//! and answers with a value or an [`Error`] fit to be shown to a container runtime.
//!
//! ```
//! use margay_cni::{Command, Request};
//!
//! let env = |name: &str| match name {
//!     "CNI_COMMAND" => Some("DEL".to_owned()),
//!     "CNI_CONTAINERID" => Some("8c1f".to_owned()),
//!     "CNI_IFNAME" => Some("eth0".to_owned()),
//!     _ => None,
//! };
//! let request = Request::parse(env, br#"{"cniVersion":"1.0.0","name":"n","type":"margay"}"#.to_vec())?;
//! assert_eq!(request.command, Command::Del);
//! assert_eq!(request.conf.name(), "n");
//! # Ok::<(), margay_cni::Error>(())
//! ```

mod args;
mod conf;
pub mod delegate;
pub mod error;
pub mod keys;
mod mac;
mod request;
mod result;
mod runtime_config;
mod version;

pub use args::{Args, RequestedAddress};
pub use conf::{Attachment, IpamConf, MesosNetworkInfo, NetConf, ValidAttachments};
pub use error::{CODES, CodeEntry, Error, code};
pub use mac::MacAddress;
pub use request::{Command, MAX_STDIN, Request};
pub use result::{Dns, Interface, Ip, ResultDoc, Route};
pub use runtime_config::{Bandwidth, IpRange, PortMapping, RuntimeConfig, RuntimeDns};
pub use version::Version;
