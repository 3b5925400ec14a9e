//! What is the SQL of generations? Every statement once, read alike by SQLite and PostgreSQL.

/// Touches no row when the id is there with its files.
pub(super) const PUT: &str =
    "INSERT INTO generations (id, created, kind, state, parent, reasons, pruned, record)
    VALUES ($1, $2, $3, $4, $5, $6, NULL, $7)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, pruned = NULL, reasons = excluded.reasons,
    record = excluded.record WHERE generations.pruned IS NOT NULL";
pub(super) const GET: &str =
    "SELECT id, created, kind, state, parent, reasons, pruned, record FROM generations WHERE id = $1";
pub(super) const LIST: &str =
    "SELECT id, created, kind, state, parent, reasons, pruned, record FROM generations
    WHERE (created, id) < ($1, $2) AND ($3 IS NULL OR kind = $3) AND ($4 IS NULL OR state = $4)
    ORDER BY created DESC, id DESC LIMIT $5";
pub(super) const HOLD: &str = "UPDATE generations SET state = 'held', reasons = $2
    WHERE id = $1 AND state IN ('candidate', 'held')";

pub(super) const POINTER: &str = "SELECT generation, previous, changed FROM active_pointers WHERE role = $1";
/// Touches no row when there is one.
pub(super) const FIRST_POINTER: &str =
    "INSERT INTO active_pointers (role, generation, previous, changed) VALUES ($1, $2, NULL, $3)
    ON CONFLICT (role) DO NOTHING";
/// Touches no row when somebody else moved it meanwhile.
pub(super) const MOVE_POINTER: &str =
    "UPDATE active_pointers SET previous = generation, generation = $2, changed = $3
    WHERE role = $1 AND generation = $4";
pub(super) const RETIRE: &str = "UPDATE generations SET state = 'retired' WHERE id = $1";
/// Touches no row when it can not be active in the role (`$2` and `$3` are its kinds).
pub(super) const ACTIVATE: &str = "UPDATE generations SET state = 'active'
    WHERE id = $1 AND pruned IS NULL AND kind IN ($2, $3)";
/// Touches no row while a pointer names it.
pub(super) const PRUNE: &str = "UPDATE generations SET state = 'retired', pruned = $2
    WHERE id = $1 AND pruned IS NULL AND state <> 'active'
    AND NOT EXISTS (SELECT 1 FROM active_pointers WHERE generation = $1 OR previous = $1)";
