//! Do the measures agree with the original packages? Values of sacrebleu 2.6.0, rouge-score 0.1.2 (`use_stemmer=False`),
//! and the evaluation of `SQuAD` 2.0.

use proptest::prelude::*;

use super::*;

struct Case {
    answer: &'static str,
    ideal: &'static str,
    f1: f64,
    /// ROUGE-1, ROUGE-2, ROUGE-L.
    rouge: [f64; 3],
    /// `sentence_bleu`, and `sentence_score` of chrF.
    sentence: [f64; 2],
}

const CASES: &[Case] = &[
    Case {
        answer: "The HR department is on the third floor of the Boston office.",
        ideal: "HR sits on the 3rd floor in Boston.",
        f1: 0.500_000_000,
        rouge: [0.500_000_000, 0.111_111_111, 0.500_000_000],
        sentence: [8.130_850_858, 41.742_014_013],
    },
    Case {
        answer: "You get 25 days of paid leave, plus public holidays.",
        ideal: "Employees receive 25 days of paid leave a year, plus all public holidays.",
        f1: 0.727_272_727,
        rouge: [0.695_652_174, 0.476_190_476, 0.695_652_174],
        sentence: [36.288_521_665, 54.077_194_060],
    },
    Case {
        answer: "Ask your manager.",
        ideal: "Ask your manager.",
        f1: 1.0,
        rouge: [1.0, 1.0, 1.0],
        sentence: [100.0, 100.0],
    },
    Case {
        answer: "I don't know; it isn't in the handbook -- sorry (really).",
        ideal: "The handbook doesn't say.",
        f1: 0.166_666_667,
        rouge: [0.352_941_176, 0.133_333_333, 0.235_294_118],
        sentence: [3.125_190_764, 41.675_826_870],
    },
    Case {
        answer: "The limit is $1,250.50 per trip, i.e. 10-15% of 12.5k.",
        ideal: "The limit is $1,250.50 a trip (10-15% of 12.5k).",
        f1: 0.875_000_000,
        rouge: [0.857_142_857, 0.692_307_692, 0.857_142_857],
        sentence: [45.805_193_698, 74.449_628_536],
    },
    Case {
        answer: "no no no no no no",
        ideal: "no",
        f1: 0.285_714_286,
        rouge: [0.285_714_286, 0.0, 0.285_714_286],
        sentence: [8.116_697_887, 42.500_000_000],
    },
    Case {
        answer: "",
        ideal: "Something was expected.",
        f1: 0.0,
        rouge: [0.0, 0.0, 0.0],
        sentence: [0.0, 0.0],
    },
    Case {
        answer: "Visitors sign in at reception and receive a badge that must be worn at all times while on the premises.",
        ideal: "All visitors must sign in at reception and wear their badge at all times on the premises.",
        f1: 0.764_705_882,
        rouge: [0.756_756_757, 0.457_142_857, 0.702_702_703],
        sentence: [35.448_014_400, 64.950_310_221],
    },
    Case {
        answer: "Das Büro in München öffnet um 8 Uhr.",
        ideal: "Das Münchner Büro öffnet um 8:00 Uhr.",
        f1: 0.666_666_667,
        rouge: [0.800_000_000, 0.333_333_333, 0.700_000_000],
        sentence: [21.721_856_266, 47.110_725_007],
    },
    Case {
        answer: "東京オフィスは三階にあります。",
        ideal: "東京のオフィスは三階です。",
        f1: 0.0,
        rouge: [0.0, 0.0, 0.0],
        sentence: [0.0, 47.447_095_939],
    },
    Case {
        answer: "A &amp; B: see \"Travel &lt;policy&gt;\"\nsecond line-\ncontinued",
        ideal: "A & B, see \"Travel <policy>\" second line-continued",
        f1: 0.571_428_571,
        rouge: [0.842_105_263, 0.470_588_235, 0.842_105_263],
        sentence: [67.034_208_964, 70.529_150_393],
    },
    Case { answer: "Yes", ideal: "No", f1: 0.0, rouge: [0.0, 0.0, 0.0], sentence: [0.0, 0.0] },
    Case {
        answer: "..,a..b 5.-6 .5",
        ideal: "..a, .b 5.-6 0.5",
        f1: 0.333_333_333,
        rouge: [0.909_090_909, 0.666_666_667, 0.909_090_909],
        sentence: [38.827_267_775, 41.954_480_704],
    },
];

#[track_caller]
fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-8, "{what}: {found} is not {expected}");
}

#[test]
fn answers_score_as_the_original_packages_say() {
    for Case { answer, ideal, f1, rouge: [one, two, longest], sentence: [bleu, chrf] } in CASES {
        near(token_f1(answer, ideal), *f1, answer);
        near(rouge_n(answer, ideal, 1), *one, answer);
        near(rouge_n(answer, ideal, 2), *two, answer);
        near(rouge_l(answer, ideal), *longest, answer);
        near(Bleu::of(answer, ideal).sentence(), *bleu, answer);
        near(Chrf::of(answer, ideal).sentence(), *chrf, answer);
        assert_eq!(exact_match(answer, ideal), *f1 == 1.0, "{answer}");
    }
}

#[test]
fn corpora_score_as_the_original_package_says() {
    let bleu = |cases: &[Case]| Bleu::corpus(cases.iter().map(|case| Bleu::of(case.answer, case.ideal)));
    near(bleu(CASES).unwrap(), 34.162_640_580, "BLEU");
    let chrf = Chrf::corpus(CASES.iter().map(|case| Chrf::of(case.answer, case.ideal)));
    near(chrf.unwrap(), 56.759_317_560, "chrF");
    // Three words have no run of four: a corpus of them has no BLEU, a sentence has.
    let short = Bleu::of("Yes it is", "Yes it was");
    near(Bleu::corpus([short]).unwrap(), 0.0, "short");
    near(short.sentence(), 55.032_120_815, "short");
    let mixed = [Bleu::of("Ask your manager.", "Ask your manager."), Bleu::of("Yes", "No")];
    near(Bleu::corpus(mixed).unwrap(), 94.574_160_900, "mixed");
    assert_eq!((Bleu::corpus([]), Chrf::corpus([])), (None, None));
}

