//! How are questions admitted, grounded, prompted and answered?

use serde::{Deserialize, Serialize};

use super::{ConfigError, check};

/// More engines than this are a mistake: each has the weights in memory.
const MOST_ENGINES: usize = 64;

/// How passages are found. The defaults were chosen on scifact train and the sample handbook's train split
/// (`benches/RESULTS.md`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalConfig {
    /// Most passages given to the model, and shown as sources. Default 2: the default model states more facts from two
    /// than from four.
    pub k: usize,
    /// Largest passage in tokens of about 4 characters when documents are split. Default 160.
    pub passage_tokens: usize,
    /// BM25 k1 (term saturation). Default 0.9.
    pub bm25_k1: f32,
    /// BM25 b (length normalisation). Default 0.4.
    pub bm25_b: f32,
    /// Weight of a match in the title or headings relative to the body. Default 1.0.
    pub title_boost: f32,
    /// Weight of the sentence model against BM25 in the fused score, 0 to 1. Default 0.65; without a sentence model
    /// it is 0, and 0 does without one: no `interaction_weight`, no `margin`.
    pub semantic_weight: f32,
    /// Weight of late interaction (each word of the question against each word of a passage, by the sentence model)
    /// against the fused score when the best 8 passages are put in their last order. It reads 256 tokens of a passage.
    /// Default 2; 0 leaves the order.
    pub interaction_weight: f32,
    /// How far behind the best passage's score, which is at most 1, another one may be to be given to the model, too.
    /// Default 0.2, by which 8 are given at most; 1 gives `k`. Without a sentence model `k` are given.
    pub margin: f32,
    /// Evidence (0 to 1) below which the answer is a plain "I don't know". 0 never refuses. Default 0.4.
    pub answerable_threshold: f32,
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self {
            k: 2,
            passage_tokens: 160,
            bm25_k1: 0.9,
            bm25_b: 0.4,
            title_boost: 1.0,
            semantic_weight: 0.65,
            interaction_weight: 2.0,
            margin: 0.2,
            answerable_threshold: 0.4,
        }
    }
}

impl RetrievalConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check((1..=50).contains(&self.k), "retrieval.k", || "must be 1 to 50".into())?;
        check((32..=2048).contains(&self.passage_tokens), "retrieval.passage_tokens", || {
            "must be 32 to 2048".into()
        })?;
        check((0.0..=1.0).contains(&self.semantic_weight), "retrieval.semantic_weight", || {
            "must be 0 to 1".into()
        })?;
        check((0.0..=100.0).contains(&self.interaction_weight), "retrieval.interaction_weight", || {
            "must be 0 to 100".into()
        })?;
        check((0.0..=1.0).contains(&self.margin), "retrieval.margin", || "must be 0 to 1".into())?;
        check((0.0..=1.0).contains(&self.answerable_threshold), "retrieval.answerable_threshold", || {
            "must be 0 to 1".into()
        })
    }
}

/// What the model is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// The company's name, for the instructions and the pages. Default "the company".
    pub company: String,
    /// Most tokens of the rendered prompt. The further passages are cut first, then history,
    /// then the examples, the best passage last, and never the question. Default 700.
    pub max_tokens: usize,
    /// Example turns before the conversation, 0 to 2: small models answer better with them, each is about 100 tokens.
    /// Default 2.
    pub examples: usize,
    /// Whom to ask when the knowledge base has no answer. Default "your manager or the People team".
    pub whom_to_ask: String,
    /// Replaces the built-in instructions. Default none.
    pub instructions: Option<String>,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            company: "the company".into(),
            max_tokens: 700,
            examples: crate::prompt::MOST_EXAMPLES,
            whom_to_ask: "your manager or the People team".into(),
            instructions: None,
        }
    }
}

impl PromptConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check(self.max_tokens >= 128, "prompt.max_tokens", || "must be at least 128".into())?;
        let most = crate::prompt::MOST_EXAMPLES;
        check(self.examples <= most, "prompt.examples", || format!("must be 0 to {most}"))
    }
}

