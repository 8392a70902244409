//! Tests of an engine over real sockets. Every test runs on both engines.

/// Runs tests on each engine. A test is a function that takes the engine.
macro_rules! on_both_engines {
    ($($name:ident)*) => {
        mod native {
            $( #[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(roomcast::config::EngineKind::Native).await;
            } )*
        }
        mod socketioxide {
            $( #[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(roomcast::config::EngineKind::Socketioxide).await;
            } )*
        }
    };
}

mod doors;
mod rfc6455;
mod slow;
mod suite;
