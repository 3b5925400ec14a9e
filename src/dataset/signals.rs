//! Which rows follow from what people said? See the table in [`super`].

use std::collections::{HashSet, VecDeque};

use async_stream::try_stream;
use futures::{Stream, StreamExt, stream::BoxStream};
use serde::Serialize;

use super::rows::{
    Context, Imported, Origin, Preference, PreferenceRow, Prompt, PromptRow, Row, Sft, SftRow, Source,
    Unpaired, UnpairedRow, content_digest, said,
};
use crate::{
    domain::{
        AccessLabel, AnswerRecord, Choice, Comparison, Demonstration, DemonstrationSource,
        DemonstrationStatus, Feedback, Message, Millis, Rating, Vote,
    },
    ledger::{AnswerFilter, Ledger, LedgerError, Page, Paging, Thumb},
};

/// Rows read at once: large enough that queries do not dominate, small enough that long answers fit in memory.
const PAGE_ROWS: usize = 200;

/// A stream of rows.
pub type Rows<'a, T> = BoxStream<'a, Result<Row<T>, LedgerError>>;

/// Approved demonstrations. The stream fails when the ledger does, and then ends.
pub fn demonstrations(ledger: &dyn Ledger) -> Rows<'_, Sft> {
    distinct(approved(ledger).map(|found| found.map(sft_row)))
}

/// Pairs: imported ones, votes for a side, approved corrections, and opposite thumbs. The stream fails when the ledger
/// does, and then ends.
pub fn preferences(ledger: &dyn Ledger) -> Rows<'_, Preference> {
    preferences_but(ledger, &[])
}

/// As [`preferences`], where the thumbs of some people pair with nobody's.
pub(super) fn preferences_but<'l>(ledger: &'l dyn Ledger, thumbs_of: &'l [String]) -> Rows<'l, Preference> {
    distinct(try_stream! {
        for await found in voted(ledger) {
            if let Some(row) = vote_row(found?) {
                yield row;
            }
        }
        for await found in approved(ledger) {
            if let Some(row) = correction_row(ledger, found?).await? {
                yield row;
            }
        }
        for await judged in thumbs(ledger, thumbs_of) {
            if let Judged::Pair(row) = judged? {
                yield row;
            }
        }
        for await found in imported(ledger) {
            if let Imported::Preference(row) = found? {
                yield row;
            }
        }
    })
}

/// Single judged answers: thumbs that [`preferences`] does not pair, both sides of a vote "both are bad", and imported
/// ones. The stream fails when the ledger does, and then ends.
pub fn unpaired(ledger: &dyn Ledger) -> Rows<'_, Unpaired> {
    unpaired_but(ledger, &[])
}

/// As [`unpaired`], beside [`preferences_but`].
pub(super) fn unpaired_but<'l>(ledger: &'l dyn Ledger, thumbs_of: &'l [String]) -> Rows<'l, Unpaired> {
    distinct(
        try_stream! {
            for await judged in thumbs(ledger, thumbs_of) {
                if let Judged::Single(row) = judged? {
                    yield row;
                }
            }
            for await found in voted(ledger) {
                let (vote, _, left, right) = found?;
                if vote.choice == Choice::BothBad {
                    for answer in [left, right] {
                        yield bad_side(&vote, answer);
                    }
                }
            }
            for await found in imported(ledger) {
                if let Imported::Unpaired(row) = found? {
                    yield row;
                }
            }
        }
        .boxed()
        .filter(|found| {
            let blank =
                found.as_ref().is_ok_and(|row: &UnpairedRow| row.body.completion.iter().all(is_blank));
            std::future::ready(!blank)
        }),
    )
}

/// Questions to learn on: those the model answered (its refusals never reach it), those demonstrated, and imported
/// ones. The stream fails when the ledger does, and then ends.
pub fn prompts(ledger: &dyn Ledger) -> Rows<'_, Prompt> {
    distinct(try_stream! {
        for await found in answered(ledger) {
            yield question_row(found?);
        }
        for await found in approved(ledger) {
            yield demonstrated_prompt(found?);
        }
        for await found in imported(ledger) {
            if let Imported::Prompt(row) = found? {
                yield row;
            }
        }
    })
}

/// Leaves out rows that say what an earlier one said.
fn distinct<'a, T: Serialize + Send + 'a>(
    rows: impl Stream<Item = Result<Row<T>, LedgerError>> + Send + 'a,
) -> Rows<'a, T> {
    let mut seen = HashSet::new();
    rows.filter(move |row| {
        let fresh = row.as_ref().map_or(true, |row| seen.insert(content_digest(&row.body, &row.context)));
        std::future::ready(fresh)
    })
    .boxed()
}

