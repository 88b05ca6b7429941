//! One handler for each question.

use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;
use weft_proto::weft::answer::Answer;
use weft_proto::weft::question::Question;
use weft_proto::weft::{ConfigurationPart, ReadLogLevel, SetLogLevel, Upgraded};

use crate::admin::Admin;
use crate::app::upgrade::Upgrades;
use crate::telemetry;

/// From a question to its answer. 10 s: a whole configuration is written in less, and whoever asked still waits.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The same for another program: a minute until it is here, a minute until it is configured, and a little more. Whoever asked
/// waits longer.
const UPGRADE_LIMIT: Duration = Duration::from_secs(140);
/// Longest configuration: that of a few thousand services. The control plane takes no longer one.
const LONGEST_CONFIGURATION: usize = 16 << 20;
/// Of one message; the control plane takes no larger one from a proxy that it did not ask.
const LARGEST_PART: usize = 64 << 10;

/// What questions are answered from.
#[derive(Debug, Clone)]
pub(in crate::app) struct Handlers {
    pub(in crate::app) admin: Admin,
    /// `None` where this program cannot be replaced while it runs.
    pub(in crate::app) upgrades: Option<Upgrades>,
}

/// What is said to a question.
#[derive(Debug)]
pub(super) enum Reply {
    Whole(Answer),
    /// A configuration, which goes in parts.
    Parts(Vec<u8>),
}

impl Reply {
    /// The messages of it, in order; never none.
    pub(super) fn messages(self) -> impl Iterator<Item = Answer> {
        let (whole, dump) = match self {
            Self::Whole(answer) => (Some(answer), Vec::new()),
            Self::Parts(dump) => (None, dump),
        };
        let mut rest = whole.is_none().then(|| Bytes::from(dump));
        let parts = std::iter::from_fn(move || {
            let mut left = rest.take()?;
            let data = left.split_to(left.len().min(LARGEST_PART)).to_vec();
            let is_last = left.is_empty();
            if !is_last {
                rest = Some(left);
            }
            Some(Answer::Configuration(ConfigurationPart { data, is_last }))
        });
        whole.into_iter().chain(parts)
    }
}

impl Handlers {
    /// The answer to a question, in one message or several; `None` is a question that only a later version knows. It came by
    /// `source`.
    pub(super) async fn answer(&self, question: Option<Question>, source: &Channel) -> Reply {
        let label = label(question.as_ref());
        let limit = if matches!(question, Some(Question::Upgrade(_))) { UPGRADE_LIMIT } else { ANSWER_LIMIT };
        let (reply, result) = match tokio::time::timeout(limit, self.handle(question, source)).await {
            Ok(Ok(reply)) => (reply, "answered"),
            Ok(Err(refusal)) => (Reply::Whole(Answer::Refusal(refusal)), "refused"),
            Err(_) => {
                let refusal = format!("no answer could be had within {limit:?}");
                (Reply::Whole(Answer::Refusal(refusal)), "late")
            }
        };
        count(label, result);
        reply
    }

    async fn handle(&self, question: Option<Question>, source: &Channel) -> Result<Reply, String> {
        match question {
            Some(Question::ReadLogLevel(ReadLogLevel {})) => level().map(Answer::LogLevel).map(Reply::Whole),
            Some(Question::SetLogLevel(SetLogLevel { level })) => {
                set_level(&level).map(Answer::LogLevel).map(Reply::Whole)
            }
            Some(Question::ReadConfiguration(_)) => self.configuration(LONGEST_CONFIGURATION).await,
            Some(Question::Upgrade(offer)) => {
                let Some(upgrades) = &self.upgrades else {
                    return Err("this program cannot be replaced while it runs".to_owned());
                };
                let taken = upgrades.take(source.clone(), offer).await;
                taken.map(|()| Reply::Whole(Answer::Upgraded(Upgraded {}))).map_err(|error| error.to_string())
            }
            None => Err(format!(
                "version {} does not know this question; update the proxy to that of the control plane",
                env!("CARGO_PKG_VERSION")
            )),
        }
    }

    /// Off the asynchronous threads: that of a large mesh takes a moment.
    async fn configuration(&self, longest: usize) -> Result<Reply, String> {
        let admin = self.admin.clone();
        let dump = tokio::task::spawn_blocking(move || serde_json::to_vec(&admin.configuration()));
        let dump = dump.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if dump.len() > longest {
            return Err(format!(
                "the configuration is {} MiB long, more than the {} MiB an answer may be; ask the proxy's own admin \
                 endpoint for /config_dump",
                dump.len() >> 20,
                longest >> 20
            ));
        }
        Ok(Reply::Parts(dump))
    }
}

fn level() -> Result<String, String> {
    telemetry::log_level().map(|level| level.to_string()).ok_or_else(no_log)
}

fn set_level(name: &str) -> Result<String, String> {
    let Some(level) = telemetry::level_of_name(name) else { return Err(telemetry::LEVELS.to_owned()) };
    if !telemetry::set_log_level(level) {
        return Err(no_log());
    }
    tracing::info!(%level, "the log level was changed through the control plane");
    Ok(level.to_string())
}

fn no_log() -> String {
    "no log was started here".to_owned()
}

/// What is said to one question too many.
pub(super) fn busy(question: Option<&Question>) -> Reply {
    count(label(question), "busy");
    Reply::Whole(Answer::Refusal("too many questions are under way; ask again".to_owned()))
}

fn count(question: &'static str, result: &'static str) {
    metrics::counter!("weft_operations_total", "question" => question, "result" => result).increment(1);
}

fn label(question: Option<&Question>) -> &'static str {
    match question {
        Some(Question::ReadLogLevel(_)) => "read_log_level",
        Some(Question::SetLogLevel(_)) => "set_log_level",
        Some(Question::ReadConfiguration(_)) => "read_configuration",
        Some(Question::Upgrade(_)) => "upgrade",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_goes_in_parts_of_which_one_is_the_last() {
        for length in [0, 1, LARGEST_PART, LARGEST_PART + 1, 3 * LARGEST_PART] {
            let dump: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut gathered = Vec::new();
            let mut ends = Vec::new();
            for message in Reply::Parts(dump.clone()).messages() {
                let Answer::Configuration(part) = message else { panic!("{message:?}") };
                assert!(part.data.len() <= LARGEST_PART);
                gathered.extend(part.data);
                ends.push(part.is_last);
            }
            assert_eq!(gathered, dump);
            assert!(ends.pop() == Some(true) && !ends.contains(&true), "{length}");
        }
        let whole: Vec<Answer> = Reply::Whole(Answer::Refusal("no".to_owned())).messages().collect();
        assert_eq!(whole, [Answer::Refusal("no".to_owned())]);
    }
}
