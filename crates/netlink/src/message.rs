//! The requests we send, as values: one function a request.

mod encode;
#[cfg(test)]
mod golden;
mod shaping;
mod tunnel;

pub(crate) use encode::*;
pub(crate) use shaping::*;
pub(crate) use tunnel::*;