#[test]
fn text_is_cut_into_tokens_as_mteval_does() {
    for (text, tokens) in [
        ("I don't know; it isn't -- sorry (really).", "I don't know ; it isn't -- sorry ( really ) ."),
        (
            "The limit is $1,250.50, i.e. 10-15% of 12.5k.",
            "The limit is $ 1,250.50 , i . e . 10 - 15 % of 12.5k .",
        ),
        ("A &amp; B: \"x &lt;y&gt;\"\nsecond line-\ncontinued", "A & B : \" x < y > \" second linecontinued"),
        ("..,a..b 5.-6 .5", ". . , a . . b 5 . -6 . 5"),
        ("東京オフィスは三階にあります。", "東京オフィスは三階にあります。"),
    ] {
        assert_eq!(super::bleu::tokens(text).join(" "), tokens);
    }
}

#[test]
fn articles_are_words_of_their_own() {
    assert!(exact_match("The  cat, and a dog.", "cat and dog"));
    assert!(exact_match("the—cat", "—cat"));
    assert!(!exact_match("theatre", "atre"));
    assert!(exact_match("The", "a"), "nothing is left of either");
    assert_eq!(token_f1("the", "cat"), 0.0);
}

#[test]
fn wording_is_measured_in_words() {
    assert_eq!(distinct("to be or not to be", 1), Some(4.0 / 6.0));
    assert_eq!(distinct("To be or not to be", 2), Some(4.0 / 5.0));
    assert_eq!(distinct("to be", 3), None);
    near(repetition("ask HR, ask HR, ask HR"), 1.0 / 3.0, "two of three runs are new");
    assert_eq!((repetition("one two three four five"), repetition("")), (0.0, 0.0));
    assert_eq!(length_ratio("one two three", "four, five!"), Some(1.5));
    assert_eq!(length_ratio("one", "…"), None);
    assert_eq!(most_common_share(["Yes.", "no", " yes. ", "maybe"]), Some(0.5));
    assert_eq!(most_common_share([]), None);
}

#[test]
fn citation_marks_are_taken_out_and_other_brackets_stay() {
    for (text, without) in [
        ("It is 25 days [1].", "It is 25 days."),
        ("25 [1][2, 3] days", "25 days"),
        ("[2] Ask", " Ask"),
        ("a[0] of [the] list [1", "a of [the] list [1"),
        ("[[1]] [] [1a] [1234]", "[] [] [1a] [1234]"),
        ("[a [7] b", "[a b"),
    ] {
        assert_eq!(without_marks(text), without);
    }
}

#[test]
fn vectors_and_probabilities_are_summed_as_defined() {
    near(cosine(&[1.0, 0.0], &[1.0, 1.0]).unwrap(), std::f64::consts::FRAC_1_SQRT_2, "cosine");
    near(cosine(&[2.0, -1.0], &[-4.0, 2.0]).unwrap(), -1.0, "cosine");
    assert_eq!((cosine(&[1.0], &[1.0, 0.0]), cosine(&[0.0], &[1.0]), cosine(&[], &[])), (None, None, None));
    assert_eq!(cosine(&[f32::NAN], &[1.0]), None);
    near(nll_per_token(&[0.5f32.ln(), 0.125f32.ln()]).unwrap(), 2.0 * std::f64::consts::LN_2, "nll");
    assert_eq!(nll_per_token(&[]), None);
    assert_eq!((rate([true, false, true, true]), rate([])), (Some(0.75), None));
    assert!(citation_hit(&["a", "b"], &["b"]) && !citation_hit(&["a"], &["b"]) && !citation_hit(&[], &["b"]));
}

proptest! {
    #[test]
    fn every_measure_stays_in_its_range(answer in "\\PC{0,60}", ideal in "\\PC{0,60}") {
        let unit = [
            token_f1(&answer, &ideal),
            rouge_n(&answer, &ideal, 1),
            rouge_n(&answer, &ideal, 2),
            rouge_l(&answer, &ideal),
            repetition(&answer),
            Bleu::of(&answer, &ideal).sentence() / 100.0,
            Chrf::of(&answer, &ideal).sentence() / 100.0,
        ];
        prop_assert!(unit.iter().all(|value| (0.0..=1.0 + 1e-9).contains(value)), "{unit:?}");
    }

    #[test]
    fn an_answer_like_the_ideal_one_is_perfect_and_f_measures_do_not_know_sides(
        answer in "[a-d]{1,3}( [a-d]{1,3}){3,12}", ideal in "[a-d]{1,3}( [a-d]{1,3}){3,12}",
    ) {
        for value in [
            token_f1(&answer, &answer), rouge_n(&answer, &answer, 2), rouge_l(&answer, &answer),
            Bleu::of(&answer, &answer).sentence() / 100.0, Chrf::of(&answer, &answer).sentence() / 100.0,
        ] {
            prop_assert!((value - 1.0).abs() < 1e-9);
        }
        prop_assert!((token_f1(&answer, &ideal) - token_f1(&ideal, &answer)).abs() < 1e-12);
        prop_assert!((rouge_l(&answer, &ideal) - rouge_l(&ideal, &answer)).abs() < 1e-12);
        prop_assert!(rouge_l(&answer, &ideal) <= rouge_n(&answer, &ideal, 1) + 1e-12);
    }
}
