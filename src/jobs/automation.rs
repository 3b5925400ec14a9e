//! When does the server train by itself? When there is enough new to learn from, when the calendar says so, or when the
//! reward model is of another version; outside quiet hours, one run at a time, and not before what the last one made is
//! served.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use super::{JobsError, enqueue};
use crate::config::{AutomationConfig, AutomationStage, Config};
use crate::domain::{DemonstrationStatus, Millis, Run, RunRequest, RunState, Stage, now};
use crate::error::chain;
use crate::improve::FEWEST_DEMONSTRATIONS;
use crate::ledger::{Ledger, Paging, Signals};
use crate::scoring::Scorer;
use crate::swap::Swapper;
use crate::telemetry::Metrics;

/// Who asks for the runs that are started here.
pub const REQUESTER: &str = "automation";
/// Between two looks: a cycle takes many minutes, so half a minute more is nothing.
const LOOK: Duration = Duration::from_secs(30);
/// Runs looked back on: the last one of the stage is among them unless somebody queued hundreds of others.
const LOOKED_BACK: usize = 200;

/// Starts runs by itself.
#[derive(Debug)]
pub struct Automation {
    /// Signals and runs.
    pub ledger: Arc<dyn Ledger>,
    /// What serves. A run beside it would take the processors from a generation that is being loaded, and people would
    /// wait for what they have taught.
    pub swapper: Arc<Swapper>,
    /// Knows whether the reward model can be used.
    pub scorer: Arc<Scorer>,
    /// What is started, and when.
    pub config: Arc<Config>,
    /// When this server was started.
    pub started: Millis,
    /// What is reported.
    pub metrics: Metrics,
}

/// Why a run is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// So many new signals.
    Signals(u64),
    /// By the calendar.
    Schedule,
    /// The reward model is of a version of this program with other features, and scores nothing any more.
    Outdated,
}

impl Automation {
    /// Looks until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.look(now()).await {
                tracing::warn!(error = %chain(&error), "whether there is something to learn is not known");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Reports what has not been learnt from, and starts a run if one is due.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&self, at: Millis) -> Result<Option<Run>, JobsError> {
        let runs = self.ledger.runs(&Paging { before: None, limit: LOOKED_BACK }).await?.data;
        let learnt = runs.iter().find(|run| learns(run)).map_or(Millis(0), |run| run.created);
        let new = self.ledger.signals_since(learnt).await?;
        self.metrics.signals_unlearnt.set(i64::try_from(new.count).unwrap_or(i64::MAX));
        self.metrics.signals_unlearnt_since.set(new.oldest.map_or(0, Millis::seconds));
        let config = &self.config.automation;
        let busy = runs.iter().any(|run| !run.state.is_over());
        let last =
            runs.iter().find(|run| run.requested_by == REQUESTER || learns(run)).map(|run| run.created);
        let due = match due(config, (&new, last), at) {
            None if self.is_outdated(last, at).await => Some(Why::Outdated),
            due => due,
        };
        let Some(why) = due.filter(|_| !busy) else { return Ok(None) };
        if self.swapper.is_behind().await? {
            return Ok(None);
        }
        let stage = if why == Why::Outdated { Some(Stage::Reward) } else { self.stage().await? };
        let Some(stage) = stage else { return Ok(None) };
        let request = RunRequest { promote: config.promote, ..RunRequest::new(stage) };
        let run = enqueue(&*self.ledger, &self.config, request, REQUESTER).await?;
        tracing::info!(run = %run.id, %stage, ?why, "a run is due");
        Ok(Some(run))
    }

    /// Whether the reward model has to be trained again before anything is scored. That is tried once by every server.
    async fn is_outdated(&self, last: Option<Millis>, at: Millis) -> bool {
        let config = &self.config.automation;
        let wanted = config.stage != AutomationStage::Off && !is_quiet(config, at);
        wanted && last.is_none_or(|last| last < self.started) && self.scorer.is_outdated().await
    }

    /// What to run: with too few ideal answers to fine-tune on, the reward model alone.
    async fn stage(&self) -> Result<Option<Stage>, JobsError> {
        Ok(match self.config.automation.stage {
            AutomationStage::Off => None,
            AutomationStage::Reward => Some(Stage::Reward),
            AutomationStage::Improve => {
                let paging = Paging { before: None, limit: FEWEST_DEMONSTRATIONS };
                let approved = Some(DemonstrationStatus::Approved);
                let found = self.ledger.demonstrations(approved, &paging).await?.data.len();
                Some(if found < FEWEST_DEMONSTRATIONS { Stage::Reward } else { Stage::Improve })
            }
        })
    }
}

/// Whether a run learns, or learnt, from choices and thumbs. One that failed has taken them up too: it is not begun
/// again before there is something new.
fn learns(run: &Run) -> bool {
    matches!(run.stage, Stage::Reward | Stage::Improve) && run.state != RunState::Cancelled
}

