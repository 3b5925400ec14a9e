//! A full disk under a server: it says so, loses nothing, and goes on when there is room again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::child::{Home, Server, asking};
use crate::drive::People;
use crate::harness::events;

/// A file system of its own, in memory.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of this size; `None` where that is not allowed (only root may).
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        let mounted = mount.is_ok_and(|done| done.status.success());
        if !mounted {
            eprintln!("skipped: mounting a small file system is not allowed here");
        }
        mounted.then_some(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes what room there is.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still have files open.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

/// Lets everybody work until so many pieces of each kind are acknowledged.
async fn work(people: &Arc<People>, server: &Server, pieces: usize) {
    tokio::select! {
        () = people.have_done(pieces) => {}
        () = people.work(server) => panic!("the server went away by itself"),
    }
}

/// Asks until there is no room for an answer any more; the log may have some left. Returns the error.
async fn ask_until_full(people: &People, server: &Server) -> Value {
    for _ in 0..1000 {
        let (status, said) = server.post("/v1/chat/completions", asking("tag-full")).await.unwrap();
        if status == StatusCode::INSUFFICIENT_STORAGE {
            return said;
        }
        assert_eq!(status, StatusCode::OK, "{said}");
        let text = said["choices"][0]["message"]["content"].as_str().unwrap();
        people.keep(said["id"].as_str().unwrap().to_owned(), text.to_owned());
    }
    panic!("the disk is full, and answers are acknowledged all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_loses_nothing_and_passes() {
    let Some(disk) = SmallDisk::mount("32m") else {
        return;
    };
    let home = Home::with_data(tempfile::tempdir().unwrap(), disk.path().join("data"), "");
    let server = home.start().await;
    let people = People::new();
    work(&people, &server, 3).await;
    let answer = server.all("/v1/answers").await[0]["id"].as_str().unwrap().to_owned();

    let ballast = disk.fill();
    let said = ask_until_full(&people, &server).await;
    assert_eq!(said["error"]["code"], "storage_full", "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains("disk is full"), "{said}");
    let mut body = asking("tag-full");
    body["stream"] = json!(true);
    let response = server.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    let events = events(&response.text().await.unwrap());
    assert_eq!(events.last().unwrap()["error"]["code"], "storage_full", "{events:?}");
    let large = "A page with many words. ".repeat(20_000);
    // Each larger than what a refused answer may have left.
    for (method, path, body) in [
        (Method::PUT, format!("/v1/feedback/{answer}"), json!({"ideal_answer": "𝄞".repeat(8000)})),
        (
            Method::POST,
            "/v1/demonstrations".into(),
            json!({"prompt": "Where?", "response": "Here. ".repeat(20_000)}),
        ),
        (Method::PUT, "/v1/documents/large".into(), json!({"text": large})),
    ] {
        let (status, said) = crate::child::answer(server.request(method, &path).json(&body)).await.unwrap();
        assert_eq!(
            (status.as_u16(), &said["error"]["code"]),
            (507, &json!("storage_full")),
            "{path}: {said}"
        );
    }
    people.check(&server).await;

    std::fs::remove_file(ballast).unwrap();
    work(&people, &server, 3).await;
    people.check(&server).await;
    let (status, _) = server.put("/v1/documents/large", json!({"text": large})).await.unwrap();
    assert_eq!(status, StatusCode::CREATED);
    server.kill();
    let server = home.start().await;
    people.check(&server).await;
}
