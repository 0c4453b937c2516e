//! One simulated cluster from its beginning to its end.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use margay_model::Metadata;
use margay_model::ipam::IpamConfig;
use margay_model::resource::cluster::{ClusterInformation, Node as NodeResource, NodeSpec};
use margay_model::resource::pool::{IPPool, IPPoolSpec};
use margay_model::time::Timestamp;
use margay_model::{Key, json};
use margay_store::memory::Memory;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::auditor::Auditor;
use crate::node::Node;
use crate::shape::Shape;
use crate::{agent, calico, chaos, runtime};

/// What all tasks of a simulation share.
#[derive(Debug)]
pub struct World {
    /// The size and the troubles of the cluster.
    pub shape: Shape,
    /// The store's data.
    pub memory: Memory,
    /// Nodes of ours.
    pub nodes: Vec<Node>,
    rng: Mutex<Rng>,
    auditor: Mutex<Auditor>,
    /// Until when nobody reaches the store.
    outage: Mutex<Instant>,
    calm: AtomicBool,
    stopped: AtomicBool,
    left: AtomicU64,
    made: AtomicU64,
    violation: Mutex<Option<String>>,
    history: Option<Mutex<VecDeque<String>>>,
    background: Mutex<JoinSet<()>>,
}

/// How a simulation went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls of plugins that were made.
    pub operations: u64,
    /// Commits that the store took.
    pub commits: u64,
    /// Virtual time that passed.
    pub time: Duration,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was broken.
    pub what: String,
    /// What happened before, newest last; empty unless it was asked for.
    pub history: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.history {
            writeln!(f, "{line}")?;
        }
        f.write_str(&self.what)
    }
}

/// Simulates a cluster until its runtimes have made so many calls, lets it come to rest, and checks what is left.
/// `remember` keeps what happened, for the report of a violation.
///
/// # Errors
/// The first rule that was broken.
pub fn run(seed: u64, operations: u64, remember: bool) -> Result<Report, Violation> {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape::draw(&mut rng);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let folder = if Path::new(IN_MEMORY).is_dir() {
        tempfile::tempdir_in(IN_MEMORY)
    } else {
        tempfile::tempdir()
    };
    let folder = folder.unwrap();
    let (world, time) = runtime.block_on(async {
        BEGAN.set(Some(Instant::now()));
        let world = World::new(rng, shape, operations, remember, folder.path());
        world.live().await;
        (world, clock_since())
    });
    drop(runtime);
    let report = Report {
        operations: world.made.load(Ordering::Relaxed),
        commits: world.auditor().commits(),
        time,
    };
    let what = lock(&world.violation).take();
    match what {
        None => Ok(report),
        Some(what) => {
            let history = world.history.as_ref().map(|history| lock(history).clone());
            Err(Violation {
                what,
                history: history.unwrap_or_default().into(),
            })
        }
    }
}

/// The time in the simulation of this thread.
pub fn clock() -> Timestamp {
    Timestamp::from_epoch(EPOCH + clock_since())
}

/// Locks what no panicking task has left half-done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clock_since() -> Duration {
    let began = BEGAN.get();
    began.map_or(Duration::ZERO, |began| began.elapsed())
}

impl World {
    fn new(rng: Rng, shape: Shape, operations: u64, remember: bool, folder: &Path) -> Arc<Self> {
        let memory = Memory::new();
        fill(&memory, &shape);
        let nodes = (0..shape.nodes).map(|number| Node::new(number, folder));
        let mut auditor = Auditor::default();
        auditor.begin(&memory);
        Arc::new(Self {
            nodes: nodes.collect(),
            memory,
            rng: Mutex::new(rng),
            auditor: Mutex::new(auditor),
            outage: Mutex::new(Instant::now()),
            calm: AtomicBool::new(!shape.chaos),
            stopped: AtomicBool::new(false),
            left: AtomicU64::new(operations),
            made: AtomicU64::new(0),
            violation: Mutex::new(None),
            history: remember.then(Mutex::default),
            background: Mutex::default(),
            shape,
        })
    }

    async fn live(self: &Arc<Self>) {
        let agents: Vec<JoinHandle<()>> = (0..self.nodes.len())
            .map(|node| tokio::spawn(agent::run(Arc::clone(self), node)))
            .collect();
        let chaos = tokio::spawn(chaos::run(Arc::clone(self)));
        let mut runtimes = JoinSet::new();
        for node in 0..self.nodes.len() {
            runtimes.spawn(runtime::collect_garbage(Arc::clone(self), node));
            for number in 0..self.shape.workers {
                runtimes.spawn(runtime::run(Arc::clone(self), node, number));
            }
        }
        for number in 0..self.shape.foreign {
            runtimes.spawn(calico::run(Arc::clone(self), number));
        }
        while let Some(ended) = runtimes.join_next().await {
            self.survived(ended);
        }
        chaos.abort();
        self.calm.store(true, Ordering::Relaxed);
        *lock(&self.outage) = Instant::now();
        loop {
            let mut late = std::mem::take(&mut *lock(&self.background));
            if late.is_empty() {
                break;
            }
            while let Some(ended) = late.join_next().await {
                self.survived(ended);
            }
        }
        self.rest().await;
        for agent in agents {
            agent.abort();
        }
    }

