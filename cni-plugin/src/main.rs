//! The CNI network plugin: one ADD, DEL, CHECK, GC, STATUS or VERSION, then exit.

mod add;
mod annotations;
mod check;
mod config;
mod del;
mod gc;
mod identity;
mod kernel;
mod limits;
mod pod;
mod podcidr;
mod record;
mod status;

use std::borrow::Cow;
use std::process::ExitCode;

use margay_call::{block_on, environment, steady};
use margay_cni::error::Error;
use margay_cni::{Request, ResultDoc};
use margay_plugin::{Level, Plugin, log};

use crate::config::Config;

/// The plugin.
#[derive(Debug)]
struct Margay;

impl Plugin for Margay {
    fn name(&self) -> &str {
        "margay"
    }

    fn about(&self) -> String {
        format!("Margay network plugin {}", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, request: &Request) -> Result<ResultDoc, Error> {
        let config = Config::read(&request.conf, &environment)?;
        block_on(add::run(&config, request))
    }

    fn undo(&self, request: &Request) {
        if let Err(error) = self.del(request) {
            log(
                Level::Error,
                &format!("undoing an ADD nobody heard of: {error}"),
            );
        }
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        // Whatever is wrong with the configuration, a DEL releases by record.
        let request = podcidr::any(request).unwrap_or(Cow::Borrowed(request));
        block_on(del::run(&request))
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let config = Config::read(&request.conf, &environment)?;
        let request = podcidr::any(request)?;
        block_on(check::run(&config, &request))
    }

    fn gc(&self, request: &Request) -> Result<(), Error> {
        let config = Config::read(&request.conf, &environment)?;
        let request = podcidr::any(request)?;
        block_on(gc::run(&config, &request))
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let config = Config::read(&request.conf, &environment)?;
        let request = podcidr::any(request)?;
        let outcome = block_on(status::run(&config, &request));
        steady("margay", &request, outcome)
    }
}

/// musl's allocator maps memory for every other request, and unmaps it soon after.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    margay_plugin::run(&Margay)
}
