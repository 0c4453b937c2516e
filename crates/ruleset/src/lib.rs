//! The nftables model, the compilation of policy into it, and its planner: difference to batch.
//!
//! Nothing here touches the kernel. A [`Table`] says how our table should be, an [`Observed`] how
//! it is; [`plan()`] returns the [`Batch`] that leads from one to the other, to be put in force as
//! one transaction. All of them print as nftables' own language.

mod batch;
pub mod compile;
mod datatype;
pub mod expression;
mod observed;
pub mod others;
mod plan;
mod print;
mod set;
mod statement;
mod table;

pub use batch::{Batch, Operation};
pub use compile::Compiler;
pub use datatype::{DataType, interface_bytes};
pub use observed::{
    Observed, ObservedBase, ObservedChain, ObservedRule, ObservedSet, ObservedTable,
};
pub use plan::{closed, plan, plan_changes};
pub use set::{Data, Element, Key, Set, SetSpec, Value, Verdict};
pub use statement::{Field, Side, Statement};
pub use table::{Base, Chain, ChainKind, Changes, Hook, Rule, Table};

/// A comment as it can be stored and read by nft: on one line, without quotes, at most 127 bytes.
fn comment(text: &str) -> String {
    let mut short = String::new();
    for character in text.chars() {
        let character = if character.is_control() || character == '"' {
            '\''
        } else {
            character
        };
        if short.len() + character.len_utf8() > COMMENT_LENGTH {
            break;
        }
        short.push(character);
    }
    short
}

/// `NFTNL_UDATA_COMMENT_MAXLEN` without the NUL.
const COMMENT_LENGTH: usize = 127;
