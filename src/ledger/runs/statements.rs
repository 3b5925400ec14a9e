//! What is the SQL of runs? Every statement once, read alike by SQLite and PostgreSQL.

/// The columns of [`super::implementation::Stored`]; lists leave the curves out.
macro_rules! select {
    ($series:literal, $rest:literal) => {
        concat!(
            "SELECT id, created, stage, requested_by, request, state, report, ",
            $series,
            " AS series, error, attempts, started, heartbeat, finished, cancel_requested FROM runs ",
            $rest
        )
    };
}

pub(super) const PUT: &str = "INSERT INTO runs
    (id, created, stage, requested_by, request, state, report, series, attempts, cancel_requested)
    VALUES ($1, $2, $3, $4, $5, 'queued', $6, '{}', 0, FALSE)";
pub(super) const GET: &str = select!("series", "WHERE id = $1");
pub(super) const LIST: &str =
    select!("'{}'", "WHERE (created, id) < ($1, $2) ORDER BY created DESC, id DESC LIMIT $3");
pub(super) const RUNNING: &str = select!("series", "WHERE state = 'running'");

pub(super) const END_CANCELLED: &str = "UPDATE runs SET state = 'cancelled', finished = $1
    WHERE state = 'running' AND lease_expires < $1 AND cancel_requested";
pub(super) const END_EXHAUSTED: &str = "UPDATE runs SET state = 'failed', finished = $1,
    error = 'given up: its worker ended in each of ' || CAST(attempts AS TEXT) || ' attempts; the last time: '
        || COALESCE(error, 'it was not heard of any more')
    WHERE state = 'running' AND lease_expires < $1 AND attempts >= $2";
/// The state is asked for twice: between choosing a row and writing it another worker may have taken it.
pub(super) const CLAIM: &str = "UPDATE runs SET state = 'running', lease_owner = $1, lease_expires = $2,
    heartbeat = $3, started = COALESCE(started, $3), attempts = attempts + 1
    WHERE id = (
        SELECT id FROM runs
        WHERE (state = 'queued' OR (state = 'running' AND lease_expires < $3)) AND ($4 IS NULL OR id = $4)
        ORDER BY CASE state WHEN 'running' THEN 0 ELSE 1 END, created, id LIMIT 1)
    AND (state = 'queued' OR (state = 'running' AND lease_expires < $3))
    AND NOT EXISTS (
        SELECT 1 FROM runs AS other WHERE other.state = 'running' AND other.lease_expires >= $3)
    RETURNING id";
pub(super) const RENEW: &str = "UPDATE runs SET lease_expires = $3, heartbeat = $4, report = $5, series = $6
    WHERE id = $1 AND lease_owner = $2 AND state = 'running' RETURNING cancel_requested";
pub(super) const RELEASE: &str = "UPDATE runs SET
    state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END,
    finished = CASE WHEN cancel_requested THEN $3 ELSE NULL END,
    attempts = attempts - 1, lease_owner = NULL, lease_expires = NULL, report = $4, series = $5
    WHERE id = $1 AND lease_owner = $2 AND state = 'running'";
pub(super) const FINISH: &str = "UPDATE runs SET state = $6, finished = $3, error = $7,
    lease_owner = NULL, lease_expires = NULL, report = $4, series = $5
    WHERE id = $1 AND lease_owner = $2 AND state = 'running'";
pub(super) const CANCEL: &str = "UPDATE runs SET cancel_requested = TRUE,
    state = CASE WHEN state = 'queued' OR lease_expires < $2 THEN 'cancelled' ELSE state END,
    finished = CASE WHEN state = 'queued' OR lease_expires < $2 THEN $2 ELSE finished END
    WHERE id = $1 AND state IN ('queued', 'running') RETURNING state";
pub(super) const STATE: &str = "SELECT state FROM runs WHERE id = $1";
pub(super) const ABANDON: &str =
    "UPDATE runs SET lease_expires = 0, error = $2 WHERE lease_owner = $1 AND state = 'running'";

pub(super) const COUNTS: &str =
    "SELECT stage, state, COUNT(*) FROM runs GROUP BY stage, state ORDER BY stage, state";
pub(super) const LAST_SUCCESS: &str = "SELECT stage, finished, finished - started FROM runs AS latest
    WHERE state IN ('succeeded', 'held') AND id = (
        SELECT id FROM runs WHERE stage = latest.stage AND state IN ('succeeded', 'held')
        ORDER BY finished DESC, id DESC LIMIT 1)
    ORDER BY stage";
pub(super) const CLAIMABLE: &str = "SELECT COUNT(*) FROM runs
    WHERE (state = 'queued' OR (state = 'running' AND lease_expires < $1))
    AND NOT EXISTS (SELECT 1 FROM runs WHERE state = 'running' AND lease_expires >= $1)";
