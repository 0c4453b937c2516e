//! What a measurement needs before it begins: certificates, and stores with a cluster in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use margay_datastore::{Config, Datastore};
use margay_ipam_core::{block, handle};
use margay_model::ipam::{Affinity, AffinityState, Attribute, Handle};
use margay_model::key::Owner;
use margay_model::names::EndpointName;
use margay_model::resource::cluster::{Node, NodeSpec};
use margay_model::resource::endpoint::{WorkloadEndpoint, WorkloadEndpointSpec};
use margay_model::resource::pool::IPPoolSpec;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Key, Metadata};
use margay_resources::{Client, Stamps};
use margay_store::{Batch, MAX_OPS, Outcome, Store, Write};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

#[derive(Debug, Parser)]
#[command(about)]
enum Command {
    /// Makes an authority, and a certificate for 127.0.0.1 that servers and clients may use.
    Certificates {
        /// Where ca.pem, cert.pem and key.pem go.
        folder: PathBuf,
    },
    /// Makes a cluster in the store that the CNI configuration on standard input names.
    Cluster {
        /// The pool.
        pool: Cidr,
        /// How many addresses are assigned from it, to containers of other nodes.
        addresses: usize,
        /// The nodes to be measured; none of them has a block.
        nodes: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Certificates { folder } => certificates(&folder),
        Command::Cluster {
            pool,
            addresses,
            nodes,
        } => {
            let mut conf = String::new();
            io::stdin().read_to_string(&mut conf)?;
            let conf = serde_json::from_str(&conf).context("the configuration")?;
            let store = Datastore::open(&Config::from_cni(&conf, &|_| None)?)?;
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(cluster(&store, pool, addresses, &nodes))
        }
    }
}

fn certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    fs::write(folder.join("ca.pem"), authority_pem)?;
    fs::write(folder.join("cert.pem"), certificate)?;
    fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok(())
}

async fn cluster(store: &Datastore, pool: Cidr, addresses: usize, nodes: &[String]) -> Result<()> {
    let client = Client::new(store, MachineStamps);
    client.ensure_initialized().await?;
    let specification = IPPoolSpec {
        cidr: pool.to_string(),
        block_size: Some(BLOCK_LENGTH),
        ..IPPoolSpec::default()
    };
    client
        .ensure_default_pools(Some(specification), None)
        .await?;
    for node in nodes {
        create_node(store, node).await?;
    }
    let mut left = addresses;
    let mut number = 0_usize;
    while left > 0 {
        let node = format!("seeded{}", number / BLOCKS_A_NODE);
        if number.is_multiple_of(BLOCKS_A_NODE) {
            create_node(store, &node).await?;
        }
        let count = left.min(1 << (32 - BLOCK_LENGTH));
        let first = pool.nth((number as u128) << (32 - BLOCK_LENGTH));
        let cidr = first.and_then(|first| Cidr::new(first, BLOCK_LENGTH));
        let cidr = cidr.with_context(|| format!("{pool} is too small"))?;
        fill_block(store, cidr, &node, count).await?;
        left -= count;
        number += 1;
    }
    Ok(())
}

async fn create_node(store: &Datastore, name: &str) -> Result<()> {
    let node = Node::new(Metadata::named(name), NodeSpec::default());
    commit(store, vec![Write::create(node.key(), node.encode()?)]).await
}

/// A block of a node with so many addresses taken, each by a container with handle and endpoint.
async fn fill_block(store: &Datastore, cidr: Cidr, node: &str, count: usize) -> Result<()> {
    let owner = Owner::Host(node.to_owned());
    let mut block = block::create(cidr, Some(owner.affinity()), MachineStamps.now());
    let mut writes = vec![Write::create(
        Key::Affinity(owner, cidr),
        serde_json::to_vec(&Affinity::new(AffinityState::Confirmed))?,
    )];
    for number in 0..count {
        let container = format!("seeded{}x{number}", cidr.key_form().replace('-', "x"));
        let handle_id = format!("{NETWORK}.{container}");
        let attribute = Attribute {
            handle_id: Some(handle_id.clone()),
            secondary: BTreeMap::from([
                ("node".to_owned(), node.to_owned()),
                ("timestamp".to_owned(), MachineStamps.now().go_string()),
            ]),
            ..Attribute::default()
        };
        let address = block::assign_next(&mut block, &attribute, |_| false);
        let address = address.with_context(|| format!("block {cidr} is full"))?;
        let mut held = Handle::default();
        handle::increment(&mut held, cidr, 1);
        writes.push(Write::create(
            Key::Handle(handle_id),
            serde_json::to_vec(&held)?,
        ));
        let name = EndpointName {
            node: node.to_owned(),
            orchestrator: "cni".to_owned(),
            workload: container.clone(),
            endpoint: "eth0".to_owned(),
        };
        let endpoint = WorkloadEndpoint::new(
            Metadata::namespaced("default".to_owned(), name.encode()?),
            WorkloadEndpointSpec {
                orchestrator: Some(name.orchestrator),
                node: Some(name.node),
                container_id: Some(container),
                endpoint: Some(name.endpoint),
                ip_networks: vec![Cidr::host(address).to_string()],
                profiles: vec![NETWORK.to_owned()],
                ..WorkloadEndpointSpec::default()
            },
        );
        writes.push(Write::create(endpoint.key(), endpoint.encode()?));
    }
    writes.push(Write::create(Key::Block(cidr), serde_json::to_vec(&block)?));
    commit(store, writes).await
}

async fn commit(store: &Datastore, writes: Vec<Write>) -> Result<()> {
    for piece in writes.chunks(MAX_OPS) {
        let batch = Batch::of(piece.iter().cloned());
        let outcome = store.commit(&batch).await?;
        ensure!(
            matches!(outcome, Outcome::Committed(_)),
            "{} is there already",
            piece[0].key
        );
    }
    Ok(())
}

/// Times and random numbers of this machine.
#[derive(Clone, Copy, Debug)]
struct MachineStamps;

impl Stamps for MachineStamps {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp::from_epoch(since.unwrap_or_default())
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // What cannot be read stays zero; nothing here depends on chance.
        let _ = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        bytes
    }
}

const NETWORK: &str = "bench";
const BLOCK_LENGTH: u8 = 26;
const BLOCKS_A_NODE: usize = 4;
