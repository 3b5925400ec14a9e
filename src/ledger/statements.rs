//! What is the ledger's SQL? Every statement once, read alike by SQLite and PostgreSQL.
//!
//! Lists are ordered by (created, id), or (prompt key, id), which never changes for a row, so a cursor stays where it
//! was while rows come and go.

/// What lists of answers have in common after their first condition.
macro_rules! answers_where {
    ($user:literal) => {
        concat!(
            "SELECT id, created, record FROM answers WHERE (created, id) < ($1, $2) AND ",
            $user,
            " AND ($4 IS NULL OR refused = $4)
             AND ($5 IS NULL OR search_text LIKE $5 ESCAPE '!')
             AND ($6 IS NULL OR EXISTS (
                 SELECT 1 FROM feedback WHERE feedback.answer = answers.id AND feedback.rating = $6))
             ORDER BY created DESC, id DESC LIMIT $7"
        )
    };
}

pub(super) const SEE_USER: &str = "INSERT INTO users (user_name, first_seen, last_seen) VALUES ($1, $2, $2)
    ON CONFLICT (user_name) DO UPDATE SET last_seen = excluded.last_seen
    WHERE users.last_seen < excluded.last_seen";

pub(super) const INSERT_ANSWER: &str =
    "INSERT INTO answers (id, created, user_name, prompt_key, refused, search_text, said, record)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
pub(super) const ANSWER: &str = "SELECT record FROM answers WHERE id = $1";
pub(super) const RESTRICTED: &str = "SELECT record FROM answers WHERE user_name = $1 AND said = $2";
pub(super) const ANSWERS: &str = answers_where!("$3 IS NULL");
/// Apart from [`ANSWERS`], so that the index by user is used.
pub(super) const ANSWERS_OF_USER: &str = answers_where!("user_name = $3");

pub(super) const INSERT_COMPARISON: &str =
    "INSERT INTO comparisons (id, created, user_name, left_answer, right_answer, record)
    VALUES ($1, $2, $3, $4, $5, $6)";
pub(super) const COMPARISON: &str = "SELECT record FROM comparisons WHERE id = $1";
pub(super) const COMPARISONS: &str = "SELECT id, created, record FROM comparisons
    WHERE (created, id) < ($1, $2)
    AND ($3 IS NULL OR NOT EXISTS (
        SELECT 1 FROM votes WHERE votes.comparison = comparisons.id AND votes.user_name = $3))
    ORDER BY created DESC, id DESC LIMIT $4";

/// Touches no row when the vote is locked.
pub(super) const PUT_VOTE: &str = "INSERT INTO votes (id, comparison, user_name, created, record)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (id) DO UPDATE SET record = excluded.record WHERE votes.used_in IS NULL";
pub(super) const LOCK_VOTE: &str = "UPDATE votes SET used_in = $1 WHERE id = $2 AND used_in IS NULL";
pub(super) const VOTES: &str =
    "SELECT id, created, record FROM votes WHERE comparison = $1 ORDER BY created, id";
pub(super) const VOTED_PAIRS: &str =
    "SELECT votes.id, votes.created, votes.record, comparisons.record, l.record, r.record
    FROM votes JOIN comparisons ON comparisons.id = votes.comparison
    JOIN answers l ON l.id = comparisons.left_answer JOIN answers r ON r.id = comparisons.right_answer
    WHERE (votes.created, votes.id) > ($1, $2) ORDER BY votes.created, votes.id LIMIT $3";

/// Touches no row when the answer was never recorded.
pub(super) const PUT_FEEDBACK: &str =
    "INSERT INTO feedback (id, answer, user_name, created, prompt_key, rating, record)
    SELECT $1, $2, $3, $4, prompt_key, $5, $6 FROM answers WHERE id = $2
    ON CONFLICT (id) DO UPDATE SET rating = excluded.rating, record = excluded.record";
pub(super) const DELETE_FEEDBACK: &str = "DELETE FROM feedback WHERE id = $1";
pub(super) const FEEDBACK_ON: &str =
    "SELECT id, created, record FROM feedback WHERE answer = $1 ORDER BY created, id";
pub(super) const FEEDBACK: &str = "SELECT feedback.id, feedback.created, feedback.record, answers.record
    FROM feedback JOIN answers ON answers.id = feedback.answer
    WHERE (feedback.created, feedback.id) < ($1, $2)
    ORDER BY feedback.created DESC, feedback.id DESC LIMIT $3";
pub(super) const THUMBS: &str =
    "SELECT feedback.prompt_key, feedback.id, feedback.created, feedback.record, answers.record
    FROM feedback JOIN answers ON answers.id = feedback.answer
    WHERE feedback.rating IS NOT NULL AND (feedback.prompt_key, feedback.id) > ($1, $2)
    ORDER BY feedback.prompt_key, feedback.id LIMIT $3";

