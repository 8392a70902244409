//! Spans to an OpenTelemetry collector: OTLP over HTTP, in protobuf. Set up by the variables that OpenTelemetry defines
//! for every program (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …); see
//! docs/tracing.md.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{KeyValue, global};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer as _, Registry};

use super::TRACE_HEADER;
use super::version::VERSION;

/// How long the node waits for the remaining spans to be sent when the node ends. Spans that are not sent by then are
/// lost.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The exporter cannot be built from the environment variables.
    #[error("the OTLP exporter cannot be set up from the OTEL_ variables")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client for OTLP cannot be made")]
    Client(#[source] reqwest::Error),
}

/// The running export. It must be ended before the runtime stops.
pub struct Export(SdkTracerProvider);

impl Export {
    /// Sends the remaining spans. Blocks, so it must not be called from a task.
    pub fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_WORDS) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Whether the environment names a collector, and tracing is not disabled.
pub fn is_wanted() -> bool {
    let named = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    !off && (named("OTEL_EXPORTER_OTLP_ENDPOINT") || named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
}

/// The tracing layer that takes spans, and the export behind it. The export's HTTP client runs on `runtime`.
///
/// # Errors
/// An [`OtlpError`] if the environment variables cannot be used.
pub fn layer(
    node: Option<&str>,
    runtime: Handle,
) -> Result<(impl tracing_subscriber::Layer<Registry> + Send + Sync + use<>, Export), OtlpError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender { client: client()?, runtime })
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(OtlpError::Exporter)?;
    let mut resource = Resource::builder();
    if std::env::var("OTEL_SERVICE_NAME").is_err() {
        resource = resource.with_service_name("roomcast");
    }
    resource = resource.with_attribute(KeyValue::new("service.version", VERSION));
    if let Some(node) = node {
        resource = resource.with_attribute(KeyValue::new("service.instance.id", node.to_owned()));
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    let layer: OpenTelemetryLayer<Registry, Tracer> =
        tracing_opentelemetry::layer().with_tracer(provider.tracer("roomcast"));
    // Exports only the spans of roomcast: otherwise the exporter's own requests would be exported, too.
    let ours = Targets::new().with_target("roomcast", LevelFilter::INFO);
    Ok((layer.with_filter(ours), Export(provider)))
}

fn client() -> Result<reqwest::Client, OtlpError> {
    // Fails if another part of the process has already installed a provider of cryptography for rustls. Any provider
    // serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let is_tls = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| value.starts_with("https")));
    if !is_tls {
        // Without TLS, the system's certificates are not needed, and need not be installed.
        client = client.tls_certs_only([]);
    }
    client.build().map_err(OtlpError::Client)
}

/// Makes a span the child of a valid `traceparent`.
pub(super) fn adopt(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(TRACE_HEADER.to_owned(), traceparent.to_owned())]);
    // Setting the parent fails for a span that no layer takes. Such a span needs no parent.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}

/// The `traceparent` for requests within a span.
pub(super) fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    let flags = context.trace_flags().to_u8();
    context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
}

/// Sends, on the node's runtime, the requests that the exporter makes on a thread of its own.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
}

impl HttpClient for Sender {
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            *response.body_mut() = answer.bytes().await?;
            Ok(response)
        });
        Box::pin(async move { sending.await? })
    }
}
