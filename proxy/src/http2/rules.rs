//! What must hold for every field of a head or of trailers (RFC 9113 section 8.2).

use super::fields::Field;
use super::name::Name;
use crate::http1::{HeadError, is_clean_value, is_lower_token, parse_length};

/// A field that is not a pseudo-field: its name, its value, and that it does not speak of a connection.
pub(super) fn check_regular(field: &Field<'_>) -> Result<(), HeadError> {
    if !field.is_checked {
        check_name(field.known, field.name)?;
        check_value(field.value)?;
    }
    match field.known {
        Name::CONNECTION | Name::KEEP_ALIVE | Name::PROXY_CONNECTION | Name::TRANSFER_ENCODING | Name::UPGRADE => {
            Err(HeadError::Malformed("connection-specific field in HTTP/2"))
        }
        Name::TE if !field.value.eq_ignore_ascii_case(b"trailers") => {
            Err(HeadError::Malformed("TE other than `trailers` in HTTP/2"))
        }
        _ => Ok(()),
    }
}

/// Whether name and value are well-formed, whatever they mean: looked at once, when a field is read, and never again.
pub(super) fn is_well_formed(known: Name, name: &[u8], value: &[u8]) -> bool {
    check_name(known, name).is_ok() && check_value(value).is_ok()
}

fn check_name(known: Name, name: &[u8]) -> Result<(), HeadError> {
    // Known names are lower case and valid as they are.
    if known == Name::OTHER && !is_lower_token(name) {
        let text = if name.first() == Some(&b':') { "unknown pseudo-field" } else { "field name" };
        return Err(HeadError::Malformed(text));
    }
    Ok(())
}

/// Nothing that could end a line in HTTP/1, no blanks at its ends, which HTTP/1 would take away.
pub(super) fn check_value(value: &[u8]) -> Result<(), HeadError> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if !is_clean_value(value) || is_blank(value.first()) || is_blank(value.last()) {
        return Err(HeadError::Malformed("field value"));
    }
    Ok(())
}

/// Takes the value of a field that may be given once.
pub(super) fn set_once<'f>(place: &mut Option<&'f [u8]>, field: &Field<'f>) -> Result<(), HeadError> {
    if place.replace(field.value).is_some() {
        return Err(HeadError::Malformed("field given twice"));
    }
    Ok(())
}

/// Takes the length of the body, said once.
pub(super) fn set_length(place: &mut Option<u64>, field: &Field<'_>) -> Result<(), HeadError> {
    if place.replace(parse_length(field.value)?).is_some() {
        return Err(HeadError::Malformed("more than one Content-Length"));
    }
    Ok(())
}
