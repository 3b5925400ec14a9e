//! Which weights explain choices best? Penalised logistic regression by Newton's method: pairs as differences of
//! features without an intercept (Bradley and Terry, 1952), thumbs with an intercept and a bias for each person.
//!
//! The loss is convex and in f64, so that the minimum is found to rounding, in a handful of steps.

/// Newton steps; ten are enough from zero, so this only bounds what broken numbers cost.
const STEPS: usize = 60;
/// A step that lowers the loss by less than this share of it is the last.
const TOLERANCE: f64 = 1e-10;
/// Halvings of a step that does not lower the loss.
const HALVINGS: usize = 30;
/// Penalty of the intercept: only so that it exists without thumbs.
const INTERCEPT: f64 = 1e-6;
/// Factor of the squared sum of a pair's rewards, which keeps rewards of different questions comparable
/// (arXiv:2312.09244).
const CENTRING: f64 = 0.01;

/// One choice or thumb.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    /// Features of the chosen answer minus those of the other; of a thumb, the answer's.
    pub(super) x: Vec<f64>,
    /// Sum of both answers' features; empty for a thumb.
    pub(super) sum: Vec<f64>,
    /// Probability that the answer is the better one, or good, as it was said.
    pub(super) outcome: f64,
    /// The same, smoothed: what is learnt.
    pub(super) target: f64,
    /// Reward by which it must win.
    pub(super) margin: f64,
    /// Whose thumb, by number; of pairs none.
    pub(super) person: Option<usize>,
    /// Whether it is a thumb: intercept and biases are theirs.
    pub(super) thumb: bool,
}

/// How strongly weights are held at zero.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Penalty {
    /// Of each feature.
    pub(super) columns: Vec<f64>,
    /// Of each person's bias.
    pub(super) person: f64,
    /// Number of people.
    pub(super) people: usize,
}

/// The weights that were found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fit {
    /// Of each feature, then the intercept.
    pub(super) weights: Vec<f64>,
    /// Each person's bias.
    pub(super) people: Vec<f64>,
}

impl Fit {
    fn zero(penalty: &Penalty) -> Self {
        Self { weights: vec![0.0; penalty.columns.len() + 1], people: vec![0.0; penalty.people] }
    }

    /// Log-odds of an observation.
    pub(super) fn logit(&self, observation: &Observation) -> f64 {
        let features: f64 = dot(&observation.x, &self.weights);
        let bias = observation.person.and_then(|person| self.people.get(person)).copied().unwrap_or(0.0);
        let intercept = if observation.thumb { self.intercept() + bias } else { 0.0 };
        features + intercept
    }

    fn intercept(&self) -> f64 {
        self.weights.last().copied().unwrap_or(0.0)
    }

    fn moved(&self, (weights, people): (&[f64], &[f64]), share: f64) -> Self {
        let moved = |at: &[f64], by: &[f64]| at.iter().zip(by).map(|(at, by)| at - share * by).collect();
        Self { weights: moved(&self.weights, weights), people: moved(&self.people, people) }
    }
}

/// Minimises the weighted loss. Observations of weight 0 are not looked at.
pub(super) fn fit(
    (observations, weights): (&[Observation], &[f64]),
    penalty: &Penalty,
    start: Option<&Fit>,
) -> Fit {
    let seen: Vec<(&Observation, f64)> =
        observations.iter().zip(weights.iter().copied()).filter(|(_, weight)| *weight > 0.0).collect();
    let mut found = start.cloned().unwrap_or_else(|| Fit::zero(penalty));
    let constant = Quadratic::of(&seen, penalty);
    let mut loss = objective(&seen, &constant, &found);
    for _ in 0..STEPS {
        let step = newton(&seen, &constant, &found);
        let better = (0..HALVINGS).find_map(|halvings| {
            let next = found.moved((&step.weights, &step.people), 0.5f64.powi(halvings as i32));
            let value = objective(&seen, &constant, &next);
            (value < loss).then_some((next, value))
        });
        let Some((next, value)) = better else { break };
        let gain = loss - value;
        (found, loss) = (next, value);
        if gain < TOLERANCE * loss.abs() {
            break;
        }
    }
    found
}

/// ln(1 + eˣ), without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e⁻ˣ).
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Negative log-likelihood (nats) of an outcome with this probability under these log-odds.
pub(super) fn log_loss(logit: f64, target: f64) -> f64 {
    target * softplus(-logit) + (1.0 - target) * softplus(logit)
}

/// The factor of log-odds under which outcomes are likeliest, at least 0: one number, found by Newton's method. Log-odds,
/// what came of them, and how much that counts.
pub(super) fn slope(outcomes: &[(f64, f64, f64)]) -> f64 {
    // As a prior that factors near 1 are likelier, worth one observation.
    let mut slope = 1.0;
    for _ in 0..STEPS {
        let (mut gradient, mut curvature) = (slope - 1.0, 1.0);
        for (logit, target, weight) in outcomes {
            let p = sigmoid(slope * logit);
            gradient += weight * (p - target) * logit;
            curvature += weight * p * (1.0 - p) * logit * logit;
        }
        let step = gradient / curvature;
        slope = (slope - step).clamp(0.0, 100.0);
        if step.abs() < 1e-9 {
            break;
        }
    }
    slope
}

