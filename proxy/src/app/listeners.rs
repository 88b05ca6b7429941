//! Every socket a proxy listens on: one inherited from the proxy before it, where there is one of that name, or its own.
//!
//! A name is the direction, the address as the settings say it, and the destination they fix. What the settings do not
//! name any more is closed.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;
use weft_core::model::Direction;

use super::AppError;
use super::worker_thread::Bound;
use crate::accept::{self, Listen};
use crate::admin::AdminListener;
use crate::config::{AdminAddress, Settings};
use crate::supervise::{Inherited, ListenerName, kind};

/// The sockets, not yet accepted on.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) bound: Vec<Bound>,
    pub(super) admin: Vec<(AdminAddress, AdminListener)>,
    pub(super) health: Vec<(SocketAddr, tokio::net::TcpListener)>,
}

impl Listeners {
    /// Takes what was inherited and binds the rest.
    pub(super) fn open(settings: &Settings, inherited: Vec<Inherited>) -> Result<Self, AppError> {
        let mut stock = Stock::new(inherited);
        let listeners = Self {
            bound: bound(settings, &mut stock)?,
            admin: admin(settings, &mut stock)?,
            health: health(settings, &mut stock)?,
        };
        for name in stock.0.keys() {
            tracing::info!(address = name.address, "a listener of the proxy before this one is not wanted any more");
        }
        Ok(listeners)
    }

    /// Copies of all of them for the next proxy.
    pub(super) fn copies(&self) -> io::Result<Vec<Inherited>> {
        let mut copies = Vec::new();
        let mut copy = |name: ListenerName, socket: &dyn AsFd| {
            copies.push(Inherited { name, socket: socket.as_fd().try_clone_to_owned()? });
            Ok::<_, io::Error>(())
        };
        for bound in &self.bound {
            for socket in &bound.sockets {
                copy(name_of(bound.direction, bound.address, bound.fixed), socket)?;
            }
        }
        for (address, listener) in &self.admin {
            copy(plain_name(kind::ADMIN, address), listener)?;
        }
        for (address, listener) in &self.health {
            copy(plain_name(kind::HEALTH, address), listener)?;
        }
        Ok(copies)
    }

    pub(super) fn inbound_port(&self) -> Option<u16> {
        self.bound.iter().find(|bound| bound.direction == Direction::Inbound).and_then(Bound::port)
    }
}

fn name_of(direction: Direction, address: SocketAddr, fixed: Option<SocketAddr>) -> ListenerName {
    let kind = match direction {
        Direction::Outbound => kind::OUTBOUND,
        Direction::Inbound => kind::INBOUND,
    };
    let fixed = fixed.map(|fixed| fixed.to_string()).unwrap_or_default();
    ListenerName { kind, address: address.to_string(), fixed }
}

fn plain_name(kind: u8, address: &impl ToString) -> ListenerName {
    ListenerName { kind, address: address.to_string(), fixed: String::new() }
}

/// What was inherited and not yet taken.
struct Stock(HashMap<ListenerName, Vec<OwnedFd>>);

impl Stock {
    fn new(inherited: Vec<Inherited>) -> Self {
        let mut stock: HashMap<_, Vec<_>> = HashMap::new();
        for Inherited { name, socket } in inherited {
            // Anything else could not be accepted on, and would be tried for ever.
            if SockRef::from(&socket).is_listener().unwrap_or(false) {
                stock.entry(name).or_default().push(socket);
            }
        }
        Self(stock)
    }

    fn take(&mut self, name: &ListenerName) -> Vec<OwnedFd> {
        self.0.remove(name).unwrap_or_default()
    }

    fn take_tcp(&mut self, name: &ListenerName) -> io::Result<Vec<TcpListener>> {
        let sockets: Vec<_> = self.take(name).into_iter().map(TcpListener::from).collect();
        sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(sockets)
    }
}

/// At least one socket for each worker.
fn bound(settings: &Settings, stock: &mut Stock) -> Result<Vec<Bound>, AppError> {
    let workers = settings.worker_count();
    let directions = [(Direction::Outbound, &settings.outbound), (Direction::Inbound, &settings.inbound)];
    let mut all = Vec::new();
    for (direction, addresses) in directions {
        for &Listen { address, fixed } in addresses {
            let failed = |source| AppError::Listen { address, source };
            let mut sockets = stock.take_tcp(&name_of(direction, address, fixed)).map_err(failed)?;
            match accept::fill(&mut sockets, address, workers) {
                Ok(()) => all.push(Bound { direction, address, fixed, sockets }),
                Err(error) if address.is_ipv6() && is_no_ipv6(&error) => {
                    tracing::info!(%address, "no IPv6 here: not listening");
                }
                Err(source) => return Err(failed(source)),
            }
        }
    }
    Ok(all)
}

fn admin(settings: &Settings, stock: &mut Stock) -> Result<Vec<(AdminAddress, AdminListener)>, AppError> {
    let open = |address: &AdminAddress| {
        let listener = match stock.take(&plain_name(kind::ADMIN, address)).pop() {
            Some(socket) => AdminListener::inherited(address, socket),
            None => AdminListener::bind(address),
        };
        let listener = listener.map_err(|source| AppError::Admin { address: address.clone(), source })?;
        Ok((address.clone(), listener))
    };
    settings.admin.iter().map(open).collect()
}

fn health(settings: &Settings, stock: &mut Stock) -> Result<Vec<(SocketAddr, tokio::net::TcpListener)>, AppError> {
    let mut listeners = Vec::new();
    for &address in &settings.health {
        let failed = |source| AppError::Health { address, source };
        let mut sockets = stock.take_tcp(&plain_name(kind::HEALTH, &address)).map_err(failed)?;
        match accept::fill(&mut sockets, address, 1) {
            Ok(()) => {}
            Err(error) if address.is_ipv6() && is_no_ipv6(&error) => {
                tracing::info!(%address, "no IPv6 here: not listening");
            }
            Err(source) => return Err(failed(source)),
        }
        for socket in sockets {
            listeners.push((address, tokio::net::TcpListener::from_std(socket).map_err(failed)?));
        }
    }
    Ok(listeners)
}

fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests;
