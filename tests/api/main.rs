//! Does the HTTP interface keep its promises? Each test talks to a real server, with a scripted model.

mod access;
mod chat;
mod compat;
mod harness;
mod judgements;
mod knowledge;
mod learning;
mod limits;
mod malformed;
mod restricted;
mod snapshots;
