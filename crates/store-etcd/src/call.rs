//! One call: endpoints in turn, within one deadline.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, LeaseClient, TlsOptions, WatchClient,
};
use margay_store::{Revision, StoreError};
use tokio::time::Instant;

use crate::Options;
use crate::fault::Fault;

/// The endpoints, with a client of each once it was needed.
#[derive(Debug)]
pub(crate) struct Cluster {
    options: Options,
    target: String,
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last.
    good: AtomicUsize,
}

#[derive(Debug)]
struct Endpoint {
    url: String,
    member: Mutex<Option<Member>>,
}

/// A client of one endpoint.
#[derive(Clone)]
pub(crate) struct Member(Client);

/// A call in progress.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    cluster: &'a Cluster,
    operation: &'static str,
    until: Instant,
}

/// Why all attempts of a call failed.
#[derive(Debug)]
pub(crate) struct Exhausted {
    pub(crate) fault: Fault,
    /// Whether an attempt may have been applied all the same.
    pub(crate) maybe_applied: bool,
    /// Whether it was time that ran out.
    pub(crate) late: bool,
}

impl Cluster {
    pub(crate) fn new(options: Options) -> Self {
        let endpoints = options.endpoints.iter();
        let endpoints = endpoints.map(|url| Endpoint {
            url: url.clone(),
            member: Mutex::new(None),
        });
        Self {
            target: options.endpoints.join(", "),
            endpoints: endpoints.collect(),
            good: AtomicUsize::new(0),
            options,
        }
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn call(&self, operation: &'static str) -> Call<'_> {
        Call {
            cluster: self,
            operation,
            until: Instant::now() + self.options.deadline,
        }
    }

    /// A client of an endpoint. Only with a user name does this send anything.
    async fn member(&self, endpoint: &Endpoint) -> Result<Member, Fault> {
        if let Some(member) = lock(&endpoint.member).clone() {
            return Ok(member);
        }
        let count = u32::try_from(self.endpoints.len())
            .unwrap_or(u32::MAX)
            .max(1);
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.options.deadline / count / 2)
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if endpoint.url.starts_with("https://") {
            options = options.with_tls(self.tls());
        }
        if let Some((name, password)) = &self.options.user {
            options = options.with_user(name, password);
        }
        let client = Client::connect([&endpoint.url], Some(options)).await?;
        let member = Member(client);
        *lock(&endpoint.member) = Some(member.clone());
        Ok(member)
    }

    fn tls(&self) -> TlsOptions {
        let mut tls = TlsOptions::new();
        if let Some(authorities) = &self.options.tls.authorities {
            tls = tls.ca_certificate(Certificate::from_pem(authorities));
        }
        if let Some((certificate, key)) = &self.options.tls.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        tls
    }
}

impl Member {
    pub(crate) fn kv(&self) -> KvClient {
        self.0.kv_client().max_decoding_message_size(LARGEST_ANSWER)
    }

    pub(crate) fn lease(&self) -> LeaseClient {
        self.0.lease_client()
    }

    pub(crate) fn watch(&self) -> WatchClient {
        self.0
            .watch_client()
            .max_decoding_message_size(LARGEST_ANSWER)
    }
}

impl Call<'_> {
    /// Attempts a request that may be repeated, until one endpoint answers or time is over.
    pub(crate) async fn run<T, F: Future<Output = Result<T, Fault>> + Send>(
        &self,
        attempt: impl Fn(Member) -> F + Send + Sync,
    ) -> Result<T, StoreError> {
        loop {
            match self.round(&attempt, |_| true).await {
                Ok(answer) => return Ok(answer),
                Err(exhausted) if self.again(&exhausted).await => {}
                Err(exhausted) => return Err(self.error(exhausted)),
            }
        }
    }

