//! Sends lines as they come, many at once.

use std::{collections::BTreeMap, io, time::Duration};

use futures::{Stream, StreamExt as _, stream::FuturesUnordered};
use indicatif::ProgressBar;
use streamer_producer::{Message, SendError};
use tokio::time::{Instant, sleep_until};

use super::{
    lines::{Line, Lines},
    summary::{End, Summary},
    unsent::UnsentFile,
};
use crate::{screen::print_error, shutdown::Signal};

/// Messages that are sent at once: enough for the producer's 8 calls of 10 messages while others wait for the queue.
const MAX_IN_FLIGHT: usize = 500;

/// Bytes of the messages that are sent at once.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How long an interrupted run goes on with the lines that it has read.
const GRACE: Duration = Duration::from_secs(5);

/// Maximum number of lines whose errors are printed.
const MAX_PRINTED_ERRORS: usize = 10;

/// Sends the lines of an input.
#[derive(Default)]
pub(super) struct Sender {
    bar: Option<ProgressBar>,
    unsent: Option<UnsentFile>,
    /// The messages on their way, by line, with their sizes.
    in_flight: BTreeMap<usize, (Message, usize)>,
    bytes: usize,
    last_queued: Option<Instant>,
    printed: usize,
    summary: Summary,
}

/// The part of the input that is still sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// All of it.
    Open,
    /// The lines that were read.
    Rest,
    /// None of it.
    Closed,
}

/// A send that has ended.
struct Sent {
    line: usize,
    began: Instant,
    result: Result<(), SendError>,
}

impl Sender {
    /// Returns a sender that counts on `bar` and writes what it does not send to `unsent`.
    pub(super) fn new(bar: Option<ProgressBar>, unsent: Option<UnsentFile>) -> Self {
        Self { bar, unsent, ..Self::default() }
    }

    /// Keeps the ids of the messages that are queued.
    pub(super) fn keeping_ids(mut self) -> Self {
        self.summary.queued.ids = Some(Vec::new());
        self
    }

