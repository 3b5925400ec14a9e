//! How is a policy optimised? Which algorithm, how many answers, at which rate, and at what price for leaving the
//! reference.

use serde::{Deserialize, Serialize};

use crate::nn::AdapterShape;

/// How answers become gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// REINFORCE with a leave-one-out baseline (arXiv:2402.14740, section 3.3).
    Rloo,
    /// Group-relative advantages, a clipped ratio and a KL term in the loss (arXiv:2402.03300), summed over tokens and
    /// divided by a constant, without division by the deviation (Dr. GRPO, arXiv:2503.20783, section 3.2).
    Grpo,
    /// A clipped ratio with advantages from a value head (arXiv:1707.06347).
    Ppo,
    /// Direct preference optimisation on pairs (arXiv:2305.18290).
    Dpo,
    /// Kahneman-Tversky optimisation on answers judged one by one (arXiv:2402.01306).
    Kto,
    /// Supervised learning of the best of k answers (arXiv:2204.05862, section 4.5, distilled).
    BestOfN,
}

impl Algorithm {
    /// Whether it learns from answers that the policy gives while it learns.
    #[must_use]
    pub fn draws_rollouts(self) -> bool {
        !matches!(self, Self::Dpo | Self::Kto)
    }
}

/// What the answers are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// The reward.
    Reward,
    /// Seeded random numbers instead, everything else alike: what a run does without its signal.
    Random,
}

/// What leaving the reference costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KlPrice {
    /// Reward that one nat of an answer's KL costs, at first and at least; 0 to 10.
    pub beta: f64,
    /// Nats an answer above which the price rises; above 0.
    pub target: f64,
    /// Nats an answer above which the policy is taken back to where it was last within the target, and goes on at half the
    /// rate; at least `target`.
    pub cap: f64,
}

impl Default for KlPrice {
    /// TRL's price for RLOO, LLaMA-Factory's target for PPO, and a cap that leaves the price time to work.
    fn default() -> Self {
        Self { beta: 0.05, target: 6.0, cap: 10.0 }
    }
}

/// What tokens alone say about an answer, taken from its reward. Each is at most as much as one deviation of a
/// normalised reward by default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Times the share of three-token sequences that occurred before in the answer; 0 to 100.
    pub repetition: f64,
    /// For an answer that was cut off; 0 to 100.
    pub missing_end: f64,
    /// Rises to this over the last fifth of `max_tokens` (DAPO, arXiv:2503.14476, section 3.4); 0 to 100.
    pub overlong: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { repetition: 1.0, missing_end: 1.0, overlong: 1.0 }
    }
}

/// How PPO's value head learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValueSettings {
    /// Decay of advantages along an answer, 0 to 1 (generalised advantage estimation, arXiv:1506.02438).
    pub lambda: f64,
    /// By how much a value may move in one update before its gradient ends; above 0.
    pub clip: f64,
    /// Learning rate of the head; above 0, at most 1.
    pub learning_rate: f32,
}

impl Default for ValueSettings {
    /// TRL's lambda and clip. The head starts from zero and has tens of steps: its rate is a hundred times an adapter's.
    fn default() -> Self {
        Self { lambda: 0.95, clip: 0.2, learning_rate: 1e-3 }
    }
}

/// How preferences are learnt without drawing answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Direct {
    /// How strongly the reference holds; above 0, at most 10.
    pub beta: f64,
    /// Share of pairs whose sides are taken to be swapped, 0 to 0.5 (cDPO; DPO only).
    pub label_smoothing: f64,
    /// Weight of liked answers, 0 to 10 (KTO only).
    pub desirable_weight: f64,
    /// Weight of disliked answers, 0 to 10 (KTO only).
    pub undesirable_weight: f64,
    /// Pairs or judged answers a step, 1 to 1,024; KTO needs at least 2 to estimate the KL.
    pub batch: usize,
}

impl Default for Direct {
    /// Three times TRL's beta, towards the 0.5 that `SmolLM2` was aligned with: small models need a short leash. People
    /// disagree in a quarter to two fifths of pairs, so that a tenth taken as swapped is little.
    fn default() -> Self {
        Self { beta: 0.3, label_smoothing: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0, batch: 16 }
    }
}

