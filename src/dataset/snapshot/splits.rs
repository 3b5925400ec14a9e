//! Which rows are learnt from, and which ones is a model examined on?
//!
//! The side follows from a hash of the question's words, so that questions which differ in form only are on one side,
//! and no row that is added changes another row's side. Where few questions were asked yet the hash alone could leave
//! a side empty: among the first [`FEW`] questions, in the order they came in, one goes to a side that has less than
//! its share, and the later ones follow the hash. Questions that resemble an examined one without being the same are
//! not learnt from.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_segmentation::UnicodeSegmentation;

use crate::domain::{Author, Message};

/// Names the hash: with another one, or other words, rows would change sides.
const HASH: &str = "attune split 1";
/// Questions among which a side is filled up: at 50, a hash that gives 1 in 10 leaves a side empty in 1 of 200 cases.
const FEW: usize = 50;
/// Questions are alike when one has all words of the other and that one has at least this share of its own: of five
/// words, two may be more. A word that differs makes another question: "in Boston", "in Dublin".
const ALIKE: f64 = 0.6;
/// Fewer words with a meaning than this, and a question is read together with the one before.
const FRAGMENT_WORDS: usize = 2;

/// Words that say little about what is asked.
const EMPTY: &[&str] = &[
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "by", "can", "could", "did", "do",
    "does", "for", "from", "get", "had", "has", "have", "how", "i", "if", "in", "is", "it", "its", "many",
    "me", "much", "my", "of", "on", "or", "our", "please", "shall", "should", "so", "some", "tell", "that",
    "the", "their", "there", "they", "this", "to", "us", "was", "we", "were", "what", "when", "where",
    "which", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
];

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// To learn from.
    Train,
    /// To stop learning in time.
    Validation,
    /// To be examined on; never looked at while training.
    #[serde(alias = "held-out")]
    HeldOut,
}

impl Split {
    /// The side by the names that files use: `train`; `validation`, `valid`, `dev`; `held_out`, `held-out`, `test`.
    pub(in crate::dataset) fn named(name: &str) -> Option<Self> {
        match name {
            "train" => Some(Self::Train),
            "validation" | "valid" | "dev" => Some(Self::Validation),
            "held_out" | "held-out" | "test" => Some(Self::HeldOut),
            _ => None,
        }
    }
}

/// How much is not learnt from, each 0 to 0.5.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Of the questions, for validation.
    pub validation: f64,
    /// Of the questions, for examination.
    pub held_out: f64,
}

impl Default for Shares {
    /// A tenth each.
    fn default() -> Self {
        Self { validation: 0.1, held_out: 0.1 }
    }
}

/// What stays together on one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SplitBy {
    /// A question, whoever answered it. Demonstrations are often written by one curator, whose rows would otherwise
    /// all be on one side.
    #[default]
    Question,
    /// All rows of one person, of whom thereby nothing is learnt and examined; rows that no single person wrote go by
    /// their question. What is asked on both sides is not learnt from.
    Person,
}

/// What decides where a row goes.
#[derive(Debug, Clone)]
pub(in crate::dataset) struct Asked {
    words: BTreeSet<String>,
    user: Option<String>,
}

impl Asked {
    /// Of a conversation, and the one person who wrote the row.
    pub(in crate::dataset) fn new(conversation: &[Message], user: Option<&str>) -> Self {
        let mut words = BTreeSet::new();
        for message in conversation.iter().rev().filter(|message| message.role == Author::User) {
            words.extend(meaningful(&message.content));
            if words.len() >= FRAGMENT_WORDS {
                break;
            }
        }
        if words.is_empty() {
            // Nothing but small words, or a script without words: the text itself.
            words.extend(conversation.last().map(|question| question.content.trim().to_lowercase()));
        }
        Self { words, user: user.map(str::to_owned) }
    }

