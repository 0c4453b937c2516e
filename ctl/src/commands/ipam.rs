//! `ipam`.

mod check;
mod release;
mod show;

use anyhow::{Result, bail};
use margay_model::ipam::IpamConfig;
use margay_model::{Key, json};
use margay_resources::Client;
use margay_store::{Batch, Outcome, Store, Write};

use super::Streams;
use crate::cli::Ipam;
use crate::inventory;
use crate::stamps::SystemStamps;

/// Runs a command about addresses.
pub(super) async fn run<S: Store>(
    store: &S,
    client: &Client<'_, S, SystemStamps>,
    command: Ipam,
    streams: &mut Streams<'_>,
) -> Result<()> {
    match command {
        Ipam::Show {
            ip,
            show_blocks,
            show_borrowed,
            show_configuration,
        } => {
            let stock = inventory::read(store).await?;
            let text = match ip {
                Some(ip) => show::address(&stock, ip),
                None if show_configuration => show::configuration(&stock.config),
                None if show_borrowed => show::borrowed(&stock),
                None => show::usage(&stock, show_blocks),
            };
            streams.say(&text)
        }
        Ipam::Check {
            output,
            show_all_ips,
            show_problem_ips,
        } => {
            let stock = inventory::read(store).await?;
            let findings = margay_ipam_core::audit::check(&stock.inventory);
            if let Some(path) = output {
                let report = check::report(client, &stock, &findings).await?;
                std::fs::write(&path, report)?;
            }
            streams.say(&check::text(
                &stock,
                &findings,
                show_all_ips && !show_problem_ips,
            ))?;
            match findings.len() {
                0 => Ok(()),
                count => bail!("Check complete; found {count} problems."),
            }
        }
        Ipam::Release {
            ip: Some(ip),
            force,
            ..
        } => release::one(store, ip, force, streams).await,
        Ipam::Release { from_report, .. } => {
            let information = check::information(client).await?;
            let guid = information["spec"]["clusterGUID"].as_str();
            release::reported(store, guid, &from_report, streams).await
        }
        Ipam::Configure {
            strictaffinity,
            max_blocks_per_host,
            ip_cooldown_seconds,
        } => {
            let change = Change {
                strict: strictaffinity,
                most_blocks: max_blocks_per_host,
                cooldown: ip_cooldown_seconds,
            };
            configure(store, &change, streams).await
        }
    }
}

/// What is changed of the allocator's configuration.
struct Change {
    strict: Option<bool>,
    most_blocks: Option<u32>,
    cooldown: Option<u32>,
}

async fn configure<S: Store>(store: &S, change: &Change, streams: &mut Streams<'_>) -> Result<()> {
    for _ in 0..MOST_ATTEMPTS {
        let stored = store.get(&Key::IpamConfig).await?;
        let mut config: IpamConfig = match &stored {
            Some(entry) => serde_json::from_slice(&entry.value)?,
            None => IpamConfig::default(),
        };
        config.strict_affinity = change.strict.unwrap_or(config.strict_affinity);
        config.max_blocks_per_host = change.most_blocks.unwrap_or(config.max_blocks_per_host);
        config.ip_cooldown_seconds = change.cooldown.unwrap_or(config.ip_cooldown_seconds);
        if config.max_blocks_per_host > 0 && !config.strict_affinity {
            bail!(
                "--max-blocks-per-host={} needs strict affinity: nodes would borrow beyond the limit",
                config.max_blocks_per_host
            );
        }
        if !config.strict_affinity && !config.auto_allocate_blocks {
            bail!("strict affinity cannot be switched off while nodes may not claim blocks");
        }
        let value = json::encode(&config)?;
        let write = match stored {
            Some(entry) => Write::update(Key::IpamConfig, value, entry.revision),
            None => Write::create(Key::IpamConfig, value),
        };
        if let Outcome::Committed(_) = store.commit(&Batch::of([write])).await? {
            return streams.say(&changed(change));
        }
    }
    bail!("others kept changing the configuration; try again");
}

fn changed(change: &Change) -> String {
    let fields = [
        (
            "StrictAffinity",
            change.strict.map(|value| value.to_string()),
        ),
        (
            "MaxBlocksPerHost",
            change.most_blocks.map(|value| value.to_string()),
        ),
        (
            "IPCooldownSeconds",
            change.cooldown.map(|value| value.to_string()),
        ),
    ];
    let lines = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    lines
        .map(|(name, value)| format!("Successfully set {name} to: {value}\n"))
        .collect()
}

const MOST_ATTEMPTS: u32 = 5;
