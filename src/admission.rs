//! May this question be answered now? A place, a place in the queue, or a clear no.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::AdmissionConfig;
use crate::error::{Error, ErrorCode};
use crate::telemetry::Metrics;

/// What a caller is told to wait when the queue is full: about one answer's time on 2 cores.
const QUEUE_RETRY: Duration = Duration::from_secs(5);

/// The door.
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// Questions in progress or waiting, by person. Entries go when they reach zero.
    by_user: Arc<DashMap<String, usize>>,
    rate: Option<DefaultKeyedRateLimiter<String>>,
    draining: AtomicBool,
    metrics: Metrics,
}

/// A place in the queue.
#[derive(Debug)]
pub struct Ticket {
    places: Arc<Semaphore>,
    patience: Duration,
    _waiting: Waiting,
    user: InFlight,
    metrics: Metrics,
}

/// The right to answer one question; gives its place back when dropped.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
    _user: InFlight,
    _running: Running,
}

impl Admission {
    /// A door with these limits.
    #[must_use]
    pub fn new(config: &AdmissionConfig, metrics: Metrics) -> Self {
        let rate =
            NonZeroU32::new(config.per_user_per_minute).map(|n| RateLimiter::keyed(Quota::per_minute(n)));
        Self {
            config: config.clone(),
            places: Arc::new(Semaphore::new(config.max_in_flight)),
            waiting: Arc::default(),
            by_user: Arc::default(),
            rate,
            draining: AtomicBool::new(false),
            metrics,
        }
    }

    /// Takes a place in the queue for a question of `user`, without waiting.
    ///
    /// # Errors
    /// When the person asks too often or has too many questions open, when the queue is full, or while draining; with
    /// the time to wait.
    pub fn enter(&self, user: &str) -> Result<Ticket, Error> {
        let no = |reason: &str, code, message: String, retry| {
            self.metrics.rejected.with_label_values(&[reason]).inc();
            Err(Error::new(code, message).retry_after(retry))
        };
        if self.draining.load(Ordering::Acquire) {
            return no("draining", ErrorCode::NotReady, "the server is shutting down".into(), QUEUE_RETRY);
        }
        let Some(in_flight) = InFlight::enter(&self.by_user, user, self.config.per_user_in_flight) else {
            let message = format!(
                "you already have {} questions open; wait for an answer or stop one",
                self.config.per_user_in_flight
            );
            return no("user_in_flight", ErrorCode::RateLimited, message, QUEUE_RETRY);
        };
        let Some(waiting) = Waiting::enter(self) else {
            let message = "too many questions are waiting; try again in a moment".into();
            return no("queue_full", ErrorCode::QueueFull, message, QUEUE_RETRY);
        };
        if let Some(Err(until)) = self.rate.as_ref().map(|rate| rate.check_key(&user.to_owned())) {
            let wait = until.wait_time_from(DefaultClock::default().now());
            let message = format!("you may ask {} questions a minute", self.config.per_user_per_minute);
            return no("user_rate", ErrorCode::RateLimited, message, wait);
        }
        Ok(Ticket {
            places: Arc::clone(&self.places),
            patience: Duration::from_secs(self.config.queue_seconds),
            _waiting: waiting,
            user: in_flight,
            metrics: self.metrics.clone(),
        })
    }

    /// Forgets rate limits that have recovered, so that memory does not grow with everybody who ever asked.
    pub fn sweep(&self) {
        if let Some(rate) = &self.rate {
            rate.retain_recent();
        }
    }

    /// From now on everybody is turned away; questions already admitted are answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

impl Ticket {
    /// Waits for a place.
    ///
    /// # Errors
    /// When none comes free in time.
    pub async fn wait(self) -> Result<Permit, Error> {
        let began = std::time::Instant::now();
        let place = tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await;
        self.metrics.queue_seconds.observe(began.elapsed().as_secs_f64());
        let Ok(Ok(place)) = place else {
            self.metrics.rejected.with_label_values(&["queue_timeout"]).inc();
            let message = format!("no place came free within {} s; try again later", self.patience.as_secs());
            return Err(Error::new(ErrorCode::QueueFull, message).retry_after(QUEUE_RETRY));
        };
        let running = Running::enter(self.metrics);
        Ok(Permit { _place: place, _user: self.user, _running: running })
    }
}

#[derive(Debug)]
struct InFlight {
    by_user: Arc<DashMap<String, usize>>,
    user: String,
}

impl InFlight {
    fn enter(by_user: &Arc<DashMap<String, usize>>, user: &str, limit: usize) -> Option<Self> {
        let mut open = by_user.entry(user.to_owned()).or_insert(0);
        if *open >= limit {
            return None;
        }
        *open += 1;
        Some(Self { by_user: Arc::clone(by_user), user: user.to_owned() })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(mut open) = self.by_user.get_mut(&self.user) {
            *open = open.saturating_sub(1);
        }
        self.by_user.remove_if(&self.user, |_, open| *open == 0);
    }
}

#[derive(Debug)]
struct Waiting {
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Waiting {
    /// Everybody passes through the queue, so it has room for those who find a free place, too.
    fn enter(admission: &Admission) -> Option<Self> {
        let room = admission.config.max_waiting + admission.places.available_permits();
        let entered = admission
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < room).then_some(n + 1))
            .is_ok();
        entered.then(|| {
            admission.metrics.queue_waiting.inc();
            Self { waiting: Arc::clone(&admission.waiting), metrics: admission.metrics.clone() }
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.metrics.queue_waiting.dec();
    }
}

#[derive(Debug)]
struct Running(Metrics);

impl Running {
    fn enter(metrics: Metrics) -> Self {
        metrics.queue_running.inc();
        Self(metrics)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.queue_running.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(config: AdmissionConfig) -> Admission {
        Admission::new(&config, Metrics::new().unwrap())
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_places_come_back() {
        let door = admission(AdmissionConfig {
            max_in_flight: 1,
            max_waiting: 1,
            per_user_in_flight: 10,
            per_user_per_minute: 0,
            ..AdmissionConfig::default()
        });
        let first = door.enter("ada").unwrap().wait().await.unwrap();
        let second = door.enter("ada").unwrap();
        assert_eq!(door.enter("ada").unwrap_err().code, ErrorCode::QueueFull);
        drop(first);
        drop(second.wait().await.unwrap());
        assert!(door.enter("ada").is_ok());
    }

    #[tokio::test]
    async fn one_person_can_not_take_every_place() {
        let door = admission(AdmissionConfig { per_user_in_flight: 1, ..AdmissionConfig::default() });
        let first = door.enter("ada").unwrap();
        let refused = door.enter("ada").unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert!(refused.retry_after.is_some());
        assert!(door.enter("bob").is_ok());
        drop(first);
        assert!(door.enter("ada").is_ok());
        assert!(door.by_user.is_empty(), "no entry is left behind");
    }

    #[tokio::test]
    async fn questions_a_minute_are_limited() {
        let door = admission(AdmissionConfig { per_user_per_minute: 2, ..AdmissionConfig::default() });
        assert!(door.enter("ada").is_ok() && door.enter("ada").is_ok());
        assert_eq!(door.enter("ada").unwrap_err().code, ErrorCode::RateLimited);
        assert!(door.enter("bob").is_ok());
    }

    #[tokio::test]
    async fn a_draining_server_turns_everybody_away() {
        let door = admission(AdmissionConfig::default());
        door.drain();
        assert_eq!(door.enter("ada").unwrap_err().code, ErrorCode::NotReady);
    }
}
