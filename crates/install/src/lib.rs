//! A node's CNI files: programs and configuration put in place whole, kept, and taken away.
//!
//! A runtime reads its configuration folder at any time, starts programs at any time, and takes the first
//! configuration for the word that containers may be started. So every file is made beside its place under a
//! name that no runtime reads, synced, and renamed; programs come first, what the configuration names comes
//! next, and the configuration comes last. Going away is the reverse. What is right already is not touched.
//!
//! Every file is written down in a record before it is placed, so that [`uninstall`] removes those and no
//! others, whatever interrupted the installation.
//!
//! It must never write into a file that is in place, never give a program the set-user-ID or set-group-ID bit,
//! never follow a link in the last part of a path, and never touch a file that it did not put there, but for
//! those of the names that it was told.

mod apply;
mod conflist;
mod error;
mod foreign;
mod kubeconfig;
mod place;
mod program;
mod record;
mod template;
mod uninstall;
mod wanted;
mod watch;

pub use apply::{Done, Keeper, apply};
pub use conflist::{Conflist, Kubernetes};
pub use error::InstallError;
pub use kubeconfig::Kubeconfig;
pub use template::{WORDS, Words, fill};
pub use uninstall::{Removed, uninstall};
pub use wanted::{Configuration, Program, SecretFile, Wanted};
pub use watch::Watch;
