//! Side-by-side measurements of the plugins against peers, as ratios.
//!
//! `README.md` beside this crate tells how to run it and what each column means. Contenders take
//! turns within every round, so that what else the machine does meets all of them alike. Nothing is
//! made in the machine's own namespaces.

#![expect(
    clippy::disallowed_methods,
    reason = "programs are what is measured here"
)]

mod call;
mod report;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use margay_bench::etcd::{Etcd, Traffic};
use margay_bench::sandbox::Sandbox;
use serde_json::{Value, json};

use crate::call::{Container, Contender, Sample};
use crate::report::{Summary, quantile, spread, table};

/// Measures ADD, CHECK and DEL of margay beside ptp with host-local, and beside a program that does
/// the least any plugin must do.
#[derive(Debug, Parser)]
struct Options {
    /// Folder of margay and margay-ipam; default is the folder of this program.
    #[arg(long)]
    plugins: Option<PathBuf>,
    /// Folder of ptp and host-local.
    #[arg(long, default_value = "/usr/lib/cni")]
    peers: PathBuf,
    /// A folder on the disk that is to be measured.
    #[arg(long, default_value = "/var/tmp")]
    disk: PathBuf,
    /// Rounds of calls one by one.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Rounds of calls at once.
    #[arg(long, default_value_t = 5)]
    bursts: usize,
    /// Few rounds, to see that everything works.
    #[arg(long)]
    quick: bool,
}

/// Names of containers, no two alike in the characters that go into an interface's name.
#[derive(Debug, Default)]
struct Ids(u64);

/// What takes part, and what it needs to live on.
#[derive(Debug)]
struct Field {
    contenders: Vec<Contender>,
    /// The server of the contender of this index.
    servers: Vec<(usize, Etcd)>,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        options.rounds = options.rounds.min(10);
        options.bursts = 1;
    }
    let programs = std::env::current_exe()?;
    let programs = programs
        .parent()
        .unwrap_or_else(|| Path::new("/"))
        .to_owned();
    let sandbox = Sandbox::enter(&options.disk)?;
    let field = field(&options, &programs, &sandbox)?;
    let netns = sandbox.containers(MOST_AT_ONCE)?;
    let mut ids = Ids::default();

    let mut text = format!("Load of the machine before: {}\n\n", load()?);
    one_by_one(&mut text, &field, &options, &netns[0], &mut ids)?;
    say(&mut text)?;
    counted(&mut text, &field, &netns[0], &mut ids)?;
    say(&mut text)?;
    for count in AT_ONCE {
        at_once(&mut text, &field, &options, &netns[..count], &mut ids)?;
        say(&mut text)?;
    }
    collected(&mut text, &field, &netns, &mut ids)?;
    writeln!(text, "Load of the machine after: {}", load()?)?;
    say(&mut text)
}

