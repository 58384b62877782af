//! HTTP/2 (RFC 9113) for posts only, on the crate h2.
//!
//! A task drives each connection; posts open a stream each, and wait for its answer. A payload is queued whole, and
//! leaves as the peer's flow control allows. A stream's small window delays its own post. The connection's window is
//! shared, so a peer that is slow to restore it delays all posts.

use std::{
    future::{pending, poll_fn},
    io, mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt as _;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    client::{self, SendRequest},
};
use http::{
    HeaderValue, Request, Version,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    connection::Fault,
    post::{BODY_TIMEOUT, MAX_BODY_BYTES, PostRequest, PostResponse},
    sign::{self, X_AMZ_DATE, X_AMZ_SECURITY_TOKEN},
    skew,
};

/// Time without an answer after which a connection with posts on it is pinged, and maximum time for the reply.
/// Together they leave time to repeat a post, which may take 5 s.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time for which a post waits on a connection on which no post is answered. It is shorter than the 5 s of a
/// post.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection that posts share.
#[derive(Debug)]
pub struct Http2 {
    requests: SendRequest<Bytes>,
    /// Number of posts on the connection.
    posts: AtomicUsize,
    /// Number of posts that were answered.
    answers: AtomicUsize,
    /// Whether a post has reported the loss of the connection.
    is_loss_reported: AtomicBool,
    /// Notified when a post ends, when the peer changes its limit, and when the connection is closed.
    changed: Arc<Notify>,
}

/// A place for one post on a connection. It becomes free when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Http2>);

impl Http2 {
    /// Starts HTTP/2 on a byte stream, and waits for the peer's settings, which limit the concurrent streams. Returns
    /// the connection, and the future that drives it. `changed` is notified when a post ends, when the peer changes its
    /// limit, and when the connection is closed or takes no further posts.
    ///
    /// # Errors
    /// If the peer closes the connection or does not speak HTTP/2.
    pub async fn start<S>(
        stream: S,
        changed: Arc<Notify>,
    ) -> io::Result<(Arc<Self>, impl Future<Output = ()> + use<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Without the settings, posts beyond the peer's limit would be refused.
        let mut builder = client::Builder::new();
        let handshake = builder.initial_max_send_streams(0).enable_push(false).handshake::<_, Bytes>(stream);
        let (requests, mut connection) = handshake.await.map_err(io::Error::other)?;
        poll_fn(|context| match connection.poll_unpin(context) {
            _ if connection.max_concurrent_send_streams() > 0 => Ok(()).into(),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Err(io::ErrorKind::UnexpectedEof.into()).into(),
            Poll::Ready(Err(error)) => Err(io::Error::other(error)).into(),
        })
        .await?;
        let http2 = Arc::new(Self {
            requests,
            posts: AtomicUsize::default(),
            answers: AtomicUsize::default(),
            is_loss_reported: AtomicBool::default(),
            changed: Arc::clone(&changed),
        });
        let driven = Arc::downgrade(&http2);
        let pinging = ping(connection.ping_pong(), Arc::downgrade(&http2));
        let driving = async move {
            tokio::select! {
                biased;
                () = drive(connection, driven, &changed) => {}
                () = pinging => {}
            }
            changed.notify_one();
        };
        Ok((http2, driving))
    }

    /// Returns the number of concurrent posts that the peer allows on this connection.
    #[must_use]
    pub fn max_posts(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Returns whether posts are on the connection.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.posts.load(Ordering::Relaxed) > 0
    }

    /// Returns whether the connection takes further posts: neither side has closed it or announced to, and it has
    /// stream ids left.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.requests.clone().ready().now_or_never().is_some_and(|ready| ready.is_ok())
    }

    /// Returns whether the peer allows another concurrent post.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.posts.load(Ordering::Relaxed) < self.max_posts()
    }

    /// Takes a place for a post. The caller checks that there is one.
    #[must_use]
    pub fn take_place(self: &Arc<Self>) -> Place {
        self.posts.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(self))
    }

    async fn send(&self, post: &PostRequest<'_>) -> Result<PostResponse, Fault> {
        let sent = self.requests.clone().send_request(request(post), false);
        let (answer, mut body) =
            sent.map_err(|error| if is_lost(&error) { Fault::Unsent(error) } else { Fault::Http2(error) })?;
        body.send_data(Bytes::clone(post.payload), true).map_err(Fault::Http2)?;
        let (head, body) = answer.await.map_err(Fault::Http2)?.into_parts();
        let status = head.status.as_u16();
        let date = head.headers.get(DATE).filter(|_| status == 403);
        let date = date.and_then(|date| skew::read_date(date.as_bytes()));
        Ok(PostResponse { status, message: text(body).await, date })
    }
}

