//! What one proxy was asked and has not answered yet.
//!
//! An answer counts once, for a question of this stream, and in the form of that question; anything else is a proxy that does
//! not speak this protocol. A question whose asker has gone stays here until it is answered: its answer is then no offence.

use std::collections::BTreeMap;

use weft_proto::weft::ConfigurationPart;
use weft_proto::weft::answer::Answer as Message;
use weft_proto::weft::question::Question;
use weft_proxy::telemetry;

use super::{Answer, AskError};

/// Unanswered questions of one stream; a proxy refuses what it cannot answer, so it owes few.
pub(super) const MOST_UNANSWERED: usize = 16;
/// A whole configuration; proxies send no longer one.
const LONGEST_CONFIGURATION: usize = 16 << 20;
/// Words of a proxy for people, in bytes; what is longer is cut.
const LONGEST_REFUSAL: usize = 1 << 10;

/// What a question is about, which its answer must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ReadLogLevel,
    SetLogLevel,
    ReadConfiguration,
    Upgrade,
}

impl Kind {
    pub(super) fn of(question: &Question) -> Self {
        match question {
            Question::ReadLogLevel(_) => Self::ReadLogLevel,
            Question::SetLogLevel(_) => Self::SetLogLevel,
            Question::ReadConfiguration(_) => Self::ReadConfiguration,
            Question::Upgrade(_) => Self::Upgrade,
        }
    }

    /// As metrics call it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::ReadLogLevel => "read_log_level",
            Self::SetLogLevel => "set_log_level",
            Self::ReadConfiguration => "read_configuration",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Why a stream ends: what the proxy said belongs to nothing it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("answer {0} is to a question that was not asked, or was answered before")]
    NotAsked(u64),
    #[error("answer {0} is not in the form of its question")]
    Unfit(u64),
    #[error("answer {0} is longer than {LONGEST_CONFIGURATION} bytes")]
    TooLong(u64),
}

/// A stream's questions. `T` is what waits for an answer.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    last: u64,
    unanswered: BTreeMap<u64, Unanswered<T>>,
}

#[derive(Debug)]
struct Unanswered<T> {
    kind: Kind,
    waiting: T,
    /// The parts of a configuration that have come.
    gathered: Vec<u8>,
}

/// What waited, and what it is told.
pub(super) type Answered<T> = (T, Result<Answer, AskError>);

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self { last: 0, unanswered: BTreeMap::new() }
    }
}

impl<T> Ledger<T> {
    /// The number of a new question; what waits comes back where the proxy owes too many answers.
    pub(super) fn ask(&mut self, kind: Kind, waiting: T) -> Result<u64, T> {
        if self.unanswered.len() >= MOST_UNANSWERED {
            return Err(waiting);
        }
        self.last += 1;
        self.unanswered.insert(self.last, Unanswered { kind, waiting, gathered: Vec::new() });
        Ok(self.last)
    }

    /// Takes a message of the proxy; `None` while the answer is not whole.
    pub(super) fn answer(&mut self, number: u64, message: Option<Message>) -> Result<Option<Answered<T>>, Violation> {
        let mut unanswered = self.unanswered.remove(&number).ok_or(Violation::NotAsked(number))?;
        let result = match (unanswered.kind, message) {
            (_, Some(Message::Refusal(reason))) => Err(AskError::Refused(printable(&reason))),
            (Kind::ReadLogLevel | Kind::SetLogLevel, Some(Message::LogLevel(level))) => {
                Ok(Answer::LogLevel(telemetry::level_of_name(&level).ok_or(Violation::Unfit(number))?))
            }
            (Kind::ReadConfiguration, Some(Message::Configuration(ConfigurationPart { data, is_last }))) => {
                if unanswered.gathered.len() + data.len() > LONGEST_CONFIGURATION {
                    return Err(Violation::TooLong(number));
                }
                unanswered.gathered.extend_from_slice(&data);
                if !is_last {
                    self.unanswered.insert(number, unanswered);
                    return Ok(None);
                }
                Ok(Answer::Configuration(unanswered.gathered))
            }
            (Kind::Upgrade, Some(Message::Upgraded(_))) => Ok(Answer::Upgraded),
            _ => return Err(Violation::Unfit(number)),
        };
        Ok(Some((unanswered.waiting, result)))
    }
}

