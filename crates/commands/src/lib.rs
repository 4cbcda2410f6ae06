//! The ClearML agent's commands that are not a service: init, doctor.
