//! Notifications.

use std::time::Duration;

use futures_util::StreamExt;
use margay_netlink::monitor::{Event, Monitor};
use tokio::time::timeout;

use crate::fixture::TestNamespace;

async fn until(monitor: &mut Monitor, wanted: impl Fn(&Event) -> bool) -> Event {
    timeout(Duration::from_secs(5), async {
        loop {
            let event = monitor.next().await.unwrap().unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn every_kind_of_change_is_told() {
    let host = TestNamespace::new();
    let mut monitor = Monitor::open(&host.namespace).unwrap();
    host.ip("link add cali1 type veth peer name cali1p");
    let event = until(
        &mut monitor,
        |event| matches!(event, Event::LinkChanged { name, .. } if name == "cali1"),
    )
    .await;
    let Event::LinkChanged { index: cali1, .. } = event else {
        panic!("{event:?}")
    };
    host.ip("link set cali1p up");
    host.ip("link set cali1 up");
    until(
        &mut monitor,
        |e| matches!(e, Event::LinkChanged { index, up: true, .. } if *index == cali1),
    )
    .await;
    host.ip("addr add 10.65.0.1/32 dev cali1");
    until(&mut monitor, |e| {
        *e == Event::AddressChanged { index: cali1 }
    })
    .await;
    host.ip("route add 10.65.0.2/32 dev cali1 proto 80");
    until(&mut monitor, |e| {
        *e == Event::RouteChanged {
            table: 254,
            protocol: 80,
        }
    })
    .await;
    host.ip("-6 route add 2001:db8::2/128 dev cali1 proto 80 table 1000");
    until(&mut monitor, |e| {
        *e == Event::RouteChanged {
            table: 1000,
            protocol: 80,
        }
    })
    .await;
    host.ip("neigh add 10.65.0.2 lladdr 02:00:00:00:00:01 dev cali1");
    until(&mut monitor, |e| {
        *e == Event::NeighbourChanged { index: cali1 }
    })
    .await;
    host.ip("link del cali1");
    let gone = Event::LinkRemoved {
        index: cali1,
        name: "cali1".to_owned(),
    };
    until(&mut monitor, |e| *e == gone).await;
}

#[tokio::test]
async fn lost_events_ask_for_a_resync() {
    let host = TestNamespace::new();
    // The kernel's least; a link notification alone takes most of it.
    let mut monitor = Monitor::with_buffer(&host.namespace, 1).unwrap();
    for number in 0..8 {
        host.ip(&format!(
            "link add cali{number} type veth peer name p{number}"
        ));
    }
    until(&mut monitor, |event| *event == Event::Resync).await;
    // The stream goes on afterwards.
    host.ip("route add blackhole 10.65.0.0/26 proto 80");
    until(&mut monitor, |event| {
        matches!(event, Event::RouteChanged { protocol: 80, .. })
    })
    .await;
}
