//! Connections that the kernel tracks: those of certain addresses, listed and forgotten.
//!
//! An entry outlives the endpoint whose address it names, and established connections pass policy
//! unasked. So entries of an address must go before the address is given to another endpoint, and
//! entries that a tightened policy no longer allows must go after it.
//!
//! The kernel selects (`CTA_FILTER`, Linux 5.8): of a full table only the entries asked for reach
//! this process. An older kernel sends all, and they are selected here.

use std::collections::HashSet;
use std::net::IpAddr;

use nix::errno::Errno;

use crate::netfilter::connection::Connection;
use crate::netfilter::error::{Error, Result};
use crate::netfilter::wire::{
    self, Attributes, Encoder, Header, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
};
use crate::{Namespace, RequestError};

/// A connection to the kernel's connection tracking in one namespace.
#[derive(Debug)]
pub struct Conntrack {
    connection: Connection,
}

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flow {
    /// As its first packet was.
    pub original: Tuple,
    /// As its answers are: address translation makes the difference.
    pub reply: Tuple,
    key: Key,
}

/// Who speaks with whom, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The sender's port, if the protocol has ports.
    pub source_port: Option<u16>,
    /// The receiver's port, if the protocol has ports.
    pub destination_port: Option<u16>,
}

/// What names an entry to the kernel, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    original: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

impl Conntrack {
    /// Connects inside a namespace.
    ///
    /// # Errors
    /// [`Error::Socket`], or that the namespace cannot be entered.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let connection = Connection::open(namespace)?;
        Ok(Self { connection })
    }

    /// Connects in the calling thread's namespace.
    ///
    /// # Errors
    /// As [`Conntrack::open`].
    pub fn current() -> Result<Self> {
        Self::open(&Namespace::current()?)
    }

    /// Deletes every entry that names one of the addresses as source or destination, of its
    /// original or its reply direction; returns how many there were.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel refuses the listing or a deletion.
    pub fn forget(&mut self, addresses: &[IpAddr]) -> Result<usize> {
        let flows = self.flows(addresses)?;
        self.delete(&flows)
    }

    /// The entries that name one of the addresses in any place.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel refuses, or the table changes too fast to be read.
    pub fn flows(&mut self, addresses: &[IpAddr]) -> Result<Vec<Flow>> {
        let wanted: HashSet<IpAddr> = addresses.iter().copied().collect();
        let mut found = HashSet::new();
        let entries = self.entries()?;
        if entries == Some(0) {
            return Ok(Vec::new());
        }
        let many = entries.is_none_or(|entries| entries > FEW);
        if many && wanted.len() <= FILTERED {
            for address in &wanted {
                for place in Place::ALL {
                    self.list(
                        &wanted,
                        family(*address),
                        Some((place, *address)),
                        &mut found,
                    )?;
                }
            }
        } else {
            // Each filtered request walks the whole table in the kernel, of which most is empty: one reading
            // is cheaper.
            let families: HashSet<u8> = wanted.iter().map(|address| family(*address)).collect();
            for family in families {
                self.list(&wanted, family, None, &mut found)?;
            }
        }
        Ok(found.into_iter().collect())
    }

    /// How many entries the namespace has; `None` if the kernel does not tell.
    fn entries(&mut self) -> Result<Option<u32>> {
        let sequence = self.connection.sequences(1);
        let mut encoder = Encoder::default();
        count(&mut encoder, sequence);
        let what = || "counting conntrack entries".to_owned();
        let decode =
            |message: wire::Message<'_>| message.attributes().be32(CTA_STATS_GLOBAL_ENTRIES);
        self.connection
            .ask(encoder.as_bytes(), sequence, what, decode)
    }

    /// Deletes entries; returns how many were still there.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel refuses one for another reason than that it is gone.
    pub fn delete(&mut self, flows: &[Flow]) -> Result<usize> {
        let mut deleted = 0;
        let mut encoder = Encoder::default();
        for flows in flows.chunks(DELETIONS) {
            let first = self.connection.sequences(DELETIONS_U32);
            encoder.clear();
            let mut last = first;
            for (flow, sequence) in flows.iter().zip(first..) {
                deletion(&mut encoder, flow, sequence);
                last = sequence;
            }
            let what = || "deleting conntrack entries".to_owned();
            self.connection.send(encoder.as_bytes(), what)?;
            for verdict in self.connection.verdicts(first, last, what)? {
                match verdict.outcome {
                    Ok(()) => deleted += 1,
                    Err(RequestError::Refused {
                        errno: Errno::ENOENT,
                        ..
                    }) => {}
                    Err(source) => {
                        let flow = usize::try_from(verdict.sequence - first)
                            .ok()
                            .and_then(|index| flows.get(index));
                        return Err(Error::Request {
                            what: flow.map_or_else(what, describe),
                            source,
                        });
                    }
                }
            }
        }
        Ok(deleted)
    }

    fn list(
        &mut self,
        wanted: &HashSet<IpAddr>,
        family: u8,
        filter: Option<(Place, IpAddr)>,
        found: &mut HashSet<Flow>,
    ) -> Result<()> {
        let what = || match filter {
            Some((_, address)) => format!("listing conntrack entries of {address}"),
            None => "listing conntrack entries".to_owned(),
        };
        // The table is never still on a busy machine: an interrupted reading may have missed
        // entries that moved, so what was found is kept and the rest read again.
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.connection.sequences(1);
            let mut encoder = Encoder::default();
            query(&mut encoder, family, filter, sequence);
            let complete = self
                .connection
                .dump(encoder.as_bytes(), sequence, what, |message| {
                    if let Some(flow) = decode(message.attributes())
                        && flow
                            .addresses()
                            .iter()
                            .any(|address| wanted.contains(address))
                    {
                        found.insert(flow);
                    }
                })?;
            if complete.is_some() {
                return Ok(());
            }
        }
        Err(Error::Request {
            what: what(),
            source: RequestError::Interrupted,
        })
    }
}

