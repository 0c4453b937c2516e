//! How long the agent takes from the store to the kernel, and what it costs on a node.
//!
//! A real agent and a real etcd run in namespaces of this program's own. Endpoints have interfaces, but nobody behind
//! them: what is measured ends when policy is in force.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "programs are what is measured here, and the figures are told"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use futures_util::StreamExt as _;
use margay_bench::etcd::Etcd;
use margay_bench::sandbox::Sandbox;
use margay_datastore::{Config, Datastore};
use margay_model::names::{EndpointName, status_file};
use margay_model::resource::endpoint::{WorkloadEndpoint, WorkloadEndpointSpec};
use margay_model::resource::policy::GlobalNetworkPolicy;
use margay_model::{Cidr, Metadata};
use margay_netlink::Namespace;
use margay_nft::Watch;
use margay_store::{Batch, MAX_OPS, Outcome, Revision, Store, Write};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Measures the agent: from an endpoint or a policy written in etcd to the kernel, its processor time and memory.
#[derive(Debug, Parser)]
struct Options {
    /// The agent; default is the one in this program's folder.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// A folder for what is not in memory.
    #[arg(long, default_value = "/var/tmp")]
    disk: PathBuf,
    /// Endpoints of this node.
    #[arg(long, default_value_t = 15)]
    local: usize,
    /// Endpoints of other nodes.
    #[arg(long, default_value_t = 0)]
    remote: usize,
    /// Changes of each kind.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let programs = std::env::current_exe()?;
    let programs = programs.parent().unwrap_or_else(|| Path::new("/"));
    let sandbox = Sandbox::enter(&options.disk)?;
    let etcd = Etcd::start(&sandbox.in_memory("etcd")?, 0, None)?;
    prepare(programs, &etcd, options.remote)?;
    let keys = etcd.keys();
    let keys = keys.as_object().context("keys of the store")?;
    let store = Datastore::open(&Config::from_cni(keys, &|_| None)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let agent = options
        .agent
        .clone()
        .unwrap_or_else(|| programs.join("margay-agent"));
    runtime.block_on(measure(&options, &store, &agent, &etcd, &sandbox))
}

/// Makes the cluster, with endpoints of other nodes.
fn prepare(programs: &Path, etcd: &Etcd, remote: usize) -> Result<()> {
    let mut process = Command::new(programs.join("margay-bench-prepare"))
        .args(["cluster", POOL, &remote.to_string(), NODE])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = process.stdin.take().context("its input")?;
    stdin.write_all(etcd.keys().to_string().as_bytes())?;
    drop(stdin);
    ensure!(process.wait()?.success(), "no cluster could be made");
    Ok(())
}

async fn measure(
    options: &Options,
    store: &Datastore,
    program: &Path,
    etcd: &Etcd,
    sandbox: &Sandbox,
) -> Result<()> {
    let endpoints = (0..=options.local).map(endpoint);
    let mut endpoints: Vec<WorkloadEndpoint> = endpoints.collect::<Result<_>>()?;
    // The last one comes and goes.
    let guest = endpoints.pop().context("no endpoint")?;
    interfaces(options.local + 1)?;
    write(store, policies()?).await?;
    let mut writes = Vec::new();
    for endpoint in &endpoints {
        writes.push(Write::create(endpoint.key(), endpoint.encode()?));
    }
    write(store, writes).await?;

    let began = Instant::now();
    let agent = Agent::start(program, etcd, sandbox)?;
    let last = endpoints.last().map(|endpoint| agent.status(endpoint));
    if let Some(last) = last {
        agent.appears(&last)?;
    }
    let cold = began.elapsed();
    thread::sleep(SETTLED);
    let memory = agent.memory()?;
    let idle = agent.busy_over(SETTLED)?;

    let (mut arrivals, mut departures) = (Vec::new(), Vec::new());
    let (mut coming, mut going) = (Duration::ZERO, Duration::ZERO);
    let rounds = u32::try_from(options.rounds)?;
    for _ in 0..options.rounds {
        let before = agent.processor_time()?;
        let begun = Instant::now();
        write(store, vec![Write::create(guest.key(), guest.encode()?)]).await?;
        let written = begun.elapsed();
        agent.appears(&agent.status(&guest))?;
        arrivals.push((written, begun.elapsed()));
        thread::sleep(QUIET);
        let between = agent.processor_time()?;
        let begun = Instant::now();
        write(store, vec![Write::delete_any(guest.key())]).await?;
        let written = begun.elapsed();
        agent.vanishes(&agent.status(&guest))?;
        departures.push((written, begun.elapsed()));
        thread::sleep(QUIET);
        coming += between - before;
        going += agent.processor_time()? - between;
    }

    let mut edits = Vec::new();
    let mut watch = Watch::open(&Namespace::current()?, TABLE, &[])?;
    let before = agent.processor_time()?;
    let mut revision = None;
    for round in 0..options.rounds {
        let policy = edited(u16::try_from(round)?)?;
        let begun = Instant::now();
        revision = Some(replace(store, &policy, revision).await?);
        let written = begun.elapsed();
        let seen = tokio::time::timeout(PATIENCE, watch.next()).await;
        ensure!(
            matches!(seen, Ok(Some(Ok(_)))),
            "no change in the kernel: {seen:?}"
        );
        edits.push((written, begun.elapsed()));
    }
    let edit = (agent.processor_time()? - before) / rounds;

    println!(
        "{} endpoints on the node, {} elsewhere, {} policies of {} rules on each; {} rounds\n",
        options.local, options.remote, POLICIES, RULES, options.rounds
    );
    println!("| | p50 ms | p99 ms | of it the write, p50 ms | CPU ms |\n|---|--:|--:|--:|--:|");
    line("an endpoint in force", &mut arrivals, coming / rounds);
    line("an endpoint gone", &mut departures, going / rounds);
    line("an edited policy in force", &mut edits, edit);
    println!(
        "\nFrom the start of the agent until all are in force: {:.0} ms.\nResident memory: {:.1} MB, {:.1} MB of it not files. Idle: {:.2} ms of CPU a second.",
        cold.as_secs_f64() * 1e3,
        memory.0,
        memory.1,
        idle.as_secs_f64() * 1e3 / SETTLED.as_secs_f64(),
    );
    Ok(())
}

fn line(what: &str, times: &mut [(Duration, Duration)], cpu: Duration) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let mut writes: Vec<Duration> = times.iter().map(|(write, _)| *write).collect();
    let mut whole: Vec<Duration> = times.iter().map(|(_, whole)| *whole).collect();
    writes.sort_unstable();
    whole.sort_unstable();
    let at = |sorted: &[Duration], percent: usize| {
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().map_or(f64::NAN, milliseconds)
    };
    println!(
        "| {what} | {:.2} | {:.2} | {:.2} | {:.2} |",
        at(&whole, 50),
        at(&whole, 99),
        at(&writes, 50),
        milliseconds(cpu),
    );
}

