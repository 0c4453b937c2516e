//! `policy`.

use anyhow::{Context, Result, bail};
use margay_nft::Nft;

use super::Streams;
use crate::cli::{Policy, Report};
use crate::hits::hits;
use crate::yaml;

/// Shows what this node's kernel has counted.
///
/// # Errors
/// The kernel cannot be asked, or has no table of ours.
pub(super) fn run(command: &Policy, streams: &mut Streams<'_>) -> Result<()> {
    let Policy::Hits { policy, output } = command;
    let asking = "asking this node's kernel, which only root may";
    let mut nft = Nft::current().context(asking)?;
    let rules = nft.counters(TABLE).context(asking)?;
    if rules.is_empty() {
        bail!(
            "no policy is in force here: there is no table {TABLE}; is margay-agent running on this machine?"
        );
    }
    let elements = nft.element_counters(TABLE).context(asking)?;
    let hits = hits(&rules, &elements, policy.as_deref());
    if let Some(policy) = policy
        && hits.rules.is_empty()
    {
        bail!("no endpoint of this node has a policy {policy}, or its name is another");
    }
    let text = match output {
        Report::Text => hits.text(),
        Report::Json => serde_json::to_string_pretty(&hits).context("writing JSON")? + "\n",
        Report::Yaml => yaml::emit(&hits)?,
    };
    streams.say(&text)
}

/// The agent's table of family `inet`.
const TABLE: &str = "margay";
