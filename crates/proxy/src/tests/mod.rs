mod addresses;
mod bodies;
mod connections;
mod heads;
mod kept;
mod pools;
mod support;
