//! Does the repository keep its own rules? What ARCHITECTURE.md and CONTRIBUTING.md promise about files, held by tests.

#[cfg(test)]
mod architecture {
    mod deployment;
    mod documents;
    mod files;
    mod sources;
}
