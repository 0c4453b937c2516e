//! `why`.

use anyhow::{Context, Result};
use margay_model::{AnyResource, Key, Kind, Prefix};
use margay_policy::Calculator;
use margay_store::Store;

use super::{Streams, node};
use crate::cli::{Report, Why};
use crate::why::{self, Question, World};
use crate::yaml;

/// Tells why a connection is made or not.
///
/// # Errors
/// The store failed, or what is asked makes no sense.
pub(super) async fn run<S: Store>(store: &S, asked: Why, streams: &mut Streams<'_>) -> Result<()> {
    let mut world = read(store).await?;
    world.here = here();
    let question = Question {
        source: asked.source,
        destination: asked.destination,
        protocol: asked.protocol,
        port: asked.port,
        source_port: asked.source_port,
    };
    let answer = why::why(&mut world, &question)?;
    let text = match asked.output {
        Report::Text => why::text(&answer),
        Report::Json => serde_json::to_string_pretty(&answer).context("writing JSON")? + "\n",
        Report::Yaml => yaml::emit(&answer)?,
    };
    streams.say(&text)
}

/// Reads what bears on packets.
async fn read<S: Store>(store: &S) -> Result<World> {
    let mut world = World::default();
    let others = [Kind::Node, Kind::IPPool, Kind::FelixConfiguration];
    let mut kinds: Vec<Kind> = Calculator::kinds().into_iter().chain(others).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        for entry in store.list(&Prefix::Resources(kind)).await?.entries {
            match AnyResource::decode(kind, &entry.value) {
                Ok(resource) => {
                    world.state.resources.insert(entry.key, resource);
                }
                Err(_) => {
                    world.unreadable.insert(entry.key, entry.value.to_vec());
                }
            }
        }
    }
    for entry in store.list(&Prefix::Ipam).await?.entries {
        if let Key::Block(_) = entry.key
            && let Ok(block) = serde_json::from_slice(&entry.value)
        {
            world.blocks.push(block);
        }
    }
    Ok(world)
}

/// This node's name and its workloads' MTU, as its agent has written them.
fn here() -> Option<(String, u32)> {
    let node = std::fs::read_to_string(node::NODENAME).ok()?;
    let mtu = std::fs::read_to_string(MTU).ok()?;
    Some((node.trim().to_owned(), mtu.trim().parse().ok()?))
}

/// Where the agent writes the workloads' MTU.
const MTU: &str = "/var/lib/calico/mtu";
