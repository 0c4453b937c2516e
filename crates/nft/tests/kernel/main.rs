//! Against the kernel, in namespaces of their own.

#![cfg(test)]

mod conntrack;
mod enforcement;
mod fixture;
mod lab;
mod sample;
mod table;
mod watch;
