//! Everything in the language of nftables, for people and for comparison.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use margay_model::Family;

use crate::expression::{Limit, Reject};
use crate::{
    Base, Batch, Chain, ChainKind, Data, DataType, Element, Field, Hook, Key, Operation, Rule,
    SetSpec, Side, Statement, Table, Value, Verdict,
};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name())?;
        writeln!(f, "\tcomment \"{}\"", self.comment())?;
        for (name, set) in self.sets() {
            writeln!(f, "\n\t{} {name} {{", set.spec.noun())?;
            for line in set.spec.lines() {
                writeln!(f, "\t\t{line}")?;
            }
            if !set.elements.is_empty() {
                writeln!(f, "\t\telements = {{")?;
                for (key, element) in &set.elements {
                    let text = set.spec.element(key, Some(element));
                    writeln!(f, "\t\t\t{text},")?;
                }
                writeln!(f, "\t\t}}")?;
            }
            writeln!(f, "\t}}")?;
        }
        for (name, chain) in self.chains() {
            writeln!(f, "\n\tchain {name} {{")?;
            for line in head(chain.base.as_ref(), chain.comment.as_deref()) {
                writeln!(f, "\t\t{line}")?;
            }
            write_rules(f, chain)?;
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Batch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for operation in &self.operations {
            operation.write(f, &self.table)?;
        }
        Ok(())
    }
}

impl Operation {
    fn write(&self, f: &mut Formatter<'_>, table: &str) -> fmt::Result {
        match self {
            Self::AddTable { comment } => {
                writeln!(f, "add table inet {table} {{ comment \"{comment}\"; }}")
            }
            Self::DeleteTable => writeln!(f, "delete table inet {table}"),
            Self::AddSet { name, spec } => {
                let lines: Vec<_> = spec.lines().map(|line| format!("{line}; ")).collect();
                let (noun, lines) = (spec.noun(), lines.concat());
                writeln!(f, "add {noun} inet {table} {name} {{ {lines}}}")
            }
            Self::DeleteSet { name } => writeln!(f, "delete set inet {table} {name}"),
            Self::AddElements {
                set,
                spec,
                elements,
            } => {
                let elements = elements.iter();
                let elements = elements.map(|(key, element)| spec.element(key, Some(element)));
                let elements = elements.collect::<Vec<_>>().join(", ");
                writeln!(f, "add element inet {table} {set} {{ {elements} }}")
            }
            Self::DeleteElements { set, spec, keys } => {
                let keys: Vec<_> = keys.iter().map(|key| spec.element(key, None)).collect();
                let keys = keys.join(", ");
                writeln!(f, "delete element inet {table} {set} {{ {keys} }}")
            }
            Self::AddChain {
                name,
                base,
                comment,
            } => {
                let lines = head(base.as_ref(), comment.as_deref());
                let lines: Vec<_> = lines.map(|line| format!("{line}; ")).collect();
                let lines = lines.concat().replace(";;", ";");
                writeln!(f, "add chain inet {table} {name} {{ {lines}}}")
            }
            Self::FlushChain { name } => writeln!(f, "flush chain inet {table} {name}"),
            Self::DeleteChain { name } => writeln!(f, "delete chain inet {table} {name}"),
            Self::AddRule { chain, rule } => writeln!(f, "add rule inet {table} {chain} {rule}"),
        }
    }
}

fn head(base: Option<&Base>, comment: Option<&str>) -> impl Iterator<Item = String> {
    let comment = comment.map(|comment| format!("comment \"{comment}\""));
    let base = base.map(ToString::to_string);
    comment.into_iter().chain(base)
}

