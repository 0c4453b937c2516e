//! Our agent on a node.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::lab::Node;
use crate::process::{Running, eventually, program, run};
use crate::store::StoreKind;

/// An agent that runs.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Running,
    /// The folder of `nodename` and `mtu`.
    pub state_dir: PathBuf,
    /// The folder of `endpoint-status` and `agent.sock`.
    pub run_dir: PathBuf,
}

impl Agent {
    /// Starts an agent, with more variables where given, and waits until it is ready.
    #[track_caller]
    pub fn start(node: Node<'_>, store: &StoreKind, more: &[(&str, &str)]) -> Self {
        let mut agent = Self::launch(node, store, more);
        eventually(
            "the agent has registered its node",
            Duration::from_secs(30),
            || {
                assert!(
                    agent.process.is_running(),
                    "the agent ended: {}",
                    agent.process.log()
                );
                agent.state_dir.join("nodename").exists()
                    && agent.run_dir.join("agent.sock").exists()
            },
        );
        agent
    }

    /// What it tells `margayctl` with such arguments.
    pub fn told(&self, arguments: &[&str]) -> String {
        let mut ctl = Command::new(program("margayctl"));
        let socket = self.run_dir.join("agent.sock");
        ctl.args(arguments).arg("--socket").arg(socket);
        run(&mut ctl, b"").stdout
    }

    /// Starts an agent, ready or not.
    pub fn launch(node: Node<'_>, store: &StoreKind, more: &[(&str, &str)]) -> Self {
        let (state_dir, run_dir) = (node.dir().join("state"), node.dir().join("run"));
        std::fs::create_dir_all(&state_dir).unwrap();
        std::fs::create_dir_all(&run_dir).unwrap();
        let mut command = node.command(program("margay-agent"));
        command
            .args(["--nodename", &node.name()])
            .arg("--state-dir")
            .arg(&state_dir)
            .arg("--run-dir")
            .arg(&run_dir)
            .arg("--releases-dir")
            .arg(node.dir().join("hints/releases"))
            .envs(store.environment())
            .envs(more.iter().copied());
        let process = Running::start(&mut command, &node.dir().join("agent.log"));
        Self {
            process,
            state_dir,
            run_dir,
        }
    }
}
