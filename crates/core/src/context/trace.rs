//! The trace of a request (W3C Trace Context), and the spans of its steps. The library marks steps, and the server
//! records them. `tracing` spans would cost more, because the registry of `tracing` stores even spans that are not
//! recorded.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Context, unindexed};

/// The name of the `traceparent` header.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The name of the `tracestate` header.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of a `traceparent`: `00-`, trace id, `-`, span id, `-`, flags.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// The trace of a request.
#[derive(Clone, Debug, Default)]
pub enum Trace {
    /// The request does not belong to a trace.
    #[default]
    None,
    /// A trace that this process does not record.
    Unrecorded {
        /// The id of the trace.
        id: [u8; 16],
        /// The trace flags.
        flags: Option<u8>,
    },
    /// A recorded trace, with the current span.
    Recorded(Arc<dyn Span>),
}

/// A position in a trace, as in the `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The id of the trace.
    pub trace: [u8; 16],
    /// The id of the span within the trace.
    pub span: [u8; 8],
    /// The flags.
    pub flags: u8,
}

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A step inside the process.
    Internal,
    /// A request to another system.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A string constant of the program.
    Fixed(&'static str),
    /// Any other string.
    Text(&'a str),
    /// A number.
    Number(i64),
}

/// A recorded step of a trace. The step ends with [`end`](Self::end), or when its last reference is dropped.
pub trait Span: fmt::Debug + Send + Sync {
    /// The trace id, the span id and the flags of this step.
    fn position(&self) -> Position;

    /// Begins a step inside this step.
    fn child(&self, kind: StepKind, name: &'static str) -> Arc<dyn Span>;

    /// Sets an attribute.
    fn set(&self, key: &'static str, value: Value<'_>);

    /// Replaces the name of the step.
    fn rename(&self, name: String);

    /// Sets `error.type`. `failed` sets the error status.
    fn set_error(&self, error: &str, failed: bool);

    /// Ends the step. Later changes are ignored.
    fn end(&self);
}

impl Position {
    /// Parses the `traceparent` header. Returns `None` if the header is missing, repeated or invalid.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// Parses the value of `traceparent` (W3C Trace Context §3.2). A later version may have more fields at its end.
    /// This parser also works in builds without OpenTelemetry.
    ///
    /// A test compares the result with OpenTelemetry's propagator.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = (text.get(..LENGTH)?, text.get(LENGTH..)?);
        let [version, flags] = [read_hex::<1>(known.get(..2)?)?, read_hex::<1>(known.get(53..)?)?];
        let are_separated = [2, 35, 52].into_iter().all(|at| known.get(at) == Some(&b'-'));
        let ends = match (version, rest) {
            ([0xff], _) => false,
            (_, []) => true,
            ([0], _) => false,
            (_, [next, ..]) => *next == b'-',
        };
        if !are_separated || !ends {
            return None;
        }
        let (trace, span) = (read_hex(known.get(3..35)?)?, read_hex(known.get(36..52)?)?);
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags: flags[0] })
    }

    /// Whether the sender records the trace.
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The value of `traceparent`.
    pub fn header(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut write = |from: usize, bytes: &[u8]| write_hex(text.get_mut(from..).unwrap_or_default(), bytes);
        write(3, &self.trace);
        write(36, &self.span);
        write(53, &[self.flags]);
        unindexed(HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("")))
    }
}

impl Trace {
    /// The trace of the current task.
    pub fn current() -> Self {
        Context::with_trace(Self::clone).unwrap_or_default()
    }

    /// The current span, or `None` if this process does not record the trace.
    pub const fn span(&self) -> Option<&Arc<dyn Span>> {
        match self {
            Self::Recorded(span) => Some(span),
            Self::None | Self::Unrecorded { .. } => None,
        }
    }

    /// Calls `write` with each known trace field for a log line: `trace_id`, `span_id` and `trace_flags`.
    pub fn log(&self, mut write: impl FnMut(&'static str, &[u8])) {
        let (trace, span, flags) = match self {
            Self::None => return,
            Self::Unrecorded { id, flags } => (*id, None, *flags),
            Self::Recorded(span) => {
                let Position { trace, span, flags } = span.position();
                (trace, Some(span), Some(flags))
            }
        };
        let mut text = [0; 32];
        let mut field = |name, bytes: &[u8]| {
            write_hex(&mut text, bytes);
            write(name, text.get(..2 * bytes.len()).unwrap_or_default());
        };
        field("trace_id", &trace);
        if let Some(span) = span {
            field("span_id", &span);
        }
        if let Some(flags) = flags {
            field("trace_flags", &[flags]);
        }
    }
}

/// Begins a step of the current request, if its trace is recorded.
pub fn begin(kind: StepKind, name: &'static str) -> Option<Arc<dyn Span>> {
    Context::with_trace(|trace| trace.span().map(|span| span.child(kind, name))).flatten()
}

/// Runs a future as a step of the current request. Nested steps are children of this step.
///
/// # Errors
/// The error of the future.
pub async fn step<T, E>(
    name: &'static str,
    operation: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(span) = begin(StepKind::Internal, name) else { return work.await };
    span.set("rotogate.operation", Value::Fixed(operation));
    let done = inside(Some(&span), work).await;
    if done.is_err() {
        span.set_error("failed", true);
    }
    span.end();
    done
}

/// Runs a future inside a span. `None` means no new span.
pub async fn inside<F: Future>(span: Option<&Arc<dyn Span>>, work: F) -> F::Output {
    match (span, Context::current()) {
        (Some(span), Some(context)) => context.traced_by(Trace::Recorded(Arc::clone(span))).scope(work).await,
        _ => work.await,
    }
}

/// Trace Context allows only lower-case hex digits.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        values[digit(value) as usize] = value;
        value += 1;
    }
    values
};

const fn digit(value: u8) -> u8 {
    value + b'0' + (value > 9) as u8 * (b'a' - b'9' - 1)
}

// Avoid branches for performance.

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        if let [high, low] = pair {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
    }
}

fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (mut bytes, mut all) = ([0; N], 0);
    let value = |digit: u8| VALUES.get(usize::from(digit)).copied().unwrap_or(0xff);
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        if let [high, low] = pair {
            let (high, low) = (value(*high), value(*low));
            all |= high | low;
            *byte = high << 4 | low;
        }
    }
    (all < 16).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn p45_a_position_is_read_only_in_the_form_of_its_version() {
        let position = Position::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(position.trace[..2], [0x0a, 0xf7]);
        assert_eq!((position.span[7], position.flags, position.is_sampled()), (0x31, 1, true));
        assert_eq!(position.header(), GOOD);
        assert!(position.header().is_sensitive());
        for good in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(Position::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        ] {
            assert_eq!(Position::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn p45_two_positions_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(Position::from_headers(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Position::from_headers(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Position::from_headers(&headers), None, "nobody can tell which counts");
    }

    #[test]
    fn p45_what_is_written_is_read_back() {
        for byte in 1..=255 {
            let position = Position { trace: [byte; 16], span: [byte ^ 0xff | 1; 8], flags: byte };
            assert_eq!(Position::parse(position.header().as_bytes()), Some(position));
        }
    }
}
