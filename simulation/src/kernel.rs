//! A node's kernel, as far as endpoints need one: host interfaces with marks, each the end of a pair whose other
//! end lies in a container's namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_endpoint::Mark;
use margay_netlink::{Interfaces, Link};

/// A host interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The mark; none until it is set.
    pub mark: Option<String>,
    /// The container's namespace.
    pub namespace: u64,
    /// The routes to the container, by which it can be reached.
    pub addresses: Vec<IpAddr>,
    index: u32,
}

/// What a node's kernel holds.
#[derive(Debug, Default)]
pub struct Kernel {
    interfaces: BTreeMap<String, Interface>,
    namespaces: BTreeSet<u64>,
    last_index: u32,
}

/// Why an interface cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The container's namespace is gone.
    NamespaceGone,
    /// The container has an interface of the name that is not this endpoint's.
    InterfaceExists,
    /// The host has an interface of the name that is another endpoint's.
    HostInterfaceExists,
    /// The interface vanished while it was set up.
    Vanished,
}

impl Kernel {
    /// A namespace for a container.
    pub fn add_namespace(&mut self, namespace: u64) {
        self.namespaces.insert(namespace);
    }

    /// The namespace goes, with its end of the pair and so with the host's; what went.
    pub fn delete_namespace(&mut self, namespace: u64) -> Vec<Interface> {
        self.namespaces.remove(&namespace);
        let gone: Vec<Interface> = self
            .interfaces
            .values()
            .filter(|interface| interface.namespace == namespace)
            .cloned()
            .collect();
        for interface in &gone {
            self.interfaces.remove(&interface.name);
        }
        gone
    }

    /// Everything goes; the interfaces that went.
    pub fn clear(&mut self) -> Vec<Interface> {
        self.namespaces.clear();
        std::mem::take(&mut self.interfaces).into_values().collect()
    }

    /// An interface by name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.get(name)
    }

    /// All interfaces.
    pub fn all(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.values()
    }

    /// Makes a pair, without a mark yet. What an earlier attempt left is replaced.
    ///
    /// # Errors
    /// What is in the way; nothing is changed then.
    pub fn create(
        &mut self,
        name: &str,
        namespace: u64,
        mark: &Mark,
    ) -> Result<Vec<Interface>, Refused> {
        if !self.namespaces.contains(&namespace) {
            return Err(Refused::NamespaceGone);
        }
        let inner = self
            .interfaces
            .values()
            .find(|interface| interface.namespace == namespace)
            .map(|interface| interface.name.clone());
        let outer = self.interfaces.get(name);
        let ours = outer.is_some_and(|outer| is_ours(outer, mark));
        if inner.is_some_and(|inner| inner != name || !ours) {
            return Err(Refused::InterfaceExists);
        }
        if outer.is_some() && !ours {
            return Err(Refused::HostInterfaceExists);
        }
        let replaced = self.interfaces.remove(name).into_iter().collect();
        self.last_index += 1;
        let made = Interface {
            name: name.to_owned(),
            mark: None,
            namespace,
            addresses: Vec::new(),
            index: self.last_index,
        };
        self.interfaces.insert(name.to_owned(), made);
        Ok(replaced)
    }

    /// Changes an interface that was made for a namespace.
    ///
    /// # Errors
    /// It is gone.
    pub fn change(
        &mut self,
        name: &str,
        namespace: u64,
        change: impl FnOnce(&mut Interface),
    ) -> Result<(), Refused> {
        let held = self.interfaces.get_mut(name);
        let held = held.filter(|held| held.namespace == namespace);
        change(held.ok_or(Refused::Vanished)?);
        Ok(())
    }

    /// Deletes an interface of this name where it may be this endpoint's; what went.
    pub fn delete(&mut self, name: &str, mark: &Mark) -> Option<Interface> {
        let held = self.interfaces.get(name)?;
        if is_ours(held, mark) {
            return self.interfaces.remove(name);
        }
        None
    }

    /// What the agent sees.
    pub fn interfaces(&self) -> Interfaces {
        self.interfaces
            .values()
            .map(|interface| Link {
                index: interface.index,
                name: interface.name.clone(),
                alias: interface.mark.clone(),
                ..Link::default()
            })
            .collect()
    }
}

/// An interface without a mark is what an attempt left that ended before it could set one.
fn is_ours(held: &Interface, mark: &Mark) -> bool {
    held.mark
        .as_deref()
        .is_none_or(|held| held == mark.as_str())
}
