//! `weft.v1.Detection`: takes what proxies saw on the undeclared ports of their own workloads.

use std::fmt;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_core::detection::Verdict;
use weft_core::names::SpiffeId;
use weft_proto::weft::detection_server::{Detection, DetectionServer};
use weft_proto::weft::{ReportRequest, ReportResponse, SeenPort};

use crate::verdicts::Verdicts;

/// Some thousand ports.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// Says whose report it is, from what the transport knows of the peer. UNAUTHENTICATED without a certificate.
type Authenticate = dyn Fn(&Request<()>) -> Result<SpiffeId, Status> + Send + Sync;

/// The service.
pub struct DetectionService {
    verdicts: Arc<Verdicts>,
    authenticate: Box<Authenticate>,
}

impl fmt::Debug for DetectionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetectionService").finish_non_exhaustive()
    }
}

impl DetectionService {
    /// `authenticate` is asked with each report.
    pub fn new(
        verdicts: Arc<Verdicts>,
        authenticate: impl Fn(&Request<()>) -> Result<SpiffeId, Status> + Send + Sync + 'static,
    ) -> Self {
        Self { verdicts, authenticate: Box::new(authenticate) }
    }

    /// The service to be added to a tonic server.
    pub fn into_service(self) -> DetectionServer<Self> {
        DetectionServer::new(self).max_decoding_message_size(LARGEST_MESSAGE)
    }
}

#[tonic::async_trait]
impl Detection for DetectionService {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let (metadata, extensions, report) = request.into_parts();
        let identity = (self.authenticate)(&Request::from_parts(metadata, extensions, ()))?;
        let ports = report.ports.iter().filter_map(known);
        self.verdicts.report(&identity, &report.workload, ports).map_err(|refused| {
            tracing::warn!(%identity, %refused, "a report was not taken");
            Status::permission_denied(refused.to_string())
        })?;
        Ok(Response::new(ReportResponse {}))
    }
}

/// A port and a verdict as far as this version knows them.
fn known(seen: &SeenPort) -> Option<(u16, Verdict)> {
    Some((u16::try_from(seen.port).ok()?, Verdict::of_name(&seen.protocol)?))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tonic::Code;

    use super::*;
    use crate::verdicts::{Change, Undeclared};

    fn service(account: Option<&'static str>) -> (DetectionService, Arc<Verdicts>) {
        let verdicts = Arc::new(Verdicts::default());
        let own = Undeclared { service_account: "mail".to_owned(), ports: BTreeSet::from([2525]) };
        let undeclared = BTreeMap::from([("default/mail-1".to_owned(), Some(own))]);
        verdicts.published(Change { services: BTreeMap::new(), undeclared });
        let authenticate = move |_: &Request<()>| {
            let identity = account.map(|account| SpiffeId::workload("shop.local", "default", account));
            identity.ok_or_else(|| Status::unauthenticated("nobody"))
        };
        (DetectionService::new(Arc::clone(&verdicts), authenticate), verdicts)
    }

    fn report(ports: &[(u32, &str)]) -> Request<ReportRequest> {
        let seen = |(port, protocol): &(u32, &str)| SeenPort { port: *port, protocol: (*protocol).to_owned() };
        Request::new(ReportRequest { workload: "mail-1".to_owned(), ports: ports.iter().map(seen).collect() })
    }

    #[tokio::test]
    async fn what_is_not_known_of_a_report_is_passed_over() {
        let (service, verdicts) = service(Some("mail"));
        let ports = [(2525, "server_first"), (2525 + 65536, "tls"), (2525, "of a later version"), (25, "tls")];
        service.report(report(&ports)).await.unwrap();
        let seen = verdicts.seen().verdict("default/mail:25", [("default/mail-1".to_owned(), 2525)]);
        assert_eq!(seen, Some(Verdict::ServerFirst));
    }

    #[tokio::test]
    async fn a_report_is_taken_from_the_workload_itself_alone() {
        for (account, code) in [(None, Code::Unauthenticated), (Some("other"), Code::PermissionDenied)] {
            let (service, verdicts) = service(account);
            let refused = service.report(report(&[(2525, "client_first")])).await.unwrap_err();
            assert_eq!(refused.code(), code);
            assert_eq!(verdicts.seen().verdict("default/mail:25", [("default/mail-1".to_owned(), 2525)]), None);
        }
    }
}
