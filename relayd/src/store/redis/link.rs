//! Connections to the server: one for each thread that asks, so that no call changes threads. Every wait has an end.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, Value};
use tokio::sync::watch;

use super::health::Health;
use super::script;
use crate::store::StoreError;

/// Commands that go out together at most: replies of more would pile up on both sides.
const PIPELINED_MAX: usize = 500;
/// How often longer an answer may take that no call waits for.
const PATIENCE: u32 = 20;

/// Why the server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It did not answer in time.
    #[error("it did not answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// Some of what was to be applied at once had been applied before.
    #[error("a run of records was applied in part")]
    InPart,
    /// What was asked of it before it was lost is not waited for.
    #[error("the connection to it was given up")]
    GivenUp,
    /// Its answer came when it was taken for away.
    #[error("its answer came too late")]
    TooLate,
    /// It failed, and is not back yet; why it failed.
    #[error("{0}")]
    Away(String),
    /// It answered otherwise than its scripts do.
    #[error("it gave an answer that none of the scripts gives")]
    Unexpected,
}

impl From<LinkError> for StoreError {
    fn from(error: LinkError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// What only one value is to blame for keeps nothing else from being used.
impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match is_of_a_value(&error) {
            true => Self::Damaged { what: "value on the server", source: Box::new(error) },
            false => Self::Unavailable(Box::new(error)),
        }
    }
}

/// The way to the server.
pub(super) struct Link {
    client: Client,
    connect_timeout: Duration,
    timeout: Duration,
    connections: Mutex<HashMap<ThreadId, MultiplexedConnection>>,
    /// Held while a connection is made: those who need the same one wait for it, and make none of their own.
    connecting: tokio::sync::Mutex<()>,
    /// How often the connections were let go of.
    resets: watch::Sender<u64>,
}

impl Link {
    pub(super) fn new(client: Client, connect_timeout: Duration, timeout: Duration) -> Self {
        Self {
            client,
            connect_timeout,
            timeout,
            connections: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            resets: watch::Sender::default(),
        }
    }

    /// Asks something that a call waits for. If the answer is late, the server is looked at: while it is alive it is
    /// waited for, because it may be this process that is slow.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        health: &Health,
    ) -> Result<T, StoreError> {
        let mut answer = pin!(self.unless_reset(self.send(command)));
        for _ in 0..PATIENCE {
            if let Ok(value) = tokio::time::timeout(self.timeout, &mut answer).await {
                return read(value?);
            }
            if !health.is_alive(2 * self.timeout).await {
                break;
            }
        }
        Err(LinkError::Silent(self.timeout).into())
    }

    /// Asks something that tells whether the server is alive.
    pub(super) async fn probe<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        read(within(self.timeout, self.unless_reset(self.send(command))).await?)
    }

    /// Asks something that may take its time.
    pub(super) async fn ask_patiently<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        read(within(self.timeout * PATIENCE, self.unless_reset(self.send(command))).await?)
    }

    /// Sends commands without waiting for each; gives their answers in order. The first that fails fails all,
    /// though others may have been carried out.
    pub(super) async fn ask_all(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, StoreError> {
        let mut answers = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let mut pipeline = Pipeline::with_capacity(PIPELINED_MAX);
            for command in commands.by_ref().take(PIPELINED_MAX) {
                pipeline.add_command(command);
            }
            let sent = self.unless_reset(self.send_all(&pipeline));
            answers.extend(within(self.timeout * PATIENCE, sent).await?);
        }
        Ok(answers)
    }

    /// Lets go of all connections, and of whoever waits for them: the next call makes a new one.
    pub(super) fn reset(&self) {
        self.connections().clear();
        self.resets.send_modify(|resets| *resets = resets.wrapping_add(1));
    }

    async fn unless_reset<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut resets = self.resets.subscribe();
        tokio::select! {
            biased;
            answer = answer => answer,
            _ = resets.changed() => Err(LinkError::GivenUp.into()),
        }
    }

    async fn send(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut connection = self.connection().await?;
        match command.query_async(&mut connection).await {
            Err(error) if is_forgetful(&error) => {
                script::loading().exec_async(&mut connection).await?;
                Ok(command.query_async(&mut connection).await?)
            }
            Err(error) => Err(self.failed(error)),
            Ok(value) => Ok(value),
        }
    }

    async fn send_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let mut connection = self.connection().await?;
        match pipeline.query_async(&mut connection).await {
            // Every script may be run again, and those that knew theirs have done so.
            Err(error) if is_forgetful(&error) => {
                script::loading().exec_async(&mut connection).await?;
                Ok(pipeline.query_async(&mut connection).await?)
            }
            Err(error) if is_in_part(&error) => Err(LinkError::InPart.into()),
            Err(error) => Err(self.failed(error)),
            Ok(answers) => Ok(answers),
        }
    }

    /// The calling thread's connection.
    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let thread = std::thread::current().id();
        let known = || self.connections().get(&thread).cloned();
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        script::loading().exec_async(&mut connection).await?;
        self.connections().insert(thread, connection.clone());
        Ok(connection)
    }

    fn failed(&self, error: RedisError) -> StoreError {
        if error.is_unrecoverable_error() {
            self.connections().remove(&std::thread::current().id());
        }
        error.into()
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<ThreadId, MultiplexedConnection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|_| LinkError::Unexpected.into())
}

async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(LinkError::Silent(timeout).into()))
}

/// The value has another type than it should have, or a script does not understand it.
fn is_of_a_value(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| {
        errors.first().is_some_and(|(_, error)| {
            error.code() == "WRONGTYPE" || error.details().is_some_and(|text| text.contains("user_script"))
        })
    })
}

/// What failed first was a run that was applied in part.
fn is_in_part(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.first().is_some_and(|(_, error)| error.code() == "INPART"))
}

/// The server was told to forget its scripts.
fn is_forgetful(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}