impl Place {
    /// Returns the connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<Http2> {
        &self.0
    }

    /// Returns whether a post on the connection was answered.
    #[must_use]
    pub fn has_worked(&self) -> bool {
        self.0.answers.load(Ordering::Relaxed) > 0
    }

    /// Marks the loss of the connection as reported, and returns whether it was before.
    #[must_use]
    pub fn report_loss(&self) -> bool {
        self.0.is_loss_reported.swap(true, Ordering::Relaxed)
    }

    /// Sends a post, and gives up when no post on the connection is answered.
    ///
    /// # Errors
    /// The fault that prevented a complete response head.
    pub async fn send(&self, post: &PostRequest<'_>) -> Result<PostResponse, Fault> {
        let answers = &self.0.answers;
        let mut sending = Box::pin(self.0.send(post));
        loop {
            let before = answers.load(Ordering::Relaxed);
            match timeout(SILENCE_TIMEOUT, &mut sending).await {
                Ok(response) => {
                    answers.fetch_add(usize::from(response.is_ok()), Ordering::Relaxed);
                    return response;
                }
                Err(_) if answers.load(Ordering::Relaxed) == before => return Err(Fault::Silent),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.posts.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// Drives the connection, and notifies `changed` when the peer changes its limit or announces to close.
async fn drive<S>(mut connection: client::Connection<S, Bytes>, http2: Weak<Http2>, changed: &Notify)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut before = (connection.max_concurrent_send_streams(), true);
    poll_fn(|context| {
        let poll = connection.poll_unpin(context);
        let is_open = http2.upgrade().is_some_and(|http2| http2.is_open());
        let now = (connection.max_concurrent_send_streams(), is_open);
        if mem::replace(&mut before, now) != now {
            changed.notify_one();
        }
        poll.map(drop)
    })
    .await;
}

/// Pings the peer while posts are on the connection and none is answered. Ends when the peer does not reply, and 1 s
/// after it finds the connection without posts and a place in the pool.
async fn ping(pings: Option<PingPong>, http2: Weak<Http2>) {
    let Some(mut pings) = pings else { return pending().await };
    let mut answers = 0;
    loop {
        sleep(PING_TIMEOUT).await;
        let Some(http2) = http2.upgrade() else {
            // Without posts and a place in the pool, the connection ends by itself, unless the peer reads no more.
            return sleep(PING_TIMEOUT).await;
        };
        let before = mem::replace(&mut answers, http2.answers.load(Ordering::Relaxed));
        let is_waiting = http2.is_used() && before == answers;
        drop(http2);
        if is_waiting && timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await.is_err() {
            return;
        }
    }
}

/// Returns whether the peer states that it has not processed the post: it refused the stream, or its GOAWAY excludes
/// the stream (RFC 9113, section 8.7).
#[must_use]
pub fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// Returns whether the whole connection was lost: closed, reset, silent to a ping, or ended for a violation. Other
/// errors end one stream only.
#[must_use]
pub fn is_lost(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away()
}

/// Reads the body as far as it matters. The status counts even if the body is incomplete, too long or too slow.
async fn text(mut body: RecvStream) -> String {
    let mut bytes = Vec::new();
    if !body.is_end_stream() {
        let read = async {
            while let Some(Ok(data)) = body.data().await {
                bytes.extend_from_slice(&data);
                if bytes.len() >= MAX_BODY_BYTES || body.flow_control().release_capacity(data.len()).is_err()
                {
                    return;
                }
            }
        };
        _ = timeout(BODY_TIMEOUT, read).await;
        bytes.truncate(MAX_BODY_BYTES);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Builds the head of the request. HTTP/2 takes the host from the URI (RFC 9113, section 8.3.1).
fn request(post: &PostRequest<'_>) -> Request<()> {
    let PostRequest { origin, path, signature, payload, .. } = post;
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("{origin}{path}").try_into().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(payload.len()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sign::CONTENT_TYPE));
    headers.insert(X_AMZ_DATE, signature.date.clone());
    headers.extend(signature.token.clone().map(|token| (X_AMZ_SECURITY_TOKEN, token)));
    headers.extend(HeaderValue::from_bytes(&signature.authorization).ok().map(|mut authorization| {
        authorization.set_sensitive(true);
        (AUTHORIZATION, authorization)
    }));
    request
}
