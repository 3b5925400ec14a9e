//! Where does the fine-tuning keep its files, and what does it begin with?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::material::Material;
use super::{ImproveError, Work, io, write_whole};
use crate::domain::AccessLabel;
use crate::jobs::Reporter;
use crate::nn::{Adapter, Decoder};
use crate::sft::{self, Trained};

/// Fine-tunings whose files are kept besides the one in use: adapters and their checkpoints are tens of megabytes.
const KEPT: usize = 3;
/// In a fine-tuning's folder, the base model it is of.
const BASE: &str = "base";
/// In it, who may see the demonstrations it learnt from.
const ACCESS: &str = "access.json";
/// In it, touched whenever a run uses it.
const USED: &str = "used";
/// In a run's folder, the name of its fine-tuning's.
const CHOSEN: &str = "tuning";

impl Work<'_> {
    /// Trains an adapter of the base model on the material.
    pub(super) async fn fine_tune(&self, material: &Arc<Material>) -> Result<Trained, ImproveError> {
        let (material, settings) = (Arc::clone(material), self.settings.clone());
        let (folder, report) = (self.tuning(&material)?, self.report.clone());
        let trained = tokio::task::spawn_blocking(move || {
            let sides = (material.train.as_slice(), material.validation.as_slice());
            sft::train(&material.decoder, sides, (&settings, &folder), |step| {
                tell(&report, &step);
                !report.cancelled()
            })
        });
        Ok(trained.await??)
    }

    /// The fine-tuning's folder: one for what it learns from and how, so that a run which fine-tunes as an earlier one
    /// did takes over what that one made. The last few stay. A run that was interrupted finds the one it began with.
    fn tuning(&self, material: &Material) -> Result<PathBuf, ImproveError> {
        let all = self.workshop.config.data_dir.join("tuned");
        std::fs::create_dir_all(&all).map_err(io(&all))?;
        let chosen = self.folder.join(CHOSEN);
        let known = std::fs::read_to_string(&chosen).ok().map(|name| all.join(name));
        let folder = match known.filter(|folder| folder.is_dir()) {
            Some(folder) => folder,
            None => self.begin_tuning(material, &all)?,
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write_whole(&chosen, name.as_bytes())?;
        forget_all_but_newest(&all, &folder).map_err(io(&all))?;
        Ok(folder)
    }

    fn begin_tuning(&self, material: &Material, all: &Path) -> Result<PathBuf, ImproveError> {
        let workshop = self.workshop;
        let templates = workshop.templates();
        let settings = serde_json::to_string(&self.settings).unwrap_or_default();
        let base = hex::encode(workshop.base.source_sha256);
        let start = if self.warm_start { self.newest_made(&material.decoder, (all, &base))? } else { None };
        let mut hash = Sha256::new();
        for part in [material.snapshot.hash(), &settings, &templates.prompt, &templates.chat] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(workshop.base.source_sha256);
        if let Some(start) = &start {
            hash.update(start);
        }
        let folder = all.join(&hex::encode(hash.finalize())[..16]);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        write_whole(&folder.join(BASE), base.as_bytes())?;
        let access = serde_json::to_vec(&material.snapshot.summary().access).unwrap_or_default();
        write_whole(&folder.join(ACCESS), &access)?;
        if let Some(start) = start {
            write_whole(&folder.join(sft::START), &start)?;
        }
        Ok(folder)
    }

    /// The adapter's file of the newest earlier fine-tuning of this base model whose rank and alpha are this one's, and
    /// which learnt from nothing restricted: what begins with it would know that too, whatever it learns from itself.
    fn newest_made(
        &self,
        decoder: &Decoder,
        (all, base): (&Path, &str),
    ) -> Result<Option<Vec<u8>>, ImproveError> {
        for folder in newest_first(all).map_err(io(all))? {
            let path = folder.join(sft::MADE);
            let of_base = std::fs::read_to_string(folder.join(BASE)).is_ok_and(|found| found == base);
            if !of_base || !path.is_file() || !is_public(&folder) {
                continue;
            }
            let (shape, wanted) = (Adapter::load(decoder, &path)?.shape(), self.settings.adapter);
            if (shape.rank, shape.alpha) == (wanted.rank, wanted.alpha) {
                tracing::info!(folder = %folder.display(), "beginning with an earlier fine-tuning");
                return Ok(Some(std::fs::read(&path).map_err(io(&path))?));
            }
        }
        tracing::info!("there is no earlier fine-tuning to begin with: beginning from nothing");
        Ok(None)
    }
}

/// Whether a fine-tuning learnt from what everybody may see; one that does not say so may not have.
fn is_public(folder: &Path) -> bool {
    let access = std::fs::read(folder.join(ACCESS)).ok();
    let access = access.and_then(|text| serde_json::from_slice::<AccessLabel>(&text).ok());
    access.is_some_and(|access| access.is_public())
}

fn tell(report: &Reporter, step: &sft::Step) {
    report.progress("fine-tune", step.done, step.total);
    let mut values = vec![
        ("loss", f64::from(step.loss)),
        ("learning_rate", f64::from(step.learning_rate)),
        ("grad_norm", f64::from(step.gradient_norm)),
        ("tokens_per_second", f64::from(step.tokens_per_second)),
    ];
    values.extend(step.validation_loss.map(|loss| ("validation_loss", f64::from(loss))));
    report.point(step.done, &values);
}

/// Folders of fine-tunings, the one that was used last first.
fn newest_first(all: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(all)? {
        let path = entry?.path();
        let last = std::fs::metadata(path.join(USED)).and_then(|used| used.modified());
        found.push((last.ok(), path));
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// Deletes the folders that were used longest ago, all but [`KEPT`] and `used`.
fn forget_all_but_newest(all: &Path, used: &Path) -> std::io::Result<()> {
    std::fs::write(used.join(USED), [])?;
    let others = newest_first(all)?.into_iter().filter(|path| path != used);
    others.skip(KEPT).try_for_each(std::fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Groups;

    #[test]
    fn only_what_says_that_it_is_public_is_begun_with() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_public(folder.path()));
        let write = |access: &AccessLabel| {
            std::fs::write(folder.path().join(ACCESS), serde_json::to_vec(access).unwrap()).unwrap();
        };
        write(&AccessLabel::of([&Groups::from(["hr".to_owned()])]));
        assert!(!is_public(folder.path()));
        write(&AccessLabel::default());
        assert!(is_public(folder.path()));
    }
}