/// How to optimise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How answers become gradients.
    pub algorithm: Algorithm,
    /// What they are judged by.
    pub control: Control,
    /// Size of the adapter; no dropout, since a policy that drops values is not the one that drew.
    pub adapter: AdapterShape,
    /// Highest learning rate, above 0, at most 1; it rises over the warm-up and falls along a cosine to 0.
    pub learning_rate: f32,
    /// Share of the steps in which the rate rises, 0 to 0.5.
    pub warmup: f32,
    /// Steps, 1 to 100,000.
    pub steps: u64,
    /// Prompts a step, 1 to 1,024.
    pub prompts_per_step: usize,
    /// Answers to each prompt (k or n), 2 to 64.
    pub completions: usize,
    /// Most tokens of an answer, 1 to 32,768.
    pub max_tokens: usize,
    /// Softmax temperature at which answers are drawn and learnt, above 0, at most 2: log-probabilities, KL, entropy and
    /// gradients are of the distribution that is drawn from (as TRL divides logits), or pushing an answer down would push
    /// up what is never drawn. Pairs and judged answers (DPO, KTO) are learnt at 1.
    pub temperature: f32,
    /// Nucleus mass of drawing, above 0, at most 1. Log-probabilities are those before it.
    pub top_p: f32,
    /// Updates from one set of answers, 1 to 16 (GRPO, PPO; the others take one).
    pub updates: usize,
    /// By which share the probability ratio may leave 1 before its gradient ends, above 0, below 1 (GRPO, PPO).
    pub ratio_clip: f64,
    /// What leaving the reference costs.
    pub kl: KlPrice,
    /// Rewards are clipped to plus or minus this before rules; above 0.
    pub reward_clip: f64,
    /// What tokens alone say.
    pub rules: Rules,
    /// How the value head learns (PPO).
    pub value: ValueSettings,
    /// How preferences are learnt directly (DPO, KTO).
    pub direct: Direct,
    /// Weight of the demonstrations' mean negative log-likelihood (nats a token) in the loss; 0 to 10.
    pub nll_anchor: f64,
    /// Demonstrations a step, 1 to 1,024.
    pub anchors_per_step: usize,
    /// Joint norm to which gradients are clipped; above 0.
    pub gradient_clip: f32,
    /// Decay of the adapter's exponential average, 0 to below 1. It begins at 1/10 and rises with the steps, so that a
    /// short run's average is of its later half.
    pub ema: f64,
    /// Tokens in memory together; a step is split into passes of at most this many, or one prompt's answers. By default two
    /// prompts of chat with eight answers each, which then have their instructions in common.
    pub pass_tokens: usize,
    /// Answers drawn at once, 1 to 1,024.
    pub width: usize,
    /// Keep only layers' inputs between forward and backward: less memory, a third more work. Not part of what is
    /// learnt, so a run may go on with another.
    #[serde(skip)]
    pub recompute: bool,
    /// Of everything that is drawn.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Rloo,
            control: Control::Reward,
            adapter: AdapterShape { rank: 16, alpha: 32.0, dropout: 0.0 },
            learning_rate: 5e-5,
            warmup: 0.1,
            steps: 30,
            prompts_per_step: 8,
            completions: 4,
            max_tokens: 128,
            temperature: 1.0,
            top_p: 1.0,
            updates: 1,
            ratio_clip: 0.2,
            kl: KlPrice::default(),
            reward_clip: 5.0,
            rules: Rules::default(),
            value: ValueSettings::default(),
            direct: Direct::default(),
            nll_anchor: 0.05,
            anchors_per_step: 2,
            gradient_clip: 1.0,
            ema: 0.992,
            pass_tokens: 1280,
            width: 32,
            recompute: false,
            seed: 0,
        }
    }
}

impl Settings {
    /// The first setting that is out of range, and the range.
    #[must_use]
    pub fn validate(&self) -> Option<(&'static str, &'static str)> {
        let checks = self.size_checks().into_iter().chain(self.rate_checks()).chain(self.direct_checks());
        checks.into_iter().find(|(ok, ..)| !ok).map(|(_, field, problem)| (field, problem))
    }