/// How answers are generated, unless the request says otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerationConfig {
    /// Softmax temperature; 0 takes the likeliest token. Default 0.
    pub temperature: f32,
    /// Nucleus mass in (0, 1]. Default 0.95.
    pub top_p: f32,
    /// Divides the logits of tokens already in the answer; 1 is off. Default 1.05: small models loop.
    pub repetition_penalty: f32,
    /// Weight of what it costs to go on with sixteen or more tokens that the answer says a second time, 0 to 10; 0 is off. Default
    /// 0.8, as this ("don't repeat yourself", DRY) is used elsewhere: loops are left in their second round.
    pub dry_multiplier: f32,
    /// Nats by which the base model finds tokens of the passages likelier than it would, and the end as much, 0 to 10.
    /// Default 1: a small model invents less (`benches/RESULTS.md`). Generations that were fine-tuned on the company's own
    /// answers have learnt that, and other words; they are drawn as they are.
    pub copy_bias: f32,
    /// Most tokens of an answer. Default 160.
    pub max_tokens: u32,
    /// Largest `max_tokens` a request may ask for. Default 1024.
    pub max_tokens_limit: u32,
    /// Temperature of both sides of a comparison, so that they differ. Default 1: at 0.8 more pairs were alike
    /// (`benches/RESULTS.md`), and people can not choose between those.
    pub comparison_temperature: f32,
    /// Engines that serve a generation, each with the weights in memory; 0 is as many as suit: two for weights of at most
    /// 512 MiB on a CPU of several cores, else one. Default 0.
    pub engines: usize,
    /// Sequences an engine runs at once. Default 1: on a CPU four at once give a quarter fewer tokens a second than one
    /// after the other (`benches/RESULTS.md`); with an accelerator, 16 or more.
    pub max_running: usize,
    /// Prompts the engine keeps for reuse. Default 16.
    pub prefix_cache: usize,
    /// Share of an answer's words that must come from a passage for it to be attached as a citation that the model did
    /// not name, 0 to 1. Default 0.35.
    pub citation_overlap: f32,
    /// Answers drawn for each question, of which the one that the reward model likes best is shown, 1 to 16. Default 1:
    /// answers stream as they are made.
    pub best_of: usize,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 0.95,
            repetition_penalty: 1.05,
            dry_multiplier: 0.8,
            copy_bias: 1.0,
            max_tokens: 160,
            max_tokens_limit: 1024,
            comparison_temperature: 1.0,
            engines: 0,
            max_running: 1,
            prefix_cache: 16,
            citation_overlap: 0.35,
            best_of: 1,
        }
    }
}

impl GenerationConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check((0.0..=2.0).contains(&self.temperature), "generation.temperature", || "must be 0 to 2".into())?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "generation.top_p", || {
            "must be above 0 and at most 1".into()
        })?;
        check((1.0..=2.0).contains(&self.repetition_penalty), "generation.repetition_penalty", || {
            "must be 1 to 2".into()
        })?;
        check((0.0..=10.0).contains(&self.dry_multiplier), "generation.dry_multiplier", || {
            "must be 0 to 10".into()
        })?;
        check((0.0..=10.0).contains(&self.copy_bias), "generation.copy_bias", || "must be 0 to 10".into())?;
        check(
            self.max_tokens >= 1 && self.max_tokens <= self.max_tokens_limit,
            "generation.max_tokens",
            || "must be 1 to generation.max_tokens_limit".into(),
        )?;
        check((1..=16).contains(&self.best_of), "generation.best_of", || "must be 1 to 16".into())?;
        check(self.engines <= MOST_ENGINES, "generation.engines", || {
            format!("must be at most {MOST_ENGINES}")
        })?;
        check(self.max_running >= 1, "generation.max_running", || "must be at least 1".into())
    }
}

/// How many may ask at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// Answers in progress at once. Default 2: as many as there are engines for small models; with one engine passages
    /// are found for one while it answers the other.
    pub max_in_flight: usize,
    /// Questions that may wait; more are told 429. Default 64.
    pub max_waiting: usize,
    /// Questions a person may have in progress or waiting at once. Default 4.
    pub per_user_in_flight: usize,
    /// Questions a person may ask in a minute, in bursts up to as many. Default 30. 0 is no limit.
    pub per_user_per_minute: u32,
    /// Seconds a question may wait for a place. Default 60.
    pub queue_seconds: u64,
    /// Seconds an answer may take in all. Default 300.
    pub deadline_seconds: u64,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 2,
            max_waiting: 64,
            per_user_in_flight: 4,
            per_user_per_minute: 30,
            queue_seconds: 60,
            deadline_seconds: 300,
        }
    }
}

impl AdmissionConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check(self.max_in_flight >= 1, "admission.max_in_flight", || "must be at least 1".into())?;
        check(self.per_user_in_flight >= 1, "admission.per_user_in_flight", || "must be at least 1".into())
    }
}

/// When two answers are offered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComparisonsConfig {
    /// Share of questions for which the widget shows two answers to choose from, 0 to 1. Default 0.1.
    pub share: f32,
    /// Answers drawn once there is a reward model, of which the two are shown whose order it knows least, 2 to 16.
    /// Default 3. 2 shows what was drawn, as it is made.
    pub candidates: usize,
}

impl Default for ComparisonsConfig {
    fn default() -> Self {
        Self { share: 0.1, candidates: 3 }
    }
}

impl ComparisonsConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check((0.0..=1.0).contains(&self.share), "comparisons.share", || "must be 0 to 1".into())?;
        check((2..=16).contains(&self.candidates), "comparisons.candidates", || "must be 2 to 16".into())
    }
}

/// What people may say about answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedbackConfig {
    /// Longest comment in characters. Default 2,000.
    pub max_comment_chars: usize,
    /// Longest ideal answer in characters. Default 8,000.
    pub max_ideal_answer_chars: usize,
}

impl Default for FeedbackConfig {
    fn default() -> Self {
        Self { max_comment_chars: 2_000, max_ideal_answer_chars: 8_000 }
    }
}
