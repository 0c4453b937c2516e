//! A container runtime: calls plugins for its containers, repeats calls, loses them, and kills them half-way.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use margay_cni::ValidAttachments;
use margay_ipam_core::Want;
use margay_journal::Quarantine;
use margay_model::Family;
use margay_model::time::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use crate::auditor::ADDRESSES_ONLY;
use crate::network::Client;
use crate::plugin::{Call, Container, Failure};
use crate::world::{World, clock};

/// A container that runs, as its runtime knows it.
#[derive(Clone, Debug)]
struct Running {
    container: Container,
    addresses: Vec<IpAddr>,
}

/// Works until there are to be no more calls. What then runs, runs on.
pub async fn run(world: Arc<World>, node: usize, number: usize) {
    let mut runtime = Runtime {
        world: Arc::clone(&world),
        node,
        number,
        count: 0,
        containers: Vec::new(),
    };
    while !world.is_spent() {
        world.dawdle(Duration::ZERO, Duration::from_secs(4)).await;
        let boot = world.nodes[node].boot();
        runtime
            .containers
            .retain(|running| running.container.boot == boot);
        runtime.step().await;
    }
}

/// Calls GC now and then.
pub async fn collect_garbage(world: Arc<World>, node: usize) {
    while !world.is_spent() {
        world
            .dawdle(Duration::from_secs(30), Duration::from_secs(300))
            .await;
        if !world.take_operation() {
            return;
        }
        let boot = world.nodes[node].boot();
        let kills = world.shape.kills;
        let _ = mortal(&world, node, boot, kills, garbage(&world, node)).await;
    }
}

/// The GC after which nothing may be left.
pub(crate) async fn last_garbage(world: &Arc<World>, node: usize) {
    // Older than any newcomer.
    sleep(Duration::from_secs(61)).await;
    garbage(world, node).await;
}

/// GC as the plugins carry it out: endpoints of nobody on the list, then addresses.
async fn garbage(world: &Arc<World>, number: usize) {
    let node = &world.nodes[number];
    let alone = node.calls.write();
    let _alone = if world.shape.exclusive {
        Some(alone.await)
    } else {
        None
    };
    let store = Client::on(world, number, Duration::from_secs(10));
    for network in [PLAIN, PODS, ADDRESSES_ONLY] {
        let in_use = node.in_use(network);
        let attachment = |container_id: &String| margay_cni::Attachment {
            container_id: container_id.clone(),
            ifname: "eth0".to_owned(),
        };
        let mut valid = ValidAttachments::Known(in_use.iter().map(attachment).collect());
        world.note(|| format!("GC of {network} on {}: {in_use:?}", node.name));
        if network != ADDRESSES_ONLY {
            let _ = stale_endpoints(world, number, &store, network, &valid).await;
            let Ok(recorded) = margay_call::recorded(&store, &node.name).await else {
                continue;
            };
            valid = valid.and(recorded.iter().filter_map(margay_call::attachment_of));
        }
        let began: Timestamp = clock();
        let rest = Quarantine::beside(&node.journal);
        let given_back =
            margay_call::give_back_leaks(&store, &node.name, network, &valid, began, &rest).await;
        if world.is_calm() && world.is_spent() {
            match given_back {
                Ok(failures) if failures.is_empty() => {}
                other => world.fail(format!("the last GC on {}: {other:?}", node.name)),
            }
        }
    }
}

