//! Faults of one client of the in-memory store.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use crate::random::Random;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It goes well.
    None,
    /// Nothing is reached: [`crate::StoreError::Unavailable`], and nothing is applied.
    Refuse,
    /// Nothing is applied and no answer comes: [`crate::StoreError::Unknown`] for a commit,
    /// [`crate::StoreError::Deadline`] for anything else.
    LoseRequest,
    /// It is applied, but the answer is lost; the error is that of [`Fault::LoseRequest`].
    LoseAnswer,
}

/// Random faults and interleavings, the same ones for the same seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// Decides everything.
    pub seed: u64,
    /// Of 1,000 calls, how many are refused.
    pub refuse: u32,
    /// Of 1,000 calls, how many are lost before they are applied.
    pub lose_request: u32,
    /// Of 1,000 calls, how many are applied but not answered.
    pub lose_answer: u32,
    /// Up to so many times each call lets other tasks run, both before and after it is applied.
    pub pauses: u32,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) queue: VecDeque<Fault>,
    pub(super) offline: bool,
    random: Option<(Disturbance, Random)>,
}

impl Faults {
    pub(super) fn disturb(&mut self, disturbance: Option<Disturbance>) {
        self.random = disturbance.map(|chosen| (chosen, Random::new(chosen.seed)));
    }

    /// The next call's fault, and its pauses before and after it is applied.
    pub(super) fn draw(&mut self) -> (Fault, u64, u64) {
        let (mut fault, mut before, mut after) = (Fault::None, 0, 0);
        if let Some((chosen, random)) = &mut self.random {
            let pauses = u64::from(chosen.pauses) + 1;
            before = random.below(pauses);
            after = random.below(pauses);
            let roll = random.below(1000);
            let mut bound = 0;
            for (share, drawn) in [
                (chosen.refuse, Fault::Refuse),
                (chosen.lose_request, Fault::LoseRequest),
                (chosen.lose_answer, Fault::LoseAnswer),
            ] {
                bound += u64::from(share);
                if roll < bound {
                    fault = drawn;
                    break;
                }
            }
        }
        if let Some(queued) = self.queue.pop_front() {
            fault = queued;
        }
        if self.offline {
            fault = Fault::Refuse;
        }
        (fault, before, after)
    }
}

/// Lets other tasks run once.
pub(super) async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
