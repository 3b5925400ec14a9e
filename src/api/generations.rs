//! Which generations are there, and which one answers?

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::config::WeightFormat;
use crate::domain::{
    AccessLabel, ActiveRole, GenerationId, GenerationKind, GenerationState, Identity, Millis,
};
use crate::error::Error;
use crate::ledger::GenerationFilter;
use crate::registry::{BaseRef, DatasetRef, FileEntry, Generation, REPORT_MARKDOWN, TemplateRef};
use crate::swap::Promotion;

use super::Context;
use super::error::ErrorBody;
use super::extract::{Curator, Operator, OptionalJson, Query};
use super::wire::{List, paging};

/// Reports are short; more than this would be none.
const MAX_REPORT_BYTES: u64 = 1 << 20;

/// Which generations to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GenerationsQuery {
    /// Only those of this kind.
    kind: Option<GenerationKind>,
    /// Only those in this state.
    state: Option<GenerationState>,
    /// Only generations older than the one with this cursor.
    before: Option<String>,
    /// Most generations, 1 to 1000. Default 50.
    limit: Option<usize>,
}

/// A generation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct GenerationView {
    /// Its content hash; put it in `model` to ask it while it is loaded.
    id: GenerationId,
    /// What it is.
    kind: GenerationKind,
    /// What it was made from.
    parent: Option<GenerationId>,
    /// What became of it.
    state: GenerationState,
    /// When it was made.
    created: Millis,
    /// Whether this server answers with it.
    served: bool,
    /// Whether this server has it in memory.
    loaded: bool,
    /// When its files were deleted to save space, if they were.
    pruned: Option<Millis>,
    /// How it did.
    metrics: serde_json::Value,
    /// Why it is held.
    reasons: Vec<String>,
    /// What it was made from, and by what.
    lineage: LineageView,
    /// Why this server could not serve it, if it tried and could not.
    failure: Option<FailureView>,
    /// Whether people like it, while it is watched after it was promoted by itself.
    live: Option<String>,
    /// The evaluation, in Markdown; only for one generation, and only to who may see what it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<String>,
}

/// What a generation was made from, and by what.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GenerationLineage)]
struct LineageView {
    /// The base model.
    base: BaseRef,
    /// What it was trained on.
    dataset: Option<DatasetRef>,
    /// How prompts looked in training.
    template: TemplateRef,
    /// The run that made it.
    run: Option<String>,
    /// Who may be served by it.
    access: AccessLabel,
    /// The format of its weights.
    #[schema(value_type = String)]
    serving_format: WeightFormat,
    /// How many tensors training changed.
    merged_tensors: usize,
    /// The settings of the training.
    training: serde_json::Value,
    /// Its files.
    files: BTreeMap<String, FileEntry>,
}

/// Why a generation could not be served.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GenerationFailure)]
struct FailureView {
    /// What was wrong.
    reason: String,
    /// When it was tried.
    at: Millis,
}

/// What must be so for a promotion to happen.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PromoteBody {
    /// The generation that must be active now; without it, whatever is.
    expected: Option<GenerationId>,
}

/// What to roll back.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RollbackBody {
    /// `policy` (the default) or `reward`.
    kind: Option<ActiveRole>,
}

/// Lists generations, newest first.
#[utoipa::path(get, path = "/v1/generations", tag = "generations", params(GenerationsQuery),
    responses((status = 200, body = List<GenerationView>), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    _curator: Curator,
    context: web::Data<Context>,
    Query(query): Query<GenerationsQuery>,
) -> Result<web::Json<List<GenerationView>>, Error> {
    let GenerationsQuery { kind, state, before, limit } = query;
    let page = context.registry.list(GenerationFilter { kind, state }, &paging(before, limit)?).await?;
    let data = page.data.into_iter().map(|generation| view(&context, generation)).collect();
    Ok(web::Json(List { data, next: page.next }))
}

