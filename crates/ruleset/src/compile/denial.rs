//! Denials that are told: what denies leads to a chain that logs, within a limit, and then denies.
//!
//! The limit stands in a chain of its own, because a packet beyond it must still be denied; and no packet
//! that is not denied costs more for it.

use super::names;
use super::settings::{Direction, Settings};
use crate::expression::Limit;
use crate::{Chain, Rule, Statement, Table, Verdict};

/// Puts a chain into the table. Where denials are logged, its rules that deny lead to chains that tell, which are
/// put there too; `direction` is that of its rules, where they have one.
pub(super) fn put_chain(
    settings: &Settings,
    direction: Option<Direction>,
    name: &str,
    mut chain: Chain,
    table: &mut Table,
) {
    if settings.log.denials {
        for rule in &mut chain.rules {
            tell(settings, direction, rule, table);
        }
    }
    table.put_chain(name, chain);
}

/// Whether a chain of this name denies, after it has told of it.
#[must_use]
pub fn is_denial(chain: &str) -> bool {
    chain.starts_with(PREFIX)
}

/// What stands before a rule's packets in the log: `L` or `D`, the direction's first letter, and the rule or the
/// reason.
pub(super) fn prefix(letter: char, direction: Option<Direction>, label: &str) -> String {
    let direction = direction.map_or("", |direction| match direction {
        Direction::Ingress => "i",
        Direction::Egress => "e",
    });
    format!("{letter}{direction}|{label}")
}

fn tell(settings: &Settings, direction: Option<Direction>, rule: &mut Rule, table: &mut Table) {
    let (Some(last), Some(label)) = (rule.statements.last_mut(), &rule.comment) else {
        return;
    };
    if !matches!(
        last,
        Statement::Verdict(Verdict::Drop) | Statement::Reject(_)
    ) {
        return;
    }
    let (rate, burst) = settings.log.limit.unwrap_or(LIMIT);
    let prefix = prefix('D', direction, label);
    let end = Rule::new([last.clone()]);
    let name = format!("{PREFIX}{}", names::hash(&format!("{prefix} {end}")));
    let log = Rule::new([
        Statement::Limit(Limit {
            rate,
            seconds: 60,
            burst,
            over: false,
        }),
        Statement::Log {
            group: settings.log.group,
            prefix,
        },
    ]);
    table.put_chain(&name, Chain::regular([log, end]));
    *last = Statement::Verdict(Verdict::Goto(name));
}

const PREFIX: &str = "deny-";
/// Logs a minute of one reason, and at once, where operators do not say.
const LIMIT: (u64, u32) = (6000, 200);
