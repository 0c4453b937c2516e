//! Netlink messages and attributes (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`).
//!
//! Headers are in the machine's byte order; netfilter's numbers inside attributes are big-endian.

/// Messages of one datagram, being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoder {
    bytes: Vec<u8>,
}

/// What stands before a message's attributes (`struct nlmsghdr`, `struct nfgenmsg`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Subsystem in the upper byte, message in the lower.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number, which the answers bear.
    pub sequence: u32,
    /// `NFPROTO_*`.
    pub family: u8,
    /// `res_id`: the subsystem in the messages that bound a batch, else 0.
    pub resource: u16,
}

impl Encoder {
    /// Writes a message; its attributes are what `attributes` writes.
    pub fn message(&mut self, header: Header, attributes: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&header.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&header.flags.to_ne_bytes());
        self.bytes.extend_from_slice(&header.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[header.family, NFNETLINK_V0]);
        self.bytes.extend_from_slice(&header.resource.to_be_bytes());
        attributes(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute with a plain value.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// An attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    /// An attribute of 16 bits, big-endian.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_be_bytes());
    }

    /// An attribute of 32 bits, big-endian.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// An attribute of 64 bits, big-endian.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A text with the NUL that ends it.
    pub fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// An attribute whose value is attributes. Its length has 16 bits: the caller splits lists.
    pub fn nest(&mut self, kind: u16, attributes: impl FnOnce(&mut Self)) {
        let start = self.open(kind | NLA_F_NESTED);
        attributes(self);
        self.close(start);
    }

    /// Attributes as the kernel wrote them.
    pub fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
    }

    /// All messages so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of all messages so far, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no message yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        // One that is too long is refused by the kernel.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Subsystem in the upper byte, message in the lower.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number, which the answers bear.
    pub sequence: u32,
    /// Of a notification: the socket whose request it was.
    pub port: u32,
    /// All behind the netlink header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// `NFPROTO_*` in `struct nfgenmsg`.
    pub fn family(&self) -> Option<u8> {
        self.body.first().copied()
    }

    /// The attributes behind `struct nfgenmsg`.
    pub fn attributes(&self) -> Attributes<'a> {
        attributes(self.body.get(NFGENMSG..).unwrap_or_default())
    }
}

/// The messages of a datagram; ends early at one that is cut short.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..NLMSGHDR)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let whole = bytes.get(..length)?;
        let message = Message {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            sequence: u32_at(header, 8)?,
            port: u32_at(header, 12)?,
            body: whole.get(NLMSGHDR..)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message or of a nest.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(&'a [u8]);

/// The attributes in the bytes of a nest.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a kind.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes of the first nest of a kind.
    pub fn nested(self, kind: u16) -> Option<Self> {
        self.find(kind).map(Self)
    }

    /// The first text of a kind.
    pub fn text(self, kind: u16) -> Option<String> {
        self.find(kind).map(text)
    }

    /// The first 32 bits of a kind, big-endian.
    pub fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// The first 64 bits of a kind, big-endian.
    pub fn be64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// The first 16 bits of a kind, big-endian.
    pub fn be16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// The first byte of a kind.
    pub fn u8(self, kind: u16) -> Option<u8> {
        self.find(kind)?.first().copied()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & NLA_TYPE_MASK;
        let value = self.0.get(NLATTR..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A text up to its first NUL.
pub fn text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// 32 bits in the machine's byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A request to the kernel.
pub const NLM_F_REQUEST: u16 = 0x1;
/// The request is to be answered, also when it succeeds.
pub const NLM_F_ACK: u16 = 0x4;
/// The table changed while it was read.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// The whole table is asked for.
pub const NLM_F_DUMP: u16 = 0x300;
/// Attributes follow a verdict.
pub const NLM_F_ACK_TLVS: u16 = 0x200;
/// A verdict.
pub const NLMSG_ERROR: u16 = 2;
/// The end of a dump.
pub const NLMSG_DONE: u16 = 3;
/// Length of `struct nlmsghdr`.
pub const NLMSGHDR: usize = 16;
/// IPv4.
pub const NFPROTO_IPV4: u8 = 2;
/// IPv6.
pub const NFPROTO_IPV6: u8 = 10;
const NFGENMSG: usize = 4;
const NLATTR: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NFNETLINK_V0: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let header = Header {
            kind: 0x0a0c,
            flags: NLM_F_REQUEST,
            sequence: 7,
            family: 1,
            resource: 0,
        };
        let mut encoder = Encoder::default();
        for name in ["a", "table"] {
            encoder.message(header, |message| {
                message.text(1, name);
                message.nest(3, |list| list.be32(2, 9));
            });
        }
        let names: Vec<_> = messages(encoder.as_bytes())
            .map(|message| {
                assert_eq!((message.kind, message.sequence), (0x0a0c, 7));
                let nested = message.attributes().nested(3).unwrap();
                assert_eq!(nested.be32(2), Some(9));
                message.attributes().text(1).unwrap()
            })
            .collect();
        assert_eq!(names, ["a", "table"]);
    }

    #[test]
    fn what_is_cut_short_is_not_read() {
        let mut encoder = Encoder::default();
        encoder.put(1, &[1, 2, 3, 4]);
        for length in 0..encoder.len() {
            assert_eq!(attributes(&encoder.as_bytes()[..length]).count(), 0);
        }
    }
}
