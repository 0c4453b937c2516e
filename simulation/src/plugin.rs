//! The order in which the plugins use the store, the journal and the kernel.
//!
//! `cni-plugin` and `ipam-plugin` read their settings, reach real stores and speak netlink; what is modelled
//! here is the sequence of their steps, each step the library's own. Every `await` is a place where a call may
//! be killed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_endpoint::Mark;
use margay_ipam_core::allocator::{Companion, Proceed};
use margay_ipam_core::detach::addresses_of;
use margay_ipam_core::{Allocator, Assignment, Detach, IpamError, NoCompanion, Request, Want};
use margay_journal::{Attachment, Endpoint, Release};
use margay_model::names::EndpointName;
use margay_model::resource::endpoint::{WorkloadEndpoint, WorkloadEndpointSpec};
use margay_model::resource::pool::AllowedUse;
use margay_model::{Cidr, Key, Kind, Metadata};
use margay_store::{Answer, Batch, Entry, Outcome, Read, Revision, Store, StoreError, Write};
use tokio::time::timeout;

use crate::auditor::ADDRESSES_ONLY;
use crate::kernel::{Interface, Refused};
use crate::network::Client;
use crate::node::Node;
use crate::world::{World, clock};

/// One container's attachment to a network, as a runtime calls a plugin for it.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The pod it is the sandbox of, where an orchestrator says so.
    pub pod: Option<String>,
    /// The network; [`ADDRESSES_ONLY`] is another plugin's, which calls ours for addresses.
    pub network: &'static str,
    /// The addresses wanted.
    pub wants: Vec<Want>,
    /// Its namespace.
    pub namespace: u64,
    /// The boot of the node that it lives in.
    pub boot: u64,
}

/// Why a call fails.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The store or the allocator.
    Ipam(IpamError),
    /// The kernel.
    Kernel(Refused),
    /// Others have just changed the endpoint; the runtime is told to try again.
    TryAgain,
    /// The journal cannot be written.
    Journal(String),
}

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Self {
        Self::Ipam(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Ipam(error.into())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Kernel(refused)
    }
}

impl Container {
    /// The handle of its addresses.
    pub fn handle(&self) -> String {
        format!("{}.{}", self.network, self.id)
    }

    /// The mark of its host interface.
    pub fn mark(&self) -> Mark {
        Mark::new(self.network, &self.id, IFNAME)
    }

    /// Whether the IPAM plugin alone is called for it.
    pub fn is_addresses_only(&self) -> bool {
        self.network == ADDRESSES_ONLY
    }

    fn name(&self, node: &str) -> EndpointName {
        let workload = self.pod.as_ref().unwrap_or(&self.id);
        EndpointName {
            node: node.to_owned(),
            orchestrator: self.orchestrator().to_owned(),
            workload: workload.clone(),
            endpoint: IFNAME.to_owned(),
        }
    }

    fn orchestrator(&self) -> &'static str {
        if self.pod.is_some() { "k8s" } else { "cni" }
    }

    fn key(&self, node: &str) -> Key {
        let name = self.name(node).encode().unwrap();
        Key::namespaced(Kind::WorkloadEndpoint, "default", name)
    }

    /// Names of the host interface, in order of preference.
    fn host_interfaces(&self) -> [String; 2] {
        let workload = self.pod.as_ref().unwrap_or(&self.id);
        [format!("cali{workload}"), format!("calx{}", self.id)]
    }

    fn attachment(&self) -> Attachment {
        Attachment {
            network: self.network.to_owned(),
            container_id: self.id.clone(),
            ifname: IFNAME.to_owned(),
        }
    }

    fn detach(&self, node: &str) -> Detach {
        Detach {
            node: node.to_owned(),
            container_id: self.id.clone(),
            ifname: IFNAME.to_owned(),
            handle: self.handle(),
            legacy_handle: Some(self.pod.clone().unwrap_or_else(|| self.id.clone())),
            endpoint: (!self.is_addresses_only()).then(|| self.key(node)),
            endpoint_at: None,
            assigned_at: None,
            unless: None,
            hints: Vec::new(),
            now: clock(),
        }
    }

    fn release(&self, node: &str) -> Release {
        let endpoint = Endpoint {
            namespace: "default".to_owned(),
            orchestrator: self.orchestrator().to_owned(),
            workload: self.pod.clone().unwrap_or_else(|| self.id.clone()),
        };
        Release {
            attachment: self.attachment(),
            node: Some(node.to_owned()),
            handle: self.handle(),
            legacy_handle: Some(self.pod.clone().unwrap_or_else(|| self.id.clone())),
            endpoint: (!self.is_addresses_only()).then_some(endpoint),
            interfaces: Vec::new(),
            mark: None,
            when: clock().rfc3339(),
            why: "the simulation wants it so".to_owned(),
        }
    }
}

