//! The task that owns a speaker.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use margay_bgp::{ConnectionId, Event, Output, Password, Refusal, Speaker, SpeakerConfig};
use margay_model::Cidr;
use margay_netlink::tcp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::admission::{Admission, Expected, Verdict};
use crate::connection::{Connection, Incoming, Progress};
use crate::error::Error;
use crate::handle::{Command, Handle, News, NewsReceiver, Peers};
use crate::socket;

/// What a speaker starts with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where peers may connect to.
    pub listen: Vec<SocketAddr>,
    /// What the speaker is to do.
    pub speaker: SpeakerConfig,
    /// Any number, different from start to start and from node to node.
    pub seed: u64,
    /// Whether the kernel still forwards by the routes of an earlier speaker.
    pub restarting: bool,
}

struct Shell {
    speaker: Speaker,
    start: Instant,
    connections: HashMap<ConnectionId, Connection>,
    listeners: BTreeMap<SocketAddr, Listener>,
    /// The passwords that listeners have, by range.
    passwords: BTreeMap<Cidr, Password>,
    /// Where peers are expected, for those that accept connections.
    expected: watch::Sender<Arc<Expected>>,
    /// How many connections were refused because too many came.
    throttled: Arc<AtomicU64>,
    incoming: mpsc::Sender<Incoming>,
    pending: News,
    /// Octets on their way from the speaker to a socket.
    scratch: Vec<u8>,
    /// Tasks that end soon, after a last word was written.
    lingering: Vec<JoinHandle<()>>,
}

/// Who decides which connections to one address are taken.
struct Gate {
    admission: Admission,
    start: Instant,
    expected: watch::Receiver<Arc<Expected>>,
    throttled: Arc<AtomicU64>,
}

struct Listener {
    socket: Arc<TcpListener>,
    task: JoinHandle<()>,
}

/// Starts a speaker on the present runtime.
///
/// # Errors
/// [`Error::Listen`] when a listening socket cannot be had.
///
/// # Panics
/// Outside a tokio runtime with I/O and time enabled.
pub fn start(settings: Settings) -> Result<(Handle, NewsReceiver), Error> {
    let (commands, command_receiver) = mpsc::channel(COMMANDS);
    let (incoming, incoming_receiver) = mpsc::channel(INCOMING);
    let (news, news_receiver) = mpsc::channel(1);
    let config = settings.speaker;
    let passwords = config.password_keys();
    let (expected, _) = watch::channel(Arc::new(Expected::of(&config)));
    let mut shell = Shell {
        speaker: Speaker::new(config, Duration::ZERO, settings.seed, settings.restarting),
        start: Instant::now(),
        connections: HashMap::new(),
        listeners: BTreeMap::new(),
        passwords: BTreeMap::new(),
        expected,
        throttled: Arc::default(),
        incoming,
        pending: News::default(),
        scratch: Vec::new(),
        lingering: Vec::new(),
    };
    for address in settings.listen {
        shell.listen(address)?;
    }
    shell.set_passwords(passwords);
    shell.perform();
    tokio::spawn(shell.run(command_receiver, incoming_receiver, news));
    Ok((
        Handle { commands },
        NewsReceiver {
            news: news_receiver,
        },
    ))
}

