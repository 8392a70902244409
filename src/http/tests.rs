//! Tests of the whole routers, with stand-ins for the components behind them.

mod document;
mod drain;
mod hostile;
mod publish;
mod read;
mod support;
