//! Does the server keep its word when things go wrong? Processes are killed, stopped and starved here.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says when it is skipped"
)]

mod child;
mod commands;
mod drive;
mod engine;
#[expect(dead_code, reason = "shared with the tests of the HTTP interface, which use all of it")]
#[path = "../api/harness.rs"]
mod harness;
mod disk;
mod kill;
mod leaks;
#[path = "../api/loader.rs"]
mod loader;
mod publish;
mod runs;
mod startup;
mod stop;
mod swap;
