use super::*;
use crate::clock;

mod simulation;

const LIMITS: Limits = Limits { configured: Duration::from_mins(1), probation: Duration::from_mins(1) };
const FIRST: ChildId = ChildId(0);
const SECOND: ChildId = ChildId(1);
const THIRD: ChildId = ChildId(2);

fn program(id: u32) -> Program {
    Program { id: ProgramId(id), digest: [id as u8; 32] }
}

/// A machine and the time it is given.
struct Desk {
    machine: Machine,
    now: Instant,
}

impl Desk {
    /// The first proxy serves.
    fn new() -> Self {
        let (machine, actions) = Machine::new(LIMITS, program(0));
        assert_eq!(actions, [Action::Start(FIRST, ProgramId(0)), Action::Send(FIRST, ToProxy::Start)]);
        let mut desk = Self { machine, now: clock::now() };
        assert_eq!(desk.handle(Event::Serving(FIRST)), []);
        desk
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(self.now, event)
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.handle(Event::Time)
    }

    /// The first one asks for program 1, which becomes the second child.
    fn offered(&mut self) {
        let actions = self.handle(Event::Offered(Some(FIRST), program(1)));
        assert_eq!(
            actions,
            [Action::Start(SECOND, ProgramId(1)), Action::Send(SECOND, ToProxy::Prepare(Preparation::default())),]
        );
    }

    fn configured(&mut self) {
        self.offered();
        let actions = self.handle(Event::Configured(SECOND));
        assert_eq!(actions, [Action::Send(FIRST, ToProxy::HandOver)]);
        assert!(self.machine.collects_from(FIRST) && !self.machine.collects_from(SECOND));
    }

    fn collected(&mut self) {
        self.configured();
        assert_eq!(self.handle(Event::Collected(FIRST)), [Action::Pass(SECOND)]);
    }

    /// The second one serves.
    fn replaced(&mut self) {
        self.collected();
        assert_eq!(self.handle(Event::Serving(SECOND)), [Action::Send(FIRST, ToProxy::Drain)]);
    }
}

/// Why the child was told that nothing came of it.
fn refusal(actions: &[Action], child: ChildId) -> Why {
    let mut found = actions.iter().filter_map(|action| match action {
        Action::Send(to, ToProxy::Refused { why, .. }) if *to == child => Some(*why),
        _ => None,
    });
    let why = found.next().unwrap_or_else(|| panic!("{actions:?}"));
    assert_eq!(found.next(), None);
    why
}

#[test]
fn copies_are_kept_until_the_new_program_has_proved_itself() {
    let mut desk = Desk::new();
    assert!(!desk.machine.needs_listeners());
    desk.replaced();
    assert!(desk.machine.needs_listeners() && desk.machine.needs(ProgramId(0)));
    assert_eq!(desk.wait(Duration::from_secs(59)), []);
    assert!(desk.machine.needs_listeners() && desk.machine.needs(ProgramId(0)));
    assert_eq!(desk.wait(Duration::from_secs(1)), []);
    assert!(!desk.machine.needs_listeners() && !desk.machine.needs(ProgramId(0)));
    assert_eq!(desk.machine.deadline(), None);
    assert_eq!(desk.handle(Event::Ended(FIRST, 0)), []);
    assert_eq!(desk.handle(Event::Ended(SECOND, 3)), [Action::Exit(3)]);
}

