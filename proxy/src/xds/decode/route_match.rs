//! `RouteMatch`: what a route looks at of a request.
//!
//! `runtime_fraction`, cookies and the like would make a route take more or fewer requests than it says here, so they are
//! refused. The same goes for a match that ignores letter case, but where there are no letters.

#![allow(deprecated, reason = "Envoy still takes the older ways to say what a header must be, and so do we")]

use weft_core::model::{PathMatch, RequestConditions, TextMatch, ValueMatch};
use weft_core::pattern::Pattern;
use weft_proto::envoy::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier as HeaderIs;
use weft_proto::envoy::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier as ParameterIs;
use weft_proto::envoy::envoy::config::route::v3::route_match::PathSpecifier;
use weft_proto::envoy::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};

use super::field::{Decoding, Refusal, Within, present, unset};

const PATHS: &str = "prefix, path, path_separated_prefix or safe_regex";
const HEADERS: &str = "string_match, safe_regex_match or present_match";

/// Reads a match.
pub(super) fn read(rule: &RouteMatch) -> Decoding<(PathMatch, RequestConditions)> {
    unset(&[
        ("runtime_fraction", rule.runtime_fraction.is_some()),
        ("cookies", !rule.cookies.is_empty()),
        ("grpc", rule.grpc.is_some()),
        ("tls_context", rule.tls_context.is_some()),
        ("dynamic_metadata", !rule.dynamic_metadata.is_empty()),
        ("filter_state", !rule.filter_state.is_empty()),
    ])?;
    let path = path(rule)?;
    let ignores_case = rule.case_sensitive.is_some_and(|flag| !flag.value);
    let has_letters = match &path {
        PathMatch::Prefix(text) | PathMatch::Exact(text) | PathMatch::Segments(text) => {
            text.bytes().any(|byte| byte.is_ascii_alphabetic())
        }
        // It says itself what it ignores; Envoy asks it alone.
        PathMatch::Pattern(_) => false,
    };
    if ignores_case && has_letters {
        return Err(Refusal::new("case_sensitive", "false", "true"));
    }
    let mut conditions = RequestConditions::default();
    for (index, matcher) in rule.headers.iter().enumerate() {
        header(matcher, &mut conditions).within_item("headers", index)?;
    }
    for (index, matcher) in rule.query_parameters.iter().enumerate() {
        conditions.query.push(parameter(matcher).within_item("query_parameters", index)?);
    }
    Ok((path, conditions))
}

fn path(rule: &RouteMatch) -> Decoding<PathMatch> {
    match &rule.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => Ok(PathMatch::Prefix(prefix.clone())),
        Some(PathSpecifier::Path(path)) => Ok(PathMatch::Exact(path.clone())),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => match prefix.trim_end_matches('/') {
            // Everything is below the root.
            "" => Ok(PathMatch::Prefix("/".to_owned())),
            segments => Ok(PathMatch::Segments(segments.to_owned())),
        },
        Some(PathSpecifier::SafeRegex(regex)) => pattern(regex, "safe_regex").map(PathMatch::Pattern),
        Some(PathSpecifier::ConnectMatcher(_)) => Err(Refusal::new("connect_matcher", "a value", PATHS)),
        Some(PathSpecifier::PathMatchPolicy(_)) => Err(Refusal::new("path_match_policy", "a value", PATHS)),
        None => Err(Refusal::missing("prefix", PATHS)),
    }
}

fn header(matcher: &HeaderMatcher, conditions: &mut RequestConditions) -> Decoding<()> {
    present(&matcher.name, "name")?;
    let value = match &matcher.header_match_specifier {
        Some(HeaderIs::StringMatch(wanted)) => string(wanted).within("string_match")?,
        Some(HeaderIs::ExactMatch(wanted)) => TextMatch::Exact(wanted.as_str().into()),
        Some(HeaderIs::PrefixMatch(wanted)) => TextMatch::Prefix(wanted.as_str().into()),
        Some(HeaderIs::SuffixMatch(wanted)) => TextMatch::Suffix(wanted.as_str().into()),
        Some(HeaderIs::ContainsMatch(wanted)) => TextMatch::Contains(wanted.as_str().into()),
        Some(HeaderIs::SafeRegexMatch(regex)) => TextMatch::Pattern(pattern(regex, "safe_regex_match")?),
        Some(HeaderIs::PresentMatch(is_there)) if *is_there != matcher.invert_match => TextMatch::Present,
        Some(HeaderIs::PresentMatch(_)) => TextMatch::Absent,
        Some(HeaderIs::RangeMatch(_)) => return Err(Refusal::new("range_match", "a value", HEADERS)),
        None if matcher.invert_match => TextMatch::Absent,
        None => TextMatch::Present,
    };
    let is_of_presence = matches!(value, TextMatch::Present | TextMatch::Absent);
    unset(&[
        ("invert_match", matcher.invert_match && !is_of_presence),
        ("treat_missing_header_as_empty", matcher.treat_missing_header_as_empty),
    ])?;
    match (matcher.name.to_ascii_lowercase().as_str(), value) {
        (":method", TextMatch::Exact(method)) if conditions.method.is_none() => conditions.method = Some(method),
        (":method", _) => return Err(Refusal::new("name", ":method", "one method, exactly")),
        (":authority", value) => conditions.headers.push(ValueMatch { name: "host".into(), value }),
        (name, _) if name.starts_with(':') => {
            return Err(Refusal::new("name", name, ":method, :authority or a header's name"));
        }
        (name, value) => conditions.headers.push(ValueMatch { name: name.into(), value }),
    }
    Ok(())
}

fn parameter(matcher: &QueryParameterMatcher) -> Decoding<ValueMatch> {
    present(&matcher.name, "name")?;
    let value = match &matcher.query_parameter_match_specifier {
        Some(ParameterIs::StringMatch(wanted)) => string(wanted).within("string_match")?,
        Some(ParameterIs::PresentMatch(false)) => {
            return Err(Refusal::new("present_match", "false", "true, or string_match"));
        }
        Some(ParameterIs::PresentMatch(true)) | None => TextMatch::Present,
    };
    Ok(ValueMatch { name: matcher.name.as_str().into(), value })
}

fn string(matcher: &StringMatcher) -> Decoding<TextMatch> {
    unset(&[("ignore_case", matcher.ignore_case)])?;
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => Ok(TextMatch::Exact(text.as_str().into())),
        Some(MatchPattern::Prefix(text)) => Ok(TextMatch::Prefix(text.as_str().into())),
        Some(MatchPattern::Suffix(text)) => Ok(TextMatch::Suffix(text.as_str().into())),
        Some(MatchPattern::Contains(text)) => Ok(TextMatch::Contains(text.as_str().into())),
        Some(MatchPattern::SafeRegex(regex)) => pattern(regex, "safe_regex").map(TextMatch::Pattern),
        Some(MatchPattern::Custom(_)) => Err(Refusal::new("custom", "a value", "exact, prefix, suffix or safe_regex")),
        None => Err(Refusal::missing("exact", "exact, prefix, suffix, contains or safe_regex")),
    }
}

fn pattern(matcher: &RegexMatcher, field: &str) -> Decoding<Pattern> {
    let refused = |error| {
        let found = format!("`{}`: {error}", matcher.regex);
        Refusal::new("regex", found, "a pattern of RE2 that is not too large")
    };
    Pattern::new(&matcher.regex).map_err(refused).within(field)
}
