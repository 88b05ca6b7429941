//! A probe by gRPC: `grpc.health.v1.Health/Check`.

use ::http::Uri;
use ::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::application::{GrpcProbe, Outcome, Place};

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;

/// Makes the probe; whoever calls limits its time.
pub(super) async fn check(probe: &GrpcProbe, place: &Place) -> Outcome {
    match serving_status(probe, place).await {
        Ok(SERVING) => Outcome::Passed,
        Ok(status) => Outcome::failed(format!("the application says that it is not serving ({status})")),
        Err(reason) => Outcome::failed(reason),
    }
}

async fn serving_status(probe: &GrpcProbe, place: &Place) -> Result<i32, String> {
    let stream = place.connect(None, probe.port).await?;
    let failed = |error: &dyn std::fmt::Display| format!("the application speaks no gRPC: {error}");
    let uri: Uri = format!("http://{}:{}", place.host(None), probe.port).parse().map_err(|error| failed(&error))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("a probe has one connection")) }
    });
    let channel: Channel =
        Endpoint::from(uri).connect_with_connector(connector).await.map_err(|error| failed(&error))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| failed(&error))?;
    // `HealthCheckRequest` and `HealthCheckResponse` have one field each, number 1, a string and an enumeration: on the
    // wire they are the same as a string and an integer in the wrappers that prost has.
    let codec: ProstCodec<String, i32> = ProstCodec::default();
    let path = PathAndQuery::from_static(CHECK);
    match client.unary(Request::new(probe.service.clone()), path, codec).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if status.code() == Code::Unimplemented => {
            Err("the application has no service grpc.health.v1.Health".to_owned())
        }
        Err(status) => {
            Err(format!("the application's health check failed ({:?}): {}", status.code(), status.message()))
        }
    }
}
