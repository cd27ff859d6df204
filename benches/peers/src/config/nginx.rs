//! nginx.

use std::net::SocketAddr;

use super::Common;
use crate::client::Speech;
use crate::limits::Limits;
use crate::tls;

/// Whom `auth_request` asks, and where.
#[derive(Clone, Copy)]
pub enum Asked {
    /// A server that answers with a status alone.
    Server(SocketAddr),
    /// A gate's authorizer, set up as in `examples/nginx`.
    Gate(SocketAddr),
}

/// A line with about what rotogate's has.
const LOG_FORMAT: &str = r#"log_format bench escape=json '{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr",'
        '"method":"$request_method","host":"$host","path":"$request_uri","protocol":"$server_protocol","status":$status,'
        '"sent":$body_bytes_sent,"took":$request_time,"upstream":"$upstream_addr","upstream_status":"$upstream_status",'
        '"upstream_took":"$upstream_response_time","agent":"$http_user_agent"}';"#;

/// The parts of the configuration that ask.
#[derive(Default)]
struct Question {
    upstream: String,
    rule: &'static str,
    location: &'static str,
}

/// What the question to a gate says of the request, beside the client's headers.
const ASK_THE_GATE: &str = r#"location = /auth {
            internal;
            proxy_pass http://auth/;
            proxy_pass_request_body off;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            proxy_set_header X-Forwarded-Method $request_method;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Uri $request_uri;
            proxy_set_header X-Forwarded-For $remote_addr;
        }
        location @refused { add_header WWW-Authenticate $gate_challenge always; return 403; }"#;
/// What the upstream gets: the identity from the answer, and nothing of that kind from the client.
const BY_THE_GATE: &str = r#"auth_request /auth;
            auth_request_set $auth_subject $upstream_http_x_auth_subject;
            auth_request_set $auth_account $upstream_http_x_auth_account;
            auth_request_set $auth_client $upstream_http_x_auth_client;
            auth_request_set $auth_scope $upstream_http_x_auth_scope;
            auth_request_set $auth_session $upstream_http_x_auth_session;
            auth_request_set $gate_challenge $upstream_http_www_authenticate;
            proxy_set_header X-Auth-Subject $auth_subject;
            proxy_set_header X-Auth-Account $auth_account;
            proxy_set_header X-Auth-Client $auth_client;
            proxy_set_header X-Auth-Scope $auth_scope;
            proxy_set_header X-Auth-Session $auth_session;
            proxy_set_header X-Auth-Expires "";
            proxy_set_header X-User "";
            proxy_set_header Remote-User "";
            proxy_set_header X-Remote-User "";
            proxy_set_header X-Forwarded-User "";
            proxy_set_header X-Forwarded-Email "";
            proxy_set_header X-Original-Url "";
            proxy_set_header X-Original-Uri "";
            proxy_set_header X-Rewrite-Url "";
            proxy_set_header X-Http-Method-Override "";
            proxy_set_header Authorization "";
            proxy_set_header Connection "";
            error_page 403 = @refused;"#;

impl Question {
    fn to(asked: Asked) -> Self {
        let upstream =
            |address| format!("upstream auth {{ server {address}; keepalive 64; keepalive_requests 1000000000; }}");
        match asked {
            Asked::Server(address) => Self {
                upstream: upstream(address),
                rule: "auth_request /auth;",
                // A header set here removes the inherited ones, `Connection` included, and with it keep-alive.
                location: r#"location = /auth {
            internal;
            proxy_pass http://auth;
            proxy_pass_request_body off;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
        }"#,
            },
            Asked::Gate(address) => Self { upstream: upstream(address), rule: BY_THE_GATE, location: ASK_THE_GATE },
        }
    }
}

/// One worker, keep-alive on both sides and to the auth server.
pub fn nginx(common: Common<'_>, asked: Option<Asked>) -> String {
    let Common { listen, upstream, folder, keys, logs, tls, speech } = common;
    let files = Limits::get().files;
    let folder = folder.display();
    // By default root's nginx runs its workers as another user, which has no access to our folder.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let Question { upstream: auth, rule, location } = asked.map(Question::to).unwrap_or_default();
    let listen = match tls {
        true => format!(
            "{listen} ssl http2; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3",
            tls::certificate(keys).display(),
            tls::key(keys).display()
        ),
        false if common.is_grpc() => format!("{listen} http2"),
        false => listen.to_string(),
    };
    let log = if logs { format!("{folder}/access.log bench buffer=64k flush=1s") } else { "off".to_owned() };
    let forward = match speech {
        Speech::Calls(_) => "grpc_pass grpc://app;",
        Speech::Messages => {
            "proxy_pass http://app; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
        }
        // Without its defaults, which keep long bodies in files.
        Speech::Upload(_) | Speech::Download(_) => {
            "proxy_pass http://app; client_max_body_size 0; proxy_request_buffering off; proxy_max_temp_file_size 0;"
        }
        _ => "proxy_pass http://app;",
    };
    format!(
        r#"{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {files}; }}
http {{
    {LOG_FORMAT}
    access_log {log};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream app {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    {auth}
    server {{
        listen {listen};
        location / {{
            {rule}
            {forward}
        }}
        {location}
    }}
}}
"#
    )
}