/// Calls one by one, the contenders in turn.
fn one_by_one(
    text: &mut String,
    field: &Field,
    options: &Options,
    netns: &str,
    ids: &mut Ids,
) -> Result<()> {
    let contenders = &field.contenders;
    let mut samples: [Vec<Vec<Sample>>; 3] = Default::default();
    for verb in &mut samples {
        verb.resize(contenders.len(), Vec::new());
    }
    for round in 0..options.rounds + WARM_UP {
        for turn in 0..contenders.len() {
            let index = (turn + round) % contenders.len();
            let contender = &contenders[index];
            let container = ids.next(netns, 0);
            let (add, result) = contender.call("ADD", &container, None)?;
            let check = match contender.is_plugin {
                true => Some(contender.call("CHECK", &container, Some(&result))?.0),
                false => None,
            };
            let (del, _) = contender.call("DEL", &container, Some(&result))?;
            if round >= WARM_UP {
                samples[0][index].push(add);
                samples[1][index].extend(check);
                samples[2][index].push(del);
            }
        }
    }
    for (verb, samples) in ["ADD", "CHECK", "DEL"].iter().zip(&samples) {
        let summaries: Vec<Summary> = samples.iter().map(|all| Summary::of(all)).collect();
        let rows: Vec<Vec<String>> = contenders
            .iter()
            .zip(&summaries)
            .filter(|(_, summary)| !summary.p50.is_nan())
            .map(|(contender, summary)| {
                vec![
                    contender.name.to_owned(),
                    number(summary.p50),
                    number(summary.p99),
                    ratio(summary.p50, summaries[PEER].p50),
                    ratio(summary.p50, summaries[FLOOR].p50),
                    number(summary.cpu),
                    number(summary.rss),
                ]
            })
            .collect();
        let header = ["p50 ms", "p99 ms", "× ptp", "× floor", "CPU ms", "RSS MB"];
        let header = [&[*verb][..], &header].concat();
        writeln!(text, "{}", table(&header, &rows))?;
    }
    let of = |index: usize| -> Vec<f64> {
        let all = &samples[0][index];
        all.iter().map(|sample| sample.wall).collect()
    };
    writeln!(
        text,
        "{} rounds. Spread of the median ADD over the run: ptp {:.0} %, floor {:.0} %.\n",
        options.rounds,
        spread(&of(PEER)),
        spread(&of(FLOOR)),
    )?;
    Ok(())
}

/// What etcd is asked, counted by etcd.
fn counted(text: &mut String, field: &Field, netns: &str, ids: &mut Ids) -> Result<()> {
    let mut rows = Vec::new();
    for (index, server) in &field.servers {
        let contender = &field.contenders[*index];
        let mut row = |what: &str, spent: Traffic, calls: f64| {
            rows.push(vec![
                format!("{}: {what}", contender.name),
                number(spent.requests / calls),
                format!("{:.0}", spent.received / calls),
                format!("{:.0}", spent.sent / calls),
            ]);
        };
        let (mut add, mut del) = (Traffic::default(), Traffic::default());
        for _ in 0..COUNTED {
            let container = ids.next(netns, 0);
            let before = server.traffic()?;
            let (_, result) = contender.call("ADD", &container, None)?;
            let between = server.traffic()?;
            contender.call("DEL", &container, Some(&result))?;
            add = add + (between - before);
            del = del + (server.traffic()? - between);
        }
        row("ADD", add, f64::from(COUNTED));
        row("DEL", del, f64::from(COUNTED));
        let newcomer = contender.on_node(NEWCOMER);
        let container = ids.next(netns, 0);
        let before = server.traffic()?;
        let (_, result) = newcomer.call("ADD", &container, None)?;
        row("first ADD of a node", server.traffic()? - before, 1.0);
        newcomer.call("DEL", &container, Some(&result))?;
    }
    let header = ["counted by etcd", "requests", "bytes to etcd", "bytes from"];
    writeln!(text, "{}", table(&header, &rows))?;
    Ok(())
}

