//! Proves the capture with real connections: reads the rules, then connects to addresses that exist nowhere and looks
//! where the connections arrive.
//!
//! Each family is probed once. Where nobody listens on the outbound port, the probe listens there itself and compares the
//! original destination that the kernel tells; where a proxy listens, the kernel's socket table tells which port took the
//! connection. Needs no privilege, except for reading the rules.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use serde::Serialize;
use socket2::{Domain, SockRef, Socket, Type};

use super::installed::Installed;
use super::rules::{Exempt, Rules};
use super::{Backend, CaptureError, TABLE, installed};
use crate::clock;

pub(super) mod sockets;

/// A redirected connection is made within the machine; this is long for that and short for one who waits.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Once the probe is connected, the other end exists in the same kernel or it is on another machine.
const ARRIVAL_TIMEOUT: Duration = Duration::from_millis(500);
/// Addresses reserved for documentation and for discarding: no host has them (RFC 5737, RFC 3849, RFC 6666).
const NOWHERE_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1)];
const NOWHERE_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)];
/// Ports to try on them: "discard" first; at least one is left when others are excluded.
pub(super) const NOWHERE_PORTS: [u16; 4] = [9, 7, 80, 65000];

/// What was looked at, in order, with what came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The rules in the kernel, then one probe per family.
    pub steps: Vec<Step>,
}

impl CheckReport {
    /// Whether redirection was proved for at least one family and nothing was found wrong.
    pub fn passed(&self) -> bool {
        let any = |outcome| self.steps.iter().any(|step| step.outcome == outcome);
        !any(Outcome::Failed) && self.steps.iter().any(|step| step.probe && step.outcome == Outcome::Passed)
    }
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// What came out.
    pub outcome: Outcome,
    /// What was seen, in one sentence.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Whether a connection was made, or only rules read.
    #[serde(skip)]
    pub(super) probe: bool,
}

/// What came out of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is as it should be.
    Passed,
    /// It is not.
    Failed,
    /// It could not be looked at, for a reason that is no fault.
    Skipped,
}

/// Proves that connections are redirected as `rules` say, from the calling thread's network namespace.
///
/// Takes at most a few seconds. While it runs, it listens on the outbound port if nobody else does.
pub fn check(rules: &Rules) -> Result<CheckReport, CaptureError> {
    rules.validate()?;
    let found = installed();
    let table = table_step(rules, &found);
    let cause = Cause { rules, found: &found };
    let mut steps = vec![table, probe(&cause, Family::V4), probe(&cause, Family::V6)];
    if steps.iter().all(|step| !step.probe || step.outcome == Outcome::Skipped) {
        steps.push(Step {
            name: "outbound",
            outcome: Outcome::Failed,
            detail: "nothing was proved: neither IPv4 nor IPv6 could be probed".to_owned(),
            remedy: Some("see the reasons above; the check belongs into the workload's network namespace".to_owned()),
            probe: false,
        });
    }
    Ok(CheckReport { steps })
}

fn table_step(rules: &Rules, found: &Result<Option<Installed>, CaptureError>) -> Step {
    let step = |outcome, detail, remedy: Option<&str>| Step {
        name: "rules",
        outcome,
        detail,
        remedy: remedy.map(str::to_owned),
        probe: false,
    };
    let install = "run `weft capture install` with the same options";
    match found {
        Ok(Some(installed)) if installed.is(rules) => {
            step(Outcome::Passed, format!("{} has the {} rules", place(installed.backend()), installed.len()), None)
        }
        Ok(Some(installed)) => {
            let detail = match installed.rules() {
                Some(others) => format!("the kernel has other rules of ours: {}", difference(&others, rules)),
                None => format!("{} was changed by somebody else, or by another version", place(installed.backend())),
            };
            step(Outcome::Failed, detail, Some(install))
        }
        Ok(None) => step(Outcome::Failed, format!("there is no nftables table inet {TABLE}"), Some(install)),
        // The probes below need no privilege; without them the same error comes from `install`.
        Err(error @ CaptureError::NotPermitted { .. }) => step(Outcome::Skipped, error.to_string(), None),
        Err(error) => step(Outcome::Failed, error.to_string(), None),
    }
}

fn place(backend: Backend) -> String {
    match backend {
        Backend::Nftables => format!("nftables table inet {TABLE}"),
        Backend::IptablesLegacy => "the nat table of iptables-legacy".to_owned(),
    }
}