async fn stale_endpoints(
    world: &Arc<World>,
    number: usize,
    store: &Client,
    network: &'static str,
    valid: &ValidAttachments,
) -> Result<(), margay_cni::error::Error> {
    let node = &world.nodes[number];
    let began = clock();
    for endpoint in margay_call::recorded(store, &node.name).await? {
        let spec = &endpoint.spec;
        let Some(attached) = margay_call::attachment_of(&endpoint) else {
            continue;
        };
        let created = endpoint.metadata.creation_timestamp.as_deref();
        let created = created.and_then(Timestamp::parse_rfc3339);
        let is_old = created.is_some_and(|at| margay_call::is_old(at, began));
        let of_network = spec.profiles.iter().any(|profile| profile == network);
        if of_network && is_old && !valid.keeps(&attached.container_id, &attached.ifname) {
            let gone = Container {
                id: attached.container_id,
                pod: spec.pod.clone(),
                network,
                wants: Vec::new(),
                namespace: 0,
                boot: node.boot(),
            };
            world.note(|| format!("GC removes {}", gone.handle()));
            let removed = Call::new(world, number, &gone).del().await;
            if let Err(failed) = removed {
                world.fail(format!("R4: DEL of GC: {failed:?}"));
            }
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Runtime {
    world: Arc<World>,
    node: usize,
    number: usize,
    count: u64,
    containers: Vec<Running>,
}

impl Runtime {
    async fn step(&mut self) {
        let full = self.containers.len() >= self.world.shape.containers;
        let empty = self.containers.is_empty();
        let roll = self.world.rng().u32(..100);
        if empty || (!full && roll < 45) {
            let container = self.container();
            self.start(container).await;
            return;
        }
        let index = self.world.rng().usize(..self.containers.len());
        match roll % 20 {
            0..=3 => self.check(index).await,
            4..=5 => self.start_again(index).await,
            6..=8 if self.containers[index].container.pod.is_some() => self.replace(index).await,
            _ => {
                let running = self.containers.swap_remove(index);
                self.end(running.container).await;
            }
        }
    }

    /// A container that has not been there yet.
    fn container(&mut self) -> Container {
        self.count += 1;
        let id = format!("{}x{}x{}", self.node, self.number, self.count);
        let mut rng = self.world.rng();
        // Each worker's pods have few names, so that containers follow one another in them; but one at a time.
        let name = format!("{}p{}p{}", self.node, self.number, rng.u8(..3));
        let used = |running: &Running| running.container.pod.as_ref() == Some(&name);
        let networks = if self.containers.iter().any(used) {
            [PLAIN, PLAIN, ADDRESSES_ONLY]
        } else {
            [PLAIN, PODS, ADDRESSES_ONLY]
        };
        let network = networks[rng.usize(..3)];
        let automatic = |family| Want::Auto {
            family,
            pools: Vec::new(),
        };
        let mut wants = vec![automatic(Family::V4)];
        if self.world.shape.dual_stack && rng.bool() {
            wants.push(automatic(Family::V6));
        }
        let pod = (network == PODS).then_some(name);
        if let Some(pod) = &pod
            && rng.u32(..3) == 0
        {
            // A fixed address for each such pod of the cluster, where no block but the last is.
            let ordinal = pod.bytes().map(u32::from).sum::<u32>() % 16;
            let text = format!("10.0.0.{}", 48 + ordinal);
            wants[0] = Want::Exact(text.parse().unwrap());
        }
        drop(rng);
        self.in_namespace(id, pod, network, wants)
    }

    fn in_namespace(
        &self,
        id: String,
        pod: Option<String>,
        network: &'static str,
        wants: Vec<Want>,
    ) -> Container {
        let node = &self.world.nodes[self.node];
        let namespace = self.world.rng().u64(1..);
        node.kernel().add_namespace(namespace);
        Container {
            id,
            pod,
            network,
            wants,
            namespace,
            boot: node.boot(),
        }
    }

    /// ADD, again after a failure or not, until it runs or is given up.
    async fn start(&mut self, container: Container) {
        for _ in 0..3 {
            let Some(answer) = self.add(&container).await else {
                return;
            };
            let again = match answer {
                Some(Ok(addresses)) => {
                    self.begin_use(&container, &addresses);
                    self.containers.push(Running {
                        container,
                        addresses,
                    });
                    return;
                }
                Some(Err(_)) => self.world.chance(300),
                // Killed: most runtimes send a DEL then, and some forget it.
                None => self.world.chance(500),
            };
            if !again {
                break;
            }
        }
        self.end(container).await;
    }

    /// A runtime that has lost its own memory repeats an ADD.
    async fn start_again(&mut self, index: usize) {
        let running = self.containers[index].clone();
        match self.add(&running.container).await.flatten() {
            Some(Ok(addresses)) if addresses != running.addresses => {
                let handle = running.container.handle();
                let told = &running.addresses;
                self.world.fail(format!(
                    "a repeated ADD of {handle} answers {addresses:?}, not {told:?}"
                ));
            }
            _ => {}
        }
    }

    /// One ADD: `None` when there are to be no more calls, `Some(None)` when it was killed.
    async fn add(&self, container: &Container) -> Option<Option<Result<Vec<IpAddr>, Failure>>> {
        if !self.world.take_operation() {
            self.abandon(container);
            return None;
        }
        let (world, handle) = (&self.world, container.handle());
        world.note(|| format!("ADD {handle} on n{}", self.node));
        let _beside_others = world.nodes[self.node].calls.read().await;
        let call = Call::new(world, self.node, container);
        let answer = mortal(
            world,
            self.node,
            container.boot,
            world.shape.kills,
            timeout(ADD_LIMIT, call.add()),
        )
        .await;
        world.note(|| format!("ADD {handle} on n{}: {answer:?}", self.node));
        Some(answer.and_then(Result::ok))
    }

    async fn check(&mut self, index: usize) {
        let running = &self.containers[index];
        let (world, container) = (&self.world, &running.container);
        if !world.take_operation() {
            return;
        }
        let _beside_others = world.nodes[self.node].calls.read().await;
        let call = Call::new(world, self.node, container);
        let checked = mortal(
            world,
            self.node,
            container.boot,
            world.shape.kills,
            call.check(&running.addresses),
        );
        if let Some(Err(Some(missing))) = checked.await {
            world.fail(format!("CHECK of a container that runs: {missing}"));
        }
    }

    /// A new sandbox for the same pod; the old one's DEL comes late, or never.
    async fn replace(&mut self, index: usize) {
        let old = self.containers.swap_remove(index).container;
        self.count += 1;
        let id = format!("{}x{}x{}", self.node, self.number, self.count);
        self.end_use(&old);
        let new = self.in_namespace(id, old.pod.clone(), old.network, old.wants.clone());
        if self.world.chance(700) {
            self.delete_late(old);
        } else {
            self.abandon(&old);
        }
        self.start(new).await;
    }

    /// Ends a container in one of the ways in which containers end.
    async fn end(&mut self, container: Container) {
        self.end_use(&container);
        let way = self.world.rng().u32(..10);
        match way {
            // Its namespace goes, and nobody says a word.
            0 => self.abandon(&container),
            1..=2 => self.delete_late(container),
            _ => {
                if way < 5 {
                    self.abandon(&container);
                }
                delete(Arc::clone(&self.world), self.node, &container, way == 9).await;
                // Attached anew, under the same id.
                if way == 8 && container.boot == self.world.nodes[self.node].boot() {
                    let again = self.in_namespace(
                        container.id,
                        container.pod,
                        container.network,
                        container.wants,
                    );
                    Box::pin(self.start(again)).await;
                }
            }
        }
    }

    /// A DEL that comes when the next container may run already.
    fn delete_late(&self, container: Container) {
        let (world, node) = (Arc::clone(&self.world), self.node);
        if world.chance(500) {
            self.abandon(&container);
        }
        let task = async move {
            world.dawdle(Duration::ZERO, Duration::from_secs(100)).await;
            let twice = world.chance(300);
            delete(world, node, &container, twice).await;
        };
        self.world.beside(task);
    }

    /// The container's namespace goes.
    fn abandon(&self, container: &Container) {
        abandon(&self.world, self.node, container);
    }

    fn begin_use(&self, container: &Container, addresses: &[IpAddr]) {
        let node = &self.world.nodes[self.node];
        if node.boot() != container.boot {
            return;
        }
        node.use_begins(&container.id, container.network);
        if container.is_addresses_only() {
            let handle = container.handle();
            let mut auditor = self.world.auditor();
            let verdict = auditor.occupy(&node.name, &handle, addresses);
            drop(auditor);
            self.world.judge(verdict);
        }
    }

    fn end_use(&self, container: &Container) {
        let node = &self.world.nodes[self.node];
        node.use_ends(&container.id, container.network);
        if container.is_addresses_only() {
            let mut auditor = self.world.auditor();
            auditor.vacate_handle(&node.name, &container.handle());
        }
    }
}

fn abandon(world: &World, number: usize, container: &Container) {
    let node = &world.nodes[number];
    let gone = node.kernel().delete_namespace(container.namespace);
    world.note(|| format!("{}: its namespace goes", container.handle()));
    let mut auditor = world.auditor();
    for interface in gone {
        auditor.vacate(&node.name, &container.handle(), &interface.addresses);
    }
}

/// DEL, repeated while it is killed; some runtimes give up. R4: it never fails, and ends in time.
async fn delete(world: Arc<World>, node: usize, container: &Container, twice: bool) {
    let mut ended = 0;
    while world.take_operation() {
        world.note(|| format!("DEL {} on n{node}", container.handle()));
        let _beside_others = world.nodes[node].calls.read().await;
        let call = Call::new(&world, node, container);
        let began = Instant::now();
        let boot = world.nodes[node].boot();
        let answer = mortal(&world, node, boot, world.shape.kills, call.del()).await;
        world.note(|| format!("DEL {} on n{node}: {answer:?}", container.handle()));
        match &answer {
            Some(Ok(())) => ended += 1,
            Some(Err(failed)) => {
                world.fail(format!("R4: DEL of {}: {failed:?}", container.handle()));
            }
            None => {}
        }
        if began.elapsed() > DEL_LIMIT {
            world.fail(format!("R4: DEL of {} took too long", container.handle()));
        }
        if ended > usize::from(twice) || (answer.is_none() && world.chance(400)) {
            break;
        }
    }
    abandon(&world, node, container);
}

/// Runs a call until it ends, its node restarts, or, of 1,000 calls so many, it is killed while it waits; `None`
/// for the last two.
async fn mortal<T>(
    world: &World,
    node: usize,
    boot: u64,
    kills: u32,
    call: impl Future<Output = T>,
) -> Option<T> {
    let killed = !world.is_calm() && world.chance(kills);
    let mut waits = if killed {
        world.rng().u32(1..25)
    } else {
        u32::MAX
    };
    let mut call = pin!(call);
    poll_fn(|context| {
        if world.nodes[node].boot() != boot {
            return Poll::Ready(None);
        }
        if let Poll::Ready(answer) = call.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        waits -= 1;
        if waits == 0 {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    })
    .await
}

const PLAIN: &str = "plain";
const PODS: &str = "pods";
/// How long an ADD may take: then the plugin's watchdog ends the process.
const ADD_LIMIT: Duration = Duration::from_secs(55);
const DEL_LIMIT: Duration = Duration::from_secs(10);
