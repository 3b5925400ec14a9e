//! How do answers that end together share one wait for the disk?

use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};

use super::{
    Result,
    rows::failed,
    sqlite::{SqliteLedger, begin},
};
use crate::domain::AnswerRecord;

/// Most answers of one transaction: other writers wait about as long as it takes.
const MOST: usize = 64;

/// An answer to write, and whom to tell.
type Waiting = (AnswerRecord, oneshot::Sender<Result<()>>);

/// Writes answers in the order they come, all that wait in one transaction: the disk takes as long for one commit as
/// for another, however much is in it.
#[derive(Debug)]
pub(super) struct Recorder(mpsc::UnboundedSender<Waiting>);

impl Recorder {
    /// Writes with `writer` until dropped.
    pub(super) fn start(writer: SqlitePool) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut group = Vec::new();
            while receiver.recv_many(&mut group, MOST).await > 0 {
                write_group(&writer, &mut group).await;
            }
        });
        Self(sender)
    }

    /// Returns when the answer is durable.
    pub(super) async fn record(&self, answer: &AnswerRecord) -> Result<()> {
        let closed = || failed("recording an answer")(sqlx::Error::PoolClosed);
        let (told, outcome) = oneshot::channel();
        self.0.send((answer.clone(), told)).map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }
}

/// Writes a group and tells everybody. A group that fails is written one by one, so that each answer has its own
/// outcome.
async fn write_group(writer: &SqlitePool, group: &mut Vec<Waiting>) {
    let together = match &group[..] {
        [_] => None,
        _ => write(writer, group).await.ok(),
    };
    for one in group.drain(..) {
        let outcome = match together {
            Some(()) => Ok(()),
            None => write(writer, std::slice::from_ref(&one)).await,
        };
        // Who asked may have gone; the answer is written all the same.
        drop(one.1.send(outcome));
    }
}

async fn write(writer: &SqlitePool, answers: &[Waiting]) -> Result<()> {
    let mut transaction = begin(writer).await?;
    for (answer, _) in answers {
        SqliteLedger::insert_answer(&mut transaction, answer).await?;
    }
    transaction.commit().await.map_err(failed("recording an answer"))
}
