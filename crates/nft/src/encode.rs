//! From a batch to the kernel's messages.

mod expression;
#[cfg(test)]
mod golden;

use margay_ruleset::{
    Base, Batch, ChainKind, Data, Element, Hook, Key, Operation, Rule, SetSpec, Value, Verdict,
};

use crate::protocol::*;
use margay_netlink::netfilter::wire::{Encoder, Header, NLM_F_REQUEST};

/// A whole transaction as one datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) bytes: Encoder,
    /// For each message between the bounds, the operation that it belongs to.
    pub(crate) operations: Vec<usize>,
}

impl Transaction {
    /// Encodes a batch; its first message has the sequence number `sequence`, and each further
    /// one the next.
    pub(crate) fn new(batch: &Batch, sequence: u32) -> Self {
        let mut transaction = Self::default();
        let mut writer = Writer {
            transaction: &mut transaction,
            table: &batch.table,
            sequence,
            set_id: 0,
        };
        writer.bound(NFNL_MSG_BATCH_BEGIN);
        for (index, operation) in batch.operations.iter().enumerate() {
            writer.operation(index, operation);
        }
        writer.bound(NFNL_MSG_BATCH_END);
        transaction
    }
}

struct Writer<'a> {
    transaction: &'a mut Transaction,
    table: &'a str,
    sequence: u32,
    set_id: u32,
}

impl Writer<'_> {
    fn bound(&mut self, kind: u16) {
        let header = Header {
            kind,
            flags: NLM_F_REQUEST,
            sequence: self.sequence,
            family: 0,
            resource: NFNL_SUBSYS_NFTABLES,
        };
        self.sequence += 1;
        self.transaction.bytes.message(header, |_| {});
    }

    fn message(
        &mut self,
        index: usize,
        kind: u16,
        flags: u16,
        attributes: impl FnOnce(&mut Encoder),
    ) {
        let header = header(kind, NLM_F_REQUEST | flags, self.sequence);
        self.sequence += 1;
        self.transaction.operations.push(index);
        self.transaction.bytes.message(header, attributes);
    }

    fn operation(&mut self, index: usize, operation: &Operation) {
        let table = self.table;
        match operation {
            Operation::AddTable { comment } => {
                self.message(index, NFT_MSG_NEWTABLE, NLM_F_CREATE, |table_message| {
                    table_message.text(NFTA_TABLE_NAME, table);
                    table_message.be32(NFTA_TABLE_FLAGS, 0);
                    let data = userdata(&[(UDATA_COMMENT, &nul(comment))]);
                    table_message.put(NFTA_TABLE_USERDATA, &data);
                });
            }
            Operation::DeleteTable => {
                self.message(index, NFT_MSG_DELTABLE, 0, |message| {
                    message.text(NFTA_TABLE_NAME, table);
                });
            }
            Operation::AddSet { name, spec } => {
                self.set_id += 1;
                let id = self.set_id;
                self.message(
                    index,
                    NFT_MSG_NEWSET,
                    NLM_F_CREATE | NLM_F_EXCL,
                    |message| {
                        message.text(NFTA_SET_TABLE, table);
                        message.text(NFTA_SET_NAME, name);
                        set(message, spec, id);
                    },
                );
            }
            Operation::DeleteSet { name } => {
                self.message(index, NFT_MSG_DELSET, 0, |message| {
                    message.text(NFTA_SET_TABLE, table);
                    message.text(NFTA_SET_NAME, name);
                });
            }
            Operation::AddElements {
                set,
                spec,
                elements,
            } => {
                let elements = elements.iter().map(|(key, element)| (key, Some(element)));
                self.elements(index, NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, spec, elements);
            }
            Operation::DeleteElements { set, spec, keys } => {
                let keys = keys.iter().map(|key| (key, None));
                self.elements(index, NFT_MSG_DELSETELEM, 0, set, spec, keys);
            }
            Operation::AddChain {
                name,
                base,
                comment,
            } => {
                self.message(
                    index,
                    NFT_MSG_NEWCHAIN,
                    NLM_F_CREATE | NLM_F_EXCL,
                    |message| {
                        message.text(NFTA_CHAIN_TABLE, table);
                        message.text(NFTA_CHAIN_NAME, name);
                        if let Some(base) = base {
                            chain_base(message, base);
                        }
                        if let Some(comment) = comment {
                            let data = userdata(&[(UDATA_COMMENT, &nul(comment))]);
                            message.put(NFTA_CHAIN_USERDATA, &data);
                        }
                    },
                );
            }
            Operation::FlushChain { name } => {
                self.message(index, NFT_MSG_DELRULE, 0, |message| {
                    message.text(NFTA_RULE_TABLE, table);
                    message.text(NFTA_RULE_CHAIN, name);
                });
            }
            Operation::DeleteChain { name } => {
                self.message(index, NFT_MSG_DELCHAIN, 0, |message| {
                    message.text(NFTA_CHAIN_TABLE, table);
                    message.text(NFTA_CHAIN_NAME, name);
                });
            }
            Operation::AddRule { chain, rule } => {
                self.message(
                    index,
                    NFT_MSG_NEWRULE,
                    NLM_F_CREATE | NLM_F_APPEND,
                    |message| {
                        message.text(NFTA_RULE_TABLE, table);
                        message.text(NFTA_RULE_CHAIN, chain);
                        self::rule(message, rule);
                    },
                );
            }
        }
    }

    /// Elements in as many messages as their list needs: its length has 16 bits.
    fn elements<'e>(
        &mut self,
        index: usize,
        kind: u16,
        flags: u16,
        set: &str,
        spec: &SetSpec,
        elements: impl Iterator<Item = (&'e Key, Option<&'e Element>)>,
    ) {
        let table = self.table;
        let mut list = Encoder::default();
        let flush = |writer: &mut Self, list: &mut Encoder| {
            writer.message(index, kind, flags, |message| {
                message.text(NFTA_SET_ELEM_LIST_TABLE, table);
                message.text(NFTA_SET_ELEM_LIST_SET, set);
                message.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |elements| {
                    elements.raw(list.as_bytes());
                });
            });
            list.clear();
        };
        for (key, element) in elements {
            self::element(&mut list, spec, key, element);
            if list.len() > ELEMENT_LIST {
                flush(self, &mut list);
            }
        }
        if !list.is_empty() {
            flush(self, &mut list);
        }
    }
}

