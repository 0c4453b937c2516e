//! Whole agents in network namespaces of their own, on one embedded store.
#![cfg(test)]

mod fixture;
mod life;
mod name;
mod outage;
mod routes;