/// The fields in which two wishes differ, with both values.
fn difference(have: &Rules, want: &Rules) -> String {
    let (Ok(serde_json::Value::Object(have)), Ok(serde_json::Value::Object(want))) =
        (serde_json::to_value(have), serde_json::to_value(want))
    else {
        return format!("{have:?}");
    };
    let fields = want.iter().filter_map(|(field, wanted)| {
        let there = have.get(field)?;
        (there != wanted).then(|| format!("{field} is {there}, not {wanted}"))
    });
    fields.collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn step(self) -> &'static str {
        if self == Self::V4 { "outbound IPv4" } else { "outbound IPv6" }
    }

    fn loopback(self) -> IpAddr {
        if self == Self::V4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
    }

    /// An address and port that no host has and the rules capture.
    fn nowhere(self, rules: &Rules) -> Option<SocketAddr> {
        let addresses: Vec<IpAddr> = match self {
            Self::V4 => NOWHERE_V4.map(IpAddr::from).to_vec(),
            Self::V6 => NOWHERE_V6.map(IpAddr::from).to_vec(),
        };
        // When only some networks are captured, their own addresses have to do.
        let included = rules.include_cidrs.iter().map(|network| network.address());
        let included = included.filter(|address| address.is_ipv4() == (self == Self::V4));
        let addresses = addresses.into_iter().chain(included);
        addresses
            .flat_map(|address| NOWHERE_PORTS.map(|port| SocketAddr::new(address, port)))
            .find(|place| rules.captures(place.ip(), place.port()))
    }
}

/// Why a probe may have gone wrong: what is wanted, and what the kernel has as far as we may know.
struct Cause<'a> {
    rules: &'a Rules,
    found: &'a Result<Option<Installed>, CaptureError>,
}

impl Cause<'_> {
    /// The user whose connections are not captured, if that is who runs the check.
    fn exempt_user(&self) -> Option<u32> {
        let user = geteuid().as_raw();
        (self.rules.exempt == Exempt::Uid(user) || self.rules.exclude_uids.contains(&user)).then_some(user)
    }

    fn of_no_redirect(&self) -> (&'static str, &'static str) {
        if loopback_is_down() {
            return ("the loopback interface is down", "bring it up with `ip link set lo up`");
        }
        match self.found {
            Ok(None) => ("the rules are not installed", "run `weft capture install`"),
            Ok(Some(installed)) if !installed.is(self.rules) => (
                "the rules in the kernel are not the ones asked for",
                "run `weft capture install` with the same options",
            ),
            Ok(Some(_)) => (
                "the rules are installed, so another table took or blocked the connection first",
                "look for nat and filter rules of others with `nft list ruleset`, and for container network rules",
            ),
            Err(CaptureError::NotPermitted { .. }) => (
                "whether the rules are installed may only be asked with CAP_NET_ADMIN",
                "run the check as root, or `weft capture install` if that never happened",
            ),
            Err(_) => ("the rules cannot be read, see above", "see above"),
        }
    }
}

/// Redirected connections go over the loopback interface; its addresses may outlive it being taken down.
fn loopback_is_down() -> bool {
    let up = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_UP;
    getifaddrs().is_ok_and(|mut interfaces| !interfaces.any(|interface| interface.flags.contains(up)))
}

fn probe(cause: &Cause<'_>, family: Family) -> Step {
    let (outcome, detail, remedy) = match attempt(cause, family) {
        Ok(detail) => (Outcome::Passed, detail, None),
        Err(Miss { outcome, detail, remedy }) => (outcome, detail, Some(remedy)),
    };
    Step { name: family.step(), outcome, detail, remedy, probe: true }
}

/// A probe that proved nothing.
struct Miss {
    outcome: Outcome,
    detail: String,
    remedy: String,
}

fn failed(detail: impl Into<String>, remedy: impl Into<String>) -> Miss {
    Miss { outcome: Outcome::Failed, detail: detail.into(), remedy: remedy.into() }
}

fn skipped(detail: impl Into<String>, remedy: impl Into<String>) -> Miss {
    Miss { outcome: Outcome::Skipped, detail: detail.into(), remedy: remedy.into() }
}

