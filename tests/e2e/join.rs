//! Who may join the mesh: a proxy whose token says so, and nobody else.

use weft_tests::mesh::Mesh;
use weft_tests::mesh::command::{Running, until};
use weft_tests::mesh::machine::has_namespaces;
use weft_tests::mesh::metrics::get;

const SHOP: &str = r#"
services:
  orders: {command: ["<weft>", shop, inventory], port: 80, targetPort: 8080, protocol: http}
"#;

/// A proxy started by hand beside the pods, for a workload `by-hand` of the service account `orders`.
struct ByHand {
    proxy: Running,
    admin: std::path::PathBuf,
}

impl ByHand {
    fn start(mesh: &Mesh, token: &str) -> Self {
        mesh.ground().write("token", token);
        let path = |name: &str| mesh.ground().path().join(name).display().to_string();
        let admin = mesh.ground().path().join("by-hand.sock");
        std::fs::remove_file(&admin).ok();
        let settings = [
            format!("WEFT_CONTROL_PLANE={CONTROL_PLANE}"),
            "WEFT_WORKLOAD=by-hand".to_owned(),
            "WEFT_SERVICE_ACCOUNT=orders".to_owned(),
            format!("WEFT_BUNDLE={}", path("data/bundle.pem")),
            format!("WEFT_JOIN_TOKEN_FILE={}", path("token")),
            format!("WEFT_ADMIN=unix:{}", admin.display()),
        ];
        let weft = mesh.ground().program().display().to_string();
        let words = ["env"].into_iter().chain(settings.iter().map(String::as_str)).chain([weft.as_str(), "proxy"]);
        Self { proxy: Running::start(mesh.outside(&words.collect::<Vec<_>>())), admin }
    }

    /// The answer to `GET /ready`, once there is one.
    fn ready(&self) -> (u16, String) {
        until("the proxy's admin endpoint answers", || get(&self.admin, "/ready").ok())
    }
}

/// The control plane of a mesh with namespaces is found on its bridge.
const CONTROL_PLANE: &str = "10.97.0.1:15010";

#[test]
fn a_proxy_without_a_right_token_does_not_join() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let of_another = mesh.weft(&["token", "create", "--service-account", "payments"]).ok();
    let right = mesh.weft(&["token", "create", "--service-account", "orders"]).ok();
    for (token, refusal) in [
        ("wrong\n", "the join token is not known here"),
        ("", "the file is empty"),
        (of_another.as_str(), "the join token is for ns/default/sa/payments"),
    ] {
        let by_hand = ByHand::start(&mesh, token);
        by_hand.proxy.says(refusal);
        let (status, missing) = by_hand.ready();
        assert_eq!(status, 503, "{refusal}: {missing}");
        assert!(missing.contains("certificate") && missing.contains("configuration"), "{refusal}: {missing}");
        // Asked after the refusal: had it been let in, it would be listed by now.
        let listed = mesh.ask(&["status"]).expect("the control plane answers")["proxies"].to_string();
        assert!(!listed.contains("by-hand") && listed.contains("orders-1"), "{refusal}: {listed}");
    }
    // The same proxy with the right token: it was the token.
    let by_hand = ByHand::start(&mesh, &right);
    until("the proxy is ready", || (by_hand.ready().0 == 200).then_some(()));
    until("the proxy is listed", || mesh.current().contains("by-hand").then_some(()));
}
