//! From the kernel's messages to what is observed.

use std::collections::BTreeMap;

use margay_ruleset::expression::{Expression, Limit, Operator, Reject};
use margay_ruleset::{
    Base, ChainKind, Data, DataType, Element, Hook, Key, ObservedBase, ObservedChain, ObservedRule,
    SetSpec, Value, Verdict,
};

use crate::encode::{chain_type, hook_number};
use crate::protocol::*;
use margay_netlink::netfilter::wire::{self, Attributes};

/// The flags and the comment of a table.
pub(crate) fn table(message: Attributes<'_>) -> (u32, Option<String>) {
    let flags = message.be32(NFTA_TABLE_FLAGS).unwrap_or_default();
    (flags, comment(message, NFTA_TABLE_USERDATA, UDATA_COMMENT))
}

/// A chain without its rules.
pub(crate) fn chain(message: Attributes<'_>) -> ObservedChain {
    ObservedChain {
        base: chain_base(message),
        rules: Vec::new(),
        comment: comment(message, NFTA_CHAIN_USERDATA, UDATA_COMMENT),
    }
}

fn chain_base(message: Attributes<'_>) -> ObservedBase {
    let flags = message.be32(NFTA_CHAIN_FLAGS).unwrap_or_default();
    let Some(hook) = message.nested(NFTA_CHAIN_HOOK) else {
        // Bound to a rule, or offloaded.
        return if flags & !NFT_CHAIN_BASE == 0 {
            ObservedBase::Regular
        } else {
            ObservedBase::Foreign
        };
    };
    let read = || {
        let number = hook.be32(NFTA_HOOK_HOOKNUM)?;
        let name = message.text(NFTA_CHAIN_TYPE)?;
        let base = Base {
            kind: KINDS.into_iter().find(|kind| chain_type(*kind) == name)?,
            hook: HOOKS
                .into_iter()
                .find(|hook| hook_number(*hook) == number)?,
            priority: hook.be32(NFTA_HOOK_PRIORITY)?.cast_signed(),
        };
        let accepting = message.be32(NFTA_CHAIN_POLICY)? == NF_ACCEPT;
        (accepting && flags & !NFT_CHAIN_BASE == 0).then_some(base)
    };
    read().map_or(ObservedBase::Foreign, ObservedBase::Base)
}

/// A rule, where it is and what it has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) chain: String,
    pub(crate) rule: ObservedRule,
    /// Packets and bytes, if it counts.
    pub(crate) counted: Option<(u64, u64)>,
}

pub(crate) fn rule(message: Attributes<'_>) -> Option<Found> {
    let chain = message.text(NFTA_RULE_CHAIN)?;
    let mut counted = None;
    let mut expressions = Vec::new();
    for (_, item) in message.nested(NFTA_RULE_EXPRESSIONS).into_iter().flatten() {
        let item = wire::attributes(item);
        let name = item.text(NFTA_EXPR_NAME)?;
        let operands = item
            .nested(NFTA_EXPR_DATA)
            .unwrap_or_else(|| wire::attributes(&[]));
        if name == "counter" {
            let packets = operands.be64(NFTA_COUNTER_PACKETS).unwrap_or_default();
            counted = Some((
                packets,
                operands.be64(NFTA_COUNTER_BYTES).unwrap_or_default(),
            ));
        }
        let foreign = || Expression::Foreign(name.clone());
        expressions.push(expression(&name, operands).unwrap_or_else(foreign));
    }
    let rule = ObservedRule {
        expressions,
        comment: comment(message, NFTA_RULE_USERDATA, UDATA_COMMENT),
    };
    Some(Found {
        chain,
        rule,
        counted,
    })
}