/// Whether a run is due at a moment, and why. `last` is when the last one was asked for; a time of the calendar that
/// was missed is caught up once.
#[must_use]
pub fn due(config: &AutomationConfig, (new, last): (&Signals, Option<Millis>), at: Millis) -> Option<Why> {
    if config.stage == AutomationStage::Off || is_quiet(config, at) {
        return None;
    }
    if config.signals > 0 && new.count >= config.signals {
        return Some(Why::Signals(new.count));
    }
    // Validated with the configuration.
    let schedule = config.schedule().ok().flatten()?;
    // Before the first run, the calendar begins with the first signal: there was nothing to learn from before.
    let from = zoned(last.or(new.oldest)?)?;
    let next = schedule.find_next_occurrence(&from, false).ok()?;
    (next.timestamp().as_millisecond() <= at.0 && new.count > 0).then_some(Why::Schedule)
}

fn is_quiet(config: &AutomationConfig, at: Millis) -> bool {
    let (Some((from, to)), Some(at)) = (config.quiet(), zoned(at)) else { return false };
    let hour = at.hour();
    if from <= to { (from..to).contains(&hour) } else { hour >= from || hour < to }
}

fn zoned(at: Millis) -> Option<jiff::Zoned> {
    Some(Timestamp::from_millisecond(at.0).ok()?.to_zoned(TimeZone::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistryConfig;
    use crate::domain::{Choice, GenerationKind, RunState};
    use crate::generation::Slot;
    use crate::ledger::tests::{Harness, fixtures};
    use crate::registry::{About, POLICY_FILE, REWARD_HEAD, Registry};
    use crate::reward::tests::save_of_another_version;
    use crate::swap::tests::{Scripts, about, publish};

    /// 2026-11-23, a Monday, at an hour of the day.
    fn monday(hour: i64) -> Millis {
        Millis(1_795_392_000_000 + hour * 3_600_000)
    }

    fn signals(count: u64) -> Signals {
        Signals { count, oldest: (count > 0).then(|| monday(0)), newest: Some(monday(1)) }
    }

    #[test]
    fn enough_signals_are_a_reason_and_fewer_are_none() {
        let config = AutomationConfig::default();
        assert_eq!(due(&config, (&signals(49), None), monday(2)), None);
        assert_eq!(due(&config, (&signals(50), None), monday(2)), Some(Why::Signals(50)));
        let never = AutomationConfig { signals: 0, ..config.clone() };
        assert_eq!(due(&never, (&signals(5000), None), monday(2)), None);
        let off = AutomationConfig { stage: AutomationStage::Off, ..config };
        assert_eq!(due(&off, (&signals(5000), None), monday(2)), None);
    }

    #[test]
    fn the_calendar_runs_what_was_missed_once_and_nothing_without_signals() {
        let config = AutomationConfig { cron: "0 3 * * *".into(), ..AutomationConfig::default() };
        assert!(config.schedule().unwrap().is_some());
        let due = |count, last, at| due(&config, (&signals(count), Some(last)), at);
        assert_eq!(due(1, monday(1), monday(2)), None);
        assert_eq!(due(1, monday(1), monday(4)), Some(Why::Schedule));
        // Days later still once: the run that is then started is the last one.
        assert_eq!(due(1, monday(1), monday(100)), Some(Why::Schedule));
        assert_eq!(due(1, monday(100), monday(100)), None);
        assert_eq!(due(0, monday(1), monday(4)), None);
    }

    #[test]
    fn quiet_hours_are_quiet_across_midnight() {
        let config = AutomationConfig { quiet_hours: "22-6".into(), ..AutomationConfig::default() };
        let quiet = |hour| due(&config, (&signals(99), None), monday(hour)).is_none();
        let expected: Vec<bool> = (0..24).map(|hour| !(6..22).contains(&hour)).collect();
        assert_eq!((0..24).map(quiet).collect::<Vec<_>>(), expected);
    }

    /// A server of the base model, and the registry it follows.
    async fn serving(h: &Harness, metrics: &Metrics) -> (Registry, Arc<Swapper>) {
        let registry = Registry::open(h.folder(), Arc::clone(&h.ledger)).await.unwrap();
        let (slot, loader) = (Arc::new(Slot::empty(metrics.clone())), Arc::new(Scripts::default()));
        let swapper = Swapper::new(slot, registry.clone(), loader, &RegistryConfig::default());
        swapper.start().await.unwrap();
        (registry, Arc::new(swapper))
    }

    fn automation(
        h: &Harness,
        (registry, swapper, metrics): (&Registry, Arc<Swapper>, Metrics),
        change: impl FnOnce(&mut Config),
    ) -> Automation {
        let mut config = Config::default();
        change(&mut config);
        let config = Arc::new(config);
        let scorer = Arc::new(Scorer::new(registry.clone(), &config, None, metrics.clone()));
        Automation { ledger: h.ledger.clone(), swapper, scorer, config, started: now(), metrics }
    }

    /// The pointer is moved as a worker moves it; until the server follows, nothing else takes the processors.
    #[tokio::test]
    async fn no_run_begins_while_what_was_learnt_is_not_served() {
        let h = Harness::sqlite().await;
        let metrics = Metrics::new().unwrap();
        let (registry, swapper) = serving(&h, &metrics).await;
        let serving = (&registry, Arc::clone(&swapper), metrics);
        let automation = automation(&h, serving, |config| config.automation.signals = 1);
        let (comparison, left, right) = fixtures::comparison("ada", 1, 2);
        h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
        h.ledger.put_vote(&fixtures::vote(&comparison, "ada", Choice::Left, now().0)).await.unwrap();
        let learnt = publish(&registry, "learnt", about()).await;
        registry.promote(&learnt, None).await.unwrap();
        assert_eq!(automation.look(now()).await.unwrap(), None);
        let following = tokio::spawn(Arc::clone(&swapper).follow());
        while swapper.loaded().first() != Some(&learnt) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        following.abort();
        assert!(automation.look(now()).await.unwrap().is_some());
    }

    /// As after an upgrade.
    #[tokio::test]
    async fn a_reward_model_of_another_version_is_trained_again_once() {
        let h = Harness::sqlite().await;
        let metrics = Metrics::new().unwrap();
        let (registry, swapper) = serving(&h, &metrics).await;
        let automation = automation(&h, (&registry, swapper, metrics), |_| {});
        assert_eq!(automation.look(now()).await.unwrap(), None);
        let draft = registry.draft().await.unwrap();
        save_of_another_version(&draft.path().join(REWARD_HEAD));
        let about = About { kind: GenerationKind::Reward, parent: None, merged_tensors: 0, ..about() };
        let outdated = registry.publish(draft, about).await.unwrap().id;
        registry.promote(&outdated, None).await.unwrap();
        let run = automation.look(now()).await.unwrap().unwrap();
        assert_eq!((run.stage, run.requested_by.as_str()), (Stage::Reward, REQUESTER));
        // Whatever became of it, it is not tried again before the next start.
        h.ledger.cancel_run(&run.id, now()).await.unwrap();
        assert_eq!(automation.look(now()).await.unwrap(), None);
    }

    /// What can not be served must not keep the server from learning something better.
    #[tokio::test]
    async fn a_generation_that_can_not_be_served_is_not_waited_for() {
        let h = Harness::sqlite().await;
        let (registry, swapper) = serving(&h, &Metrics::new().unwrap()).await;
        let damaged = publish(&registry, "damaged", about()).await;
        registry.promote(&damaged, None).await.unwrap();
        assert!(swapper.is_behind().await.unwrap());
        std::fs::write(registry.folder(&damaged).unwrap().join(POLICY_FILE), "x").unwrap();
        let following = tokio::spawn(Arc::clone(&swapper).follow());
        while swapper.failure(&damaged).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        following.abort();
        assert!(!swapper.is_behind().await.unwrap());
    }

    #[tokio::test]
    async fn a_run_is_queued_once_for_what_is_new() {
        let h = Harness::sqlite().await;
        let metrics = Metrics::new().unwrap();
        let (registry, swapper) = serving(&h, &metrics).await;
        let serving = (&registry, swapper, metrics.clone());
        let automation = automation(&h, serving, |config| config.automation.signals = 3);
        let vote = async |n: usize| {
            let (comparison, left, right) = fixtures::comparison("ada", n as i64, 2 * n);
            h.ledger.record_comparison(&comparison, [&left, &right]).await.unwrap();
            let vote = fixtures::vote(&comparison, "ada", Choice::Left, now().0);
            h.ledger.put_vote(&vote).await.unwrap();
        };
        vote(1).await;
        vote(2).await;
        assert_eq!(automation.look(now()).await.unwrap(), None);
        assert_eq!(metrics.signals_unlearnt.get(), 2);
        vote(3).await;
        let run = automation.look(now()).await.unwrap().unwrap();
        // Nothing to fine-tune on: the reward model alone.
        assert_eq!(
            (run.stage, run.state, run.requested_by.as_str()),
            (Stage::Reward, RunState::Queued, REQUESTER)
        );
        assert!(run.request.promote);
        tokio::time::sleep(Duration::from_millis(2)).await;
        for n in 4..9 {
            vote(n).await;
        }
        assert_eq!(automation.look(now()).await.unwrap(), None, "one at a time");
        h.ledger.cancel_run(&run.id, now()).await.unwrap();
        assert!(automation.look(now()).await.unwrap().is_some());
    }
}
