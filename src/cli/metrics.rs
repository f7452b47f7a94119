//! `--metrics ADDR`: Prometheus's text over HTTP.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::CliError;

/// Connections served at once; others wait in the kernel's backlog.
const CONNECTIONS: usize = 16;
/// A request's head must be there within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `text` at `/metrics` until `stop`. Where it listens.
pub(super) async fn serve(
    addr: SocketAddr,
    stop: CancellationToken,
    text: impl Fn() -> String + Send + Sync + 'static,
) -> Result<SocketAddr, CliError> {
    let listener = TcpListener::bind(addr).await.map_err(|error| CliError::Failed(format!("--metrics {addr}: {error}")))?;
    let local = listener.local_addr()?;
    let text = Arc::new(text);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, say.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (text, stop) = (text.clone(), stop.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = answer(&request, &*text);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = stop.cancelled() => {}
                    // A scraper that goes away is no event.
                    _ = connection => {}
                }
            });
        }
    });
    Ok(local)
}

fn answer(request: &Request<Incoming>, text: &dyn Fn() -> String) -> Response<Full<Bytes>> {
    let (status, body) =
        if request.uri().path() == "/metrics" { (StatusCode::OK, text()) } else { (StatusCode::NOT_FOUND, "see /metrics\n".into()) };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
