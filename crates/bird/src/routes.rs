//! The answer to `show route all`.

use margay_bgp::Attributes;
use margay_model::Cidr;

use crate::attributes::Gathered;
use crate::reply::Reply;

/// A route in a table of BIRD's.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The table.
    pub table: String,
    /// The prefix.
    pub prefix: Cidr,
    /// The protocol from which it is.
    pub protocol: String,
    /// Whether it is the best of the prefix.
    pub best: bool,
    /// Whether its next hop leads nowhere.
    pub unreachable: bool,
    /// Whether it outlived its session.
    pub stale: bool,
    /// Its attributes of BGP.
    pub attributes: Attributes,
}

/// Reads an answer; lines that are not known are passed over.
#[must_use]
pub fn routes(reply: &Reply) -> Vec<Entry> {
    let mut reader = Reader::default();
    for (code, line) in &reply.lines {
        match *code {
            ROUTE => reader.route(line),
            ATTRIBUTE => {
                if let (Some((name, value)), Some(_)) = (line.split_once(':'), &reader.entry) {
                    reader.gathered.take(name.trim(), value.trim());
                }
            }
            _ => {}
        }
    }
    reader.finish();
    reader.entries
}

#[derive(Default)]
struct Reader {
    entries: Vec<Entry>,
    table: String,
    prefix: Option<Cidr>,
    entry: Option<Entry>,
    gathered: Gathered,
}

impl Reader {
    /// `PREFIX  KIND [PROTOCOL TIME …] * (PREFERENCE) [AS…]`, without the prefix where it is the same; the
    /// lines of next hops are passed over.
    fn route(&mut self, line: &str) {
        if let Some(table) = line.strip_prefix("Table ") {
            self.finish();
            self.prefix = None;
            table.trim_end_matches(':').clone_into(&mut self.table);
            return;
        }
        if line.starts_with('\t') {
            return;
        }
        let Some((head, rest)) = line.split_once('[') else {
            return;
        };
        let Some((origin, rest)) = rest.split_once(']') else {
            return;
        };
        self.finish();
        let mut words = head.split_whitespace();
        let mut kind = words.next().unwrap_or_default();
        if let Ok(prefix) = kind.parse::<Cidr>() {
            self.prefix = Some(prefix);
            kind = words.next().unwrap_or_default();
        }
        let Some(prefix) = self.prefix else {
            return;
        };
        let protocol = origin.split_whitespace().next().unwrap_or_default();
        let (marks, after) = rest.split_once('(').unwrap_or((rest, ""));
        let preference = after.split(')').next().unwrap_or_default();
        self.gathered = Gathered::default();
        self.entry = Some(Entry {
            table: self.table.clone(),
            prefix,
            protocol: protocol.to_owned(),
            best: marks.contains('*'),
            unreachable: kind == "unreachable",
            stale: preference.ends_with('s'),
            attributes: self.gathered.attributes(&prefix),
        });
    }

    fn finish(&mut self) {
        if let Some(mut entry) = self.entry.take() {
            entry.attributes = std::mem::take(&mut self.gathered).attributes(&entry.prefix);
            self.entries.push(entry);
        }
    }
}

const ROUTE: u16 = 1007;
const ATTRIBUTE: u16 = 1012;