/// Many calls at once, the contenders in turn.
fn at_once(
    text: &mut String,
    field: &Field,
    options: &Options,
    netns: &[String],
    ids: &mut Ids,
) -> Result<()> {
    let contenders = &field.contenders;
    let mut walls = vec![[Vec::new(), Vec::new()]; contenders.len()];
    let mut calls = vec![[Vec::new(), Vec::new()]; contenders.len()];
    for round in 0..options.bursts {
        for turn in 0..contenders.len() {
            let index = (turn + round) % contenders.len();
            let containers: Vec<Container> = netns
                .iter()
                .enumerate()
                .map(|(number, netns)| ids.next(netns, number))
                .collect();
            let add = contenders[index].burst("ADD", &containers, &[])?;
            let del = contenders[index].burst("DEL", &containers, &add.results)?;
            for (verb, burst) in [add, del].into_iter().enumerate() {
                walls[index][verb].push(burst.wall);
                calls[index][verb].extend(burst.calls);
            }
        }
    }
    let median = |index: usize, verb: usize| quantile(walls[index][verb].clone(), 50);
    let rows: Vec<Vec<String>> = contenders
        .iter()
        .enumerate()
        .map(|(index, contender)| {
            let [add, del] = [0, 1].map(|verb| Summary::of(&calls[index][verb]));
            vec![
                contender.name.to_owned(),
                number(median(index, 0)),
                ratio(median(index, 0), median(PEER, 0)),
                number(add.p50),
                number(add.p99),
                number(add.cpu),
                number(median(index, 1)),
                ratio(median(index, 1), median(PEER, 1)),
                number(del.cpu),
            ]
        })
        .collect();
    let first = format!("{} at once", netns.len());
    let header = [
        &first,
        "ADD all ms",
        "× ptp",
        "p50 ms",
        "p99 ms",
        "CPU ms",
        "DEL all ms",
        "× ptp",
        "CPU ms",
    ];
    let reference = &walls[PEER][0];
    writeln!(
        text,
        "{}\n{} rounds; ptp's ADDs took {} to {} ms.\n",
        table(&header, &rows),
        options.bursts,
        number(quantile(reference.clone(), 1)),
        number(quantile(reference.clone(), 100)),
    )?;
    Ok(())
}

/// What GC costs that removes all that a node has: `STALE_EACH` attachments of each container.
fn collected(text: &mut String, field: &Field, netns: &[String], ids: &mut Ids) -> Result<()> {
    let collectors = || field.contenders.iter().skip(FLOOR + 1);
    for contender in collectors() {
        for interface in 0..STALE_EACH {
            let attachment = |(number, netns): (usize, &String)| Container {
                interface: format!("eth{interface}"),
                ..ids.next(netns, number)
            };
            let attachments: Vec<_> = netns.iter().enumerate().map(attachment).collect();
            contender.burst("ADD", &attachments, &[])?;
        }
        // Whose turn it is has the namespaces' interfaces to itself.
        std::thread::sleep(NO_NEWCOMERS);
        let sample = contender.collect()?;
        writeln!(
            text,
            "GC of {} attachments, {}: {} ms, {} ms of CPU.",
            netns.len() * STALE_EACH,
            contender.name,
            number(sample.wall),
            number(sample.cpu),
        )?;
        say(text)?;
    }
    writeln!(text)?;
    Ok(())
}

