//! The whole agent: from start to stop.

mod node;
mod serve;
pub(crate) mod signals;

use std::sync::Arc;
use std::time::Duration;

use margay_datastore::Datastore;
use margay_journal::{Adding, Journal, Quarantine};
use margay_netlink::{Netlink, table, tunnel};
use margay_route::{Ownership, TABLE_MAIN, plan_vxlan};
use margay_store::Store;
use margay_store::follow::{Event, Follower, Options};
use margay_telemetry::{Health, Log, Reporter, metrics as registry};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::apply::{Engine, Parts, shaping};
use crate::bgp::secrets::Secrets;
use crate::bgp::view::BgpStatus;
use crate::calculate::{Learned, calculate};
use crate::cleanup::{Sighting, Sweep};
use crate::config::Config;
use crate::enforce::{self, Enforcer};
use crate::error::AgentError;
use crate::gone::Reclaim;
use crate::identity::{self, Holder};
use crate::lease::{Hold, Pulse, RENEWAL};
use crate::metrics::{BgpMetrics, Metrics};
use crate::packet_log::Scribe;
use crate::plan::{self, Words};
use crate::register::join;
use crate::releases::Drain;
use crate::report::Status;
use crate::state::State;
use crate::tunnel_address::{Keeper, Wish};
use crate::{
    abandoned, bgp, datastore, files, gone, install, node_report, releases, standing, sync,
};

