//! Gradients of every fused operation against finite differences.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor, Var};

use super::models::{random, tensor};
use crate::nn::attention::{Attention, Group, Heads, Span};
use crate::nn::logprob::LogProbabilities;
use crate::nn::ops::{Dropout, Linear, LoraLinear, RmsNorm, SwiGlu};
use crate::nn::{Pairing, Rope};

/// Compares each argument's gradient of Σ w·f(arguments), for random w, with central differences along random
/// directions.
fn check(arguments: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let vars: Vec<Var> = arguments.iter().map(|argument| Var::from_tensor(argument).unwrap()).collect();
    let weigh = |out: &Tensor| {
        let weights = tensor(77, out.dims(), 1.0);
        (out * weights).unwrap().sum_all().unwrap()
    };
    let now: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let gradients = weigh(&f(&now)).backward().unwrap();
    for (i, var) in vars.iter().enumerate() {
        let gradient = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for seed in 0..4 {
            let direction = random(seed * 31 + i as u64, gradient.len());
            let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            // Small enough for the third derivative, large enough for f32's rounding.
            const STEP: f64 = 1e-2;
            let moved = |sign: f64| {
                let step = Tensor::from_slice(&direction, var.shape(), &Device::Cpu).unwrap();
                let mut moved = now.clone();
                moved[i] = (&now[i] + (step * (STEP * sign)).unwrap()).unwrap();
                let out = f(&moved);
                let weights = random(77, out.elem_count());
                let out = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                out.iter().zip(&weights).map(|(o, w)| f64::from(*o) * f64::from(*w)).sum::<f64>()
            };
            let found = (moved(1.0) - moved(-1.0)) / (2.0 * STEP);
            let scale = gradient.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt().max(0.1);
            assert!(
                (found - expected).abs() < 5e-3 * scale,
                "argument {i}, direction {seed}: {found} by differences, {expected} by the operation"
            );
        }
    }
}

#[test]
fn of_the_norm() {
    let norm = RmsNorm { weight: tensor(1, &[19], 1.0), eps: 1e-5 };
    check(&[tensor(2, &[7, 19], 1.0)], |x| norm.apply(&x[0]).unwrap());
}

#[test]
fn of_the_gate() {
    check(&[tensor(1, &[5, 9], 2.0), tensor(2, &[5, 9], 1.0)], |x| x[0].apply_op2(&x[1], SwiGlu).unwrap());
}

#[test]
fn of_a_linear_map() {
    let map = Linear::new(tensor(1, &[6, 9], 1.0), Some(tensor(2, &[6], 1.0))).unwrap();
    check(&[tensor(3, &[5, 9], 1.0)], |x| x[0].apply_op1(map.clone()).unwrap());
}

#[test]
fn of_a_linear_map_with_an_adapter() {
    for dropout in [None, Some(Dropout { share: 0.3, seed: 4 })] {
        let base = Linear::new(tensor(1, &[6, 9], 1.0), None).unwrap();
        let op = LoraLinear { base, scale: 1.7, dropout };
        let arguments = [tensor(3, &[5, 9], 1.0), tensor(4, &[2, 9], 1.0), tensor(5, &[6, 2], 1.0)];
        check(&arguments, |x| x[0].apply_op3(&x[1], &x[2], op.clone()).unwrap());
    }
}

#[test]
fn of_attention() {
    let heads = Heads { query: 4, key: 2, width: 6 };
    // A text of its own; a prompt of 70 rows (more than a block) with completions of 1 and 3; and another prompt, which has
    // 66 of those rows in common with it, with completions of 1 and 2.
    let span = |rows: Range<usize>, prefix: &[Range<usize>]| Span { rows, prefix: prefix.to_vec() };
    let common = 5..71;
    let groups = vec![
        Group { spans: vec![span(0..5, &[])] },
        Group {
            spans: vec![
                span(5..71, &[]),
                span(71..75, std::slice::from_ref(&common)),
                span(75..76, &[5..71, 71..75]),
                span(76..79, &[5..71, 71..75]),
                span(79..81, std::slice::from_ref(&common)),
                span(81..82, &[5..71, 79..81]),
                span(82..84, &[5..71, 79..81]),
            ],
        },
    ];
    let positions: Vec<u32> =
        (0..5).chain(0..70).chain([70]).chain(70..73).chain(66..68).chain([68]).chain(68..70).collect();
    for pairing in [Pairing::Neighbours, Pairing::Halves] {
        let rope = Rope { theta: 100.0, width: 6, factors: vec![1.0, 2.0, 4.0], pairing };
        let attention =
            Attention { heads, groups: Arc::new(groups.clone()), rotation: Arc::new(rope.at(&positions)) };
        let arguments = [tensor(1, &[84, 24], 1.0), tensor(2, &[84, 12], 1.0), tensor(3, &[84, 12], 1.0)];
        check(&arguments, |x| x[0].apply_op3(&x[1], &x[2], attention.clone()).unwrap());
    }
}

#[test]
fn of_log_probabilities() {
    let head = Linear::new(tensor(1, &[30, 8], 1.0), None).unwrap();
    // More rows than a chunk.
    let tokens: Vec<u32> = (0..150).map(|i| i * 7 % 30).collect();
    check(&[tensor(2, &[150, 8], 1.0)], |x| {
        x[0].apply_op1(LogProbabilities {
            head: head.clone(),
            tokens: Arc::new(tokens.clone()),
            differentiable: true,
            found: Arc::new(Mutex::default()),
        })
        .unwrap()
    });
}

#[test]
fn entropy_is_that_of_the_distribution() {
    let head = Linear::new(tensor(1, &[4, 2], 0.0), None).unwrap();
    let found = Arc::new(Mutex::default());
    let op = LogProbabilities {
        head,
        tokens: Arc::new(vec![1, 3]),
        differentiable: false,
        found: Arc::clone(&found),
    };
    let out = tensor(2, &[2, 2], 1.0).apply_op1(op).unwrap().to_vec1::<f32>().unwrap();
    // Four equal logits: log 4 nats.
    let log4 = 4f32.ln();
    assert!(out.iter().all(|p| (p + log4).abs() < 1e-6));
    assert!(found.lock().unwrap().entropy.iter().all(|h| (h - log4).abs() < 1e-6));
}