/// Every row of a paged list.
fn every<'a, T, F>(page: impl Fn(Paging) -> F + Send + 'a) -> BoxStream<'a, Result<T, LedgerError>>
where
    T: Send + 'a,
    F: Future<Output = Result<Page<T>, LedgerError>> + Send + 'a,
{
    try_stream! {
        let mut before = None;
        loop {
            let found = page(Paging { before, limit: PAGE_ROWS }).await?;
            for row in found.data {
                yield row;
            }
            before = found.next;
            if before.is_none() {
                break;
            }
        }
    }
    .boxed()
}

fn approved(ledger: &dyn Ledger) -> BoxStream<'_, Result<Demonstration, LedgerError>> {
    every(
        move |paging| async move { ledger.demonstrations(Some(DemonstrationStatus::Approved), &paging).await },
    )
}

type Voted = (Vote, Comparison, AnswerRecord, AnswerRecord);

fn voted(ledger: &dyn Ledger) -> BoxStream<'_, Result<Voted, LedgerError>> {
    every(move |paging| async move { ledger.voted_pairs(&paging).await })
}

fn imported(ledger: &dyn Ledger) -> BoxStream<'_, Result<Imported, LedgerError>> {
    every(move |paging| async move { ledger.imported(&paging).await })
        .map(|row| row.map(Imported::from))
        .boxed()
}

/// Answers that are no refusals, newest first.
pub(super) fn answered(ledger: &dyn Ledger) -> BoxStream<'_, Result<AnswerRecord, LedgerError>> {
    let filter = AnswerFilter { refused: Some(false), ..AnswerFilter::default() };
    let filter = std::sync::Arc::new(filter);
    every(move |paging| {
        let filter = filter.clone();
        async move { ledger.answers(&filter, &paging).await }
    })
}

fn sft_row(demonstration: Demonstration) -> SftRow {
    let access = demonstration_access(&demonstration);
    let mut messages = demonstration.messages;
    messages.push(Message::assistant(demonstration.response));
    Row {
        body: Sft { messages },
        context: Context { user: Some(demonstration.author), passages: demonstration.passages, access },
        origin: Origin {
            ids: vec![demonstration.id.into()],
            source: match demonstration.source {
                DemonstrationSource::Import => Source::Import,
                DemonstrationSource::Written => Source::Written,
                DemonstrationSource::Correction => Source::Correction,
            },
            generation: None,
            created: demonstration.created,
            lineage: demonstration.lineage,
        },
    }
}

fn demonstrated_prompt(demonstration: Demonstration) -> PromptRow {
    let prompt = demonstration.messages.clone();
    let SftRow { context, origin, .. } = sft_row(demonstration);
    // Who wrote the response says nothing about the question.
    Row { body: Prompt { prompt }, context: Context { user: None, ..context }, origin }
}

fn question_row(answer: AnswerRecord) -> PromptRow {
    let origin = answer_origin(Source::Question, &[&answer], answer.created);
    let context = answer_context(None, &answer);
    Row { body: Prompt { prompt: answer.messages }, context, origin }
}

/// How much better, in the reward's units, as in Llama 2 (arXiv:2307.09288, section 3.2.2 and table 27) with three
/// steps instead of four.
fn margin(strength: Option<u8>) -> f32 {
    match strength {
        Some(3) => 1.0,
        Some(2) => 2.0 / 3.0,
        _ => 1.0 / 3.0,
    }
}

fn vote_row((vote, comparison, left, right): Voted) -> Option<PreferenceRow> {
    let (chosen, rejected) = match vote.choice {
        Choice::Left => (left, right),
        Choice::Right => (right, left),
        Choice::Tie | Choice::BothBad => return None,
    };
    let mut origin = answer_origin(Source::Vote, &[&chosen, &rejected], vote.created);
    origin.ids.insert(0, comparison.id.into());
    let context = Context {
        access: both(&comparison.access, &both(&chosen.access, &rejected.access)),
        ..answer_context(Some(vote.user), &chosen)
    };
    pair(comparison.messages, (chosen.answer, rejected.answer), Some(margin(vote.strength))).map(|body| Row {
        body,
        context,
        origin,
    })
}

async fn correction_row(
    ledger: &dyn Ledger,
    demonstration: Demonstration,
) -> Result<Option<PreferenceRow>, LedgerError> {
    let Some(id) = &demonstration.corrects else {
        return Ok(None);
    };
    // The answer may have been forgotten with the person who asked.
    let Some(answer) = ledger.answer(id).await? else {
        return Ok(None);
    };
    let mut origin = answer_origin(Source::Correction, &[&answer], demonstration.created);
    origin.ids.insert(0, demonstration.id.to_string());
    let context = Context {
        access: both(&demonstration_access(&demonstration), &answer.access),
        ..answer_context(Some(demonstration.author), &answer)
    };
    let body = pair(demonstration.messages, (demonstration.response, answer.answer), None);
    Ok(body.map(|body| Row { body, context, origin }))
}

/// What a thumb became.
enum Judged {
    Pair(PreferenceRow),
    Single(UnpairedRow),
}

