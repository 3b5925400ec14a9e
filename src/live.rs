//! Do people like a generation that the server promoted by itself? While it is watched, a share of them is answered by
//! it and the others by the one before, comparisons pit the two against each other, and what people like less goes.
//!
//! What a person promoted is not watched: they decided. The verdict is right however often it is asked for (see
//! [`crate::evaluation::sequential`]); nothing of it is stored, for it follows from what people said since the
//! promotion.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use crate::config::{AccessMode, Config};
use crate::domain::{ActiveRole, Choice, GenerationId, Millis, Rating, RunId, now};
use crate::error::{Error, chain};
use crate::evaluation::canary::Canary;
use crate::evaluation::sequential::{Live, LiveVerdict};
use crate::jobs::REQUESTER;
use crate::ledger::{Ledger, Paging, Pointer};
use crate::registry::Registry;
use crate::swap::Swapper;
use crate::telemetry::Metrics;

/// Between two looks: votes come in by the minute at most.
const LOOK: Duration = Duration::from_secs(30);
/// Rows read at once.
const PAGE: usize = 200;
/// The name of the key that decides who is served which generation; every server on a database shares it.
const KEY: &str = "canary";

/// A generation that is watched.
#[derive(Debug, Clone, PartialEq)]
struct Watching {
    candidate: GenerationId,
    previous: GenerationId,
    /// Share of the people who are answered by it.
    share: f64,
    /// What is known so far.
    words: String,
}

/// Who is answered by which generation now.
#[derive(Debug)]
pub struct Watch {
    canary: Canary,
    watching: ArcSwapOption<Watching>,
}

impl Watch {
    /// Nothing is watched; people are told apart by this key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self { canary: Canary::new(key), watching: ArcSwapOption::empty() }
    }

    /// The same on every server of this database.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open(ledger: &dyn Ledger) -> Result<Self, crate::ledger::LedgerError> {
        let key = ledger.secret(KEY, || hex::encode(rand::random::<[u8; 32]>())).await?;
        Ok(Self::new(key.as_bytes()))
    }

    /// The generation that answers this person, when it is another one than the active one.
    #[must_use]
    pub fn instead(&self, user: &str) -> Option<GenerationId> {
        let watching = self.watching.load_full()?;
        let takes = self.canary.takes(&watching.candidate, user, watching.share);
        (!takes).then(|| watching.previous.clone())
    }

    /// The generation that comparisons pit against the active one.
    #[must_use]
    pub fn rival(&self) -> Option<GenerationId> {
        Some(self.watching.load_full()?.previous.clone())
    }

    /// What is known of a generation that is watched, in words.
    #[must_use]
    pub fn words(&self, id: &GenerationId) -> Option<String> {
        let watching = self.watching.load_full()?;
        (watching.candidate == *id).then(|| watching.words.clone())
    }

    fn begin(&self, watching: Watching) {
        self.watching.store(Some(Arc::new(watching)));
    }

    fn end(&self) {
        self.watching.store(None);
    }
}

/// Watches what was promoted by itself.
#[derive(Debug)]
pub struct LiveCheck {
    /// What people say.
    pub ledger: Arc<dyn Ledger>,
    /// Which generation is active, and by what it was made.
    pub registry: Registry,
    /// Loads the one before, and goes back to it.
    pub swapper: Arc<Swapper>,
    /// Who is answered by which.
    pub watch: Arc<Watch>,
    /// How long, how many, how sure.
    pub config: Arc<Config>,
    /// What is reported.
    pub metrics: Metrics,
}

impl LiveCheck {
    /// Looks until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.look(now()).await {
                tracing::warn!(error = %chain(&error), "whether people like the new generation is not known");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Counts what people said since the promotion, and acts on it. `None` when nothing is watched.
    ///
    /// # Errors
    /// When the database fails or the generation before can not be served.
    pub async fn look(&self, at: Millis) -> Result<Option<LiveVerdict>, Error> {
        let Some((pointer, previous)) = self.watched(at).await? else {
            self.stop_watching();
            return Ok(None);
        };
        let verdict = self.counted(&pointer, &previous).await?.verdict(self.config.live.error);
        let words = verdict.to_string();
        match verdict {
            LiveVerdict::NotEnoughData { .. } => {
                self.swapper.keep_beside(&previous).await?;
                // Without sign-in everybody is one person: there is nobody to tell apart.
                let open = self.config.access.mode == AccessMode::Open;
                let share = if open { 1.0 } else { self.config.live.share };
                let candidate = pointer.generation.clone();
                self.watch.begin(Watching { candidate, previous, share, words });
                self.metrics.live_watched.set(1);
            }
            LiveVerdict::Better { .. } => {
                tracing::info!(generation = %pointer.generation, words, "people like it better: all are served it");
                self.stop_watching();
            }
            LiveVerdict::Worse { .. } => {
                tracing::warn!(generation = %pointer.generation, %previous, words, "people like it less: rolling back");
                self.stop_watching();
                self.swapper.promote(&previous, Some(&pointer.generation)).await?;
                self.metrics.live_rollbacks.inc();
            }
        }
        Ok(Some(verdict))
    }

