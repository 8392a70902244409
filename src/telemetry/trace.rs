//! W3C Trace Context: the `traceparent` of a request, and how roomcast's spans take part in its trace.
//!
//! Spans are exported only with the feature `otlp`. Without it, a `traceparent` is passed on unchanged.

use tracing::Span;
use uuid::Uuid;

/// The caller's `traceparent` if it is valid, else that of a new, sampled trace.
pub fn parent_or_new(given: Option<&str>) -> String {
    match given {
        Some(given) if is_valid(given) => given.to_owned(),
        _ => fresh(),
    }
}

/// The trace id in a valid `traceparent`, for logs.
pub fn trace_id(given: Option<&str>) -> Option<&str> {
    given.filter(|given| is_valid(given))?.split('-').nth(1)
}

/// Makes a span the child of the span that the `traceparent` names. The span must not have been entered yet.
pub fn adopt(span: &Span, traceparent: Option<&str>) {
    #[cfg(feature = "otlp")]
    if let Some(given) = traceparent.filter(|given| is_valid(given)) {
        super::otlp::adopt(span, given);
    }
    #[cfg(not(feature = "otlp"))]
    let _ = (span, traceparent);
}

/// The `traceparent` to send with requests made within a span. `None`: the span is not exported.
pub fn traceparent(span: &Span) -> Option<String> {
    #[cfg(feature = "otlp")]
    return super::otlp::traceparent(span);
    #[cfg(not(feature = "otlp"))]
    {
        let _ = span;
        None
    }
}

/// Whether the text is `00-<trace id>-<parent id>-<flags>` in lowercase, with neither id all zeros (Trace Context,
/// section 3.2).
fn is_valid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let named = |part: &str| part.bytes().any(|byte| byte != b'0');
    version == "00" && hex(trace, 32) && named(trace) && hex(parent, 16) && named(parent) && hex(flags, 2)
}

fn fresh() -> String {
    // Each half of a UUID has a fixed bit that is 1, so neither id can be all zeros.
    let (trace, parent) = (Uuid::new_v4(), Uuid::new_v4());
    format!("00-{:032x}-{:016x}-01", trace.as_u128(), parent.as_u64_pair().1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_one_is_valid_and_its_own() {
        let (one, two) = (parent_or_new(None), parent_or_new(None));
        assert!(is_valid(&one), "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn a_valid_one_is_kept_to_the_byte() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert_eq!(parent_or_new(Some(given)), given);
        assert_eq!(trace_id(Some(given)), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(trace_id(Some("0af7")), None);
    }

    #[test]
    fn an_invalid_one_is_replaced() {
        for given in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX: y",
        ] {
            assert_ne!(parent_or_new(Some(given)), given);
        }
    }
}
