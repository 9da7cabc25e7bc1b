//! A group that runs the workflow component, in JSON.
//!
//! Relies on the client library. Promises that a refusal of the component is an error of its kind. Knows
//! the names of no command.

use anyhow::Result;
use quorate_client::{Consistency, Error as ClientError, Group, Outcome, Session, SessionOptions, value};
use serde_json::Value;

use crate::arguments::ConnectionArguments;
use crate::{connection, setup};

/// A session in a group.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    group: Group,
    session: Session,
}

/// What became of a command.
#[derive(Debug)]
pub(super) enum Became {
    /// It was carried out.
    Done,
    /// It was refused, with this name and sentence.
    Refused(String, String),
}

/// An answer as JSON; a component may answer with nothing at all.
fn decode(body: &[u8]) -> Result<Value> {
    if body.is_empty() { Ok(Value::Null) } else { Ok(value::cbor_to_json(body)?) }
}

impl Remote {
    pub(super) async fn connect(group: &str, connection: &ConnectionArguments) -> Result<Self> {
        let client = connection::connect(connection).await?;
        let group = setup::find_group(&client, group).await?;
        let session = group.session(SessionOptions::default()).await?;
        Ok(Self { group, session })
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// Submits a command and returns its answer.
    pub(super) async fn command(&self, name: &str, body: &Value) -> Result<Value> {
        match self.session.submit(name, value::json_to_cbor(body)?).await? {
            Outcome::Done { body, .. } => decode(&body),
            Outcome::Rejected(rejection) => Err(ClientError::Rejected(rejection).into()),
        }
    }

    /// Submits a command whose refusal is no error.
    pub(super) async fn attempt(&self, name: &str, body: &Value) -> Result<Became> {
        match self.session.submit(name, value::json_to_cbor(body)?).await? {
            Outcome::Done { .. } => Ok(Became::Done),
            Outcome::Rejected(rejection) => Ok(Became::Refused(rejection.name, rejection.message)),
        }
    }

    /// Asks and returns the answer.
    pub(super) async fn query(&self, name: &str, body: &Value) -> Result<Value> {
        let answer = self.group.query(name, value::json_to_cbor(body)?, Consistency::Linearizable).await?;
        decode(&answer.body)
    }

    /// Ends the session; one that cannot be ended expires by itself.
    pub(super) async fn close(self) -> Result<()> {
        if let Err(error) = self.session.close().await {
            tracing::debug!(%error, "the session was left to expire");
        }
        Ok(())
    }
}
