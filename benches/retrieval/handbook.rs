//! A real handbook of 249 pages: how long does it take to index, how large is it, how fast are its answers found?

use std::path::Path;
use std::time::Instant;

use attune::config::{DocsConfig, RetrievalConfig};
use attune::retrieval::{Library, SearchQuery};

use super::{Outcome, Setting, quantile};

pub(crate) fn figures(setting: &Setting) -> Outcome<()> {
    let source = setting.data.join("handbook-18f/src");
    if !source.is_dir() {
        println!("handbook-18f: skipped, {} is not there", source.display());
        return Ok(());
    }
    let docs = DocsConfig { paths: vec![source], ..DocsConfig::default() };
    for encoder in [None, setting.encoder.clone()] {
        let name = if encoder.is_some() { "hybrid" } else { "BM25" };
        if encoder.is_none() && name == "hybrid" {
            continue;
        }
        let index = tempfile::tempdir()?;
        let library = Library::open(index.path(), &RetrievalConfig::default(), encoder.clone())?;
        let start = Instant::now();
        let report = library.sync_folders(&docs, &mut |_| {})?;
        let indexing = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let again = library.sync_folders(&docs, &mut |_| {})?;
        let unchanged = start.elapsed().as_secs_f64();
        let stats = library.stats()?;
        println!(
            "handbook-18f {name}: {} pages added, {} failed, {} passages in {indexing:.2} s; {:.1} MB on disk; again: {} \
             unchanged in {unchanged:.2} s",
            report.added,
            report.failed.len(),
            stats.passages,
            size(index.path())? as f64 / 1e6,
            again.unchanged,
        );
        for (path, reason) in &report.failed {
            println!("  {}: {reason}", path.display());
        }
        latency(&library, setting, name)?;
        if setting.encoder.is_none() {
            break;
        }
    }
    Ok(())
}

fn latency(library: &Library, setting: &Setting, name: &str) -> Outcome<()> {
    let queries = std::fs::read_to_string(setting.data.join("handbook-faq/18f/queries.jsonl"))?;
    let mut times = Vec::new();
    for row in queries.lines() {
        let row: serde_json::Value = serde_json::from_str(row)?;
        let text = row["text"].as_str().unwrap_or_default();
        let start = Instant::now();
        library.search(&SearchQuery { text, groups: None, k: 4 })?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "handbook-18f {name}: {} queries, {:.2} ms p50, {:.2} ms p99",
        times.len(),
        quantile(&times, 0.5),
        quantile(&times, 0.99)
    );
    Ok(())
}

fn size(dir: &Path) -> Outcome<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(dir)? {
        size += entry?.metadata()?.len();
    }
    Ok(size)
}
