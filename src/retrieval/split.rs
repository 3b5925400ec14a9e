//! Where does one passage end and the next begin?

use unicode_segmentation::UnicodeSegmentation;

use super::parse::Section;

/// Changes whenever the same document would be split or analysed differently, so that stored ones are split again.
pub(super) const VERSION: u32 = 1;

/// Bytes of UTF-8 that one token of a passage budget stands for: about 4 characters of English, 2 of Cyrillic, and
/// somewhat more than 1 of Chinese, as tokenizers cut them.
const BYTES_PER_TOKEN: usize = 4;

/// A passage before it has an id.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    /// The headings above, without the document's title.
    pub path: Vec<String>,
    /// The text.
    pub text: String,
}

/// Splits sections into passages of at most `tokens`. A passage never spans two sections, except that short
/// neighbours under one parent heading share a passage in which each keeps its heading.
pub(super) fn split(sections: &[Section], tokens: usize) -> Vec<Piece> {
    let budget = tokens.saturating_mul(BYTES_PER_TOKEN);
    let pieces = sections.iter().flat_map(|section| {
        pack(&section.blocks, budget).into_iter().map(|text| Piece { path: section.path.clone(), text })
    });
    merge_short(pieces, budget)
}

/// Fills passages evenly: a section that needs two gets two of about the same length.
fn pack(blocks: &[String], budget: usize) -> Vec<String> {
    let units: Vec<&str> = blocks.iter().flat_map(|block| units(block, budget)).collect();
    let total: usize = units.iter().map(|unit| unit.len() + 1).sum();
    let target = total.div_ceil(total.div_ceil(budget.max(1)).max(1));
    let mut packed: Vec<String> = Vec::new();
    for unit in units {
        match packed.last_mut() {
            Some(last) if last.len() < target && last.len() + 1 + unit.len() <= budget => {
                last.push('\n');
                last.push_str(unit);
            }
            _ => packed.push(unit.to_owned()),
        }
    }
    packed
}

/// A block as parts that fit: the whole, or its lines, or their sentences, or at last cuts between words.
fn units(block: &str, budget: usize) -> Vec<&str> {
    if block.len() <= budget {
        return vec![block];
    }
    let mut units = Vec::new();
    let lines = block.lines().map(str::trim_end).filter(|line| !line.trim().is_empty());
    for line in lines {
        if line.len() <= budget {
            units.push(line);
        } else {
            sentences(line, budget, &mut units);
        }
    }
    units
}

/// Joins sentences up to the budget; they stay slices of the line.
fn sentences<'a>(line: &'a str, budget: usize, units: &mut Vec<&'a str>) {
    let mut start = 0;
    let mut end = 0;
    for (at, sentence) in line.split_sentence_bound_indices() {
        if end > start && at + sentence.trim_end().len() - start > budget {
            units.push(line[start..end].trim());
            start = at;
        }
        end = at + sentence.len();
        if end - start > budget {
            start = words(line, start..end, budget, units);
        }
    }
    if !line[start..end].trim().is_empty() {
        units.push(line[start..end].trim());
    }
}

/// Cuts a sentence that is too long between words, or inside one when there is no other place; returns where the rest
/// begins.
fn words<'a>(line: &'a str, range: std::ops::Range<usize>, budget: usize, units: &mut Vec<&'a str>) -> usize {
    let mut start = range.start;
    while range.end - start > budget {
        let mut cut = start + budget;
        while !line.is_char_boundary(cut) {
            cut -= 1;
        }
        if let Some(space) = line[start..cut].rfind(char::is_whitespace).filter(|space| *space > 0) {
            cut = start + space;
        }
        units.push(line[start..cut].trim());
        start = cut;
    }
    start
}

/// Two sections of a few words each would compete with each other and waste a place among the results.
fn merge_short(pieces: impl Iterator<Item = Piece>, budget: usize) -> Vec<Piece> {
    let short = budget / 4;
    let mut merged: Vec<Piece> = Vec::new();
    // Whether the last piece already is several sections.
    let mut joined = false;
    for piece in pieces {
        let mergeable = merged.last().is_some_and(|last| {
            let parent = if joined { last.path.as_slice() } else { parent(&last.path) };
            piece.path != last.path
                && !piece.path.is_empty()
                && (joined || !last.path.is_empty())
                && parent == self::parent(&piece.path)
                && piece.text.len() <= short
                && (joined || last.text.len() <= short)
                && last.text.len() + piece.text.len() + piece.path.last().map_or(0, String::len) + 3 <= budget
        });
        match merged.last_mut() {
            Some(last) if mergeable => {
                if !joined {
                    last.text = titled(last);
                    last.path.pop();
                    joined = true;
                }
                last.text.push('\n');
                last.text.push_str(&titled(&piece));
            }
            _ => {
                merged.push(piece);
                joined = false;
            }
        }
    }
    merged
}

fn parent(path: &[String]) -> &[String] {
    path.split_last().map_or(&[], |(_, parent)| parent)
}

fn titled(piece: &Piece) -> String {
    let heading = piece.path.last().map_or("", String::as_str);
    format!("{heading}: {}", piece.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn section(path: &[&str], blocks: &[&str]) -> Section {
        Section {
            path: path.iter().map(|p| (*p).to_owned()).collect(),
            blocks: blocks.iter().map(|b| (*b).to_owned()).collect(),
        }
    }

    #[test]
    fn a_section_within_the_budget_is_one_passage() {
        let pieces = split(&[section(&["A"], &["one", "two"])], 160);
        assert_eq!(pieces, [Piece { path: vec!["A".into()], text: "one\ntwo".into() }]);
    }

    #[test]
    fn long_paragraphs_split_at_sentences() {
        let text =
            "This is the first sentence here. This is the second sentence here. And now the third one comes.";
        let pieces = split(&[section(&["A"], &[text])], 10);
        assert_eq!(
            pieces.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(),
            [
                "This is the first sentence here.",
                "This is the second sentence here.",
                "And now the third one comes."
            ]
        );
    }

    #[test]
    fn short_siblings_share_a_passage_and_keep_their_headings() {
        let pieces = split(
            &[
                section(&["P", "Phone"], &["555"]),
                section(&["P", "Mail"], &["a@b"]),
                section(&["Q"], &["other"]),
            ],
            160,
        );
        assert_eq!(
            pieces,
            [
                Piece { path: vec!["P".into()], text: "Phone: 555\nMail: a@b".into() },
                Piece { path: vec!["Q".into()], text: "other".into() }
            ]
        );
    }

    proptest! {
        #[test]
        fn every_word_is_kept_in_order_and_every_passage_fits(
            blocks in prop::collection::vec("[a-zé界.! \n]{0,400}", 0..6),
            tokens in 8_usize..64,
        ) {
            let sections = [Section { path: vec!["H".into()], blocks: blocks.clone() }];
            let pieces = split(&sections, tokens);
            let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let before = squeeze(&blocks.concat());
            let after = squeeze(&pieces.iter().map(|p| p.text.as_str()).collect::<String>());
            prop_assert_eq!(before, after);
            prop_assert!(pieces.iter().all(|p| p.text.len() <= tokens * BYTES_PER_TOKEN));
        }
    }
}