/// Runs until a signal says stop. The kernel keeps everything; the node's name is given back.
///
/// # Errors
/// What makes the agent of no use here: see [`AgentError`].
pub async fn run(config: Config, log: Log) -> Result<(), AgentError> {
    let config = Arc::new(config);
    let signals = signals::listen()?;
    let node = identity::node_name(config.nodename.as_deref())?;
    let me = Holder::this_process(config.machine_id.clone())?;
    let store = open(&config)?;
    info!(
        node,
        version = env!("CARGO_PKG_VERSION"),
        datastore = store.describe(),
        "the agent starts"
    );

    let health = Health::new();
    let mut registry = registry::registry(env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::register(&mut registry);
    let bgp_metrics = BgpMetrics::register(&mut registry);
    let (status, shown) = watch::channel(Status {
        node: node.clone(),
        machine: me.machine_id.clone(),
        datastore: "not reached yet".to_owned(),
        ..Status::default()
    });
    let (bgp_status, bgp_shown) = watch::channel(BgpStatus::default());
    let (ask, questions) = mpsc::channel(QUESTIONS);
    let name_health = health.register("node-name", NAME_SILENCE);
    let kernel = health.register("kernel", SILENCE);
    let datastore = health.register("datastore", SILENCE);
    let policy = health.register("policy", SILENCE);
    let releases = health.register("releases", SILENCE);
    let mut tasks = JoinSet::new();
    let installation = match config.install_cni {
        true => Some(install::Settings::of_agent(&config)?),
        false => None,
    };
    if let Some(settings) = installation {
        let board = health.clone();
        let ready = move || match board.readiness() {
            report if report.ok => Ok(()),
            report => Err(report.to_string()),
        };
        let kept = install::keep(settings, ready, Some(metrics.clone()), signals.stop.clone());
        tasks.spawn(async move { kept.await.map(|()| "keeper of the CNI files") });
    }
    serve::start(
        &config,
        health,
        Arc::new(registry),
        serve::Shown {
            status: shown,
            bgp: bgp_shown.clone(),
            ask,
        },
        &mut tasks,
        &signals.stop,
    )
    .await?;

    let mut stop = signals.stop.clone();
    let waiting = [&name_health, &kernel, &policy, &datastore, &releases];
    let mut hold = tokio::select! {
        begun = begin(&store, &config, &node, &me, &waiting) => begun?,
        _ = stop.changed() => return Ok(()),
    };
    name_health.ready(true, "held");
    metrics.name_held.set(1);

    let journal = Journal::new(&config.releases_dir);
    let drain = Drain::new(store.clone(), journal, node.clone(), metrics.clone());
    let stopped = signals.stop.clone();
    tasks.spawn(async move {
        drain.run(releases, stopped).await;
        Ok("drain of the journal")
    });

    let (told, events) = mpsc::channel(EVENTS);
    let seed = u64::from_be_bytes(identity::random()[..8].try_into().unwrap_or_default());
    let follower = sync::follow(store.clone(), seed, told, signals.accept.clone());
    tasks.spawn(async move {
        follower.await;
        Ok("follower of the datastore")
    });
    let sightings = config.cleanup_grace.map(|grace| {
        let quarantine = Quarantine::beside(&Journal::new(&config.releases_dir));
        let abandoned = abandoned::Sweep {
            store: store.clone(),
            adding: Adding::beside(&Journal::new(&config.releases_dir)),
            quarantine: quarantine.clone(),
            grace,
            metrics: metrics.clone(),
        };
        let stopped = signals.stop.clone();
        tasks.spawn(async move {
            abandoned.run(stopped).await;
            Ok("clean-up after killed ADDs")
        });
        let (seen, sightings) = mpsc::channel(1);
        let sweep = Sweep {
            store: store.clone(),
            node: node.clone(),
            grace,
            quarantine,
            metrics: metrics.clone(),
            status: status.clone(),
            booted: identity::booted(),
            clock: identity::now,
        };
        let accept = signals.accept.clone();
        tasks.spawn(async move {
            sweep.run(sightings, accept).await;
            Ok("clean-up")
        });
        seen
    });
    let (tunnel_wish, wished) = watch::channel(Wish::default());
    let keeper = Keeper::new(store.clone(), node.clone(), status.clone());
    let stopped = signals.stop.clone();
    tasks.spawn(async move {
        keeper.run(wished, stopped).await;
        Ok("keeper of tunnels' addresses")
    });
    let patience = config.node_grace;
    let (orders, ordered) = watch::channel(None);
    let (obeyed, seen_obeyed) = watch::channel(0);
    let (news, heard) = mpsc::channel(EVENTS);
    let speaker = bgp::task::Task {
        backend: config.bgp_backend.clone(),
        directory: config.bgp_dir.clone(),
        refused: None,
        orders: ordered,
        obeyed,
        news,
        status: bgp_status,
        questions,
        metrics: bgp_metrics,
    };
    let stopped = signals.stop.clone();
    tasks.spawn(async move {
        speaker.run(stopped).await;
        Ok("BGP")
    });
    let reports = node_report::Reporter {
        store: store.clone(),
        node: node.clone(),
        status: status.subscribe(),
        bgp: bgp_shown.clone(),
    };
    let stopped = signals.stop.clone();
    tasks.spawn(async move {
        reports.run(stopped).await;
        Ok("reports")
    });
    if let Some(directory) = config.bird_dir.clone() {
        let stopped = signals.stop.clone();
        tasks.spawn(async move {
            bgp::bird::serve(directory, bgp_shown, stopped).await;
            Ok("answers in BIRD's form")
        });
    }
    let netlink = Netlink::current()?;
    let (ask_names, whose) = mpsc::channel(1);
    let scribe = Scribe {
        namespace: netlink.namespace().clone(),
        ask: ask_names,
        metrics: metrics.clone(),
    };
    let stopped = signals.stop.clone();
    tasks.spawn(async move {
        scribe.run(stopped).await;
        Ok("log of packets")
    });
    let (standing, told) = watch::channel(None);
    let reporter = standing::Reporter {
        store: store.clone(),
        node: node.clone(),
        standing: told,
        metrics: metrics.clone(),
    };
    let stopped = signals.stop.clone();
    tasks.spawn(async move {
        reporter.run(stopped).await;
        Ok("status in the datastore")
    });
    let engine = Engine::new(Parts {
        config,
        node,
        netlink,
        log,
        metrics: metrics.clone(),
        kernel,
        policy,
        store: datastore,
        status: status.clone(),
        sightings,
        tunnel_wish,
        orders,
        obeyed: seen_obeyed,
        news: heard,
        standing,
        whose,
    })?;
    let (accept, stopped) = (signals.accept.clone(), signals.stop.clone());
    tasks.spawn(async move {
        engine
            .run(events, accept, stopped)
            .await
            .map(|()| "comparison")
    });

    let reclaim = Reclaim {
        store: store.clone(),
        node: hold.node().to_owned(),
        patience,
        metrics: metrics.clone(),
        status: status.clone(),
    };
    let (accept, stopped) = (signals.accept.clone(), signals.stop.clone());
    tasks.spawn(async move {
        reclaim.run(seed, accept, stopped).await;
        Ok("clean-up after nodes")
    });

    let kept = keep(&mut hold, &name_health, &metrics, &status);
    let ended = tokio::select! {
        never = kept => never,
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(_)) if *stop.borrow() => Ok(()),
            Ok(Ok(part)) => Err(AgentError::Ended { part }),
            Ok(Err(failed)) => Err(failed),
            Err(_) => Err(AgentError::Ended { part: "task" }),
        },
        _ = stop.changed() => Ok(()),
    };
    info!("the agent stops; routes and neighbours stay");
    match timeout(FAREWELL, hold.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => {
            warn!(error = %failed, "the node's name could not be given back; its hold will lapse")
        }
        Err(_) => warn!("the datastore did not answer; the hold of the node's name will lapse"),
    }
    // Tasks that end by themselves get the time for it.
    let _ = timeout(FAREWELL, async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
    ended
}

