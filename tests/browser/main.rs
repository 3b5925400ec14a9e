//! Do the pages work for people? Each test drives Chromium against a real server whose model follows a script.

mod chat;
mod console;
mod driver;
mod safety;
mod scripts;
mod server;
mod site;
mod widget;
