mod bodies;
mod connections;
mod heads;
mod support;
