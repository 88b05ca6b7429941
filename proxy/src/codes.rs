//! Every code a user can meet, with all that is known of it: what `weft explain-code` shows, and `docs/errors.md`.

use std::fmt::Write as _;

use crate::failure::{Blame, Explanation, Failure, Retry};
use crate::refusal::Reason;

/// One code.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub code: &'static str,
    pub text: &'static str,
    pub explanation: Explanation,
    /// What a request gets; `None` when it closes connections before there is one.
    pub answer: Option<Answered>,
    pub stage: &'static str,
    pub blame: &'static str,
    pub retried: &'static str,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub status: u16,
    pub grpc: u8,
}

impl Answered {
    /// Code and name of the gRPC status.
    pub fn grpc_name(self) -> &'static str {
        match self.grpc {
            1 => "CANCELLED",
            4 => "DEADLINE_EXCEEDED",
            8 => "RESOURCE_EXHAUSTED",
            12 => "UNIMPLEMENTED",
            13 => "INTERNAL",
            14 => "UNAVAILABLE",
            _ => "UNKNOWN",
        }
    }
}

/// All codes: first those of requests, in the order of a request's life, then those only connections have.
pub fn all() -> impl Iterator<Item = Entry> {
    Failure::ALL.into_iter().map(of_failure).chain(Reason::OWN.into_iter().map(of_reason))
}

/// The entry of one code.
pub fn find(code: &str) -> Option<Entry> {
    all().find(|entry| entry.code == code)
}

fn of_failure(failure: Failure) -> Entry {
    let facts = failure.facts();
    Entry {
        code: facts.code,
        text: facts.text,
        explanation: failure.explanation(),
        answer: Some(Answered { status: facts.status, grpc: facts.grpc }),
        stage: facts.stage.name(),
        blame: match facts.blame {
            Blame::Client => "client",
            Blame::Proxy => "proxy",
            Blame::Upstream => "upstream",
        },
        retried: match facts.retry {
            Retry::Never => "never",
            Retry::NothingSent => "on another endpoint, as nothing was sent",
            Retry::IfIdempotent => "if idempotent and without a body",
        },
    }
}

fn of_reason(reason: Reason) -> Entry {
    let (stage, blame) = match reason {
        Reason::Failed(failure) => return of_failure(failure),
        Reason::NoDestination => ("accept", "proxy"),
        Reason::OwnPort | Reason::UnknownPort | Reason::UnknownService => ("accept", "client"),
        Reason::Tls => ("tls", "client"),
        Reason::Silent | Reason::NotTls => ("detect", "client"),
        Reason::UnknownServerName => ("route", "client"),
        Reason::Unreachable => ("connect", "upstream"),
    };
    Entry {
        code: reason.code(),
        text: reason.text(),
        explanation: reason.explanation(),
        answer: None,
        stage,
        blame,
        retried: "never",
    }
}

/// All codes as the page `docs/errors.md`.
pub fn page() -> String {
    let mut out = String::from(
        "# Error codes\n\nWhat Weft says when it answers in an application's place, or closes a connection. The code stands \
         in the response field\n`weft-error`, in the answer's body (with the limit, the value found, and which proxy says \
         it), in the metrics\n`weft_failures_total{code}` and `weft_connections_refused_total{reason}`, and in logs. \
         `weft explain-code CODE` shows\nwhat stands here. This page is made from the program's own table; a test compares \
         them.\n\n| code | HTTP | gRPC | blame | retried | meaning |\n|---|---|---|---|---|---|\n",
    );
    for entry in all() {
        let (status, grpc) = entry.answer.map_or(("closed".to_owned(), String::new()), |a| {
            (a.status.to_string(), format!("{} {}", a.grpc, a.grpc_name()))
        });
        let Entry { code, text, blame, retried, .. } = entry;
        let _ = writeln!(out, "| [{code}](#{code}) | {status} | {grpc} | {blame} | {retried} | {text} |");
    }
    for entry in all() {
        let Explanation { cause, confirm, fix } = entry.explanation;
        let confirm = confirm.join("`\n- `");
        let _ = write!(
            out,
            "\n## {}\n\n{} (stage: {}).\n\n{cause}\n\nTo confirm:\n- `{confirm}`\n\nFix: {fix}\n",
            entry.code,
            capitalized(entry.text),
            entry.stage,
        );
    }
    out
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_and_documented() {
        let mut codes: Vec<_> = all().map(|entry| entry.code).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count, "a code stands twice");
        for entry in all() {
            let is_code = entry.code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(is_code && !entry.code.is_empty(), "{}", entry.code);
            let Explanation { cause, confirm, fix } = entry.explanation;
            assert!(cause.len() > 40 && fix.len() > 10 && !confirm.is_empty(), "{} is not explained", entry.code);
            assert!(!entry.text.is_empty() && !entry.text.ends_with('.'), "{}", entry.code);
            assert!(entry.answer.is_none_or(|answer| answer.grpc_name() != "UNKNOWN"), "{}", entry.code);
        }
    }

    /// Codes are in dashboards and alerts: one that is renamed or gone breaks them without a word.
    #[test]
    fn codes_once_published_stay() {
        let published = "bad-request client-gone client-timeout no-route no-cluster no-endpoints none-available connect \
            connect-timeout peer-identity no-certificate upstream-closed upstream-protocol upstream-limit request-timeout \
            application-unreachable no-destination own-port unknown-port unknown-service tls silent unreachable";
        for code in published.split_whitespace() {
            assert!(find(code).is_some(), "{code} is gone");
        }
    }

    /// `WEFT_WRITE_DOCS=1 cargo test -p weft-proxy codes` writes the page anew.
    #[test]
    fn the_page_says_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        if std::env::var_os("WEFT_WRITE_DOCS").is_some() {
            std::fs::write(path, page()).expect("docs/errors.md can be written");
        }
        let written = std::fs::read_to_string(path).expect("docs/errors.md exists");
        assert!(
            written == page(),
            "docs/errors.md is not of this table: WEFT_WRITE_DOCS=1 cargo test -p weft-proxy codes"
        );
    }
}
