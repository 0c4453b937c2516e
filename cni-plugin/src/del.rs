//! DEL: interfaces first, so that nothing sends from an address that is free again; then the record and its
//! addresses, in one commit.

use margay_call::{Hints, Turn, environment, now, open};
use margay_cni::error::Error;
use margay_cni::{Command, Request};
use margay_datastore::Datastore;
use margay_ipam_core::{Allocator, Release};
use margay_plugin::{Delegate, Level, log, progress};

use crate::config::{Config, Ipam};
use crate::identity::Identity;
use crate::kernel::take_down;
use crate::record::{Failure, Removal, commit_alone};

/// Carries out a DEL. What is not there is no error.
///
/// # Errors
/// What could not be removed, after everything else has been.
pub(crate) async fn run(config: Result<&Config, &Error>, call: &Request) -> Result<(), Error> {
    let node = match config {
        Ok(config) => config.shared.node.name_or_guess(),
        Err(_) => String::from("unknown"),
    };
    let identity = Identity::of(call, &node)?;
    let prefix = environment("FELIX_INTERFACEPREFIX");
    let names = identity.host_interfaces(prefix.as_deref())?;
    progress("removing the interfaces");
    // An address must not be free while an interface still has it; and without a record GC would not come back
    // for the interface.
    take_down(&names, &identity).await.map_err(Error::for_del)?;
    let config = config.map_err(Clone::clone);
    let released = match config {
        Ok(config) => match open(&config.shared) {
            Ok(store) => release(config, call, &store, &identity).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    released.map_err(Error::for_del)
}

/// Removes the record and gives back its addresses.
///
/// # Errors
/// What could not be removed; a delegate's error comes after our own part is done.
pub(crate) async fn release(
    config: &Config,
    call: &Request,
    store: &Datastore,
    identity: &Identity,
) -> Result<(), Error> {
    let mut removal = Removal::new(identity);
    let Ipam::Delegate(plugin) = &config.ipam else {
        return release_own(call, store, identity, &mut removal).await;
    };
    let delegated = Delegate::find(plugin, call).and_then(|it| it.call(call, Command::Del));
    progress(format!("waiting for {}", store.describe()));
    let removed = commit_alone(store, &mut removal, &[]).await;
    delegated.map(|_| ()).and(removed)
}

async fn release_own(
    call: &Request,
    store: &Datastore,
    identity: &Identity,
    removal: &mut Removal<'_>,
) -> Result<(), Error> {
    let node = &identity.name.node;
    let _turn = Turn::wait(call.conf.raw(), node).await;
    let allocator = Allocator::new(store);
    let mut request = Release {
        node: node.clone(),
        handle: identity.handle.clone(),
        interface: Some(identity.name.endpoint.clone()),
        hints: Hints::of(call.conf.raw(), node).read(),
        now: now(),
    };
    progress(format!("waiting for {}", store.describe()));
    let released = allocator
        .release(&request, removal)
        .await
        .map_err(|Failure(error)| error)?;
    log(
        Level::Debug,
        &format!("{} gave back {:?}", identity.handle, released.addresses),
    );
    if removal.has_legacy_handle {
        request.handle.clone_from(&identity.legacy_handle);
        request.interface = None;
        allocator
            .release(&request, removal)
            .await
            .map_err(|Failure(error)| error)?;
    }
    Ok(())
}
