//! Corpora in the layout of BEIR: corpus, queries, and which document answers which query.

use std::collections::{BTreeMap, HashMap};
use std::fs::read_to_string;
use std::path::Path;
use std::time::Instant;

use attune::config::RetrievalConfig;
use attune::domain::DocumentId;
use attune::retrieval::{Document, Format, Library, SearchQuery};
use serde_json::Value;

use super::{Outcome, Setting};

/// Documents put in one commit.
const BATCH: usize = 256;

/// Passages asked for, so that ten documents are among them.
const DEEP: usize = 50;

/// A corpus with its judged queries.
struct Corpus {
    documents: Vec<Document>,
    /// Text of each judged query with the grade of each relevant document.
    queries: Vec<(String, HashMap<DocumentId, f64>)>,
}

pub(crate) fn figures(setting: &Setting, folder: &str) -> Outcome<()> {
    let dir = setting.data.join(folder);
    if !dir.is_dir() {
        println!("{folder}: skipped, {} is not there", dir.display());
        return Ok(());
    }
    let corpus = read(&dir)?;
    let name = folder.replace('/', "-");
    let start = Instant::now();
    let config = config();
    let library = setting.library(&name, &config)?;
    let fresh = library.stats()?.documents == 0;
    put(&library, &corpus.documents)?;
    let passages = library.stats()?.passages;
    let prepared = if fresh { format!("{:.1} s", start.elapsed().as_secs_f64()) } else { "kept".into() };
    drop(library);
    let mut line = format!(
        "{folder}: {} queries, {passages} passages, indexing {prepared}; nDCG@10",
        corpus.queries.len()
    );
    for (kind, weight) in [("BM25", 0.0), ("hybrid", config.semantic_weight)] {
        if weight > 0.0 && setting.encoder.is_none() {
            continue;
        }
        let library =
            setting.library(&name, &RetrievalConfig { semantic_weight: weight, ..config.clone() })?;
        line.push_str(&format!(" {kind} {:.4}", ndcg(&library, &corpus)?));
    }
    println!("{line}");
    Ok(())
}

/// nDCG@10 on scifact's train queries over a grid around the defaults.
pub(crate) fn tune(setting: &Setting) -> Outcome<()> {
    let dir = setting.data.join("scifact");
    if !dir.is_dir() {
        println!("scifact: skipped, {} is not there", dir.display());
        return Ok(());
    }
    let corpus = read(&dir)?;
    put(&setting.library("scifact", &config())?, &corpus.documents)?;
    for config in grid(setting, &config()) {
        let library = setting.library("scifact", &config)?;
        println!("scifact {}: {:.4}", describe(&config), ndcg(&library, &corpus)?);
    }
    Ok(())
}

/// Configurations to compare, each changing the default in one or two places.
pub(crate) fn grid(setting: &Setting, default: &RetrievalConfig) -> Vec<RetrievalConfig> {
    let mut grid = Vec::new();
    for (bm25_k1, bm25_b) in [(0.9, 0.4), (1.2, 0.75), (0.9, 0.6), (1.2, 0.4), (1.5, 0.5)] {
        grid.push(RetrievalConfig { bm25_k1, bm25_b, semantic_weight: 0.0, ..default.clone() });
    }
    for title_boost in [0.5, 1.5, 2.0, 3.0] {
        grid.push(RetrievalConfig { title_boost, semantic_weight: 0.0, ..default.clone() });
    }
    if setting.encoder.is_some() {
        for semantic_weight in [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0] {
            grid.push(RetrievalConfig { semantic_weight, ..default.clone() });
        }
    }
    grid
}

pub(crate) fn describe(config: &RetrievalConfig) -> String {
    format!(
        "k1 {} b {} title {} semantic {}",
        config.bm25_k1, config.bm25_b, config.title_boost, config.semantic_weight
    )
}

/// The defaults, except that a row of these corpora already is a passage and is not split.
fn config() -> RetrievalConfig {
    RetrievalConfig { passage_tokens: 2048, ..RetrievalConfig::default() }
}

fn put(library: &Library, documents: &[Document]) -> Outcome<()> {
    for batch in documents.chunks(BATCH) {
        library.put_all(batch)?;
    }
    Ok(())
}

/// Mean over the judged queries; a document counts where its best passage is.
fn ndcg(library: &Library, corpus: &Corpus) -> Outcome<f64> {
    let mut sum = 0.0;
    for (query, grades) in &corpus.queries {
        let found = library.search(&SearchQuery { text: query, groups: None, k: DEEP })?;
        let mut documents: Vec<DocumentId> = Vec::new();
        for passage in found.passages {
            if !documents.contains(&passage.document_id) {
                documents.push(passage.document_id);
            }
        }
        let gain = |grades: &mut dyn Iterator<Item = f64>| -> f64 {
            grades.take(10).enumerate().map(|(rank, grade)| grade / (rank as f64 + 2.0).log2()).sum()
        };
        let mut ideal: Vec<f64> = grades.values().copied().collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        let got = gain(&mut documents.iter().map(|id| grades.get(id).copied().unwrap_or(0.0)));
        sum += got / gain(&mut ideal.into_iter());
    }
    Ok(sum / corpus.queries.len() as f64)
}

fn read(dir: &Path) -> Outcome<Corpus> {
    let documents = lines(&dir.join("corpus.jsonl"))?
        .iter()
        .map(|row| Document {
            id: id(text(row, "_id")),
            title: Some(text(row, "title").to_owned()).filter(|title| !title.is_empty()),
            text: text(row, "text").to_owned(),
            format: Format::Text,
            url: None,
            groups: None,
            metadata: BTreeMap::new(),
        })
        .collect();
    // SciFact is only used with its train queries, the others with their test queries.
    let qrels = ["test.tsv", "train.tsv"]
        .map(|name| dir.join("qrels").join(name))
        .into_iter()
        .find(|file| file.is_file());
    let qrels = read_to_string(qrels.ok_or("no qrels")?)?;
    let mut grades: HashMap<&str, HashMap<DocumentId, f64>> = HashMap::new();
    for row in qrels.lines().skip(1) {
        let mut columns = row.split('\t');
        if let (Some(query), Some(document), Some(grade)) = (columns.next(), columns.next(), columns.next()) {
            let grade: f64 = grade.parse()?;
            if grade > 0.0 {
                grades.entry(query).or_default().insert(id(document), grade);
            }
        }
    }
    let queries = lines(&dir.join("queries.jsonl"))?
        .iter()
        .filter_map(|row| Some((text(row, "text").to_owned(), grades.remove(text(row, "_id"))?)))
        .collect();
    Ok(Corpus { documents, queries })
}

fn lines(path: &Path) -> Outcome<Vec<Value>> {
    let text = read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn id(row: &str) -> DocumentId {
    DocumentId::from_path("row", row)
}
