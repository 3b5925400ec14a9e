//! Does the report say what the answers show, and nothing more?

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn sample(n: usize, answer: &str) -> Sample {
    Sample {
        id: format!("q{n}"),
        question: format!("How many days of leave has rule {n}?"),
        ideal: format!("Rule {n} gives you {} days of paid leave a year.", 10 + n),
        answer: answer.to_owned(),
        ended: true,
        answer_tokens: 10,
        nll: None,
        cited: None,
        cosine: None,
    }
}

fn good(n: usize) -> Sample {
    let ideal = sample(n, "").ideal;
    sample(n, ideal.trim_end_matches('.'))
}

fn compare(before: &[Sample], after: &[Sample]) -> Comparison {
    Comparison::of(before, after, &Comparing::default()).unwrap()
}

#[test]
fn better_answers_show_as_a_gain_that_is_more_than_chance() {
    let before: Vec<Sample> = (0..30).map(|n| sample(n, "I do not know, ask around.")).collect();
    let after: Vec<Sample> =
        (0..30).map(|n| if n % 5 == 0 { sample(n, "I cannot say.") } else { good(n) }).collect();
    let comparison = compare(&before, &after);
    assert_eq!(comparison.n, 30);
    for name in ["f1", "exact_match", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf"] {
        let change = comparison.metrics.get(name).unwrap();
        assert!(
            change.interval.is_positive() && change.interval.contains(change.difference),
            "{name}: {change:?}"
        );
        assert_eq!(change.difference, change.after - change.before);
    }
    assert_eq!(comparison.metrics.get("exact_match").unwrap().after, 0.8);
    assert_eq!(comparison.same_answer, SameAnswer { before: 1.0, after: 0.2 });
    // The answers that did not improve come first.
    let worst: Vec<&str> = comparison.worst.iter().take(6).map(|row| row.id.as_str()).collect();
    assert_eq!(worst, ["q0", "q5", "q10", "q15", "q20", "q25"]);
    assert_eq!(comparison.worst.len(), 10);
}

#[test]
fn the_same_answers_show_no_difference() {
    let samples: Vec<Sample> = (0..9).map(good).collect();
    let comparison = compare(&samples, &samples);
    for (name, change) in comparison.metrics.iter() {
        assert_eq!((change.difference, change.interval), (0.0, Interval(0.0, 0.0)), "{name}");
    }
}

#[test]
fn likelihood_is_weighed_by_tokens_and_needs_both_sides() {
    let with = |n, nll: Option<(f64, u64)>| Sample {
        nll: nll.map(|(nats, tokens)| HumanNll { nats, tokens }),
        cited: (n != 1).then_some(true),
        ..good(n)
    };
    let before = [with(0, Some((30.0, 10))), with(1, Some((2.0, 2))), with(2, Some((900.0, 1)))];
    let after = [with(0, Some((10.0, 10))), with(1, Some((14.0, 2))), with(2, None)];
    let comparison = compare(&before, &after);
    let nll = comparison.metrics.get("nll").unwrap();
    assert_eq!((nll.before, nll.after), (32.0 / 12.0, 24.0 / 12.0));
    // Of three questions two are left; every sample of them has its own ratio, the extremes being one alone.
    assert_eq!(nll.interval, Interval(-2.0, 6.0));
    assert_eq!(comparison.metrics.get("cited").unwrap().after, 1.0);
    assert!(comparison.metrics.get("cosine").is_none(), "nobody measured it");
    let wanted = "f1 exact_match rouge_1 rouge_2 rouge_l bleu chrf nll cited ended length_ratio tokens distinct_1 \
                  distinct_2 distinct_3 repetition";
    let names: Vec<&str> = comparison.metrics.iter().map(|(name, _)| name).collect();
    assert_eq!(names.join(" "), wanted);
}

#[test]
fn marks_do_not_count_as_words() {
    let cited: Vec<Sample> = (0..5).map(|n| sample(n, &format!("{} [1][2]", good(n).answer))).collect();
    let summary = Summary::of(&cited, &Comparing::default()).unwrap();
    assert_eq!(summary.metrics.get("exact_match").unwrap().value, 1.0);
    assert_eq!(summary.metrics.get("length_ratio").unwrap().value, 1.0);
}

#[test]
fn one_list_is_summarised_with_the_same_numbers() {
    let before: Vec<Sample> = (0..12).map(|n| sample(n, "It gives you some days.")).collect();
    let after: Vec<Sample> = (0..12).map(|n| if n == 3 { sample(n, "") } else { good(n) }).collect();
    let comparison = compare(&before, &after);
    let summary = Summary::of(&after, &Comparing { worst: 1, ..Comparing::default() }).unwrap();
    assert_eq!(summary.metrics.iter().count(), comparison.metrics.iter().count());
    for (name, measured) in summary.metrics.iter() {
        assert_eq!(measured.value, comparison.metrics.get(name).unwrap().after, "{name}");
        assert!(measured.interval.contains(measured.value), "{name}: {measured:?}");
    }
    assert_eq!(summary.worst.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["q3"]);
}

