//! A world with a planted reward: a tiny model, questions, a preference that anybody can compute. Shared by the tests of
//! `policy` and its bench.

use attune::nn::{AdapterShape, Decoder};
use attune::policy::{
    Algorithm, Direct, Drawing, Material, Optimised, Prompt, Rollout, Rules, Settings, Step, TokenJudged,
    TokenPair, ValueSettings, best_of, best_of_kl, draw, kl_to_reference, optimise,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::tiny::{VOCABULARY, model};

const END: u32 = 1;
const MOST: usize = 8;

/// Questions that are learnt from, and as many that are not.
fn prompts() -> (Vec<Prompt>, Vec<Prompt>) {
    let prompt = |word: u32| Prompt { tokens: vec![4, 5, 6, word, 7] };
    let words = 10..VOCABULARY as u32;
    let (even, odd): (Vec<u32>, Vec<u32>) = words.partition(|word| word % 2 == 0);
    (even.into_iter().map(prompt).collect(), odd.into_iter().map(prompt).collect())
}

/// The planted reward: share of the answer's tokens that are of the upper half of the vocabulary, 0 to 1.
pub(crate) fn planted(rollout: &Rollout) -> f64 {
    let high = rollout.tokens.iter().filter(|token| **token >= VOCABULARY as u32 / 2).count();
    high as f64 / rollout.tokens.len() as f64
}

pub(crate) const ALGORITHMS: [Algorithm; 6] =
    [Algorithm::Rloo, Algorithm::Grpo, Algorithm::Ppo, Algorithm::Dpo, Algorithm::Kto, Algorithm::BestOfN];

pub(crate) fn settings(algorithm: Algorithm) -> Settings {
    let clipped = matches!(algorithm, Algorithm::Grpo | Algorithm::Ppo);
    Settings {
        algorithm,
        updates: if clipped { 2 } else { 1 },
        adapter: AdapterShape { rank: 8, alpha: 16.0, dropout: 0.0 },
        learning_rate: 1.5e-3,
        // Best-of-n pays no price for KL and would go on; 12 steps take it about as far as the others.
        steps: if algorithm == Algorithm::BestOfN { 12 } else { 40 },
        max_tokens: MOST,
        rules: Rules { repetition: 0.0, missing_end: 0.0, overlong: 0.0 },
        value: ValueSettings { learning_rate: 0.02, ..ValueSettings::default() },
        direct: Direct { batch: 16, ..Direct::default() },
        seed: 5,
        ..Settings::default()
    }
}

/// What a policy answers to questions that were not learnt from.
pub(crate) struct Examined {
    pub(crate) reward: f64,
    /// Nats an answer.
    pub(crate) kl: f64,
}

pub(crate) struct World {
    pub(crate) decoder: Decoder,
    prompts: Vec<Prompt>,
    unseen: Vec<Prompt>,
    pub(crate) pairs: Vec<TokenPair>,
    judged: Vec<TokenJudged>,
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    /// People have compared two answers, and judged others, to each question.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let decoder = model(folder.path());
        let (prompts, unseen) = prompts();
        let mut world = Self { decoder, prompts, unseen, pairs: vec![], judged: vec![], folder };
        let drawn = world.answers(&world.decoder, &world.prompts, 8);
        for pair in drawn.chunks(2) {
            let prompt = world.prompts[pair[0].prompt].tokens.clone();
            let (better, worse) = if planted(&pair[0]) > planted(&pair[1]) {
                (&pair[0], &pair[1])
            } else {
                (&pair[1], &pair[0])
            };
            for (one, label) in [(better, true), (worse, false)] {
                let (prompt, completion) = (prompt.clone(), one.tokens.clone());
                world.judged.push(TokenJudged { prompt, completion, label });
            }
            let (chosen, rejected) = (better.tokens.clone(), worse.tokens.clone());
            world.pairs.push(TokenPair { prompt, chosen, rejected });
        }
        world
    }

    fn answers(&self, policy: &Decoder, prompts: &[Prompt], completions: usize) -> Vec<Rollout> {
        let places: Vec<usize> = (0..prompts.len()).collect();
        let drawing = Drawing { completions, ..Drawing::from(&settings(Algorithm::Rloo)) };
        draw((policy, &[END]), (prompts, &places), drawing, &mut ChaCha8Rng::seed_from_u64(9)).unwrap()
    }

    pub(crate) fn material(&self) -> Material<'_> {
        Material {
            reference: &self.decoder,
            ends: &[END],
            prompts: &self.prompts,
            anchors: &[],
            pairs: &self.pairs,
            judged: &self.judged,
        }
    }

    /// Optimises against the planted reward.
    pub(crate) fn optimise(&self, settings: &Settings, mut observe: impl FnMut(&Step)) -> Optimised {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let mut reward = |rollouts: &[Rollout]| Ok(rollouts.iter().map(planted).collect());
        let observe = |step: &Step| {
            observe(step);
            true
        };
        optimise(&self.material(), &mut reward, (settings, folder.path()), observe).unwrap()
    }

    /// Mean planted reward of what the reference answers to unseen questions.
    pub(crate) fn before(&self) -> f64 {
        mean(self.answers(&self.decoder, &self.unseen, 4).iter().map(planted))
    }

    pub(crate) fn examine(&self, optimised: &Optimised) -> Examined {
        let policy = self.decoder.merged(&optimised.adapter).unwrap();
        let answers = self.answers(&policy, &self.unseen, 4);
        let kl = kl_to_reference(&self.decoder, &optimised.adapter, (&self.unseen, &answers)).unwrap();
        Examined { reward: mean(answers.iter().map(planted)), kl }
    }

    /// How many answers of the reference are as far from it, the best of them taken, as this KL (nats), and the mean
    /// reward of that best.
    pub(crate) fn best_at(&self, kl: f64) -> (usize, f64) {
        let n = (1..=64).find(|n| best_of_kl(*n) >= kl).unwrap_or(64);
        (n, self.best(n))
    }

    /// Mean reward of the best of `n` answers of the reference.
    fn best(&self, n: usize) -> f64 {
        let answers = self.answers(&self.decoder, &self.unseen, n);
        let rewards: Vec<f64> = answers.iter().map(planted).collect();
        mean(best_of(&rewards, n).into_iter().map(|place| rewards[place]))
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