    fn stop_watching(&self) {
        self.watch.end();
        self.swapper.keep_nothing_beside();
        self.metrics.live_watched.set(0);
    }

    /// The pointer and the generation before, when the active one was made and promoted by itself and not long ago.
    async fn watched(&self, at: Millis) -> Result<Option<(Pointer, GenerationId)>, Error> {
        let live = &self.config.live;
        let Some(pointer) = self.registry.pointer(ActiveRole::Policy).await? else { return Ok(None) };
        let Some(previous) = pointer.previous.clone() else { return Ok(None) };
        let days =
            f64::from(u32::try_from((at.0 - pointer.changed.0).max(0) / 1000).unwrap_or(u32::MAX)) / 86_400.0;
        if days > live.days {
            return Ok(None);
        }
        let (active, before) =
            (self.registry.get(&pointer.generation).await?, self.registry.get(&previous).await?);
        // What was gone back to was there before: it has nothing to prove.
        let newer = active.manifest.about.created > before.manifest.about.created;
        let Some(run) = active.manifest.about.run.filter(|_| newer && before.pruned.is_none()) else {
            return Ok(None);
        };
        let run = self.ledger.run(&RunId::from_wire(run)).await?;
        let by_itself = run.is_some_and(|run| run.requested_by == REQUESTER && run.request.promote);
        Ok(by_itself.then_some((pointer, previous)))
    }

    async fn counted(&self, pointer: &Pointer, previous: &GenerationId) -> Result<Live, Error> {
        let mut live = Live::default();
        self.count_thumbs(&mut live, (pointer, previous)).await?;
        self.count_votes(&mut live, (pointer, previous)).await?;
        Ok(live)
    }

    /// Thumbs on answers of either generation since the promotion; those in comparisons come with a vote.
    async fn count_thumbs(
        &self,
        live: &mut Live,
        (pointer, previous): (&Pointer, &GenerationId),
    ) -> Result<(), Error> {
        let mut before = None;
        loop {
            let page = self.ledger.feedback(&Paging { before, limit: PAGE }).await?;
            for (feedback, answer) in page.data {
                if feedback.created < pointer.changed {
                    return Ok(());
                }
                if answer.comparison.is_some() || answer.created < pointer.changed {
                    continue;
                }
                let count = match (feedback.rating, answer.generation) {
                    (Some(Rating::Up), by) if by == pointer.generation => &mut live.up_candidate,
                    (Some(Rating::Down), by) if by == pointer.generation => &mut live.down_candidate,
                    (Some(Rating::Up), by) if by == *previous => &mut live.up_current,
                    (Some(Rating::Down), by) if by == *previous => &mut live.down_current,
                    _ => continue,
                };
                *count += 1;
            }
            before = page.next;
            if before.is_none() {
                return Ok(());
            }
        }
    }

    /// Votes on comparisons of one generation with the other.
    async fn count_votes(
        &self,
        live: &mut Live,
        (pointer, previous): (&Pointer, &GenerationId),
    ) -> Result<(), Error> {
        let mut before = Some(Paging::after(pointer.changed));
        loop {
            let page = self.ledger.voted_pairs(&Paging { before, limit: PAGE }).await?;
            for (vote, _, left, right) in page.data {
                let candidate_left = match (left.generation, right.generation) {
                    (l, r) if l == pointer.generation && r == *previous => true,
                    (l, r) if r == pointer.generation && l == *previous => false,
                    _ => continue,
                };
                match vote.choice {
                    Choice::Tie | Choice::BothBad => live.ties += 1,
                    Choice::Left if candidate_left => live.wins += 1,
                    Choice::Right if !candidate_left => live.wins += 1,
                    Choice::Left | Choice::Right => live.losses += 1,
                }
            }
            before = page.next;
            if before.is_none() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
