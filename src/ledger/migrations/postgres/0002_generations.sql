-- Which generations were published, and which are active. `record` is the manifest as JSON; `state`, `reasons` and `pruned`
-- change after publishing and win over it.

CREATE TABLE generations (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    parent TEXT COLLATE "C",
    -- JSON list of texts: why it is held.
    reasons TEXT NOT NULL,
    -- When its files were deleted.
    pruned BIGINT,
    record TEXT NOT NULL
);
CREATE INDEX generations_by_time ON generations (created, id);

CREATE TABLE active_pointers (
    -- `policy` or `reward`.
    role TEXT NOT NULL PRIMARY KEY,
    generation TEXT COLLATE "C" NOT NULL REFERENCES generations (id),
    -- What a rollback goes back to.
    previous TEXT COLLATE "C" REFERENCES generations (id),
    changed BIGINT NOT NULL
);