/// The part of the loss that is quadratic in the weights: ridge and centring. It is worked out once for all steps.
struct Quadratic {
    /// Symmetric, features and intercept.
    matrix: Vec<f64>,
    /// Penalty of people's biases, and how many there are.
    person: (f64, usize),
}

impl Quadratic {
    fn of(seen: &[(&Observation, f64)], penalty: &Penalty) -> Self {
        let n = penalty.columns.len() + 1;
        let mut matrix = vec![0.0; n * n];
        let mut row = vec![0.0; n];
        for (observation, weight) in seen.iter().filter(|(observation, _)| !observation.sum.is_empty()) {
            row[..n - 1].copy_from_slice(&observation.sum);
            add(&mut matrix, &row, 2.0 * CENTRING * weight);
        }
        for (i, ridge) in penalty.columns.iter().chain(std::iter::once(&INTERCEPT)).enumerate() {
            matrix[i * n + i] += ridge;
            for j in 0..i {
                matrix[j * n + i] = matrix[i * n + j];
            }
        }
        Self { matrix, person: (penalty.person, penalty.people) }
    }

    fn gradient(&self, weights: &[f64]) -> Vec<f64> {
        self.matrix.chunks(weights.len()).map(|row| dot(row, weights)).collect()
    }

    fn value(&self, at: &Fit) -> f64 {
        let people: f64 = at.people.iter().map(|bias| self.person.0 * bias * bias).sum();
        0.5 * (dot(&self.gradient(&at.weights), &at.weights) + people)
    }
}

fn objective(seen: &[(&Observation, f64)], constant: &Quadratic, at: &Fit) -> f64 {
    let loss = |(observation, weight): &(&Observation, f64)| {
        weight * log_loss(at.logit(observation) - observation.margin, observation.target)
    };
    seen.iter().map(loss).sum::<f64>() + constant.value(at)
}

/// Newton's step. People's biases meet only the features in the Hessian, never each other, so they are eliminated: what
/// is factored is as large as the features are many.
fn newton(seen: &[(&Observation, f64)], constant: &Quadratic, at: &Fit) -> Fit {
    let n = at.weights.len();
    let mut hessian = constant.matrix.clone();
    let mut gradient = constant.gradient(&at.weights);
    let mut people: Vec<Person> = vec![Person::new(n); constant.person.1];
    let mut row = vec![0.0; n];
    for (observation, weight) in seen {
        row[..n - 1].copy_from_slice(&observation.x);
        row[n - 1] = f64::from(u8::from(observation.thumb));
        let p = sigmoid(at.logit(observation) - observation.margin);
        let slope = weight * (p - observation.target);
        let curvature = weight * p * (1.0 - p);
        add(&mut hessian, &row, curvature);
        gradient.iter_mut().zip(&row).for_each(|(gradient, x)| *gradient += slope * x);
        if let Some(person) = observation.person.and_then(|person| people.get_mut(person)) {
            person.slope += slope;
            person.curvature += curvature;
            person.cross.iter_mut().zip(&row).for_each(|(cross, x)| *cross += curvature * x);
        }
    }
    for (person, bias) in people.iter_mut().zip(&at.people) {
        person.curvature += constant.person.0;
        person.slope += constant.person.0 * bias;
        let share = person.slope / person.curvature;
        add(&mut hessian, &person.cross, -person.curvature.recip());
        gradient.iter_mut().zip(&person.cross).for_each(|(gradient, cross)| *gradient -= share * cross);
    }
    let weights = solve(&mut hessian, gradient);
    let people = people.iter().map(|person| (person.slope - dot(&person.cross, &weights)) / person.curvature);
    Fit { people: people.collect(), weights }
}

/// A person's part of gradient and Hessian.
#[derive(Debug, Clone)]
struct Person {
    slope: f64,
    curvature: f64,
    cross: Vec<f64>,
}

impl Person {
    fn new(n: usize) -> Self {
        Self { slope: 0.0, curvature: 0.0, cross: vec![0.0; n] }
    }
}

/// Adds curvature · x xᵀ to the lower triangle.
fn add(hessian: &mut [f64], x: &[f64], curvature: f64) {
    let n = x.len();
    for (i, xi) in x.iter().enumerate() {
        let scaled = curvature * xi;
        if scaled != 0.0 {
            hessian[i * n..=i * n + i].iter_mut().zip(x).for_each(|(h, xj)| *h += scaled * xj);
        }
    }
}