/// The header of a request about our table.
pub(crate) fn header(kind: u16, flags: u16, sequence: u32) -> Header {
    Header {
        kind: NFNL_SUBSYS_NFTABLES << 8 | kind,
        flags,
        sequence,
        family: NFPROTO_INET,
        resource: 0,
    }
}

fn set(message: &mut Encoder, spec: &SetSpec, id: u32) {
    let mut flags = 0;
    if spec.interval {
        flags |= NFT_SET_INTERVAL;
    }
    if spec.is_concatenated_interval() {
        flags |= NFT_SET_CONCAT;
    }
    if spec.data.is_some() {
        flags |= NFT_SET_MAP;
    }
    message.be32(NFTA_SET_FLAGS, flags);
    let key_type = spec
        .key
        .iter()
        .fold(0, |number, field| number << TYPE_BITS | field.number());
    message.be32(NFTA_SET_KEY_TYPE, key_type);
    message.be32(NFTA_SET_KEY_LEN, length(spec.key_length()));
    match spec.data {
        None => {}
        Some(Data::Verdict) => {
            message.be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
            message.be32(NFTA_SET_DATA_LEN, 0);
        }
        Some(Data::Value(data_type)) => {
            message.be32(NFTA_SET_DATA_TYPE, data_type.number());
            message.be32(NFTA_SET_DATA_LEN, length(data_type.length()));
        }
    }
    message.be32(NFTA_SET_ID, id);
    if spec.is_concatenated_interval() {
        message.nest(NFTA_SET_DESC, |description| {
            description.nest(NFTA_SET_DESC_CONCAT, |fields| {
                for field in &spec.key {
                    fields.nest(NFTA_LIST_ELEM, |element| {
                        element.be32(NFTA_SET_FIELD_LEN, length(field.length()));
                    });
                }
            });
        });
    }
    message.put(NFTA_SET_USERDATA, &set_userdata(spec));
    if spec.counted {
        message.nest(NFTA_SET_EXPR, |counter| {
            counter.text(NFTA_EXPR_NAME, "counter");
            counter.nest(NFTA_EXPR_DATA, |_| {});
        });
    }
}