/// Every thumb but those of some people once: in a pair with an opposite thumb on the same prompt, or alone.
fn thumbs<'l>(ledger: &'l dyn Ledger, except: &'l [String]) -> BoxStream<'l, Result<Judged, LedgerError>> {
    try_stream! {
        let mut on_one_prompt: Vec<Thumb> = Vec::new();
        for await thumb in every(move |paging| async move { ledger.thumbs(&paging).await }) {
            let thumb: Thumb = thumb?;
            if except.contains(&thumb.feedback.user) {
                continue;
            }
            if on_one_prompt.first().is_some_and(|first| first.prompt_key != thumb.prompt_key) {
                for judged in matched(std::mem::take(&mut on_one_prompt)) {
                    yield judged;
                }
            }
            on_one_prompt.push(thumb);
        }
        for judged in matched(on_one_prompt) {
            yield judged;
        }
    }
    .boxed()
}

/// Pairs each thumb up with the first free thumb down on another text.
fn matched(thumbs: Vec<Thumb>) -> Vec<Judged> {
    let (ups, downs): (Vec<_>, Vec<_>) =
        thumbs.into_iter().partition(|thumb| thumb.feedback.rating == Some(Rating::Up));
    let mut downs = VecDeque::from(downs);
    let mut judged = Vec::new();
    for up in ups {
        let opposite = downs.iter().position(|down| thumb_pair(&up, down).is_some());
        let pair = opposite.and_then(|at| downs.remove(at)).and_then(|down| thumb_pair(&up, &down));
        judged.push(pair.map_or_else(|| Judged::Single(thumb_row(up)), Judged::Pair));
    }
    judged.extend(downs.into_iter().map(|down| Judged::Single(thumb_row(down))));
    judged
}

fn thumb_pair(up: &Thumb, down: &Thumb) -> Option<PreferenceRow> {
    let user = (up.feedback.user == down.feedback.user).then(|| up.feedback.user.clone());
    let body =
        pair(up.answer.messages.clone(), (up.answer.answer.clone(), down.answer.answer.clone()), None)?;
    let created = up.feedback.created.max(down.feedback.created);
    Some(Row {
        body,
        context: Context {
            access: both(&up.answer.access, &down.answer.access),
            ..answer_context(user, &up.answer)
        },
        origin: answer_origin(Source::Thumbs, &[&up.answer, &down.answer], created),
    })
}

fn thumb_row(thumb: Thumb) -> UnpairedRow {
    let Feedback { user, created, rating, .. } = thumb.feedback;
    judged_answer(thumb.answer, (user, rating == Some(Rating::Up)), |answer| {
        answer_origin(Source::Thumb, &[answer], created)
    })
}

fn bad_side(vote: &Vote, answer: AnswerRecord) -> UnpairedRow {
    judged_answer(answer, (vote.user.clone(), false), |answer| Origin {
        ids: vec![vote.comparison.to_string(), answer.id.to_string()],
        ..answer_origin(Source::Vote, &[answer], vote.created)
    })
}

fn judged_answer(
    answer: AnswerRecord,
    (user, label): (String, bool),
    origin: impl FnOnce(&AnswerRecord) -> Origin,
) -> UnpairedRow {
    let (origin, context) = (origin(&answer), answer_context(Some(user), &answer));
    let body = Unpaired { prompt: answer.messages, completion: said(answer.answer), label };
    Row { body, context, origin }
}

/// A pair, unless it teaches nothing.
fn pair(
    prompt: Vec<Message>,
    (chosen, rejected): (String, String),
    margin: Option<f32>,
) -> Option<Preference> {
    let teaches = !chosen.trim().is_empty() && !rejected.trim().is_empty() && chosen != rejected;
    teaches.then(|| Preference { prompt, chosen: said(chosen), rejected: said(rejected), margin })
}

fn answer_context(user: Option<String>, answer: &AnswerRecord) -> Context {
    let passages = answer.passages.iter().map(|passage| passage.text.clone()).collect();
    Context { user, passages: Some(passages), access: answer.access.clone() }
}

fn answer_origin(source: Source, answers: &[&AnswerRecord], created: Millis) -> Origin {
    let generation = answers.first().map(|answer| &answer.generation);
    let one = answers.iter().all(|answer| Some(&answer.generation) == generation);
    Origin {
        ids: answers.iter().map(|answer| answer.id.to_string()).collect(),
        source,
        generation: generation.filter(|_| one).cloned(),
        created,
        lineage: None,
    }
}

fn demonstration_access(demonstration: &Demonstration) -> AccessLabel {
    AccessLabel::of(demonstration.access.clauses().iter().chain([&demonstration.groups]))
}

fn both(one: &AccessLabel, other: &AccessLabel) -> AccessLabel {
    AccessLabel::of(one.clauses().iter().chain(other.clauses()))
}

fn is_blank(message: &Message) -> bool {
    message.content.trim().is_empty()
}
