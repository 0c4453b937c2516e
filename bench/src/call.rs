//! Calls of one contender, as a runtime makes them, and what each of them cost.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wait4::Wait4 as _;

/// A plugin with its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    /// What the tables call it.
    pub(crate) name: &'static str,
    /// The program.
    pub(crate) program: PathBuf,
    /// Where it looks for its own IPAM plugin.
    pub(crate) path: PathBuf,
    /// Its configuration.
    pub(crate) conf: Value,
    /// Whether it has CHECK, and takes the result of its ADD.
    pub(crate) is_plugin: bool,
}

/// A container's side of a call.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: String,
    /// The path of its namespace.
    pub(crate) netns: String,
    /// The interface in it.
    pub(crate) interface: String,
    /// Tells it from others that are attached at the same time, from 0.
    pub(crate) number: usize,
}

/// What one call cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// From before the program is started until it is gone, in milliseconds.
    pub(crate) wall: f64,
    /// User and system time of the program and all that it started, in milliseconds.
    pub(crate) cpu: f64,
    /// Peak resident set of the largest process, in megabytes (10⁶ bytes).
    pub(crate) rss: f64,
}

/// What many calls at once cost.
#[derive(Debug)]
pub(crate) struct Burst {
    /// From the first start to the last end, in milliseconds.
    pub(crate) wall: f64,
    /// Each call.
    pub(crate) calls: Vec<Sample>,
    /// What they answered.
    pub(crate) results: Vec<Value>,
}

impl Contender {
    /// One call; what it answered, `Null` where that was nothing.
    pub(crate) fn call(
        &self,
        verb: &str,
        container: &Container,
        previous: Option<&Value>,
    ) -> Result<(Sample, Value)> {
        let mut conf = self.conf.clone();
        if let Some(previous) = previous.filter(|_| self.is_plugin) {
            conf["prevResult"] = previous.clone();
        }
        let conf = conf.to_string();
        let (low, high) = (container.number % 250 + 1, container.number / 250);
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", &container.netns)
            .env("CNI_IFNAME", &container.interface)
            .env("CNI_PATH", &self.path)
            .env("MARGAY_BENCH_ADDRESS", format!("10.98.{high}.{low}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let began = Instant::now();
        let mut process = command
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        if let Some(mut stdin) = process.stdin.take() {
            stdin.write_all(conf.as_bytes())?;
        }
        let mut answer = String::new();
        if let Some(mut stdout) = process.stdout.take() {
            stdout.read_to_string(&mut answer)?;
        }
        let used = process.wait4()?;
        let wall = began.elapsed();
        ensure!(
            used.status.success(),
            "{}: {verb} of {} failed: {answer}",
            self.name,
            container.id
        );
        let sample = Sample {
            wall: wall.as_secs_f64() * 1e3,
            cpu: (used.rusage.utime + used.rusage.stime).as_secs_f64() * 1e3,
            rss: u32::try_from(used.rusage.maxrss / 1000).map_or(f64::MAX, f64::from) / 1e3,
        };
        let answer = match answer.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)
                .with_context(|| format!("the answer of {}", self.name))?,
        };
        Ok((sample, answer))
    }

    /// One call for each container, all at once.
    pub(crate) fn burst(
        &self,
        verb: &str,
        containers: &[Container],
        previous: &[Value],
    ) -> Result<Burst> {
        let ready = Barrier::new(containers.len() + 1);
        let ready = &ready;
        thread::scope(|scope| {
            let call = |(index, container)| {
                scope.spawn(move || {
                    ready.wait();
                    self.call(verb, container, previous.get(index))
                })
            };
            let calls: Vec<_> = containers.iter().enumerate().map(call).collect();
            ready.wait();
            let began = Instant::now();
            let mut burst = Burst {
                wall: 0.0,
                calls: Vec::new(),
                results: Vec::new(),
            };
            for call in calls {
                let ended = call.join();
                let (sample, result) =
                    ended.map_err(|_| anyhow::anyhow!("a calling thread ended badly"))??;
                burst.calls.push(sample);
                burst.results.push(result);
            }
            burst.wall = began.elapsed().as_secs_f64() * 1e3;
            Ok(burst)
        })
    }

    /// The call by which a runtime that has no containers any more has everything removed.
    pub(crate) fn collect(&self) -> Result<Sample> {
        let mut conf = self.conf.clone();
        conf["cniVersion"] = json!("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([]);
        let collector = Self {
            conf,
            ..self.clone()
        };
        let nobody = Container {
            id: "none".to_owned(),
            netns: String::new(),
            interface: "none".to_owned(),
            number: 0,
        };
        Ok(collector.call("GC", &nobody, None)?.0)
    }

    /// The same contender on another node.
    pub(crate) fn on_node(&self, node: &str) -> Self {
        let mut conf = self.conf.clone();
        conf["nodename"] = json!(node);
        Self {
            conf,
            ..self.clone()
        }
    }
}
