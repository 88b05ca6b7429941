//! The corpus of the fuzz target through the same check; and random programs.

use proptest::prelude::*;

use super::machine;
use crate::http1::check::tests::replay;

#[test]
fn the_corpus_of_the_machine_passes() {
    replay("multiplex", machine);
}

proptest! {
    #[test]
    fn any_program_keeps_the_promises(program in prop::collection::vec(any::<u8>(), 0..600)) {
        machine(&program);
    }

    #[test]
    fn programs_on_few_streams_keep_the_promises(
        choice in any::<u8>().prop_map(|choice| choice & !2),
        steps in prop::collection::vec((0..24u8, 0..8u8, 0..6u8, any::<u8>(), any::<u8>()), 0..150),
    ) {
        let steps = steps.into_iter().flat_map(|(step, flags, stream, one, two)| [step, flags, stream, one, two]);
        machine(&std::iter::once(choice).chain(steps).collect::<Vec<_>>());
    }
}
