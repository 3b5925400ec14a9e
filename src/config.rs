//! What can be configured, and is it valid? File, then environment, then flags; unknown keys are refused.

mod access;
mod answering;
mod learning;
mod models;
mod registry;
mod server;
mod training;

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
    value::Value,
};
use serde::{Deserialize, Serialize};

use crate::evaluation::gate::Thresholds;

pub use access::{AccessConfig, AccessMode, JwtConfig, ProxyConfig, WidgetConfig};
pub use answering::{
    AdmissionConfig, ComparisonsConfig, FeedbackConfig, GenerationConfig, PromptConfig, RetrievalConfig,
};
pub use learning::{AutomationConfig, AutomationStage, LiveConfig, PolicyConfig, RewardConfig};
pub use models::{ModelsConfig, WeightFormat};
pub use registry::RegistryConfig;
pub use server::{DatabaseConfig, DocsConfig, LogFormat, ServerConfig, TelemetryConfig};
pub use training::{SftConfig, TrainingConfig, WorkerMode};

/// Why the configuration can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("configuration file {0} does not exist")]
    Missing(PathBuf),
    /// A key is unknown or a value has the wrong type; the message names it.
    #[error("configuration: {0}")]
    Malformed(#[source] Box<figment::Error>),
    /// A value is out of range, or two values do not go together.
    #[error("configuration: {key}: {problem}")]
    Invalid {
        /// The key, with its section (`server.listen`).
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The whole configuration, validated. Every field has a default; `attune.example.toml` shows them all.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where all state lives: ledger, index, generations, runs. Default `data`.
    pub data_dir: PathBuf,
    /// Where and how to listen.
    pub server: ServerConfig,
    /// Which database holds the ledger.
    pub database: DatabaseConfig,
    /// Which folders are knowledge.
    pub docs: DocsConfig,
    /// Which models, and where they are kept.
    pub models: ModelsConfig,
    /// How passages are found.
    pub retrieval: RetrievalConfig,
    /// What the model is told.
    pub prompt: PromptConfig,
    /// How answers are generated.
    pub generation: GenerationConfig,
    /// Which generations are kept and may be served.
    pub registry: RegistryConfig,
    /// How many may ask at once.
    pub admission: AdmissionConfig,
    /// When two answers are offered.
    pub comparisons: ComparisonsConfig,
    /// What people may say about answers.
    pub feedback: FeedbackConfig,
    /// How training runs beside chat.
    pub training: TrainingConfig,
    /// How the base model is fine-tuned.
    pub sft: SftConfig,
    /// How the reward model is trained.
    pub reward: RewardConfig,
    /// How the policy is optimised against it.
    pub policy: PolicyConfig,
    /// What a candidate must reach to be served.
    pub gate: Thresholds,
    /// When the server trains by itself.
    pub automation: AutomationConfig,
    /// How what was promoted by itself is watched.
    pub live: LiveConfig,
    /// Who may do what.
    pub access: AccessConfig,
    /// Logs and metrics.
    pub telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            server: ServerConfig::default(),
            database: DatabaseConfig::default(),
            docs: DocsConfig::default(),
            models: ModelsConfig::default(),
            retrieval: RetrievalConfig::default(),
            prompt: PromptConfig::default(),
            generation: GenerationConfig::default(),
            registry: RegistryConfig::default(),
            admission: AdmissionConfig::default(),
            comparisons: ComparisonsConfig::default(),
            feedback: FeedbackConfig::default(),
            training: TrainingConfig::default(),
            sft: SftConfig::default(),
            reward: RewardConfig::default(),
            policy: PolicyConfig::default(),
            gate: Thresholds::default(),
            automation: AutomationConfig::default(),
            live: LiveConfig::default(),
            access: AccessConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// Read when no file is named and the working directory has it.
const DEFAULT_FILE: &str = "attune.toml";

/// Values given as flags; they win over file and environment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overrides {
    /// `--data-dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    #[serde(skip)]
    pub listen: Option<String>,
    /// `--docs`, repeatable.
    #[serde(skip)]
    pub docs: Vec<PathBuf>,
}

impl Config {
    /// Reads `file` (or `attune.toml` in the working directory when it exists), then `ATTUNE_SECTION__KEY` variables,
    /// then flags; then checks the whole.
    ///
    /// # Errors
    /// When the named file is missing, a key is unknown, a value has the wrong type or is out of range.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        match file {
            Some(path) if !path.is_file() => return Err(ConfigError::Missing(path.to_owned())),
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None if Path::new(DEFAULT_FILE).is_file() => {
                figment = figment.merge(Toml::file_exact(DEFAULT_FILE));
            }
            None => {}
        }
        let sections = sections();
        let wanted = move |key: &figment::value::UncasedStr| is_config_key(key.as_str(), &sections);
        let variables = Env::prefixed("ATTUNE_").filter(wanted).split("__");
        let written = variables.iter().map(|(key, text)| (key.to_string(), text));
        let numbers = with_exponents(&figment, written);
        figment = numbers.into_iter().fold(figment.merge(variables), Figment::merge);
        figment = figment.merge(Serialized::defaults(overrides));
        if let Some(listen) = &overrides.listen {
            figment = figment.merge(("server.listen", listen));
        }
        if !overrides.docs.is_empty() {
            figment = figment.merge(("docs.paths", &overrides.docs));
        }
        let config: Self = figment.extract().map_err(|error| ConfigError::Malformed(Box::new(error)))?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.server.validate()?;
        self.retrieval.validate()?;
        self.prompt.validate()?;
        self.generation.validate()?;
        self.admission.validate()?;
        self.comparisons.validate()?;
        self.training.validate()?;
        self.sft.validate()?;
        self.reward.validate()?;
        self.policy.validate()?;
        if let Some((name, problem)) = self.gate.problem() {
            return Err(ConfigError::Invalid { key: "gate", problem: format!("{name} {problem}") });
        }
        self.automation.validate()?;
        check(
            self.policy.control || self.automation.stage != AutomationStage::Improve,
            "policy.control",
            || {
                "must be true while automation.stage is \"improve\", or the gate would hold whatever a run makes; for one run \
             there is `attune run policy --control false`"
                .into()
            },
        )?;
        self.live.validate()?;
        self.access.validate(&self.server)
    }
}

