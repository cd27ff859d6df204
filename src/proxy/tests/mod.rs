mod addresses;
mod bodies;
mod connections;
mod heads;
mod pools;
mod support;
