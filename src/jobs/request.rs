//! What exactly is to be done, when a request leaves things out?

use super::JobsError;
use crate::config::{Config, PolicyConfig, SftConfig};
use crate::domain::{PolicyOptions, RunRequest, SftOptions};

/// The request with everything said: what it leaves out is as configured. A run keeps this, so that it does the same
/// on whichever machine and whenever it goes on.
///
/// # Errors
/// When a value is out of range; the error names the field.
pub fn complete(request: RunRequest, config: &Config) -> Result<RunRequest, JobsError> {
    let SftConfig {
        rank,
        alpha,
        dropout,
        learning_rate,
        warmup,
        epochs,
        batch,
        max_sequence_tokens,
        seed,
        warm_start,
    } = sft_settings(&request.sft, &config.sft)?;
    let sft = SftOptions {
        rank: Some(rank),
        alpha: Some(alpha),
        dropout: Some(dropout),
        learning_rate: Some(learning_rate),
        warmup: Some(warmup),
        epochs: Some(epochs),
        batch: Some(batch),
        max_sequence_tokens: Some(max_sequence_tokens),
        seed: Some(seed),
        warm_start: Some(warm_start),
        include_restricted: request.sft.include_restricted,
    };
    let settings = policy_settings(&request.policy, &config.policy)?;
    let policy = PolicyOptions {
        algorithm: Some(settings.algorithm),
        steps: Some(settings.steps),
        prompts_per_step: Some(settings.prompts_per_step),
        completions: Some(settings.completions),
        max_tokens: Some(settings.max_tokens),
        temperature: Some(settings.temperature),
        learning_rate: Some(settings.learning_rate),
        beta: Some(settings.beta),
        target_kl: Some(settings.target_kl),
        agreement: Some(settings.agreement),
        anchor: Some(settings.anchor),
        control: Some(settings.control),
        seed: Some(settings.seed),
    };
    Ok(RunRequest { sft, policy, ..request })
}

/// How to optimise the policy: the options, and where they say nothing the configuration.
///
/// # Errors
/// When a value is out of range; the error names the field.
pub fn policy_settings(options: &PolicyOptions, config: &PolicyConfig) -> Result<PolicyConfig, JobsError> {
    let settings = PolicyConfig {
        algorithm: options.algorithm.clone().unwrap_or_else(|| config.algorithm.clone()),
        steps: options.steps.unwrap_or(config.steps),
        prompts_per_step: options.prompts_per_step.unwrap_or(config.prompts_per_step),
        completions: options.completions.unwrap_or(config.completions),
        max_tokens: options.max_tokens.unwrap_or(config.max_tokens),
        temperature: options.temperature.unwrap_or(config.temperature),
        learning_rate: options.learning_rate.unwrap_or(config.learning_rate),
        beta: options.beta.unwrap_or(config.beta),
        target_kl: options.target_kl.unwrap_or(config.target_kl),
        agreement: options.agreement.unwrap_or(config.agreement),
        anchor: options.anchor.unwrap_or(config.anchor),
        control: options.control.unwrap_or(config.control),
        seed: options.seed.unwrap_or(config.seed),
    };
    in_range(settings.problem())?;
    Ok(settings)
}

/// How to fine-tune: the options, and where they say nothing the configuration.
///
/// # Errors
/// When a value is out of range; the error names the field.
pub fn sft_settings(options: &SftOptions, config: &SftConfig) -> Result<SftConfig, JobsError> {
    let settings = SftConfig {
        rank: options.rank.unwrap_or(config.rank),
        alpha: options.alpha.unwrap_or(config.alpha),
        dropout: options.dropout.unwrap_or(config.dropout),
        learning_rate: options.learning_rate.unwrap_or(config.learning_rate),
        warmup: options.warmup.unwrap_or(config.warmup),
        epochs: options.epochs.unwrap_or(config.epochs),
        batch: options.batch.unwrap_or(config.batch),
        max_sequence_tokens: options.max_sequence_tokens.unwrap_or(config.max_sequence_tokens),
        seed: options.seed.unwrap_or(config.seed),
        warm_start: options.warm_start.unwrap_or(config.warm_start),
    };
    in_range(settings.problem())?;
    Ok(settings)
}

fn in_range(problem: Option<(&'static str, &'static str)>) -> Result<(), JobsError> {
    problem.map_or(Ok(()), |(field, problem)| Err(JobsError::Invalid { field, problem }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Stage;

    #[test]
    fn what_a_request_leaves_out_is_as_configured() {
        let mut config = Config::default();
        config.sft.rank = 8;
        let mut request = RunRequest::new(Stage::Sft);
        request.sft.epochs = Some(3);
        config.policy.agreement = 2.0;
        config.policy.target_kl = 3.0;
        config.policy.temperature = 0.8;
        let whole = complete(request, &config).unwrap();
        assert_eq!((whole.sft.rank, whole.sft.epochs), (Some(8), Some(3)));
        assert_eq!((whole.policy.agreement, whole.policy.target_kl), (Some(2.0), Some(3.0)));
        assert_eq!(whole.policy.temperature, Some(0.8));
        // Asked again it stays, whatever the configuration has become.
        assert_eq!(complete(whole.clone(), &Config::default()).unwrap(), whole);
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name() {
        let options = |change: fn(&mut SftOptions)| {
            let mut options = SftOptions::default();
            change(&mut options);
            sft_settings(&options, &SftConfig::default()).unwrap_err().to_string()
        };
        assert!(options(|sft| sft.rank = Some(0)).contains("sft.rank"));
        assert!(options(|sft| sft.alpha = Some(f64::NAN)).contains("sft.alpha"));
        assert!(options(|sft| sft.learning_rate = Some(0.0)).contains("sft.learning_rate"));
        assert!(options(|sft| sft.dropout = Some(1.0)).contains("sft.dropout"));
        assert!(options(|sft| sft.max_sequence_tokens = Some(1)).contains("sft.max_sequence_tokens"));
    }
}
