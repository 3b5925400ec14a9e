//! What have earlier runs left behind that nobody needs any more?

use std::path::Path;

use super::examination::COMPARED;
use super::{ImproveError, Work, io};
use crate::domain::{GenerationId, RunId};
use crate::error::chain;
use crate::jobs::RUNS;

/// What a run goes on from after an interruption: checkpoints with the optimizer's state, and what was read of answers.
const PARTS: [&str; 3] = ["policy", "control", "reward"];

impl Work<'_> {
    /// Deletes what runs that are over would have gone on from, and the files of generations that are too old to be
    /// kept. It is done when the next run begins, so that a run whose end was not recorded still has it all. A failure
    /// costs room on the disk and nothing else.
    pub(super) async fn tidy(&self) {
        if let Err(error) = self.tidied().await {
            tracing::warn!(error = %chain(&error), "what earlier runs left behind was not deleted");
        }
    }

    async fn tidied(&self) -> Result<(), ImproveError> {
        let all = self.workshop.config.data_dir.join(RUNS);
        for entry in std::fs::read_dir(&all).map_err(io(&all))? {
            let folder = entry.map_err(io(&all))?.path();
            let left: Vec<_> =
                PARTS.map(|part| folder.join(part)).into_iter().filter(|part| part.is_dir()).collect();
            if folder != self.folder && !left.is_empty() && self.is_over(&folder).await? {
                left.iter().try_for_each(|part| std::fs::remove_dir_all(part).map_err(io(part)))?;
            }
        }
        // What an interrupted run compares its candidate with stays.
        let compared = std::fs::read_to_string(self.folder.join(COMPARED));
        let compared: Vec<_> = compared.iter().map(|id| GenerationId::from_wire(id.trim())).collect();
        let gone = self.workshop.registry.prune(self.workshop.config.registry.keep, &compared).await?;
        if !gone.is_empty() {
            tracing::info!(?gone, "deleted the files of old generations");
        }
        Ok(())
    }

    /// Whether a folder is of a run that is over. One that is not known may be another database's.
    async fn is_over(&self, folder: &Path) -> Result<bool, ImproveError> {
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { return Ok(false) };
        let run = self.workshop.ledger.run(&RunId::from_wire(name)).await?;
        Ok(run.is_some_and(|run| run.state.is_over()))
    }
}
