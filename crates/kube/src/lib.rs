//! What is asked of a Kubernetes API server: a pod, its namespace, a node; a token for those who ask that.
//!
//! A plugin lives for milliseconds and needs two objects, so there is no watch, no cache and no
//! discovery here: one connection, and a few GETs on it, each with a deadline. HTTP and TLS are those
//! that the etcd client brings into the plugins anyway (hyper, rustls with ring). A kubeconfig is
//! YAML; its parser is the one below serde-saphyr, without that crate's error rendering and character
//! tables, which would weigh more than all the rest.
//!
//! It must never change anything at the server, and never show a token.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), margay_kube::Error> {
//! let access = margay_kube::Access::from_kubeconfig(Path::new("/etc/cni/net.d/calico-kubeconfig"))?;
//! let mut client = margay_kube::Client::new(&access, Duration::from_secs(5))?;
//! let pod = client.pod("prod", "web-0").await?;
//! println!("{:?}", pod.metadata.labels);
//! # Ok(())
//! # }
//! ```

mod access;
mod client;
mod error;
mod kubeconfig;
mod objects;
mod tls;
mod yaml;

pub use access::{Access, Secret};
pub use client::Client;
pub use error::Error;
pub use objects::{
    Container, ContainerPort, Namespace, Node, NodeSpec, ObjectMeta, Pod, PodSpec, Token,
};
