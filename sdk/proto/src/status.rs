//! [`Error`] as a gRPC status and back.
//!
//! Relies on prost. Promises that an error survives the way through a status, and that a status which
//! carries none is seen as such. Knows no service.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::v1::{Error, ErrorCode, LeaderHint};

impl Error {
    /// An error that names no leader.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), leader: None }
    }

    /// This node does not lead the group.
    #[must_use]
    pub fn not_leader(leader: Option<LeaderHint>) -> Self {
        let message = match &leader {
            Some(hint) => format!("node {} leads the group; send the request there", hint.node),
            None => "this node does not lead the group and knows no leader; try again shortly".to_owned(),
        };
        Self { code: ErrorCode::NotLeader.into(), message, leader }
    }

    /// The status that carries this error in its details.
    #[must_use]
    pub fn to_status(&self) -> Status {
        Status::with_details(grpc_code(self.code()), self.message.clone(), Bytes::from(self.encode_to_vec()))
    }

    /// The error that a status carries, if it carries one.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        if status.details().is_empty() {
            return None;
        }
        let error = Self::decode(status.details()).ok()?;
        (error.code() != ErrorCode::Unspecified).then_some(error)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.to_status()
    }
}

/// The code that generic gRPC tools understand.
fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::NotLeader
        | ErrorCode::RequiresByzantine
        | ErrorCode::ComponentRefused
        | ErrorCode::DeploymentSuperseded => Code::FailedPrecondition,
        ErrorCode::Overloaded | ErrorCode::TooManySessions | ErrorCode::WindowFull => Code::ResourceExhausted,
        ErrorCode::UnknownGroup | ErrorCode::SessionExpired | ErrorCode::NotFound => Code::NotFound,
        ErrorCode::SequenceStale | ErrorCode::TooLarge | ErrorCode::Invalid | ErrorCode::NotSigned => {
            Code::InvalidArgument
        }
        ErrorCode::LeadershipLost | ErrorCode::ApplyHalted => Code::Aborted,
        ErrorCode::Unauthorized => Code::PermissionDenied,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::Unavailable | ErrorCode::ShuttingDown => Code::Unavailable,
        ErrorCode::Internal | ErrorCode::Unspecified => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_a_status() {
        let hint = LeaderHint { node: 2, address: "127.0.0.1:7102".into(), term: 7 };
        let error = Error::not_leader(Some(hint));
        let status = error.to_status();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(Error::from_status(&status), Some(error));
    }

    #[test]
    fn a_status_without_an_error_or_with_garbage_carries_none() {
        assert_eq!(Error::from_status(&Status::unavailable("gone")), None);
        let garbage = Status::with_details(Code::Internal, "x", Bytes::from_static(&[0xff; 9]));
        assert_eq!(Error::from_status(&garbage), None);
        let unspecified = Error::new(ErrorCode::Unspecified, "x").to_status();
        assert_eq!(Error::from_status(&unspecified), None);
    }

    #[test]
    fn the_descriptors_for_reflection_name_both_services() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET);
        let services: Vec<_> = set
            .iter()
            .flat_map(|set| &set.file)
            .flat_map(|file| &file.service)
            .map(|service| service.name().to_owned())
            .collect();
        assert_eq!(services, ["Client", "Admin"]);
    }
}
