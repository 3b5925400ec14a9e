//! Policy optimisation: every algorithm raises a planted reward, the random control does not, and what best-of-n gives
//! at the same distance from the reference lies beside it.

use std::path::Path;

use attune::nn::NnError;
use attune::policy::{
    Algorithm, Control, Material, Optimised, PolicyError, Rollout, Settings, TokenPair, optimise,
};
use attune::sft::Example;

use crate::planted::{ALGORITHMS, World, planted, settings};

/// Every algorithm answers questions it has not seen with more of what was planted, and gives a good part of what the
/// best of n answers gives at the same distance from the reference.
fn raises_the_planted_reward(settings: &Settings) {
    let world = World::new();
    let before = world.before();
    let optimised = world.optimise(settings, |_| ());
    assert_eq!(optimised.stopped_early, None);
    assert_eq!(optimised.steps, settings.steps);
    let after = world.examine(&optimised);
    // Of other answers than those examined.
    let kl = optimised.measured.unwrap().kl;
    assert!(kl > after.kl / 3.0 && kl < after.kl * 3.0, "{kl} beside {}", after.kl);
    let (n, best) = world.best_at(after.kl);
    let kept = (after.reward - before) / (best - before);
    assert!(after.reward > before + 0.15, "from {before} to {}", after.reward);
    assert!(after.kl > 0.0 && kept > 0.4, "{} nats give {kept} of what the best of {n} gives", after.kl);
}

#[test]
fn rloo_raises_the_planted_reward() {
    raises_the_planted_reward(&settings(Algorithm::Rloo));
}

#[test]
fn grpo_raises_the_planted_reward() {
    raises_the_planted_reward(&settings(Algorithm::Grpo));
}

#[test]
fn ppo_raises_the_planted_reward() {
    raises_the_planted_reward(&settings(Algorithm::Ppo));
}

#[test]
fn dpo_raises_the_planted_reward() {
    raises_the_planted_reward(&settings(Algorithm::Dpo));
}

#[test]
fn kto_raises_the_planted_reward() {
    raises_the_planted_reward(&settings(Algorithm::Kto));
}

#[test]
fn distilling_the_best_of_n_raises_the_planted_reward() {
    raises_the_planted_reward(&settings(Algorithm::BestOfN));
}

#[test]
fn the_random_control_does_not() {
    let world = World::new();
    let before = world.before();
    for algorithm in [Algorithm::Rloo, Algorithm::Dpo, Algorithm::Kto] {
        let settings = Settings { control: Control::Random, ..settings(algorithm) };
        let after = world.examine(&world.optimise(&settings, |_| ())).reward;
        println!("{algorithm:?}: {before:.3} to {after:.3}");
        assert!((after - before).abs() < 0.1, "{algorithm:?}: from {before} to {after}");
    }
}

#[test]
fn a_reward_that_tells_nothing_ends_the_run() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(Algorithm::Rloo);
    let mut reward = |rollouts: &[Rollout]| Ok(vec![1.0; rollouts.len()]);
    let optimised = optimise(&world.material(), &mut reward, (&settings, folder.path()), |_| true).unwrap();
    assert_eq!(optimised.steps, 3);
    let reason = optimised.stopped_early.unwrap();
    assert!(reason.contains("told no answer from another"), "{reason}");
}

/// What is drawn at a temperature is learnt as the distribution at that temperature: the training pass has the sampler's
/// log-probabilities, and their entropy.
#[test]
fn answers_are_learnt_at_the_temperature_at_which_they_are_drawn() {
    let world = World::new();
    for algorithm in [Algorithm::Rloo, Algorithm::Grpo, Algorithm::Ppo] {
        let first = |temperature: f32| {
            let settings = Settings { steps: 1, temperature, ..settings(algorithm) };
            world.optimise(&settings, |_| ()).last
        };
        let (cool, warm) = (first(0.5), first(1.0));
        assert!(cool["entropy"] < 0.9 * warm["entropy"], "{algorithm:?}: {cool:?} {warm:?}");
        assert!(cool["sampling/sampling_logp_difference/mean"] < 1e-3, "{algorithm:?}: {cool:?}");
        assert!(cool["kl"].abs() < 1e-3, "{algorithm:?}: {cool:?}");
    }
}

#[test]
fn a_policy_that_leaves_the_reference_is_stopped() {
    let world = World::new();
    let mut settings = Settings { learning_rate: 0.03, ..settings(Algorithm::Rloo) };
    (settings.kl.beta, settings.kl.target, settings.kl.cap) = (0.0, 1.0, 2.0);
    let optimised = world.optimise(&settings, |_| ());
    assert!(optimised.steps < settings.steps);
    let reason = optimised.stopped_early.unwrap();
    assert!(reason.contains("above the cap of 2"), "{reason}");
    assert!(optimised.measured.unwrap().kl < 2.0, "what it ends with is a policy from before");
}

