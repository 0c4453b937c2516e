//! Against the kernel, in namespaces of their own.

mod conntrack;
mod fixture;
mod sample;
mod table;
mod watch;
