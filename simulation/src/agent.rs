//! A node's agent, as far as it gives back what others left: the real drain of the journal, the real follower
//! and state, the real sweep.

use std::sync::Arc;
use std::time::Duration;

use margay_agent::cleanup::{Sighting, Sweep};
use margay_agent::metrics::Metrics;
use margay_agent::releases::Drain;
use margay_agent::report::Status;
use margay_agent::state::State;
use margay_journal::Quarantine;
use margay_model::{Kind, Prefix};
use margay_store::follow::{Event, Follower, Options};
use margay_telemetry::metrics::registry;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::network::Client;
use crate::world::{World, clock};

/// Runs the agent of a node, from restart to restart.
pub async fn run(world: Arc<World>, node: usize) {
    loop {
        life(&world, node).await;
        world
            .dawdle(Duration::from_secs(1), Duration::from_secs(20))
            .await;
    }
}

/// One life of the agent: it ends with the node's, or when it is killed.
async fn life(world: &Arc<World>, number: usize) {
    let node = &world.nodes[number];
    let boot = node.boot();
    let store = Client::on(world, number, Duration::from_secs(5));
    let metrics = Metrics::register(&mut registry("0"));
    let mut drain = Drain::new(
        store.clone(),
        node.journal.clone(),
        node.name.clone(),
        metrics.clone(),
    );
    let drained = {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            while world.nodes[number].boot() == boot {
                drain.pass().await;
                sleep(Duration::from_secs(2)).await;
            }
        })
    };
    let (status, shown) = watch::channel(Status::default());
    let (confirm, accept) = watch::channel(0);
    let (seen, sightings) = mpsc::channel(1);
    let sweep = Sweep {
        store: store.clone(),
        node: node.name.clone(),
        grace: GRACE,
        quarantine: Quarantine::beside(&node.journal),
        metrics,
        status,
        booted: Some(node.booted()),
        clock,
    };
    let swept = tokio::spawn(sweep.run(sightings, accept));
    let mut state = State::new(node.name.clone());
    let mut follower = Follower::new(
        store,
        // All that a sighting looks at.
        [Prefix::Resources(Kind::WorkloadEndpoint)],
        Options {
            seed: world.rng().u64(..),
            ..Options::default()
        },
    );
    let mut followed = false;
    while node.boot() == boot && (world.is_calm() || !world.chance(20)) {
        let look = Instant::now() + GRACE / 4;
        while let Ok(event) = timeout_at(look, follower.next()).await {
            match event {
                Event::Synced { updates, .. } => {
                    followed = true;
                    for update in &updates {
                        state.update(update);
                    }
                }
                Event::Changed { updates, .. } => {
                    for update in &updates {
                        state.update(update);
                    }
                }
                Event::Lost(_) => {}
                // The operator knows that containers went.
                Event::Regressed { .. } | Event::Replaced { .. } | Event::Shrunk { .. } => {
                    follower.accept();
                }
            }
        }
        if followed {
            let interfaces = node.kernel().interfaces();
            let _ = seen.try_send(Sighting::of(&state, &interfaces));
        }
        if shown.borrow().cleanup_held.is_some() && (world.is_calm() || world.chance(200)) {
            confirm.send_modify(|word| *word += 1);
        }
    }
    drained.abort();
    swept.abort();
}

/// The agent's own.
const GRACE: Duration = Duration::from_secs(60);
