//! Which coefficients tell answerable from unanswerable questions?

use std::collections::BTreeSet;
use std::path::Path;

use attune::config::{DocsConfig, RetrievalConfig};
use attune::retrieval::Library;

use super::questions::{Asked, Question, ask, ask_one, handbook, read, summary};
use super::{Outcome, Setting};

/// Pull of the coefficients towards 0; the train split has few unanswerable questions.
const RIDGE: f64 = 2e-4;

const STEPS: usize = 200_000;
const RATE: f64 = 0.5;

/// Fits a logistic model on the train split and prints its coefficients.
pub(crate) fn fit(setting: &Setting) -> Outcome<()> {
    let questions = read()?;
    let config = RetrievalConfig::default();
    for semantic_weight in [0.0, config.semantic_weight] {
        if semantic_weight > 0.0 && setting.encoder.is_none() {
            continue;
        }
        let library = handbook(setting, &RetrievalConfig { semantic_weight, ..config.clone() })?;
        let mut asked = ask(&library, &questions)?;
        let mut left_out = without_their_page(&library, &questions)?;
        let row = |asked: &Asked<'_>, weight| {
            Some(Row { inputs: inputs(asked)?, answerable: asked.answerable, weight })
        };
        let train = asked.iter().filter(|asked| asked.question.split == "train");
        let mut rows: Vec<Row> = train.filter_map(|asked| row(asked, 1.0)).collect();
        // Words can not tell a question without its page from one with it: they would only raise every estimate.
        if semantic_weight > 0.0 {
            rows.extend(left_out.iter().filter_map(|asked| row(asked, LEFT_OUT_WEIGHT)));
        }
        let coefficients = descend(&rows);
        println!("semantic {semantic_weight}: {coefficients:.3?}");
        for asked in asked.iter_mut().chain(&mut left_out) {
            asked.evidence = inputs(asked).map_or(0.0, |inputs| likelihood(&coefficients, &inputs) as f32);
        }
        let train: Vec<&Asked> = asked.iter().filter(|asked| asked.question.split == "train").collect();
        println!("  train: {}", summary(&train, 0.5));
        let refused = left_out.iter().filter(|asked| asked.evidence < 0.5).count();
        println!("  train without their page: refused {refused} of {}", left_out.len());
    }
    Ok(())
}

/// The train questions once more, each asked of the handbook without the page that has its answer: what a question that
/// nothing answers is like when much is said about its subject. Leaves the library as it was.
fn without_their_page<'q>(library: &Library, questions: &'q [Question]) -> Outcome<Vec<Asked<'q>>> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("handbook");
    copy_folder(Path::new("handbook"), &copy)?;
    let sync = |path: &Path| {
        let docs = DocsConfig { paths: vec![path.to_owned()], ..DocsConfig::default() };
        library.sync_folders(&docs, &mut |_| {})
    };
    let mut found = Vec::new();
    let train = |question: &&Question| question.split == "train" && question.kind == "answerable";
    let pages: BTreeSet<&str> =
        questions.iter().filter(train).filter_map(|one| one.page.as_deref()).collect();
    for page in pages {
        let path = copy.join(page);
        let text = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        sync(&copy)?;
        let of_page = questions.iter().filter(train).filter(|one| one.page.as_deref() == Some(page));
        for question in of_page {
            found.push(Asked { answerable: false, ..ask_one(library, question)? });
        }
        std::fs::write(&path, text)?;
    }
    sync(Path::new("handbook"))?;
    Ok(found)
}

fn copy_folder(from: &Path, to: &Path) -> Outcome<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &to)?;
        } else {
            std::fs::copy(&path, &to)?;
        }
    }
    Ok(())
}

fn inputs(asked: &Asked<'_>) -> Option<Vec<f64>> {
    Some(asked.features?.inputs().into_iter().map(f64::from).collect())
}

fn likelihood(coefficients: &[f64], inputs: &[f64]) -> f64 {
    let logit: f64 = coefficients.iter().zip(inputs).map(|(coefficient, input)| coefficient * input).sum();
    1.0 / (1.0 + (-logit).exp())
}

/// Share of the loss that the answerable questions have, however many there are: a wrong refusal annoys more often
/// than an attempt at a question without an answer, which still shows its sources.
const ANSWERABLE_SHARE: f64 = 0.7;

/// What a question without its page counts beside one that was written to have no answer: there are six times as many,
/// and a neighbouring page answers some of them.
const LEFT_OUT_WEIGHT: f64 = 0.3;

/// A question of the fit.
struct Row {
    inputs: Vec<f64>,
    answerable: bool,
    weight: f64,
}

/// Gradient descent on the cross-entropy of both classes.
fn descend(rows: &[Row]) -> Vec<f64> {
    let width = rows.first().map_or(0, |row| row.inputs.len());
    let weight_of = |answerable: bool| -> f64 {
        rows.iter().filter(|row| row.answerable == answerable).map(|row| row.weight).sum()
    };
    let (positive, negative) = (weight_of(true), weight_of(false));
    let mut coefficients = vec![0.0; width];
    for _ in 0..STEPS {
        let mut gradient = vec![0.0; width];
        for Row { inputs, answerable, weight } in rows {
            let share =
                if *answerable { ANSWERABLE_SHARE / positive } else { (1.0 - ANSWERABLE_SHARE) / negative };
            let weight = weight * share;
            let error = likelihood(&coefficients, inputs) - f64::from(u8::from(*answerable));
            for (slope, input) in gradient.iter_mut().zip(inputs) {
                *slope += weight * error * input;
            }
        }
        for (i, (coefficient, slope)) in coefficients.iter_mut().zip(&gradient).enumerate() {
            // The intercept is free.
            let pull = if i == 0 { 0.0 } else { RIDGE * *coefficient };
            *coefficient -= RATE * (slope + pull);
        }
    }
    coefficients
}