/// Starts the stores, fills them, and names who takes part.
fn field(options: &Options, programs: &Path, sandbox: &Sandbox) -> Result<Field> {
    let plugins = options.plugins.clone().unwrap_or_else(|| programs.into());
    let certificates = sandbox.in_memory("certificates")?;
    let mut command = Command::new(programs.join("margay-bench-prepare"));
    command.arg("certificates").arg(&certificates);
    run(&mut command, &Value::Null)?;

    let mut servers = Vec::new();
    let mut start = |data: PathBuf, certificates: Option<PathBuf>| -> Result<Value> {
        let number = u16::try_from(servers.len())?;
        let server = Etcd::start(&data, number, certificates)?;
        let keys = server.keys();
        // The floor, which comes before the first, has no server of its own.
        servers.push((servers.len() + FLOOR + 1, server));
        Ok(keys)
    };
    let sqlite = |file: PathBuf| json!({"datastore_type": "sqlite", "store_path": file});
    let memory = start(sandbox.in_memory("etcd")?, None)?;
    let stores = [
        ("margay, etcd", memory.clone(), 0),
        (
            "margay, etcd on disk",
            start(sandbox.on_disk("etcd")?, None)?,
            0,
        ),
        (
            "margay, etcd with TLS",
            start(sandbox.in_memory("etcd-tls")?, Some(certificates))?,
            0,
        ),
        (
            "margay, etcd, 10,000 addresses",
            start(sandbox.in_memory("etcd-full")?, None)?,
            MANY,
        ),
        (
            "margay, SQLite on disk",
            sqlite(sandbox.on_disk("sqlite")?.join("store.db")),
            0,
        ),
        (
            "margay, SQLite, 10,000 addresses",
            sqlite(sandbox.on_disk("sqlite")?.join("full.db")),
            MANY,
        ),
    ];

    let peer_state = sandbox.in_memory("host-local")?;
    let mut contenders = vec![
        Contender {
            name: "ptp + host-local",
            program: options.peers.join("ptp"),
            path: options.peers.clone(),
            conf: json!({
                "cniVersion": "1.0.0", "name": "peer", "type": "ptp",
                "ipam": {
                    "type": "host-local", "dataDir": peer_state,
                    "ranges": [[{"subnet": "10.99.0.0/16"}]],
                },
            }),
            is_plugin: true,
        },
        Contender {
            name: "floor, etcd",
            program: programs.join("margay-bench-floor"),
            path: plugins.clone(),
            conf: memory,
            is_plugin: false,
        },
    ];
    for (index, (name, keys, addresses)) in stores.into_iter().enumerate() {
        let mut command = Command::new(programs.join("margay-bench-prepare"));
        let addresses: usize = addresses;
        command.args(["cluster", POOL, &addresses.to_string(), NODE, NEWCOMER]);
        run(&mut command, &keys)?;
        let state = sandbox.in_memory(&format!("state{index}"))?;
        let nodename = state.join("nodename");
        let mut conf = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "margay",
            "nodename": NODE, "nodename_file": nodename, "nodename_file_optional": true,
            "state_dir": state, "ipam": {"type": "margay-ipam"},
        });
        if let (Some(conf), Value::Object(keys)) = (conf.as_object_mut(), keys) {
            conf.extend(keys);
        }
        contenders.push(Contender {
            name,
            program: plugins.join("margay"),
            path: plugins.clone(),
            conf,
            is_plugin: true,
        });
    }
    Ok(Field {
        contenders,
        servers,
    })
}

/// Runs a program to its end.
fn run(command: &mut Command, input: &Value) -> Result<()> {
    let mut process = command
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    if let Some(mut stdin) = process.stdin.take() {
        // Who does not read its input closes it.
        let _ = stdin.write_all(input.to_string().as_bytes());
    }
    let status = process.wait()?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

fn say(text: &mut String) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    text.clear();
    Ok(())
}

fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let averages: Vec<&str> = text.split(' ').take(3).collect();
    Ok(averages.join(" "))
}

fn number(value: f64) -> String {
    format!("{value:.2}")
}

fn ratio(value: f64, reference: f64) -> String {
    let ratio = value / reference;
    if ratio.is_nan() {
        return "-".to_owned();
    }
    number(ratio)
}

impl Ids {
    fn next(&mut self, netns: &str, number: usize) -> Container {
        self.0 += 1;
        Container {
            id: format!("{:011x}{:053x}", self.0, self.0),
            netns: netns.to_owned(),
            interface: "eth0".to_owned(),
            number,
        }
    }
}

/// Places among the contenders.
const PEER: usize = 0;
const FLOOR: usize = 1;

const AT_ONCE: [usize; 3] = [10, 50, MOST_AT_ONCE];
const MOST_AT_ONCE: usize = 100;
/// Rounds that do not count: files come into memory, first blocks are claimed.
const WARM_UP: usize = 3;
/// Calls over which traffic is averaged.
const COUNTED: u32 = 5;
const MANY: usize = 10_000;
/// Interfaces of each container that GC removes.
const STALE_EACH: usize = 5;
/// GC spares what is younger than a minute.
const NO_NEWCOMERS: Duration = Duration::from_secs(61);
const POOL: &str = "10.96.0.0/16";
const NODE: &str = "bench";
const NEWCOMER: &str = "newcomer";
