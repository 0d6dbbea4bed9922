//! What the fuzz targets hold the product against: readers of their own, written from the
//! standards and slow, which share no code with it.

pub mod json;
pub mod server;
pub mod whatwg;
