//! `weft explain-code`: what an error code means, how to confirm it, and what to do.

use serde_json::{Value, json};
use weft_proxy::codes::{self, Entry};

use super::output::{Cell, Format, Output, Style};
use super::{Context, Failure};

/// Most codes told as what was perhaps meant.
const SUGGESTIONS: usize = 3;
/// Below this likeness a suggestion would be a guess.
const ALIKE: f64 = 0.6;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The code, as it stands in `weft-error`, metrics and logs; all codes when left out.
    code: Option<String>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let output = &context.output;
        let Some(code) = self.code else { return list(output) };
        let entry = codes::find(&code).ok_or_else(|| unknown(&code))?;
        match output.format {
            Format::Table => show(output, &entry),
            Format::Json | Format::Yaml => Ok(output.value(&value(&entry))?),
        }
    }
}

fn list(output: &Output) -> Result<(), Failure> {
    if output.format != Format::Table {
        return Ok(output.values(&codes::all().map(|entry| value(&entry)).collect::<Vec<_>>())?);
    }
    let rows: Vec<Vec<Cell>> = codes::all()
        .map(|entry| {
            let (http, grpc) = answer(&entry);
            vec![entry.code.into(), http.into(), grpc.into(), entry.blame.into(), entry.text.into()]
        })
        .collect();
    Ok(output.table(&["CODE", "HTTP", "GRPC", "BLAME", "MEANING"], &rows)?)
}

fn show(output: &Output, entry: &Entry) -> Result<(), Failure> {
    let (http, grpc) = answer(entry);
    let blame = match entry.blame {
        "client" => Cell::from("the client"),
        "proxy" => Cell::styled("the proxy or its configuration", Style::Warning),
        _ => Cell::styled("the upstream", Style::Warning),
    };
    let heading = [entry.code, entry.text];
    let rows = vec![
        vec!["HTTP status".into(), http.into()],
        vec!["gRPC status".into(), grpc.into()],
        vec!["stage".into(), entry.stage.into()],
        vec!["blame".into(), blame],
        vec!["retried".into(), entry.retried.into()],
    ];
    output.table(&heading, &rows)?;
    output.line(format!("\nCause: {}\n\nTo confirm:", entry.explanation.cause))?;
    for line in entry.explanation.confirm {
        output.line(format!("  {line}"))?;
    }
    Ok(output.line(format!("\nFix: {}", entry.explanation.fix))?)
}

/// HTTP and gRPC status as people read them.
fn answer(entry: &Entry) -> (String, String) {
    match entry.answer {
        Some(answer) => (answer.status.to_string(), format!("{} {}", answer.grpc, answer.grpc_name())),
        None => ("closed".to_owned(), "-".to_owned()),
    }
}

fn value(entry: &Entry) -> Value {
    json!({
        "code": entry.code,
        "meaning": entry.text,
        "httpStatus": entry.answer.map(|answer| answer.status),
        "grpcStatus": entry.answer.map(|answer| answer.grpc),
        "stage": entry.stage,
        "blame": entry.blame,
        "retried": entry.retried,
        "cause": entry.explanation.cause,
        "confirm": entry.explanation.confirm,
        "fix": entry.explanation.fix,
    })
}

fn unknown(code: &str) -> Failure {
    let wanted = code.to_ascii_lowercase();
    let mut alike: Vec<(f64, &str)> = codes::all()
        .map(|entry| {
            let is_part = !wanted.is_empty() && entry.code.split('-').any(|word| word == wanted);
            (strsim::jaro_winkler(&wanted, entry.code) + f64::from(u8::from(is_part)), entry.code)
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    let meant: Vec<String> = alike.iter().take(SUGGESTIONS).map(|(_, code)| format!("`{code}`")).collect();
    let hint = if meant.is_empty() { String::new() } else { format!("did you mean {}? ", meant.join(" or ")) };
    Failure::usage(format!("`{code}` is no error code of Weft; {hint}`weft explain-code` lists all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_is_mistyped_is_told_what_it_may_have_been() {
        for (given, meant) in
            [("upstream-close", "upstream-closed"), ("NO-ROUTE", "no-route"), ("flood", "http2-flood")]
        {
            let told = unknown(given).to_string();
            assert!(told.contains(&format!("did you mean `{meant}`")), "{told}");
        }
        assert!(!unknown("zzz").to_string().contains("did you mean"));
    }

    #[test]
    fn every_code_has_a_value_with_all_that_is_known() {
        for entry in codes::all() {
            let value = value(&entry);
            for field in ["code", "meaning", "stage", "blame", "retried", "cause", "fix"] {
                assert!(value[field].as_str().is_some_and(|text| !text.is_empty()), "{}: {field}", entry.code);
            }
            assert!(value["confirm"].as_array().is_some_and(|lines| !lines.is_empty()), "{}", entry.code);
        }
    }
}
