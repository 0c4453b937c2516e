//! Two real dockerds and our driver, through what happens to machines.

use std::time::Duration;

use margay_integration::process::eventually;
use margay_integration::{Driver, Machine};
use serde_json::{Value, json};

use crate::stage::Stage;

/// Whether Docker can run here; says why where it cannot.
pub(crate) fn docker_runs() -> bool {
    match Machine::missing() {
        None => true,
        Some(why) => {
            eprintln!("skipped: Docker cannot run here: {why}");
            false
        }
    }
}

const CREATE: &str = "network create -d margay --ipam-driver margay-ipam";

fn run(machine: &Machine<'_>, name: &str, more: &str) -> String {
    machine.ok(&format!("run -tid --name {name} {more} busybox"))
}

#[track_caller]
fn assert_pings(machine: &Machine<'_>, from: &str, to: &str) {
    let mut last = String::new();
    // The other node may not have heard of a new block yet.
    for _ in 0..50 {
        let pinged = machine.docker(&format!("exec {from} ping -c 1 -W 1 {to}"));
        if pinged.success() {
            return;
        }
        last = pinged.stdout + &pinged.stderr;
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!(
        "{from} does not reach {to}: {last}\n{}",
        machine.ok(&format!("exec {from} ip route"))
    );
}

fn endpoint_of<'s>(endpoints: &'s [Value], container: &str) -> Option<&'s Value> {
    endpoints
        .iter()
        .find(|one| one["metadata"]["annotations"]["margay.io/docker-container"] == container)
}

