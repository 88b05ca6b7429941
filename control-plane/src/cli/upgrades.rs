//! What is told of the programs of running proxies: by `weft status`, `weft check` and `weft upgrade --plan`.

use std::fmt::Write;

use serde_json::{Value, json};
use weft_proto::weft::{ProxyProgram, ProxyStatus, StatusResponse};

use super::Failure;
use super::output::{Cell, Style};
use crate::document::ProxyUpgrade;
use crate::kubernetes::install::check::{Finding, Verdict};
use crate::manage::view;

/// How the proxies of all replicas stand to the programs of their control planes, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    proxies: usize,
    /// Those that say what they run.
    known: usize,
    outdated: usize,
    being_replaced: usize,
    /// Outdated for a reason of their own: refused, or gone back.
    refused: usize,
}

impl Sum {
    fn of<'p>(proxies: impl Iterator<Item = &'p ProxyStatus>) -> Self {
        let mut sum = Self::default();
        for proxy in proxies {
            let program = proxy.program.as_str();
            sum.proxies += 1;
            sum.known += usize::from(!program.is_empty());
            sum.outdated += usize::from(program.starts_with("outdated"));
            sum.being_replaced += usize::from(program == "being replaced");
            sum.refused += usize::from(program.starts_with("outdated: refused"));
        }
        sum
    }
}

/// One line: `live: 12 of 40 proxies are outdated, 2 being replaced`.
pub(super) fn summary(statuses: &[&StatusResponse]) -> String {
    if statuses.iter().all(|status| status.programs.is_empty()) {
        return "none for running proxies".to_owned();
    }
    let sum = Sum::of(statuses.iter().flat_map(|status| &status.proxies));
    let mut text = format!("{} of {} proxies outdated", sum.outdated, sum.proxies);
    let mut add = |count: usize, what: &str| {
        if count > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, ", {count} {what}");
        }
    };
    add(sum.being_replaced, "being replaced");
    add(sum.refused, "refused");
    add(sum.proxies - sum.known, "not known");
    let policy = statuses.first().map(|status| status.proxy_upgrade.as_str()).unwrap_or_default();
    let when = if policy == ProxyUpgrade::Live.as_str() { "replaced live" } else { "replaced when their pods restart" };
    format!("{text}; {when}")
}

/// What ended rollouts, one sentence each.
pub(super) fn stops(statuses: &[&StatusResponse]) -> Vec<String> {
    let programs = statuses.iter().flat_map(|status| &status.programs).filter(|program| !program.stopped.is_empty());
    let stop = |program: &ProxyProgram| {
        format!("no other proxy gets program {}: {}", program.digest.get(..12).unwrap_or_default(), program.stopped)
    };
    programs.map(stop).collect()
}

/// In a table: what comes after a colon is for `-o json`, but for a refusal.
pub(super) fn cell(program: &str) -> Cell {
    let style = match program.split([':', ',']).next().unwrap_or_default() {
        "current" | "newer" => Style::Good,
        "" | "no program" => Style::Plain,
        _ => Style::Warning,
    };
    let text = if program.is_empty() { "unknown" } else { program };
    Cell::styled(text.to_owned(), style)
}

/// The programs of one control plane, for other programs.
pub(super) fn value(status: &StatusResponse) -> Value {
    json!(status.programs.iter().cloned().map(view::Program::from).collect::<Vec<_>>())
}

/// What will become of running proxies when a control plane of another version comes.
pub(super) fn plan(statuses: &[&StatusResponse]) -> String {
    let proxies: Vec<&ProxyStatus> = statuses.iter().flat_map(|status| &status.proxies).collect();
    if proxies.is_empty() {
        return "no proxies run".to_owned();
    }
    let is_live = statuses.iter().any(|status| status.proxy_upgrade == ProxyUpgrade::Live.as_str());
    let all = proxies.len();
    if !is_live {
        return format!(
            "{all} proxies run and keep their program until their pods restart: the Mesh does not say `proxyUpgrade: live`"
        );
    }
    let cannot = |proxy: &&&ProxyStatus| proxy.program.is_empty() || proxy.program.contains("cannot be replaced");
    let fixed = proxies.iter().filter(cannot).count();
    let mut text = format!(
        "{} of {all} proxies get the new control plane's program while they run, one first and then a tenth at once, if it is \
         another than theirs (the Mesh says `proxyUpgrade: live`)",
        all - fixed
    );
    if fixed > 0 {
        let _ = write!(text, "; {fixed} keep theirs until their pods restart");
    }
    text
}

