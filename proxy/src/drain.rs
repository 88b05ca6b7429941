//! Draining: connections are asked to end when they have nothing under way.
//!
//! One list per worker. An idle connection leaves its waker in its slot, so that draining costs nothing until it
//! happens. Inbound and outbound drain separately: the application may call out until it has exited.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use weft_core::model::Direction;

/// The connections of one worker and whether they should end.
#[derive(Debug, Default)]
pub struct Drain {
    inbound: Cell<bool>,
    outbound: Cell<bool>,
    slots: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    inbound_open: Cell<usize>,
    outbound_open: Cell<usize>,
}

impl Drain {
    /// Asks the connections of one direction to end.
    pub fn begin(&self, direction: Direction) {
        self.flag(direction).set(true);
        for waker in self.slots.borrow_mut().iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    pub fn is_draining(&self, direction: Direction) -> bool {
        self.flag(direction).get()
    }

    /// Connections of one direction that are open.
    pub fn open(&self, direction: Direction) -> usize {
        self.count(direction).get()
    }

    fn count(&self, direction: Direction) -> &Cell<usize> {
        match direction {
            Direction::Inbound => &self.inbound_open,
            Direction::Outbound => &self.outbound_open,
        }
    }

    fn flag(&self, direction: Direction) -> &Cell<bool> {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// A place for one connection.
    pub fn enter(&self, direction: Direction) -> Place<'_> {
        let count = self.count(direction);
        count.set(count.get() + 1);
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.slots.borrow_mut();
            slots.push(None);
            slots.len() - 1
        });
        Place { drain: self, direction, slot }
    }
}

/// The place of one connection in the list.
#[derive(Debug)]
pub struct Place<'a> {
    drain: &'a Drain,
    direction: Direction,
    slot: usize,
}

impl Place<'_> {
    /// Called while the connection waits for its next request: it is woken when draining begins.
    pub fn wait(&self, waker: &Waker) {
        let mut slots = self.drain.slots.borrow_mut();
        match &mut slots[self.slot] {
            Some(present) => present.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let count = self.drain.count(self.direction);
        count.set(count.get() - 1);
        self.drain.slots.borrow_mut()[self.slot] = None;
        self.drain.free.borrow_mut().push(self.slot);
    }
}