/// Everything that `docker run` and `docker network` can ask of a driver, with both hosts.
#[test]
fn containers_of_two_hosts() {
    if !docker_runs() {
        return;
    }
    let stage = Stage::new(2);
    let _drivers: Vec<Driver> = [1, 2].map(|number| stage.driver(number, &[])).into();
    let machines = [1, 2].map(|number| Machine::boot(stage.lab.node(number), &[]));
    let dockerds: Vec<_> = machines.iter().map(Machine::start_docker).collect();
    for machine in &machines {
        machine.load_image();
        machine.ok(&format!("{CREATE} net1"));
        machine.ok(&format!(
            "{CREATE} --ipv6 --subnet 192.168.0.0/16 --subnet fd80:24e2:f998:72d6::/64 net2"
        ));
    }
    let [one, two] = &machines;

    // By address, of both families, and with an address and labels of its own.
    run(
        one,
        "a1",
        "--net net1 --label org.projectcalico.label.role=web",
    );
    run(two, "b1", "--net net1");
    assert_pings(one, "a1", &two.address("b1", "net1"));
    assert_pings(two, "b1", &one.address("a1", "net1"));
    run(one, "c1", "--net net2 --ip 192.168.77.7");
    run(two, "d1", "--net net2");
    assert_eq!(one.address("c1", "net2"), "192.168.77.7");
    let told = two.docker("inspect d1").json();
    let six = told[0]["NetworkSettings"]["Networks"]["net2"]["GlobalIPv6Address"]
        .as_str()
        .unwrap();
    assert_pings(two, "d1", "192.168.77.7");
    assert_pings(one, "c1", six);

    // The network's name is its profile's; the container's labels are its endpoint's.
    eventually("labels are taken over", Duration::from_secs(10), || {
        let endpoints = stage.endpoints();
        let a = endpoint_of(&endpoints, "a1");
        a.is_some_and(|a| {
            a["metadata"]["labels"]["role"] == "web" && a["spec"]["profiles"] == json!(["net1"])
        })
    });
    let profiles = stage.ctl(&["get", "profiles"], "");
    assert!(
        profiles.contains("net1") && profiles.contains("net2"),
        "{profiles}"
    );

    // On a second network, and off the first.
    one.ok("network connect net2 a1");
    assert_pings(one, "a1", &two.address("d1", "net2"));
    // Its default route is the second's, so that it has to be told to speak from the first.
    let b1 = two.address("b1", "net1");
    one.ok(&format!("exec a1 ping -c 1 -W 5 -I cali0 {b1}"));
    one.ok("network disconnect net1 a1");
    assert_pings(one, "a1", &two.address("d1", "net2"));

    // What is asked for and cannot be had is said.
    for (line, words) in [
        (
            format!("{CREATE} --subnet 10.99.0.0/16 net3"),
            "no pool holds subnet 10.99.0.0/16",
        ),
        (
            format!("{CREATE} -o colour=red net3"),
            "\"colour\" is not known",
        ),
        (
            "network create -d margay net3".to_owned(),
            "--ipam-driver margay-ipam",
        ),
        (
            "run --rm --net net2 --ip 192.168.77.7 busybox sleep 0".to_owned(),
            "192.168.77.7 is assigned already",
        ),
    ] {
        let refused = one.docker(&line);
        assert!(
            !refused.success() && refused.stderr.contains(words),
            "{line}: {refused:?}"
        );
    }
    one.ok(&format!(
        "{CREATE} --subnet 192.168.0.0/16 --ip-range 192.168.88.0/28 --gateway 192.168.88.1 \
         --aux-address router=192.168.88.2 --internal -o mtu=1300 net4"
    ));
    run(one, "e1", "--net net4");
    let address = one.address("e1", "net4");
    assert!(
        address.starts_with("192.168.88.")
            && address != "192.168.88.1"
            && address != "192.168.88.2"
    );
    let routes = one.ok("exec e1 ip route");
    assert!(
        !routes.contains("default") && routes.contains("192.168.0.0/16 via 169.254."),
        "{routes}"
    );
    assert!(one.ok("exec e1 ip link show cali0").contains("mtu 1300"));

    // A published port leads to the container, from other hosts and from this one, and ends with it.
    run(one, "web", "--net net1 -p 8080:80");
    let serve = [
        "exec",
        "-d",
        "web",
        "sh",
        "-c",
        "while :; do echo hello | nc -l -p 80; done",
    ];
    let _ = one.docker_with(&serve).ok();
    let at = one.node.ipv4().to_string();
    let fetch = |node: margay_integration::Node<'_>| {
        let mut command = node.command("busybox");
        margay_integration::run(command.args(["nc", "-w", "2", &at, "8080"]), b"").stdout
    };
    for node in [two.node, one.node] {
        eventually("the port answers", Duration::from_secs(10), || {
            fetch(node).contains("hello")
        });
    }
    let taken = one.docker("run --rm --net net1 -p 8080:81 busybox sleep 0");
    assert!(
        !taken.success() && taken.stderr.contains("8080/TCP is taken"),
        "{taken:?}"
    );
    one.ok("rm -f web");
    assert_eq!(fetch(two.node), "");
    let tables = one.node.run("nft list tables").ok();
    assert!(!tables.contains("margay-docker"), "{tables}");

    // A stopped container's address is free; one that is started again has another or the one it insists on.
    one.ok("restart -t 0 c1");
    assert_eq!(one.address("c1", "net2"), "192.168.77.7");
    assert_pings(two, "d1", "192.168.77.7");

    one.ok("rm -f a1 c1 e1");
    two.ok("rm -f b1 d1");
    one.ok("network rm net1 net2 net4");
    two.ok("network rm net1 net2");
    assert_eq!(stage.leftovers(), "");
    let profiles = stage.ctl(&["get", "profiles"], "");
    assert!(!profiles.contains("net1"), "{profiles}");
    drop(dockerds);
}

/// dockerd is ended, cut off, and started before the driver; the driver is restarted while containers run.
#[test]
fn r3_restarts_of_either_side() {
    if !docker_runs() {
        return;
    }
    let stage = Stage::new(1);
    let mut driver = stage.driver(1, &["--cleanup-grace", "2"]);
    let machine = Machine::boot(stage.lab.node(1), &[]);
    let dockerd = machine.start_docker();
    machine.load_image();
    machine.ok(&format!("{CREATE} --subnet 192.168.0.0/16 net1"));
    run(
        &machine,
        "a1",
        "--net net1 --ip 192.168.5.5 --restart always",
    );
    run(&machine, "b1", "--net net1");
    let node = stage.lab.node(1).ipv4().to_string();
    assert_pings(&machine, "a1", &node);

    // The driver alone: containers do not notice, and new ones start.
    driver.process.kill();
    assert_pings(&machine, "a1", &machine.address("b1", "net1"));
    driver = stage.driver(1, &["--cleanup-grace", "2"]);
    run(&machine, "c1", "--net net1");
    assert_pings(&machine, "c1", "192.168.5.5");

    // dockerd ends in order: containers end with it, and one starts again, on the network that nobody tells of.
    machine.end_docker(dockerd, "-TERM");
    assert_eq!(stage.endpoints().len(), 0);
    let dockerd = machine.start_docker();
    eventually(
        "the container is started again",
        Duration::from_secs(30),
        || machine.docker("exec a1 sleep 0").success(),
    );
    assert_pings(&machine, "a1", &node);
    machine.ok("start b1");
    assert_pings(&machine, "b1", "192.168.5.5");

    // dockerd is cut off: it comes back to its containers or starts them anew; what they held is not lost.
    machine.end_docker(dockerd, "-KILL");
    driver.process.kill();
    let mut dockerd = machine.launch_docker();
    driver = stage.driver(1, &["--cleanup-grace", "2"]);
    eventually("dockerd answers again", Duration::from_secs(90), || {
        assert!(dockerd.is_running(), "{}", dockerd.log());
        machine.docker("version").success()
    });
    eventually(
        "the container is started again",
        Duration::from_secs(30),
        || machine.docker("exec a1 sleep 0").success(),
    );
    assert_pings(&machine, "a1", &node);
    assert_eq!(machine.address("a1", "net1"), "192.168.5.5");
    eventually(
        "one endpoint for each container that runs",
        Duration::from_secs(20),
        || {
            let running = machine.ok("ps -q").lines().count();
            stage.endpoints().len() == running && stage.interfaces(1).len() == running
        },
    );
    machine.ok("rm -f a1 b1 c1");
    machine.ok("network rm net1");
    assert_eq!(stage.leftovers(), "");
    assert!(driver.process.is_running());
}

