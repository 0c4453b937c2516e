//! DEL: interfaces first, so that nothing sends from an address that is free again; then the record and its
//! addresses, in one commit.

use margay_call::{OWN_IPAM_TYPES, Releasing, Turn, adding, environment, overtaking};
use margay_cni::error::Error;
use margay_cni::{Command, Request};
use margay_plugin::{Delegate, progress};

use crate::identity::Identity;
use crate::kernel::{forget_connections, take_down};

/// Carries out a DEL. What is not there is no error, nor is a store that is away, nor a configuration that was
/// broken since ADD.
///
/// # Errors
/// What could not be removed, after everything else has been.
pub(crate) async fn run(call: &Request) -> Result<(), Error> {
    overtaking(call, &adding(call), async || remove(call).await).await
}

/// The DEL itself, also of an ADD that a DEL overtook.
///
/// # Errors
/// As [`run`].
pub(crate) async fn remove(call: &Request) -> Result<(), Error> {
    let releasing = Releasing::read(&call.conf, &environment);
    let identity = Identity::of(call, &releasing.node.name_or_guess())?;
    let prefix = environment("FELIX_INTERFACEPREFIX");
    let names = identity.host_interfaces(prefix.as_deref())?;
    progress("removing the interfaces");
    // An address must not be free while an interface still has it; and without a record GC would not come back
    // for the interface.
    take_down(&names, &identity).await.map_err(Error::for_del)?;
    let released = release(call, &releasing, &identity, names.into()).await;
    released.map_err(Error::for_del)
}

/// Removes the record and gives back its addresses, or journals that this is to be done. `interfaces` are the
/// names that the host interface may have had.
///
/// # Errors
/// What could not be removed; a delegate's error comes after our own part is done.
pub(crate) async fn release(
    call: &Request,
    releasing: &Releasing,
    identity: &Identity,
    interfaces: Vec<String>,
) -> Result<(), Error> {
    let delegated = match foreign_ipam(call) {
        None => Ok(()),
        Some(plugin) => Delegate::find(plugin, call)
            .and_then(|it| it.call(call, Command::Del))
            .map(|_| ()),
    };
    let _turn = Turn::wait(call.conf.raw(), &identity.name.node).await;
    let released = releasing.release(call, identity.release(interfaces)).await;
    let forgotten = released.map(|addresses| forget_connections(&addresses));
    delegated.and(forgotten)
}

/// The IPAM plugin, where it is not ours. Without a readable `ipam` everything is released by record.
fn foreign_ipam(call: &Request) -> Option<&str> {
    let ipam = call.conf.ipam().ok().flatten()?;
    (!OWN_IPAM_TYPES.contains(&ipam.plugin)).then_some(ipam.plugin)
}