impl Shell {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut incoming: mpsc::Receiver<Incoming>,
        news: mpsc::Sender<News>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self
                .speaker
                .deadline()
                .map(|deadline| self.start + deadline);
            let never = self.start + NEVER;
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop(how, answer)) => {
                        self.speaker.stop(self.now(), &how);
                        self.perform();
                        self.linger().await;
                        let _ = answer.send(());
                        return;
                    }
                    Some(command) => self.command(command),
                    // Nobody is left to ask for a stop: as if the process had ended.
                    None => return self.linger().await,
                },
                _ = incoming.recv_many(&mut batch, BATCH) => {
                    for one in batch.drain(..) {
                        self.take(one);
                    }
                }
                () = sleep_until(deadline.map_or(never, |deadline| deadline.min(never))) => {
                    self.speaker.tick(self.now());
                }
                permit = news.reserve(), if !self.pending.is_empty() => {
                    if let Ok(permit) = permit {
                        permit.send(std::mem::take(&mut self.pending));
                    } else {
                        // Nobody wants news.
                        self.pending = News::default();
                    }
                    continue;
                }
            }
            self.perform();
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Configure(config) => {
                self.set_passwords(config.password_keys());
                self.expected.send_replace(Arc::new(Expected::of(&config)));
                self.speaker.configure(now, *config);
            }
            Command::Listen(addresses, answer) => {
                let _ = answer.send(self.listen_only(addresses));
            }
            Command::Announce(routes) => {
                routes
                    .into_iter()
                    .for_each(|route| self.speaker.announce(route));
            }
            Command::Withdraw(prefixes) => {
                prefixes
                    .iter()
                    .for_each(|prefix| self.speaker.withdraw(prefix));
            }
            Command::SetLocalRoutes(routes) => self.speaker.set_local_routes(routes),
            Command::SetNextHops(metrics) => self.speaker.set_next_hops(metrics),
            Command::Reset(peer, answer) => {
                let _ = answer.send(self.speaker.reset(now, &peer));
            }
            Command::RefreshIn(peer, answer) => {
                let _ = answer.send(self.speaker.refresh_in(now, &peer));
            }
            Command::RefreshOut(peer, answer) => {
                let _ = answer.send(self.speaker.refresh_out(&peer));
            }
            Command::Peers(answer) => {
                let _ = answer.send(Peers {
                    now,
                    peers: self.speaker.peers(),
                    throttled: self.throttled.load(Ordering::Relaxed),
                });
            }
            Command::Received(peer, answer) => {
                let _ = answer.send(self.speaker.received_routes(&peer));
            }
            Command::Advertised(peer, answer) => {
                let _ = answer.send(self.speaker.advertised_routes(&peer));
            }
            Command::Table(answer) => {
                let _ = answer.send(self.speaker.table().collect());
            }
            // Handled where the loop can end.
            Command::Stop(..) => {}
        }
    }

    fn take(&mut self, incoming: Incoming) {
        let now = self.now();
        match incoming {
            Incoming::Accepted(stream) => self.accept(stream),
            Incoming::Throttled(address) => {
                let reason = Refusal::TooMany;
                self.note(Event::ConnectionRefused { address, reason });
            }
            Incoming::Connected(id, stream) => {
                let Ok(local) = stream.local_addr() else {
                    return self.lost(id, "the socket has no address");
                };
                if self.connections.contains_key(&id) {
                    let connection = Connection::open(id, stream, self.incoming.clone());
                    self.connections.insert(id, connection);
                    self.speaker.connected(now, id, local.ip());
                }
            }
            Incoming::Octets(id, octets) => self.speaker.received(now, id, &octets),
            Incoming::Writable(id) => {
                let Some(connection) = self.connections.get_mut(&id) else {
                    return;
                };
                if connection.resume(id, &self.incoming) == Progress::Done {
                    self.transmit(id);
                }
            }
            Incoming::Closed(id, why) => self.lost(id, &why),
        }
    }

    fn accept(&mut self, stream: TcpStream) {
        let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else {
            return;
        };
        let now = self.now();
        // Whoever is refused sees the connection close.
        let Ok((id, options)) = self.speaker.accept(now, local.ip(), remote.ip()) else {
            return;
        };
        match socket::set_ttls(&stream, remote.ip(), &options) {
            Ok(()) => {
                let connection = Connection::open(id, stream, self.incoming.clone());
                self.connections.insert(id, connection);
            }
            Err(error) => self.speaker.closed(now, id, &error.to_string()),
        }
    }

    fn lost(&mut self, id: ConnectionId, why: &str) {
        self.connections.remove(&id);
        self.speaker.closed(self.now(), id, why);
    }

    /// Does what the speaker says.
    fn perform(&mut self) {
        let now = self.now();
        for output in self.speaker.poll(now) {
            match output {
                Output::Connect { connection, target } => {
                    let to = self.incoming.clone();
                    let task = tokio::spawn(async move {
                        let made = match socket::connect(target).await {
                            Ok(stream) => Incoming::Connected(connection, stream),
                            Err(error) => Incoming::Closed(connection, error.to_string()),
                        };
                        let _ = to.send(made).await;
                    });
                    self.connections
                        .insert(connection, Connection::connecting(task));
                }
                Output::Transmit(id) => self.transmit(id),
                Output::Close { connection, last } => {
                    if let Some(connection) = self.connections.remove(&connection) {
                        self.lingering.extend(connection.close(&last));
                    }
                }
                Output::Best { prefix, best } => {
                    self.pending.best.insert(prefix, best);
                }
                Output::Converged => self.pending.converged = true,
                Output::Event(event) => self.note(event),
            }
        }
        if self.lingering.len() > LINGERING_SWEEP {
            self.lingering.retain(|task| !task.is_finished());
        }
    }

    fn note(&mut self, event: Event) {
        if self.pending.events.len() < EVENTS_MAX {
            self.pending.events.push(event);
        } else {
            self.pending.events_lost += 1;
        }
    }

    /// Writes what the speaker has for a connection, as far as its socket takes it.
    fn transmit(&mut self, id: ConnectionId) {
        let now = self.now();
        loop {
            let free = self
                .connections
                .get_mut(&id)
                .filter(|connection| !connection.is_blocked());
            let Some(connection) = free else {
                return;
            };
            self.scratch.clear();
            let more = self.speaker.transmit(now, id, &mut self.scratch);
            let progress = connection.write(id, &self.scratch, &self.incoming);
            if !more || progress != Progress::Done {
                // Once the socket takes octets again, it goes on.
                return;
            }
        }
    }

    /// Waits for peers to hear last words, and for the listening sockets to close.
    async fn linger(&mut self) {
        let mut tasks = std::mem::take(&mut self.lingering);
        for (_, listener) in std::mem::take(&mut self.listeners) {
            listener.task.abort();
            tasks.push(listener.task);
        }
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        let _ = timeout(LINGER_MAX, all).await;
    }

    fn listen_only(&mut self, addresses: Vec<SocketAddr>) -> Result<(), Error> {
        self.listeners.retain(|address, listener| {
            let stays = addresses.contains(address);
            if !stays {
                listener.task.abort();
            }
            stays
        });
        let mut result = Ok(());
        for address in addresses {
            if !self.listeners.contains_key(&address) {
                let opened = self.listen(address);
                result = result.and(opened);
            }
        }
        result
    }

    fn listen(&mut self, address: SocketAddr) -> Result<(), Error> {
        let opened = socket::listen(address);
        let socket = Arc::new(opened.map_err(|source| Error::Listen { address, source })?);
        let gate = Gate {
            admission: Admission::default(),
            start: self.start,
            expected: self.expected.subscribe(),
            throttled: Arc::clone(&self.throttled),
        };
        let accepting = accept_all(Arc::clone(&socket), gate, self.incoming.clone());
        let task = tokio::spawn(accepting);
        let listener = Listener { socket, task };
        for (range, password) in &self.passwords {
            listener.set_password(address, *range, password.as_bytes(), &mut self.pending);
        }
        self.listeners.insert(address, listener);
        Ok(())
    }

    /// Gives the listening sockets these passwords and takes others away.
    fn set_passwords(&mut self, wanted: Vec<(Cidr, Password)>) {
        let wanted: BTreeMap<_, _> = wanted.into_iter().collect();
        let before = std::mem::replace(&mut self.passwords, wanted);
        for (address, listener) in &self.listeners {
            for range in before
                .keys()
                .filter(|range| !self.passwords.contains_key(range))
            {
                listener.set_password(*address, *range, &[], &mut self.pending);
            }
            for (range, password) in &self.passwords {
                if before.get(range) != Some(password) {
                    listener.set_password(*address, *range, password.as_bytes(), &mut self.pending);
                }
            }
        }
    }
}

