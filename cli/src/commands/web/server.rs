//! The connections of the page.

use std::{convert::Infallible, rc::Rc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinSet, LocalSet},
    time::sleep,
};

use super::answer::Site;
use crate::stack::front_door::ACCEPT_RETRY_DELAY;

/// Connections at a time. A browser opens six for each tab; further ones wait until one ends.
const MAX_CONNECTIONS: usize = 64;

/// Time in which a client has to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a page. When the future is dropped, its connections end.
pub(super) async fn serve(listener: TcpListener, site: Site) {
    let site = Rc::new(site);
    LocalSet::new()
        .run_until(async {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                        Ok((stream, _)) => _ = connections.spawn_local(answer(stream, Rc::clone(&site))),
                        Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        })
        .await;
}

/// Answers the requests of a connection.
async fn answer(stream: TcpStream, site: Rc<Site>) {
    let service = service_fn(async |request| Ok::<_, Infallible>(site.answer(request).await));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // The client sees a broken connection as such, so the error needs no other report.
    _ = builder.serve_connection(TokioIo::new(stream), service).await;
}
