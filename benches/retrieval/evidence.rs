//! Which coefficients tell answerable from unanswerable questions?

use attune::config::RetrievalConfig;

use super::questions::{Asked, ask, handbook, read, summary};
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
        let rows: Vec<(Vec<f64>, bool)> = asked
            .iter()
            .filter(|asked| asked.question.split == "train")
            .filter_map(|asked| Some((inputs(asked)?, asked.answerable)))
            .collect();
        let coefficients = descend(&rows);
        println!("semantic {semantic_weight}: {coefficients:.3?}");
        for asked in &mut asked {
            asked.evidence = inputs(asked).map_or(0.0, |inputs| likelihood(&coefficients, &inputs) as f32);
        }
        let train: Vec<&Asked> = asked.iter().filter(|asked| asked.question.split == "train").collect();
        println!("  train: {}", summary(&train, 0.5));
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

/// Gradient descent on the cross-entropy of both classes.
fn descend(rows: &[(Vec<f64>, bool)]) -> Vec<f64> {
    let width = rows.first().map_or(0, |(inputs, _)| inputs.len());
    let positive = rows.iter().filter(|(_, answerable)| *answerable).count() as f64;
    let negative = rows.len() as f64 - positive;
    let mut coefficients = vec![0.0; width];
    for _ in 0..STEPS {
        let mut gradient = vec![0.0; width];
        for (inputs, answerable) in rows {
            let weight =
                if *answerable { ANSWERABLE_SHARE / positive } else { (1.0 - ANSWERABLE_SHARE) / negative };
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
