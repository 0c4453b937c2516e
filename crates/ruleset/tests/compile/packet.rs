//! A small machine that does with a packet what the kernel does.

use std::net::IpAddr;

use margay_model::Family;
use margay_ruleset::{Field, Key, Set, Side, Statement, Table, Value, Verdict, interface_bytes};

/// A packet that begins a connection.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Type and code, where the ports stand otherwise.
    pub(crate) icmp: (u8, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accept,
    Drop,
}

/// How a chain ends.
enum End {
    Decided(Outcome),
    Returned,
}

pub(crate) fn decide(table: &Table, base: &str, interface: &str, packet: &Packet) -> Outcome {
    let mut machine = Machine {
        table,
        interface,
        packet,
        mark: 0,
    };
    match machine.chain(base) {
        End::Decided(outcome) => outcome,
        End::Returned => Outcome::Accept,
    }
}

struct Machine<'a> {
    table: &'a Table,
    interface: &'a str,
    packet: &'a Packet,
    mark: u32,
}

impl Machine<'_> {
    fn chain(&mut self, name: &str) -> End {
        for rule in &self.table.chains()[name].rules {
            let mut verdict = None;
            for statement in &rule.statements {
                match self.statement(statement) {
                    Step::Next => {}
                    Step::Stop => break,
                    Step::Verdict(found) => {
                        verdict = Some(found);
                        break;
                    }
                }
            }
            match verdict {
                None => {}
                Some(Verdict::Accept) => return End::Decided(Outcome::Accept),
                Some(Verdict::Drop) => return End::Decided(Outcome::Drop),
                Some(Verdict::Return) => return End::Returned,
                Some(Verdict::Jump(name)) => {
                    if let End::Decided(outcome) = self.chain(&name) {
                        return End::Decided(outcome);
                    }
                }
                Some(Verdict::Goto(name)) => return self.chain(&name),
            }
        }
        End::Returned
    }

    fn statement(&mut self, statement: &Statement) -> Step {
        let holds = match statement {
            Statement::Family(family) => *family == self.packet.family(),
            Statement::Is {
                field,
                value,
                negated,
            } => (self.field(*field) == **value) != *negated,
            Statement::Between { field, first, last } => {
                (&**first..=&**last).contains(&self.field(*field).as_slice())
            }
            Statement::Prefix {
                side,
                prefix,
                negated,
            } => prefix.contains(self.packet.address(*side)) != *negated,
            Statement::Interface {
                prefix, negated, ..
            } => self.interface.starts_with(prefix.as_str()) != *negated,
            Statement::In {
                fields,
                set,
                negated,
            } => self.find(fields, set).is_some() != *negated,
            Statement::Dispatch { fields, map } => {
                return match self.find(fields, map) {
                    Some(Some(Value::Verdict(verdict))) => Step::Verdict(verdict),
                    _ => Step::Stop,
                };
            }
            Statement::Marked { mask, value } => self.mark & mask == *value,
            Statement::SetMark { mask, value } => {
                self.mark = self.mark & !mask | value;
                true
            }
            Statement::Verdict(verdict) => return Step::Verdict(verdict.clone()),
            // No packet is beyond a limit here.
            Statement::Counter | Statement::Log { .. } | Statement::Limit(_) => true,
            other => panic!("{other}"),
        };
        if holds { Step::Next } else { Step::Stop }
    }

    fn find(&self, fields: &[Field], set: &str) -> Option<Option<Value>> {
        let set: &Set = &self.table.sets()[set];
        let values: Vec<_> = fields.iter().map(|field| self.field(*field)).collect();
        let found = set
            .elements
            .iter()
            .find(|(key, _)| holds(set, key, &values));
        found.map(|(_, element)| element.value.clone())
    }

    fn field(&self, field: Field) -> Vec<u8> {
        let packet = self.packet;
        let [high, low] = packet.source_port.to_be_bytes();
        match field {
            Field::InInterface | Field::OutInterface => interface_bytes(self.interface).into(),
            Field::Protocol => vec![packet.protocol],
            Field::Address(side, family) => {
                assert_eq!(
                    family,
                    packet.family(),
                    "a field of the other family is read"
                );
                match packet.address(side) {
                    IpAddr::V4(v4) => v4.octets().into(),
                    IpAddr::V6(v6) => v6.octets().into(),
                }
            }
            Field::Port(Side::Source) => vec![high, low],
            Field::Port(Side::Destination) => packet.destination_port.to_be_bytes().into(),
            Field::IcmpType(_) => vec![packet.icmp.0],
            Field::IcmpCode(_) => vec![packet.icmp.1],
            Field::CtState => 8_u32.to_ne_bytes().into(),
            Field::SourceMac | Field::EthernetIn => panic!("{field}"),
        }
    }
}

/// Whether a key holds these values: each field lies in its interval.
fn holds(set: &Set, key: &Key, values: &[Vec<u8>]) -> bool {
    let last = key.last.as_ref().unwrap_or(&key.first);
    let ends = set.spec.fields(&key.first).zip(set.spec.fields(last));
    ends.zip(values)
        .all(|(((_, first), (_, last)), value)| (first..=last).contains(&value.as_slice()))
}

enum Step {
    Next,
    Stop,
    Verdict(Verdict),
}

impl Packet {
    pub(crate) fn family(&self) -> Family {
        Family::of(self.source)
    }

    fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.source,
            Side::Destination => self.destination,
        }
    }
}
