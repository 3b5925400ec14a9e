//! Who listens? The HTTP server, its metrics sibling, and the probes that answer while the parts are opened.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::api::{self, Context};
use crate::config::Config;

/// A running HTTP server, with its metrics sibling if there is one.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    handles: Vec<ServerHandle>,
    running: Vec<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Server {
    /// Returns when `stop` is cancelled, or when the server has stopped by itself.
    pub(super) async fn until(&self, stop: &CancellationToken) {
        // The server ends only when told to; should it end otherwise, there is nothing left to serve.
        let ended = async {
            while !self.running.iter().any(tokio::task::JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = ended => tracing::error!("the HTTP server stopped by itself"),
        }
    }

    /// Closes the listeners and waits for requests in flight, as long as `server.drain_seconds`.
    pub(super) async fn stop(self) {
        for handle in &self.handles {
            handle.stop(true).await;
        }
        for running in self.running {
            if let Ok(Err(error)) = running.await {
                tracing::error!(%error, "HTTP server");
            }
        }
    }
}

/// Takes an address.
pub(super) fn bind(address: &str) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).map_err(|source| AppError::Listen { address: address.to_owned(), source })
}

/// Starts serving everything.
pub(super) fn start(
    config: &Config,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
    context: &Arc<Context>,
) -> Result<Server, AppError> {
    let address = listener.local_addr().map_err(AppError::Http)?;
    let main = {
        let data = web::Data::from(Arc::clone(context));
        HttpServer::new(move || App::new().configure(api::configure(data.clone())))
            .workers(config.server.workers)
            .shutdown_timeout(config.server.drain_seconds)
            // A client that closes its side has gone: its request is dropped, and with it the answer in the making.
            .h1_allow_half_closed(false)
            .disable_signals()
            .listen(listener)
            .map_err(AppError::Http)?
            .run()
    };
    let mut handles = vec![main.handle()];
    let mut running = vec![tokio::spawn(main)];
    if let Some(listener) = metrics_listener {
        let data = web::Data::from(Arc::clone(context));
        let scrapes = HttpServer::new(move || App::new().configure(api::configure_scrapes(data.clone())))
            .workers(1)
            .shutdown_timeout(1)
            .disable_signals()
            .listen(listener)
            .map_err(AppError::Http)?
            .run();
        handles.push(scrapes.handle());
        running.push(tokio::spawn(scrapes));
    }
    Ok(Server { address, handles, running })
}

/// Answers probes while the parts are opened, which includes fetching the sentence model at the first start.
pub(super) fn probes_while_starting(listener: &TcpListener) -> Result<Server, AppError> {
    let address = listener.local_addr().map_err(AppError::Http)?;
    let listener = listener.try_clone().map_err(AppError::Http)?;
    let server = HttpServer::new(|| {
        let alive = || async { HttpResponse::Ok().json(serde_json::json!({"status": "alive"})) };
        // The pages are there at once; they wait for the rest by themselves.
        App::new()
            .route("/livez", web::get().to(alive))
            .configure(crate::web::configure)
            .default_service(web::to(starting))
    });
    let server = server
        .workers(1)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)
        .map_err(AppError::Http)?
        .run();
    Ok(Server { address, handles: vec![server.handle()], running: vec![tokio::spawn(server)] })
}

async fn starting() -> HttpResponse {
    let error = serde_json::json!({
        "message": "the server is starting", "type": "server_error", "param": null, "code": "not_ready",
    });
    let seconds = crate::generation::LOADING_RETRY.as_secs().to_string();
    HttpResponse::ServiceUnavailable()
        .insert_header(("retry-after", seconds))
        .json(serde_json::json!({"status": "loading", "error": error}))
}
