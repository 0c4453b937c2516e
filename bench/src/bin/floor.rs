//! The least that any plugin with a store must do: the kernel's work, and one transaction of etcd.
//!
//! ADD and DEL are called as a plugin is, with `CNI_COMMAND`, `CNI_CONTAINERID` and `CNI_NETNS` in the
//! environment and a configuration on standard input. There is no IPAM, no record, no check of what it is
//! given: the address comes from `MARGAY_BENCH_ADDRESS`, the transaction creates or deletes one key.

use std::env;
use std::io::{self, Read as _};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use margay_datastore::{Config, Datastore};
use margay_endpoint::{EndpointPlan, EndpointSpec, Mark};
use margay_model::Key;
use margay_netlink::{Namespace, Netlink, endpoint};
use margay_route::Mac;
use margay_store::{Batch, Condition, Op, Outcome, Store as _, Write};
use serde_json::{Map, Value};

fn main() -> Result<()> {
    let mut conf = String::new();
    io::stdin().read_to_string(&mut conf)?;
    let conf: Map<String, Value> = serde_json::from_str(&conf).context("the configuration")?;
    let store = Datastore::open(&Config::from_cni(&conf, &|_| None)?)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(call(&store))
}

async fn call(store: &Datastore) -> Result<()> {
    let container = env::var("CNI_CONTAINERID").context("CNI_CONTAINERID")?;
    let key = Key::Handle(container.clone());
    let mark = Mark::new("floor", &container, INTERFACE);
    let name = margay_endpoint::host_interface(
        margay_endpoint::DEFAULT_PREFIX,
        &margay_endpoint::Workload::Container { id: &container },
        INTERFACE,
    )?;
    match env::var("CNI_COMMAND").as_deref() {
        Ok("ADD") => {
            let address: IpAddr = env::var("MARGAY_BENCH_ADDRESS")?.parse()?;
            commit(store, Write::create(key, b"{}".to_vec())).await?;
            let plan = EndpointPlan::new(&EndpointSpec {
                host_name: name,
                container_name: INTERFACE.to_owned(),
                container_mac: Mac::local([2; 6]),
                mtu: None,
                queues: 1,
                addresses: vec![address],
                routes: Vec::new(),
                include_default_routes: false,
                allow_ip_forwarding: false,
                mark,
            })?;
            let container = Namespace::open(env::var("CNI_NETNS")?)?;
            endpoint::setup(&plan, &Netlink::current()?, &container).await?;
        }
        Ok("DEL") => {
            endpoint::teardown(&Netlink::current()?, &name, &mark).await?;
            let write = Write {
                key,
                condition: Condition::Any,
                op: Op::Delete,
            };
            commit(store, write).await?;
        }
        other => bail!("CNI_COMMAND is {other:?}; ADD and DEL are measured"),
    }
    Ok(())
}

async fn commit(store: &Datastore, write: Write) -> Result<()> {
    let outcome = store.commit(&Batch::of([write])).await?;
    ensure!(
        matches!(outcome, Outcome::Committed(_)),
        "the key is there already"
    );
    Ok(())
}

const INTERFACE: &str = "eth0";
