//! A network of speakers: time and octets are delivered in order, and nothing else happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::{
    BestRoute, ConnectionId, Event, Families, LocalRoute, Output, PeerConfig, PeerStatus, RemoteAs,
    Speaker, SpeakerConfig, State, Stop,
};
use margay_model::Cidr;
use margay_model::scalar::AsNumber;

/// A network.
pub(crate) struct Net {
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Node>,
    queue: BTreeMap<(Duration, u64), Delivery>,
    ends: BTreeMap<End, End>,
    cut: BTreeSet<(usize, usize)>,
    /// Connections whose octets are held back, as if the receiver did not read.
    stalled: BTreeSet<usize>,
    sequence: u64,
    seed: u64,
}

/// A speaker with its address, and what it told.
pub(crate) struct Node {
    pub(crate) address: IpAddr,
    pub(crate) speaker: Option<Speaker>,
    pub(crate) events: Vec<Event>,
    pub(crate) fib: BTreeMap<Cidr, Arc<BestRoute>>,
    /// Every change of the FIB: when, and whether there was a route afterwards.
    pub(crate) changes: Vec<(Duration, Cidr, bool)>,
    pub(crate) converged: Option<Duration>,
    config: SpeakerConfig,
}

type End = (usize, ConnectionId);

enum Delivery {
    Connect { from: End, to: IpAddr },
    Connected(End),
    Octets(End, Vec<u8>),
    Closed(End, String),
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            stalled: BTreeSet::new(),
            sequence: 0,
            seed,
        }
    }

    /// Adds a speaker that is not started yet, at 10.0.0.N, N counting from 1.
    pub(crate) fn add(&mut self, asn: u32) -> usize {
        let number = u8::try_from(self.nodes.len() + 1).unwrap();
        let address = Ipv4Addr::new(10, 0, 0, number);
        self.nodes.push(Node {
            address: address.into(),
            speaker: None,
            events: Vec::new(),
            fib: BTreeMap::new(),
            changes: Vec::new(),
            converged: None,
            config: SpeakerConfig::new(AsNumber(asn), address),
        });
        self.nodes.len() - 1
    }

    /// Makes two speakers peers of each other; both may connect.
    pub(crate) fn link(&mut self, a: usize, b: usize) {
        self.link_with(a, b, |_, _| ());
    }

    /// As [`Net::link`], changing the configuration of both; the first argument is whose.
    pub(crate) fn link_with(
        &mut self,
        a: usize,
        b: usize,
        change: impl Fn(usize, &mut PeerConfig),
    ) {
        for (here, there) in [(a, b), (b, a)] {
            let (asn, address) = (self.nodes[there].config.asn, self.nodes[there].address);
            let mut peer = PeerConfig::new(address, RemoteAs::Is(asn));
            peer.families = Families::V4;
            change(here, &mut peer);
            self.nodes[here]
                .config
                .peers
                .insert(format!("n{there}"), peer);
        }
    }

    /// Changes a speaker's configuration; takes effect at once if it runs.
    pub(crate) fn configure(&mut self, node: usize, change: impl FnOnce(&mut SpeakerConfig)) {
        change(&mut self.nodes[node].config);
        let (config, now) = (self.nodes[node].config.clone(), self.now);
        if let Some(speaker) = &mut self.nodes[node].speaker {
            speaker.configure(now, config);
        }
        self.poll(node);
    }

    pub(crate) fn peer(&mut self, node: usize, peer: usize, change: impl FnOnce(&mut PeerConfig)) {
        let name = format!("n{peer}");
        self.configure(node, |config| change(config.peers.get_mut(&name).unwrap()));
    }

    pub(crate) fn start(&mut self, node: usize, restarting: bool) {
        self.seed += 1;
        let config = self.nodes[node].config.clone();
        self.nodes[node].converged = None;
        self.nodes[node].speaker = Some(Speaker::new(config, self.now, self.seed, restarting));
        self.poll(node);
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node, false);
        }
    }

    /// Ends a speaker's process: its connections close, and what it has in the FIB stays.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        let lost: Vec<_> = self
            .ends
            .keys()
            .filter(|end| end.0 == node)
            .copied()
            .collect();
        for end in lost {
            if let Some(other) = self.ends.remove(&end) {
                self.deliver(Delivery::Closed(other, "connection reset".to_owned()));
            }
        }
    }

    pub(crate) fn stop(&mut self, node: usize, how: &Stop) {
        let now = self.now;
        self.speaker(node).stop(now, how);
        self.poll(node);
        self.kill(node);
    }

    /// Cuts the wire between two speakers, without either noticing, or mends it.
    pub(crate) fn cut(&mut self, a: usize, b: usize, cut: bool) {
        for pair in [(a, b), (b, a)] {
            if cut {
                self.cut.insert(pair);
            } else {
                self.cut.remove(&pair);
            }
        }
    }

    /// Lets a speaker's sockets take no more octets, or all again.
    pub(crate) fn stall(&mut self, node: usize, stalled: bool) {
        if stalled {
            self.stalled.insert(node);
            return;
        }
        self.stalled.remove(&node);
        let ends: Vec<_> = self
            .ends
            .keys()
            .filter(|end| end.0 == node)
            .copied()
            .collect();
        for end in ends {
            self.transmit(end);
        }
    }

    pub(crate) fn announce(&mut self, node: usize, prefix: &str) {
        self.announce_route(node, LocalRoute::new(prefix.parse().unwrap()));
    }

    pub(crate) fn announce_route(&mut self, node: usize, route: LocalRoute) {
        self.speaker(node).announce(route);
        self.poll(node);
    }

    pub(crate) fn withdraw(&mut self, node: usize, prefix: &str) {
        self.speaker(node).withdraw(&prefix.parse().unwrap());
        self.poll(node);
    }

    pub(crate) fn speaker(&mut self, node: usize) -> &mut Speaker {
        self.nodes[node].speaker.as_mut().expect("the speaker runs")
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let delivery = self.queue.first_key_value().map(|((time, _), _)| *time);
            let deadlines = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(place, node)| Some((node.speaker.as_ref()?.deadline()?, place)));
            let deadline = deadlines.min();
            let next = delivery
                .into_iter()
                .chain(deadline.map(|(time, _)| time))
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if delivery == Some(next) {
                let (_, delivery) = self.queue.pop_first().unwrap();
                self.carry_out(delivery);
            } else if let Some((_, node)) = deadline {
                let now = self.now;
                self.speaker(node).tick(now);
                self.poll(node);
            }
        }
        self.now = end;
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    pub(crate) fn status(&mut self, node: usize, peer: usize) -> PeerStatus {
        let name = format!("n{peer}");
        let peers = self.speaker(node).peers();
        peers.into_iter().find(|peer| *peer.name == *name).unwrap()
    }

    pub(crate) fn is_up(&mut self, node: usize, peer: usize) -> bool {
        self.status(node, peer).state == State::Established
    }

    /// The next hops of a prefix in a speaker's FIB.
    pub(crate) fn next_hops(&self, node: usize, prefix: &str) -> Vec<String> {
        let best = self.nodes[node].fib.get(&prefix.parse().unwrap());
        best.map(|best| best.next_hops.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    pub(crate) fn has(&self, node: usize, prefix: &str) -> bool {
        self.nodes[node].fib.contains_key(&prefix.parse().unwrap())
    }

    fn carry_out(&mut self, delivery: Delivery) {
        let now = self.now;
        let node = match delivery {
            Delivery::Connect { from, to } => {
                self.make_connection(from, to);
                return;
            }
            Delivery::Connected((node, connection)) => {
                let address = self.nodes[node].address;
                let Some(speaker) = &mut self.nodes[node].speaker else {
                    return;
                };
                speaker.connected(now, connection, address);
                node
            }
            Delivery::Octets((node, connection), octets) => {
                let Some(speaker) = &mut self.nodes[node].speaker else {
                    return;
                };
                // In pieces, as TCP does.
                for piece in octets.chunks(1400) {
                    speaker.received(now, connection, piece);
                }
                node
            }
            Delivery::Closed((node, connection), why) => {
                self.ends.remove(&(node, connection));
                let Some(speaker) = &mut self.nodes[node].speaker else {
                    return;
                };
                speaker.closed(now, connection, &why);
                node
            }
        };
        self.poll(node);
    }

    fn make_connection(&mut self, from: End, to: IpAddr) {
        let now = self.now;
        let there = self.nodes.iter().position(|node| node.address == to);
        let there = there.filter(|there| !self.cut.contains(&(from.0, *there)));
        let Some(there) = there else {
            // Nobody answers; the speaker gives up by itself.
            return;
        };
        let source = self.nodes[from.0].address;
        let accepted = self.nodes[there]
            .speaker
            .as_mut()
            .map(|s| s.accept(now, to, source));
        match accepted {
            Some(Ok((connection, _))) => {
                self.ends.insert(from, (there, connection));
                self.ends.insert((there, connection), from);
                self.deliver(Delivery::Connected(from));
            }
            _ => self.deliver(Delivery::Closed(from, "connection refused".to_owned())),
        }
        if self.nodes[there].speaker.is_some() {
            self.poll(there);
        }
    }

    fn poll(&mut self, node: usize) {
        let now = self.now;
        let Some(speaker) = &mut self.nodes[node].speaker else {
            return;
        };
        for output in speaker.poll(now) {
            match output {
                Output::Connect { connection, target } => {
                    let from = (node, connection);
                    self.deliver(Delivery::Connect {
                        from,
                        to: target.address,
                    });
                }
                Output::Transmit(connection) => self.transmit((node, connection)),
                Output::Close { connection, last } => {
                    self.send((node, connection), last);
                    if let Some(other) = self.ends.remove(&(node, connection)) {
                        self.deliver(Delivery::Closed(other, "closed by the peer".to_owned()));
                    }
                }
                Output::Best { prefix, best } => {
                    let there = best.is_some();
                    self.nodes[node].changes.push((now, prefix, there));
                    match best {
                        Some(best) => self.nodes[node].fib.insert(prefix, best),
                        None => self.nodes[node].fib.remove(&prefix),
                    };
                }
                Output::Converged => self.converge(node),
                Output::Event(event) => self.nodes[node].events.push(event),
            }
        }
    }

    /// Takes out of a FIB what an earlier speaker left and the present one does not have.
    fn converge(&mut self, node: usize) {
        let now = self.now;
        let best = self
            .speaker(node)
            .table()
            .filter(|entry| entry.reason.is_some());
        let known: BTreeSet<_> = best.map(|entry| entry.prefix).collect();
        let node = &mut self.nodes[node];
        node.converged = Some(now);
        let gone: Vec<_> = node
            .fib
            .keys()
            .filter(|prefix| !known.contains(prefix))
            .copied()
            .collect();
        for prefix in gone {
            node.fib.remove(&prefix);
            node.changes.push((now, prefix, false));
        }
    }

    fn transmit(&mut self, end: End) {
        if self.stalled.contains(&end.0) {
            return;
        }
        let now = self.now;
        loop {
            let mut octets = Vec::new();
            let Some(speaker) = &mut self.nodes[end.0].speaker else {
                return;
            };
            let more = speaker.transmit(now, end.1, &mut octets);
            self.send(end, octets);
            if !more {
                break;
            }
        }
    }

    fn send(&mut self, end: End, octets: Vec<u8>) {
        if let Some(other) = self.ends.get(&end).copied()
            && !octets.is_empty()
        {
            self.deliver(Delivery::Octets(other, octets));
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let pair = match &delivery {
            Delivery::Octets(to, _) | Delivery::Closed(to, _) => {
                self.ends.get(to).map(|from| (from.0, to.0))
            }
            _ => None,
        };
        if pair.is_some_and(|pair| self.cut.contains(&pair)) {
            return;
        }
        self.sequence += 1;
        let time = self.now + Duration::from_millis(1);
        self.queue.insert((time, self.sequence), delivery);
    }
}