/// What programs that print sets want to know; the kernel keeps it unread.
fn set_userdata(spec: &SetSpec) -> Vec<u8> {
    let order = |host: bool| if host { ORDER_HOST } else { ORDER_NETWORK }.to_ne_bytes();
    let key = match spec.key.as_slice() {
        [single] => order(single.is_host_order()),
        _ => ORDER_NONE.to_ne_bytes(),
    };
    let data = match spec.data {
        Some(Data::Value(data_type)) => order(data_type.is_host_order()),
        _ => ORDER_NONE.to_ne_bytes(),
    };
    let comment = spec.comment.as_deref().map(nul);
    let mut entries: Vec<(u8, &[u8])> = vec![(UDATA_SET_KEY_ORDER, &key)];
    if spec.data.is_some() {
        entries.push((UDATA_SET_DATA_ORDER, &data));
        entries.push((UDATA_SET_DATA_INTERVAL, &[0; 4]));
    }
    if let Some(comment) = &comment {
        entries.push((UDATA_SET_COMMENT, comment));
    }
    userdata(&entries)
}

fn element(list: &mut Encoder, spec: &SetSpec, key: &Key, element: Option<&Element>) {
    list.nest(NFTA_LIST_ELEM, |item| {
        data(item, NFTA_SET_ELEM_KEY, &key.first);
        if spec.is_concatenated_interval() {
            data(
                item,
                NFTA_SET_ELEM_KEY_END,
                key.last.as_ref().unwrap_or(&key.first),
            );
        }
        match element.and_then(|element| element.value.as_ref()) {
            None => {}
            Some(Value::Verdict(verdict)) => self::verdict(item, NFTA_SET_ELEM_DATA, verdict),
            Some(Value::Bytes(bytes)) => data(item, NFTA_SET_ELEM_DATA, bytes),
        }
        if let Some(comment) = element.and_then(|element| element.comment.as_ref()) {
            let data = userdata(&[(UDATA_COMMENT, &nul(comment))]);
            item.put(NFTA_SET_ELEM_USERDATA, &data);
        }
    });
    if spec.interval && !spec.is_concatenated_interval() {
        // The first value beyond; an interval to the very end has none.
        if let Some(end) = successor(key.last.as_ref().unwrap_or(&key.first)) {
            list.nest(NFTA_LIST_ELEM, |item| {
                item.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                data(item, NFTA_SET_ELEM_KEY, &end);
            });
        }
    }
}

/// The number after this one, as big-endian bytes.
fn successor(value: &[u8]) -> Option<Vec<u8>> {
    let mut next = value.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

fn chain_base(message: &mut Encoder, base: &Base) {
    message.text(NFTA_CHAIN_TYPE, chain_type(base.kind));
    message.be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
    message.nest(NFTA_CHAIN_HOOK, |hook| {
        hook.be32(NFTA_HOOK_HOOKNUM, hook_number(base.hook));
        hook.put(NFTA_HOOK_PRIORITY, &base.priority.to_be_bytes());
    });
}

pub(crate) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

pub(crate) fn chain_type(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    }
}

fn rule(message: &mut Encoder, rule: &Rule) {
    message.nest(NFTA_RULE_EXPRESSIONS, |list| {
        for expression in &rule.expressions() {
            list.nest(NFTA_LIST_ELEM, |item| expression::write(item, expression));
        }
    });
    if let Some(comment) = &rule.comment {
        let data = userdata(&[(UDATA_COMMENT, &nul(comment))]);
        message.put(NFTA_RULE_USERDATA, &data);
    }
}

fn data(to: &mut Encoder, kind: u16, value: &[u8]) {
    to.nest(kind, |data| data.put(NFTA_DATA_VALUE, value));
}

fn verdict(to: &mut Encoder, kind: u16, verdict: &Verdict) {
    to.nest(kind, |data| {
        data.nest(NFTA_DATA_VERDICT, |to| {
            to.put(NFTA_VERDICT_CODE, &verdict_code(verdict).to_be_bytes());
            if let Some(chain) = verdict.chain() {
                to.text(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

fn verdict_code(verdict: &Verdict) -> i32 {
    match verdict {
        Verdict::Drop => VERDICT_DROP,
        Verdict::Accept => VERDICT_ACCEPT,
        Verdict::Jump(_) => VERDICT_JUMP,
        Verdict::Goto(_) => VERDICT_GOTO,
        Verdict::Return => VERDICT_RETURN,
    }
}

/// Entries of type, length and value, as nftables' programs write and read them.
fn userdata(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in entries {
        bytes.push(*kind);
        // Comments are cut to 127 bytes where they are made.
        bytes.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(value);
    }
    bytes
}

fn nul(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn length(bytes: usize) -> u32 {
    // Keys have at most 64 bytes.
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// One element has at most about 700 bytes.
const ELEMENT_LIST: usize = 60 << 10;
