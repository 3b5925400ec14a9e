//! What is a text made of? Sentences, words, terms, numbers and names, as the features of a reward model compare them.

use std::collections::HashSet;

use unicode_segmentation::UnicodeSegmentation;

use crate::chat::COMMON;

/// Letters of a word that are compared: cutting words after five is the stemmer that needs no language
/// (`McNamee` and Mayfield, 2004, found four to five best across European languages).
const STEM: usize = 5;

/// All words, in lower case.
pub(super) fn words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// The words that carry meaning, cut to what is compared; numbers whole.
pub(super) fn terms(text: &str) -> Vec<String> {
    text.unicode_words().filter_map(term).collect()
}

/// The different [`terms`].
pub(super) fn term_set(text: &str) -> HashSet<String> {
    text.unicode_words().filter_map(term).collect()
}

fn term(word: &str) -> Option<String> {
    if word.contains(|c: char| c.is_numeric()) {
        return Some(number(word));
    }
    let word = word.to_lowercase();
    let word = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(&word);
    (!COMMON.contains(&word)).then(|| word.chars().take(STEM).collect())
}

/// Without the commas that group digits.
fn number(word: &str) -> String {
    word.chars().filter(|c| *c != ',').flat_map(char::to_lowercase).collect()
}

/// The sentences that have a word: lines are sentences too.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let lines = text.lines().flat_map(UnicodeSegmentation::unicode_sentences);
    lines.map(str::trim).filter(|sentence| sentence.unicode_words().next().is_some()).collect()
}

/// The different numbers, and words with digits.
pub(super) fn numbers(text: &str) -> HashSet<String> {
    text.unicode_words().filter(|word| word.contains(|c: char| c.is_numeric())).map(number).collect()
}

/// The different names, in lower case: capitalised words, except those that only begin a sentence.
pub(super) fn names(text: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    for sentence in sentences(text) {
        let words: Vec<&str> = sentence.unicode_words().collect();
        for (i, word) in words.iter().enumerate() {
            let next_is_name = words.get(i + 1).is_some_and(|next| capitalised(next));
            let lower = word.to_lowercase();
            if capitalised(word) && (i > 0 || next_is_name) && !COMMON.contains(&lower.as_str()) {
                found.insert(lower);
            }
        }
    }
    found
}

fn capitalised(word: &str) -> bool {
    word.chars().next().is_some_and(char::is_uppercase)
}

/// A text without marks such as `[2]` or `[1, 3]`, and the numbers they name.
pub(super) fn without_marks(text: &str) -> (String, Vec<usize>) {
    let (mut plain, mut named, mut rest) = (String::with_capacity(text.len()), Vec::new(), text);
    while let Some(open) = rest.find('[') {
        let (before, after) = rest.split_at(open);
        plain.push_str(before);
        let inside = after.find(']').map(|close| (&after[1..close], &after[close + 1..]));
        let numbers = inside.and_then(|(inside, _)| {
            inside.split(',').map(|part| part.trim().parse().ok()).collect::<Option<Vec<usize>>>()
        });
        match (inside, numbers) {
            (Some((_, behind)), Some(numbers)) => {
                named.extend(numbers);
                rest = behind;
            }
            _ => {
                plain.push('[');
                rest = &after[1..];
            }
        }
    }
    plain.push_str(rest);
    (plain, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> HashSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn terms_are_cut_words_that_carry_meaning() {
        assert_eq!(terms("The employee's vacations are 1,200 days."), ["emplo", "vacat", "1200", "days"]);
        assert_eq!(terms("The vacation of employees"), ["vacat", "emplo"]);
    }

    #[test]
    fn names_are_capitalised_words_that_do_not_only_begin_a_sentence() {
        let found = names("George Washington was born in Virginia. Nobody knew. It was IBM.");
        assert_eq!(found, set(&["george", "washington", "virginia", "ibm"]));
    }

    #[test]
    fn marks_are_taken_out_and_other_brackets_stay() {
        let (plain, named) = without_marks("Floor 3 [1][2, 4]. See [here] [");
        assert_eq!((plain.as_str(), named), ("Floor 3 . See [here] [", vec![1, 2, 4]));
    }

    #[test]
    fn lines_are_sentences() {
        assert_eq!(sentences("One two. Three!\n- Four\n--\n"), ["One two.", "Three!", "- Four"]);
    }
}
