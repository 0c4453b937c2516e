//! P, V, E, X: how the programs are called, and how they answer.

use margay_integration::cni::{addresses, cni_path};
use margay_integration::process::bin_dir;
use margay_integration::{Plugin, Scene, run};
use serde_json::{Value, json};

use crate::{changed, refusal};

#[test]
fn p02_without_a_verb_both_explain_themselves() {
    for program in ["margay", "margay-ipam"] {
        let mut command = std::process::Command::new(bin_dir().join(program));
        let said = run(command.env_remove("CNI_COMMAND"), b"");
        assert!(said.success() && said.stdout.is_empty(), "{said:?}");
        assert!(said.stderr.contains("1.1.0"), "{said:?}");
    }
}

#[test]
fn p04_every_offending_variable_is_named_by_both() {
    let scene = Scene::sqlite();
    let before = scene.traces();
    for plugin in [scene.plugin(), scene.ipam()] {
        let conf = Value::Object(plugin.conf.clone());
        let bad = [("CNI_IFNAME", "a/b"), ("CNI_ARGS", "x")];
        let refused = plugin.call_with("ADD", "../c", "", &bad, &conf);
        assert_eq!(refusal(&refused), 4, "{refused:?}");
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            assert!(refused.stdout.contains(name), "{name}: {refused:?}");
        }
    }
    assert_eq!(scene.traces(), before);
}

#[test]
fn p05_any_legal_container_id_is_attached() {
    let scene = Scene::sqlite();
    let plugin = scene.plugin();
    let rest = scene.at_rest();
    let long = "x".repeat(200);
    for id in ["a", "0", "a..b", "A_b-c.d", "pod--1", &long] {
        let pod = scene.lab.pod();
        let result = plugin.add(id, &pod);
        let checked = plugin.call_after("CHECK", id, &pod.path(), &result);
        assert!(checked.success(), "{id}: {checked:?}");
        plugin.del(id, &pod);
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn p06_any_legal_interface_name_is_made() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let rest = scene.at_rest();
    let conf = Value::Object(plugin.conf.clone());
    for name in ["e", "net1", "eth0.100", "fifteen-letters", "a@b"] {
        let env = [("CNI_IFNAME", name)];
        let added = plugin.call_with("ADD", "c1", &pod.path(), &env, &conf);
        assert!(added.success(), "{name}: {added:?}");
        assert_eq!(added.json()["interfaces"][1]["name"], name);
        let deleted = plugin.call_with("DEL", "c1", &pod.path(), &env, &conf);
        assert!(deleted.success(), "{name}: {deleted:?}");
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn p09_keys_of_the_runtime_are_passed_over() {
    let scene = Scene::sqlite();
    let more = json!({"capabilities": {"aliases": true, "io.kubernetes.cri.pod-annotations": true},
        "cniVersions": ["0.3.1", "1.1.0"], "args": {"labels": [{"key": "a"}]}, "disableCheck": false,
        "disableGC": true, "loadOnlyInlinedPlugins": true, "cni.dev/x": [1],
        "runtimeConfig": {"aliases": {"x": ["y"]}, "io.kubernetes.cri.pod-annotations": {"a": "b"},
                          "cgroupPath": "/x"}});
    for plugin in [scene.plugin(), scene.ipam()] {
        let plugin = plugin.with(more.clone());
        let pod = scene.lab.pod();
        plugin.add("c1", &pod);
        plugin.del("c1", &pod);
    }
}

#[test]
fn p15_nothing_of_the_environment_is_needed() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let conf = Value::Object(plugin.conf.clone()).to_string();
    let result = plugin.add("c0", &scene.lab.pod());
    for (verb, id) in [("ADD", "c1"), ("DEL", "c1"), ("DEL", "c0")] {
        // A folder that is gone, a umask that forbids everything, no descriptors but three.
        let script = "d=$(mktemp -d); cd $d; rmdir $d; umask 0777; exec \"$0\"";
        let mut command = scene.node().command("/bin/sh");
        command
            .args(["-c", script])
            .arg(bin_dir().join("margay"))
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/nowhere");
        let called = run(&mut command, conf.as_bytes());
        assert!(called.success(), "{verb} {id}: {called:?}");
    }
    let gone = plugin.call_after("CHECK", "c0", &pod.path(), &result);
    assert!(!gone.success(), "{gone:?}");
    // What was written with that umask can be read by the next call.
    plugin.add("c2", &scene.lab.pod());
}

#[test]
fn p16_the_hosts_own_namespace_is_refused_before_any_effect() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let own = format!("/run/netns/{}", scene.node().namespace());
    for plugin in [scene.plugin(), scene.ipam()] {
        assert_eq!(refusal(&plugin.call("ADD", "c1", &own)), 8);
        assert_eq!(scene.traces(), rest);
        assert!(plugin.call("DEL", "c1", &own).success());
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn p18_calls_beside_each_other_do_not_disturb() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let pods: Vec<_> = (0..8).map(|_| scene.lab.pod()).collect();
    let conf = Value::Object(plugin.conf.clone());
    let calls: Vec<_> = (0..8)
        .map(|n| (n, if n % 2 == 0 { "eth0" } else { "net1" }))
        .collect();
    let all = |verb: &'static str| {
        std::thread::scope(|scope| {
            let running: Vec<_> = calls
                .iter()
                .map(|(n, ifname)| {
                    let (plugin, conf, path) = (&plugin, &conf, pods[*n].path());
                    scope.spawn(move || {
                        let env = [("CNI_IFNAME", *ifname)];
                        plugin.call_with(verb, &format!("c{}", n / 2), &path, &env, conf)
                    })
                })
                .collect();
            let outputs: Vec<_> = running.into_iter().map(|it| it.join().unwrap()).collect();
            for output in &outputs {
                assert!(output.success(), "{verb}: {output:?}");
            }
            outputs
        })
    };
    let mut given: Vec<String> = all("ADD")
        .iter()
        .flat_map(|output| addresses(&output.json()))
        .collect();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 8, "{given:?}");
    all("DEL");
    assert_eq!(scene.traces(), rest);
}

