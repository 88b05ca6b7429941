//! Refusals with a field path, and the readers every resource shares.

use std::fmt;
use std::time::Duration;

use weft_proto::Read;
use weft_proto::envoy::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_proto::envoy::envoy::config::core::v3::{ApiVersion, ConfigSource, Metadata};
use weft_proto::envoy::google::protobuf;
use weft_proto::names;

/// Longest excerpt of what was found, in characters: names a field, does not fill a log.
const EXCERPT: usize = 160;

/// What a resource says that cannot be used; the path grows as it is passed up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) field: String,
    pub(super) found: String,
    pub(super) supported: &'static str,
}

pub(super) type Decoding<T> = Result<T, Refusal>;

impl Refusal {
    pub(super) fn new(field: &str, found: impl fmt::Display, supported: &'static str) -> Self {
        Self { field: field.to_owned(), found: excerpt(&found.to_string()), supported }
    }

    /// A field without which the resource has no meaning.
    pub(super) fn missing(field: &str, supported: &'static str) -> Self {
        Self::new(field, "nothing", supported)
    }
}

/// Puts the path of the enclosing field before a refusal's.
pub(super) trait Within {
    fn within(self, field: &str) -> Self;
    fn within_item(self, field: &str, index: usize) -> Self;
}

impl<T> Within for Decoding<T> {
    fn within(self, field: &str) -> Self {
        self.map_err(|refusal| Refusal { field: format!("{field}.{}", refusal.field), ..refusal })
    }

    fn within_item(self, field: &str, index: usize) -> Self {
        self.map_err(|refusal| Refusal { field: format!("{field}[{index}].{}", refusal.field), ..refusal })
    }
}

/// A bounded, printable excerpt.
pub(super) fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(EXCERPT).is_some() {
        excerpt.push_str("...");
    }
    excerpt
}

/// Refuses the first field that is set: each changes the meaning of its message in a way the proxy does not have.
pub(super) fn unset(fields: &[(&str, bool)]) -> Decoding<()> {
    match fields.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Refusal::new(field, "a value", "leaving it out")),
        None => Ok(()),
    }
}

/// Refuses an empty text.
pub(super) fn present(text: &str, field: &str) -> Decoding<()> {
    if text.is_empty() { Err(Refusal::missing(field, "a name")) } else { Ok(()) }
}

/// `value` of an optional flag; false when absent.
pub(super) fn is_true(flag: Option<&protobuf::BoolValue>) -> bool {
    flag.is_some_and(|flag| flag.value)
}

/// A duration that is not negative; `None` when absent.
pub(super) fn duration(value: Option<&protobuf::Duration>, field: &str) -> Decoding<Option<Duration>> {
    // Limits of google.protobuf.Duration: 10,000 years; a negative one would have either part negative.
    let Some(value) = value else { return Ok(None) };
    let seconds = u64::try_from(value.seconds).ok().filter(|seconds| *seconds <= 315_576_000_000);
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(Refusal::new(
            field,
            format_args!("{} s {} ns", value.seconds, value.nanos),
            "a duration that is not negative",
        )),
    }
}

/// True for a duration that is given and not zero (zero switches most timeouts off).
pub(super) fn lasts(value: Option<&protobuf::Duration>) -> bool {
    value.is_some_and(|value| value.seconds != 0 || value.nanos != 0)
}

/// The message name in a type URL.
pub(super) fn type_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// True when `any` holds the message that `url` names.
pub(super) fn is_type(any: &protobuf::Any, url: &str) -> bool {
    type_name(&any.type_url) == type_name(url)
}

/// The message within an extension, whose type the caller has checked.
pub(super) fn unpack<M: Read>(any: &protobuf::Any) -> Decoding<M> {
    M::read(&any.value).map_err(|error| {
        Refusal::new("typed_config", format_args!("bytes that cannot be read: {error}"), "the message of its type URL")
    })
}

/// Checks that a nested resource comes over the same stream: the proxy has no other.
pub(super) fn over_ads(source: Option<&ConfigSource>, field: &str) -> Decoding<()> {
    let supported = "ads or self, v3";
    let source = source.ok_or_else(|| Refusal::missing(field, supported))?;
    if !matches!(ApiVersion::try_from(source.resource_api_version), Ok(ApiVersion::Auto | ApiVersion::V3)) {
        return Err(Refusal::new(
            field,
            format_args!("resource_api_version {}", source.resource_api_version),
            supported,
        ));
    }
    let found = match &source.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => return Ok(()),
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => "api_config_source",
        Some(_) => "a path",
        None => "nothing",
    };
    Err(Refusal::new(field, found, supported))
}

/// Our own facts in a resource's metadata.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a>(&'a protobuf::Struct);

impl<'a> Facts<'a> {
    /// `None` when the resource carries none, as from a control plane that is not ours.
    pub(super) fn of(metadata: Option<&'a Metadata>) -> Option<Self> {
        metadata?.filter_metadata.get(names::METADATA).map(Self)
    }

    pub(super) fn text(self, key: &str) -> Decoding<&'a str> {
        match self.0.fields.get(key).and_then(|value| value.kind.as_ref()) {
            Some(protobuf::value::Kind::StringValue(text)) if !text.is_empty() => Ok(text),
            _ => {
                Err(Refusal::new(&format!("metadata.{}.{key}", names::METADATA), "no text", "a text that is not empty"))
            }
        }
    }

    pub(super) fn port(self, key: &str) -> Decoding<u16> {
        port(self.0.fields.get(key), key)
    }

    /// A list of ports; none when it is absent.
    pub(super) fn ports(self, key: &str) -> Decoding<Box<[u16]>> {
        match self.0.fields.get(key).map(|value| value.kind.as_ref()) {
            None => Ok(Box::default()),
            Some(Some(protobuf::value::Kind::ListValue(list))) => {
                list.values.iter().map(|value| port(Some(value), key)).collect()
            }
            Some(_) => Err(Refusal::new(&format!("metadata.{}.{key}", names::METADATA), "no list", "a list of ports")),
        }
    }

    /// False when it is absent.
    pub(super) fn flag(self, key: &str) -> Decoding<bool> {
        match self.0.fields.get(key).map(|value| value.kind.as_ref()) {
            None => Ok(false),
            Some(Some(protobuf::value::Kind::BoolValue(flag))) => Ok(*flag),
            Some(_) => Err(Refusal::new(&format!("metadata.{}.{key}", names::METADATA), "no flag", "true or false")),
        }
    }
}

fn port(value: Option<&protobuf::Value>, key: &str) -> Decoding<u16> {
    let number = match value.and_then(|value| value.kind.as_ref()) {
        Some(protobuf::value::Kind::NumberValue(number)) => *number,
        _ => f64::NAN,
    };
    if number.fract() == 0.0 && (0.0..=65535.0).contains(&number) {
        Ok(number as u16)
    } else {
        Err(Refusal::new(&format!("metadata.{}.{key}", names::METADATA), "no port number", "a number from 0 to 65535"))
    }
}
