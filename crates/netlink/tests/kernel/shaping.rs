//! Bandwidth limits: they hold, they change and go without a trace, and they touch nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use margay_endpoint::shaping::{Bandwidth, Desired, Peak, Rate, Step, device, plan as plan_limits};
use margay_netlink::endpoint::{setup, teardown};
use margay_netlink::shaping::{apply, observe};
use margay_netlink::{Netlink, shaping};

use crate::fixture::{TestNamespace, plan};

const HOST: &str = "192.0.2.1";
const POD: &str = "10.65.0.2";
/// Bytes per second: 8 Mbit/s.
const RATE: u64 = 1_000_000;
const BURST: u64 = 50_000;
/// Takes a second and a half at that rate.
const LOAD: usize = 1_500_000;

struct Lab {
    host: TestNamespace,
    pod: TestNamespace,
    netlink: Netlink,
}

impl Lab {
    async fn new() -> Self {
        let (host, pod) = (TestNamespace::new(), TestNamespace::new());
        host.ip(&format!("addr add {HOST}/32 dev lo"));
        let netlink = host.netlink();
        setup(&plan(1, &[POD]), &netlink, &pod.namespace)
            .await
            .unwrap();
        Self { host, pod, netlink }
    }

    /// Makes the endpoint's limits these; what was done for it.
    async fn limit(&self, bandwidth: Bandwidth) -> Vec<Step> {
        let interfaces = self.netlink.interfaces().await.unwrap();
        let observed = observe(&self.netlink, &interfaces).await.unwrap();
        let present: BTreeSet<String> = interfaces.iter().map(|link| link.name.clone()).collect();
        let wanted = Desired {
            bandwidth,
            mtu: 1_450,
        };
        let desired = BTreeMap::from([("cali1".to_owned(), wanted)]);
        let steps = plan_limits(&desired, &present, &observed);
        for step in &steps {
            apply(&self.netlink, step).await.unwrap();
        }
        steps
    }

    fn download(&self) -> f64 {
        speed(&self.host, &self.pod, POD)
    }

    fn upload(&self) -> f64 {
        speed(&self.pod, &self.host, HOST)
    }
}

/// Bytes per second of one transfer.
fn speed(from: &TestNamespace, to: &TestNamespace, address: &str) -> f64 {
    let bind = || TcpListener::bind((address, 0)).unwrap();
    let listener = to.namespace.run(bind).unwrap();
    let target = listener.local_addr().unwrap();
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let begun = Instant::now();
        let mut rest = Vec::new();
        let count = stream.read_to_end(&mut rest).unwrap();
        count as f64 / begun.elapsed().as_secs_f64()
    });
    let connect = || TcpStream::connect(target).unwrap();
    let mut stream = from.namespace.run(connect).unwrap();
    stream.write_all(&vec![0; LOAD]).unwrap();
    drop(stream);
    reader.join().unwrap()
}

/// A limited transfer is never faster than this, however slow the machine is: beside the rate there is one burst.
fn most(rate: u64) -> f64 {
    let rest = LOAD as f64 - BURST as f64 - 65_536.0;
    rate as f64 * LOAD as f64 / rest * 1.05
}

/// Whether a transfer is ever faster than a limit would let it be.
fn exceeds(transfer: impl Fn() -> f64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if transfer() > 4.0 * RATE as f64 {
            return true;
        }
    }
    false
}