impl Flow {
    fn addresses(&self) -> [IpAddr; 4] {
        [
            self.original.source,
            self.original.destination,
            self.reply.source,
            self.reply.destination,
        ]
    }
}

/// Where in an entry an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    tuple: u16,
    destination: bool,
}

impl Place {
    const ALL: [Self; 4] = [
        Self::of(CTA_TUPLE_ORIG, false),
        Self::of(CTA_TUPLE_ORIG, true),
        Self::of(CTA_TUPLE_REPLY, false),
        Self::of(CTA_TUPLE_REPLY, true),
    ];

    const fn of(tuple: u16, destination: bool) -> Self {
        Self { tuple, destination }
    }
}

fn query(encoder: &mut Encoder, family: u8, filter: Option<(Place, IpAddr)>, sequence: u32) {
    let header = Header {
        kind: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
        flags: NLM_F_REQUEST | NLM_F_DUMP,
        sequence,
        family,
        resource: 0,
    };
    encoder.message(header, |message| {
        let Some((place, address)) = filter else {
            return;
        };
        message.nest(place.tuple, |tuple| {
            tuple.nest(CTA_TUPLE_IP, |ip| match address {
                IpAddr::V4(v4) => ip.put(
                    if place.destination {
                        CTA_IP_V4_DST
                    } else {
                        CTA_IP_V4_SRC
                    },
                    &v4.octets(),
                ),
                IpAddr::V6(v6) => ip.put(
                    if place.destination {
                        CTA_IP_V6_DST
                    } else {
                        CTA_IP_V6_SRC
                    },
                    &v6.octets(),
                ),
            });
        });
        let flag = if place.destination {
            FILTER_IP_DST
        } else {
            FILTER_IP_SRC
        };
        // Flags are in the machine's byte order.
        let flags = |tuple| if tuple == place.tuple { flag } else { 0_u32 }.to_ne_bytes();
        message.nest(CTA_FILTER, |filter| {
            filter.put(CTA_FILTER_ORIG_FLAGS, &flags(CTA_TUPLE_ORIG));
            filter.put(CTA_FILTER_REPLY_FLAGS, &flags(CTA_TUPLE_REPLY));
        });
    });
}

fn count(encoder: &mut Encoder, sequence: u32) {
    let header = Header {
        kind: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS,
        flags: NLM_F_REQUEST,
        sequence,
        family: 0,
        resource: 0,
    };
    encoder.message(header, |_| {});
}

