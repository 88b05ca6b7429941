//! The request path allocates nothing once it is warm.

use weft_benches::allocations::Counting;
use weft_benches::drive::{Chain, Run};
use weft_benches::traffic::Shape;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of each worker per request.
fn allocations(chain: Chain, shape: Shape) -> Vec<f64> {
    let run = Run { chain, shape, connections: 4, warm_up: 50, rounds: 250 };
    let spent = run.run().expect("the run succeeds");
    spent.iter().map(|spent| spent.allocated.count as f64 / run.requests() as f64).collect()
}

#[test]
fn a_plain_request_allocates_nothing() {
    for chain in [Chain::Plain, Chain::Routed] {
        for shape in Shape::HTTP1 {
            assert_eq!(allocations(chain, shape), [0.0], "{chain:?} {}", shape.name());
        }
    }
}

/// The task of a request, and what a connection needs when more streams are open than ever before. Raise it only with a
/// reason.
const CEILING_OF_A_STREAM: f64 = 1.05;

#[test]
fn a_request_with_a_stream_allocates_its_task_only() {
    for shape in [Shape::Http2, Shape::Unary] {
        let counted = allocations(Chain::Plain, shape);
        println!("{}: {counted:?}", shape.name());
        assert!(counted[0] <= CEILING_OF_A_STREAM, "{}: {counted:?} allocations", shape.name());
    }
}

#[test]
fn opening_a_connection_is_counted() {
    let run = Run { chain: Chain::Plain, shape: Shape::Get, connections: 1, warm_up: 0, rounds: 1 };
    let spent = run.run().expect("the run succeeds");
    assert!(spent[0].allocated.count > 0, "the allocator does not see the worker's thread");
}

#[test]
fn a_request_between_two_proxies_allocates_within_rustls_only() {
    for side in allocations(Chain::Pair, Shape::Get) {
        // One for the record read, one for the record written: a head and a small body share it.
        assert!(side <= 2.0, "{side} allocations per request and side");
    }
}