    fn size_checks(&self) -> [(bool, &'static str, &'static str); 10] {
        [
            ((1..=256).contains(&self.adapter.rank), "adapter.rank", "must be 1 to 256"),
            (
                self.adapter.alpha > 0.0 && self.adapter.alpha <= 1024.0,
                "adapter.alpha",
                "must be above 0 and at most 1024",
            ),
            (self.adapter.dropout == 0.0, "adapter.dropout", "must be 0"),
            ((1..=100_000).contains(&self.steps), "steps", "must be 1 to 100000"),
            ((1..=1024).contains(&self.prompts_per_step), "prompts_per_step", "must be 1 to 1024"),
            ((2..=64).contains(&self.completions), "completions", "must be 2 to 64"),
            ((1..=32_768).contains(&self.max_tokens), "max_tokens", "must be 1 to 32768"),
            ((1..=16).contains(&self.updates), "updates", "must be 1 to 16"),
            ((1..=1024).contains(&self.anchors_per_step), "anchors_per_step", "must be 1 to 1024"),
            ((1..=1024).contains(&self.width), "width", "must be 1 to 1024"),
        ]
    }

    fn rate_checks(&self) -> [(bool, &'static str, &'static str); 15] {
        let Rules { repetition, missing_end, overlong } = self.rules;
        let rules = [repetition, missing_end, overlong];
        [
            (above(self.learning_rate.into(), 1.0), "learning_rate", "must be above 0 and at most 1"),
            ((0.0..=0.5).contains(&self.warmup), "warmup", "must be 0 to 0.5"),
            (above(self.temperature.into(), 2.0), "temperature", "must be above 0 and at most 2"),
            (above(self.top_p.into(), 1.0), "top_p", "must be above 0 and at most 1"),
            (self.ratio_clip > 0.0 && self.ratio_clip < 1.0, "ratio_clip", "must be above 0 and below 1"),
            ((0.0..=10.0).contains(&self.kl.beta), "kl.beta", "must be 0 to 10"),
            (above(self.kl.target, f64::MAX), "kl.target", "must be above 0"),
            (self.kl.cap >= self.kl.target, "kl.cap", "must be at least kl.target"),
            (above(self.reward_clip, f64::MAX), "reward_clip", "must be above 0"),
            (rules.iter().all(|rule| (0.0..=100.0).contains(rule)), "rules", "must be 0 to 100"),
            ((0.0..=10.0).contains(&self.nll_anchor), "nll_anchor", "must be 0 to 10"),
            (above(self.gradient_clip.into(), f64::MAX), "gradient_clip", "must be above 0"),
            ((0.0..1.0).contains(&self.ema), "ema", "must be 0 to below 1"),
            ((0.0..=1.0).contains(&self.value.lambda), "value.lambda", "must be 0 to 1"),
            (above(self.value.clip, f64::MAX), "value.clip", "must be above 0"),
        ]
    }

    fn direct_checks(&self) -> [(bool, &'static str, &'static str); 6] {
        let Direct { beta, label_smoothing, desirable_weight, undesirable_weight, batch } = self.direct;
        let least = if self.algorithm == Algorithm::Kto { 2 } else { 1 };
        [
            (
                above(self.value.learning_rate.into(), 1.0),
                "value.learning_rate",
                "must be above 0 and at most 1",
            ),
            (above(beta, 10.0), "direct.beta", "must be above 0 and at most 10"),
            ((0.0..=0.5).contains(&label_smoothing), "direct.label_smoothing", "must be 0 to 0.5"),
            ((0.0..=10.0).contains(&desirable_weight), "direct.desirable_weight", "must be 0 to 10"),
            ((0.0..=10.0).contains(&undesirable_weight), "direct.undesirable_weight", "must be 0 to 10"),
            ((least..=1024).contains(&batch), "direct.batch", "must be 1 to 1024, for kto 2 to 1024"),
        ]
    }
}

/// Above 0 and at most `most`.
fn above(value: f64, most: f64) -> bool {
    value > 0.0 && value <= most
}