/// What would be changed in the kernel, in words; changes nothing anywhere.
///
/// # Errors
/// Store or kernel cannot be read.
pub async fn dry_run(config: &Config) -> Result<String, AgentError> {
    let node = identity::node_name(config.nodename.as_deref())?;
    let store = open(config)?;
    let of_nodes = gone::foretell(&store, &node, config.node_grace).await?;
    let mut state = State::new(node.clone());
    let mut follower = Follower::new(store, State::prefixes(), Options::default());
    let said = match follower.next().await {
        Event::Synced { updates, .. } => {
            for update in &updates {
                state.update(update);
            }
            updates
        }
        Event::Lost(error) => return Err(error.into()),
        other => {
            let key = sync::held(&other).unwrap_or_default();
            return Err(AgentError::Contended { key });
        }
    };
    let netlink = Netlink::current()?;
    let interfaces = netlink.interfaces().await?;
    let observed = table::observe(&netlink, Some(TABLE_MAIN), &interfaces).await?;
    let settings = state.settings(&config.local);
    let observed = plan::handled(observed, &settings);
    let ownership = Ownership {
        interface_prefixes: settings.interface_prefixes.clone(),
        tunnels: plan::tunnels(),
        ..Ownership::default()
    };
    let local = plan::local(&interfaces, &observed, &ownership);
    let peering = bgp::desired(&state, &mut Secrets::new(&config.bgp_secrets));
    let learned = Learned {
        priorities: peering.priorities,
        gateways: peering.gateways,
        workloads: peering.workloads,
        elsewhere: config.bgp_backend.kernel_protocol(),
        ..Learned::default()
    };
    let picture = calculate(&state, &settings, &local, &learned);
    let mut planned = margay_route::plan(&picture.desired, &observed, &ownership);
    let withheld = plan::restrain(&mut planned, &observed, &ownership, &settings, false, false);
    let mut text = releases::foretell(&Journal::new(&config.releases_dir));
    if let Some(grace) = config.cleanup_grace {
        for suspect in Sighting::of(&state, &interfaces).suspects.values() {
            text.push_str(&format!(
                "give back, unless it comes back within {grace:?}: {suspect}\n"
            ));
        }
    }
    let policy = Enforcer::foretell(
        &node,
        netlink.namespace(),
        settings.of_policy(),
        enforce::node(&state, &settings, &interfaces),
        &said,
    )?;
    if !policy.is_empty() {
        text.push_str(&format!("{policy}"));
    }
    for step in plan_vxlan(&picture.devices, &tunnel::observe(&interfaces)) {
        text.push_str(&format!("{}\n", plan::DeviceWords(&step)));
    }
    for step in shaping::steps(&netlink, &state, &interfaces).await? {
        text.push_str(&format!("{step}\n"));
    }
    text.push_str(&of_nodes);
    for step in &planned.steps {
        text.push_str(&format!(
            "{}\n",
            Words {
                step,
                picture: &picture
            }
        ));
    }
    for problem in &peering.problems {
        text.push_str(&format!("{problem}\n"));
    }
    for conflict in &planned.conflicts {
        let wanted = plan::RouteWords(&conflict.desired);
        let holder = plan::RouteWords(&conflict.holder);
        text.push_str(&format!(
            "cannot add route {wanted}: somebody else's {holder} is there\n"
        ));
    }
    if withheld > 0 {
        text.push_str(&format!(
            "hold back {withheld} deletions: suspiciously many\n"
        ));
    }
    if text.is_empty() {
        text.push_str("nothing to change\n");
    }
    Ok(text)
}