/// A plugin's process on a node.
#[derive(Clone, Debug)]
pub struct Call {
    world: Arc<World>,
    node: usize,
    container: Container,
}

impl Call {
    /// A call for a container on a node.
    pub fn new(world: &Arc<World>, node: usize, container: &Container) -> Self {
        Self {
            world: Arc::clone(world),
            node,
            container: container.clone(),
        }
    }

    fn node(&self) -> &Node {
        &self.world.nodes[self.node]
    }

    fn client(&self, deadline: Duration) -> Client {
        Client::on(&self.world, self.node, deadline)
    }

    /// The kernel, or a disk, takes a while.
    async fn pause(&self) {
        self.world
            .dawdle(Duration::ZERO, Duration::from_millis(3))
            .await;
    }

    /// ADD: its addresses.
    ///
    /// # Errors
    /// What the runtime is told; what this call made is taken back, or journalled to be.
    pub async fn add(&self) -> Result<Vec<IpAddr>, Failure> {
        let store = self.client(STORE_LIMIT);
        self.finish(&store).await?;
        if self.container.is_addresses_only() {
            return self.add_addresses(&store).await;
        }
        let names = self.container.host_interfaces();
        self.pause().await;
        let mut host_name = self.free_name(&names);
        loop {
            let mut recording = Recording::new(self, host_name.clone());
            let assigned = Allocator::new(&store)
                .assign(&self.request(), &mut recording)
                .await?;
            let addresses: Vec<IpAddr> = match &assigned {
                Assignment::Made { assigned, .. } => {
                    assigned.iter().map(|assigned| assigned.address).collect()
                }
                Assignment::Stopped => Vec::new(),
            };
            if let Some(earlier) = recording.earlier.take() {
                self.hand_over(&store, &host_name, &earlier).await?;
                continue;
            }
            let recorded = recording.found.take();
            let made = match &recorded {
                None => self.make(&host_name, &addresses).await,
                Some(found) => self.make_again(&store, found).await,
            };
            let failed = match made {
                Ok(addresses) => return Ok(addresses),
                Err(failed) => failed,
            };
            if recorded.is_some() {
                return Err(failed);
            }
            self.undo().await;
            let taken = failed == Failure::Kernel(Refused::HostInterfaceExists);
            if !taken || host_name == names[1] {
                return Err(failed);
            }
            host_name.clone_from(&names[1]);
        }
    }

    async fn add_addresses(&self, store: &Client) -> Result<Vec<IpAddr>, Failure> {
        let assigned = Allocator::new(store)
            .assign(&self.request(), &mut NoCompanion)
            .await?;
        match assigned {
            Assignment::Made { assigned, .. } => {
                Ok(assigned.iter().map(|assigned| assigned.address).collect())
            }
            Assignment::Stopped => Ok(Vec::new()),
        }
    }

    /// DEL: interfaces first, then record and addresses, or a file in the journal.
    ///
    /// # Errors
    /// Never while the journal can be written (R4).
    pub async fn del(&self) -> Result<(), Failure> {
        if !self.container.is_addresses_only() {
            for name in self.container.host_interfaces() {
                self.pause().await;
                self.take_down(&name, &self.container.mark(), &self.container.handle());
            }
        }
        self.release().await
    }

