//! A client that asks for what it uses: `*` is what is for its own workload, and names are shared resources.

use std::collections::VecDeque;

use weft_proto::discovery::DeltaDiscoveryRequest;

use super::*;
use crate::serve::session::delta::Delta;
use crate::world::Own;

const NOTHING: [&str; 0] = [];

/// A mesh of a service `s`, and of two workloads, each with an inbound listener and cluster.
fn mesh(content: u32) -> Vec<Resource> {
    vec![
        destination("10.96.0.7:80", content),
        listener("outbound/s", content),
        route("s", content),
        cluster("s", content),
        endpoints("s", content),
    ]
}

struct Client(Bench<Delta>);

impl Client {
    /// One whose wildcards are answered and acknowledged.
    fn new(shared: &[Resource]) -> Self {
        let world = World::new();
        let mut client = Self(Bench::meaning(Star::Own, world, 7));
        client.put(shared, 1);
        client.0.hear();
        for kind in [Kind::Cluster, Kind::Listener] {
            let told = client.ask(kind, &["*"], &[]);
            assert_eq!(told, [format!("{} +inbound/80", abbreviation(kind.type_url()))]);
        }
        client
    }

    fn put(&mut self, shared: &[Resource], own: u32) {
        let of = |port: u16, content| Own {
            account: "orders".into(),
            resources: vec![
                listener(&format!("inbound/{port}"), content),
                cluster(&format!("inbound/{port}"), content),
            ],
        };
        let own = [("default/orders-1", of(80, own)), ("default/other-1", of(81, 1))];
        let own = own.into_iter().map(|(workload, own)| (workload.into(), own)).collect();
        self.0.revision += 1;
        self.0.world.put(self.0.revision, shared.to_vec(), own);
    }

    /// Asks, and acknowledges what comes, which must be all.
    fn ask(&mut self, kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let responses = self.0.send(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: list(subscribe),
            resource_names_unsubscribe: list(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        });
        self.acknowledge(responses)
    }

    /// Acknowledges these, and what comes of that; all of them in words.
    fn acknowledge(&mut self, responses: Vec<DeltaDiscoveryResponse>) -> Vec<String> {
        let mut told = Vec::new();
        let mut waiting = VecDeque::from(responses);
        while let Some(response) = waiting.pop_front() {
            told.push(response.summary());
            let (type_url, response_nonce) = (response.type_url, response.nonce);
            waiting.extend(self.0.send(DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }));
        }
        told
    }

    /// What it is told of a publication, or nothing at all: then it is not even woken.
    fn hear(&mut self) -> Vec<String> {
        use futures_util::FutureExt;
        if self.0.watch.changed().now_or_never().is_none() {
            return Vec::new();
        }
        let responses = self.0.hear();
        let told = self.acknowledge(responses);
        assert_eq!(self.0.session.wake_at(), None, "all is told");
        told
    }

    /// Asks for all a service takes, in the order in which a client finds out.
    fn use_service(&mut self) {
        for (kind, name) in [
            (Kind::Destination, "10.96.0.7:80"),
            (Kind::Listener, "outbound/s"),
            (Kind::Route, "s"),
            (Kind::Cluster, "s"),
            (Kind::Endpoints, "s"),
        ] {
            assert_eq!(self.ask(kind, &[name], &[]), [format!("{} +{name}", abbreviation(kind.type_url()))]);
        }
    }
}

#[test]
fn a_star_is_what_is_for_the_own_workload_and_news_of_anything_else_is_none() {
    let mut client = Client::new(&mesh(1));
    client.put(&mesh(2), 1);
    assert_eq!(client.hear(), NOTHING);
    assert_eq!(client.0.acknowledged(), client.0.revision, "what does not concern it is not waited for");
    client.put(&mesh(2), 2);
    assert_eq!(client.hear(), ["CDS +inbound/80", "LDS +inbound/80"]);
}

#[test]
fn a_service_that_is_used_is_told_with_all_its_changes_and_its_end() {
    let mut client = Client::new(&mesh(1));
    client.use_service();
    client.put(&mesh(2), 1);
    let all = ["CDS +s", "EDS +s", "LDS +outbound/s", "RDS +s", "Destination +10.96.0.7:80"];
    assert_eq!(client.hear(), all);
    client.put(&[], 1);
    let gone = ["LDS -outbound/s", "RDS -s", "Destination -10.96.0.7:80", "CDS -s", "EDS -s"];
    assert_eq!(client.hear(), gone);
    client.put(&mesh(3), 1);
    assert_eq!(client.hear(), all);
}

