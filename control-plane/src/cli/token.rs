//! `weft token`: join tokens.

use serde_json::json;
use weft_proto::weft::CreateTokenRequest;

use super::output::{Format, timestamp};
use super::{Context, Failure, connect};
use crate::document::DEFAULT_NAMESPACE;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token with which a proxy gets its first certificate; it is shown this once.
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Namespace of the identity.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    /// Service account of the identity.
    #[arg(long, value_name = "ACCOUNT")]
    service_account: String,
    /// How long it can be used: seconds, or with s, m, h or d.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = seconds)]
    ttl: u64,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let Command::Create(Create { namespace, service_account, ttl }) = self.command;
        let identity = format!("{namespace}/{service_account}");
        let request = CreateTokenRequest { namespace, service_account, ttl_seconds: ttl };
        context.block_on(async {
            let made = connect(&context.data).await?.create_token(request).await?.into_inner();
            let expires = timestamp(made.expires_at);
            if context.output.format != Format::Table {
                return Ok(context.output.value(&json!({"token": made.token, "expiresAt": expires}))?);
            }
            // Standard output holds the token alone, ready for a file.
            context.output.line(made.token)?;
            context
                .output
                .note(&format!("for {identity}, until {expires}; give it to the proxy with WEFT_JOIN_TOKEN_FILE"));
            Ok(())
        })
    }
}

/// A duration as people write it.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 1,
    };
    let number = text.strip_suffix(['s', 'm', 'h', 'd']).unwrap_or(text);
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| "expected a duration such as 90s, 30m, 12h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, expected) in [("5", Some(5)), ("90s", Some(90)), ("30m", Some(1_800)), ("7d", Some(604_800))] {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
        for text in ["", "h", "0", "-1h", "1w", "1.5h", "99999999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
