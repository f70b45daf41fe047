//! HTTP/2 by the letter: frames made by hand, and how the gateway reacts to each (`h2spec/cases.txt`).

mod script;

use std::time::Duration;

use h2::Reason;
use standfast_runtime::{Clock, Net};
use tokio::io::AsyncWriteExt;

use crate::h2::status_of;
use crate::h2_rig::{Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw, SETTINGS, frame};
use crate::replica::Replica;
use crate::rig::{Rig, eventually};
use script::{Case, Reaction};

/// What a PING carries that asks whether the connection still lives.
const ALIVE: &[u8] = b"alive?!!";
const ACK: u8 = 1;
/// After this nothing more is expected of a case.
const SILENCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_met_as_the_table_says() {
    let replica = Replica::start().await;
    let rig = Rig::before(&[&replica]);
    let cases = script::read(include_str!("h2spec/cases.txt"));
    let mut wrong = Vec::new();
    for case in &cases {
        let seen_before = replica.seen_count();
        let (reaction, then_lives) = react(&rig, case).await;
        let is_as_said = case.is_cut || then_lives == case.expected.leaves_the_connection();
        if reaction != case.expected || !is_as_said {
            wrong.push(format!("{}: {reaction:?}, then lives: {then_lives}", case.name));
        }
        if case.by_rfc.contains(&case.expected) == case.has_remark {
            wrong.push(format!("{}: a remark belongs where the RFC is not followed", case.name));
        }
        let seen = replica.seen_count() - seen_before;
        if seen > case.seen_max {
            wrong.push(format!("{}: the replica saw {seen} requests", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 100, "{}", cases.len());
    // Whatever was said there, others are served, and nothing is left of it.
    assert_eq!(rig.client().await.get("/").await.status, 200);
    eventually("no connection is left behind", || rig.gateway.stats().connections == 0).await;
}

/// Sends a case's frames on a connection of its own, and tells what comes of them and whether the connection outlives it.
async fn react(rig: &Rig, case: &Case) -> (Reaction, bool) {
    let mut raw = Raw(Net::real().connect_tcp(rig.public).await.unwrap());
    if !case.is_bare {
        raw.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
    }
    for step in &case.steps {
        match step {
            // The gateway may have ended the connection before the last of it.
            script::Step::Write(bytes) => drop(raw.0.write_all(bytes).await),
            script::Step::Await(kind) => drop(raw.next(*kind).await),
        }
    }
    if !case.is_cut {
        let _refused_before = raw.0.write_all(&frame(PING, 0, 0, ALIVE)).await;
    }
    let mut seen = Seen::default();
    let reacting = async { while !seen.is_enough(case.about) && seen.take(raw.read().await, case.about) {} };
    let _over_or_silent = Clock::system().timeout(SILENCE, reacting).await;
    (seen.reaction(case.about), seen.is_alive)
}

/// What was seen on a connection.
#[derive(Debug, Default)]
struct Seen {
    of_stream: Option<Reaction>,
    goes_away: Option<Reason>,
    is_alive: bool,
    is_closed: bool,
}

impl Seen {
    /// Takes a frame in; false at the end.
    fn take(&mut self, frame: Option<Frame>, about: u32) -> bool {
        let Some(frame) = frame else {
            (self.is_closed, self.is_alive) = (true, false);
            return false;
        };
        match frame.kind {
            GOAWAY => self.goes_away = Some(reason(&frame, 4)),
            RST_STREAM if frame.stream == about => {
                self.of_stream.get_or_insert(Reaction::Reset(reason(&frame, 0)));
            }
            HEADERS if frame.stream == about => {
                self.of_stream.get_or_insert(Reaction::Answered(status_of(&frame.payload)));
            }
            PING if frame.flags == ACK && frame.payload == ALIVE => self.is_alive = true,
            _ => {}
        }
        true
    }

    /// Behind a GOAWAY the end must follow.
    fn is_enough(&self, about: u32) -> bool {
        self.is_alive && self.goes_away.is_none() && (about == 0 || self.of_stream.is_some())
    }

    fn reaction(&self, about: u32) -> Reaction {
        match (self.goes_away, self.of_stream) {
            // Asked to leave, it answers what it was asked for before.
            (Some(Reason::NO_ERROR), Some(reaction)) => reaction,
            (Some(reason), _) if self.is_closed => Reaction::GoAway(reason),
            (_, Some(reaction)) => reaction,
            _ if self.is_closed => Reaction::Closed,
            _ if self.is_alive && about == 0 => Reaction::Alive,
            _ => Reaction::Silent,
        }
    }
}

fn reason(frame: &Frame, at: usize) -> Reason {
    u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap()).into()
}