#[test]
fn a_service_that_is_used_no_more_is_no_more_told_of() {
    let mut client = Client::new(&mesh(1));
    client.use_service();
    // What the star might cover is answered: it does not.
    assert_eq!(client.ask(Kind::Cluster, &[], &["s"]), ["CDS -s"]);
    assert_eq!(client.ask(Kind::Listener, &[], &["outbound/s"]), ["LDS -outbound/s"]);
    // There is no star of these.
    for (kind, name) in [(Kind::Destination, "10.96.0.7:80"), (Kind::Route, "s"), (Kind::Endpoints, "s")] {
        assert_eq!(client.ask(kind, &[], &[name]), NOTHING);
    }
    client.put(&mesh(2), 1);
    assert_eq!(client.hear(), NOTHING);
    assert_eq!(client.0.watch.standing().names(), []);
}

#[test]
fn a_name_that_the_star_covers_too_stays_when_it_is_given_up() {
    let mut client = Client::new(&[]);
    assert_eq!(client.ask(Kind::Listener, &["inbound/80"], &[]), ["LDS +inbound/80"]);
    assert_eq!(client.ask(Kind::Listener, &[], &["inbound/80"]), ["LDS +inbound/80"]);
    client.put(&[], 2);
    assert_eq!(client.hear(), ["CDS +inbound/80", "LDS +inbound/80"]);
}

#[test]
fn an_address_of_nobody_is_answered_at_once_and_told_when_it_is_somebodys() {
    let mut client = Client::new(&[]);
    let asked = ["10.96.0.7:80", "10.96.0.7"];
    assert_eq!(client.ask(Kind::Destination, &asked, &[]), ["Destination -10.96.0.7 -10.96.0.7:80"]);
    client.put(&mesh(1), 1);
    assert_eq!(client.hear(), ["Destination +10.96.0.7:80"]);
}

#[test]
fn there_is_no_star_of_destinations() {
    for star in [Star::Everything, Star::Own] {
        let world = World::new();
        world.put(1, mesh(1), BTreeMap::new());
        let mut client = Client(Bench::meaning(star, world, 7));
        assert_eq!(client.ask(Kind::Destination, &[], &[]), NOTHING);
        assert_eq!(client.ask(Kind::Destination, &["*"], &[]), ["Destination -*"]);
        client.0.world.put(2, mesh(2), BTreeMap::new());
        assert_eq!(client.hear(), NOTHING);
        assert_eq!(client.ask(Kind::Destination, &["10.96.0.7:80"], &["*"]), ["Destination +10.96.0.7:80"]);
    }
}

#[test]
fn what_is_for_another_workload_alone_is_closed_also_by_name() {
    let mut client = Client::new(&mesh(1));
    assert_eq!(client.ask(Kind::Listener, &["inbound/81"], &[]), ["LDS -inbound/81"]);
    assert_eq!(client.ask(Kind::Cluster, &["inbound/81"], &[]), ["CDS -inbound/81"]);
}

#[test]
fn a_returning_client_says_what_it_holds_and_is_told_the_difference_alone() {
    let mut client = Client::new(&mesh(1));
    client.use_service();
    client.put(&mesh(2), 1);
    let mut again = Client(Bench::meaning(Star::Own, Arc::clone(&client.0.world), 8));
    let held = |names: &[(&str, &Resource)]| {
        names.iter().map(|(name, resource)| ((*name).to_owned(), resource.version.to_string())).collect()
    };
    let own = listener("inbound/80", 1);
    for (subscribe, holds, expected) in [
        // As it is, changed, and given up meanwhile.
        (vec!["*", "outbound/s"], held(&[("inbound/80", &own), ("outbound/s", &mesh(1)[1])]), vec!["LDS +outbound/s"]),
        (vec!["*"], held(&[("inbound/80", &own), ("outbound/s", &mesh(2)[1])]), vec!["LDS -outbound/s"]),
        (vec!["*"], held(&[("inbound/80", &own)]), vec!["LDS"]),
    ] {
        let responses = again.0.send(DeltaDiscoveryRequest {
            type_url: names::LISTENER.to_owned(),
            resource_names_subscribe: subscribe.into_iter().map(str::to_owned).collect(),
            initial_resource_versions: holds,
            ..DeltaDiscoveryRequest::default()
        });
        assert_eq!(summaries(&responses), expected);
        again = Client(Bench::meaning(Star::Own, Arc::clone(&client.0.world), 9));
    }
}

#[test]
fn asking_for_something_new_makes_a_client_no_less_up_to_date() {
    let mut client = Client::new(&mesh(1));
    for content in 2..5 {
        client.put(&mesh(content), 1);
    }
    let revision = client.0.revision;
    let standing = client.0.watch.standing();
    assert_eq!((standing.acknowledged(), standing.answered()), (revision, revision));
    client.0.send(DeltaDiscoveryRequest {
        type_url: names::LISTENER.to_owned(),
        resource_names_subscribe: vec!["outbound/s".to_owned()],
        ..DeltaDiscoveryRequest::default()
    });
    assert_eq!(client.0.session.standing().pending, 1);
    assert_eq!((standing.acknowledged(), standing.answered()), (revision, revision));
    // What changes of it from here on is waited for.
    client.put(&mesh(5), 1);
    client.0.hear();
    assert_eq!((standing.acknowledged(), standing.answered()), (revision, revision));
}