    /// Sends every line. Ends early at a signal, which has an exit code, and when the queue takes no message.
    pub(super) async fn run<S: Stream<Item = io::Result<Vec<u8>>> + Unpin>(
        mut self,
        mut lines: Lines<S>,
        parse: impl Fn(&str) -> Result<Message, String>,
        send: impl AsyncFn(Message) -> Result<(), SendError>,
        mut signals: impl Stream<Item = Signal> + Unpin,
    ) -> (Summary, Option<UnsentFile>) {
        let (mut sending, mut input, mut deadline) = (FuturesUnordered::new(), Input::Open, None);
        let begin = |line, message| {
            let send = &send;
            async move { Sent { line, began: Instant::now(), result: send(message).await } }
        };
        while input != Input::Closed || !sending.is_empty() {
            if input == Input::Rest && self.has_room() {
                match lines.next_read() {
                    Some(line) => {
                        sending.extend(self.begin(line, &parse).map(|(line, message)| begin(line, message)));
                    }
                    None => input = Input::Closed,
                }
                continue;
            }
            tokio::select! {
                biased;
                Some(signal) = signals.next() => match self.summary.end {
                    // The second one ends the run at once.
                    End::Interrupted(_) => break,
                    _ => {
                        self.summary.end = End::Interrupted(signal);
                        input = if input == Input::Open { Input::Rest } else { input };
                        deadline = Some(Instant::now() + GRACE);
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
                Some(sent) = sending.next(), if !sending.is_empty() => match self.complete(sent) {
                    None => {}
                    Some(Fault::Permanent(error)) => {
                        self.summary.end.or(End::Refused(error));
                        input = Input::Closed;
                        deadline = deadline.or_else(|| Some(Instant::now() + GRACE));
                    }
                    Some(Fault::Unreachable(error)) => {
                        self.summary.end.or(End::Unreachable(error));
                        break;
                    }
                },
                line = lines.next(), if input == Input::Open && self.has_room() => match line {
                    Ok(Some(line)) => {
                        sending.extend(self.begin(line, &parse).map(|(line, message)| begin(line, message)));
                    }
                    Ok(None) => input = Input::Closed,
                    Err(error) => {
                        self.summary.end = End::Unreadable(error);
                        input = Input::Rest;
                    }
                },
            }
        }
        drop(sending);
        self.give_up(&mut lines, parse);
        self.summary.last_line = lines.number();
        self.summary.is_whole = lines.is_at_end();
        (self.summary, self.unsent)
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT && self.bytes < MAX_BYTES
    }

    /// Notes a line that is now sent. Returns its message, unless it is invalid.
    fn begin(
        &mut self,
        Line { number, text }: Line,
        parse: impl Fn(&str) -> Result<Message, String>,
    ) -> Option<(usize, Message)> {
        let bytes = text.as_ref().map_or(0, String::len);
        match text.and_then(|text| parse(&text)) {
            Ok(message) => {
                self.bytes += bytes;
                self.in_flight.insert(number, (message.clone(), bytes));
                Some((number, message))
            }
            Err(error) => {
                self.print(number, &error);
                self.summary.invalid.push(number);
                None
            }
        }
    }

    /// Notes the end of a send. Returns the fault that ends the run, if it is one.
    fn complete(&mut self, Sent { line, began, result }: Sent) -> Option<Fault> {
        let (message, bytes) = self.in_flight.remove(&line)?;
        self.bytes -= bytes;
        let Err(error) = result else {
            self.last_queued = Some(Instant::now());
            self.summary.queued.push(&message);
            self.bar.iter().for_each(|bar| bar.inc(1));
            return None;
        };
        self.fail(line, &message);
        if error.is_queue_fault() {
            return Some(Fault::Permanent(error));
        }
        let is_silent = self.last_queued.is_none_or(|queued| queued < began);
        if matches!(error, SendError::TimedOut { .. }) && is_silent {
            return Some(Fault::Unreachable(error));
        }
        self.print(line, &error.to_string());
        None
    }

    /// Notes every line that was read and is not on the queue.
    fn give_up<S: Stream<Item = io::Result<Vec<u8>>> + Unpin>(
        &mut self,
        lines: &mut Lines<S>,
        parse: impl Fn(&str) -> Result<Message, String>,
    ) {
        while let Some(line) = lines.next_read() {
            self.begin(line, &parse);
        }
        for (line, (message, _)) in std::mem::take(&mut self.in_flight) {
            self.fail(line, &message);
        }
        if let Some(line) = lines.partial().filter(|_| !lines.is_at_end()) {
            self.print(line, "only its beginning was read");
            self.summary.invalid.push(line);
        }
    }

    fn fail(&mut self, line: usize, message: &Message) {
        self.summary.failed.push(line);
        if let Some(Err(error)) = self.unsent.as_mut().map(|file| file.write(message)) {
            self.print(line, &format!("{error:#}"));
            self.summary.is_file_incomplete = true;
        }
    }

    fn print(&mut self, line: usize, error: &str) {
        self.printed += 1;
        if self.printed <= MAX_PRINTED_ERRORS {
            print_error(&format!("line {line}: {error}"), self.bar.as_ref());
        }
    }
}

/// An error that ends the run.
enum Fault {
    /// The queue would refuse every message.
    Permanent(SendError),
    /// The queue has confirmed no message for the producer's whole timeout.
    Unreachable(SendError),
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, fs, future::pending, path::PathBuf};

    use futures::stream;
    use tokio::{sync::mpsc, time::sleep};

    use super::*;

    /// Latency of a call to the queue.
    const CALL: Duration = Duration::from_millis(10);

    type Chunk = io::Result<Vec<u8>>;

    fn parse(line: &str) -> Result<Message, String> {
        Message::tenant("acme").json(line).map_err(|error| error.to_string())
    }

    fn input(text: &str) -> impl Stream<Item = Chunk> + Unpin + use<> {
        stream::iter([Ok(text.as_bytes().to_vec()), Ok(Vec::new())])
    }

    fn numbers(lines: usize) -> String {
        (1..=lines).map(|line| format!("{line}\n")).collect()
    }

    fn refused(code: &str) -> SendError {
        SendError::Refused { code: code.to_owned(), message: "scripted".to_owned() }
    }

    fn timed_out() -> SendError {
        SendError::TimedOut { timeout: Duration::from_secs(10), cause: "scripted".to_owned() }
    }

    /// Runs a sender without file. The queue takes every message in [`CALL`] if `send` returns `Ok`.
    async fn run(
        chunks: impl Stream<Item = Chunk> + Unpin,
        send: impl AsyncFn(Message) -> Result<(), SendError>,
        signals: impl Stream<Item = Signal> + Unpin,
    ) -> Summary {
        Sender::default().run(Lines::new(chunks), parse, send, signals).await.0
    }

    fn totals(summary: &Summary) -> [usize; 3] {
        [summary.queued.number, summary.failed.len(), summary.invalid.len()]
    }

    /// A line is sent when it is there, while the input stays open.
    #[tokio::test(start_paused = true)]
    async fn lines_leave_as_they_come() {
        let started = Instant::now();
        let (sender, mut chunks) = mpsc::channel(1);
        let generate = async move {
            for (after, text) in [(0, "1\n2"), (4, "2\n3\n"), (6, "")] {
                sleep(Duration::from_secs(after)).await;
                sender.send(Ok(text.as_bytes().to_vec())).await.unwrap();
            }
        };
        let sent = RefCell::new(Vec::new());
        let send = async |message: Message| {
            sent.borrow_mut().push((started.elapsed().as_secs(), message.encode().concat()));
            Ok(())
        };
        let chunks = stream::poll_fn(move |context| chunks.poll_recv(context));
        let (summary, ()) = tokio::join!(run(chunks, send, stream::pending()), generate);
        let sent: Vec<_> = sent
            .take()
            .into_iter()
            .map(|(at, body)| {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                (at, body["payload"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(sent, [(0, 1), (4, 22), (4, 3)]);
        assert_eq!((totals(&summary), summary.is_whole), ([3, 0, 0], true));
    }

    #[tokio::test(start_paused = true)]
    async fn many_lines_are_sent_at_once() {
        let started = Instant::now();
        let send = async |_| {
            sleep(CALL).await;
            Ok(())
        };
        let summary = run(input(&numbers(2000)), send, stream::pending()).await;
        assert_eq!(totals(&summary), [2000, 0, 0]);
        assert_eq!(started.elapsed(), CALL * 4, "500 at once");
    }

    #[tokio::test(start_paused = true)]
    async fn every_line_is_counted_once() {
        let send = async |message: Message| match message.encode().concat().contains("\"payload\":3") {
            true => Err(refused("InvalidMessageContents")),
            false => Ok(()),
        };
        let summary = run(input("1\n{\n\n3\nx\n6"), send, stream::pending()).await;
        assert_eq!(totals(&summary), [2, 1, 2]);
        assert_eq!((summary.failed, summary.invalid, summary.last_line), (vec![4], vec![2, 5], 6));
    }

    #[tokio::test(start_paused = true)]
    async fn missing_queue_ends_run_at_once() {
        let started = Instant::now();
        let send = async |_| {
            sleep(CALL).await;
            Err(refused("AWS.SimpleQueueService.NonExistentQueue"))
        };
        let open = input(&numbers(3000)).take(1).chain(stream::pending());
        let summary = run(open, send, stream::pending()).await;
        assert_eq!((totals(&summary), started.elapsed()), ([0, 3000, 0], CALL));
        assert!(matches!(summary.end, End::Refused(_)) && !summary.is_whole, "{summary:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn unreachable_queue_ends_run_after_one_timeout() {
        let started = Instant::now();
        let send = async |_| {
            sleep(Duration::from_secs(10)).await;
            Err(timed_out())
        };
        let summary = run(input(&numbers(3000)), send, stream::pending()).await;
        assert_eq!((totals(&summary), started.elapsed().as_secs()), ([0, 3000, 0], 10));
        assert!(matches!(summary.end, End::Unreachable(_)), "{summary:?}");
    }

    /// While the queue takes others, a message that times out is an error of its own.
    #[tokio::test(start_paused = true)]
    async fn timeout_beside_others_does_not_end_run() {
        let send = async |message: Message| match message.encode().concat().contains("\"payload\":7}") {
            true => {
                sleep(Duration::from_secs(10)).await;
                Err(timed_out())
            }
            false => {
                sleep(CALL).await;
                Ok(())
            }
        };
        let summary = run(input(&numbers(600)), send, stream::pending()).await;
        assert_eq!((totals(&summary), summary.failed), ([599, 1, 0], vec![7]));
    }

    /// The first signal ends the input: what was read is sent, except a line that is cut off.
    #[tokio::test(start_paused = true)]
    async fn signal_sends_lines_that_were_read() {
        let text = format!("{}70", numbers(600));
        let open = stream::iter([Ok(text.into_bytes())]).chain(stream::pending());
        let send = async |_| {
            sleep(Duration::from_secs(1)).await;
            Ok(())
        };
        let signals = stream::once(Box::pin(async {
            sleep(CALL).await;
            Signal::Interrupt
        }));
        let summary = run(open, send, signals.chain(stream::pending())).await;
        assert_eq!((totals(&summary), &summary.invalid), ([600, 0, 1], &vec![601]));
        assert!(matches!(summary.end, End::Interrupted(Signal::Interrupt)), "{summary:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn interrupted_run_ends_in_bounded_time() {
        let started = Instant::now();
        let signal = || {
            stream::once(Box::pin(async {
                sleep(CALL).await;
                Signal::Terminate
            }))
        };
        let summary =
            run(input("1\n2\n"), async |_| pending().await, signal().chain(stream::pending())).await;
        assert_eq!((totals(&summary), started.elapsed()), ([0, 2, 0], CALL + GRACE));
        let again = Instant::now();
        let signals = signal().chain(signal()).chain(stream::pending());
        let summary = run(input("1\n2\n"), async |_| pending().await, signals).await;
        assert_eq!((totals(&summary), again.elapsed()), ([0, 2, 0], CALL * 2));
    }

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("streamer-{name}-{}", std::process::id()))
    }

    /// The file keeps recipients, ids, payloads and expiries, and a run that reads it sends the same messages.
    #[tokio::test(start_paused = true)]
    async fn failed_file_is_sent_again_with_same_ids() {
        let path = temporary("unsent");
        let (first, second) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let send = async |message: Message| {
            first.borrow_mut().extend(message.encode());
            Err(timed_out())
        };
        let parse = |line: &str| {
            let to = Message::connections(["a", "b"]).request("r").expires_in(Duration::from_secs(60));
            to.json(line).map_err(|error| error.to_string())
        };
        let sender = Sender::new(None, Some(UnsentFile::open(&path).unwrap()));
        let lines = Lines::new(input("{ \"a\": 1.0 }\n\"é\"\n{\n"));
        let (summary, _) = sender.run(lines, parse, send, stream::pending()).await;
        assert_eq!(totals(&summary), [0, 2, 1]);
        assert!(
            UnsentFile::open(&path).unwrap_err().to_string().contains("--retry"),
            "it is not overwritten"
        );

        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let send = async |message: Message| {
            second.borrow_mut().extend(message.encode());
            Ok(())
        };
        let decode = |line: &str| Message::decode(line).map_err(|error| error.to_string());
        let lines = Lines::new(input(&text));
        let (summary, _) = Sender::default().run(lines, decode, send, stream::pending()).await;
        let kept: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!((totals(&summary), &kept), ([2, 0, 0], &second.take()));
        assert_eq!(first.take(), kept[..1], "the second line was not tried");
    }

    #[test]
    fn file_without_unsent_messages_is_removed() {
        let path = temporary("empty");
        UnsentFile::open(&path).unwrap().close();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        UnsentFile::open(&path).unwrap().close();
        assert!(path.exists(), "another program created it");
        fs::remove_file(path).unwrap();
    }
}