fn rate(rate: u64) -> Option<Rate> {
    Some(Rate {
        rate,
        burst: BURST,
        peak: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_in_their_own_direction_and_go_without_a_trace() {
    let lab = Lab::new().await;
    let before = lab.host.snapshot();
    assert!(exceeds(|| lab.download()) && exceeds(|| lab.upload()));

    lab.limit(Bandwidth {
        to: rate(RATE),
        from: None,
    })
    .await;
    let found = lab.download();
    assert!(found < most(RATE), "{found} to the pod");
    assert!(exceeds(|| lab.upload()), "from the pod");

    lab.limit(Bandwidth {
        to: None,
        from: rate(RATE),
    })
    .await;
    let found = lab.upload();
    assert!(found < most(RATE), "{found} from the pod");
    assert!(exceeds(|| lab.download()), "to the pod");

    lab.limit(Bandwidth::default()).await;
    assert!(exceeds(|| lab.download()) && exceeds(|| lab.upload()));
    assert_eq!(lab.host.snapshot(), before);
    let (_, filters) = lab.host.try_run("tc qdisc show");
    assert!(!filters.contains("tbf") && !filters.contains("ingress"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_there_are_left_alone_and_changed_in_place() {
    let lab = Lab::new().await;
    let both = |wanted| Bandwidth {
        to: rate(wanted),
        from: rate(wanted),
    };
    assert_eq!(lab.limit(both(RATE)).await.len(), 4);
    assert_eq!(lab.limit(both(RATE)).await, []);
    let device_before = lab.netlink.link(&device("cali1")).await.unwrap().unwrap();
    assert_eq!(lab.limit(both(2 * RATE)).await.len(), 2);
    assert_eq!(lab.limit(both(2 * RATE)).await, []);
    let device_after = lab.netlink.link(&device("cali1")).await.unwrap();
    assert_eq!(device_after, Some(device_before));
    let found = lab.upload();
    assert!(found < most(2 * RATE), "{found}");

    // Whatever a record may ask for comes back from the kernel as it was put in.
    for wanted in [125, 1_000, 123_456, 125_000_000, 10_000_000_000] {
        for burst in [125, 10_000, 1 << 29] {
            for peak in [None, Some(wanted * 3)] {
                let peak = peak.map(|rate| Peak { rate, burst: 0 });
                let rate = Rate {
                    rate: wanted,
                    burst,
                    peak,
                };
                let limits = Bandwidth {
                    to: Some(rate),
                    from: Some(rate),
                };
                lab.limit(limits).await;
                assert_eq!(lab.limit(limits).await, [], "{rate:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_others_delete_comes_back() {
    let lab = Lab::new().await;
    let wanted = Bandwidth {
        to: rate(RATE),
        from: rate(RATE),
    };
    lab.limit(wanted).await;
    let name = device("cali1");
    for command in [
        format!("ip link delete {name}"),
        "tc qdisc delete dev cali1 root".to_owned(),
        "tc qdisc delete dev cali1 ingress".to_owned(),
        "tc filter delete dev cali1 parent ffff: prio 1".to_owned(),
        format!("tc qdisc replace dev {name} root tbf rate 1gbit burst 1m latency 25ms"),
    ] {
        let (ok, text) = lab.host.try_run(&command);
        assert!(ok, "{command}: {text}");
        assert_ne!(lab.limit(wanted).await, [], "{command}");
        assert_eq!(lab.limit(wanted).await, [], "{command}");
        assert!(lab.pod.pings(HOST), "{command}");
    }
}

#[tokio::test]
async fn others_filters_stay() {
    let lab = Lab::new().await;
    for command in [
        "tc qdisc add dev cali1 root tbf rate 1gbit burst 1m latency 25ms",
        "ip link add ifb9 type ifb",
    ] {
        let (ok, text) = lab.host.try_run(command);
        assert!(ok, "{command}: {text}");
    }
    assert_eq!(lab.limit(Bandwidth::default()).await, []);
}

#[tokio::test]
async fn nothing_stays_of_an_endpoint_that_goes() {
    let lab = Lab::new().await;
    let wanted = Bandwidth {
        to: rate(RATE),
        from: rate(RATE),
    };
    let name = device("cali1");
    lab.limit(wanted).await;
    let gone = plan(1, &[POD]);
    teardown(&lab.netlink, "cali1", &gone.veth.mark)
        .await
        .unwrap();
    assert_eq!(lab.netlink.link(&name).await.unwrap(), None);

    setup(&gone, &lab.netlink, &lab.pod.namespace)
        .await
        .unwrap();
    lab.limit(wanted).await;
    // With its namespace the container's end goes, and with that the host's.
    lab.host.ip("link delete cali1");
    assert!(lab.netlink.link(&name).await.unwrap().is_some());
    let removal = teardown(&lab.netlink, "cali1", &gone.veth.mark).await;
    assert_eq!(removal.unwrap(), margay_netlink::endpoint::Removal::Absent);
    assert_eq!(lab.netlink.link(&name).await.unwrap(), None);

    setup(&gone, &lab.netlink, &lab.pod.namespace)
        .await
        .unwrap();
    lab.limit(wanted).await;
    lab.host.ip("link delete cali1");
    assert_eq!(
        lab.limit(wanted).await,
        [Step::Delete {
            device: name.clone()
        }]
    );
    shaping::forget(&lab.netlink, "cali1").await.unwrap();
}
