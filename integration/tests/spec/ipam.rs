//! I: the IPAM plugin, as any network plugin calls it.

use margay_integration::Scene;
use margay_integration::cni::addresses;
use serde_json::{Value, json};

use crate::{changed, refusal};

#[test]
fn i01_and_i02_addresses_alone_and_no_namespace() {
    let scene = Scene::dual_stack();
    let both =
        json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
    let ipam = scene.ipam().with(both);
    let result = ipam.call("ADD", "c1", "/run/netns/never").json();
    assert!(result.get("interfaces").is_none(), "{result}");
    let ips = result["ips"].as_array().unwrap();
    assert_eq!(ips.len(), 2, "{result}");
    assert!(
        ips.iter().all(|ip| ip.get("interface").is_none()),
        "{result}"
    );
    let checked = ipam.call_after("CHECK", "c1", "/run/netns/never", &result);
    assert!(checked.success(), "{checked:?}");
}

#[test]
fn i03_two_interfaces_have_two_addresses_and_i05_each_del_gives_back_its_own() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let ipam = scene.ipam();
    let conf = Value::Object(ipam.conf.clone());
    let call = |verb: &str, ifname: &str, conf: &Value| {
        let output = ipam.call_with(verb, "c1", "/none", &[("CNI_IFNAME", ifname)], conf);
        assert!(output.success(), "{verb} {ifname}: {output:?}");
        output
    };
    let results = ["eth0", "net1"].map(|ifname| call("ADD", ifname, &conf).json());
    assert_ne!(addresses(&results[0]), addresses(&results[1]));
    assert_eq!(call("ADD", "net1", &conf).json(), results[1]);
    call("DEL", "eth0", &conf);
    call(
        "CHECK",
        "net1",
        &changed(&ipam, &json!({"prevResult": results[1]})),
    );
    let gone = changed(&ipam, &json!({"prevResult": results[0]}));
    let checked = ipam.call_with("CHECK", "c1", "/none", &[], &gone);
    assert_eq!(refusal(&checked), 111, "{checked:?}");
    call("DEL", "net1", &conf);
    assert_eq!(scene.traces(), rest);
}

#[test]
fn i04_all_families_or_none() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    // There is no IPv6 pool here.
    let both =
        json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
    for plugin in [scene.ipam().with(both.clone()), scene.plugin().with(both)] {
        let refused = plugin.call("ADD", "c1", &scene.lab.pod().path());
        assert_eq!(refusal(&refused), 100, "{refused:?}");
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn i06_check_compares_with_the_result() {
    let scene = Scene::sqlite();
    let ipam = scene.ipam();
    let result = ipam.call("ADD", "c1", "/none").json();
    let other = ipam.call("ADD", "c2", "/none").json();
    for (id, result, code) in [
        ("c1", &result, None),
        ("c1", &other, Some(111)),
        ("c3", &result, Some(111)),
    ] {
        let checked = ipam.call_after("CHECK", id, "/none", result);
        match code {
            None => assert!(
                checked.success() && checked.stdout.is_empty(),
                "{checked:?}"
            ),
            Some(code) => assert_eq!(refusal(&checked), code, "{checked:?}"),
        }
    }
    assert_eq!(refusal(&ipam.call("CHECK", "c1", "/none")), 7);
}