pub(super) const PUT_DEMONSTRATION: &str =
    "INSERT INTO demonstrations (id, created, author, status, corrects, record)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (id) DO UPDATE SET author = excluded.author, status = excluded.status,
    corrects = excluded.corrects, deleted = FALSE, record = excluded.record";
pub(super) const IMPORT_DEMONSTRATION: &str =
    "INSERT INTO demonstrations (id, created, author, status, corrects, record)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
pub(super) const DEMONSTRATION: &str =
    "SELECT id, created, author, record FROM demonstrations WHERE id = $1 AND NOT deleted";
pub(super) const DEMONSTRATIONS: &str = "SELECT id, created, author, record FROM demonstrations
    WHERE (created, id) < ($1, $2) AND NOT deleted AND ($3 IS NULL OR status = $3)
    ORDER BY created DESC, id DESC LIMIT $4";
pub(super) const SET_DEMONSTRATION_DELETED: &str = "UPDATE demonstrations SET deleted = $2 WHERE id = $1";

pub(super) const IMPORT_ROW: &str = "INSERT INTO imported (id, created, user_name, record)
    VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING";
pub(super) const IMPORTED: &str = "SELECT id, created, record FROM imported
    WHERE (created, id) < ($1, $2) ORDER BY created DESC, id DESC LIMIT $3";

pub(super) const CREATE_TOKEN: &str =
    "INSERT INTO tokens (id, secret_sha256, user_name, group_names, role, created, expires, revoked)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
pub(super) const TOKEN: &str = "SELECT id, user_name, group_names, role, created, expires, revoked
    FROM tokens WHERE secret_sha256 = $1";
pub(super) const TOKENS: &str = "SELECT id, user_name, group_names, role, created, expires, revoked
    FROM tokens ORDER BY created DESC, id DESC";
/// A token revoked before keeps the time of the first.
pub(super) const REVOKE_TOKEN: &str = "UPDATE tokens SET revoked = COALESCE(revoked, $2) WHERE id = $1";

pub(super) const INSERT_SECRET: &str =
    "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
pub(super) const SECRET: &str = "SELECT value FROM secrets WHERE name = $1";

/// In order: what refers to a row goes before it. Each deletes rows of the person `$1`.
pub(super) const FORGET: [&str; 8] = [
    "DELETE FROM votes WHERE user_name = $1 OR comparison IN (
        SELECT id FROM comparisons WHERE user_name = $1
        OR left_answer IN (SELECT id FROM answers WHERE user_name = $1)
        OR right_answer IN (SELECT id FROM answers WHERE user_name = $1))",
    "DELETE FROM comparisons WHERE user_name = $1
        OR left_answer IN (SELECT id FROM answers WHERE user_name = $1)
        OR right_answer IN (SELECT id FROM answers WHERE user_name = $1)",
    "DELETE FROM feedback WHERE user_name = $1 OR answer IN (SELECT id FROM answers WHERE user_name = $1)",
    "DELETE FROM demonstrations WHERE (status = 'draft' OR deleted)
        AND (author = $1 OR corrects IN (SELECT id FROM answers WHERE user_name = $1))",
    "DELETE FROM answers WHERE user_name = $1",
    "DELETE FROM imported WHERE user_name = $1",
    "DELETE FROM tokens WHERE user_name = $1",
    "DELETE FROM users WHERE user_name = $1",
];
pub(super) const FORGET_AUTHOR: &str = "UPDATE demonstrations SET author = 'forgotten' WHERE author = $1";
pub(super) const FORGET_REQUESTER: &str =
    "UPDATE runs SET requested_by = 'forgotten' WHERE requested_by = $1";

/// Imported demonstrations are among the approved ones.
pub(super) const SIGNALS_SINCE: &str = "SELECT COUNT(*), MIN(created), MAX(created) FROM (
        SELECT created FROM votes WHERE created > $1
        UNION ALL SELECT created FROM feedback WHERE rating IS NOT NULL AND created > $1
        UNION ALL SELECT created FROM demonstrations WHERE status = 'approved' AND NOT deleted AND created > $1
        UNION ALL SELECT created FROM imported WHERE created > $1) AS signals";
pub(super) const COUNTS: &str = "SELECT (SELECT COUNT(*) FROM answers), (SELECT COUNT(*) FROM feedback),
    (SELECT COUNT(*) FROM comparisons), (SELECT COUNT(*) FROM votes),
    (SELECT COUNT(*) FROM demonstrations WHERE NOT deleted), (SELECT COUNT(*) FROM imported)";