fn expression(name: &str, from: Attributes<'_>) -> Option<Expression> {
    let register = |kind| from.be32(kind).and_then(register_of);
    let bytes = |kind| from.nested(kind)?.find(NFTA_DATA_VALUE).map(Box::from);
    Some(match name {
        "meta" => {
            let key = from.be32(NFTA_META_KEY)?;
            match register(NFTA_META_DREG) {
                Some(register) => Expression::Meta { key, register },
                None => Expression::SetMeta {
                    key,
                    register: register(NFTA_META_SREG)?,
                },
            }
        }
        "payload" => Expression::Payload {
            base: from.be32(NFTA_PAYLOAD_BASE)?,
            offset: from.be32(NFTA_PAYLOAD_OFFSET)?,
            length: from.be32(NFTA_PAYLOAD_LEN)?,
            register: register(NFTA_PAYLOAD_DREG)?,
        },
        "ct" if from.find(NFTA_CT_DIRECTION).is_none() => Expression::Ct {
            key: from.be32(NFTA_CT_KEY)?,
            register: register(NFTA_CT_DREG)?,
        },
        "cmp" => Expression::Compare {
            register: register(NFTA_CMP_SREG)?,
            operator: operator_of(from.be32(NFTA_CMP_OP)?)?,
            value: bytes(NFTA_CMP_DATA)?,
        },
        "bitwise" if from.be32(NFTA_BITWISE_OP).unwrap_or_default() == NFT_BITWISE_MASK_XOR => {
            let register = register(NFTA_BITWISE_SREG)?;
            let same = from.be32(NFTA_BITWISE_DREG).and_then(register_of) == Some(register);
            same.then_some(())?;
            Expression::Bitwise {
                register,
                mask: bytes(NFTA_BITWISE_MASK)?,
                xor: bytes(NFTA_BITWISE_XOR)?,
            }
        }
        "lookup" => {
            let set = from.text(NFTA_LOOKUP_SET)?;
            let from_register = register(NFTA_LOOKUP_SREG)?;
            match from.be32(NFTA_LOOKUP_DREG) {
                Some(to) => Expression::Map {
                    register: from_register,
                    set,
                    to: register_of(to),
                },
                None => Expression::Lookup {
                    register: from_register,
                    set,
                    negated: from.be32(NFTA_LOOKUP_FLAGS).unwrap_or_default() == NFT_LOOKUP_F_INV,
                },
            }
        }
        "immediate" => match from.be32(NFTA_IMMEDIATE_DREG)? {
            NFT_REG_VERDICT => Expression::Verdict(verdict(from.nested(NFTA_IMMEDIATE_DATA)?)?),
            register => Expression::Immediate {
                register: register_of(register)?,
                value: bytes(NFTA_IMMEDIATE_DATA)?,
            },
        },
        "counter" => Expression::Counter,
        "log" => Expression::Log {
            group: from.be16(NFTA_LOG_GROUP)?,
            prefix: from.text(NFTA_LOG_PREFIX)?,
        },
        "limit" if from.be32(NFTA_LIMIT_TYPE)? == NFT_LIMIT_PKTS => Expression::Limit(Limit {
            rate: from.be64(NFTA_LIMIT_RATE)?,
            seconds: from.be64(NFTA_LIMIT_UNIT)?,
            burst: from.be32(NFTA_LIMIT_BURST)?,
            over: from.be32(NFTA_LIMIT_FLAGS)? == 1,
        }),
        "connlimit" if from.be32(NFTA_CONNLIMIT_FLAGS)? == NFT_CONNLIMIT_F_INV => {
            Expression::ConnectionsOver(from.be32(NFTA_CONNLIMIT_COUNT)?)
        }
        "notrack" => Expression::Notrack,
        "masq" => {
            let low = from.be32(NFTA_MASQ_REG_PROTO_MIN).and_then(register_of);
            let high = from.be32(NFTA_MASQ_REG_PROTO_MAX).and_then(register_of);
            let flags = from.be32(NFTA_MASQ_FLAGS)?;
            (flags & NF_NAT_RANGE_PROTO_RANDOM_FULLY != 0).then_some(())?;
            Expression::Masquerade {
                ports: low.zip(high),
            }
        }
        "nat" if from.be32(NFTA_NAT_TYPE)? == NFT_NAT_SNAT => {
            let low = from.be32(NFTA_NAT_REG_PROTO_MIN).and_then(register_of);
            let high = from.be32(NFTA_NAT_REG_PROTO_MAX).and_then(register_of);
            let ports = low.zip(high);
            let specified = ports.map_or(0, |_| NF_NAT_RANGE_PROTO_SPECIFIED);
            let flags = from.be32(NFTA_NAT_FLAGS)? & !NF_NAT_RANGE_MAP_IPS;
            (flags == NF_NAT_RANGE_PROTO_RANDOM_FULLY | specified).then_some(())?;
            Expression::SourceNat {
                family: from.be32(NFTA_NAT_FAMILY)?,
                address: register(NFTA_NAT_REG_ADDR_MIN)?,
                ports,
            }
        }
        "nat" if from.be32(NFTA_NAT_TYPE)? == NFT_NAT_DNAT => {
            let flags = from.be32(NFTA_NAT_FLAGS)? & !NF_NAT_RANGE_MAP_IPS;
            (flags == NF_NAT_RANGE_PROTO_SPECIFIED).then_some(())?;
            Expression::DestinationNat {
                family: from.be32(NFTA_NAT_FAMILY)?,
                address: register(NFTA_NAT_REG_ADDR_MIN)?,
                port: register(NFTA_NAT_REG_PROTO_MIN)?,
            }
        }
        "reject" => match (from.be32(NFTA_REJECT_TYPE)?, from.u8(NFTA_REJECT_ICMP_CODE)) {
            (NFT_REJECT_TCP_RST, _) => Expression::Reject(Reject::TcpReset),
            (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_ADMIN_PROHIBITED)) => {
                Expression::Reject(Reject::Prohibited)
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// What a set is; `None` if it is like none of ours.
pub(crate) fn set(message: Attributes<'_>) -> Option<SetSpec> {
    let flags = message.be32(NFTA_SET_FLAGS).unwrap_or_default();
    let known = NFT_SET_INTERVAL | NFT_SET_MAP | NFT_SET_CONCAT | NFT_SET_EXPR;
    (flags & !known == 0).then_some(())?;
    let data = match (flags & NFT_SET_MAP != 0, message.be32(NFTA_SET_DATA_TYPE)) {
        (false, _) => None,
        (true, Some(NFT_DATA_VERDICT)) => Some(Data::Verdict),
        (true, number) => Some(Data::Value(DataType::of(number?)?)),
    };
    let counted = match message.nested(NFTA_SET_EXPR) {
        None => false,
        Some(expression) if expression.text(NFTA_EXPR_NAME)? == "counter" => true,
        Some(_) => return None,
    };
    let spec = SetSpec {
        key: key_types(message.be32(NFTA_SET_KEY_TYPE)?)?,
        data,
        interval: flags & NFT_SET_INTERVAL != 0,
        counted,
        comment: comment(message, NFTA_SET_USERDATA, UDATA_SET_COMMENT),
    };
    let length = usize::try_from(message.be32(NFTA_SET_KEY_LEN)?).ok()?;
    let concatenated = flags & NFT_SET_CONCAT != 0;
    let same = spec.key_length() == length && spec.is_concatenated_interval() == concatenated;
    same.then_some(spec)
}

fn key_types(mut number: u32) -> Option<Vec<DataType>> {
    let mut types = Vec::new();
    while number != 0 {
        types.push(DataType::of(number & ((1 << TYPE_BITS) - 1))?);
        number >>= TYPE_BITS;
    }
    types.reverse();
    (!types.is_empty()).then_some(types)
}

/// An element as the kernel lists it: of an interval, one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    first: Box<[u8]>,
    last: Option<Box<[u8]>>,
    ends: bool,
    element: Element,
}

/// The elements of one message.
pub(crate) fn items(message: Attributes<'_>) -> impl Iterator<Item = Item> {
    let list = message.nested(NFTA_SET_ELEM_LIST_ELEMENTS);
    list.into_iter()
        .flatten()
        .filter_map(|(_, item)| self::item(wire::attributes(item)))
}

fn item(item: Attributes<'_>) -> Option<Item> {
    let bytes = |kind| {
        item.nested(kind)?
            .find(NFTA_DATA_VALUE)
            .map(Box::<[u8]>::from)
    };
    let value = item.nested(NFTA_SET_ELEM_DATA).and_then(|data| {
        if let Some(value) = data.find(NFTA_DATA_VALUE) {
            return Some(Value::Bytes(value.into()));
        }
        verdict(data).map(Value::Verdict)
    });
    let flags = item.be32(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
    Some(Item {
        first: bytes(NFTA_SET_ELEM_KEY)?,
        last: bytes(NFTA_SET_ELEM_KEY_END),
        ends: flags & NFT_SET_ELEM_INTERVAL_END != 0,
        element: Element {
            value,
            comment: comment(item, NFTA_SET_ELEM_USERDATA, UDATA_COMMENT),
        },
    })
}

/// The comments, packets and bytes of a message's elements that count.
pub(crate) fn counted_elements(
    message: Attributes<'_>,
) -> impl Iterator<Item = (Option<String>, u64, u64)> {
    let list = message.nested(NFTA_SET_ELEM_LIST_ELEMENTS);
    list.into_iter().flatten().filter_map(|(_, item)| {
        let item = wire::attributes(item);
        let expression = item.nested(NFTA_SET_ELEM_EXPR)?;
        let operands = expression.nested(NFTA_EXPR_DATA)?;
        (expression.text(NFTA_EXPR_NAME)? == "counter").then_some(())?;
        Some((
            comment(item, NFTA_SET_ELEM_USERDATA, UDATA_COMMENT),
            operands.be64(NFTA_COUNTER_PACKETS)?,
            operands.be64(NFTA_COUNTER_BYTES)?,
        ))
    })
}

/// The elements of a whole set.
pub(crate) fn elements(mut items: Vec<Item>, spec: Option<&SetSpec>) -> BTreeMap<Key, Element> {
    let by_ends = spec.is_some_and(|spec| spec.interval && !spec.is_concatenated_interval());
    if !by_ends {
        let keys = items.into_iter().map(|item| {
            let last = item.last.unwrap_or_else(|| item.first.clone());
            (Key::interval(item.first, last), item.element)
        });
        return keys.collect();
    }
    // Where one interval ends and the next begins, the end comes first.
    items.sort_by(|a, b| (&a.first, !a.ends).cmp(&(&b.first, !b.ends)));
    let mut elements = BTreeMap::new();
    let mut open: Option<Item> = None;
    for item in items {
        if let Some(begun) = open.take() {
            let last = predecessor(&item.first);
            elements.insert(Key::interval(&begun.first, last), begun.element);
        }
        if !item.ends {
            open = Some(item);
        }
    }
    if let Some(begun) = open {
        let last = vec![0xff; begun.first.len()];
        elements.insert(Key::interval(&begun.first, last), begun.element);
    }
    elements
}

/// The number before this one, as big-endian bytes.
fn predecessor(value: &[u8]) -> Vec<u8> {
    let mut previous = value.to_vec();
    for byte in previous.iter_mut().rev() {
        let (difference, borrow) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrow {
            break;
        }
    }
    previous
}

fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.nested(NFTA_DATA_VERDICT)?;
    let chain = || verdict.text(NFTA_VERDICT_CHAIN);
    Some(match verdict.be32(NFTA_VERDICT_CODE)?.cast_signed() {
        VERDICT_DROP => Verdict::Drop,
        VERDICT_ACCEPT => Verdict::Accept,
        VERDICT_JUMP => Verdict::Jump(chain()?),
        VERDICT_GOTO => Verdict::Goto(chain()?),
        VERDICT_RETURN => Verdict::Return,
        _ => return None,
    })
}

fn register_of(number: u32) -> Option<u32> {
    match number {
        NFT_REG_VERDICT => None,
        NFT_REG_1..NFT_REG32_00 => Some((number - NFT_REG_1) * 4),
        _ => Some(number - NFT_REG32_00),
    }
}

fn operator_of(number: u32) -> Option<Operator> {
    Some(match number {
        NFT_CMP_EQ => Operator::Equal,
        NFT_CMP_NEQ => Operator::NotEqual,
        NFT_CMP_LTE => Operator::AtMost,
        NFT_CMP_GTE => Operator::AtLeast,
        _ => return None,
    })
}

/// A comment among userdata: entries of type, length and value.
fn comment(message: Attributes<'_>, kind: u16, entry: u8) -> Option<String> {
    let mut data = message.find(kind)?;
    while let [found, length, rest @ ..] = data {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *found == entry {
            return Some(wire::text(value));
        }
        data = rest;
    }
    None
}

const KINDS: [ChainKind; 2] = [ChainKind::Filter, ChainKind::Nat];
const HOOKS: [Hook; 5] = [
    Hook::Prerouting,
    Hook::Input,
    Hook::Forward,
    Hook::Output,
    Hook::Postrouting,
];