#[test]
fn whatever_goes_wrong_before_it_serves_leaves_the_old_one_alone() {
    type Reach = fn(&mut Desk);
    let stages: [(Reach, Duration); 3] =
        [(Desk::offered, LIMITS.configured), (Desk::configured, COLLECTING), (Desk::collected, TAKING_OVER)];
    for (reach, limit) in stages {
        let mut desk = Desk::new();
        reach(&mut desk);
        let actions = desk.handle(Event::Ended(SECOND, 1));
        assert_eq!((actions.len(), refusal(&actions, FIRST)), (2, Why::Ended));
        let counts = Counts { refused: 1, ..Counts::default() };
        assert_eq!(actions[1], Action::Send(FIRST, ToProxy::Counted(counts)));
        assert!(!desk.machine.needs_listeners() && !desk.machine.needs(ProgramId(1)));

        let mut desk = Desk::new();
        reach(&mut desk);
        let nearly = limit.mul_f64(0.99);
        assert_eq!(desk.wait(nearly), []);
        let actions = desk.wait(limit.saturating_sub(nearly));
        assert_eq!(actions[0], Action::Kill(SECOND));
        assert_eq!((actions.len(), refusal(&actions, FIRST)), (3, Why::Late));
        // What it still does is nobody's.
        assert_eq!(desk.handle(Event::Serving(SECOND)), []);
        assert_eq!(desk.handle(Event::Ended(SECOND, 137)), []);
        // And another try is one from the beginning.
        let actions = desk.handle(Event::Offered(Some(FIRST), program(2)));
        assert_eq!(actions[0], Action::Start(THIRD, ProgramId(2)));
    }
}

#[test]
fn the_reason_a_program_gives_is_told_to_whoever_asked_for_it() {
    let mut desk = Desk::new();
    desk.offered();
    assert_eq!(desk.handle(Event::Failed(SECOND, "no port".to_owned())), []);
    let refused = ToProxy::Refused { why: Why::Ended, reason: "no port".to_owned() };
    assert_eq!(desk.handle(Event::Ended(SECOND, 1))[0], Action::Send(FIRST, refused));
}

#[test]
fn what_is_no_program_is_told_so() {
    let mut desk = Desk::new();
    desk.offered();
    let actions = desk.handle(Event::NotStarted(SECOND, "exec format error".to_owned()));
    assert_eq!(refusal(&actions, FIRST), Why::NoProgram);
    let actions = desk.handle(Event::Unreadable(Some(FIRST), "a directory".to_owned()));
    assert_eq!(refusal(&actions, FIRST), Why::NoProgram);
}

#[test]
fn one_program_is_put_in_place_at_a_time() {
    let mut desk = Desk::new();
    desk.offered();
    let actions = desk.handle(Event::Offered(Some(FIRST), program(2)));
    assert_eq!(refusal(&actions, FIRST), Why::Busy);
    // Nobody asked: the answer would be taken for that to the first one's question.
    let counts = Counts { refused: 2, ..Counts::default() };
    let counted = [Action::Send(FIRST, ToProxy::Counted(counts))];
    assert_eq!(desk.handle(Event::Offered(None, program(2))), counted);
    desk.handle(Event::Configured(SECOND));
    desk.handle(Event::Collected(FIRST));
    desk.handle(Event::Serving(SECOND));
    // The old one has nothing more to say.
    let actions = desk.handle(Event::Offered(Some(FIRST), program(2)));
    assert_eq!(refusal(&actions, FIRST), Why::Busy);
    // The new one has.
    assert_eq!(desk.handle(Event::Offered(Some(SECOND), program(2)))[0], Action::Start(THIRD, ProgramId(2)));
}

#[test]
fn a_proxy_that_does_not_serve_yet_is_not_replaced() {
    let (mut machine, _) = Machine::new(LIMITS, program(0));
    assert_eq!(machine.handle(clock::now(), Event::Offered(None, program(1))).len(), 1);
    assert!(machine.candidate.is_none());
}

