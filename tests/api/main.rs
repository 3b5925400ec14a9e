//! Does the HTTP interface keep its promises? Each test talks to a real server, with a scripted model.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is a failed test")]

mod access;
mod chat;
mod compat;
mod cycle;
mod generations;
mod harness;
mod interrupted;
mod judgements;
mod knowledge;
mod learning;
mod limits;
mod loader;
mod malformed;
mod own_model;
mod restricted;
mod runs;
mod scores;
mod snapshots;
