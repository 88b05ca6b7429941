//! Who may hold a connection: bounded in all, and for each client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections that are open.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    open: Arc<Mutex<Open>>,
    limit: usize,
    limit_of_client: usize,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// No client without connections.
    by_client: HashMap<IpAddr, usize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    client: IpAddr,
}

impl Crowd {
    pub(super) fn new(limit: usize, limit_of_client: usize) -> Self {
        Self { open: Arc::default(), limit, limit_of_client }
    }

    /// A place; `None` where there is none left for this client.
    pub(super) fn enter(&self, client: IpAddr) -> Option<Place> {
        let mut open = self.open();
        if open.all >= self.limit || open.by_client.get(&client).is_some_and(|&of| of >= self.limit_of_client) {
            return None;
        }
        open.all += 1;
        *open.by_client.entry(client).or_default() += 1;
        Some(Place { crowd: self.clone(), client })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.crowd.open();
        open.all -= 1;
        let left = open.by_client.get_mut(&self.client).map(|of| {
            *of -= 1;
            *of
        });
        if left == Some(0) {
            open.by_client.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_takes_only_its_share_and_gives_it_back() {
        let crowd = Crowd::new(3, 2);
        let [kubelet, other, third] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut others: Vec<_> = (0..2).map(|_| crowd.enter(other).expect("its share")).collect();
        assert!(crowd.enter(other).is_none());
        let place = crowd.enter(kubelet).expect("a place is left");
        assert!(crowd.enter(third).is_none(), "all are taken");
        drop(place);
        others.pop();
        assert!(crowd.enter(third).is_some() && crowd.enter(other).is_some());
        drop(others);
        assert_eq!(crowd.open().all, 0);
        assert!(crowd.open().by_client.is_empty());
    }
}
