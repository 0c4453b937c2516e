//! What kind of cluster a seed stands for.

use fastrand::Rng;

/// The size and the troubles of a simulated cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Nodes of ours.
    pub nodes: usize,
    /// Runtimes on each node that work side by side.
    pub workers: usize,
    /// Most containers that a worker keeps.
    pub containers: usize,
    /// Nodes whose addresses a Calico-like writer handles.
    pub foreign: usize,
    /// IPv4 pools: prefix and block length.
    pub pools: Vec<(String, u8)>,
    /// Whether containers may ask for IPv6, too.
    pub dual_stack: bool,
    /// Whether nodes may use their own blocks only.
    pub strict_affinity: bool,
    /// Of 1,000 messages, how many are lost.
    pub loss: u32,
    /// Of 1,000 messages, how many are late.
    pub late: u32,
    /// Of 1,000 calls, how many are killed half-way.
    pub kills: u32,
    /// Whether nodes are cut off, restarted, and the like.
    pub chaos: bool,
    /// Whether GC waits for other calls and keeps them waiting, as the specification promises.
    pub exclusive: bool,
}

impl Shape {
    /// The shape that a seed draws: from an idle cluster with room for all to a crowded one in trouble.
    pub fn draw(rng: &mut Rng) -> Self {
        let crowded = rng.bool();
        let length = rng.u8(27..=30);
        let pools = if crowded {
            vec![("10.0.0.0/26".to_owned(), length)]
        } else {
            vec![
                ("10.0.0.0/24".to_owned(), length),
                ("10.0.1.0/24".to_owned(), 28),
            ]
        };
        let troubled = rng.u32(..4) > 0;
        let pick = |rng: &mut Rng, most: u32| if troubled { rng.u32(..=most) } else { 0 };
        Self {
            nodes: rng.usize(2..=8),
            workers: rng.usize(1..=3),
            containers: rng.usize(2..=5),
            foreign: if rng.bool() { rng.usize(1..=2) } else { 0 },
            pools,
            dual_stack: rng.u32(..3) == 0,
            strict_affinity: rng.u32(..4) == 0,
            loss: pick(rng, 30),
            late: pick(rng, 100),
            kills: pick(rng, 400),
            chaos: troubled,
            exclusive: rng.bool(),
        }
    }
}