/// What `weft check` finds.
pub(super) fn finding(asked: Result<Vec<StatusResponse>, Failure>) -> Finding {
    const CHECK: &str = "running proxies";
    let statuses = match asked {
        Ok(statuses) => statuses,
        Err(failure) => {
            let what = format!("not known what they run: {failure}");
            let remedy = "ask as somebody who may, when the control plane runs".to_owned();
            return Finding { check: CHECK, verdict: Verdict::Warning, what, remedy };
        }
    };
    let statuses: Vec<&StatusResponse> = statuses.iter().collect();
    let stops = stops(&statuses);
    if stops.is_empty() {
        return Finding { check: CHECK, verdict: Verdict::Ok, what: summary(&statuses), remedy: String::new() };
    }
    let remedy =
        "read the log of that proxy; then install a control plane with another program, or set proxyUpgrade of \
                  the Mesh to on-restart and to live again to go on in spite of it"
            .to_owned();
    Finding { check: CHECK, verdict: Verdict::Warning, what: stops.join("; "), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(policy: &str, programs: &[&str], stopped: &str) -> StatusResponse {
        let proxy = |program: &&str| ProxyStatus { program: (*program).to_owned(), ..ProxyStatus::default() };
        let program =
            ProxyProgram { digest: "0123456789abcdef".into(), stopped: stopped.into(), ..ProxyProgram::default() };
        StatusResponse {
            proxies: programs.iter().map(proxy).collect(),
            programs: vec![program],
            proxy_upgrade: policy.into(),
            ..StatusResponse::default()
        }
    }

    #[test]
    fn proxies_of_all_replicas_are_summed_up() {
        let one = status("live", &["current", "outdated: waits for its turn", "being replaced"], "");
        let other = status("live", &["outdated: refused: no room", ""], "shop/a: it refused: no room");
        assert_eq!(
            summary(&[&one, &other]),
            "2 of 5 proxies outdated, 1 being replaced, 1 refused, 1 not known; replaced live"
        );
        assert_eq!(stops(&[&one, &other]), ["no other proxy gets program 0123456789ab: shop/a: it refused: no room"]);
        let still = status("on-restart", &["outdated, until it restarts"], "");
        assert_eq!(summary(&[&still]), "1 of 1 proxies outdated; replaced when their pods restart");
        assert_eq!(summary(&[&StatusResponse::default()]), "none for running proxies");
    }

    #[test]
    fn a_rollout_that_stopped_is_a_warning_with_its_reason() {
        let stopped = status("live", &["outdated: the rollout has stopped"], "shop/a: it refused: no room");
        let finding = finding(Ok(vec![stopped]));
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.what.ends_with("shop/a: it refused: no room"), "{finding:?}");
        let well = super::finding(Ok(vec![status("live", &["current"], "")]));
        assert_eq!((well.verdict, well.what.as_str()), (Verdict::Ok, "0 of 1 proxies outdated; replaced live"));
        assert_eq!(super::finding(Err(Failure::new("no way"))).verdict, Verdict::Warning);
    }

    #[test]
    fn a_plan_tells_what_becomes_of_running_proxies() {
        assert_eq!(plan(&[&status("live", &[], "")]), "no proxies run");
        let still = plan(&[&status("on-restart", &["current", "current"], "")]);
        assert!(still.starts_with("2 proxies run and keep their program until their pods restart"), "{still}");
        let fixed = "outdated, until it restarts: it cannot be replaced while it runs";
        let live = plan(&[&status("live", &["current", fixed, ""], "")]);
        assert!(live.starts_with("1 of 3 proxies get the new"), "{live}");
        assert!(live.ends_with("; 2 keep theirs until their pods restart"), "{live}");
    }
}
