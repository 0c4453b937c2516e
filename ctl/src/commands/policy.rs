//! `policy`.

use anyhow::{Context, Result, bail};
use margay_nft::Nft;
use margay_ruleset::others::findings;
use serde::Serialize;

use super::Streams;
use crate::cli::{Policy, Report};
use crate::hits::{Hits, hits};
use crate::{others, yaml};

/// Asks this node's kernel.
///
/// # Errors
/// It cannot be asked, or has no table of ours where that is asked for.
pub(super) fn run(command: &Policy, streams: &mut Streams<'_>) -> Result<()> {
    let mut nft = Nft::current().context(ASKING)?;
    let text = match command {
        Policy::Hits { policy, output } => {
            let hits = counted(&mut nft, policy.as_deref())?;
            shown(&hits, *output, Hits::text)?
        }
        Policy::Others { output } => {
            let found = findings(&nft.chains().context(ASKING)?);
            shown(&found, *output, |found| others::text(found))?
        }
    };
    streams.say(&text)
}

/// What has been counted.
fn counted(nft: &mut Nft, policy: Option<&str>) -> Result<Hits> {
    let rules = nft.counters(TABLE).context(ASKING)?;
    if rules.is_empty() {
        bail!(
            "no policy is in force here: there is no table {TABLE}; is margay-agent running on this \
             machine?"
        );
    }
    let elements = nft.element_counters(TABLE).context(ASKING)?;
    let hits = hits(&rules, &elements, policy);
    match policy {
        Some(policy) if hits.rules.is_empty() => {
            bail!("no endpoint of this node has a policy {policy}, or its name is another")
        }
        _ => Ok(hits),
    }
}

fn shown<T: Serialize>(
    value: &T,
    output: Report,
    text: impl FnOnce(&T) -> String,
) -> Result<String> {
    match output {
        Report::Text => Ok(text(value)),
        Report::Json => Ok(serde_json::to_string_pretty(value).context("writing JSON")? + "\n"),
        Report::Yaml => yaml::emit(value),
    }
}

const ASKING: &str = "asking this node's kernel, which only root may";
/// The agent's table of family `inet`.
const TABLE: &str = "margay";