    /// CHECK: the store and the kernel hold what ADD answered.
    ///
    /// # Errors
    /// In words what is missing; `None` where the store could not be asked.
    pub async fn check(&self, addresses: &[IpAddr]) -> Result<(), Option<String>> {
        let store = self.client(STORE_LIMIT);
        let handle = self.container.handle();
        let reads = [
            Read::Get(Key::Handle(handle.clone())),
            Read::Get(self.container.key(&self.node().name)),
        ];
        let snapshot = store.read_many(&reads).await.map_err(|_| None)?;
        let mut answers = snapshot.answers.into_iter();
        let held = answers.next();
        let record = answers.next().and_then(Answer::into_entry);
        match margay_call::check_addresses(&store, &handle, held, addresses).await {
            Err(error) if error.code == margay_cni::error::code::CHECK_FAILED => {
                return Err(Some(error.to_string()));
            }
            Err(_) => return Err(None),
            Ok(()) => {}
        }
        if self.container.is_addresses_only() {
            return Ok(());
        }
        let Some((record, _)) = record.as_ref().and_then(decode) else {
            return Err(Some(format!("{handle} has no record")));
        };
        if record.spec.container_id.as_deref() != Some(&*self.container.id) {
            return Err(Some(format!("{handle} has another's record")));
        }
        match self.is_intact(&record) {
            true => Ok(()),
            false => Err(Some(format!("{handle} has no interface"))),
        }
    }

    /// Finishes a release of the same attachment that waits in the journal.
    async fn finish(&self, store: &Client) -> Result<(), Failure> {
        let node = self.node();
        let Some(waiting) = node.journal.waiting(&self.container.attachment()) else {
            return Ok(());
        };
        Allocator::new(store)
            .detach(&self.container.detach(&node.name), &|| true)
            .await?;
        let removed = node.journal.remove(&waiting);
        removed.map_err(|error| Failure::Journal(error.to_string()))
    }

    async fn release(&self) -> Result<(), Failure> {
        let (node, store) = (self.node(), self.client(PATIENCE));
        let waiting = node.journal.waiting(&self.container.attachment());
        let detach = self.container.detach(&node.name);
        let allocator = Allocator::new(&store);
        let detached = timeout(PATIENCE, allocator.detach(&detach, &|| true)).await;
        let failed = |error: margay_journal::JournalError| Failure::Journal(error.to_string());
        if let Ok(Ok(_)) = detached {
            return match waiting {
                Some(waiting) => node.journal.remove(&waiting).map_err(failed),
                None => Ok(()),
            };
        }
        self.pause().await;
        let written = node.journal.write(&self.container.release(&node.name));
        self.world
            .note(|| format!("{} is journalled", self.container.handle()));
        written.map(|_| ()).map_err(failed)
    }

    async fn undo(&self) {
        // Its failure is only logged.
        let _ = self.release().await;
    }

    fn request(&self) -> Request {
        Request {
            node: self.node().name.clone(),
            handle: self.container.handle(),
            interface: IFNAME.to_owned(),
            owner: Default::default(),
            wants: self.container.wants.clone(),
            purpose: AllowedUse::Workload,
            max_blocks: None,
            namespace_labels: None,
            hints: Vec::new(),
            quarantine: Default::default(),
            now: clock(),
        }
    }

    /// The DEL of an earlier container of the same pod, which may never come.
    async fn hand_over(
        &self,
        store: &Client,
        host_name: &str,
        earlier: &(WorkloadEndpoint, Revision),
    ) -> Result<(), Failure> {
        self.take_over(host_name, Some(earlier)).await;
        let mut detach = self.container.detach(&self.node().name);
        detach.container_id = earlier.0.spec.container_id.clone().unwrap_or_default();
        detach.handle = format!("{}.{}", self.container.network, detach.container_id);
        detach.legacy_handle = None;
        detach.endpoint_at = Some(earlier.1);
        Allocator::new(store).detach(&detach, &|| true).await?;
        Ok(())
    }

