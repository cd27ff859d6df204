//! The handler of a listener's requests.

use std::sync::Arc;

use futures_util::future::Either;
use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::authorizer::{self, Questions, VerdictFuture};
use super::request::{self, Served, Serving};
use super::request_record::{self, LoggedBody};
use crate::server::listen::connection::RequestHandler;
use crate::server::listen::origin::Origin;
use rotogate::gate::Reason;
use rotogate_core::headers::Present;

#[derive(Clone, Debug)]
pub(crate) struct GateHandler {
    pub(crate) serving: Serving,
    pub(crate) questions: Option<Arc<Questions>>,
}

impl RequestHandler for GateHandler {
    type Body = LoggedBody;
    type Reply = Either<Served, VerdictFuture>;

    fn handle(&self, origin: &Arc<Origin>, request: Request<Incoming>, present: Present) -> Self::Reply {
        let state = self.serving.load_full();
        match &self.questions {
            Some(questions) => {
                Either::Right(authorizer::answer(state, Arc::clone(origin), Arc::clone(questions), request))
            }
            None => {
                let permit = state.enter(origin, request.headers());
                Either::Left(request::serve(state, origin, (request, present), permit))
            }
        }
    }

    fn unread(&self, origin: &Origin, status: StatusCode, what: &'static str) {
        request_record::record_unread(&self.serving.load(), origin, status, Reason::BAD_HEAD.with_detail(what));
    }
}
