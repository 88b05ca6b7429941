//! What the driver and the handles of one connection share.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::task::Waker;

use super::machine::Machine;

/// The machine, and how to wake whoever drives it. Of one thread: a borrow never lasts longer than one call.
#[derive(Debug)]
pub(super) struct Shared {
    machine: RefCell<Machine>,
    driver: RefCell<Option<Waker>>,
    /// The driver is running, or was woken: waking it again would be wasted.
    is_awake: Cell<bool>,
    /// Handles that may open streams.
    clients: Cell<usize>,
}

impl Shared {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine: RefCell::new(machine),
            driver: RefCell::new(None),
            is_awake: Cell::new(true),
            clients: Cell::new(0),
        }
    }

    pub(super) fn read(&self) -> Ref<'_, Machine> {
        self.machine.borrow()
    }

    /// For the driver, which knows that it is awake.
    pub(super) fn drive(&self) -> RefMut<'_, Machine> {
        self.machine.borrow_mut()
    }

    /// For the handles: changes the machine and wakes the driver if that left it something to do.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let (result, wants_turn) = {
            let mut machine = self.machine.borrow_mut();
            let result = change(&mut machine);
            (result, machine.wants_turn())
        };
        if wants_turn {
            self.wake();
        }
        result
    }

    pub(super) fn wake(&self) {
        if !self.is_awake.replace(true)
            && let Some(driver) = &*self.driver.borrow()
        {
            driver.wake_by_ref();
        }
    }

    /// The driver runs, and will go to [`sleep`](Self::sleep) before its task waits.
    pub(super) fn attend(&self) {
        self.is_awake.set(true);
    }

    /// The driver waits: whoever changes the machine wakes it. True when the waker is another one than before.
    pub(super) fn sleep(&self, waker: &Waker) -> bool {
        self.is_awake.set(false);
        let mut driver = self.driver.borrow_mut();
        match &mut *driver {
            Some(present) if present.will_wake(waker) => false,
            place => {
                *place = Some(waker.clone());
                true
            }
        }
    }

    pub(super) fn enter_client(&self) {
        self.clients.set(self.clients.get() + 1);
    }

    /// The last one gone: nobody can open streams any more.
    pub(super) fn leave_client(&self) {
        self.clients.set(self.clients.get().saturating_sub(1));
        if self.clients.get() == 0 {
            self.change(Machine::close);
            self.wake();
        }
    }
}
