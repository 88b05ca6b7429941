//! What a route asks of a request beside its path.
//!
//! A field that comes several times counts as one whose values are joined by commas (RFC 9110 section 5.3), cookies by
//! semicolons (RFC 9113 section 8.2.3), as Envoy reads them. Joining is all that ever allocates here. Of a parameter that
//! stands several times in a query the first counts; the Gateway API leaves that open, Envoy does so.

use std::borrow::Cow;

use super::Request;
use crate::model::{RequestConditions, TextMatch, ValueMatch};

/// Whether all of them are true of a request.
pub(super) fn hold(conditions: &RequestConditions, request: &impl Request) -> bool {
    conditions.method.as_ref().is_none_or(|method| method.as_bytes() == request.method())
        && conditions.headers.iter().all(|header| holds(header, field(request, &header.name).as_deref()))
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

/// The value of a field; `None` when the request has none of that name.
fn field<'r>(request: &'r impl Request, name: &'r str) -> Option<Cow<'r, [u8]>> {
    // By whatever name it came.
    if name == "host" {
        return Some(request.authority().into());
    }
    let mut values = request.values(name);
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(first.into()) };
    let between: &[u8] = if name == "cookie" { b"; " } else { b"," };
    let mut joined = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(between);
        joined.extend_from_slice(value);
    }
    Some(joined.into())
}

/// The value of a parameter, as it is written; one without `=` has an empty one.
fn of_query<'q>(query: Option<&'q [u8]>, name: &str) -> Option<&'q [u8]> {
    let mut parameters = query?.split(|&byte| byte == b'&').map(|parameter| {
        let end = parameter.iter().position(|&byte| byte == b'=');
        end.map_or((parameter, &b""[..]), |end| (&parameter[..end], &parameter[end + 1..]))
    });
    parameters.find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
}
