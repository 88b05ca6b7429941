//! Fields after the body. They are checked like a head's, and those that would mean something there are left out.

use super::fields::{Field, Fields};
use super::rules::check_regular;
use crate::http1::{HeadError, may_be_trailer, write_field};

/// Trailers inside their header block.
#[derive(Debug)]
pub struct Trailers<'f> {
    fields: &'f Fields,
}

impl<'f> Trailers<'f> {
    /// Reads a whole header block.
    ///
    /// # Errors
    /// When it is malformed: pseudo-fields have no place here (RFC 9113 section 8.1).
    pub fn read(fields: &'f Fields) -> Result<Self, HeadError> {
        for field in fields {
            if field.name.first() == Some(&b':') {
                return Err(HeadError::Malformed("pseudo-field in trailers"));
            }
            check_regular(&field)?;
        }
        Ok(Self { fields })
    }

    /// The value of the first field of this name, which is lower case.
    pub fn get(&self, name: &[u8]) -> Option<&'f [u8]> {
        self.fields.iter().find(|field| field.name == name).map(|field| field.value)
    }

    /// Appends the lines that follow the last chunk of an HTTP/1 body, without the empty one.
    pub fn write_http1(&self, out: &mut Vec<u8>) {
        for field in self.end_to_end() {
            write_field(field.name, field.value, out);
        }
    }

    /// The trailers as they go on by HTTP/2.
    pub fn forwarded(&self) -> Fields {
        let mut out = Fields::new();
        for field in self.end_to_end() {
            out.push_field(&field);
        }
        out
    }

    fn end_to_end(&self) -> impl Iterator<Item = Field<'f>> {
        self.fields.iter().filter(|field| may_be_trailer(field.name))
    }
}