#[test]
fn lists_that_do_not_match_are_refused() {
    let (one, two) = ([good(0), good(1)], [good(0), good(2)]);
    let unpaired = |before: &str, after: &str| EvaluationError::Unpaired {
        position: 2,
        before: before.into(),
        after: after.into(),
    };
    let compared = |before, after| Comparison::of(before, after, &Comparing::default()).unwrap_err();
    assert_eq!(compared(&one, &two), unpaired("q1", "q2"));
    assert_eq!(compared(&one, &one[..1]), unpaired("q1", ""));
    assert_eq!(compared(&[], &[]), EvaluationError::Empty);
    assert_eq!(Summary::of(&[], &Comparing::default()), Err(EvaluationError::Empty));
}

#[test]
fn json_has_the_shape_that_runs_report_and_reads_back() {
    let before: Vec<Sample> = (0..4).map(|n| sample(n, "Some days.")).collect();
    let after: Vec<Sample> = (0..4).map(good).collect();
    let comparison = compare(&before, &after);
    let json: Value = serde_json::to_value(&comparison).unwrap();
    let f1 = &json["metrics"]["f1"];
    assert_eq!(f1["after"], 1.0);
    assert_eq!(f1["difference"].as_f64(), Some(1.0 - f1["before"].as_f64().unwrap()));
    assert_eq!(f1["interval"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["worst"][0]["question"], "How many days of leave has rule 0?");
    let read: Comparison = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(read, comparison);
    let summary = Summary::of(&after, &Comparing::default()).unwrap();
    let text = serde_json::to_string(&summary).unwrap();
    assert!(text.contains(r#""f1":{"value":1.0,"interval":[1.0,1.0]}"#), "{text}");
    let names =
        |summary: &Summary| summary.metrics.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&serde_json::from_str(&text).unwrap()), names(&summary));
}

#[test]
fn the_page_shows_numbers_and_answers_side_by_side() {
    let before: Vec<Sample> = (0..3).map(|n| sample(n, "Nothing.")).collect();
    let after: Vec<Sample> = (0..3).map(good).collect();
    let page = compare(&before, &after).markdown("gen-1 against base");
    assert!(page.starts_with("# gen\\-1 against base\n\n3 questions,"), "{page}");
    assert!(page.contains("| f1 | 0.000 | 1.000 | **+1.000** | +1.000 to +1.000 |"), "{page}");
    assert!(page.contains("| ended | 1.000 | 1.000 | +0.000 | +0.000 to +0.000 |"), "{page}");
    let row = "| How many days of leave has rule 0? | Rule 0 gives you 10 days of paid leave a year\\. | Nothing\\. | \
               0.000 | Rule 0 gives you 10 days of paid leave a year | 1.000 |";
    assert!(page.contains(row), "{page}");
}

/// What a reader of Markdown sees in `page`: rows of cells; events that are not text or structure are listed.
fn read(page: &str) -> (Vec<Vec<String>>, Vec<String>) {
    use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
    let (mut rows, mut strange) = (Vec::new(), Vec::new());
    let mut inside = false;
    for event in Parser::new_ext(page, Options::all() - Options::ENABLE_SMART_PUNCTUATION) {
        match event {
            Event::Start(Tag::TableRow) => rows.push(Vec::new()),
            Event::Start(Tag::TableCell) => {
                inside = true;
                if let Some(row) = rows.last_mut() {
                    row.push(String::new());
                }
            }
            Event::End(TagEnd::TableCell) => inside = false,
            Event::Text(text) if inside => {
                if let Some(cell) = rows.last_mut().and_then(|row: &mut Vec<String>| row.last_mut()) {
                    cell.push_str(&text);
                }
            }
            Event::Start(
                Tag::Heading { .. } | Tag::Paragraph | Tag::Table(_) | Tag::TableHead | Tag::Strong,
            )
            | Event::End(_)
            | Event::Text(_)
            | Event::SoftBreak => {}
            other => strange.push(format!("{other:?}")),
        }
    }
    (rows, strange)
}

proptest! {
    /// Whatever people and models wrote, it is read as text, in its own cell.
    #[test]
    fn texts_can_not_break_the_page(
        question in "\\PC{0,30}",
        ideal in prop_oneof![
            Just("| a | b |\n|---|---|\n# Title\n<script>x</script>".to_owned()),
            Just("[x](javascript:y) ![z](w) `c` **b** ~~s~~ $m$ www.example.com a@b.cd https://e.f".to_owned()),
            Just("\\| \\\\| &amp; &#124; <!-- --> [^1] - [ ] x ^a^ ~b~ {c} ||d||".to_owned()),
            "[-|\\\\`*_\\[\\]<>&#~!$^:.=+{}()\n\r\t a]{0,40}",
        ],
        answer in "(?s).{0,30}",
    ) {
        let samples = [Sample { question: question.clone(), ideal: ideal.clone(), ..sample(0, &answer) }];
        let page = Summary::of(&samples, &Comparing::default()).unwrap().markdown("t");
        let (rows, strange) = read(&page);
        prop_assert!(strange.is_empty(), "{strange:?}: {page}");
        let last = rows.last().unwrap();
        prop_assert_eq!(last.len(), 4, "{}", page);
        let plain = |text: &str| {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            words.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect::<String>()
        };
        prop_assert_eq!(&last[..3], &[plain(&question), plain(&ideal), plain(&answer)][..]);
    }
}

#[test]
fn long_texts_are_cut_and_say_so() {
    let long = "word ".repeat(500);
    let page = Summary::of(&[sample(0, &long)], &Comparing::default()).unwrap().markdown("t");
    assert!(page.contains("word … |"), "{page}");
    assert!(page.len() < 3_000, "{}", page.len());
}
