//! The requests we send, as values: one function a request.

mod encode;

pub(crate) use encode::*;
