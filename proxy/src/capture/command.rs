//! `capture install | remove | check | print`: the same for `weft` and for `weft-proxy`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::{Backend, CheckReport, Cidr, Exempt, Outcome, Rules, check, install_by, installed, print, remove};

/// Redirects a workload's TCP connections to the proxy beside it, by nftables rules in this network namespace.
///
/// The rules are one table of their own, `inet weft`. Installing replaces it whole and at once; it can be repeated. Kernels
/// without `nf_tables` get the same rules in chains of their own by the programs of iptables-legacy.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  weft capture install --exclude-outbound-ports 5432
  weft capture check
  weft capture print | nft -c -f -
  ip netns exec orders weft capture install")]
pub struct CaptureArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install the rules, in place of an earlier version of them; needs root, or the network administration capability
    Install(InstallArgs),
    /// Remove the rules; nothing there is fine; needs root, or the network administration capability
    Remove,
    /// Prove by real connections that the rules work, and say what is wrong if not
    ///
    /// Without options, the rules that are installed are checked; with options, also that they are the installed ones.
    /// Run it as the workload's user: the proxy's own connections are not redirected. While it runs, it listens on the
    /// outbound port if no proxy does. Exit code 0: redirection works; 1: it does not.
    Check(CheckArgs),
    /// Print the rules in the syntax of `nft -f`
    Print(RuleArgs),
}

#[derive(Debug, Args)]
struct InstallArgs {
    /// What the kernel holds the rules in [default: nftables, or iptables-legacy where the kernel has no nf_tables]
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    #[command(flatten)]
    rules: RuleArgs,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// How to print the report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    rules: RuleArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people
    Table,
    /// One JSON document
    Json,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
struct RuleArgs {
    /// Where the proxy listens for connections of local processes [default: 15001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    outbound_port: Option<u16>,
    /// Where the proxy listens for connections from elsewhere [default: 15006]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    inbound_port: Option<u16>,
    /// The user id the proxy runs as; its connections are not redirected [default: 14001]
    #[arg(long, value_name = "UID", conflicts_with = "exempt_mark")]
    exempt_uid: Option<u32>,
    /// The socket mark the proxy is told to set, when it runs as the same user as the workload
    #[arg(long, value_name = "MARK", value_parser = mark)]
    exempt_mark: Option<u32>,
    /// Other user ids whose connections are not redirected
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    exclude_uids: Vec<u32>,
    /// Destination ports that are not redirected
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    exclude_outbound_ports: Vec<u16>,
    /// Local ports whose incoming connections are not redirected, such as health checks
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    exclude_inbound_ports: Vec<u16>,
    /// Destination networks that are not redirected
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    exclude_cidrs: Vec<Cidr>,
    /// Redirect only these destination networks, of both families together
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    include_cidrs: Vec<Cidr>,
}

/// A mark in decimal or, as `nft` shows it, in hexadecimal.
fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|mark| *mark != 0).ok_or_else(|| "a mark is a number from 1 to 0xffffffff".to_owned())
}

impl RuleArgs {
    fn rules(&self) -> Rules {
        let usual = Rules::default();
        let uid = self.exempt_uid.map(Exempt::Uid);
        Rules {
            outbound_port: self.outbound_port.unwrap_or(usual.outbound_port),
            inbound_port: self.inbound_port.unwrap_or(usual.inbound_port),
            exempt: self.exempt_mark.map(Exempt::Mark).or(uid).unwrap_or(usual.exempt),
            exclude_uids: self.exclude_uids.clone(),
            exclude_outbound_ports: self.exclude_outbound_ports.clone(),
            exclude_inbound_ports: self.exclude_inbound_ports.clone(),
            exclude_cidrs: self.exclude_cidrs.clone(),
            include_cidrs: self.include_cidrs.clone(),
        }
    }
}

