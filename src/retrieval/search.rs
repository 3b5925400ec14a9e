//! Which visible passages score best for a question?
//!
//! The passages that the asker may see are found first, by a query on the groups; only these are scored, and only
//! these count in the statistics (how rare a term is, how long a passage is), so that a restricted passage can not
//! even change the order of the others. Scoring is exact: every visible passage that has a term of the question is
//! scored, and with a sentence model every visible passage is.

use std::collections::BTreeSet;
use std::ops::Range;

use tantivy::postings::Postings;
use tantivy::query::{EnableScoring, Query};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocAddress, DocSet, SegmentReader, TERMINATED, TantivyError, Term};

use super::RetrievalError;
use super::analysis::Analyser;
use super::schema::{Fields, PASSAGE};
use super::store::{Snapshot, visible};
use super::synonyms::{self, Expansion};
use super::vectors::{Vectors, dot};
use crate::config::RetrievalConfig;
use crate::domain::Groups;

/// Longer questions are cut here: a page pasted as a question is searched by its beginning.
const QUESTION_BYTES: usize = 4096;

/// One word of a question.
#[derive(Debug, Clone, PartialEq)]
struct QueryTerm {
    /// The word as the language of each passage may have stemmed it.
    variants: BTreeSet<String>,
    /// How often it is in the question; less than once when it only means the same as a word there.
    count: f32,
    /// Whether it is not in the question itself: it helps to find a passage and is no evidence that it answers.
    is_synonym: bool,
}

/// What is searched for.
pub(super) struct Question<'a> {
    terms: Vec<QueryTerm>,
    /// Where in the text each word is, with its place among the terms.
    words: Vec<(Range<usize>, usize)>,
    /// The question's sentence vector, when there is a sentence model.
    vector: Option<&'a [f32]>,
}

/// A passage with its scores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    pub address: DocAddress,
    /// The fused score.
    pub score: f32,
    /// BM25.
    pub lexical: f32,
    /// Cosine with the question, when both have a vector.
    pub cosine: Option<f32>,
    /// Share of the question's terms that the passage has, weighted by their rarity, 0 to 1.
    pub coverage: f32,
}

/// The best passages, best first.
#[derive(Debug)]
pub(super) struct Ranking {
    pub hits: Vec<Hit>,
    /// BM25 of a passage that had every term of the question without end.
    pub lexical_limit: f32,
    /// How rare each of the question's terms is among the visible passages.
    rarities: Vec<f32>,
}

impl<'a> Question<'a> {
    /// Stems a text for the languages that are in the index.
    pub(super) fn new(text: &str, languages: &[String], vector: Option<&'a [f32]>) -> Self {
        let mut analysers: Vec<Analyser> = languages.iter().map(|code| Analyser::new(code)).collect();
        let mut terms: Vec<QueryTerm> = Vec::new();
        let mut words = Vec::new();
        for word in beginning(text, QUESTION_BYTES).split_whitespace() {
            // A word such as `wi-fi` has several terms; each language gives them in the same order unless one of them
            // is a stop word there, so the words are cut first.
            for part in word.split(|c: char| !c.is_alphanumeric() && !"'’".contains(c)) {
                let variants: Vec<Vec<String>> =
                    analysers.iter_mut().map(|analyser| analyser.terms(part)).collect();
                let longest = variants.iter().map(Vec::len).max().unwrap_or(0);
                // A part is a slice of the text.
                let start = part.as_ptr() as usize - text.as_ptr() as usize;
                for position in 0..longest {
                    let variants = variants.iter().filter_map(|terms| terms.get(position).cloned()).collect();
                    words.push((start..start + part.len(), add(&mut terms, variants)));
                }
            }
        }
        for language in languages {
            let text = Analyser::new(language).terms(beginning(text, QUESTION_BYTES));
            for Expansion { terms: variants, weight: count } in synonyms::expansions(language, &text) {
                terms.push(QueryTerm { variants, count, is_synonym: true });
            }
        }
        Self { terms, words, vector }
    }

    /// How rare the word at a byte of the text is among the passages of a ranking; 0 for a stop word.
    pub(super) fn rarity_at(&self, byte: usize, ranking: &Ranking) -> f32 {
        let here = self.words.iter().filter(|(range, _)| range.contains(&byte));
        here.filter_map(|(_, term)| ranking.rarities.get(*term)).copied().fold(0.0, f32::max)
    }
}