    /// What decides the side: rows of one key are never parted.
    pub(in crate::dataset) fn key(&self, by: SplitBy) -> String {
        match (by, &self.user) {
            (SplitBy::Person, Some(user)) => format!("person {user}"),
            _ => format!("words {}", self.words.iter().map(String::as_str).collect::<Vec<_>>().join(" ")),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let shared = self.words.intersection(&other.words).count();
        let (fewer, more) =
            (self.words.len().min(other.words.len()), self.words.len().max(other.words.len()));
        shared == fewer && fewer as f64 >= ALIKE * more as f64
    }
}

/// What rows of one question have in common, whoever asked it and in whatever form: the key by which judgements and
/// examined questions are told apart.
#[must_use]
pub fn cluster(conversation: &[Message]) -> String {
    Asked::new(conversation, None).key(SplitBy::Question)
}

/// Lower-case words without small ones and English plural endings.
fn meaningful(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase().replace('’', "'");
    let words: Vec<String> = lower.unicode_words().map(str::to_owned).collect();
    words.into_iter().filter_map(|word| {
        let word = word.strip_suffix("'s").unwrap_or(&word);
        let plural = word.len() > 3 && word.ends_with('s') && !word.ends_with("ss");
        (!EMPTY.contains(&word)).then(|| word[..word.len() - usize::from(plural)].to_owned())
    })
}

/// The side of each row, given in the order they came in.
pub(in crate::dataset) fn sides(asked: &[Asked], shares: Shares, by: SplitBy) -> Vec<Split> {
    let mut known: HashMap<String, Split> = HashMap::new();
    let mut counts = [0.0, 0.0];
    let mut place = |asked: &Asked| {
        let key = asked.key(by);
        if let Some(side) = known.get(&key) {
            return *side;
        }
        let seen = known.len() + 1;
        // One question ahead, since both sides may lack one.
        let lacks = |count: f64, share: f64| seen <= FEW && count < (share * (seen + 1) as f64).floor();
        let lacking: Vec<Split> = [
            lacks(counts[0], shares.held_out).then_some(Split::HeldOut),
            lacks(counts[1], shares.validation).then_some(Split::Validation),
        ]
        .into_iter()
        .flatten()
        .collect();
        // Also one that the hash gives to a side which has enough: or the other would wait for the next.
        let side = match hashed(&key, shares) {
            side if lacking.contains(&side) => side,
            side => lacking.first().copied().unwrap_or(side),
        };
        counts[0] += f64::from(u8::from(side == Split::HeldOut));
        counts[1] += f64::from(u8::from(side == Split::Validation));
        known.insert(key, side);
        side
    };
    asked.iter().map(&mut place).collect()
}

/// The side by the hash alone.
fn hashed(key: &str, shares: Shares) -> Split {
    let digest = Sha256::digest(format!("{HASH}\0{key}"));
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    let at = u64::from_be_bytes(number) as f64 / u64::MAX as f64;
    if at < shares.held_out {
        Split::HeldOut
    } else if at < shares.held_out + shares.validation {
        Split::Validation
    } else {
        Split::Train
    }
}

/// Places of the rows that resemble one which the model is examined on: of train rows one of any other side, of
/// validation rows a held-out one. Only rows with `keep` count.
pub(super) fn like_examined(asked: &[Asked], sides: &[Split], keep: &[bool]) -> HashSet<usize> {
    // Only rows that share a word can be alike.
    let mut by_word: HashMap<&str, Vec<usize>> = HashMap::new();
    let kept = |at: &usize| keep[*at];
    for at in (0..asked.len()).filter(kept).filter(|at| sides[*at] != Split::Train) {
        for word in &asked[at].words {
            by_word.entry(word).or_default().push(at);
        }
    }
    let examined = |at: usize| {
        let others = asked[at].words.iter().filter_map(|word| by_word.get(word.as_str())).flatten();
        let mut stricter = others.filter(|other| sides[**other] > sides[at]);
        stricter.any(|other| asked[at].is_like(&asked[*other]))
    };
    (0..asked.len()).filter(kept).filter(|at| examined(*at)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(question: &str) -> Asked {
        Asked::new(&[Message::user(question)], None)
    }

    fn sides_of(questions: &[String]) -> Vec<Split> {
        let asked: Vec<Asked> = questions.iter().map(|question| asked(question)).collect();
        sides(&asked, Shares::default(), SplitBy::Question)
    }

    #[test]
    fn form_does_not_change_the_side_and_meaning_does() {
        let key = |text: &str| asked(text).key(SplitBy::Question);
        let one = key("How many vacation days do I get in Boston?");
        assert_eq!(one, key("in boston: vacation DAY, please"));
        assert_eq!(one, "words boston day vacation");
        assert_ne!(one, key("How many vacation days do I get in Dublin?"));
        assert_eq!(key("Who?"), "words who?");
        assert_eq!(key("東京"), key("東京 "));
    }

    #[test]
    fn a_fragment_is_read_with_the_question_before() {
        let after = |earlier: &str| {
            let messages =
                [Message::user(earlier), Message::assistant("Yes."), Message::user("And in Dublin?")];
            Asked::new(&messages, None).key(SplitBy::Question)
        };
        assert_eq!(after("vacation days"), "words day dublin vacation");
        assert_ne!(after("vacation days"), after("office hours"));
    }

    /// A change of the hash, or of which words count, would move rows from one side to another.
    #[test]
    fn sides_are_where_they_were() {
        let side = |n: usize| {
            hashed(&asked(&format!("What is rule {n}?")).key(SplitBy::Question), Shares::default())
        };
        let held_out: Vec<usize> = (0..40).filter(|n| side(*n) == Split::HeldOut).collect();
        let validation: Vec<usize> = (0..40).filter(|n| side(*n) == Split::Validation).collect();
        assert_eq!((held_out, validation), (vec![3, 9, 12, 13, 32], vec![4, 6, 16, 19, 26]));
    }

    #[test]
    fn many_questions_are_shared_out_as_asked() {
        let sides = sides_of(&(0..4_000).map(|n| format!("What is rule {n}?")).collect::<Vec<_>>());
        for side in [Split::HeldOut, Split::Validation] {
            let share = sides.iter().filter(|found| **found == side).count() as f64 / 4_000.0;
            // 4 standard errors of a share of 0.1.
            assert!((share - 0.1).abs() < 0.019, "{side:?}: {share}");
        }
    }

    #[test]
    fn a_persons_rows_stay_together_when_asked_for() {
        let row = |n: usize, user: Option<&str>| Asked::new(&[Message::user(format!("rule {n}"))], user);
        let rows: Vec<Asked> =
            (0..600).map(|n| row(n % 301, Some(["ada", "bob", "cy", "dee", "eve", "fay"][n % 6]))).collect();
        let by_person = sides(&rows, Shares { validation: 0.2, held_out: 0.3 }, SplitBy::Person);
        assert!((0..600).all(|n| by_person[n] == by_person[n % 6]));
        assert!(by_person.contains(&Split::Train) && by_person.contains(&Split::HeldOut));
        // What several people asked is examined, or learnt, not both.
        let alike = like_examined(&rows, &by_person, &[true; 600]);
        let learnt = |n: &usize| by_person[*n] == Split::Train && !alike.contains(n);
        let words: HashSet<usize> = (0..600).filter(learnt).map(|n| n % 301).collect();
        assert!((0..600).filter(|n| by_person[*n] != Split::Train).all(|n| !words.contains(&(n % 301))));
        let unknown = [row(1, None), row(1, Some("ada"))];
        assert_eq!(unknown[0].key(SplitBy::Person), unknown[1].key(SplitBy::Question));
    }

    #[test]
    fn what_resembles_an_examined_question_is_not_learnt() {
        let rows = [
            ("Where is HR in Boston?", Split::HeldOut),
            ("where's the HR office in Boston", Split::Train),
            ("Where is HR in Dublin?", Split::Train),
            ("HR Boston", Split::Validation),
            ("Where is the HR office in Dublin?", Split::Train),
        ];
        let (asked, on) = (rows.map(|(question, _)| asked(question)), rows.map(|(_, side)| side));
        assert_eq!(like_examined(&asked, &on, &[true; 5]), HashSet::from([1, 3]));
        // What is not kept examines nothing; then the validation row, a stage earlier, does.
        assert_eq!(like_examined(&asked, &on, &[false, true, true, true, true]), HashSet::from([1]));
    }

    proptest! {
        /// However many rows are added, in whatever order beyond the first few, none changes sides; few or many, no
        /// side is empty.
        #[test]
        fn no_row_changes_sides(
            numbers in proptest::collection::vec(0u32..400, 20..160),
            cut in 0usize..160,
            order in any::<u64>(),
        ) {
            let mut questions: Vec<String> = numbers.iter().map(|n| format!("What is rule {n}?")).collect();
            let all = sides_of(&questions);
            let cut = cut.min(questions.len());
            prop_assert_eq!(&sides_of(&questions[..cut])[..], &all[..cut]);

            let different: HashSet<u32> = numbers.iter().copied().collect();
            if different.len() >= 20 {
                for side in [Split::Train, Split::Validation, Split::HeldOut] {
                    prop_assert!(all.iter().filter(|found| **found == side).count() >= 2, "{:?}", side);
                }
            }
            // The same question is on one side wherever it stands after the first few.
            let first_few = {
                let mut seen = HashSet::new();
                numbers.iter().position(|n| seen.insert(*n) && seen.len() > FEW).unwrap_or(numbers.len())
            };
            let by_question: HashMap<String, Split> = questions.iter().cloned().zip(all).collect();
            let rest = questions.len() - first_few;
            if rest > 1 {
                questions[first_few..].rotate_left(order as usize % rest);
                for (question, side) in questions.iter().zip(sides_of(&questions)) {
                    prop_assert_eq!(by_question[question], side);
                }
            }
        }
    }
}
