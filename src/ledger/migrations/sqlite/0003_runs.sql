-- Training runs. `report` is what the worker says (JSON: progress, phases, metrics, generation, reasons), `series` its
-- curves (JSON); the other columns are what workers agree by. Times are milliseconds since the Unix epoch.

CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL,
    stage TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    -- JSON: what was asked for.
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    report TEXT NOT NULL,
    series TEXT NOT NULL,
    -- Why it failed, or why its last worker ended.
    error TEXT,
    attempts BIGINT NOT NULL,
    started BIGINT,
    heartbeat BIGINT,
    finished BIGINT,
    -- Who has it, and until when unless heard of again. Only while running.
    lease_owner TEXT,
    lease_expires BIGINT,
    cancel_requested BOOLEAN NOT NULL
);
CREATE INDEX runs_by_time ON runs (created, id);
-- One trainer at a time, whatever the workers think.
CREATE UNIQUE INDEX runs_one_at_a_time ON runs (state) WHERE state = 'running';
