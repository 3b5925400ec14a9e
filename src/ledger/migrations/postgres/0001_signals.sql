-- What people asked, were answered and said. Times are milliseconds since the Unix epoch; `record` holds the whole
-- thing as JSON, the other columns what is looked up, filtered, ordered or overrides the JSON.

CREATE TABLE users (
    user_name TEXT NOT NULL PRIMARY KEY,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL
);

CREATE TABLE answers (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL,
    user_name TEXT NOT NULL,
    -- Hash of the normalised conversation and its passages: thumbs on the same prompt meet here.
    prompt_key TEXT COLLATE "C" NOT NULL,
    refused BOOLEAN NOT NULL,
    -- The question and the answer in lower case.
    search_text TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX answers_by_time ON answers (created, id);
CREATE INDEX answers_by_user ON answers (user_name, created, id);

CREATE TABLE comparisons (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL,
    user_name TEXT NOT NULL,
    left_answer TEXT COLLATE "C" NOT NULL REFERENCES answers (id),
    right_answer TEXT COLLATE "C" NOT NULL REFERENCES answers (id),
    record TEXT NOT NULL
);
CREATE INDEX comparisons_by_time ON comparisons (created, id);
CREATE INDEX comparisons_by_user ON comparisons (user_name);
CREATE INDEX comparisons_by_left ON comparisons (left_answer);
CREATE INDEX comparisons_by_right ON comparisons (right_answer);

CREATE TABLE votes (
    -- The comparison, a slash, the person.
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    comparison TEXT COLLATE "C" NOT NULL REFERENCES comparisons (id),
    user_name TEXT NOT NULL,
    created BIGINT NOT NULL,
    -- The dataset snapshot that used the vote and so locked it.
    used_in TEXT,
    record TEXT NOT NULL
);
CREATE INDEX votes_by_time ON votes (created, id);
CREATE INDEX votes_by_comparison ON votes (comparison);
CREATE INDEX votes_by_user ON votes (user_name);

CREATE TABLE feedback (
    -- The answer, a slash, the person.
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    answer TEXT COLLATE "C" NOT NULL REFERENCES answers (id),
    user_name TEXT NOT NULL,
    created BIGINT NOT NULL,
    prompt_key TEXT COLLATE "C" NOT NULL,
    rating TEXT,
    record TEXT NOT NULL
);
CREATE INDEX feedback_by_time ON feedback (created, id);
CREATE INDEX feedback_by_answer ON feedback (answer);
CREATE INDEX feedback_by_user ON feedback (user_name);
CREATE INDEX thumbs_by_prompt ON feedback (prompt_key, id) WHERE rating IS NOT NULL;

CREATE TABLE demonstrations (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL,
    author TEXT NOT NULL,
    status TEXT NOT NULL,
    corrects TEXT COLLATE "C",
    deleted BOOLEAN NOT NULL DEFAULT FALSE,
    record TEXT NOT NULL
);
CREATE INDEX demonstrations_by_time ON demonstrations (created, id);
CREATE INDEX demonstrations_by_author ON demonstrations (author);
CREATE INDEX demonstrations_by_corrected ON demonstrations (corrects);

CREATE TABLE imported (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL,
    user_name TEXT,
    record TEXT NOT NULL
);
CREATE INDEX imported_by_time ON imported (created, id);
CREATE INDEX imported_by_user ON imported (user_name);

CREATE TABLE tokens (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret_sha256 TEXT NOT NULL UNIQUE,
    user_name TEXT NOT NULL,
    group_names TEXT NOT NULL,
    role TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT
);

CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
