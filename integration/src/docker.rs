//! Docker on a node: our driver, called as Docker calls it, and a real dockerd.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lab::Node;
use crate::process::{Output, Running, eventually, program, run};
use crate::store::StoreKind;

/// Our driver on a node.
#[derive(Debug)]
pub struct Driver {
    /// The process.
    pub process: Running,
    /// The folder of its sockets.
    pub sockets: PathBuf,
}

impl Driver {
    /// Starts `margay-docker`, with more options where given, and waits until it listens.
    #[track_caller]
    pub fn start(node: Node<'_>, store: &StoreKind, more: &[&str]) -> Self {
        Self::start_by(node, store, &[], more)
    }

    /// The same under a program such as strace, with its options.
    #[track_caller]
    pub fn start_by(node: Node<'_>, store: &StoreKind, by: &[&str], more: &[&str]) -> Self {
        let sockets = plugin_dir(node);
        for name in ["margay", "margay-ipam"] {
            let _ = std::fs::remove_file(sockets.join(format!("{name}.sock")));
        }
        let driver = program("margay-docker");
        let mut command = match by {
            [] => node.command(driver),
            [first, rest @ ..] => {
                let mut command = node.command(first);
                command.args(rest).arg(driver);
                command
            }
        };
        command
            .args(["--nodename", &node.name(), "--log-level", "Debug"])
            .arg("--plugin-dir")
            .arg(&sockets)
            .arg("--state-dir")
            .arg(node.dir().join("state"))
            .args(more)
            .env("MARGAY_DOCKER_SOCKET", docker_socket(node))
            .envs(store.environment());
        let process = Running::start(&mut command, &node.dir().join("margay-docker.log"));
        let mut driver = Self { process, sockets };
        eventually("the driver listens", Duration::from_secs(20), || {
            assert!(driver.process.is_running(), "{}", driver.process.log());
            UnixStream::connect(driver.sockets.join("margay-ipam.sock")).is_ok()
        });
        driver
    }

    /// Makes a call as Docker does; status and answer.
    #[track_caller]
    pub fn call(&self, call: &str, request: &Value) -> (u16, Value) {
        self.try_call(call, request)
            .unwrap_or_else(|| panic!("{call} is not answered: {}", self.process.log()))
    }

    /// Makes a call that must succeed.
    #[track_caller]
    pub fn ok(&self, call: &str, request: &Value) -> Value {
        let (status, answer) = self.call(call, request);
        assert_eq!(status, 200, "{call} {request}: {answer}");
        answer
    }

    /// Makes a call; `None` when the driver ends before it answers.
    pub fn try_call(&self, call: &str, request: &Value) -> Option<(u16, Value)> {
        self.call_on(call.starts_with("IpamDriver"), call, request)
    }

    /// Makes a call on the socket of one of the two drivers.
    pub fn call_on(&self, ipam: bool, call: &str, request: &Value) -> Option<(u16, Value)> {
        let body = match request {
            Value::Null => String::new(),
            request => request.to_string(),
        };
        let (status, body) = self.send(ipam, call, "POST", body.as_bytes())?;
        let answer = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{call}: {body}"));
        Some((status, answer))
    }

    /// Sends any bytes as a call's body; status and body of the answer.
    pub fn send(&self, ipam: bool, call: &str, method: &str, body: &[u8]) -> Option<(u16, String)> {
        let name = if ipam {
            "margay-ipam.sock"
        } else {
            "margay.sock"
        };
        exchange(&self.sockets.join(name), call, method, body)
    }
}

