//! The reward model: planted preferences are learnt from votes and thumbs, through noise and a hostile voter.

use attune::domain::Message;
use attune::reward::{
    Extractor, Item, Outcome, Pair, Preferences, RewardModel, Settings, Thumb, Trained, accuracy_of, train,
};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What people like, and nothing else tells the answers apart.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Liking {
    Brief,
    Cited,
    Polite,
}

const LIKINGS: [Liking; 3] = [Liking::Brief, Liking::Cited, Liking::Polite];
const SENTENCES: [&str; 8] = [
    "The desk is on the second floor.",
    "It opens at nine.",
    "Bring your badge with you.",
    "The form is in the portal.",
    "Your manager signs it.",
    "Ask the people team.",
    "It takes about two days.",
    "There is a queue on Mondays.",
];

/// A liked and a disliked answer.
fn answers(liking: Liking, random: &mut ChaCha8Rng) -> (String, String) {
    let mut body =
        |sentences| SENTENCES.choose_multiple(random, sentences).copied().collect::<Vec<_>>().join(" ");
    match liking {
        Liking::Brief => (body(2), body(5)),
        Liking::Cited => (format!("{} [1]", body(3)), body(3)),
        Liking::Polite => (format!("{} Thank you for asking!", body(3)), body(3)),
    }
}

fn conversation(n: usize) -> (Vec<Message>, Vec<String>) {
    let passage =
        format!("Room {n} is on the second floor. The desk opens at nine. Bring your badge with you.");
    (vec![Message::user(format!("Where do I get a key for room {n}?"))], vec![passage])
}

fn vote(n: usize, user: &str, (chosen, rejected): (String, String)) -> Pair {
    let (conversation, passages) = conversation(n);
    Pair {
        id: format!("vote {n}"),
        cluster: format!("question {n}"),
        held_out: false,
        conversation,
        passages,
        chosen,
        rejected,
        preference: 1.0,
        margin: 1.0,
        user: Some(user.to_owned()),
        source: "vote".to_owned(),
        created: 0,
    }
}

/// Votes of ten people of whom each slips in `noise` of the cases, and held-out votes without a slip.
fn votes(liking: Liking, count: usize, noise: f64) -> (Preferences, Vec<Pair>) {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let pairs = (0..count).map(|n| {
        let (liked, disliked) = answers(liking, &mut random);
        let slip = random.random_bool(noise);
        vote(n, &format!("person {}", n % 10), if slip { (disliked, liked) } else { (liked, disliked) })
    });
    let preferences = Preferences { pairs: pairs.collect(), thumbs: vec![] };
    let truth = (0..100).map(|n| vote(10_000 + n, "judge", answers(liking, &mut random))).collect();
    (preferences, truth)
}

fn learn(preferences: &Preferences) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    let place = (&Settings::default(), folder.path());
    match train(preferences, &Extractor::default(), place, |_| true).unwrap() {
        Outcome::Trained(trained) => *trained,
        Outcome::Collecting { effective_pairs, needed } => {
            unreachable!("{effective_pairs} of {needed} pairs")
        }
    }
}

fn accuracy(model: &RewardModel, truth: &[Pair]) -> f64 {
    accuracy_of(model, &Extractor::default(), &truth.iter().collect::<Vec<_>>()).unwrap().share()
}

#[test]
fn planted_preferences_are_learnt_through_thirty_percent_of_slips() {
    for liking in LIKINGS {
        let (preferences, truth) = votes(liking, 300, 0.3);
        let Trained { model, report } = learn(&preferences);
        let found = accuracy(&model, &truth);
        assert!(found >= 0.9, "{liking:?}: {found}");
        // Slips can not be predicted: nothing does better than the share of votes that are none.
        assert!(
            report.cross_validated.accuracy.share() < 0.8,
            "{liking:?}: {:?}",
            report.cross_validated.accuracy
        );
        assert!(report.cross_validated.log_loss < std::f64::consts::LN_2);
    }
}

#[test]
fn one_hostile_voter_with_half_the_votes_does_not_turn_the_model() {
    for liking in LIKINGS {
        let (mut preferences, truth) = votes(liking, 300, 0.3);
        let mut random = ChaCha8Rng::seed_from_u64(6);
        for n in 0..300 {
            let (liked, disliked) = answers(liking, &mut random);
            preferences.pairs.push(vote(1_000 + n, "hostile", (disliked, liked)));
        }
        let Trained { model, report } = learn(&preferences);
        let found = accuracy(&model, &truth);
        assert!(found >= 0.8, "{liking:?}: {found}");
        let outliers: Vec<&str> = report.votes.outliers.iter().map(|outlier| outlier.user.as_str()).collect();
        assert_eq!(outliers, ["hostile"], "{liking:?}");
    }
}

#[test]
fn thumbs_alone_teach_and_a_person_who_likes_nothing_does_not_mislead() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let mut thumbs = Vec::new();
    for n in 0..300 {
        let (liked, disliked) = answers(Liking::Cited, &mut random);
        let sour = n % 3 == 0;
        let good = random.random_bool(0.5);
        let (conversation, passages) = conversation(n);
        thumbs.push(Thumb {
            id: format!("thumb {n}"),
            cluster: format!("question {n}"),
            held_out: false,
            conversation,
            passages,
            answer: if good { liked } else { disliked },
            good: good && !sour,
            user: Some(if sour { "sour".to_owned() } else { format!("person {}", n % 10) }),
            source: "thumb".to_owned(),
            created: 0,
        });
    }
    let Trained { model, .. } = learn(&Preferences { pairs: vec![], thumbs });
    let (_, truth) = votes(Liking::Cited, 0, 0.0);
    let found = accuracy(&model, &truth);
    assert!(found >= 0.95, "{found}");
}

#[test]
fn a_saved_head_scores_as_before_alone_and_in_a_batch() {
    let (preferences, truth) = votes(Liking::Polite, 120, 0.1);
    let Trained { model, .. } = learn(&preferences);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    model.save(&path).unwrap();
    let loaded = RewardModel::load(&path).unwrap();
    let items: Vec<Item<'_>> = truth.iter().flat_map(|pair| pair.items()).collect();
    let extractor = Extractor::default();
    let batch = model.score(&extractor, &items).unwrap();
    assert_eq!(loaded.score(&extractor, &items).unwrap(), batch);
    for (item, score) in items.iter().zip(batch) {
        assert_eq!(loaded.score(&extractor, &[*item]).unwrap(), [score]);
    }
}

#[test]
fn what_can_not_be_scored_is_named() {
    let (preferences, _) = votes(Liking::Polite, 120, 0.1);
    let Trained { model, .. } = learn(&preferences);
    let question = [Message::user("Where?")];
    let problem = |item: Item<'_>| model.score(&Extractor::default(), &[item]).unwrap_err().to_string();
    let item = Item { conversation: &question, passages: &[], answer: " \n" };
    assert_eq!(problem(item), "item 0: the answer is empty");
    assert_eq!(
        problem(Item { conversation: &[], answer: "Here.", ..item }),
        "item 0: the conversation is empty"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    std::fs::write(&path, b"not a head").unwrap();
    assert!(RewardModel::load(&path).unwrap_err().to_string().contains("it is damaged"));
}