    /// The first of the names that no other endpoint's interface has.
    fn free_name(&self, names: &[String; 2]) -> String {
        let kernel = self.node().kernel();
        let mark = self.container.mark();
        let free = match kernel.interface(&names[0]) {
            None => true,
            Some(held) => match held.mark.as_deref() {
                None => held.namespace == self.container.namespace,
                Some(held) => held == mark.as_str() || self.is_earlier(held),
            },
        };
        names[usize::from(!free)].clone()
    }

    /// Whether a mark is that of an earlier container of the same pod.
    fn is_earlier(&self, mark: &str) -> bool {
        self.container.pod.is_some()
            && Mark::container_of(mark, self.container.network, IFNAME).is_some()
    }

    async fn make(&self, host_name: &str, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, Failure> {
        self.take_over(host_name, None).await;
        self.set_up(host_name, addresses).await?;
        Ok(addresses.to_vec())
    }

    /// The endpoint as an earlier call for the same container recorded it.
    async fn make_again(
        &self,
        store: &Client,
        (held, revision): &(WorkloadEndpoint, Revision),
    ) -> Result<Vec<IpAddr>, Failure> {
        let addresses = addresses_of(held);
        self.pause().await;
        if self.is_intact(held) {
            return Ok(addresses);
        }
        let value = held.encode().unwrap();
        let batch = Batch::of([Write::update(held.key(), value, *revision)]);
        match store.commit(&batch).await? {
            Outcome::Committed(_) => {}
            Outcome::Conflict(_) => return Err(Failure::TryAgain),
        }
        let host_name = held.spec.interface_name.clone().unwrap_or_default();
        self.take_over(&host_name, None).await;
        self.set_up(&host_name, &addresses).await?;
        Ok(addresses)
    }

    fn is_intact(&self, held: &WorkloadEndpoint) -> bool {
        let kernel = self.node().kernel();
        let name = held.spec.interface_name.as_deref().unwrap_or_default();
        kernel.interface(name).is_some_and(|interface| {
            interface.namespace == self.container.namespace
                && interface.mark.as_deref() == Some(self.container.mark().as_str())
                && interface.addresses == addresses_of(held)
        })
    }

    /// Deletes the interfaces of earlier containers of the same pod.
    async fn take_over(&self, host_name: &str, recorded: Option<&(WorkloadEndpoint, Revision)>) {
        if self.container.pod.is_none() {
            return;
        }
        self.pause().await;
        let held = self.node().kernel().interface(host_name).cloned();
        let alias = held.and_then(|held| held.mark).unwrap_or_default();
        let named = Mark::container_of(&alias, self.container.network, IFNAME)
            .filter(|id| *id != self.container.id)
            .map(|id| (host_name.to_owned(), id.to_owned()));
        let recorded = recorded.and_then(|(held, _)| {
            let id = held.spec.container_id.clone()?;
            (id != self.container.id).then_some((held.spec.interface_name.clone()?, id))
        });
        for (name, id) in named.into_iter().chain(recorded) {
            let mark = Mark::new(self.container.network, &id, IFNAME);
            let handle = format!("{}.{id}", self.container.network);
            self.take_down(&name, &mark, &handle);
        }
    }

    fn take_down(&self, name: &str, mark: &Mark, handle: &str) {
        let node = self.node();
        let gone = node.kernel().delete(name, mark);
        if let Some(gone) = gone {
            self.world.note(|| format!("{handle}: {name} is deleted"));
            let mut auditor = self.world.auditor();
            auditor.vacate(&node.name, handle, &gone.addresses);
        }
    }

    async fn set_up(&self, name: &str, addresses: &[IpAddr]) -> Result<(), Failure> {
        self.pause().await;
        let (node, mark) = (self.node(), self.container.mark());
        let namespace = self.container.namespace;
        let replaced = node.kernel().create(name, namespace, &mark)?;
        self.forget(&replaced);
        let configured = self.configure(name, addresses).await;
        if configured.is_err() {
            self.take_down(name, &mark, &self.container.handle());
        }
        configured
    }

    async fn configure(&self, name: &str, addresses: &[IpAddr]) -> Result<(), Failure> {
        let (node, namespace) = (self.node(), self.container.namespace);
        self.pause().await;
        let mark = self.container.mark().as_str().to_owned();
        node.kernel()
            .change(name, namespace, |held| held.mark = Some(mark))?;
        self.pause().await;
        node.kernel().change(name, namespace, |held| {
            held.addresses = addresses.to_vec();
        })?;
        self.world
            .note(|| format!("{}: {name} has {addresses:?}", self.container.handle()));
        let handle = self.container.handle();
        let verdict = self.world.auditor().occupy(&node.name, &handle, addresses);
        self.world.judge(verdict);
        self.pause().await;
        // The last step asks for the link once more.
        node.kernel().change(name, namespace, |_| {})?;
        Ok(())
    }

    fn forget(&self, gone: &[Interface]) {
        let mut auditor = self.world.auditor();
        for interface in gone {
            auditor.vacate(
                &self.node().name,
                &self.container.handle(),
                &interface.addresses,
            );
        }
    }
}

/// Writes the endpoint in the commit of its addresses, as the network plugin's own companion does.
#[derive(Debug)]
struct Recording<'a> {
    call: &'a Call,
    host_name: String,
    found: Option<(WorkloadEndpoint, Revision)>,
    earlier: Option<(WorkloadEndpoint, Revision)>,
}

