//! What consumers do: transfers whose content is checked at the other end.

pub mod burst;
pub mod chatter;
pub mod content;
pub mod junk;
pub mod stream;
pub mod tcp;
pub mod udp;
