//! What a service says of its requests: how long they may take, and when they are tried again; and what a mesh says of its
//! proxies.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_core::retry::MOST_RETRIES;

use super::field::{Field, Reader};
use super::problem::shortened;
use super::yaml::Value;
use super::{limits, schema};

/// Longest wait that can be said: more is a slip of the keyboard.
const LONGEST: Duration = Duration::from_hours(24);

/// When the proxies beside workloads get the program of a newer control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyUpgrade {
    /// When their workloads restart.
    // To push a program into what runs is for the operator to ask for.
    #[default]
    OnRestart,
    /// While they run, a few at a time; connections go on.
    Live,
}

impl ProxyUpgrade {
    /// As documents say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnRestart => "on-restart",
            Self::Live => "live",
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How long requests to a service may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::TIMEOUTS))]
pub struct Timeouts {
    /// From a request's head to the last byte of its answer, all tries together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Wait>,
    /// To the head of an answer, for each try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Wait>,
}

/// When requests to a service are tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Retries {
    /// Tries after the first.
    #[schemars(range(max = MOST_RETRIES), default = "default_attempts")]
    pub attempts: u32,
    /// What calls for another one; never empty.
    #[schemars(length(min = 1, max = limits::RETRY_CONDITIONS), default = "default_conditions")]
    pub on: Vec<RetryOn>,
    /// Statuses that do as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<schema::Status>", length(max = limits::STATUSES))]
    pub statuses: Vec<u16>,
}

impl Default for Retries {
    /// What the proxies do by themselves, and late tries.
    fn default() -> Self {
        Self { attempts: default_attempts(), on: default_conditions(), statuses: Vec::new() }
    }
}

fn default_attempts() -> u32 {
    1
}

fn default_conditions() -> Vec<RetryOn> {
    vec![RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Reset]
}

/// Ends of a try, as xDS calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    ConnectFailure,
    RefusedStream,
    Reset,
    #[serde(rename = "5xx")]
    ServerError,
    GatewayError,
    #[serde(rename = "retriable-4xx")]
    Conflict,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

impl RetryOn {
    pub const ALL: [Self; 11] = [
        Self::ConnectFailure,
        Self::RefusedStream,
        Self::Reset,
        Self::ServerError,
        Self::GatewayError,
        Self::Conflict,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::Internal,
        Self::ResourceExhausted,
        Self::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::Reset => "reset",
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Conflict => "retriable-4xx",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A duration as people write it: `300ms`, `2s`, `1m`, `1h`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(Duration);

impl Wait {
    pub fn duration(self) -> Duration {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        // Of the whole text, as its schema says; and without the sign that a number may have in Rust.
        if text.len() > limits::DURATION_CHARACTERS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let number: u64 = digits.parse().ok()?;
        let milliseconds = match &text[digits.len()..] {
            "ms" => number,
            "s" => number.checked_mul(1_000)?,
            "m" => number.checked_mul(60_000)?,
            "h" => number.checked_mul(3_600_000)?,
            _ => return None,
        };
        Some(Duration::from_millis(milliseconds)).filter(|wait| !wait.is_zero() && *wait <= LONGEST).map(Self)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        if milliseconds.is_multiple_of(1000) {
            write!(f, "{}s", milliseconds / 1000)
        } else {
            write!(f, "{milliseconds}ms")
        }
    }
}

impl JsonSchema for Wait {
    fn schema_name() -> Cow<'static, str> {
        schema::Duration::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema::Duration::json_schema(generator)
    }
}

impl Serialize for Wait {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format_args!("`{text}` is not a duration")))
    }
}

impl Reader {
    pub(super) fn timeouts(&mut self, field: &Field<'_>) -> Option<Timeouts> {
        let fields = self.fields(field, &["request", "perTry"])?;
        let mut wait = |name| fields.get(name).map_or(Some(None), |field| self.wait(&field).map(Some));
        let (request, per_try) = (wait("request"), wait("perTry"));
        let timeouts = Timeouts { request: request?, per_try: per_try? };
        if let (Some(request), Some(per_try), Some(field)) = (timeouts.request, timeouts.per_try, fields.get("perTry"))
            && per_try >= request
        {
            let what =
                format!("{per_try} is not less than `request`, {request}: no try could ever be too late by itself");
            self.problem(field.at(), &field.path, what);
        }
        Some(timeouts)
    }

    pub(super) fn retries(&mut self, field: &Field<'_>) -> Option<Retries> {
        let fields = self.fields(field, &["attempts", "on", "statuses"])?;
        let default = Retries::default();
        let attempts = fields
            .get("attempts")
            .map_or(Some(default.attempts), |field| self.number(&field, 0, MOST_RETRIES, "a number of tries"));
        let words = RetryOn::ALL.map(|on| (on.as_str(), on));
        let on = match fields.get("on") {
            Some(field) => self
                .some_items(&field, "conditions, such as `connect-failure`")
                .and_then(|items| self.bounded(&field, items, limits::RETRY_CONDITIONS))
                .map(|items| items.iter().filter_map(|item| self.choice(item, "condition", &words)).collect()),
            None => Some(default.on),
        };
        let statuses = match fields.get("statuses") {
            Some(field) => {
                let items = self.items(&field, "statuses, such as 503");
                items.and_then(|items| self.bounded(&field, items, limits::STATUSES)).map(|items| {
                    let status =
                        |item| self.number(item, 400, 599, "a status").and_then(|status| u16::try_from(status).ok());
                    items.iter().filter_map(status).collect()
                })
            }
            None => Some(Vec::new()),
        };
        Some(Retries { attempts: attempts?, on: on?, statuses: statuses? })
    }

    fn wait(&mut self, field: &Field<'_>) -> Option<Wait> {
        const EXPECTED: &str = "a duration such as 300ms, 2s or 1m, longer than 0 and up to 24h";
        if let Value::Number(text) = &field.node.value {
            let what = format!("`{}` has no unit; expected {EXPECTED}", shortened(text));
            self.problem(field.at(), &field.path, what);
            return None;
        }
        let text = self.text(field)?;
        let wait = Wait::parse(text);
        if wait.is_none() {
            self.problem(field.at(), &field.path, format!("`{}` is not {EXPECTED}", shortened(text)));
        }
        wait
    }

    pub(super) fn number(&mut self, field: &Field<'_>, least: u32, most: u32, what: &str) -> Option<u32> {
        let found = match &field.node.value {
            Value::Number(text) => text.parse().ok().filter(|number| (least..=most).contains(number)),
            _ => None,
        };
        if found.is_none() {
            let value = field.node.value.describe();
            self.problem(field.at(), &field.path, format!("found {value}; expected {what} from {least} to {most}"));
        }
        found
    }
}
