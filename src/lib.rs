//! Attune: a chat server for a company's internal knowledge that learns from the people who use it.
//!
//! Two functions tell the product:
//!
//! 1. [`chat::answer`] = admit → retrieve → prompt → generate → record: one turn, online.
//! 2. [`improve::improve`] = dataset → reward → fine-tune → policy → evaluate → publish → promote: the learning loop,
//!    offline.
//!
//! The modules below stand in reading order; each begins with the question it answers.

// What the words mean.
pub mod domain;
pub mod error;
mod durable;

// How the program is put together.
pub mod config;
pub mod cli;
pub mod app;
pub mod shutdown;
pub mod telemetry;

// Online: answer one turn.
pub mod api;
pub mod access;
pub mod chat;
pub mod admission;
pub mod retrieval;
pub mod prompt;
pub mod generation;
pub mod swap;
pub mod live;
pub mod scoring;
pub mod ledger;
pub mod feedback;

// Models on disk.
pub mod models;
pub mod registry;
pub mod lineage;

// Offline: improve the policy from what people said.
pub mod improve;
pub mod jobs;
pub mod dataset;
pub mod nn;
pub mod sft;
pub mod reward;
pub mod policy;
pub mod evaluation;
pub mod simulate;

// What people see.
pub mod web;

/// Gives memory back: after a swap the old generation's is the operating system's again (tests/robustness/engine.rs).
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
