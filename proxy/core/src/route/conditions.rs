//! What a route asks of a request beside its path.
//!
//! Of a field that comes several times any value may be the one, as Envoy has it since a value put beside another one got
//! past its rules. Pieces of a cookie are one value (RFC 9113 section 8.2.3): joining them is all that ever allocates here.
//! Of a parameter that stands several times in a query the first counts; the Gateway API leaves that open, Envoy does so.

use super::Request;
use crate::model::{RequestConditions, TextMatch, ValueMatch};

/// Whether all of them are true of a request.
pub(super) fn hold(conditions: &RequestConditions, request: &impl Request) -> bool {
    conditions.method.as_ref().is_none_or(|method| method.as_bytes() == request.method())
        && conditions.headers.iter().all(|header| of_header(header, request))
        && conditions.query.iter().all(|parameter| holds(parameter, of_query(request.query(), &parameter.name)))
}

fn holds(wanted: &ValueMatch, found: Option<&[u8]>) -> bool {
    let Some(found) = found else { return wanted.value == TextMatch::Absent };
    match &wanted.value {
        TextMatch::Exact(text) => found == text.as_bytes(),
        TextMatch::Prefix(text) => found.starts_with(text.as_bytes()),
        TextMatch::Suffix(text) => found.ends_with(text.as_bytes()),
        TextMatch::Contains(text) => contains(found, text.as_bytes()),
        TextMatch::Pattern(pattern) => pattern.matches(found),
        TextMatch::Present => true,
        TextMatch::Absent => false,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

fn of_header(wanted: &ValueMatch, request: &impl Request) -> bool {
    let name = &*wanted.name;
    // By whatever name it came.
    if name == "host" {
        return holds(wanted, Some(request.authority()));
    }
    let mut values = request.values(name);
    let Some(first) = values.next() else { return holds(wanted, None) };
    if name != "cookie" {
        return holds(wanted, Some(first)) || values.any(|value| holds(wanted, Some(value)));
    }
    let Some(second) = values.next() else { return holds(wanted, Some(first)) };
    let mut joined = first.to_vec();
    for piece in std::iter::once(second).chain(values) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece);
    }
    holds(wanted, Some(&joined))
}

/// The value of a parameter, as it is written; one without `=` has an empty one.
fn of_query<'q>(query: Option<&'q [u8]>, name: &str) -> Option<&'q [u8]> {
    let mut parameters = query?.split(|&byte| byte == b'&').map(|parameter| {
        let end = parameter.iter().position(|&byte| byte == b'=');
        end.map_or((parameter, &b""[..]), |end| (&parameter[..end], &parameter[end + 1..]))
    });
    parameters.find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
}