/// An agent that runs; it ends with this value.
#[derive(Debug)]
struct Agent {
    process: Child,
    statuses: PathBuf,
    notify: Inotify,
}

impl Agent {
    fn start(program: &Path, etcd: &Etcd, sandbox: &Sandbox) -> Result<Self> {
        let folder = sandbox.in_memory("agent")?;
        let statuses = sandbox.in_memory("agent/run/endpoint-status")?;
        let notify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM;
        notify.add_watch(&statuses, changes)?;
        let log = fs::File::create(folder.join("log"))?;
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["--nodename", NODE, "--state-dir"])
            .arg(folder.join("state"))
            .arg("--run-dir")
            .arg(folder.join("run"))
            .arg("--releases-dir")
            .arg(folder.join("releases"))
            .env("DATASTORE_TYPE", "etcdv3")
            .env("ETCD_ENDPOINTS", etcd.endpoint())
            .env("IP", ADDRESS)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self {
            process,
            statuses,
            notify,
        })
    }

    fn status(&self, endpoint: &WorkloadEndpoint) -> PathBuf {
        let spec = &endpoint.spec;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let workload = format!("default/{}", text(&spec.container_id));
        self.statuses.join(status_file(
            &text(&spec.orchestrator),
            &workload,
            &text(&spec.endpoint),
        ))
    }

    fn appears(&self, file: &Path) -> Result<()> {
        self.until(file, true)
    }

    fn vanishes(&self, file: &Path) -> Result<()> {
        self.until(file, false)
    }

    fn until(&self, file: &Path, there: bool) -> Result<()> {
        while file.exists() != there {
            // Returns when something in the folder has changed since it was last read.
            self.notify.read_events()?;
        }
        Ok(())
    }

    /// Time that its threads have run.
    fn processor_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let ran = text
                .split(' ')
                .next()
                .and_then(|word| word.parse::<u64>().ok());
            nanoseconds += ran.context("schedstat")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn busy_over(&self, span: Duration) -> Result<Duration> {
        let before = self.processor_time()?;
        thread::sleep(span);
        Ok(self.processor_time()? - before)
    }

    /// Resident memory, and the part that is no file's, in megabytes.
    fn memory(&self) -> Result<(f64, f64)> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            let kibibytes: f64 = word.context("a field of status")?.parse()?;
            Ok(kibibytes * 1024.0 / 1e6)
        };
        Ok((field("VmRSS:")?, field("RssAnon:")?))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Pairs of interfaces, with both ends here.