/// One request as Go's client sends it, with an empty Host.
fn exchange(socket: &Path, call: &str, method: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    let head = format!(
        "{method} /{call} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    // Whoever is told too much may answer before the end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// A machine on which Docker runs: processes, mounts and host name of its own, and a node's network.
#[derive(Debug)]
pub struct Machine<'l> {
    /// The node.
    pub node: Node<'l>,
    /// The first process; with it all others end.
    first: Running,
    /// The process id of the first process.
    pid: String,
    options: Vec<String>,
}

impl<'l> Machine<'l> {
    /// Why Docker cannot run here; `None` where it can.
    pub fn missing() -> Option<String> {
        for program in ["dockerd", "containerd", "runc", "docker", "busybox"] {
            let found = run(Command::new("which").arg(program), b"").success();
            if !found {
                return Some(format!("{program} is not installed; run scripts/setup"));
            }
        }
        None
    }

    /// A machine that has started, without Docker yet. `options` are dockerd's.
    #[track_caller]
    pub fn boot(node: Node<'l>, options: &[&str]) -> Self {
        let script = "hostname \"$1\"\n\
            mkdir -p /run/docker && mount --no-mtab -t tmpfs tmpfs /run/docker\n\
            mkdir -p /run/docker/plugins && mount --no-mtab --bind \"$2\" /run/docker/plugins\n\
            echo up >\"$3\"\n\
            trap '' TERM\n\
            while :; do sleep 1000 & wait; done";
        let made = node.dir().join("booted");
        let _ = std::fs::remove_file(&made);
        let mut command = node.command("unshare");
        command
            .args(["--mount", "--uts", "--pid", "--fork", "--mount-proc"])
            .args([
                "--propagation",
                "private",
                "--kill-child=KILL",
                "bash",
                "-euc",
            ])
            .args([script, "machine", &node.name()])
            .arg(plugin_dir(node))
            .arg(&made);
        let first = Running::start(&mut command, &node.dir().join("machine.log"));
        eventually("the machine is up", Duration::from_secs(10), || {
            made.exists()
        });
        let children = format!("/proc/{0}/task/{0}/children", first.pid());
        let pid = std::fs::read_to_string(children).unwrap().trim().to_owned();
        Self {
            node,
            first,
            pid,
            options: options.iter().map(|one| (*one).to_owned()).collect(),
        }
    }

    /// Ends everything at once, as a power cut does, and starts the machine anew.
    #[track_caller]
    pub fn reboot(&mut self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.first.kill();
        // The kernel takes the namespaces down by and by.
        let before = format!("/proc/{}", self.pid);
        eventually("the machine is down", Duration::from_secs(10), || {
            !Path::new(&before).exists()
        });
        let _ = std::fs::remove_file(docker_socket(self.node));
        let _ = std::fs::remove_file(self.node.dir().join("dockerd.pid"));
        *self = Self::boot(self.node, &options);
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = self.node.command("nsenter");
        command.args(["-t", &self.pid, "-m", "-u", "-p", program]);
        command
    }

    /// Starts dockerd, ready or not.
    pub fn launch_docker(&self) -> Running {
        let dir = self.node.dir();
        let mut command = self.inside("dockerd");
        command
            .arg("--data-root")
            .arg(dir.join("docker"))
            .args(["--exec-root", "/run/docker", "--storage-driver", "overlay2"])
            .arg("--pidfile")
            .arg(dir.join("dockerd.pid"))
            .arg("-H")
            .arg(format!("unix://{}", docker_socket(self.node).display()))
            .args(["--cgroup-parent", &self.cgroup(), "--userland-proxy=false"])
            .args(&self.options);
        Running::start(&mut command, &dir.join("dockerd.log"))
    }

    /// Starts dockerd and waits until it answers.
    #[track_caller]
    pub fn start_docker(&self) -> Running {
        let mut dockerd = self.launch_docker();
        eventually("dockerd answers", Duration::from_secs(90), || {
            assert!(dockerd.is_running(), "{}", dockerd.log());
            self.docker("version").success()
        });
        dockerd
    }

    /// Sends dockerd a signal and waits for its end.
    #[track_caller]
    pub fn end_docker(&self, mut dockerd: Running, signal: &str) {
        let pid = std::fs::read_to_string(self.node.dir().join("dockerd.pid")).unwrap();
        let _ = run(self.inside("kill").args([signal, pid.trim()]), b"").ok();
        dockerd.wait(Duration::from_secs(30));
        let _ = std::fs::remove_file(self.node.dir().join("dockerd.pid"));
    }

    /// Runs `docker` with these words.
    pub fn docker(&self, line: &str) -> Output {
        self.docker_with(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `docker` with these arguments.
    pub fn docker_with(&self, arguments: &[&str]) -> Output {
        let mut command = self.node.command("docker");
        command
            .arg("-H")
            .arg(format!("unix://{}", docker_socket(self.node).display()))
            .env("HOME", self.node.dir())
            .args(arguments);
        run(&mut command, b"")
    }

    /// Runs `docker`, which must succeed; what it says.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.docker(line).ok().trim().to_owned()
    }

    /// A container's address on a network.
    #[track_caller]
    pub fn address(&self, container: &str, network: &str) -> String {
        let told = self.docker_with(&["inspect", container]).json();
        let address = &told[0]["NetworkSettings"]["Networks"][network]["IPAddress"];
        address.as_str().unwrap_or_default().to_owned()
    }

    /// An image named busybox, of the machine's own.
    #[track_caller]
    pub fn load_image(&self) {
        let dir = self.node.lab.dir().join("image");
        let bin = dir.join("bin");
        if !bin.exists() {
            std::fs::create_dir_all(&bin).unwrap();
            let busybox = run(Command::new("which").arg("busybox"), b"").ok();
            std::fs::copy(busybox.trim(), bin.join("busybox")).unwrap();
            for applet in ["sh", "ip", "ping", "sleep", "cat", "nc"] {
                std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
            }
        }
        let archive = dir.with_extension(format!("{}.tar", self.node.name()));
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&dir).arg("-cf").arg(&archive).arg(".");
        let _ = run(&mut tar, b"").ok();
        let _ = self
            .docker_with(&[
                "import",
                "-c",
                "CMD [\"/bin/sh\"]",
                archive.to_str().unwrap(),
                "busybox:latest",
            ])
            .ok();
    }

    fn cgroup(&self) -> String {
        format!("/{}-{}", self.node.lab.unique(), self.node.name())
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.first.kill();
        // Docker leaves the control groups of its containers' parents.
        let mut find = Command::new("sh");
        let script =
            "find /sys/fs/cgroup -depth -type d -path \"*$1*\" -exec rmdir {} + 2>/dev/null";
        for _ in 0..20 {
            let _ = run(find.args(["-c", script, "sh", &self.cgroup()]), b"");
            let mut look = Command::new("sh");
            let count = "ls -d /sys/fs/cgroup/*\"$1\" 2>/dev/null | wc -l";
            let left = run(look.args(["-c", count, "sh", &self.cgroup()]), b"");
            if left.stdout.trim() == "0" {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn plugin_dir(node: Node<'_>) -> PathBuf {
    let dir = node.dir().join("plugins");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn docker_socket(node: Node<'_>) -> PathBuf {
    node.dir().join("docker.sock")
}
