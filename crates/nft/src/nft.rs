//! A connection to nftables: batches in, what is there out.

use margay_netlink::netfilter::wire::{Attributes, Encoder, Message, NLM_F_DUMP, NLM_F_REQUEST};
use margay_netlink::netfilter::{Connection, Error, Result};
use margay_netlink::{Namespace, RequestError};
use margay_ruleset::compile::is_denial;
use margay_ruleset::expression::Expression;
use margay_ruleset::others::ForeignChain;
use margay_ruleset::{Batch, Observed, ObservedSet, ObservedTable, Table, Verdict, closed, plan};
use nix::errno::Errno;

use crate::decode;
use crate::encode::{self, Transaction};
use crate::others;
use crate::protocol::*;

/// A connection to the nftables of one namespace.
#[derive(Debug)]
pub struct Nft {
    connection: Connection,
}

/// What a rule has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCounter {
    /// The rule's chain.
    pub chain: String,
    /// Its place in the chain, from 0.
    pub index: usize,
    /// Where it comes from.
    pub comment: Option<String>,
    /// Whether it drops or rejects what it counts.
    pub denies: bool,
    /// What becomes of what it counts; `None` where it only counts, or translates.
    pub verdict: Option<Verdict>,
    /// Packets since it was added.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What an element of a counting set has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementCounter {
    /// The set.
    pub set: String,
    /// Where the element comes from.
    pub comment: Option<String>,
    /// Packets since it was added.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Nft {
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
    /// As [`Nft::open`].
    pub fn current() -> Result<Self> {
        Self::open(&Namespace::current()?)
    }

    /// The number of the socket: [`crate::Watch`] passes over the changes made through it.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.connection.port()
    }

    /// Puts a batch in force: all of it when this returns, or nothing if it fails.
    ///
    /// # Errors
    /// [`Error::Request`] names the first operation that the kernel refused; [`Error::Send`] if
    /// the batch could not be handed over. After either, what is there should be observed anew.
    pub fn apply(&mut self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        // More messages than operations, since long lists are split: so many at most.
        let first = self.connection.sequences(RESERVED);
        let transaction = Transaction::new(batch, first);
        let what = || format!("applying a batch to table {}", batch.table);
        self.connection.send(transaction.bytes.as_bytes(), what)?;
        for verdict in self.connection.pending() {
            let Some(place) = verdict.sequence.checked_sub(first) else {
                continue;
            };
            if let Err(source) = verdict.outcome {
                let index = usize::try_from(place)
                    .ok()
                    .and_then(|place| place.checked_sub(1));
                let index = index.and_then(|index| transaction.operations.get(index));
                let operation = index.and_then(|index| batch.operations.get(*index));
                let what = operation.map_or_else(what, |operation| {
                    format!("{} of table {}", operation.object(), batch.table)
                });
                return Err(Error::Request { what, source });
            }
        }
        Ok(())
    }

    /// Makes our table what it should be, whatever is there; returns what is there then.
    ///
    /// For the start, and whenever a batch was refused or somebody else has changed the table.
    ///
    /// # Errors
    /// As [`Nft::apply`] and [`Nft::observe`], when the kernel refuses again and again.
    pub fn synchronise(&mut self, table: &Table) -> Result<Observed> {
        let mut attempt = 1;
        loop {
            let mut observed = self.observe(table.name())?;
            let batch = plan(table, &observed);
            match self.apply(&batch) {
                Ok(()) => {
                    observed.apply(&batch);
                    return Ok(observed);
                }
                // Somebody may have changed it between reading and writing.
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// As [`Nft::synchronise`], for a table that has been deleted: until the whole of it is in
    /// force, a small one drops what goes to and from workloads. `prefixes` are those of the
    /// workloads' interfaces.
    ///
    /// # Errors
    /// As [`Nft::synchronise`].
    pub fn restore(&mut self, table: &Table, prefixes: &[String]) -> Result<Observed> {
        let small = closed(table.name(), table.comment(), prefixes);
        // Refused if the table is there after all.
        if let Err(error) = self.apply(&plan(&small, &Observed::default()))
            && error.errno() != Some(Errno::EEXIST)
        {
            return Err(error);
        }
        self.synchronise(table)
    }

    /// The number of the last transaction of this namespace, by whomever.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel refuses.
    pub fn generation(&mut self) -> Result<u32> {
        let what = || "asking for the generation of nftables".to_owned();
        let (request, sequence) = self.request(NFT_MSG_GETGEN, 0, |_| {});
        let decode = |message: Message<'_>| message.attributes().be32(NFTA_GEN_ID);
        let generation = self
            .connection
            .ask(request.as_bytes(), sequence, what, decode)?;
        Ok(generation.unwrap_or_default())
    }

    /// Everything that the kernel has under a table's name, as of one moment.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel refuses, or the ruleset changes too fast to be read.
    pub fn observe(&mut self, table: &str) -> Result<Observed> {
        let mut observed = self.observe_once(table)?;
        for _ in 1..ATTEMPTS {
            if let Some(observed) = observed {
                return Ok(observed);
            }
            observed = self.observe_once(table)?;
        }
        observed.ok_or_else(|| Error::Request {
            what: format!("reading table {table}"),
            source: RequestError::Interrupted,
        })
    }

    /// What the rules of a table have counted, in the order of their chains.
    ///
    /// # Errors
    /// As [`Nft::observe`].
    pub fn counters(&mut self, table: &str) -> Result<Vec<RuleCounter>> {
        for _ in 0..ATTEMPTS {
            let mut counters: Vec<RuleCounter> = Vec::new();
            let mut place: (String, usize) = (String::new(), 0);
            let complete = self.list(NFT_MSG_GETRULE, table, NFTA_RULE_TABLE, |message| {
                let Some(found) = decode::rule(message) else {
                    return;
                };
                place = match std::mem::take(&mut place) {
                    (last, index) if last == found.chain => (last, index + 1),
                    _ => (found.chain, 0),
                };
                if let Some((packets, bytes)) = found.counted {
                    counters.push(RuleCounter {
                        chain: place.0.clone(),
                        index: place.1,
                        denies: found.rule.expressions.iter().any(denies),
                        verdict: found.rule.expressions.iter().find_map(verdict),
                        comment: found.rule.comment,
                        packets,
                        bytes,
                    });
                }
            })?;
            if complete.is_some() {
                return Ok(counters);
            }
        }
        Err(Error::Request {
            what: format!("reading the counters of table {table}"),
            source: RequestError::Interrupted,
        })
    }

    /// What the elements of a table's counting sets have counted.
    ///
    /// # Errors
    /// As [`Nft::observe`].
    pub fn element_counters(&mut self, table: &str) -> Result<Vec<ElementCounter>> {
        for _ in 0..ATTEMPTS {
            let mut sets = Vec::new();
            let mut complete = self.list(NFT_MSG_GETSET, table, NFTA_SET_TABLE, |message| {
                if message.text(NFTA_SET_TABLE).as_deref() == Some(table)
                    && message.nested(NFTA_SET_EXPR).is_some()
                {
                    sets.extend(message.text(NFTA_SET_NAME));
                }
            })?;
            let mut counters = Vec::new();
            for set in sets {
                let each = |message: Attributes<'_>| {
                    let counted = decode::counted_elements(message);
                    counters.extend(counted.map(|(comment, packets, bytes)| ElementCounter {
                        set: set.clone(),
                        comment,
                        packets,
                        bytes,
                    }));
                };
                complete = complete.and(self.each_element(table, &set, each)?);
            }
            if complete.is_some() {
                return Ok(counters);
            }
        }
        Err(Error::Request {
            what: format!("reading the counters of table {table}"),
            source: RequestError::Interrupted,
        })
    }

    /// Every chain of the namespace, of whatever table.
    ///
    /// # Errors
    /// As [`Nft::observe`].
    pub fn chains(&mut self) -> Result<Vec<ForeignChain>> {
        others::chains(&mut self.connection)
    }

    /// `None` if the ruleset changed meanwhile.
    fn observe_once(&mut self, name: &str) -> Result<Option<Observed>> {
        let before = self.generation()?;
        let mut table = match self.table(name)? {
            None => return Ok(Some(Observed::default())),
            Some((flags, comment)) => ObservedTable {
                flags,
                comment,
                ..ObservedTable::default()
            },
        };
        let mut complete = self.list(NFT_MSG_GETCHAIN, name, NFTA_CHAIN_TABLE, |message| {
            if message.text(NFTA_CHAIN_TABLE).as_deref() == Some(name)
                && let Some(chain) = message.text(NFTA_CHAIN_NAME)
            {
                table.chains.insert(chain, decode::chain(message));
            }
        })?;
        complete = complete.and(
            self.list(NFT_MSG_GETRULE, name, NFTA_RULE_TABLE, |message| {
                if message.text(NFTA_RULE_TABLE).as_deref() == Some(name)
                    && let Some(found) = decode::rule(message)
                    && let Some(chain) = table.chains.get_mut(&found.chain)
                {
                    chain.rules.push(found.rule);
                }
            })?,
        );
        let mut specs = Vec::new();
        complete = complete.and(self.list(NFT_MSG_GETSET, name, NFTA_SET_TABLE, |message| {
            if message.text(NFTA_SET_TABLE).as_deref() == Some(name)
                && let Some(set) = message.text(NFTA_SET_NAME)
            {
                specs.push((set, decode::set(message)));
            }
        })?);
        for (set, spec) in specs {
            let (elements, listed) = self.elements(name, &set)?;
            complete = complete.and(listed);
            let elements = decode::elements(elements, spec.as_ref());
            table.sets.insert(set, ObservedSet { spec, elements });
        }
        for kind in [NFT_MSG_GETOBJ, NFT_MSG_GETFLOWTABLE] {
            complete = complete.and(self.list(kind, name, NFTA_TABLE_NAME, |message| {
                table.foreign |= message.text(NFTA_TABLE_NAME).as_deref() == Some(name);
            })?);
        }
        let same = complete.is_some() && self.generation()? == before;
        Ok(same.then_some(Observed { table: Some(table) }))
    }

    fn table(&mut self, name: &str) -> Result<Option<(u32, Option<String>)>> {
        let (request, sequence) = self.request(NFT_MSG_GETTABLE, 0, |message| {
            message.text(NFTA_TABLE_NAME, name);
        });
        let what = || format!("reading table {name}");
        let decode = |message: Message<'_>| Some(decode::table(message.attributes()));
        self.connection
            .ask(request.as_bytes(), sequence, what, decode)
    }

    fn elements(&mut self, table: &str, set: &str) -> Result<(Vec<decode::Item>, Option<()>)> {
        let mut items = Vec::new();
        let each = |message: Attributes<'_>| items.extend(decode::items(message));
        let complete = self.each_element(table, set, each)?;
        Ok((items, complete))
    }

    fn each_element(
        &mut self,
        table: &str,
        set: &str,
        mut each: impl FnMut(Attributes<'_>),
    ) -> Result<Option<()>> {
        let (request, sequence) = self.request(NFT_MSG_GETSETELEM, NLM_F_DUMP, |message| {
            message.text(NFTA_SET_ELEM_LIST_TABLE, table);
            message.text(NFTA_SET_ELEM_LIST_SET, set);
        });
        let what = || format!("listing set {set} of table {table}");
        let each = |message: Message<'_>| each(message.attributes());
        self.connection
            .dump(request.as_bytes(), sequence, what, each)
    }

    /// Lists objects of a table. Old kernels list those of others too.
    fn list(
        &mut self,
        kind: u16,
        table: &str,
        attribute: u16,
        mut each: impl FnMut(Attributes<'_>),
    ) -> Result<Option<()>> {
        let (request, sequence) = self.request(kind, NLM_F_DUMP, |message| {
            message.text(attribute, table);
        });
        let what = || format!("listing table {table}");
        let each = |message: Message<'_>| each(message.attributes());
        self.connection
            .dump(request.as_bytes(), sequence, what, each)
    }

    fn request(
        &mut self,
        kind: u16,
        flags: u16,
        attributes: impl FnOnce(&mut Encoder),
    ) -> (Encoder, u32) {
        let sequence = self.connection.sequences(1);
        let mut request = Encoder::default();
        let header = encode::header(kind, NLM_F_REQUEST | flags, sequence);
        request.message(header, attributes);
        (request, sequence)
    }
}

/// Whether an instruction drops or rejects.
fn denies(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::Verdict(Verdict::Drop) | Expression::Reject(_)
    ) || matches!(expression, Expression::Verdict(Verdict::Goto(chain)) if is_denial(chain))
}

fn verdict(expression: &Expression) -> Option<Verdict> {
    match expression {
        Expression::Verdict(verdict) => Some(verdict.clone()),
        _ => None,
    }
}

const ATTEMPTS: usize = 8;
/// Sequence numbers put aside for one batch.
const RESERVED: u32 = 1 << 26;