    /// Attempts a request at each endpoint once, in turn, while `next` wants to go on after a fault.
    pub(crate) async fn round<T, F: Future<Output = Result<T, Fault>> + Send>(
        &self,
        attempt: impl Fn(Member) -> F + Send + Sync,
        next: impl Fn(&Fault) -> bool + Send,
    ) -> Result<T, Exhausted> {
        let count = self.cluster.endpoints.len();
        let first = self.cluster.good.load(Ordering::Relaxed);
        let mut worst: Option<Exhausted> = None;
        for turn in 0..count {
            let index = (first + turn) % count;
            let endpoint = &self.cluster.endpoints[index];
            let left = self.until.saturating_duration_since(Instant::now());
            let shares = u32::try_from(count - turn).unwrap_or(u32::MAX);
            let sent = AtomicBool::new(false);
            let request = async {
                let member = self.cluster.member(endpoint).await?;
                sent.store(true, Ordering::Relaxed);
                attempt(member).await
            };
            let (fault, late) = match tokio::time::timeout(left / shares, request).await {
                Ok(Ok(answer)) => {
                    self.cluster.good.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(fault)) => (fault, false),
                Err(_) => (Fault::Unanswered("no answer in time".to_owned()), true),
            };
            let sent = sent.into_inner() && !matches!(fault, Fault::Unreached(_));
            let exhausted = Exhausted {
                maybe_applied: sent && fault.elsewhere(),
                late,
                fault: named(fault, &endpoint.url),
            };
            if !exhausted.fault.elsewhere() {
                return Err(exhausted);
            }
            // The connection may be dead without knowing; the next attempt makes another.
            *lock(&endpoint.member) = None;
            let go_on = next(&exhausted.fault);
            worst = Some(match worst {
                None => exhausted,
                Some(before) => Exhausted {
                    maybe_applied: before.maybe_applied || exhausted.maybe_applied,
                    late: before.late || exhausted.late,
                    fault: joined(before.fault, &exhausted.fault),
                },
            });
            if !go_on {
                break;
            }
        }
        Err(worst.unwrap_or_else(|| Exhausted {
            fault: Fault::Refused("no endpoint is configured".to_owned()),
            maybe_applied: false,
            late: false,
        }))
    }

    /// Waits a little before another round, if one makes sense: a member answered, but has no leader for
    /// instance. Where nobody listens the caller learns that at once.
    pub(crate) async fn again(&self, exhausted: &Exhausted) -> bool {
        let answered = matches!(exhausted.fault, Fault::Busy(_) | Fault::Unanswered(_));
        if !answered || Instant::now() + PAUSE >= self.until {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
        true
    }

    pub(crate) fn error(&self, exhausted: Exhausted) -> StoreError {
        let target = self.cluster.target.clone();
        let operation = self.operation;
        match exhausted.fault {
            Fault::Unanswered(_) | Fault::Busy(_) | Fault::Unreached(_)
                if exhausted.late && Instant::now() >= self.until =>
            {
                StoreError::Deadline {
                    target,
                    operation,
                    after: self.cluster.options.deadline,
                }
            }
            Fault::Unreached(reason) | Fault::Unanswered(reason) | Fault::Busy(reason) => {
                StoreError::Unavailable { target, reason }
            }
            Fault::Compacted => StoreError::Compacted {
                asked: Revision(0),
                oldest: Revision(0),
            },
            Fault::Denied(reason) => StoreError::Denied {
                target,
                operation,
                reason: format!("{reason}; check the certificate or user and its roles"),
            },
            Fault::Missing(reason) | Fault::Refused(reason) => self.failed(reason),
        }
    }

    pub(crate) fn unknown(&self, reason: String) -> StoreError {
        StoreError::Unknown {
            target: self.cluster.target.clone(),
            operation: self.operation,
            reason,
        }
    }

    pub(crate) fn failed(&self, reason: String) -> StoreError {
        StoreError::Failed {
            target: self.cluster.target.clone(),
            operation: self.operation,
            reason,
        }
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Member")
    }
}

/// Puts the endpoint before what it said.
fn named(fault: Fault, url: &str) -> Fault {
    match fault {
        Fault::Unreached(reason) => Fault::Unreached(format!("{url}: {reason}")),
        Fault::Unanswered(reason) => Fault::Unanswered(format!("{url}: {reason}")),
        Fault::Busy(reason) => Fault::Busy(format!("{url}: {reason}")),
        other => other,
    }
}

/// What two endpoints said; the more promising fault names the kind.
fn joined(one: Fault, two: &Fault) -> Fault {
    let reason = format!("{}; {}", one.reason(), two.reason());
    match (&one, two) {
        (Fault::Busy(_), _) | (_, Fault::Busy(_)) => Fault::Busy(reason),
        (Fault::Unanswered(_), _) | (_, Fault::Unanswered(_)) => Fault::Unanswered(reason),
        _ => Fault::Unreached(reason),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A range of many thousand entries in one answer; tonic's own limit is 4 MiB.
const LARGEST_ANSWER: usize = 512 << 20;

/// etcd breaks with clients that ask more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between rounds over the endpoints.
const PAUSE: Duration = Duration::from_millis(100);
