//! How is a file fetched from the model hub? Interrupted downloads continue where they stopped.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hf_hub::{
    Cache, Repo,
    api::sync::{Api, ApiBuilder, ApiError},
};

use super::{Progress, file};

/// The hub, with what was fetched from it.
#[derive(Debug)]
pub(super) struct Hub {
    cache: Cache,
    endpoint: Option<String>,
}

/// Attempts per file; each continues where the last stopped.
const ATTEMPTS: u32 = 4;

impl Hub {
    /// Keeps files under `hub` in the cache of models. `HF_ENDPOINT` names another hub, `HF_TOKEN` is sent to it.
    pub(super) fn new(cache: &Path) -> Self {
        let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
        Self { cache: Cache::new(cache.join("hub")), endpoint }
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
        let info = self.api()?.model(repo.to_owned()).info().map_err(|error| reason(&error, repo))?;
        let names = info.siblings.into_iter().map(|file| file.rfilename).filter(|name| needed(name));
        for name in names {
            let path = self.fetch(repo, &name, progress)?;
            if !path.parent().is_some_and(|folder| folder.ends_with(&info.sha)) {
                return Err(format!("{repo} changed while it was fetched; try again"));
            }
        }
        fs::write(self.complete_marker(repo), &info.sha).map_err(|error| error.to_string())?;
        self.cached_folder(repo).ok_or_else(|| format!("{repo} has none of the files of such a model"))
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
        let source = self.api()?.repo(Repo::model(repo.to_owned()));
        let mut attempt = 1;
        let path = loop {
            let fetched =
                source.download_with_progress(name, Task { started: false, progress, done_bytes: 0 });
            progress.finish();
            match fetched {
                Ok(path) => break path,
                Err(error) if attempt == ATTEMPTS || !self.may_pass(&error, repo) => {
                    return Err(format!("{name}: {}", reason(&error, repo)));
                }
                Err(error) => tracing::info!("fetching {name} was interrupted and continues: {error}"),
            }
            std::thread::sleep(Duration::from_secs(1) * attempt);
            attempt += 1;
        };
        check(&path).map(|()| path)
    }

    /// Whether another attempt makes sense.
    fn may_pass(&self, error: &ApiError, repo: &str) -> bool {
        match error {
            ApiError::IoError(_) => true,
            // More was kept than there is, or all of it: a process was killed at the wrong moment.
            ApiError::InvalidResume => self.forget_partials(repo),
            ApiError::RequestError(_) if error.to_string().contains("status code 416") => {
                self.forget_partials(repo)
            }
            _ => false,
        }
    }

    fn forget_partials(&self, repo: &str) -> bool {
        let Ok(files) = fs::read_dir(self.repo_folder(repo).join("blobs")) else {
            return false;
        };
        let paths = files.filter_map(Result::ok).map(|file| file.path());
        let partials = paths.filter(|path| path.extension().is_some_and(|extension| extension == "part"));
        partials.map(fs::remove_file).all(|removed| removed.is_ok())
    }

    fn api(&self) -> Result<Api, String> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone()).with_progress(false);
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

/// The hub names large files by their SHA-256; a file that is not what its name says is thrown away.
fn check(link: &Path) -> Result<(), String> {
    let path = fs::canonicalize(link).map_err(|error| error.to_string())?;
    let mut wanted = [0; 32];
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if hex::decode_to_slice(name, &mut wanted).is_err() {
        return Ok(());
    }
    let found = file::sha256(&path).map_err(|error| crate::error::chain(&error))?;
    file::check_sha256(&path, &found, &wanted).map_err(|error| {
        let removed = fs::remove_file(link).and_then(|()| fs::remove_file(&path));
        format!("{error}{}", if removed.is_ok() { "; it was removed, try again" } else { "; remove it" })
    })
}

struct Task<'a> {
    progress: &'a dyn Progress,
    started: bool,
    done_bytes: u64,
}