fn interfaces(count: usize) -> Result<()> {
    let mut lines = format!("address add {ADDRESS} dev lo\n");
    for number in 0..count {
        lines.push_str(&format!(
            "link add {} type veth peer name p{number}\nlink set {} up\nlink set p{number} up\n",
            interface(number),
            interface(number),
        ));
    }
    let mut process = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = process.stdin.take().context("its input")?;
    stdin.write_all(lines.as_bytes())?;
    drop(stdin);
    ensure!(process.wait()?.success(), "no interfaces could be made");
    Ok(())
}

fn interface(number: usize) -> String {
    format!("cali{number}")
}

fn endpoint(number: usize) -> Result<WorkloadEndpoint> {
    let container = format!("bench{number}");
    let name = EndpointName {
        node: NODE.to_owned(),
        orchestrator: "cni".to_owned(),
        workload: container.clone(),
        endpoint: "eth0".to_owned(),
    };
    let pool: Cidr = LOCAL.parse()?;
    let address = pool.nth(number as u128).context("no address left")?;
    let mut metadata = Metadata::namespaced("default".to_owned(), name.encode()?);
    metadata.labels.insert("app".to_owned(), "bench".to_owned());
    Ok(WorkloadEndpoint::new(
        metadata,
        WorkloadEndpointSpec {
            orchestrator: Some(name.orchestrator),
            node: Some(name.node),
            container_id: Some(container),
            endpoint: Some(name.endpoint),
            ip_networks: vec![Cidr::host(address).to_string()],
            interface_name: Some(interface(number)),
            ..WorkloadEndpointSpec::default()
        },
    ))
}

/// Policies that select every endpoint of the bench.
fn policies() -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for number in 0..POLICIES {
        let policy = policy(&format!("p{number}"), 1000 + 100 * number)?;
        writes.push(Write::create(policy.key(), policy.encode()?));
    }
    Ok(writes)
}

/// A policy that allows a few ports, from `port` on, from endpoints of the bench.
fn policy(name: &str, port: u16) -> Result<GlobalNetworkPolicy> {
    let rules: Vec<_> = (0..RULES)
        .map(|rule| {
            serde_json::json!({
                "action": "Allow", "protocol": "TCP",
                "source": {"selector": "app == 'bench'"},
                "destination": {"ports": [port + rule]},
            })
        })
        .collect();
    let whole = serde_json::json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"selector": "app == 'bench'", "types": ["Ingress"], "ingress": rules},
    });
    Ok(serde_json::from_value(whole)?)
}

/// The policy that is edited, as it is in a round.
fn edited(round: u16) -> Result<GlobalNetworkPolicy> {
    policy("edited", 20_000 + 10 * round)
}

async fn replace(
    store: &Datastore,
    policy: &GlobalNetworkPolicy,
    revision: Option<Revision>,
) -> Result<Revision> {
    let value = policy.encode()?;
    let write = match revision {
        Some(revision) => Write::update(policy.key(), value, revision),
        None => Write::create(policy.key(), value),
    };
    match store.commit(&Batch::of([write])).await? {
        Outcome::Committed(revision) => Ok(revision),
        Outcome::Conflict(_) => bail!("somebody else edited the policy"),
    }
}

async fn write(store: &Datastore, writes: Vec<Write>) -> Result<()> {
    for piece in writes.chunks(MAX_OPS) {
        let outcome = store.commit(&Batch::of(piece.iter().cloned())).await?;
        ensure!(
            matches!(outcome, Outcome::Committed(_)),
            "a key is there already"
        );
    }
    Ok(())
}

const NODE: &str = "bench";
const ADDRESS: &str = "10.97.0.1/32";
const TABLE: &str = "margay";
/// The pool, and a part of it that the seeded endpoints do not reach.
const POOL: &str = "10.64.0.0/11";
const LOCAL: &str = "10.95.0.0/16";
const POLICIES: u16 = 10;
const RULES: u16 = 6;
/// After which an agent has done all that a start asks for.
const SETTLED: Duration = Duration::from_secs(3);
/// After which what a change asks for is done.
const QUIET: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(10);
