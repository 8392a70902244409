//! The routers as a whole, with stand-ins for what is behind them.

mod document;
mod drain;
mod hostile;
mod publish;
mod read;
mod support;