fn attempt(cause: &Cause<'_>, family: Family) -> Result<String, Miss> {
    let rules = cause.rules;
    if let Some(user) = cause.exempt_user() {
        return Err(failed(
            format!("this check runs as user {user}, whose connections are not captured"),
            "run it as another user, for example `setpriv --reuid 65534 --clear-groups weft capture check`",
        ));
    }
    let Some(target) = family.nowhere(rules) else {
        return Err(skipped(
            "the rules capture no address of this family that is safe to probe",
            "none needed if that is intended; otherwise see the excluded and included networks and ports",
        ));
    };
    let own = SocketAddr::new(family.loopback(), rules.outbound_port);
    let listener = listen(own, family)?;
    let (client, local) = connect(cause, target)?;
    let arrival = match &listener {
        Some(listener) => accept(listener, local).map_err(|error| {
            failed(format!("cannot accept on {own}: {error}"), "try again; report it if it happens again")
        })?,
        None => None,
    };
    let Some(arrival) = arrival else {
        // Not here: the kernel's socket table tells who took it.
        let taker = sockets::taker(local, clock::now() + ARRIVAL_TIMEOUT);
        drop(client);
        return match taker {
            Some(port) if port == rules.outbound_port && listener.is_none() => {
                Ok(format!("{target} arrived at the proxy that listens on port {port}"))
            }
            Some(port) => Err(failed(
                format!("{target} was redirected to port {port} instead of {}", rules.outbound_port),
                "give the port that the proxy listens on to `weft capture install`",
            )),
            None => Err(not_here(cause, target)),
        };
    };
    let original = original_destination(&arrival, family);
    match original {
        Ok(Some(original)) if original == target => {
            Ok(format!("{target} arrived at {own} with its original destination"))
        }
        Ok(original) => {
            let original = original.map_or_else(|| "none".to_owned(), |address| address.to_string());
            Err(failed(
                format!("{target} arrived at {own} with the original destination {original}"),
                "another rule translates addresses before ours; find it with `nft list ruleset`",
            ))
        }
        Err(error) => Err(failed(
            format!("{target} arrived at {own}, but the kernel does not tell the original destination: {error}"),
            "connection tracking is needed: `modprobe nf_conntrack` on the host",
        )),
    }
}

/// Listens where the proxy would; nothing when somebody does already.
fn listen(own: SocketAddr, family: Family) -> Result<Option<TcpListener>, Miss> {
    match TcpListener::bind(own) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(error) if family == Family::V6 && absent(&error) => {
            Err(skipped(format!("IPv6 is off here: cannot listen on {own}: {error}"), "none needed without IPv6"))
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Err(failed(
            format!("cannot listen on {own}: {error}: the loopback interface is down"),
            "bring it up with `ip link set lo up`",
        )),
        Err(error) => Err(failed(
            format!("cannot listen on {own}: {error}"),
            "run the check as root, or take an outbound port above 1023",
        )),
    }
}

/// Whether the error says that the family does not exist here.
fn absent(error: &io::Error) -> bool {
    [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Connects, and tells the connection's own address too.
fn connect(cause: &Cause<'_>, target: SocketAddr) -> Result<(Socket, SocketAddr), Miss> {
    let open = || -> io::Result<(Socket, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        socket.connect_timeout(&target.into(), PROBE_TIMEOUT)?;
        let local = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        Ok((socket, local))
    };
    open().map_err(|error| unconnected(cause, target, &error))
}

fn unconnected(cause: &Cause<'_>, target: SocketAddr, error: &io::Error) -> Miss {
    let (reason, remedy) = cause.of_no_redirect();
    match error.kind() {
        ErrorKind::NetworkUnreachable => skipped(
            format!("there is no route to {target}: such a connection ends before any rule is asked"),
            "add a default route if this namespace should have one: `ip route add default via GATEWAY`",
        ),
        ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => skipped(
            format!("this namespace has no address to connect from to {target}"),
            "none needed without this family",
        ),
        ErrorKind::ConnectionRefused => {
            let to = match cause.found {
                Ok(Some(installed)) => format!(" (the rules redirect to the ports {:?})", installed.redirects()),
                _ => String::new(),
            };
            failed(
                format!(
                    "{target} was refused: it went to a port where nobody listens{to}; wanted port {}",
                    cause.rules.outbound_port
                ),
                "give the port that the proxy listens on to `weft capture install`",
            )
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable => {
            failed(format!("{target} was not redirected and left for the network: {reason}"), remedy)
        }
        _ => failed(
            format!("cannot connect to {target}: {error}: {reason}"),
            "look for filter rules that refuse outgoing connections with `nft list ruleset`",
        ),
    }
}

fn not_here(cause: &Cause<'_>, target: SocketAddr) -> Miss {
    let (reason, remedy) = cause.of_no_redirect();
    failed(format!("{target} was answered, but not by the proxy's port: {reason}"), remedy)
}

/// The connection that comes from `client`; others that come meanwhile are closed.
fn accept(listener: &TcpListener, client: SocketAddr) -> io::Result<Option<TcpStream>> {
    listener.set_nonblocking(true)?;
    let deadline = clock::now() + ARRIVAL_TIMEOUT;
    loop {
        match listener.accept() {
            Ok((stream, peer)) if peer == client => return Ok(Some(stream)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(clock::now());
                if left.is_zero() {
                    return Ok(None);
                }
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                match poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn original_destination(stream: &TcpStream, family: Family) -> io::Result<Option<SocketAddr>> {
    let socket = SockRef::from(stream);
    let address = match family {
        Family::V4 => socket.original_dst_v4(),
        Family::V6 => socket.original_dst_v6(),
    };
    Ok(address?.as_socket())
}
