//! What does another site look like? A page that embeds the widget, and an address that mints its tokens.

use std::net::TcpListener;

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::json;

/// Another site: its own port makes it another origin.
pub(crate) struct Site {
    listener: TcpListener,
}

/// A site that serves its page.
pub(crate) struct RunningSite {
    pub(crate) origin: String,
    handle: actix_web::dev::ServerHandle,
    running: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Site {
    /// Takes a free port.
    pub(crate) fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// Serves a page with the widget of `attune`; `/mint` hands out `token`, as a site's server would.
    pub(crate) fn serve(self, attune: &str, token: &str) -> RunningSite {
        let origin = self.origin();
        let page = format!(
            "<!doctype html><html lang=en><title>Intranet</title><h1>Intranet</h1>\
             <script src=\"{attune}/widget/v1.js\" data-token-url=\"/mint\" data-title=\"Ask Larkfield\" \
             data-accent=\"#7a1f5c\" defer></script></html>"
        );
        let minted = json!({ "token": token });
        let server = HttpServer::new(move || {
            let (page, minted) = (page.clone(), minted.clone());
            let html = move || {
                let page = page.clone();
                async move { HttpResponse::Ok().content_type("text/html").body(page) }
            };
            let mint = move || {
                let minted = minted.clone();
                async move { HttpResponse::Ok().json(minted) }
            };
            App::new().route("/", web::get().to(html)).route("/mint", web::post().to(mint))
        });
        let server = server.workers(1).disable_signals().listen(self.listener).unwrap().run();
        RunningSite { origin, handle: server.handle(), running: tokio::spawn(server) }
    }
}

impl RunningSite {
    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
        self.running.await.unwrap().unwrap();
    }
}
