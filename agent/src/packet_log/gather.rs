//! Packets of a moment, counted: one line tells of all that differ in the sender's port only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_netlink::netfilter::log::Read;
use margay_netlink::netfilter::log::message::{Packet, Transport};

use super::label::Label;

/// What one line tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) label: Label,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// The receiver's port.
    pub(crate) port: Option<u16>,
    /// Type and code of ICMP.
    pub(crate) icmp: Option<(u8, u8)>,
}

/// The packets of a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gathered {
    /// How often each event was met.
    pub(crate) events: BTreeMap<Event, u64>,
    /// Packets read, whatever became of them.
    pub(crate) read: usize,
    /// Packets of which no line tells: the kernel kept them, or there are too many events.
    pub(crate) lost: u64,
}

impl Gathered {
    /// Takes in what was read; at most `most` events are told.
    pub(crate) fn take(&mut self, read: Read, most: usize) {
        self.lost += read.lost;
        self.read += read.packets.len();
        for packet in read.packets {
            let Some(event) = Event::of(&packet) else {
                continue;
            };
            if let Some(count) = self.events.get_mut(&event) {
                *count += 1;
            } else if self.events.len() < most {
                self.events.insert(event, 1);
            } else {
                self.lost += 1;
            }
        }
    }

    /// The addresses of all events.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let ends = self.events.keys();
        ends.flat_map(|event| [event.source, event.destination])
            .collect()
    }
}

impl Event {
    /// `None` for what others have logged to our group.
    fn of(packet: &Packet) -> Option<Self> {
        let (port, icmp) = match packet.transport {
            Transport::Ports { destination, .. } => (Some(destination), None),
            Transport::Icmp { kind, code } => (None, Some((kind, code))),
            Transport::Unknown => (None, None),
        };
        Some(Self {
            label: Label::read(&packet.prefix)?,
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            port,
            icmp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(prefix: &str, source_port: u16, port: u16) -> Packet {
        Packet {
            prefix: prefix.to_owned(),
            in_interface: Some(7),
            out_interface: Some(9),
            source: "10.65.0.2".parse().unwrap(),
            destination: "10.65.1.3".parse().unwrap(),
            protocol: 6,
            transport: Transport::Ports {
                source: source_port,
                destination: port,
            },
        }
    }

    fn read(packets: Vec<Packet>, lost: u64) -> Read {
        Read { packets, lost }
    }

    #[test]
    fn what_differs_in_the_senders_port_only_is_one_event() {
        let mut gathered = Gathered::default();
        let deny = "Di|default|GlobalNetworkPolicy/p|0";
        let first = vec![
            packet(deny, 1, 80),
            packet(deny, 2, 80),
            packet(deny, 1, 81),
        ];
        gathered.take(read(first, 0), 10);
        gathered.take(
            read(vec![packet(deny, 3, 80), packet("other", 1, 80)], 2),
            10,
        );
        let counts: Vec<_> = gathered.events.iter().map(|(e, n)| (e.port, *n)).collect();
        assert_eq!(counts, [(Some(80), 3), (Some(81), 1)]);
        assert_eq!((gathered.read, gathered.lost), (5, 2));
        assert_eq!(gathered.addresses().len(), 2);
    }

    #[test]
    fn events_beyond_the_budget_are_counted_and_no_more() {
        let mut gathered = Gathered::default();
        let packets = (0..100).map(|port| packet("D|reason", 1, port)).collect();
        gathered.take(read(packets, 0), 10);
        // Those that are told already are told on.
        gathered.take(read(vec![packet("D|reason", 9, 0)], 0), 10);
        assert_eq!((gathered.events.len(), gathered.lost), (10, 90));
        assert_eq!(gathered.events.values().sum::<u64>(), 11);
    }
}