fn write_rules(f: &mut Formatter<'_>, chain: &Chain) -> fmt::Result {
    chain
        .rules
        .iter()
        .try_for_each(|rule| writeln!(f, "\t\t{rule}"))
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let priority = self.priority;
        write!(
            f,
            "type {kind} hook {hook} priority {priority}; policy accept;"
        )
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, statement) in self.statements.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{statement}")?;
        }
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Is {
                field,
                value,
                negated,
            } => {
                let value = match field.data_type() {
                    Some(data_type) => data_type.render(value),
                    None => "ether".to_owned(),
                };
                write!(f, "{field} {}{value}", not(*negated))
            }
            Self::Between { field, first, last } => {
                let data_type = field.data_type().unwrap_or(DataType::Port);
                let (first, last) = (data_type.render(first), data_type.render(last));
                write!(f, "{field} {first}-{last}")
            }
            Self::Prefix {
                side,
                prefix,
                negated,
            } => {
                let field = Field::Address(*side, prefix.family());
                write!(f, "{field} {}{prefix}", not(*negated))
            }
            Self::Interface {
                field,
                prefix,
                negated,
            } => write!(f, "{field} {}\"{prefix}*\"", not(*negated)),
            Self::In {
                fields,
                set,
                negated,
            } => write!(f, "{} {}@{set}", joined(fields), not(*negated)),
            Self::Dispatch { fields, map } => write!(f, "{} vmap @{map}", joined(fields)),
            Self::Marked { mask, value } => {
                write!(f, "meta mark & {mask:#010x} == {value:#010x}")
            }
            Self::SetMark { mask, value } => {
                write!(f, "meta mark set meta mark & {:#010x}", !mask)?;
                match value {
                    0 => Ok(()),
                    value => write!(f, " | {value:#010x}"),
                }
            }
            Self::Counter => f.write_str("counter"),
            Self::Log { group, prefix } => write!(f, "log prefix \"{prefix}\" group {group}"),
            Self::Limit(limit) => write!(f, "{limit}"),
            Self::ConnectionsOver(count) => write!(f, "ct count over {count}"),
            Self::Notrack => f.write_str("notrack"),
            Self::Masquerade { ports } => {
                f.write_str("masquerade")?;
                if let Some((low, high)) = ports {
                    write!(f, " to :{low}-{high}")?;
                }
                f.write_str(" fully-random")
            }
            Self::SourceNat { address, ports } => {
                let family = if address.is_ipv4() { "ip" } else { "ip6" };
                match ports {
                    Some((low, high)) if address.is_ipv4() => {
                        write!(f, "snat {family} to {address}:{low}-{high} fully-random")
                    }
                    Some((low, high)) => {
                        write!(f, "snat {family} to [{address}]:{low}-{high} fully-random")
                    }
                    None => write!(f, "snat {family} to {address} fully-random"),
                }
            }
            Self::DestinationNat { address, port } => match address {
                IpAddr::V4(v4) => write!(f, "dnat ip to {v4}:{port}"),
                IpAddr::V6(v6) => write!(f, "dnat ip6 to [{v6}]:{port}"),
            },
            Self::Reject(Reject::Prohibited) => f.write_str("reject with icmpx admin-prohibited"),
            Self::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InInterface => "iifname",
            Self::OutInterface => "oifname",
            Self::Protocol => "meta l4proto",
            Self::Address(Side::Source, Family::V4) => "ip saddr",
            Self::Address(Side::Destination, Family::V4) => "ip daddr",
            Self::Address(Side::Source, Family::V6) => "ip6 saddr",
            Self::Address(Side::Destination, Family::V6) => "ip6 daddr",
            Self::Port(Side::Source) => "th sport",
            Self::Port(Side::Destination) => "th dport",
            Self::IcmpType(Family::V4) => "icmp type",
            Self::IcmpType(Family::V6) => "icmpv6 type",
            Self::IcmpCode(Family::V4) => "icmp code",
            Self::IcmpCode(Family::V6) => "icmpv6 code",
            Self::SourceMac => "ether saddr",
            Self::EthernetIn => "meta iiftype",
            Self::CtState => "ct state",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let over = if self.over { "over " } else { "" };
        let unit = match self.seconds {
            1 => "second",
            60 => "minute",
            3600 => "hour",
            _ => "day",
        };
        let (rate, burst) = (self.rate, self.burst);
        write!(f, "limit rate {over}{rate}/{unit} burst {burst} packets")
    }
}

impl SetSpec {
    fn noun(&self) -> &'static str {
        if self.data.is_some() { "map" } else { "set" }
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let key: Vec<_> = self.key.iter().map(|field| field.name()).collect();
        let key = key.join(" . ");
        let data = match self.data {
            None => String::new(),
            Some(Data::Verdict) => " : verdict".to_owned(),
            Some(Data::Value(data_type)) => format!(" : {}", data_type.name()),
        };
        let interval = self.interval.then(|| "flags interval".to_owned());
        let counter = self.counted.then(|| "counter".to_owned());
        let comment = self.comment.as_ref();
        let comment = comment.map(|comment| format!("comment \"{comment}\""));
        [format!("type {key}{data}")]
            .into_iter()
            .chain(interval)
            .chain(counter)
            .chain(comment)
    }

    /// An element, or only its key.
    fn element(&self, key: &Key, element: Option<&Element>) -> String {
        let mut text = self.key_text(key);
        let Some(element) = element else {
            return text;
        };
        if let Some(comment) = &element.comment {
            text += &format!(" comment \"{comment}\"");
        }
        match (&element.value, self.data) {
            (Some(Value::Verdict(verdict)), _) => text += &format!(" : {verdict}"),
            (Some(Value::Bytes(bytes)), Some(Data::Value(data_type))) => {
                text += &format!(" : {}", data_type.render(bytes));
            }
            _ => {}
        }
        text
    }

    fn key_text(&self, key: &Key) -> String {
        let last = key.last.as_ref().unwrap_or(&key.first);
        let ends = self.fields(&key.first).zip(self.fields(last));
        let fields = ends.map(|((data_type, first), (_, last))| {
            let text = data_type.render(first);
            if first == last {
                return text;
            }
            match prefix_length(first, last) {
                Some(length) if matches!(data_type, DataType::Ipv4 | DataType::Ipv6) => {
                    format!("{text}/{length}")
                }
                _ => format!("{text}-{}", data_type.render(last)),
            }
        });
        fields.collect::<Vec<_>>().join(" . ")
    }
}

/// The length of the prefix that holds exactly the addresses from `first` to `last`, if one does.
fn prefix_length(first: &[u8], last: &[u8]) -> Option<u32> {
    let mut length = 0;
    let mut ended = false;
    for (first, last) in first.iter().zip(last) {
        let differing = first ^ last;
        if ended && (*first != 0 || *last != 0xff) {
            return None;
        }
        if !ended {
            length += differing.leading_zeros();
            ended = differing != 0;
            let host = 0xff_u8.checked_shr(differing.leading_zeros()).unwrap_or(0);
            if differing != host || first & host != 0 {
                return None;
            }
        }
    }
    Some(length)
}

fn joined(fields: &[Field]) -> String {
    let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
    fields.join(" . ")
}

fn not(negated: bool) -> &'static str {
    if negated { "!= " } else { "" }
}
