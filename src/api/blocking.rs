//! How do handlers run work that would hold up a worker thread?

use crate::error::Error;

/// Runs `work` on the pool for blocking work, inside the request's span.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    E: Into<Error> + Send + 'static,
{
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(Error::internal)?.map_err(Into::into)
}