/// One generation, with its evaluation.
#[utoipa::path(get, path = "/v1/generations/{id}", tag = "generations", params(("id" = String, Path)),
    responses((status = 200, body = GenerationView), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    curator: Curator,
    context: web::Data<Context>,
    id: web::Path<String>,
) -> Result<web::Json<GenerationView>, Error> {
    let generation = context.registry.get(&GenerationId::from_wire(id.as_str())).await?;
    let report = report(&context, &curator.0, &generation).await;
    Ok(web::Json(GenerationView { report, ..view(&context, generation) }))
}

/// Makes a generation the active one: this server verifies, loads and checks it, then serves it. Answers in the making
/// finish on the one they began with.
#[utoipa::path(post, path = "/v1/generations/{id}/promote", tag = "generations", params(("id" = String, Path)),
    request_body(content = Option<PromoteBody>),
    responses(
        (status = 200, description = "This server serves it", body = GenerationView),
        (status = 202, description = "It takes longer; it goes on", body = GenerationView),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Another one is active than expected, or it can not be served", body = ErrorBody),
    ))]
pub(super) async fn promote(
    operator: Operator,
    context: web::Data<Context>,
    id: web::Path<String>,
    OptionalJson(body): OptionalJson<PromoteBody>,
) -> Result<HttpResponse, Error> {
    let id = GenerationId::from_wire(id.into_inner());
    tracing::info!(generation = %id, by = operator.0.user, "promoting");
    let promotion = context.swapper.promote(&id, body.expected.as_ref()).await?;
    promoted(&context, &id, promotion).await
}

/// Makes the generation before the active one active again; a second time is back where it was.
#[utoipa::path(post, path = "/v1/rollback", tag = "generations", request_body(content = Option<RollbackBody>),
    responses(
        (status = 200, description = "This server serves it", body = GenerationView),
        (status = 202, description = "It takes longer; it goes on", body = GenerationView),
        (status = 409, description = "There is none, or it can not be served", body = ErrorBody),
    ))]
pub(super) async fn rollback(
    operator: Operator,
    context: web::Data<Context>,
    OptionalJson(body): OptionalJson<RollbackBody>,
) -> Result<HttpResponse, Error> {
    tracing::info!(by = operator.0.user, "rolling back");
    let (id, promotion) = context.swapper.rollback(body.kind.unwrap_or(ActiveRole::Policy)).await?;
    promoted(&context, &id, promotion).await
}

async fn promoted(context: &Context, id: &GenerationId, promotion: Promotion) -> Result<HttpResponse, Error> {
    let status = match promotion {
        Promotion::Committed => StatusCode::OK,
        Promotion::UnderWay => StatusCode::ACCEPTED,
    };
    Ok(HttpResponse::build(status).json(view(context, context.registry.get(id).await?)))
}

fn view(context: &Context, generation: Generation) -> GenerationView {
    let Generation { manifest, state, reasons, pruned } = generation;
    let (id, about) = (manifest.id, manifest.about);
    let loaded = context.swapper.loaded();
    let failure = context.swapper.failure(&id);
    GenerationView {
        kind: about.kind,
        parent: about.parent,
        state,
        created: about.created,
        served: loaded.first() == Some(&id),
        loaded: loaded.contains(&id),
        pruned,
        metrics: about.metrics,
        reasons,
        lineage: LineageView {
            base: about.base,
            dataset: about.dataset,
            template: about.template,
            run: about.run,
            access: about.access,
            serving_format: about.serving_format,
            merged_tensors: about.merged_tensors,
            training: about.training,
            files: manifest.files,
        },
        live: context.chat.watch.words(&id),
        failure: failure.map(|failure| FailureView { reason: failure.reason, at: failure.at }),
        report: None,
        id,
    }
}

/// The report quotes what the generation was trained on. One that can not be read is left out.
async fn report(context: &Context, who: &Identity, generation: &Generation) -> Option<String> {
    if !generation.manifest.about.access.permits(who.visible_groups()) {
        return None;
    }
    let path = context.registry.folder(&generation.manifest.id).ok()?.join(REPORT_MARKDOWN);
    let size = tokio::fs::metadata(&path).await.ok()?.len();
    if size > MAX_REPORT_BYTES {
        return None;
    }
    tokio::fs::read_to_string(&path).await.ok()
}
