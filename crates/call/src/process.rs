//! What a call has of its process: variables and a runtime.

use std::future::Future;

use margay_cni::error::{Error, code};

/// A variable of the process's environment; `None` when absent or empty.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Carries out a verb on a runtime of one thread.
///
/// # Errors
/// The verb's; code 5 when the runtime cannot start.
pub fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => Err(Error::new(
            code::IO,
            format!("starting the runtime: {error}"),
        )),
    }
}