impl hf_hub::api::Progress for Task<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        // Called twice for each transfer.
        if !std::mem::replace(&mut self.started, true) {
            self.progress.start(&format!("fetching {filename}"), size as u64);
        }
        self.done_bytes = 0;
    }

    fn update(&mut self, size: usize) {
        self.done_bytes += size as u64;
        self.progress.at(self.done_bytes);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::{TcpListener, TcpStream},
        sync::{Arc, Mutex},
    };

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::models::LogLines;

    /// A hub with one repository on a port of this machine. The first transfer of a whole file breaks off half way.
    struct LocalHub {
        endpoint: String,
        ranges: Arc<Mutex<Vec<(usize, usize)>>>,
    }

    impl LocalHub {
        fn start(content: Vec<u8>, digest: String) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let ranges = Arc::<Mutex<Vec<(usize, usize)>>>::default();
            let seen = ranges.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    answer(stream.unwrap(), &content, &digest, &seen);
                }
            });
            Self { endpoint, ranges }
        }
    }

    fn answer(mut stream: TcpStream, content: &[u8], digest: &str, seen: &Mutex<Vec<(usize, usize)>>) {
        let mut request = Vec::new();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let line = line.unwrap();
            if line.is_empty() {
                break;
            }
            request.push(line);
        }
        let mut send = |head: String, body: &[u8], length: usize| {
            let close = "connection: close\r\nx-repo-commit: c0ffee\r\n";
            let head =
                format!("HTTP/1.1 {head}\r\n{close}etag: \"{digest}\"\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        };
        let path = request[0].split(' ').nth(1).unwrap();
        if path.starts_with("/api/models/o/n") {
            let info =
                br#"{"sha":"c0ffee","siblings":[{"rfilename":"model.safetensors"},{"rfilename":"x.bin"}]}"#;
            return send("200 OK".into(), info, info.len());
        }
        if path != "/o/n/resolve/main/model.safetensors" {
            return send("404 Not Found".into(), b"", 0);
        }
        let range = request.iter().find_map(|line| line.strip_prefix("Range: bytes=")).unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let from: usize = from.parse().unwrap();
        let to = to.parse().map_or(content.len(), |to: usize| to + 1);
        let whole = (from, to) == (0, content.len());
        seen.lock().unwrap().push((from, to));
        let head = format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{}", to - 1, content.len());
        let body = &content[from..if whole { to / 2 } else { to }];
        send(head, body, to - from);
    }

    fn hub(cache: &Path, endpoint: &str) -> Hub {
        Hub { cache: Cache::new(cache.join("hub")), endpoint: Some(endpoint.to_owned()) }
    }

    #[test]
    fn a_folder_is_fetched_and_an_interrupted_file_continues() {
        let cache = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let local = LocalHub::start(content.clone(), hex::encode(Sha256::digest(&content)));
        let hub = hub(cache.path(), &local.endpoint);
        assert_eq!(hub.cached_folder("o/n"), None);
        let folder = hub.fetch_folder("o/n", |name| name.starts_with("model"), &LogLines::default()).unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), content);
        // One byte to learn the size, the transfer that broke, and its rest: nothing twice.
        let ranges = local.ranges.lock().unwrap().clone();
        let transfers: Vec<_> = ranges.into_iter().filter(|range| *range != (0, 1)).collect();
        assert_eq!(transfers.len(), 2, "{transfers:?}");
        assert!(transfers[1].0 > 0, "{transfers:?}");
        assert_eq!(hub.cached_folder("o/n"), Some(folder));
    }

    #[test]
    fn a_file_that_is_not_what_its_name_says_is_thrown_away() {
        let cache = tempfile::tempdir().unwrap();
        let local = LocalHub::start(vec![7; 1000], hex::encode(Sha256::digest(b"other")));
        let hub = hub(cache.path(), &local.endpoint);
        let error = hub.fetch("o/n", "model.safetensors", &LogLines::default()).unwrap_err();
        assert!(error.contains("SHA-256") && error.contains("removed"), "{error}");
        assert_eq!(hub.cached("o/n", "model.safetensors"), None);
    }

    #[test]
    fn what_the_hub_does_not_have_is_said() {
        let cache = tempfile::tempdir().unwrap();
        let local = LocalHub::start(vec![7; 10], "x".into());
        let error =
            hub(cache.path(), &local.endpoint).fetch("o/n", "a.gguf", &LogLines::default()).unwrap_err();
        assert_eq!(error, "a.gguf: o/n does not have it");
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let hub = hub(cache.path(), &format!("http://{gone}"));
        let error = hub.fetch("o/n", "a.gguf", &LogLines::default()).unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
}