/// Counts a word; returns its place among the terms.
fn add(terms: &mut Vec<QueryTerm>, variants: BTreeSet<String>) -> usize {
    if let Some(known) = terms.iter().position(|term| term.variants == variants) {
        terms[known].count += 1.0;
        return known;
    }
    terms.push(QueryTerm { variants, count: 1.0, is_synonym: false });
    terms.len() - 1
}

/// The text up to the last character that begins within `bytes`.
pub(super) fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Finds the `k` best passages among those that a member of `groups` may see.
pub(super) fn rank(
    (snapshot, fields): (&Snapshot, &Fields),
    question: &Question<'_>,
    (groups, k): (Option<&Groups>, usize),
    config: &RetrievalConfig,
) -> Result<Ranking, RetrievalError> {
    let query = visible(fields, PASSAGE, groups, None);
    let weight = query.weight(EnableScoring::disabled_from_searcher(&snapshot.searcher))?;
    let mut segments = Vec::with_capacity(snapshot.vectors.len());
    for (reader, vectors) in snapshot.searcher.segment_readers().iter().zip(&snapshot.vectors) {
        let mut documents = Vec::new();
        let mut scorer = weight.scorer(reader, 1.0)?;
        while scorer.doc() != TERMINATED {
            if !reader.is_deleted(scorer.doc()) {
                documents.push(scorer.doc());
            }
            scorer.advance();
        }
        segments.push(Segment::new(reader, vectors, documents, (fields, config.title_boost))?);
    }
    let statistics = Statistics::of(&segments, config);
    let mut lexical_limit = 0.0;
    let mut rarity = 0.0;
    let mut rarities = Vec::with_capacity(question.terms.len());
    for term in &question.terms {
        let (limit, weight) = score_term(&mut segments, term, fields, &statistics)?;
        rarities.push(weight);
        if !term.is_synonym {
            lexical_limit += limit;
            rarity += weight;
        }
    }
    let hits = fuse(&segments, question, rarity, (config.semantic_weight, k));
    Ok(Ranking { hits, lexical_limit, rarities })
}

/// What BM25 needs to know about the visible passages as a whole.
struct Statistics {
    passages: f32,
    average_length: f32,
    k1: f32,
    b: f32,
    title_boost: f32,
}

impl Statistics {
    fn of(segments: &[Segment<'_>], config: &RetrievalConfig) -> Self {
        let passages: usize = segments.iter().map(|segment| segment.documents.len()).sum();
        let length: f64 = segments
            .iter()
            .flat_map(|segment| segment.documents.iter().map(|document| segment.lengths[*document as usize]))
            .map(f64::from)
            .sum();
        Self {
            passages: passages as f32,
            average_length: (length / (passages.max(1)) as f64).max(1.0) as f32,
            k1: config.bm25_k1,
            b: config.bm25_b,
            title_boost: config.title_boost,
        }
    }

    /// As in Robertson and Zaragoza 2009, section 3; never negative.
    fn rarity(&self, containing: usize) -> f32 {
        let containing = containing as f32;
        ((self.passages - containing + 0.5) / (containing + 0.5)).ln_1p()
    }

    fn saturated(&self, frequency: f32, length: f32) -> f32 {
        let norm = self.k1 * (1.0 - self.b + self.b * length / self.average_length);
        frequency * (self.k1 + 1.0) / (frequency + norm)
    }
}

/// A segment while it is scored; the vectors have one place per document of the segment.
struct Segment<'a> {
    reader: &'a SegmentReader,
    vectors: &'a Vectors,
    /// The visible passages.
    documents: Vec<u32>,
    is_visible: Vec<bool>,
    /// Terms of the body, and of the title times its boost.
    lengths: Vec<f32>,
    lexical: Vec<f32>,
    /// Sum of the rarity of the question's terms that the passage has.
    matched: Vec<f32>,
    /// Frequency of the term that is being scored, and which passages have it.
    frequency: Vec<f32>,
    touched: Vec<u32>,
}