impl Listener {
    fn set_password(&self, address: SocketAddr, range: Cidr, key: &[u8], news: &mut News) {
        if address.is_ipv4() != range.address().is_ipv4() {
            return;
        }
        if let Err(source) = tcp::set_md5_key(&*self.socket, range.network(), key) {
            news.password_errors
                .push(Error::Password { range, source }.to_string());
        }
    }
}

impl News {
    fn is_empty(&self) -> bool {
        self.best.is_empty()
            && !self.converged
            && self.events.is_empty()
            && self.password_errors.is_empty()
    }
}

impl Gate {
    /// Whether a connection is taken; if it is not, whether people are to be told.
    fn admit(&mut self, address: IpAddr) -> Verdict {
        let expected = Arc::clone(&self.expected.borrow());
        let now = self.start.elapsed();
        let verdict = self.admission.admit(now, address, &expected);
        if verdict != Verdict::Take {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }
}

async fn accept_all(socket: Arc<TcpListener>, mut gate: Gate, to: mpsc::Sender<Incoming>) {
    loop {
        match socket.accept().await {
            Ok((stream, from)) => {
                let address = from.ip().to_canonical();
                if let Verdict::Refuse { tell } = gate.admit(address) {
                    // A reset, so that nothing is left of it here.
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    if tell {
                        // Where there is no room for the word, there is more to tell than this.
                        let _ = to.try_send(Incoming::Throttled(address));
                    }
                    continue;
                }
                if to.send(Incoming::Accepted(stream)).await.is_err() {
                    return;
                }
            }
            // Out of descriptors or memory, or a connection that is gone again.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

const COMMANDS: usize = 256;
const INCOMING: usize = 4096;
const BATCH: usize = 512;
const EVENTS_MAX: usize = 4096;
const LINGERING_SWEEP: usize = 64;
const LINGER_MAX: Duration = Duration::from_millis(500);
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(86_400 * 365);
