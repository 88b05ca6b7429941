//! The steps of a request without I/O, each alone and all together.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_core::endpoint::Outcome;
use weft_core::model::Direction;
use weft_proxy::clock;
use weft_proxy::http1::{Connection, FieldStorage, RequestHead, RequestWrite, ResponseHead, ResponseWrite};
use weft_proxy::state::Store;
use weft_proxy::telemetry::{CodeClass, Registry};

use crate::configuration::{SERVICE, outbound};
use crate::traffic::Shape;

/// One sample runs at least this long, so that reading the clock does not show.
const SAMPLE: Duration = Duration::from_millis(5);
const SAMPLES: usize = 15;
/// Endpoints of the cluster: a pick compares two.
const ENDPOINTS: u16 = 3;
const WRITE_ANSWER: ResponseWrite =
    ResponseWrite { connection: Connection::Persistent, unchunk: false, keep_error: false };
const WRITE_REQUEST: RequestWrite<'static> = RequestWrite {
    default_authority: b"orders:80",
    request_id: Some(b"0f0e0d0c-0b0a-4908-8706-050403020100"),
    client_certificate: None,
};

/// What the steps work on.
#[derive(Debug)]
pub struct Material {
    request: Vec<u8>,
    answer: Vec<u8>,
    out: Vec<u8>,
    store: Store,
    chance: fastrand::Rng,
}

/// Repeats one step.
type Repeat = fn(&mut Material, u64);

/// The steps, in the order of a request.
pub const STEPS: [(&str, Repeat); 7] = [
    ("read request head", Material::read_request),
    ("route", Material::route),
    ("pick, and record", Material::pick),
    ("write request head", Material::write_request),
    ("read and write answer head", Material::answer),
    ("signals", Material::signals),
    ("all together", Material::whole),
];

impl Material {
    pub fn new() -> Result<Self> {
        Registry::default().install();
        let store = Store::new("default/caller".to_owned());
        let endpoints: Vec<_> = (1..=ENDPOINTS).map(|port| ([127, 0, 0, 1], port).into()).collect();
        store.apply(outbound(&endpoints, None));
        let mut material = Self {
            request: Shape::Get.request(),
            answer: Shape::Get.answer(),
            out: Vec::with_capacity(4096),
            store,
            chance: fastrand::Rng::with_seed(1),
        };
        let written = material.request_and_answer().context("the request was not routed")?;
        ensure!(written > material.request.len(), "the heads were not written");
        Ok(material)
    }

    fn read_request(&mut self, times: u64) {
        for _ in 0..times {
            let mut storage = FieldStorage::new();
            let head = RequestHead::parse(black_box(&self.request), &mut storage);
            black_box(head.is_ok_and(|head| head.is_some()));
        }
    }

    fn route(&mut self, times: u64) {
        let snapshot = self.store.load();
        let listener = snapshot.listener(Direction::Outbound, SERVICE);
        let Some(routes) = listener.and_then(|listener| listener.routes.as_ref()) else { return };
        let mut storage = FieldStorage::new();
        let Ok(Some(head)) = RequestHead::parse(&self.request, &mut storage) else { return };
        for _ in 0..times {
            let route = routes.matches(black_box(&head));
            black_box(route.and_then(|route| route.split().pick(|bound| self.chance.u64(..bound))));
        }
    }

    fn pick(&mut self, times: u64) {
        let snapshot = self.store.load();
        let Some(cluster) = snapshot.clusters().next() else { return };
        for _ in 0..times {
            let endpoints = cluster.endpoints();
            let Ok(picked) = endpoints.pick(clock::now(), &mut self.chance, &[]) else { return };
            let mut in_flight = picked.in_flight;
            black_box(endpoints.record(&mut in_flight, clock::now(), Outcome::Success, &mut self.chance));
        }
    }

    fn write_request(&mut self, times: u64) {
        let mut storage = FieldStorage::new();
        let Ok(Some(head)) = RequestHead::parse(&self.request, &mut storage) else { return };
        for _ in 0..times {
            self.out.clear();
            black_box(&head).write(&WRITE_REQUEST, &mut self.out);
            black_box(&self.out);
        }
    }

    fn answer(&mut self, times: u64) {
        for _ in 0..times {
            let mut storage = FieldStorage::new();
            let Ok(Some(head)) = ResponseHead::parse(black_box(&self.answer), &mut storage, false) else { return };
            self.out.clear();
            head.write(&WRITE_ANSWER, &mut self.out);
            black_box(&self.out);
        }
    }

    fn signals(&mut self, times: u64) {
        let snapshot = self.store.load();
        let Some(cluster) = snapshot.clusters().next() else { return };
        for _ in 0..times {
            let started = clock::now();
            let in_flight = cluster.edge().in_flight();
            cluster.edge().bytes(600, 1400);
            cluster.edge().request(CodeClass::of(black_box(200)), clock::now() - started);
            drop(in_flight);
        }
    }

    fn whole(&mut self, times: u64) {
        for _ in 0..times {
            black_box(self.request_and_answer());
        }
    }

    /// As the forwarding code does it, but for the sockets; the bytes written.
    fn request_and_answer(&mut self) -> Option<usize> {
        let mut storage = FieldStorage::new();
        let head = RequestHead::parse(black_box(&self.request), &mut storage).ok()??;
        let snapshot = self.store.load();
        let routes = snapshot.listener(Direction::Outbound, SERVICE)?.routes.as_ref()?;
        let (_, cluster) = routes.matches(&head)?.split().pick(|bound| self.chance.u64(..bound))?;
        let cluster = cluster?;
        let started = clock::now();
        let counted = cluster.edge().in_flight();
        let endpoints = cluster.endpoints();
        let mut in_flight = endpoints.pick(started, &mut self.chance, &[]).ok()?.in_flight;
        self.out.clear();
        head.write(&WRITE_REQUEST, &mut self.out);
        let sent = black_box(&self.out).len();

        let mut storage = FieldStorage::new();
        let answer = ResponseHead::parse(black_box(&self.answer), &mut storage, false).ok()??;
        self.out.clear();
        answer.write(&WRITE_ANSWER, &mut self.out);
        let received = black_box(&self.out).len();
        let now = clock::now();
        endpoints.record(&mut in_flight, now, Outcome::Success, &mut self.chance);
        cluster.edge().bytes(sent as u64, received as u64);
        cluster.edge().request(CodeClass::of(answer.status), now - started);
        drop(counted);
        Some(sent + received)
    }
}

/// Nanoseconds of one step.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub median: f64,
    pub fastest: f64,
}

/// Times a step.
pub fn time(material: &mut Material, step: Repeat) -> Timing {
    let mut times = 1;
    while sample(material, step, times) < SAMPLE {
        times *= 2;
    }
    let mut samples: Vec<f64> =
        (0..SAMPLES).map(|_| sample(material, step, times).as_nanos() as f64 / times as f64).collect();
    samples.sort_by(f64::total_cmp);
    Timing { median: samples[SAMPLES / 2], fastest: samples[0] }
}

fn sample(material: &mut Material, step: Repeat, times: u64) -> Duration {
    let started = clock::now();
    step(material, times);
    clock::now() - started
}