/// The power is cut while containers run. Everything starts anew, Docker before the driver, and nothing is lost or left.
#[test]
fn r2_a_machine_that_lost_its_power() {
    if !docker_runs() {
        return;
    }
    let stage = Stage::new(1);
    let driver = stage.driver(1, &["--cleanup-grace", "2"]);
    let mut machine = Machine::boot(stage.lab.node(1), &[]);
    let dockerd = machine.start_docker();
    machine.load_image();
    machine.ok(&format!("{CREATE} --subnet 192.168.0.0/16 net1"));
    machine.ok(&format!("{CREATE} net2"));
    run(&machine, "fixed", "--net net1 --ip 192.168.5.5");
    for number in 0..3 {
        run(&machine, &format!("any{number}"), "--net net2");
    }
    assert_eq!(stage.endpoints().len(), 4);
    drop(driver);
    drop(dockerd);
    stage.kill_agents();
    machine.reboot();
    eventually(
        "the containers' interfaces are gone",
        Duration::from_secs(20),
        || stage.interfaces(1).is_empty(),
    );
    assert_eq!(
        stage.endpoints().len(),
        4,
        "nobody was there to return them"
    );
    stage.start_agent(1);

    let mut dockerd = machine.launch_docker();
    let driver = stage.driver(1, &["--cleanup-grace", "2"]);
    eventually("dockerd answers", Duration::from_secs(90), || {
        assert!(dockerd.is_running(), "{}", dockerd.log());
        machine.docker("version").success()
    });
    // The address that a dead container held is given to its successor at once.
    machine.ok("start fixed");
    assert_eq!(machine.address("fixed", "net1"), "192.168.5.5");
    machine.ok("start any0");
    let host = machine.node.ipv4().to_string();
    for container in ["fixed", "any0"] {
        assert_pings(&machine, container, &host);
    }
    eventually(
        "what the others held is returned",
        Duration::from_secs(20),
        || stage.endpoints().len() == 2,
    );
    machine.ok("rm -f fixed any0 any1 any2");
    machine.ok("network rm net1 net2");
    assert_eq!(stage.leftovers(), "");
    drop(driver);
}

/// Fifty containers one after another, and out again.
#[test]
fn fifty_containers() {
    if !docker_runs() {
        return;
    }
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let machine = Machine::boot(stage.lab.node(1), &[]);
    let _dockerd = machine.start_docker();
    machine.load_image();
    machine.ok(&format!("{CREATE} net1"));
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..50 {
        run(&machine, &format!("c{number}"), "--net net1");
        addresses.insert(machine.address(&format!("c{number}"), "net1"));
    }
    assert_eq!(addresses.len(), 50);
    assert_pings(&machine, "c0", &machine.address("c49", "net1"));
    // One after another, too: after many at once Docker 20.10 says that the network has endpoints still.
    for number in 0..50 {
        machine.ok(&format!("rm -f c{number}"));
    }
    // Docker answers before it has done with the last endpoint.
    eventually(
        "the network can be removed",
        Duration::from_secs(20),
        || machine.docker("network rm net1").success(),
    );
    assert_eq!(stage.leftovers(), "");
    let log = driver.process.log();
    assert!(!log.contains("refused"), "{log}");
}
