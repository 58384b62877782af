//! A server of JWK sets on loopback, which can also fail, hang and send invalid answers.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// An answer.
#[derive(Debug, Clone)]
pub enum Page {
    /// 200 with this body.
    Body(String),
    /// This status, with this body.
    Answer(u16, String),
    /// This status, with this location for a redirect.
    Status(u16, String),
    /// A body that never ends.
    Endless,
    /// A truncated answer: the connection closes in the middle.
    Cut,
    /// No answer.
    Silence,
}

#[derive(Default)]
struct Pages {
    pages: HashMap<String, Page>,
    /// The paths of all requests.
    requests: Vec<String>,
}

/// A server that runs until it is dropped.
pub struct KeyServer {
    pages: Arc<Mutex<Pages>>,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl KeyServer {
    /// Starts a server that answers 404.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, pages) = (listener.local_addr()?, Arc::<Mutex<Pages>>::default());
        let (mut serving, served) = (JoinSet::new(), Arc::clone(&pages));
        serving.spawn(async move {
            let mut answering = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                answering.spawn(answer(stream, Arc::clone(&served)));
            }
        });
        Ok(Self { pages, address, _serving: serving })
    }

    /// Returns the URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets the answer at a path.
    pub fn serve(&self, path: &str, page: Page) {
        self.locked().pages.insert(path.to_owned(), page);
    }

    /// Returns the paths of all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.locked().requests.clone()
    }

    fn locked(&self) -> MutexGuard<'_, Pages> {
        locked(&self.pages)
    }
}

fn locked(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_body(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers one request, and closes the connection.
async fn answer(mut stream: TcpStream, pages: Arc<Mutex<Pages>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let page = {
        let mut pages = locked(&pages);
        pages.requests.push(path.clone());
        pages.pages.get(&path).cloned().unwrap_or(Page::Status(404, String::new()))
    };
    let reply = match page {
        Page::Body(body) => with_body(200, &body),
        Page::Answer(status, body) => with_body(status, &body),
        Page::Status(status, location) => {
            format!(
                "HTTP/1.1 {status} -\r\nConnection: close\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            )
        }
        Page::Cut => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"keys\": [".to_owned(),
        Page::Endless => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
        Page::Silence => return std::future::pending().await,
    };
    if stream.write_all(reply.as_bytes()).await.is_err() {
        return;
    }
    // Endless: writes until the client closes the connection.
    while reply.ends_with("close\r\n\r\n") && stream.write_all(&[b' '; 4096]).await.is_ok() {}
}