#[test]
fn one_that_dies_soon_after_it_took_over_is_taken_back_and_never_tried_again() {
    let mut desk = Desk::new();
    desk.replaced();
    desk.handle(Event::Ended(FIRST, 0));
    desk.wait(Duration::from_secs(30));
    let counts = Counts { completed: 1, ..Counts::default() };
    let preparation = Preparation { counts, returns_from: "01".repeat(32) };
    assert_eq!(
        desk.handle(Event::Ended(SECOND, 139)),
        [Action::Start(THIRD, ProgramId(0)), Action::Send(THIRD, ToProxy::Prepare(preparation))]
    );
    assert!(desk.machine.needs_listeners());
    // It is given the copies, as there is nobody to ask.
    assert_eq!(desk.handle(Event::Configured(THIRD)), [Action::Pass(THIRD)]);
    assert_eq!(desk.handle(Event::Serving(THIRD)), []);
    assert!(!desk.machine.needs_listeners());
    assert_eq!(desk.machine.counts, Counts { completed: 1, refused: 0, rolled_back: 1 });
    let actions = desk.handle(Event::Offered(Some(THIRD), program(1)));
    assert_eq!(refusal(&actions, THIRD), Why::DiedBefore);
    // It is an ordinary proxy now.
    assert_eq!(desk.handle(Event::Ended(THIRD, 1)), [Action::Exit(1)]);
}

#[test]
fn one_that_comes_back_does_not_wait_for_its_certificate_for_ever() {
    let mut desk = Desk::new();
    desk.replaced();
    desk.handle(Event::Ended(SECOND, 1));
    assert_eq!(desk.wait(COMING_BACK), [Action::Pass(THIRD)]);
    assert_eq!(desk.handle(Event::Configured(THIRD)), []);
    assert_eq!(desk.handle(Event::Serving(THIRD)), []);
    assert_eq!(desk.machine.counts.rolled_back, 1);
}

#[test]
fn a_program_that_cannot_come_back_ends_the_supervisor() {
    let mut desk = Desk::new();
    desk.replaced();
    desk.handle(Event::Ended(SECOND, 1));
    assert_eq!(desk.handle(Event::Ended(THIRD, 2)), [Action::Exit(2)]);
}

#[test]
fn one_that_dies_while_the_next_gets_ready_is_taken_back_all_the_same() {
    let mut desk = Desk::new();
    desk.replaced();
    desk.handle(Event::Offered(Some(SECOND), program(2)));
    let actions = desk.handle(Event::Ended(SECOND, 1));
    assert_eq!(actions[..2], [Action::Kill(THIRD), Action::Start(ChildId(3), ProgramId(0))]);
}

#[test]
fn one_that_dies_while_the_next_takes_over_is_succeeded() {
    let mut desk = Desk::new();
    desk.collected();
    assert_eq!(desk.handle(Event::Ended(FIRST, 1)), []);
    assert_eq!(desk.handle(Event::Serving(SECOND)), []);
    assert_eq!(desk.handle(Event::Ended(SECOND, 4)), [Action::Exit(4)]);
}

#[test]
fn told_to_end_all_are_told_and_the_newest_ones_code_is_ours() {
    let mut desk = Desk::new();
    desk.replaced();
    desk.handle(Event::Offered(Some(SECOND), program(2)));
    let actions = desk.handle(Event::Leave(15));
    assert_eq!(actions, [FIRST, SECOND, THIRD].map(|child| Action::Signal(child, 15)));
    assert!(!desk.machine.needs_listeners(), "copies would keep the addresses open");
    let actions = desk.handle(Event::Offered(Some(SECOND), program(3)));
    assert_eq!(refusal(&actions, SECOND), Why::Ending);
    assert_eq!(desk.handle(Event::Ended(THIRD, 143)), []);
    assert_eq!(desk.handle(Event::Ended(SECOND, 7)), []);
    assert_eq!(desk.handle(Event::Ended(FIRST, 0)), [Action::Exit(7)]);
}

#[test]
fn the_code_of_a_proxy_that_was_never_replaced_passes_through() {
    for code in [0, 2, 137] {
        let (mut machine, _) = Machine::new(LIMITS, program(0));
        assert_eq!(machine.handle(clock::now(), Event::Ended(FIRST, code)), [Action::Exit(code)]);
    }
}
