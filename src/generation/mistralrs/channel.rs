//! What does an engine say of a request besides its tokens, and how is it told that nobody reads them any more?

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use mistralrs::Response;
use tokio::sync::mpsc;

use crate::generation::GenerationError;

/// The engine's response channel: read for errors, dropped to cancel.
#[derive(Clone, Default)]
pub(super) struct EngineChannel(Arc<Mutex<Channel>>);

#[derive(Default)]
enum Channel {
    /// The request is on its way to the engine.
    #[default]
    Pending,
    Open(mpsc::Receiver<Response>),
    Closed,
}

impl EngineChannel {
    fn lock(&self) -> std::sync::MutexGuard<'_, Channel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the receiver, unless the answer has ended already.
    pub(super) fn open(&self, receiver: mpsc::Receiver<Response>) {
        let mut channel = self.lock();
        if matches!(*channel, Channel::Pending) {
            *channel = Channel::Open(receiver);
        }
    }

    pub(super) fn close(&self) {
        *self.lock() = Channel::Closed;
    }

    /// The next error of the engine; `None` once the channel is closed.
    pub(super) async fn error(&self) -> Option<GenerationError> {
        std::future::poll_fn(|context| {
            loop {
                let polled = match &mut *self.lock() {
                    Channel::Open(receiver) => receiver.poll_recv(context),
                    Channel::Pending | Channel::Closed => return Poll::Ready(None),
                };
                match polled {
                    Poll::Ready(Some(response)) => match failure(&response) {
                        Some(error) => return Poll::Ready(Some(error)),
                        None => continue,
                    },
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

/// Closes the engine's channel when the reader of an answer goes away, also before the first token.
pub(super) struct CloseOnDrop(pub(super) EngineChannel);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The failure a response stands for, if it does.
pub(super) fn failure(response: &Response) -> Option<GenerationError> {
    match response {
        Response::InternalError(error) | Response::ValidationError(error) => {
            Some(GenerationError::Engine(error.to_string()))
        }
        Response::ModelError(problem, _) | Response::CompletionModelError(problem, _) => {
            Some(GenerationError::Engine(problem.clone()))
        }
        _ => None,
    }
}
