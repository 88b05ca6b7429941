//! What kube-proxy does: connections to a Service's address are turned to one of its endpoints, by nftables.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use super::backends::{Backends, Turn};
use super::network::{NAME_SERVER, SERVICES};
use crate::process::system;

/// Keeps the rules of the network of this runtime's threads in step with Services, for ever.
pub async fn keep(mut backends: Backends) {
    load(&format!(
        "table ip services {{
            chain turn {{ }}
            chain prerouting {{ type nat hook prerouting priority dstnat; jump turn; }}
            chain output {{ type nat hook output priority -100; jump turn; }}
            set themselves {{ type ipv4_addr . ipv4_addr; }}
            chain postrouting {{ type nat hook postrouting priority srcnat; ip saddr . ip daddr @themselves masquerade; }}
            chain refuse {{
                ip daddr {NAME_SERVER} accept
                ip daddr {SERVICES} meta l4proto tcp reject with tcp reset
                ip daddr {SERVICES} reject
            }}
            chain forward {{ type filter hook forward priority filter; jump refuse; }}
            chain local {{ type filter hook output priority filter; jump refuse; }}
        }}"
    ))
    .await;
    let mut known = None;
    loop {
        backends.changed.mark_unchanged();
        let turns = backends.turns();
        if known.as_ref() != Some(&turns) {
            load(&rules(&turns)).await;
            known = Some(turns);
        }
        if backends.changed.changed().await.is_err() {
            return;
        }
    }
}

/// Replaces all turns in one transaction; connections that stand keep their endpoint.
fn rules(turns: &[Turn]) -> String {
    let mut text = "flush chain ip services turn\nflush set ip services themselves\n".to_owned();
    // A pod that reaches itself by a Service would take its own address for a forged one.
    let endpoints: BTreeSet<_> = turns.iter().flat_map(|turn| turn.to.iter().map(|(ip, _)| ip)).collect();
    for ip in endpoints {
        writeln!(text, "add element ip services themselves {{ {ip} . {ip} }}").expect("strings can be written to");
    }
    for turn in turns.iter().filter(|turn| !turn.to.is_empty()) {
        let choices = turn.to.iter().enumerate().map(|(index, (ip, port))| format!("{index} : {ip} . {port}"));
        let choices = choices.collect::<Vec<_>>().join(", ");
        writeln!(
            text,
            "add rule ip services turn ip daddr {} {} dport {} dnat to numgen random mod {} map {{ {choices} }}",
            turn.address,
            turn.protocol,
            turn.port,
            turn.to.len()
        )
        .expect("strings can be written to");
    }
    text
}

async fn load(text: &str) {
    let mut nft = tokio::process::Command::from(system("nft"));
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = nft.spawn().expect("nft is installed");
    let mut input = child.stdin.take().expect("it was piped");
    input.write_all(text.as_bytes()).await.expect("nft reads its rules");
    drop(input);
    let output = child.wait_with_output().await.expect("a child can be waited for");
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_without_endpoints_are_left_to_be_refused() {
        let turn = |port, to: &[(&str, i32)]| Turn {
            address: "10.96.0.7".parse().unwrap(),
            protocol: "tcp".to_owned(),
            port,
            to: to.iter().map(|(ip, port)| (ip.parse().unwrap(), *port)).collect(),
        };
        let text = rules(&[turn(80, &[("10.244.0.2", 8080), ("10.244.0.3", 8080)]), turn(81, &[])]);
        assert_eq!(
            text,
            "flush chain ip services turn\n\
             flush set ip services themselves\n\
             add element ip services themselves { 10.244.0.2 . 10.244.0.2 }\n\
             add element ip services themselves { 10.244.0.3 . 10.244.0.3 }\n\
             add rule ip services turn ip daddr 10.96.0.7 tcp dport 80 dnat to numgen random mod 2 map \
             { 0 : 10.244.0.2 . 8080, 1 : 10.244.0.3 . 8080 }\n"
        );
    }
}