fn deletion(encoder: &mut Encoder, flow: &Flow, sequence: u32) {
    let header = Header {
        kind: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
        flags: NLM_F_REQUEST | NLM_F_ACK,
        sequence,
        family: family(flow.original.source),
        resource: 0,
    };
    encoder.message(header, |message| {
        message.nest(CTA_TUPLE_ORIG, |tuple| tuple.raw(&flow.key.original));
        // Another connection may have the tuple by now.
        message.put(CTA_ID, &flow.key.id);
        if let Some(zone) = &flow.key.zone {
            message.put(CTA_ZONE, zone);
        }
    });
}

fn describe(flow: &Flow) -> String {
    let Tuple {
        source,
        destination,
        protocol,
        ..
    } = flow.original;
    format!("deleting the conntrack entry from {source} to {destination}, protocol {protocol}")
}

fn decode(entry: Attributes<'_>) -> Option<Flow> {
    Some(Flow {
        original: tuple(entry.nested(CTA_TUPLE_ORIG)?)?,
        reply: tuple(entry.nested(CTA_TUPLE_REPLY)?)?,
        key: Key {
            original: entry.find(CTA_TUPLE_ORIG)?.to_owned(),
            id: entry.find(CTA_ID)?.to_owned(),
            zone: entry.find(CTA_ZONE).map(<[u8]>::to_owned),
        },
    })
}

fn tuple(tuple: Attributes<'_>) -> Option<Tuple> {
    let ip = tuple.nested(CTA_TUPLE_IP)?;
    let proto = tuple.nested(CTA_TUPLE_PROTO)?;
    Some(Tuple {
        source: address(ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        destination: address(ip, CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        protocol: proto.u8(CTA_PROTO_NUM)?,
        source_port: proto.be16(CTA_PROTO_SRC_PORT),
        destination_port: proto.be16(CTA_PROTO_DST_PORT),
    })
}

fn address(ip: Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    if let Some(value) = ip.find(v4) {
        return Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?));
    }
    Some(IpAddr::from(<[u8; 16]>::try_from(ip.find(v6)?).ok()?))
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => wire::NFPROTO_IPV4,
        IpAddr::V6(_) => wire::NFPROTO_IPV6,
    }
}

// linux/netfilter/nfnetlink_conntrack.h, and net/netfilter/nf_conntrack_netlink.c for the flags.
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const IPCTNL_MSG_CT_GET_STATS: u16 = 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_IP_DST: u32 = 1 << 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const DUMP_ATTEMPTS: usize = 8;
/// Up to so many entries are all read: fewer walks through the table.
const FEW: u32 = 4096;
/// Up to so many addresses are asked for one by one.
const FILTERED: usize = 16;
/// Deletions in one datagram: their answers must fit the receive buffer.
const DELETIONS: usize = 256;
const DELETIONS_U32: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_count_asks_for_the_namespaces_statistics() {
        let mut encoder = Encoder::default();
        count(&mut encoder, 3);
        let expected = "
            14000000 0501 0100 03000000 00000000 # 20 bytes, CT_GET_STATS, request, sequence 3
            00 00 0000                           # nfgenmsg: no family, version 0";
        assert_eq!(hex(encoder.as_bytes()), stripped(expected));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_query_asks_for_one_place() {
        let mut encoder = Encoder::default();
        let place = Place::of(CTA_TUPLE_REPLY, true);
        query(
            &mut encoder,
            2,
            Some((place, "10.65.0.2".parse().unwrap())),
            3,
        );
        let expected = "
            38000000 0101 0103 03000000 00000000 # 56 bytes, CT_GET, request|dump, sequence 3
            02 00 0000                           # nfgenmsg: IPv4, version 0
            1000 0280                            # CTA_TUPLE_REPLY
            0c00 0180                            #   CTA_TUPLE_IP
            0800 0200 0a410002                   #     CTA_IP_V4_DST
            1400 1980                            # CTA_FILTER
            0800 0100 00000000                   #   CTA_FILTER_ORIG_FLAGS
            0800 0200 02000000                   #   CTA_FILTER_REPLY_FLAGS: IP_DST";
        assert_eq!(hex(encoder.as_bytes()), stripped(expected));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn stripped(text: &str) -> String {
        let fields = text.lines().filter_map(|line| line.split('#').next());
        fields.flat_map(str::split_whitespace).collect()
    }
}