#[test]
fn p18_a_second_default_route_in_a_namespace_is_refused_and_harms_nothing() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let rest = scene.at_rest();
    let result = plugin.add("c1", &pod);
    let conf = Value::Object(plugin.conf.clone());
    let env = [("CNI_IFNAME", "net1")];
    let first = scene.traces();
    let refused = plugin.call_with("ADD", "c1", &pod.path(), &env, &conf);
    assert_eq!(refusal(&refused), 105, "{refused:?}");
    assert!(refused.stdout.contains("eth0"), "{refused:?}");
    assert_eq!(scene.traces(), first);
    let deleted = plugin.call_with("DEL", "c1", &pod.path(), &env, &conf);
    assert!(deleted.success(), "{deleted:?}");
    let checked = plugin.call_after("CHECK", "c1", &pod.path(), &result);
    assert!(checked.success(), "{checked:?}");
    plugin.del("c1", &pod);
    assert_eq!(scene.traces(), rest);
}

#[test]
fn v05_and_v07_verbs_of_one_attachment_may_come_in_several_versions() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let rest = scene.at_rest();
    let result = plugin.add("c1", &pod);
    for (version, wanted) in [("0.3.1", 1), ("0.4.0", 0), ("1.0.0", 0)] {
        let older = scene.plugin().with(json!({"cniVersion": version}));
        let checked = older.call_after("CHECK", "c1", &pod.path(), &result);
        assert_eq!(checked.code, wanted, "{version}: {checked:?}");
        if wanted == 1 {
            assert_eq!(refusal(&checked), 1);
            assert_eq!(checked.json()["cniVersion"], version);
        }
    }
    for verb in ["GC", "STATUS"] {
        let older = scene.plugin().with(json!({"cniVersion": "1.0.0"}));
        assert_eq!(refusal(&older.call(verb, "", "")), 1);
    }
    let older = scene.plugin().with(json!({"cniVersion": "0.2.0"}));
    let deleted = older.call_after("DEL", "c1", &pod.path(), &result);
    assert!(deleted.success(), "{deleted:?}");
    assert_eq!(scene.traces(), rest);
}

