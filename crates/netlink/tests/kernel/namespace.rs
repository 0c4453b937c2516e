//! Namespaces by path, and connections inside them.

use margay_netlink::{Error, Namespace, Netlink};

use crate::fixture::TestNamespace;

#[tokio::test]
async fn a_connection_sees_its_own_namespace_only() {
    let (one, two) = (TestNamespace::new(), TestNamespace::new());
    one.ip("link add v0 type veth peer name v1");
    let (here, there) = (one.netlink(), two.netlink());
    assert!(here.link("v0").await.unwrap().is_some());
    assert!(there.link("v0").await.unwrap().is_none());
    assert!(
        Netlink::current()
            .unwrap()
            .link("v0")
            .await
            .unwrap()
            .is_none()
    );
    let interfaces = here.interfaces().await.unwrap();
    let link = interfaces.by_name("v0").unwrap();
    assert_eq!(link.kind.as_deref(), Some("veth"));
    assert_eq!(link.mtu, 1500);
    assert_eq!(
        link.peer_index,
        interfaces.by_name("v1").map(|peer| peer.index)
    );
    let lo = interfaces.by_name("lo").unwrap();
    assert!(lo.loopback && lo.up && lo.addresses.contains(&"127.0.0.1/8".parse().unwrap()));
}

#[test]
fn the_same_namespace_is_recognised_by_other_paths() {
    let (one, two) = (TestNamespace::new(), TestNamespace::new());
    let again = Namespace::open(one.path()).unwrap();
    assert!(again.is_same(&one.namespace) && !again.is_same(&two.namespace));
    let inside = one.namespace.run(|| Namespace::current().unwrap()).unwrap();
    assert!(inside.is_same(&one.namespace));
    assert!(!Namespace::current().unwrap().is_same(&one.namespace));
}

#[test]
fn an_open_namespace_outlives_its_path() {
    let test = TestNamespace::new();
    let (path, open) = (test.path().to_owned(), test.namespace.clone());
    drop(test);
    assert!(matches!(
        Namespace::open(&path),
        Err(Error::NamespaceAbsent { .. })
    ));
    let links = open
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap())
        .unwrap();
    assert!(links.contains("lo:"));
}