impl<'a> Segment<'a> {
    fn new(
        reader: &'a SegmentReader,
        vectors: &'a Vectors,
        documents: Vec<u32>,
        (fields, title_boost): (&Fields, f32),
    ) -> Result<Self, TantivyError> {
        let size = reader.max_doc() as usize;
        let title = reader.get_fieldnorms_reader(fields.title)?;
        let body = reader.get_fieldnorms_reader(fields.body)?;
        let mut is_visible = vec![false; size];
        let mut lengths = vec![0.0; size];
        for &document in &documents {
            is_visible[document as usize] = true;
            lengths[document as usize] =
                body.fieldnorm(document) as f32 + title_boost * title.fieldnorm(document) as f32;
        }
        Ok(Self {
            reader,
            vectors,
            documents,
            is_visible,
            lengths,
            lexical: vec![0.0; size],
            matched: vec![0.0; size],
            frequency: vec![0.0; size],
            touched: Vec::new(),
        })
    }

    /// Adds up how often the visible passages have a term in a field.
    fn count(&mut self, field: Field, term: &str, boost: f32) -> Result<(), TantivyError> {
        let inverted = self.reader.inverted_index(field)?;
        let term = Term::from_field_text(field, term);
        let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::WithFreqs)? else {
            return Ok(());
        };
        while postings.doc() != TERMINATED {
            let document = postings.doc() as usize;
            if self.is_visible[document] {
                if self.frequency[document] == 0.0 {
                    self.touched.push(postings.doc());
                }
                self.frequency[document] += boost * postings.term_freq() as f32;
            }
            postings.advance();
        }
        Ok(())
    }
}

/// Adds one term's BM25 to every visible passage that has it. Title and body are one text in which a word of the title
/// counts `title_boost` times (BM25F with one length: Robertson and Zaragoza 2009, section 3.6). Returns the most a
/// passage could get, and the term's weight in the coverage.
fn score_term(
    segments: &mut [Segment<'_>],
    term: &QueryTerm,
    fields: &Fields,
    statistics: &Statistics,
) -> Result<(f32, f32), TantivyError> {
    for segment in segments.iter_mut() {
        for variant in &term.variants {
            segment.count(fields.body, variant, 1.0)?;
            if statistics.title_boost > 0.0 {
                segment.count(fields.title, variant, statistics.title_boost)?;
            }
        }
    }
    let containing = segments.iter().map(|segment| segment.touched.len()).sum();
    let rarity = statistics.rarity(containing);
    let weight = rarity * term.count;
    for segment in segments {
        for document in std::mem::take(&mut segment.touched) {
            let document = document as usize;
            let frequency = std::mem::take(&mut segment.frequency[document]);
            segment.lexical[document] += weight * statistics.saturated(frequency, segment.lengths[document]);
            if !term.is_synonym {
                segment.matched[document] += rarity;
            }
        }
    }
    Ok((weight * (statistics.k1 + 1.0), rarity))
}

/// Fuses BM25 with the cosine, each as a share of the best passage's, so that the weight means the same for every
/// question.
fn fuse(
    segments: &[Segment<'_>],
    question: &Question<'_>,
    rarity: f32,
    (semantic_weight, k): (f32, usize),
) -> Vec<Hit> {
    let vector = question.vector.filter(|_| semantic_weight > 0.0);
    let mut hits = Vec::new();
    for (ordinal, segment) in (0_u32..).zip(segments) {
        for &document in &segment.documents {
            let lexical = segment.lexical[document as usize];
            let cosine = vector.and_then(|vector| Some(dot(vector, segment.vectors.get(document)?)));
            if lexical > 0.0 || cosine.is_some() {
                let matched = segment.matched[document as usize];
                let coverage = if rarity > 0.0 { matched / rarity } else { 0.0 };
                let address = DocAddress::new(ordinal, document);
                hits.push(Hit { address, score: 0.0, lexical, cosine, coverage });
            }
        }
    }
    let highest = |value: fn(&Hit) -> f32| hits.iter().map(value).fold(f32::MIN_POSITIVE, f32::max);
    let best_lexical = highest(|hit| hit.lexical);
    let best_cosine = highest(|hit| hit.cosine.unwrap_or(0.0));
    let semantic_weight = if vector.is_some() { semantic_weight } else { 0.0 };
    for hit in &mut hits {
        hit.score = (1.0 - semantic_weight) * hit.lexical / best_lexical
            + semantic_weight * hit.cosine.unwrap_or(0.0) / best_cosine;
    }
    let order = |a: &Hit, b: &Hit| b.score.total_cmp(&a.score).then(a.address.cmp(&b.address));
    if hits.len() > k && k > 0 {
        hits.select_nth_unstable_by(k - 1, order);
        hits.truncate(k);
    }
    hits.sort_by(order);
    hits
}
