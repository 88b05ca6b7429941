//! Draining: connections are asked to end when they have nothing under way.
//!
//! One list per worker. An idle connection leaves its waker in its slot, so that draining costs nothing until it
//! happens. Inbound and outbound drain separately: the application may call out until it has exited. A proxy that was
//! replaced drains both, gently at first: what is idle hears of it with its next answer, so that no close crosses a request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use weft_core::model::Direction;

/// Whoever waits in it, and which way its connection goes.
type Slot = (Direction, Option<Waker>);

/// The connections of one worker and whether they should end.
#[derive(Debug, Default)]
pub struct Drain {
    inbound: Cell<bool>,
    outbound: Cell<bool>,
    is_gentle: Cell<bool>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    inbound_open: Rc<Cell<usize>>,
    outbound_open: Rc<Cell<usize>>,
}

impl Drain {
    /// Asks all connections to end when it costs their clients nothing: those that can be told without closing are told at
    /// once, the others with their next answer.
    pub fn begin_gently(&self) {
        self.is_gentle.set(true);
        self.wake(Direction::Inbound);
        self.wake(Direction::Outbound);
    }

    /// Asks the connections of one direction to end.
    pub fn begin(&self, direction: Direction) {
        self.flag(direction).set(true);
        self.wake(direction);
    }

    fn wake(&self, direction: Direction) {
        for (_, waiting) in self.slots.borrow_mut().iter_mut().filter(|(of, _)| *of == direction) {
            if let Some(waker) = waiting.take() {
                waker.wake();
            }
        }
    }

    /// No connection takes another request after the one it has.
    pub fn is_draining(&self, direction: Direction) -> bool {
        self.is_gentle.get() || self.flag(direction).get()
    }

    /// What is idle closes, though it cannot tell its client before.
    pub fn closes_idle(&self, direction: Direction) -> bool {
        self.flag(direction).get()
    }

    /// Connections of one direction that are open.
    pub fn open(&self, direction: Direction) -> usize {
        self.count(direction).get()
    }

    fn count(&self, direction: Direction) -> &Rc<Cell<usize>> {
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

    /// Counts a connection from its first moment, its handshake included, until this is dropped.
    pub fn arrive(&self, direction: Direction) -> Arrived {
        let open = Rc::clone(self.count(direction));
        open.set(open.get() + 1);
        Arrived(open)
    }

    /// A place for one connection that may wait.
    pub fn enter(&self, direction: Direction) -> Place<'_> {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or(slots.len());
        match slots.get_mut(slot) {
            Some(free) => *free = (direction, None),
            None => slots.push((direction, None)),
        }
        Place { drain: self, slot }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct Arrived(Rc<Cell<usize>>);

impl Drop for Arrived {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The place of one connection in the list.
#[derive(Debug)]
pub struct Place<'a> {
    drain: &'a Drain,
    slot: usize,
}

impl Place<'_> {
    /// Called while the connection waits for its next request: it is woken when draining begins.
    pub fn wait(&self, waker: &Waker) {
        let mut slots = self.drain.slots.borrow_mut();
        match &mut slots[self.slot].1 {
            Some(present) => present.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.drain.slots.borrow_mut()[self.slot].1 = None;
        self.drain.free.borrow_mut().push(self.slot);
    }
}