/// Solves H s = g by Cholesky's factorisation of H, of which only the lower triangle is read and which is overwritten.
fn solve(hessian: &mut [f64], mut gradient: Vec<f64>) -> Vec<f64> {
    let n = gradient.len();
    for i in 0..n {
        for j in 0..=i {
            let (before, row) = hessian.split_at(i * n);
            let known =
                if j < i { dot(&before[j * n..j * n + j], &row[..j]) } else { dot(&row[..j], &row[..j]) };
            let rest = row[j] - known;
            // The penalty keeps the diagonal above zero; the floor is for rounding.
            hessian[i * n + j] =
                if j < i { rest / hessian[j * n + j] } else { rest.max(f64::MIN_POSITIVE).sqrt() };
        }
    }
    for i in 0..n {
        let known = dot(&hessian[i * n..i * n + i], &gradient[..i]);
        gradient[i] = (gradient[i] - known) / hessian[i * n + i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| hessian[k * n + i] * gradient[k]).sum();
        gradient[i] = (gradient[i] - known) / hessian[i * n + i];
    }
    gradient
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(x: &[f64], target: f64) -> Observation {
        Observation {
            x: x.to_vec(),
            sum: vec![],
            outcome: target,
            target,
            margin: 0.0,
            person: None,
            thumb: false,
        }
    }

    fn thumb(x: &[f64], good: bool, person: Option<usize>) -> Observation {
        let target = f64::from(u8::from(good));
        Observation { x: x.to_vec(), sum: vec![], outcome: target, target, margin: 0.0, person, thumb: true }
    }

    fn penalty(columns: &[f64], people: usize) -> Penalty {
        Penalty { columns: columns.to_vec(), person: 1.0, people }
    }

    /// One feature, three of four pairs won: without a penalty the weight is the log-odds ln 3.
    #[test]
    fn a_single_feature_gets_its_log_odds() {
        let rows = [1.0, 1.0, 1.0, 0.0].map(|target| pair(&[1.0], target));
        let found = fit((&rows, &[1.0; 4]), &penalty(&[1e-9], 0), None);
        assert!((found.weights[0] - 3f64.ln()).abs() < 1e-6, "{found:?}");
        let held = fit((&rows, &[1.0; 4]), &penalty(&[10.0], 0), None);
        assert!(held.weights[0] < 0.2 && held.weights[0] > 0.0, "{held:?}");
    }

    #[test]
    fn a_margin_asks_for_more_and_a_weight_of_zero_is_not_seen() {
        let mut rows = vec![pair(&[1.0], 0.75), pair(&[1.0], 0.0)];
        rows[0].margin = 0.5;
        let found = fit((&rows, &[1.0, 0.0]), &penalty(&[1e-9], 0), None);
        assert!((found.weights[0] - (3f64.ln() + 0.5)).abs() < 1e-6, "{found:?}");
    }

    /// A person who finds everything bad says nothing about answers: the bias takes it.
    #[test]
    fn biases_take_what_a_person_always_says() {
        let mut rows = Vec::new();
        for i in 0..40 {
            let x = [f64::from(i % 2)];
            rows.push(thumb(&x, i % 2 == 1, Some(0)));
            rows.push(thumb(&x, false, Some(1)));
        }
        let found = fit((&rows, &vec![1.0; 80]), &penalty(&[0.1], 2), None);
        assert!(found.weights[0] > 1.0 && found.people[1] < found.people[0] - 1.0, "{found:?}");
    }

    proptest! {
        /// At the minimum, moving any weight raises the loss.
        #[test]
        fn the_fit_is_a_minimum(
            values in proptest::collection::vec((-2.0f64..2.0, -2.0f64..2.0, any::<bool>(), 0.1f64..2.0), 3..30),
            ridge in 0.01f64..10.0,
        ) {
            let rows: Vec<Observation> = values
                .iter()
                .enumerate()
                .map(|(i, (a, b, good, _))| match i % 3 {
                    0 => Observation { sum: vec![*b, *a], ..pair(&[*a, *b], f64::from(u8::from(*good))) },
                    person => thumb(&[*a, *b], *good, Some(person - 1)),
                })
                .collect();
            let weights: Vec<f64> = values.iter().map(|value| value.3).collect();
            let penalty = penalty(&[ridge, 2.0 * ridge], 2);
            let found = fit((&rows, &weights), &penalty, None);
            let seen: Vec<(&Observation, f64)> = rows.iter().zip(weights.iter().copied()).collect();
            let constant = Quadratic::of(&seen, &penalty);
            let least = objective(&seen, &constant, &found);
            for i in 0..4 {
                for step in [1e-3, -1e-3] {
                    let mut other = found.clone();
                    if i < 2 { other.weights[i] += step } else { other.people[i - 2] += step }
                    prop_assert!(objective(&seen, &constant, &other) > least);
                }
            }
        }
    }

    #[test]
    fn slopes_are_those_of_the_outcomes() {
        let won = |i: usize| f64::from(u8::from(!i.is_multiple_of(4)));
        let outcomes: Vec<(f64, f64, f64)> = (0..4000).map(|i| (2.0, won(i), 1.0)).collect();
        // Three of four won: log-odds ln 3, at a logit of 2.
        assert!((slope(&outcomes) - 3f64.ln() / 2.0).abs() < 1e-3);
        // What counts nothing changes nothing.
        let beside: Vec<(f64, f64, f64)> = (0..4000).map(|i| (2.0, 1.0 - won(i), 0.0)).collect();
        assert!((slope(&[outcomes, beside].concat()) - 3f64.ln() / 2.0).abs() < 1e-3);
        assert_eq!(slope(&[(1.0, 0.0, 1.0); 100]), 0.0);
    }
}
