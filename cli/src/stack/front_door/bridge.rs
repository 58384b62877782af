//! Passes on what client and emulator send after the handshake.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf, split},
    join, select,
    time::{Instant, sleep_until, timeout},
};

use super::{
    faults::ConnectionFaults,
    limits::{ClientFrames, Close, Limits},
    pipe::Pipe,
};

/// Time for a close: for the rest of a frame, the close frames, and both sides to end their connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes on bytes in both directions until both sides have closed, either has reset its connection, or a limit is
/// reached. A side that does not read holds the other one back: at most 8 KiB wait here for each direction.
///
/// Bytes pass, not messages: a WebSocket library would answer pings itself, join fragments and refuse close codes.
/// No extension is negotiated, so the bytes are plain frames in both directions.
///
/// # Errors
/// When a side has broken its connection.
pub(super) async fn bridge<C, E>(
    client: C,
    emulator: E,
    limits: Limits,
    mut faults: ConnectionFaults,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    E: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = split(client);
    let (from_emulator, to_emulator) = split(emulator);
    let bridge = Bridge {
        up: Pipe::new(from_client, to_emulator, Some(ClientFrames::default())),
        down: Pipe::new(from_emulator, to_client, None),
    };
    let run = bridge.run(limits, faults.clone());
    select! {
        biased;
        () = faults.cut() => Ok(()),
        result = run => result,
    }
}

/// The two directions of a connection.
struct Bridge<C, E> {
    /// From the client to the emulator.
    up: Pipe<ReadHalf<C>, WriteHalf<E>>,
    /// From the emulator to the client.
    down: Pipe<ReadHalf<E>, WriteHalf<C>>,
}

impl<C, E> Bridge<C, E>
where
    C: AsyncRead + AsyncWrite,
    E: AsyncRead + AsyncWrite,
{
    async fn run(mut self, limits: Limits, mut faults: ConnectionFaults) -> io::Result<()> {
        let opened_at = Instant::now();
        let close = loop {
            faults.unstalled().await;
            let Self { up, down } = &mut self;
            if let Some(close) = up.refused() {
                break close;
            }
            if up.has_ended() && down.has_ended() {
                return Ok(());
            }
            let idle_at = up.active_at().max(down.active_at()) + limits.idle;
            // A busy direction must not keep the other one waiting, so a fair choice decides between them.
            let step = async {
                select! {
                    result = up.step(), if !up.has_ended() => result,
                    result = down.step(), if !down.has_ended() => result,
                }
            };
            select! {
                biased;
                () = faults.stalled() => {}
                () = sleep_until(idle_at.min(opened_at + limits.lifetime)) => break Close::GoingAway,
                result = step => result?,
            }
        };
        // A side that does not take part in time sees a broken connection.
        _ = timeout(CLOSE_TIMEOUT, self.close(close)).await;
        Ok(())
    }

    /// Sends a close frame to the client and ends both connections. The emulator then invokes `$disconnect`. It gets no
    /// close frame, since it would not pass on the code.
    async fn close(mut self, close: Close) {
        let Self { up, down } = &mut self;
        let frame = close_frame(close);
        // One side may have broken its connection, which is no reason to break the other one.
        _ = join!(down.close(&frame), up.end());
        // A socket that is dropped with unread bytes resets its connection, which may overtake the close frame.
        join!(up.discard(), down.discard());
    }
}

