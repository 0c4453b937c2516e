//! What happens to a cluster: outages, restarts, lost watches, and an operator who changes pools.

use std::sync::Arc;
use std::time::Duration;

use margay_model::resource::pool::IPPool;
use margay_model::{Key, Kind};
use margay_store::{Batch, Store, Write};

use crate::network::Client;
use crate::world::World;

/// Troubles the cluster until it is ended.
pub async fn run(world: Arc<World>) {
    if !world.shape.chaos {
        return;
    }
    let operator = Client::elsewhere(&world);
    loop {
        world
            .dawdle(Duration::from_secs(5), Duration::from_secs(90))
            .await;
        let node = world.rng().usize(..world.nodes.len());
        let time = Duration::from_millis(world.rng().u64(500..40_000));
        let what = world.rng().u32(..10);
        match what {
            0..=2 => {
                world.note(|| format!("n{node} is cut off for {time:?}"));
                world.nodes[node].cut_off(time);
                world.memory.break_watches();
            }
            3 => {
                world.note(|| format!("nobody reaches the store for {time:?}"));
                world.begin_outage(time);
            }
            4..=5 => world.memory.break_watches(),
            6 => {
                world.note(|| format!("n{node} restarts"));
                world.nodes[node].restart();
                world.auditor().vacate_node(&world.nodes[node].name);
            }
            7 => world.memory.compact(world.memory.revision()),
            _ => {
                // Whatever fails, the operator tries again some time.
                let _ = turn_pool(&world, &operator).await;
            }
        }
    }
}

/// The second pool is closed, opened, or kept for some nodes.
async fn turn_pool(world: &World, operator: &Client) -> Result<(), margay_store::StoreError> {
    let key = Key::resource(Kind::IPPool, "pool-1");
    let Some(entry) = operator.get(&key).await? else {
        return Ok(());
    };
    let Ok(mut pool) = IPPool::decode(&entry.value) else {
        return Ok(());
    };
    let choice = world.rng().u32(..3);
    pool.spec.disabled = choice == 0;
    pool.spec.node_selector = (choice == 1).then(|| "has(nobody)".to_owned());
    let Ok(value) = pool.encode() else {
        return Ok(());
    };
    let batch = Batch::of([Write::update(key, value, entry.revision)]);
    operator.commit(&batch).await.map(|_| ())
}
