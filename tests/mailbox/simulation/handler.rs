//! The handler of syncs: register, then page, then post.

use std::rc::Rc;

use streamer_mailbox::{Device, Page, PageLimits};
use streamer_message::{
    Payload, StreamName,
    frame::{ClientFrame, Missing, MissingReason, PageFrame, PageMessage, ServerFrame},
};
use streamer_tests::mailbox::Defect;

use super::{
    mutants::Mutant,
    world::{World, connection, pause},
};
use crate::stream;

/// About four messages.
const LIMITS: PageLimits = PageLimits { bytes: 240, payload_bytes: 127 * 1024, reads: 2 };

/// Answers a sync. A call that fails ends it without an answer.
pub(crate) async fn answer(world: Rc<World>, socket: u32, text: String) {
    let Ok(ClientFrame::Sync(sync)) = ClientFrame::decode(&text) else { panic!("{text}") };
    let device = Device {
        connection: connection(socket),
        endpoint: "https://ws.example.com".to_owned(),
        expires_at: world.expires_at(socket),
    };
    let defect = match world.mutant {
        Some(Mutant::StaleHead) => Some(Defect::OldHead),
        Some(Mutant::RegisteredAfterHead) if sync.hello => Some(Defect::LateDevice(stream(), device.clone())),
        _ => None,
    };
    let registers = sync.hello && !matches!(defect, Some(Defect::LateDevice(..)));
    let mailbox = world.mailbox(defect);
    if registers && mailbox.register(&stream(), &device).await.is_err() {
        return;
    }
    let page = mailbox.page(&stream(), &sync.streams[0].start(), LIMITS, world.now()).await;
    let Ok(mut page) = page else { return };
    match world.mutant {
        Some(Mutant::MissingLeftOut) => page.missing.clear(),
        Some(Mutant::TopReadAfterQuery) => {
            pause().await;
            read_top_again(&world, &mut page);
        }
        _ => {}
    }
    pause().await;
    world.post(socket, &frame(&page, sync.n));
}

/// Changes a page as if `top` had been read after the messages.
fn read_top_again(world: &World, page: &mut Page) {
    let top = world.table.peek(&stream()).map_or(page.top, |head| head.top.max(page.top));
    if page.through == page.top && top > page.top {
        page.missing.push(Missing { from: page.top + 1, to: top, reason: MissingReason::Expired });
        (page.through, page.top) = (top, top);
    }
}

fn frame(page: &Page, n: u64) -> String {
    let messages = page.messages.iter().map(|(seq, message)| PageMessage {
        seq: *seq,
        id: &message.id,
        ack: false,
        payload: Payload::from_json(message.body.clone()).unwrap(),
    });
    let frame = ServerFrame::Page(PageFrame {
        n,
        stream: StreamName::User,
        epoch: &page.epoch,
        after: page.after,
        through: page.through,
        top: page.top,
        messages: messages.collect(),
        missing: page.missing.clone(),
        reset: page.reset,
        expires_in: 7200,
        now: 0,
    });
    serde_json::to_string(&frame).unwrap()
}
