//! Why a verb failed, as the user is told.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::output::Output;

/// What went wrong and what to do, on one line (a batch of problems: on one line each).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// The command itself was wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// Nobody reads the output any more, which is no failure.
    fn quiet() -> Self {
        Self { message: String::new(), code: 0 }
    }

    pub(super) fn report(&self, output: &Output) -> ExitCode {
        if !self.message.is_empty() {
            output.error(&self.message);
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    /// Writing results is what verbs do with plain input and output errors; others are named where they arise.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::quiet()
        } else {
            Self::new(format!("cannot write the output: {error}"))
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let message = status.message();
        match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::NotFound => Self::new(message),
            tonic::Code::Unavailable | tonic::Code::Cancelled => {
                Self::new(format!("the control plane went away while it answered ({message}); try again"))
            }
            tonic::Code::DeadlineExceeded => {
                Self::new("the control plane did not answer in time; see its log, and try again")
            }
            tonic::Code::Unimplemented => {
                Self::new("the control plane is of a version that cannot do this; update it, or this program")
            }
            code => Self::new(format!("the control plane failed ({code}): {message}")),
        }
    }
}
