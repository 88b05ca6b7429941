//! TLS contexts: mutual TLS with the workload's own certificate and the mesh's bundle, or nothing.
//!
//! Certificates and keys never come over xDS here: the two secret names stand for what the identity module holds.

#![allow(deprecated, reason = "gRPC clients read only the deprecated SAN list, so servers send it, and so do ours")]

use weft_core::model::UpstreamTls;
use weft_core::names::SpiffeId;
use weft_proto::envoy::envoy::config::core::v3::TransportSocket;
use weft_proto::envoy::envoy::config::core::v3::transport_socket::ConfigType;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::OcspStaplePolicy;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::StringMatcher;
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::google::protobuf::Any;
use weft_proto::names;

use super::field::{Decoding, Refusal, Within, is_true, is_type, type_name, unpack, unset};

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

/// Reads a cluster's transport socket: mutual TLS, or `None` for plaintext.
///
/// A context that names no identity yields an empty list, which trusts nobody: a service without workloads has no
/// identity yet, and "any certificate of the bundle" must never follow from that.
pub(super) fn upstream(socket: Option<&TransportSocket>) -> Decoding<Option<UpstreamTls>> {
    let Some(any) = extension(socket, names::UPSTREAM_TLS)? else { return Ok(None) };
    let context: UpstreamTlsContext = unpack(any)?;
    unset(&[("auto_sni_san_validation", context.auto_sni_san_validation)])?;
    let names = common(context.common_tls_context.as_ref())?;
    let identities = identities(&names).within("common_tls_context")?;
    Ok(Some(UpstreamTls { identities, exceptions: Box::default() }))
}

/// Reads a filter chain's transport socket: true for mutual TLS, false for plaintext.
pub(super) fn downstream(socket: Option<&TransportSocket>) -> Decoding<bool> {
    let Some(any) = extension(socket, names::DOWNSTREAM_TLS)? else { return Ok(false) };
    let context: DownstreamTlsContext = unpack(any)?;
    if !is_true(context.require_client_certificate.as_ref()) {
        return Err(Refusal::new("require_client_certificate", "false", "true"));
    }
    unset(&[
        ("require_sni", is_true(context.require_sni.as_ref())),
        ("ocsp_staple_policy", context.ocsp_staple_policy != OcspStaplePolicy::LenientStapling as i32),
    ])?;
    let names = common(context.common_tls_context.as_ref())?;
    if identities(&names).is_ok_and(|identities| identities.is_empty()) {
        return Ok(true);
    }
    let found = "a list of identities";
    Err(Refusal::new("common_tls_context.match_typed_subject_alt_names", found, "any identity of the trust bundle"))
}

/// The TLS context in a transport socket; `None` for no socket and for the explicit plaintext one.
fn extension<'a>(socket: Option<&'a TransportSocket>, context: &'static str) -> Decoding<Option<&'a Any>> {
    let Some(socket) = socket else { return Ok(None) };
    match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) if is_type(any, context) => Ok(Some(any)),
        Some(ConfigType::TypedConfig(any)) if type_name(&any.type_url) == RAW_BUFFER => Ok(None),
        Some(ConfigType::TypedConfig(any)) => {
            Err(Refusal::new("typed_config", type_name(&any.type_url), type_name(context)))
        }
        None => Err(Refusal::missing("typed_config", type_name(context))),
    }
}

/// Checks what both contexts share; what is left is whom to admit, by name.
fn common(context: Option<&CommonTlsContext>) -> Decoding<CertificateValidationContext> {
    let context = context.ok_or_else(|| Refusal::missing("common_tls_context", "the workload's certificate"))?;
    own_certificate(context).and_then(|()| validation(context)).within("common_tls_context")
}

fn own_certificate(context: &CommonTlsContext) -> Decoding<()> {
    unset(&[
        ("tls_certificates", !context.tls_certificates.is_empty()),
        ("tls_certificate_provider_instance", context.tls_certificate_provider_instance.is_some()),
        ("tls_certificate_certificate_provider", context.tls_certificate_certificate_provider.is_some()),
        (
            "tls_certificate_certificate_provider_instance",
            context.tls_certificate_certificate_provider_instance.is_some(),
        ),
        ("custom_tls_certificate_selector", context.custom_tls_certificate_selector.is_some()),
        ("custom_handshaker", context.custom_handshaker.is_some()),
        ("key_log", context.key_log.is_some()),
    ])?;
    if let Some(parameters) = &context.tls_params {
        // A lower minimum is met by TLS 1.3 alone; a lower maximum is not.
        let maximum = TlsProtocol::try_from(parameters.tls_maximum_protocol_version);
        if !matches!(maximum, Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv13)) {
            return Err(Refusal::new(
                "tls_params.tls_maximum_protocol_version",
                parameters.tls_maximum_protocol_version,
                "TLSv1_3",
            ));
        }
    }
    match context.tls_certificate_sds_secret_configs.as_slice() {
        [secret] => secret_is(secret, names::IDENTITY_SECRET).within("tls_certificate_sds_secret_configs[0]"),
        others => Err(Refusal::new(
            "tls_certificate_sds_secret_configs",
            format_args!("{} secrets", others.len()),
            names::IDENTITY_SECRET,
        )),
    }
}

