//! What each command does.

mod bgp;
mod delete;
mod edit;
mod get;
mod ipam;
mod node;
mod policy;
mod version;
mod why;
mod write;

use std::io::{Read, Write};

use anyhow::{Context, Result};
use margay_resources::Client;
use margay_store::Store;

use crate::cli::Command;
use crate::documents::Document;
use crate::stamps::SystemStamps;

pub use self::write::Verb;

/// Where a command reads from and writes to.
#[expect(missing_debug_implementations, reason = "streams have no text form")]
pub struct Streams<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Warnings.
    pub err: &'a mut dyn Write,
}

impl Streams<'_> {
    fn say(&mut self, text: &str) -> Result<()> {
        self.out
            .write_all(text.as_bytes())
            .context("standard output")
    }

    fn warn(&mut self, text: &str) -> Result<()> {
        writeln!(self.err, "warning: {text}").context("standard error")
    }
}

/// Does what needs no datastore; gives the command back when it needs one.
///
/// # Errors
/// What the user should see.
pub async fn begin(command: Command, streams: &mut Streams<'_>) -> Result<Option<Command>> {
    match command {
        Command::Validate(source) => write::validate(&source, streams).map(|()| None),
        Command::Version { client: true } => version::client(streams).map(|()| None),
        Command::Bgp(command) => bgp::run(&command, streams).await.map(|()| None),
        Command::Policy(command) => policy::run(&command, streams).map(|()| None),
        Command::Node(node) => {
            let answered = node::ask(&node, streams).await?;
            Ok((!answered).then_some(Command::Node(node)))
        }
        other => Ok(Some(other)),
    }
}

/// Runs a command over a store.
///
/// # Errors
/// What the user should see.
pub async fn run<S: Store>(store: &S, command: Command, streams: &mut Streams<'_>) -> Result<()> {
    let client = Client::new(store, SystemStamps);
    match command {
        Command::Create(write) => {
            let names = client.names_of_cluster().await?;
            let client = client.with_names(names);
            write::write(&client, Verb::Create, &write, streams).await
        }
        Command::Apply(write) => {
            let names = client.names_of_cluster().await?;
            let client = client.with_names(names);
            write::write(&client, Verb::Apply, &write, streams).await
        }
        Command::Replace(write) => write::write(&client, Verb::Replace, &write, streams).await,
        Command::Delete(delete) => delete::delete(&client, &delete, streams).await,
        Command::Get(get) => get::get(&client, &get, streams).await,
        Command::Patch(patch) => edit::patch(&client, &patch, streams).await,
        Command::Label(label) => edit::label(&client, &label, streams).await,
        Command::Ipam(command) => ipam::run(store, &client, command, streams).await,
        Command::Node(command) => node::run(store, command, streams).await,
        Command::Bgp(command) => bgp::run(&command, streams).await,
        Command::Version { client: true } => version::client(streams),
        Command::Version { client: false } => version::both(&client, streams).await,
        Command::Validate(source) => write::validate(&source, streams),
        Command::Policy(command) => policy::run(&command, streams),
        Command::Why(asked) => why::run(store, asked, streams).await,
    }
}

/// Warns about fields that no kind knows.
fn warn_unknown(document: &Document, streams: &mut Streams<'_>) -> Result<()> {
    for field in &document.unknown {
        let (place, id) = (&document.place, document.id());
        streams.warn(&format!(
            "{place}, {id}: {field} is not a known field; it is kept as it is"
        ))?;
    }
    Ok(())
}
