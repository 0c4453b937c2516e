//! The requests we send, as values: one function a request.

mod encode;
#[cfg(test)]
mod golden;

pub(crate) use encode::*;