impl<'a> Recording<'a> {
    fn new(call: &'a Call, host_name: String) -> Self {
        Self {
            call,
            host_name,
            found: None,
            earlier: None,
        }
    }
}

impl Companion for Recording<'_> {
    type Error = IpamError;

    fn reads(&self) -> Vec<Read> {
        vec![Read::Get(self.call.container.key(&self.call.node().name))]
    }

    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed, IpamError> {
        (self.found, self.earlier) = (None, None);
        let held = answers.first().and_then(|answer| answer.entries.first());
        let Some(held) = held.and_then(decode) else {
            return Ok(Proceed::Go);
        };
        if held.0.spec.container_id.as_deref() == Some(&*self.call.container.id) {
            self.found = Some(held);
        } else {
            self.earlier = Some(held);
        }
        Ok(Proceed::Stop)
    }

    fn writes(&mut self, addresses: &[IpAddr]) -> Result<Vec<Write>, IpamError> {
        let (container, node) = (&self.call.container, &self.call.node().name);
        let name = container.name(node);
        let mut metadata = Metadata::namespaced("default", name.encode().unwrap());
        metadata.creation_timestamp = Some(clock().rfc3339());
        let networks = addresses.iter().map(|address| Cidr::host(*address));
        let spec = WorkloadEndpointSpec {
            orchestrator: Some(name.orchestrator),
            node: Some(node.clone()),
            container_id: Some(container.id.clone()),
            pod: container.pod.clone(),
            endpoint: Some(IFNAME.to_owned()),
            ip_networks: networks.map(|cidr| cidr.to_string()).collect(),
            profiles: vec![container.network.to_owned()],
            interface_name: Some(self.host_name.clone()),
            ..WorkloadEndpointSpec::default()
        };
        let endpoint = WorkloadEndpoint::new(metadata, spec);
        let value = endpoint.encode().unwrap();
        Ok(vec![Write::create(endpoint.key(), value)])
    }
}

fn decode(entry: &Entry) -> Option<(WorkloadEndpoint, Revision)> {
    let held = WorkloadEndpoint::decode(&entry.value).ok()?;
    Some((held, entry.revision))
}

const IFNAME: &str = "eth0";
/// How long one call to the store may take, as `margay-datastore` has it.
const STORE_LIMIT: Duration = Duration::from_secs(10);
/// How long a DEL waits for the store before it journals.
const PATIENCE: Duration = Duration::from_millis(700);
