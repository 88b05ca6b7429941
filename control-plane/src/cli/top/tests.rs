use super::*;
use crate::kubernetes::install::testing::{FakeApi, refusal};

const OUTPUT: fn(Format) -> Output = Output::new;

fn args(view: View) -> Args {
    Args { view, namespace: None, once: true, interval: 1, sort: Order::Rate, cluster: ClusterFlags::default() }
}

fn pod(api: &FakeApi, name: &str) {
    let object = json!({
        "metadata": {"namespace": "shop", "name": name}, "spec": {"initContainers": [{"name": "weft-proxy"}]},
        "status": {"phase": "Running"},
    });
    api.put(&format!("/api/v1/namespaces/shop/pods/{name}"), object);
}

fn source(api: &FakeApi) -> Source {
    Source::Cluster(Remote { cluster: api.cluster(), system_namespace: "weft-system".into() })
}

#[tokio::test]
async fn pods_are_asked_through_the_api_server_and_the_silent_ones_are_named() {
    let api = FakeApi::default();
    pod(&api, "web");
    pod(&api, "mute");
    api.put("/api/v1/namespaces/shop/pods/web:15020/proxy/metrics", json!("weft_requests_total 1\n"));
    let mut source = source(&api);
    let asked = source.proxies(Some("shop")).await.unwrap();
    let look = source.look(&asked).await;
    assert_eq!(look.samples.keys().collect::<Vec<_>>(), ["shop/web"]);
    let silence = look.silence().unwrap();
    assert!(silence.contains("did not answer: shop/mute (") && silence.contains("not found"), "{silence}");
    assert_eq!(look.must_have_some(&asked), Ok(()));
}

#[tokio::test]
async fn who_may_not_ask_any_pod_is_told_which_permission_is_missing() {
    let api = FakeApi::default();
    pod(&api, "web");
    api.rule(|asked| asked.path.contains("/proxy/").then(|| refusal(403, "pods/proxy is forbidden")));
    let failure = args(View::Services).follow(&OUTPUT(Format::Json), &mut source(&api)).await.unwrap_err().to_string();
    assert!(failure.contains("none of 1 proxies") && failure.contains("permission to get pods/proxy"), "{failure}");
    api.forget("/api/v1/namespaces/shop/pods/web");
    let failure = args(View::Services).follow(&OUTPUT(Format::Json), &mut source(&api)).await.unwrap_err().to_string();
    assert!(failure.contains("no running proxy") && failure.contains("weft status"), "{failure}");
}

#[test]
fn figures_are_short_and_never_better_than_they_are() {
    for (value, expected) in [(None, "-"), (Some(1.0), "100.00%"), (Some(0.999_999), "99.99%"), (Some(0.0), "0.00%")] {
        assert_eq!(
            success(value),
            Cell::styled(
                expected,
                match value {
                    None => Style::Plain,
                    Some(value) if value >= 0.999 => Style::Good,
                    Some(_) => Style::Bad,
                }
            )
        );
    }
    assert_eq!([number(0.04), number(99.94), number(1234.5)], ["0.0", "99.9", "1234"]);
    assert_eq!([latency(None), latency(Some(1.26)), latency(Some(1500.0))], ["-", "1.3ms", "1.50s"]);
    assert_eq!([bytes(0.0), bytes(2048.0), bytes(3e12)], ["0B", "2.0KiB", "2794.0GiB"]);
}
