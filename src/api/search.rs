//! Which passages speak about some words?

use std::time::Instant;

use actix_web::web;
use serde::{Deserialize, Serialize};

use crate::domain::Passage;
use crate::error::Error;
use crate::retrieval::SearchQuery;

use super::Context;
use super::blocking::blocking;
use super::error::ErrorBody;
use super::extract::{Employee, Query};

/// Passages unless the caller says otherwise: a screenful.
const DEFAULT_K: usize = 10;

/// What to search for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParams {
    /// A question, or keywords.
    q: String,
    /// Most passages, 1 to 50. Default 10.
    k: Option<usize>,
}

/// What a search found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct SearchResults {
    /// What was searched for.
    query: String,
    /// Milliseconds it took.
    took_ms: f64,
    /// How likely the passages answer the question, 0 to 1.
    evidence: f32,
    /// Version of the index that was searched.
    index_version: String,
    /// Passages, best first.
    results: Vec<Passage>,
}

/// Searches the documents the asker may see.
#[utoipa::path(get, path = "/v1/search", tag = "knowledge", params(SearchParams),
    responses((status = 200, body = SearchResults), (status = "4XX", body = ErrorBody)))]
pub(super) async fn search(
    employee: Employee,
    context: web::Data<Context>,
    Query(SearchParams { q, k }): Query<SearchParams>,
) -> Result<web::Json<SearchResults>, Error> {
    if q.trim().is_empty() {
        return Err(Error::invalid("q", "q is empty; it needs a question or keywords"));
    }
    let k = k.unwrap_or(DEFAULT_K);
    if !(1..=50).contains(&k) {
        return Err(Error::invalid("k", "k must be 1 to 50"));
    }
    blocking(move || {
        let started = Instant::now();
        let found =
            context.library.search(&SearchQuery { text: &q, groups: employee.0.visible_groups(), k })?;
        let took = started.elapsed();
        context.metrics.search_seconds.observe(took.as_secs_f64());
        let outcome = if found.passages.is_empty() { "nothing" } else { "found" };
        context.metrics.searches.with_label_values(&[outcome]).inc();
        Ok::<_, Error>(web::Json(SearchResults {
            query: q,
            took_ms: took.as_secs_f64() * 1e3,
            evidence: found.evidence,
            index_version: found.index_version,
            results: found.passages,
        }))
    })
    .await
}
