//! `grpc.health.v1`, the server's half, and the generated types of both halves.
//!
//! Every service that the server has shares one state: it serves once it can take a session, until it stops. The
//! subtle thing is Watch: its stream ends when the state's owner is gone, which is how a stopping server ends it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::limits;
use proto::health_check_response::ServingStatus;
use proto::health_server::{Health, HealthServer};
use proto::{HealthCheckRequest, HealthCheckResponse};

/// The messages and tonic code of `proto/grpc/health/v1`, generated and committed.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub(crate) mod proto {
    include!("../gen/grpc.health.v1.rs");
}

/// Names that health knows: the server as a whole and its services.
const SERVICES: [&str; 4] = ["", "skytorch.v1.Session", "skytorch.v1.Transfer", "skytorch.v1.Metrics"];

/// The health service whose state is `serving`.
pub(super) fn server(serving: watch::Receiver<bool>) -> HealthServer<impl Health> {
    HealthServer::new(HealthCalls { serving }).max_decoding_message_size(limits::HEALTH_REQUEST_BYTES)
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn state(serving: bool) -> HealthCheckResponse {
    response(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
}

struct HealthCalls {
    serving: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Health for HealthCalls {
    type WatchStream = StateStream;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found(format!("this server has no service \"{service}\"")));
        }
        Ok(Response::new(state(*self.serving.borrow())))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<StateStream>, Status> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let first = if known { state(*self.serving.borrow()) } else { response(ServingStatus::ServiceUnknown) };
        Ok(Response::new(StateStream { known, first: Some(first), change: next_change(self.serving.clone()) }))
    }
}

type Change = Pin<Box<dyn Future<Output = Option<watch::Receiver<bool>>> + Send>>;

/// Waits for a change after the last one that this receiver has seen; `None` when there will be no more.
fn next_change(mut serving: watch::Receiver<bool>) -> Change {
    Box::pin(async move { serving.changed().await.ok().map(|()| serving) })
}

/// The state at once, then at each change; for a service that is not known, one answer and silence.
pub(super) struct StateStream {
    known: bool,
    first: Option<HealthCheckResponse>,
    change: Change,
}

impl Stream for StateStream {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            let Some(mut serving) = ready!(self.change.as_mut().poll(context)) else {
                return Poll::Ready(None);
            };
            let now = state(*serving.borrow_and_update());
            self.change = next_change(serving);
            if self.known {
                return Poll::Ready(Some(Ok(now)));
            }
        }
    }
}
