//! Instructions of a rule, each with its operands.

use margay_ruleset::expression::{Expression, Operator, Reject};

use super::{data, length};
use crate::protocol::*;
use margay_netlink::netfilter::wire::Encoder;

/// Writes an instruction as an element of a rule's list.
pub(super) fn write(item: &mut Encoder, expression: &Expression) {
    let name = match expression {
        Expression::Meta { .. } | Expression::SetMeta { .. } => "meta",
        Expression::Payload { .. } => "payload",
        Expression::Ct { .. } => "ct",
        Expression::Compare { .. } => "cmp",
        Expression::Bitwise { .. } => "bitwise",
        Expression::Lookup { .. } | Expression::Map { .. } => "lookup",
        Expression::Immediate { .. } | Expression::Verdict(_) => "immediate",
        Expression::Counter => "counter",
        Expression::Log { .. } => "log",
        Expression::Limit(_) => "limit",
        Expression::ConnectionsOver(_) => "connlimit",
        Expression::Notrack => "notrack",
        Expression::Masquerade { .. } => "masq",
        Expression::SourceNat { .. } | Expression::DestinationNat { .. } => "nat",
        Expression::Reject(_) => "reject",
        // Only ever read; the kernel refuses to add it.
        Expression::Foreign(name) => name,
    };
    item.text(NFTA_EXPR_NAME, name);
    if *expression != Expression::Notrack {
        item.nest(NFTA_EXPR_DATA, |to| operands(to, expression));
    }
}

fn operands(to: &mut Encoder, expression: &Expression) {
    match expression {
        Expression::Meta { key, register } => {
            to.be32(NFTA_META_KEY, *key);
            to.be32(NFTA_META_DREG, number_of(*register));
        }
        Expression::SetMeta { key, register } => {
            to.be32(NFTA_META_KEY, *key);
            to.be32(NFTA_META_SREG, number_of(*register));
        }
        Expression::Payload {
            base,
            offset,
            length,
            register,
        } => {
            to.be32(NFTA_PAYLOAD_DREG, number_of(*register));
            to.be32(NFTA_PAYLOAD_BASE, *base);
            to.be32(NFTA_PAYLOAD_OFFSET, *offset);
            to.be32(NFTA_PAYLOAD_LEN, *length);
        }
        Expression::Ct { key, register } => {
            to.be32(NFTA_CT_KEY, *key);
            to.be32(NFTA_CT_DREG, number_of(*register));
        }
        Expression::Compare {
            register,
            operator,
            value,
        } => {
            to.be32(NFTA_CMP_SREG, number_of(*register));
            to.be32(NFTA_CMP_OP, operator_number(*operator));
            data(to, NFTA_CMP_DATA, value);
        }
        Expression::Bitwise {
            register,
            mask,
            xor,
        } => {
            to.be32(NFTA_BITWISE_SREG, number_of(*register));
            to.be32(NFTA_BITWISE_DREG, number_of(*register));
            to.be32(NFTA_BITWISE_OP, NFT_BITWISE_MASK_XOR);
            to.be32(NFTA_BITWISE_LEN, length(mask.len()));
            data(to, NFTA_BITWISE_MASK, mask);
            data(to, NFTA_BITWISE_XOR, xor);
        }
        Expression::Lookup {
            register,
            set,
            negated,
        } => {
            to.be32(NFTA_LOOKUP_SREG, number_of(*register));
            to.text(NFTA_LOOKUP_SET, set);
            if *negated {
                to.be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
            }
        }
        Expression::Map {
            register,
            set,
            to: result,
        } => {
            to.be32(NFTA_LOOKUP_SREG, number_of(*register));
            to.be32(NFTA_LOOKUP_DREG, result.map_or(NFT_REG_VERDICT, number_of));
            to.text(NFTA_LOOKUP_SET, set);
        }
        Expression::Immediate { register, value } => {
            to.be32(NFTA_IMMEDIATE_DREG, number_of(*register));
            data(to, NFTA_IMMEDIATE_DATA, value);
        }
        Expression::Verdict(verdict) => {
            to.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            super::verdict(to, NFTA_IMMEDIATE_DATA, verdict);
        }
        Expression::Log { group, prefix } => {
            to.text(NFTA_LOG_PREFIX, prefix);
            to.be16(NFTA_LOG_GROUP, *group);
        }
        Expression::Limit(limit) => {
            to.be64(NFTA_LIMIT_RATE, limit.rate);
            to.be64(NFTA_LIMIT_UNIT, limit.seconds);
            to.be32(NFTA_LIMIT_BURST, limit.burst);
            to.be32(NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
            to.be32(NFTA_LIMIT_FLAGS, u32::from(limit.over));
        }
        Expression::ConnectionsOver(count) => {
            to.be32(NFTA_CONNLIMIT_COUNT, *count);
            to.be32(NFTA_CONNLIMIT_FLAGS, NFT_CONNLIMIT_F_INV);
        }
        Expression::Counter | Expression::Notrack | Expression::Foreign(_) => {}
        Expression::Masquerade { ports } => {
            to.be32(NFTA_MASQ_FLAGS, nat_flags(ports.is_some()));
            if let Some((low, high)) = ports {
                to.be32(NFTA_MASQ_REG_PROTO_MIN, number_of(*low));
                to.be32(NFTA_MASQ_REG_PROTO_MAX, number_of(*high));
            }
        }
        Expression::SourceNat {
            family,
            address,
            ports,
        } => {
            to.be32(NFTA_NAT_TYPE, NFT_NAT_SNAT);
            to.be32(NFTA_NAT_FAMILY, *family);
            to.be32(NFTA_NAT_REG_ADDR_MIN, number_of(*address));
            if let Some((low, high)) = ports {
                to.be32(NFTA_NAT_REG_PROTO_MIN, number_of(*low));
                to.be32(NFTA_NAT_REG_PROTO_MAX, number_of(*high));
            }
            to.be32(NFTA_NAT_FLAGS, nat_flags(ports.is_some()));
        }
        Expression::DestinationNat {
            family,
            address,
            port,
        } => {
            to.be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
            to.be32(NFTA_NAT_FAMILY, *family);
            to.be32(NFTA_NAT_REG_ADDR_MIN, number_of(*address));
            to.be32(NFTA_NAT_REG_PROTO_MIN, number_of(*port));
            to.be32(NFTA_NAT_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
        }
        Expression::Reject(Reject::Prohibited) => {
            to.be32(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
            to.u8(NFTA_REJECT_ICMP_CODE, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
        }
        Expression::Reject(Reject::TcpReset) => {
            to.be32(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST);
            to.u8(NFTA_REJECT_ICMP_CODE, 0);
        }
    }
}

fn operator_number(operator: Operator) -> u32 {
    match operator {
        Operator::Equal => NFT_CMP_EQ,
        Operator::NotEqual => NFT_CMP_NEQ,
        Operator::AtMost => NFT_CMP_LTE,
        Operator::AtLeast => NFT_CMP_GTE,
    }
}

fn nat_flags(ports: bool) -> u32 {
    let ports = if ports {
        NF_NAT_RANGE_PROTO_SPECIFIED
    } else {
        0
    };
    NF_NAT_RANGE_PROTO_RANDOM_FULLY | ports
}

/// The kernel's number of a register: those of 16 bytes have numbers of their own.
fn number_of(register: u32) -> u32 {
    if register.is_multiple_of(4) {
        NFT_REG_1 + register / 4
    } else {
        NFT_REG32_00 + register
    }
}
