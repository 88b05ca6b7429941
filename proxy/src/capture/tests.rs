//! The rules in a real kernel, with real connections, in namespaces of the tests' own.

use std::cell::Cell;
use std::env;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;
use socket2::{Domain, SockRef, Socket, Type};

use super::*;

mod namespace;

use namespace::{Namespace, skip, with_rights, workload_and_world};

/// Long for a connection within one machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn listen(namespace: &Namespace, text: &str) -> TcpListener {
    let place = address(text);
    let listener = namespace.run(move || TcpListener::bind(place)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Connects from inside; a mark of 0 is none.
fn connect(namespace: &Namespace, text: &str, mark: u32) -> io::Result<TcpStream> {
    let place = address(text);
    namespace.run(move || {
        let socket = Socket::new(Domain::for_address(place), Type::STREAM, None)?;
        if mark != 0 {
            socket.set_mark(mark)?;
        }
        socket.connect_timeout(&place.into(), PATIENCE)?;
        Ok(socket.into())
    })
}

/// Where a connection arrived: at which of the listeners, and with which original destination. Once a connection is
/// made, it waits at exactly one listener (the kernel queues it before the client's `connect` is through, or just after).
fn arrival(client: &TcpStream, listeners: &[&TcpListener]) -> (usize, Option<SocketAddr>) {
    let (own, deadline) = (client.local_addr().unwrap(), crate::clock::now() + PATIENCE);
    while crate::clock::now() < deadline {
        for (position, listener) in listeners.iter().enumerate() {
            match listener.accept() {
                Ok((stream, peer)) if SocketAddr::new(peer.ip().to_canonical(), peer.port()) == own => {
                    return (position, original(&stream, own.is_ipv4()));
                }
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    panic!("the connection from {own} arrived nowhere");
}

fn original(stream: &TcpStream, ipv4: bool) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = if ipv4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    address.ok()?.as_socket()
}

/// Rules under which this process is the workload.
fn as_workload() -> Rules {
    Rules { exempt: Exempt::Uid(14001), ..Rules::default() }
}

/// Rules under which this process is the proxy.
fn as_proxy() -> Rules {
    Rules { exempt: Exempt::Uid(geteuid().as_raw()), ..Rules::default() }
}

thread_local! {
    /// By which the test that runs installs.
    static BACKEND: Cell<Backend> = const { Cell::new(Backend::Nftables) };
}

/// Runs a test where it may make namespaces, once for each interface of the kernel that this machine has.
fn by_each_backend(test: &str, body: impl Fn()) {
    with_rights(test, || {
        for backend in [Backend::Nftables, Backend::IptablesLegacy] {
            let namespace = Namespace::new();
            match namespace.run(move || install_by(&Rules::default(), Some(backend))) {
                Ok(_) => {}
                Err(CaptureError::NoProgram { .. } | CaptureError::Unsupported { .. }) => {
                    skip("a backend that is not there");
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            println!("by {backend}");
            BACKEND.set(backend);
            body();
        }
        BACKEND.set(Backend::Nftables);
    });
}

fn install_in(namespace: &Namespace, rules: Rules) {
    let backend = BACKEND.get();
    assert_eq!(namespace.run(move || install_by(&rules, Some(backend))).unwrap(), backend);
}

fn installed_in(namespace: &Namespace) -> Option<Installed> {
    namespace.run(installed).unwrap()
}

#[test]
fn outbound_connections_reach_the_proxy_with_their_original_destination() {
    by_each_backend("outbound_connections_reach_the_proxy_with_their_original_destination", || {
        let (workload, _world) = workload_and_world();
        let proxies = [listen(&workload, "127.0.0.1:15001"), listen(&workload, "[::1]:15001")];
        install_in(&workload, as_workload());
        for (target, proxy) in [("192.0.2.1:9", 0), ("10.96.0.7:80", 0), ("[2001:db8::1]:9", 1), ("[fd57::7]:80", 1)] {
            let client = connect(&workload, target, 0).unwrap();
            assert_eq!(arrival(&client, &[&proxies[0], &proxies[1]]), (proxy, Some(address(target))), "{target}");
        }
    });
}

#[test]
fn inbound_connections_reach_the_proxy_with_their_original_destination() {
    by_each_backend("inbound_connections_reach_the_proxy_with_their_original_destination", || {
        let (workload, world) = workload_and_world();
        let proxy = listen(&workload, "[::]:15006");
        let app = listen(&workload, "[::]:9000");
        install_in(&workload, Rules { exclude_inbound_ports: vec![9000], ..as_workload() });
        for target in ["10.9.0.1:8080", "[fd09::1]:8080"] {
            let client = connect(&world, target, 0).unwrap();
            assert_eq!(arrival(&client, &[&proxy, &app]), (0, Some(address(target))), "{target}");
        }
        for target in ["10.9.0.1:9000", "[fd09::1]:9000"] {
            let client = connect(&world, target, 0).unwrap();
            assert_eq!(arrival(&client, &[&proxy, &app]).0, 1, "{target} is excluded");
        }
        // Straight to the proxy's port: nothing is translated, so the proxy sees its own address and refuses the loop.
        for target in ["10.9.0.1:15006", "[fd09::1]:15006"] {
            let client = connect(&world, target, 0).unwrap();
            let (_, original) = arrival(&client, &[&proxy]);
            assert!(original.is_none_or(|original| original == address(target)), "{target}: {original:?}");
        }
    });
}

#[test]
fn the_proxys_own_connections_go_their_own_way() {
    by_each_backend("the_proxys_own_connections_go_their_own_way", || {
        let (workload, world) = workload_and_world();
        let proxies = [listen(&workload, "127.0.0.1:15001"), listen(&workload, "[::1]:15001")];
        let beyond = listen(&world, "[::]:9");
        let marked = Rules { exempt: Exempt::Mark(0x5ef7), ..Rules::default() };
        let excluded = Rules { exclude_uids: vec![geteuid().as_raw()], ..as_workload() };
        for (rules, mark, expected) in [
            (as_proxy(), 0, 2),
            (as_workload(), 0x5ef7, 0),
            (marked.clone(), 0x5ef7, 2),
            (marked.clone(), 0x5ef6, 0),
            (marked, 0, 0),
            (excluded, 0, 2),
        ] {
            install_in(&workload, rules.clone());
            for (target, family) in [("192.0.2.1:9", 0), ("[2001:db8::1]:9", 1)] {
                let client = connect(&workload, target, mark).unwrap();
                let expected = if expected == 2 { 2 } else { family };
                let (place, _) = arrival(&client, &[&proxies[0], &proxies[1], &beyond]);
                assert_eq!(place, expected, "{target} with mark {mark:#x} under {rules:?}");
            }
        }
    });
}

#[test]
fn excluded_and_not_included_destinations_are_left_alone() {
    by_each_backend("excluded_and_not_included_destinations_are_left_alone", || {
        let (workload, world) = workload_and_world();
        let proxies = [listen(&workload, "127.0.0.1:15001"), listen(&workload, "[::1]:15001")];
        let beyond = [listen(&world, "[::]:9"), listen(&world, "[::]:22")];
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Cidr>>();
        let table = [
            (Rules { exclude_outbound_ports: vec![22], ..as_workload() }, "192.0.2.1:22", false),
            (Rules { exclude_outbound_ports: vec![22], ..as_workload() }, "[2001:db8::1]:22", false),
            (Rules { exclude_outbound_ports: vec![22], ..as_workload() }, "192.0.2.1:9", true),
            (Rules { exclude_cidrs: networks(&["192.0.2.0/25"]), ..as_workload() }, "192.0.2.1:9", false),
            (Rules { exclude_cidrs: networks(&["192.0.2.128/25"]), ..as_workload() }, "192.0.2.1:9", true),
            (Rules { exclude_cidrs: networks(&["2001:db8::/33"]), ..as_workload() }, "[2001:db8::1]:9", false),
            (Rules { exclude_cidrs: networks(&["0.0.0.0/0"]), ..as_workload() }, "192.0.2.1:9", false),
            (Rules { exclude_cidrs: networks(&["0.0.0.0/0"]), ..as_workload() }, "[2001:db8::1]:9", true),
            (Rules { include_cidrs: networks(&["10.96.0.0/16"]), ..as_workload() }, "192.0.2.1:9", false),
            (Rules { include_cidrs: networks(&["10.96.0.0/16"]), ..as_workload() }, "[2001:db8::1]:9", false),
            (Rules { include_cidrs: networks(&["192.0.2.0/24", "::/0"]), ..as_workload() }, "192.0.2.1:9", true),
            (Rules { include_cidrs: networks(&["192.0.2.0/24", "::/0"]), ..as_workload() }, "[2001:db8::1]:9", true),
        ];
        for (rules, target, captured) in table {
            install_in(&workload, rules.clone());
            let client = connect(&workload, target, 0).unwrap();
            let (place, _) = arrival(&client, &[&proxies[0], &proxies[1], &beyond[0], &beyond[1]]);
            assert_eq!(place < 2, captured, "{target} under {rules:?}");
            assert_eq!(rules.captures(address(target).ip(), address(target).port()), captured, "{target}, predicted");
        }
    });
}

#[test]
fn when_the_proxy_calls_its_own_workload_the_inbound_side_sees_it() {
    by_each_backend("when_the_proxy_calls_its_own_workload_the_inbound_side_sees_it", || {
        let (workload, _world) = workload_and_world();
        let listeners = ["[::]:15006", "[::]:15001", "[::]:8080", "[::]:9000"].map(|place| listen(&workload, place));
        let all: Vec<_> = listeners.iter().collect();
        install_in(&workload, Rules { exclude_inbound_ports: vec![9000], ..as_proxy() });
        for (target, expected) in [
            ("10.9.0.1:8080", 0),
            ("[fd09::1]:8080", 0),
            ("10.9.0.1:9000", 3),
            ("[fd09::1]:9000", 3),
            ("127.0.0.1:8080", 2),
            ("127.9.9.9:8080", 2),
            ("[::1]:8080", 2),
        ] {
            let client = connect(&workload, target, 0).unwrap();
            let (place, original) = arrival(&client, &all);
            assert_eq!(place, expected, "{target}");
            if expected == 0 {
                assert_eq!(original, Some(address(target)));
            }
        }
        // The workload itself reaches its own addresses without a proxy.
        install_in(&workload, as_workload());
        for target in ["10.9.0.1:8080", "[fd09::1]:8080", "127.0.0.1:8080", "[::1]:8080"] {
            let client = connect(&workload, target, 0).unwrap();
            assert_eq!(arrival(&client, &all).0, 2, "{target}");
        }
    });
}

#[test]
fn the_proxy_reaches_its_application_on_its_own_address_from_a_loopback_one() {
    by_each_backend("the_proxy_reaches_its_application_on_its_own_address_from_a_loopback_one", || {
        let (workload, _world) = workload_and_world();
        let [proxy, app_v4, app_v6] =
            ["[::]:15006", "10.9.0.1:8080", "[fd09::1]:8080"].map(|place| listen(&workload, place));
        install_in(&workload, as_proxy());
        for (from, target, expected) in [("127.0.0.1:0", "10.9.0.1:8080", 1), ("[::1]:0", "[fd09::1]:8080", 2)] {
            let (from, to) = (address(from), address(target));
            let client: TcpStream = workload.run(move || {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                socket.bind(&from.into()).unwrap();
                socket.connect_timeout(&to.into(), PATIENCE).unwrap();
                socket.into()
            });
            assert_eq!(arrival(&client, &[&proxy, &app_v4, &app_v6]).0, expected, "{target}");
        }
    });
}

#[test]
fn names_are_asked_for_as_without_capture() {
    by_each_backend("names_are_asked_for_as_without_capture", || {
        let (workload, world) = workload_and_world();
        install_in(&workload, as_workload());
        for target in ["192.0.2.1:53", "[2001:db8::1]:53"] {
            let place = address(target);
            let server = world.run(move || UdpSocket::bind(place)).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let any = address(if place.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
            workload.run(move || UdpSocket::bind(any).unwrap().send_to(b"who", place)).unwrap();
            let mut question = [0; 8];
            let length = loop {
                match server.recv(&mut question) {
                    // The timeout makes a wait that is not taken up again after a signal.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    received => break received.unwrap(),
                }
            };
            assert_eq!(&question[..length], b"who", "{target}");
        }
    });
}

#[test]
fn rules_of_the_other_backend_do_not_stay() {
    by_each_backend("rules_of_the_other_backend_do_not_stay", || {
        let backend = BACKEND.get();
        let namespace = Namespace::new();
        for other in [Backend::Nftables, Backend::IptablesLegacy] {
            // Where this machine lacks the other one, nothing of it can stay.
            let _ = namespace.run(move || install_by(&as_proxy(), Some(other)));
            install_in(&namespace, as_workload());
            assert_eq!(installed_in(&namespace).unwrap().backend(), backend);
            namespace.run(remove).unwrap();
            assert_eq!(installed_in(&namespace), None, "{backend} after {other}");
        }
    });
}

#[test]
fn connections_that_were_open_before_stay_open() {
    by_each_backend("connections_that_were_open_before_stay_open", || {
        use std::io::{Read, Write};
        let (workload, world) = workload_and_world();
        let pairs =
            [(&workload, &world, "192.0.2.1:9"), (&world, &workload, "10.9.0.1:8080")].map(|(from, to, target)| {
                let listener = listen(to, &format!("[::]:{}", address(target).port()));
                let client = connect(from, target, 0).unwrap();
                listener.set_nonblocking(false).unwrap();
                let (server, _) = listener.accept().unwrap();
                (client, server)
            });
        install_in(&workload, as_workload());
        install_in(&workload, Rules { exclude_outbound_ports: vec![1], ..as_workload() });
        for (mut client, mut server) in pairs {
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            let mut word = [0; 4];
            client.write_all(b"ping").unwrap();
            server.read_exact(&mut word).unwrap();
            server.write_all(b"pong").unwrap();
            client.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"pong");
        }
    });
}

#[test]
fn a_redirected_connection_survives_another_installation() {
    by_each_backend("a_redirected_connection_survives_another_installation", || {
        use std::io::{Read, Write};
        let (workload, _world) = workload_and_world();
        let proxy = listen(&workload, "127.0.0.1:15001");
        install_in(&workload, as_workload());
        let mut client = connect(&workload, "192.0.2.1:9", 0).unwrap();
        proxy.set_nonblocking(false).unwrap();
        let (mut server, _) = proxy.accept().unwrap();
        for _ in 0..5 {
            install_in(&workload, as_workload());
            client.write_all(b"ping").unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut word = [0; 4];
            server.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"ping");
        }
    });
}

#[test]
fn installing_twice_and_removing_twice_change_nothing_more() {
    by_each_backend("installing_twice_and_removing_twice_change_nothing_more", || {
        let namespace = Namespace::new();
        assert_eq!(installed_in(&namespace), None);
        namespace.run(remove).unwrap();
        install_in(&namespace, as_workload());
        let once = installed_in(&namespace).unwrap();
        assert_eq!(once.rules(), Some(as_workload()));
        install_in(&namespace, as_workload());
        assert_eq!(installed_in(&namespace), Some(once));
        install_in(&namespace, as_proxy());
        assert!(installed_in(&namespace).unwrap().is(&as_proxy()), "the rules before it are gone");
        for _ in 0..2 {
            namespace.run(remove).unwrap();
            assert_eq!(installed_in(&namespace), None);
        }
        if let Some(everything) = namespace.program("nft", &["list", "ruleset"], "") {
            assert_eq!(everything, "", "nothing is left behind");
        }
    });
}

#[test]
fn tables_of_others_are_untouched() {
    with_rights("tables_of_others_are_untouched", || {
        let namespace = Namespace::new();
        let others = "table ip weft {\n\tchain own {\n\t}\n}\ntable inet filter {\n\tchain input {\n\t}\n}\n";
        if namespace.program("nft", &["-f", "-"], others).is_none() {
            return skip("no program nft");
        }
        install_in(&namespace, as_workload());
        namespace.run(remove).unwrap();
        assert_eq!(namespace.program("nft", &["list", "ruleset"], "").unwrap(), others);
    });
}

#[test]
fn as_many_rules_as_are_allowed_go_in_at_once() {
    with_rights("as_many_rules_as_are_allowed_go_in_at_once", || {
        let namespace = Namespace::new();
        let cidr =
            |third: u32, prefix| Cidr::new(IpAddr::from((0x0a00_0000 + (third << 8)).to_be_bytes()), prefix).unwrap();
        let of = |count: u16| Rules {
            exclude_uids: (20_000..20_000 + u32::from(count)).collect(),
            exclude_outbound_ports: (1..=count).collect(),
            exclude_inbound_ports: (1..=count).collect(),
            exclude_cidrs: (0..count).map(|third| cidr(third.into(), 24)).collect(),
            include_cidrs: (0..count).map(|third| cidr(u32::from(third) + 1024, 24)).collect(),
            ..as_workload()
        };
        let most = of(1024);
        let asked = most.clone();
        let rules = match namespace.run(move || install(&asked)) {
            Ok(()) => most,
            // A user namespace's root may not go beyond the host's limit: told in so many words, and nothing is changed.
            Err(CaptureError::TooMany { .. }) if namespace::in_user_namespace() => {
                assert_eq!(installed_in(&namespace), None);
                of(200)
            }
            Err(error) => panic!("{error}"),
        };
        install_in(&namespace, rules.clone());
        assert_eq!(installed_in(&namespace).unwrap().rules(), Some(rules));
    });
}

#[test]
fn nft_sees_the_same_rules_as_if_it_had_loaded_the_printed_ones() {
    with_rights("nft_sees_the_same_rules_as_if_it_had_loaded_the_printed_ones", || {
        let namespace = Namespace::new();
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Cidr>>();
        let rich = Rules {
            exempt: Exempt::Mark(0x5ef7),
            exclude_uids: vec![33, 65534],
            exclude_outbound_ports: vec![22, 5432],
            exclude_inbound_ports: vec![9000],
            exclude_cidrs: networks(&["10.0.0.0/8", "172.16.0.0/12", "192.0.2.7", "fd00::/9", "fe80::1"]),
            include_cidrs: networks(&["0.0.0.0/0", "::/0", "10.96.0.0/16"]),
            ..Rules::default()
        };
        for rules in [Rules::default(), as_proxy(), rich] {
            let text = print(&rules);
            if namespace.program("nft", &["-c", "-f", "-"], &text).is_none() {
                return skip("no program nft");
            }
            let list = || namespace.program("nft", &["list", "table", "inet", "weft"], "").unwrap();
            install_in(&namespace, rules);
            let ours = list();
            namespace.program("nft", &["-f", "-"], &text).unwrap();
            assert_eq!(ours, list());
            assert!(ours.contains("redirect to :15006 comment"), "{ours}");
        }
    });
}

#[test]
fn a_table_that_nft_changed_is_told_from_ours() {
    with_rights("a_table_that_nft_changed_is_told_from_ours", || {
        let namespace = Namespace::new();
        install_in(&namespace, as_workload());
        if namespace
            .program("nft", &["insert", "rule", "inet", "weft", "outbound", "tcp", "dport", "1", "return"], "")
            .is_none()
        {
            return skip("no program nft");
        }
        let found = installed_in(&namespace).unwrap();
        assert_eq!(found.rules(), None);
        assert!(!found.is(&as_workload()));
    });
}

#[test]
fn any_interleaving_of_installs_and_removals_ends_in_the_same_rules() {
    with_rights("any_interleaving_of_installs_and_removals_ends_in_the_same_rules", || {
        let namespace = Namespace::new();
        namespace.run(|| {
            for seed in 0..200 {
                let mut chance = fastrand::Rng::with_seed(seed);
                let others = Rules { exclude_outbound_ports: vec![22], ..as_proxy() };
                let start = Arc::new(Barrier::new(3));
                // A new thread is in the namespace of the one that made it.
                let threads: Vec<_> = (0..3)
                    .map(|_| {
                        let steps: Vec<u8> = (0..chance.u8(1..4)).map(|_| chance.u8(0..3)).collect();
                        let (start, others) = (start.clone(), others.clone());
                        thread::spawn(move || {
                            start.wait();
                            for step in steps {
                                match step {
                                    0 => remove().unwrap(),
                                    1 => install(&others).unwrap(),
                                    _ => install(&as_workload()).unwrap(),
                                }
                                // Whoever looks in between sees whole rules or none.
                                if let Ok(Some(found)) = installed() {
                                    assert!(found.is(&others) || found.is(&as_workload()), "seed {seed}: {found:?}");
                                }
                            }
                        })
                    })
                    .collect();
                for thread in threads {
                    assert!(thread.join().is_ok(), "seed {seed}");
                }
                install(&as_workload()).unwrap();
                assert_eq!(installed().unwrap().unwrap().rules(), Some(as_workload()), "seed {seed}");
            }
        });
    });
}

#[test]
fn concurrent_installs_end_in_the_right_rules() {
    by_each_backend("concurrent_installs_end_in_the_right_rules", || {
        let (backend, namespace) = (BACKEND.get(), Namespace::new());
        namespace.run(move || {
            let install = move || install_by(&as_workload(), Some(backend));
            let threads: Vec<_> = (0..8).map(|_| thread::spawn(install)).collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
            assert_eq!(installed().unwrap().unwrap().rules(), Some(as_workload()));
        });
    });
}

fn check_in(namespace: &Namespace, rules: Rules) -> CheckReport {
    namespace.run(move || check(&rules)).unwrap()
}

fn outcomes(report: &CheckReport) -> Vec<Outcome> {
    report.steps.iter().map(|step| step.outcome).collect()
}

#[test]
fn a_check_proves_both_families_with_and_without_a_proxy() {
    by_each_backend("a_check_proves_both_families_with_and_without_a_proxy", || {
        let (workload, _world) = workload_and_world();
        let rules = [
            as_workload(),
            Rules {
                exclude_cidrs: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
                ..as_workload()
            },
            Rules {
                include_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd57::/16".parse().unwrap()],
                ..as_workload()
            },
        ];
        for rules in rules {
            install_in(&workload, rules.clone());
            let report = check_in(&workload, rules.clone());
            assert_eq!(outcomes(&report), [Outcome::Passed; 3], "{report:?}");
            assert!(report.passed());
            let proxies = [listen(&workload, "127.0.0.1:15001"), listen(&workload, "[::1]:15001")];
            let report = check_in(&workload, rules);
            assert_eq!(outcomes(&report), [Outcome::Passed; 3], "{report:?}");
            assert!(report.steps[1].detail.contains("the proxy that listens on port 15001"), "{report:?}");
            drop(proxies);
        }
    });
}

/// A failing check: its situation, the words that must tell what is wrong, and those of the remedy.
fn assert_fails(report: &CheckReport, step: usize, wrong: &str, remedy: &str) {
    assert!(!report.passed(), "{report:?}");
    let step = &report.steps[step];
    assert_eq!(step.outcome, Outcome::Failed, "{report:?}");
    assert!(step.detail.contains(wrong), "{wrong}: {step:?}");
    assert!(step.remedy.as_ref().is_some_and(|words| words.contains(remedy)), "{remedy}: {step:?}");
}

#[test]
fn a_check_says_that_the_rules_are_missing() {
    with_rights("a_check_says_that_the_rules_are_missing", || {
        // The world refuses the connection, or a host there takes it: not captured in either case.
        let (workload, world) = workload_and_world();
        let _host = listen(&world, "[::]:9");
        let report = check_in(&workload, as_workload());
        assert_fails(&report, 0, "there is no nftables table inet weft", "weft capture install");
        assert_fails(&report, 1, "the rules are not installed", "weft capture install");
        assert_fails(&report, 2, "the rules are not installed", "weft capture install");
    });
}

#[test]
fn a_check_says_that_connections_go_to_another_port() {
    with_rights("a_check_says_that_connections_go_to_another_port", || {
        let (workload, _world) = workload_and_world();
        install_in(&workload, Rules { outbound_port: 15099, ..as_workload() });
        let report = check_in(&workload, as_workload());
        assert_fails(&report, 0, "outbound_port is 15099, not 15001", "weft capture install");
        assert_fails(&report, 1, "15099", "port");
        // The same when something takes the connection there.
        let _other = [listen(&workload, "127.0.0.1:15099"), listen(&workload, "[::1]:15099")];
        let report = check_in(&workload, as_workload());
        assert_fails(&report, 1, "was redirected to port 15099 instead of 15001", "port");
        assert_fails(&report, 2, "was redirected to port 15099 instead of 15001", "port");
    });
}

#[test]
fn a_check_by_the_exempt_user_says_so() {
    with_rights("a_check_by_the_exempt_user_says_so", || {
        let (workload, _world) = workload_and_world();
        install_in(&workload, as_proxy());
        let report = check_in(&workload, as_proxy());
        assert_eq!(report.steps[0].outcome, Outcome::Passed, "{report:?}");
        assert_fails(&report, 1, "whose connections are not captured", "setpriv");
    });
}

#[test]
fn a_check_without_routes_proves_nothing_and_says_so() {
    with_rights("a_check_without_routes_proves_nothing_and_says_so", || {
        let namespace = Namespace::new();
        install_in(&namespace, as_workload());
        let report = check_in(&namespace, as_workload());
        assert_eq!(outcomes(&report), [Outcome::Passed, Outcome::Skipped, Outcome::Skipped, Outcome::Failed]);
        assert!(report.steps[1].detail.contains("no route to 192.0.2.1:9"), "{report:?}");
        assert!(!report.passed());
    });
}

#[test]
fn a_check_where_ipv6_is_off_passes_with_ipv4_alone() {
    with_rights("a_check_where_ipv6_is_off_passes_with_ipv4_alone", || {
        let (workload, _world) = workload_and_world();
        workload.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")).unwrap();
        install_in(&workload, as_workload());
        let report = check_in(&workload, as_workload());
        assert_eq!(outcomes(&report), [Outcome::Passed, Outcome::Passed, Outcome::Skipped], "{report:?}");
        assert!(report.passed());
    });
}

#[test]
fn a_check_where_the_loopback_interface_is_down_says_so() {
    with_rights("a_check_where_the_loopback_interface_is_down_says_so", || {
        let (workload, _world) = workload_and_world();
        workload.ip("link set lo down");
        install_in(&workload, as_workload());
        let report = check_in(&workload, as_workload());
        assert_fails(&report, 1, "the loopback interface is down", "ip link set lo up");
    });
}

/// Set in the copy of a test that runs as nobody: root of nothing, in a user namespace that does not own the network.
const NOBODY: &str = "WEFT_TEST_AS_NOBODY";

#[test]
fn without_the_right_to_it_every_verb_names_the_capability() {
    let test = "without_the_right_to_it_every_verb_names_the_capability";
    if env::var_os(NOBODY).is_none() {
        return with_rights(test, || {
            let namespace = Namespace::new();
            install_in(&namespace, as_workload());
            let program = env::current_exe().unwrap().display().to_string();
            let name = format!("capture::tests::{test}");
            let variable = format!("{NOBODY}=1");
            let line = ["-U", "env", &variable, &program, "--exact", &name, "--nocapture"];
            let output = namespace.program("unshare", &line, "").unwrap();
            assert!(output.contains("1 passed"), "{output}");
        });
    }
    for result in [install(&Rules::default()), remove(), installed().map(drop)] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("CAP_NET_ADMIN") && !error.contains('\n'), "{error}");
    }
    let report = check(&Rules::default()).unwrap();
    assert_eq!(report.steps[0].outcome, Outcome::Skipped, "the probes need no right: {report:?}");
    assert!(report.steps[0].detail.contains("CAP_NET_ADMIN"), "{report:?}");
}