/// Returns a server's close frame (RFC 6455, section 5.5.1).
fn close_frame(close: Close) -> Vec<u8> {
    let (code, reason) = close.status();
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    [&[0x88, payload.len() as u8], &payload[..]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        runtime::Builder,
        task::JoinHandle,
        time::sleep,
    };

    use super::{
        super::{
            faults::Faults,
            frames::{BINARY, CONTINUATION, PING, TEXT},
            limits::{FRAME_BYTES, MESSAGE_BYTES},
        },
        *,
    };

    const FRAME: usize = FRAME_BYTES as usize;
    const MINUTE: Duration = Duration::from_secs(60);
    /// Longer than an exchange in memory takes, and shorter than the time of any limit.
    const MOMENT: Duration = Duration::from_secs(1);

    const GOING_AWAY: &[u8] = b"\x88\x0c\x03\xe9Going away";
    const TOO_BIG: &[u8] = b"\x88\x02\x03\xf1";
    const NO_BINARY: &[u8] = b"\x88\x02\x03\xeb";

    /// A bridge between two ends in memory.
    struct Ends {
        client: DuplexStream,
        emulator: DuplexStream,
        faults: Faults,
        bridge: JoinHandle<io::Result<()>>,
    }

    impl Ends {
        /// Opens a bridge between ends that hold up to `capacity` unread bytes.
        fn open(capacity: usize) -> Self {
            Self::with([capacity; 2])
        }

        /// Opens a bridge between a client and an emulator that hold this number of unread bytes.
        fn with(capacities: [usize; 2]) -> Self {
            let [(client, near), (emulator, far)] = capacities.map(duplex);
            let faults = Faults::default();
            let bridge = bridge(near, far, Limits::default(), faults.of_connection());
            Self { client, emulator, faults, bridge: tokio::spawn(bridge) }
        }

        /// Sends `sent` as the client and asserts that the emulator receives it.
        async fn pass_up(&mut self, sent: &[u8]) {
            pass(sent, &mut self.client, &mut self.emulator).await;
        }

        /// Sends `sent` as the emulator and asserts that the client receives it.
        async fn pass_down(&mut self, sent: &[u8]) {
            pass(sent, &mut self.emulator, &mut self.client).await;
        }

        /// Sends these bytes as client and emulator, and asserts that neither receives anything for a time.
        async fn assert_silent_for(&mut self, time: Duration, up: &[u8], down: &[u8]) {
            self.client.write_all(up).await.unwrap();
            self.emulator.write_all(down).await.unwrap();
            let (mut at_client, mut at_emulator) = ([0; 1], [0; 1]);
            let any = async {
                select! {
                    read = self.client.read(&mut at_client) => read,
                    read = self.emulator.read(&mut at_emulator) => read,
                }
            };
            assert!(timeout(time, any).await.is_err(), "a byte or the end has passed");
        }

        /// Asserts that each side receives these bytes and the end of its connection.
        async fn assert_ends(self, client: &[u8], emulator: &[u8]) {
            let Self { client: mut at_client, emulator: mut at_emulator, bridge, .. } = self;
            let rests = async { join!(rest(&mut at_client), rest(&mut at_emulator)) };
            let (rest_of_client, rest_of_emulator) = timeout(MOMENT, rests).await.expect("no end");
            assert_eq!((&rest_of_client[..], &rest_of_emulator[..]), (client, emulator));
            drop((at_client, at_emulator));
            timeout(MOMENT, bridge).await.expect("the bridge goes on").unwrap().unwrap();
        }
    }

    async fn pass(sent: &[u8], from: &mut DuplexStream, to: &mut DuplexStream) {
        let mut received = vec![0; sent.len()];
        let (written, read) = join!(from.write_all(sent), to.read_exact(&mut received));
        written.and(read.map(drop)).unwrap();
        assert!(received == sent, "{} bytes arrived changed", sent.len());
    }

    /// Reads until the other side ends.
    async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        rest
    }

    /// Returns the shortest header for a payload of this length.
    fn header(first: u8, length: usize, masking_key: Option<[u8; 4]>) -> Vec<u8> {
        let mask = if masking_key.is_some() { 0x80 } else { 0 };
        let mut header = match length {
            0..126 => vec![first, mask | length as u8],
            126..65_536 => vec![first, mask | 126, (length >> 8) as u8, length as u8],
            _ => [&[first, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        header.extend(masking_key.into_iter().flatten());
        header
    }

    /// Returns a client's frame, the last or another one of its message.
    fn frame(is_last: bool, opcode: u8, length: usize) -> Vec<u8> {
        let first = if is_last { 0x80 | opcode } else { opcode };
        let payload = (0..length).map(|index| index as u8);
        header(first, length, Some([7, 6, 5, 4])).into_iter().chain(payload).collect()
    }

    /// Returns a server's whole message.
    fn answer(length: usize) -> Vec<u8> {
        [header(0x80 | TEXT, length, None), vec![b'a'; length]].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn larger_frame_closes_with_1009() {
        let mut ends = Ends::open(100);
        ends.pass_up(&frame(true, TEXT, FRAME)).await;
        let larger = frame(true, TEXT, FRAME + 1);
        ends.client.write_all(&larger[..50]).await.unwrap();
        ends.assert_ends(TOO_BIG, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn larger_message_closes_with_1009() {
        let mut ends = Ends::open(100);
        for _ in 0..2 {
            ends.pass_up(&frame(false, TEXT, FRAME)).await;
            ends.pass_up(&frame(true, PING, 125)).await;
            for _ in 0..3 {
                ends.pass_up(&frame(false, CONTINUATION, FRAME)).await;
            }
            ends.pass_up(&frame(true, CONTINUATION, 0)).await;
        }
        ends.pass_up(&frame(false, TEXT, 1)).await;
        for _ in 0..3 {
            ends.pass_up(&frame(false, CONTINUATION, FRAME)).await;
        }
        ends.client.write_all(&frame(true, CONTINUATION, FRAME)[..8]).await.unwrap();
        ends.assert_ends(TOO_BIG, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn length_beyond_63_bits_closes_with_1009() {
        for first in [0x81, 0x89] {
            let mut ends = Ends::open(100);
            ends.client.write_all(&[&[first, 0xff][..], &[0xff; 8], &[1, 2, 3, 4]].concat()).await.unwrap();
            ends.assert_ends(TOO_BIG, b"").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn binary_frame_closes_with_1003() {
        let mut ends = Ends::open(100);
        ends.client.write_all(&frame(true, BINARY, 0)).await.unwrap();
        ends.assert_ends(NO_BINARY, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn frames_before_the_refused_one_pass() {
        let mut ends = Ends::open(1000);
        let first = [frame(true, TEXT, 100), frame(true, PING, 3)].concat();
        ends.client.write_all(&[&first[..], &frame(true, BINARY, 5)].concat()).await.unwrap();
        ends.assert_ends(NO_BINARY, &first).await;
    }

    /// A header that has passed in part is not completed.
    #[tokio::test(start_paused = true)]
    async fn refused_header_may_arrive_in_bytes() {
        let mut ends = Ends::open(100);
        let header = header(0x80 | TEXT, 1 << 16, Some([0; 4]));
        for byte in &header[..header.len() - 1] {
            ends.pass_up(&[*byte]).await;
        }
        ends.client.write_all(&header[header.len() - 1..]).await.unwrap();
        ends.assert_ends(TOO_BIG, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn emulator_may_send_anything() {
        let mut ends = Ends::open(100);
        for opcode in [TEXT, BINARY] {
            let length = 2 * MESSAGE_BYTES as usize;
            ends.pass_down(&[header(0x80 | opcode, length, None), vec![0; length]].concat()).await;
        }
        ends.pass_down(&[0x81, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_closes_with_1001() {
        let ends = Ends::open(100);
        sleep(10 * MINUTE - MOMENT).await;
        assert!(!ends.bridge.is_finished());
        sleep(MOMENT).await;
        ends.assert_ends(GOING_AWAY, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_both_sides_prevent_idle_close() {
        let mut ends = Ends::open(100);
        for _ in 0..4 {
            sleep(9 * MINUTE).await;
            ends.pass_up(&frame(true, TEXT, 0)).await;
            sleep(9 * MINUTE).await;
            ends.pass_down(&answer(1)).await;
        }
        // A slow message counts for as long as its bytes arrive.
        let slow = frame(true, TEXT, 3);
        for byte in &slow[..slow.len() - 1] {
            sleep(MINUTE).await;
            ends.pass_up(&[*byte]).await;
        }
        sleep(9 * MINUTE).await;
        ends.pass_up(&slow[slow.len() - 1..]).await;
        sleep(10 * MINUTE - MOMENT).await;
        assert!(!ends.bridge.is_finished());
        sleep(MOMENT).await;
        ends.assert_ends(GOING_AWAY, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn control_frames_do_not_prevent_idle_close() {
        let mut ends = Ends::open(100);
        for _ in 0..9 {
            sleep(MINUTE).await;
            ends.pass_up(&frame(true, PING, 3)).await;
            ends.pass_down(b"\x8a\x01p").await;
        }
        // The first byte of a header shows no message.
        ends.pass_up(&[0x89]).await;
        sleep(MINUTE).await;
        ends.assert_ends(GOING_AWAY, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connection_closes_after_2_h() {
        let mut ends = Ends::open(100);
        for _ in 0..119 {
            sleep(MINUTE).await;
            ends.pass_up(&frame(true, TEXT, 5)).await;
            ends.pass_down(&answer(5)).await;
        }
        sleep(MINUTE).await;
        ends.assert_ends(GOING_AWAY, b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn close_frame_follows_the_frame_in_progress() {
        // The close finds the frame after part of a header, after the header, and within the payload.
        for sent in [1, 3, 4, 200] {
            let (mut ends, answer) = (Ends::open(100_000), answer(20_000));
            ends.pass_down(&answer[..sent]).await;
            sleep(10 * MINUTE + MOMENT).await;
            // The next frame comes too late.
            ends.emulator.write_all(&[&answer[sent..], &answer].concat()).await.unwrap();
            ends.assert_ends(&[&answer[sent..], GOING_AWAY].concat(), b"").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn broken_frame_ends_without_close_frame() {
        let mut ends = Ends::open(100);
        ends.pass_down(&answer(50)[..20]).await;
        sleep(10 * MINUTE + MOMENT).await;
        ends.emulator.shutdown().await.unwrap();
        ends.assert_ends(b"", b"").await;
    }

    /// The client gets no close frame inside of a frame that never ends.
    #[tokio::test(start_paused = true)]
    async fn unfinished_frame_ends_without_close_frame() {
        let mut ends = Ends::open(100);
        let (up, down) = (frame(true, TEXT, 50), answer(50));
        ends.pass_up(&up[..20]).await;
        ends.pass_down(&down[..20]).await;
        sleep(10 * MINUTE + CLOSE_TIMEOUT).await;
        ends.assert_ends(b"", b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn close_frame_is_not_repeated() {
        let mut ends = Ends::open(100);
        ends.pass_down(b"\x88\x02\x03\xe8").await;
        ends.pass_up(b"\x88\x82\0\0\0\0\x03\xe8").await;
        sleep(10 * MINUTE).await;
        ends.assert_ends(b"", b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn unread_bytes_cannot_prevent_close() {
        let Ends { mut client, mut emulator, bridge, .. } = Ends::open(10);
        let blocked = (frame(true, TEXT, 30_000), answer(30_000));
        let write = async { join!(client.write_all(&blocked.0), emulator.write_all(&blocked.1)) };
        assert!(timeout(MINUTE, write).await.is_err());
        timeout(10 * MINUTE + CLOSE_TIMEOUT, bridge).await.expect("the bridge goes on").unwrap().unwrap();
        let (at_client, at_emulator) = join!(rest(&mut client), rest(&mut emulator));
        assert_eq!((at_client.len(), at_emulator.len()), (10, 10));
    }

    /// A client that is still sending gets the close frame, too.
    #[tokio::test(start_paused = true)]
    async fn client_may_go_on_sending_after_close() {
        let Ends { client, mut emulator, bridge, .. } = Ends::open(100);
        let (mut from_door, mut to_door) = split(client);
        let large = frame(true, TEXT, 1 << 20);
        let client = async {
            to_door.write_all(&large).await.unwrap();
            let mut close = vec![0; TOO_BIG.len()];
            from_door.read_exact(&mut close).await.unwrap();
            assert_eq!(close, TOO_BIG);
            to_door.shutdown().await.unwrap();
        };
        let (at_emulator, ()) = join!(rest(&mut emulator), client);
        assert_eq!(at_emulator, b"");
        drop(emulator);
        timeout(MOMENT, bridge).await.expect("the bridge goes on").unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn cut_ends_both_sides_without_close_frame() {
        for is_stalled in [false, true] {
            let mut ends = Ends::open(100);
            ends.pass_up(&frame(true, TEXT, 1)).await;
            ends.faults.stall(is_stalled);
            ends.faults.cut_all();
            ends.assert_ends(b"", b"").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn earlier_cut_spares_a_connection() {
        let faults = Faults::default();
        faults.cut_all();
        let ((mut client, near), (far, mut emulator)) = (duplex(100), duplex(100));
        tokio::spawn(bridge(near, far, Limits::default(), faults.of_connection()));
        pass(&frame(true, TEXT, 1), &mut client, &mut emulator).await;
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_bytes_pass_after_the_stall() {
        let mut ends = Ends::open(100);
        let (up, down) = (frame(true, TEXT, 20), answer(20));
        ends.pass_up(&up).await;
        ends.faults.stall(true);
        ends.assert_silent_for(9 * MINUTE, &up, &down).await;
        ends.faults.stall(false);
        let (mut at_client, mut at_emulator) = (vec![0; down.len()], vec![0; up.len()]);
        let received = async {
            join!(ends.client.read_exact(&mut at_client), ends.emulator.read_exact(&mut at_emulator))
        };
        timeout(MOMENT, received).await.expect("nothing passes").0.unwrap();
        assert_eq!((at_client, at_emulator), (down, up));
    }

    #[tokio::test(start_paused = true)]
    async fn stall_delays_the_close() {
        let mut ends = Ends::open(100);
        ends.pass_up(&frame(true, TEXT, 1)).await;
        ends.faults.stall(true);
        ends.assert_silent_for(3 * 60 * MINUTE, b"", b"").await;
        ends.faults.stall(false);
        ends.assert_ends(GOING_AWAY, b"").await;
    }

    /// Generates frames of a client or of the emulator. Those of a client are within the limits.
    fn frames(is_client: bool) -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![4 => 0..300_usize, 1 => FRAME - 2..=FRAME, 1 => 65_000..66_000_usize];
        let opcode = prop_oneof![2 => Just(TEXT), 2 => Just(CONTINUATION), 1 => Just(PING)];
        let any = (opcode, any::<bool>(), length, any::<[u8; 4]>());
        prop::collection::vec(any, 0..12).prop_map(move |frames| {
            let (mut bytes, mut message) = (Vec::new(), 0);
            for (opcode, is_last, length, key) in frames {
                let left = if opcode == CONTINUATION { 4 * FRAME - message } else { FRAME };
                let length = match opcode {
                    PING => length.min(125),
                    _ if is_client => length.min(FRAME).min(left),
                    _ => length,
                };
                match opcode {
                    PING => {}
                    CONTINUATION if is_client => message += length,
                    _ => message = length.min(FRAME),
                }
                let first = if is_last { 0x80 | opcode } else { opcode };
                bytes.extend(header(first, length, is_client.then_some(key)));
                bytes.extend(key.into_iter().cycle().take(length));
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Frames within the limits pass unchanged, at the same time in both directions, in pieces of any size.
        #[test]
        fn valid_frames_pass_in_any_pieces(
            up in frames(true),
            down in frames(false),
            capacities in prop::array::uniform2(prop_oneof![20..300_usize, Just(100_000)]),
            pieces in prop::collection::vec(prop_oneof![1..20_usize, 500..20_000_usize], 1..4),
        ) {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let exchange = exchange(Ends::with(capacities), &up, &down, &pieces);
                timeout(MINUTE, exchange).await.expect("the bridge stalls");
            });
        }
    }

    /// Sends bytes in both directions, ends both, and asserts that the same bytes arrive.
    async fn exchange(ends: Ends, up: &[u8], down: &[u8], pieces: &[usize]) {
        let send = async |mut to: WriteHalf<DuplexStream>, mut bytes: &[u8]| {
            for piece in pieces.iter().cycle() {
                let (first, rest) = bytes.split_at(bytes.len().min(*piece));
                to.write_all(first).await.unwrap();
                bytes = rest;
                if bytes.is_empty() {
                    break;
                }
            }
            to.shutdown().await.unwrap();
            to
        };
        let receive = async |mut from: ReadHalf<DuplexStream>, bytes: &[u8]| {
            let mut received = Vec::new();
            from.read_to_end(&mut received).await.unwrap();
            assert!(received == bytes, "{} of {} bytes arrived", received.len(), bytes.len());
            from
        };
        let ((from_up, to_up), (from_down, to_down)) = (split(ends.client), split(ends.emulator));
        _ = join!(send(to_up, up), send(to_down, down), receive(from_down, up), receive(from_up, down));
        ends.bridge.await.unwrap().unwrap();
    }
}
