//! What do people see? The chat page, the widget and the console, embedded into the binary.

use std::sync::LazyLock;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, ETAG, EntityTag, Header as _, IfNoneMatch},
    web::{self, ServiceConfig},
};
use sha2::{Digest, Sha256};

/// Mounts `/`, `/console`, `/widget/v1.js` and `/assets/…`. None of them says anything about the company or the
/// person: they ask the API, with the person's own credentials. The API's middleware adds the security headers; nothing
/// here needs an inline script or style.
pub fn configure(cfg: &mut ServiceConfig) {
    for asset in ASSETS.iter() {
        let serving = move |request: HttpRequest| async move { serve(asset, &request) };
        // One resource for both methods: any other is told which there are.
        cfg.service(web::resource(asset.path).route(web::get().to(serving)).route(web::head().to(serving)));
    }
    cfg.service(web::redirect("/console/", "/console"));
}

/// Seconds a browser may use a file without asking again. Short: the paths carry no hash, and after an update pages and
/// interface should agree soon. Afterwards the `ETag` makes it one small request.
const CACHE_POLICY: &str = "public, max-age=300, must-revalidate";

struct Asset {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
    etag: EntityTag,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    [
        ("/", "text/html; charset=utf-8", include_str!("web/assets/chat/page.html")),
        ("/console", "text/html; charset=utf-8", include_str!("web/assets/console/page.html")),
        ("/widget/v1.js", "text/javascript; charset=utf-8", WIDGET),
        ("/assets/console.js", "text/javascript; charset=utf-8", CONSOLE),
        ("/assets/page.css", "text/css; charset=utf-8", include_str!("web/assets/chat/page.css")),
        ("/assets/console.css", "text/css; charset=utf-8", include_str!("web/assets/console/console.css")),
        ("/assets/icon.svg", "image/svg+xml", include_str!("web/assets/icon.svg")),
    ]
    .into_iter()
    .map(|(path, content_type, body)| {
        let etag = EntityTag::new_strong(hex::encode(&Sha256::digest(body)[..16]));
        Asset { path, content_type, body, etag }
    })
    .collect()
});

/// One file for one request: the sources in order, in a scope of their own, so that a host page's names are left alone.
/// The styles become a string for the Shadow DOM.
const WIDGET: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("web/assets/shared/dom.js"),
    include_str!("web/assets/shared/markdown.js"),
    include_str!("web/assets/shared/client.js"),
    include_str!("web/assets/shared/sign-in.js"),
    "const CHAT_CSS = String.raw`",
    include_str!("web/assets/chat/chat.css"),
    "`;\n",
    include_str!("web/assets/chat/passage.js"),
    include_str!("web/assets/chat/feedback.js"),
    include_str!("web/assets/chat/answer.js"),
    include_str!("web/assets/chat/comparison.js"),
    include_str!("web/assets/chat/element.js"),
    include_str!("web/assets/chat/embed.js"),
    "})();\n",
);

const CONSOLE: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("web/assets/shared/dom.js"),
    include_str!("web/assets/shared/markdown.js"),
    include_str!("web/assets/shared/client.js"),
    include_str!("web/assets/shared/sign-in.js"),
    include_str!("web/assets/console/parts.js"),
    include_str!("web/assets/console/answers.js"),
    include_str!("web/assets/console/documents.js"),
    include_str!("web/assets/console/ideal.js"),
    include_str!("web/assets/console/judge.js"),
    include_str!("web/assets/console/charts.js"),
    include_str!("web/assets/console/runs.js"),
    include_str!("web/assets/console/generations.js"),
    include_str!("web/assets/console/reward.js"),
    include_str!("web/assets/console/console.js"),
    "})();\n",
);

fn serve(asset: &Asset, request: &HttpRequest) -> HttpResponse {
    let known = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.weak_eq(&asset.etag)),
        Err(_) => false,
    };
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((ETAG, asset.etag.clone())).insert_header((CACHE_CONTROL, CACHE_POLICY));
    if known {
        return response.finish();
    }
    response.insert_header(("content-type", asset.content_type)).body(asset.body)
}

#[cfg(test)]
mod tests {
    use actix_web::{App, http::StatusCode, test};

    use super::*;

    #[actix_web::test]
    async fn a_known_etag_gets_no_body_and_a_changed_one_does() {
        let app = test::init_service(App::new().configure(configure)).await;
        let get = |tag: Option<String>| {
            let mut request = test::TestRequest::get().uri("/widget/v1.js");
            if let Some(tag) = tag {
                request = request.insert_header(("if-none-match", tag));
            }
            request.to_request()
        };
        let first = test::call_service(&app, get(None)).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers().get("content-type").unwrap(), "text/javascript; charset=utf-8");
        let tag = first.headers().get("etag").unwrap().to_str().unwrap().to_owned();
        let again = test::call_service(&app, get(Some(tag))).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(test::read_body(again).await.is_empty());
        let other = test::call_service(&app, get(Some("\"other\"".into()))).await;
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[actix_web::test]
    async fn the_console_is_found_with_a_slash_at_its_end() {
        let app = test::init_service(App::new().configure(configure)).await;
        let request = test::TestRequest::get().uri("/console/").to_request();
        let response = test::call_service(&app, request).await;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.headers().get("location").unwrap(), "/console");
    }

    #[actix_web::test]
    async fn pages_have_nothing_inline_that_their_policy_would_block() {
        let app = test::init_service(App::new().configure(configure)).await;
        for page in ["/", "/console"] {
            let response = test::call_service(&app, test::TestRequest::get().uri(page).to_request()).await;
            let body = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
            for inline in ["<style", " style=", "<script>", " onclick=", "javascript:"] {
                assert!(!body.contains(inline), "{page} has {inline}");
            }
        }
    }

    #[::core::prelude::v1::test]
    fn sources_parse_no_text_as_html_or_code() {
        for (name, source) in [("widget", WIDGET), ("console", CONSOLE)] {
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!source.contains(sink), "{name} uses {sink}");
            }
        }
    }

    #[::core::prelude::v1::test]
    fn styles_fit_the_string_they_are_put_in() {
        let css = include_str!("web/assets/chat/chat.css");
        assert!(!css.contains('`') && !css.contains("${"));
    }
}
