//! What speaks BGP for the agent: its own speaker, BIRD or GoBGP. All are given the same order.

mod bird;
mod control;
mod daemon;
mod gobgp;
mod own;
mod sessions;

use std::path::PathBuf;

use margay_bgp::{Event, Stop};
use margay_bgp_io::Peers;
use margay_model::Cidr;
use margay_peering::Problem;

use super::order::Order;
use super::view::RouteView;
use crate::calculate::Way;

/// Which program speaks BGP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The agent itself.
    Margay,
    /// BIRD 2, which also keeps learned routes in the kernel.
    Bird {
        /// The program.
        program: PathBuf,
        /// Where its configuration and its socket are.
        directory: PathBuf,
    },
    /// GoBGP.
    Gobgp {
        /// The program.
        program: PathBuf,
        /// Where its socket is.
        directory: PathBuf,
    },
}

/// A speaker that runs.
#[derive(Debug)]
pub enum Speaker {
    /// The agent's own.
    Own(Box<own::Own>),
    /// BIRD.
    Bird(Box<bird::Bird>),
    /// GoBGP.
    Gobgp(Box<gobgp::Gobgp>),
}

/// What a speaker tells.
#[derive(Debug, Default)]
pub struct Told {
    /// The ways to prefixes; `None` where there is none any more. A speaker that keeps routes in the kernel
    /// itself tells none.
    pub ways: Vec<(Cidr, Option<Way>)>,
    /// Whether the table is complete for the first time since the start.
    pub converged: bool,
    /// What happened.
    pub events: Vec<Event>,
    /// What people should know besides.
    pub warnings: Vec<String>,
}

/// Routes that were asked for; the error is what HTTP answers, and why.
pub type Routes = Result<Vec<RouteView>, (u16, String)>;

impl Backend {
    /// The protocol number under which another program keeps learned routes in the kernel; `None` where
    /// the agent does.
    pub fn kernel_protocol(&self) -> Option<u8> {
        match self {
            Self::Margay | Self::Gobgp { .. } => None,
            Self::Bird { .. } => Some(margay_bird::KERNEL_PROTOCOL),
        }
    }

    /// Starts a speaker that does what an order says.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn start(&self, order: &Order) -> Result<Speaker, String> {
        match self {
            Self::Margay => own::Own::start(order).map(|own| Speaker::Own(Box::new(own))),
            Self::Bird { program, directory } => {
                let bird = bird::Bird::start(program, directory, order).await?;
                Ok(Speaker::Bird(Box::new(bird)))
            }
            Self::Gobgp { program, directory } => {
                let gobgp = gobgp::Gobgp::start(program, directory, order).await?;
                Ok(Speaker::Gobgp(Box::new(gobgp)))
            }
        }
    }

    /// Ends what another backend left running below `directory`, with its routes.
    pub async fn retire_others(&self, directory: &std::path::Path) {
        if !matches!(self, Self::Bird { .. }) {
            bird::retire(directory).await;
        }
        if !matches!(self, Self::Gobgp { .. }) {
            gobgp::retire(directory).await;
        }
    }
}

impl Speaker {
    /// Carries out an order.
    pub async fn obey(&mut self, order: &Order) {
        match self {
            Self::Own(own) => own.obey(order).await,
            Self::Bird(bird) => bird.obey(order).await,
            Self::Gobgp(gobgp) => gobgp.obey(order).await,
        }
    }

    /// Waits for what the speaker tells; `None` when it has ended and must be started anew. May be dropped
    /// at any time.
    pub async fn next(&mut self) -> Option<Told> {
        match self {
            Self::Own(own) => own.next().await,
            Self::Bird(bird) => bird.next().await,
            Self::Gobgp(gobgp) => gobgp.next().await,
        }
    }

    /// Looks after what could not be done.
    pub async fn retry(&mut self) {
        if let Self::Own(own) = self {
            own.retry().await;
        }
    }

    /// Where connections are awaited.
    pub fn listening(&self) -> Vec<String> {
        match self {
            Self::Own(own) => own.listening(),
            Self::Bird(bird) => bird.listening(),
            Self::Gobgp(gobgp) => gobgp.listening(),
        }
    }

    /// What could not be done.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Own(own) => own.problems(),
            Self::Bird(bird) => bird.problems(),
            Self::Gobgp(gobgp) => gobgp.problems(),
        }
    }

    /// The peers as they are; `None` if the speaker does not say.
    pub async fn peers(&mut self) -> Option<Peers> {
        match self {
            Self::Own(own) => own.peers().await,
            Self::Bird(bird) => bird.peers(),
            Self::Gobgp(gobgp) => gobgp.peers(),
        }
    }

    /// The whole table.
    ///
    /// # Errors
    /// As [`Routes`].
    pub async fn table(&mut self) -> Routes {
        match self {
            Self::Own(own) => own.table().await,
            Self::Bird(bird) => bird.table().await,
            Self::Gobgp(gobgp) => gobgp.table().await,
        }
    }

    /// What a peer announced.
    ///
    /// # Errors
    /// As [`Routes`].
    pub async fn received(&mut self, peer: &str) -> Routes {
        match self {
            Self::Own(own) => own.received(peer).await,
            Self::Bird(bird) => bird.received(peer).await,
            Self::Gobgp(gobgp) => gobgp.received(peer).await,
        }
    }

    /// What a peer is announced.
    ///
    /// # Errors
    /// As [`Routes`].
    pub async fn advertised(&mut self, peer: &str) -> Routes {
        match self {
            Self::Own(own) => own.advertised(peer).await,
            Self::Bird(bird) => bird.advertised(peer).await,
            Self::Gobgp(gobgp) => gobgp.advertised(peer).await,
        }
    }

    /// Stops the speaker. One that is a program of its own goes on where forwarding is kept.
    pub async fn stop(&mut self, how: Stop) {
        match self {
            Self::Own(own) => own.stop(how).await,
            Self::Bird(bird) => bird.stop(&how).await,
            Self::Gobgp(gobgp) => gobgp.stop(&how).await,
        }
    }
}

/// That there is no such peer.
fn no_peer(peer: &str) -> (u16, String) {
    (404, format!("there is no BGP peer {peer}"))
}
