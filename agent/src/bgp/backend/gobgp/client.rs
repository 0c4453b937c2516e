//! GoBGP's API, as far as it is used.

use std::path::Path;
use std::time::Duration;

use margay_gobgp::{Policies, api};
use margay_model::{Cidr, Family};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// The API of one GoBGP. Whether it answers is seen when it is asked.
#[derive(Debug, Clone)]
pub(super) struct Client {
    channel: Channel,
}

/// What changes in the table.
#[derive(Debug)]
pub(super) struct Events {
    events: mpsc::Receiver<api::TableEvent>,
}

impl Client {
    /// The API at a socket.
    pub(super) fn new(socket: &Path) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .map_err(|error| format!("{}: {error}", socket.display()))?;
        Ok(Self {
            channel: endpoint.connect_lazy(),
        })
    }

    /// How BGP was started.
    pub(super) async fn global(&self) -> Result<Option<api::Global>, String> {
        let told: api::GetBgpResponse = self.ask("GetBgp", api::GetBgpRequest {}).await?;
        Ok(told.global)
    }

    pub(super) async fn begin(&self, global: api::Global) -> Result<(), String> {
        let global = Some(global);
        self.order("StartBgp", api::StartBgpRequest { global })
            .await
    }

    pub(super) async fn stop(&self) -> Result<(), String> {
        self.order("StopBgp", api::StopBgpRequest {}).await
    }

    /// Has these policies in force, and no others; what they do not decide on is rejected.
    pub(super) async fn set_policies(
        &self,
        request: api::SetPoliciesRequest,
    ) -> Result<(), String> {
        self.order("SetPolicies", request).await?;
        for (direction, name) in [(1, Policies::IMPORT), (2, Policies::EXPORT)] {
            let assignment = Some(api::PolicyAssignment {
                name: "global".to_owned(),
                direction,
                policies: vec![api::Policy {
                    name: name.to_owned(),
                    statements: Vec::new(),
                }],
                default_action: REJECT,
            });
            let request = api::SetPolicyAssignmentRequest { assignment };
            self.order("SetPolicyAssignment", request).await?;
        }
        Ok(())
    }

    /// Has all routes weighed again by the policies that are in force now. Sessions stay.
    pub(super) async fn weigh_again(&self) -> Result<(), String> {
        let request = api::ResetPeerRequest {
            address: "all".to_owned(),
            soft: true,
            direction: BOTH,
        };
        self.order("ResetPeer", request).await
    }

    pub(super) async fn add_peer(&self, peer: api::Peer) -> Result<(), String> {
        let peer = Some(peer);
        self.order("AddPeer", api::AddPeerRequest { peer }).await
    }

    pub(super) async fn delete_peer(&self, address: &str) -> Result<(), String> {
        let address = address.to_owned();
        self.order("DeletePeer", api::DeletePeerRequest { address })
            .await
    }

    pub(super) async fn peers(&self) -> Result<Vec<api::Peer>, String> {
        let request = api::ListPeerRequest {
            address: String::new(),
            enable_advertised: true,
        };
        let told: Vec<api::ListPeerResponse> = self.list("ListPeer", request).await?;
        Ok(told.into_iter().filter_map(|told| told.peer).collect())
    }

    pub(super) async fn announce(&self, path: api::Path) -> Result<(), String> {
        let request = api::AddPathRequest {
            table_type: api::TABLE_GLOBAL,
            path: Some(path),
        };
        let _: api::AddPathResponse = self.ask("AddPath", request).await?;
        Ok(())
    }

    pub(super) async fn withdraw(&self, path: api::Path) -> Result<(), String> {
        let request = api::DeletePathRequest {
            table_type: api::TABLE_GLOBAL,
            family: path.family.clone(),
            path: Some(path),
        };
        self.order("DeletePath", request).await
    }

    /// All of a table; of a peer where it is one of a peer's.
    pub(super) async fn paths(
        &self,
        table: i32,
        name: &str,
        family: Family,
    ) -> Result<Vec<api::Destination>, String> {
        self.look_up(table, name, family, Vec::new()).await
    }

    /// One prefix of the table.
    pub(super) async fn prefix(&self, prefix: Cidr) -> Result<Vec<api::Destination>, String> {
        let prefixes = vec![api::TableLookupPrefix {
            prefix: prefix.to_string(),
            kind: 0,
        }];
        self.look_up(api::TABLE_GLOBAL, "", prefix.family(), prefixes)
            .await
    }

    async fn look_up(
        &self,
        table_type: i32,
        name: &str,
        family: Family,
        prefixes: Vec<api::TableLookupPrefix>,
    ) -> Result<Vec<api::Destination>, String> {
        let request = api::ListPathRequest {
            table_type,
            name: name.to_owned(),
            family: Some(api::Family::of(family)),
            prefixes,
            enable_filtered: table_type == api::TABLE_ADJ_IN,
        };
        let told: Vec<api::ListPathResponse> = self.list("ListPath", request).await?;
        Ok(told
            .into_iter()
            .filter_map(|told| told.destination)
            .collect())
    }

    /// Everything that changes in the table from now on.
    pub(super) fn events(&self) -> Events {
        let (tell, events) = mpsc::channel(EVENTS);
        let client = self.clone();
        // GoBGP answers with its first event, which may be long in coming.
        tokio::spawn(async move {
            tokio::select! {
                () = client.watch(&tell) => {}
                () = tell.closed() => {}
            }
        });
        Events { events }
    }

    async fn watch(&self, tell: &mpsc::Sender<api::TableEvent>) {
        let request = api::WatchEventRequest {
            table: Some(api::WatchTable {
                filters: vec![api::WatchFilter {
                    kind: 0,
                    init: false,
                }],
            }),
        };
        let stream = self.stream("WatchEvent", request).await;
        let Ok(mut stream): Result<Streaming<api::WatchEventResponse>, Status> = stream else {
            return;
        };
        while let Ok(Some(event)) = stream.message().await {
            if let Some(table) = event.table
                && tell.send(table).await.is_err()
            {
                return;
            }
        }
    }

    async fn order<Q>(&self, method: &str, request: Q) -> Result<(), String>
    where
        Q: Message + Send + Sync + 'static,
    {
        let _: api::Empty = self.ask(method, request).await?;
        Ok(())
    }

    async fn ask<Q, A>(&self, method: &str, request: Q) -> Result<A, String>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        let asked = async {
            ready(&mut grpc).await?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(Request::new(request), path(method)?, codec)
                .await
        };
        let answer = timeout(PATIENCE, asked).await.map_err(|_| slow())?;
        let answer = answer.map_err(|status| format!("{method}: {}", words(&status)))?;
        Ok(answer.into_inner())
    }

    async fn list<Q, A>(&self, method: &str, request: Q) -> Result<Vec<A>, String>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let asked = async {
            let mut stream = self.stream(method, request).await?;
            let mut all = Vec::new();
            while let Some(one) = stream.message().await? {
                all.push(one);
            }
            Ok::<_, Status>(all)
        };
        match timeout(PATIENCE, asked).await.map_err(|_| slow())? {
            Ok(all) => Ok(all),
            // A table of nobody is empty, and so is one that has nothing of the kind.
            Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
            Err(status) => Err(format!("{method}: {}", words(&status))),
        }
    }

    async fn stream<Q, A>(&self, method: &str, request: Q) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX);
        ready(&mut grpc).await?;
        let codec = ProstCodec::<Q, A>::default();
        let request = Request::new(request);
        let answer = grpc.server_streaming(request, path(method)?, codec).await?;
        Ok(answer.into_inner())
    }
}

impl Events {
    /// The next; `None` when there are no more.
    pub(super) async fn next(&mut self) -> Option<api::TableEvent> {
        self.events.recv().await
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))
}

fn path(method: &str) -> Result<PathAndQuery, Status> {
    let path = format!("{}/{method}", api::SERVICE);
    PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))
}

fn words(status: &Status) -> String {
    status.message().to_owned()
}

fn slow() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest message that is read, in octets.
const MESSAGE_MAX: usize = 64 << 20;
/// Events that wait to be heard.
const EVENTS: usize = 256;
const REJECT: i32 = 2;
const BOTH: i32 = 2;