    /// R2 and R3: what is left after the agents' passes and one GC of each runtime belongs to the living.
    async fn rest(self: &Arc<Self>) {
        sleep(PASSES).await;
        if self.is_over() {
            return;
        }
        self.judge(self.auditor().at_rest(&self.nodes, false));
        for node in 0..self.nodes.len() {
            runtime::last_garbage(self, node).await;
        }
        self.judge(self.auditor().at_rest(&self.nodes, true));
    }

    fn survived(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            self.fail(format!("a task panicked: {error}"));
        }
    }

    /// Counts a call of a plugin; `false` when there are to be no more.
    pub fn take_operation(&self) -> bool {
        let left = &self.left;
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        if taken.is_ok() && !self.is_over() {
            self.made.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// Whether there are to be no more calls.
    pub fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 || self.is_over()
    }

    /// Runs a task beside the others; the end is not reached before it has ended.
    pub fn beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.background).spawn(task);
    }

    /// The source of chance.
    pub fn rng(&self) -> MutexGuard<'_, Rng> {
        lock(&self.rng)
    }

    /// Whether something happens of which so many in 1,000 do.
    pub fn chance(&self, of_thousand: u32) -> bool {
        self.rng().u32(..1000) < of_thousand
    }

    /// Waits for a random time between these.
    pub async fn dawdle(&self, least: Duration, most: Duration) {
        let span = u64::try_from((most - least).as_millis()).unwrap_or(u64::MAX);
        let time = least + Duration::from_millis(self.rng().u64(..=span));
        sleep(time).await;
    }

    /// The auditor.
    pub fn auditor(&self) -> MutexGuard<'_, Auditor> {
        lock(&self.auditor)
    }

    /// Ends the simulation where a rule is broken.
    pub fn judge(&self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.fail(what);
        }
    }

    /// Ends the simulation with this violation.
    pub fn fail(&self, what: String) {
        lock(&self.violation).get_or_insert(what);
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether a rule was broken.
    pub fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Whether nothing goes wrong any more.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Keeps everybody from the store for a while.
    pub fn begin_outage(&self, time: Duration) {
        *lock(&self.outage) = Instant::now() + time;
        self.memory.break_watches();
    }

    /// Whether nobody reaches the store now.
    pub fn has_outage(&self) -> bool {
        *lock(&self.outage) > Instant::now()
    }

    /// Remembers what happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if let Some(history) = &self.history {
            let mut history = lock(history);
            if history.len() == MOST_REMEMBERED {
                history.pop_front();
            }
            history.push_back(format!("{:>10.3} {}", clock_since().as_secs_f64(), what()));
        }
    }
}

/// What an operator and the agents put there before the first container.
fn fill(memory: &Memory, shape: &Shape) {
    let put = |key: Key, value: Vec<u8>| memory.put_raw(&key.path(), &value);
    let cluster = ClusterInformation::new(Metadata::named("default"), Default::default());
    put(cluster.key(), cluster.encode().unwrap());
    let six = ("fd00::/112".to_owned(), 122);
    for (number, (cidr, length)) in shape.pools.iter().chain([&six]).enumerate() {
        let spec = IPPoolSpec {
            cidr: cidr.clone(),
            block_size: Some(*length),
            ..IPPoolSpec::default()
        };
        let pool = IPPool::new(Metadata::named(format!("pool-{number}")), spec);
        put(pool.key(), pool.encode().unwrap());
    }
    let ours = (0..shape.nodes).map(Node::name_of);
    let theirs = (0..shape.foreign).map(calico::node_name);
    for name in ours.chain(theirs) {
        let node = NodeResource::new(Metadata::named(name), NodeSpec::default());
        put(node.key(), node.encode().unwrap());
    }
    let config = IpamConfig {
        strict_affinity: shape.strict_affinity,
        auto_allocate_blocks: true,
        ..IpamConfig::default()
    };
    put(Key::IpamConfig, json::encode(&config).unwrap());
}

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// 2020-01-01T00:00:00Z.
const EPOCH: Duration = Duration::from_secs(1_577_836_800);
/// Long enough for agents to judge whatever is left, after the last trouble.
const PASSES: Duration = Duration::from_secs(300);
const IN_MEMORY: &str = "/dev/shm";
const MOST_REMEMBERED: usize = 20_000;