fn secret_is(secret: &SdsSecretConfig, name: &'static str) -> Decoding<()> {
    if secret.name == name { Ok(()) } else { Err(Refusal::new("name", format_args!("`{}`", secret.name), name)) }
}

fn validation(context: &CommonTlsContext) -> Decoding<CertificateValidationContext> {
    let field = "validation_context_sds_secret_config";
    match &context.validation_context_type {
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            secret_is(secret, names::BUNDLE_SECRET).within(field)?;
            Ok(CertificateValidationContext::default())
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let place = "combined_validation_context";
            unset(&[
                ("validation_context_certificate_provider", combined.validation_context_certificate_provider.is_some()),
                (
                    "validation_context_certificate_provider_instance",
                    combined.validation_context_certificate_provider_instance.is_some(),
                ),
            ])
            .within(place)?;
            match &combined.validation_context_sds_secret_config {
                Some(secret) => secret_is(secret, names::BUNDLE_SECRET).within(field).within(place)?,
                None => return Err(Refusal::missing(field, names::BUNDLE_SECRET)).within(place),
            }
            let matching = combined.default_validation_context.clone().unwrap_or_default();
            only_names(&matching).within("default_validation_context").within(place)?;
            Ok(matching)
        }
        Some(_) => Err(Refusal::new("validation_context_type", "another trust source", names::BUNDLE_SECRET)),
        None => Err(Refusal::missing("validation_context_type", names::BUNDLE_SECRET)),
    }
}

/// The bundle decides whom to trust; a context may only narrow by name.
fn only_names(context: &CertificateValidationContext) -> Decoding<()> {
    unset(&[
        ("trusted_ca", context.trusted_ca.is_some()),
        ("ca_certificate_provider_instance", context.ca_certificate_provider_instance.is_some()),
        ("system_root_certs", context.system_root_certs.is_some()),
        ("verify_certificate_spki", !context.verify_certificate_spki.is_empty()),
        ("verify_certificate_hash", !context.verify_certificate_hash.is_empty()),
        ("require_signed_certificate_timestamp", is_true(context.require_signed_certificate_timestamp.as_ref())),
        ("crl", context.crl.is_some()),
        ("allow_expired_certificate", context.allow_expired_certificate),
        (
            "trust_chain_verification",
            context.trust_chain_verification != TrustChainVerification::VerifyTrustChain as i32,
        ),
        ("custom_validator_config", context.custom_validator_config.is_some()),
        ("max_verify_depth", context.max_verify_depth.is_some()),
    ])
}

/// The identities a context admits. The typed list wins over the deprecated one, as in Envoy; both at once are usual,
/// because gRPC clients read only the deprecated one.
fn identities(context: &CertificateValidationContext) -> Decoding<Vec<SpiffeId>> {
    if context.match_typed_subject_alt_names.is_empty() {
        let field = "match_subject_alt_names";
        return context
            .match_subject_alt_names
            .iter()
            .enumerate()
            .map(|(index, matcher)| identity(matcher).within_item(field, index))
            .collect();
    }
    let field = "match_typed_subject_alt_names";
    let matchers = context.match_typed_subject_alt_names.iter().enumerate();
    matchers
        .map(|(index, typed)| {
            let identity = match (SanType::try_from(typed.san_type), &typed.matcher) {
                (Ok(SanType::Uri), Some(matcher)) => identity(matcher).within("matcher"),
                (Ok(SanType::Uri), None) => Err(Refusal::missing("matcher", "exact")),
                _ => Err(Refusal::new("san_type", typed.san_type, "URI")),
            };
            identity.within_item(field, index)
        })
        .collect()
}

fn identity(matcher: &StringMatcher) -> Decoding<SpiffeId> {
    unset(&[("ignore_case", matcher.ignore_case)])?;
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => {
            SpiffeId::parse(text).map_err(|error| Refusal::new("exact", error, "a workload identity"))
        }
        Some(_) => Err(Refusal::new("match_pattern", "a pattern", "exact")),
        None => Err(Refusal::missing("exact", "a workload identity")),
    }
}