/// At a rate at which it breaks out, and not once that is halved often enough: what comes out is within the cap and has
/// learnt. However often it is interrupted, before and after it is taken back.
#[test]
fn a_policy_that_leaves_the_reference_is_taken_back_and_goes_on_at_half_the_rate() {
    let world = World::new();
    let mut settings = Settings { learning_rate: 0.003, ema: 0.5, ..settings(Algorithm::Rloo) };
    (settings.kl.beta, settings.kl.target, settings.kl.cap) = (0.05, 1.0, 2.0);
    let run = |folder: &Path, stop_at: u64| {
        let mut reward = |rollouts: &[Rollout]| Ok(rollouts.iter().map(planted).collect());
        optimise(&world.material(), &mut reward, (&settings, folder), |step| step.done < stop_at)
    };
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = run(folder.path(), u64::MAX).unwrap();
    let returns: Vec<&String> = whole.alarms.iter().filter(|alarm| alarm.contains("half the rate")).collect();
    println!("{returns:?}: KL {:?}, {:?}", whole.measured, whole.stopped_early);
    assert!((1..=3).contains(&returns.len()), "{:?}", whole.alarms);
    assert_eq!((whole.steps, &whole.stopped_early), (settings.steps, &None));
    assert!(whole.measured.unwrap().kl < 2.0, "{:?}", whole.measured);
    let (before, after) = (world.before(), world.examine(&whole));
    assert!(after.reward > before + 0.15, "from {before} to {}", after.reward);
    let places = |folder: &Path| {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
        files.filter(|name| name.to_string_lossy().starts_with("near-")).collect::<Vec<_>>()
    };
    // As a kill leaves them: a place that no checkpoint names yet, of another run even.
    std::fs::write(other.path().join("near-1.safetensors"), "another's").unwrap();
    for stop_at in 1..settings.steps {
        assert!(matches!(run(other.path(), stop_at), Err(PolicyError::Stopped { .. })));
        assert!(places(other.path()).len() <= 1, "{:?}", places(other.path()));
    }
    let kept = places(other.path());
    let (file, content) = (other.path().join(&kept[0]), std::fs::read(other.path().join(&kept[0])).unwrap());
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(run(other.path(), u64::MAX), Err(PolicyError::Nn(NnError::Checkpoint { .. }))));
    std::fs::write(&file, content).unwrap();
    let resumed = run(other.path(), u64::MAX).unwrap();
    assert_eq!(bytes(&resumed, other.path()), bytes(&whole, folder.path()));
    assert!(places(other.path()).is_empty());
    assert_eq!((&resumed.alarms, resumed.measured), (&whole.alarms, whole.measured));
}

fn bytes(optimised: &Optimised, folder: &Path) -> Vec<u8> {
    let path = folder.join("compared.safetensors");
    optimised.adapter.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// Anchors, several updates, a price that moves: whatever changes along the way is in the checkpoint.
#[test]
fn an_interrupted_run_ends_as_an_uninterrupted_one() {
    let world = World::new();
    let anchor = |pair: &TokenPair| Example { prompt: pair.prompt.clone(), completion: pair.chosen.clone() };
    let anchors: Vec<Example> = world.pairs.iter().map(anchor).collect();
    let material = Material { anchors: &anchors, ..world.material() };
    for algorithm in ALGORITHMS {
        let mut settings = Settings { steps: 5, updates: 2, learning_rate: 1e-2, ..settings(algorithm) };
        settings.kl.target = 0.05;
        let run = |settings: &Settings, folder: &Path, stop_at: u64| {
            let mut reward = |rollouts: &[Rollout]| Ok(rollouts.iter().map(planted).collect());
            optimise(&material, &mut reward, (settings, folder), |step| step.done < stop_at)
        };
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole = run(&settings, folder.path(), u64::MAX).unwrap();
        for stop_at in [1, 2, 4] {
            let stopped = run(&settings, other.path(), stop_at);
            assert!(matches!(stopped, Err(PolicyError::Stopped { step }) if step == stop_at));
        }
        let resumed = run(&settings, other.path(), u64::MAX).unwrap();
        assert_eq!(bytes(&resumed, other.path()), bytes(&whole, folder.path()), "{algorithm:?}");
        assert_eq!((resumed.steps, resumed.tokens, &resumed.alarms), (5, whole.tokens, &whole.alarms));
        for (name, mean) in whole.means.iter().filter(|(name, _)| *name != "step_time") {
            // Sums are kept as decimals, which may come back one unit in the last place off.
            assert!((resumed.means[name] - mean).abs() < 1e-9, "{algorithm:?} {name}");
        }
        // A finished run is not run again, another one does not go on from it.
        assert_eq!(run(&settings, other.path(), 0).unwrap().steps, 5);
        let changed = Settings { seed: 6, ..settings };
        assert!(matches!(
            run(&changed, other.path(), u64::MAX),
            Err(PolicyError::Nn(NnError::Checkpoint { .. }))
        ));
    }
}

#[test]
fn what_can_not_be_run_is_refused() {
    let world = World::new();
    let refused = |material: Material<'_>, settings: Settings| {
        let mut reward = |_: &[Rollout]| Err("no reward".to_owned());
        optimise(&material, &mut reward, (&settings, world.folder.path()), |_| true).unwrap_err()
    };
    let (material, rloo) = (world.material(), settings(Algorithm::Rloo));
    let error = refused(Material { prompts: &[], ..material }, rloo);
    assert_eq!(error.to_string(), "Rloo has no prompts to learn from");
    let error = refused(Material { pairs: &[], ..material }, settings(Algorithm::Dpo));
    assert_eq!(error.to_string(), "Dpo has no preference pairs to learn from");
    let error = refused(material, Settings { completions: 1, ..rloo });
    assert_eq!(error.to_string(), "completions must be 2 to 64");
    assert_eq!(refused(material, rloo).to_string(), "the reward failed: no reward");
}
