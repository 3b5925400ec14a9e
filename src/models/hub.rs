//! How is a file fetched from the model hub? Interrupted downloads continue where they stopped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo,
    api::sync::{Api, ApiBuilder, ApiError},
};

use super::Progress;

/// The hub, with what was fetched from it.
#[derive(Debug)]
pub(super) struct Hub {
    cache: Cache,
    endpoint: Option<String>,
}

/// Attempts per file beyond the first; each continues where the last stopped.
const RETRIES: usize = 3;

impl Hub {
    /// Keeps files under `hub` in the cache of models. `HF_ENDPOINT` names another hub, `HF_TOKEN` is sent to it.
    pub(super) fn new(cache: &Path) -> Self {
        let endpoint = std::env::var("HF_ENDPOINT")
            .ok()
            .filter(|endpoint| !endpoint.is_empty());
        Self {
            cache: Cache::new(cache.join("hub")),
            endpoint,
        }
    }

    /// The file as fetched earlier.
    pub(super) fn cached(&self, repo: &str, name: &str) -> Option<PathBuf> {
        self.cache.model(repo.to_owned()).get(name)
    }

    /// The folder of a repository that [`Hub::fetch_folder`] fetched whole.
    pub(super) fn cached_folder(&self, repo: &str) -> Option<PathBuf> {
        let commit = fs::read_to_string(self.complete_marker(repo)).ok()?;
        let folder = self.repo_folder(repo).join("snapshots").join(commit);
        folder.is_dir().then_some(folder)
    }

    /// Fetches the files of a repository whose names are `needed`; gives their folder.
    pub(super) fn fetch_folder(
        &self,
        repo: &str,
        needed: impl Fn(&str) -> bool,
        progress: &dyn Progress,
    ) -> Result<PathBuf, String> {
        let info = self
            .api()?
            .model(repo.to_owned())
            .info()
            .map_err(|error| reason(&error, repo))?;
        let names = info
            .siblings
            .into_iter()
            .map(|file| file.rfilename)
            .filter(|name| needed(name));
        for name in names {
            let path = self.fetch(repo, &name, progress)?;
            if !path.parent().is_some_and(|folder| folder.ends_with(&info.sha)) {
                return Err(format!("{repo} changed while it was fetched; try again"));
            }
        }
        fs::write(self.complete_marker(repo), &info.sha).map_err(|error| error.to_string())?;
        self.cached_folder(repo)
            .ok_or_else(|| format!("{repo} has none of the files of such a model"))
    }

    fn repo_folder(&self, repo: &str) -> PathBuf {
        self.cache.path().join(Repo::model(repo.to_owned()).folder_name())
    }

    /// Holds the commit of which every needed file was fetched.
    fn complete_marker(&self, repo: &str) -> PathBuf {
        self.repo_folder(repo).join("complete")
    }

    /// Fetches a file unless it is there.
    pub(super) fn fetch(&self, repo: &str, name: &str, progress: &dyn Progress) -> Result<PathBuf, String> {
        if let Some(path) = self.cached(repo, name) {
            return Ok(path);
        }
        let task = Task {
            progress,
            done_bytes: 0,
        };
        let fetched = self
            .api()?
            .repo(Repo::model(repo.to_owned()))
            .download_with_progress(name, task);
        progress.finish();
        fetched.map_err(|error| format!("{name}: {}", reason(&error, repo)))
    }

    fn api(&self) -> Result<Api, String> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone())
            .with_progress(false)
            .with_retries(RETRIES);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Ok(token) = std::env::var("HF_TOKEN") {
            builder = builder.with_token(Some(token));
        }
        builder.build().map_err(|error| error.to_string())
    }
}

fn reason(error: &ApiError, repo: &str) -> String {
    let text = crate::error::chain(error);
    if text.contains("status code 401") || text.contains("status code 403") {
        format!("{repo} does not exist, or needs a token that may read it: set HF_TOKEN")
    } else if text.contains("status code 404") {
        format!("{repo} does not have it")
    } else {
        text
    }
}

struct Task<'a> {
    progress: &'a dyn Progress,
    done_bytes: u64,
}

impl hf_hub::api::Progress for Task<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        self.done_bytes = 0;
        self.progress.start(&format!("fetching {filename}"), size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done_bytes += size as u64;
        self.progress.at(self.done_bytes);
    }

    fn finish(&mut self) {}
}
