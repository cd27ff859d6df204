mod addresses;
mod bodies;
mod connections;
mod heads;
mod http2;
mod kept;
mod pools;
mod support;
