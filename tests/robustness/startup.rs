//! What keeps a server from starting is said in words that name the thing and what to do.

use std::net::TcpListener;

use crate::child::Home;
use crate::commands::{Files, fails};
use crate::disk::SmallDisk;

/// A server that must not start.
#[track_caller]
fn serve_fails(files: &Files, more: &[&str], words: &[&str]) {
    let said = fails(&[&["serve", "--config", &files.config(), "--listen", "127.0.0.1:0"], more].concat());
    let error = said.split("error: ").last().unwrap();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {said}");
    }
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let files = Files::new("");
    let said = fails(&["serve", "--config", &files.config(), "--listen", &address]);
    assert!(said.contains(&address) && said.contains("in use") && said.contains("--listen"), "{said}");
}

#[tokio::test]
async fn a_data_directory_in_use() {
    let home = Home::new("");
    let _server = home.start().await;
    let data = home.data.to_str().unwrap();
    serve_fails(&Files::new(""), &["--data-dir", data], &[data, "in use by another", "--data-dir"]);
    let said = fails(&["index", ".", "--config", home.config_file().to_str().unwrap()]);
    assert!(said.contains(data) && said.contains("in use by another"), "{said}");
}

#[test]
fn documents_that_are_not_there() {
    let files = Files::new("");
    let missing = files.path("handbok");
    serve_fails(&files, &["--docs", &missing], &["--docs", &missing, "no such folder"]);
    assert!(
        !std::path::Path::new(&files.path("data")).exists(),
        "a server that did not start left something"
    );
}

#[test]
fn a_data_directory_that_can_not_be_made() {
    let files = Files::new("");
    // Below a file there is no folder, not even for root.
    let data = format!("{}/data", files.write("file", b""));
    serve_fails(&files, &["--data-dir", &data], &[&data, "--data-dir"]);
    // Even root may not write everywhere.
    serve_fails(&files, &["--data-dir", "/proc/attune"], &["/proc/attune", "--data-dir"]);
}

#[test]
fn a_data_directory_without_room() {
    let Some(disk) = SmallDisk::mount("64k") else {
        return;
    };
    disk.fill();
    let data = disk.path().join("data");
    let data = data.to_str().unwrap();
    serve_fails(&Files::new(""), &["--data-dir", data], &["disk is full"]);
    let said = fails(&[
        "tokens",
        "create",
        "--user",
        "ada",
        "--config",
        &Files::new("").config(),
        "--data-dir",
        data,
    ]);
    assert!(said.contains("disk is full"), "{said}");
}

#[test]
fn a_key_that_does_not_exist() {
    let files = Files::new("bsae = 'smollm2-135m-instruct'");
    serve_fails(&files, &[], &["models.bsae", "base"]);
    serve_fails(&files, &["--check-config"], &["bsae"]);
    let missing = files.path("missing.toml");
    let said = fails(&["serve", "--config", &missing]);
    assert!(said.contains(&missing) && said.contains("does not exist"), "{said}");
}

#[test]
fn open_mode_on_every_address() {
    let files = Files::new("");
    let said = fails(&["serve", "--config", &files.config(), "--listen", "0.0.0.0:0"]);
    assert!(said.contains("access.mode") && said.contains("loopback"), "{said}");
}

#[test]
fn a_model_that_is_none() {
    let files = Files::new("");
    // A header that promises more than there is, and no header at all.
    let mut truncated = b"GGUF\x03\0\0\0".to_vec();
    truncated.extend(7_u64.to_le_bytes());
    truncated.extend(40_u64.to_le_bytes());
    for (name, content) in
        [("truncated.gguf", truncated.as_slice()), ("garbage.gguf", &[0xA5; 4096]), ("empty.gguf", b"")]
    {
        let path = files.write(name, content);
        serve_fails(&Files::new(&format!("base = {path:?}")), &[], &[&path, "damaged"]);
    }
    let missing = files.path("missing.gguf");
    serve_fails(&Files::new(&format!("base = {missing:?}")), &[], &[&missing, "does not exist"]);
    serve_fails(&Files::new("base = 'smolm2-135m'"), &[], &["smolm2-135m", "smollm2-135m-instruct"]);
}

#[test]
fn an_empty_cache_that_may_not_be_filled() {
    let files = Files::new("");
    let cache = files.path("cache");
    let offline = Files::new(&format!("offline = true\ncache = {cache:?}"));
    serve_fails(&offline, &[], &[&cache, "models.offline", "attune models pull"]);
}
