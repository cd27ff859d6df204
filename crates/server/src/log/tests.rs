//! Tests of the log, and the list of the fields of the access log, which its documents and its schema are made of.

mod access_fields;
