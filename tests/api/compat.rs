//! The official OpenAI client, from Python, against a real server.

use std::path::Path;
use std::process::Command;

use crate::harness::TestApp;

#[tokio::test]
async fn the_openai_client_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    if !python.exists() {
        println!("skipped: no .venv; `tests/prepare.sh` (part of `make test`) makes it");
        return;
    }
    let app = TestApp::start().await;
    app.knows_boston().await;
    let mut client = Command::new(python);
    client.arg(root.join("tests/compat/openai_client.py")).arg(&app.base);
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}\n{complained}");
}