/// Opens the store that file and environment name.
fn open(config: &Config) -> Result<Datastore, AgentError> {
    let told = datastore::config(config.datastore_file.as_deref())?;
    Ok(Datastore::open(&told)?)
}

/// Makes this machine the node, again and again until the store answers.
async fn begin(
    store: &Datastore,
    config: &Config,
    node: &str,
    me: &Holder,
    reporters: &[&Reporter],
) -> Result<Hold<Datastore>, AgentError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let failed = match begin_once(store, config, node, me).await {
            Ok(hold) => return Ok(hold),
            Err(error) if error.is_transient() => error,
            Err(error) => return Err(error),
        };
        warn!(error = %failed, "the node cannot be registered yet; trying again");
        let until = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < until {
            for reporter in reporters {
                reporter.ready(false, &failed.to_string());
            }
            sleep(pause.min(Duration::from_secs(1))).await;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn begin_once(
    store: &Datastore,
    config: &Config,
    node: &str,
    me: &Holder,
) -> Result<Hold<Datastore>, AgentError> {
    let mut hold = Hold::take(store.clone(), node, me.clone()).await?;
    let introduced = match node::introduce(store, config, node).await {
        Ok(()) => join(store, node, &me.machine_id).await,
        refused => refused,
    };
    match introduced {
        Ok(()) => {}
        Err(error) => {
            // A refusal must not keep another machine from the name.
            let _ = timeout(FAREWELL, hold.release()).await;
            return Err(error);
        }
    }
    let path = config.state_dir.join("nodename");
    files::write(&path, node).map_err(|source| AgentError::File { path, source })?;
    Ok(hold)
}

/// Keeps the node's name; never ends.
async fn keep<S: Store>(
    hold: &mut Hold<S>,
    health: &Reporter,
    metrics: &Metrics,
    status: &watch::Sender<Status>,
) -> Result<(), AgentError> {
    let mut lost = false;
    loop {
        sleep(RENEWAL).await;
        match hold.renew().await {
            Ok(Pulse::Held) if !lost => health.ready(true, "held"),
            Ok(Pulse::Held | Pulse::Regained) => {
                // Others may have taken the node for gone.
                if let Err(failed) = hold.join().await {
                    warn!(error = %failed, "the node's membership could not be noted");
                }
                warn!("the node's name had lapsed and is held again");
                lost = false;
                metrics.name_held.set(1);
                health.ready(true, "held");
            }
            Ok(Pulse::Lost(holder)) => {
                let reason = format!(
                    "the node's name was taken by machine {}, process {}, since {}: stop one of the two",
                    holder.machine_id, holder.pid, holder.started
                );
                error!("{reason}");
                lost = true;
                metrics.name_held.set(0);
                health.ready(false, &reason);
                status.send_modify(|status| status.last_error = Some(reason));
            }
            // Without the store nobody else can take the name either.
            Err(failed) => {
                warn!(error = %failed, "no sign of life could be given");
                health.live();
            }
        }
    }
}

/// Questions of people that wait.
const QUESTIONS: usize = 16;
/// Events on their way from the follower to the state.
const EVENTS: usize = 64;
/// After so long without a report a part of the agent counts as hung.
const SILENCE: Duration = Duration::from_secs(90);
/// As [`SILENCE`], for the part that only speaks at every renewal.
const NAME_SILENCE: Duration = Duration::from_secs(120);
/// How long the end may take.
const FAREWELL: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
