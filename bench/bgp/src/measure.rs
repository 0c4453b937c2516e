//! One daemon's measurement.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::clients::{Client, Count};
use crate::daemon::Daemon;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) clients: u16,
    pub(crate) blocks: u16,
    pub(crate) probes: u16,
    pub(crate) spread_ms: u64,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Line {
    up: Duration,
    converged: Duration,
    converge_cpu: f64,
    cpu: f64,
    memory: (f64, f64),
    updates_each: u64,
    add: Vec<Duration>,
    del: Vec<Duration>,
}

/// Measures a daemon.
pub(crate) async fn measure(daemon: &Daemon, run: &Run) -> Result<Line> {
    LocalSet::new().run_until(measure_local(daemon, run)).await
}

async fn measure_local(daemon: &Daemon, run: &Run) -> Result<Line> {
    let count = Rc::new(RefCell::new(Count::default()));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..run.clients {
        let delay = run.spread_ms * u64::from(number) / u64::from(run.clients.max(1));
        let count = Rc::clone(&count);
        tasks.push(tokio::task::spawn_local(async move {
            sleep(Duration::from_millis(delay)).await;
            Client::connect(number, count).await
        }));
    }
    let mut clients = Vec::new();
    for task in tasks {
        let client = timeout(PATIENCE, task)
            .await
            .context("clients did not come up in time")?;
        clients.push(client.context("a client's task failed")??);
    }
    let up = begun.elapsed();
    sleep(PAUSE).await;

    let others = u64::from(run.clients) - 1;
    let (cpu, begun) = (daemon.cpu()?, Instant::now());
    for client in &mut clients {
        client.announce(0, run.blocks).await?;
    }
    let wanted = u64::from(run.clients) * others * u64::from(run.blocks);
    // Some tell routes to where they came from, too.
    let converged = until(&count, begun, |count| count.announced >= wanted).await?;
    let converge_cpu = daemon.cpu()? - cpu;
    let updates_each = count.borrow().updates / u64::from(run.clients);
    sleep(PAUSE * 3).await;

    let (mut add, mut del) = (Vec::new(), Vec::new());
    for (probe, client) in clients.iter_mut().enumerate().take(run.probes.into()) {
        let block = u16::try_from(probe % 16).unwrap_or(0) + 32;
        let (before, begun) = (count.borrow().announced, Instant::now());
        client.announce(block, 1).await?;
        add.push(until(&count, begun, |count| count.announced >= before + others).await?);
        sleep(PAUSE / 4).await;
        let (before, begun) = (count.borrow().withdrawn, Instant::now());
        client.withdraw(block, 1).await?;
        del.push(until(&count, begun, |count| count.withdrawn >= before + others).await?);
        sleep(PAUSE / 4).await;
    }
    let lost = count.borrow().closed;
    if lost > 0 {
        bail!("{lost} sessions were closed");
    }
    Ok(Line {
        up,
        converged,
        converge_cpu,
        cpu: daemon.cpu()?,
        memory: daemon.memory()?,
        updates_each,
        add,
        del,
    })
}

/// Waits for the count; returns the time from `begun` to the last UPDATE that was counted.
async fn until(
    count: &Rc<RefCell<Count>>,
    begun: Instant,
    enough: impl Fn(&Count) -> bool,
) -> Result<Duration> {
    while !enough(&count.borrow()) {
        if begun.elapsed() > PATIENCE {
            let count = count.borrow();
            bail!("waited in vain: {count:?}");
        }
        sleep(Duration::from_millis(1)).await;
    }
    let last = count.borrow().last.unwrap_or(begun);
    Ok(last.saturating_duration_since(begun))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let median = |times: &[Duration]| {
            let mut sorted = times.to_vec();
            sorted.sort();
            sorted.get(sorted.len() / 2).copied().map_or(f64::NAN, ms)
        };
        write!(
            f,
            "{:10.0} {:10.0} {:9.2} {:8.2} {:8.1} {:9} {:9.1} {:9.1}   (peak {:.1} MB)",
            ms(self.up),
            ms(self.converged),
            self.converge_cpu,
            self.cpu,
            self.memory.0,
            self.updates_each,
            median(&self.add),
            median(&self.del),
            self.memory.1,
        )
    }
}

const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(400);
