//! The command line for people: what it understands, what it does and what it shows.
//!
//! Everything goes through [`run`], which is given a store, so that the whole program can be exercised on
//! one that lives in memory. It must never print: it writes to the [`Streams`] it is given.

pub mod agent;
pub mod cli;
pub mod columns;
pub mod commands;
pub mod documents;
pub mod hits;
pub mod inventory;
pub mod kinds;
pub mod open;
pub mod others;
pub mod output;
pub mod stamps;
pub mod table;
pub mod why;
pub mod yaml;

pub use commands::{Streams, begin, run};
