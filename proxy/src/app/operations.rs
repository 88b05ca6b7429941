//! Answers what operators ask of this proxy, through the control plane it is connected to.
//!
//! One stream beside the configuration's, over the same connection: it is opened on each new connection and ends with it, so
//! that both are at the same replica. One that ends by itself is opened again after a wait; a control plane that knows no such
//! stream is asked once a connection. Questions are answered side by side, [`MOST_QUESTIONS`] at most: one more is refused at
//! once, and one that takes too long is refused then. Nothing here is on the way of any traffic.
//!
//! What is under way when the stream ends is dropped: a handler spawns what must not be.

mod handlers;
mod program;

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use weft_proto::weft::operations_client::OperationsClient;
use weft_proto::weft::{Answer, Introduction, Question, answer};

use super::report::Connected;
use crate::clock;
use crate::xds::backoff::Backoff;

pub(super) use handlers::Handlers;

/// Under way at once, until the control plane has taken the answer; each may hold a whole configuration. 4: operators are few.
const MOST_QUESTIONS: usize = 4;
/// Refusals of questions beyond that which the control plane has not taken yet; one that takes none is given up.
const MOST_REFUSALS: usize = 16;
/// Questions are words and numbers.
const LARGEST_QUESTION: usize = 64 << 10;
/// Longest time until the stream's headers, which a control plane that is starting may hold back.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// A stream that lived so long was a good one: the next wait is short again.
const GOOD_STREAM: Duration = Duration::from_secs(1);

/// Answers until nobody connects any more. `reconnect` opens a connection with the certificate in force: the one of
/// `connected` may outlive the certificate it was made with.
pub(super) async fn run<F, R>(
    workload: String,
    handlers: Handlers,
    mut connected: Connected,
    reconnect: F,
    mut backoff: Backoff,
) where
    F: Fn() -> R,
    R: Future<Output = Option<Channel>>,
{
    let mut introduction = None;
    let mut newer = None;
    loop {
        let Some(channel) = newer.take().or_else(|| connected.borrow_and_update().clone()) else {
            match connected.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        if introduction.is_none() {
            introduction = Some(introduce(&workload, handlers.upgrades.is_some()).await);
        }
        let introduction = introduction.clone().unwrap_or_default();
        let began = clock::now();
        let end = tokio::select! {
            end = serve(channel, introduction, &handlers) => Some(end),
            changed = connected.changed() => {
                if changed.is_err() {
                    return;
                }
                None
            }
        };
        let Some(end) = end else {
            backoff.reset();
            continue;
        };
        tracing::debug!(code = ?end.code(), reason = end.message(), "the stream of questions ended");
        if clock::now().duration_since(began) >= GOOD_STREAM {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        tokio::select! {
            changed = connected.changed() => {
                if changed.is_err() {
                    return;
                }
                backoff.reset();
            }
            () = tokio::time::sleep(wait), if end.code() != Code::Unimplemented => {
                if end.code() == Code::Unauthenticated {
                    newer = reconnect().await;
                }
            }
        }
    }
}

/// Who we are. The program is read once, when there is first somebody to tell.
async fn introduce(workload: &str, replaceable: bool) -> Introduction {
    let digest = match program::digest().await {
        Ok(digest) => digest,
        Err(error) => {
            tracing::debug!(%error, "the program of this proxy cannot be read");
            String::new()
        }
    };
    Introduction {
        workload: workload.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        digest,
        architecture: std::env::consts::ARCH.to_owned(),
        replaceable,
    }
}

/// One stream, to its end.
async fn serve(channel: Channel, introduction: Introduction, handlers: &Handlers) -> Status {
    match converse(channel, introduction, handlers).await {
        Ok(()) => Status::unavailable("the control plane ended the stream"),
        Err(status) => status,
    }
}

async fn converse(channel: Channel, introduction: Introduction, handlers: &Handlers) -> Result<(), Status> {
    let (answers, outgoing) = mpsc::channel(1);
    let unread = || Status::resource_exhausted("the control plane takes no answers");
    let first = Answer { number: 0, answer: Some(answer::Answer::Introduction(introduction)) };
    answers.try_send(first).map_err(|_| unread())?;
    let source = channel.clone();
    let mut client = OperationsClient::new(channel).max_decoding_message_size(LARGEST_QUESTION);
    let opening = tokio::time::timeout(OPEN_LIMIT, client.serve(ReceiverStream::new(outgoing)));
    let opened = opening.await.map_err(|_| Status::deadline_exceeded(format!("no stream within {OPEN_LIMIT:?}")))?;
    let mut questions = opened?.into_inner();
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            question = questions.message() => {
                let Some(Question { number, question }) = question? else { return Ok(()) };
                let (is_one_too_many, answers, source) = (under_way.len() >= MOST_QUESTIONS, &answers, &source);
                if under_way.len() >= MOST_QUESTIONS + MOST_REFUSALS {
                    return Err(unread());
                }
                under_way.push(async move {
                    let reply = match question {
                        question if is_one_too_many => handlers::busy(question.as_ref()),
                        question => handlers.answer(question, source).await,
                    };
                    for answer in reply.messages() {
                        if answers.send(Answer { number, answer: Some(answer) }).await.is_err() {
                            // The reading side tells why.
                            return;
                        }
                    }
                });
            }
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests;