/// Variables of tests and benches (`ATTUNE_EVAL_DATA`) share the prefix but are no configuration: keys of the
/// configuration are `data_dir` or have a section. One underscore after a section is a slip that must not be ignored.
fn is_config_key(key: &str, sections: &[String]) -> bool {
    let key = key.to_lowercase();
    let slip =
        |section: &String| key.strip_prefix(section.as_str()).is_some_and(|rest| rest.starts_with('_'));
    key == "data_dir" || key.contains("__") || key.contains('.') || sections.iter().any(slip)
}

/// Names of the configuration's sections.
fn sections() -> Vec<String> {
    let all = serde_json::to_value(Config::default()).unwrap_or_default();
    let sections = all.as_object().into_iter().flatten().filter(|(_, value)| value.is_object());
    sections.map(|(name, _)| name.clone()).collect()
}

/// Fails with the key's name unless `ok`.
fn check(ok: bool, key: &'static str, problem: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError::Invalid { key, problem: problem() }) }
}

/// Fails with the key and the range of a value that is out of it.
fn in_range(problem: Option<(&'static str, &'static str)>) -> Result<(), ConfigError> {
    problem.map_or(Ok(()), |(key, problem)| Err(ConfigError::Invalid { key, problem: problem.into() }))
}

/// The variables that write a number with an exponent (`1e-3`) where `figment` has a number: it would take them for texts.
fn with_exponents(
    figment: &Figment,
    variables: impl Iterator<Item = (String, String)>,
) -> Vec<(String, f64)> {
    let number = |(key, text): (String, String)| {
        let wanted = text.contains(['e', 'E']) && matches!(figment.find_value(&key), Ok(Value::Num(..)));
        let number = text.trim().parse().ok().filter(|_| wanted)?;
        Some((key, number))
    };
    variables.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("attune.toml");
        std::fs::write(&file, toml).unwrap();
        Config::load(Some(&file), &Overrides::default())
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = load("[server]\nlistn = '127.0.0.1:1'").unwrap_err().to_string();
        assert!(error.contains("listn"), "{error}");
    }

    #[test]
    fn a_slip_in_a_variables_name_is_no_variable_of_something_else() {
        let sections = sections();
        for key in ["DATA_DIR", "SERVER__LISTEN", "SERVER_LISTEN", "reward_budget_minutes", "serverx__listen"]
        {
            assert!(is_config_key(key, &sections), "{key}");
        }
        for key in ["EVAL_DATA", "WORKER_NAME", "TOOLS", "TEST_POSTGRES"] {
            assert!(!is_config_key(key, &sections), "{key}");
        }
    }

    #[test]
    fn variables_may_write_numbers_with_an_exponent() {
        let figment = Figment::from(Serialized::defaults(Config::default()));
        let variables = [
            ("policy.learning_rate", "4e-4"),
            ("policy.algorithm", "1e3"),
            ("policy.steps", "24"),
            ("policy.beta", "none"),
        ];
        let variables = variables.map(|(key, text)| (key.to_owned(), text.to_owned()));
        let numbers = with_exponents(&figment, variables.into_iter());
        assert_eq!(numbers, [("policy.learning_rate".to_owned(), 4e-4)]);
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("attune.toml");
        std::fs::write(&file, "[server]\nlisten = '127.0.0.1:1111'").unwrap();
        let flags = Overrides { listen: Some("127.0.0.1:2222".into()), ..Overrides::default() };
        assert_eq!(Config::load(Some(&file), &flags).unwrap().server.listen, "127.0.0.1:2222");
    }

    #[test]
    fn open_mode_stays_on_loopback() {
        let error = load("[server]\nlisten = '0.0.0.0:8080'").unwrap_err().to_string();
        assert!(error.contains("access.mode"), "{error}");
    }

    #[test]
    fn cycles_that_could_not_end_in_a_promotion_are_refused() {
        let error = load("[policy]\ncontrol = false").unwrap_err().to_string();
        assert!(error.contains("policy.control") && error.contains("automation.stage"), "{error}");
        load("[policy]\ncontrol = false\n[automation]\nstage = 'reward'").unwrap();
    }

    #[test]
    fn the_example_file_shows_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/attune.example.toml");
        let example = Config::load(Some(Path::new(path)), &Overrides::default()).unwrap();
        let (example, default) = (serde_json::to_value(example), serde_json::to_value(Config::default()));
        assert_eq!(example.unwrap(), default.unwrap());
    }
}
