//! What operators ask of running proxies, the same over the socket and in a cluster.
//!
//! Who changes what a proxy does is in the control plane's log, whether it worked or not.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use weft_proto::weft::{ReadConfiguration, ReadLogLevel, SetLogLevel};

use super::Facts;
use crate::serve::operations::{Answer, AskError, Question};

/// For one question. 15 s: the proxy refuses by itself what takes it longer than 10 s.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Of what somebody says of themselves.
const LONGEST_WORD: usize = 128;

/// A question under way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Answer, AskError>> + Send + 'a>>;

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// What is proved of them: a user, an account.
    pub proved: String,
    said: String,
}

impl Author {
    /// `said` is what they call themselves, which nobody proves.
    pub fn new(proved: impl Into<String>, said: &str) -> Self {
        let printable = |one: char| if one.is_control() { ' ' } else { one };
        Self { proved: proved.into(), said: said.chars().take(LONGEST_WORD).map(printable).collect() }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.said.as_str() {
            "" => f.write_str(&self.proved),
            said => write!(f, "{} (who says `{said}`)", self.proved),
        }
    }
}

/// The level of the log of a proxy.
pub async fn log_level(facts: &dyn Facts, workload: &str) -> Result<LevelFilter, AskError> {
    level(facts.ask(workload, Question::ReadLogLevel(ReadLogLevel {})).await?)
}

/// Changes the level of the log of a proxy until it ends; gives the one then in force.
pub async fn set_log_level(
    facts: &dyn Facts,
    workload: &str,
    wanted: LevelFilter,
    author: &Author,
) -> Result<LevelFilter, AskError> {
    let question = Question::SetLogLevel(SetLogLevel { level: wanted.to_string() });
    let result = facts.ask(workload, question).await.and_then(level);
    match &result {
        Ok(_) => tracing::info!(workload, level = %wanted, %author, "the log level of a proxy was changed"),
        Err(reason) => {
            tracing::warn!(workload, level = %wanted, %author, %reason, "the log level of a proxy was not changed");
        }
    }
    result
}

/// What a proxy runs with, in JSON, in its own words.
pub async fn configuration(facts: &dyn Facts, workload: &str) -> Result<Vec<u8>, AskError> {
    match facts.ask(workload, Question::ReadConfiguration(ReadConfiguration {})).await? {
        Answer::Configuration(dump) => Ok(dump),
        other => Err(unfit(&other)),
    }
}

fn level(answer: Answer) -> Result<LevelFilter, AskError> {
    match answer {
        Answer::LogLevel(level) => Ok(level),
        other => Err(unfit(&other)),
    }
}

/// The stream lets no such answer pass.
fn unfit(answer: &Answer) -> AskError {
    let kind = match answer {
        Answer::LogLevel(_) => "a log level",
        Answer::Configuration(_) => "a configuration",
        Answer::Upgraded => "an upgrade",
    };
    AskError::Refused(format!("it answered with {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_what_is_proved_and_what_is_said_cannot_pass_for_it() {
        assert_eq!(Author::new("uid 1000", "").to_string(), "uid 1000");
        assert_eq!(Author::new("uid 1000", "eve\nlevel=x").to_string(), "uid 1000 (who says `eve level=x`)");
        assert!(Author::new("uid 1", &"x".repeat(10_000)).to_string().len() < 200);
    }
}