/// A proxy's words end up in logs and terminals.
fn printable(text: &str) -> String {
    let mut end = text.len().min(LONGEST_REFUSAL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;
    use weft_proto::weft::{Introduction, Upgraded};

    use super::*;

    const KINDS: [Kind; 4] = [Kind::ReadLogLevel, Kind::SetLogLevel, Kind::ReadConfiguration, Kind::Upgrade];

    fn level(text: &str) -> Message {
        Message::LogLevel(text.to_owned())
    }

    fn part(data: &[u8], is_last: bool) -> Message {
        Message::Configuration(ConfigurationPart { data: data.to_vec(), is_last })
    }

    #[test]
    fn an_answer_fits_its_question_or_ends_the_stream() {
        let debug = Ok(Answer::LogLevel(LevelFilter::DEBUG));
        let configuration = Ok(Answer::Configuration(b"{}".to_vec()));
        let cases = [
            (Some(level("debug")), [Some(debug.clone()), Some(debug), None, None]),
            (Some(level("loud")), [const { None }; 4]),
            (Some(level("")), [const { None }; 4]),
            (Some(part(b"{}", true)), [None, None, Some(configuration), None]),
            (Some(Message::Upgraded(Upgraded {})), [None, None, None, Some(Ok(Answer::Upgraded))]),
            (Some(Message::Introduction(Introduction::default())), [const { None }; 4]),
            (Some(Message::Refusal("no".to_owned())), KINDS.map(|_| Some(Err(AskError::Refused("no".to_owned()))))),
            (None, [const { None }; 4]),
        ];
        for (message, expected) in cases {
            for (kind, expected) in KINDS.into_iter().zip(expected) {
                let mut ledger = Ledger::default();
                let number = ledger.ask(kind, "asker").unwrap();
                let expected = expected.map(|result| Some(("asker", result))).ok_or(Violation::Unfit(number));
                assert_eq!(ledger.answer(number, message.clone()), expected, "{kind:?} {message:?}");
            }
        }
    }

    #[test]
    fn an_answer_counts_once_and_for_its_own_question() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.answer(0, Some(level("info"))), Err(Violation::NotAsked(0)));
        let first = ledger.ask(Kind::ReadLogLevel, 'a').unwrap();
        let second = ledger.ask(Kind::ReadLogLevel, 'b').unwrap();
        let told = |who, level| Ok(Some((who, Ok(Answer::LogLevel(level)))));
        assert_eq!(ledger.answer(second, Some(level("info"))), told('b', LevelFilter::INFO));
        for number in [second, second + 1, u64::MAX] {
            assert_eq!(ledger.answer(number, Some(level("info"))), Err(Violation::NotAsked(number)));
        }
        assert_eq!(ledger.answer(first, Some(level("warn"))), told('a', LevelFilter::WARN));
    }

    #[test]
    fn a_configuration_is_whole_with_its_last_part_and_never_too_long() {
        let mut ledger = Ledger::default();
        let first = ledger.ask(Kind::ReadConfiguration, 'a').unwrap();
        let second = ledger.ask(Kind::ReadConfiguration, 'b').unwrap();
        assert_eq!(ledger.answer(first, Some(part(b"{\"a\"", false))), Ok(None));
        assert_eq!(
            ledger.answer(second, Some(part(b"{}", true))),
            Ok(Some(('b', Ok(Answer::Configuration(b"{}".to_vec())))))
        );
        let whole = Answer::Configuration(b"{\"a\":1}".to_vec());
        assert_eq!(ledger.answer(first, Some(part(b":1}", true))), Ok(Some(('a', Ok(whole)))));
        assert_eq!(ledger.answer(first, Some(part(b"", true))), Err(Violation::NotAsked(first)));

        let endless = ledger.ask(Kind::ReadConfiguration, 'c').unwrap();
        let block = vec![b' '; 1 << 20];
        let mut taken = 0;
        let end = loop {
            match ledger.answer(endless, Some(part(&block, false))) {
                Ok(None) => taken += 1,
                other => break other,
            }
        };
        assert_eq!((taken, end), (16, Err(Violation::TooLong(endless))));
        let refused = ledger.ask(Kind::ReadConfiguration, 'd').unwrap();
        assert_eq!(ledger.answer(refused, Some(part(b"{", false))), Ok(None));
        let refusal = AskError::Refused("too long".to_owned());
        assert_eq!(
            ledger.answer(refused, Some(Message::Refusal("too long".to_owned()))),
            Ok(Some(('d', Err(refusal))))
        );
    }

    #[test]
    fn a_proxy_that_owes_too_many_answers_is_asked_nothing_more() {
        let mut ledger = Ledger::default();
        let numbers: Vec<u64> = (0..MOST_UNANSWERED).map(|n| ledger.ask(Kind::ReadLogLevel, n).unwrap()).collect();
        assert_eq!(ledger.ask(Kind::ReadLogLevel, 99), Err(99));
        ledger.answer(numbers[3], Some(level("info"))).unwrap();
        assert!(ledger.ask(Kind::ReadLogLevel, 99).is_ok());
    }

    #[test]
    fn a_proxys_words_are_cut_and_cannot_move_a_terminal() {
        let told = printable(&format!("\u{1b}[2J\n{}ä", "x".repeat(LONGEST_REFUSAL - 6)));
        assert!(told.starts_with(" [2J x") && told.len() <= LONGEST_REFUSAL && !told.ends_with('ä'), "{told}");
    }
}
