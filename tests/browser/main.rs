//! Do the pages work for people? Each test drives Chromium against a real server whose model follows a script.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says when it is skipped"
)]

mod chat;
mod console;
mod driver;
mod generations;
#[path = "../api/loader.rs"]
mod loader;
mod runs;
mod safety;
mod scripts;
mod server;
mod site;
mod widget;