/// Does what the command line asks for. Errors are one line each, with the remedy.
pub fn run(args: CaptureArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Install(InstallArgs { backend, rules }) => {
            install_by(&rules.rules(), backend)?;
        }
        Verb::Remove => remove()?,
        Verb::Print(rules) => {
            let rules = rules.rules();
            rules.validate()?;
            write!(io::stdout().lock(), "{}", print(&rules))?;
        }
        Verb::Check(CheckArgs { output, rules }) => {
            let report = check(&checked(&rules))?;
            show(&report, output, &mut io::stdout().lock())?;
            return Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The rules to check: those asked for, else those installed, else the usual ones (and the report says what is missing).
fn checked(asked: &RuleArgs) -> Rules {
    if *asked != RuleArgs::default() {
        return asked.rules();
    }
    installed().ok().flatten().and_then(|installed| installed.rules()).unwrap_or_default()
}

fn show(report: &CheckReport, output: Output, to: &mut impl Write) -> io::Result<()> {
    if output == Output::Json {
        let document = serde_json::json!({ "passed": report.passed(), "steps": report.steps });
        return writeln!(to, "{document:#}");
    }
    for step in &report.steps {
        let outcome = match step.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        writeln!(to, "{:<14} {outcome:<8} {}", step.name, step.detail)?;
        if let Some(remedy) = &step.remedy {
            writeln!(to, "{:<23} remedy: {remedy}", "")?;
        }
    }
    writeln!(to, "{}", if report.passed() { "capture works" } else { "capture does not work" })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Step;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        capture: CaptureArgs,
    }

    fn rules(line: &str) -> Rules {
        match Line::try_parse_from(line.split(' ')).unwrap().capture.verb {
            Verb::Install(InstallArgs { rules, .. }) | Verb::Print(rules) | Verb::Check(CheckArgs { rules, .. }) => {
                rules.rules()
            }
            Verb::Remove => panic!("no rules in {line}"),
        }
    }

    #[test]
    fn without_options_the_rules_are_the_default() {
        for verb in ["install", "print", "check"] {
            assert_eq!(rules(&format!("capture {verb}")), Rules::default());
        }
    }

    #[test]
    fn each_option_reaches_its_field() {
        let got = rules(
            "capture install --outbound-port 1 --inbound-port 2 --exempt-mark 0x10 --exclude-uids 3,4 \
             --exclude-outbound-ports 5,6 --exclude-inbound-ports 7 --exclude-cidrs 10.0.0.0/8,fd00::/8 --include-cidrs ::/0",
        );
        let expected = Rules {
            outbound_port: 1,
            inbound_port: 2,
            exempt: Exempt::Mark(16),
            exclude_uids: vec![3, 4],
            exclude_outbound_ports: vec![5, 6],
            exclude_inbound_ports: vec![7],
            exclude_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            include_cidrs: vec!["::/0".parse().unwrap()],
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn a_report_shows_what_is_wrong_and_the_remedy_to_people_and_programs() {
        let step = |outcome, probe| Step {
            name: "outbound IPv4",
            outcome,
            detail: "it went astray".to_owned(),
            remedy: (outcome == Outcome::Failed).then(|| "call it back".to_owned()),
            probe,
        };
        let shown = |report: &CheckReport, output| {
            let mut bytes = Vec::new();
            show(report, output, &mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let failed = CheckReport { steps: vec![step(Outcome::Failed, true)] };
        let lines = "outbound IPv4  FAILED   it went astray\n                        remedy: call it back\n\
                     capture does not work\n";
        assert_eq!(shown(&failed, Output::Table), lines);
        let document: serde_json::Value = serde_json::from_str(&shown(&failed, Output::Json)).unwrap();
        let expected = serde_json::json!({"passed": false, "steps": [{
            "name": "outbound IPv4", "outcome": "failed", "detail": "it went astray", "remedy": "call it back"}]});
        assert_eq!(document, expected);
        for (probe, words) in [(true, "capture works\n"), (false, "capture does not work\n")] {
            let report = CheckReport { steps: vec![step(Outcome::Passed, probe)] };
            assert!(shown(&report, Output::Table).ends_with(words), "probe: {probe}");
        }
    }

    #[test]
    fn senseless_options_are_refused() {
        for line in [
            "capture install --exempt-mark 0",
            "capture install --outbound-port 0",
            "capture install --exempt-uid 1 --exempt-mark 1",
            "capture print --exclude-cidrs 10.0.0.0/33",
            "capture",
        ] {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
