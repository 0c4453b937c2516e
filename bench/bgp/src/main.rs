//! Route reflection with thousands of clients: convergence, CPU and memory beside other daemons.
//!
//! All runs in a network namespace of its own: the reflector at 10.0.0.1, the clients at addresses
//! of 10.200.0.0/16, each a TCP session in one process. `README.md` says what is measured.

#![expect(clippy::print_stdout, reason = "a report for people")]
#![expect(clippy::disallowed_methods, reason = "what is measured is programs")]

mod clients;
mod daemon;
mod measure;

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::daemon::Kind;

#[derive(Debug, Parser)]
#[command(about = "Measures route reflection with thousands of clients.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures daemons one after another.
    Run {
        /// How many clients.
        #[arg(long, default_value_t = 1000)]
        clients: u16,
        /// How many blocks each announces, in one UPDATE.
        #[arg(long, default_value_t = 4)]
        blocks: u16,
        /// How many changes are timed.
        #[arg(long, default_value_t = 6)]
        probes: u16,
        /// Milliseconds over which the clients connect; 0 is all in the same instant.
        #[arg(long, default_value_t = 4000)]
        spread: u64,
        /// The daemons to measure.
        #[arg(value_enum, default_values_t = [Kind::Margay, Kind::Bird])]
        daemons: Vec<Kind>,
    },
    /// Is the reflector that is measured.
    Reflect,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Reflect => daemon::reflect(),
        Command::Run {
            clients,
            blocks,
            probes,
            spread,
            daemons,
        } => {
            let own = std::env::current_exe().context("finding this program")?;
            daemon::enter_namespace()?;
            println!(
                "{clients} clients x {blocks} blocks\n{:8} {:>10} {:>10} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9}",
                "daemon",
                "up ms",
                "conv ms",
                "conv CPU",
                "CPU s",
                "RSS MB",
                "updates",
                "add ms",
                "del ms"
            );
            for kind in daemons {
                let run = measure::Run {
                    clients,
                    blocks,
                    probes,
                    spread_ms: spread,
                };
                let result = measure(kind, &own, &run);
                match result {
                    Ok(line) => println!("{:8} {line}", kind.name()),
                    Err(error) => println!("{:8} {error:#}", kind.name()),
                }
            }
            Ok(())
        }
    }
}

fn measure(kind: Kind, own: &Path, run: &measure::Run) -> Result<measure::Line> {
    let daemon = daemon::Daemon::start(kind, own)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure::measure(&daemon, run))
}