#[test]
fn e01_a_damaged_configuration_is_answered_in_form_by_both() {
    let scene = Scene::sqlite();
    let before = scene.traces();
    let call = |plugin: &Plugin<'_>, verb: &str, stdin: &str| {
        let mut command = plugin.node.command(bin_dir().join(plugin.program));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", "/run/netns/none")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", cni_path());
        refusal(&run(&mut command, stdin.as_bytes()))
    };
    for plugin in [scene.plugin(), scene.ipam()] {
        for (stdin, code) in [
            ("", 6),
            ("{", 6),
            ("[]", 6),
            (r#"{"cniVersion":"9.9.9","name":"n","type":"x"}"#, 1),
            (r#"{"cniVersion":1,"name":"n","type":"x"}"#, 6),
            (r#"{"cniVersion":"1.1.0","type":"x"}"#, 7),
            (r#"{"cniVersion":"1.1.0","name":"../n","type":"x"}"#, 7),
        ] {
            for verb in ["ADD", "CHECK", "GC", "STATUS"] {
                assert_eq!(call(&plugin, verb, stdin), code, "{verb} {stdin}");
            }
        }
        assert_eq!(
            call(&plugin, "UPDATE", r#"{"cniVersion":"1.1.0","name":"n"}"#),
            4
        );
    }
    assert_eq!(scene.traces(), before);
}

#[test]
fn x02_unknown_arguments_need_leave() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let conf = changed(&plugin, &json!({}));
    let call =
        |args: &str| plugin.call_with("ADD", "c1", &pod.path(), &[("CNI_ARGS", args)], &conf);
    assert_eq!(refusal(&call("NOMAD_REGION=global")), 4);
    assert_eq!(refusal(&call("IgnoreUnknown")), 4);
    assert_eq!(refusal(&call("IgnoreUnknown=1;IP=ten")), 4);
    for leave in ["1", "true", "True"] {
        let added = call(&format!("NOMAD_REGION=global;IgnoreUnknown={leave}"));
        assert!(added.success(), "{added:?}");
    }
}

#[test]
fn p17_trace_variables_are_taken_and_passed_on_to_delegates() {
    let scene = Scene::sqlite();
    let dir = scene.lab.dir().join("bin");
    std::fs::create_dir_all(&dir).unwrap();
    let seen = dir.join("seen");
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\necho \"$CNI_COMMAND $TRACEPARENT $TRACESTATE $BAGGAGE\" >>{}\n\
         [ $CNI_COMMAND != ADD ] || echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[{{\"address\":\"10.9.9.9/24\"}}]}}'\n",
        seen.display()
    );
    let file = dir.join("tracing-ipam");
    std::fs::write(&file, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    let plugin = scene
        .plugin()
        .with(json!({"ipam": {"type": "tracing-ipam"}}));
    let (pod, path) = (scene.lab.pod(), format!("{}:/bin", dir.display()));
    let env = [
        ("CNI_PATH", path.as_str()),
        (
            "TRACEPARENT",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("TRACESTATE", "a=b"),
        ("BAGGAGE", "c=d"),
    ];
    let conf = changed(&plugin, &json!({}));
    for verb in ["ADD", "DEL"] {
        let called = plugin.call_with(verb, "c1", &pod.path(), &env, &conf);
        assert!(called.success(), "{called:?}");
    }
    let told = std::fs::read_to_string(seen).unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 a=b c=d";
    assert_eq!(told, format!("ADD {trace}\nDEL {trace}\n"));
}

#[test]
fn k06_what_only_the_runtime_heeds_is_passed_over() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let conf = changed(
        &plugin,
        &json!({"disableCheck": true, "disableGC": true, "loadOnlyInlinedPlugins": true,
            "capabilities": {"aliases": true}, "runtimeConfig": {"aliases": ["web"],
            "io.kubernetes.cri.pod-annotations": {"a": "b"}, "cgroupPath": "/x"}}),
    );
    let added = plugin.call_with("ADD", "c1", &pod.path(), &[], &conf);
    assert!(added.success(), "{added:?}");
    let checked = plugin.call_after("CHECK", "c1", &pod.path(), &added.json());
    assert!(checked.success(), "{checked:?}");
    let deleted = plugin.call_with("DEL", "c1", &pod.path(), &[], &conf);
    assert!(deleted.success(), "{deleted:?}");
}
